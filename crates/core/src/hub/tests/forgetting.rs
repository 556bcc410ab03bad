//! What leaves memory when nobody needs it.
//!
//! Owns: documents that are idle, and those that everybody has left. Must not: test what is loaded again.
//! Next: `../memory.rs`.

use super::*;

/// A document that has been idle for longer than graphs are kept.
fn idle() -> (Stage, DocumentId) {
    let (mut stage, id) = (Stage::of(&[A]), document(1));
    let changes = chain(1, 1);
    stage.sync(A, &id, &[changes[0].hash], &[&changes[0]]);
    stage.advance(120_000);
    assert_eq!(stage.hub.footprint(), (1, 0, 0), "its graph has gone, the peer's state has not");
    (stage, id)
}

// Being idle while a peer was at it, it left the order of last use, and nothing looked at it again.
#[test]
fn an_idle_document_is_forgotten_once_its_peers_have_gone() {
    let (mut stage, _) = idle();
    stage.disconnect(A);
    stage.advance(120_000);
    assert_eq!(stage.hub.footprint(), (0, 0, 0));
}

// The same, for the application's interest in place of a peer's.
#[test]
fn an_idle_document_is_forgotten_once_nobody_watches_it() {
    let (mut stage, document) = idle();
    stage.input(Input::Watch { document: document.clone() });
    stage.disconnect(A);
    stage.advance(120_000);
    assert_eq!(stage.hub.footprint(), (1, 0, 0));
    stage.input(Input::Unwatch { document });
    stage.advance(120_000);
    assert_eq!(stage.hub.footprint(), (0, 0, 0));
}

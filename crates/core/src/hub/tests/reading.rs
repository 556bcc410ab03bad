//! What becomes of what was asked when the store cannot be read for a while.
//!
//! Owns: what the application asked for. Must not: test failed commits; `durability.rs` does.
//! Next: `../ingest.rs`.

use super::*;

/// A stored document that the application watches, whose first read has failed; `A` is a server.
fn unread() -> (Stage, DocumentId) {
    let (mut stage, id) = (Stage::of(&[]), document(1));
    stage.connect_as(A, Role::Upstream, None);
    stage.stored(&id, &chain(1, 1), 0);
    stage.holds = true;
    stage.input(Input::Watch { document: id.clone() });
    stage.fail_one();
    assert_eq!(stage.loads, [Load::Summary]);
    (stage, id)
}

// The watch went with the failed read, and the application never heard of the document again.
#[test]
fn a_watch_outlives_reads_that_fail() {
    let (mut stage, _) = unread();
    stage.advance(1_000);
    assert_eq!(stage.loads.len(), 2, "it is read again");
    stage.fail_one();
    stage.advance(1_999);
    assert_eq!(stage.loads.len(), 2, "the wait doubles");
    stage.holds = false;
    stage.advance(1);
    assert_eq!(stage.loads.len(), 3);
    assert!(!stage.take(A).is_empty(), "the server is spoken to about it");
    stage.advance(600_000);
    assert_eq!(stage.loads.len(), 3, "what was read is not read again");
}

#[test]
fn what_is_no_longer_watched_is_not_read_again() {
    let (mut stage, document) = unread();
    stage.input(Input::Unwatch { document });
    stage.disconnect(A);
    stage.advance(600_000);
    assert_eq!(stage.loads.len(), 1);
    assert_eq!(stage.hub.footprint(), (0, 0, 0));
}

//! What becomes of what was asked when the store cannot be read for a while.
//!
//! Owns: what the application and peers asked for. Must not: test failed commits; `durability.rs` does.
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

// The simulator waited for ever for an answer to what was asked before a read that failed once.
#[test]
fn a_peers_question_outlives_reads_that_fail() {
    for reads_before in 0..3 {
        let (mut stage, id) = (Stage::of(&[A]), document(1));
        let changes = chain(1, 3);
        stage.stored(&id, &changes, 2);
        stage.holds = true;
        stage.request(A, &id);
        for _ in 0..reads_before {
            stage.answer_one();
        }
        let asked = stage.loads.len();
        if stage.held.is_empty() {
            assert!(reads_before > 1, "a summary and a payload are read");
            continue;
        }
        stage.fail_one();
        assert!(matches!(stage.take(A)[..], [Said::Error(_)]), "the peer is told once");
        stage.advance(1_000);
        assert_eq!(stage.loads.len(), asked + 1, "it is read again");
        stage.fail_one();
        assert_eq!(stage.take(A), [], "and not with every read");
        stage.holds = false;
        stage.advance(2_000);
        let said = stage.take(A);
        assert!(
            matches!(&said[..], [Said::Sync { changes: sent, .. }, ..] if sent.len() == changes.len()),
            "{said:?} after {reads_before} reads"
        );
        stage.disconnect(A);
        stage.advance(600_000);
        assert_eq!(stage.hub.footprint(), (0, 0, 0));
    }
}

#[test]
fn a_peer_that_goes_on_asking_keeps_a_few_questions_and_its_connection() {
    let (mut stage, id) = (Stage::of(&[A]), document(1));
    stage.stored(&id, &chain(1, 1), 0);
    stage.holds = true;
    (0..20).for_each(|_| stage.request(A, &id));
    stage.fail_one();
    stage.disconnect(A);
    stage.advance(600_000);
    assert_eq!(stage.loads.len(), 1, "nobody is left to read it for");
    assert_eq!((stage.closed.len(), stage.hub.footprint()), (0, (0, 0, 0)));
}

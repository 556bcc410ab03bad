//! One document, many peers: what each is sent and when, and what a slow one costs.
//!
//! Owns: windows and the wait for acknowledgements. Must not: assert how messages are encoded.
//! Next: `durability.rs`; `../respond.rs`; docs/architecture.md "Windows".

use super::*;

#[test]
fn a_congested_peer_gets_one_message_with_everything_once_it_reads() {
    let mut stage = Stage::with(Limits { queue_messages_max: 1, ..Limits::default() });
    let (id, changes) = (document(1), chain(1, 5));
    for session in [A, B, C] {
        stage.connect(session);
        stage.sync(session, &id, &[], &[]);
    }
    stage.input(Input::Drained { session: A });
    stage.input(Input::Drained { session: C });
    stage.forget_sent();
    for change in &changes {
        stage.sync(A, &id, &[change.hash], &[change]);
        stage.sync(C, &id, &[change.hash], &[]);
        stage.input(Input::Drained { session: A });
        stage.input(Input::Drained { session: C });
    }
    let head = changes[4].hash;
    assert!(stage.take(B).is_empty(), "B does not read");
    assert_eq!(stage.take(C).len(), 5, "C reads and acknowledges, and gets each at once");
    stage.input(Input::Drained { session: B });
    let hashes: Vec<_> = changes.iter().map(|change| change.hash).collect();
    assert_eq!(stage.take(B), [with_changes(&[head], &hashes)]);
}

#[test]
fn a_peer_that_does_not_acknowledge_gets_fewer_and_larger_messages() {
    let mut stage = Stage::of(&[A, B]);
    let (id, changes) = (document(1), chain(1, 40));
    stage.sync(A, &id, &[], &[]);
    stage.sync(B, &id, &[], &[]);
    stage.forget_sent();
    for change in &changes {
        stage.sync(A, &id, &[change.hash], &[change]);
        stage.advance(10);
    }
    stage.advance(5_000);
    let said = stage.take(B);
    let received: Vec<_> = said
        .iter()
        .flat_map(|said| match said {
            Said::Sync { changes, .. } => changes.clone(),
            other => panic!("no sync: {other:?}"),
        })
        .collect();
    assert_eq!(received, changes.iter().map(|change| change.hash).collect::<Vec<_>>(), "all, once, in order");
    assert!(said.len() <= 8, "each wait is twice the last: {} messages", said.len());
}

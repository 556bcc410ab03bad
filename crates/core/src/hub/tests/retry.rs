//! A server that does not take what it is sent, and takes it later, or never.
//!
//! Owns: when something is offered again. Must not: test why a server refuses.
//! Next: `../retry.rs`.

use super::*;
use crate::native::RefusalReason;

const MINUTE: u64 = 60_000;

/// A stage with a server that has been sent the third change of a document.
fn offered() -> (Stage, DocumentId, Vec<Change>) {
    let mut stage = Stage::new();
    let (id, changes) = (document(1), chain(1, 3));
    stage.connect_native(A, Role::Upstream);
    stage.stored(&id, &changes[..2], 0);
    stage.input(Input::Initiate { session: A, document: id.clone() });
    stage.sync(A, &id, &[changes[1].hash], &[]);
    stage.local(&id, &[&changes[2]], 1);
    assert!(brings(&stage.take(A), &changes[2]), "it is sent");
    (stage, id, changes)
}

fn brings(said: &[Said], change: &Change) -> bool {
    said.iter().any(|said| matches!(said, Said::Sync { changes, .. } if changes.contains(&change.hash)))
}

fn refuse(stage: &mut Stage, id: &DocumentId, change: &Change, reason: RefusalReason) {
    let (document, hash, words) = (id.clone(), change.hash, "no room".to_owned());
    stage.pass(A, PeerMessage::Native(NativeMessage::Refused { document, hash, reason, words }));
}

/// What a server of ours says to the beginning of a conversation by somebody who has more: its heads, and that it does
/// not know the other's.
fn start_over(stage: &mut Stage, id: &DocumentId, heads: &[ChangeHash]) {
    let blank = Have { last_sync: Vec::new(), bloom: Bytes::new() };
    let statement = Statement { have: vec![blank], ..statement(heads) };
    stage.message(A, SyncMessage { statement, ..empty_message(id) });
}

#[test]
fn what_was_not_taken_is_offered_again_until_it_is() {
    let (mut stage, id, changes) = offered();
    refuse(&mut stage, &id, &changes[2], RefusalReason::NoRoomToWait);
    stage.sync(A, &id, &[changes[1].hash], &[]);
    stage.advance(29_000);
    assert!(!brings(&stage.take(A), &changes[2]), "not at once");
    stage.advance(2_000);
    assert!(!stage.take(A).is_empty(), "the conversation begins anew");
    start_over(&mut stage, &id, &[changes[1].hash]);
    assert!(brings(&stage.take(A), &changes[2]));
    stage.sync(A, &id, &[changes[2].hash], &[]);
    stage.forget_sent();
    stage.advance(120 * MINUTE);
    assert_eq!(stage.take(A), [], "it has been taken");
}

#[test]
fn a_server_that_never_takes_it_is_left_alone_after_a_while() {
    let (mut stage, id, changes) = offered();
    let mut offers = 0;
    for _ in 0..200 {
        refuse(&mut stage, &id, &changes[2], RefusalReason::Limit);
        stage.advance(MINUTE);
        if !stage.take(A).is_empty() {
            start_over(&mut stage, &id, &[changes[1].hash]);
            offers += usize::from(brings(&stage.take(A), &changes[2]));
        }
    }
    assert_eq!(offers, 6);
}

#[test]
fn what_another_device_contradicts_is_not_offered_again() {
    let (mut stage, id, changes) = offered();
    refuse(&mut stage, &id, &changes[2], RefusalReason::ActorInUse);
    stage.advance(120 * MINUTE);
    assert_eq!(stage.take(A), []);
}

// The next try, up to a quarter of an hour later, kept the document in memory although the server was gone.
#[test]
fn a_document_whose_server_has_left_before_the_next_try_is_forgotten() {
    let (mut stage, id, changes) = offered();
    for _ in 0..3 {
        refuse(&mut stage, &id, &changes[2], RefusalReason::Limit);
        stage.advance(2 * MINUTE);
    }
    refuse(&mut stage, &id, &changes[2], RefusalReason::Limit);
    stage.input(Input::Disconnected { session: A });
    (0..4).for_each(|_| stage.advance(31_000));
    assert_eq!(stage.hub.footprint(), (0, 0, 0));
}

#[test]
fn what_was_purged_meanwhile_is_not_offered_again() {
    for refused_before in [true, false] {
        let (mut stage, id, changes) = offered();
        if refused_before {
            refuse(&mut stage, &id, &changes[2], RefusalReason::NoRoomToWait);
        }
        stage.input(Input::Purged { document: id.clone() });
        if !refused_before {
            refuse(&mut stage, &id, &changes[2], RefusalReason::NoRoomToWait);
        }
        stage.forget_sent();
        stage.advance(120 * MINUTE);
        assert_eq!(stage.take(A), [], "there is nothing to offer");
    }
}

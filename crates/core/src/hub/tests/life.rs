//! Documents that are deleted and restored: who is told, who gets nothing, and in which order.
//!
//! Owns: the hub's part of docs/deletion.md. Must not: test which record stands (`crate::life`).
//! Next: `../life.rs`.

use super::*;
use crate::native::RefusalReason;
use crate::storage::Standing;

/// A document with two changes, in the store.
fn stored_document(stage: &mut Stage) -> (DocumentId, Vec<Change>) {
    let (id, changes) = (document(1), chain(1, 3));
    stage.stored(&id, &changes[..2], 0);
    (id, changes)
}

fn set(stage: &mut Stage, id: &DocumentId, deleted: bool, ticket: u64) {
    stage.input(Input::SetLife { document: id.clone(), deleted, ticket });
}

fn told_life(stage: &Stage, ticket: Option<u64>) -> Option<bool> {
    stage.told.iter().rev().find_map(|event| match event {
        Event::LifeChanged { life, ticket: of, .. } if *of == ticket => Some(life.deleted),
        _ => None,
    })
}

fn life_message(id: &DocumentId, life: Life) -> Said {
    Said::Native(NativeMessage::Life { document: id.clone(), life })
}

fn hear(stage: &mut Stage, session: SessionId, id: &DocumentId, life: Life) {
    stage.pass(session, PeerMessage::Native(NativeMessage::Life { document: id.clone(), life }));
}

fn heard(millis: u64, deleted: bool) -> Life {
    Life { stamp: Stamp::new(millis, 0), replica: ReplicaId([1; 16]), deleted }
}

#[test]
fn nobody_is_told_of_a_deletion_before_it_is_durable() {
    let mut stage = Stage::of(&[A]);
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(B, Role::Downstream);
    for session in [A, B] {
        stage.sync(session, &id, &[changes[1].hash], &[]);
    }
    stage.forget_sent();
    stage.holds = true;
    set(&mut stage, &id, true, 5);
    assert_eq!((stage.take(A), stage.take(B), told_life(&stage, Some(5))), (vec![], vec![], None));
    stage.answer_all();
    let life = stage.lives[&id];
    assert_eq!(told_life(&stage, Some(5)), Some(true));
    assert_eq!(stage.take(A), [Said::Unavailable], "a stock peer");
    assert_eq!(stage.take(B), [life_message(&id, life)]);
}

#[test]
fn a_deleted_document_gives_nothing_and_takes_nothing_however_often_it_is_offered() {
    let mut stage = Stage::of(&[A]);
    let (id, changes) = stored_document(&mut stage);
    set(&mut stage, &id, true, 1);
    for _ in 0..3 {
        stage.sync(A, &id, &[changes[2].hash], &[&changes[2]]);
        assert_eq!(stage.take(A), [Said::Unavailable], "one answer to each message");
        stage.request(A, &id);
        assert_eq!(stage.take(A), [Said::Unavailable]);
    }
    stage.advance(100_000);
    assert_eq!((stage.take(A), stage.commits.len()), (vec![], 0), "nothing by itself, nothing stored");
    assert!(stage.refused.iter().all(|(session, remark)| *session == Some(A) && *remark == Remark::Deleted));
    stage.disconnect(A);
    stage.advance(100_000);
    assert_eq!(stage.hub.footprint().0, 0, "it costs no memory");
    stage.connect(B);
    stage.sync(B, &id, &[changes[1].hash], &[]);
    assert_eq!(stage.take(B), [Said::Unavailable], "read from the store again");
}

#[test]
fn a_smaller_record_is_answered_with_ours_and_a_greater_one_stands() {
    let mut stage = Stage::new();
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(A, Role::Downstream);
    stage.connect_native(B, Role::Downstream);
    stage.sync(B, &id, &[changes[1].hash], &[]);
    stage.forget_sent();
    hear(&mut stage, A, &id, heard(100, true));
    assert_eq!(stage.take(A), [], "who said it is not told");
    assert_eq!(stage.take(B), [life_message(&id, heard(100, true))]);
    hear(&mut stage, A, &id, heard(50, false));
    assert_eq!(stage.take(A), [life_message(&id, heard(100, true))]);
    hear(&mut stage, A, &id, heard(100, true));
    assert_eq!(stage.take(A), [], "the same needs no answer");
    hear(&mut stage, A, &id, heard(200, false));
    assert_eq!(stage.take(B)[0], life_message(&id, heard(200, false)));
    assert_eq!(stage.lives[&id], heard(200, false));
}

#[test]
fn a_record_is_the_first_thing_said_to_a_server_and_said_once() {
    let mut stage = Stage::new();
    let (id, changes) = stored_document(&mut stage);
    stage.lives.insert(id.clone(), heard(100, false));
    stage.connect_native(A, Role::Upstream);
    stage.input(Input::Initiate { session: A, document: id.clone() });
    let said = stage.take(A);
    assert_eq!(said, [life_message(&id, heard(100, false)), heads_only(&[changes[1].hash])]);
    stage.local(&id, &[&changes[2]], 1);
    assert!(!stage.take(A).contains(&life_message(&id, heard(100, false))));
    set(&mut stage, &id, true, 2);
    let life = stage.lives[&id];
    assert_eq!(stage.take(A), [life_message(&id, life)]);
    stage.connect(B);
    stage.connect_as(C, Role::Upstream, None);
    stage.input(Input::Initiate { session: C, document: id.clone() });
    assert_eq!(stage.take(C), [Said::Unavailable], "a stock server is offered nothing");
}

#[test]
fn a_restored_document_is_in_sync_again_with_everyone() {
    let mut stage = Stage::of(&[A, C]);
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(B, Role::Downstream);
    for session in [A, B, C] {
        stage.sync(session, &id, &[changes[1].hash], &[]);
    }
    set(&mut stage, &id, true, 1);
    stage.sync(C, &id, &[changes[2].hash], &[&changes[2]]);
    stage.forget_sent();
    set(&mut stage, &id, false, 2);
    let life = stage.lives[&id];
    assert!(!life.deleted && told_life(&stage, Some(2)) == Some(false));
    assert_eq!(stage.closed, [C], "of it something was not taken");
    assert_eq!(stage.take(A), [], "it has everything");
    assert_eq!(stage.take(B), [life_message(&id, life)]);
    stage.sync(B, &id, &[changes[2].hash], &[&changes[2]]);
    assert_eq!(stage.take(B), [heads_only(&[changes[2].hash])]);
    assert_eq!(stage.take(A), [with_changes(&[changes[2].hash], &[changes[2].hash])]);
}

#[test]
fn a_client_begins_anew_with_its_server_when_the_server_says_that_it_is_restored() {
    let mut stage = Stage::new();
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(A, Role::Upstream);
    stage.input(Input::Watch { document: id.clone() });
    stage.sync(A, &id, &[changes[1].hash], &[]);
    hear(&mut stage, A, &id, heard(100, true));
    assert_eq!(told_life(&stage, None), Some(true), "the application hears of it");
    stage.local(&id, &[&changes[2]], 7);
    assert!(stage.told.iter().any(|event| matches!(event, Event::Saved { ticket: 7, .. })), "it was on its way");
    stage.forget_sent();
    hear(&mut stage, A, &id, heard(200, false));
    assert_eq!(stage.take(A), [heads_only(&[changes[2].hash])], "as at the first time");
    stage.sync(A, &id, &[changes[1].hash], &[]);
    assert_eq!(stage.take(A), [with_changes(&[changes[2].hash], &[changes[2].hash])]);
}

// Found by the client's tests: the message was dropped, and its sender waited for ever for an answer.
#[test]
fn what_follows_a_restoration_waits_until_it_is_durable() {
    let mut stage = Stage::new();
    let (id, changes) = stored_document(&mut stage);
    stage.lives.insert(id.clone(), heard(100, true));
    stage.connect_native(A, Role::Downstream);
    stage.holds = true;
    hear(&mut stage, A, &id, heard(200, false));
    stage.sync(A, &id, &[changes[2].hash], &[&changes[2]]);
    stage.answer_all();
    assert_eq!(stage.take(A), [heads_only(&[changes[2].hash])]);
}

#[test]
fn a_purged_document_can_come_again_from_a_peer_once_it_is_restored() {
    let mut stage = Stage::new();
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(A, Role::Downstream);
    stage.sync(A, &id, &[changes[1].hash], &[]);
    set(&mut stage, &id, true, 1);
    stage.store.remove(&id);
    stage.input(Input::Purged { document: id.clone() });
    set(&mut stage, &id, false, 2);
    stage.forget_sent();
    let all: Vec<_> = changes.iter().collect();
    stage.sync(A, &id, &[changes[2].hash], &all);
    assert_eq!(stage.take(A), [heads_only(&[changes[2].hash])]);
    assert_eq!(stage.store[&id].changes.len(), 3);
}

/// What is said to a replica that takes the document for deleted is not taken: it waited for what had been said already.
#[test]
fn whoever_was_told_something_while_it_thought_the_document_deleted_is_told_again() {
    let mut stage = Stage::new();
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(A, Role::Upstream);
    stage.input(Input::Initiate { session: A, document: id.clone() });
    set(&mut stage, &id, false, 1);
    stage.forget_sent();
    hear(&mut stage, A, &id, heard(0, true));
    let life = stage.lives[&id];
    assert_eq!(stage.take(A), [life_message(&id, life), heads_only(&[changes[1].hash])]);
}

// Its account was dropped with the deletion, and no record was told that it did not know: it waited for the answer.
#[test]
fn a_syncline_peer_whose_words_were_dropped_begins_anew_when_the_document_is_restored() {
    let mut stage = Stage::of(&[]);
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(A, Role::Downstream);
    stage.connect_native(B, Role::Downstream);
    for session in [A, B] {
        stage.sync(session, &id, &[changes[1].hash], &[]);
    }
    set(&mut stage, &id, true, 1);
    let account = crate::sync::Account { heads: vec![changes[2].hash], hashes: vec![changes[0].hash], last: false };
    stage.pass(A, PeerMessage::Native(NativeMessage::Account { document: id.clone(), account }));
    stage.forget_sent();
    set(&mut stage, &id, false, 2);
    assert_eq!([A, B].map(|session| stage.begins_anew(session)), [true, false]);
}

// It was not told of the deletion, and so had no reason to say again what it had said before.
#[test]
fn who_did_not_hear_of_a_deletion_is_answered_once_it_is_taken_back() {
    let mut stage = Stage::with(Limits { queue_messages_max: 1, ..Limits::default() });
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(A, Role::Downstream);
    stage.sync(A, &id, &[changes[1].hash], &[]);
    stage.sync(A, &id, &[changes[2].hash], &[]);
    stage.forget_sent();
    set(&mut stage, &id, true, 1);
    set(&mut stage, &id, false, 2);
    assert_eq!(stage.take(A), [], "it does not read");
    stage.input(Input::Drained { session: A });
    stage.input(Input::Drained { session: A });
    let asked = |said: &Said| matches!(said, Said::Sync { need, .. } if *need == [changes[2].hash]);
    assert!(stage.take(A).iter().any(asked), "what it has said is not forgotten");
}

// T1 seed 1200341222: the server had asked for the document and did not read. The question to it that became due meanwhile
// took the place of its own, and was not sent: "not here" was, in answer to its own. Then nothing was said to it any more.
#[test]
fn a_server_that_asked_and_read_late_is_sent_what_comes() {
    let mut stage = Stage::with(Limits { queue_messages_max: 1, ..Limits::default() });
    let (other, _) = stored_document(&mut stage);
    let (id, changes) = (document(9), chain(9, 2));
    stage.connect_native(A, Role::Upstream);
    stage.connect_native(B, Role::Downstream);
    stage.input(Input::Watch { document: other });
    stage.request(A, &id);
    set(&mut stage, &id, false, 1);
    stage.input(Input::Drained { session: A });
    stage.input(Input::Drained { session: A });
    stage.forget_sent();
    stage.sync(B, &id, &[changes[1].hash], &[&changes[0], &changes[1]]);
    let both = [changes[0].hash, changes[1].hash];
    assert_eq!(stage.take(A), [with_changes(&both[1..], &both)]);
}

/// What a peer had was known as places in the history that was purged.
#[test]
fn who_was_at_a_document_that_was_purged_begins_anew_when_it_is_restored() {
    let mut stage = Stage::of(&[A]);
    let (id, changes) = stored_document(&mut stage);
    stage.connect(B);
    stage.sync(A, &id, &[changes[0].hash], &[]);
    stage.sync(B, &id, &[changes[1].hash], &[]);
    stage.answer_all();
    set(&mut stage, &id, true, 1);
    stage.store.remove(&id);
    stage.input(Input::Purged { document: id.clone() });
    set(&mut stage, &id, false, 2);
    assert_eq!(stage.closed, [A, B], "a stock peer believes that everything is here");
    let other = chain(2, 1);
    stage.local(&id, &[&other[0]], 3);
    stage.advance(5_000);
}

/// The summary was read before the purge and arrived after it: the hub announced what no store had any more.
#[test]
fn a_summary_that_is_older_than_the_purge_is_not_believed() {
    let mut stage = Stage::of(&[A]);
    let (id, changes) = stored_document(&mut stage);
    let life = heard(100, true);
    stage.lives.insert(id.clone(), life);
    let summary = stage.store[&id].summary();
    stage.holds = true;
    stage.request(A, &id);
    stage.store.remove(&id);
    stage.held.clear();
    stage.input(Input::Purged { document: id.clone() });
    let standing = Standing { summary: Some(summary), life: Some(life), local_only: false };
    stage.input(Input::Loaded { document: id.clone(), loaded: Loaded::Summary(standing) });
    stage.holds = false;
    set(&mut stage, &id, false, 1);
    stage.forget_sent();
    let all: Vec<_> = changes.iter().collect();
    stage.sync(A, &id, &[changes[2].hash], &all);
    assert_eq!(stage.take(A), [heads_only(&[changes[2].hash])]);
    assert_eq!(stage.store[&id].changes.len(), 3);
}

#[test]
fn a_record_that_cannot_be_written_changes_nothing() {
    let mut stage = Stage::of(&[A]);
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(B, Role::Downstream);
    stage.sync(A, &id, &[changes[1].hash], &[]);
    stage.forget_sent();
    stage.holds = true;
    set(&mut stage, &id, true, 1);
    stage.fail_one();
    assert!(matches!(stage.told.last(), Some(Event::LifeFailed { ticket: 1, .. })), "{:?}", stage.told);
    hear(&mut stage, B, &id, heard(100, true));
    stage.fail_one();
    assert_eq!(stage.closed, [B], "it brings the record again when it has connected again");
    stage.answer_all();
    stage.sync(A, &id, &[changes[2].hash], &[&changes[2]]);
    stage.answer_all();
    assert_eq!(stage.take(A), [heads_only(&[changes[2].hash])]);
}

#[test]
fn a_refused_change_is_named_to_a_peer_that_announced_the_extension() {
    let mut stage = Stage::of(&[A]);
    let (id, changes) = stored_document(&mut stage);
    stage.connect_native(B, Role::Downstream);
    let stranger = impostor(1);
    for session in [A, B] {
        stage.sync(session, &id, &[stranger.hash], &[&stranger]);
    }
    let native = |said: &[Said]| said.iter().filter(|said| matches!(said, Said::Native(_))).count();
    assert_eq!(native(&stage.take(A)), 0);
    let said = stage.take(B);
    let reason = said.iter().find_map(|said| match said {
        Said::Native(NativeMessage::Refused { hash, reason, .. }) => Some((*hash, *reason)),
        _ => None,
    });
    assert_eq!(reason, Some((stranger.hash, RefusalReason::ActorInUse)));
    assert_eq!(stage.store[&id].changes, changes[..2]);
}

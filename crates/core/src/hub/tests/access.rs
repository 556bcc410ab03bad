//! Who may do what: nothing forbidden is stored, passed on or told, and what may not be read might as well not exist.
//!
//! Owns: the hub's part of docs/access.md. Must not: know tokens.
//! Next: `../access.rs`.

use std::sync::Arc;

use super::*;
use crate::access::{Grant, Permissions, Scope};
use crate::native::RefusalReason;

fn may(permissions: Permissions) -> Access {
    Access::of(vec![Grant { scope: Scope::All, may: permissions }])
}

fn only(document: &DocumentId, permissions: Permissions) -> Access {
    Access::of(vec![Grant { scope: Scope::Document(document.clone()), may: permissions }])
}

fn connect(stage: &mut Stage, session: SessionId, native: u16, access: Access) {
    let peer = PeerInfo { peer: peer(session), storage: None, role: Role::Downstream, native, access };
    stage.input(Input::Connected { session, peer, opened: OpenedDocuments::default() });
}

fn change_access(stage: &mut Stage, session: SessionId, access: Access) {
    stage.input(Input::AccessChanged { session, access });
}

fn kinds(stage: &Stage) -> Vec<&'static str> {
    stage.refused.iter().map(|(_, remark)| remark.kind()).collect()
}

fn heard(millis: u64, deleted: bool) -> Life {
    Life { stamp: Stamp::new(millis, 0), replica: ReplicaId([1; 16]), deleted }
}

/// A stage with a document of two changes.
fn stage() -> (Stage, DocumentId, Vec<Change>) {
    let (id, changes) = (document(1), chain(1, 3));
    let mut stage = Stage::new();
    stage.stored(&id, &changes[..2], 0);
    (stage, id, changes)
}

#[test]
fn a_document_that_may_not_be_read_is_answered_as_one_that_is_not_there_without_a_look_at_it() {
    let (mut stage, there, changes) = stage();
    let unknown = document(2);
    let elsewhere = document(3);
    connect(&mut stage, A, 0, only(&elsewhere, Permissions::ADMIN));
    connect(&mut stage, B, 3, only(&elsewhere, Permissions::ADMIN));
    for session in [A, B] {
        let mut answers = [&there, &unknown].map(|id| {
            stage.request(session, id);
            stage.sync(session, id, &[], &[]);
            stage.sync(session, id, &[changes[1].hash], &[]);
            stage.sync(session, id, &[changes[2].hash], &[&changes[2]]);
            let sender = peer(session);
            let (process, data) = (Arc::from("process"), Bytes::from_static(b"x"));
            stage.pass(
                session,
                PeerMessage::Ephemeral { document: id.clone(), sender, count: 1, session: process, data },
            );
            stage.pass(session, PeerMessage::DocUnavailable { document: id.clone() });
            stage
                .pass(session, PeerMessage::Native(NativeMessage::Life { document: id.clone(), life: heard(9, true) }));
            stage.advance(60_000);
            let sent = format!("{:?}", stage.take_raw(session));
            sent.replace(&format!("{id}"), "it").replace(&format!("{id:?}"), "it")
        });
        let [of_there, of_unknown] = answers.each_mut();
        assert_eq!(of_there, of_unknown);
        assert_eq!(of_there.matches("DocUnavailable").count(), 4, "{of_there}");
    }
    assert!(stage.loads.is_empty() && stage.commits.is_empty() && stage.lives.is_empty(), "nothing was looked at");
    assert_eq!(stage.hub.footprint().0, 0, "nothing is kept of what was guessed");
}

#[test]
fn changes_of_a_reader_are_neither_stored_nor_passed_on_and_it_is_told() {
    let (mut stage, id, changes) = stage();
    connect(&mut stage, A, 0, may(Permissions::READ));
    connect(&mut stage, C, 3, may(Permissions::READ));
    stage.connect(B);
    for session in [A, B, C] {
        stage.request(session, &id);
    }
    stage.forget_sent();
    for session in [A, C] {
        stage.sync(session, &id, &[changes[2].hash], &[&changes[2]]);
    }
    assert!(stage.commits.is_empty());
    assert_eq!(kinds(&stage), ["write_not_permitted"; 2]);
    stage.advance(60_000);
    assert_eq!(stage.take(B), [], "nobody hears of it");
    let told = stage.take(A);
    assert!(
        matches!(&told[..], [Said::Error(words), Said::Sync { need, .. }] if words.contains("may not be changed") && need.is_empty()),
        "{told:?}"
    );
    let refused = |said: &Said| matches!(said, Said::Native(NativeMessage::Refused { hash, reason: RefusalReason::NotPermitted, .. }) if *hash == changes[2].hash);
    assert!(stage.take(C).iter().any(refused));
    // It goes on reading.
    stage.sync(B, &id, &[changes[2].hash], &[&changes[2]]);
    stage.advance(5_000);
    assert_eq!(stage.commits.len(), 1);
    let heard = stage.take(A);
    assert!(matches!(&heard[..], [Said::Sync { heads, .. }] if *heads == [changes[2].hash]), "{heard:?}");
}

#[test]
fn a_reader_is_not_asked_for_what_it_alone_has() {
    let (mut stage, id, changes) = stage();
    connect(&mut stage, A, 0, may(Permissions::READ));
    stage.sync(A, &id, &[changes[2].hash], &[]);
    stage.advance(60_000);
    let needs = |said: &Said| matches!(said, Said::Sync { need, .. } if !need.is_empty());
    assert!(!stage.take(A).iter().any(needs));
    change_access(&mut stage, A, may(Permissions::WRITE));
    stage.sync(A, &id, &[changes[2].hash], &[]);
    assert!(stage.take(A).iter().any(needs), "who may write is");
}

#[test]
fn a_writer_does_not_create() {
    let (mut stage, there, changes) = stage();
    let new = document(2);
    connect(&mut stage, A, 0, may(Permissions::WRITE));
    stage.sync(A, &there, &[changes[2].hash], &[&changes[2]]);
    assert_eq!(stage.commits.len(), 1);
    stage.forget_sent();
    stage.sync(A, &new, &[changes[0].hash], &[&changes[0]]);
    assert_eq!((stage.commits.len(), kinds(&stage)), (1, vec!["create_not_permitted"]));
    let told = stage.take(A);
    assert!(
        matches!(&told[..], [Said::Error(_), Said::Unavailable]),
        "an answer without heads would be answered with all: {told:?}"
    );
    change_access(&mut stage, A, may(Permissions::CREATE));
    assert_eq!(stage.closed, [A], "a stock peer sends it again on another connection");
}

#[test]
fn deleting_needs_its_own_permission_and_a_record_that_is_known_does_not() {
    let (mut stage, id, _) = stage();
    connect(&mut stage, A, 3, may(Permissions::CREATE));
    connect(&mut stage, B, 3, may(Permissions::DELETE));
    let deletes = |life| PeerMessage::Native(NativeMessage::Life { document: document(1), life });
    stage.pass(A, deletes(heard(9, true)));
    assert!(stage.lives.is_empty());
    assert_eq!(kinds(&stage), ["delete_not_permitted"]);
    stage.pass(B, deletes(heard(9, true)));
    assert!(stage.lives.contains_key(&id));
    stage.pass(A, deletes(heard(9, true)));
    assert_eq!(kinds(&stage).len(), 1, "saying what is known is no deletion");
}

#[test]
fn what_was_permitted_ends_with_the_permission() {
    let (mut stage, id, changes) = stage();
    connect(&mut stage, A, 0, may(Permissions::WRITE));
    connect(&mut stage, C, 3, may(Permissions::READ));
    stage.connect(B);
    for session in [A, B, C] {
        stage.request(session, &id);
    }
    stage.forget_sent();
    change_access(&mut stage, A, Access::none());
    assert!(matches!(&stage.take(A)[..], [Said::Error(_), Said::Unavailable]));
    stage.sync(B, &id, &[changes[2].hash], &[&changes[2]]);
    stage.advance(5_000);
    assert_eq!(stage.take(A), [], "who may not read any more hears nothing more");
    assert!(!stage.take(C).is_empty());
    // A Syncline peer offers again what it may write now, on the same connection.
    let more = &chain(2, 1)[0];
    stage.sync(C, &id, &[more.hash], &[more]);
    change_access(&mut stage, C, may(Permissions::WRITE));
    stage.sync(C, &id, &[more.hash], &[more]);
    assert_eq!((stage.commits.len(), stage.closed.len()), (2, 0));
}

#[test]
fn a_client_offers_again_what_was_refused_once_it_may_do_more() {
    let (id, changes) = (document(1), chain(1, 1));
    let mut stage = Stage::new();
    stage.connect_native(A, Role::Upstream);
    stage.input(Input::Watch { document: id.clone() });
    stage.local(&id, &[&changes[0]], 1);
    stage.sync(A, &id, &[], &[]);
    let (hash, reason, words) = (changes[0].hash, RefusalReason::NotPermitted, String::new());
    stage.pass(A, PeerMessage::Native(NativeMessage::Refused { document: id.clone(), hash, reason, words }));
    stage.forget_sent();
    stage.pass(A, PeerMessage::Native(NativeMessage::Access { left_ms: None }));
    assert!(matches!(&stage.take(A)[..], [Said::Sync { .. }]), "the conversation begins anew, at once");
}

#[test]
fn somebody_else_is_asked_once_and_what_waits_for_that_keeps_its_order() {
    let (mut stage, id, changes) = stage();
    connect(&mut stage, A, 0, Access::none().asking());
    stage.request(A, &id);
    stage.sync(A, &id, &[changes[2].hash], &[&changes[2]]);
    assert_eq!(stage.asked, [(A, id.clone())]);
    assert!(stage.loads.is_empty() && stage.take(A).is_empty(), "nothing is taken before that");
    stage.input(Input::Decided { session: A, document: id.clone(), may: Permissions::WRITE });
    stage.advance(5_000);
    assert_eq!(stage.commits.len(), 1);
    // Asked again, the answer may be another one.
    stage.input(Input::Reconsider { session: A });
    assert_eq!(stage.asked.len(), 2);
    stage.forget_sent();
    stage.input(Input::Decided { session: A, document: id.clone(), may: Permissions::NONE });
    assert!(matches!(&stage.take(A)[..], [Said::Error(_), Said::Unavailable]));
    stage.request(A, &id);
    assert_eq!(stage.asked.len(), 3, "a refusal is not remembered here");
    stage.input(Input::Decided { session: A, document: id, may: Permissions::NONE });
    assert!(matches!(&stage.take(A)[..], [Said::Error(_), Said::Unavailable]));
}

#[test]
fn without_room_nothing_is_taken_everything_is_read_and_afterwards_it_comes_again() {
    let (mut stage, id, changes) = stage();
    stage.connect(A);
    connect(&mut stage, B, 3, Access::full());
    stage.input(Input::Room { has_room: false });
    stage.request(A, &id);
    assert!(matches!(&stage.take(A)[..], [Said::Sync { changes, .. }] if changes.len() == 2), "it is read");
    for session in [A, B] {
        stage.sync(session, &id, &[changes[2].hash], &[&changes[2]]);
    }
    assert!(stage.commits.is_empty());
    assert_eq!(kinds(&stage), ["no_room"; 2]);
    stage.forget_sent();
    stage.input(Input::Room { has_room: true });
    assert_eq!(stage.closed, [A], "a stock peer sends it again on another connection");
    let told = stage.take(B);
    assert!(told.contains(&Said::Native(NativeMessage::Access { left_ms: None })), "a Syncline peer at once: {told:?}");
    stage.sync(B, &id, &[changes[2].hash], &[&changes[2]]);
    assert_eq!(stage.commits.len(), 1);
}

// The second time was taken for a repetition of the first, because what came for that had not been acknowledged.
#[test]
fn what_was_brought_in_vain_is_asked_for_each_time_that_there_is_room_again() {
    let (mut stage, id, changes) = stage();
    stage.connect_native(A, Role::Upstream);
    connect(&mut stage, B, 1, Access::full());
    for _ in 0..3 {
        stage.input(Input::Room { has_room: false });
        for session in [A, B] {
            stage.sync(session, &id, &[changes[2].hash], &[&changes[2]]);
        }
        stage.forget_sent();
        stage.input(Input::Room { has_room: true });
        assert_eq!([A, B].map(|session| stage.begins_anew(session)), [true, true]);
    }
    assert!(stage.closed.is_empty() && stage.commits.is_empty());
    stage.sync(B, &id, &[changes[2].hash], &[&changes[2]]);
    stage.input(Input::Room { has_room: true });
    assert_eq!([A, B].map(|session| stage.begins_anew(session)), [false, false], "it has been taken");
}

// That the document is not here was said in the place of it, and nothing after it.
#[test]
fn what_was_brought_in_vain_of_a_document_that_is_not_here_is_asked_for_once_the_queue_is_empty() {
    let (id, changes) = (document(1), chain(1, 2));
    let mut stage = Stage::with(Limits { queue_messages_max: 1, ..Limits::default() });
    stage.connect_native(A, Role::Upstream);
    stage.input(Input::Initiate { session: A, document: id.clone() });
    stage.input(Input::Initiate { session: A, document: document(2) });
    assert_eq!(stage.awaiting_drain, [A], "the queue is full");
    stage.input(Input::Room { has_room: false });
    stage.sync(A, &id, &[changes[0].hash], &[&changes[0]]);
    stage.input(Input::Room { has_room: true });
    stage.forget_sent();
    stage.input(Input::Drained { session: A });
    assert!(stage.begins_anew(A));
}

#[test]
fn a_document_that_is_full_takes_nothing_more_from_peers_and_names_the_limit() {
    for (limits, name) in [
        (Limits { document_changes_max: 2, ..Limits::default() }, "document_changes_max"),
        (Limits { document_bytes_max: 1, ..Limits::default() }, "document_bytes_max"),
    ] {
        let (id, changes) = (document(1), chain(1, 3));
        let mut stage = Stage::with(limits);
        stage.stored(&id, &changes[..2], 0);
        stage.connect(A);
        stage.sync(A, &id, &[changes[2].hash], &[&changes[2]]);
        assert_eq!((stage.commits.len(), kinds(&stage)), (0, vec![name]));
        let told = stage.take(A);
        assert!(matches!(&told[..], [Said::Error(words), ..] if words.contains(name)), "{told:?}");
        stage.local(&id, &[&changes[2]], 1);
        assert_eq!(stage.commits.len(), 1, "the machine's own is not bounded");
    }
}

// What it had said before came from the inbox afterwards, and with it the peer came back to the document.
#[test]
fn who_may_not_read_any_more_hears_nothing_although_something_it_said_still_waits() {
    for deleted in [false, true] {
        let (mut stage, id, changes) = stage();
        connect(&mut stage, A, 3, may(Permissions::CREATE));
        connect(&mut stage, B, 0, may(Permissions::CREATE));
        if deleted {
            stage.lives.insert(id.clone(), heard(9, true));
        }
        stage.holds = true;
        stage.sync(A, &id, &[changes[2].hash], &[&changes[2]]);
        change_access(&mut stage, A, Access::none());
        stage.forget_sent();
        stage.holds = false;
        stage.answer_all();
        let count = stage.store[&id].changes.len();
        assert_eq!(count, if deleted { 2 } else { 3 }, "it might when it said so");
        stage.advance(60_000);
        stage.input(Input::SetLife { document: id.clone(), deleted: !deleted, ticket: 1 });
        assert_eq!(stage.take(A), [], "deleted before: {deleted}");
    }
}

#[test]
fn nobody_is_spoken_to_first_who_may_not_read() {
    let (mut stage, id, _) = stage();
    connect(&mut stage, A, 3, Access::none());
    connect(&mut stage, B, 3, may(Permissions::READ));
    for session in [A, B] {
        stage.input(Input::Initiate { session, document: id.clone() });
        stage.input(Input::Offer { session, document: id.clone() });
    }
    assert_eq!((stage.take(A).len(), stage.take(B).len()), (0, 1));
}

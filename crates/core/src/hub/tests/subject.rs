//! Whose changes are: an actor is the first subject's, and what a subject stores is bounded.
//!
//! Owns: the hub's part of docs/access.md "Actors", docs/server.md "What a subject stores". Must not: know tokens.
//! Next: `../subject.rs`.

use super::*;
use crate::access::{Grant, Permissions, Scope};
use crate::native::RefusalReason;

fn named(subject: &str, permissions: Permissions) -> Access {
    let access = Access::of(vec![Grant { scope: Scope::All, may: permissions }]);
    Access { subject: Some(subject.into()), ..access }
}

fn enter(stage: &mut Stage, session: SessionId, (native, role): (u16, Role), access: Access) {
    let peer = PeerInfo { peer: peer(session), storage: None, role, native, access };
    stage.input(Input::Connected { session, peer, opened: OpenedDocuments::default() });
}

/// Peers that may write, each a subject of its own: A is alice, a stock peer, B is bob, a Syncline one.
fn stage(limits: Limits) -> Stage {
    let mut stage = Stage::with(limits);
    enter(&mut stage, A, (0, Role::Downstream), named("alice", Permissions::CREATE));
    enter(&mut stage, B, (3, Role::Downstream), named("bob", Permissions::CREATE));
    stage
}

fn binding() -> Limits {
    Limits { bind_actors: true, ..Limits::default() }
}

fn kinds(stage: &Stage) -> Vec<&'static str> {
    stage.refused.iter().map(|(_, remark)| remark.kind()).collect()
}

fn count(stage: &Stage, id: &DocumentId) -> usize {
    stage.store.get(id).map_or(0, |stored| stored.changes.len())
}

fn bytes(changes: &[Change]) -> u64 {
    changes.iter().map(|change| change.bytes.len() as u64).sum()
}

/// Sends each change in a message of its own.
fn send(stage: &mut Stage, session: SessionId, id: &DocumentId, changes: &[Change]) {
    for change in changes {
        stage.sync(session, id, &[change.hash], &[change]);
    }
}

#[test]
fn a_change_in_the_name_of_another_subjects_actor_is_refused_and_its_owner_goes_on() {
    let (id, changes) = (document(1), chain(1, 3));
    let mut stage = stage(binding());
    send(&mut stage, A, &id, &changes[..1]);
    stage.forget_sent();
    // The second change of alice's actor: it would use up her next number.
    send(&mut stage, B, &id, &changes[1..2]);
    assert_eq!((count(&stage, &id), kinds(&stage)), (1, vec!["actor_of_another_subject"]));
    let told = stage.take_raw(B);
    let refused = told.iter().find_map(|message| match message {
        Outgoing::Native(NativeMessage::Refused { hash, reason, words, .. }) => Some((*hash, *reason, words.clone())),
        _ => None,
    });
    let (hash, reason, words) = refused.expect("a Syncline peer is told which");
    assert_eq!((hash, reason), (changes[1].hash, RefusalReason::ActorInUse));
    assert!(words.contains("belongs to another subject"), "{words}");
    send(&mut stage, A, &id, &changes[1..]);
    assert_eq!(count(&stage, &id), 3);
}

#[test]
fn an_actor_belongs_to_its_subject_in_every_document_and_after_a_restart() {
    let (id, other) = (document(1), document(2));
    let changes = chain(1, 2);
    let mut first = stage(binding());
    send(&mut first, A, &id, &changes[..1]);
    assert_eq!(first.commits[0].contributions[0].actors, [changes[0].actor.clone()], "in the same commit");
    let mut again = stage(binding());
    again.store = first.store;
    send(&mut again, B, &other, &changes);
    assert_eq!((count(&again, &other), kinds(&again)[0]), (0, "actor_of_another_subject"));
    assert!(again.take(B).contains(&Said::Unavailable), "it does not wait for an answer for ever");
    send(&mut again, A, &other, &changes);
    assert_eq!(count(&again, &other), 2);
    assert!(again.commits.iter().all(|commit| commit.contributions.is_empty()), "what is known is not written again");
}

#[test]
fn who_passes_on_what_others_wrote_owns_nothing_and_is_refused_nothing() {
    for (role, permissions) in [(Role::Neighbour, Permissions::CREATE), (Role::Downstream, Permissions::ADMIN)] {
        let (id, changes) = (document(1), chain(1, 3));
        let mut stage = stage(Limits { subject_bytes_max: Some(bytes(&changes)), ..binding() });
        enter(&mut stage, C, (4, role), named("relay", permissions));
        send(&mut stage, C, &id, &changes[..1]);
        send(&mut stage, A, &id, &changes[1..2]);
        send(&mut stage, C, &id, &changes[2..]);
        assert_eq!((count(&stage, &id), kinds(&stage)), (3, vec![]), "{role:?}");
        let subjects = stage.commits.iter().flat_map(|commit| &commit.contributions).map(|of| of.subject.to_string());
        assert_eq!(subjects.collect::<Vec<_>>(), ["alice"]);
    }
}

#[test]
fn changes_that_waited_for_others_are_still_whose_they_were() {
    let (id, changes) = (document(1), chain(1, 3));
    let mut stage = stage(binding());
    send(&mut stage, A, &id, &changes[..1]);
    // Bob's forgery comes before what it builds on, alice brings that.
    send(&mut stage, B, &id, &changes[2..]);
    send(&mut stage, A, &id, &changes[1..2]);
    assert_eq!((count(&stage, &id), kinds(&stage)), (2, vec!["actor_of_another_subject"]));
}

#[test]
fn whoever_is_not_a_peer_is_bound_too() {
    let (id, changes) = (document(1), chain(1, 2));
    let mut stage = stage(binding());
    send(&mut stage, A, &id, &changes[..1]);
    let on_behalf = |subject: &str, ticket| Input::OnBehalf {
        subject: subject.into(),
        document: id.clone(),
        changes: changes[1..].to_vec(),
        ticket,
    };
    stage.input(on_behalf("bob", 7));
    assert!(matches!(&stage.told[..], [Event::NotSaved { ticket: 7, message, .. }] if message.contains("actor")));
    stage.input(on_behalf("alice", 8));
    assert_eq!(count(&stage, &id), 2);
}

#[test]
fn a_subject_stores_no_more_than_it_may_in_all_documents_together_and_the_error_names_the_limit() {
    let (changes, others) = (chain(1, 2), chain(2, 2));
    let max = bytes(&changes) + bytes(&others[..1]);
    let mut stage = stage(Limits { subject_bytes_max: Some(max), ..Limits::default() });
    send(&mut stage, A, &document(1), &changes);
    send(&mut stage, A, &document(2), &others[..1]);
    assert!(kinds(&stage).is_empty());
    stage.forget_sent();
    send(&mut stage, A, &document(2), &others[1..]);
    assert_eq!((count(&stage, &document(2)), kinds(&stage)), (1, vec!["subject_bytes_max"]));
    let told = stage.take(A);
    let words = told.iter().find_map(|said| if let Said::Error(words) = said { Some(words) } else { None });
    assert!(words.expect("an error").contains("subject_bytes_max"), "{told:?}");
    // Bob has nothing stored.
    send(&mut stage, B, &document(2), &others[1..]);
    assert_eq!(count(&stage, &document(2)), 2);
}

#[test]
fn what_is_not_stored_counts_for_nobody() {
    let (id, changes) = (document(1), chain(1, 2));
    let mut stage = stage(Limits { subject_bytes_max: Some(bytes(&changes)), ..Limits::default() });
    send(&mut stage, A, &document(2), &[]);
    stage.stored(&id, &changes[..1], 0);
    stage.store.get_mut(&id).expect("stored").contributions =
        vec![Contribution { subject: "alice".into(), actors: Vec::new(), bytes: bytes(&changes[..1]) }];
    for _ in 0..3 {
        stage.holds = true;
        send(&mut stage, A, &id, &changes[1..]);
        while !matches!(stage.held.front(), Some(Output::Persist { .. })) {
            assert!(stage.answer_one(), "its change is on its way to the store");
        }
        stage.fail_one();
        stage.holds = false;
        stage.answer_all();
        stage.disconnect(A);
        enter(&mut stage, A, (0, Role::Downstream), named("alice", Permissions::CREATE));
    }
    send(&mut stage, A, &id, &changes[1..]);
    assert_eq!(count(&stage, &id), 2);
    assert!(!kinds(&stage).contains(&"subject_bytes_max"));
}

#[test]
fn a_limit_that_is_raised_is_told_to_those_who_met_it() {
    let (id, changes) = (document(1), chain(1, 3));
    for limits in [
        Limits { subject_bytes_max: Some(bytes(&changes[..1])), ..Limits::default() },
        Limits { document_changes_max: 1, ..Limits::default() },
    ] {
        let mut stage = stage(limits);
        send(&mut stage, A, &id, &changes[..2]);
        send(&mut stage, B, &id, &changes[1..2]);
        assert_eq!(count(&stage, &id), if stage.refused.len() == 2 { 1 } else { 2 });
        // Permissions that are decided anew change nothing about it.
        stage.input(Input::AccessChanged { session: A, access: named("alice", Permissions::CREATE) });
        assert!(stage.closed.is_empty());
        stage.input(Input::Limits(Box::default()));
        assert_eq!(stage.closed, [A], "a stock peer comes again with what it brought in vain");
        send(&mut stage, B, &id, &changes[1..]);
        assert_eq!(count(&stage, &id), 3);
    }
}

#[test]
fn a_document_expires_unless_somebody_is_at_it_or_it_has_changed() {
    let (id, changes) = (document(1), chain(1, 2));
    let mut stage = Stage::of(&[A]);
    stage.stored(&id, &changes[..1], 0);
    let expire = |changes: &[Change], ticket| Input::Expire {
        document: id.clone(),
        heads: vec![changes.last().expect("some").hash],
        ticket,
    };
    stage.sync(A, &id, &[changes[0].hash], &[]);
    stage.input(expire(&changes[..1], 1));
    assert!(stage.lives.is_empty() && matches!(stage.told[..], [Event::LifeFailed { ticket: 1, .. }]));
    stage.disconnect(A);
    stage.input(expire(&changes, 2));
    assert!(stage.lives.is_empty() && matches!(stage.told[1], Event::LifeFailed { ticket: 2, .. }));
    stage.input(expire(&changes[..1], 3));
    assert!(stage.lives[&id].deleted && matches!(stage.told[2], Event::LifeChanged { ticket: Some(3), .. }));
    stage.input(expire(&changes[..1], 4));
    assert!(matches!(stage.told[3], Event::LifeFailed { ticket: 4, .. }), "it is deleted already");
    stage.input(Input::SetLife { document: id.clone(), deleted: false, ticket: 5 });
    assert!(!stage.lives[&id].deleted, "it can be restored");
}

//! What the store has not committed does not exist: for peers, for their acknowledgements, for the application.
//!
//! Owns: commits that are late or fail, and changes that are refused. Must not: test who is sent what (`fanout.rs`).
//! Next: `../ingest.rs`.

use std::sync::{Arc, Weak};

use super::*;

fn persists(stage: &Stage) -> usize {
    stage.held.iter().filter(|output| matches!(output, Output::Persist { .. })).count()
}

/// Peers at an empty document, which have said so.
fn at_empty(sessions: &[SessionId]) -> (Stage, DocumentId) {
    let (mut stage, id) = (Stage::of(sessions), document(1));
    for session in sessions {
        stage.sync(*session, &id, &[], &[]);
    }
    stage.forget_sent();
    (stage, id)
}

#[test]
fn nothing_is_sent_before_it_is_durable() {
    let (mut stage, id) = at_empty(&[A, B]);
    let changes = chain(1, 1);
    let heads = [changes[0].hash];
    stage.holds = true;
    stage.sync(A, &id, &heads, &[&changes[0]]);
    assert_eq!(persists(&stage), 1);
    stage.advance(5_000);
    stage.sync(B, &id, &[], &[]);
    let shown = [stage.take(A), stage.take(B)].concat();
    assert!(shown.iter().all(|said| *said == heads_only(&[])), "{shown:?}");
    stage.connect(C);
    stage.request(C, &id);
    assert_eq!(stage.take(C), [Said::Unavailable], "who comes in the meantime sees nothing either");
    stage.answer_all();
    assert_eq!(stage.take(A), [heads_only(&heads)], "the acknowledgement");
    assert_eq!(stage.take(B), [with_changes(&heads, &heads)]);
    assert_eq!(stage.take(C), [with_changes(&heads, &heads)]);
}

#[test]
fn commits_of_one_document_follow_each_other_without_waiting() {
    let (mut stage, id) = at_empty(&[A, B]);
    let changes = chain(1, 3);
    stage.holds = true;
    for change in &changes {
        stage.sync(A, &id, &[change.hash], &[change]);
    }
    let before: Vec<_> = stage.commits.iter().map(|commit| (commit.changes_before, commit.heads.clone())).collect();
    let expected: Vec<_> = changes.iter().enumerate().map(|(n, change)| (n as u32, vec![change.hash])).collect();
    assert_eq!(before, expected);
    stage.answer_one();
    assert_eq!(stage.take(A), [heads_only(&[changes[0].hash])], "acknowledged as far as it is durable");
    stage.answer_all();
    assert_eq!(stage.take(A).last(), Some(&heads_only(&[changes[2].hash])));
    assert_eq!(stage.store[&id].changes.len(), 3);
}

#[test]
fn a_repeated_upload_is_committed_once() {
    let (mut stage, id) = at_empty(&[A]);
    let changes = chain(1, 2);
    let all: Vec<_> = changes.iter().collect();
    for _ in 0..3 {
        stage.sync(A, &id, &[changes[1].hash], &all);
        assert_eq!(stage.take(A), [heads_only(&[changes[1].hash])], "each upload is acknowledged");
    }
    assert_eq!(stage.commits.len(), 1);
}

#[test]
fn persist_failure_closes_the_author_and_shows_nothing() {
    let (mut stage, id) = at_empty(&[A, B]);
    let changes = chain(1, 2);
    stage.holds = true;
    stage.sync(A, &id, &[changes[0].hash], &[&changes[0]]);
    stage.sync(A, &id, &[changes[1].hash], &[&changes[1]]);
    stage.fail_one();
    assert_eq!(stage.closed, [A], "once, whatever it has under way");
    assert!(matches!(&stage.take(A)[..], [Said::Error(message)] if message.contains("disk is full")));
    assert!(matches!(stage.refused[..], [(Some(A), Remark::Store(_))]));
    // The second commit, on top of the failed one, is answered in whatever way; it counts for nothing.
    stage.fail_one();
    assert_eq!(stage.closed, [A]);
    stage.disconnect(A);
    stage.advance(5_000);
    assert_eq!(stage.take(B), []);
    // The document works again: the same author comes back and sends all of it.
    stage.holds = false;
    stage.connect(C);
    stage.sync(C, &id, &[changes[1].hash], &[&changes[0], &changes[1]]);
    let heads = [changes[1].hash];
    assert_eq!(stage.take(C), [heads_only(&heads)]);
    assert_eq!(stage.take(B), [with_changes(&heads, &[changes[0].hash, changes[1].hash])]);
}

#[test]
fn a_second_upload_by_another_peer_after_failure_works() {
    let (mut stage, id) = at_empty(&[A, B]);
    let changes = chain(1, 1);
    let heads = [changes[0].hash];
    stage.holds = true;
    stage.sync(A, &id, &heads, &[&changes[0]]);
    stage.fail_one();
    stage.holds = false;
    stage.sync(B, &id, &heads, &[&changes[0]]);
    assert_eq!(stage.take(B), [heads_only(&heads)]);
    assert_eq!(stage.store[&id].heads, heads);
}

/// On a stored document the graph is read again: what was pushed onto it in memory is not there.
#[test]
fn after_a_failure_a_stored_document_is_read_anew() {
    let (mut stage, id) = (Stage::of(&[A, B]), document(1));
    let changes = chain(1, 3);
    stage.stored(&id, &changes[..1], 0);
    stage.holds = true;
    stage.sync(A, &id, &[changes[1].hash], &[&changes[1]]);
    stage.answer_one();
    stage.answer_one();
    assert_eq!(persists(&stage), 1);
    stage.fail_one();
    stage.holds = false;
    stage.loads.clear();
    stage.sync(B, &id, &[changes[2].hash], &[&changes[1], &changes[2]]);
    assert_eq!(stage.loads, [Load::Graph]);
    assert_eq!(stage.take(B).last(), Some(&heads_only(&[changes[2].hash])));
    assert_eq!(stage.store[&id].changes.len(), 3);
}

/// Its message was taken for "already here" while the first author's commit was under way.
#[test]
fn whoever_sent_the_same_change_is_cut_off_with_its_author() {
    let (mut stage, id) = at_empty(&[A, B, C]);
    let changes = chain(1, 1);
    stage.holds = true;
    for session in [A, B] {
        stage.sync(session, &id, &[changes[0].hash], &[&changes[0]]);
    }
    assert_eq!(stage.commits.len(), 1);
    stage.fail_one();
    assert_eq!(stage.closed, [A, B], "C sent nothing and stays");
}

/// Orphans are dropped with the graph; a stock client sends nothing twice on one connection.
#[test]
fn whoever_sent_a_change_that_waited_for_a_failed_one_is_cut_off_too() {
    for completed in [false, true] {
        let (mut stage, id) = at_empty(&[A, B, C]);
        let changes = chain(1, 3);
        stage.holds = true;
        stage.sync(B, &id, &[changes[1].hash], &[&changes[1]]);
        let brought = &changes[if completed { 0 } else { 2 }];
        if completed {
            stage.sync(A, &id, &[brought.hash], &[brought]);
            assert_eq!(stage.commits[0].changes.len(), 2, "the orphan goes with what it waited for");
        } else {
            let own = chain(2, 1);
            stage.sync(A, &id, &[own[0].hash], &[&own[0]]);
        }
        stage.fail_one();
        assert_eq!(stage.closed, [A, B], "completed: {completed}");
    }
}

#[test]
fn a_change_that_waits_comes_with_what_it_waited_for() {
    let (mut stage, id) = at_empty(&[A, B]);
    let changes = chain(1, 2);
    stage.sync(A, &id, &[changes[1].hash], &[&changes[1]]);
    let need = vec![changes[0].hash];
    assert_eq!(stage.take(A), [Said::Sync { heads: vec![], need, changes: vec![] }]);
    assert!(stage.commits.is_empty());
    stage.sync(B, &id, &[changes[0].hash], &[&changes[0]]);
    assert_eq!(stage.store[&id].changes.len(), 2);
    assert_eq!(stage.take(A), [heads_only(&[changes[1].hash])]);
}

#[test]
fn changes_that_wait_are_bounded_and_the_peer_is_told() {
    let mut stage = Stage::with(Limits { orphans_max: 1, ..Limits::default() });
    stage.connect(A);
    let (id, changes) = (document(1), chain(1, 4));
    stage.sync(A, &id, &[changes[3].hash], &[&changes[2], &changes[3]]);
    let refused: Vec<_> = stage.refused.iter().map(|(session, remark)| (*session, remark.kind())).collect();
    assert_eq!(refused, [(Some(A), "change_orphans_full")]);
    assert!(matches!(stage.take(A)[0], Said::Error(_)));
}

/// A peer that sends such changes and goes, over and over, must not fill the memory.
#[test]
fn what_waits_goes_with_the_session_that_sent_it() {
    let (mut stage, id) = (Stage::of(&[A]), document(1));
    stage.holds = true;
    let changes = chain(1, 2);
    stage.sync(A, &id, &[changes[1].hash], &[&changes[1]]);
    stage.disconnect(A);
    // The document's summary comes after the sender has gone.
    stage.holds = false;
    stage.answer_all();
    stage.advance(120_000);
    assert_eq!(stage.hub.footprint(), (0, 0, 0));
}

/// The sweep had passed the document while its peer was idle, and did not come back.
#[test]
fn a_document_whose_last_peer_leaves_late_is_forgotten() {
    let (mut stage, id) = (Stage::of(&[A]), document(1));
    stage.sync(A, &id, &[], &[]);
    stage.advance(120_000);
    stage.disconnect(A);
    stage.advance(120_000);
    assert_eq!(stage.hub.footprint(), (0, 0, 0));
}

#[test]
fn refused_change_is_told_counted_and_the_rest_of_the_message_taken() {
    let (mut stage, id) = at_empty(&[A, B]);
    let (mine, other) = (chain(1, 2), chain(2, 1));
    stage.sync(A, &id, &[mine[0].hash], &[&mine[0]]);
    stage.forget_sent();
    let lie = impostor(1);
    stage.sync(B, &id, &[lie.hash, other[0].hash], &[&lie, &other[0]]);
    assert!(matches!(&stage.refused[..], [(Some(B), remark)] if remark.kind() == "change_duplicate_sequence"));
    let heads = [mine[0].hash, other[0].hash];
    // B has not acknowledged the first change: the next word to it waits, and does not repeat what was sent.
    stage.advance(30);
    let told = stage.take(B);
    let [Said::Error(message), rest @ ..] = &told[..] else { panic!("{told:?}") };
    assert!(message.contains(&lie.hash.to_string()) && message.contains(&id.to_string()), "{message}");
    assert_eq!(rest, [heads_only(&heads)], "the lie is not asked for again");
    assert_eq!(stage.take(A), [with_changes(&heads, &[other[0].hash])]);
    assert_eq!(stage.store[&id].heads, sorted(&heads));
    stage.sync(A, &id, &[mine[1].hash], &[&mine[1]]);
    assert_eq!(stage.store[&id].changes.len(), 3, "the honest author goes on");
}

#[test]
fn a_change_refused_by_its_bytes_is_not_asked_for() {
    let (mut stage, id) = at_empty(&[A]);
    let bad = ChangeHash([9; 32]);
    let statement = Statement { with_changes: true, ..statement(&[bad]) };
    stage.message(A, SyncMessage { statement, refused: vec![bad], ..empty_message(&id) });
    let told = stage.take(A);
    assert!(told.iter().all(|said| matches!(said, Said::Sync { need, .. } if need.is_empty())), "{told:?}");
}

#[test]
fn local_changes_are_saved_once_they_are_durable() {
    let (mut stage, id) = at_empty(&[A]);
    let changes = chain(1, 1);
    stage.holds = true;
    stage.local(&id, &[&changes[0]], 7);
    assert_eq!((stage.told.len(), stage.take(A).len()), (0, 0));
    stage.answer_all();
    assert_eq!(stage.told, [Event::Saved { document: id.clone(), ticket: 7 }]);
    assert_eq!(stage.take(A), [with_changes(&[changes[0].hash], &[changes[0].hash])]);
    stage.local(&id, &[&changes[0]], 8);
    assert_eq!(stage.told.last(), Some(&Event::Saved { document: id, ticket: 8 }), "it is there already");
}

// The simulator found them called saved when they were handed over again while a peer's copy was on its way to the disk.
#[test]
fn local_changes_that_a_peer_has_just_sent_are_saved_with_the_peers_commit() {
    let (mut stage, id) = at_empty(&[A]);
    let changes = chain(1, 2);
    stage.holds = true;
    stage.sync(A, &id, &[changes[0].hash], &[&changes[0]]);
    stage.local(&id, &[&changes[0]], 7);
    assert!(stage.told.is_empty(), "{:?}", stage.told);
    stage.answer_all();
    assert_eq!(stage.told, [Event::Saved { document: id.clone(), ticket: 7 }]);
    stage.connect(B);
    stage.sync(B, &id, &[changes[1].hash], &[&changes[1]]);
    stage.local(&id, &[&changes[1]], 8);
    stage.fail_one();
    assert!(matches!(stage.told[1..], [Event::NotSaved { ticket: 8, .. }]), "{:?}", stage.told);
}

#[test]
fn local_changes_that_fail_or_are_refused_are_not_saved() {
    let (mut stage, id) = at_empty(&[A]);
    let changes = chain(1, 1);
    stage.holds = true;
    stage.local(&id, &[&changes[0]], 1);
    stage.fail_one();
    assert!(
        matches!(&stage.told[..], [Event::NotSaved { ticket: 1, message, .. }] if message.contains("disk is full"))
    );
    stage.holds = false;
    stage.local(&id, &[&changes[0]], 2);
    stage.local(&id, &[&impostor(1)], 3);
    assert!(matches!(stage.told[1..], [Event::Saved { ticket: 2, .. }, Event::NotSaved { ticket: 3, .. }]));
    assert!(matches!(stage.refused.last(), Some((None, Remark::Change(_)))));
    assert!(stage.closed.is_empty());
}

#[test]
fn who_watches_hears_of_changes_and_of_their_origin() {
    let (mut stage, id) = at_empty(&[A]);
    stage.input(Input::Watch { document: id.clone() });
    let changes = chain(1, 2);
    stage.sync(A, &id, &[changes[0].hash], &[&changes[0]]);
    let changed = |change: &Change, origin| Event::Changed {
        document: id.clone(),
        changes: vec![change.bytes.clone()],
        heads: vec![change.hash],
        origin,
    };
    assert!(stage.told.contains(&changed(&changes[0], Some(A))), "{:?}", stage.told);
    stage.local(&id, &[&changes[1]], 1);
    assert!(stage.told.contains(&changed(&changes[1], None)));
    stage.sync(A, &id, &[changes[1].hash], &[]);
    let (session, heads) = (A, vec![changes[1].hash]);
    let state = Event::PeerState { document: id.clone(), session, heads, has_all: true };
    assert_eq!(stage.told.last(), Some(&state));
    stage.input(Input::Unwatch { document: id.clone() });
    stage.told.clear();
    stage.sync(A, &id, &[], &[]);
    assert_eq!(stage.told, []);
}

impl Stage {
    /// Sends changes with a receipt, and returns what tells whether the hub still holds it.
    fn sync_with_receipt(&mut self, session: SessionId, id: &DocumentId, changes: &[&Change]) -> Weak<()> {
        let token = Arc::new(());
        let held = Arc::downgrade(&token);
        let heads: Vec<_> = changes.iter().map(|change| change.hash).collect();
        let changes: Vec<_> = changes.iter().map(|change| (*change).clone()).collect();
        let statement = Statement { with_changes: !changes.is_empty(), ..statement(&heads) };
        let message = PeerMessage::Sync(Box::new(SyncMessage { changes, statement, ..empty_message(id) }));
        self.input(Input::Received { session, message, receipt: Receipt::new(token) });
        held
    }
}

fn is_held(held: &Weak<()>) -> bool {
    held.strong_count() > 0
}

#[test]
fn a_receipt_is_held_through_loads_and_until_the_commit_is_done() {
    let (mut stage, id) = at_empty(&[]);
    stage.connect(A);
    stage.holds = true;
    let other = document(2);
    let changes = chain(1, 2);
    let first = stage.sync_with_receipt(A, &other, &[&changes[0]]);
    let question = stage.sync_with_receipt(A, &other, &[]);
    assert!(is_held(&first) && is_held(&question), "the summary is being loaded");
    stage.answer_one();
    assert_eq!(persists(&stage), 1);
    assert!(is_held(&first) && is_held(&question), "the commit is on its way, the question waits behind it");
    stage.answer_one();
    assert!(!is_held(&first) && !is_held(&question), "durable and taken in");
    let repeated = stage.sync_with_receipt(A, &other, &[&changes[0]]);
    assert!(!is_held(&repeated), "nothing to wait for");
    let elsewhere = stage.sync_with_receipt(A, &id, &[]);
    stage.answer_all();
    assert!(!is_held(&elsewhere));
}

#[test]
fn a_receipt_is_let_go_when_its_message_is_given_up() {
    let mut stage = Stage::of(&[A, B]);
    stage.holds = true;
    let change = &chain(1, 1)[0];
    let loading = stage.sync_with_receipt(A, &document(1), &[change]);
    stage.fail_one();
    assert!(!is_held(&loading), "the load failed");
    let committing = stage.sync_with_receipt(A, &document(2), &[change]);
    stage.answer_one();
    assert!(is_held(&committing));
    stage.fail_one();
    assert!(!is_held(&committing), "the commit failed");
    let gone = stage.sync_with_receipt(B, &document(3), &[change]);
    stage.answer_one();
    assert!(is_held(&gone));
    stage.disconnect(B);
    assert!(!is_held(&gone), "nobody is left to hold back");
    let stranger = stage.sync_with_receipt(SessionId(9), &document(4), &[change]);
    assert!(!is_held(&stranger));
}

//! Documents that stay on one machine: peers get the same answers as about documents that are not there.
//!
//! Owns: the hub's part of docs/protocol.md §4, "Documents that stay on one machine". Must not: know what those answers
//! are: each scenario is played over a hub without the document, too.
//! Next: `../local.rs`.

use std::sync::Arc;

use super::*;

/// Three changes, of which the first two are to be stored.
fn history() -> (DocumentId, Vec<Change>) {
    (document(1), chain(1, 3))
}

fn set(stage: &mut Stage, id: &DocumentId, local_only: bool, ticket: u64) {
    stage.input(Input::SetLocalOnly { document: id.clone(), local_only, ticket });
}

fn is_saved(stage: &Stage, ticket: u64) -> bool {
    stage.told.iter().any(|event| matches!(event, Event::Saved { ticket: of, .. } if *of == ticket))
}

/// A stage with the document stored and kept here, and one without it; the same peers at both.
fn stages(connect: impl Fn(&mut Stage)) -> [Stage; 2] {
    let (id, changes) = history();
    let mut holding = Stage::new();
    holding.stored(&id, &changes[..2], 1);
    holding.local_only.insert(id);
    let mut stages = [holding, Stage::new()];
    stages.iter_mut().for_each(connect);
    stages
}

/// Plays the same on both, and requires that the peer cannot tell them apart. Returns what it was sent.
#[track_caller]
fn check(stages: &mut [Stage; 2], session: SessionId, play: impl Fn(&mut Stage)) -> Vec<Said> {
    stages.iter_mut().for_each(|stage| {
        play(stage);
        stage.advance(5_000);
    });
    let [holding, without] = stages.each_mut().map(|stage| stage.take_raw(session));
    assert_eq!(holding, without);
    holding.iter().map(said).collect()
}

#[test]
fn who_asks_for_a_document_that_stays_here_hears_what_it_hears_of_one_that_is_not() {
    let (id, changes) = history();
    let mut stages = stages(|stage| {
        stage.connect(A);
        stage.connect_native(B, Role::Downstream);
    });
    for session in [A, B] {
        for _ in 0..2 {
            assert_eq!(check(&mut stages, session, |stage| stage.request(session, &id)), [Said::Unavailable]);
        }
        check(&mut stages, session, |stage| stage.sync(session, &id, &[], &[]));
        check(&mut stages, session, |stage| stage.sync(session, &id, &[changes[1].hash], &[]));
        check(&mut stages, session, |stage| {
            let asks = Statement { need: vec![changes[0].hash], ..statement(&[changes[0].hash]) };
            stage.message(session, SyncMessage { statement: asks, ..empty_message(&id) });
        });
        check(&mut stages, session, |stage| {
            stage.pass(session, PeerMessage::DocUnavailable { document: id.clone() });
        });
    }
    assert!(stages[0].commits.is_empty() && stages[0].loads.iter().all(|load| *load == Load::Summary));
}

#[test]
fn what_peers_say_to_each_other_at_such_a_document_passes_as_elsewhere() {
    let (id, _) = history();
    let mut stages = stages(|stage| [A, B].into_iter().for_each(|session| stage.connect(session)));
    stages[0].input(Input::Watch { document: id.clone() });
    let speak = |stage: &mut Stage, from: SessionId, count| {
        let (sender, session) = (peer(from), Arc::from("process"));
        let data = Bytes::from_static(b"x");
        stage.pass(from, PeerMessage::Ephemeral { document: id.clone(), sender, count, session, data });
    };
    check(&mut stages, B, |stage| speak(stage, B, 1));
    let heard = check(&mut stages, B, |stage| speak(stage, A, 1));
    assert_eq!(heard, [Said::Ephemeral(1)]);
    assert!(!stages[0].told.iter().any(|event| matches!(event, Event::Ephemeral { .. })), "it is not ours");
    check(&mut stages, B, |stage| {
        let data = Bytes::from_static(b"y");
        let (sender, session) = (PeerId::new("own").expect("a name"), Arc::from("own process"));
        if stage.local_only.contains(&id) {
            stage.input(Input::Broadcast { document: id.clone(), sender, count: 1, session, data });
        }
    });
}

#[test]
fn nothing_is_taken_of_a_document_that_stays_here_and_nothing_is_asked_for_twice() {
    let (id, changes) = history();
    let [mut stage, _] = stages(|stage| stage.connect(A));
    for _ in 0..3 {
        stage.sync(A, &id, &[changes[2].hash], &[&changes[2]]);
        stage.advance(5_000);
    }
    assert_eq!(
        stage.take(A),
        [const { Said::Unavailable }; 3],
        "an answer without heads would be answered with all of it"
    );
    assert!(stage.commits.is_empty());
    stage.pass(A, PeerMessage::Native(NativeMessage::Life { document: id.clone(), life: heard(9, true) }));
    assert!(stage.lives.is_empty(), "whoever deletes it elsewhere does not delete it here");
}

// More changes than are remembered as refused: the head was asked for, and the whole document came again each time.
#[test]
fn nothing_is_asked_for_of_a_document_that_stays_here_however_long_its_history_is() {
    let (id, _) = history();
    let [mut stage, _] = stages(|stage| stage.connect(A));
    let long = chain(1, 80);
    let all: Vec<&Change> = long.iter().collect();
    stage.sync(A, &id, &[long[79].hash], &all);
    for ticket in 1u8..4 {
        stage.local(&id, &[&chain(ticket + 1, 1)[0]], ticket.into());
        stage.sync(A, &id, &[long[79].hash], &[]);
        stage.advance(5_000);
    }
    let asks = |said: &Said| matches!(said, Said::Sync { need, .. } if !need.is_empty());
    assert!(!stage.take(A).iter().any(asks));
}

fn heard(millis: u64, deleted: bool) -> Life {
    Life { stamp: Stamp::new(millis, 0), replica: ReplicaId([1; 16]), deleted }
}

#[test]
fn a_server_hears_nothing_of_it_whatever_the_application_does() {
    let (id, changes) = history();
    let [mut stage, _] = stages(|stage| stage.connect_native(A, Role::Upstream));
    stage.input(Input::Initiate { session: A, document: id.clone() });
    stage.input(Input::Watch { document: id.clone() });
    stage.local(&id, &[&changes[2]], 1);
    assert!(is_saved(&stage, 1), "it is a document like any other here");
    stage.input(Input::SetLife { document: id.clone(), deleted: true, ticket: 2 });
    stage.input(Input::SetLife { document: id.clone(), deleted: false, ticket: 3 });
    stage.advance(100_000);
    stage.connect_native(B, Role::Upstream);
    stage.input(Input::Initiate { session: B, document: id.clone() });
    stage.local(&id, &[&chain(2, 1)[0]], 4);
    stage.advance(5_000);
    assert_eq!((stage.take(A), stage.take(B)), (vec![], vec![]));

    set(&mut stage, &id, false, 5);
    assert!(is_saved(&stage, 5));
    for session in [A, B] {
        assert!(!stage.take(session).is_empty(), "from here on it is offered");
    }
}

#[test]
fn from_the_call_on_nothing_is_said_and_after_a_failure_it_is_as_before() {
    let (id, changes) = history();
    let mut stage = Stage::of(&[A]);
    stage.stored(&id, &changes[..2], 0);
    stage.sync(A, &id, &[changes[1].hash], &[]);
    stage.forget_sent();
    stage.holds = true;
    set(&mut stage, &id, true, 1);
    stage.sync(A, &id, &[changes[0].hash], &[]);
    stage.local(&id, &[&changes[2]], 2);
    assert_eq!((stage.take(A), is_saved(&stage, 1)), (vec![], false), "it waits for the disk");
    stage.fail_one();
    assert!(stage.told.iter().any(|event| matches!(event, Event::NotSaved { ticket: 1, .. })));
    stage.answer_all();
    assert!(!stage.take(A).is_empty(), "the conversation goes on");

    set(&mut stage, &id, true, 3);
    stage.answer_all();
    assert!(is_saved(&stage, 3));
    stage.holds = false;
    stage.local(&id, &[&chain(2, 1)[0]], 4);
    stage.advance(100_000);
    assert_eq!(stage.take(A), [], "a peer that was at the document");
    stage.request(A, &id);
    assert_eq!(stage.take(A), [Said::Unavailable]);
}

#[test]
fn the_application_hears_once_of_each_state_in_which_a_server_has_everything() {
    let (id, changes) = history();
    let mut stage = Stage::new();
    stage.connect_as(A, Role::Upstream, None);
    stage.connect(B);
    stage.stored(&id, &changes[..2], 0);
    stage.input(Input::Initiate { session: A, document: id.clone() });
    let in_step = |stage: &Stage| {
        let heads = |event: &Event| match event {
            Event::InStep { session, heads, .. } => Some((*session, heads.clone())),
            _ => None,
        };
        stage.told.iter().filter_map(heads).collect::<Vec<_>>()
    };
    stage.sync(A, &id, &[changes[0].hash], &[]);
    assert_eq!(in_step(&stage), [], "it lacks one");
    for _ in 0..2 {
        stage.sync(A, &id, &[changes[1].hash], &[]);
        stage.sync(B, &id, &[changes[1].hash], &[]);
    }
    assert_eq!(in_step(&stage), [(A, vec![changes[1].hash])]);
    stage.sync(A, &id, &[changes[2].hash], &[&changes[2]]);
    assert_eq!(in_step(&stage).len(), 2, "what it brought, it has");
    stage.local(&id, &[&chain(2, 1)[0]], 1);
    stage.advance(5_000);
    assert_eq!(in_step(&stage).len(), 2, "what it was sent, it may not have");
}

//! Neighbours in a mesh: notices in, what the mesh is told, and silence once neighbours agree.
//!
//! Owns: what a hub promises the mesh. Must not: play the mesh; the gossip crate and tests/mesh do. Next: `../mesh.rs`.

use std::sync::Arc;

use super::*;
use crate::graph::Refusal;

fn heads(changes: &[Change]) -> Vec<ChangeHash> {
    vec![changes.last().expect("some").hash]
}

/// `A` and `B` are neighbours.
fn meshed() -> Stage {
    let mut stage = Stage::of(&[]);
    stage.connect_native(A, Role::Neighbour);
    stage.connect_native(B, Role::Neighbour);
    stage
}

impl Stage {
    fn noticed(&mut self, changes: &[Change], heads: Vec<ChangeHash>, ticket: u64) {
        let (session, document, changes) = (A, document(1), changes.to_vec());
        self.input(Input::Noticed { session, document, changes, heads, ticket });
    }

    fn standings(&mut self) -> Vec<(u64, NoticeStanding)> {
        let told = std::mem::take(&mut self.meshed);
        let standing = |event| match event {
            MeshEvent::Noticed { ticket, standing } => Some((ticket, standing)),
            MeshEvent::Durable { .. } | MeshEvent::Spoken { .. } => None,
        };
        told.into_iter().filter_map(standing).collect()
    }

    fn sources(&mut self) -> Vec<(usize, Source)> {
        let told = std::mem::take(&mut self.meshed);
        let source = |event| match event {
            MeshEvent::Durable { changes, source, .. } => Some((changes.len(), source)),
            MeshEvent::Noticed { .. } | MeshEvent::Spoken { .. } => None,
        };
        told.into_iter().filter_map(source).collect()
    }
}

#[test]
fn a_notice_is_here_when_its_changes_are_durable_and_neighbours_are_not_synced_with() {
    let mut stage = meshed();
    let changes = chain(1, 2);
    stage.holds = true;
    stage.noticed(&changes, heads(&changes), 7);
    stage.answer_one();
    assert_eq!(stage.standings(), [], "it is on its way to the disk");
    stage.answer_one();
    assert_eq!(stage.standings(), [(7, NoticeStanding::Here)]);
    assert!(stage.take(A).is_empty() && stage.take(B).is_empty());
    stage.noticed(&[], heads(&changes), 8);
    assert_eq!(stage.standings(), [(8, NoticeStanding::Here)], "once more");
}

#[test]
fn a_notice_of_what_is_not_here_or_not_taken_says_so() {
    let mut stage = meshed();
    let changes = chain(1, 3);
    stage.noticed(&changes[2..], heads(&changes), 1);
    assert_eq!(stage.standings(), [(1, NoticeStanding::Missing)], "it builds on something");
    stage.noticed(&[], heads(&changes), 2);
    assert_eq!(stage.standings(), [(2, NoticeStanding::Missing)]);
    // Another change of this author has the same number.
    let mut other = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let rival = edit(&mut other, 77);
    stage.noticed(&changes[..1], heads(&changes[..1]), 3);
    stage.noticed(std::slice::from_ref(&rival), vec![rival.hash], 4);
    assert_eq!(stage.standings(), [(3, NoticeStanding::Here), (4, NoticeStanding::Refused)]);
    assert!(matches!(stage.refused[..], [(Some(A), Remark::Change(Refusal::DuplicateSequence { .. }))]));
}

#[test]
fn a_notice_whose_changes_could_not_be_stored_is_refused() {
    let mut stage = meshed();
    let changes = chain(1, 1);
    stage.holds = true;
    stage.noticed(&changes, heads(&changes), 1);
    stage.answer_one();
    stage.fail_one();
    assert_eq!(stage.standings(), [(1, NoticeStanding::Refused)]);
    assert_eq!(stage.closed, [], "nobody was told that it had arrived");
}

#[test]
fn the_mesh_is_told_what_it_does_not_know_and_how_it_came() {
    let mut stage = meshed();
    stage.connect_native(C, Role::Downstream);
    let (mine, theirs, noticed) = (chain(1, 1), chain(2, 1), chain(3, 1));
    stage.input(Input::Local { document: document(1), changes: mine, ticket: 1 });
    assert_eq!(stage.sources(), [(1, Source::Outside)]);
    stage.sync(C, &document(1), &heads(&theirs), &[&theirs[0]]);
    assert_eq!(stage.sources(), [(1, Source::Outside)], "a client's");
    stage.noticed(&noticed, heads(&noticed), 1);
    assert_eq!(stage.sources(), [(1, Source::Notice)]);
    let repaired = chain(4, 1);
    stage.sync(B, &document(1), &heads(&repaired), &[&repaired[0]]);
    assert_eq!(stage.sources(), [(1, Source::Neighbour(B))]);
}

#[test]
fn a_client_hears_of_what_a_notice_brought() {
    let mut stage = meshed();
    stage.connect_native(C, Role::Downstream);
    let (first, second) = (chain(1, 1), chain(2, 1));
    stage.sync(C, &document(1), &heads(&first), &[&first[0]]);
    stage.forget_sent();
    stage.noticed(&second, heads(&second), 1);
    assert!(!stage.take(C).is_empty());
    assert!(stage.take(A).is_empty(), "who brought it has it");
}

// Two that had both let go of a document answered each other's greeting for ever.
#[test]
fn neighbours_that_agree_let_go_of_a_document_and_do_not_answer_a_greeting() {
    let (mut stage, id) = (meshed(), document(1));
    let changes = chain(1, 2);
    stage.noticed(&changes, heads(&changes), 1);
    stage.input(Input::Initiate { session: B, document: id.clone() });
    assert_eq!(stage.take(B).len(), 1, "it is greeted");
    stage.sync(B, &id, &heads(&changes), &[]);
    assert!(stage.take(B).is_empty(), "all is said");
    stage.sync(B, &id, &heads(&changes), &[]);
    assert!(stage.take(B).is_empty(), "a greeting in agreement wants no answer");
    let later = chain(3, 1);
    stage.input(Input::Local { document: id.clone(), changes: later.clone(), ticket: 1 });
    assert!(stage.take(B).is_empty(), "what is new travels by notice");
    stage.sync(B, &id, &heads(&changes), &[]);
    assert_eq!(stage.take(B).len(), 1, "who lacks something is answered");
}

#[test]
fn a_neighbour_that_comes_and_goes_does_not_use_up_its_documents() {
    let mut stage = meshed();
    stage.hub.limits.session_documents_max = 2;
    for number in 1..=10 {
        let (id, changes) = (document(number), chain(number, 1));
        stage.sync(B, &id, &heads(&changes), &[&changes[0]]);
        assert_eq!(stage.take(B).len(), 1, "document {number} is acknowledged");
    }
    assert!(stage.refused.is_empty());
}

/// Presence crosses the mesh: words of a client of ours are told to it, and words from it come to those at the document.
#[test]
fn words_that_are_not_stored_go_to_the_mesh_and_come_from_it_once() {
    let mut stage = meshed();
    stage.connect_native(C, Role::Downstream);
    let (id, changes) = (document(1), chain(1, 1));
    stage.sync(C, &id, &heads(&changes), &[&changes[0]]);
    stage.input(Input::Watch { document: id.clone() });
    stage.forget_sent();
    stage.meshed.clear();
    let data = Bytes::from_static(b"here");
    let ephemeral = |count, data: &Bytes| {
        let (sender, session) = (peer(C), Arc::from("process"));
        PeerMessage::Ephemeral { document: id.clone(), sender, count, session, data: data.clone() }
    };
    let spoken = |stage: &mut Stage| {
        let told = std::mem::take(&mut stage.meshed);
        told.iter().filter(|event| matches!(event, MeshEvent::Spoken { .. })).count()
    };
    stage.pass(C, ephemeral(1, &data));
    assert_eq!(spoken(&mut stage), 1);
    assert!(stage.take(A).is_empty() && stage.take(B).is_empty(), "neighbours hear of it by the mesh");
    stage.pass(C, ephemeral(1, &data));
    stage.pass(C, ephemeral(2, &Bytes::from(vec![0; 5_000])));
    assert_eq!(spoken(&mut stage), 0, "again, and too large for a mesh");
    let heard = |stage: &mut Stage, document: &DocumentId, count| {
        let (sender, session) = (PeerId::new("far").expect("a name"), Arc::from("far process"));
        stage.input(Input::Heard { document: document.clone(), sender, count, session, data: data.clone() });
    };
    stage.told.clear();
    heard(&mut stage, &id, 1);
    heard(&mut stage, &id, 1);
    assert_eq!(stage.take(C), [Said::Ephemeral(1)]);
    assert_eq!(stage.told.iter().filter(|event| matches!(event, Event::Ephemeral { .. })).count(), 1);
    assert_eq!(spoken(&mut stage), 0, "the mesh has it");
    let before = stage.hub.footprint();
    heard(&mut stage, &document(9), 1);
    assert_eq!(stage.hub.footprint(), before, "nobody is at that document");
}

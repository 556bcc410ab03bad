//! One document with one peer: what a plan holds after what has been said.
//!
//! Owns: the peer's words, played by hand. Must not: encode messages; `hub/tests.rs` looks at what goes out.
//! Next: `../sync.rs`.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};

use super::*;
use crate::change::Change;
use crate::id::SessionId;

const MS: Duration = Duration::from_millis(1);

/// A graph, what of it is durable, and the peer that is spoken with.
struct Talk {
    graph: Graph,
    changes: Vec<Change>,
    peer: PeerSync,
    now: Duration,
    orphans: Option<Orphans>,
}

impl Talk {
    /// Changes that build on each other; all durable.
    fn about(length: usize) -> Self {
        Self::about_durable(length as u32, length)
    }

    /// The first `length` changes are durable; later ones are under way.
    fn about_durable(length: u32, of: usize) -> Self {
        let changes = chain(of);
        let mut graph = Graph::new(7);
        for change in &changes {
            graph.push(change).expect("in order");
        }
        graph.mark_durable(length);
        Self { graph, changes, peer: PeerSync::default(), now: Duration::from_secs(1), orphans: None }
    }

    fn says(&mut self, statement: Statement) {
        let heads = self.graph.heads();
        let view = View { heads: &heads, durable: self.graph.durable(), graph: Some(&self.graph) };
        self.peer.receive(view, statement);
    }

    /// The peer announces these changes as its heads.
    fn says_it_has(&mut self, nodes: &[usize]) {
        let heads = nodes.iter().map(|node| self.changes[*node].hash).collect();
        self.says(heads_only(heads));
    }

    fn plan(&self) -> Plan {
        let heads = self.graph.heads();
        let view = View { heads: &heads, durable: self.graph.durable(), graph: Some(&self.graph) };
        self.peer.plan(view, self.orphans.as_ref(), &Limits::default(), self.now)
    }

    /// The plan without the graph in memory.
    fn plan_from_summary(&self) -> Plan {
        let heads = self.graph.heads();
        let view = View { heads: &heads, durable: self.graph.durable(), graph: None };
        self.peer.plan(view, None, &Limits::default(), self.now)
    }

    fn draft(&self) -> Draft {
        match self.plan() {
            Plan::Send(draft) => draft,
            other => panic!("nothing to send: {other:?}"),
        }
    }

    /// Sends what is planned. Returns the nodes in it.
    fn send(&mut self) -> Vec<u32> {
        let draft = self.draft();
        self.peer.sent_draft(self.graph.durable(), draft.clone(), self.now);
        draft.nodes
    }

    fn has_all(&self) -> bool {
        let heads = self.graph.heads();
        self.peer.has_all(View { heads: &heads, durable: self.graph.durable(), graph: Some(&self.graph) })
    }
}

fn chain(length: usize) -> Vec<Change> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let made = (0..length).map(|value| {
        document.put(ROOT, "value", value as u64).expect("put");
        let raw = Bytes::copy_from_slice(document.get_last_local_change().expect("just made").raw_bytes());
        Change::decode(raw, &Limits::default()).expect("automerge's own")
    });
    made.collect()
}

fn heads_only(mut heads: Vec<ChangeHash>) -> Statement {
    heads.sort_unstable();
    let flags = Some(Flags { reset: false, read_only: false, supports_reset: true });
    Statement { heads, need: Vec::new(), have: Vec::new(), flags, with_changes: false }
}

fn unknown(byte: u8) -> ChangeHash {
    ChangeHash([byte; 32])
}

#[test]
fn a_peer_that_has_not_spoken_is_told_nothing() {
    let talk = Talk::about(3);
    assert_eq!(talk.plan(), Plan::Nothing);
    assert!(!talk.has_all());
}

#[test]
fn a_fresh_peer_gets_everything_once() {
    let mut talk = Talk::about(3);
    talk.says(heads_only(Vec::new()));
    assert_eq!(talk.send(), [0, 1, 2]);
    assert_eq!(talk.plan(), Plan::Nothing);
    assert!(!talk.has_all(), "sent is not had");
    talk.says_it_has(&[2]);
    assert!(talk.has_all());
    assert_eq!(talk.plan(), Plan::Nothing);
}

#[test]
fn late_ack_does_not_resend() {
    let mut talk = Talk::about_durable(1, 4);
    talk.says(heads_only(Vec::new()));
    assert_eq!(talk.send(), [0]);
    talk.graph.mark_durable(3);
    talk.now += 50 * MS;
    assert_eq!(talk.send(), [1, 2]);
    // The answer to the first message comes after the second has left.
    talk.says_it_has(&[0]);
    assert!(!talk.has_all());
    talk.graph.mark_durable(4);
    talk.now += 50 * MS;
    assert_eq!(talk.send(), [3]);
}

#[test]
fn only_what_is_durable_is_planned() {
    let mut talk = Talk::about_durable(1, 3);
    talk.says(heads_only(Vec::new()));
    assert_eq!(talk.send(), [0]);
    talk.says_it_has(&[0]);
    assert_eq!(talk.plan(), Plan::Nothing);
    talk.graph.mark_durable(2);
    assert_eq!(talk.draft().nodes, [1]);
}

#[test]
fn waits_grow_while_nothing_is_confirmed_and_end_at_a_bound() {
    let mut talk = Talk::about_durable(1, 16);
    talk.says(heads_only(Vec::new()));
    let mut waits = Vec::new();
    for length in 2..=14 {
        let sent = talk.now;
        talk.send();
        talk.graph.mark_durable(length);
        let Plan::Wait(until) = talk.plan() else { panic!("{:?}", talk.plan()) };
        waits.push(until - sent);
        talk.now = until;
    }
    assert!(waits.is_sorted() && waits[1] > waits[0], "{waits:?}");
    assert_eq!(waits.last(), Some(&UNCONFIRMED_WAIT_MAX));
    talk.send();
    talk.says_it_has(&[13]);
    talk.graph.mark_durable(15);
    assert_eq!(talk.send(), [14], "an acknowledgement ends the waiting");
}

#[test]
fn an_acknowledgement_of_a_part_does_not_end_the_wait() {
    let mut talk = Talk::about_durable(2, 3);
    talk.says(heads_only(Vec::new()));
    talk.send();
    talk.says_it_has(&[0]);
    talk.graph.mark_durable(3);
    assert!(matches!(talk.plan(), Plan::Wait(_)), "{:?}", talk.plan());
    talk.says_it_has(&[1]);
    assert_eq!(talk.draft().nodes, [2]);
}

#[test]
fn a_peer_that_lost_everything_gets_everything_again() {
    let mut talk = Talk::about(2);
    talk.says_it_has(&[1]);
    talk.send();
    assert!(talk.has_all());
    talk.says(heads_only(Vec::new()));
    assert!(!talk.has_all());
    assert_eq!(talk.send(), [0, 1]);
}

#[test]
fn who_begins_anew_is_sent_what_it_does_not_announce_however_often_and_without_acknowledging() {
    let mut talk = Talk::about(3);
    talk.says(heads_only(Vec::new()));
    talk.send();
    let flags = Some(Flags { reset: true, read_only: false, supports_reset: true });
    for _ in 0..3 {
        let heads = vec![talk.changes[0].hash];
        talk.says(Statement { flags, ..heads_only(heads) });
        talk.now += Duration::from_secs(2);
        assert_eq!(talk.send(), [1, 2]);
    }
}

#[test]
fn who_begins_anew_with_what_it_said_before_is_answered() {
    let mut talk = Talk::about(2);
    let heads = vec![talk.changes[0].hash, unknown(9)];
    talk.says(heads_only(heads.clone()));
    assert_eq!(talk.draft().need, [unknown(9)]);
    talk.send();
    talk.peer.refuse(unknown(9));
    talk.send();
    talk.says(heads_only(heads.clone()));
    assert_eq!(talk.plan(), Plan::Nothing);
    let flags = Some(Flags { reset: true, read_only: false, supports_reset: true });
    talk.says(Statement { flags, ..heads_only(heads) });
    talk.now += Duration::from_secs(2);
    assert_eq!(talk.draft().need, [unknown(9)], "what was refused may be taken by now");
}

#[test]
fn to_begin_anew_is_said_once_in_the_way_that_the_peer_understands() {
    for supports_reset in [true, false] {
        let mut talk = Talk::about(2);
        let flags = Some(Flags { reset: false, read_only: false, supports_reset });
        talk.says(Statement { flags, ..heads_only(vec![unknown(9)]) });
        talk.send();
        talk.peer = talk.peer.anew();
        let heads = talk.graph.heads();
        let encoded = encode_message(&heads, &talk.draft(), Vec::new(), Version::V1);
        let message = automerge::sync::Message::decode(&encoded).expect("automerge reads it");
        let reset = message.flags.is_some_and(|flags| flags.contains(automerge::sync::MessageFlags::SYNC_RESET));
        assert_eq!((reset, message.heads.is_empty()), (supports_reset, !supports_reset));
        talk.send();
        assert_eq!(talk.plan(), Plan::Nothing, "until it answers");
        talk.says(heads_only(vec![unknown(9)]));
        assert_eq!(talk.draft().anew, None);
    }
}

#[test]
fn what_is_asked_for_by_hash_is_sent_although_it_was_sent_before() {
    let mut talk = Talk::about(3);
    talk.says(heads_only(Vec::new()));
    talk.send();
    let need = vec![talk.changes[1].hash, unknown(9)];
    let heads = vec![talk.changes[0].hash];
    let asked = Statement { need, ..heads_only(heads) };
    talk.says(asked.clone());
    assert_eq!(talk.send(), [1], "what is not here cannot be sent");
    talk.says(Statement { heads: vec![talk.changes[0].hash, unknown(8)], ..asked });
    assert_eq!(talk.send(), [0; 0], "it asks with each message until it hears the answer");
}

#[test]
fn a_reader_gets_answers_but_no_changes() {
    let mut talk = Talk::about(2);
    let flags = Some(Flags { reset: false, read_only: true, supports_reset: true });
    talk.says(Statement { flags, ..heads_only(Vec::new()) });
    assert_eq!(talk.send(), [0; 0]);
    assert_eq!(talk.plan(), Plan::Nothing);
}

#[test]
fn unknown_heads_are_asked_for_once_and_refused_ones_never() {
    let mut talk = Talk::about(1);
    talk.says(heads_only(vec![unknown(8), unknown(9)]));
    assert_eq!(talk.draft().need, [unknown(8), unknown(9)]);
    talk.send();
    assert_eq!(talk.plan(), Plan::Nothing);
    talk.peer.refuse(unknown(9));
    talk.says(heads_only(vec![unknown(7), unknown(9)]));
    assert_eq!(talk.draft().need, [unknown(7)]);
    talk.send();
    talk.peer.refuse(unknown(7));
    assert_eq!(talk.draft().need, [], "that nothing is asked for any more is said once");
    talk.send();
    talk.says(heads_only(vec![unknown(7), unknown(9)]));
    assert_eq!(talk.plan(), Plan::Nothing, "a peer that keeps what was refused is not spoken to for ever");
}

#[test]
fn refused_changes_are_remembered_within_a_bound() {
    let mut peer = PeerSync::default();
    for n in 0..10 * REFUSED_MAX {
        peer.refuse(ChangeHash(std::array::from_fn(|at| (n >> (8 * (at % 8))) as u8)));
    }
    assert_eq!(peer.refused.len(), REFUSED_MAX);
}

#[test]
fn dependencies_of_waiting_changes_are_asked_for_instead_of_the_changes() {
    let mut talk = Talk::about(3);
    let all = std::mem::replace(&mut talk.graph, Graph::new(7));
    talk.graph.push(&talk.changes[0]).expect("the first");
    talk.graph.mark_durable(1);
    let mut orphans = Orphans::default();
    let (waits, missing) = (talk.changes[2].clone(), [talk.changes[1].hash]);
    orphans.insert(SessionId(1), waits, &missing, &Limits::default()).expect("room");
    talk.orphans = Some(orphans);
    talk.says(heads_only(all.heads()));
    assert_eq!(talk.draft().need, missing);
}

#[test]
fn a_peer_that_counts_on_what_is_not_here_is_reset_once_for_each_time_it_speaks() {
    let mut talk = Talk::about(2);
    let have = || vec![Have { last_sync: vec![unknown(9)], bloom: Bytes::new() }];
    talk.says(Statement { have: have(), ..heads_only(vec![unknown(9)]) });
    assert_eq!(talk.plan(), Plan::Reset);
    talk.peer.reset_sent();
    assert_eq!(talk.plan(), Plan::Nothing);
    talk.says(Statement { have: vec![Have::default()], ..heads_only(vec![unknown(9)]) });
    assert_eq!(talk.send(), [0, 1]);
}

/// A stock document that went back behind its stored sync state counts on the same lost change in every message.
#[test]
fn a_peer_that_goes_on_counting_on_what_it_lost_is_served_after_one_reset() {
    let mut talk = Talk::about(2);
    let (heads, need) = (vec![talk.changes[0].hash], vec![talk.changes[1].hash]);
    let have = vec![Have { last_sync: vec![unknown(9)], bloom: Bytes::new() }];
    let statement = Statement { have, need, ..heads_only(heads) };
    talk.says(statement.clone());
    assert_eq!(talk.plan(), Plan::Reset);
    talk.peer.reset_sent();
    talk.says(statement);
    assert_eq!(talk.send(), [1]);
}

/// A stock client resets anew with each of its edits until it has heard our answer: each had cost the whole document.
#[test]
fn resets_that_cross_our_answer_cost_no_further_document() {
    let mut talk = Talk::about(3);
    let reset = |head| Statement { have: vec![Have::default()], ..heads_only(vec![unknown(head)]) };
    talk.says(heads_only(vec![unknown(7)]));
    talk.send();
    talk.says(reset(8));
    talk.now += 50 * MS;
    assert_eq!(talk.send(), [0, 1, 2]);
    for head in 9..20 {
        talk.says(reset(head));
        talk.now += 5_000 * MS;
        assert_eq!(talk.send(), [0; 0], "its new change is asked for, and that is all");
    }
    talk.says_it_has(&[2]);
    talk.says(reset(20));
    assert_eq!(talk.send(), [0, 1, 2], "a reset after it has heard us is a new one");
}

/// A false positive of a Bloom filter made us name heads that the peer does not have.
#[test]
fn a_peer_that_rejects_our_account_is_served_by_exact_hashes() {
    let mut talk = Talk::about(3);
    let mut bloom = Vec::new();
    Bloom::from_hashes([talk.changes[1].hash].iter()).encode(&mut bloom);
    let have = vec![Have { last_sync: Vec::new(), bloom: bloom.into() }];
    let heads = vec![talk.changes[0].hash, unknown(9)];
    talk.says(Statement { have, ..heads_only(heads.clone()) });
    assert_eq!(talk.send(), [2], "its filter says that it has the second");
    talk.says(Statement { have: vec![Have::default()], ..heads_only(heads.clone()) });
    talk.now += 50 * MS;
    let draft = talk.draft();
    assert_eq!(draft.nodes, [1, 2]);
    assert_eq!(draft.have[0].last_sync, [talk.changes[0].hash], "only what it announced itself");
    let bloom = Bloom::decode(&draft.have[0].bloom, &Limits::default()).expect("own filter");
    assert!(bloom.contains(&talk.changes[1].hash) && bloom.contains(&talk.changes[2].hash));
    assert_eq!(draft.shared_from, None, "these words are for this peer alone");
}

#[test]
fn without_the_graph_agreement_is_silent_freshness_is_a_payload_and_difference_loads() {
    let mut talk = Talk::about(3);
    talk.says_it_has(&[2]);
    assert!(matches!(talk.plan_from_summary(), Plan::Send(Draft { nodes, .. }) if nodes.is_empty()));
    talk.send();
    assert_eq!(talk.plan_from_summary(), Plan::Nothing);
    let mut fresh = Talk::about(3);
    fresh.says(heads_only(Vec::new()));
    assert_eq!(fresh.plan_from_summary(), Plan::Payload);
    let mut old = Talk::about(3);
    old.says(Statement { flags: None, ..heads_only(Vec::new()) });
    assert_eq!(old.plan_from_summary(), Plan::LoadGraph, "it takes no whole document");
    let mut behind = Talk::about(3);
    behind.says_it_has(&[0]);
    assert_eq!(behind.plan_from_summary(), Plan::LoadGraph);
}

#[test]
fn what_lies_under_the_snapshot_comes_whole_or_as_single_changes_by_version() {
    for (flags, single) in [(heads_only(Vec::new()).flags, false), (None, true)] {
        let mut talk = Talk::about(3);
        talk.graph.release_raw(2);
        let heads = vec![talk.changes[0].hash];
        talk.says(Statement { flags, ..heads_only(heads) });
        let expected = if single { Plan::StoredChanges(vec![talk.changes[1].hash]) } else { Plan::Payload };
        assert_eq!(talk.plan(), expected);
        let mut near = Talk::about(3);
        near.graph.release_raw(2);
        near.says(Statement { flags, ..heads_only(vec![near.changes[1].hash]) });
        assert_eq!(near.draft().nodes, [2], "the tail is enough for a peer a little behind");
    }
}

#[test]
fn who_speaks_first_waits_for_an_answer_before_it_sends_changes() {
    let mut talk = Talk::about(2);
    talk.peer = PeerSync::initiate();
    assert!(talk.peer.speaks_first());
    assert_eq!(talk.send(), [0; 0]);
    assert!(!talk.peer.speaks_first() && !talk.peer.has_spoken());
    assert_eq!(talk.plan(), Plan::Nothing);
    talk.peer.has_nothing();
    assert!(talk.peer.said_it_has_nothing());
    assert_eq!(talk.send(), [0, 1]);
}

#[test]
fn only_words_that_need_no_ancestry_are_light() {
    let talk = Talk::about(2);
    let heads = talk.graph.heads();
    let view = View { heads: &heads, durable: 2, graph: None };
    let light = |statement: &Statement| PeerSync::is_light(statement, view);
    assert!(light(&heads_only(heads.clone())) && light(&heads_only(Vec::new())));
    assert!(!light(&heads_only(vec![talk.changes[0].hash])));
    assert!(!light(&Statement { need: vec![unknown(1)], ..heads_only(heads.clone()) }));
}

//! What passes through to other peers without being stored, above all to those who do not read.
//!
//! Owns: who hears what, and that a congested peer misses nothing that still counts. Must not: store anything.
//! Next: `fanout.rs`; `../relay.rs`; docs/protocol.md §5, §6.

use super::*;
use crate::wire::RemoteHeads;

fn store(n: u8) -> StorageId {
    StorageId::new(&format!("store-{n}")).expect("a name")
}

fn hash(n: u8) -> ChangeHash {
    ChangeHash([n; 32])
}

impl Stage {
    fn subscribe(&mut self, session: SessionId, add: &[StorageId], remove: &[StorageId]) {
        self.pass(session, PeerMessage::RemoteSubscription { add: add.to_vec(), remove: remove.to_vec() });
    }

    /// A peer reports a store's heads, as of some time.
    fn report(&mut self, session: SessionId, id: &DocumentId, storage: &StorageId, heads: u8, timestamp_ms: f64) {
        let heads = RemoteHeads { storage_id: storage.clone(), heads: vec![hash(heads)], timestamp_ms };
        self.pass(session, PeerMessage::RemoteHeads { document: id.clone(), heads: vec![heads] });
    }

    /// Document, store and heads of each remote-heads message since last asked; nothing else was sent.
    fn heard(&mut self, session: SessionId) -> Vec<(DocumentId, StorageId, Vec<ChangeHash>)> {
        let mut heard = Vec::new();
        for message in self.take_raw(session) {
            let Outgoing::RemoteHeads { document, heads } = message else { panic!("no remote heads: {message:?}") };
            assert_eq!(heads.len(), 1, "one message for each document and store");
            heard.extend(heads.into_iter().map(|entry| (document.clone(), entry.storage_id, entry.heads)));
        }
        heard
    }
}

/// A and B at two documents, B subscribed to two stores and congested after each message.
fn stage_with_a_slow_subscriber() -> Stage {
    let mut stage = Stage::with(Limits { queue_messages_max: 1, ..Limits::default() });
    stage.connect(A);
    stage.connect(B);
    for n in [1, 2] {
        stage.sync(A, &document(n), &[], &[]);
        stage.sync(B, &document(n), &[], &[]);
        stage.input(Input::Drained { session: B });
        stage.input(Input::Drained { session: B });
    }
    stage.subscribe(B, &[store(1), store(2)], &[]);
    stage.forget_sent();
    stage
}

#[test]
fn remote_heads_reach_subscribers_at_the_document_and_not_their_source() {
    let mut stage = Stage::of(&[A, B, C]);
    for session in [A, B] {
        stage.sync(session, &document(1), &[], &[]);
        stage.subscribe(session, &[store(1)], &[]);
    }
    stage.subscribe(C, &[store(1)], &[]);
    stage.forget_sent();
    stage.report(A, &document(1), &store(1), 1, 10.0);
    assert_eq!(stage.heard(B), [(document(1), store(1), vec![hash(1)])]);
    stage.report(A, &document(1), &store(1), 2, 5.0);
    stage.report(A, &document(1), &store(2), 2, 20.0);
    assert!(stage.heard(B).is_empty(), "neither older news nor news of other stores");
    assert!(stage.heard(A).is_empty() && stage.heard(C).is_empty());
    stage.sync(C, &document(1), &[], &[]);
    stage.forget_sent();
    stage.subscribe(C, &[store(1)], &[]);
    assert_eq!(stage.heard(C), [(document(1), store(1), vec![hash(1)])], "what is remembered comes at once");
}

#[test]
fn a_congested_subscriber_gets_the_latest_of_each_store_once_it_reads() {
    let mut stage = stage_with_a_slow_subscriber();
    stage.report(A, &document(1), &store(1), 1, 1.0);
    assert_eq!(stage.heard(B), [(document(1), store(1), vec![hash(1)])]);
    assert_eq!(stage.awaiting_drain.last(), Some(&B));
    for n in 2..=100 {
        stage.report(A, &document(1), &store(1), n, f64::from(n));
        stage.report(A, &document(1), &store(2), n, f64::from(n));
        stage.report(A, &document(2), &store(1), n, f64::from(n));
    }
    assert!(stage.heard(B).is_empty(), "nothing more goes into a full queue");
    let mut all = Vec::new();
    for _ in 0..3 {
        stage.input(Input::Drained { session: B });
        let heard = stage.heard(B);
        assert_eq!(heard.len(), 1, "the queue is full again after one message");
        all.extend(heard);
    }
    let latest = |document, storage| (document, storage, vec![hash(100)]);
    all.sort();
    let expected = [latest(document(1), store(1)), latest(document(1), store(2)), latest(document(2), store(1))];
    assert_eq!(all, expected, "one message for each document and store, and none is lost");
    stage.input(Input::Drained { session: B });
    assert!(stage.heard(B).is_empty());
}

#[test]
fn a_congested_peer_that_unsubscribes_is_owed_nothing() {
    let mut stage = stage_with_a_slow_subscriber();
    stage.report(A, &document(1), &store(1), 1, 1.0);
    stage.forget_sent();
    stage.report(A, &document(1), &store(1), 2, 2.0);
    stage.report(A, &document(1), &store(2), 2, 2.0);
    stage.subscribe(B, &[], &[store(1)]);
    stage.input(Input::Drained { session: B });
    assert_eq!(stage.heard(B), [(document(1), store(2), vec![hash(2)])]);
}

#[test]
fn what_a_congested_peer_said_itself_is_not_told_back() {
    let mut stage = stage_with_a_slow_subscriber();
    stage.report(A, &document(1), &store(2), 1, 1.0);
    stage.forget_sent();
    stage.report(A, &document(1), &store(1), 1, 1.0);
    stage.report(B, &document(1), &store(1), 2, 2.0);
    stage.input(Input::Drained { session: B });
    assert!(stage.heard(B).is_empty());
}

#[test]
fn ephemeral_messages_reach_others_once_and_not_the_congested() {
    let mut stage = stage_with_a_slow_subscriber();
    let ephemeral = |count| PeerMessage::Ephemeral {
        document: document(1),
        sender: peer(A),
        count,
        session: "tab".into(),
        data: Bytes::from_static(b"here"),
    };
    stage.pass(A, ephemeral(7));
    assert_eq!(stage.take(B), [Said::Ephemeral(7)]);
    stage.pass(A, ephemeral(8));
    assert!(stage.take(B).is_empty(), "it would be old by the time B reads");
    stage.input(Input::Drained { session: B });
    for count in [7, 8] {
        stage.pass(A, ephemeral(count));
    }
    assert!(stage.take(B).is_empty(), "both were seen");
    stage.pass(A, ephemeral(9));
    assert_eq!(stage.take(B), [Said::Ephemeral(9)]);
    assert!(stage.take(A).is_empty());
}

#[test]
fn no_more_of_what_others_say_goes_to_a_peer_that_we_dialled_than_it_takes() {
    let mut stage = Stage::with(Limits { ephemeral_per_second_max: 3, ..Limits::default() });
    stage.connect(A);
    stage.connect(B);
    stage.connect_as(C, Role::Upstream, None);
    for session in [A, B, C] {
        stage.sync(session, &document(1), &[], &[]);
    }
    let others_say = |stage: &mut Stage, counts: std::ops::Range<u64>| {
        stage.forget_sent();
        for count in counts {
            let (document, session) = (document(1), "tab".into());
            let data = Bytes::from_static(b"here");
            stage.pass(A, PeerMessage::Ephemeral { document, sender: peer(A), count, session, data });
        }
        [B, C].map(|session| stage.take(session).len())
    };
    assert_eq!(others_say(&mut stage, 0..5), [5, 3]);
    stage.advance(1_000);
    assert_eq!(others_say(&mut stage, 5..10), [5, 3]);
    let (document, sender, data) = (document(1), peer(SessionId(0)), Bytes::from_static(b"we"));
    stage.input(Input::Broadcast { document, sender, count: 1, session: "us".into(), data });
    assert_eq!(stage.take(C).len(), 1, "our application hears from the peer that it says too much");
    stage.input(Input::Limits(Box::new(Limits { ephemeral_per_second_max: 4, ..Limits::default() })));
    stage.advance(1_000);
    assert_eq!(others_say(&mut stage, 10..15), [5, 4]);
}

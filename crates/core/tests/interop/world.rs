//! One hub, a store that forgets what it has not committed, and stock automerge documents as clients.
//!
//! Owns: queues whose order a seed decides, and the check that nothing is shown before it is durable.
//! Must not: share code with the hub's own bookkeeping: the store replays raw changes through automerge.
//! Next: `main.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use automerge::sync::{self, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ROOT, ReadDoc};
use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use syncline_core::authored::Authored;
use syncline_core::clock::Stamp;
use syncline_core::graph::Graph;
use syncline_core::hub::{Hub, Input, Load, Loaded, Now, OpenedDocuments, Output, Receipt};
use syncline_core::id::{DocumentId, PeerId, SessionId, StorageId};
use syncline_core::limits::Limits;
use syncline_core::session::{LocalPeer, Session, Step};
use syncline_core::storage::{Payload, StoredChange, StoredGraph, Summary};
use syncline_core::sync::message::Message;
use syncline_core::wire::{self, Body, PeerMetadata};

const HASH_KEY: u64 = 7;

pub(crate) struct World {
    pub(crate) clients: Vec<Client>,
    hub: Hub,
    store: Store,
    document: DocumentId,
    sessions: BTreeMap<SessionId, Wire>,
    /// Store calls under way, answered in order.
    under_way: VecDeque<Output>,
    next_session: u64,
    now: Duration,
}

pub(crate) struct Client {
    document: AutoCommit,
    state: sync::State,
    session: Option<SessionId>,
    /// Sends no flags and takes no whole documents, as automerge before 2.2 did.
    only_v1: bool,
    /// Has changed since it last spoke.
    edited: bool,
}

/// One connection: a session, and frames under way in both directions.
struct Wire {
    session: Session,
    client: usize,
    to_hub: VecDeque<Bytes>,
    to_client: VecDeque<Vec<u8>>,
}

#[derive(Default)]
struct Store {
    changes: Vec<Bytes>,
    heads: Vec<ChangeHash>,
    hashes: BTreeSet<ChangeHash>,
    snapshot: Option<(u32, Bytes, Bytes)>,
}

impl World {
    pub(crate) fn new(seed: u64, clients: usize, some_only_v1: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
        let mut base = AutoCommit::new();
        let shared_start = rng.random_bool(0.5);
        if shared_start {
            let text = base.put_object(ROOT, "text", automerge::ObjType::Text).expect("put");
            base.splice_text(&text, 0, 0, "start").expect("splice");
        }
        let clients = (0..clients).map(|n| Client {
            document: if shared_start { base.fork() } else { AutoCommit::new() },
            state: sync::State::new(),
            session: None,
            only_v1: some_only_v1 && n == 0,
            edited: false,
        });
        Self {
            clients: clients.collect(),
            hub: Hub::new(Limits::default(), [3; 32]),
            store: Store::default(),
            document: DocumentId::from_bytes(&[7; 16]).expect("16 bytes"),
            sessions: BTreeMap::new(),
            under_way: VecDeque::new(),
            next_session: 1,
            now: Duration::from_secs(1),
        }
    }

    pub(crate) fn connect(&mut self, who: usize) {
        if self.clients[who].session.is_some() {
            return;
        }
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let local = LocalPeer {
            peer: PeerId::new("server").expect("a name"),
            storage: StorageId::new("store").expect("a name"),
            native: syncline_core::native::VERSION,
        };
        let mut session = Session::accept(local, Limits::default());
        let mut join = Vec::new();
        let body = Body::Join { metadata: PeerMetadata::default(), versions: Some(vec!["1"]) };
        wire::encode(&format!("client-{who}"), None, &body, &mut join);
        for step in session.receive(self.now(), &Bytes::from(join)) {
            if let Step::Joined(peer) = step {
                self.hub.handle(self.now(), Input::Connected { session: id, peer, opened: OpenedDocuments::default() });
            }
        }
        let wire = Wire { session, client: who, to_hub: VecDeque::new(), to_client: VecDeque::new() };
        self.sessions.insert(id, wire);
        let client = &mut self.clients[who];
        client.session = Some(id);
        // What survives a connection is what a stock client stores of the state.
        client.state = sync::State::decode(&client.state.encode()).expect("own encoding");
        self.client_speaks(who);
    }

    pub(crate) fn disconnect(&mut self, who: usize) {
        if let Some(session) = self.clients[who].session.take() {
            self.sessions.remove(&session);
            self.handle(Input::Disconnected { session });
        }
    }

    pub(crate) fn lose_sync_state(&mut self, who: usize) {
        self.disconnect(who);
        self.clients[who].state = sync::State::new();
        self.connect(who);
    }

    /// The hub and all that was not committed are gone; clients notice.
    pub(crate) fn restart_server(&mut self) {
        for who in 0..self.clients.len() {
            if let Some(session) = self.clients[who].session.take() {
                self.sessions.remove(&session);
            }
        }
        self.under_way.clear();
        self.hub = Hub::new(Limits::default(), [3; 32]);
    }

    pub(crate) fn compact(&mut self, random: u64) {
        let length = self.store.changes.len() as u32;
        if length == 0 {
            return;
        }
        let covered = (random % u64::from(length)) as u32 + 1;
        if self.store.compact(covered) {
            self.handle(Input::Compacted { document: self.document.clone(), changes: covered });
        }
    }

    pub(crate) fn evict(&mut self) {
        self.advance(120_000);
    }

    pub(crate) fn advance(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        if self.hub.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
            self.handle(Input::Timeout);
        }
    }

    /// Lets one thing arrive: a frame at either end, or an answer of the store. False if nothing is under way.
    pub(crate) fn deliver_one(&mut self, random: u64) -> bool {
        for who in 0..self.clients.len() {
            if self.clients[who].edited {
                self.client_speaks(who);
            }
        }
        let mut places: Vec<(u8, SessionId)> = Vec::new();
        for (id, wire) in &self.sessions {
            if !wire.to_hub.is_empty() {
                places.push((0, *id));
            }
            if !wire.to_client.is_empty() {
                places.push((1, *id));
            }
        }
        if !self.under_way.is_empty() {
            places.push((2, SessionId(0)));
        }
        if places.is_empty() {
            return false;
        }
        match places[random as usize % places.len()] {
            (0, id) => self.frame_to_hub(id),
            (1, id) => self.frame_to_client(id),
            _ => self.store_answers(),
        }
        true
    }

    /// Connects everyone and delivers until nothing moves.
    pub(crate) fn heal(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for who in 0..self.clients.len() {
            self.connect(who);
        }
        for _ in 0..20_000 {
            let moved = self.deliver_one(rng.next_u64());
            if !moved {
                let before = self.sent();
                self.advance(5_000);
                if self.sent() == before && self.under_way.is_empty() {
                    return;
                }
            }
        }
        panic!("no silence after 20,000 deliveries");
    }

    pub(crate) fn assert_converged(&mut self) {
        let stored = self.store.heads.clone();
        for (who, client) in self.clients.iter_mut().enumerate() {
            assert_eq!(client.document.get_heads(), stored, "client {who} differs from the store");
        }
        let reloaded = self.store.replay(self.store.changes.len());
        let mut first = self.clients[0].document.document().clone();
        let client = canonical(&mut first);
        assert_eq!(client, canonical(&mut reloaded.clone()), "canonical bytes differ");
    }

    pub(crate) fn assert_silent(&mut self) {
        let before = self.sent();
        for _ in 0..10 {
            self.advance(60_000);
        }
        assert_eq!(self.sent(), before, "the hub speaks although all agree");
    }

    fn sent(&self) -> usize {
        self.sessions.values().map(|wire| wire.to_client.len()).sum()
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall_ms: 1_700_000_000_000 + self.now.as_millis() as u64 }
    }

    fn handle(&mut self, input: Input) {
        self.hub.handle(self.now(), input);
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Persist { .. } | Output::Load { .. } => self.under_way.push_back(output),
                Output::Send { session, message } => {
                    let Some(wire) = self.sessions.get_mut(&session) else { continue };
                    let mut frame = Vec::new();
                    wire.session.encode(Stamp::from_u64(1), &message, &mut frame);
                    wire.to_client.push_back(frame.clone());
                    self.check_durable(&Bytes::from(frame));
                }
                Output::AwaitDrain { session } => self.handle_later(session),
                Output::Refused { remark, .. } => panic!("an honest change was refused: {remark}"),
                Output::Close { reason, .. } => panic!("an honest client was cut off: {reason}"),
                Output::SetLife { .. } | Output::SetLocalOnly { .. } | Output::Replace { .. } => {
                    unreachable!("nobody deletes, withholds or rewrites here")
                }
                Output::Decide { .. } => unreachable!("everybody may do everything here"),
                Output::Notify(_) | Output::State { .. } => {}
                Output::Mesh(_) => unreachable!("nobody is in a mesh here"),
            }
        }
    }

    fn handle_later(&mut self, session: SessionId) {
        self.hub.handle(self.now(), Input::Drained { session });
    }

    /// Heads and changes of whatever is sent must be in the store.
    fn check_durable(&self, frame: &Bytes) {
        let envelope = wire::decode(frame, &Limits::default()).expect("own frame");
        let Body::Sync { data, .. } = envelope.message else { return };
        let message = Message::decode(data, &Limits::default()).expect("own message");
        for head in &message.heads {
            assert!(self.store.hashes.contains(head), "announced before it was durable: {head}");
        }
    }

    fn frame_to_hub(&mut self, id: SessionId) {
        let now = self.now();
        let Some(wire) = self.sessions.get_mut(&id) else { return };
        let Some(frame) = wire.to_hub.pop_front() else { return };
        let steps = wire.session.receive(now, &frame);
        for step in steps {
            match step {
                Step::Forward(message) => {
                    self.handle(Input::Received { session: id, message, receipt: Receipt::default() })
                }
                Step::Observe(_) => {}
                Step::Refused(offence) | Step::Close(offence) => panic!("an honest frame was refused: {offence}"),
                Step::Authenticate(_) | Step::Tell(_) | Step::AccessChanged(_) | Step::AccessLeft(_) => {
                    unreachable!("everybody may do everything here")
                }
                Step::Send(_) | Step::Joined(_) => {}
            }
        }
    }

    fn frame_to_client(&mut self, id: SessionId) {
        let Some(wire) = self.sessions.get_mut(&id) else { return };
        let Some(frame) = wire.to_client.pop_front().map(Bytes::from) else { return };
        let who = wire.client;
        let envelope = wire::decode(&frame, &Limits::default()).expect("own frame");
        if let Body::Sync { data, .. } | Body::Request { data, .. } = envelope.message {
            self.clients[who].receive(&data);
            self.client_speaks(who);
        }
    }

    fn client_speaks(&mut self, who: usize) {
        let client = &mut self.clients[who];
        let Some(wire) = client.session.and_then(|session| self.sessions.get_mut(&session)) else { return };
        client.edited = false;
        // Once per event, as automerge-repo does: automerge repeats a reset for as long as it is asked.
        if let Some(message) = client.document.sync().generate_sync_message(&mut client.state) {
            let message = if client.only_v1 { sync::Message { flags: None, ..message } } else { message };
            let fresh = message.heads.is_empty();
            let data = Bytes::from(message.encode());
            let document = self.document.clone();
            let body = if fresh { Body::Request { document, data } } else { Body::Sync { document, data } };
            let mut frame = Vec::new();
            wire::encode(&format!("client-{who}"), Some("server"), &body, &mut frame);
            wire.to_hub.push_back(Bytes::from(frame));
        }
    }

    fn store_answers(&mut self) {
        let Some(output) = self.under_way.pop_front() else { return };
        let document = self.document.clone();
        match output {
            Output::Persist { ticket, commit } => {
                assert_eq!(commit.changes_before as usize, self.store.changes.len(), "commit on another history");
                self.store.commit(commit.changes, &commit.heads);
                self.handle(Input::Persisted { document, ticket });
            }
            Output::Load { what, .. } => {
                let loaded = self.store.load(&what);
                self.handle(Input::Loaded { document, loaded });
            }
            Output::Send { .. }
            | Output::SetLife { .. }
            | Output::SetLocalOnly { .. }
            | Output::Replace { .. }
            | Output::AwaitDrain { .. }
            | Output::Decide { .. }
            | Output::Notify(_)
            | Output::Mesh(_)
            | Output::State { .. }
            | Output::Refused { .. }
            | Output::Close { .. } => unreachable!("only store calls are under way"),
        }
    }
}

impl Client {
    pub(crate) fn edit(&mut self, random: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(random);
        let key = format!("key-{}", rng.random_range(0..4));
        match self.document.get(ROOT, "text").expect("readable") {
            Some((_, text)) if rng.random_bool(0.7) => {
                let length = self.document.length(&text);
                let at = rng.random_range(0..=length);
                let delete = rng.random_range(0..=(length - at).min(2)) as isize;
                self.document.splice_text(&text, at, delete, "ab").expect("splice");
            }
            _ => self.document.put(ROOT, key, random as i64).expect("put"),
        }
        self.document.commit();
        self.edited = true;
    }

    /// Somebody carries another client's changes over by hand.
    pub(crate) fn merge_out_of_band(clients: &mut [Self], who: usize) -> Self {
        let other = (who + 1) % clients.len();
        let mut theirs = clients[other].document.clone();
        let client = &mut clients[who];
        let mut document = client.document.clone();
        document.merge(&mut theirs).expect("mergeable");
        Self { document, state: client.state.clone(), session: client.session, only_v1: client.only_v1, edited: true }
    }

    fn receive(&mut self, data: &[u8]) {
        let message = sync::Message::decode(data).expect("the hub's message");
        if self.only_v1 {
            let ours = Message::decode(Bytes::copy_from_slice(data), &Limits::default()).expect("the hub's message");
            for element in &ours.changes {
                automerge::Change::try_from(element.as_ref()).expect("a V1 peer takes single changes only");
            }
        }
        let message = if self.only_v1 { sync::Message { flags: None, ..message } } else { message };
        self.document.sync().receive_sync_message(&mut self.state, message).expect("acceptable to stock automerge");
    }
}

impl Store {
    fn commit(&mut self, changes: Vec<Bytes>, heads: &[ChangeHash]) {
        for bytes in changes {
            let change = automerge::Change::try_from(bytes.as_ref()).expect("a stored change is a change");
            assert!(change.deps().iter().all(|dep| self.hashes.contains(dep)), "stored before its dependencies");
            assert!(self.hashes.insert(change.hash()), "stored twice");
            self.changes.push(bytes);
        }
        self.heads = heads.to_vec();
        assert_eq!(self.replay(self.changes.len()).get_heads(), self.heads, "wrong heads committed");
    }

    fn replay(&self, length: usize) -> automerge::Automerge {
        let mut document = automerge::Automerge::new();
        let changes = self.changes[..length].iter().map(|bytes| automerge::Change::try_from(bytes.as_ref()));
        document.apply_changes(changes.map(|change| change.expect("a stored change"))).expect("applicable");
        document
    }

    /// Puts the first `covered` changes into a snapshot, unless the present one covers more.
    fn compact(&mut self, covered: u32) -> bool {
        if self.snapshot.as_ref().is_some_and(|(before, ..)| *before >= covered) {
            return false;
        }
        let graph = Graph::from_stored(&self.graph(), HASH_KEY).expect("own graph");
        let index = Bytes::from(graph.encode_index(0, covered));
        let bytes = Bytes::from(self.replay(covered as usize).save());
        self.snapshot = Some((covered, bytes, index));
        true
    }

    fn load(&self, what: &Load) -> Loaded {
        let exists = !self.changes.is_empty();
        match what {
            Load::Summary => Loaded::Summary(exists.then(|| self.summary()).into()),
            Load::Graph => {
                let graph = || Box::new(Graph::from_stored(&self.graph(), HASH_KEY).expect("own graph"));
                Loaded::Graph(exists.then(graph))
            }
            Load::Payload => Loaded::Payload(exists.then(|| Payload {
                snapshot: self.snapshot.as_ref().map(|(_, bytes, _)| bytes.clone()),
                tail: self.tail(),
                changes: self.changes.len() as u32,
            })),
            Load::Changes { session, hashes } => {
                let find = |hash: &ChangeHash| {
                    let same =
                        |bytes: &&Bytes| automerge::Change::try_from(bytes.as_ref()).is_ok_and(|c| c.hash() == *hash);
                    self.changes.iter().find(same).cloned()
                };
                let changes = hashes.iter().filter_map(|hash| Some((*hash, find(hash)?))).collect();
                Loaded::Changes { session: *session, changes }
            }
            Load::Owners { .. } => unreachable!("whose changes are is not kept in this world"),
        }
    }

    fn tail(&self) -> Vec<StoredChange> {
        let covered = self.snapshot.as_ref().map_or(0, |(covered, ..)| *covered as usize);
        let stored = |bytes: &Bytes| StoredChange { stamp: Stamp::from_u64(1), bytes: bytes.clone() };
        self.changes[covered..].iter().map(stored).collect()
    }

    fn graph(&self) -> StoredGraph {
        let index = self.snapshot.iter().map(|(_, _, index)| index.clone()).collect();
        StoredGraph { summary: self.summary(), index, tail: self.tail() }
    }

    fn summary(&self) -> Summary {
        Summary {
            heads: self.heads.clone(),
            changes: self.changes.len() as u32,
            bytes: self.changes.iter().map(|bytes| bytes.len() as u64).sum(),
            last_stamp: Stamp::from_u64(1),
            authored: self.changes.iter().filter_map(Authored::of_change).max().unwrap_or_default(),
            snapshot_changes: self.snapshot.as_ref().map_or(0, |(covered, ..)| *covered),
            snapshot_bytes: self.snapshot.as_ref().map_or(0, |(_, bytes, _)| bytes.len() as u64),
        }
    }
}

/// The bytes of a document whose changes are applied in (max op, hash) order: equal for equal histories.
fn canonical(document: &mut automerge::Automerge) -> Vec<u8> {
    let mut changes = document.get_changes(&[]);
    changes.sort_by_key(|change| (change.max_op(), change.hash()));
    let mut fresh = automerge::Automerge::new();
    fresh.apply_changes(changes).expect("its own changes");
    fresh.save()
}

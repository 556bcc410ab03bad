//! One hub with its sessions, the store in memory and the clock: a shell that decides nothing.
//!
//! Owns: the promises about outputs: durable before visible, bounded, silent in the end, nothing left behind.
//! Must not: choose what happens. Next: `memory.rs`; docs/architecture.md "Invariants".

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::access::Access;
use syncline_core::chunk::{ChunkKind, split};
use syncline_core::hub::{Hub, Input, Now, OpenedDocuments, Output, Receipt, StoreFailure};
use syncline_core::id::{DocumentId, PeerId, SessionId, StorageId};
use syncline_core::limits::Limits;
use syncline_core::session::{LocalPeer, Session, Step};
use syncline_core::sync::message::Message;
use syncline_core::wire::{self, Body, PeerMetadata, encode};

use super::memory::Memory;

/// The documents that scripts speak of.
pub(super) const DOCUMENTS: [u8; 3] = [1, 2, 3];

/// Connections at one time; further ones take the place of the oldest.
const SESSIONS_MAX: usize = 4;

/// Turns within which everything has to come to rest.
const TURNS_MAX: usize = 2_000;

/// What one refusal may cost in an answer, bytes.
const REFUSAL_BYTES_MAX: usize = 1_200;

pub(super) struct World {
    hub: Hub,
    limits: Limits,
    sessions: BTreeMap<SessionId, Session>,
    /// Connections whose queue is full until the shell says otherwise.
    congested: BTreeSet<SessionId>,
    memory: Memory,
    under_way: VecDeque<Output>,
    to_close: Vec<SessionId>,
    next_session: u64,
    now: Duration,
    /// Bytes of the largest input so far, and bytes sent since the present one came.
    input_bytes: usize,
    sent_bytes: usize,
}

impl World {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            hub: Hub::new(limits.clone(), [3; 32]),
            limits,
            sessions: BTreeMap::new(),
            congested: BTreeSet::new(),
            memory: Memory::default(),
            under_way: VecDeque::new(),
            to_close: Vec::new(),
            next_session: 0,
            now: Duration::from_secs(1),
            input_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// The lowest bits say who dials and whether the handshake follows at once; the rest, what the peer says of itself.
    pub(super) fn connect(&mut self, how: u8) {
        if self.sessions.len() >= SESSIONS_MAX {
            self.disconnect(0);
        }
        let local = LocalPeer { peer: peer("server"), storage: storage(9), native: syncline_core::native::VERSION };
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let (session, body) = if how & 1 == 0 {
            let versions = Some(vec!["1"]);
            (Session::accept(local, self.limits.clone()), Body::Join { metadata: metadata(how >> 2), versions })
        } else {
            let session = Session::dial(local, self.limits.clone()).0;
            (session, Body::Peer { metadata: metadata(how >> 2), selected_version: Some("1") })
        };
        self.sessions.insert(id, session);
        if how & 2 == 0 {
            let mut frame = Vec::new();
            encode(&name_of(id), None, &body, &mut frame);
            self.receive(id, &frame.into());
        }
    }

    /// A session that is there, or one that never was.
    pub(super) fn session(&self, who: u8) -> SessionId {
        let count = self.sessions.len().max(1);
        self.sessions.keys().nth(usize::from(who) % count).copied().unwrap_or(SessionId(u64::MAX))
    }

    pub(super) fn name(&self, who: u8) -> String {
        name_of(self.session(who))
    }

    pub(super) fn frame(&mut self, who: u8, frame: Bytes) {
        self.receive(self.session(who), &frame);
    }

    pub(super) fn text(&mut self, who: u8) {
        let id = self.session(who);
        let steps = self.sessions.get_mut(&id).map(Session::receive_text).unwrap_or_default();
        self.follow(id, steps);
    }

    pub(super) fn join_timed_out(&mut self, who: u8) {
        let id = self.session(who);
        let steps = self.sessions.get_mut(&id).map(Session::join_timed_out).unwrap_or_default();
        self.follow(id, steps);
    }

    fn receive(&mut self, id: SessionId, frame: &Bytes) {
        let now = self.now();
        self.input_bytes = self.input_bytes.max(frame.len());
        let steps = self.sessions.get_mut(&id).map(|session| session.receive(now, frame)).unwrap_or_default();
        self.follow(id, steps);
    }

    fn follow(&mut self, id: SessionId, steps: Vec<Step>) {
        let refusals = self.input_bytes / 9 + 8;
        assert!(steps.len() <= 2 * refusals, "{} steps follow from one frame", steps.len());
        for step in steps {
            match step {
                Step::Send(frame) => {
                    assert!(frame.len() <= self.limits.message_bytes_max);
                    wire::decode(&frame.into(), &self.limits).expect("what a session sends can be read");
                }
                Step::Joined(peer) => {
                    self.input(Input::Connected { session: id, peer, opened: OpenedDocuments::default() })
                }
                Step::Forward(message) => {
                    self.input(Input::Received { session: id, message, receipt: Receipt::default() })
                }
                Step::Authenticate(_) => {
                    let now = self.now();
                    let admit = |session: &mut Session| session.admit(now, Ok(Access::full()));
                    let steps = self.sessions.get_mut(&id).map(admit).unwrap_or_default();
                    self.follow(id, steps);
                }
                Step::AccessChanged(access) => self.input(Input::AccessChanged { session: id, access }),
                Step::Tell(_) | Step::AccessLeft(_) => {}
                Step::Observe(_) => {}
                Step::Refused(offence) => assert!(!offence.kind().is_empty()),
                Step::Close(_) => self.close(id),
            }
        }
    }

    pub(super) fn disconnect(&mut self, who: u8) {
        self.close(self.session(who));
    }

    fn close(&mut self, session: SessionId) {
        if self.sessions.remove(&session).is_some() {
            self.congested.remove(&session);
            self.input(Input::Disconnected { session });
        }
    }

    pub(super) fn drained(&mut self, who: u8) {
        let session = self.session(who);
        if self.congested.remove(&session) {
            self.input(Input::Drained { session });
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        if self.hub.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
            self.input(Input::Timeout);
            let due = self.hub.poll_timeout();
            assert!(due.is_none_or(|(at, _)| at > self.now), "a deadline that was handled is gone");
        }
    }

    pub(super) fn compact(&mut self, document: u8, covered: u32) {
        let document = id(document);
        if let Some(changes) = self.memory.compact(&document, covered) {
            self.input(Input::Compacted { document, changes });
        }
    }

    /// The store's oldest call comes back, as it should or with an error.
    pub(super) fn store_answers(&mut self, well: bool) {
        let Some(call) = self.under_way.pop_front() else { return };
        let failure = StoreFailure { message: "the disk is full".to_owned() };
        match call {
            Output::Persist { ticket, commit } => {
                let document = commit.document.clone();
                let stored = well && self.memory.commit(commit);
                self.input(if stored {
                    Input::Persisted { document, ticket }
                } else {
                    Input::PersistFailed { document, ticket, failure }
                });
            }
            Output::Load { document, what } => {
                let loaded = self.memory.load(&document, &what, self.hub.hash_key());
                self.input(if well {
                    Input::Loaded { document, loaded }
                } else {
                    Input::LoadFailed { document, what, failure }
                });
            }
            Output::SetLife { ticket, document, update } => {
                let input = if well {
                    let life = self.memory.set_life(&document, update);
                    Input::LifeSet { document, ticket, life }
                } else {
                    Input::LifeNotSet { document, ticket, failure }
                };
                self.input(input);
            }
            Output::Send { .. }
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

    pub(super) fn store_answers_all(&mut self) {
        for _ in 0..TURNS_MAX {
            if self.under_way.is_empty() {
                return;
            }
            self.store_answers(true);
        }
        panic!("the hub never stops asking the store");
    }

    pub(super) fn input(&mut self, input: Input) {
        self.sent_bytes = 0;
        self.hub.handle(self.now(), input);
        let mut outputs = 0;
        while let Some(output) = self.hub.poll_output() {
            outputs += 1;
            assert!(outputs <= 200 + self.input_bytes, "outputs without end");
            self.output(output);
        }
        let answers = (SESSIONS_MAX + 1) * DOCUMENTS.len() * (2 * self.memory.bytes() + 4 * 1024);
        let refusals = (self.input_bytes / 9 + 8) * REFUSAL_BYTES_MAX;
        assert!(self.sent_bytes <= answers + refusals, "{} bytes follow from one input", self.sent_bytes);
        let (documents, ..) = self.hub.footprint();
        assert!(documents <= DOCUMENTS.len() + self.strangers(), "{documents} documents in memory");
        for session in std::mem::take(&mut self.to_close) {
            self.close(session);
        }
    }

    /// Documents that only whole frames can have named, each at least this long.
    fn strangers(&self) -> usize {
        const FRAME_BYTES: usize = 30;
        self.limits.session_documents_max * self.next_session as usize + self.input_bytes / FRAME_BYTES
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Persist { .. } | Output::Load { .. } | Output::SetLife { .. } => self.under_way.push_back(output),
            Output::Send { session, message } => {
                let Some(connection) = self.sessions.get(&session) else { return };
                let mut frame = Vec::new();
                connection.encode(syncline_core::clock::Stamp::from_u64(1), &message, &mut frame);
                self.sent_bytes += frame.len();
                self.check_sent(session, &frame.into());
            }
            Output::AwaitDrain { session } => {
                if self.sessions.contains_key(&session) {
                    self.congested.insert(session);
                }
            }
            Output::Decide { .. } => unreachable!("everybody may do everything here"),
            Output::Close { session, reason } => {
                assert!(!reason.is_empty());
                self.to_close.push(session);
            }
            Output::SetLocalOnly { .. } | Output::Replace { .. } => unreachable!("nobody withholds or rewrites here"),
            Output::Refused { remark, .. } => assert!(!remark.kind().is_empty() && !remark.to_string().is_empty()),
            Output::Notify(_) | Output::State { .. } => {}
            Output::Mesh(_) => unreachable!("nobody is in a mesh here"),
        }
    }

    /// Whatever is sent can be read, is no larger than a message may be, and names durable changes only.
    fn check_sent(&self, session: SessionId, frame: &Bytes) {
        let envelope = wire::decode(frame, &self.limits).expect("what a hub sends can be read");
        let (Body::Sync { document, data } | Body::Request { document, data }) = envelope.message else { return };
        assert!(!self.congested.contains(&session), "a full queue is sent nothing that can be derived again");
        assert!(data.len() <= self.limits.message_bytes_max);
        assert!(!self.memory.is_deleted(&document), "something of a deleted document is sent");
        let generous = Limits { message_hashes_max: usize::MAX, ..self.limits.clone() };
        let message = Message::decode(data, &generous).expect("what a hub sends can be read");
        for head in &message.heads {
            assert!(self.memory.holds(&document, head), "announced before it was durable");
        }
        for chunk in message.changes.into_iter().flat_map(split) {
            let chunk = chunk.expect("whole chunks");
            match chunk.kind {
                ChunkKind::Change => {
                    assert!(self.memory.holds(&document, &chunk.hash()), "sent before it was durable");
                }
                ChunkKind::Document => {
                    assert!(self.memory.is_snapshot(&document, &chunk.bytes), "a document that is not stored");
                }
                ChunkKind::CompressedChange | ChunkKind::Bundle => panic!("never sent: {}", chunk.kind.name()),
            }
        }
    }

    /// With a store that answers and peers that read, there is silence after a while.
    pub(super) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.store_answers_all();
            while let Some(session) = self.congested.pop_first() {
                self.input(Input::Drained { session });
            }
            let due = self.hub.poll_timeout().filter(|(at, _)| *at <= self.now + Duration::from_secs(10));
            match due {
                Some((at, _)) => self.advance(at.saturating_sub(self.now)),
                None if self.under_way.is_empty() && self.congested.is_empty() => return,
                None => {}
            }
        }
        panic!("the hub never comes to rest");
    }

    /// When all have gone, and some time has passed, the hub holds nothing.
    pub(super) fn leave_nothing_behind(&mut self) {
        while let Some(session) = self.sessions.keys().next().copied() {
            self.close(session);
        }
        for document in DOCUMENTS {
            self.input(Input::Unwatch { document: id(document) });
        }
        for _ in 0..10 {
            self.settle();
            self.advance(Duration::from_secs(60));
        }
        assert_eq!(self.hub.footprint(), (0, 0, 0), "documents, graphs and bytes that nobody needs");
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall_ms: 1_700_000_000_000 + self.now.as_millis() as u64 }
    }
}

pub(super) fn id(document: u8) -> DocumentId {
    DocumentId::from_bytes(&[document; 16]).expect("16 bytes")
}

pub(super) fn storage(number: u8) -> StorageId {
    StorageId::new(&format!("store-{number}")).expect("a short name")
}

pub(super) fn metadata(bits: u8) -> PeerMetadata {
    let storage_id = (bits & 1 != 0).then(|| storage(bits >> 2 & 3));
    PeerMetadata { storage_id, is_ephemeral: bits & 2 != 0, native: (bits & 16 != 0).then_some(1), token: None }
}

fn peer(name: &str) -> PeerId {
    PeerId::new(name).expect("a short name")
}

fn name_of(session: SessionId) -> String {
    format!("peer-{}", session.0)
}

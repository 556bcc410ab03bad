//! The hub in scenarios: peers and a store played by hand, and what each peer is sent.
//!
//! Owns: the stage that all scenarios share. Must not: know how the hub keeps what it was told.
//! Next: `tests/durability.rs`, then the other files beside it; `../../../tests/interop` does the same at random.

mod access;
mod durability;
mod fanout;
mod forgetting;
mod life;
mod local;
mod mesh;
mod native;
mod opening;
mod passing;
mod reading;
mod replace;
mod retry;
mod subject;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use bytes::Bytes;

use super::*;
use crate::ChangeHash;
use crate::access::Access;
use crate::authored::Authored;
use crate::change::{Actor, Change};
use crate::chunk::{self, ChunkKind};
use crate::clock::Stamp;
use crate::collection::DocumentState;
use crate::graph::Graph;
use crate::id::{PeerId, ReplicaId};
use crate::life::Life;
use crate::loader::InProcess;
use crate::storage::{Commit, Payload, StoredChange, StoredGraph, Summary};
use crate::subject::{Account, Contribution, Owner};
use crate::sync::Statement;
use crate::sync::bloom::Bloom;
use crate::sync::message::{Flags, Have, Message};

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const C: SessionId = SessionId(3);

/// A hub, a store that answers at once unless it is told to hold or to fail, and everything that came out.
struct Stage {
    hub: Hub,
    now: Duration,
    store: BTreeMap<DocumentId, Stored>,
    lives: BTreeMap<DocumentId, Life>,
    local_only: BTreeSet<DocumentId>,
    /// Store calls are kept in `held` instead of being answered.
    holds: bool,
    held: VecDeque<Output>,
    sent: BTreeMap<SessionId, Vec<Outgoing>>,
    told: Vec<Event>,
    meshed: Vec<MeshEvent>,
    /// In which states documents became durable.
    states: Vec<(DocumentId, DocumentState)>,
    refused: Vec<(Option<SessionId>, Remark)>,
    closed: Vec<SessionId>,
    awaiting_drain: Vec<SessionId>,
    /// What somebody else is to decide.
    asked: Vec<(SessionId, DocumentId)>,
    loads: Vec<Load>,
    commits: Vec<Commit>,
    /// Every output in order, as text.
    trace: String,
}

/// A document on the disk.
#[derive(Default, Clone)]
struct Stored {
    changes: Vec<Change>,
    heads: Vec<ChangeHash>,
    /// Number of changes under the snapshot.
    covered: u32,
    contributions: Vec<Contribution>,
}

/// What a peer was sent, taken apart.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Sync { heads: Vec<ChangeHash>, need: Vec<ChangeHash>, changes: Vec<ChangeHash> },
    Request,
    Unavailable,
    Ephemeral(u64),
    RemoteHeads(Vec<ChangeHash>),
    Native(NativeMessage),
    Error(String),
}

impl Stage {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self {
            hub: Hub::new(limits, [3; 32]),
            now: Duration::from_secs(1),
            store: BTreeMap::new(),
            lives: BTreeMap::new(),
            local_only: BTreeSet::new(),
            holds: false,
            held: VecDeque::new(),
            sent: BTreeMap::new(),
            told: Vec::new(),
            meshed: Vec::new(),
            states: Vec::new(),
            refused: Vec::new(),
            closed: Vec::new(),
            awaiting_drain: Vec::new(),
            asked: Vec::new(),
            loads: Vec::new(),
            commits: Vec::new(),
            trace: String::new(),
        }
    }

    /// A stage on which these downstream peers are connected.
    fn of(sessions: &[SessionId]) -> Self {
        let mut stage = Self::new();
        sessions.iter().for_each(|session| stage.connect(*session));
        stage
    }

    fn connect(&mut self, session: SessionId) {
        self.connect_as(session, Role::Downstream, None);
    }

    fn connect_as(&mut self, session: SessionId, role: Role, storage: Option<StorageId>) {
        self.connect_sharing(session, role, storage, &OpenedDocuments::default());
    }

    /// Connects a peer that announced the native extension.
    fn connect_native(&mut self, session: SessionId, role: Role) {
        let peer = PeerInfo { peer: peer(session), storage: None, role, native: 1, access: Access::full() };
        self.input(Input::Connected { session, peer, opened: OpenedDocuments::default() });
    }

    /// Connects a peer whose connection other hubs serve too.
    fn connect_sharing(
        &mut self,
        session: SessionId,
        role: Role,
        storage: Option<StorageId>,
        opened: &OpenedDocuments,
    ) {
        let peer = PeerInfo { peer: peer(session), storage, role, native: 0, access: Access::full() };
        self.input(Input::Connected { session, peer, opened: opened.clone() });
    }

    fn input(&mut self, input: Input) {
        let now = Now { mono: self.now, wall_ms: 1_700_000_000_000 + self.now.as_millis() as u64 };
        self.hub.handle(now, input);
        while let Some(output) = self.hub.poll_output() {
            self.trace.push_str(&format!("{output:?}\n"));
            match output {
                Output::Persist { ref commit, .. } => {
                    self.commits.push(commit.clone());
                    self.held.push_back(output);
                }
                Output::Load { ref what, .. } => {
                    self.loads.push(what.clone());
                    self.held.push_back(output);
                }
                Output::SetLife { .. } | Output::SetLocalOnly { .. } | Output::Replace { .. } => {
                    self.held.push_back(output);
                }
                Output::Send { session, message } => self.sent.entry(session).or_default().push(message),
                Output::State { document, state } => self.states.push((document, state)),
                Output::Notify(event) => self.told.push(event),
                Output::Mesh(event) => self.meshed.push(event),
                Output::Refused { session, remark, .. } => self.refused.push((session, remark)),
                Output::Close { session, .. } => self.closed.push(session),
                Output::AwaitDrain { session } => self.awaiting_drain.push(session),
                Output::Decide { session, document, .. } => self.asked.push((session, document)),
            }
        }
        if !self.holds {
            self.answer_all();
        }
    }

    /// Answers what is held, and what follows from it.
    fn answer_all(&mut self) {
        while self.answer_one() {}
    }

    fn answer_one(&mut self) -> bool {
        let Some(output) = self.held.pop_front() else { return false };
        let input = match output {
            Output::Persist { ticket, commit } => {
                let document = commit.document.clone();
                self.store.entry(document.clone()).or_default().commit(&commit);
                Input::Persisted { document, ticket }
            }
            Output::Load { document, what } => {
                if let Load::Owners { actors, subject } = &what {
                    let input = self.owners(document, actors, subject.as_ref());
                    self.input(input);
                    return true;
                }
                let mut loaded = self.store.get(&document).map_or_else(|| absent(&what), |stored| stored.load(&what));
                if let Loaded::Summary(standing) = &mut loaded {
                    standing.life = self.lives.get(&document).copied();
                    standing.local_only = self.local_only.contains(&document);
                }
                Input::Loaded { document, loaded }
            }
            Output::Replace { ticket, commit } => {
                let document = commit.document.clone();
                self.store.remove(&document);
                self.store.entry(document.clone()).or_default().commit(&commit);
                Input::Replaced { document, ticket }
            }
            Output::SetLocalOnly { document, ticket, local_only } => {
                if local_only {
                    self.local_only.insert(document.clone());
                } else {
                    self.local_only.remove(&document);
                }
                Input::LocalOnlySet { document, ticket }
            }
            Output::SetLife { document, ticket, update } => {
                let before = self.lives.get(&document).copied();
                let stamp = Stamp::new(self.now.as_millis() as u64, 0);
                let life = Life::after(before, update, |deleted| Life::own(before, stamp, ReplicaId([7; 16]), deleted));
                self.lives.insert(document.clone(), life);
                Input::LifeSet { document, ticket, life }
            }
            other => panic!("no store call: {other:?}"),
        };
        self.input(input);
        true
    }

    /// Whose actors are, as the commits say that are in the store.
    fn owners(&self, document: DocumentId, actors: &[Actor], subject: Option<&Arc<str>>) -> Input {
        let all = || self.store.values().flat_map(|stored| &stored.contributions);
        let owner = |actor: &Actor| all().find(|of| of.actors.contains(actor)).map(|of| of.subject.clone());
        let owners = actors.iter().map(|actor| (actor.clone(), Owner::stored(owner(actor)))).collect();
        let bytes = |subject: &Arc<str>| all().filter(|of| of.subject == *subject).map(|of| of.bytes).sum();
        let account = subject.map(|subject| (Arc::clone(subject), Account::new(bytes(subject))));
        Input::Loaded { document, loaded: Loaded::Owners { owners, account } }
    }

    /// The oldest store call fails.
    fn fail_one(&mut self) {
        let failure = StoreFailure { message: "the disk is full".into() };
        let input = match self.held.pop_front().expect("a store call under way") {
            Output::Persist { ticket, commit } => Input::PersistFailed { document: commit.document, ticket, failure },
            Output::Load { document, what } => Input::LoadFailed { document, what, failure },
            Output::SetLife { document, ticket, .. } => Input::LifeNotSet { document, ticket, failure },
            Output::SetLocalOnly { document, ticket, .. } => Input::LocalOnlyNotSet { document, ticket, failure },
            Output::Replace { ticket, commit } => Input::NotReplaced { document: commit.document, ticket, failure },
            other => panic!("no store call: {other:?}"),
        };
        self.input(input);
    }

    /// A sync message of these heads and changes.
    fn sync(&mut self, session: SessionId, document: &DocumentId, heads: &[ChangeHash], changes: &[&Change]) {
        let changes: Vec<_> = changes.iter().map(|change| (*change).clone()).collect();
        let statement = Statement { with_changes: !changes.is_empty(), ..statement(heads) };
        self.message(session, SyncMessage { changes, statement, ..empty_message(document) });
    }

    fn request(&mut self, session: SessionId, document: &DocumentId) {
        self.message(session, SyncMessage { request: true, ..empty_message(document) });
    }

    fn message(&mut self, session: SessionId, message: SyncMessage) {
        self.pass(session, PeerMessage::Sync(Box::new(message)));
    }

    fn pass(&mut self, session: SessionId, message: PeerMessage) {
        self.input(Input::Received { session, message, receipt: Receipt::default() });
    }

    fn local(&mut self, document: &DocumentId, changes: &[&Change], ticket: u64) {
        let changes = changes.iter().map(|change| (*change).clone()).collect();
        self.input(Input::Local { document: document.clone(), changes, ticket });
    }

    fn disconnect(&mut self, session: SessionId) {
        self.input(Input::Disconnected { session });
    }

    /// Lets time pass, with the timeouts that fall due.
    fn advance(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some((at, _)) = self.hub.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    fn take_raw(&mut self, session: SessionId) -> Vec<Outgoing> {
        self.sent.remove(&session).unwrap_or_default()
    }

    /// What the peer was sent since last asked.
    fn take(&mut self, session: SessionId) -> Vec<Said> {
        self.take_raw(session).iter().map(said).collect()
    }

    /// Whether the peer was told to begin anew since last asked.
    fn begins_anew(&mut self, session: SessionId) -> bool {
        let sent = self.take_raw(session);
        let data = sent.iter().filter_map(|message| match message {
            Outgoing::Sync { data, .. } | Outgoing::Request { data, .. } => Some(data.clone()),
            _ => None,
        });
        let flags = data.filter_map(|data| Message::decode(data, &Limits::default()).ok()?.flags);
        flags.into_iter().any(|flags| flags.reset)
    }

    fn forget_sent(&mut self) {
        self.sent.clear();
    }

    /// Puts changes into the store behind the hub's back, as from an earlier run; the first `covered` in a snapshot.
    fn stored(&mut self, document: &DocumentId, changes: &[Change], covered: u32) {
        let mut graph = Graph::new(1);
        for change in changes {
            graph.push(change).expect("in order");
        }
        let (changes, heads) = (changes.to_vec(), graph.pending_heads());
        let stored = Stored { changes, heads, covered, contributions: Vec::new() };
        self.store.insert(document.clone(), stored);
    }
}

impl Stored {
    fn commit(&mut self, commit: &Commit) {
        assert_eq!(commit.changes_before as usize, self.changes.len(), "a commit on another history");
        for bytes in &commit.changes {
            self.changes.push(Change::decode_stored(bytes.clone()).expect("a stored change is a change"));
        }
        self.heads.clone_from(&commit.heads);
        self.contributions.extend_from_slice(&commit.contributions);
    }

    fn load(&self, what: &Load) -> Loaded {
        match what {
            Load::Summary => Loaded::Summary(Some(self.summary()).into()),
            Load::Graph => Loaded::Graph(Some(Box::new(self.graph()))),
            Load::Payload => Loaded::Payload(Some(Payload {
                snapshot: (self.covered > 0).then(|| self.snapshot()),
                tail: self.tail(),
                changes: self.changes.len() as u32,
            })),
            Load::Changes { session, hashes } => {
                let wanted = self.changes.iter().filter(|change| hashes.contains(&change.hash));
                let changes = wanted.map(|change| (change.hash, change.bytes.clone())).collect();
                Loaded::Changes { session: *session, changes }
            }
            Load::Owners { .. } => unreachable!("the stage answers"),
        }
    }

    fn graph(&self) -> Graph {
        let mut whole = Graph::new(1);
        for change in &self.changes {
            whole.push(change).expect("in order");
        }
        let index = vec![Bytes::from(whole.encode_index(0, self.covered))];
        Graph::from_stored(&StoredGraph { summary: self.summary(), index, tail: self.tail() }, 1).expect("undamaged")
    }

    fn snapshot(&self) -> Bytes {
        let covered = self.changes[..self.covered as usize].iter();
        let changes = covered.map(|change| automerge::Change::try_from(&change.bytes[..]).expect("a change"));
        let mut document = automerge::Automerge::new();
        document.apply_changes(changes).expect("in order");
        Bytes::from(document.save())
    }

    fn tail(&self) -> Vec<StoredChange> {
        let stored = |change: &Change| StoredChange { stamp: Stamp::ZERO, bytes: change.bytes.clone() };
        self.changes[self.covered as usize..].iter().map(stored).collect()
    }

    fn summary(&self) -> Summary {
        let bytes = |changes: &[Change]| changes.iter().map(|change| change.bytes.len() as u64).sum();
        Summary {
            heads: self.heads.clone(),
            changes: self.changes.len() as u32,
            bytes: bytes(&self.changes),
            last_stamp: Stamp::ZERO,
            authored: self.changes.iter().map(|change| Authored::at(change.time)).max().unwrap_or_default(),
            snapshot_changes: self.covered,
            snapshot_bytes: bytes(&self.changes[..self.covered as usize]),
        }
    }
}

fn absent(what: &Load) -> Loaded {
    match what {
        Load::Summary => Loaded::Summary(None.into()),
        Load::Graph => Loaded::Graph(None),
        Load::Payload => Loaded::Payload(None),
        Load::Changes { session, .. } => Loaded::Changes { session: *session, changes: Vec::new() },
        Load::Owners { .. } => unreachable!("the stage answers"),
    }
}

fn said(message: &Outgoing) -> Said {
    match message {
        Outgoing::Sync { data, .. } => {
            let Message { heads, need, changes, .. } =
                Message::decode(data.clone(), &Limits::default()).expect("own message");
            Said::Sync { heads, need, changes: changes.into_iter().flat_map(hashes_in).collect() }
        }
        Outgoing::Request { .. } => Said::Request,
        Outgoing::DocUnavailable { .. } => Said::Unavailable,
        Outgoing::Ephemeral { count, .. } => Said::Ephemeral(*count),
        Outgoing::RemoteHeads { heads, .. } => {
            Said::RemoteHeads(heads.iter().flat_map(|entry| entry.heads.clone()).collect())
        }
        Outgoing::Native(message) => Said::Native(message.clone()),
        Outgoing::Error { message } => Said::Error(message.clone()),
    }
}

/// The changes in an element, which may start with a whole document.
fn hashes_in(element: Bytes) -> Vec<ChangeHash> {
    let mut hashes = Vec::new();
    for chunk in chunk::split(element) {
        let chunk = chunk.expect("own chunk");
        if chunk.kind == ChunkKind::Document {
            let changes = crate::document::expand(&chunk, &Limits::default(), &InProcess).expect("own document");
            hashes.extend(changes.into_iter().flat_map(hashes_in));
        } else {
            hashes.push(chunk.hash());
        }
    }
    hashes
}

/// An acknowledgement or announcement: heads and nothing else.
fn heads_only(heads: &[ChangeHash]) -> Said {
    with_changes(heads, &[])
}

fn with_changes(heads: &[ChangeHash], changes: &[ChangeHash]) -> Said {
    Said::Sync { heads: sorted(heads), need: Vec::new(), changes: changes.to_vec() }
}

fn sorted(heads: &[ChangeHash]) -> Vec<ChangeHash> {
    let mut heads = heads.to_vec();
    heads.sort_unstable();
    heads
}

/// What a stock client says first on a connection: its heads, and a filter over what it has.
fn statement(heads: &[ChangeHash]) -> Statement {
    let flags = Some(Flags { reset: false, read_only: false, supports_reset: true });
    let mut bloom = Vec::new();
    Bloom::from_hashes(heads).encode(&mut bloom);
    let have = vec![Have { last_sync: Vec::new(), bloom: Bytes::from(bloom) }];
    Statement { heads: sorted(heads), need: Vec::new(), have, flags, with_changes: false }
}

fn empty_message(document: &DocumentId) -> SyncMessage {
    let (document, statement) = (document.clone(), statement(&[]));
    SyncMessage { document, request: false, statement, changes: Vec::new(), refused: Vec::new() }
}

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).expect("16 bytes")
}

fn peer(session: SessionId) -> PeerId {
    PeerId::new(&format!("peer-{}", session.0)).expect("a name")
}

/// Changes of one author, each on top of the one before.
fn chain(author: u8, length: usize) -> Vec<Change> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([author; 16]));
    (0..length).map(|value| edit(&mut document, value as u64)).collect()
}

fn edit(document: &mut AutoCommit, value: u64) -> Change {
    document.put(ROOT, "value", value).expect("put");
    let raw = Bytes::copy_from_slice(document.get_last_local_change().expect("just made").raw_bytes());
    Change::decode(raw, &Limits::default()).expect("automerge's own")
}

/// Another change with the author and sequence number of the first of `chain(author, _)`.
fn impostor(author: u8) -> Change {
    edit(&mut AutoCommit::new().with_actor(ActorId::from([author; 16])), 999)
}

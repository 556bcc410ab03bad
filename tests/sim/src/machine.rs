//! One machine: a hub as it ships, its sessions, its disk, its clocks, and an application if it dials another machine.
//!
//! Owns: what a machine is made of, and what a restart leaves of it. Must not: move anything between machines.
//! Next: `world/hub.rs`; the shell that does the same over tokio is the crate `syncline-replica`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::collection::{self, Collection, Report, SetName};
use syncline_core::hub::{Hub, Input, Load, Now, Outgoing};
use syncline_core::id::{DocumentId, PeerId, ReplicaId, SessionId, StorageId};
use syncline_core::limits::Limits;
use syncline_core::native;
use syncline_core::reconcile::SetKey;
use syncline_core::session::{LocalPeer, Roster, Session};
use syncline_core::storage::Commit;

use crate::app::App;
use crate::disk::{Call, Disk};
use crate::image::Image;
use crate::log::State;
use crate::scenario::Topology;

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) number: usize,
    /// Whose disk it started from: its own, or the one that was copied to it.
    pub(crate) store: usize,
    pub(crate) hub: Hub,
    pub(crate) limits: Limits,
    pub(crate) local: LocalPeer,
    /// Its documents, compared with those of other machines.
    pub(crate) collection: Collection,
    /// Sets that are to be made of what the disk holds.
    pub(crate) gathering: VecDeque<(SetName, SetKey, u64)>,
    /// Sets that were read, on their way back.
    pub(crate) gathered: VecDeque<collection::Input>,
    /// What the last round with each peer found.
    pub(crate) compared: BTreeMap<SessionId, Report>,
    pub(crate) roster: Roster,
    pub(crate) connections: BTreeMap<SessionId, Connection>,
    /// Commits of this turn, to be handed to the store together.
    pub(crate) batch: Vec<(u64, Commit)>,
    /// What this turn decides about documents, to be handed to the store one by one.
    pub(crate) decisions: Vec<Call>,
    pub(crate) loads: VecDeque<(DocumentId, Load)>,
    /// Answers of the store on their way to the hub; reads overtake each other.
    pub(crate) answers: Vec<Input>,
    /// Held by each message that is not dealt with.
    pub(crate) receipts: Arc<()>,
    pub(crate) disk: Disk,
    pub(crate) app: Option<App>,
    pub(crate) clocks: Clocks,
    /// How often it has started.
    pub(crate) starts: u64,
    /// Documents of which its hub has been told that they are deleted.
    pub(crate) knows_deleted: BTreeSet<usize>,
    /// Documents of which its hub has been told that they stay here.
    pub(crate) knows_local_only: BTreeSet<usize>,
    /// Documents that were purged here once, so that what was said of them before is no promise.
    pub(crate) purged: BTreeSet<usize>,
    pub(crate) purges: u64,
    /// It went back to an older disk or an empty one, so that what it said before is no promise.
    pub(crate) went_back: bool,
}

/// One end of a link at a machine.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: Session,
    pub(crate) outbox: VecDeque<Queued>,
    pub(crate) awaiting_drain: bool,
    /// To be closed once the queue is written.
    pub(crate) closing: bool,
    pub(crate) joined: bool,
    /// By document, which of the states that the store went through was announced last.
    pub(crate) announced: BTreeMap<usize, usize>,
    /// How often each change of each document was sent over it: two documents can have equal ones.
    pub(crate) sent: BTreeMap<(usize, ChangeHash), usize>,
    /// How often room or limits changed on some machine since it began.
    pub(crate) renewals: usize,
    /// How often a conversation over it began anew at this end.
    pub(crate) begun_anew: usize,
}

/// What waits to be written to a connection.
#[derive(Debug)]
pub(crate) enum Queued {
    Message(Outgoing),
    Frame(Bytes),
}

impl Connection {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            outbox: VecDeque::new(),
            awaiting_drain: false,
            closing: false,
            joined: false,
            announced: BTreeMap::new(),
            sent: BTreeMap::new(),
            renewals: 0,
            begun_anew: 0,
        }
    }

    /// Appends, unless the connection is about to be closed.
    pub(crate) fn push(&mut self, queued: Queued) {
        if !self.closing {
            self.outbox.push_back(queued);
        }
    }
}

/// A machine's idea of time.
#[derive(Debug)]
pub(crate) struct Clocks {
    pub(crate) mono_ms: u64,
    pub(crate) wall_ms: u64,
    pub(crate) frozen: bool,
    pub(crate) rate_percent: u64,
}

impl Clocks {
    fn new() -> Self {
        Self { mono_ms: 1_000, wall_ms: 1_700_000_000_000, frozen: false, rate_percent: 100 }
    }

    pub(crate) fn advance(&mut self, millis: u64) {
        let millis = millis * self.rate_percent / 100;
        self.mono_ms += millis;
        if !self.frozen {
            self.wall_ms += millis;
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: Duration::from_millis(self.mono_ms), wall_ms: self.wall_ms }
    }
}

impl Machine {
    pub(crate) fn new(number: usize, topology: &Topology) -> Self {
        let limits = limits(topology);
        Self {
            number,
            store: number,
            hub: Hub::new(limits.clone(), seed(number, 0)),
            local: local(number, number, 0, native_version(number, topology)),
            collection: Collection::new(limits.clone(), 0x5eed),
            gathering: VecDeque::new(),
            gathered: VecDeque::new(),
            compared: BTreeMap::new(),
            limits,
            roster: Roster::default(),
            connections: BTreeMap::new(),
            batch: Vec::new(),
            decisions: Vec::new(),
            loads: VecDeque::new(),
            answers: Vec::new(),
            receipts: Arc::default(),
            disk: Disk::new(Image::default(), ReplicaId([number as u8 + 1; 16])),
            app: None,
            clocks: Clocks::new(),
            starts: 0,
            knows_deleted: BTreeSet::new(),
            knows_local_only: BTreeSet::new(),
            purged: BTreeSet::new(),
            purges: 0,
            went_back: false,
        }
    }

    /// The process begins anew over what the disk has; its application is made by the caller.
    pub(crate) fn restart(&mut self) {
        self.starts += 1;
        self.hub = Hub::new(self.limits.clone(), seed(self.number, self.starts));
        self.local = local(self.number, self.store, self.starts, self.local.native);
        self.collection = Collection::new(self.limits.clone(), self.starts);
        self.gathering.clear();
        self.gathered.clear();
        self.compared.clear();
        self.roster = Roster::default();
        self.connections.clear();
        self.batch.clear();
        self.decisions.clear();
        self.loads.clear();
        self.answers.clear();
        self.receipts = Arc::default();
        self.knows_deleted.clear();
        self.knows_local_only.clear();
        self.clocks.mono_ms = 1_000;
    }

    /// A turn ends: what it wants of the store is handed over, in the order of the shell.
    pub(crate) fn submit(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.disk.submit(Call::Commits(batch));
        }
        self.decisions.drain(..).for_each(|call| self.disk.submit(call));
    }

    /// What the machine is in the middle of, the rarest first.
    pub(crate) fn state(&self) -> State {
        let mut queues = self.connections.values().map(|connection| (connection.awaiting_drain, &connection.outbox));
        if self.connections.values().any(|connection| connection.awaiting_drain) {
            State::Congested
        } else if !(self.loads.is_empty()
            && self.answers.is_empty()
            && self.gathering.is_empty()
            && self.gathered.is_empty())
        {
            State::Loading
        } else if !self.disk.finished.is_empty() {
            State::NotTold
        } else if !self.disk.calls.is_empty() {
            State::NotSynced
        } else if !self.batch.is_empty() || !self.decisions.is_empty() {
            State::NotSubmitted
        } else if queues.any(|(_, outbox)| !outbox.is_empty()) {
            State::Queued
        } else {
            State::Idle
        }
    }

    pub(crate) fn upstream_session(&self) -> Option<SessionId> {
        let dialled = |(id, _): &(&SessionId, &Connection)| id.0 % 2 == 1;
        self.connections.iter().find(dialled).map(|(id, _)| *id)
    }
}

/// The second machine may be of an older version.
fn native_version(number: usize, topology: &Topology) -> u16 {
    if number == 1 && topology.has(Topology::OLDER) { 2 } else { native::VERSION }
}

fn seed(number: usize, starts: u64) -> [u8; 32] {
    let mut seed = [number as u8 + 1; 32];
    seed[..8].copy_from_slice(&starts.to_le_bytes());
    seed
}

fn local(number: usize, store: usize, starts: u64, native: u16) -> LocalPeer {
    LocalPeer {
        native,
        peer: PeerId::new(&format!("machine-{number}-{starts}")).expect("a name"),
        storage: StorageId::new(&format!("store-{store}")).expect("a name"),
    }
}

/// The bounds of every machine in a world.
pub(crate) fn limits(topology: &Topology) -> Limits {
    let mut limits = Limits { bind_actors: topology.has(Topology::BINDS), ..Limits::default() };
    if topology.has(Topology::SHORT_QUEUES) {
        limits.queue_messages_max = 3;
    }
    if topology.has(Topology::LITTLE_MEMORY) {
        limits.graph_cache_bytes = 1;
    }
    if topology.has(Topology::ONE_PAYLOAD) {
        limits.fetch_bytes_max = 1;
    }
    limits
}

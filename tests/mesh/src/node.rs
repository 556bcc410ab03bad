//! One replica: its hub, its membership, its sessions, its disk.
//!
//! Owns: what a replica is made of, and what a restart leaves of it. Must not: decide anything.
//! Next: `node/shell.rs`, `world.rs`; the replica crate's `mesh.rs` does the same over tokio.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::access::Access;
use syncline_core::change::Change;
use syncline_core::clock::{Clock, Stamp};
use syncline_core::collection::{self, Collection, SetName};
use syncline_core::hub::{Hub, Input, Now, PeerInfo, StoreFailure};
use syncline_core::id::{DocumentId, PeerId, ReplicaId, SessionId};
use syncline_core::limits::Limits;
use syncline_core::native;
use syncline_core::session::{LocalPeer, Session};
use syncline_core::storage::Commit;
use syncline_gossip::broadcast::Counts;
use syncline_gossip::membership::Participation;
use syncline_gossip::overlay::{self, Moment, NeighbourStatus};
use syncline_gossip::{Address, Config, Membership, MeshKey};

use crate::disk::Disk;

mod shell;

/// The wall clock at the start of a run.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// What a node wants of the world.
#[derive(Debug)]
pub enum Act {
    /// Carry a frame.
    Frame {
        /// The connection.
        link: SessionId,
        /// The frame.
        bytes: Bytes,
        /// A message of the broadcast or a beat: a shell sheds it where a neighbour does not read.
        may_be_lost: bool,
    },
    /// Open a connection.
    Dial(Address),
    /// Close one.
    Close(SessionId),
    /// Answer once this is on the disk.
    Persist {
        /// The document.
        document: DocumentId,
        /// Names the commit.
        ticket: u64,
    },
    /// Changes are durable.
    Durable {
        /// The document.
        document: DocumentId,
        /// The changes, dependencies first.
        changes: Vec<ChangeHash>,
    },
    /// Something was not taken.
    Refused {
        /// Whose it was; the application's if nobody's.
        link: Option<SessionId>,
        /// Why, as counters call it.
        kind: &'static str,
    },
}

/// How a node is set up, the same at each of its starts.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How it behaves as a member.
    pub config: Config,
    /// The key of its mesh.
    pub key: MeshKey,
    /// The documents that it takes part in.
    pub participation: Participation,
    /// It is a server: it serves everybody, and those who prove it as members.
    pub open: bool,
    /// The bounds that it keeps.
    pub limits: Limits,
}

/// What a node has counted since the start of the run, over its restarts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Notices.
    pub notices: Counts,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Of these, bytes of frames about documents.
    pub document_bytes_out: u64,
    /// Of these, bytes of frames about rounds.
    pub round_bytes_out: u64,
    /// Changes that came, by notice or by sync.
    pub changes_in: u64,
    /// Changes of others that became durable.
    pub changes_new: u64,
    /// Comparisons begun.
    pub repairs: u64,
}

/// One replica.
pub struct Node {
    /// Its process runs.
    pub up: bool,
    /// Since then.
    pub up_at: Duration,
    /// What it keeps.
    pub disk: Disk,
    /// How far its wall clock is ahead of the others, milliseconds.
    pub wall_ahead_ms: i64,
    /// When the last commit is on the disk.
    pub(crate) disk_at: Duration,
    pub(crate) wake_at: Option<Duration>,
    /// Counts the starts: what was meant for an earlier process is not for this one.
    pub starts: u32,
    /// What it has counted.
    pub tally: Tally,
    setup: Setup,
    hub: Hub,
    mesh: Membership,
    collection: Collection,
    clock: Clock,
    local: LocalPeer,
    sessions: BTreeMap<SessionId, Connection>,
    committing: BTreeMap<u64, Commit>,
    acts: VecDeque<Act>,
}

struct Connection {
    session: Session,
    since: Duration,
    dialled: Option<Address>,
    peer: Option<PeerInfo>,
    neighbour: bool,
    /// It is served as at any server until it is a neighbour: nobody here dialled it, and this node is open to all.
    open: bool,
}

impl Node {
    /// A replica that starts with an empty disk, and is given these addresses.
    ///
    /// # Panics
    /// Never: its name is short.
    #[must_use]
    pub fn new(index: usize, setup: Setup, given: &[Address], seed: [u8; 32]) -> Self {
        let mut node = Self {
            up: true,
            up_at: Duration::ZERO,
            disk: Disk::of(index),
            wall_ahead_ms: 0,
            disk_at: Duration::ZERO,
            wake_at: None,
            starts: 0,
            tally: Tally::default(),
            hub: Hub::new(setup.limits.clone(), seed),
            mesh: membership(&setup, seed),
            collection: Collection::new(setup.limits.clone(), 7),
            clock: Clock::new(Stamp::ZERO, Duration::from_secs(60)),
            local: local_peer(index, ReplicaId(Disk::of(index).replica)),
            setup,
            sessions: BTreeMap::new(),
            committing: BTreeMap::new(),
            acts: VecDeque::new(),
        };
        node.begin(Duration::ZERO, index, given);
        node
    }

    /// The process ends; the disk stays.
    pub fn kill(&mut self) {
        self.up = false;
        self.count();
        self.sessions.clear();
        self.committing.clear();
        self.acts.clear();
        self.wake_at = None;
    }

    /// Another process starts over the same disk.
    pub fn restart(&mut self, now: Duration, index: usize, given: &[Address], seed: [u8; 32]) {
        (self.up, self.up_at) = (true, now);
        self.starts += 1;
        self.hub = Hub::new(self.setup.limits.clone(), seed);
        self.mesh = membership(&self.setup, seed);
        self.collection = Collection::new(self.setup.limits.clone(), 7);
        self.local = local_peer(index, ReplicaId(self.disk.replica));
        self.begin(now, index, given);
    }

    fn begin(&mut self, now: Duration, index: usize, given: &[Address]) {
        if self.takes_part_in_all() {
            self.collection_input(now, collection::Input::AddSet { key: self.setup.key.set_key() });
        }
        let own = address_of(index);
        self.mesh_input(now, overlay::Input::Listening(vec![own]));
        for address in given {
            self.mesh_input(now, overlay::Input::Give(address.clone()));
        }
    }

    fn count(&mut self) {
        let (sum, counts) = (&mut self.tally.notices, self.mesh.overlay().counts());
        sum.published += counts.published;
        sum.received += counts.received;
        sum.repeated += counts.repeated;
        sum.grafted += counts.grafted;
        sum.shed += counts.shed;
    }

    /// Everything that was counted.
    pub fn final_tally(&mut self) -> Tally {
        if self.up {
            self.count();
        }
        self.tally
    }

    /// Notices counted by all processes of this node so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (mut sum, counts) = (self.tally.notices, self.mesh.overlay().counts());
        if self.up {
            sum.received += counts.received;
            sum.repeated += counts.repeated;
        }
        sum
    }

    /// Its neighbours.
    #[must_use]
    pub fn neighbours(&self) -> Vec<NeighbourStatus> {
        self.mesh.overlay().neighbours()
    }

    /// Notices that wait for the disk or for what they tell.
    #[must_use]
    pub fn waiting_notices(&self) -> usize {
        self.mesh.waiting()
    }

    /// Whether this connection is with a neighbour.
    #[must_use]
    pub fn is_neighbour(&self, link: SessionId) -> bool {
        self.sessions.get(&link).is_some_and(|connection| connection.neighbour)
    }

    /// Whether it takes part in a document.
    #[must_use]
    pub fn takes_part_in(&self, document: &DocumentId) -> bool {
        self.setup.participation.includes(document)
    }

    fn takes_part_in_all(&self) -> bool {
        matches!(self.setup.participation, Participation::All)
    }

    /// The next thing that it wants, in order.
    pub fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// When it is to be woken next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let hub = self.hub.poll_timeout().map(|(at, _)| at);
        let joining = self.sessions.values().filter(|connection| connection.peer.is_none());
        let join = joining.map(|connection| connection.since + self.setup.limits.join_timeout).min();
        [hub, self.mesh.poll_timeout(), self.collection.poll_timeout(), join].into_iter().flatten().min()
    }

    /// Lets what is due happen.
    pub fn wake(&mut self, now: Duration) {
        // Whoever has not joined for so long is given up, as in a shell.
        let longest = self.setup.limits.join_timeout;
        let late = |connection: &Connection| connection.peer.is_none() && connection.since + longest <= now;
        let late: Vec<SessionId> =
            self.sessions.iter().filter(|(_, connection)| late(connection)).map(|(link, _)| *link).collect();
        for link in late {
            self.acts.push_back(Act::Close(link));
            self.disconnected(now, link);
        }
        if self.hub.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.hub_input(now, Input::Timeout);
        }
        if self.collection.poll_timeout().is_some_and(|at| at <= now) {
            self.collection_input(now, collection::Input::Timeout);
        }
        self.mesh_input(now, overlay::Input::Timeout);
    }

    /// An application's changes.
    pub fn change(&mut self, now: Duration, document: DocumentId, changes: Vec<Change>) {
        self.clock.tick(self.wall_ms(now));
        self.hub_input(now, Input::Local { document, changes, ticket: 0 });
    }

    /// Takes part in the mesh, or does not for a while.
    pub fn set_online(&mut self, now: Duration, online: bool) {
        self.mesh_input(now, overlay::Input::Online(online));
    }

    /// Is told of an address.
    pub fn give(&mut self, now: Duration, address: Address) {
        self.mesh_input(now, overlay::Input::Give(address));
    }

    /// What it asked to have on the disk is there.
    pub fn persisted(&mut self, now: Duration, document: DocumentId, ticket: u64) {
        let Some(commit) = self.committing.remove(&ticket) else { return };
        if !self.disk.can_take(&commit) {
            let failure = StoreFailure { message: "the history is another one".to_owned() };
            return self.hub_input(now, Input::PersistFailed { document, ticket, failure });
        }
        let stamp = self.clock.tick(self.wall_ms(now));
        let changes = self.disk.commit(commit, stamp);
        self.acts.push_back(Act::Durable { document: document.clone(), changes });
        self.hub_input(now, Input::Persisted { document, ticket });
    }

    /// The disk did not take it.
    pub fn not_persisted(&mut self, now: Duration, document: DocumentId, ticket: u64, failure: StoreFailure) {
        if self.committing.remove(&ticket).is_some() {
            self.hub_input(now, Input::PersistFailed { document, ticket, failure });
        }
    }

    /// A connection is open; `dialled` if this end dialled it.
    pub fn connected(&mut self, now: Duration, link: SessionId, dialled: Option<Address>) {
        let limits = self.setup.limits.clone();
        let session = match &dialled {
            None => Session::accept(self.local.clone(), limits).for_entrant(Some(Access::full())),
            Some(_) => {
                let (session, join) = Session::dial(self.local.clone(), limits);
                self.acts.push_back(Act::Frame { link, bytes: Bytes::from(join), may_be_lost: false });
                session
            }
        };
        let open = self.setup.open && dialled.is_none();
        self.sessions.insert(link, Connection { session, since: now, dialled, peer: None, neighbour: false, open });
    }

    /// Nobody is at the address that was dialled.
    pub fn dial_failed(&mut self, now: Duration, address: Address) {
        self.mesh_input(now, overlay::Input::DialFailed(address));
    }

    /// A connection is gone.
    pub fn disconnected(&mut self, now: Duration, link: SessionId) {
        let Some(connection) = self.sessions.remove(&link) else { return };
        if connection.peer.is_none()
            && let Some(address) = connection.dialled
        {
            self.mesh_input(now, overlay::Input::DialFailed(address));
        }
        self.mesh_input(now, overlay::Input::Disconnected { link });
        if connection.open && connection.peer.is_some() && !connection.neighbour {
            self.leave_hub(now, link);
        }
    }

    fn moment(&self, now: Duration) -> Moment {
        Moment { mono: now, stamp: self.clock.highest() }
    }

    fn set(&self) -> SetName {
        SetName::of(&self.setup.key.set_key())
    }

    fn wall_ms(&self, now: Duration) -> u64 {
        (EPOCH_MS + now.as_millis() as u64).saturating_add_signed(self.wall_ahead_ms)
    }

    fn hub_now(&self, now: Duration) -> Now {
        Now { mono: now, wall_ms: self.wall_ms(now) }
    }
}

fn membership(setup: &Setup, seed: [u8; 32]) -> Membership {
    let Setup { config, key, participation, limits, .. } = setup.clone();
    Membership::new(config, key, limits, participation, seed)
}

fn local_peer(index: usize, replica: ReplicaId) -> LocalPeer {
    LocalPeer {
        peer: PeerId::new(&format!("node-{index}")).expect("a short name"),
        storage: replica.storage_id(),
        native: native::VERSION,
    }
}

/// Where a node listens.
///
/// # Panics
/// Never: it is short.
#[must_use]
pub fn address_of(index: usize) -> Address {
    Address::new(&format!("ws://node-{index}")).expect("short")
}

/// Who listens there.
#[must_use]
pub fn node_at(address: &Address) -> Option<usize> {
    address.as_str().strip_prefix("ws://node-")?.parse().ok()
}

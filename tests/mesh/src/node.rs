//! One replica: its hub, its membership, its sessions, its disk.
//!
//! Owns: what the shell of a replica does, without a socket: frames to sessions, messages to hub and mesh, outputs out.
//! Must not: decide anything. Next: `world.rs`; the replica crate's `mesh.rs` does the same over tokio.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::access::Access;
use syncline_core::change::Change;
use syncline_core::clock::{Clock, Stamp};
use syncline_core::collection::{self, Collection, Gathering, Outcome, Scope, SetName};
use syncline_core::hub::{Hub, Input, Now, OpenedDocuments, Outgoing, Output, PeerInfo, PeerMessage, Receipt, Role};
use syncline_core::id::{DocumentId, PeerId, ReplicaId, SessionId};
use syncline_core::native::NativeMessage;
use syncline_core::session::{LocalPeer, Session, Step};
use syncline_core::storage::Commit;
use syncline_gossip::broadcast::Counts;
use syncline_gossip::membership::{Output as MeshOutput, Participation};
use syncline_gossip::overlay::{self, Moment};
use syncline_gossip::{Address, Config, Membership, MeshKey};

use crate::disk::{Disk, limits};

/// The wall clock at the start of a run.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The first message of the broadcast that may be lost: beats and what comes after them.
const FIRST_LOSSY_TAG: u8 = 9;

/// What a node wants of the world.
#[derive(Debug)]
pub(crate) enum Act {
    /// Carry a frame.
    Frame { link: SessionId, bytes: Bytes, may_be_lost: bool },
    /// Open a connection.
    Dial(Address),
    /// Close one.
    Close(SessionId),
    /// Answer once this is on the disk.
    Persist { document: DocumentId, ticket: u64 },
    /// Changes are durable.
    Durable(Vec<ChangeHash>),
}

/// What a node has counted since the start of the run, over its restarts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) notices: Counts,
    pub(crate) frames_out: u64,
    pub(crate) bytes_out: u64,
    /// Changes that came, by notice or by sync.
    pub(crate) changes_in: u64,
    /// Changes of others that became durable.
    pub(crate) changes_new: u64,
    pub(crate) repairs: u64,
}

pub(crate) struct Node {
    pub(crate) up: bool,
    pub(crate) up_at: Duration,
    pub(crate) disk: Disk,
    /// When the last commit is on it.
    pub(crate) disk_at: Duration,
    pub(crate) wake_at: Option<Duration>,
    /// Counts the starts: what was meant for an earlier process is not for this one.
    pub(crate) starts: u32,
    pub(crate) tally: Tally,
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
    dialled: Option<Address>,
    peer: Option<PeerInfo>,
    neighbour: bool,
}

impl Node {
    pub(crate) fn new(index: usize, config: &Config, given: &[Address], seed: [u8; 32]) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(index as u64).to_be_bytes());
        let storage = ReplicaId(id).storage_id();
        let local = LocalPeer {
            peer: PeerId::new(&format!("node-{index}")).expect("a short name"),
            storage,
            native: syncline_core::native::VERSION,
        };
        let mut node = Self {
            up: true,
            up_at: Duration::ZERO,
            disk: Disk::default(),
            disk_at: Duration::ZERO,
            wake_at: None,
            starts: 0,
            tally: Tally::default(),
            hub: Hub::new(limits(), seed),
            mesh: membership(config, seed),
            collection: Collection::new(limits(), 7),
            clock: Clock::new(Stamp::ZERO, Duration::from_secs(60)),
            local,
            sessions: BTreeMap::new(),
            committing: BTreeMap::new(),
            acts: VecDeque::new(),
        };
        node.begin(Duration::ZERO, index, given);
        node
    }

    /// The process ends; the disk stays.
    pub(crate) fn kill(&mut self) {
        self.up = false;
        self.count();
        self.sessions.clear();
        self.committing.clear();
        self.acts.clear();
        self.wake_at = None;
    }

    /// Another process starts over the same disk.
    pub(crate) fn restart(&mut self, now: Duration, index: usize, config: &Config, given: &[Address], seed: [u8; 32]) {
        (self.up, self.up_at) = (true, now);
        self.starts += 1;
        self.hub = Hub::new(limits(), seed);
        self.mesh = membership(config, seed);
        self.collection = Collection::new(limits(), 7);
        self.begin(now, index, given);
    }

    fn begin(&mut self, now: Duration, index: usize, given: &[Address]) {
        self.collection_input(now, collection::Input::AddSet { key: key().set_key() });
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
    pub(crate) fn final_tally(&mut self) -> Tally {
        if self.up {
            self.count();
        }
        self.tally
    }

    /// Notices counted by all processes of this node so far.
    pub(crate) fn counts(&self) -> Counts {
        let (mut sum, counts) = (self.tally.notices, self.mesh.overlay().counts());
        if self.up {
            sum.received += counts.received;
            sum.repeated += counts.repeated;
        }
        sum
    }

    pub(crate) fn neighbours(&self) -> usize {
        self.mesh.overlay().neighbours().len()
    }

    pub(crate) fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let hub = self.hub.poll_timeout().map(|(at, _)| at);
        [hub, self.mesh.poll_timeout(), self.collection.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn wake(&mut self, now: Duration) {
        if self.hub.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.hub_input(now, Input::Timeout);
        }
        if self.collection.poll_timeout().is_some_and(|at| at <= now) {
            self.collection_input(now, collection::Input::Timeout);
        }
        self.mesh_input(now, overlay::Input::Timeout);
    }

    /// An application's changes.
    pub(crate) fn change(&mut self, now: Duration, document: DocumentId, changes: Vec<Change>) {
        self.clock.tick(wall_ms(now));
        self.hub_input(now, Input::Local { document, changes, ticket: 0 });
    }

    pub(crate) fn persisted(&mut self, now: Duration, document: DocumentId, ticket: u64) {
        let Some(commit) = self.committing.remove(&ticket) else { return };
        let stamp = self.clock.tick(wall_ms(now));
        let hashes = self.disk.commit(commit, stamp);
        self.acts.push_back(Act::Durable(hashes));
        self.hub_input(now, Input::Persisted { document, ticket });
    }

    /// A connection is open; `dialled` if this end dialled it.
    pub(crate) fn connected(&mut self, link: SessionId, dialled: Option<Address>) {
        let session = match &dialled {
            None => Session::accept(self.local.clone(), limits()).for_entrant(Some(Access::full())),
            Some(_) => {
                let (session, join) = Session::dial(self.local.clone(), limits());
                self.acts.push_back(Act::Frame { link, bytes: Bytes::from(join), may_be_lost: false });
                session
            }
        };
        self.sessions.insert(link, Connection { session, dialled, peer: None, neighbour: false });
    }

    pub(crate) fn dial_failed(&mut self, now: Duration, address: Address) {
        self.mesh_input(now, overlay::Input::DialFailed(address));
    }

    pub(crate) fn disconnected(&mut self, now: Duration, link: SessionId) {
        if let Some(connection) = self.sessions.remove(&link) {
            if connection.peer.is_none()
                && let Some(address) = connection.dialled
            {
                self.mesh_input(now, overlay::Input::DialFailed(address));
            }
            self.mesh_input(now, overlay::Input::Disconnected { link });
        }
    }

    pub(crate) fn receive(&mut self, now: Duration, link: SessionId, frame: &Bytes) {
        let Some(connection) = self.sessions.get_mut(&link) else { return };
        for step in connection.session.receive(hub_now(now), frame) {
            self.step(now, link, step);
        }
    }

    fn step(&mut self, now: Duration, link: SessionId, step: Step) {
        let Some(connection) = self.sessions.get_mut(&link) else { return };
        match step {
            Step::Send(frame) => {
                self.acts.push_back(Act::Frame { link, bytes: Bytes::from(frame), may_be_lost: false });
            }
            Step::Joined(peer) => {
                connection.peer = Some(peer);
                let dialled = connection.dialled.clone();
                self.mesh_input(now, overlay::Input::Connected { link, dialled });
            }
            Step::Forward(PeerMessage::Native(NativeMessage::Mesh(bytes))) => {
                self.mesh_input(now, overlay::Input::Received { link, bytes });
            }
            Step::Forward(PeerMessage::Native(NativeMessage::Collection(message))) if connection.neighbour => {
                let receipt = Receipt::default();
                self.collection_input(now, collection::Input::Received { session: link, message, receipt });
            }
            Step::Forward(message) if connection.neighbour => {
                if let PeerMessage::Sync(sync) = &message {
                    self.tally.changes_in += sync.changes.len() as u64;
                }
                let receipt = Receipt::default();
                self.hub_input(now, Input::Received { session: link, message, receipt });
            }
            // Of somebody who has not proved itself.
            Step::Forward(_) => {}
            Step::Observe(stamp) => {
                self.clock.observe(stamp, wall_ms(now)).expect("clocks are right here");
            }
            Step::Tell(message) => self.send(link, &message),
            Step::Authenticate(_) | Step::AccessChanged(_) | Step::AccessLeft(_) => {
                unreachable!("nobody shows a token here")
            }
            Step::Refused(offence) => panic!("an honest peer was refused: {offence}"),
            Step::Close(_) => self.acts.push_back(Act::Close(link)),
        }
    }

    fn hub_input(&mut self, now: Duration, input: Input) {
        self.hub.handle(hub_now(now), input);
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Persist { ticket, commit } => {
                    let document = commit.document.clone();
                    self.committing.insert(ticket, commit);
                    self.acts.push_back(Act::Persist { document, ticket });
                }
                Output::Load { document, what } => {
                    let loaded = self.disk.load(&document, &what, self.hub.hash_key());
                    self.hub.handle(hub_now(now), Input::Loaded { document, loaded });
                }
                Output::Send { session, message } => self.send(session, &message),
                // Links take everything at once here.
                Output::AwaitDrain { session } => self.hub.handle(hub_now(now), Input::Drained { session }),
                Output::State { document, state } => {
                    self.collection_input(now, collection::Input::Changed { document, state });
                }
                Output::Mesh(event) => {
                    let moment = self.moment(now);
                    self.mesh.hear(moment, event);
                    self.drain_mesh(now);
                }
                Output::Notify(_) => {}
                Output::Refused { remark, .. } => panic!("something honest was refused: {remark}"),
                Output::Close { session, .. } => self.acts.push_back(Act::Close(session)),
                Output::Decide { .. }
                | Output::Replace { .. }
                | Output::SetLife { .. }
                | Output::SetLocalOnly { .. } => {
                    unreachable!("nobody deletes, withholds or rewrites here")
                }
            }
        }
    }

    fn send(&mut self, link: SessionId, message: &Outgoing) {
        let Some(connection) = self.sessions.get(&link) else { return };
        let mut frame = Vec::new();
        connection.session.encode(self.clock.highest(), message, &mut frame);
        let may_be_lost =
            matches!(message, Outgoing::Native(NativeMessage::Mesh(bytes)) if bytes[0] >= FIRST_LOSSY_TAG);
        self.tally.frames_out += 1;
        self.tally.bytes_out += frame.len() as u64;
        self.acts.push_back(Act::Frame { link, bytes: Bytes::from(frame), may_be_lost });
    }

    pub(crate) fn mesh_input(&mut self, now: Duration, input: overlay::Input) {
        let moment = self.moment(now);
        self.mesh.handle(moment, input);
        self.drain_mesh(now);
    }

    fn drain_mesh(&mut self, now: Duration) {
        while let Some(output) = self.mesh.poll_output() {
            match output {
                MeshOutput::Hub { input, .. } => {
                    if let Input::Noticed { changes, .. } = &input {
                        self.tally.changes_in += changes.len() as u64;
                    }
                    self.hub_input(now, input);
                }
                MeshOutput::Overlay(output) => self.carry_out(now, output),
            }
        }
    }

    fn carry_out(&mut self, now: Duration, output: overlay::Output) {
        match output {
            overlay::Output::Dial(address) => self.acts.push_back(Act::Dial(address)),
            overlay::Output::Send { link, bytes } => self.send(link, &Outgoing::Native(NativeMessage::Mesh(bytes))),
            overlay::Output::Close { link, .. } => self.acts.push_back(Act::Close(link)),
            overlay::Output::Up { link, .. } => {
                let Some(connection) = self.sessions.get_mut(&link) else { return };
                connection.neighbour = true;
                let Some(peer) = connection.peer.clone() else { return };
                let (peer, opened) =
                    (PeerInfo { role: Role::Neighbour, access: Access::full(), ..peer }, OpenedDocuments::default());
                self.hub_input(now, Input::Connected { session: link, peer, opened });
                self.collection_input(now, collection::Input::Connected { session: link, role: Role::Neighbour });
                let (set, scope) = (set(), Scope::Names);
                self.collection_input(now, collection::Input::Allow { session: link, set, scope });
            }
            overlay::Output::Down { link, .. } => {
                if let Some(connection) = self.sessions.get_mut(&link) {
                    connection.neighbour = false;
                }
                self.hub_input(now, Input::Disconnected { session: link });
                self.collection_input(now, collection::Input::Disconnected { session: link });
            }
            overlay::Output::Repair { link } => {
                self.tally.repairs += 1;
                self.collection_input(now, collection::Input::Compare { session: link, set: set(), names: true });
            }
            overlay::Output::Stamp { stamp, .. } => {
                self.clock.observe(stamp, wall_ms(now)).expect("clocks are right here");
            }
            overlay::Output::Refused { offence, .. } => panic!("an honest member was refused: {offence}"),
            overlay::Output::Deliver { .. } => unreachable!("the membership looks into notices"),
        }
    }

    fn collection_input(&mut self, now: Duration, input: collection::Input) {
        self.collection.handle(hub_now(now), input);
        while let Some(output) = self.collection.poll_output() {
            match output {
                collection::Output::Read { set, key, hash_key } => {
                    let mut gathering = Gathering::new(key, hash_key);
                    gathering.add(self.disk.states());
                    let members = Box::new(gathering.finish());
                    self.collection.handle(hub_now(now), collection::Input::Read { set, members });
                }
                collection::Output::Send { session, message } => {
                    self.send(session, &Outgoing::Native(NativeMessage::Collection(message)));
                }
                collection::Output::Notify(event) => self.compared(now, event),
                collection::Output::Refused { words, .. } => panic!("an honest comparison was refused: {words}"),
            }
        }
    }

    /// A comparison is over: what differs is greeted.
    fn compared(&mut self, now: Duration, event: collection::Event) {
        let collection::Event::Compared { session, report } = event;
        if report.outcome == Outcome::Gone {
            return;
        }
        let found = (report.ours.len() + report.theirs.len()) as u64;
        for document in report.ours.into_iter().chain(report.theirs) {
            self.hub_input(now, Input::Initiate { session, document });
        }
        self.mesh_input(now, overlay::Input::Repaired { link: session, found });
    }

    fn moment(&self, now: Duration) -> Moment {
        Moment { mono: now, stamp: self.clock.highest() }
    }
}

fn membership(config: &Config, seed: [u8; 32]) -> Membership {
    Membership::new(config.clone(), key(), limits(), Participation::All, seed)
}

fn key() -> MeshKey {
    MeshKey::open("simulation")
}

fn set() -> SetName {
    SetName::of(&key().set_key())
}

/// Where a node listens.
pub(crate) fn address_of(index: usize) -> Address {
    Address::new(&format!("ws://node-{index}")).expect("short")
}

/// Who listens there.
pub(crate) fn node_at(address: &Address) -> Option<usize> {
    address.as_str().strip_prefix("ws://node-")?.parse().ok()
}

fn wall_ms(now: Duration) -> u64 {
    EPOCH_MS + now.as_millis() as u64
}

fn hub_now(now: Duration) -> Now {
    Now { mono: now, wall_ms: wall_ms(now) }
}

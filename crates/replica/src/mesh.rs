//! A replica's part in a mesh: one membership, its connections, its timer.
//!
//! Owns: the lock around the membership, who is let in on which connection, carrying out what it wants.
//! Must not: decide anything; the gossip crate does.
//! Next: `mesh/listen.rs`, `mesh/lan.rs`, `mesh/repair.rs`; the gossip crate's `membership.rs`; docs/gossip.md.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::access::Access;
use syncline_core::clock::Stamp;
use syncline_core::hub::{MeshEvent, Now, Outgoing, PeerInfo, PeerMessage, Role};
use syncline_core::id::{DocumentId, SessionId};
use syncline_core::native::{MESH_SINCE, NativeMessage};
use syncline_gossip::broadcast::Counts;
use syncline_gossip::membership::{Output, Participation};
use syncline_gossip::message::Refusal;
use syncline_gossip::overlay::{self, Moment, NeighbourStatus};
use syncline_gossip::{Address, Config, Member, Membership, MeshKey};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::dial::{self, DialOptions, ServerUrl};
use crate::outbox::Queued;
use crate::replica::{Inner, News, Replica};

#[cfg(feature = "lan")]
mod lan;
mod listen;
mod repair;

/// How a replica takes part in a mesh.
#[derive(Debug, Clone)]
pub struct MeshOptions {
    /// What the members share.
    pub key: MeshKey,
    /// Where to listen for other members; nowhere if `None`.
    pub listen: Option<SocketAddr>,
    /// Where others reach this replica, if not where it listens: `ws://host:port`.
    pub advertise: Vec<ServerUrl>,
    /// Addresses of members that are dialled for ever.
    pub peers: Vec<ServerUrl>,
    /// Find others on the local network, and be found. Needs the feature `lan`.
    pub lan: bool,
    /// Which documents it takes part in.
    pub participation: Participation,
    /// How members are dialled.
    pub dial: DialOptions,
    /// The numbers of the overlay.
    pub config: Config,
}

impl MeshOptions {
    /// A member that takes part in everything, and neither listens nor knows anybody yet.
    #[must_use]
    pub fn new(key: MeshKey) -> Self {
        Self {
            key,
            listen: None,
            advertise: Vec::new(),
            peers: Vec::new(),
            lan: false,
            participation: Participation::All,
            dial: DialOptions::default(),
            config: Config::default(),
        }
    }
}

/// Why a replica cannot take part in a mesh. **State:** it takes no part. **Do:** as the variant says.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The address cannot be listened on. **State:** no mesh was joined.
    /// **Do:** choose another address, or end what listens there.
    #[error("cannot listen on {address} for members of the mesh: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The local network cannot be looked at. **State:** no mesh was joined. **Do:** give addresses instead.
    #[error("cannot look for members on the local network: {0}")]
    Lan(String),
    /// The replica is in a mesh. **State:** it stays in that one. **Do:** leave it first.
    #[error("the replica is in a mesh already")]
    Joined,
}

/// A member's place in its mesh. It leaves when this is dropped.
#[derive(Debug)]
pub struct Mesh {
    state: Arc<MeshState>,
    replica: Weak<Inner>,
    tasks: Vec<JoinHandle<()>>,
    listening: Option<SocketAddr>,
    #[cfg(feature = "lan")]
    _lan: Option<lan::Lan>,
}

/// A member for people.
#[derive(Debug, Clone)]
pub struct MeshStatus {
    /// This replica's name in the mesh.
    pub member: Member,
    /// Whether it takes part at this moment.
    pub online: bool,
    /// Its neighbours.
    pub neighbours: Vec<NeighbourStatus>,
    /// Members that are remembered beside the neighbours.
    pub known: usize,
    /// Notices, counted since it joined.
    pub notices: Counts,
    /// The time by which [`NeighbourStatus`] counts.
    pub at: Duration,
    /// The replica's clock.
    pub stamp: Stamp,
}

/// What connections and shards share of a mesh.
#[derive(Debug)]
pub(crate) struct MeshState {
    membership: Mutex<Membership>,
    sessions: Mutex<HashMap<SessionId, MeshSession>>,
    dial: DialOptions,
    wake: Notify,
    comparison: repair::Comparison,
}

#[derive(Debug)]
struct MeshSession {
    peer: PeerInfo,
    /// Shared with a connection that is for members only.
    admitted: Option<Arc<AtomicBool>>,
}

/// Who is let in on a connection.
#[derive(Debug, Clone)]
pub(crate) enum Gate {
    /// Everybody.
    Open,
    /// Members of the mesh, once they have proved it.
    Members {
        /// Whether it has.
        admitted: Arc<AtomicBool>,
        /// What was dialled.
        dialled: Option<Address>,
    },
}

impl Gate {
    pub(crate) fn members(dialled: Option<Address>) -> Self {
        Self::Members { admitted: Arc::default(), dialled }
    }
}

impl Replica {
    /// Takes part in a mesh until the returned handle is dropped.
    ///
    /// # Errors
    /// [`MeshError`].
    pub async fn join_mesh(&self, options: MeshOptions) -> Result<Mesh, MeshError> {
        let inner = &self.inner;
        let MeshOptions { key, listen, advertise, peers, lan, participation, dial, config } = options;
        let listener = match listen {
            Some(address) => Some(listen::bind(address).await?),
            None => None,
        };
        let listening = listener.as_ref().map(|(address, _)| *address);
        let name = key.name();
        let comparison = repair::Comparison::new(inner, &key, &participation);
        let membership = Membership::new(config, key, inner.limits().as_ref().clone(), participation, rand::random());
        let member = membership.overlay().me();
        let state = Arc::new(MeshState {
            membership: Mutex::new(membership),
            sessions: Mutex::default(),
            dial,
            wake: Notify::new(),
            comparison,
        });
        if !inner.set_mesh(Some(Arc::clone(&state))) {
            return Err(MeshError::Joined);
        }
        let addresses = match (advertise.is_empty(), listening) {
            (true, Some(listening)) => listen::reachable_at(listening),
            _ => advertise.iter().filter_map(|url| Address::new(&url.to_string())).collect(),
        };
        state.handle(inner, overlay::Input::Listening(addresses));
        for peer in peers {
            state.give(inner, &peer);
        }
        let mut mesh = Mesh {
            tasks: vec![tokio::spawn(keep_time(Arc::downgrade(&state), Arc::downgrade(inner)))],
            state,
            replica: Arc::downgrade(inner),
            listening,
            #[cfg(feature = "lan")]
            _lan: None,
        };
        if let Some((_, listener)) = listener {
            mesh.tasks.push(tokio::spawn(listen::accept(listener, Arc::downgrade(inner))));
        }
        mesh.look_around(lan, member, &name)?;
        Ok(mesh)
    }
}

impl Mesh {
    #[cfg(feature = "lan")]
    fn look_around(&mut self, lan: bool, member: Member, name: &str) -> Result<(), MeshError> {
        if lan {
            let found =
                lan::Lan::start(Arc::downgrade(&self.state), self.replica.clone(), member, name, self.listening);
            self._lan = Some(found.map_err(MeshError::Lan)?);
        }
        Ok(())
    }

    #[cfg(not(feature = "lan"))]
    fn look_around(&mut self, lan: bool, _member: Member, _name: &str) -> Result<(), MeshError> {
        if lan { Err(MeshError::Lan("built without the feature lan".to_owned())) } else { Ok(()) }
    }

    /// Where it listens.
    #[must_use]
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening
    }

    /// Who is there.
    #[must_use]
    pub fn status(&self) -> MeshStatus {
        let moment = self.replica.upgrade().map(|inner| inner.moment());
        let Moment { mono: at, stamp } = moment.unwrap_or(Moment { mono: Duration::ZERO, stamp: Stamp::ZERO });
        let membership = self.state.lock();
        let overlay = membership.overlay();
        MeshStatus {
            member: overlay.me(),
            online: overlay.is_online(),
            neighbours: overlay.neighbours(),
            known: overlay.extent().1,
            notices: overlay.counts(),
            at,
            stamp,
        }
    }

    /// Dials another address, for ever.
    pub fn add_peer(&self, peer: &ServerUrl) {
        if let Some(inner) = self.replica.upgrade() {
            self.state.give(&inner, peer);
        }
    }

    /// Shows neighbours a few bytes, at most 512, with each beat.
    pub fn show(&self, about: impl Into<Bytes>) {
        self.input(overlay::Input::About(about.into()));
    }

    /// Cuts every connection of the mesh and takes none, or takes part again.
    pub fn set_online(&self, online: bool) {
        self.input(overlay::Input::Online(online));
    }

    fn input(&self, input: overlay::Input) {
        if let Some(inner) = self.replica.upgrade() {
            self.state.handle(&inner, input);
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(inner) = self.replica.upgrade() {
            self.state.handle(&inner, overlay::Input::Online(false));
            inner.set_mesh(None);
        }
    }
}

async fn keep_time(state: Weak<MeshState>, replica: Weak<Inner>) {
    loop {
        let (Some(mesh), Some(inner)) = (state.upgrade(), replica.upgrade()) else { return };
        let due = mesh.lock().poll_timeout();
        let mut stop = inner.stop.subscribe();
        let at = due.map_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3600), |due| inner.started + due);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => return,
            () = mesh.wake.notified() => continue,
            () = tokio::time::sleep_until(at) => {}
        }
        mesh.handle(&inner, overlay::Input::Timeout);
        tokio::task::consume_budget().await;
    }
}

impl MeshState {
    fn lock(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, MeshSession>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, inner: &Arc<Inner>, peer: &ServerUrl) {
        if let Some(address) = Address::new(&peer.to_string()) {
            self.handle(inner, overlay::Input::Give(address));
        }
    }

    pub(crate) fn handle(&self, inner: &Arc<Inner>, input: overlay::Input) {
        let mut membership = self.lock();
        membership.handle(inner.moment(), input);
        self.drain(inner, &mut membership);
    }

    pub(crate) fn hear(&self, inner: &Arc<Inner>, event: MeshEvent) {
        let mut membership = self.lock();
        membership.hear(inner.moment(), event);
        self.drain(inner, &mut membership);
    }

    /// A peer has joined on a connection.
    pub(crate) fn joined(&self, inner: &Arc<Inner>, session: SessionId, peer: &PeerInfo, gate: &Gate) {
        let (admitted, dialled) = match gate {
            Gate::Open => (None, None),
            Gate::Members { admitted, dialled } => (Some(Arc::clone(admitted)), Some(dialled.clone())),
        };
        self.sessions().insert(session, MeshSession { peer: peer.clone(), admitted });
        // On a connection that is open to all, whoever wants to be a neighbour says so.
        if let Some(dialled) = dialled {
            self.handle(inner, overlay::Input::Connected { link: session, dialled });
        }
    }

    /// Connections that are for members only.
    pub(crate) fn members(&self) -> usize {
        self.sessions().values().filter(|session| session.admitted.is_some()).count()
    }

    pub(crate) fn received(&self, inner: &Arc<Inner>, session: SessionId, bytes: Bytes) {
        // Who joined before this replica was in a mesh is not known here, and comes again.
        if self.sessions().contains_key(&session) {
            self.handle(inner, overlay::Input::Received { link: session, bytes });
        }
    }

    /// A connection is gone. One that was dialled and never joined counts as a failure.
    pub(crate) fn disconnected(&self, inner: &Arc<Inner>, session: SessionId, gate: &Gate) {
        let joined = self.sessions().contains_key(&session);
        if let (false, Gate::Members { dialled: Some(address), .. }) = (joined, gate) {
            self.handle(inner, overlay::Input::DialFailed(address.clone()));
        }
        self.handle(inner, overlay::Input::Disconnected { link: session });
        self.sessions().remove(&session);
    }

    /// Whether this replica takes part in what a message is about; of the rest a neighbour hears that it is not here.
    pub(crate) fn takes_part_in(&self, message: &PeerMessage) -> Result<(), DocumentId> {
        let document = match message {
            PeerMessage::Sync(message) => &message.document,
            PeerMessage::DocUnavailable { document }
            | PeerMessage::Ephemeral { document, .. }
            | PeerMessage::RemoteHeads { document, .. }
            | PeerMessage::Native(
                NativeMessage::Life { document, .. }
                | NativeMessage::Refused { document, .. }
                | NativeMessage::Account { document, .. },
            ) => document,
            PeerMessage::Native(
                NativeMessage::Blob(_)
                | NativeMessage::Collection(_)
                | NativeMessage::Mesh(_)
                | NativeMessage::Token(_)
                | NativeMessage::Access { .. },
            )
            | PeerMessage::RemoteSubscription { .. } => return Ok(()),
        };
        if self.lock().takes_part_in(document) { Ok(()) } else { Err(document.clone()) }
    }

    fn drain(&self, inner: &Arc<Inner>, membership: &mut Membership) {
        while let Some(output) = membership.poll_output() {
            match output {
                Output::Hub { document, input } => inner.route(input, &document),
                Output::Overlay(output) => self.carry_out(inner, output),
            }
        }
        self.wake.notify_one();
    }

    fn carry_out(&self, inner: &Arc<Inner>, output: overlay::Output) {
        match output {
            overlay::Output::Dial(address) => {
                tokio::spawn(dial_member(Arc::clone(inner), address, self.dial.clone()));
            }
            overlay::Output::Send { link, bytes } => {
                // A neighbour that does not read is closed for its silence soon.
                if let Some(outbox) = inner.outbox(link).filter(|outbox| !outbox.is_full()) {
                    outbox.push(Queued::Message(Outgoing::Native(NativeMessage::Mesh(bytes)), None));
                }
            }
            overlay::Output::Close { link, reason } => self.close(inner, link, reason),
            overlay::Output::Up { link, member } => self.up(inner, link, member),
            overlay::Output::Down { link, member } => {
                inner.leave_hubs(link);
                self.be_a_peer_again(inner, link);
                inner.tell(News::NeighbourLeft { session: link, member });
            }
            overlay::Output::Repair { link } => self.compare(inner, link),
            overlay::Output::Stamp { link, stamp } => {
                if let Err(error) = inner.store.observe(stamp) {
                    inner.metrics.refuse(error.kind());
                    tracing::debug!(session = link.0, "{error}");
                }
            }
            overlay::Output::Refused { link, offence } => {
                if inner.metrics.refuse_aloud(offence.kind()) {
                    tracing::warn!(session = link.0, kind = offence.kind(), "refused: {offence}");
                }
                inner.tell(News::MeshRefused { session: link, offence });
            }
            // The membership looks into notices.
            overlay::Output::Deliver { .. } => {}
        }
    }

    /// Ends what a connection has to do with the mesh, and the connection if it is for members only.
    fn close(&self, inner: &Arc<Inner>, link: SessionId, reason: Refusal) {
        let for_members = self.sessions().get(&link).is_none_or(|session| session.admitted.is_some());
        if let Some(outbox) = inner.outbox(link).filter(|_| for_members) {
            outbox.close(&reason.to_string());
        }
    }

    /// A neighbour on a connection that is open to all is a peer like any other once it is none.
    fn be_a_peer_again(&self, inner: &Arc<Inner>, link: SessionId) {
        let sessions = self.sessions();
        let open = sessions.get(&link).filter(|session| session.admitted.is_none());
        if let Some(session) = open.filter(|_| inner.outbox(link).is_some()) {
            inner.enter_hubs(link, &session.peer);
        }
    }

    fn up(&self, inner: &Arc<Inner>, link: SessionId, member: Member) {
        let sessions = self.sessions();
        let Some(session) = sessions.get(&link) else { return };
        let mut peer = PeerInfo { role: Role::Neighbour, ..session.peer.clone() };
        match &session.admitted {
            Some(admitted) => {
                admitted.store(true, Ordering::Release);
                peer.access = Access::full();
            }
            // It was in the hubs as a client before, and may do there what its token says.
            None => inner.leave_hubs(link),
        }
        inner.enter_hubs(link, &peer);
        self.comparison.allow(inner, link);
        inner.tell(News::NeighbourJoined { session: link, member, peer });
    }
}

impl Inner {
    /// The time as a mesh has it: the clock as it stands, or the wall if that is ahead.
    pub(crate) fn moment(&self) -> Moment {
        let Now { mono, wall_ms } = self.now();
        Moment { mono, stamp: self.store.highest_stamp().max(Stamp::new(wall_ms, 0)) }
    }
}

async fn dial_member(inner: Arc<Inner>, address: Address, options: DialOptions) {
    let dialled = match address.as_str().parse::<ServerUrl>() {
        Ok(server) => dial::dial_member(&inner, &server, &options, Gate::members(Some(address.clone()))).await,
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = dialled {
        tracing::debug!(%address, "a member cannot be reached: {reason}");
        if let Some(mesh) = inner.mesh() {
            mesh.handle(&inner, overlay::Input::DialFailed(address));
        }
    }
}

/// Whether a peer knows the messages of the mesh.
pub(crate) fn is_known_to(peer: &PeerInfo) -> bool {
    peer.native >= MESH_SINCE
}

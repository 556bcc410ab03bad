//! One replica: a store, its shards, its connections.
//!
//! Owns: starting and stopping in order, who is connected, routing by document.
//! Must not: interpret messages. Next: `shard.rs`, `connection.rs`; docs/architecture.md "One way through".

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::access::{Access, Permissions};
use syncline_core::blob::{self, BlobHash, BlobMessage, BlobRefusal, exchange, exchange::Exchange};
use syncline_core::change::Change;
use syncline_core::collection::{self, Collection};
use syncline_core::hub::{Event, Hub, Input, Now, OpenedDocuments, Outgoing, PeerInfo, PeerMessage, Receipt, Role};
use syncline_core::id::{DocumentId, PeerId, SessionId};
use syncline_core::limits::Limits;
use syncline_core::native::{self, NativeMessage};
use syncline_core::session::{LocalPeer, Offence, Roster};
use syncline_gossip::{Member, overlay};
use syncline_store::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::authority::{Authority, Open};
use crate::blobs::{self, BlobHandle};
use crate::collection::CollectionHandle;
use crate::connection;
use crate::dial::{DialOptions, Dialling, ServerUrl};
use crate::insight::Directory;
use crate::mesh::MeshState;
use crate::metrics::Metrics;
use crate::outbox::{Outbox, Queued};
use crate::room::Room;
use crate::shard::{self, Occupied, ShardHandle};
use crate::subjects::Subjects;

/// Heavy frames decoded at one time, in the whole replica.
const HEAVY_DECODES_MAX: usize = 2;

/// How a replica behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bounds on what peers may do.
    pub limits: Limits,
    /// Hubs that share the documents among them. Default: one for each processor, at most 8.
    pub shards: usize,
    /// The peer's name for this process. Default: random.
    pub peer: PeerId,
    /// Longest that a stop waits for connections to take what is queued for them.
    pub stop_timeout: Duration,
    /// Who decides what peers that dial may do. Default: they may do everything.
    pub authority: Arc<dyn Authority>,
    /// Who hears what peers say to each other at every document, as far as there is room in this. Default: nobody.
    pub ear: Option<mpsc::Sender<Overheard>>,
}

/// What a peer said to the others at a document, and is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overheard {
    /// Where.
    pub document: DocumentId,
    /// Who said it.
    pub sender: PeerId,
    /// What: CBOR of the application's value.
    pub data: Bytes,
}

impl Default for Options {
    fn default() -> Self {
        let shards = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let random: [u8; 8] = rand::random();
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let peer = PeerId::new(&format!("syncline-{name}")).expect("a short name is a peer id");
        Self {
            limits: Limits::default(),
            shards,
            peer,
            stop_timeout: Duration::from_secs(5),
            authority: Arc::new(Open),
            ear: None,
        }
    }
}

/// What a replica tells its application.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// About a document that is watched or was changed here.
    Document(Event),
    /// A peer has joined.
    Joined {
        /// The connection.
        session: SessionId,
        /// Who.
        peer: PeerInfo,
        /// Its address, if it was dialled.
        server: Option<ServerUrl>,
    },
    /// A peer that had joined is gone.
    Left {
        /// The connection.
        session: SessionId,
    },
    /// A peer did something that was not taken, or reports that something of ours was not.
    Refused {
        /// The connection.
        session: SessionId,
        /// What.
        offence: Offence,
    },
    /// About a blob.
    Blob(exchange::Event),
    /// A member of the mesh is a neighbour from here on.
    NeighbourJoined {
        /// The connection.
        session: SessionId,
        /// Its name in the mesh.
        member: Member,
        /// Who.
        peer: PeerInfo,
    },
    /// It is none any more.
    NeighbourLeft {
        /// The connection.
        session: SessionId,
        /// Its name in the mesh.
        member: Member,
    },
    /// Something was not taken from a peer that is, or wants to be, a neighbour.
    MeshRefused {
        /// The connection.
        session: SessionId,
        /// What.
        offence: overlay::Offence,
    },
    /// About a round in which documents were compared with a peer's.
    Collection(collection::Event),
    /// A server could not be reached; it is tried again.
    Unreachable {
        /// The server.
        server: ServerUrl,
        /// Why, in words for a person.
        reason: String,
    },
}

/// A running replica. Clones share it. It must be created and used within a tokio runtime.
#[derive(Debug, Clone)]
pub struct Replica {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    limits: RwLock<Arc<Limits>>,
    pub(crate) local: LocalPeer,
    pub(crate) metrics: Metrics,
    pub(crate) started: Instant,
    pub(crate) heavy: Semaphore,
    pub(crate) blobs: BlobHandle,
    /// The mesh in which it takes part.
    mesh: RwLock<Option<Arc<MeshState>>>,
    pub(crate) authority: Arc<dyn Authority>,
    ear: Option<mpsc::Sender<Overheard>>,
    pub(crate) subjects: Subjects,
    pub(crate) room: Room,
    pub(crate) collection: CollectionHandle,
    /// Turns true when shards are to end.
    pub(crate) stop: watch::Sender<bool>,
    /// Turns true when connections are to read no more.
    pub(crate) quiet: watch::Sender<bool>,
    /// Counts the application's hints that the network is another one.
    pub(crate) network: watch::Sender<u64>,
    stop_timeout: Duration,
    shards: OnceLock<Vec<ShardHandle>>,
    routing: RandomState,
    roster: Mutex<Roster>,
    pub(crate) directory: Directory,
    outboxes: RwLock<HashMap<SessionId, Arc<Outbox>>>,
    next_session: AtomicU64,
    next_ticket: AtomicU64,
    /// What is not stored is told apart by this process's name and a count.
    process: Arc<str>,
    spoken: AtomicU64,
    news: mpsc::UnboundedSender<News>,
}

impl Replica {
    /// Starts a replica over an open store. The news end when the replica is dropped.
    #[must_use]
    pub fn start(store: Store, options: Options) -> (Self, mpsc::UnboundedReceiver<News>) {
        let local = LocalPeer { peer: options.peer, storage: store.replica_id().storage_id(), native: native::VERSION };
        let (news, receiver) = mpsc::unbounded_channel();
        let limits = Arc::new(options.limits.clone());
        let (blobs, exchanging) = blobs::prepare(Exchange::new(options.limits.clone()));
        let collection = Collection::new(options.limits.clone(), rand::random());
        let (collection, comparing) = crate::collection::prepare(collection);
        let inner = Arc::new(Inner {
            store,
            limits: RwLock::new(Arc::clone(&limits)),
            local,
            metrics: Metrics::default(),
            started: Instant::now(),
            heavy: Semaphore::new(HEAVY_DECODES_MAX),
            blobs,
            mesh: RwLock::new(None),
            authority: options.authority,
            ear: options.ear,
            subjects: Subjects::default(),
            room: Room::default(),
            collection,
            stop: watch::Sender::new(false),
            quiet: watch::Sender::new(false),
            network: watch::Sender::new(0),
            stop_timeout: options.stop_timeout,
            shards: OnceLock::new(),
            routing: RandomState::new(),
            roster: Mutex::new(Roster::default()),
            directory: Directory::default(),
            outboxes: RwLock::new(HashMap::new()),
            next_session: AtomicU64::new(1),
            next_ticket: AtomicU64::new(1),
            process: Arc::from(format!("{:016x}", rand::random::<u64>())),
            spoken: AtomicU64::new(0),
            news,
        });
        inner.metrics.has_room.set(1);
        let seed: [u8; 32] = rand::random();
        let starts = (0..options.shards.max(1)).map(|number| {
            let mut hub = Hub::new(limits.as_ref().clone(), seed);
            if inner.ear.is_some() {
                hub.overhear();
            }
            shard::start(number, hub)
        });
        let (handles, tasks): (Vec<_>, Vec<_>) = starts.unzip();
        inner.shards.get_or_init(|| handles);
        for task in tasks {
            tokio::spawn(task.run(Arc::clone(&inner)));
        }
        tokio::spawn(exchanging.run(Arc::clone(&inner)));
        tokio::spawn(comparing.run(Arc::clone(&inner)));
        let weak = Arc::downgrade(&inner);
        inner.store.on_compacted(move |document, changes| {
            if let Some(inner) = weak.upgrade() {
                inner.shard_of(&document).send_from_store(Input::Compacted { document, changes });
            }
        });
        let weak = Arc::downgrade(&inner);
        inner.store.on_purged(move |document| {
            if let Some(inner) = weak.upgrade() {
                inner.shard_of(&document).send_from_store(Input::Purged { document });
            }
        });
        let metrics = inner.metrics.clone();
        inner.store.on_transacted(move |transacted| metrics.transact(transacted));
        let metrics = inner.metrics.clone();
        inner.store.on_quarantined(move |_, kind| metrics.quarantine(kind));
        (Self { inner }, receiver)
    }

    /// Serves a peer that has dialled and may do everything, until its connection ends.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::accept(Arc::clone(&self.inner), stream, Some(Access::full())).await;
    }

    /// Serves a peer of which is known what it may do; without that, it has to present something in its join.
    pub async fn serve_entrant<S>(&self, stream: S, entrant: Option<Access>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::accept(Arc::clone(&self.inner), stream, entrant).await;
    }

    /// Grants room for so many bytes of what peers bring, until this is called again. Without it, or once they are used up,
    /// nothing of that is taken, and everything can be read. A replica to which this is never said has room for everything.
    pub fn set_room(&self, bytes: Option<u64>) {
        if self.inner.room.grant(bytes) {
            self.inner.room_changed();
        }
    }

    /// Returns once half of the room that was granted last is used up.
    pub async fn runs_short_of_room(&self) {
        self.inner.room.runs_short().await;
    }

    /// Whether there is room for what peers, or anybody, brings.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.inner.room.is_open()
    }

    /// Has every connection look anew at whether its peer still may do what it does: a key was withdrawn, for example.
    pub fn reconsider_access(&self) {
        self.inner.all_outboxes().iter().for_each(|outbox| outbox.reconsider());
    }

    /// Who decides what peers may do.
    #[must_use]
    pub fn authority(&self) -> &Arc<dyn Authority> {
        &self.inner.authority
    }

    /// Keeps a connection to a server, until the returned handle is dropped.
    #[must_use]
    pub fn dial(&self, server: ServerUrl, options: DialOptions) -> Dialling {
        Dialling::start(Arc::clone(&self.inner), server, options)
    }

    /// Dials servers that wait for their next try at once.
    pub fn network_changed(&self) {
        self.inner.network.send_modify(|changes| *changes += 1);
    }

    /// Hands over changes that the application made. The ticket comes back in the news once they are durable.
    #[must_use]
    pub fn change(&self, document: DocumentId, changes: Vec<Change>) -> u64 {
        let ticket = self.inner.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.inner.route(Input::Local { document: document.clone(), changes, ticket }, &document);
        ticket
    }

    /// The same for somebody who is not a peer: its actors and what it stores are kept as a peer's are.
    #[must_use]
    pub fn change_on_behalf(&self, subject: Arc<str>, document: DocumentId, changes: Vec<Change>) -> u64 {
        let ticket = self.inner.next_ticket.fetch_add(1, Ordering::Relaxed);
        let input = Input::OnBehalf { subject, document: document.clone(), changes, ticket };
        self.inner.route(input, &document);
        ticket
    }

    /// Deletes a document that has not been touched for long, unless its durable heads are no longer these or somebody is at
    /// it. The ticket comes back in the news, either way.
    #[must_use]
    pub fn expire(&self, document: &DocumentId, heads: Vec<ChangeHash>) -> u64 {
        let ticket = self.inner.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.inner.route(Input::Expire { document: document.clone(), heads, ticket }, document);
        ticket
    }

    /// Puts another history in the place of a document's, if its durable heads are these. The ticket comes back in the
    /// news once that is durable, or if it was not done.
    #[must_use]
    pub fn replace(&self, document: &DocumentId, heads: Vec<ChangeHash>, changes: Vec<Change>) -> u64 {
        let ticket = self.inner.next_ticket.fetch_add(1, Ordering::Relaxed);
        let input = Input::Replace { document: document.clone(), heads, changes, ticket };
        self.inner.route(input, document);
        ticket
    }

    /// Deletes or restores a document, also one that is not here. The ticket comes back in the news once that is durable.
    #[must_use]
    pub fn set_life(&self, document: &DocumentId, deleted: bool) -> u64 {
        let ticket = self.inner.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.inner.route(Input::SetLife { document: document.clone(), deleted, ticket }, document);
        ticket
    }

    /// Keeps a document on this machine, also one that is not here yet, or lets it go to peers. The ticket comes back in the
    /// news once that is durable.
    #[must_use]
    pub fn set_local_only(&self, document: &DocumentId, local_only: bool) -> u64 {
        let ticket = self.inner.next_ticket.fetch_add(1, Ordering::Relaxed);
        self.inner.route(Input::SetLocalOnly { document: document.clone(), local_only, ticket }, document);
        ticket
    }

    /// Asks for news of a document, and asks the servers about it.
    pub fn watch(&self, document: &DocumentId) {
        self.inner.route(Input::Watch { document: document.clone() }, document);
    }

    /// Ends the news of a document.
    pub fn unwatch(&self, document: &DocumentId) {
        self.inner.route(Input::Unwatch { document: document.clone() }, document);
    }

    /// Speaks with a server about a document.
    pub fn initiate(&self, session: SessionId, document: &DocumentId) {
        self.inner.route(Input::Initiate { session, document: document.clone() }, document);
    }

    /// Gives a server what it lacks of a document, and takes nothing of it that it has beyond.
    pub fn offer(&self, session: SessionId, document: &DocumentId) {
        self.inner.route(Input::Offer { session, document: document.clone() }, document);
    }

    /// Says something that is not stored to everyone at a document: CBOR of the application's value.
    pub fn broadcast(&self, document: &DocumentId, data: Bytes) {
        let count = self.inner.spoken.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, session) = (self.inner.local.peer.clone(), Arc::clone(&self.inner.process));
        self.inner.route(Input::Broadcast { document: document.clone(), sender, count, session, data }, document);
    }

    /// Whether it takes part in a mesh.
    #[must_use]
    pub fn is_in_mesh(&self) -> bool {
        self.inner.mesh().is_some()
    }

    /// The store underneath. Its calls block.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        self.inner.limits()
    }

    /// Puts other bounds in force, for those who are connected too. What blobs and rounds keep to, and whether actors are
    /// bound, stays as it was when the replica started.
    pub fn set_limits(&self, limits: Limits) {
        let limits = Arc::new(limits);
        *self.inner.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&limits);
        for shard in self.inner.shards() {
            shard.send(Input::Limits(Box::new(limits.as_ref().clone())));
        }
        self.reconsider_access();
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// How this replica presents itself to peers.
    #[must_use]
    pub fn local(&self) -> &LocalPeer {
        &self.inner.local
    }

    /// Number of peers that have joined.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.inner.roster().len()
    }

    /// The time since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Stops in order: reads nothing more, makes durable what was read, acknowledges it, closes connections, closes the
    /// store. Waits for slow peers as long as the options say.
    pub async fn stop(&self) {
        let inner = &self.inner;
        if let Some(mesh) = inner.mesh() {
            mesh.handle(inner, overlay::Input::Online(false));
        }
        inner.quiet.send_replace(true);
        for shard in inner.shards() {
            shard.settle().await;
        }
        for outbox in inner.all_outboxes() {
            outbox.close("the server is stopping");
        }
        let deadline = Instant::now() + inner.stop_timeout;
        let mut stop = inner.stop.subscribe();
        while !inner.all_outboxes().is_empty() && Instant::now() < deadline {
            let pause = Duration::from_millis(10);
            let _ = tokio::time::timeout(pause, stop.changed()).await;
        }
        inner.stop.send_replace(true);
        let store = inner.store.clone();
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        if let Ok(Err(error)) = closed {
            tracing::error!("the store did not close cleanly: {error}");
        }
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.started.elapsed(), wall_ms: wall.as_millis() as u64 }
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes bytes that are about to be stored.
    pub(crate) fn spend_room(&self, bytes: usize) {
        if self.room.spend(bytes as u64) {
            tracing::warn!(
                "more was brought than the disk had room for when it was last looked at: nothing is taken until the next look"
            );
            self.room_changed();
        }
    }

    fn room_changed(&self) {
        let has_room = self.room.is_open();
        self.metrics.has_room.set(has_room.into());
        self.shards().iter().for_each(|shard| shard.send(Input::Room { has_room }));
    }

    pub(crate) fn shards(&self) -> &[ShardHandle] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn shard_of(&self, document: &DocumentId) -> &ShardHandle {
        let shards = self.shards();
        &shards[self.routing.hash_one(document) as usize % shards.len()]
    }

    pub(crate) fn route(&self, input: Input, document: &DocumentId) {
        self.shard_of(document).send(input);
    }

    /// Hands a peer's message to the shard that has its document, or to all if it is about none.
    pub(crate) fn forward(&self, session: SessionId, message: PeerMessage, allowance: Occupied) {
        let bytes = allowance.bytes();
        let receipt = Receipt::new(Arc::new(allowance));
        let document = match &message {
            PeerMessage::Sync(message) => message.document.clone(),
            PeerMessage::Native(NativeMessage::Blob(message)) => {
                let message = message.clone();
                if let (BlobMessage::Offer { hash, .. }, false) = (&message, self.room.is_open()) {
                    return self.refuse_blob(session, *hash);
                }
                return self.blobs.send(exchange::Input::Received { session, message, receipt });
            }
            // The connection hands these to the mesh.
            PeerMessage::Native(NativeMessage::Mesh(_)) => return,
            PeerMessage::Native(NativeMessage::Collection(message)) => {
                let message = message.clone();
                self.metrics.rounds.note_received(&message, bytes);
                return self.collection.send(collection::Input::Received { session, message, receipt });
            }
            PeerMessage::Native(
                NativeMessage::Life { document, .. }
                | NativeMessage::Refused { document, .. }
                | NativeMessage::Account { document, .. },
            ) => document.clone(),
            PeerMessage::DocUnavailable { document }
            | PeerMessage::Ephemeral { document, .. }
            | PeerMessage::RemoteHeads { document, .. } => document.clone(),
            PeerMessage::RemoteSubscription { .. }
            | PeerMessage::Native(NativeMessage::Access { .. } | NativeMessage::Token(_)) => {
                for shard in self.shards() {
                    let (message, receipt) = (message.clone(), receipt.clone());
                    shard.send(Input::Received { session, message, receipt });
                }
                return;
            }
        };
        self.route(Input::Received { session, message, receipt }, &document);
    }

    fn refuse_blob(&self, session: SessionId, hash: BlobHash) {
        self.metrics.refuse("no_room");
        if let Some(outbox) = self.outbox(session) {
            let words = "there is no room on the server".to_owned();
            let refused = BlobMessage::Refused { hash, reason: BlobRefusal::NoRoom, words };
            outbox.push(Queued::Message(Outgoing::Native(NativeMessage::Blob(refused)), None));
        }
    }

    /// Opens a connection's queue under a new number.
    pub(crate) fn open_session(&self) -> (SessionId, Arc<Outbox>) {
        let session = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::default());
        self.outboxes.write().unwrap_or_else(PoisonError::into_inner).insert(session, Arc::clone(&outbox));
        self.metrics.connections.inc();
        self.metrics.connections_total.inc();
        (session, outbox)
    }

    /// A peer has joined: an older connection of the same peer goes first.
    pub(crate) fn join(&self, session: SessionId, peer: &PeerInfo, server: Option<&ServerUrl>) {
        // The peers that we dial are told apart by connection; only those that dial us can come twice.
        let replaced = match peer.role {
            Role::Downstream => self.roster().join(&peer.peer, session),
            Role::Upstream | Role::Neighbour => None,
        };
        if let Some(replaced) = replaced {
            if let Some(outbox) = self.outbox(replaced) {
                outbox.close("the same peer has connected again");
            }
            self.leave_hubs(replaced);
        }
        self.enter_hubs(session, peer);
        self.directory.enter(session, peer, server);
        self.tell(News::Joined { session, peer: peer.clone(), server: server.cloned() });
    }

    /// Documents and blobs are spoken of with a peer from here on.
    pub(crate) fn enter_hubs(&self, session: SessionId, peer: &PeerInfo) {
        let opened = OpenedDocuments::default();
        for shard in self.shards() {
            shard.send(Input::Connected { session, peer: peer.clone(), opened: opened.clone() });
        }
        if peer.native >= blob::message::SINCE {
            let upstream = peer.role == Role::Upstream;
            self.blobs.send(exchange::Input::Connected { session, upstream });
        }
        if peer.native >= collection::message::SINCE {
            self.collection.send(collection::Input::Connected { session, role: peer.role });
            if peer.role == Role::Downstream {
                self.allow_rounds(session, &peer.access);
            }
        }
    }

    /// The mesh in which this replica takes part.
    pub(crate) fn mesh(&self) -> Option<Arc<MeshState>> {
        self.mesh.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes part in a mesh, or in none; false if it is in one.
    pub(crate) fn set_mesh(&self, mesh: Option<Arc<MeshState>>) -> bool {
        let mut place = self.mesh.write().unwrap_or_else(PoisonError::into_inner);
        let free = place.is_none() || mesh.is_none();
        if free {
            *place = mesh;
        }
        free
    }

    /// A peer may do something else than before.
    pub(crate) fn change_access(&self, session: SessionId, access: &Access) {
        for shard in self.shards() {
            shard.send(Input::AccessChanged { session, access: access.clone() });
        }
        self.allow_rounds(session, access);
    }

    /// A round tells about all documents: it is for those who may read all.
    fn allow_rounds(&self, session: SessionId, access: &Access) {
        let reads_all = access.everywhere().include(Permissions::READ);
        let scope = if reads_all { collection::Scope::Own } else { collection::Scope::Nothing };
        let set = collection::SetName::of_documents();
        self.collection.send(collection::Input::Allow { session, set, scope });
    }

    /// A connection has ended.
    pub(crate) fn close_session(&self, session: SessionId, peer: Option<&PeerInfo>) {
        self.outboxes.write().unwrap_or_else(PoisonError::into_inner).remove(&session);
        self.metrics.connections.dec();
        if let Some(peer) = peer {
            self.roster().leave(&peer.peer, session);
            self.directory.leave(session);
            self.leave_hubs(session);
            self.tell(News::Left { session });
        }
    }

    pub(crate) fn leave_hubs(&self, session: SessionId) {
        for shard in self.shards() {
            shard.send(Input::Disconnected { session });
        }
        self.blobs.send(exchange::Input::Disconnected { session });
        self.collection.send(collection::Input::Disconnected { session });
    }

    pub(crate) fn outbox(&self, session: SessionId) -> Option<Arc<Outbox>> {
        self.outboxes.read().unwrap_or_else(PoisonError::into_inner).get(&session).cloned()
    }

    pub(crate) fn all_outboxes(&self) -> Vec<Arc<Outbox>> {
        self.outboxes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// News of a document; what peers said goes to whoever has an ear for it.
    pub(crate) fn tell_of_document(&self, event: Event) {
        match (event, &self.ear) {
            (Event::Ephemeral { document, sender, data }, Some(ear)) => {
                // Whoever does not keep up misses some of it, as a slow peer does.
                let _ = ear.try_send(Overheard { document, sender, data });
            }
            (event, _) => self.tell(News::Document(event)),
        }
    }

    pub(crate) fn tell(&self, news: News) {
        // A server has no application that listens.
        let _ = self.news.send(news);
    }

    fn roster(&self) -> std::sync::MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

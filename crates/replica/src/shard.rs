//! One hub and what surrounds it: its inputs, its store calls, its deadline.
//!
//! Owns: the order of a hub's inputs and outputs. Must not: decide anything; the hub does.
//! Next: `replica.rs`, syncline-core's `hub.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use syncline_core::ChangeHash;
use syncline_core::collection;
use syncline_core::graph::Graph;
use syncline_core::hub::{Hub, Input, Insight, Load, Loaded, Output, StoreFailure};
use syncline_core::id::DocumentId;
use syncline_core::life::{Life, LifeUpdate};
use syncline_core::storage::Commit;
use syncline_store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Span;

use crate::metrics::Shard as ShardLabel;
use crate::outbox::{Queued, Waiting};
use crate::replica::Inner;
use crate::way::{self, FanOut};

/// Inputs handled before other tasks of the thread get their turn.
const TURN_INPUTS: usize = 128;

/// Commits on their way to the disk beyond which peers' messages wait: they then stay in the sockets.
const COMMITS_MAX: usize = 4_096;

/// The sending side of a shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardHandle {
    peers: mpsc::UnboundedSender<FromPeer>,
    store: mpsc::UnboundedSender<FromStore>,
}

/// An input, and what it is a part of.
#[derive(Debug)]
struct FromPeer {
    input: Input,
    within: Span,
}

#[derive(Debug)]
enum FromStore {
    Input(Input),
    /// Changes are durable, and those who are at their document are to be told.
    Durable {
        document: DocumentId,
        ticket: u64,
        fan_out: FanOut,
    },
    /// Commits are done, whether they succeeded or not.
    Committed(usize),
    /// Somebody asks how far everybody is with a document.
    Look(DocumentId, oneshot::Sender<Option<Insight>>),
    /// Answered once everything before it has been handled and is durable.
    Barrier(oneshot::Sender<()>),
}

/// Bytes of one connection's messages that are not handled yet: in the shard's queue, or in a hub that waits for the
/// store with them.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    bytes: AtomicUsize,
    waker: std::sync::Mutex<Option<Waker>>,
}

/// A part of an allowance, given back when dropped: the hub drops it with the message's receipt.
#[derive(Debug)]
pub(crate) struct Occupied {
    allowance: Arc<Allowance>,
    bytes: usize,
}

impl Occupied {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Allowance {
    pub(crate) fn occupy(self: &Arc<Self>, bytes: usize) -> Occupied {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Occupied { allowance: Arc::clone(self), bytes }
    }

    /// Whether there is room; if not, `waker` is called once there is.
    pub(crate) fn has_room(&self, bytes_max: usize, waker: &Waker) -> bool {
        if self.bytes.load(Ordering::Acquire) <= bytes_max {
            return true;
        }
        let mut slot = self.waker.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *slot = Some(waker.clone());
        // Between the check and the registration the last message may have been handled.
        self.bytes.load(Ordering::Acquire) <= bytes_max
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.allowance.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        let waker = self.allowance.waker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl ShardHandle {
    /// Hands an input over. A shard that has stopped takes nothing more.
    pub(crate) fn send(&self, input: Input) {
        let _ = self.peers.send(FromPeer { input, within: way::current() });
    }

    /// Hands over an input that never waits behind peers: news from the store.
    pub(crate) fn send_from_store(&self, input: Input) {
        let _ = self.store.send(FromStore::Input(input));
    }

    /// What the hub knows of a document in memory.
    pub(crate) async fn look(&self, document: DocumentId) -> Option<Insight> {
        let (answer, answered) = oneshot::channel();
        self.store.send(FromStore::Look(document, answer)).ok()?;
        answered.await.ok().flatten()
    }

    /// Waits until everything handed over before is handled and durable.
    pub(crate) async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.store.send(FromStore::Barrier(done)).is_ok() {
            let _ = settled.await;
        }
    }
}

/// Starts a shard; it runs until the replica stops it.
pub(crate) fn start(number: usize, hub: Hub) -> (ShardHandle, ShardTask) {
    let (peers, from_peers) = mpsc::unbounded_channel();
    let (store, from_store) = mpsc::unbounded_channel();
    let handle = ShardHandle { peers, store };
    let task = ShardTask { number, hub, from_peers, from_store, commits: 0, fan_out: None, barriers: Vec::new() };
    (handle, task)
}

/// The receiving side of a shard.
#[derive(Debug)]
pub(crate) struct ShardTask {
    number: usize,
    hub: Hub,
    from_peers: mpsc::UnboundedReceiver<FromPeer>,
    from_store: mpsc::UnboundedReceiver<FromStore>,
    /// Commits on their way to the disk.
    commits: usize,
    /// The commit because of which something is sent at this moment.
    fan_out: Option<FanOut>,
    barriers: Vec<oneshot::Sender<()>>,
}

impl ShardTask {
    pub(crate) async fn run(mut self, replica: Arc<Inner>) {
        let mut stop = replica.stop.subscribe();
        let mut peer_inputs = Vec::with_capacity(TURN_INPUTS);
        let mut store_inputs = Vec::with_capacity(TURN_INPUTS);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let wake = self.hub.poll_timeout().map(|(at, _)| replica.started + at);
            if let Some(at) = wake {
                timer.as_mut().reset(at);
            }
            let room = self.commits < COMMITS_MAX;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => return,
                _ = self.from_store.recv_many(&mut store_inputs, TURN_INPUTS) => {}
                _ = self.from_peers.recv_many(&mut peer_inputs, TURN_INPUTS), if room => {}
                () = &mut timer, if wake.is_some() => self.hub.handle(replica.now(), Input::Timeout),
            }
            let mut turn = Turn::default();
            for from in store_inputs.drain(..) {
                match from {
                    FromStore::Input(input) => self.handle(&replica, input, &mut turn),
                    FromStore::Durable { document, ticket, fan_out } => {
                        self.fan_out = Some(fan_out);
                        self.handle(&replica, Input::Persisted { document, ticket }, &mut turn);
                        self.fan_out = None;
                    }
                    FromStore::Committed(count) => self.commits -= count,
                    FromStore::Look(document, answer) => drop(answer.send(self.hub.insight(&document))),
                    FromStore::Barrier(done) => self.barriers.push(done),
                }
            }
            for FromPeer { input, within } in peer_inputs.drain(..) {
                let _admit = way::admit(&replica.store, &within).entered();
                self.handle(&replica, input, &mut turn);
            }
            self.drain(&replica, &mut turn);
            self.carry_out(&replica, turn);
            self.release_barriers();
            tokio::task::consume_budget().await;
        }
    }

    fn handle(&mut self, replica: &Arc<Inner>, input: Input, turn: &mut Turn) {
        self.hub.handle(replica.now(), input);
        self.drain(replica, turn);
    }

    /// Carries out what needs no waiting, and collects what goes to the store.
    fn drain(&mut self, replica: &Arc<Inner>, turn: &mut Turn) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Persist { ticket, commit } => {
                    let span = way::commit(&replica.store, &commit.document, commit.changes.len());
                    turn.commits.push((ticket, commit, span));
                }
                Output::Load { document, what } => turn.loads.push((document, what)),
                Output::Replace { ticket, commit } => turn.replacements.push((ticket, commit)),
                Output::SetLife { ticket, document, update } => turn.lives.push((ticket, document, update)),
                Output::SetLocalOnly { ticket, document, local_only } => {
                    turn.withheld.push((ticket, document, local_only));
                }
                Output::Send { session, message } => {
                    if let Some(outbox) = replica.outbox(session) {
                        outbox.push(Queued::Message(message, self.fan_out.clone()));
                    }
                }
                Output::AwaitDrain { session } => {
                    if let Some(outbox) = replica.outbox(session) {
                        outbox.await_drain(Waiting::Shard(self.number));
                    }
                }
                Output::Decide { session, access, document } => {
                    let (replica, handle) = (Arc::clone(replica), replica.shards()[self.number].clone());
                    tokio::spawn(async move {
                        let may = replica.authority.decide(&access, &document).await;
                        handle.send(Input::Decided { session, document, may });
                    });
                }
                Output::State { document, state } => {
                    replica.collection.send(collection::Input::Changed { document, state });
                }
                Output::Notify(event) => replica.tell_of_document(event),
                Output::Mesh(event) => {
                    if let Some(mesh) = replica.mesh() {
                        mesh.hear(replica, event);
                    }
                }
                Output::Refused { session, document, remark } => {
                    if replica.metrics.refuse_aloud(remark.kind()) {
                        let document = document.map(tracing::field::display);
                        let (session, kind) = (session.map(|session| session.0), remark.kind());
                        tracing::warn!(session, document, kind, "refused: {remark}");
                    }
                }
                Output::Close { session, reason } => {
                    if let Some(outbox) = replica.outbox(session) {
                        outbox.close(&reason);
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, replica: &Arc<Inner>, turn: Turn) {
        let (documents, _, bytes) = self.hub.footprint();
        let label = ShardLabel { shard: self.number as u32 };
        replica.metrics.documents.get_or_create(&label).set(documents as i64);
        replica.metrics.graph_bytes.get_or_create(&label).set(bytes as i64);
        let waiting = self.from_peers.len() + self.from_store.len();
        replica.metrics.queues.shards.get_or_create(&label).set(waiting as i64);
        if !turn.commits.is_empty() {
            self.commit(replica, turn.commits);
        }
        for (ticket, commit) in turn.replacements {
            self.replace(replica, ticket, commit);
        }
        for (ticket, document, update) in turn.lives {
            self.set_life(replica, ticket, document, update);
        }
        for (ticket, document, local_only) in turn.withheld {
            self.set_local_only(replica, ticket, document, local_only);
        }
        if !turn.loads.is_empty() {
            let (store, hash_key) = (replica.store.clone(), self.hub.hash_key());
            let handle = replica.shards()[self.number].clone();
            tokio::task::spawn_blocking(move || load_all(&store, &handle, hash_key, turn.loads));
        }
    }

    fn commit(&mut self, replica: &Arc<Inner>, commits: Vec<(u64, Commit, Span)>) {
        self.commits += commits.len();
        replica.metrics.queues.commits.inc_by(commits.len() as i64);
        let handle = replica.shards()[self.number].clone();
        let metrics = replica.metrics.clone();
        let started = Instant::now();
        let changes: usize = commits.iter().map(|(_, commit, _)| commit.changes.len()).sum();
        let (mut tickets, mut batch) = (Vec::with_capacity(commits.len()), Vec::with_capacity(commits.len()));
        for (ticket, commit, span) in commits {
            tickets.push((commit.document.clone(), ticket, span));
            batch.push(commit);
        }
        replica.spend_room(batch.iter().map(weight).sum());
        let store = replica.store.clone();
        replica.store.commit(
            batch,
            Box::new(move |result| {
                metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
                let failure = match &result {
                    Ok(_) => {
                        metrics.changes.inc_by(changes as u64);
                        None
                    }
                    Err(error) => {
                        metrics.commit_failures.inc();
                        tracing::error!("a commit of {changes} changes failed: {error}");
                        Some(failure_of(error))
                    }
                };
                let count = tickets.len();
                metrics.queues.commits.dec_by(count as i64);
                for (document, ticket, span) in tickets {
                    let _ = handle.store.send(match failure.clone() {
                        None => FromStore::Durable { document, ticket, fan_out: way::fan_out(&store, &span) },
                        Some(failure) => FromStore::Input(Input::PersistFailed { document, ticket, failure }),
                    });
                }
                let _ = handle.store.send(FromStore::Committed(count));
            }),
        );
    }

    fn replace(&mut self, replica: &Arc<Inner>, ticket: u64, commit: Commit) {
        self.commits += 1;
        let handle = replica.shards()[self.number].clone();
        let document = commit.document.clone();
        replica.spend_room(weight(&commit));
        let done = move |result: Result<(), StoreError>| {
            handle.send_from_store(match result {
                Ok(()) => Input::Replaced { document, ticket },
                Err(error) => {
                    tracing::error!(%document, "its new history could not be stored: {error}");
                    Input::NotReplaced { document, ticket, failure: failure_of(&error) }
                }
            });
            let _ = handle.store.send(FromStore::Committed(1));
        };
        replica.store.replace(commit, Box::new(done));
    }

    fn set_life(&mut self, replica: &Arc<Inner>, ticket: u64, document: DocumentId, update: LifeUpdate) {
        self.commits += 1;
        let handle = replica.shards()[self.number].clone();
        let id = document.clone();
        let done = move |result: Result<Life, StoreError>| {
            handle.send_from_store(match result {
                Ok(life) => Input::LifeSet { document: id, ticket, life },
                Err(error) => {
                    tracing::error!(document = %id, "whether it is deleted could not be stored: {error}");
                    Input::LifeNotSet { document: id, ticket, failure: failure_of(&error) }
                }
            });
            let _ = handle.store.send(FromStore::Committed(1));
        };
        replica.store.set_life(document, update, Box::new(done));
    }

    fn set_local_only(&mut self, replica: &Arc<Inner>, ticket: u64, document: DocumentId, local_only: bool) {
        self.commits += 1;
        let handle = replica.shards()[self.number].clone();
        let id = document.clone();
        let done = move |result: Result<(), StoreError>| {
            handle.send_from_store(match result {
                Ok(()) => Input::LocalOnlySet { document: id, ticket },
                Err(error) => {
                    tracing::error!(document = %id, "whether it stays here could not be stored: {error}");
                    Input::LocalOnlyNotSet { document: id, ticket, failure: failure_of(&error) }
                }
            });
            let _ = handle.store.send(FromStore::Committed(1));
        };
        replica.store.set_local_only(document, local_only, Box::new(done));
    }

    fn release_barriers(&mut self) {
        if self.commits == 0 && self.from_peers.is_empty() && self.from_store.is_empty() {
            for barrier in self.barriers.drain(..) {
                let _ = barrier.send(());
            }
        }
    }
}

/// What one turn of a shard wants from the store.
#[derive(Debug, Default)]
struct Turn {
    commits: Vec<(u64, Commit, Span)>,
    lives: Vec<(u64, DocumentId, LifeUpdate)>,
    withheld: Vec<(u64, DocumentId, bool)>,
    replacements: Vec<(u64, Commit)>,
    loads: Vec<(DocumentId, Load)>,
}

fn load_all(store: &Store, handle: &ShardHandle, hash_key: u64, loads: Vec<(DocumentId, Load)>) {
    for (document, what) in loads {
        let input = match load(store, hash_key, &document, &what) {
            Ok(loaded) => Input::Loaded { document, loaded },
            Err(failure) => {
                tracing::error!(%document, "cannot read a document: {}", failure.message);
                Input::LoadFailed { document, what, failure }
            }
        };
        handle.send_from_store(input);
    }
}

fn load(store: &Store, hash_key: u64, document: &DocumentId, what: &Load) -> Result<Loaded, StoreFailure> {
    let failed = |error: StoreError| failure_of(&error);
    Ok(match what {
        Load::Summary => Loaded::Summary(store.standing(document).map_err(failed)?),
        Load::Graph => {
            let stored = store.graph(document).map_err(failed)?;
            let graph = stored.map(|stored| Graph::from_stored(&stored, hash_key)).transpose();
            let graph = graph.map_err(|error| StoreFailure { message: error.to_string() })?;
            Loaded::Graph(graph.map(Box::new))
        }
        Load::Payload => Loaded::Payload(store.payload(document).map_err(failed)?),
        Load::Changes { session, hashes } => {
            let changes = store.changes(document, hashes).map_err(failed)?;
            let changes: Vec<(ChangeHash, _)> = hashes.iter().copied().zip(changes).collect();
            Loaded::Changes { session: *session, changes }
        }
        Load::Owners { actors, subject } => {
            let (owners, account) = store.subject(actors, subject.as_ref()).map_err(failed)?;
            Loaded::Owners { owners, account }
        }
    })
}

fn failure_of(error: &StoreError) -> StoreFailure {
    StoreFailure { message: error.to_string() }
}

/// Bytes of the changes, as they are appended.
fn weight(commit: &Commit) -> usize {
    match &commit.snapshot {
        Some(snapshot) => snapshot.len(),
        None => commit.changes.iter().map(|change| change.len()).sum(),
    }
}

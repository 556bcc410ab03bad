//! What runs behind a repo: the replica, the documents that are open, the news that go to them.
//!
//! Owns: which documents are in memory, the dispatch of news, the order of a shutdown.
//! Must not: read or change a document; `live.rs` does. Next: `live.rs`, `server.rs`; the replica crate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use automerge::{ActorId, Author, Automerge, TextEncoding};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use syncline_core::collection;
use syncline_core::hub::Event;
use syncline_core::id::DocumentId;
use syncline_core::native::RefusalReason;
use syncline_core::session::Offence;
use syncline_replica::{Feeds, News, Replica};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::Error;
use crate::blob::Transfers;
use crate::compare::Rounds;
use crate::deletion::Decisions;
use crate::document::Lease;
use crate::live::Live;
use crate::mesh::Neighbours;
use crate::offer::InStep;
use crate::repo::Options;
use crate::selection::SyncPolicy;
use crate::server::Servers;
use crate::status::{RepoStatus, Saved};
use crate::steps::Origin;

/// Documents that are brought up to date at one time.
const WORKERS_MAX: usize = 2;

/// News handled before other tasks of the thread get their turn.
const NEWS_MAX: usize = 256;

/// Longest that a shutdown waits for changes under way to be answered.
const ANSWERS_WAIT: Duration = Duration::from_secs(10);

/// The shared part of a repo.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) replica: Replica,
    pub(crate) runtime: Handle,
    /// Drawn anew at each opening: an actor is never continued, so a copied or restored store cannot write twice as one.
    identity: [u8; 16],
    /// Whose changes this repo's are.
    author: Option<Author<'static>>,
    /// The unit of positions in text.
    pub(crate) text_encoding: TextEncoding,
    pub(crate) servers: Servers,
    pub(crate) neighbours: Neighbours,
    pub(crate) decisions: Decisions,
    pub(crate) transfers: Transfers,
    /// How long deleted documents can be restored.
    pub(crate) deleted_keep: Duration,
    pub(crate) feeds: Arc<Feeds>,
    /// Which documents servers hear of by themselves.
    pub(crate) sync: SyncPolicy,
    pub(crate) in_step: InStep,
    pub(crate) rounds: Rounds,
    documents: Mutex<HashMap<DocumentId, Open>>,
    last_time_s: AtomicI64,
    closing: AtomicBool,
    stopped: watch::Sender<bool>,
    workers: Semaphore,
}

/// A document in memory. It stays as long as a handle lives or a change is unsaved.
#[derive(Debug)]
struct Open {
    live: Arc<Live>,
    lease: Weak<Lease>,
}

impl Open {
    fn lease(&mut self, lease: impl FnOnce(Arc<Live>) -> Arc<Lease>) -> Arc<Lease> {
        self.lease.upgrade().unwrap_or_else(|| {
            let lease = lease(Arc::clone(&self.live));
            self.lease = Arc::downgrade(&lease);
            lease
        })
    }
}

impl Engine {
    pub(crate) fn new(replica: Replica, runtime: Handle, options: &Options) -> Self {
        let feeds = Arc::new(Feeds::default());
        let listeners = Arc::clone(&feeds);
        replica.store().on_committed(move |committed| listeners.note(committed));
        Self {
            replica,
            runtime,
            identity: rand::random(),
            author: options.author.clone(),
            text_encoding: options.text_encoding,
            servers: Servers::new(),
            neighbours: Neighbours::new(),
            decisions: Decisions::default(),
            transfers: Transfers::new(),
            deleted_keep: options.store.deleted_keep,
            feeds,
            sync: options.sync,
            in_step: InStep::default(),
            rounds: Rounds::default(),
            documents: Mutex::default(),
            last_time_s: AtomicI64::new(0),
            closing: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
            workers: Semaphore::new(WORKERS_MAX),
        }
    }

    /// Makes a document's next changes this repo's. Each document has an actor of its own, for a copy shares the history
    /// up to where it was made, and may come back into the original.
    pub(crate) fn sign(&self, id: &DocumentId, document: &mut Automerge) {
        document.set_author(self.author.clone());
        let digest = Sha256::new_with_prefix(self.identity).chain_update(id.as_bytes()).finalize();
        document.set_actor(ActorId::from(&digest[..16]));
    }

    /// The handle of a document that is in memory, if it is.
    pub(crate) fn lease(&self, id: &DocumentId, lease: impl FnOnce(Arc<Live>) -> Arc<Lease>) -> Option<Arc<Lease>> {
        self.documents().get_mut(id).map(|open| open.lease(lease))
    }

    /// Puts a loaded document into memory, unless somebody else was faster: then theirs stands.
    pub(crate) fn admit(&self, live: Live, lease: impl FnOnce(Arc<Live>) -> Arc<Lease>) -> Arc<Lease> {
        let mut documents = self.documents();
        let open = documents.entry(live.id.clone()).or_insert_with(|| {
            live.listen(self);
            Open { live: Arc::new(live), lease: Weak::new() }
        });
        open.lease(lease)
    }

    /// As [`Engine::admit`], for work that no handle waits for; [`Engine::release`] lets go of it.
    pub(crate) fn place(&self, live: Live) -> Arc<Live> {
        let mut documents = self.documents();
        let open = documents.entry(live.id.clone()).or_insert_with(|| {
            live.listen(self);
            Open { live: Arc::new(live), lease: Weak::new() }
        });
        Arc::clone(&open.live)
    }

    /// Lets a document leave memory if nobody holds it and nothing of it would be lost.
    pub(crate) fn release(&self, id: &DocumentId) {
        let mut documents = self.documents();
        let idle = |open: &Open| open.lease.strong_count() == 0 && open.live.is_settled();
        if documents.get(id).is_some_and(idle) {
            documents.remove(id);
            self.replica.unwatch(id);
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closing.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether nothing more will be known: what is not saved by now is lost with this process.
    pub(crate) fn has_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Turns true when nothing more will be known.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.subscribe()
    }

    /// Says something that is not stored to everyone at a document, unless it stays here.
    pub(crate) fn broadcast(&self, id: &DocumentId, data: Bytes) {
        if self.live(id).is_none_or(|live| !live.policy().local_only) {
            self.replica.broadcast(id, data);
        }
    }

    /// Seconds since the Unix epoch for a change: not before what the store's clock has seen, never back.
    pub(crate) fn change_time(&self) -> i64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let wall_ms = u64::try_from(wall).unwrap_or(u64::MAX);
        let latest_ms = wall_ms.max(self.replica.store().highest_stamp().millis());
        let time_s = i64::try_from(latest_ms / 1000).unwrap_or(i64::MAX);
        self.last_time_s.fetch_max(time_s, Ordering::AcqRel).max(time_s)
    }

    /// Hands news to the documents and servers that they are about, until the shutdown.
    pub(crate) async fn run(self: Arc<Self>, mut news: mpsc::UnboundedReceiver<News>) {
        let mut batch = Vec::with_capacity(NEWS_MAX);
        let mut stopped = self.stopped.subscribe();
        loop {
            tokio::select! {
                biased;
                count = news.recv_many(&mut batch, NEWS_MAX) => if count == 0 { return },
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            for news in batch.drain(..) {
                self.dispatch(news);
            }
            tokio::task::consume_budget().await;
        }
    }

    fn dispatch(self: &Arc<Self>, news: News) {
        match news {
            News::Document(event) => self.dispatch_event(event),
            News::Joined { session, server: Some(server), peer } => {
                self.servers.joined(session, &server, peer.storage.clone());
                self.runtime.spawn(Arc::clone(self).welcome(session, peer));
            }
            News::Joined { server: None, .. } => {}
            News::Left { session } => {
                self.servers.left(session);
                self.rounds.left(session);
                self.transfers.tick();
                for live in self.all_live() {
                    live.progress.send_modify(|ticks| *ticks += 1);
                }
            }
            News::Blob(event) => self.transfers.hear(event),
            News::Collection(collection::Event::Compared { session, report }) => {
                self.runtime.spawn(Arc::clone(self).compared(session, *report));
            }
            News::Refused { session, offence: Offence::PeerError(words) } => self.servers.complained(session, &words),
            News::NeighbourJoined { session, member, .. } => self.neighbours.joined(session, member),
            News::NeighbourLeft { session, .. } => self.neighbours.left(session),
            // What a member did wrong is logged too.
            News::MeshRefused { .. } => {}
            // What the server did wrong is logged; nothing of it came into a document.
            News::Refused { .. } => {}
            News::Unreachable { server, reason } => self.servers.unreachable(&server, &reason),
        }
    }

    fn dispatch_event(self: &Arc<Self>, event: Event) {
        if self.dispatch_life(&event) {
            return;
        }
        match event {
            Event::Saved { document, ticket } => {
                let Some(live) = self.live(&document) else { return };
                if live.saved(self, ticket) {
                    self.put_to_work(live);
                }
                self.release(&document);
            }
            Event::NotSaved { document, ticket, message, .. } => {
                if let Some(live) = self.live(&document)
                    && let Some(wait) = live.not_saved(ticket, &message)
                {
                    self.hand_over_later(live, wait);
                }
            }
            Event::Changed { document, changes, heads, origin: Some(session) } => {
                let server = self.servers.session(session).map(|server| Origin::Server(server.address));
                let member = || self.neighbours.member(session).map(Origin::Member);
                let origin = server.or_else(member).unwrap_or(Origin::Stored);
                if let Some(live) = self.live(&document)
                    && live.arrived(changes, heads, origin)
                {
                    self.put_to_work(live);
                }
            }
            // What was changed here is in the document already.
            Event::Changed { origin: None, .. } => {}
            Event::PeerState { document, session, heads, has_all } => {
                let Some(server) = self.servers.session(session) else { return };
                if has_all {
                    self.servers.resolved(&server.address, &document);
                }
                if let Some(live) = self.live(&document) {
                    live.server_announced(server, session, heads);
                }
            }
            Event::InStep { document, session, heads } => {
                let server = self.servers.session(session).and_then(|server| server.storage);
                if let Some(server) = server {
                    self.in_step.hear(server, document, heads);
                }
            }
            Event::Unavailable { document, session } => {
                if let Some(live) = self.live(&document) {
                    live.server_denied(session);
                }
            }
            Event::Ephemeral { document, sender, data } => {
                if let Some(live) = self.live(&document) {
                    live.heard(sender, data);
                }
            }
            Event::Refused { document, hash, reason: RefusalReason::ActorInUse, .. } => self.reauthor(document, hash),
            // The server's words on the matter are kept as a complaint.
            Event::LifeChanged { .. } | Event::LifeFailed { .. } | Event::Refused { .. } => {}
        }
    }

    fn put_to_work(self: &Arc<Self>, live: Arc<Live>) {
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let Ok(_permit) = engine.workers.acquire().await else { return };
            let worker = Arc::clone(&engine);
            let worked = tokio::task::spawn_blocking(move || live.work(&worker)).await;
            if let Err(error) = worked {
                tracing::error!("the work on a document ended early: {error}");
            }
        });
    }

    fn hand_over_later(self: &Arc<Self>, live: Arc<Live>, wait: Duration) {
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            live.hand_over_again(&engine);
        });
    }

    /// Takes nothing more in, makes durable what there is, closes the store. Returns the first document of which
    /// something could not be saved.
    pub(crate) async fn shut_down(self: Arc<Self>) -> Result<(), Error> {
        if self.closing.swap(true, Ordering::AcqRel) {
            let mut stopped = self.stopped.subscribe();
            let _ = stopped.wait_for(|stopped| *stopped).await;
            return Ok(());
        }
        let engine = Arc::clone(&self);
        let finish = move || {
            for live in engine.all_live() {
                live.wait_until_idle();
                live.hand_over_again(&engine);
            }
        };
        if tokio::task::spawn_blocking(finish).await.is_err() {
            tracing::error!("the last changes may not have been handed over");
        }
        if tokio::time::timeout(ANSWERS_WAIT, self.answers()).await.is_err() {
            tracing::error!("the store has not answered within {ANSWERS_WAIT:?}");
        }
        // What is not written down by then is heard again.
        let _ = tokio::time::timeout(ANSWERS_WAIT, self.note_in_step()).await;
        self.replica.stop().await;
        self.servers.end();
        self.stopped.send_replace(true);
        self.decisions.end();
        self.feeds.wake();
        self.transfers.tick();
        let mut unsaved = Ok(());
        for live in self.all_live() {
            live.end();
            if !live.is_settled() && unsaved.is_ok() {
                unsaved = live.saved_up_to(live.mark()).and(Err(Error::Closed));
            }
        }
        unsaved
    }

    /// Waits until every change that was handed over is answered for.
    async fn answers(&self) {
        for live in self.all_live() {
            let mut progress = live.progress.subscribe();
            while live.is_under_way() && progress.changed().await.is_ok() {}
        }
    }

    pub(crate) fn live(&self, id: &DocumentId) -> Option<Arc<Live>> {
        self.documents().get(id).map(|open| Arc::clone(&open.live))
    }

    pub(crate) fn all_live(&self) -> Vec<Arc<Live>> {
        self.documents().values().map(|open| Arc::clone(&open.live)).collect()
    }

    /// Where the changes of all documents are.
    pub(crate) fn status(&self) -> RepoStatus {
        let (mut changes, mut failure) = (0, None);
        for live in self.all_live() {
            let (unsaved, reason) = live.unsaved();
            changes += unsaved;
            failure = failure.or(reason);
        }
        let saved = match failure {
            _ if changes == 0 => Saved::Here,
            Some(reason) => Saved::Failed { changes, reason },
            None => Saved::Pending { changes },
        };
        let (connected, offline_since) = (self.servers.connected(), self.servers.offline_since());
        RepoStatus { saved, connected, offline_since, complaints: self.servers.complaints(None) }
    }

    pub(crate) fn unsaved_ids(&self) -> Vec<DocumentId> {
        let documents = self.documents();
        documents.values().filter(|open| !open.live.is_settled()).map(|open| open.live.id.clone()).collect()
    }

    fn documents(&self) -> MutexGuard<'_, HashMap<DocumentId, Open>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Deleting documents, and taking that back while it can be.
//!
//! Owns: the calls, the wait until a record is durable, what applications are told of deleted documents.
//! Must not: decide which record stands; the store does. Next: `engine.rs`; docs/deletion.md.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use syncline_core::hub::Event;
use syncline_core::id::{DocumentId, SessionId};
use syncline_store::{LifeEntry, Store};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::{Document, DocumentUrl, Error, Repo};

/// Records read from the store in one go.
const PAGE: usize = 256;

/// A document that is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Its address, with which [`Repo::restore`] brings it back.
    pub url: DocumentUrl,
    /// When this replica learnt of it.
    pub since: SystemTime,
    /// Until when it can be restored from what is stored here; `None` if its content is gone already.
    pub restorable_until: Option<SystemTime>,
}

/// The calls that wait until a record or a rewritten history is durable.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<(), String>>>>,
}

impl Decisions {
    /// Tells whoever waits for the ticket; false if nobody does.
    pub(crate) fn tell(&self, ticket: u64, outcome: Result<(), String>) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
        // Who has given up waiting does not need to know.
        waiting.map(|waiting| drop(waiting.send(outcome))).is_some()
    }

    /// Nothing more will be known: whoever waits is told so.
    pub(crate) fn end(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Begins to wait before the answer can come.
    pub(crate) fn expect(&self, ask: impl FnOnce() -> u64) -> oneshot::Receiver<Result<(), String>> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(ask(), tell);
        told
    }
}

impl Document {
    /// Deletes the document, here and on all Syncline replicas that it is in sync with, now or later. It returns when
    /// that is on this disk.
    ///
    /// From then on it cannot be changed or found; what a handle has in memory can still be read. Until the grace period
    /// is over, which each replica counts for itself, [`Repo::restore`] brings it back with everything that was in it.
    /// What others change meanwhile without knowing is kept on their replicas and comes back with it.
    ///
    /// # Errors
    /// [`Error::NotDeleted`] when it could not be written, [`Error::Closed`].
    pub async fn delete(&self) -> Result<(), Error> {
        let engine = self.engine();
        engine.set_life(self.url().id(), true).await
    }

    /// Whether the document is deleted, as far as this replica knows.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.live().is_deleted()
    }

    /// Waits until [`Document::is_deleted`] is another than `before`, and returns it; the same if the repo is closed
    /// before that.
    pub async fn deletion_changed(&self, before: bool) -> bool {
        let mut progress = self.live().progress.subscribe();
        while self.is_deleted() == before && !self.engine().has_stopped() && progress.changed().await.is_ok() {}
        self.is_deleted()
    }
}

impl Repo {
    /// Deletes a document, also one that is not stored here. See [`Document::delete`].
    ///
    /// ```
    /// # use automerge::{ROOT, transaction::Transactable};
    /// # use automerge as _;
    /// # tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let repo = syncline::Repo::open(directory.path())?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// repo.delete(&list.url()).await?;
    /// assert!(repo.list()?.is_empty());
    /// assert_eq!(repo.deleted()?[0].url, list.url());
    /// let list = repo.restore(&list.url()).await?;
    /// assert_eq!(repo.list()?, [list.url()]);
    /// # Ok::<(), syncline::Error>(())
    /// # }).expect("it works");
    /// ```
    ///
    /// # Errors
    /// As [`Document::delete`].
    pub async fn delete(&self, url: &DocumentUrl) -> Result<(), Error> {
        self.engine().check_open()?;
        self.engine().set_life(url.id(), true).await
    }

    /// Brings a deleted document back, here and on the replicas that it is in sync with.
    ///
    /// # Errors
    /// [`Error::Purged`] when its content is gone from this disk. [`Error::NotHere`] for a document that is neither
    /// deleted nor stored here. [`Error::NotDeleted`] when it could not be written, [`Error::Broken`], [`Error::Store`],
    /// [`Error::Closed`].
    pub async fn restore(&self, url: &DocumentUrl) -> Result<Document, Error> {
        let engine = self.engine();
        engine.check_open()?;
        let (asked, id) = (Arc::clone(engine), url.id().clone());
        let look = move || asked.replica.store().standing(&id);
        let standing = engine.runtime.spawn_blocking(look).await.map_err(|_| Error::Closed)??;
        match (standing.life, standing.summary) {
            (Some(life), None) if life.deleted => return Err(Error::Purged { document: url.id().clone() }),
            (None, None) => return Err(Error::NotHere { document: url.id().clone() }),
            _ => {}
        }
        if standing.life.is_some_and(|life| life.deleted) {
            engine.set_life(url.id(), false).await?;
        }
        self.open_on_own_threads(url.id().clone()).await
    }

    /// The documents that are deleted, in the order of their ids. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub fn deleted(&self) -> Result<Vec<Deleted>, Error> {
        let engine = self.engine();
        engine.check_open()?;
        let mut deleted = Vec::new();
        let mut after: Option<DocumentId> = None;
        loop {
            let page = engine.replica.store().lives(after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(deleted) };
            after = Some(last.clone());
            for (id, entry) in page.into_iter().filter(|(_, entry)| entry.life.deleted) {
                let since = UNIX_EPOCH + Duration::from_millis(entry.noted_ms);
                let restorable_until = (!entry.purged).then(|| since + engine.deleted_keep);
                deleted.push(Deleted { url: DocumentUrl::from(id), since, restorable_until });
            }
        }
    }
}

impl Engine {
    async fn set_life(self: &Arc<Self>, id: &DocumentId, deleted: bool) -> Result<(), Error> {
        let told = self.decisions.expect(|| self.replica.set_life(id, deleted));
        if self.has_stopped() {
            return Err(Error::Closed);
        }
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(Error::NotDeleted { document: id.clone(), reason }),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Takes in what is news of deletions and rewritten histories. Returns whether it was.
    pub(crate) fn dispatch_life(&self, event: &Event) -> bool {
        match event {
            Event::LifeChanged { document, life, ticket } => {
                if let Some(live) = self.live(document) {
                    live.set_deleted(life.deleted);
                }
                if let Some(ticket) = ticket {
                    self.decisions.tell(*ticket, Ok(()));
                }
                true
            }
            Event::LifeFailed { ticket, message, .. } => {
                self.decisions.tell(*ticket, Err(message.clone()));
                true
            }
            Event::Saved { ticket, .. } => self.decisions.tell(*ticket, Ok(())),
            Event::NotSaved { ticket, message, .. } => self.decisions.tell(*ticket, Err(message.clone())),
            Event::Changed { .. }
            | Event::PeerState { .. }
            | Event::InStep { .. }
            | Event::Refused { .. }
            | Event::Unavailable { .. }
            | Event::Ephemeral { .. } => false,
        }
    }

    /// Tells a server that has come of every deletion and restoration that is known here, so that one made offline reaches
    /// it, and one that was taken back elsewhere comes back here.
    pub(crate) async fn offer_deleted(self: &Arc<Self>, session: SessionId) {
        let records = |store: &Store, after: Option<&DocumentId>| {
            let page = store.lives(after, PAGE)?;
            let offer = |(id, _): (DocumentId, LifeEntry)| Ok((id.clone(), !store.policy(&id)?.local_only));
            page.into_iter().map(offer).collect()
        };
        self.offer_some(session, records).await;
    }
}

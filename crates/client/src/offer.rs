//! What a server hears of when it has come, and what it is remembered to have.
//!
//! Owns: the order in which documents are offered, the notes of what servers have until the store has them.
//! Must not: speak of a document that stays on this machine. Next: `compare.rs`, `selection.rs`; docs/client.md,
//! "Selective sync".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use automerge::ChangeHash;
use syncline_core::id::{DocumentId, SessionId, StorageId};
use syncline_store::{Store, StoreError};
use tokio::sync::{Notify, oneshot};

use crate::engine::Engine;
use crate::selection::SyncPolicy;

/// Documents read from the store, and offered to a server, before other tasks get their turn.
const PAGE: usize = 256;

/// Notes that one transaction of the store takes, so that it holds up no commit for long.
const NOTES_MAX: usize = 256;

/// What a server has is written down so long after it has been heard: it is heard again if that is lost.
const NOTE_AFTER: Duration = Duration::from_secs(1);

/// What servers have announced and the store does not know yet: by server and document, the heads.
#[derive(Debug, Default)]
pub(crate) struct InStep {
    heard: Mutex<HashMap<StorageId, HashMap<DocumentId, Vec<ChangeHash>>>>,
    wake: Notify,
}

impl InStep {
    /// A server has everything of a document.
    pub(crate) fn hear(&self, server: StorageId, document: DocumentId, heads: Vec<ChangeHash>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.entry(server).or_default().insert(document, heads);
        drop(heard);
        self.wake.notify_one();
    }

    fn take(&self) -> HashMap<StorageId, HashMap<DocumentId, Vec<ChangeHash>>> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine {
    /// Writes down what servers have, until the repo is closed.
    pub(crate) async fn keep_in_step(self: Arc<Self>) {
        let mut stopped = self.stopped();
        loop {
            tokio::select! {
                () = self.in_step.wake.notified() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(NOTE_AFTER) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            self.note_in_step().await;
        }
    }

    /// Writes down what servers have. What cannot be written is heard again.
    pub(crate) async fn note_in_step(&self) {
        for (server, documents) in self.in_step.take() {
            let documents: Vec<_> = documents.into_iter().collect();
            for notes in documents.chunks(NOTES_MAX) {
                let (tell, told) = oneshot::channel();
                let done = move |result: Result<(), StoreError>| drop(tell.send(result));
                self.replica.store().set_in_step(&server, notes, Box::new(done));
                if let Ok(Err(error)) = told.await {
                    tracing::warn!("what a server has could not be written down: {error}");
                }
            }
        }
    }

    /// Speaks with a server of the documents that are wanted: those in memory first, then those that are pinned.
    pub(crate) async fn offer_wanted(self: &Arc<Self>, session: SessionId) {
        for live in self.all_live() {
            if !live.policy().local_only {
                self.replica.initiate(session, &live.id);
            }
        }
        let pinned = |store: &Store, after: Option<&DocumentId>| {
            let page = store.policies(after, PAGE)?;
            Ok(page.into_iter().map(|(id, policy)| (id, policy.pinned && !policy.local_only)).collect())
        };
        self.offer_some(session, pinned).await;
    }

    /// Speaks with a server with which nothing was compared: of every record of a deletion or restoration, and of all
    /// documents of which it is not known to have everything, so that what was changed offline goes up without being opened.
    pub(crate) async fn offer_stored(self: &Arc<Self>, session: SessionId, server: Option<StorageId>) {
        self.offer_deleted(session).await;
        self.offer_pages(session, server, self.sync == SyncPolicy::Everything).await;
    }

    /// Speaks of the documents of which a server is not known to have everything.
    pub(crate) async fn offer_behind(self: &Arc<Self>, session: SessionId, server: Option<StorageId>) {
        self.offer_pages(session, server, false).await;
    }

    async fn offer_pages(self: &Arc<Self>, session: SessionId, server: Option<StorageId>, everything: bool) {
        let stored = move |store: &Store, after: Option<&DocumentId>| {
            let page = store.offers(server.as_ref(), after, PAGE)?;
            // What a server without a lasting name has is not known after the connection.
            let behind = |in_step: bool| everything || server.is_none() || !in_step;
            let offer = |offer: syncline_store::Offer| {
                let offered = !offer.policy.local_only && behind(offer.in_step);
                (offer.document, offered)
            };
            Ok(page.into_iter().map(offer).collect())
        };
        self.offer_some(session, stored).await;
    }

    /// Speaks of those documents in each page for which it says so.
    pub(crate) async fn offer_some(
        self: &Arc<Self>,
        session: SessionId,
        read: impl Fn(&Store, Option<&DocumentId>) -> Result<Vec<(DocumentId, bool)>, StoreError> + Send + Sync + 'static,
    ) {
        let read = Arc::new(read);
        let mut after: Option<DocumentId> = None;
        loop {
            let (engine, read, from) = (Arc::clone(self), Arc::clone(&read), after.take());
            let look = move || read(engine.replica.store(), from.as_ref());
            let page = match tokio::task::spawn_blocking(look).await {
                Ok(Ok(page)) => page,
                Ok(Err(StoreError::Closed)) | Err(_) => return,
                Ok(Err(error)) => return tracing::error!("cannot offer stored documents to a server: {error}"),
            };
            for (document, _) in page.iter().filter(|(_, offered)| *offered) {
                self.replica.initiate(session, document);
            }
            let Some((last, _)) = page.last() else { return };
            after = Some(last.clone());
            tokio::task::yield_now().await;
        }
    }
}

//! Which documents are in step with servers: those that are wanted, those of which a server lacks something, and never
//! those that stay on this machine.
//!
//! Owns: the calls with which an application chooses. Must not: speak with a server; `offer.rs` does.
//! Next: `offer.rs`; docs/client.md, "Selective sync".

use automerge::AutomergeError;
use automerge::transaction::Transaction;
use syncline_core::id::DocumentId;
use syncline_store::{Policy, StoreError};

use crate::document::{ChangeOptions, Document};
use crate::engine::Engine;
use crate::repo::Repo;
use crate::undo::Purpose;
use crate::{DocumentUrl, Error};

/// Documents read from the store in one go.
const PAGE: usize = 1_024;

/// Which documents a repo keeps in step with the servers that it connects to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Those that are open, those that are pinned, and those of which the server lacks something. Others cost no traffic.
    #[default]
    OnDemand,
    /// Every document that is in this repo. What is only on a server is not known here and comes when it is found.
    Everything,
}

impl Document {
    /// Keeps the document in step with servers although nobody has it open, from here on and after every restart.
    /// It returns when that is on this disk.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// # use syncline::{Repo, block_on};
    /// let repo = Repo::memory()?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// block_on(list.pin())?;
    /// assert_eq!(repo.pinned()?, [list.url()]);
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotChosen`] when it could not be written, [`Error::Closed`].
    pub async fn pin(&self) -> Result<(), Error> {
        self.engine().set_pinned(self.url().id(), true).await
    }

    /// Ends what [`Document::pin`] began. With servers that are connected it stays in step until that connection ends.
    ///
    /// # Errors
    /// As [`Document::pin`].
    pub async fn unpin(&self) -> Result<(), Error> {
        self.engine().set_pinned(self.url().id(), false).await
    }

    /// Whether the document is pinned.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.live().policy().pinned
    }

    /// Keeps the document on this machine, or lets it go to servers. Nothing of it is sent from the moment of the call;
    /// what a server has got before stays there. It returns when that is on this disk.
    ///
    /// # Errors
    /// [`Error::NotChosen`] when it could not be written, [`Error::Closed`].
    pub async fn set_local_only(&self, local_only: bool) -> Result<(), Error> {
        self.engine().set_local_only(self.url().id(), local_only).await
    }

    /// Whether the document stays on this machine.
    #[must_use]
    pub fn is_local_only(&self) -> bool {
        self.live().policy().local_only
    }
}

impl Repo {
    /// Makes a document that stays on this machine, as [`Repo::create`] makes one that does not. Blocks on the disk: that
    /// it stays here is written before the document.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// # use syncline::{Error, OnServer, Receipt, Repo, block_on};
    /// # use std::time::Duration;
    /// let repo = Repo::memory()?;
    /// let diary = repo.create_local_only(|tx| tx.put(ROOT, "title", "Diary"))?;
    /// assert_eq!(diary.status().server, OnServer::LocalOnly);
    /// let receipt = block_on(diary.wait(Receipt::Server, Duration::from_secs(60)));
    /// assert!(matches!(receipt, Err(Error::LocalOnly { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Edit`] with the closure's own error, [`Error::Refused`], [`Error::NotChosen`] when that it stays here could
    /// not be written; there is no document then. [`Error::Closed`].
    pub fn create_local_only<T>(
        &self,
        fill: impl FnOnce(&mut Transaction<'_>) -> Result<T, AutomergeError>,
    ) -> Result<Document, Error> {
        self.engine().check_open()?;
        let document = self.open_local_only()?;
        let options = ChangeOptions { even_if_empty: true, ..ChangeOptions::default() };
        let filled = document.live().change(self.engine(), options, Purpose::Edit, |_| Ok(fill));
        if filled.is_err() {
            // Nothing is to stay here under this address, and nobody waits for that to be written.
            self.engine().replica.store().set_local_only(document.url().id().clone(), false, Box::new(drop));
        }
        filled.map(|_| document)
    }

    /// A document under an address of its own, which is not made yet, and of which no server will hear.
    pub(crate) fn open_local_only(&self) -> Result<Document, Error> {
        let url = DocumentUrl::from(DocumentId::from_random(rand::random()));
        crate::block_on(self.engine().set_local_only(url.id(), true))?;
        self.open_document(url.id())
    }

    /// The documents that are pinned, in the order of their ids. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub fn pinned(&self) -> Result<Vec<DocumentUrl>, Error> {
        self.chosen(|policy| policy.pinned)
    }

    /// The documents that stay on this machine, in the order of their ids. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub fn local_only(&self) -> Result<Vec<DocumentUrl>, Error> {
        self.chosen(|policy| policy.local_only)
    }

    fn chosen(&self, wanted: impl Fn(Policy) -> bool) -> Result<Vec<DocumentUrl>, Error> {
        let engine = self.engine();
        engine.check_open()?;
        let mut found = Vec::new();
        let mut after: Option<DocumentId> = None;
        loop {
            let page = engine.replica.store().policies(after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            after = Some(last.clone());
            let chosen = page.into_iter().filter(|(_, policy)| wanted(*policy));
            found.extend(chosen.map(|(id, _)| DocumentUrl::from(id)));
        }
    }

    /// The documents that are to be on a server and of which no server is known to have everything, in the order of their
    /// ids: what would be lost with this machine. Those that stay on it are not among them. Blocks on the disk.
    ///
    /// A server counts if it tells the lasting name of its store, as Syncline servers do.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub fn unsynced(&self) -> Result<Vec<DocumentUrl>, Error> {
        let engine = self.engine();
        engine.check_open()?;
        let mut ids = engine.unsaved_ids();
        ids.retain(|id| engine.live(id).is_none_or(|live| !live.policy().local_only));
        crate::block_on(engine.note_in_step());
        let mut after: Option<DocumentId> = None;
        loop {
            let page = engine.replica.store().offers(None, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.document.clone());
            let behind = page.into_iter().filter(|offer| !offer.in_step && !offer.policy.local_only);
            ids.extend(behind.map(|offer| offer.document));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids.into_iter().map(DocumentUrl::from).collect())
    }
}

impl Engine {
    pub(crate) async fn set_local_only(&self, id: &DocumentId, local_only: bool) -> Result<(), Error> {
        let set = |local_only| {
            if let Some(live) = self.live(id) {
                live.set_policy(|policy| policy.local_only = local_only);
            }
        };
        // Whoever asks sees it as held back before anything could be said of it, and as let go after.
        let before = self.live(id).is_some_and(|live| live.policy().local_only);
        set(before || local_only);
        let told = self.decisions.expect(|| self.replica.set_local_only(id, local_only));
        if self.has_stopped() {
            return Err(Error::Closed);
        }
        match told.await {
            Ok(Ok(())) => {
                set(local_only);
                if local_only {
                    self.servers.forget(id);
                }
                Ok(())
            }
            Ok(Err(reason)) => {
                set(before);
                Err(Error::NotChosen { document: id.clone(), reason })
            }
            Err(_) => Err(Error::Closed),
        }
    }

    async fn set_pinned(&self, id: &DocumentId, pinned: bool) -> Result<(), Error> {
        self.check_open()?;
        let (tell, told) = tokio::sync::oneshot::channel();
        let done = move |result: Result<(), StoreError>| drop(tell.send(result));
        self.replica.store().set_pinned(id.clone(), pinned, Box::new(done));
        match told.await {
            Ok(Ok(())) => {}
            Ok(Err(StoreError::Closed)) | Err(_) => return Err(Error::Closed),
            Ok(Err(error)) => return Err(Error::NotChosen { document: id.clone(), reason: error.to_string() }),
        }
        if let Some(live) = self.live(id) {
            live.set_policy(|policy| policy.pinned = pinned);
        }
        Ok(())
    }
}

/// Whether one document's history may go into another: what stays on this machine does not leave it by way of a document
/// that does not.
pub(crate) fn may_merge(from: &Document, into: &Document) -> Result<(), Error> {
    if from.is_local_only() && !into.is_local_only() {
        return Err(Error::LocalOnly { document: from.url().id().clone() });
    }
    Ok(())
}

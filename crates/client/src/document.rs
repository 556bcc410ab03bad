//! A document in the hands of an application.
//!
//! Owns: the handle and the waiting futures. Must not: need a tokio runtime of the caller's.
//! Next: `live.rs`, `watch.rs`, `typed.rs`, `history.rs`, `status.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use automerge::transaction::Transaction;
use automerge::{Automerge, AutomergeError, ChangeHash};

use crate::engine::Engine;
use crate::live::Live;
use crate::repo::Background;
use crate::status::Status;
use crate::undo::Purpose;
use crate::{DocumentUrl, Error};

/// An open document. Clones are handles of the same one; while one lives, the repo behind it stays open.
///
/// Reads and changes work on the copy in memory, with or without a network. The closures that are passed to
/// [`Document::read`] and [`Document::change`] hold the document: they must not call its methods, or they wait for ever.
#[derive(Debug, Clone)]
pub struct Document {
    lease: Arc<Lease>,
}

/// What keeps a document in memory.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) live: Arc<Live>,
    pub(crate) background: Arc<Background>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.background.engine.release(&self.live.id);
    }
}

/// How one change is made.
#[derive(Debug, Clone, Default)]
pub struct ChangeOptions {
    /// What it was for, in words for a person; kept in the document's history for good.
    pub message: Option<String>,
    /// Changes of one group that follow each other are one step for [`Document::undo`], such as letters typed into one
    /// field.
    pub group: Option<String>,
    /// A change is made also if there is nothing to change, as the first of a document that begins empty.
    pub even_if_empty: bool,
}

impl ChangeOptions {
    /// With a message.
    #[must_use]
    pub fn message(message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::default() }
    }

    /// As one step with the changes of this group right before it.
    #[must_use]
    pub fn group(group: impl Into<String>) -> Self {
        Self { group: Some(group.into()), ..Self::default() }
    }
}

impl Document {
    pub(crate) fn new(lease: Arc<Lease>) -> Self {
        Self { lease }
    }

    /// The address under which others find it.
    #[must_use]
    pub fn url(&self) -> DocumentUrl {
        DocumentUrl::from(self.live().id.clone())
    }

    /// The address of the document as it is or was at these heads.
    #[must_use]
    pub fn url_at(&self, heads: &[ChangeHash]) -> DocumentUrl {
        self.url().at(heads)
    }

    /// Reads the document as it is in memory.
    ///
    /// # Errors
    /// [`Error::Broken`] when automerge cannot show it.
    pub fn read<R>(&self, read: impl FnOnce(&Automerge) -> R) -> Result<R, Error> {
        self.live().read(read)
    }

    /// Changes the document in one automerge transaction, which becomes one change. It returns as soon as the change is
    /// applied in memory; [`Document::saved`] and [`Document::on_server`] tell when it is where.
    ///
    /// ```
    /// # use automerge::{ReadDoc, ROOT, transaction::Transactable};
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let repo = syncline::Repo::open(directory.path())?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// list.change(|tx| tx.put(ROOT, "title", "Shopping"))?;
    /// let title = list.read(|doc| doc.get(ROOT, "title").map(|found| found.map(|(value, _)| value.to_string())))??;
    /// assert_eq!(title.as_deref(), Some("\"Shopping\""));
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Edit`] with the closure's own error, [`Error::TooManyOperations`], [`Error::Refused`]: the document is
    /// then as it was. [`Error::Broken`], [`Error::Closed`].
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, AutomergeError>,
    ) -> Result<T, Error> {
        self.change_by(ChangeOptions::default(), change)
    }

    /// As [`Document::change`], with a message for the history.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// # let repo = syncline::Repo::memory()?;
    /// # let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// let options = syncline::ChangeOptions::message("Rename");
    /// list.change_with(options, |tx| tx.put(ROOT, "title", "Shopping"))?;
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Document::change`].
    pub fn change_with<T>(
        &self,
        options: ChangeOptions,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, AutomergeError>,
    ) -> Result<T, Error> {
        self.change_by(options, change)
    }

    /// As [`Document::change_with`], for closures with errors of this crate's.
    pub(crate) fn change_by<T, E: Into<Error>>(
        &self,
        options: ChangeOptions,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, Error> {
        self.change_planned(options, |_| Ok(change))
    }

    /// As [`Document::change_with`], with a closure that is made from the document as it is when nobody else changes it.
    pub(crate) fn change_planned<T, E, F>(
        &self,
        options: ChangeOptions,
        plan: impl FnOnce(&Automerge) -> Result<F, Error>,
    ) -> Result<T, Error>
    where
        E: Into<Error>,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    {
        self.live().change(self.engine(), options, Purpose::Edit, plan)
    }

    /// Hashes of the changes that no other change in the document builds on, sorted.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.live().heads()
    }

    /// Where the document's changes are at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.live().status(self.engine())
    }

    /// Follows [`Document::status`]: yields when it may have changed. Only the latest is kept for a slow reader.
    pub async fn status_changed(&self, before: &Status) -> Status {
        let engine = self.engine();
        let (mut progress, mut latest) = (self.live().progress.subscribe(), self.live().latest.subscribe());
        let mut servers = engine.servers.changed.subscribe();
        loop {
            let status = self.status();
            if status != *before || engine.has_stopped() {
                return status;
            }
            let changed = tokio::select! {
                changed = progress.changed() => changed,
                changed = latest.changed() => changed,
                changed = servers.changed() => changed,
            };
            if changed.is_err() {
                return self.status();
            }
        }
    }

    /// Waits until everything that is in the document at this moment is on this disk. From then on no crash loses it.
    ///
    /// # Errors
    /// [`Error::NotSaved`] when the last try failed: it is tried again, so this may be called again.
    /// [`Error::Closed`] when the repo was closed before it was saved.
    pub async fn saved(&self) -> Result<(), Error> {
        let live = self.live();
        let mark = live.mark();
        let mut progress = live.progress.subscribe();
        loop {
            // In this order: what is saved when the repo has stopped, is saved.
            let stopped = self.engine().has_stopped();
            if live.saved_up_to(mark)? {
                return Ok(());
            }
            if stopped || progress.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// The heads that each server announced last, by the server's address, whether it is connected or not. Changes up to
    /// these are on that server.
    #[must_use]
    pub fn announced_heads(&self) -> BTreeMap<String, Vec<ChangeHash>> {
        self.live().announced()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.lease.background.engine
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.lease.live
    }
}

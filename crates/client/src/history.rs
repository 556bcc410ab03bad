//! What a document was, who changed it, and going back.
//!
//! Owns: listing, reading and comparing versions, restoring one. Must not: remove anything from a history.
//! Next: `view.rs`, `patching.rs`, `undo.rs`; docs/client.md, "History".

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use automerge::transaction::Transaction;
use automerge::{ActorId, Author, Automerge, ChangeHash, ChangeMetadata, Patch};

use crate::document::{ChangeOptions, Document};
use crate::view::View;
use crate::{Error, patching, typed};

/// One change in a document's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeInfo {
    /// Its hash: as heads, it names the document as its author saw it then.
    pub hash: ChangeHash,
    /// The changes that it builds on.
    pub deps: Vec<ChangeHash>,
    /// The process that made it: a new one at each opening of a repo.
    pub actor: ActorId,
    /// Who made it, if its application says so ([`Options::author`](crate::Options::author)).
    pub author: Option<Author<'static>>,
    /// What it was for, if its application says so.
    pub message: Option<String>,
    /// When, by its author's clock, in whole seconds; `None` where the application does not say.
    pub time: Option<SystemTime>,
    /// How many operations it has.
    pub operations: u64,
}

impl Document {
    /// All changes, each after those that it builds on.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// # use syncline::{ChangeOptions, Repo};
    /// let repo = Repo::memory()?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// list.change_with(ChangeOptions::message("Rename"), |tx| tx.put(ROOT, "title", "Shopping"))?;
    /// let history = list.history()?;
    /// assert_eq!(history[1].message.as_deref(), Some("Rename"));
    /// let before = list.read_at(&[history[0].hash], |view| view.length(&ROOT))?;
    /// assert_eq!(before, 1);
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn history(&self) -> Result<Vec<ChangeInfo>, Error> {
        self.history_since(&[])
    }

    /// The changes that these heads do not stand for, each after those that it builds on.
    ///
    /// # Errors
    /// [`Error::UnknownHeads`], [`Error::Broken`].
    pub fn history_since(&self, heads: &[ChangeHash]) -> Result<Vec<ChangeInfo>, Error> {
        self.read_knowing(&[heads], |document| {
            document.get_changes_meta(heads).into_iter().map(ChangeInfo::from).collect()
        })
    }

    /// Reads the document as it was at these heads. Nothing is copied.
    ///
    /// # Errors
    /// [`Error::UnknownHeads`], [`Error::Broken`].
    pub fn read_at<R>(&self, heads: &[ChangeHash], read: impl FnOnce(&View<'_>) -> R) -> Result<R, Error> {
        self.read_knowing(&[heads], |document| read(&View::at(document, heads)))
    }

    /// The document as a struct, as it was at these heads.
    ///
    /// # Errors
    /// As [`Document::read_at`], and [`Error::Shape`].
    pub fn hydrate_at<T: autosurgeon::Hydrate>(&self, heads: &[ChangeHash]) -> Result<T, Error> {
        self.read_at(heads, |view| typed::hydrate(&self.url(), view))?
    }

    /// What to do to the document as it was at one place, so that it is as at the other. Either may be the later.
    ///
    /// # Errors
    /// [`Error::UnknownHeads`], [`Error::Broken`].
    pub fn diff(&self, before: &[ChangeHash], after: &[ChangeHash]) -> Result<Vec<Patch>, Error> {
        self.read_knowing(&[before, after], |document| document.diff(before, after))
    }

    /// The heads that the document had at a time, by the clocks of those who changed it: a change counts if it and all
    /// that it builds on were made by then. Changes without a time count as made with what they build on.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn heads_at(&self, time: SystemTime) -> Result<Vec<ChangeHash>, Error> {
        let time_s = seconds(time);
        self.read(|document| syncline_content::history::heads_at(document, time_s))
    }

    /// Makes the document what it was at these heads, by one more change: nothing is lost, and it can be undone.
    /// Concurrent changes of others that come later are merged as with any other change.
    ///
    /// # Errors
    /// [`Error::UnknownHeads`]; all of [`Document::change`].
    pub fn restore(&self, heads: &[ChangeHash]) -> Result<(), Error> {
        let options = ChangeOptions::message("Restore an earlier version");
        // Read under the lock under which it is changed, so that nothing comes in between.
        self.change_planned(options, |document| {
            self.check_known(document, heads)?;
            let patches = document.diff(&document.get_heads(), heads);
            Ok(move |transaction: &mut Transaction<'_>| patching::apply(transaction, &patches, heads))
        })
    }

    /// Reads, once it is sure that the document has all these heads.
    pub(crate) fn read_knowing<R>(
        &self,
        heads: &[&[ChangeHash]],
        read: impl FnOnce(&Automerge) -> R,
    ) -> Result<R, Error> {
        self.read(|document| {
            heads.iter().try_for_each(|heads| self.check_known(document, heads))?;
            Ok(read(document))
        })?
    }

    pub(crate) fn check_known(&self, document: &Automerge, heads: &[ChangeHash]) -> Result<(), Error> {
        match heads.iter().find(|hash| document.get_change_meta_by_hash(hash).is_none()) {
            Some(unknown) => Err(Error::UnknownHeads { document: self.url().id().clone(), unknown: *unknown }),
            None => Ok(()),
        }
    }
}

impl From<ChangeMetadata<'_>> for ChangeInfo {
    fn from(change: ChangeMetadata<'_>) -> Self {
        let time = u64::try_from(change.timestamp).ok().filter(|time_s| *time_s > 0);
        Self {
            hash: change.hash,
            actor: change.actor.into_owned(),
            author: change.author.map(Author::into_owned),
            message: change.message.map(|message| message.into_owned()),
            time: time.and_then(|time_s| UNIX_EPOCH.checked_add(Duration::from_secs(time_s))),
            operations: (change.max_op + 1).saturating_sub(change.start_op),
            deps: change.deps,
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

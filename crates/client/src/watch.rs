//! Following one document.
//!
//! Owns: what a watcher has seen, and what it is told next. Must not: keep anything for a slow watcher.
//! Next: `steps.rs`, `feed.rs`; docs/client.md, "Watching".

use std::collections::BTreeSet;
use std::sync::Arc;

use automerge::{ChangeHash, Patch};
use futures_core::Stream;
use tokio::sync::watch;

use crate::Error;
use crate::document::Document;
use crate::live::{Latest, Live};
use crate::steps::{Origin, Step};

/// Follows one document. A slow follower gets several changes in one update, never less than the latest state; what it
/// has not read yet takes no memory of its own.
#[derive(Debug)]
pub struct Watch {
    latest: watch::Receiver<Latest>,
    /// Number of the last step that was told.
    seen: u64,
    heads: Vec<ChangeHash>,
    document: Document,
    _watching: Watching,
}

/// What happened to a document since the update before.
#[derive(Debug, Clone)]
pub struct Update {
    /// The heads before it.
    pub before: Vec<ChangeHash>,
    /// The heads after it.
    pub after: Vec<ChangeHash>,
    /// Who brought it. Where many changes came in one update, at least those.
    pub origins: BTreeSet<Origin>,
    steps: Vec<Arc<Step>>,
    document: Document,
}

impl Document {
    /// Follows the document: what is changed from here on, here or elsewhere.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// use syncline::{Origin, Repo, block_on};
    /// let repo = Repo::memory()?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// let mut watch = list.watch();
    /// list.change(|tx| tx.put(ROOT, "title", "Shopping"))?;
    /// let update = block_on(watch.changed())?;
    /// assert!(update.origins.contains(&Origin::Local));
    /// assert_eq!(update.patches()?.len(), 1);
    /// # Ok::<(), syncline::Error>(())
    /// ```
    #[must_use]
    pub fn watch(&self) -> Watch {
        let watching = Watching::new(self.live());
        let mut latest = self.live().latest.subscribe();
        let (seen, heads) = {
            let latest = latest.borrow_and_update();
            (latest.steps.last(), latest.heads.clone())
        };
        Watch { latest, seen, heads, document: self.clone(), _watching: watching }
    }
}

impl Watch {
    /// Waits until the document has changed since the last call.
    ///
    /// # Errors
    /// [`Error::Closed`] when the repo is closed, [`Error::Broken`] when the document can no longer be shown.
    pub async fn changed(&mut self) -> Result<Update, Error> {
        loop {
            let ended = self.latest.borrow().ended;
            if ended || self.latest.changed().await.is_err() {
                return Err(Error::Closed);
            }
            self.document.read(|_| ())?;
            let (steps, after, last) = {
                let latest = self.latest.borrow_and_update();
                (latest.steps.after(self.seen), latest.heads.clone(), latest.steps.last())
            };
            if last == self.seen {
                // Somebody was woken for another reason.
                continue;
            }
            self.seen = last;
            let origins = steps.iter().flat_map(|step| step.origins.iter().cloned()).collect();
            let before = std::mem::replace(&mut self.heads, after.clone());
            return Ok(Update { before, after, origins, steps, document: self.document.clone() });
        }
    }

    /// The updates as a stream, which ends with the repo.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// use futures_util::StreamExt;
    /// # let repo = syncline::Repo::memory()?;
    /// # let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// let mut updates = Box::pin(list.watch().into_stream());
    /// list.change(|tx| tx.put(ROOT, "title", "Shopping"))?;
    /// assert!(syncline::block_on(updates.next()).is_some());
    /// # Ok::<(), syncline::Error>(())
    /// ```
    pub fn into_stream(self) -> impl Stream<Item = Update> + Send {
        futures_util::stream::unfold(self, |mut watch| async move {
            let update = watch.changed().await.ok()?;
            Some((update, watch))
        })
    }

    /// The document that is followed.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }
}

impl Update {
    /// What to do to a copy of the document as it was before, so that it is as it was after. They are kept from the
    /// change itself where the watcher keeps up, and worked out where it does not, in time that grows with the document.
    ///
    /// # Errors
    /// [`Error::Broken`] when the document can no longer be shown.
    pub fn patches(&self) -> Result<Vec<Patch>, Error> {
        let joined = self.steps.first().is_some_and(|first| first.before == self.before);
        let kept: Option<Vec<&Vec<Patch>>> = self.steps.iter().map(|step| step.patches.as_ref()).collect();
        match kept.filter(|_| joined) {
            Some(kept) => Ok(kept.into_iter().flatten().cloned().collect()),
            None => self.document.read(|document| document.diff(&self.before, &self.after)),
        }
    }
}

/// While one lives, steps of the document are remembered.
#[derive(Debug)]
struct Watching {
    live: Arc<Live>,
}

impl Watching {
    fn new(live: &Arc<Live>) -> Self {
        live.add_watcher();
        Self { live: Arc::clone(live) }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.live.remove_watcher();
    }
}

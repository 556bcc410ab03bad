//! What changed in the whole repo since a position, and from there on.
//!
//! Owns: positions, what each feed is still to tell, and its bound. Must not: open documents.
//! Next: `watch.rs` for one document; docs/client.md, "The feed of a repo".

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_store::StoreError;
use tokio::sync::watch;

use crate::repo::{Background, Repo};
use crate::{DocumentUrl, Error};

/// Documents that a feed is still to tell of before it forgets and reads the store again.
const PENDING_MAX: usize = 16 * 1024;

/// Documents read from the store in one go.
const PAGE: usize = 1_024;

/// A place in the order in which this repo made changes durable. It outlives the process: keep its text, and go on from
/// there.
///
/// ```
/// use syncline::Position;
/// let position: Position = Position::START.to_string().parse()?;
/// assert_eq!(position, Position::START);
/// # Ok::<(), std::num::ParseIntError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Stamp);

impl Position {
    /// Before everything.
    pub const START: Self = Self(Stamp::ZERO);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_u64().fmt(f)
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|packed| Self(Stamp::from_u64(packed)))
    }
}

/// Documents in the order in which they were last changed, deleted or restored, here or elsewhere, once that is durable
/// here. Of one that is deleted, [`Repo::find_local`] says so.
///
/// A document that changes several times before it is told of comes once, at its latest place. A feed that nobody reads
/// takes a bounded amount of memory and misses nothing.
#[derive(Debug)]
pub struct Feed {
    queue: Arc<Queue>,
    changed: watch::Receiver<u64>,
    position: Stamp,
    background: Arc<Background>,
}

impl Repo {
    /// Follows the whole repo: every document that was changed, deleted or restored after this position, and from there on.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// use syncline::{Position, Repo, block_on};
    /// let repo = Repo::memory()?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// let mut feed = repo.changes_since(Position::START)?;
    /// assert_eq!(block_on(feed.next())?, list.url());
    /// let kept = feed.position().to_string(); // survives a restart
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn changes_since(&self, position: Position) -> Result<Feed, Error> {
        let background = Arc::clone(&self.background);
        background.engine.check_open()?;
        let queue = background.engine.feeds.open();
        let changed = queue.changed.subscribe();
        Ok(Feed { queue, changed, position: position.0, background })
    }
}

impl Feed {
    /// The next document that has changed, or was deleted or restored; waits for one.
    ///
    /// # Errors
    /// [`Error::Closed`] when the repo is closed, [`Error::Store`] when it cannot be read.
    pub async fn next(&mut self) -> Result<DocumentUrl, Error> {
        loop {
            self.changed.mark_unchanged();
            let (first, incomplete) = self.queue.lock().pop();
            if let Some((stamp, document)) = first {
                self.position = stamp;
                return Ok(DocumentUrl::from(document));
            }
            if self.background.engine.has_stopped() {
                return Err(Error::Closed);
            }
            if incomplete {
                self.read_store().await?;
            } else if self.changed.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Where the feed is: [`Repo::changes_since`] goes on from here, in a later run too.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// Finds what was changed after the position, in the store.
    async fn read_store(&self) -> Result<(), Error> {
        self.queue.lock().incomplete = false;
        let (background, queue, position) = (Arc::clone(&self.background), Arc::clone(&self.queue), self.position);
        let read = move || {
            let store = background.engine.replica.store();
            let changed = |after: Option<&DocumentId>| {
                let page = store.documents(after, PAGE)?;
                Ok(page.into_iter().map(|(document, summary)| (document, summary.last_stamp)).collect())
            };
            let decided = |after: Option<&DocumentId>| {
                let page = store.lives(after, PAGE)?;
                Ok(page.into_iter().map(|(document, entry)| (document, entry.noted)).collect())
            };
            let result = queue.fill(position, changed).and_then(|()| queue.fill(position, decided));
            // The last handle of a repo must not be dropped on one of its own threads.
            (result, background)
        };
        let reading = self.background.engine.runtime.spawn_blocking(read);
        let (result, _background) = reading.await.map_err(|_| Error::Closed)?;
        if result.is_err() {
            self.queue.lock().incomplete = true;
        }
        result
    }
}

/// All feeds of a repo.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    open: Mutex<Vec<Weak<Queue>>>,
}

impl Feeds {
    fn open(&self) -> Arc<Queue> {
        let pending = Pending { incomplete: true, ..Pending::default() };
        let queue = Arc::new(Queue { pending: Mutex::new(pending), changed: watch::Sender::new(0) });
        self.lock().push(Arc::downgrade(&queue));
        queue
    }

    /// Documents became durable, in the order of their stamps.
    pub(crate) fn note(&self, committed: &[(DocumentId, Stamp)]) {
        self.each(|queue| {
            let mut pending = queue.lock();
            for (document, stamp) in committed {
                pending.note(document, *stamp);
            }
        });
    }

    /// The repo is closed.
    pub(crate) fn end(&self) {
        self.each(|_| {});
    }

    fn each(&self, act: impl Fn(&Queue)) {
        self.lock().retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            act(&queue);
            queue.changed.send_modify(|ticks| *ticks += 1);
            true
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Queue>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one feed is still to tell.
#[derive(Debug)]
struct Queue {
    pending: Mutex<Pending>,
    changed: watch::Sender<u64>,
}

impl Queue {
    /// Takes in what the store has after a position, page by page in the order of ids.
    fn fill(
        &self,
        position: Stamp,
        page: impl Fn(Option<&DocumentId>) -> Result<Vec<(DocumentId, Stamp)>, StoreError>,
    ) -> Result<(), Error> {
        let mut after: Option<DocumentId> = None;
        loop {
            let page = page(after.as_ref())?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut pending = self.lock();
            let later = page.into_iter().filter(|(_, stamp)| *stamp > position);
            later.for_each(|(document, stamp)| pending.add(document, stamp));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Pending {
    order: BTreeMap<Stamp, DocumentId>,
    stamps: HashMap<DocumentId, Stamp>,
    /// The store knows of more, later than everything here.
    incomplete: bool,
}

impl Pending {
    /// A document has become durable at this stamp, later than everything here. Where the store is to be asked again, it
    /// will tell of it: it must not come before what was left out.
    fn note(&mut self, document: &DocumentId, stamp: Stamp) {
        if self.incomplete {
            self.forget(document);
        } else {
            self.add(document.clone(), stamp);
        }
    }

    /// The store has a document with this stamp. Beyond the bound the latest are left out.
    fn add(&mut self, document: DocumentId, stamp: Stamp) {
        if self.stamps.get(&document).is_some_and(|known| *known >= stamp) {
            return;
        }
        self.forget(&document);
        self.stamps.insert(document.clone(), stamp);
        self.order.insert(stamp, document);
        if self.order.len() > PENDING_MAX
            && let Some((_, last)) = self.order.pop_last()
        {
            self.stamps.remove(&last);
            self.incomplete = true;
        }
    }

    fn forget(&mut self, document: &DocumentId) {
        if let Some(known) = self.stamps.remove(document) {
            self.order.remove(&known);
        }
    }

    /// The earliest, and whether the store has to be asked when there is none.
    fn pop(&mut self) -> (Option<(Stamp, DocumentId)>, bool) {
        let first = self.order.pop_first();
        if let Some((_, document)) = &first {
            self.stamps.remove(document);
        }
        (first, self.incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(n: u64) -> DocumentId {
        DocumentId::from_bytes(&n.to_be_bytes()).expect("a short id")
    }

    fn drain(pending: &mut Pending) -> Vec<u64> {
        std::iter::from_fn(|| pending.pop().0).map(|(stamp, _)| stamp.as_u64()).collect()
    }

    #[test]
    fn a_document_that_changes_again_comes_once_at_its_latest_place() {
        let mut pending = Pending::default();
        for (n, stamp) in [(1, 1), (2, 2), (1, 3)] {
            pending.note(&document(n), Stamp::from_u64(stamp));
        }
        // A page of the store that was read before the last change.
        pending.add(document(1), Stamp::from_u64(1));
        assert_eq!(drain(&mut pending), [2, 3]);
    }

    #[test]
    fn beyond_the_bound_the_latest_are_left_to_the_store_and_nothing_overtakes_them() {
        let count = PENDING_MAX as u64;
        let mut pending = Pending::default();
        // The store's order is that of the ids.
        for n in (1..=count + 10).rev() {
            pending.add(document(n), Stamp::from_u64(n));
        }
        pending.note(&document(0), Stamp::from_u64(count + 11));
        pending.note(&document(1), Stamp::from_u64(count + 12));
        assert!(pending.incomplete && pending.order.len() <= PENDING_MAX);
        assert_eq!(drain(&mut pending), (2..=count).collect::<Vec<_>>());
    }
}

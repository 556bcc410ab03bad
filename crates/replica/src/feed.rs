//! Documents in the order in which they last changed, from any position on.
//!
//! Owns: what each follower is still to be told, and its bound. Must not: open documents.
//! Next: `replica.rs`; the client crate's `feed.rs`, the server crate's `api/changes.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::replica::Replica;

/// Documents that a follower is still to be told of before it forgets and reads the store again.
const PENDING_MAX: usize = 16 * 1024;

/// Documents read from the store in one go.
const PAGE: usize = 1_024;

/// All followers of a store.
#[derive(Debug, Default)]
pub struct Feeds {
    open: Mutex<Vec<Weak<Queue>>>,
}

impl Feeds {
    /// Follows the store: every document that was changed, deleted or restored after this position, and from there on.
    #[must_use]
    pub fn follow(&self, position: Stamp) -> Follower {
        let pending = Pending { incomplete: true, ..Pending::default() };
        let queue = Arc::new(Queue { pending: Mutex::new(pending), changed: watch::Sender::new(0) });
        self.lock().push(Arc::downgrade(&queue));
        let changed = queue.changed.subscribe();
        Follower { queue, changed, position }
    }

    /// Documents became durable, in the order of their stamps: what [`syncline_store::Store::on_committed`] tells.
    pub fn note(&self, committed: &[(DocumentId, Stamp)]) {
        self.each(|queue| {
            let mut pending = queue.lock();
            for (document, stamp) in committed {
                pending.note(document, *stamp);
            }
        });
    }

    /// Wakes every follower, so that it looks whether it is to end.
    pub fn wake(&self) {
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

/// Who is told of documents in the order in which they were last changed, deleted or restored, once that is durable.
///
/// A document that changes several times before it is told of comes once, at its latest place. A follower that nobody
/// reads takes a bounded amount of memory and misses nothing.
#[derive(Debug)]
pub struct Follower {
    queue: Arc<Queue>,
    changed: watch::Receiver<u64>,
    position: Stamp,
}

impl Follower {
    /// The next document and its place; waits for one. `None` when `has_ended` says so after a [`Feeds::wake`]. Nothing is
    /// missed if the future is dropped. Whoever waits needs no runtime: the store is read on threads of the one given.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn next(
        &mut self,
        replica: &Replica,
        runtime: &Handle,
        has_ended: impl Fn() -> bool,
    ) -> Result<Option<(DocumentId, Stamp)>, StoreError> {
        loop {
            self.changed.mark_unchanged();
            let (first, incomplete) = self.queue.lock().pop();
            if let Some((stamp, document)) = first {
                self.position = stamp;
                return Ok(Some((document, stamp)));
            }
            if has_ended() {
                return Ok(None);
            }
            if incomplete {
                self.read_store(replica, runtime).await?;
            } else if self.changed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// As [`Follower::next`], but `None` as soon as nothing more has changed.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub async fn next_at_hand(
        &mut self,
        replica: &Replica,
        runtime: &Handle,
    ) -> Result<Option<(DocumentId, Stamp)>, StoreError> {
        if self.queue.lock().is_behind() {
            self.read_store(replica, runtime).await?;
        }
        let (first, _) = self.queue.lock().pop();
        Ok(first.map(|(stamp, document)| {
            self.position = stamp;
            (document, stamp)
        }))
    }

    /// Where the follower is: [`Feeds::follow`] goes on from here, in a later run too.
    #[must_use]
    pub fn position(&self) -> Stamp {
        self.position
    }

    /// Finds what was changed after the position, in the store.
    async fn read_store(&self, replica: &Replica, runtime: &Handle) -> Result<(), StoreError> {
        self.queue.lock().incomplete = false;
        let (replica, queue, position) = (replica.clone(), Arc::clone(&self.queue), self.position);
        let read = move || {
            let store = replica.store();
            let changed = |after: Option<&DocumentId>| {
                let page = store.documents(after, PAGE)?;
                Ok(page.into_iter().map(|(document, summary)| (document, summary.last_stamp)).collect())
            };
            let decided = |after: Option<&DocumentId>| {
                let page = store.lives(after, PAGE)?;
                Ok(page.into_iter().map(|(document, entry)| (document, entry.noted)).collect())
            };
            queue.fill(position, changed).and_then(|()| queue.fill(position, decided))
        };
        let result = runtime.spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed));
        if result.is_err() {
            self.queue.lock().incomplete = true;
        }
        result
    }
}

/// What one follower is still to be told.
#[derive(Debug)]
pub(crate) struct Queue {
    pending: Mutex<Pending>,
    changed: watch::Sender<u64>,
}

impl Queue {
    /// Takes in what the store has after a position, page by page in the order of ids.
    fn fill(
        &self,
        position: Stamp,
        page: impl Fn(Option<&DocumentId>) -> Result<Vec<(DocumentId, Stamp)>, StoreError>,
    ) -> Result<(), StoreError> {
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

    /// Whether the store has to be asked before anything more can be told.
    fn is_behind(&self) -> bool {
        self.order.is_empty() && self.incomplete
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

//! The store as its users see it.
//!
//! Owns: opening and closing, the threads' lives, the interface. Must not: hold a lock while it waits for SQLite.
//! Next: `writer.rs` for commits, `read.rs` for reads; docs/store.md.

mod driven;
pub(crate) mod selection;

pub use driven::Driven;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use syncline_core::ChangeHash;
use syncline_core::clock::{Clock, DriftError, Stamp};
use syncline_core::id::{DocumentId, ReplicaId};
use syncline_core::life::{Life, LifeUpdate};
use syncline_core::loader::{InProcess, Loader};
use syncline_core::storage::{Commit, Payload, Standing, StoredChange, StoredGraph, Summary};

use crate::blob;
use crate::checkpoint::Checkpointer;
use crate::compact::{self, Backlog};
use crate::error::StoreError;
use crate::fold::Log;
use crate::ground::{Ground, System};
use crate::group::Done;
use crate::life::{self, LifeEntry};
use crate::overlay::Unfolded;
use crate::read::{self, Readers};
use crate::recover::{self, Recovered};
use crate::schema::{self, DocumentRow, Home};
use crate::writer::{End, Shared, Transacted, Writer};

/// How a store behaves. The defaults suit a server and a laptop alike.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections that read at the same time; further readers wait. Default 4.
    pub readers_max: usize,
    /// Rows in the log at which folding starts although commits keep coming. Default 65,536.
    pub fold_rows: usize,
    /// Bytes in the log at which folding starts although commits keep coming. Default 32 MiB.
    pub fold_bytes: usize,
    /// Time without a commit after which folding starts. Default 1 s.
    pub fold_idle: Duration,
    /// Longest slice of folding between two groups of commits, before its transaction ends. Default 3 ms.
    pub fold_slice: Duration,
    /// Wait after a fold that failed for want of space. Default 5 s.
    pub fold_retry: Duration,
    /// Pages of SQLite's write-ahead log from which on it is moved into the database file. Default 4,096, which is 16 MiB.
    pub checkpoint_pages: u32,
    /// A document is compacted when its raw changes exceed these bytes and the size of its snapshot. Default 256 KiB.
    pub compact_bytes: u64,
    /// A document is compacted when it has more raw changes than this. Default 4,096.
    pub compact_changes: u32,
    /// The most recent changes that stay raw, so that a peer a little behind costs no decoding. Default 256.
    pub keep_changes: usize,
    /// Of the most recent changes, only so many bytes stay raw. Default 128 KiB.
    pub keep_bytes: usize,
    /// Largest size of the database file, pages of 4 KiB; beyond it commits fail as on a full disk. Default none.
    pub pages_max: Option<u32>,
    /// Most bytes that all blobs together may take, those of partial ones included. Default none.
    pub blob_bytes_max: Option<u64>,
    /// Furthest that a remote stamp may be ahead of this machine's clock and still be merged. Default 60 s.
    pub drift_max: Duration,
    /// How long a deleted document can be restored, from when this store noted the deletion. Default 30 days.
    pub deleted_keep: Duration,
    /// Whether a commit waits for the disk. `false` is for tests: a power cut then loses acknowledged changes.
    pub durable: bool,
    /// Who builds automerge documents, for compaction and for changes under a snapshot. Default: this process.
    pub loader: Arc<dyn Loader>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers_max: 4,
            fold_rows: 65_536,
            fold_bytes: 32 * 1024 * 1024,
            fold_idle: Duration::from_secs(1),
            fold_slice: Duration::from_millis(3),
            fold_retry: Duration::from_secs(5),
            checkpoint_pages: 4096,
            compact_bytes: 256 * 1024,
            compact_changes: 4096,
            keep_changes: 256,
            keep_bytes: 128 * 1024,
            pages_max: None,
            blob_bytes_max: None,
            drift_max: Duration::from_secs(60),
            deleted_keep: Duration::from_secs(30 * 24 * 3600),
            durable: true,
            loader: Arc::new(InProcess),
        }
    }
}

impl Options {
    /// Whether a document has enough raw changes to be compacted, and has grown since it last could not be.
    pub(crate) fn is_ripe(&self, row: &DocumentRow) -> bool {
        let large = row.tail_bytes > self.compact_bytes.max(row.snapshot_bytes);
        let long = row.changes - row.snapshot_changes > self.compact_changes;
        let refused = row.refused_changes > 0 && row.changes < row.refused_changes.saturating_mul(2);
        (large || long) && !refused
    }

    /// How many of the most recent changes stay raw.
    pub(crate) fn kept_raw(&self, tail: &[StoredChange]) -> usize {
        let mut bytes = 0;
        let fits = |change: &&StoredChange| {
            bytes += change.bytes.len();
            bytes <= self.keep_bytes
        };
        tail.iter().rev().take(self.keep_changes).take_while(fits).count()
    }
}

/// Documents in the order of their ids, and the id beyond which there may be more that were not looked at.
type Page = (Vec<(DocumentId, Summary)>, Option<DocumentId>);

/// An open store. Clones share it; its threads end when the last clone is dropped or [`Store::close`] is called.
///
/// Every call but [`Store::commit`] blocks on the disk, so callers keep them off the threads that serve sockets.
/// The callbacks must not hold a clone of the store beyond their call.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens the store in this directory, making both if they do not exist. The database is `syncline.db` in it.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NewerFormat`], [`StoreError::NotAStore`], [`StoreError::Io`],
    /// [`StoreError::Corrupt`], [`StoreError::DiskFull`].
    pub fn open(directory: &Path, options: Options) -> Result<Self, StoreError> {
        Inner::open(directory, options, None, Arc::new(System)).map(|inner| Self { inner: Arc::new(inner) })
    }

    /// A store for tests: the same code over a directory that is removed with it, without waiting for the disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn memory() -> Result<Self, StoreError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("syncline-{}-{}-{number}", std::process::id(), System.wall_ms());
        let directory = std::env::temp_dir().join(name);
        let options = Options { durable: false, ..Options::default() };
        let inner = Inner::open(&directory, options, Some(directory.clone()), Arc::new(System))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The replica's identity, drawn when the store was created.
    #[must_use]
    pub fn replica_id(&self) -> ReplicaId {
        self.inner.replica
    }

    /// The highest stamp that this store's clock has issued or merged.
    #[must_use]
    pub fn highest_stamp(&self) -> Stamp {
        self.inner.shared.clock.lock().unwrap_or_else(PoisonError::into_inner).highest()
    }

    /// A stamp of this moment, later than all that this store has issued or merged: for what is said to other replicas.
    #[must_use]
    pub fn tick(&self) -> Stamp {
        let wall_ms = self.inner.shared.ground.wall_ms();
        self.inner.shared.clock.lock().unwrap_or_else(PoisonError::into_inner).tick(wall_ms)
    }

    /// Merges a stamp that came from another replica, so that what is committed from here on is stamped later.
    ///
    /// # Errors
    /// [`DriftError`] when it is too far ahead; the clock is unchanged.
    pub fn observe(&self, remote: Stamp) -> Result<(), DriftError> {
        let wall_ms = self.inner.shared.ground.wall_ms();
        self.inner.shared.clock.lock().unwrap_or_else(PoisonError::into_inner).observe(remote, wall_ms)
    }

    /// Makes these commits durable, all or none, and then calls `done` from the writer thread.
    ///
    /// Calls are acknowledged in the order in which they were made; the writer puts everything that waits into one
    /// transaction. Each change is stamped in this order. After `Ok` every read sees the changes and no crash loses
    /// them. The queue has no bound of its own: a caller limits what it has outstanding.
    ///
    /// A document's first commit may bring its changes as one automerge document chunk as well. The chunk is kept in
    /// their place if it has the same heads and takes less room with its index; the index is made by this call, in
    /// time that grows with the number of changes.
    ///
    /// `done` gets [`StoreError::Stale`], [`StoreError::TooManyChanges`], [`StoreError::Damaged`],
    /// [`StoreError::DiskFull`], [`StoreError::Poisoned`], [`StoreError::Corrupt`] or [`StoreError::Closed`]; it must
    /// not block.
    pub fn commit(&self, commits: Vec<Commit>, done: Box<dyn FnOnce(Result<(), StoreError>) + Send>) {
        let done: Done = done;
        self.inner.shared.commit(commits, done);
    }

    /// What is known of a document without reading its changes; `None` if the store has nothing of it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for a document whose log was damaged, [`StoreError::Corrupt`], [`StoreError::Sqlite`],
    /// [`StoreError::Closed`]; so for every read.
    pub fn summary(&self, id: &DocumentId) -> Result<Option<Summary>, StoreError> {
        self.summaries(std::slice::from_ref(id)).map(|mut found| found.pop().flatten())
    }

    /// The summaries of several documents, in the order asked for.
    ///
    /// # Errors
    /// As [`Store::summary`].
    pub fn summaries(&self, ids: &[DocumentId]) -> Result<Vec<Option<Summary>>, StoreError> {
        ids.iter().try_for_each(|id| self.inner.shared.expect_sound(id))?;
        // The log's part is taken before the database's: what is folded in between is then seen twice, never not at all.
        let overlay = self.inner.shared.overlay.read().unwrap_or_else(PoisonError::into_inner);
        let unfolded: Vec<_> = ids.iter().map(|id| overlay.find(id).map(|unfolded| unfolded.state.clone())).collect();
        drop(overlay);
        self.inner.readers.read(|read| {
            let join = |(id, unfolded): (&DocumentId, _)| {
                Ok(read::join_summary(DocumentRow::find(read, id.as_bytes())?, unfolded))
            };
            ids.iter().zip(unfolded).map(join).collect()
        })
    }

    /// What is known of a document, whether it is deleted or not.
    ///
    /// # Errors
    /// As [`Store::summary`].
    pub fn standing(&self, id: &DocumentId) -> Result<Standing, StoreError> {
        let summary = self.summary(id)?;
        let life = self.life(id)?.map(|entry| entry.life);
        Ok(Standing { summary, life, local_only: self.policy(id)?.local_only })
    }

    /// Who said last whether a document is deleted; `None` if nobody did.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn life(&self, id: &DocumentId) -> Result<Option<LifeEntry>, StoreError> {
        self.inner.readers.read(|read| LifeEntry::find(read, id))
    }

    /// At most `limit` life records in the order of their documents' ids, those after the one given.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn lives(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<(DocumentId, LifeEntry)>, StoreError> {
        self.inner.readers.read(|read| LifeEntry::after(read, after, limit))
    }

    /// Puts these changes in the place of a document's whole history, or fails and leaves that as it is. In the same queue as
    /// commits, and acknowledged in the same way; `commit.changes_before` is 0. What the old history took is removed
    /// in the background.
    pub fn replace(&self, commit: Commit, done: Box<dyn FnOnce(Result<(), StoreError>) + Send>) {
        self.inner.shared.replace(commit, done);
    }

    /// Makes a life record durable and then calls `done` from the writer thread, with the record that stands. In the
    /// same queue as commits, and acknowledged in the same way.
    ///
    /// A document that stays deleted for [`Options::deleted_keep`] is then purged: nothing of it but the record is left.
    pub fn set_life(
        &self,
        document: DocumentId,
        update: LifeUpdate,
        done: Box<dyn FnOnce(Result<Life, StoreError>) + Send>,
    ) {
        self.inner.shared.set_life(document, update, done);
    }

    /// Calls back after each purge, from the writer thread. A later call replaces the callback. It must not block.
    pub fn on_purged(&self, callback: impl Fn(DocumentId) + Send + Sync + 'static) {
        *self.inner.shared.purged.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(callback));
    }

    /// A document's change graph: encoded nodes under its snapshot, raw changes after it.
    ///
    /// # Errors
    /// As [`Store::summary`], and [`StoreError::Damaged`].
    pub fn graph(&self, id: &DocumentId) -> Result<Option<StoredGraph>, StoreError> {
        let unfolded = self.unfolded(id)?;
        self.inner.readers.read(|read| read::graph(read, id, unfolded.as_ref()))
    }

    /// A document's bytes for a peer that has nothing of it: the snapshot as it is stored, and the changes after it.
    ///
    /// # Errors
    /// As [`Store::summary`], and [`StoreError::Damaged`].
    pub fn payload(&self, id: &DocumentId) -> Result<Option<Payload>, StoreError> {
        let unfolded = self.unfolded(id)?;
        self.inner.readers.read(|read| read::payload(read, id, unfolded.as_ref()))
    }

    /// When each change of a document was committed here, in the order of [`Store::graph`].
    ///
    /// # Errors
    /// As [`Store::payload`].
    pub fn stamps(&self, id: &DocumentId) -> Result<Vec<Stamp>, StoreError> {
        let unfolded = self.unfolded(id)?;
        self.inner.readers.read(|read| read::stamps(read, id, unfolded.as_ref()))
    }

    /// The raw chunks of these changes, in the order asked for. Those under the snapshot cost decoding it.
    ///
    /// # Errors
    /// As [`Store::summary`], and [`StoreError::Damaged`], [`StoreError::UnknownChange`], [`StoreError::NotLoaded`].
    pub fn changes(&self, id: &DocumentId, hashes: &[ChangeHash]) -> Result<Vec<Bytes>, StoreError> {
        let unfolded = self.unfolded(id)?;
        self.inner.readers.read(|read| read::changes(read, id, unfolded.as_ref(), (hashes, &*self.inner.loader)))
    }

    /// At most `limit` documents in the order of their ids, those after the one given. Those that are deleted and those
    /// whose log was damaged are left out.
    ///
    /// # Errors
    /// As [`Store::summary`], without [`StoreError::Damaged`].
    pub fn documents(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Summary)>, StoreError> {
        let mut after = after.cloned();
        loop {
            let (page, horizon) = self.documents_up_to(after.as_ref(), limit)?;
            if page.is_empty() && horizon.is_some() {
                after = horizon;
                continue;
            }
            return Ok(page);
        }
    }

    /// As [`Store::documents`], but no further than the id returned, if one is: beyond it not everything was looked at.
    fn documents_up_to(&self, after: Option<&DocumentId>, limit: usize) -> Result<Page, StoreError> {
        let overlay = self.inner.shared.overlay.read().unwrap_or_else(PoisonError::into_inner);
        let mut unfolded: Vec<_> =
            overlay.after(after).take(limit).map(|(id, u)| (id.clone(), u.state.clone())).collect();
        drop(overlay);
        let horizon = unfolded.last().filter(|_| unfolded.len() == limit).map(|(id, _)| id.clone());
        let damaged = &self.inner.shared.damaged;
        let enough = limit.saturating_add(damaged.len());
        let mut rows = self.inner.readers.read(|read| {
            let mut deleted = BTreeSet::new();
            for (id, _) in &unfolded {
                if life::is_deleted(read, id)? {
                    deleted.insert(id.clone());
                }
            }
            unfolded.retain(|(id, _)| !deleted.contains(id));
            read::documents_after(read, after, enough, (DocumentRow::COLUMNS, false))
        })?;
        rows.retain(|(id, _)| !damaged.contains(id) && horizon.as_ref().is_none_or(|horizon| id <= horizon));
        rows.truncate(limit);
        Ok((read::merge_documents(rows, unfolded, limit), horizon))
    }

    /// Number of documents, with those that are deleted and not purged, without those whose log was damaged.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.inner.shared.documents.load(Ordering::Relaxed)
    }

    /// Bytes of changes that are in the log only and have yet to be written into their documents.
    #[must_use]
    pub fn unfolded_bytes(&self) -> u64 {
        self.inner.shared.overlay.read().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    /// Whether commits may succeed: not after a failed sync or a damaged file, until the store is opened again.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.inner.shared.stopped.load(Ordering::Relaxed)
    }

    /// Calls back after each compaction, from the compaction thread, with the number of changes that the document's
    /// snapshot covers. One callback at a time; a later call replaces it.
    pub fn on_compacted(&self, callback: impl Fn(DocumentId, u32) + Send + Sync + 'static) {
        self.inner.backlog.on_compacted(Arc::new(callback));
    }

    /// Calls back from the compaction thread for each document that it cannot compact, with a short name of the reason.
    /// Its changes stay raw, are served so, and are tried again when there are twice as many. One callback at a time; a
    /// later call replaces it.
    pub fn on_quarantined(&self, callback: impl Fn(DocumentId, &'static str) + Send + Sync + 'static) {
        self.inner.backlog.on_quarantined(Arc::new(callback));
    }

    /// Who builds automerge documents for this store.
    #[must_use]
    pub fn loader(&self) -> Arc<dyn Loader> {
        Arc::clone(&self.inner.loader)
    }

    /// Calls back after each group of commits, from the writer thread and before their own callbacks, with every document
    /// in it and the stamp of its last change, and every document whose life record has changed and the stamp at which that
    /// was noted. Calls come in the order of the stamps. The callback must not block; a
    /// later one replaces it.
    pub fn on_committed(&self, callback: impl Fn(&[(DocumentId, Stamp)]) + Send + Sync + 'static) {
        let mut committed = self.inner.shared.committed.lock().unwrap_or_else(PoisonError::into_inner);
        *committed = Some(Arc::new(callback));
    }

    /// Calls back after each transaction of commits, from the writer thread: for metrics. The callback must not block; a
    /// later one replaces it.
    pub fn on_transacted(&self, callback: impl Fn(&Transacted) + Send + Sync + 'static) {
        let mut transacted = self.inner.shared.transacted.lock().unwrap_or_else(PoisonError::into_inner);
        *transacted = Some(Arc::new(callback));
    }

    /// Commits what waits, folds the log, moves everything into the database file and ends the threads.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`], [`StoreError::Corrupt`], [`StoreError::DiskFull`]: what was acknowledged is in the log
    /// and is folded by the next opening. [`StoreError::Closed`] if it was closed before.
    pub fn close(&self) -> Result<(), StoreError> {
        self.inner.end(End::Close)
    }

    /// Waits until the compaction thread has nothing to do: for tests and benchmarks.
    #[doc(hidden)]
    pub fn settle(&self) {
        self.inner.backlog.settle();
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.inner.readers
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn unfolded(&self, id: &DocumentId) -> Result<Option<Unfolded>, StoreError> {
        self.inner.shared.expect_sound(id)?;
        Ok(self.inner.shared.overlay.read().unwrap_or_else(PoisonError::into_inner).find(id).cloned())
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("replica", &self.inner.replica).field("documents", &self.count()).finish()
    }
}

struct Inner {
    replica: ReplicaId,
    loader: Arc<dyn Loader>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    backlog: Arc<Backlog>,
    checkpointer: Arc<Checkpointer>,
    threads: Mutex<Option<Threads>>,
    temporary: Option<PathBuf>,
}

struct Threads {
    writer: JoinHandle<Result<(), StoreError>>,
    compactor: JoinHandle<()>,
    checkpointer: JoinHandle<()>,
}

/// What the thread that writes begins with.
pub(crate) struct Beginning {
    pub home: Home,
    pub connection: Connection,
    pub log: Log,
}

impl Inner {
    fn open(
        directory: &Path,
        options: Options,
        temporary: Option<PathBuf>,
        ground: Arc<dyn Ground>,
    ) -> Result<Self, StoreError> {
        let (mut inner, beginning) = Self::recover(directory, &options, ground)?;
        inner.temporary = temporary;
        let threads = inner.spawn(beginning, options).map_err(|source| {
            // What was started ends when `inner` is dropped without its handle: tell it here.
            inner.shared.end(End::Stop);
            inner.backlog.end();
            StoreError::Io { path: directory.to_owned(), source: Arc::new(source) }
        })?;
        *inner.threads.lock().unwrap_or_else(PoisonError::into_inner) = Some(threads);
        Ok(inner)
    }

    fn recover(directory: &Path, options: &Options, ground: Arc<dyn Ground>) -> Result<(Self, Beginning), StoreError> {
        let home = Home::enter(directory, Arc::clone(&ground))?;
        let mut connection = home.open_writer(options.durable, options.pages_max)?;
        blob::forget_staged(&connection).map_err(StoreError::from_write)?;
        let replica = schema::replica_id(&connection)?;
        let Recovered { overlay, log, highest, damaged } = recover::recover(&connection)?;
        const SOUND: &str = "SELECT count(*) FROM document WHERE id NOT IN (SELECT document FROM damaged)";
        let folded: u64 = connection.query_row(SOUND, [], |row| row.get(0))?;
        let unfolded = overlay.after(None).filter(|(_, unfolded)| unfolded.key.is_none()).count() as u64;
        let clock = Clock::new(highest, options.drift_max);
        let shared = Arc::new(Shared::new(replica, overlay, clock, folded + unfolded, damaged, ground));
        shared.blob_bytes.store(blob::total(&connection)?, Ordering::Relaxed);
        let readers = Arc::new(Readers::new(home.database(), options.readers_max));
        let checkpointer = Arc::new(Checkpointer::new(options.checkpoint_pages));
        checkpointer.follow(&mut connection)?;
        let backlog = Arc::default();
        let (loader, threads) = (Arc::clone(&options.loader), Mutex::new(None));
        let inner = Self { replica, loader, shared, readers, backlog, checkpointer, threads, temporary: None };
        Ok((inner, Beginning { home, connection, log }))
    }

    fn writer(&self, connection: Connection, log: Log, options: Options) -> Writer {
        let (shared, backlog, checkpointer) = (&self.shared, &self.backlog, &self.checkpointer);
        Writer::new(shared.clone(), backlog.clone(), checkpointer.clone(), (connection, log), options)
    }

    fn spawn(&self, beginning: Beginning, options: Options) -> std::io::Result<Threads> {
        let Beginning { home, connection, log } = beginning;
        let start = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let database = home.database();
        let (shared, backlog, checkpointer) = (&self.shared, &self.backlog, &self.checkpointer);
        let writer = self.writer(connection, log, options.clone());
        let writer = start("store-writer").spawn(move || {
            // The lock is released last, when nothing here writes any more.
            let _home = home;
            writer.run()
        })?;
        let (backlog, readers, shared) = (backlog.clone(), self.readers.clone(), shared.clone());
        let compactor = start("store-compactor").spawn(move || compact::run(&backlog, &readers, &shared, &options))?;
        let checkpointer = checkpointer.clone();
        let checkpointer = start("store-checkpointer").spawn(move || {
            if let Err(error) = checkpointer.run(&database) {
                tracing::warn!(%error, "checkpoints are left to the writer");
            }
        })?;
        Ok(Threads { writer, compactor, checkpointer })
    }

    /// Ends the threads in the order in which they depend on each other.
    fn end(&self, how: End) -> Result<(), StoreError> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return Err(StoreError::Closed) };
        // A callback may drop the last clone, so this may run on one of the threads themselves.
        let join = |thread: JoinHandle<()>| {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if !is_current(thread.thread()) && thread.join().is_err() {
                tracing::error!(name, "a thread of the store panicked");
            }
        };
        self.backlog.end();
        join(threads.compactor);
        self.checkpointer.end();
        join(threads.checkpointer);
        self.shared.end(how);
        self.readers.close();
        if is_current(threads.writer.thread()) {
            return Ok(());
        }
        threads.writer.join().unwrap_or_else(|_| {
            tracing::error!("the writer thread panicked");
            Err(StoreError::Closed)
        })
    }
}

fn is_current(thread: &std::thread::Thread) -> bool {
    thread.id() == std::thread::current().id()
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.end(End::Stop);
        if let Some(directory) = &self.temporary {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_changes_stay_raw_up_to_a_number_and_a_size() {
        let tail: Vec<StoredChange> =
            (0..6).map(|_| StoredChange { stamp: Stamp::ZERO, bytes: Bytes::from_static(&[0; 10]) }).collect();
        let kept =
            |keep_changes, keep_bytes| Options { keep_changes, keep_bytes, ..Options::default() }.kept_raw(&tail);
        assert_eq!((kept(4, 1_000), kept(100, 30), kept(100, 29), kept(100, 9), kept(100, 1_000)), (4, 3, 2, 0, 6));
    }
}

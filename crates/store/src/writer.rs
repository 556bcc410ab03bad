//! The one thread that writes: groups waiting commits into transactions, and does everything else between them.
//!
//! Owns: the writing connection, the queue, the order of acknowledgements, what a failed write means for later ones.
//! Must not: acknowledge before SQLite has synced, or retry after a failed sync.
//! Next: `writer/blobs.rs`, `fold.rs`, `overlay.rs`; docs/store.md, "What is durable when".

mod blobs;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use syncline_core::clock::{Clock, Stamp};
use syncline_core::id::{DocumentId, ReplicaId};
use syncline_core::life::LifeUpdate;
use syncline_core::storage::Commit;

use crate::blob::BlobUnit;
use crate::checkpoint::Checkpointer;
use crate::compact::{Backlog, Compaction};
use crate::cover::Incoming;
use crate::error::StoreError;
use crate::fold::{Log, Round};
use crate::ground::Ground;
use crate::group::{Done, Group, LifeDone, Unit, Verdict, take_group, tell};
use crate::life::{self, Purged};
use crate::overlay::Overlay;
use crate::schema;
use crate::store::Options;
use crate::subject::{self, Subjects};

/// Called after each purge of a document, from the writer thread.
pub(crate) type OnPurged = Arc<dyn Fn(DocumentId) + Send + Sync>;

/// Told which documents were committed, and the stamp of the last change of each; and of which the life record changed,
/// and when.
pub(crate) type Committed = Arc<dyn Fn(&[(DocumentId, Stamp)]) + Send + Sync>;

/// Told of each transaction of commits, once it is durable.
pub(crate) type OnTransacted = Arc<dyn Fn(&Transacted) + Send + Sync>;

/// What became durable at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transacted {
    /// Commits with changes.
    pub commits: usize,
    /// Bytes of their changes.
    pub bytes: usize,
    /// From the beginning of the transaction until it was durable.
    pub took: Duration,
    /// What waited for the next one by then.
    pub waiting: usize,
}

/// Longest wait before another look at the wall clock, which may have been set meanwhile.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(3600);

/// Wait for a fold without which a document cannot be purged.
const PURGE_FOLD_WAIT: Duration = Duration::from_secs(1);

/// The log may grow to so many times the size at which folding starts before commits have to wait for it.
const LOG_FACTOR_MAX: usize = 4;

/// What the writer shares with the threads that call and read.
pub(crate) struct Shared {
    pub replica: ReplicaId,
    pub overlay: RwLock<Overlay>,
    pub clock: Mutex<Clock>,
    /// Documents in the store, folded or not.
    pub documents: AtomicU64,
    /// Documents that are neither read nor written, because rows of theirs in the log were damaged.
    pub damaged: BTreeSet<DocumentId>,
    pub purged: Mutex<Option<OnPurged>>,
    /// Hears of each group of commits once readers see it.
    pub committed: Mutex<Option<Committed>>,
    /// Hears of each transaction.
    pub transacted: Mutex<Option<OnTransacted>>,
    /// Bytes of all blobs.
    pub blob_bytes: AtomicU64,
    pub subjects: Subjects,
    /// Nothing is written any more.
    pub stopped: AtomicBool,
    pub ground: Arc<dyn Ground>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    units: VecDeque<Unit>,
    blobs: VecDeque<BlobUnit>,
    jobs: VecDeque<Job>,
    end: Option<End>,
}

/// Work for the compaction thread that only the writer may do.
pub(crate) enum Job {
    /// Put a snapshot in the place of the raw changes it covers.
    Install(Box<Compaction>, SyncSender<Result<bool, StoreError>>),
    /// Note that a document of this many changes could not be compacted.
    Refuse(DocumentId, u32),
}

/// How the writer ends, once the queue is empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Leave the log as it is; the next start reads it.
    Stop,
    /// Fold the log and move the write-ahead log into the database.
    Close,
}

impl Shared {
    pub(crate) fn new(
        replica: ReplicaId,
        overlay: Overlay,
        clock: Clock,
        documents: u64,
        damaged: BTreeSet<DocumentId>,
        ground: Arc<dyn Ground>,
    ) -> Self {
        Self {
            replica,
            ground,
            overlay: RwLock::new(overlay),
            clock: Mutex::new(clock),
            documents: AtomicU64::new(documents),
            damaged,
            purged: Mutex::default(),
            committed: Mutex::default(),
            transacted: Mutex::default(),
            blob_bytes: AtomicU64::new(0),
            subjects: Subjects::default(),
            stopped: AtomicBool::new(false),
            queue: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn commit(&self, commits: Vec<Commit>, done: Done) {
        let commits = commits.into_iter().map(Incoming::new).collect();
        self.enqueue(Unit::Commits { commits, done });
    }

    pub(crate) fn replace(&self, commit: Commit, done: Done) {
        self.enqueue(Unit::Replace { commit: Incoming::new(commit), done });
    }

    pub(crate) fn set_life(&self, document: DocumentId, update: LifeUpdate, done: LifeDone) {
        self.enqueue(Unit::Life { document, update, done });
    }

    pub(crate) fn enqueue(&self, unit: Unit) {
        let mut queue = self.lock_queue();
        if queue.end.is_some() {
            drop(queue);
            return unit.fail(StoreError::Closed);
        }
        queue.units.push_back(unit);
        self.wake.notify_one();
    }

    pub(crate) fn enqueue_blob(&self, unit: BlobUnit) {
        let mut queue = self.lock_queue();
        if queue.end.is_some() {
            drop(queue);
            return unit.answer(Err(StoreError::Closed));
        }
        queue.blobs.push_back(unit);
        self.wake.notify_one();
    }

    /// Refuses a document whose log was damaged.
    pub(crate) fn expect_sound(&self, id: &DocumentId) -> Result<(), StoreError> {
        if self.damaged.contains(id) {
            return Err(StoreError::Damaged { document: id.clone(), what: "rows of the log, which were set aside" });
        }
        Ok(())
    }

    /// Hands a job to the writer; it is dropped when the writer is ending.
    pub(crate) fn submit(&self, job: Job) {
        let mut queue = self.lock_queue();
        if queue.end.is_none() {
            queue.jobs.push_back(job);
            self.wake.notify_one();
        }
    }

    pub(crate) fn end(&self, end: End) {
        let mut queue = self.lock_queue();
        queue.end.get_or_insert(end);
        self.wake.notify_one();
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent between any two statements under its lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the writer thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    backlog: Arc<Backlog>,
    checkpointer: Arc<Checkpointer>,
    connection: Connection,
    options: Options,
    log: Log,
    round: Option<Round>,
    /// After a full disk: folding waits until then.
    fold_again: Option<Instant>,
    /// When the last commit was done.
    idle_since: Instant,
    /// When to look for documents to purge; `None` while nothing is deleted.
    purge_at: Option<Instant>,
    /// When to look for blobs to be removed.
    clean_at: Instant,
    /// The failure after which nothing is written any more.
    failed: Option<StoreError>,
}

enum Turn {
    Commits(Vec<Unit>),
    Job(Job),
    Fold,
    Purge,
    Blobs,
    Clean,
    End(End),
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        backlog: Arc<Backlog>,
        checkpointer: Arc<Checkpointer>,
        (connection, log): (Connection, Log),
        options: Options,
    ) -> Self {
        // A start looks once for what fell due meanwhile.
        let (idle_since, purge_at) = (Instant::now(), Some(Instant::now()));
        let (round, fold_again, failed) = (None, None, None);
        Self {
            shared,
            backlog,
            checkpointer,
            connection,
            options,
            log,
            round,
            fold_again,
            idle_since,
            purge_at,
            clean_at: Instant::now(),
            failed,
        }
    }

    /// Works until told to end, and says whether the end was clean.
    pub(crate) fn run(mut self) -> Result<(), StoreError> {
        let _exit = Exit(Arc::clone(&self.shared));
        loop {
            let turn = self.next_turn();
            self.hear_checkpointer();
            match turn {
                Turn::Fold | Turn::Purge | Turn::Clean if self.failed.is_some() => {}
                Turn::Commits(units) => self.take_turn(units),
                Turn::Job(job) => self.work(job),
                Turn::Fold => self.fold_slice(),
                Turn::Purge => {
                    self.purge();
                    self.watch_checkpoint();
                }
                Turn::Blobs => {
                    self.write_blobs();
                    self.watch_checkpoint();
                }
                Turn::Clean => {
                    self.clean();
                    self.watch_checkpoint();
                }
                Turn::End(End::Stop) => return self.failed.map_or(Ok(()), Err),
                Turn::End(End::Close) => return self.finish(),
            }
        }
    }

    /// Commits what waits, as one group, and does a slice of other work; false if nothing waits.
    pub(crate) fn commit_waiting(&mut self) -> bool {
        self.hear_checkpointer();
        let units = take_group(&mut self.shared.lock_queue().units);
        if !units.is_empty() {
            self.take_turn(units);
            return true;
        }
        self.write_blobs()
    }

    /// Folds one slice of the log, if there is any and nothing keeps it from being folded.
    pub(crate) fn fold_waiting(&mut self) -> bool {
        self.hear_checkpointer();
        let any = (self.round.is_some() || !self.log.is_empty()) && self.may_fold();
        if any {
            self.fold_slice();
        }
        any
    }

    /// Purges one slice of what is due by the wall clock; false if nothing is.
    pub(crate) fn purge_waiting(&mut self) -> bool {
        self.hear_checkpointer();
        self.failed.is_none() && self.purge()
    }

    fn take_turn(&mut self, units: Vec<Unit>) {
        self.commit(units);
        self.idle_since = Instant::now();
        self.work_beside_commits();
        self.watch_checkpoint();
    }

    fn fold_slice(&mut self) {
        self.fold();
        self.watch_checkpoint();
    }

    /// Waits for something to do. Commits go first, unless the log has outgrown its bound.
    fn next_turn(&mut self) -> Turn {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock_queue();
        loop {
            if self.log_exceeds(LOG_FACTOR_MAX) && self.may_fold() {
                return Turn::Fold;
            }
            if !queue.units.is_empty() {
                return Turn::Commits(take_group(&mut queue.units));
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Turn::Job(job);
            }
            if !queue.blobs.is_empty() {
                return Turn::Blobs;
            }
            if let Some(end) = queue.end {
                return Turn::End(end);
            }
            if self.fold_is_due() {
                return Turn::Fold;
            }
            if self.purge_is_due() {
                return Turn::Purge;
            }
            if self.clean_is_due() {
                return Turn::Clean;
            }
            let fold_at = self.idle_fold_at();
            let now = Instant::now();
            if fold_at.is_some_and(|at| at <= now) {
                return Turn::Fold;
            }
            let purge_at = self.purge_at.filter(|_| self.failed.is_none());
            let clean_at = Some(self.clean_at).filter(|_| self.failed.is_none());
            queue = match fold_at.into_iter().chain(purge_at).chain(clean_at).min() {
                None => shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(at) => shared.wake.wait_timeout(queue, at - now).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// One slice of other work after a group of commits, so that neither starves.
    fn work_beside_commits(&mut self) {
        self.write_blobs();
        if self.fold_is_due() {
            self.fold();
        } else if let Some(job) = { self.shared.lock_queue().jobs.pop_front() } {
            self.work(job);
        } else if self.purge_is_due() {
            self.purge();
        } else if self.clean_is_due() {
            self.clean();
        }
    }

    fn purge_is_due(&self) -> bool {
        self.failed.is_none() && self.purge_at.is_some_and(|at| at <= Instant::now())
    }

    /// Removes a slice of what is deleted for good; false if there is none.
    fn purge(&mut self) -> bool {
        let (shared, keep) = (Arc::clone(&self.shared), self.options.deleted_keep);
        let now_ms = shared.ground.wall_ms();
        let purging = shared.subjects.purging();
        let step =
            self.relaxed(|writer| life::purge_step(&writer.connection, &shared.overlay, &writer.log, keep, now_ms));
        let now = Instant::now();
        let any = matches!(step, Ok(Purged::Document(..) | Purged::Pieces));
        match step {
            Ok(Purged::Document(document, existed, given_back)) => {
                purging.give_back(given_back);
                shared.documents.fetch_sub(u64::from(existed), Ordering::Relaxed);
                let callback = shared.purged.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(callback) = callback {
                    tell(|| callback(document));
                }
            }
            Ok(Purged::Pieces) => {}
            Ok(Purged::Unfolded) => self.purge_at = Some(now + PURGE_FOLD_WAIT.min(self.options.fold_idle)),
            Ok(Purged::Nothing(due_ms)) => {
                let wait = |due_ms: u64| Duration::from_millis(due_ms.saturating_sub(now_ms)).min(PURGE_WAIT_MAX);
                self.purge_at = due_ms.map(|due_ms| now + wait(due_ms));
            }
            Err(error) => {
                let error = self.note_failure(error);
                self.purge_at = Some(now + self.options.fold_retry);
                tracing::warn!(%error, "deleted documents could not be purged; it is tried again");
            }
        }
        any
    }

    /// When to fold because nothing is committed.
    fn idle_fold_at(&self) -> Option<Instant> {
        let idle = self.idle_since + self.options.fold_idle;
        let at = self.fold_again.map_or(idle, |again| again.max(idle));
        (!self.log.is_empty() && self.failed.is_none()).then_some(at)
    }

    fn log_exceeds(&self, factor: usize) -> bool {
        self.log.rows >= self.options.fold_rows.saturating_mul(factor)
            || self.log.bytes >= self.options.fold_bytes.saturating_mul(factor)
    }

    fn fold_is_due(&self) -> bool {
        (self.round.is_some() || self.log_exceeds(1)) && self.may_fold()
    }

    fn may_fold(&self) -> bool {
        self.failed.is_none() && self.fold_again.is_none_or(|at| at <= Instant::now())
    }

    /// Commits a group of units in one transaction, then tells each how it went, in order.
    fn commit(&mut self, units: Vec<Unit>) {
        let began = Instant::now();
        let outcome = match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => self.write(&units).map_err(|error| self.note_failure(error)),
        };
        match outcome {
            Ok((verdicts, group)) => {
                self.tell_transacted(&group, began.elapsed());
                self.publish(group);
                for (unit, verdict) in units.into_iter().zip(verdicts) {
                    unit.succeed(verdict);
                }
            }
            Err(error) => units.into_iter().for_each(|unit| unit.fail(error.clone())),
        }
    }

    fn tell_transacted(&self, group: &Group, took: Duration) {
        let listener = self.shared.transacted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            let waiting = self.shared.lock_queue().units.len();
            listener(&Transacted { commits: group.rows, bytes: group.bytes, took, waiting });
        }
    }

    fn write(&mut self, units: &[Unit]) -> rusqlite::Result<(Vec<Verdict>, Group)> {
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut group =
            Group { wall_ms: self.shared.ground.wall_ms(), next_seq: self.log.next_seq, ..Group::default() };
        let mut verdicts = Vec::with_capacity(units.len());
        let replaces = units.iter().any(|unit| matches!(unit, Unit::Replace { .. }));
        let purging = replaces.then(|| self.shared.subjects.purging());
        for unit in units {
            verdicts.push(match unit {
                Unit::Commits { commits, .. } => {
                    let verdict = group.check(&transaction, &self.shared, commits)?;
                    if verdict.is_ok() {
                        group.append(&transaction, &self.shared, commits)?;
                    }
                    Verdict::Commits(verdict)
                }
                Unit::Replace { commit, .. } => {
                    group.replace(&transaction, &self.shared, &self.log, commit).map(Verdict::Commits)?
                }
                Unit::Note { note, .. } => {
                    note.write(&transaction)?;
                    Verdict::Commits(Ok(()))
                }
                Unit::Life { document, update, .. } => {
                    group.set_life(&transaction, &self.shared, document, *update).map(Verdict::Life)?
                }
            });
        }
        subject::write(&transaction, &group.contributions)?;
        transaction.commit()?;
        if let Some(purging) = purging {
            purging.give_back(std::mem::take(&mut group.given_back));
        }
        // Whoever shares the file and met a failed sync meanwhile may have lost what this commit's pages stand on.
        self.checkpointer.expect_sound()?;
        Ok((verdicts, group))
    }

    /// Lets readers see what has become durable.
    fn publish(&mut self, group: Group) {
        let mut overlay = self.shared.overlay.write().unwrap_or_else(PoisonError::into_inner);
        let mut created = 0;
        if let Some((id, existed)) = &group.replaced {
            overlay.remove(id);
            self.shared.documents.fetch_sub(u64::from(*existed), Ordering::Relaxed);
            self.purge_at = Some(Instant::now());
        }
        let mut committed = group.lives;
        for (id, pending) in group.documents {
            if pending.rows.is_empty() {
                continue;
            }
            created += u64::from(pending.base.changes == 0);
            committed.extend(pending.rows.last().map(|last| (id.clone(), last.last_stamp)));
            overlay.add(id, &pending.base, pending.rows);
        }
        drop(overlay);
        if group.deleted {
            let keep = Instant::now() + self.options.deleted_keep.min(PURGE_WAIT_MAX);
            self.purge_at = Some(self.purge_at.map_or(keep, |at| at.min(keep)));
        }
        self.shared.documents.fetch_add(created, Ordering::Relaxed);
        self.log.grow(group.next_seq, group.rows, group.bytes);
        let listener = self.shared.committed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            listener(&committed);
        }
    }

    fn fold(&mut self) {
        let shared = Arc::clone(&self.shared);
        let round = match self.round.take() {
            Some(round) => round,
            None => Round::begin(&shared.overlay, &self.log),
        };
        let highest = shared.clock.lock().unwrap_or_else(PoisonError::into_inner).highest();
        match self.relaxed(|writer| round.step(&writer.connection, &shared.overlay, highest, &writer.options)) {
            Ok(step) => {
                self.round = step.rest;
                self.log.shrink(step.deleted_rows, step.deleted_bytes);
                self.backlog.add(step.ripe);
            }
            Err(error) => {
                let error = self.note_failure(error);
                self.fold_again = Some(Instant::now() + self.options.fold_retry);
                tracing::warn!(%error, "the log could not be folded; it stays and is tried again");
            }
        }
    }

    fn watch_checkpoint(&mut self) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.checkpointer.watch(&self.connection) {
            let error = self.note_failure(error);
            tracing::warn!(%error, "the write-ahead log could not be moved into the database");
        }
    }

    /// Asks what the checkpoint thread met since the last turn: whatever is written or moved after a sync of it has failed would
    /// be synced with what did not reach the disk, and that succeeds.
    fn hear_checkpointer(&mut self) {
        if let Err(error) = self.checkpointer.expect_sound() {
            self.note_failure(error);
        }
    }

    pub(crate) fn work(&mut self, job: Job) {
        self.hear_checkpointer();
        if self.failed.is_some() {
            return;
        }
        match job {
            Job::Install(compaction, reply) => {
                let installed = self.relaxed(|writer| compaction.install(&writer.connection));
                let installed = installed.map_err(|error| self.note_failure(error));
                // The compaction thread may have been told to stop meanwhile.
                let _ = reply.send(installed);
            }
            Job::Refuse(document, changes) => {
                const SQL: &str = "UPDATE document SET refused_changes = ?2 WHERE id = ?1";
                let noted = self.connection.execute(SQL, (document.as_bytes(), changes));
                if let Err(error) = noted {
                    let error = self.note_failure(error);
                    tracing::warn!(%error, %document, "a failed compaction could not be noted");
                }
            }
        }
    }

    /// Runs a transaction without waiting for the disk: the log that it makes superfluous is still there if it is lost.
    ///
    /// The write-ahead log keeps transactions in order, so nothing later can survive without it.
    fn relaxed<T>(&mut self, write: impl FnOnce(&Self) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        if !self.options.durable {
            return write(self);
        }
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        let result = write(self);
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        result
    }

    /// Decides what a failed write means. The transaction has been rolled back when it was dropped.
    fn note_failure(&mut self, error: rusqlite::Error) -> StoreError {
        let failure = if self.connection.is_autocommit() {
            StoreError::from_write(error)
        } else {
            StoreError::Poisoned { source: Arc::new(error) }
        };
        if failure.ends_writing() {
            tracing::error!(error = %failure, "the store stops writing");
            self.failed.get_or_insert(failure.clone());
            self.shared.stopped.store(true, Ordering::Relaxed);
            // A checkpoint syncs the log again, and that would succeed without anything of it being on the disk.
            self.checkpointer.end();
            self.round = None;
        }
        failure
    }

    /// Folds everything and moves it into the database file.
    pub(crate) fn finish(mut self) -> Result<(), StoreError> {
        self.fold_again = None;
        self.hear_checkpointer();
        while !self.log.is_empty() && self.may_fold() {
            self.fold();
        }
        self.hear_checkpointer();
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let highest = self.shared.clock.lock().unwrap_or_else(PoisonError::into_inner).highest();
        schema::write_highest_stamp(&self.connection, highest).map_err(StoreError::from_write)?;
        let checkpoint = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        checkpoint.map_err(StoreError::from_write)
    }
}

/// Answers whoever still waits when the writer ends, also by a panic.
struct Exit(Arc<Shared>);

impl Drop for Exit {
    fn drop(&mut self) {
        self.0.end(End::Stop);
        let mut queue = self.0.lock_queue();
        let units = std::mem::take(&mut queue.units);
        let blobs = std::mem::take(&mut queue.blobs);
        queue.jobs.clear();
        drop(queue);
        blobs.into_iter().for_each(|unit| unit.answer(Err(StoreError::Closed)));
        units.into_iter().for_each(|unit| unit.fail(StoreError::Closed));
    }
}

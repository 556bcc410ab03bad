//! Checkpoints: moving SQLite's write-ahead log into the database file while commits go on.
//!
//! Owns: when that happens, the thread that does the bulk of it, the short rest that only the writer can do.
//! Must not: let a commit wait for more than that rest. Next: `writer.rs`; docs/store.md, "Checkpoints".
//!
//! The log can start over only when all of it has been moved at a moment in which nobody writes. So another thread
//! moves what is there while the writer goes on, and the writer moves the little that has come since.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::error::StoreError;
use crate::schema::{self, Database};

/// So much of the log that is moved at a time, the writer moves itself, so that the log starts over: a quarter.
const REST_DIVISOR: u32 = 4;

/// At so many times the size from which on it is moved, the writer moves the log whatever it takes.
const FACTOR_MAX: u32 = 8;

/// The checkpoint thread's orders.
pub(crate) struct Checkpointer {
    /// Pages in the log from which on it is moved.
    pages_min: u32,
    state: Mutex<State>,
    wake: Condvar,
    /// Pages in the log after the writer's last transaction, as SQLite tells.
    pages: Arc<AtomicU32>,
}

#[derive(Default)]
struct State {
    asked: bool,
    ended: bool,
    /// Why the thread has given up, until the writer has heard of it.
    failed: Option<rusqlite::Error>,
}

impl Checkpointer {
    pub(crate) fn new(pages_min: u32) -> Self {
        Self { pages_min, state: Mutex::default(), wake: Condvar::new(), pages: Arc::default() }
    }

    /// Follows the size of the log: asking for it after each transaction would cost as much as a small commit's SQL.
    pub(crate) fn follow(&self, writer: &mut Connection) -> rusqlite::Result<()> {
        let pages = Arc::clone(&self.pages);
        writer.wal_hook(Some(move |_: &mut Wal, in_log: c_int| {
            pages.store(u32::try_from(in_log).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Called by the writer after each transaction.
    ///
    /// # Errors
    /// Also when the thread met an error, since after a failed sync nothing that shares the file may go on.
    pub(crate) fn watch(&self, writer: &Connection) -> rusqlite::Result<()> {
        self.expect_sound()?;
        if self.pages.load(Ordering::Relaxed) < self.pages_min {
            return Ok(());
        }
        let (log, moved) = checkpoint(writer, "NOOP")?;
        if moved == log {
            return Ok(());
        }
        let asked = self.lock().asked;
        let rest = self.pages_min / REST_DIVISOR;
        if log >= self.pages_min.saturating_mul(FACTOR_MAX) || (!asked && log - moved <= rest) {
            checkpoint(writer, "PASSIVE")?;
        } else if !asked {
            self.lock().asked = true;
            self.wake.notify_all();
        }
        Ok(())
    }

    /// Tells the writer of an error that the thread met, once.
    pub(crate) fn expect_sound(&self) -> rusqlite::Result<()> {
        self.lock().failed.take().map_or(Ok(()), Err)
    }

    /// Nothing is moved from here on, except what is being moved.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.wake.notify_all();
    }

    /// The thread: one checkpoint for each order, until told to end.
    pub(crate) fn run(&self, database: &Database) -> Result<(), StoreError> {
        let connection = schema::open_checkpointer(database)?;
        loop {
            let mut state = self.lock();
            while !state.asked && !state.ended {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.ended {
                return Ok(());
            }
            drop(state);
            self.obey(&connection);
        }
    }

    /// Whether the writer has asked for a checkpoint.
    pub(crate) fn is_asked(&self) -> bool {
        let state = self.lock();
        state.asked && !state.ended
    }

    /// Does what was asked for.
    pub(crate) fn obey(&self, connection: &Connection) {
        let failed = checkpoint(connection, "PASSIVE").err();
        let mut state = self.lock();
        state.failed = failed;
        state.asked = false;
    }

    /// As if the thread had met this.
    #[cfg(test)]
    pub(crate) fn fail(&self, failed: rusqlite::Error) {
        self.lock().failed = Some(failed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a checkpoint; the pages in the log, and how many of them have been moved. A busy one moves what it can.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<(u32, u32)> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    let (log, moved) = statement.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    Ok((u32::try_from(log).unwrap_or(0), u32::try_from(moved).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From here on the log of the test is moved: its quarter is 4 pages, and it is the writer's at 128.
    const PAGES_MIN: u32 = 16;

    /// A database in a directory of its own, whose writer tells the checkpointer of each transaction.
    struct Sample {
        directory: tempfile::TempDir,
        writer: Connection,
        checkpointer: Checkpointer,
    }

    impl Sample {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let mut writer = Connection::open(directory.path().join("log.db")).expect("a new file");
            const BEGIN: &str =
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE data (bytes BLOB)";
            writer.execute_batch(BEGIN).expect("an empty database");
            let checkpointer = Checkpointer::new(PAGES_MIN);
            checkpointer.follow(&mut writer).expect("nobody else follows");
            Self { directory, writer, checkpointer }
        }

        fn connect(&self) -> Connection {
            Connection::open(self.directory.path().join("log.db")).expect("the file is there")
        }

        /// Commits so many pages and a few.
        fn commit(&self, pages: u32) {
            self.writer.execute("INSERT INTO data VALUES (zeroblob(?1))", [pages * 4096]).expect("room on the disk");
            self.checkpointer.watch(&self.writer).expect("a sound disk");
        }

        /// Pages in the log, and how many of them have been moved.
        fn log(&self) -> (u32, u32) {
            checkpoint(&self.writer, "NOOP").expect("a sound disk")
        }
    }

    #[test]
    fn a_short_log_is_left_alone_and_the_bulk_of_a_long_one_is_the_threads() {
        let sample = Sample::new();
        sample.commit(4);
        assert!(!sample.checkpointer.is_asked());
        sample.commit(PAGES_MIN);
        assert!(sample.checkpointer.is_asked());
        assert_eq!(sample.log().1, 0, "the writer has moved nothing");
        sample.checkpointer.obey(&sample.connect());
        let (pages, moved) = sample.log();
        assert!(pages > PAGES_MIN && moved == pages, "{moved} of {pages}");
        assert!(!sample.checkpointer.is_asked());
    }

    #[test]
    fn the_writer_moves_the_rest_that_came_while_the_thread_was_at_it() {
        let sample = Sample::new();
        sample.commit(PAGES_MIN);
        // Nothing is moved beyond what a reader sees: what comes now, comes while the thread moves the bulk.
        let reader = sample.connect();
        reader.execute_batch("BEGIN; SELECT count(*) FROM data").expect("a table");
        sample.commit(1);
        sample.checkpointer.obey(&sample.connect());
        let (pages, moved) = sample.log();
        assert!(moved > 0 && moved < pages && pages - moved <= PAGES_MIN / REST_DIVISOR, "{moved} of {pages}");
        drop(reader);
        sample.checkpointer.watch(&sample.writer).expect("a sound disk");
        assert!(!sample.checkpointer.is_asked(), "it is no work for the thread");
        assert_eq!(sample.log(), (pages, pages));
    }

    #[test]
    fn a_log_that_grows_faster_than_the_thread_moves_it_is_moved_by_the_writer() {
        let sample = Sample::new();
        sample.commit(PAGES_MIN * (FACTOR_MAX - 1));
        assert!(sample.checkpointer.is_asked());
        assert_eq!(sample.log().1, 0);
        sample.commit(PAGES_MIN);
        let (pages, moved) = sample.log();
        assert!(pages >= PAGES_MIN * FACTOR_MAX && moved == pages, "{moved} of {pages}");
    }
}

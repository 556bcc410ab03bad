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

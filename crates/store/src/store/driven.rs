//! A store without threads of its own: whoever holds it decides what happens next.
//!
//! Owns: taking the turns of the store's threads, one at a time, on the caller's. For simulations, in which equal seeds
//! have to give equal runs. Must not: do anything that the threads do not do.
//! Next: `../writer.rs`, `../compact.rs`, `../checkpoint.rs`; docs/simulator.md.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use syncline_core::id::DocumentId;

use super::{Beginning, Inner, Options, Store};
use crate::compact;
use crate::error::StoreError;
use crate::ground::Ground;
use crate::schema::{self, Home};
use crate::writer::Writer;

/// An open store that does nothing by itself. Dropping it leaves the files as a process does that dies.
pub struct Driven {
    store: Store,
    writer: Writer,
    options: Options,
    checkpoints: Option<Connection>,
    // Dropped last, as a store's lock is.
    home: Home,
}

impl Driven {
    /// Opens the store in this directory.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(directory: &Path, options: Options, ground: Arc<dyn Ground>) -> Result<Self, StoreError> {
        let (inner, Beginning { home, connection, log }) = Inner::recover(directory, &options, ground)?;
        let writer = inner.writer(connection, log, options.clone());
        Ok(Self { store: Store { inner: Arc::new(inner) }, writer, options, checkpoints: None, home })
    }

    /// The store, to read from and to commit to. Commits wait for [`Driven::commit`].
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The writer's turn: commits what waits as one group, and does a slice of folding if that is due. False if nothing
    /// waited.
    pub fn commit(&mut self) -> bool {
        self.writer.commit_waiting()
    }

    /// The writer's turn when it has been idle: folds one slice of the log. False if there is nothing to fold.
    pub fn fold(&mut self) -> bool {
        self.writer.fold_waiting()
    }

    /// The writer's turn when a deleted document's time has come: removes a slice of it. False if there is none.
    pub fn purge(&mut self) -> bool {
        self.writer.purge_waiting()
    }

    /// The writer's turn when blobs are to be removed: a slice of them. False if there are none, or none were by when it
    /// last looked.
    pub fn clean(&mut self) -> bool {
        self.writer.clean_waiting()
    }

    /// The compactor's turn: one document that waits for it; with it, how many changes its snapshot covers, if it has a
    /// new one.
    pub fn compact(&mut self) -> Option<(DocumentId, Option<u32>)> {
        let inner = &self.store.inner;
        let document = inner.backlog.take().or_else(|| {
            let ripe = inner.readers.read(|read| compact::ripe_documents(read, &self.options)).ok()?;
            inner.backlog.add(ripe);
            inner.backlog.take()
        })?;
        let covered =
            compact::compact(&document, (&inner.backlog, &inner.readers), &self.options, |job| self.writer.work(job));
        Some((document, covered))
    }

    /// The checkpointer's turn; false if the writer has not asked for one. The writer hears at its next turn how it went.
    pub fn checkpoint(&mut self) -> bool {
        let checkpointer = &self.store.inner.checkpointer;
        if !checkpointer.is_asked() {
            return false;
        }
        if self.checkpoints.is_none() {
            self.checkpoints = schema::open_checkpointer(&self.home.database()).ok();
        }
        if let Some(connection) = &self.checkpoints {
            checkpointer.obey(connection);
        }
        true
    }

    /// Closes the store as [`Store::close`] does.
    ///
    /// # Errors
    /// As [`Store::close`].
    pub fn close(self) -> Result<(), StoreError> {
        let Self { store, writer, checkpoints, home, .. } = self;
        drop(checkpoints);
        store.inner.readers.close();
        let closed = writer.finish();
        drop(home);
        closed
    }
}

impl std::fmt::Debug for Driven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driven").field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::System;
    use syncline_core::life::LifeUpdate;

    // It would be synced together with what the thread's sync has lost, and that succeeds.
    #[test]
    fn nothing_is_written_after_the_checkpoint_thread_has_failed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = || std::fs::metadata(directory.path().join("syncline.db-wal")).map_or(0, |log| log.len());
        let options = Options::default();
        let mut driven = Driven::open(directory.path(), options, Arc::new(System)).expect("a healthy disk");
        let mut decide = |fails: bool| {
            let (tell, told) = std::sync::mpsc::channel();
            let document = DocumentId::from_bytes(&[u8::from(fails); 16]).expect("not too long");
            let done = Box::new(move |outcome| tell.send(outcome).expect("it is waited for"));
            driven.store.set_life(document, LifeUpdate::Own { deleted: true }, done);
            if fails {
                let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
                driven.store.inner.checkpointer.fail(rusqlite::Error::SqliteFailure(failure, None));
            }
            let before = log();
            driven.commit();
            (told.recv().expect("it is answered"), log() > before)
        };
        assert!(matches!(decide(false), (Ok(_), true)));
        assert!(matches!(decide(true), (Err(StoreError::Poisoned { .. }), false)));
    }

    // The checkpoint thread's last sync may fail after the last commit: then the end is the first to hear of it.
    #[test]
    fn a_close_moves_nothing_after_the_checkpoint_thread_has_failed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for fails in [false, true] {
            let driven = Driven::open(directory.path(), Options::default(), Arc::new(System)).expect("a healthy disk");
            let connection = schema::open_checkpointer(&driven.home.database()).expect("a healthy disk");
            connection.execute("INSERT INTO meta VALUES (?1, x'00')", [fails]).expect("a healthy disk");
            drop(connection);
            let log = || std::fs::metadata(directory.path().join("syncline.db-wal")).map_or(0, |log| log.len());
            let before = log();
            assert!(before > 0, "something waits to be moved");
            if fails {
                let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
                driven.store.inner.checkpointer.fail(rusqlite::Error::SqliteFailure(failure, None));
                let closed = driven.close();
                assert!(matches!(closed, Err(StoreError::Poisoned { .. })), "{closed:?}");
                assert_eq!(log(), before, "the log was moved and emptied");
            } else {
                driven.close().expect("a healthy disk");
                assert_eq!(log(), 0);
            }
        }
    }
}

//! Copies of a store while it is in use, and stores made of copies.
//!
//! Owns: a copy that is whole or not there. Must not: stop whoever uses the store, or overwrite anything.
//! Next: `check.rs`; docs/store.md, "Backup".

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::check::{CheckReport, check};
use crate::error::StoreError;
use crate::ground::System;
use crate::schema::{self, Home};

/// Pages copied between two reports of progress: 4 MiB of them.
const PAGES: i32 = 1_024;

/// Between two tries for a lock that a checkpoint holds for a moment.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Pages that are copied.
    pub done: u64,
    /// Pages in all.
    pub pages: u64,
}

/// Copies the store in this directory to a file, whether it is in use or not. The copy has everything that was durable when
/// this began. It is verified before it gets its name.
///
/// # Errors
/// [`StoreError::Io`] when the file is there already or cannot be written; all of [`check()`];
/// [`StoreError::FaultyCopy`].
pub fn backup(directory: &Path, to: &Path, progress: impl FnMut(Progress)) -> Result<CheckReport, StoreError> {
    let source = schema::open_for_check(directory, Arc::new(System))?.connection;
    copy(&source, to, progress)
}

/// Makes a store in a new directory of a backup, which stays as it is.
///
/// # Errors
/// [`StoreError::Io`] when there is a store in the directory already; all of [`backup`].
pub fn restore(backup: &Path, directory: &Path, progress: impl FnMut(Progress)) -> Result<CheckReport, StoreError> {
    fs::create_dir_all(directory).map_err(|error| io_error(directory, error))?;
    let to = schema::database_in(directory);
    let source = schema::open_file_for_check(backup, Arc::new(System))?.connection;
    copy(&source, &to, progress)
}

/// Gives back the room that removed and rewritten rows leave in the file. The store must not be in use.
///
/// # Errors
/// [`StoreError::InUse`]; all of opening a store; [`StoreError::DiskFull`]: it needs as much room again for a while.
pub fn vacuum(directory: &Path) -> Result<(), StoreError> {
    let home = Home::enter(directory, Arc::new(System))?;
    let connection = home.open_writer(true, None)?;
    connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").map_err(StoreError::from_write)
}

fn copy(source: &Connection, to: &Path, mut progress: impl FnMut(Progress)) -> Result<CheckReport, StoreError> {
    if to.exists() {
        return Err(io_error(to, io::ErrorKind::AlreadyExists.into()));
    }
    // A directory of its own, so that the check finds it as it finds any store.
    let building = beside(to, ".partial");
    let _ = fs::remove_dir_all(&building);
    fs::create_dir_all(&building).map_err(|error| io_error(&building, error))?;
    let partial = schema::database_in(&building);
    let copied = copy_pages(source, &partial, &mut progress).and_then(|()| verified(&building));
    let copied = copied.and_then(|report| {
        File::open(&partial).and_then(|file| file.sync_all()).map_err(|error| io_error(&partial, error))?;
        fs::hard_link(&partial, to).map_err(|error| io_error(to, error))?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| io_error(parent, error))?;
        Ok(report)
    });
    let _ = fs::remove_dir_all(&building);
    copied
}

/// One state of the source, however long it takes.
fn copy_pages(source: &Connection, to: &Path, progress: &mut impl FnMut(Progress)) -> Result<(), StoreError> {
    OpenOptions::new().write(true).create_new(true).open(to).map_err(|error| io_error(to, error))?;
    let mut target = Connection::open(to).map_err(StoreError::from_write)?;
    // Reading in it begins the transaction whose state is copied: what is committed meanwhile does not begin it again.
    let reading = source.unchecked_transaction()?;
    reading.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0))?;
    {
        let copying = Backup::new(&reading, &mut target).map_err(StoreError::from_write)?;
        loop {
            let step = copying.step(PAGES).map_err(StoreError::from_write)?;
            let state = copying.progress();
            let pages = u64::try_from(state.pagecount).unwrap_or(0);
            progress(Progress { done: pages.saturating_sub(u64::try_from(state.remaining).unwrap_or(0)), pages });
            if step == StepResult::Done {
                break;
            }
            if step != StepResult::More {
                std::thread::sleep(LOCK_RETRY);
            }
        }
    }
    // One file is the backup: no log beside it.
    target.pragma_update(None, "journal_mode", "DELETE").map_err(StoreError::from_write)?;
    target.close().map_err(|(_, error)| StoreError::from_write(error))
}

fn verified(directory: &Path) -> Result<CheckReport, StoreError> {
    let report = check(directory)?;
    if report.is_clean() {
        return Ok(report);
    }
    for fault in &report.listed {
        tracing::error!("the copy has a fault: {fault}");
    }
    Err(StoreError::FaultyCopy { faults: report.faults })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source: Arc::new(source) }
}

//! What a store stands on: a file system and a wall clock.
//!
//! Owns: every call to the system that does not go through SQLite. Must not: know what is in a file.
//! Next: `schema.rs`, the one user of the files; `driven.rs` for simulations, which bring a ground of their own.

use std::any::Any;
use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use syncline_core::id::ReplicaId;

/// Bytes that are written anew at a time.
const RENEW_BYTES: usize = 1024 * 1024;

/// The files and the clock under a store. Everything that does not go through SQLite goes through this.
pub trait Ground: Debug + Send + Sync {
    /// The name of SQLite's file system that reaches the same files; SQLite's own default if there is none.
    fn vfs(&self) -> Option<&str> {
        None
    }

    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> u64;

    /// The identity of a store that is created here; drawn at random if there is none.
    fn replica(&self) -> Option<ReplicaId> {
        None
    }

    /// Makes a directory, and those above it, unless it is there.
    ///
    /// # Errors
    /// What the system reports.
    fn make_directory(&self, directory: &Path) -> io::Result<()>;

    /// Makes a file and keeps other processes out while the value lives.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else has it.
    fn lock(&self, path: &Path) -> Result<Box<dyn Any + Send + Sync>, TryLockError>;

    /// Whether there is a file of this name.
    fn exists(&self, path: &Path) -> bool;

    /// Reads the first bytes of a file, as many as it has and fit.
    ///
    /// # Errors
    /// `NotFound`, or what the system reports.
    fn read_start(&self, path: &Path, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes the bytes of a file again, the same at the same place, and syncs them.
    ///
    /// # Errors
    /// `NotFound`, or what the system reports.
    fn renew(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system reports.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The system's own files and clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Ground for System {
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Any + Send + Sync>, TryLockError> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let lock = lock.map_err(TryLockError::Error)?;
        lock.try_lock()?;
        Ok(Box::new(lock))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn read_start(&self, path: &Path, bytes: &mut [u8]) -> io::Result<usize> {
        let mut file = File::open(path)?;
        let mut read = 0;
        while read < bytes.len() {
            match file.read(&mut bytes[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn renew(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut piece = vec![0; RENEW_BYTES];
        let mut at = 0;
        loop {
            file.seek(SeekFrom::Start(at))?;
            let read = file.read(&mut piece)?;
            if read == 0 {
                return file.sync_all();
            }
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&piece[..read])?;
            at += read as u64;
        }
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
    }
}

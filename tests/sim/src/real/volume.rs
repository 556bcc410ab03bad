//! One power-on of a machine's disk: the files that a store sees, through SQLite and beside it.
//!
//! Owns: the way from a path to a file of the disk, the store's ground, the wall clock that it shows.
//! Must not: decide what fails; `syncline-disk` does what it was told. Next: `vfs.rs`.
//!
//! A path is `/<number>/data/<name>`: numbers are never used twice in a process, so what a dead store still holds open
//! leads nowhere.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use syncline_core::id::ReplicaId;
use syncline_disk::tree::{Inode, ROOT};
use syncline_disk::{Cut, Disk, Failure, Image, Operation, Tree};
use syncline_store::ground::Ground;

use super::vfs::{self, Held};

static VOLUMES: Mutex<BTreeMap<u64, Weak<Volume>>> = Mutex::new(BTreeMap::new());

/// What a path names.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) parent: Inode,
    pub(crate) name: String,
    /// The file or directory, if there is one.
    pub(crate) inode: Option<Inode>,
}

/// The files of one machine while it has power.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) disk: Disk,
    number: u64,
    place: String,
    wall_ms: AtomicU64,
    /// Of a store that is created on it.
    replica: ReplicaId,
    held: Mutex<BTreeMap<Inode, Held>>,
    /// Somebody else has the files.
    passed_on: AtomicBool,
}

impl Volume {
    /// A disk with these files, all of them durable.
    pub(crate) fn new(disk: &Disk, files: &Image, replica: ReplicaId) -> Arc<Self> {
        Self::at(disk, disk.place(files), replica)
    }

    /// The same files, for another process: what the last one did not sync is still to be synced.
    pub(crate) fn passed_on(&self) -> Arc<Self> {
        self.passed_on.store(true, Ordering::Relaxed);
        Self::at(&self.disk, self.place.clone(), self.replica)
    }

    fn at(disk: &Disk, place: String, replica: ReplicaId) -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (wall_ms, held, passed_on) = (AtomicU64::new(0), Mutex::default(), AtomicBool::new(false));
        let volume = Arc::new(Self { disk: disk.clone(), number, place, wall_ms, replica, held, passed_on });
        volumes().insert(number, Arc::downgrade(&volume));
        volume
    }

    /// The volume that a path is on, and what the path names there.
    pub(crate) fn of(path: &str) -> Option<(Arc<Self>, Named)> {
        let number = path.strip_prefix('/')?.split('/').next()?.parse().ok()?;
        let volume = volumes().get(&number)?.upgrade()?;
        let named = volume.find(Path::new(path))?;
        Some((volume, named))
    }

    /// The store's directory.
    pub(crate) fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/{}/data", self.number))
    }

    pub(crate) fn set_wall_ms(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::Relaxed);
    }

    /// What a power cut would leave.
    pub(crate) fn image(&self, cut: Cut) -> Image {
        self.disk.image(&self.place, cut)
    }

    /// The files are gone for whoever still has them open.
    pub(crate) fn pull_out(&self) {
        self.disk.remove(&self.place);
    }

    /// Damages one bit of a file; false if there is no such file.
    pub(crate) fn rot(&self, name: &str, at: u64, bit: u8) -> bool {
        self.disk.rot(&self.place, &["data", name], at, bit)
    }

    /// Locks and shared memory by file, as the system keeps them for SQLite.
    pub(crate) fn held(&self) -> MutexGuard<'_, BTreeMap<Inode, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, path: &Path) -> Option<Named> {
        let mut words = path.to_str()?.strip_prefix('/')?.split('/').skip(1).peekable();
        self.disk.look(|tree| {
            let mut parent = tree.lookup(ROOT, &self.place)?;
            loop {
                let name = words.next()?;
                let inode = tree.lookup(parent, name);
                if words.peek().is_none() {
                    return Some(Named { parent, name: name.to_owned(), inode });
                }
                parent = inode?;
            }
        })
    }

    fn expect(&self, path: &Path) -> io::Result<Inode> {
        self.find(path).and_then(|named| named.inode).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn length(&self, inode: Inode) -> usize {
        self.disk.look(|tree: &Tree| tree.contents(inode).map_or(0, <[u8]>::len))
    }
}

impl Ground for Volume {
    fn vfs(&self) -> Option<&str> {
        Some(vfs::registered())
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn replica(&self) -> Option<ReplicaId> {
        Some(self.replica)
    }

    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        let named = self.find(directory).ok_or(ErrorKind::NotFound)?;
        if named.inode.is_some() {
            return Ok(());
        }
        let Named { parent, name, .. } = named;
        self.disk.run(Operation::MakeDirectory { parent, name, inode: self.disk.new_inode() }).map_err(as_io)?;
        Ok(())
    }

    /// Nobody else can have a simulated disk.
    fn lock(&self, path: &Path) -> Result<Box<dyn Any + Send + Sync>, TryLockError> {
        let named = self.find(path).ok_or_else(|| TryLockError::Error(ErrorKind::NotFound.into()))?;
        if let Named { parent, name, inode: None } = named {
            let made = self.disk.run(Operation::Create { parent, name, inode: self.disk.new_inode() });
            made.map_err(|failure| TryLockError::Error(as_io(failure)))?;
        }
        Ok(Box::new(()))
    }

    fn exists(&self, path: &Path) -> bool {
        self.expect(path).is_ok()
    }

    fn read_start(&self, path: &Path, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.disk.read(self.expect(path)?, 0, bytes.len()).map_err(as_io)?;
        bytes[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }

    fn renew(&self, path: &Path) -> io::Result<()> {
        let inode = self.expect(path)?;
        let data = self.disk.read(inode, 0, self.length(inode)).map_err(as_io)?;
        let asked = data.len();
        if self.disk.run(Operation::Write { inode, at: 0, data }).map_err(as_io)? < asked {
            return Err(ErrorKind::WriteZero.into());
        }
        self.disk.run(Operation::Sync { inode }).map_err(as_io)?;
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        // The directory above the store's own is the volume's, whose name the simulation keeps.
        let inode = match self.find(directory) {
            Some(named) => named.inode.ok_or(ErrorKind::NotFound)?,
            None => self.disk.look(|tree| tree.lookup(ROOT, &self.place)).ok_or(ErrorKind::NotFound)?,
        };
        self.disk.run(Operation::SyncDirectory { inode }).map_err(as_io)?;
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        volumes().remove(&self.number);
        if !self.passed_on.load(Ordering::Relaxed) {
            self.pull_out();
        }
    }
}

fn volumes() -> MutexGuard<'static, BTreeMap<u64, Weak<Volume>>> {
    VOLUMES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn as_io(failure: Failure) -> io::Error {
    match failure {
        Failure::Io => io::Error::other("input/output error"),
        Failure::Full => ErrorKind::StorageFull.into(),
        Failure::Missing => ErrorKind::NotFound.into(),
    }
}

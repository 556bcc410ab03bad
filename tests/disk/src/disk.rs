//! A disk that fails where it is told to, and counts.
//!
//! Owns: the faults in waiting, what has fired, the room that is left, the record of operations.
//! Must not: decide by itself when to fail. Next: `tree.rs`, `mount.rs`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tree::{Cut, Image, Inode, Operation, ROOT, Tree};

/// How far apart the places are to which a write can go astray.
const PAGE_BYTES: usize = 4096;

/// Where an operation can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// Reading from a file. What the kernel has cached does not get here.
    Read,
    /// Writing to a file.
    Write,
    /// Changing a file's length.
    Truncate,
    /// Making a file or directory.
    Create,
    /// Removing or moving a name.
    Unlink,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDirectory,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// EIO, and nothing is done. A failed sync also forgets what it should have synced, as Linux does.
    Io,
    /// ENOSPC, and nothing is done.
    Full,
    /// Half of a write is done, and the caller is told so. Has no meaning elsewhere.
    Short,
    /// Half of a write is done, and the caller is told EIO. Has no meaning elsewhere.
    Torn,
    /// A write goes so many pages of 4 KiB further on, or to the beginning if the file ends before that, and the caller
    /// is told that all is well. Has no meaning elsewhere.
    Astray(u8),
    /// EIO, nothing is done and nothing forgotten: the power is off, and what reached the disk before is left.
    Off,
}

/// A fault that waits for its operation.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// How the operation fails.
    pub kind: FaultKind,
    /// Operations of this kind count; all if there is none.
    pub site: Option<Site>,
    /// So many of them succeed first.
    pub after: u64,
    /// Whether all that follow fail as well.
    pub lasts: bool,
}

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// EIO.
    Io,
    /// ENOSPC.
    Full,
    /// There is no such file.
    Missing,
}

/// The disk; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    last_inode: Inode,
    last_place: u64,
    fault: Option<Fault>,
    fired: u64,
    /// Most bytes that all files may have together.
    room: Option<usize>,
    operations: u64,
    record: Option<Vec<Operation>>,
    /// Files whose sync failed, and what was done to them since.
    failed: Vec<Inode>,
    /// Files that are read through memory.
    mapped: Vec<Inode>,
    touched: u64,
}

impl Disk {
    /// A directory of its own in the root with these files, all of them durable, and its name.
    ///
    /// A name is never used twice, so the kernel's caches know nothing of it.
    #[must_use]
    pub fn place(&self, image: &Image) -> String {
        let mut state = self.lock();
        state.last_place += 1;
        let name = state.last_place.to_string();
        let place = state.make(ROOT, &name, true);
        let mut made = vec![ROOT, place];
        for (path, contents) in image {
            let mut directory = place;
            let (parents, file) = path.rsplit_once('/').unwrap_or(("", path));
            for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
                directory = state.tree.lookup(directory, parent).unwrap_or_else(|| state.make(directory, parent, true));
                made.push(directory);
            }
            let inode = state.make(directory, file, false);
            state.tree.apply(&Operation::Write { inode, at: 0, data: contents.clone() });
            state.tree.apply(&Operation::Sync { inode });
        }
        for inode in made {
            state.tree.apply(&Operation::SyncDirectory { inode });
        }
        name
    }

    /// What a power cut would leave of a place.
    #[must_use]
    pub fn image(&self, place: &str, cut: Cut) -> Image {
        let state = self.lock();
        state.tree.lookup(ROOT, place).map(|inode| state.tree.image(inode, cut)).unwrap_or_default()
    }

    /// Cuts the power: the place is gone, and what was left of it is at the new one. Whoever used it must be dead.
    #[must_use]
    pub fn cut_power(&self, place: &str, cut: Cut) -> String {
        let image = self.image(place, cut);
        self.remove(place);
        self.place(&image)
    }

    /// Forgets a place.
    pub fn remove(&self, place: &str) {
        self.lock().tree.remove(place);
    }

    /// Lets an operation fail. One fault waits at a time; a later one replaces it.
    pub fn fail(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// Takes back the fault that waits.
    #[must_use]
    pub fn take_fault(&self) -> Option<Fault> {
        self.lock().fault.take()
    }

    /// Nothing fails any more, and there is room without end.
    pub fn mend(&self) {
        let mut state = self.lock();
        state.fault = None;
        state.room = None;
        state.failed.clear();
        state.touched = 0;
    }

    /// Lets the disk be full after so many more bytes.
    pub fn limit(&self, bytes: usize) {
        let mut state = self.lock();
        state.room = Some(state.tree.used() + bytes);
    }

    /// Operations that failed because they were told to, or for want of room.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.lock().fired
    }

    /// Writes to, and syncs of, files after a sync of theirs had failed.
    #[must_use]
    pub fn touched_after_failure(&self) -> u64 {
        self.lock().touched
    }

    /// Operations so far, reads with them.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Records from here on every operation that changes something; with it, the contents at the start.
    #[must_use]
    pub fn record(&self) -> Tree {
        let mut state = self.lock();
        state.record = Some(Vec::new());
        state.tree.clone()
    }

    /// Operations recorded so far.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.lock().record.as_ref().map_or(0, Vec::len)
    }

    /// Ends the record and returns it.
    #[must_use]
    pub fn take_record(&self) -> Vec<Operation> {
        self.lock().record.take().unwrap_or_default()
    }

    /// Damages a file: one bit of it, wherever that is stored. False if there is no such file, or it is empty.
    pub fn rot(&self, place: &str, path: &[&str], at: u64, bit: u8) -> bool {
        let mut state = self.lock();
        let walk = state.tree.lookup(ROOT, place);
        let walk = path.iter().fold(walk, |at, name| at.and_then(|directory| state.tree.lookup(directory, name)));
        let length = walk.and_then(|inode| state.tree.contents(inode)).map_or(0, <[u8]>::len);
        let (Some(inode), true) = (walk, length > 0) else { return false };
        state.tree.rot(inode, (at % length as u64) as usize, bit);
        true
    }

    /// A number that no file has.
    #[must_use]
    pub fn new_inode(&self) -> Inode {
        self.lock().next_inode()
    }

    /// Carries an operation out unless it is to fail; bytes written.
    ///
    /// # Errors
    /// The fault that waited for it.
    pub fn run(&self, operation: Operation) -> Result<usize, Failure> {
        self.lock().run(operation)
    }

    /// Takes what the kernel writes back from memory-mapped pages: nobody waits for it, so it neither counts nor fails.
    pub(crate) fn write_back(&self, inode: Inode, at: usize, data: &[u8]) {
        self.lock().tree.apply(&Operation::Write { inode, at, data: data.to_vec() });
    }

    /// Reads from a file unless that is to fail: fewer bytes where it ends.
    ///
    /// # Errors
    /// The fault that waited for it.
    pub fn read(&self, inode: Inode, at: usize, length: usize) -> Result<Vec<u8>, Failure> {
        let mut state = self.lock();
        let fault = if state.mapped.contains(&inode) { None } else { state.meets_fault(Site::Read) };
        match fault {
            Some(FaultKind::Io | FaultKind::Off) => return Err(Failure::Io),
            Some(FaultKind::Full | FaultKind::Short | FaultKind::Torn | FaultKind::Astray(_)) | None => {}
        }
        let contents = state.tree.contents(inode).ok_or(Failure::Missing)?;
        let end = contents.len().min(at.saturating_add(length));
        Ok(contents.get(at..end).unwrap_or_default().to_vec())
    }

    /// Looks at what is there; nothing counts and nothing fails.
    pub fn look<T>(&self, look: impl FnOnce(&Tree) -> T) -> T {
        look(&self.lock().tree)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_inode(&mut self) -> Inode {
        self.last_inode = self.last_inode.max(ROOT) + 1;
        self.last_inode
    }

    fn make(&mut self, parent: Inode, name: &str, directory: bool) -> Inode {
        let (inode, name) = (self.next_inode(), name.to_owned());
        self.note_mapped(inode, &name);
        self.tree.apply(&if directory {
            Operation::MakeDirectory { parent, name, inode }
        } else {
            Operation::Create { parent, name, inode }
        });
        inode
    }

    fn run(&mut self, operation: Operation) -> Result<usize, Failure> {
        let asked = if let Operation::Write { data, .. } = &operation { data.len() } else { 0 };
        if let Operation::Sync { inode } | Operation::Write { inode, .. } = &operation
            && self.failed.contains(inode)
        {
            self.touched += 1;
        }
        let site = operation.site();
        match self.meets_fault(site) {
            None => {}
            Some(FaultKind::Io) => {
                if let Operation::Sync { inode } = operation {
                    self.tree.forget_unsynced(inode);
                    self.failed.push(inode);
                }
                return Err(Failure::Io);
            }
            Some(FaultKind::Off) => return Err(Failure::Io),
            Some(FaultKind::Full) => return Err(Failure::Full),
            Some(FaultKind::Astray(pages)) => {
                self.carry_out(self.led_astray(operation, pages));
                return Ok(asked);
            }
            Some(kind) => {
                let half = operation.halved();
                let written = half.as_ref().map_or(0, Operation::bytes);
                half.into_iter().for_each(|half| self.carry_out(half));
                // A write of one byte has no half: the caller then sees a failure, as it would of a disk.
                return if kind == FaultKind::Short && written > 0 { Ok(written) } else { Err(Failure::Io) };
            }
        }
        if self.outgrows(&operation) {
            self.fired += 1;
            return Err(Failure::Full);
        }
        self.carry_out(operation);
        Ok(asked)
    }

    fn led_astray(&self, mut operation: Operation, pages: u8) -> Operation {
        if let Operation::Write { inode, at, .. } = &mut operation {
            let length = self.tree.contents(*inode).map_or(0, <[u8]>::len);
            let there = *at + PAGE_BYTES * (1 + usize::from(pages));
            *at = if there < length { there } else { *at % PAGE_BYTES };
        }
        operation
    }

    fn carry_out(&mut self, operation: Operation) {
        if let Operation::Create { name, inode, .. } = &operation {
            self.note_mapped(*inode, name);
        }
        self.tree.apply(&operation);
        self.record.iter_mut().for_each(|record| record.push(operation.clone()));
    }

    /// SQLite maps its index of the write-ahead log. A failed read of a mapped page is a signal, which no program can turn
    /// into an error, so reads of that file do not fail here.
    fn note_mapped(&mut self, inode: Inode, name: &str) {
        if name.ends_with("-shm") {
            self.mapped.push(inode);
        }
    }

    fn outgrows(&self, operation: &Operation) -> bool {
        let Some(room) = self.room else { return false };
        let (inode, end) = match operation {
            Operation::Write { inode, at, data } => (inode, at + data.len()),
            Operation::Truncate { inode, length } => (inode, *length),
            Operation::Create { .. } | Operation::MakeDirectory { .. } => return self.tree.used() >= room,
            Operation::Unlink { .. }
            | Operation::Rename { .. }
            | Operation::Sync { .. }
            | Operation::SyncDirectory { .. } => return false,
        };
        let grows = end.saturating_sub(self.tree.contents(*inode).map_or(0, <[u8]>::len));
        grows > 0 && self.tree.used() + grows > room
    }

    /// Counts the operation, and says how it is to fail.
    fn meets_fault(&mut self, site: Site) -> Option<FaultKind> {
        self.operations += 1;
        let fault = self.fault.as_mut()?;
        if fault.site.is_some_and(|wanted| wanted != site) {
            return None;
        }
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        let kind = fault.kind;
        if !fault.lasts {
            self.fault = None;
        }
        let applies = match kind {
            FaultKind::Io | FaultKind::Off => true,
            FaultKind::Full => !matches!(site, Site::Read | Site::Unlink),
            FaultKind::Short | FaultKind::Torn | FaultKind::Astray(_) => site == Site::Write,
        };
        self.fired += u64::from(applies);
        applies.then_some(kind)
    }
}

impl Operation {
    fn site(&self) -> Site {
        match self {
            Self::Create { .. } | Self::MakeDirectory { .. } => Site::Create,
            Self::Write { .. } => Site::Write,
            Self::Truncate { .. } => Site::Truncate,
            Self::Unlink { .. } | Self::Rename { .. } => Site::Unlink,
            Self::Sync { .. } => Site::Sync,
            Self::SyncDirectory { .. } => Site::SyncDirectory,
        }
    }

    fn bytes(&self) -> usize {
        if let Self::Write { data, .. } = self { data.len() } else { 0 }
    }

    fn halved(&self) -> Option<Self> {
        let Self::Write { inode, at, data } = self else { return None };
        let half = &data[..data.len() / 2];
        (!half.is_empty()).then(|| Self::Write { inode: *inode, at: *at, data: half.to_vec() })
    }
}

//! SQLite's file system over simulated disks.
//!
//! Owns: what SQLite's own file system for Unix does above the system's calls: how it goes on after a short write, which
//! directories it syncs, its locks, the shared memory of its index. Must not: fail or forget anything itself.
//! Next: `volume.rs`; `crates/store/src/ground.rs`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock};

use sqlite_plugin::flags::{AccessFlags, LockLevel, OpenKind, OpenMode, OpenOpts, ShmLockMode};
use sqlite_plugin::vars;
use sqlite_plugin::vfs::{RegisterOpts, Vfs, VfsHandle, VfsResult, register_static};
use syncline_disk::tree::Inode;
use syncline_disk::{Failure, Operation};

use super::volume::{Named, Volume};

const NAME: &str = "syncline-sim";

/// The name under which SQLite finds it.
pub(super) fn registered() -> &'static str {
    static REGISTERED: LazyLock<()> = LazyLock::new(|| {
        let name = CString::new(NAME).expect("a name without zeros");
        let registered = register_static(name, Files, RegisterOpts { make_default: false });
        assert!(registered.is_ok(), "SQLite takes another file system");
    });
    LazyLock::force(&REGISTERED);
    NAME
}

struct Files;

/// An open file.
pub(super) struct Handle {
    volume: Arc<Volume>,
    parent: Inode,
    inode: Inode,
    readonly: bool,
    /// The directory is synced with the file, the first time.
    sync_directory: bool,
    level: LockLevel,
    uses_memory: bool,
}

impl VfsHandle for Handle {
    fn readonly(&self) -> bool {
        self.readonly
    }

    fn in_memory(&self) -> bool {
        false
    }
}

/// What the system keeps for all who have a file open.
#[derive(Debug, Default)]
pub(crate) struct Held {
    shared: usize,
    reserved: bool,
    exclusive: bool,
    /// Regions of shared memory; words, so that they lie as C wants them.
    regions: Vec<Vec<u64>>,
    users: usize,
    /// By slot: how many share it, or -1.
    slots: BTreeMap<u32, i32>,
}

impl Vfs for Files {
    type Handle = Handle;

    fn open(&self, path: Option<&str>, opts: OpenOpts) -> VfsResult<Handle> {
        let (volume, Named { parent, name, inode }) = path.and_then(Volume::of).ok_or(vars::SQLITE_CANTOPEN)?;
        let readonly = matches!(opts.mode(), OpenMode::ReadOnly);
        let created = inode.is_none();
        let inode = match inode {
            Some(inode) => inode,
            None if readonly || opts.flags() & vars::SQLITE_OPEN_CREATE == 0 => return Err(vars::SQLITE_CANTOPEN),
            None => {
                let inode = volume.disk.new_inode();
                let made = volume.disk.run(Operation::Create { parent, name, inode });
                made.map_err(|_| vars::SQLITE_CANTOPEN)?;
                inode
            }
        };
        let journal = matches!(opts.kind(), OpenKind::MainJournal | OpenKind::SuperJournal | OpenKind::Wal);
        let (sync_directory, level) = (created && journal, LockLevel::Unlocked);
        Ok(Handle { volume, parent, inode, readonly, sync_directory, level, uses_memory: false })
    }

    fn delete(&self, path: &str) -> VfsResult<()> {
        let (volume, named) = Volume::of(path).ok_or(vars::SQLITE_IOERR_DELETE)?;
        let Named { parent, name, inode: Some(_) } = named else { return Err(vars::SQLITE_IOERR_DELETE_NOENT) };
        let gone = volume.disk.run(Operation::Unlink { parent, name });
        gone.map(drop).map_err(|_| vars::SQLITE_IOERR_DELETE)
    }

    fn access(&self, path: &str, flags: AccessFlags) -> VfsResult<bool> {
        let found = Volume::of(path).and_then(|(volume, named)| {
            let inode = named.inode?;
            volume.disk.look(|tree| tree.contents(inode).map(<[u8]>::len))
        });
        // A file without contents is as none.
        Ok(found.is_some_and(|length| flags != AccessFlags::Exists || length > 0))
    }

    fn file_size(&self, handle: &mut Handle) -> VfsResult<usize> {
        let length = handle.volume.disk.look(|tree| tree.contents(handle.inode).map(<[u8]>::len));
        length.ok_or(vars::SQLITE_IOERR_FSTAT)
    }

    fn truncate(&self, handle: &mut Handle, size: usize) -> VfsResult<()> {
        let cut = handle.volume.disk.run(Operation::Truncate { inode: handle.inode, length: size });
        cut.map(drop).map_err(|_| vars::SQLITE_IOERR_TRUNCATE)
    }

    fn write(&self, handle: &mut Handle, offset: usize, data: &[u8]) -> VfsResult<usize> {
        let mut written = 0;
        while written < data.len() {
            let (inode, at) = (handle.inode, offset + written);
            match handle.volume.disk.run(Operation::Write { inode, at, data: data[written..].to_vec() }) {
                Ok(0) | Err(Failure::Full) => return Err(vars::SQLITE_FULL),
                Ok(more) => written += more,
                Err(Failure::Io | Failure::Missing) => return Err(vars::SQLITE_IOERR_WRITE),
            }
        }
        Ok(written)
    }

    fn read(&self, handle: &mut Handle, offset: usize, data: &mut [u8]) -> VfsResult<usize> {
        let read = handle.volume.disk.read(handle.inode, offset, data.len()).map_err(|_| vars::SQLITE_IOERR_READ)?;
        data[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }

    fn sync(&self, handle: &mut Handle) -> VfsResult<()> {
        let disk = &handle.volume.disk;
        disk.run(Operation::Sync { inode: handle.inode }).map_err(|_| vars::SQLITE_IOERR_FSYNC)?;
        if std::mem::take(&mut handle.sync_directory) {
            // SQLite asks for it and does not look at the answer.
            let _ = disk.run(Operation::SyncDirectory { inode: handle.parent });
        }
        Ok(())
    }

    fn close(&self, mut handle: Handle) -> VfsResult<()> {
        self.unlock(&mut handle, LockLevel::Unlocked)?;
        self.shm_unmap(&mut handle, false)
    }

    fn device_characteristics(&self, _: &mut Handle) -> VfsResult<i32> {
        // As on Unix: a torn write damages nothing beside it.
        Ok(vars::SQLITE_IOCAP_POWERSAFE_OVERWRITE)
    }

    fn lock(&self, handle: &mut Handle, level: LockLevel) -> VfsResult<()> {
        if handle.level >= level {
            return Ok(());
        }
        let mut all = handle.volume.held();
        let held = all.entry(handle.inode).or_default();
        match level {
            LockLevel::Unlocked => {}
            LockLevel::Shared if held.exclusive => return Err(vars::SQLITE_BUSY),
            LockLevel::Shared => held.shared += 1,
            LockLevel::Reserved if held.reserved => return Err(vars::SQLITE_BUSY),
            LockLevel::Reserved => held.reserved = true,
            LockLevel::Pending | LockLevel::Exclusive => {
                let reserved_elsewhere = held.reserved && handle.level < LockLevel::Reserved;
                if held.shared > 1 || reserved_elsewhere {
                    return Err(vars::SQLITE_BUSY);
                }
                (held.reserved, held.exclusive) = (true, true);
            }
        }
        handle.level = level;
        Ok(())
    }

    fn unlock(&self, handle: &mut Handle, level: LockLevel) -> VfsResult<()> {
        let mut all = handle.volume.held();
        let held = all.entry(handle.inode).or_default();
        if handle.level >= LockLevel::Reserved && level < LockLevel::Reserved {
            (held.reserved, held.exclusive) = (false, false);
        }
        if handle.level >= LockLevel::Shared && level == LockLevel::Unlocked {
            held.shared = held.shared.saturating_sub(1);
        }
        handle.level = handle.level.min(level);
        Ok(())
    }

    fn check_reserved_lock(&self, handle: &mut Handle) -> VfsResult<bool> {
        Ok(handle.volume.held().get(&handle.inode).is_some_and(|held| held.reserved))
    }

    fn shm_map(&self, handle: &mut Handle, region: usize, size: usize, extend: bool) -> VfsResult<Option<NonNull<u8>>> {
        let mut all = handle.volume.held();
        let held = all.entry(handle.inode).or_default();
        held.users += usize::from(!std::mem::replace(&mut handle.uses_memory, true));
        while extend && held.regions.len() <= region {
            held.regions.push(vec![0; size / size_of::<u64>()]);
        }
        Ok(held.regions.get_mut(region).and_then(|words| NonNull::new(words.as_mut_ptr().cast())))
    }

    fn shm_lock(&self, handle: &mut Handle, offset: u32, count: u32, mode: ShmLockMode) -> VfsResult<()> {
        let mut all = handle.volume.held();
        let slots = &mut all.entry(handle.inode).or_default().slots;
        let range = offset..offset + count;
        let busy = match mode {
            ShmLockMode::LockShared => range.clone().any(|slot| slots.get(&slot).is_some_and(|by| *by < 0)),
            ShmLockMode::LockExclusive => range.clone().any(|slot| slots.get(&slot).is_some_and(|by| *by != 0)),
            ShmLockMode::UnlockShared | ShmLockMode::UnlockExclusive => false,
        };
        if busy {
            return Err(vars::SQLITE_BUSY);
        }
        for slot in range {
            let by = slots.entry(slot).or_default();
            *by = match mode {
                ShmLockMode::LockShared => *by + 1,
                ShmLockMode::LockExclusive => -1,
                ShmLockMode::UnlockShared => (*by - 1).max(0),
                ShmLockMode::UnlockExclusive => 0,
            };
        }
        Ok(())
    }

    fn shm_unmap(&self, handle: &mut Handle, _: bool) -> VfsResult<()> {
        if std::mem::take(&mut handle.uses_memory) {
            let mut all = handle.volume.held();
            let held = all.entry(handle.inode).or_default();
            held.users -= 1;
            if held.users == 0 {
                held.regions.clear();
                held.slots.clear();
            }
        }
        Ok(())
    }
}

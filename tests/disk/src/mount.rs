//! The disk as a directory: FUSE without libfuse.
//!
//! Owns: the mount and its thread, and the translation between the kernel's requests and the disk's operations.
//! Must not: decide what fails. Next: `disk.rs`.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use tempfile::TempDir;

use crate::disk::{Disk, Failure};
use crate::tree::{Inode, Operation};

/// Nothing but the kernel itself changes what it has cached.
const FOR_EVER: Duration = Duration::from_secs(86_400);

const BLOCK_BYTES: u32 = 4096;

/// Why no disk can be mounted here; `None` if one can.
#[must_use]
pub fn unavailable() -> Option<String> {
    if !Path::new("/dev/fuse").exists() {
        return Some("there is no /dev/fuse".to_owned());
    }
    Mount::new(Disk::default()).err().map(|error| format!("FUSE cannot be mounted ({error}); it takes root"))
}

/// A disk, mounted; `None`, with a word on why, where none can be.
///
/// # Panics
/// Where none can be and `SYNCLINE_REQUIRE_ALL` is set, as in continuous integration.
#[must_use]
pub fn mounted_or_skipped() -> Option<(Disk, Mount)> {
    if let Some(reason) = unavailable() {
        assert!(std::env::var_os("SYNCLINE_REQUIRE_ALL").is_none(), "SYNCLINE_REQUIRE_ALL is set, but: {reason}");
        println!("skipped: {reason}");
        return None;
    }
    let disk = Disk::default();
    let mount = Mount::new(disk.clone()).expect("it worked a moment ago");
    Some((disk, mount))
}

/// A mounted disk, unmounted when dropped.
///
/// The mount lives in a mount namespace of the thread that made it, so that it ends with the process however that
/// ends: only this thread, its later threads and its child processes see it.
#[derive(Debug)]
pub struct Mount {
    session: Option<BackgroundSession>,
    directory: TempDir,
}

impl Mount {
    /// Mounts a disk.
    ///
    /// # Errors
    /// What the system reports, most often that it takes root.
    pub fn new(disk: Disk) -> io::Result<Self> {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
        let nothing = None::<&str>;
        nix::mount::mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        let directory = tempfile::Builder::new().prefix("syncline-disk-").tempdir()?;
        let session = fuser::spawn_mount(Requests { disk }, directory.path(), &Config::default())?;
        Ok(Self { session: Some(session), directory })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // A process that still has it open keeps it alive until the namespace ends.
            let _ = session.umount_and_join();
        }
    }
}

struct Requests {
    disk: Disk,
}

impl Requests {
    fn attributes(&self, inode: Inode) -> Option<FileAttr> {
        let (kind, size) = self.disk.look(|tree| match tree.contents(inode) {
            Some(contents) => Some((FileType::RegularFile, contents.len() as u64)),
            None => tree.names(inode).map(|_| (FileType::Directory, 0)),
        })?;
        Some(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    fn answer_entry(&self, inode: Option<Inode>, reply: ReplyEntry) {
        match inode.and_then(|inode| self.attributes(inode)) {
            Some(attributes) => reply.entry(&FOR_EVER, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn answer_empty(&self, operation: Operation, reply: ReplyEmpty) {
        match self.disk.run(operation) {
            Ok(_) => reply.ok(),
            Err(failure) => reply.error(errno(failure)),
        }
    }
}

impl Filesystem for Requests {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.answer_entry(self.disk.look(|tree| tree.lookup(parent.0, &text(name))), reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode.0) {
            Some(attributes) => reply.attr(&FOR_EVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let truncate = size.map(|size| Operation::Truncate { inode: inode.0, length: size as usize });
        match (truncate.map(|truncate| self.disk.run(truncate)), self.attributes(inode.0)) {
            (Some(Err(failure)), _) => reply.error(errno(failure)),
            (_, Some(attributes)) => reply.attr(&FOR_EVER, &attributes),
            (_, None) => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let inode = self.disk.new_inode();
        match self.disk.run(Operation::MakeDirectory { parent: parent.0, name: text(name), inode }) {
            Ok(_) => self.answer_entry(Some(inode), reply),
            Err(failure) => reply.error(errno(failure)),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let inode = self.disk.new_inode();
        let made = self.disk.run(Operation::Create { parent: parent.0, name: text(name), inode });
        match (made, self.attributes(inode)) {
            (Ok(_), Some(attributes)) => {
                reply.created(&FOR_EVER, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            (Err(failure), _) => reply.error(errno(failure)),
            (Ok(_), None) => reply.error(Errno::EIO),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer_empty(Operation::Unlink { parent: parent.0, name: text(name) }, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer_empty(Operation::Unlink { parent: parent.0, name: text(name) }, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (parent, new_parent) = (parent.0, new_parent.0);
        self.answer_empty(Operation::Rename { parent, name: text(name), new_parent, new_name: text(new_name) }, reply);
    }

    /// Opening drops what the kernel has cached of the file, so that reads after it reach the disk and can fail.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk.read(inode.0, offset as usize, size as usize) {
            Ok(data) => reply.data(&data),
            Err(failure) => reply.error(errno(failure)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let at = offset as usize;
        if flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            self.disk.write_back(inode.0, at, data);
            return reply.written(data.len() as u32);
        }
        match self.disk.run(Operation::Write { inode: inode.0, at, data: data.to_vec() }) {
            Ok(written) => reply.written(written as u32),
            Err(failure) => reply.error(errno(failure)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file syncs nothing.
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer_empty(Operation::Sync { inode: inode.0 }, reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer_empty(Operation::SyncDirectory { inode: inode.0 }, reply);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(names) = self.disk.look(|tree| tree.names(inode.0).cloned()) else {
            return reply.error(Errno::ENOENT);
        };
        for (place, (name, inode)) in names.iter().enumerate().skip(offset as usize) {
            let kind = self.attributes(*inode).map_or(FileType::RegularFile, |attributes| attributes.kind);
            if reply.add(INodeNo(*inode), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = 1 << 20;
        reply.statfs(blocks, blocks, blocks, 0, 0, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}

fn errno(failure: Failure) -> Errno {
    match failure {
        Failure::Io => Errno::EIO,
        Failure::Full => Errno::ENOSPC,
        Failure::Missing => Errno::ENOENT,
    }
}

fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

//! The contents of a disk: what a reader sees, and what would be left of it without power.
//!
//! Owns: files and directories with their unsynced operations, and what a power cut makes of these.
//! Must not: fail on its own, count, or know FUSE; `disk.rs` decides which operations get here.
//! Next: `disk.rs`.
//!
//! The model is the strict reading of POSIX. A write is durable when its file was synced, a name when its directory
//! was. Between two syncs any subset of the writes may have reached the platter, and of each any of its sectors.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The number of a file or directory; never used twice.
pub type Inode = u64;

/// The directory that holds everything.
pub const ROOT: Inode = 1;

/// What a disk writes as a whole: one of these.
const SECTOR_BYTES: [usize; 2] = [512, 4096];

/// Contents of files by path, relative to some directory.
pub type Image = BTreeMap<String, Vec<u8>>;

/// Something that changes the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A new, empty file.
    Create {
        /// The directory.
        parent: Inode,
        /// The name in it.
        name: String,
        /// The new file's number.
        inode: Inode,
    },
    /// A new, empty directory.
    MakeDirectory {
        /// The directory it is in.
        parent: Inode,
        /// The name in it.
        name: String,
        /// The new directory's number.
        inode: Inode,
    },
    /// Bytes at a place in a file, which grows as needed.
    Write {
        /// The file.
        inode: Inode,
        /// Offset in bytes.
        at: usize,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Another length of a file.
    Truncate {
        /// The file.
        inode: Inode,
        /// Length in bytes.
        length: usize,
    },
    /// A name goes; the file lives on while it is open.
    Unlink {
        /// The directory.
        parent: Inode,
        /// The name in it.
        name: String,
    },
    /// A name moves, and replaces what had the new one.
    Rename {
        /// The directory.
        parent: Inode,
        /// The name in it.
        name: String,
        /// The directory of the new name.
        new_parent: Inode,
        /// The new name.
        new_name: String,
    },
    /// Everything written to a file becomes durable.
    Sync {
        /// The file.
        inode: Inode,
    },
    /// The names in a directory become durable.
    SyncDirectory {
        /// The directory.
        inode: Inode,
    },
}

impl Operation {
    /// One word, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::MakeDirectory { .. } => "make directory",
            Self::Write { .. } => "write",
            Self::Truncate { .. } => "truncate",
            Self::Unlink { .. } => "unlink",
            Self::Rename { .. } => "rename",
            Self::Sync { .. } => "sync",
            Self::SyncDirectory { .. } => "sync directory",
        }
    }
}

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Lost,
    /// Everything, as when only the process dies.
    Kept,
    /// Of each file and directory the operations up to one drawn from the seed, the last of them torn.
    Prefix(u64),
    /// Any of the operations of each file, in any combination and torn at sectors; names up to one drawn.
    Scattered(u64),
}

#[derive(Debug, Clone, Default)]
struct File {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
enum Pending {
    Write { at: usize, data: Vec<u8> },
    Truncate { length: usize },
}

#[derive(Debug, Clone, Default)]
struct Directory {
    current: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    pending: Vec<(String, Option<Inode>)>,
}

/// All files and directories.
#[derive(Debug, Clone)]
pub struct Tree {
    files: BTreeMap<Inode, File>,
    directories: BTreeMap<Inode, Directory>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { files: BTreeMap::new(), directories: BTreeMap::from([(ROOT, Directory::default())]) }
    }
}

impl Tree {
    /// Carries an operation out. One on what does not exist changes nothing.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { parent, name, inode } => {
                self.files.insert(*inode, File::default());
                self.bind(*parent, name, Some(*inode));
            }
            Operation::MakeDirectory { parent, name, inode } => {
                self.directories.insert(*inode, Directory::default());
                self.bind(*parent, name, Some(*inode));
            }
            Operation::Write { inode, at, data } => {
                self.note(*inode, Pending::Write { at: *at, data: data.clone() });
            }
            Operation::Truncate { inode, length } => self.note(*inode, Pending::Truncate { length: *length }),
            Operation::Unlink { parent, name } => self.bind(*parent, name, None),
            Operation::Rename { parent, name, new_parent, new_name } => {
                if let Some(inode) = self.lookup(*parent, name) {
                    self.bind(*parent, name, None);
                    self.bind(*new_parent, new_name, Some(inode));
                }
            }
            Operation::Sync { inode } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.pending.drain(..).for_each(|pending| pending.apply(&mut file.durable));
                }
            }
            Operation::SyncDirectory { inode } => {
                if let Some(directory) = self.directories.get_mut(inode) {
                    directory.pending.clear();
                    directory.durable = directory.current.clone();
                }
            }
        }
    }

    /// What Linux does when a sync fails: the unsynced writes are lost, every reader goes on seeing them, and the next
    /// sync succeeds because nothing is left to do.
    pub fn forget_unsynced(&mut self, inode: Inode) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.pending.clear();
        }
    }

    /// Damages a file where it lies: one bit, for every reader and after a power cut.
    pub fn rot(&mut self, inode: Inode, at: usize, bit: u8) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        for contents in [&mut file.current, &mut file.durable] {
            contents.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
        }
    }

    /// The number behind a name.
    #[must_use]
    pub fn lookup(&self, parent: Inode, name: &str) -> Option<Inode> {
        self.directories.get(&parent)?.current.get(name).copied()
    }

    /// The names in a directory.
    #[must_use]
    pub fn names(&self, directory: Inode) -> Option<&BTreeMap<String, Inode>> {
        self.directories.get(&directory).map(|directory| &directory.current)
    }

    /// The contents of a file as a reader sees them.
    #[must_use]
    pub fn contents(&self, file: Inode) -> Option<&[u8]> {
        self.files.get(&file).map(|file| &file.current[..])
    }

    /// Bytes in all files together.
    #[must_use]
    pub fn used(&self) -> usize {
        self.files.values().map(|file| file.current.len()).sum()
    }

    /// The files below a directory as a power cut would leave them.
    #[must_use]
    pub fn image(&self, directory: Inode, cut: Cut) -> Image {
        let mut random = match cut {
            Cut::Lost | Cut::Kept => StdRng::seed_from_u64(0),
            Cut::Prefix(seed) | Cut::Scattered(seed) => StdRng::seed_from_u64(seed),
        };
        let mut image = Image::new();
        self.collect(directory, "", cut, &mut random, &mut image);
        image
    }

    /// Forgets everything below a directory of the root, and its name.
    pub fn remove(&mut self, name: &str) {
        let Some(root) = self.directories.get_mut(&ROOT) else { return };
        let mut open: Vec<Inode> = root.current.remove(name).into_iter().collect();
        while let Some(inode) = open.pop() {
            self.files.remove(&inode);
            open.extend(self.directories.remove(&inode).into_iter().flat_map(|gone| gone.current.into_values()));
        }
    }

    fn collect(&self, directory: Inode, path: &str, cut: Cut, random: &mut StdRng, image: &mut Image) {
        let Some(directory) = self.directories.get(&directory) else { return };
        for (name, inode) in directory.left(cut, random) {
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if let Some(file) = self.files.get(&inode) {
                image.insert(path, file.left(cut, random));
            } else {
                self.collect(inode, &path, cut, random, image);
            }
        }
    }

    fn bind(&mut self, parent: Inode, name: &str, inode: Option<Inode>) {
        let Some(directory) = self.directories.get_mut(&parent) else { return };
        bind(&mut directory.current, name, inode);
        directory.pending.push((name.to_owned(), inode));
    }

    fn note(&mut self, inode: Inode, pending: Pending) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        pending.clone().apply(&mut file.current);
        file.pending.push(pending);
    }
}

impl File {
    fn left(&self, cut: Cut, random: &mut StdRng) -> Vec<u8> {
        match cut {
            Cut::Lost => return self.durable.clone(),
            Cut::Kept => return self.current.clone(),
            Cut::Prefix(_) | Cut::Scattered(_) => {}
        }
        let mut left = self.durable.clone();
        if let Cut::Prefix(_) = cut {
            let whole = random.random_range(0..=self.pending.len());
            self.pending[..whole].iter().for_each(|pending| pending.clone().apply(&mut left));
            if let Some(torn) = self.pending.get(whole) {
                torn.clone().tear(&mut left, random);
            }
            return left;
        }
        let chance = random.random_range(0.0..1.0);
        for pending in &self.pending {
            if random.random_bool(chance) {
                pending.clone().apply(&mut left);
            } else if random.random_bool(0.2) {
                pending.clone().tear(&mut left, random);
            }
        }
        left
    }
}

impl Pending {
    fn apply(self, contents: &mut Vec<u8>) {
        match self {
            Self::Write { at, data } => {
                let end = at + data.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[at..end].copy_from_slice(&data);
            }
            Self::Truncate { length } => contents.resize(length, 0),
        }
    }

    /// Some of a write's sectors; a change of length is one sector and comes whole or not.
    fn tear(self, contents: &mut Vec<u8>, random: &mut StdRng) {
        let Self::Write { at, data } = self else { return };
        let sector_bytes = SECTOR_BYTES[usize::from(random.random_bool(0.5))];
        let mut place = at;
        let mut rest = &data[..];
        while !rest.is_empty() {
            // Sectors lie at multiples of their size in the file.
            let (sector, after) = rest.split_at(rest.len().min(sector_bytes - place % sector_bytes));
            if random.random_bool(0.5) {
                Self::Write { at: place, data: sector.to_vec() }.apply(contents);
            }
            place += sector.len();
            rest = after;
        }
    }
}

impl Directory {
    fn left(&self, cut: Cut, random: &mut StdRng) -> BTreeMap<String, Inode> {
        let kept = match cut {
            Cut::Lost => 0,
            Cut::Kept => return self.current.clone(),
            // Journals of file systems keep the order of names.
            Cut::Prefix(_) | Cut::Scattered(_) => random.random_range(0..=self.pending.len()),
        };
        let mut left = self.durable.clone();
        self.pending[..kept].iter().for_each(|(name, inode)| bind(&mut left, name, *inode));
        left
    }
}

fn bind(names: &mut BTreeMap<String, Inode>, name: &str, inode: Option<Inode>) {
    match inode {
        Some(inode) => names.insert(name.to_owned(), inode),
        None => names.remove(name),
    };
}

#[cfg(test)]
mod tests;

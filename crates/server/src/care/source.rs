//! Documents in a directory: our own export, or what automerge-repo's NodeFS storage leaves.
//!
//! Owns: which files make up which document. Must not: read one.
//! Next: `import.rs`; docs/operations.md, "Moving in and out".

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use syncline_core::id::DocumentId;

/// The ending of a document's file.
pub(super) const ENDING: &str = "automerge";

/// How documents lie in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `<id>.automerge`, one file for each document.
    Files,
    /// automerge-repo's NodeFS storage: `<first two letters of id>/<rest>/{snapshot,incremental}/<hash>`.
    NodeFs,
}

/// Why a directory cannot be taken for documents. **State:** nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read: {source}")]
pub struct SourceError {
    /// The directory or file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// A document's files, snapshots first.
pub(super) type Found = BTreeMap<DocumentId, Vec<PathBuf>>;

impl Layout {
    /// The documents of a directory, and how many files in it are none.
    pub(super) fn find(self, directory: &Path) -> Result<(Found, u64), SourceError> {
        match self {
            Self::Files => files(directory),
            Self::NodeFs => node_fs(directory),
        }
    }
}

fn files(directory: &Path) -> Result<(Found, u64), SourceError> {
    let (mut found, mut strange) = (Found::new(), 0);
    for entry in list(directory)? {
        let path = entry.path();
        let id = path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse::<DocumentId>().ok());
        match id.filter(|_| path.extension().is_some_and(|ending| ending == ENDING)) {
            Some(id) => found.entry(id).or_default().push(path),
            None => strange += 1,
        }
    }
    Ok((found, strange))
}

fn node_fs(directory: &Path) -> Result<(Found, u64), SourceError> {
    let (mut found, mut strange) = (Found::new(), 0);
    for shelf in list(directory)?.into_iter().filter(is_directory) {
        for home in list(&shelf.path())?.into_iter().filter(is_directory) {
            let name = [shelf.file_name(), home.file_name()].map(|part| part.to_string_lossy().into_owned()).concat();
            // The adapter keeps its own id, and sync states, the same way.
            let Ok(id) = name.parse::<DocumentId>() else {
                strange += 1;
                continue;
            };
            for kind in ["snapshot", "incremental"] {
                let directory = home.path().join(kind);
                if directory.is_dir() {
                    let paths = list(&directory)?.into_iter().map(|entry| entry.path());
                    found.entry(id.clone()).or_default().extend(paths);
                }
            }
        }
    }
    Ok((found, strange))
}

fn list(directory: &Path) -> Result<Vec<DirEntry>, SourceError> {
    let failed = |source| SourceError { path: directory.to_owned(), source };
    fs::read_dir(directory).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Reads a document's files one after the other, as automerge reads them.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<u8>, SourceError> {
    let mut all = Vec::new();
    for path in files {
        let bytes = fs::read(path).map_err(|source| SourceError { path: path.clone(), source })?;
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

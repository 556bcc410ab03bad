//! Where automerge builds whole documents.
//!
//! Owns: the seam through which it is asked to, and the way to do so in this process.
//! Must not: trust what it is given, or keep a document. Next: `document.rs`; the crates `syncline-store` (compaction)
//! and `syncline-loader` (the same in a process of its own).
//!
//! A document of unknown origin may stop whoever builds it: by a panic, by hours of work, or by an allocation that
//! fails, which ends the process. The first is caught here; the others only by a process that may end.

use std::collections::BTreeSet;
use std::fmt::Debug;

use automerge::{Automerge, Change, ChangeHash, ReadDoc};
use bytes::Bytes;

use crate::chunk::guarded;

/// Builds documents from bytes that peers have sent.
pub trait Loader: Debug + Send + Sync {
    /// The raw, uncompressed chunks of a document's changes, dependencies first. If some are `wanted`, these only, as
    /// far as the document has them, in any order.
    ///
    /// # Errors
    /// [`LoadError`] when automerge cannot load the document, or whoever tries does not survive it.
    fn changes(&self, document: &[u8], wanted: &[ChangeHash]) -> Result<Vec<Bytes>, LoadError>;

    /// One document chunk of all changes of an old snapshot and those after it, proved to hold the same.
    ///
    /// # Errors
    /// As [`Loader::changes`], and when what comes out differs from what went in.
    fn merge(&self, old: &Old<'_>) -> Result<Merged, LoadError>;
}

/// A document as it is stored: what [`Loader::merge`] begins with.
#[derive(Debug, Clone)]
pub struct Old<'a> {
    /// The document chunk of its first changes, if there is one.
    pub snapshot: Option<&'a [u8]>,
    /// The changes after it, dependencies first.
    pub changes: Vec<&'a [u8]>,
    /// Number of changes in both.
    pub count: u32,
}

/// A whole document in one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The document chunk.
    pub snapshot: Bytes,
    /// Its heads, sorted.
    pub heads: Vec<ChangeHash>,
}

/// Why a document was not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// automerge cannot load it. **State:** nothing was kept. **Do:** send it again; if that fails, the copy is damaged.
    #[error("automerge refuses it: {reason}")]
    Refused {
        /// Its words, or what differs.
        reason: String,
    },
    /// automerge panicked on it. **State:** nothing was kept. **Do:** send it again; if that fails, the copy is damaged.
    #[error("automerge cannot read it")]
    Panicked,
    /// The process that was to load it ended. **State:** nothing was kept. **Do:** raise the process's limits if the
    /// document is honest.
    #[error("the process that was to load it ended: {how}")]
    Died {
        /// How, in words for a person.
        how: String,
    },
    /// No process could be started to load it. **State:** nothing was kept. **Do:** look at what the system lacks, and
    /// try again.
    #[error("there is no process to load it: {reason}")]
    Unavailable {
        /// What the system says.
        reason: String,
    },
}

impl LoadError {
    /// A short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "library_refused",
            Self::Panicked => "library_panicked",
            Self::Died { .. } => "loader_died",
            Self::Unavailable { .. } => "loader_unavailable",
        }
    }

    /// Whether the document is the reason, so that it fails again until something of it changes.
    #[must_use]
    pub fn concerns_document(&self) -> bool {
        !matches!(self, Self::Unavailable { .. })
    }

    fn refused(reason: impl ToString) -> Self {
        Self::Refused { reason: reason.to_string() }
    }
}

/// Builds documents in this process: a panic is caught, a failed allocation ends the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

impl Loader for InProcess {
    fn changes(&self, document: &[u8], wanted: &[ChangeHash]) -> Result<Vec<Bytes>, LoadError> {
        guarded(|| take_apart(document, wanted)).unwrap_or(Err(LoadError::Panicked))
    }

    fn merge(&self, old: &Old<'_>) -> Result<Merged, LoadError> {
        guarded(|| merge(old)).unwrap_or(Err(LoadError::Panicked))
    }
}

fn take_apart(document: &[u8], wanted: &[ChangeHash]) -> Result<Vec<Bytes>, LoadError> {
    let document = Automerge::load(document).map_err(LoadError::refused)?;
    let raw = |change: &Change| Bytes::copy_from_slice(change.raw_bytes());
    // Either way costs a pass over the operations; one for all is cheaper from a few on.
    if let 1..=4 = wanted.len() {
        let changes = wanted.iter().filter_map(|hash| document.get_change_by_hash(hash));
        return Ok(changes.map(|change| raw(&change)).collect());
    }
    let wanted: BTreeSet<&ChangeHash> = wanted.iter().collect();
    let mut known = BTreeSet::new();
    let mut chunks = Vec::new();
    for change in document.get_changes(&[]) {
        if !change.deps().iter().all(|dep| known.contains(dep)) {
            return Err(LoadError::refused("its changes come before their dependencies"));
        }
        known.insert(change.hash());
        if wanted.is_empty() || wanted.contains(&change.hash()) {
            chunks.push(raw(&change));
        }
    }
    Ok(chunks)
}

/// The automerge document of an old snapshot and the raw changes after it, saved, loaded again and compared.
fn merge(old: &Old<'_>) -> Result<Merged, LoadError> {
    let mut document = match old.snapshot {
        Some(bytes) => Automerge::load(bytes).map_err(|_| LoadError::refused("its snapshot does not load"))?,
        None => Automerge::new(),
    };
    let mut heads: BTreeSet<ChangeHash> = document.get_heads().into_iter().collect();
    let mut changes = Vec::with_capacity(old.changes.len());
    for bytes in &old.changes {
        let change = Change::from_bytes(bytes.to_vec()).map_err(|_| LoadError::refused("a change does not decode"))?;
        for dependency in change.deps() {
            heads.remove(dependency);
        }
        heads.insert(change.hash());
        changes.push(change);
    }
    document.apply_changes(changes).map_err(LoadError::refused)?;
    let expected: Vec<ChangeHash> = heads.into_iter().collect();
    if sorted_heads(&document) != expected {
        return Err(LoadError::refused("it finds other heads than the changes have"));
    }
    let bytes = document.save();
    drop(document);
    let loaded = Automerge::load(&bytes).map_err(|_| LoadError::refused("the new snapshot does not load"))?;
    if sorted_heads(&loaded) != expected {
        return Err(LoadError::refused("the new snapshot has other heads"));
    }
    // Equal heads prove that every ancestor of them is there; the count proves that these are all.
    if loaded.get_changes_meta(&[]).len() != old.count as usize {
        return Err(LoadError::refused("the new snapshot has another number of changes"));
    }
    Ok(Merged { snapshot: Bytes::from(bytes), heads: expected })
}

fn sorted_heads(document: &Automerge) -> Vec<ChangeHash> {
    let mut heads = document.get_heads();
    heads.sort_unstable();
    heads
}

#[cfg(test)]
mod tests {
    use automerge::transaction::{CommitOptions, Transactable};
    use automerge::{AutoCommit, ROOT};

    use super::*;

    /// The saved state of a document's first edits, and the changes after it.
    fn sample(later: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut document = AutoCommit::new();
        let edit = |document: &mut AutoCommit, number: usize| {
            document.put(ROOT, "number", number as i64).expect("a map");
            document.commit_with(CommitOptions::default()).expect("an edit")
        };
        for number in 0..3 {
            edit(&mut document, number);
        }
        let saved = document.save();
        let later = (0..later).map(|number| edit(&mut document, number));
        let hashes: Vec<_> = later.collect();
        let bytes = |hash: &_| document.get_change_by_hash(hash).expect("it was just made").raw_bytes().to_vec();
        (saved, hashes.iter().map(bytes).collect())
    }

    fn merged(snapshot: Option<&[u8]>, changes: &[Vec<u8>], count: u32) -> Result<Merged, LoadError> {
        InProcess.merge(&Old { snapshot, changes: changes.iter().map(Vec::as_slice).collect(), count })
    }

    #[test]
    fn a_snapshot_and_the_changes_after_it_become_one_chunk_with_their_heads() {
        let (saved, later) = sample(4);
        let whole = merged(Some(&saved), &later, 7).expect("all is there");
        let document = Automerge::load(&whole.snapshot).expect("it was saved");
        assert_eq!((document.get_heads(), document.get_changes_meta(&[]).len()), (whole.heads, 7));
        let alone = merged(None, &later, 4);
        assert!(matches!(alone, Err(LoadError::Refused { .. })), "they stand on what is not there: {alone:?}");
    }

    #[test]
    fn a_document_with_another_number_of_changes_than_it_should_have_is_refused() {
        let (saved, later) = sample(4);
        for count in [0, 6, 8] {
            let refused = merged(Some(&saved), &later, count);
            assert!(matches!(refused, Err(LoadError::Refused { .. })), "{count}: {refused:?}");
        }
    }

    #[test]
    fn a_document_is_taken_apart_into_the_changes_that_are_wanted() {
        let (saved, later) = sample(7);
        let whole = merged(Some(&saved), &later, 10).expect("all is there").snapshot;
        assert_eq!(InProcess.changes(&whole, &[]).expect("it loads").len(), 10, "all");
        let hashes: Vec<_> =
            later.iter().map(|bytes| Change::from_bytes(bytes.clone()).expect("a change").hash()).collect();
        for few in [1, 4, 5, 7] {
            let found = InProcess.changes(&whole, &hashes[..few]).expect("it loads");
            assert_eq!(found, later[..few], "{few}");
        }
        assert!(matches!(InProcess.changes(&whole[..40], &[]), Err(LoadError::Refused { .. })));
    }
}

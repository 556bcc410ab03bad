//! What a file of a document holds: chunks one after the other, as automerge saves and appends them.
//!
//! Owns: which of them need a loader, the order of the changes. Must not: read a file, or trust one more than a peer.
//! Next: `chunk.rs`, `change.rs`, `loader.rs`.
//!
//! Only a whole document has to be built to be taken apart. Changes that stand beside it are read as they are, which costs less
//! than to put them into the document and take them out again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;

use crate::change::{Change, ChangeError};
use crate::chunk::{self, ChunkError, ChunkKind};
use crate::limits::Limits;
use crate::loader::{LoadError, Loader};

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Contents {
    /// Its changes, each once, dependencies first.
    pub changes: Vec<Change>,
    /// Changes that depend on some that are not there.
    pub left_out: usize,
}

/// Why a file is not taken. **State:** nothing was kept. **Do:** as the part says that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is no sequence of chunks.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// One of its changes is not taken.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A document in it could not be built.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Takes a file apart.
///
/// # Errors
/// [`FileError`] when any part of it is damaged or beyond a limit.
pub fn read(file: &Bytes, limits: &Limits, loader: &dyn Loader) -> Result<Contents, FileError> {
    let chunks: Vec<_> = chunk::split(file.clone()).collect::<Result<_, _>>()?;
    let of_kind = |wanted: &'static [ChunkKind]| chunks.iter().filter(move |chunk| wanted.contains(&chunk.kind));
    let mut changes = Vec::new();
    // A bundle may stand on changes beside it.
    if of_kind(&[ChunkKind::Bundle]).next().is_some() {
        changes.extend(built(file, limits, loader)?);
    } else {
        let documents = of_kind(&[ChunkKind::Document]).map(|chunk| &chunk.bytes[..]).collect::<Vec<_>>().concat();
        if !documents.is_empty() {
            changes.extend(built(&documents, limits, loader)?);
        }
        for chunk in of_kind(&[ChunkKind::Change, ChunkKind::CompressedChange]) {
            changes.push(Change::decode(chunk.bytes.clone(), limits)?);
        }
    }
    Ok(ordered(changes))
}

/// The changes of what automerge builds, which reads what it has written itself.
fn built(documents: &[u8], limits: &Limits, loader: &dyn Loader) -> Result<Vec<Change>, FileError> {
    let change = |bytes| Change::decode_own(bytes, limits).map_err(FileError::from);
    loader.changes(documents, &[])?.into_iter().map(change).collect()
}

/// In one pass, whatever the order: who sends a file decides how its changes stand on each other.
fn ordered(changes: Vec<Change>) -> Contents {
    let mut places = BTreeMap::new();
    for (place, change) in changes.iter().enumerate() {
        places.entry(change.hash).or_insert(place);
    }
    let mut lacking: Vec<usize> = changes.iter().map(|change| change.deps.len()).collect();
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); changes.len()];
    for place in places.values().copied() {
        for dependency in changes[place].deps.iter().filter_map(|dep| places.get(dep)) {
            waiting[*dependency].push(place);
        }
    }
    // What came in order stays so.
    let mut ready: BinaryHeap<_> =
        places.values().filter(|place| lacking[**place] == 0).copied().map(Reverse).collect();
    let different = places.len();
    let (mut taken, mut order) = (changes.into_iter().map(Some).collect::<Vec<_>>(), Vec::with_capacity(different));
    while let Some(Reverse(place)) = ready.pop() {
        order.extend(taken[place].take());
        for dependant in std::mem::take(&mut waiting[place]) {
            lacking[dependant] -= 1;
            ready.extend((lacking[dependant] == 0).then_some(Reverse(dependant)));
        }
    }
    Contents { left_out: different - order.len(), changes: order }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::{CommitOptions, Transactable};
    use automerge::{AutoCommit, ROOT};

    use super::*;
    use crate::loader::InProcess;

    /// The saved state of a document's first edits, and its later changes, of which one has no operation.
    fn sample() -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut document = AutoCommit::new();
        let edit = |document: &mut AutoCommit, number: i64| {
            document.put(ROOT, "number", number).expect("a map");
            document.commit().expect("an edit")
        };
        for number in 0..5 {
            edit(&mut document, number);
        }
        let saved = document.save();
        let mut later: Vec<_> = (5..9).map(|number| edit(&mut document, number)).collect();
        later.push(document.empty_change(CommitOptions::default()));
        later.push(edit(&mut document, 9));
        let bytes = |hash: &_| document.get_change_by_hash(hash).expect("it was just made").raw_bytes().to_vec();
        let later = later.iter().map(bytes).collect();
        (saved, later)
    }

    fn read_all(parts: &[&[u8]]) -> Result<Contents, FileError> {
        read(&Bytes::from(parts.concat()), &Limits::default(), &InProcess)
    }

    #[test]
    fn changes_come_once_and_in_order_however_the_file_was_put_together() {
        let (saved, later) = sample();
        let mut parts: Vec<&[u8]> = later.iter().map(Vec::as_slice).collect();
        parts.reverse();
        parts.insert(3, &saved);
        parts.push(&later[2]);
        let contents = read_all(&parts).expect("nothing is damaged");
        assert_eq!((contents.changes.len(), contents.left_out), (5 + 6, 0));
        for (at, change) in contents.changes.iter().enumerate() {
            let before = &contents.changes[..at];
            assert!(change.deps.iter().all(|dep| before.iter().any(|earlier| earlier.hash == *dep)), "change {at}");
        }
    }

    #[test]
    fn a_long_file_in_the_worst_order_costs_no_more_than_in_the_best() {
        let mut document = AutoCommit::new();
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for _ in 0..10_000 {
            let hash = document.empty_change(CommitOptions::default());
            parts.push(document.get_change_by_hash(&hash).expect("it was just made").raw_bytes().to_vec());
        }
        parts.reverse();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let contents = read_all(&parts).expect("nothing is damaged");
        assert_eq!((contents.changes.len(), contents.left_out), (10_000, 0));
        assert!(contents.changes.windows(2).all(|pair| pair[1].deps[..] == [pair[0].hash]));
    }

    #[test]
    fn what_stands_on_what_is_not_there_is_left_out_and_counted() {
        let (saved, later) = sample();
        let contents = read_all(&[&saved, &later[0], &later[2], &later[3]]).expect("nothing is damaged");
        assert_eq!((contents.changes.len(), contents.left_out), (6, 2));
        let contents = read_all(&[&later[0]]).expect("nothing is damaged");
        assert_eq!((contents.changes.len(), contents.left_out), (0, 1));
    }

    #[test]
    fn a_file_with_a_damaged_part_is_refused_with_what_is_wrong() {
        let (saved, later) = sample();
        let mut damaged = later[0].clone();
        *damaged.last_mut().expect("it has bytes") ^= 1;
        assert!(matches!(read_all(&[&saved, &damaged]), Err(FileError::Change(_))));
        assert!(matches!(read_all(&[&saved, &later[0][..9]]), Err(FileError::Chunk(_))));
        let mut damaged = saved.clone();
        *damaged.last_mut().expect("it has bytes") ^= 1;
        assert!(matches!(read_all(&[&damaged, &later[0]]), Err(FileError::Load(_))));
        assert!(matches!(read_all(&[b"text"]), Err(FileError::Chunk(_))));
        assert!(read_all(&[]).expect("nothing is damaged").changes.is_empty());
    }
}

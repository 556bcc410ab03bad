//! When a document was last written to, by its authors' clocks.
//!
//! Owns: which times count, how they are read from stored bytes. Must not: believe them: they order, and decide nothing.
//! Next: `collection.rs`; docs/protocol.md §10, "Elements".
//!
//! It is a function of a document's changes, so that replicas which hold the same ones agree on it.

use bytes::Bytes;

use crate::chunk::reader::{Damage, Reader};
use crate::chunk::{Chunk, ChunkKind};
use crate::document;

const HASH_BYTES: usize = 32;

/// The latest time that any change of a document carries, in seconds since 1970. Times that 32 bits do not hold, and those
/// before 1970, count as none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authored(u32);

impl Authored {
    /// No change says when it was made.
    pub const NEVER: Self = Self(0);

    /// The time of one change, as the change has it.
    #[must_use]
    pub fn at(time: i64) -> Self {
        Self(u32::try_from(time).unwrap_or(0))
    }

    /// So many seconds since 1970.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// The time in a raw change chunk, of which nothing else is read; `None` if it is none.
    #[must_use]
    pub fn of_change(bytes: &Bytes) -> Option<Self> {
        let chunk = Chunk::first(bytes).ok().filter(|chunk| chunk.kind == ChunkKind::Change)?;
        time_of(&chunk.body).ok().map(Self::at)
    }

    /// The latest time of the changes in an automerge document chunk; `None` if it is damaged.
    #[must_use]
    pub fn of_document(bytes: &Bytes) -> Option<Self> {
        let chunk = Chunk::first(bytes).ok().filter(|chunk| chunk.kind == ChunkKind::Document)?;
        let times = document::times(&chunk).ok()?;
        Some(times.into_iter().map(Self::at).max().unwrap_or_default())
    }
}

/// The fields of a change up to its time: dependencies, actor, sequence number, first operation.
fn time_of(body: &[u8]) -> Result<i64, Damage> {
    let mut reader = Reader::new(body);
    let deps = usize::try_from(reader.unsigned()?).ok().and_then(|deps| deps.checked_mul(HASH_BYTES));
    reader.take(deps.ok_or(Damage::Truncated)?)?;
    reader.prefixed()?;
    reader.unsigned()?;
    reader.unsigned()?;
    reader.signed()
}

#[cfg(test)]
mod tests {
    use automerge::transaction::{CommitOptions, Transactable};
    use automerge::{Automerge, ROOT};

    use super::*;

    fn document(times: &[i64]) -> Automerge {
        let mut document = Automerge::new();
        for (number, time) in times.iter().enumerate() {
            let mut transaction = document.transaction();
            transaction.put(ROOT, "number", number as i64).expect("a key of the root");
            transaction.commit_with(CommitOptions::default().with_time(*time));
        }
        document
    }

    #[test]
    fn the_latest_time_is_the_same_of_changes_and_of_their_document() {
        for times in [&[][..], &[1_700_000_000], &[5, 1_700_000_003, 7], &[-9, 0], &[1 << 40, 12], &[0; 300]] {
            let document = document(times);
            let changes = document.get_changes(&[]);
            let each = changes.into_iter().map(|mut change| Bytes::copy_from_slice(&change.bytes()));
            let of_changes = each.map(|bytes| Authored::of_change(&bytes).expect("a change")).max().unwrap_or_default();
            let expected = times.iter().filter_map(|time| u32::try_from(*time).ok()).max().unwrap_or(0);
            assert_eq!(of_changes.seconds(), expected, "{times:?}");
            let saved = Bytes::from(document.save());
            assert_eq!(Authored::of_document(&saved), Some(of_changes), "{times:?}");
        }
    }

    #[test]
    fn what_is_no_change_has_no_time() {
        let saved = Bytes::from(document(&[1]).save());
        assert_eq!(Authored::of_change(&saved), None);
        for end in 0..saved.len() {
            assert_eq!(Authored::of_document(&saved.slice(..end)), None, "cut to {end}");
        }
    }
}

//! Whether a document is deleted, and which of two that disagree about it stands.
//!
//! Owns: the record and its order. Must not: know where it is stored or who hears of it.
//! Next: `hub/life.rs`; docs/deletion.md.

use crate::clock::Stamp;
use crate::id::ReplicaId;

/// Milliseconds of a stamp from which on it is refused: in the upper half there might be no greater one left, with which
/// the record could be replaced.
const MILLIS_END: u64 = 1 << 47;

/// Who said last whether a document is deleted. Of two records the greater stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// When, by the clock of the replica that said so.
    pub stamp: Stamp,
    /// The replica that said so.
    pub replica: ReplicaId,
    /// Deleted, or restored.
    pub deleted: bool,
}

/// What is to become of a document's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeUpdate {
    /// This replica says so.
    Own {
        /// Deleted, or restored.
        deleted: bool,
    },
    /// Another replica said so; it stands if it is the greater.
    Heard(Life),
}

impl Life {
    /// Whether a greater stamp than this one can still be made.
    #[must_use]
    pub fn can_be_replaced(&self) -> bool {
        self.stamp.millis() < MILLIS_END
    }

    /// The record that a replica makes at `now`, in the place of `before`.
    #[must_use]
    pub fn own(before: Option<Self>, now: Stamp, replica: ReplicaId, deleted: bool) -> Self {
        let above = before.map_or(Stamp::ZERO, |before| Stamp::from_u64(before.stamp.as_u64().saturating_add(1)));
        Self { stamp: now.max(above), replica, deleted }
    }

    /// The record that stands after an update, of which `own` makes this replica's.
    #[must_use]
    pub fn after(before: Option<Self>, update: LifeUpdate, own: impl FnOnce(bool) -> Self) -> Self {
        match update {
            LifeUpdate::Own { deleted } => own(deleted),
            LifeUpdate::Heard(heard) => before.map_or(heard, |before| before.max(heard)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn life(stamp: u64, replica: u8, deleted: bool) -> Life {
        Life { stamp: Stamp::from_u64(stamp), replica: ReplicaId([replica; 16]), deleted }
    }

    proptest! {
        #[test]
        fn replicas_agree_whatever_the_order(
            mut records in prop::collection::vec((0u64..4, 0u8..3, any::<bool>()), 1..8),
            seed in any::<usize>(),
        ) {
            let merge = |records: &[(u64, u8, bool)]| {
                records.iter().fold(None, |before, (stamp, replica, deleted)| {
                    let heard = LifeUpdate::Heard(life(*stamp, *replica, *deleted));
                    Some(Life::after(before, heard, |_| unreachable!("nothing is made here")))
                })
            };
            let one = merge(&records);
            let by = seed % records.len();
            records.rotate_left(by);
            records.reverse();
            prop_assert_eq!(one, merge(&records));
        }
    }

    // A replica whose clock is behind must be able to restore what one ahead of it deleted.
    #[test]
    fn what_is_said_after_a_record_stands_whatever_the_clock_says() {
        let deleted = life(1_000 << 16, 9, true);
        let restored = Life::own(Some(deleted), Stamp::new(3, 0), ReplicaId([1; 16]), false);
        assert_eq!(deleted.max(restored), restored);
        assert!(!life(u64::MAX, 1, true).can_be_replaced());
        assert!(!life(1 << 63, 1, true).can_be_replaced());
        assert!(life((1 << 63) - 1, 1, true).can_be_replaced());
    }
}

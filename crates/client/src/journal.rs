//! The local changes of one document that are not known to be durable.
//!
//! Owns: their order, which of them are handed over, the last failure.
//! Must not: hand anything over itself. Next: `live.rs`; the replica crate.
//!
//! One group of changes is handed over at a time, under one ticket. What is made while it is on its way to the disk waits, and
//! is the next group: who types faster than the disk writes costs a commit for many changes, not for each. A group that
//! fails is handed over again with what was made since.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use syncline_core::change::Change;

/// The first wait before a failed group is handed over again; doubles with each failure.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Most changes of a group.
const GROUP_CHANGES_MAX: usize = 1_024;

/// Bytes from which on a group takes no further change.
const GROUP_BYTES: usize = 256 * 1024;

/// Unsaved changes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    unsaved: VecDeque<Change>,
    group: Group,
    /// Changes ever taken in.
    taken: u64,
    failure: Option<Arc<str>>,
    failures: u32,
}

/// Where the oldest unsaved changes are.
#[derive(Debug, Default, Clone, Copy)]
enum Group {
    /// There are none.
    #[default]
    None,
    /// So many of them are handed over.
    UnderWay { ticket: u64, changes: usize },
    /// They wait to be handed over again.
    Failed,
}

impl Journal {
    /// Takes new changes in, and hands the first group over unless an earlier one is under way or waits.
    pub(crate) fn extend(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        hand_over: impl FnOnce(Vec<Change>) -> u64,
    ) {
        let before = self.unsaved.len();
        self.unsaved.extend(changes);
        self.taken += (self.unsaved.len() - before) as u64;
        if matches!(self.group, Group::None) {
            self.begin(hand_over);
        }
    }

    /// A ticket is durable: the next group is handed over. A ticket of another group is not ours to believe.
    pub(crate) fn saved(&mut self, ticket: u64, hand_over: impl FnOnce(Vec<Change>) -> u64) {
        if let Group::UnderWay { ticket: expected, changes } = self.group
            && ticket == expected
        {
            self.unsaved.drain(..changes);
            (self.failures, self.failure) = (0, None);
            self.begin(hand_over);
        }
    }

    /// A ticket failed. Returns how long to wait before [`Journal::hand_over_again`], if it was valid.
    pub(crate) fn not_saved(&mut self, ticket: u64, reason: &str) -> Option<Duration> {
        let Group::UnderWay { ticket: expected, .. } = self.group else { return None };
        if ticket != expected {
            return None;
        }
        self.group = Group::Failed;
        self.failure = Some(Arc::from(reason));
        let wait = RETRY_MIN * 2u32.pow(self.failures.min(8));
        self.failures += 1;
        Some(wait.min(RETRY_MAX))
    }

    /// Hands over what waits to be handed over again.
    pub(crate) fn hand_over_again(&mut self, hand_over: impl FnOnce(Vec<Change>) -> u64) {
        if matches!(self.group, Group::Failed) {
            self.begin(hand_over);
        }
    }

    /// Whether an answer is to come.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.group, Group::UnderWay { .. })
    }

    /// Number of changes that are not durable.
    pub(crate) fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// Changes that are not durable, oldest first.
    pub(crate) fn unsaved_changes(&self) -> impl Iterator<Item = &Change> {
        self.unsaved.iter()
    }

    /// A mark that [`Journal::is_saved_up_to`] understands: everything taken in so far.
    pub(crate) fn mark(&self) -> u64 {
        self.taken
    }

    /// Whether everything before the mark is durable.
    pub(crate) fn is_saved_up_to(&self, mark: u64) -> bool {
        self.taken - self.unsaved.len() as u64 >= mark
    }

    /// Why changes are not saved, if the last try failed.
    pub(crate) fn failure(&self) -> Option<&Arc<str>> {
        self.failure.as_ref()
    }

    fn begin(&mut self, hand_over: impl FnOnce(Vec<Change>) -> u64) {
        let (mut group, mut bytes) = (Vec::new(), 0);
        for change in self.unsaved.iter().take(GROUP_CHANGES_MAX) {
            if bytes >= GROUP_BYTES {
                break;
            }
            bytes += change.bytes.len();
            group.push(change.clone());
        }
        self.group = match group.len() {
            0 => Group::None,
            changes => Group::UnderWay { changes, ticket: hand_over(group) },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::{AutoCommit, ROOT, transaction::Transactable};
    use syncline_core::limits::Limits;

    fn changes(count: u64) -> Vec<Change> {
        let mut document = AutoCommit::new();
        let change = |value| {
            document.put(ROOT, "value", value).expect("put");
            let change = document.get_last_local_change().expect("just made");
            Change::decode(change.raw_bytes().to_vec().into(), &Limits::default()).expect("automerge's own")
        };
        (0..count).map(change).collect()
    }

    /// Where groups go: which changes, under the ticket that stands at that place, from one.
    #[derive(Default)]
    struct Replica(Vec<Vec<u64>>);

    impl Replica {
        fn take(&mut self, group: Vec<Change>) -> u64 {
            self.0.push(group.iter().map(|change| change.seq).collect());
            self.0.len() as u64
        }
    }

    #[test]
    fn what_is_made_while_a_group_is_under_way_is_the_next_one() {
        let (mut journal, mut replica) = (Journal::default(), Replica::default());
        for change in changes(3) {
            journal.extend([change], |group| replica.take(group));
        }
        assert_eq!(replica.0, [[1]]);
        let mark = journal.mark();
        journal.saved(1, |group| replica.take(group));
        journal.extend(changes(4).pop(), |group| replica.take(group));
        assert_eq!(replica.0, [vec![1], vec![2, 3]]);
        assert!(!journal.is_saved_up_to(mark));
        journal.saved(2, |group| replica.take(group));
        assert!(journal.is_saved_up_to(mark) && !journal.is_saved_up_to(journal.mark()));
        assert_eq!(replica.0.last(), Some(&vec![4]));
        journal.saved(3, |_| unreachable!("there is nothing more"));
        assert_eq!((journal.unsaved(), journal.is_under_way()), (0, false));
    }

    #[test]
    fn a_group_has_its_bound() {
        let (mut journal, mut replica) = (Journal::default(), Replica::default());
        journal.extend(changes(GROUP_CHANGES_MAX as u64 + 1), |group| replica.take(group));
        assert_eq!(replica.0[0].len(), GROUP_CHANGES_MAX);
        journal.saved(1, |group| replica.take(group));
        assert_eq!(replica.0[1], [GROUP_CHANGES_MAX as u64 + 1]);
    }

    #[test]
    fn a_failed_group_goes_again_with_what_was_made_since_and_its_old_ticket_is_not_believed() {
        let (mut journal, mut replica) = (Journal::default(), Replica::default());
        let all = changes(3);
        journal.extend(all[..2].to_vec(), |group| replica.take(group));
        assert_eq!(journal.not_saved(1, "full"), Some(RETRY_MIN));
        assert_eq!(journal.not_saved(1, "full"), None, "one failure, one retry");
        journal.extend([all[2].clone()], |_| unreachable!("it builds on what is not there"));
        journal.saved(1, |_| unreachable!("it failed"));
        assert_eq!((journal.unsaved(), journal.failure().map(|reason| &**reason)), (3, Some("full")));
        journal.hand_over_again(|group| replica.take(group));
        assert_eq!(replica.0, [vec![1, 2], vec![1, 2, 3]]);
        assert!(journal.failure().is_some(), "a try is not a success");
        journal.saved(2, |_| unreachable!("there is nothing more"));
        assert_eq!((journal.unsaved(), journal.failure()), (0, None));
    }

    #[test]
    fn waits_grow_to_their_bound() {
        let mut journal = Journal::default();
        journal.extend(changes(1), |_| 1);
        let mut waits = Vec::new();
        for ticket in 1..12 {
            waits.extend(journal.not_saved(ticket, "full"));
            journal.hand_over_again(|_| ticket + 1);
        }
        assert_eq!(waits[..3], [RETRY_MIN, RETRY_MIN * 2, RETRY_MIN * 4]);
        assert_eq!(waits[10], RETRY_MAX);
    }
}

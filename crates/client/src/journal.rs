//! The local changes of one document that are not known to be durable.
//!
//! Owns: their order, the tickets under which they were handed over, the last failure.
//! Must not: hand anything over itself. Next: `live.rs`; the replica crate.
//!
//! Each change has a ticket of its own, and a failure voids the tickets of all changes after it too: they build on it,
//! so that whatever is said of them is said of a history that does not exist.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use syncline_core::change::Change;

/// The first wait before a failed change is handed over again; doubles with each failure.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Unsaved changes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    unsaved: VecDeque<Unsaved>,
    /// Changes ever taken in.
    taken: u64,
    failure: Option<Arc<str>>,
    failures: u32,
}

#[derive(Debug)]
struct Unsaved {
    change: Change,
    /// `None` while it waits to be handed over again.
    ticket: Option<u64>,
}

impl Journal {
    /// Takes a new change in, and hands it over unless earlier ones wait to be handed over again.
    pub(crate) fn push(&mut self, change: Change, hand_over: impl FnOnce(Change) -> u64) {
        let ticket = (!self.is_waiting()).then(|| hand_over(change.clone()));
        self.unsaved.push_back(Unsaved { change, ticket });
        self.taken += 1;
    }

    /// A ticket is durable. Tickets that were voided are not ours to believe.
    pub(crate) fn saved(&mut self, ticket: u64) {
        if self.unsaved.front().is_some_and(|first| first.ticket == Some(ticket)) {
            self.unsaved.pop_front();
            self.failures = 0;
        }
        if !self.is_waiting() {
            self.failure = None;
        }
    }

    /// A ticket failed. Returns how long to wait before [`Journal::hand_over_again`], if it was valid.
    pub(crate) fn not_saved(&mut self, ticket: u64, reason: &str) -> Option<Duration> {
        let at = self.unsaved.iter().position(|unsaved| unsaved.ticket == Some(ticket))?;
        for unsaved in self.unsaved.range_mut(at..) {
            unsaved.ticket = None;
        }
        self.failure = Some(Arc::from(reason));
        let wait = RETRY_MIN * 2u32.pow(self.failures.min(8));
        self.failures += 1;
        Some(wait.min(RETRY_MAX))
    }

    /// Hands over in order what waits.
    pub(crate) fn hand_over_again(&mut self, mut hand_over: impl FnMut(Change) -> u64) {
        for unsaved in self.unsaved.iter_mut().filter(|unsaved| unsaved.ticket.is_none()) {
            unsaved.ticket = Some(hand_over(unsaved.change.clone()));
        }
    }

    /// Whether changes wait to be handed over again.
    pub(crate) fn is_waiting(&self) -> bool {
        self.unsaved.back().is_some_and(|last| last.ticket.is_none())
    }

    /// Whether an answer is to come.
    pub(crate) fn is_under_way(&self) -> bool {
        self.unsaved.iter().any(|unsaved| unsaved.ticket.is_some())
    }

    /// Number of changes that are not durable.
    pub(crate) fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// Changes that are not durable, oldest first.
    pub(crate) fn unsaved_changes(&self) -> impl Iterator<Item = &Change> {
        self.unsaved.iter().map(|unsaved| &unsaved.change)
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

    fn journal_of(count: u64) -> Journal {
        let mut journal = Journal::default();
        for (ticket, change) in (1..).zip(changes(count)) {
            journal.push(change, |_| ticket);
        }
        journal
    }

    #[test]
    fn a_mark_is_reached_when_all_before_it_are_saved() {
        let mut journal = journal_of(2);
        let mark = journal.mark();
        journal.push(changes(3).remove(2), |_| 3);
        journal.saved(1);
        assert!(!journal.is_saved_up_to(mark));
        journal.saved(2);
        assert!(journal.is_saved_up_to(mark));
        assert_eq!(journal.unsaved(), 1);
    }

    #[test]
    fn what_is_said_of_changes_after_a_failed_one_is_not_believed() {
        let mut journal = journal_of(3);
        journal.saved(1);
        assert_eq!(journal.not_saved(2, "full"), Some(RETRY_MIN));
        journal.saved(3);
        assert_eq!(journal.unsaved(), 2);
        assert_eq!(journal.not_saved(3, "full"), None, "one failure, one retry");
    }

    #[test]
    fn failed_changes_are_handed_over_again_in_order_and_new_ones_wait_behind_them() {
        let mut journal = journal_of(2);
        journal.not_saved(1, "full");
        let all = changes(3);
        journal.push(all[2].clone(), |_| panic!("it builds on what is not there"));
        assert_eq!(journal.failure().map(|reason| &**reason), Some("full"));
        let mut sequence = Vec::new();
        let mut ticket = 10;
        journal.hand_over_again(|change| {
            sequence.push(change.seq);
            ticket += 1;
            ticket
        });
        assert_eq!(sequence, [1, 2, 3]);
        assert!(journal.failure().is_some(), "a try is not a success");
        for ticket in 11..=13 {
            journal.saved(ticket);
        }
        assert_eq!((journal.unsaved(), journal.failure()), (0, None));
    }

    #[test]
    fn waits_grow_to_their_bound() {
        let mut journal = journal_of(1);
        let mut waits = Vec::new();
        for ticket in 1..12 {
            waits.extend(journal.not_saved(ticket, "full"));
            journal.hand_over_again(|_| ticket + 1);
        }
        assert_eq!(waits[..3], [RETRY_MIN, RETRY_MIN * 2, RETRY_MIN * 4]);
        assert_eq!(waits[10], RETRY_MAX);
    }
}

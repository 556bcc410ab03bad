//! What is to be told to the mesh, at a bounded rate.
//!
//! Owns: the queue of documents, the merging of what is told of one.
//! Must not: forget the latest heads of a document that waits. Next: `../membership.rs`, `hearsay.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::id::DocumentId;

use crate::bucket::Bucket;
use crate::notice;

/// Notices in a second, beyond a burst of twice as many.
const PER_SECOND_MAX: u32 = 200;

/// Documents that wait to be told of. What is beyond is found by repair.
const QUEUE_MAX: usize = 16 * 1024;

/// What one document has to tell.
type Told = (Vec<Bytes>, Vec<ChangeHash>);

#[derive(Debug)]
pub(super) struct Announcements {
    order: VecDeque<DocumentId>,
    told: BTreeMap<DocumentId, Told>,
    room: Bucket,
    /// When the next may be told.
    next_at: Duration,
}

impl Default for Announcements {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            told: BTreeMap::new(),
            room: Bucket::new(PER_SECOND_MAX, Duration::ZERO),
            next_at: Duration::ZERO,
        }
    }
}

impl Announcements {
    /// A document has new heads. Changes that are not given are not small.
    pub(super) fn add(&mut self, document: DocumentId, changes: Vec<Bytes>, heads: Vec<ChangeHash>) {
        if let Some((waiting, latest)) = self.told.get_mut(&document) {
            let complete = !waiting.is_empty() && !changes.is_empty();
            waiting.extend(changes);
            if !complete || !notice::fits(waiting) {
                waiting.clear();
            }
            *latest = heads;
        } else if self.order.len() < QUEUE_MAX {
            self.order.push_back(document.clone());
            self.told.insert(document, (changes, heads));
        }
    }

    /// The next to be told, if it is time.
    pub(super) fn next(&mut self, now: Duration) -> Option<(DocumentId, Vec<ChangeHash>, Vec<Bytes>)> {
        if self.order.is_empty() {
            return None;
        }
        if !self.room.take(now) {
            self.next_at = now + Duration::from_secs(1) / PER_SECOND_MAX;
            return None;
        }
        let document = self.order.pop_front()?;
        let (changes, heads) = self.told.remove(&document)?;
        Some((document, heads, changes))
    }

    /// When [`Announcements::next`] has something.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.order.is_empty()).then_some(self.next_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(number: u8) -> DocumentId {
        DocumentId::from_bytes(&[number; 16]).expect("16 bytes")
    }

    fn head(number: u8) -> Vec<ChangeHash> {
        vec![ChangeHash([number; 32])]
    }

    #[test]
    fn what_waits_is_merged_and_told_at_a_bounded_rate() {
        let mut announcements = Announcements::default();
        let second = Duration::from_secs(1);
        let mut told = 0;
        for round in 0..1_000_u32 {
            announcements.add(document((round % 250) as u8), vec![Bytes::from_static(b"change")], head(round as u8));
            while announcements.next(second).is_some() {
                told += 1;
            }
        }
        assert_eq!(told, 2 * PER_SECOND_MAX);
        assert!(announcements.due().is_some_and(|due| due > second));
        let (_, heads, changes) = announcements.next(2 * second).expect("it is time");
        assert!(changes.len() > 1, "what came while it waited goes with it");
        assert!(!heads.is_empty());
        assert!(announcements.order.len() <= 250);
    }

    #[test]
    fn changes_that_are_not_all_there_are_not_sent() {
        let mut announcements = Announcements::default();
        announcements.add(document(1), vec![Bytes::from_static(b"small")], head(1));
        announcements.add(document(1), Vec::new(), head(2));
        announcements.add(document(1), vec![Bytes::from_static(b"small")], head(3));
        let told = announcements.next(Duration::ZERO);
        assert_eq!(told, Some((document(1), head(3), Vec::new())));
    }
}

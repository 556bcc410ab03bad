//! What came by sync from a neighbour, and may be news to the others.
//!
//! Owns: which heads all were told lately, the documents of which some were not. Must not: tell of anything itself.
//! Next: `../membership.rs`, `announce.rs`; docs/protocol.md §11, "Notices".
//!
//! Mostly it is no news: a comparison of two neighbours has overtaken a notice that is on its way to both. So it is waited
//! for, and whoever has waited the shortest tells the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use syncline_core::ChangeHash;
use syncline_core::id::DocumentId;

/// Heads that were told lately.
const TOLD_MAX: usize = 8_192;

/// Documents that wait. What is beyond is found by repair.
const WAITING_MAX: usize = 16 * 1024;

/// A document's head, in short.
type Digest16 = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct Hearsay {
    waiting: BTreeMap<DocumentId, (Duration, Vec<ChangeHash>)>,
    due: BTreeSet<(Duration, DocumentId)>,
    told: BTreeSet<Digest16>,
    told_order: VecDeque<Digest16>,
}

impl Hearsay {
    /// A document came to these heads by sync with a neighbour. The others are to be told at this time, if nobody does before.
    pub(super) fn add(&mut self, document: DocumentId, heads: Vec<ChangeHash>, due: Duration) {
        if self.waiting.contains_key(&document) || self.waiting.len() >= WAITING_MAX {
            return self.note_heads(document, heads);
        }
        if !self.is_told(&document, &heads) {
            self.due.insert((due, document.clone()));
            self.waiting.insert(document, (due, heads));
        }
    }

    /// A document has come to these heads.
    pub(super) fn note_heads(&mut self, document: DocumentId, heads: Vec<ChangeHash>) {
        if self.is_told(&document, &heads) {
            self.forget(&document);
        } else if let Some((_, latest)) = self.waiting.get_mut(&document) {
            *latest = heads;
        }
    }

    /// Everybody is told of all that is here of a document.
    pub(super) fn forget(&mut self, document: &DocumentId) {
        if let Some((due, _)) = self.waiting.remove(document) {
            self.due.remove(&(due, document.clone()));
        }
    }

    /// Everybody is told, or is being told, of these heads of a document and all that is below them.
    pub(super) fn note_told(&mut self, document: &DocumentId, heads: &[ChangeHash]) {
        for digest in heads.iter().map(|head| digest(document, head)) {
            if self.told.insert(digest) {
                self.told_order.push_back(digest);
            }
        }
        while self.told_order.len() > TOLD_MAX
            && let Some(oldest) = self.told_order.pop_front()
        {
            self.told.remove(&oldest);
        }
    }

    /// The next document that the others are to be told of, if it is time.
    pub(super) fn next(&mut self, now: Duration) -> Option<(DocumentId, Vec<ChangeHash>)> {
        while let Some((due, _)) = self.due.first()
            && *due <= now
        {
            let (_, document) = self.due.pop_first()?;
            let (_, heads) = self.waiting.remove(&document)?;
            if !self.is_told(&document, &heads) {
                return Some((document, heads));
            }
        }
        None
    }

    /// When [`Hearsay::next`] may have something.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    fn is_told(&self, document: &DocumentId, heads: &[ChangeHash]) -> bool {
        heads.iter().all(|head| self.told.contains(&digest(document, head)))
    }
}

fn digest(document: &DocumentId, head: &ChangeHash) -> Digest16 {
    let hash = Sha256::new_with_prefix(document.as_bytes()).chain_update(head.0).finalize();
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn document(number: u8) -> DocumentId {
        DocumentId::from_bytes(&[number; 16]).expect("16 bytes")
    }

    fn heads(numbers: &[u8]) -> Vec<ChangeHash> {
        numbers.iter().map(|number| ChangeHash([*number; 32])).collect()
    }

    #[test]
    fn what_nobody_tells_is_told_when_it_is_time_with_the_latest_heads() {
        let mut hearsay = Hearsay::default();
        hearsay.add(document(1), heads(&[1]), SECOND);
        hearsay.add(document(1), heads(&[1, 2]), 3 * SECOND);
        assert_eq!((hearsay.due(), hearsay.next(SECOND / 2)), (Some(SECOND), None));
        assert_eq!(hearsay.next(SECOND), Some((document(1), heads(&[1, 2]))));
        assert_eq!((hearsay.due(), hearsay.next(9 * SECOND)), (None, None));
    }

    #[test]
    fn what_others_tell_meanwhile_is_not_told_again_however_it_was_put_together() {
        let mut hearsay = Hearsay::default();
        hearsay.add(document(1), heads(&[1, 2]), SECOND);
        hearsay.note_told(&document(1), &heads(&[1]));
        hearsay.note_told(&document(2), &heads(&[2]));
        hearsay.note_heads(document(1), heads(&[1, 2]));
        assert_eq!(hearsay.due(), Some(SECOND), "nobody has told of the other head");
        hearsay.note_told(&document(1), &heads(&[2]));
        assert_eq!(hearsay.next(SECOND), None);
        hearsay.add(document(1), heads(&[1, 2]), SECOND);
        assert_eq!(hearsay.due(), None, "all were told before it came");
    }

    #[test]
    fn what_stands_on_it_and_is_told_tells_of_it_too() {
        let mut hearsay = Hearsay::default();
        hearsay.add(document(1), heads(&[1]), SECOND);
        hearsay.note_told(&document(1), &heads(&[2]));
        hearsay.note_heads(document(1), heads(&[2]));
        assert_eq!((hearsay.due(), hearsay.next(SECOND)), (None, None));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut hearsay = Hearsay::default();
        for number in 0..TOLD_MAX as u32 + 10 {
            let mut head = [0; 32];
            head[..4].copy_from_slice(&number.to_be_bytes());
            hearsay.note_told(&document(1), &[ChangeHash(head)]);
        }
        assert_eq!((hearsay.told.len(), hearsay.told_order.len()), (TOLD_MAX, TOLD_MAX));
    }
}

//! Negentropy's protocol V1: fingerprints of ranges, halved sixteenfold where they differ, and lists at the end.
//!
//! Owns: the answer to a message of ranges, from either side. Must not: remember anything between two messages.
//! Next: `wire.rs`; docs/protocol.md §10, "Ranges".

use super::sum::Part;
use super::tree::Tree;
use super::wire::{Bound, Content, Range, Ranges, Writer};
use super::{DIGEST_PREFIX_BYTES, Element, Missing, ReconcileError};

/// Into how many ranges one is split. One with fewer than two elements for each of them is listed.
pub(super) const BRANCHES: u64 = 16;

/// Room that is left in a message for the range that ends it.
const RESERVE_BYTES: usize = 200;

/// Elements of ours that one message can make us report, beyond which we split the range and see.
const REPORTS_MAX: u64 = 16 * 1024;

/// Which side of a round is answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Initiator,
    Responder,
}

/// What a message of ranges brings.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) message: Vec<u8>,
    pub(super) have: Vec<Element>,
    pub(super) missing: Vec<Missing>,
    /// Fingerprints that came, and how many of them were not ours.
    pub(super) compared: usize,
    pub(super) differing: usize,
    /// Whether the message has fingerprints, so that more messages will follow.
    pub(super) goes_deeper: bool,
}

/// The first message of a round.
pub(super) fn initiate(tree: &Tree) -> Vec<u8> {
    let mut walk = Walk::new(tree, Side::Initiator, usize::MAX);
    walk.write_parts(&Part::default(), tree.total(), &Bound::END);
    walk.out.finish()
}

/// Answers a message; the initiator also learns what differs.
pub(super) fn answer(
    tree: &Tree,
    mut ranges: Ranges<'_>,
    side: Side,
    bytes_max: usize,
) -> Result<Answer, ReconcileError> {
    let mut walk = Walk::new(tree, side, bytes_max);
    while let Some(range) = ranges.next()? {
        if !walk.range(range) {
            break;
        }
    }
    Ok(walk.finish())
}

struct Walk<'a> {
    tree: &'a Tree,
    side: Side,
    bytes_max: usize,
    out: Writer,
    /// Where the range that comes next begins; its part of the tree is looked up when needed.
    start: Element,
    start_part: Option<Part>,
    /// The end of ranges that need no more words and were not written yet.
    skipped: Option<Bound>,
    /// What lies below the last bound that was written.
    written: Part,
    answer: Answer,
}

impl<'a> Walk<'a> {
    fn new(tree: &'a Tree, side: Side, bytes_max: usize) -> Self {
        let answer = Answer {
            message: Vec::new(),
            have: Vec::new(),
            missing: Vec::new(),
            compared: 0,
            differing: 0,
            goes_deeper: false,
        };
        Self {
            tree,
            side,
            bytes_max,
            out: Writer::new(),
            start: Element::MIN,
            start_part: Some(Part::default()),
            skipped: None,
            written: Part::default(),
            answer,
        }
    }

    fn finish(self) -> Answer {
        Answer { message: self.out.finish(), ..self.answer }
    }

    /// Takes in a range; false if there is no room for more in the answer.
    fn range(&mut self, range: Range<'_>) -> bool {
        let end = range.end;
        match range.content {
            Content::Skip => self.pass(&end, None),
            Content::Fingerprint(theirs) => {
                let (lower, upper) = self.parts(&end);
                self.answer.compared += 1;
                if upper.without(&lower).fingerprint() == theirs {
                    return self.pass(&end, Some(upper));
                }
                self.answer.differing += 1;
                self.split(&lower, &upper, &end)
            }
            Content::List(theirs) => {
                let (lower, upper) = self.parts(&end);
                if self.side == Side::Responder {
                    return self.list(&lower, &upper, &end);
                }
                if self.compare_list(theirs, &lower, &upper, &end) {
                    return self.pass(&end, Some(upper));
                }
                self.split(&lower, &upper, &end)
            }
        }
    }

    /// Says nothing of the range.
    fn pass(&mut self, end: &Bound, part: Option<Part>) -> bool {
        self.skipped = Some(*end);
        (self.start, self.start_part) = (end.element, part);
        true
    }

    /// Says what there is in the range, by parts if there is much of it.
    fn split(&mut self, lower: &Part, upper: &Part, end: &Bound) -> bool {
        let mark = self.out.mark();
        self.flush_skipped();
        self.write_parts(lower, upper, end);
        if self.is_full() {
            self.out.rewind(mark);
            return self.sum_the_rest();
        }
        self.written = *upper;
        (self.start, self.start_part) = (end.element, Some(*upper));
        true
    }

    /// Lists what there is in the range, as much as has room.
    fn list(&mut self, lower: &Part, upper: &Part, end: &Bound) -> bool {
        self.flush_skipped();
        let room = self.bytes_max.saturating_sub(RESERVE_BYTES).saturating_sub(self.out.len()) / 32 + 1;
        let count = (upper.count - lower.count) as usize;
        let mut around = self.tree.from(lower.count);
        let elements: Vec<Element> = around.by_ref().take(count.min(room)).collect();
        let next = if count > room { around.next() } else { None };
        self.out.list(&next.map_or(*end, Bound::before), &elements);
        self.written = next.map_or(*upper, |next| self.tree.below(&next));
        if next.is_some() || self.is_full() {
            return self.sum_the_rest();
        }
        (self.start, self.start_part) = (end.element, Some(*upper));
        true
    }

    fn is_full(&self) -> bool {
        self.out.len() > self.bytes_max.saturating_sub(RESERVE_BYTES)
    }

    /// What lies below the start of the range and below its end.
    fn parts(&mut self, end: &Bound) -> (Part, Part) {
        let lower = self.start_part.unwrap_or_else(|| self.tree.below(&self.start));
        (lower, self.tree.below(&end.element))
    }

    fn flush_skipped(&mut self) {
        if let Some(end) = self.skipped.take() {
            self.out.skip(&end);
        }
    }

    fn write_parts(&mut self, lower: &Part, upper: &Part, end: &Bound) {
        let count = upper.count - lower.count;
        if count < 2 * BRANCHES {
            let elements: Vec<Element> = self.tree.from(lower.count).take(count as usize).collect();
            self.out.list(end, &elements);
            return;
        }
        self.answer.goes_deeper = true;
        let (each, extra) = (count / BRANCHES, count % BRANCHES);
        let mut from = *lower;
        for branch in 0..BRANCHES {
            let position = from.count + each + u64::from(branch < extra);
            let is_last = branch == BRANCHES - 1;
            let to = if is_last { *upper } else { self.tree.first(position) };
            let neighbours = || {
                let mut around = self.tree.from(position - 1);
                Some(Bound::between(&around.next()?, &around.next()?))
            };
            let bound = if is_last { *end } else { neighbours().unwrap_or(*end) };
            self.out.fingerprint(&bound, to.without(&from).fingerprint());
            from = to;
        }
    }

    /// Compares a range that the peer listed; false if ours has too much in it to be reported at once.
    fn compare_list(&mut self, theirs: &[u8], lower: &Part, upper: &Part, end: &Bound) -> bool {
        let count = upper.count - lower.count;
        if count >= 2 * BRANCHES && count + self.answer.have.len() as u64 > REPORTS_MAX {
            return false;
        }
        let mut theirs: Vec<(&[u8], bool)> = theirs.chunks_exact(32).map(|digest| (digest, false)).collect();
        theirs.sort_unstable();
        theirs.dedup();
        for element in self.tree.from(lower.count).take(count as usize) {
            match theirs.binary_search_by_key(&&element.digest[..], |(digest, _)| digest) {
                Ok(at) => theirs[at].1 = true,
                Err(_) => self.answer.have.push(element),
            }
        }
        let stamps = self.start.stamp..=end.element.stamp;
        for (digest, _) in theirs.iter().filter(|(_, is_here)| !is_here) {
            let digest = digest[..DIGEST_PREFIX_BYTES].try_into().expect("digests have 32 bytes");
            self.answer.missing.push(Missing { stamps: stamps.clone(), digest });
        }
        true
    }

    /// Ends the message with one fingerprint of everything behind the last bound that was written.
    fn sum_the_rest(&mut self) -> bool {
        self.answer.goes_deeper = true;
        let rest = self.tree.total().without(&self.written);
        self.out.fingerprint(&Bound::END, rest.fingerprint());
        false
    }
}

//! Agreement of two replicas on a large set of documents, at a cost that follows the difference.
//!
//! Owns: the elements, the set that is kept current, what a round finds, why a message is refused.
//! Must not: know how a message travels, or what follows from a difference.
//! Next: `reconcile/round.rs`; docs/protocol.md §10, docs/decisions/0020-ranges-to-look-sketches-to-list.md.

mod peel;
mod ranges;
mod round;
mod sketch;
mod sum;
mod tree;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use sha2::{Digest as _, Sha256};

use crate::ChangeHash;
use crate::clock::Stamp;
use crate::id::DocumentId;
use crate::life::Life;

pub use round::{Initiator, Options, Responder, Step};

use sketch::Sketch;
use tree::Tree;

/// Elements that [`ElementSet::find`] looks at in all: the ranges of one message hold a few thousand.
const FIND_WALK_MAX: usize = 64 * 1024;

/// Bytes of a digest that name an element whose other bytes did not travel.
pub const DIGEST_PREFIX_BYTES: usize = 16;

/// What the members of a set share, so that nobody else can choose documents whose digests collide or cancel out.
#[derive(Clone)]
pub struct SetKey(pub [u8; 32]);

/// It may be a secret.
impl fmt::Debug for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetKey(..)")
    }
}

/// One document in one state: when it changed last, and a digest of its id and heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    stamp: Stamp,
    digest: [u8; 32],
}

impl Element {
    /// The smallest of all.
    const MIN: Self = Self { stamp: Stamp::ZERO, digest: [0; 32] };

    /// An element. The last stamp of all stands for the end of the order, so it counts as the one before.
    #[must_use]
    pub fn new(stamp: Stamp, digest: [u8; 32]) -> Self {
        Self { stamp: stamp.min(Stamp::from_u64(u64::MAX - 1)), digest }
    }

    /// The element of a document with these heads, which must be sorted, and this life record.
    #[must_use]
    pub fn of(
        key: &SetKey,
        stamp: Stamp,
        document: &DocumentId,
        (heads, life): (&[ChangeHash], Option<&Life>),
    ) -> Self {
        let id = document.as_bytes();
        let mut hash = Sha256::new();
        hash.update(key.0);
        hash.update((id.len() as u32).to_be_bytes());
        hash.update(id);
        hash.update((heads.len() as u32).to_be_bytes());
        for head in heads {
            hash.update(head.0);
        }
        if let Some(life) = life {
            hash.update([u8::from(life.deleted)]);
            hash.update(life.stamp.to_be_bytes());
            hash.update(life.replica.0);
        }
        Self::new(stamp, hash.finalize().into())
    }

    /// When the document changed last.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The digest of the document's id and heads.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn prefix(&self) -> [u8; DIGEST_PREFIX_BYTES] {
        self.digest[..DIGEST_PREFIX_BYTES].try_into().expect("a digest is longer")
    }
}

/// An element that the peer has and we have not, as far as its description travelled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Missing {
    /// Where its stamp lies; one stamp if the peer listed it in a sketch.
    pub stamps: RangeInclusive<Stamp>,
    /// The first bytes of its digest.
    pub digest: [u8; DIGEST_PREFIX_BYTES],
}

/// An element as its owner lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Its stamp.
    pub stamp: Stamp,
    /// The first bytes of its digest.
    pub digest: [u8; DIGEST_PREFIX_BYTES],
}

impl From<&Element> for Listed {
    fn from(element: &Element) -> Self {
        Self { stamp: element.stamp, digest: element.prefix() }
    }
}

/// The elements of a replica, kept current in memory: a tree with counts and sums, and the first symbols of the
/// endless sketch of them.
#[derive(Debug, Clone)]
pub struct ElementSet {
    tree: Tree,
    sketch: Sketch,
}

impl ElementSet {
    /// A set of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { tree: Tree::new(), sketch: Sketch::new() }
    }

    /// Adds an element; false if it was there.
    pub fn insert(&mut self, element: Element) -> bool {
        let added = self.tree.insert(&element);
        if added {
            self.sketch.add(&element);
        }
        added
    }

    /// Takes an element out; false if it was not there.
    pub fn remove(&mut self, element: &Element) -> bool {
        let removed = self.tree.remove(element);
        if removed {
            self.sketch.remove(element);
        }
        removed
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tree.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this element is here.
    #[must_use]
    pub fn contains(&self, element: &Element) -> bool {
        self.tree.contains(element)
    }

    /// So many elements that follow this one, in order; from the first on without one.
    pub(crate) fn page(&self, after: Option<&Element>, count: usize) -> Vec<Element> {
        let begin = after.map_or(0, |after| self.tree.below(after).count + u64::from(self.contains(after)));
        self.tree.from(begin).take(count).collect()
    }

    /// Whether an element that a peer lists is here.
    pub(crate) fn has_listed(&self, listed: &Listed) -> bool {
        self.at(listed.stamp, &listed.digest).is_some()
    }

    /// The elements with this stamp whose digests begin so.
    pub(crate) fn beginning<'a>(&'a self, stamp: Stamp, prefix: &'a [u8]) -> impl Iterator<Item = Element> + 'a {
        let mut from = Element { stamp, digest: [0; 32] };
        from.digest[..prefix.len()].copy_from_slice(prefix);
        let begin = self.tree.below(&from).count;
        let same = move |element: &Element| element.stamp == stamp && element.digest.starts_with(prefix);
        self.tree.from(begin).take_while(same)
    }

    /// The elements that a peer calls missing, those that are here, at a cost that is bounded whatever it says.
    #[must_use]
    pub fn find(&self, missing: &[Missing]) -> Vec<Element> {
        let mut found = Vec::new();
        let mut walked = 0;
        for named in missing.chunk_by(|one, other| one.stamps == other.stamps) {
            let stamps = &named[0].stamps;
            if stamps.start() == stamps.end() {
                found.extend(named.iter().filter_map(|named| self.at(*stamps.start(), &named.digest)));
                continue;
            }
            let digests: BTreeSet<_> = named.iter().map(|named| named.digest).collect();
            let begin = self.tree.below(&Element::new(*stamps.start(), [0; 32])).count;
            let within = self.tree.from(begin).take_while(|element| element.stamp <= *stamps.end());
            let within = within.take(FIND_WALK_MAX - walked).inspect(|_| walked += 1);
            found.extend(within.filter(|element| digests.contains(&element.prefix())));
        }
        found
    }

    /// The element with this stamp and beginning of a digest.
    fn at(&self, stamp: Stamp, digest: &[u8; DIGEST_PREFIX_BYTES]) -> Option<Element> {
        let mut from = Element { stamp, digest: [0; 32] };
        from.digest[..DIGEST_PREFIX_BYTES].copy_from_slice(digest);
        let found = self.tree.first_from(&from)?;
        (found.stamp == stamp && found.prefix() == *digest).then_some(found)
    }
}

impl Default for ElementSet {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<Element> for ElementSet {
    /// The set of these elements, in whatever order they come.
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        let mut elements: Vec<Element> = elements.into_iter().collect();
        elements.sort_unstable();
        elements.dedup();
        let mut sketch = Sketch::new();
        for element in &elements {
            sketch.add(element);
        }
        Self { tree: Tree::from_sorted(&elements), sketch }
    }
}

/// Why a message of a round is refused. **State:** the set is as it was; what was found before is good.
/// **Do:** end the round and tell the peer; another round can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// It ends inside a field, or names more than follows.
    #[error("a reconciliation message ends inside its fields")]
    Truncated,
    /// It is larger than any that is read.
    #[error("a reconciliation message has {0} bytes")]
    TooLarge(usize),
    /// A number does not fit 64 bits.
    #[error("a number in a reconciliation message is too large")]
    Number,
    /// A bound has more bytes than a digest.
    #[error("a bound in a reconciliation message has {0} bytes of a digest")]
    Prefix(u64),
    /// A range ends before the one that precedes it, or follows the last.
    #[error("the ranges of a reconciliation message are not in order")]
    Unordered,
    /// A range is neither skipped, summed nor listed.
    #[error("a range of a reconciliation message has the unknown mode {0}")]
    Mode(u64),
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {0:#04x} of the reconciliation protocol")]
    Version(u8),
    /// It is of a kind that does not belong where it came.
    #[error("a reconciliation message came out of turn")]
    OutOfTurn,
    /// What a sketch lists cannot be.
    #[error("the sketch of a peer contradicts itself")]
    Contradiction,
    /// The round has not ended after the most messages that it may take.
    #[error("a reconciliation round does not end")]
    Endless,
}

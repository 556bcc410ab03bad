//! How many elements there are and what their digests add up to: all that a fingerprint is made of.
//!
//! Owns: sums modulo 2²⁵⁶ and the fingerprint of negentropy's protocol V1. Must not: know where elements are kept.
//! Next: `tree.rs`; docs/protocol.md §10.

use sha2::{Digest as _, Sha256};

use super::Element;
use super::wire::put_number;

/// A count of elements and the sum of their digests, read as little-endian numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) count: u64,
    sum: [u64; 4],
}

impl Part {
    pub(super) fn add(&mut self, element: &Element) {
        self.join(&Self { count: 1, sum: words(&element.digest) });
    }

    pub(super) fn take(&mut self, element: &Element) {
        *self = self.without(&Self { count: 1, sum: words(&element.digest) });
    }

    /// Adds what another part holds.
    pub(super) fn join(&mut self, other: &Self) {
        self.count += other.count;
        let mut carry = false;
        for (word, more) in self.sum.iter_mut().zip(other.sum) {
            let (sum, first) = word.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, first || second);
        }
    }

    /// What is left without a part of it.
    pub(super) fn without(&self, part: &Self) -> Self {
        let mut left = Self { count: self.count - part.count, sum: self.sum };
        let mut borrow = false;
        for (word, less) in left.sum.iter_mut().zip(part.sum) {
            let (rest, first) = word.overflowing_sub(less);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (rest, first || second);
        }
        left
    }

    pub(super) fn fingerprint(&self) -> [u8; 16] {
        let mut bytes = Vec::with_capacity(42);
        for word in self.sum {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        put_number(&mut bytes, self.count);
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        digest[..16].try_into().expect("a digest is longer")
    }
}

fn words(digest: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("chunks of 8"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;

    #[test]
    fn what_is_added_and_taken_again_leaves_no_trace() {
        let elements = [[0xff; 32], [1; 32], [0x80; 32]].map(|digest| Element::new(Stamp::ZERO, digest));
        let mut part = Part::default();
        elements.iter().for_each(|element| part.add(element));
        let all = part;
        elements[..2].iter().for_each(|element| part.take(element));
        let mut last = Part::default();
        last.add(&elements[2]);
        assert_eq!(part, last);
        assert_eq!(all.without(&last).count, 2);
        assert_ne!(all.fingerprint(), last.fingerprint());
    }
}

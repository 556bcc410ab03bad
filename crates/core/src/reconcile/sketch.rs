//! The endless sketch of a set: symbols, each the sum of some elements, of which about 1.4 for each difference suffice
//! to list all differences between two sets.
//!
//! Owns: which symbols an element is in, and the first symbols of ours, kept current. Yang, Gilad, Alizadeh 2024,
//! "Practical Rateless Set Reconciliation". Must not: know messages. Next: `peel.rs`; docs/protocol.md §10, "Sketches".

use std::iter::repeat_n;
use std::sync::Arc;

use super::Element;
use crate::clock::Stamp;

/// Symbols that are kept; the next of them would be the sum of the few elements that reach so far.
pub(super) const SYMBOLS_MAX: u64 = 8 * 1024;

/// Symbols that are copied together when the set changes while a round still needs them as they were.
const BLOCK: usize = 256;

/// The sum of some elements, each field by exclusive or, and how many they are. In a difference of two sketches the
/// count is how many more the peer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) stamp: u64,
    pub(super) digest: [u64; 2],
    pub(super) check: u64,
    pub(super) count: i64,
}

impl Symbol {
    /// The symbol of one element alone.
    pub(super) fn of(element: &Element) -> Self {
        let word = |at: usize| u64::from_be_bytes(element.digest[at..at + 8].try_into().expect("8 bytes"));
        Self::single(element.stamp.as_u64(), [word(0), word(8)])
    }

    fn single(stamp: u64, digest: [u64; 2]) -> Self {
        Self { stamp, digest, check: check(stamp, digest), count: 1 }
    }

    /// Adds or takes out: exclusive or does not tell them apart, the count does.
    pub(super) fn mix(&mut self, other: &Self, sign: i64) {
        self.stamp ^= other.stamp;
        self.digest[0] ^= other.digest[0];
        self.digest[1] ^= other.digest[1];
        self.check ^= other.check;
        self.count = self.count.wrapping_add(other.count.wrapping_mul(sign));
    }

    /// The only element of this symbol, if there is only one, with a count of 1 or -1.
    pub(super) fn only(&self) -> Option<Self> {
        let is_one = self.count.unsigned_abs() == 1 && self.check == check(self.stamp, self.digest);
        is_one.then_some(*self)
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp::from_u64(self.stamp)
    }

    pub(super) fn prefix(&self) -> [u8; 16] {
        let mut prefix = [0; 16];
        prefix[..8].copy_from_slice(&self.digest[0].to_be_bytes());
        prefix[8..].copy_from_slice(&self.digest[1].to_be_bytes());
        prefix
    }
}

/// The symbols that an element is in, in order, without an end: the first, and symbol `i` with probability `2/(i+2)`.
#[derive(Debug, Clone)]
pub(super) struct Indices {
    next: u64,
    state: u64,
}

impl Indices {
    pub(super) fn of(symbol: &Symbol) -> Self {
        Self { next: 0, state: symbol.check }
    }

    /// The next one below a limit; what lies behind it comes when the limit is raised.
    pub(super) fn below(&mut self, limit: u64) -> Option<usize> {
        let index = self.next;
        if index >= limit {
            return None;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // From 2⁻⁵³ to 1, so that the step is finite. Both operations round alike on all machines (IEEE 754).
        let chance = ((scramble(self.state) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let reach = (index as f64 + 1.5) / chance.sqrt() - 1.5;
        self.next = (reach.ceil() as u64).max(index + 1);
        Some(index as usize)
    }
}

/// How many of so many elements are in a symbol, on average.
pub(super) fn expected(size: u64, index: u64) -> i64 {
    (u128::from(size) * 2 / (u128::from(index) + 2)) as i64
}

/// Not linear, so that the checks of several elements do not add up to that of one.
fn check(stamp: u64, digest: [u64; 2]) -> u64 {
    scramble(scramble(scramble(stamp) ^ digest[0]) ^ digest[1])
}

/// The finaliser of splitmix64.
fn scramble(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The first symbols of a set. A clone costs little and stays as it is while the set goes on.
#[derive(Debug, Clone)]
pub(super) struct Sketch {
    blocks: Vec<Arc<[Symbol; BLOCK]>>,
}

impl Sketch {
    pub(super) fn new() -> Self {
        // Most sets of documents are small: they fill the first blocks and share the others.
        let empty = Arc::new([Symbol::default(); BLOCK]);
        Self { blocks: repeat_n(empty, SYMBOLS_MAX as usize / BLOCK).collect() }
    }

    pub(super) fn add(&mut self, element: &Element) {
        self.mix(element, 1);
    }

    pub(super) fn remove(&mut self, element: &Element) {
        self.mix(element, -1);
    }

    /// These symbols, which are among the first.
    pub(super) fn symbols(&self, from: u64, to: u64) -> impl Iterator<Item = Symbol> {
        (from as usize..to as usize).map(|index| self.blocks[index / BLOCK][index % BLOCK])
    }

    /// How many elements are in it.
    pub(super) fn size(&self) -> u64 {
        self.blocks[0][0].count.unsigned_abs()
    }

    fn mix(&mut self, element: &Element, sign: i64) {
        let symbol = Symbol::of(element);
        let mut indices = Indices::of(&symbol);
        while let Some(index) = indices.below(SYMBOLS_MAX) {
            Arc::make_mut(&mut self.blocks[index / BLOCK])[index % BLOCK].mix(&symbol, sign);
        }
    }
}

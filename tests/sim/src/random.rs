//! Where chance comes from: one seed, split into streams that do not disturb each other.
//!
//! Owns: the generator. Must not: be used while a scenario is played; all chance is in the scenario.
//! Next: `scenario.rs`.
//!
//! SplitMix64 (Steele, Lea, Flood 2014), written out here so that a seed means the same after any update of a library.

/// One stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Stream(u64);

impl Stream {
    /// The stream of this name under this seed.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let mut stream = Self(seed);
        for byte in name.bytes() {
            stream.0 = stream.next() ^ u64::from(byte);
        }
        stream
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which must not be zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in so many of 10,000 cases.
    pub(crate) fn chance(&mut self, in_10_000: u64) -> bool {
        self.below(10_000) < in_10_000
    }

    /// One of these.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

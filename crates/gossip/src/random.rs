//! The overlay's one source of chance.
//!
//! Owns: draws from a seed. Must not: draw from anywhere else. Next: `overlay.rs`.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Draws that equal seeds repeat. The generator is one whose output does not tell what comes next: nonces are drawn here.
#[derive(Debug)]
pub(crate) struct Random(ChaCha12Rng);

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A number below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.0.next_u64() % (end.max(1) as u64)) as usize
    }

    /// One of these, if there is one.
    pub(crate) fn one_of<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        among.get(self.below(among.len())).copied()
    }

    /// At most `count` of these, in random order.
    pub(crate) fn some_of<T>(&mut self, mut among: Vec<T>, count: usize) -> Vec<T> {
        let taken = count.min(among.len());
        for at in 0..taken {
            let other = at + self.below(among.len() - at);
            among.swap(at, other);
        }
        among.truncate(taken);
        among
    }

    /// Half of a time for certain, half by chance.
    pub(crate) fn around(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.5 + (self.0.next_u64() >> 11) as f64 / (1_u64 << 54) as f64)
    }
}

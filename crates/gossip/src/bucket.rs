//! A bound on how often something happens.
//!
//! Owns: the count. Must not: read a clock. Next: `overlay.rs`, `broadcast.rs`.

use std::time::Duration;

/// A token bucket that holds two seconds' worth.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, now: Duration) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second * 2.0, filled_at: now }
    }

    /// Takes one; false if there is none.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second * 2.0);
        self.filled_at = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_two_seconds_then_the_rate() {
        let mut bucket = Bucket::new(10, Duration::ZERO);
        let mut taken = |from_ms: u64| (0..100).filter(|_| bucket.take(Duration::from_millis(from_ms))).count();
        assert_eq!((taken(0), taken(500), taken(60_000)), (20, 5, 20));
    }
}

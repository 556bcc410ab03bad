//! A token bucket: so many at once, and so many a second in the long run.
//!
//! Owns: the arithmetic. Must not: read a clock. Next: `session.rs`, `hub/relay.rs`, `collection.rs`.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    full: f64,
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: f64, full: f64) -> Self {
        Self { per_second, full, tokens: full, filled_at: Duration::ZERO }
    }

    /// Fills at another rate, up to another number, from here on.
    pub(crate) fn set_rate(&mut self, per_second: f64, full: f64) {
        (self.per_second, self.full) = (per_second, full);
        self.tokens = self.tokens.min(full);
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        self.fill(now);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }

    /// Takes so many, whether they are there or not. Returns how long it takes until what is lacking has come.
    pub(crate) fn owe(&mut self, now: Duration, count: f64) -> Duration {
        self.fill(now);
        self.tokens -= count;
        Duration::try_from_secs_f64((-self.tokens).max(0.0) / self.per_second).unwrap_or(Duration::MAX)
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.full);
        self.filled_at = now;
    }
}

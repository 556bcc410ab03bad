//! The links between replicas: ordered, and late, lossy or cut.
//!
//! Owns: when a frame arrives, whether it does, who can reach whom. Must not: look into a frame.
//! Next: `world.rs`.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// After which TCP sends again what was not acknowledged; doubles each time.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// One connection, between the node that dialled and the one that was dialled.
#[derive(Debug)]
pub(crate) struct Link {
    /// Who dialled, and who was dialled.
    pub(crate) ends: [usize; 2],
    latency: Duration,
    /// When the last frame of each end arrives: none overtakes it.
    last: [Duration; 2],
}

impl Link {
    pub(crate) fn new(ends: [usize; 2], latency: Duration) -> Self {
        Self { ends, latency, last: [Duration::ZERO; 2] }
    }

    pub(crate) fn latency(&self) -> Duration {
        self.latency
    }

    /// When a frame sent now arrives; `None` if it does not.
    pub(crate) fn arrival(
        &mut self,
        now: Duration,
        from: usize,
        (loss, may_be_lost): (f64, bool),
        rng: &mut ChaCha8Rng,
    ) -> Option<Duration> {
        let end = usize::from(self.ends[0] != from);
        let mut at = now + self.latency.mul_f64(rng.random_range(0.8..1.2));
        let mut wait = RETRANSMIT;
        while loss > 0.0 && rng.random_bool(loss) {
            if may_be_lost {
                return None;
            }
            at += wait;
            wait *= 2;
        }
        self.last[end] = self.last[end].max(at);
        Some(self.last[end])
    }
}

/// Which half of a cut network a node is in.
pub(crate) fn half(node: usize) -> usize {
    node % 2
}

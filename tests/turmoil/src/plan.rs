//! What will happen: who there is, when which link fails and for how long, when the server dies.
//!
//! Owns: drawing it from a seed. Must not: look at a world. Next: `world.rs`.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing passes between a client and the server; what was under way is lost.
    Partition,
    /// Nothing passes from a client to the server.
    ClientUnheard,
    /// Nothing passes from the server to a client.
    ServerUnheard,
    /// What a client and the server send waits, and comes when the fault is over.
    Hold,
    /// Messages take up to a second.
    Slow,
    /// The server dies, and starts again over the same files.
    Crash,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Partition, Self::ClientUnheard, Self::ServerUnheard, Self::Hold, Self::Slow, Self::Crash];
}

/// One fault: when, for how long, and whom it meets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    pub(crate) fault: Fault,
    pub(crate) client: usize,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// Everything that is decided before it begins.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) seed: u64,
    pub(crate) clients: usize,
    pub(crate) documents: usize,
    /// How long the clients write.
    pub(crate) work: Duration,
    /// Longest between two changes of a client, milliseconds.
    pub(crate) edit_ms_max: u64,
    pub(crate) strikes: Vec<Strike>,
}

impl Plan {
    /// The plan of a seed: each fault is in half of them.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clients = random.random_range(2..=4);
        let work_ms = random.random_range(20_000..=60_000);
        let mut strikes = Vec::new();
        for fault in Fault::ALL {
            if random.random_bool(0.5) {
                for _ in 0..random.random_range(1..=4) {
                    let from = random.random_range(0..work_ms);
                    let lasts = if random.random_bool(0.3) { 20_000..90_000 } else { 50..5_000 };
                    let until = from + random.random_range(lasts);
                    let client = random.random_range(0..clients);
                    let (from, until) = (Duration::from_millis(from), Duration::from_millis(until));
                    strikes.push(Strike { fault, client, from, until });
                }
            }
        }
        Self {
            seed,
            clients,
            documents: random.random_range(1..=2),
            work: Duration::from_millis(work_ms),
            edit_ms_max: random.random_range(200..4_000),
            strikes,
        }
    }
}

//! What is played.
//!
//! Owns: the numbers of a run. Must not: hold anything that a run changes. Next: `world.rs`.

use std::time::Duration;

use syncline_gossip::Config;

/// One run. Equal plans give equal outcomes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Replicas.
    pub nodes: usize,
    /// Documents, in which all take part; each has three authors.
    pub documents: usize,
    /// How long edits are made and faults happen.
    pub duration: Duration,
    /// How long it may take after that until all agree.
    pub settle: Duration,
    /// Edits in a second, by replicas that are up, whether they are connected or not.
    pub edits_per_second: f64,
    /// Share of frames that are lost. A message of the broadcast or a beat that is lost never comes; others come late, as
    /// over TCP, and hold up what is behind them.
    pub loss: f64,
    /// Share of the replicas that are killed in a minute. Each is down for 1 to 10 s, then starts again with its disk.
    pub churn_per_minute: f64,
    /// When the network is cut in two halves, and for how long.
    pub split: Option<Split>,
    /// One way over a link, from and to.
    pub latency: (Duration, Duration),
    /// How the members behave.
    pub config: Config,
    /// What chance follows from.
    pub seed: u64,
}

/// A cut of the network in two halves.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub length: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 50,
            documents: 10,
            duration: Duration::from_secs(60),
            settle: Duration::from_secs(120),
            edits_per_second: 5.0,
            loss: 0.0,
            churn_per_minute: 0.0,
            split: None,
            latency: (Duration::from_millis(5), Duration::from_millis(50)),
            config: Config::default(),
            seed: 1,
        }
    }
}

//! What came of a run.
//!
//! Owns: the figures. Must not: round them in its favour. Next: `world.rs`.

use std::time::Duration;

/// The figures of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whether all replicas had the same heads at the end, with every change that was acknowledged.
    pub agreed: bool,
    /// When that was, after the last edit and fault; `None` if it was not.
    pub settled_after: Option<Duration>,
    /// Edits that were made durable by their author.
    pub edits: u64,
    /// The longest that an edit took to a replica, from when it was made, or from when the replica was up, or the network
    /// whole, if that was later.
    pub slowest: Duration,
    /// The same: half of all, and 99 of 100, took no longer.
    pub quantiles: (Duration, Duration),
    /// Copies of a notice that a replica received, on average, of those that it received at all.
    pub notice_copies: f64,
    /// Copies of a change that a replica received, by notice or by sync, on average.
    pub change_copies: f64,
    /// Frames that a replica sent in a second, on average.
    pub frames_per_second: f64,
    /// Bytes that a replica sent in a second, on average.
    pub bytes_per_second: f64,
    /// Frames and bytes that each replica sent.
    pub per_node: Vec<(u64, u64)>,
    /// Repairs of all replicas.
    pub repairs: u64,
    /// Notices asked for by name.
    pub grafts: u64,
    /// Replicas that were killed.
    pub kills: u64,
    /// What was seen four times a second.
    pub samples: Vec<Sample>,
}

/// The mesh at one time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// Replicas that are up.
    pub up: usize,
    /// Of these, how many are in the state in which most are.
    pub agreed: usize,
    /// Frames sent by all since the sample before.
    pub frames: u64,
    /// Bytes sent by all since the sample before.
    pub bytes: u64,
    /// Copies of notices received since the sample before, for each that was new; 0 if none came.
    pub copies: f64,
    /// Neighbours of a replica, on average.
    pub neighbours: f64,
}

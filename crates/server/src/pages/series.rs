//! What was counted in the last minutes, at even distances.
//!
//! Owns: the samples and their bound. Must not: count anything itself. Next: `overview.rs`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::server::Shared;

/// Samples kept: five minutes.
const SAMPLES_MAX: usize = 150;

/// Totals since the start, but for the connections.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    changes: u64,
    frames: u64,
    bytes: u64,
    connections: i64,
}

/// Samples, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Series {
    samples: Mutex<VecDeque<Sample>>,
}

/// What the samples say, oldest first.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// Changes made durable, a second.
    pub(super) changes: Vec<f64>,
    /// Frames in and out, a second.
    pub(super) frames: Vec<f64>,
    /// Bytes in and out, a second.
    pub(super) bytes: Vec<f64>,
    /// Connections.
    pub(super) connections: Vec<f64>,
}

impl Series {
    /// Between two samples.
    pub(crate) const EVERY: Duration = Duration::from_secs(2);

    /// Takes a sample.
    pub(crate) fn sample(&self, shared: &Shared) {
        let metrics = shared.replica.metrics();
        let sample = Sample {
            changes: metrics.changes.get(),
            frames: metrics.frames_in.get() + metrics.frames_out.get(),
            bytes: metrics.bytes_in.get() + metrics.bytes_out.get(),
            connections: metrics.connections.get(),
        };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    pub(super) fn rates(&self) -> Rates {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rates = Rates::default();
        for (before, after) in samples.iter().zip(samples.iter().skip(1)) {
            let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / Self::EVERY.as_secs_f64();
            rates.changes.push(rate(before.changes, after.changes));
            rates.frames.push(rate(before.frames, after.frames));
            rates.bytes.push(rate(before.bytes, after.bytes));
            rates.connections.push(after.connections as f64);
        }
        rates
    }
}

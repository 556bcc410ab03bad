//! How fast a peer may send: what comes faster is not refused, but read later.
//!
//! Owns: what a connection has sent lately, and when it may be read from again. Must not: drop anything.
//! Next: `../session.rs`; docs/protocol.md §7.

use std::time::Duration;

use super::{Offence, Step};
use crate::bucket::Bucket;
use crate::hub::PeerMessage;
use crate::limits::Limits;

/// How many seconds' worth may come at once: a peer that comes back speaks of all its documents.
const BURST_SECONDS: f64 = 4.0;

/// Changes that take as long as a message.
const CHANGES_PER_MESSAGE: usize = 100;

/// Hashes, or entries of a filter, that take as long as a message.
const HASHES_PER_MESSAGE: usize = 1_000;

/// Bits of a filter for each of its entries.
const FILTER_BITS_PER_ENTRY: usize = 10;

/// A pause shorter than this is not worth a timer.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Between two times that the peer is told.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// What one connection has sent lately.
#[derive(Debug)]
pub(super) struct Flow {
    messages: Bucket,
    bytes: Bucket,
    told_at: Option<Duration>,
}

/// The connection is not to be read from for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// For how long.
    pub wait: Duration,
    /// What is to be said of it, if that has not been said lately.
    pub tell: Option<Offence>,
}

impl Flow {
    pub(super) fn new(limits: &Limits) -> Self {
        let bucket = |per_second: f64| Bucket::new(per_second, per_second * BURST_SECONDS);
        let (messages, bytes) = (f64::from(limits.messages_per_second_max), limits.bytes_per_second_max as f64);
        Self { messages: bucket(messages), bytes: bucket(bytes), told_at: None }
    }

    /// Counts at other rates from here on.
    pub(super) fn set_limits(&mut self, limits: &Limits) {
        let (messages, bytes) = (f64::from(limits.messages_per_second_max), limits.bytes_per_second_max as f64);
        self.messages.set_rate(messages, messages * BURST_SECONDS);
        self.bytes.set_rate(bytes, bytes * BURST_SECONDS);
    }

    /// Counts a frame of so many bytes, which is worth so many messages.
    pub(super) fn count(&mut self, now: Duration, (bytes, weight): (usize, usize), limits: &Limits) -> Option<Pause> {
        let by_messages = self.messages.owe(now, weight as f64);
        let by_bytes = self.bytes.owe(now, bytes as f64);
        let wait = by_messages.max(by_bytes);
        if wait < PAUSE_MIN {
            return None;
        }
        let told = self.told_at.is_some_and(|at| now < at + TOLD_AGAIN);
        let tell = (!told).then(|| {
            self.told_at = Some(now);
            if by_messages >= by_bytes {
                Offence::MessageRate { per_second_max: limits.messages_per_second_max }
            } else {
                Offence::ByteRate { per_second_max: limits.bytes_per_second_max }
            }
        });
        Some(Pause { wait, tell })
    }
}

/// As how many messages a frame counts: what it brings and asks has to be decoded and looked up.
pub(super) fn weight(steps: &[Step]) -> usize {
    let sync = steps.iter().find_map(|step| {
        let Step::Forward(PeerMessage::Sync(message)) = step else { return None };
        Some(message)
    });
    let Some(message) = sync else { return 1 };
    let statement = &message.statement;
    let entries = statement.have.iter().map(|have| have.bloom.len() * 8 / FILTER_BITS_PER_ENTRY + have.last_sync.len());
    let hashes = entries.sum::<usize>() + statement.need.len() + statement.heads.len();
    let changes = message.changes.len() + message.refused.len();
    1 + changes / CHANGES_PER_MESSAGE + hashes / HASHES_PER_MESSAGE
}

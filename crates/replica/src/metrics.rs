//! What a replica counts.
//!
//! Owns: the counters and their names. Must not: be process-global: several replicas run in one test.
//! Next: `metrics/queues.rs`, `metrics/rounds.rs`; the server crate's `/metrics`.

mod queues;
mod rounds;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use syncline_store::Transacted;

pub use queues::{Kind, QueueMetrics, Skew};
pub use rounds::{Direction, RoundMetrics, Side, Went};

use crate::refusals::RefusalLog;

/// Counters of one replica.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Connections open.
    pub connections: Gauge,
    /// Connections accepted or dialled since the start.
    pub connections_total: Counter,
    /// Frames received.
    pub frames_in: Counter,
    /// Frames sent.
    pub frames_out: Counter,
    /// Bytes received, frames and their headers.
    pub bytes_in: Counter,
    /// Bytes sent, frames and their headers.
    pub bytes_out: Counter,
    /// Writes to sockets: each carries all that was queued.
    pub writes: Counter,
    /// Changes made durable.
    pub changes: Counter,
    /// Commits that failed.
    pub commit_failures: Counter,
    /// From handing changes to the store until they were durable, seconds.
    pub commit_seconds: Histogram,
    /// One transaction of the store, without the wait for the one before, seconds.
    pub transaction_seconds: Histogram,
    /// Commits in one transaction.
    pub transaction_commits: Histogram,
    /// Bytes of changes in one transaction.
    pub transaction_bytes: Histogram,
    /// From a commit until a peer's socket has taken the message that tells of it, seconds.
    pub fan_out_seconds: Histogram,
    /// What waits.
    pub queues: QueueMetrics,
    /// Comparisons of all documents with peers.
    pub rounds: RoundMetrics,
    /// What peers sent that was not taken, by reason.
    pub refused: Family<Reason, Counter>,
    /// The sum of that.
    refusals: Counter,
    /// How many of them have been written down lately.
    log: Arc<RefusalLog>,
    /// Documents that could not be compacted and stay raw, by reason. One that grows may be counted again.
    pub quarantined: Family<Reason, Counter>,
    /// Bytes of blobs received over websockets.
    pub blob_bytes_in: Counter,
    /// Bytes of blobs sent over websockets.
    pub blob_bytes_out: Counter,
    /// Blobs that were found damaged.
    pub blobs_damaged: Counter,
    /// Seconds for which connections were not read from because they sent faster than they may.
    pub paused_seconds: Counter<f64, AtomicU64>,
    /// Whether there is room for what peers bring.
    pub has_room: Gauge,
    /// Documents in memory, by shard.
    pub documents: Family<Shard, Gauge>,
    /// Bytes of change graphs in memory, by shard.
    pub graph_bytes: Family<Shard, Gauge>,
}

/// Label: why something was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// A short name.
    pub reason: &'static str,
}

/// Label: which shard of the hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Shard {
    /// Its number, from 0.
    pub shard: u32,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            connections: Gauge::default(),
            connections_total: Counter::default(),
            frames_in: Counter::default(),
            frames_out: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            writes: Counter::default(),
            changes: Counter::default(),
            commit_failures: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            transaction_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            transaction_commits: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            transaction_bytes: Histogram::new(exponential_buckets(64.0, 4.0, 10)),
            fan_out_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 18)),
            queues: QueueMetrics::default(),
            rounds: RoundMetrics::default(),
            refused: Family::default(),
            refusals: Counter::default(),
            log: Arc::default(),
            quarantined: Family::default(),
            blob_bytes_in: Counter::default(),
            blob_bytes_out: Counter::default(),
            blobs_damaged: Counter::default(),
            paused_seconds: Counter::default(),
            has_room: Gauge::default(),
            documents: Family::default(),
            graph_bytes: Family::default(),
        }
    }
}

impl Metrics {
    /// Puts every counter into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections open", self.connections.clone());
        registry.register("connections_opened", "Connections since the start", self.connections_total.clone());
        registry.register("frames_received", "Websocket frames received", self.frames_in.clone());
        registry.register("frames_sent", "Websocket frames sent", self.frames_out.clone());
        registry.register("received_bytes", "Bytes received", self.bytes_in.clone());
        registry.register("sent_bytes", "Bytes sent", self.bytes_out.clone());
        registry.register("socket_writes", "Writes to sockets", self.writes.clone());
        registry.register("changes_committed", "Changes made durable", self.changes.clone());
        registry.register("commit_failures", "Commits that failed", self.commit_failures.clone());
        registry.register("commit_seconds", "Time until changes were durable", self.commit_seconds.clone());
        let transactions = self.transaction_seconds.clone();
        registry.register("transaction_seconds", "One transaction of the store", transactions);
        registry.register("transaction_commits", "Commits in one transaction", self.transaction_commits.clone());
        registry.register("transaction_bytes", "Bytes of changes in one transaction", self.transaction_bytes.clone());
        let fan_out = self.fan_out_seconds.clone();
        registry.register("fan_out_seconds", "From a commit until a peer's socket has taken it", fan_out);
        self.queues.register(registry);
        self.rounds.register(registry);
        registry.register("refused", "What was not taken, by reason", self.refused.clone());
        let quarantined = self.quarantined.clone();
        registry.register("documents_quarantined", "Documents that could not be compacted, by reason", quarantined);
        registry.register("blob_received_bytes", "Bytes of blobs received", self.blob_bytes_in.clone());
        registry.register("blob_sent_bytes", "Bytes of blobs sent", self.blob_bytes_out.clone());
        registry.register("blobs_damaged", "Blobs found damaged on the disk", self.blobs_damaged.clone());
        let paused = self.paused_seconds.clone();
        registry.register("paused_seconds", "Time for which connections that sent too fast were not read from", paused);
        registry.register("has_room", "Whether there is room for what peers bring", self.has_room.clone());
        registry.register("documents_in_memory", "Documents in memory", self.documents.clone());
        registry.register("graph_bytes", "Bytes of change graphs in memory", self.graph_bytes.clone());
    }

    /// Notes what the store has made durable at once.
    pub fn transact(&self, transacted: &Transacted) {
        self.transaction_seconds.observe(transacted.took.as_secs_f64());
        self.transaction_commits.observe(transacted.commits as f64);
        self.transaction_bytes.observe(transacted.bytes as f64);
        self.queues.store.set(transacted.waiting as i64);
    }

    /// Counts a document that could not be compacted.
    pub fn quarantine(&self, reason: &'static str) {
        self.quarantined.get_or_create(&Reason { reason }).inc();
    }

    /// Counts one refusal that is to be logged. Returns whether it may be: of many at one time only some are written.
    #[must_use]
    pub fn refuse_aloud(&self, reason: &'static str) -> bool {
        self.refuse(reason);
        self.log.may_write()
    }

    /// Counts one refusal.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
        self.refusals.inc();
    }

    /// How often something was refused, for whatever reason.
    #[must_use]
    pub fn refused_in_all(&self) -> u64 {
        self.refusals.get()
    }
}

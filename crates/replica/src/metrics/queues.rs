//! What waits, and for whom.
//!
//! Owns: the depths of queues, who is connected by kind, the peers' clocks. Must not: count what has happened.
//! Next: `../shard.rs`, `../insight.rs`, which looks at all connections when somebody asks.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Shard;

/// What waits at this moment.
#[derive(Debug, Clone, Default)]
pub struct QueueMetrics {
    /// Inputs that a hub has not looked at, as of its last turn.
    pub shards: Family<Shard, Gauge>,
    /// Commits on their way to the disk.
    pub commits: Gauge,
    /// Units that waited for the store when it last began a transaction.
    pub store: Gauge,
    /// Messages that wait to be written to sockets, of all connections.
    pub outgoing: Gauge,
    /// The same, of the connection with the most.
    pub outgoing_most: Gauge,
    /// Connections by kind.
    pub sessions: Family<Kind, Gauge>,
    /// Furthest that the clock of anybody connected is from this one, seconds, by direction.
    pub clock_skew: Family<Skew, Gauge<f64, AtomicU64>>,
}

/// Label: what kind of peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// A short name.
    pub kind: &'static str,
}

/// Label: which way a clock is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Skew {
    /// `ahead` or `behind`.
    pub direction: &'static str,
}

impl QueueMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("shard_queue", "Inputs that a hub has not looked at", self.shards.clone());
        registry.register("commits_under_way", "Commits on their way to the disk", self.commits.clone());
        registry.register("store_queue", "Units that waited for the last transaction", self.store.clone());
        registry.register("outgoing_queue", "Messages that wait to be written to sockets", self.outgoing.clone());
        let most = self.outgoing_most.clone();
        registry.register("outgoing_queue_most", "The same, of the connection with the most", most);
        registry.register("sessions", "Connections by kind", self.sessions.clone());
        let skew = self.clock_skew.clone();
        registry.register("peer_clock_skew_seconds", "Furthest that a connected peer's clock is from this one", skew);
    }
}

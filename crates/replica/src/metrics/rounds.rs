//! What comparing all documents with peers comes to.
//!
//! Owns: the counters of rounds. Must not: know what follows from a round. Next: `../collection.rs`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use syncline_core::collection::{CollectionMessage, Outcome, Report};
use syncline_core::native::NativeMessage;

/// What may become of a round: of those that begin here, and one for those that a peer begins.
const OUTCOMES: [&str; 4] = ["complete", "ended", "gone", "begun_by_peer"];

/// Counters of rounds.
#[derive(Debug, Clone)]
pub struct RoundMetrics {
    /// Rounds that began here and are over, and rounds that peers began, by how it went.
    pub rounds: Family<Went, Counter>,
    /// Messages, by direction.
    pub messages: Family<Direction, Counter>,
    /// Bytes of these, by direction.
    pub bytes: Family<Direction, Counter>,
    /// Documents that were found to differ in the rounds that began here, by who has something that the other lacks.
    pub differences: Family<Side, Counter>,
    /// From the first message to the end, of rounds that began here, seconds.
    pub seconds: Histogram,
}

/// Label: what became of a round.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Went {
    /// A short name.
    pub outcome: &'static str,
}

/// Label: which way a message went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Direction {
    /// `in` or `out`.
    pub direction: &'static str,
}

/// Label: on which side a document is another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Side {
    /// `here` for those that are here, in this or another state; `peer` for those that only the peer has.
    pub side: &'static str,
}

impl Default for RoundMetrics {
    fn default() -> Self {
        let metrics = Self {
            rounds: Family::default(),
            messages: Family::default(),
            bytes: Family::default(),
            differences: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        // What was never counted is told as nothing: a rate of it begins with the first.
        for outcome in OUTCOMES {
            drop(metrics.rounds.get_or_create(&Went { outcome }));
        }
        for direction in ["in", "out"] {
            drop(metrics.messages.get_or_create(&Direction { direction }));
            drop(metrics.bytes.get_or_create(&Direction { direction }));
        }
        for side in ["here", "peer"] {
            drop(metrics.differences.get_or_create(&Side { side }));
        }
        metrics
    }
}

impl RoundMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("collection_rounds", "Comparisons of all documents with a peer", self.rounds.clone());
        registry.register("collection_messages", "Messages of comparisons", self.messages.clone());
        registry.register("collection_bytes", "Bytes of messages of comparisons", self.bytes.clone());
        let differences = self.differences.clone();
        registry.register("collection_differences", "Documents that comparisons found to differ", differences);
        registry.register("collection_round_seconds", "Length of comparisons that began here", self.seconds.clone());
    }

    pub(crate) fn note_sent(&self, message: &NativeMessage) {
        self.note("out", message.weight());
    }

    pub(crate) fn note_received(&self, message: &CollectionMessage, bytes: usize) {
        self.note("in", bytes);
        if matches!(message, CollectionMessage::Compare { .. }) {
            self.count("begun_by_peer");
        }
    }

    pub(crate) fn note_over(&self, report: &Report) {
        self.count(match &report.outcome {
            Outcome::Complete => "complete",
            Outcome::Ended { .. } => "ended",
            Outcome::Gone => "gone",
        });
        self.seconds.observe(report.elapsed.as_secs_f64());
        for (side, documents) in [("here", &report.ours), ("peer", &report.theirs)] {
            self.differences.get_or_create(&Side { side }).inc_by(documents.len() as u64);
        }
    }

    fn count(&self, outcome: &'static str) {
        self.rounds.get_or_create(&Went { outcome }).inc();
    }

    fn note(&self, direction: &'static str, bytes: usize) {
        self.messages.get_or_create(&Direction { direction }).inc();
        self.bytes.get_or_create(&Direction { direction }).inc_by(bytes as u64);
    }
}

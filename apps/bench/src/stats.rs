//! What the generated clients saw, counted together.
//!
//! Owns: counters and histograms, shared by all clients of a run. Must not: decide what is good.
//! Next: `report.rs`, which prints them; `wire.rs`, which counts bytes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Counters and latencies of one run.
#[derive(Debug)]
pub(crate) struct Stats {
    started: Instant,
    late_from_us: AtomicU64,
    latencies: Mutex<Latencies>,
    /// Edits written.
    pub(crate) edits: AtomicU64,
    /// Edits that another client has received, once for each.
    pub(crate) deliveries: AtomicU64,
    /// Edits that a server's heads included.
    pub(crate) acknowledgements: AtomicU64,
    /// Sync messages received.
    pub(crate) messages_in: AtomicU64,
    /// Sync messages sent.
    pub(crate) messages_out: AtomicU64,
    /// Bytes read from sockets.
    pub(crate) bytes_in: AtomicU64,
    /// Bytes written to sockets.
    pub(crate) bytes_out: AtomicU64,
    /// Documents that the server said it does not have.
    pub(crate) unavailable: AtomicU64,
    /// Connections that ended before the scenario did.
    pub(crate) lost_connections: AtomicU64,
    /// Rings when a server confirmed an edit.
    pub(crate) progress: Notify,
    first_byte_us: AtomicU64,
    first_loss: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Latencies {
    delivery: Histogram<u64>,
    delivery_late: Histogram<u64>,
    delivery_full: Histogram<u64>,
    acknowledgement: Histogram<u64>,
    lag: Histogram<u64>,
}

impl Stats {
    /// Nothing seen yet.
    pub(crate) fn new() -> Arc<Self> {
        let latencies = Latencies {
            delivery: histogram(),
            delivery_late: histogram(),
            delivery_full: histogram(),
            acknowledgement: histogram(),
            lag: histogram(),
        };
        Arc::new(Self {
            started: Instant::now(),
            late_from_us: AtomicU64::new(u64::MAX),
            latencies: Mutex::new(latencies),
            edits: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            acknowledgements: AtomicU64::new(0),
            messages_in: AtomicU64::new(0),
            messages_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
            lost_connections: AtomicU64::new(0),
            progress: Notify::new(),
            first_byte_us: AtomicU64::new(u64::MAX),
            first_loss: Mutex::new(None),
        })
    }

    /// Counts edits written from `from` on as late ones, in a histogram of their own.
    pub(crate) fn late_from(&self, from: Instant) {
        self.late_from_us.store(self.since_start(from), Relaxed);
    }

    /// A client received another one's edit, written at `sent`.
    pub(crate) fn delivered(&self, sent: Instant, at: Instant, full: bool) {
        self.deliveries.fetch_add(1, Relaxed);
        let late = self.since_start(sent) >= self.late_from_us.load(Relaxed);
        let micros = micros(at.saturating_duration_since(sent));
        let mut latencies = self.latencies();
        latencies.delivery.saturating_record(micros);
        if late {
            latencies.delivery_late.saturating_record(micros);
        }
        if full {
            latencies.delivery_full.saturating_record(micros);
        }
    }

    /// The server's heads included an edit this long after it was written.
    pub(crate) fn acknowledged(&self, after: Duration) {
        self.acknowledgements.fetch_add(1, Relaxed);
        self.latencies().acknowledgement.saturating_record(micros(after));
        self.progress.notify_one();
    }

    /// An edit was written this long after it was due: the generator's own delay.
    pub(crate) fn edited(&self, late: Duration) {
        self.edits.fetch_add(1, Relaxed);
        self.latencies().lag.saturating_record(micros(late));
    }

    /// A connection ended early.
    pub(crate) fn lost(&self, reason: String) {
        self.lost_connections.fetch_add(1, Relaxed);
        self.first_loss.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    /// Why the first lost connection ended.
    pub(crate) fn first_loss(&self) -> Option<String> {
        self.first_loss.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes when the next byte comes in.
    pub(crate) fn arm_first_byte(&self) {
        self.first_byte_us.store(0, Relaxed);
    }

    /// Bytes came in.
    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
        if self.first_byte_us.load(Relaxed) == 0 {
            self.first_byte_us.store(self.since_start(Instant::now()), Relaxed);
        }
    }

    /// When the first byte came in after [`Self::arm_first_byte`].
    pub(crate) fn first_byte(&self) -> Option<Instant> {
        let micros = self.first_byte_us.load(Relaxed);
        (micros > 0 && micros < u64::MAX).then(|| self.started + Duration::from_micros(micros))
    }

    /// From edit to other users.
    pub(crate) fn delivery_ms(&self) -> Value {
        summary(&self.latencies().delivery)
    }

    /// The same, of late edits only.
    pub(crate) fn delivery_late_ms(&self) -> Value {
        summary(&self.latencies().delivery_late)
    }

    /// The same, at clients that hold the document.
    pub(crate) fn delivery_full_ms(&self) -> Value {
        summary(&self.latencies().delivery_full)
    }

    /// From edit to the server's heads.
    pub(crate) fn acknowledgement_ms(&self) -> Value {
        summary(&self.latencies().acknowledgement)
    }

    /// From when an edit was due until it was written.
    pub(crate) fn lag_ms(&self) -> Value {
        summary(&self.latencies().lag)
    }

    fn since_start(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.started)).max(1)
    }

    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds of an hour in microseconds are valid")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn summary(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let ms = |micros: u64| (micros as f64 / 10.0).round() / 100.0;
    json!({
        "p50": ms(histogram.value_at_quantile(0.5)),
        "p99": ms(histogram.value_at_quantile(0.99)),
        "max": ms(histogram.max()),
    })
}

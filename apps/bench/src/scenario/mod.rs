//! What is measured, one file a question.
//!
//! Owns: the pieces that scenarios share: connecting, uploading, typing on a schedule, waiting.
//! Must not: know one scenario from another. Next: `typing.rs`, the simplest.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Map, Value};

use crate::client::{Client, Options, Replica};
use crate::light::Light;
use crate::stats::Stats;
use crate::target::Cost;

pub(crate) mod backup;
pub(crate) mod cold_fetch;
pub(crate) mod fanout;
pub(crate) mod fanout_cpu;
pub(crate) mod flood;
pub(crate) mod hostile;
pub(crate) mod idle;
pub(crate) mod import;
pub(crate) mod kill;
pub(crate) mod long_text;
pub(crate) mod many_docs;
pub(crate) mod never_reading;
pub(crate) mod reconnect;
pub(crate) mod typing;

/// Connections that are opened at one time.
const DIALS_AT_ONCE: usize = 64;

/// What a scenario found.
pub(crate) struct Outcome {
    /// Its results by name.
    pub(crate) results: Map<String, Value>,
    /// What its measured stretch cost.
    pub(crate) cost: Cost,
}

/// Results by name, in the order of the alphabet, from a JSON object.
pub(crate) fn results(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Map::from_iter([("value".to_owned(), other)])
        }
    }
}

/// A number with two digits behind the point.
pub(crate) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A share in percent; nothing of nothing is all.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { round(part as f64 * 100.0 / whole as f64) }
}

/// Connects this many clients, some at a time; those that fail are counted as lost.
pub(crate) async fn connect_many(options: &Options, clients: usize) -> Vec<Client> {
    let dials = (0..clients).map(|_| {
        let options = options.clone();
        async move {
            let stats = Arc::clone(&options.stats);
            Client::connect(options).await.map_err(|error| stats.lost(format!("connecting: {error:#}"))).ok()
        }
    });
    stream::iter(dials).buffer_unordered(DIALS_AT_ONCE).filter_map(|client| async { client }).collect().await
}

/// Uploads documents through one connection, `window` at a time, until done or `deadline`. Gives back every document
/// that the server confirmed, and how many it did not.
pub(crate) async fn upload(
    options: Options,
    mut documents: Vec<Light>,
    window: usize,
    deadline: Instant,
) -> anyhow::Result<(Vec<Box<dyn Replica>>, usize)> {
    let mut failed = 0;
    let client = Client::connect(options).await?;
    while !documents.is_empty() {
        for document in documents.split_off(documents.len().saturating_sub(window)) {
            client.open(document);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if client.synced(left).await.is_err() {
            break;
        }
    }
    failed += documents.len();
    let (synced, others): (Vec<_>, Vec<_>) = client.stop().await.into_iter().partition(|replica| replica.is_synced());
    Ok((synced, failed + others.len()))
}

/// Uploads through several connections at once; gives back what was confirmed.
pub(crate) async fn upload_all(
    options: &Options,
    documents: Vec<Light>,
    connections: usize,
    window: usize,
    within: Duration,
) -> Vec<Box<dyn Replica>> {
    let deadline = Instant::now() + within;
    let mut shares: Vec<Vec<Light>> = (0..connections).map(|_| Vec::new()).collect();
    for (at, document) in documents.into_iter().enumerate() {
        shares[at % connections].push(document);
    }
    let uploads = shares.into_iter().map(|share| upload(options.clone(), share, window, deadline));
    let done: Vec<_> = stream::iter(uploads).buffer_unordered(connections).collect().await;
    done.into_iter().flatten().flat_map(|(synced, _)| synced).collect()
}

/// Types `per_second` characters for `seconds`, clients in turn, each into its documents in turn; how many. The last
/// ones may still wait for their client when this returns.
pub(crate) async fn type_on_schedule(clients: &[Client], documents_each: usize, per_second: f64, seconds: f64) -> u64 {
    let began = Instant::now();
    let mut typed = 0_usize;
    loop {
        let after = typed as f64 / per_second;
        if after >= seconds || clients.is_empty() {
            return typed as u64;
        }
        let due = began + Duration::from_secs_f64(after);
        tokio::time::sleep_until(due.into()).await;
        let turn = typed / clients.len();
        clients[typed % clients.len()].edit(turn % documents_each, due);
        typed += 1;
    }
}

/// Waits until a counter reaches a number, or time is up; whether it did.
pub(crate) async fn wait_for(counter: &AtomicU64, number: u64, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while counter.load(Relaxed) < number {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

/// Runs a future on every client at once and collects what comes back.
pub(crate) async fn on_all<T, F: Future<Output = T>>(clients: &[Client], each: impl Fn(usize) -> F) -> Vec<T> {
    futures_util::future::join_all((0..clients.len()).map(each)).await
}

/// Why connections were lost, if any were.
pub(crate) fn losses(stats: &Stats) -> Value {
    match stats.first_loss() {
        Some(reason) => {
            let reason: String = reason.chars().take(120).collect();
            format!("{} lost; first: {reason}", stats.lost_connections.load(Relaxed)).into()
        }
        None => 0.into(),
    }
}

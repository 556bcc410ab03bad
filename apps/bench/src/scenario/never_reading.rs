//! Clients that ask for a document and never read it, in a crowd of those who do.
//!
//! Owns: the silent ones, and when the server is rid of them. Must not: let them read before they are counted.
//! Next: `idle.rs`, a crowd that asks for nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::{SinkExt, StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{
    DIALS_AT_ONCE, Outcome, connect_many, losses, on_all, percent, results, type_on_schedule, upload, wait_for,
};
use crate::author::Seed;
use crate::client::Replica;
use crate::frame;
use crate::light::Light;
use crate::metrics::Metrics;
use crate::process;
use crate::stats::Stats;
use crate::target::Target;
use crate::wire::{Endpoint, Socket};

/// What the kernel takes in for a client that does not read, bytes, about.
const RECEIVE_BUFFER_BYTES: u32 = 4 * 1024;

/// Between two looks at the server.
const SAMPLE: Duration = Duration::from_millis(250);

/// Longest wait for the end of a connection that the server has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// Flags of `never-reading`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct NeverReadingArgs {
    /// Connections in all.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Of these, the ones that never read.
    #[arg(long, default_value_t = 1_000)]
    silent: usize,
    /// Of those that read, the ones that have the document open; the rest have joined only.
    #[arg(long, default_value_t = 100)]
    readers: usize,
    /// Changes that the document has at first.
    #[arg(long, default_value_t = 300)]
    changes: u64,
    /// Characters of each of them.
    #[arg(long, default_value_t = 1_000)]
    chars: usize,
    /// Edits a second to the document meanwhile.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// How long they are watched once they do not read, seconds.
    #[arg(long, default_value_t = 40.0)]
    seconds: f64,
}

/// Runs it.
///
/// # Errors
/// When the server's process is unknown, the limit on open files is too low, or somebody honest cannot connect.
pub(crate) async fn run(args: &NeverReadingArgs, target: &Target) -> anyhow::Result<Outcome> {
    let (limit, _) = process::open_files_limits().context("no limits in /proc")?;
    ensure!(args.connections as u64 + 100 <= limit, "{} connections, but a limit of {limit} files", args.connections);
    ensure!(args.silent + args.readers < args.connections, "more silent ones and readers than connections");
    let pid = target.pid().context("the server's process must be known: --server-pid or --server-command")?;
    let stats = Stats::new();
    let (ledger, last) = Seed::typed(args.changes, args.chars)?.document();
    let creator = Light::creator(Arc::clone(&ledger), Arc::clone(&stats), last);
    let (_, failed) =
        upload(target.options(&stats), vec![creator], 1, Instant::now() + Duration::from_secs(60)).await?;
    ensure!(failed == 0, "the document was not confirmed: {}", losses(&stats));
    let honest = connect_many(&target.options(&stats), args.connections - args.silent).await;
    ensure!(honest.len() == args.connections - args.silent, "some cannot connect: {}", losses(&stats));
    let readers = &honest[..args.readers.max(2)];
    for reader in readers {
        reader.open(Light::subscriber(Arc::clone(&ledger), Arc::clone(&stats)));
    }
    on_all(readers, |at| readers[at].synced(Duration::from_secs(60)))
        .await
        .into_iter()
        .collect::<anyhow::Result<()>>()?;

    let meter = target.meter();
    let silent = go_silent(&target.endpoint, &ledger.id, args.silent).await?;
    let (asked, began) = (silent.len(), Instant::now());
    let watching = tokio::spawn(watch(target.endpoint.clone(), pid, args.silent as u64, args.seconds));
    let edits = type_on_schedule(&readers[..1], 1, args.rate, args.seconds).await;
    let due = edits * (readers.len() as u64 - 1);
    wait_for(&stats.deliveries, due, Duration::from_secs(15)).await;
    let (watched, cost) = (watching.await?, meter.finish());
    let shed = count_ended(silent).await;
    let results = results(json!({
        "connected": honest.len() + asked,
        "silent": asked,
        "document_bytes": ledger.book().nodes().iter().map(|node| node.bytes.len()).sum::<usize>(),
        "silent_shed": shed,
        "shed_after_s": watched.shed_after_s,
        "watched_s": began.elapsed().as_secs_f64().round(),
        "rss_most_kib": watched.rss_most_kib,
        "delivered_percent": percent(stats.deliveries.load(Relaxed), due),
        "delivery_ms": stats.delivery_ms(),
        "generator_lag_ms": stats.lag_ms(),
        "connections_lost": losses(&stats),
    }));
    drop(honest);
    Ok(Outcome { results, cost })
}

/// Connections that have asked for the document and read nothing from then on.
async fn go_silent(endpoint: &Endpoint, document: &str, count: usize) -> anyhow::Result<Vec<Socket>> {
    let asks = (0..count).map(|number| async move {
        let mut socket = endpoint.dial_narrow(RECEIVE_BUFFER_BYTES, Stats::new()).await?;
        let name = format!("silent-{number}");
        socket.send(Message::Binary(frame::encode_join(&name, None).into())).await?;
        let ledger = crate::author::new_document().0;
        let mut empty = Light::subscriber(ledger, Stats::new());
        let request = empty.generate().context("an empty replica asks")?;
        let request = frame::encode_sync("request", &name, "", document, &request.data);
        socket.send(Message::Binary(request.into())).await?;
        anyhow::Ok(socket)
    });
    let asked: Vec<_> = stream::iter(asks).buffer_unordered(DIALS_AT_ONCE).collect().await;
    asked.into_iter().collect()
}

/// How many of them the server has ended: what was on its way is read, and then the end.
async fn count_ended(silent: Vec<Socket>) -> usize {
    let ended = silent.into_iter().map(|mut socket| async move {
        let drained = async { while let Some(Ok(_)) = socket.next().await {} };
        tokio::time::timeout(DRAIN, drained).await.is_ok()
    });
    stream::iter(ended).buffer_unordered(DIALS_AT_ONCE).filter(|ended| std::future::ready(*ended)).count().await
}

struct Watched {
    rss_most_kib: u64,
    /// From the last that went silent until the server had cut the last one off, where it counts them.
    shed_after_s: Option<f64>,
}

async fn watch(endpoint: Endpoint, pid: u32, silent: u64, seconds: f64) -> Watched {
    let began = Instant::now();
    let mut watched = Watched { rss_most_kib: 0, shed_after_s: None };
    while began.elapsed().as_secs_f64() < seconds {
        watched.rss_most_kib = watched.rss_most_kib.max(process::memory(pid).map_or(0, |memory| memory.peak_kib));
        if watched.shed_after_s.is_none() {
            let metrics = Metrics::fetch(&endpoint).await.unwrap_or_default();
            let shed = metrics.by_label("syncline_refused_total").get("slow_reader").copied().unwrap_or(0);
            watched.shed_after_s = (shed >= silent).then(|| (began.elapsed().as_secs_f64() * 10.0).round() / 10.0);
        }
        tokio::time::sleep(SAMPLE).await;
    }
    watched
}

//! One writer, many readers; at a steady rate, or as fast as the server confirms.
//!
//! Owns: the pace of the writer, and a bare relay beside it for scale. Must not: let subscribers write.
//! Next: `many_docs.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, connect_many, losses, on_all, percent, results, round, type_on_schedule, upload, wait_for};
use crate::author;
use crate::client::Client;
use crate::light::Light;
use crate::process::{Scratch, Template};
use crate::relay;
use crate::stats::Stats;
use crate::target::Target;
use crate::wire::Endpoint;

/// Flags of `fanout`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct FanoutArgs {
    /// Clients that read.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Edits a second.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Length of the run, seconds.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// How long to wait afterwards for what is still on its way, seconds.
    #[arg(long, default_value_t = 15)]
    grace: u64,
    /// The writer writes whenever fewer than --window edits are unconfirmed; a bare relay is saturated before it.
    #[arg(long)]
    saturate: bool,
    /// Edits that may be unconfirmed when saturating.
    #[arg(long, default_value_t = 32)]
    window: u64,
    /// Size of the bare relay's frames, about that of one edit, bytes.
    #[arg(long, default_value_t = 350)]
    relay_frame_bytes: usize,
}

/// Runs it.
///
/// # Errors
/// When the subscribers do not get the empty document.
pub(crate) async fn run(args: &FanoutArgs, target: &Target) -> anyhow::Result<Outcome> {
    let relay_per_s = if args.saturate { Some(measure_relay(args).await?) } else { None };
    let stats = Stats::new();
    let (ledger, first) = author::new_document();
    let creator = Light::creator(Arc::clone(&ledger), Arc::clone(&stats), first);
    let deadline = Instant::now() + Duration::from_secs(30);
    let (_, failed) = upload(target.options(&stats), vec![creator], 1, deadline).await?;
    ensure!(failed == 0, "the document was not confirmed: {}", losses(&stats));
    let clients = connect_many(&target.options(&stats), args.subscribers + 1).await;
    ensure!(clients.len() > args.subscribers, "some clients could not connect: {}", losses(&stats));
    for client in &clients {
        client.open(Light::subscriber(Arc::clone(&ledger), Arc::clone(&stats)));
    }
    let joined = on_all(&clients, |at| clients[at].synced(Duration::from_secs(60))).await;
    let subscribed = joined.iter().filter(|joined| joined.is_ok()).count();

    let meter = target.meter();
    let (began, messages) = (Instant::now(), stats.messages_in.load(Relaxed));
    let edits = if args.saturate {
        write_when_confirmed(&clients[0], &stats, args.window, args.seconds).await
    } else {
        type_on_schedule(&clients[..1], 1, args.rate, args.seconds).await
    };
    let elapsed = began.elapsed().as_secs_f64();
    let (in_time, messages) = (stats.deliveries.load(Relaxed), stats.messages_in.load(Relaxed) - messages);
    let due = edits * args.subscribers as u64;
    wait_for(&stats.deliveries, due, Duration::from_secs(args.grace)).await;
    let cost = meter.finish();
    let delivered_per_s = in_time as f64 / elapsed;
    let results = results(json!({
        "subscribed": subscribed,
        "edits": edits,
        "edits_per_s": round(edits as f64 / elapsed),
        "delivered_per_s": delivered_per_s.round(),
        "messages_in_per_s": (messages as f64 / elapsed).round(),
        "delivered_percent": percent(stats.deliveries.load(Relaxed), due),
        "delivery_ms": stats.delivery_ms(),
        "acknowledgement_ms": stats.acknowledgement_ms(),
        "generator_lag_ms": stats.lag_ms(),
        "relay_frames_per_s": relay_per_s.map(f64::round),
        "delivered_over_relay": relay_per_s.map(|relay| round(delivered_per_s / relay)),
        "connections_lost": losses(&stats),
    }));
    drop(clients);
    Ok(Outcome { results, cost })
}

async fn write_when_confirmed(writer: &Client, stats: &Stats, window: u64, seconds: f64) -> u64 {
    let (began, length) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut written = 0;
    while began.elapsed() < length {
        if written - stats.acknowledgements.load(Relaxed).min(written) < window {
            writer.edit(0, Instant::now());
            written += 1;
        } else {
            // The bound only matters once the connection is gone.
            let _ = tokio::time::timeout(Duration::from_millis(100), stats.progress.notified()).await;
        }
    }
    written
}

async fn measure_relay(args: &FanoutArgs) -> anyhow::Result<f64> {
    let scratch = Scratch::new(None);
    let program = std::env::current_exe()?;
    let template = Template::new(&format!("{} relay {{listen}}", program.display()), None, scratch.path().to_owned())?;
    let endpoint = Endpoint::resolve(&template.url()).await?;
    let server = template.start()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = endpoint.dial(None, Stats::new()).await {
        ensure!(Instant::now() < deadline, "the relay does not answer: {error:#}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (bytes, seconds) = (args.relay_frame_bytes, args.seconds.min(10.0));
    let through = relay::saturate(&endpoint, args.subscribers, bytes, args.window, seconds).await?;
    server.kill();
    Ok(through.frames_per_s)
}

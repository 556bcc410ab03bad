//! What an edit costs the server: a small document against a long text, the same few subscribers.
//!
//! Owns: the two documents and the division. Must not: let clients work; they return with what they had.
//! Next: `cold_fetch.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Outcome, losses, on_all, results, round, type_on_schedule, upload, wait_for};
use crate::author::{self, Seed};
use crate::client::Client;
use crate::ledger::{Index, Ledger};
use crate::light::Light;
use crate::stats::Stats;
use crate::target::{Cost, Target};

/// Flags of `fanout-cpu`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct FanoutCpuArgs {
    /// Subscribers that hear each edit.
    #[arg(long, default_value_t = 10)]
    fan_out: usize,
    /// Changes in the long text.
    #[arg(long, default_value_t = 100_000)]
    changes: u64,
    /// Edits a second.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Length of each of the two stretches, seconds.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// How long a stretch may take until every edit is acknowledged, seconds.
    #[arg(long, default_value_t = 60)]
    grace: u64,
}

/// Runs it.
///
/// # Errors
/// When the documents cannot be uploaded.
pub(crate) async fn run(args: &FanoutCpuArgs, target: &Target) -> anyhow::Result<Outcome> {
    let (small, first) = author::new_document();
    let (small, _) = measure(args, target, small, first).await?;
    let seed = Seed::typed(args.changes, 1)?;
    let (long, head) = seed.document();
    let (long, cost) = measure(args, target, long, head).await?;
    Ok(Outcome { results: results(json!({ "small": small, "long": long })), cost })
}

async fn measure(
    args: &FanoutCpuArgs,
    target: &Target,
    ledger: Arc<Ledger>,
    head: Index,
) -> anyhow::Result<(Value, Cost)> {
    let stats = Stats::new();
    let document = Light::creator(Arc::clone(&ledger), Arc::clone(&stats), head);
    let deadline = Instant::now() + Duration::from_secs(120);
    let (_, failed) = upload(target.options(&stats), vec![document], 1, deadline).await?;
    anyhow::ensure!(failed == 0, "the document was not confirmed: {}", losses(&stats));
    let mut clients = Vec::new();
    for _ in 0..=args.fan_out {
        let client = Client::connect(target.options(&stats)).await?;
        client.open(Light::returning(Arc::clone(&ledger), Arc::clone(&stats), head));
        clients.push(client);
    }
    for joined in on_all(&clients, |at| clients[at].synced(Duration::from_secs(60))).await {
        joined?;
    }
    let meter = target.meter();
    let edits = type_on_schedule(&clients[..1], 1, args.rate, args.seconds).await;
    let within = Duration::from_secs(args.grace);
    wait_for(&stats.deliveries, edits * args.fan_out as u64, within).await;
    let cost = meter.finish();
    let delivered = stats.deliveries.load(Relaxed);
    // A server that is behind has worked only for what it delivered.
    let worked = delivered as f64 / args.fan_out.max(1) as f64;
    let found = json!({
        "server_cpu_us_per_edit": cost.server.as_ref().map(|server| round(server.cpu_s * 1e6 / worked.max(1.0))),
        "edits": edits,
        "delivered_percent": super::percent(delivered, edits * args.fan_out as u64),
        "delivery_p99_ms": stats.delivery_ms()["p99"],
        "connections_lost": losses(&stats),
    });
    Ok((found, cost))
}

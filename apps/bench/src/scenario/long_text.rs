//! A long text to a client that has nothing, from a server that has just started.
//!
//! Owns: when the first byte came and how many followed. Must not: count the handshake.
//! Next: `reconnect.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::cold_fetch::is_equal;
use super::{Outcome, losses, results, round, upload};
use crate::author::Seed;
use crate::client::Client;
use crate::light::Light;
use crate::stats::Stats;
use crate::target::Target;

/// Flags of `long-text`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct LongTextArgs {
    /// Changes in the text, a character each.
    #[arg(long, default_value_t = 100_000)]
    changes: u64,
    /// How long the server may settle before it is stopped, seconds.
    #[arg(long, default_value_t = 3)]
    settle: u64,
}

/// Runs it.
///
/// # Errors
/// When the server was not started here, or does not give the text back.
pub(crate) async fn run(args: &LongTextArgs, target: &mut Target) -> anyhow::Result<Outcome> {
    let stats = Stats::new();
    let seed = Seed::typed(args.changes, 1)?;
    let (ledger, head) = seed.document();
    let document = Light::creator(Arc::clone(&ledger), Arc::clone(&stats), head);
    let deadline = Instant::now() + Duration::from_secs(120);
    let (_, failed) = upload(target.options(&stats), vec![document], 1, deadline).await?;
    anyhow::ensure!(failed == 0, "the text was not confirmed: {}", losses(&stats));
    tokio::time::sleep(Duration::from_secs(args.settle)).await;
    target.stop().await?;
    target.start().await?;

    let stats = Stats::new();
    let meter = target.meter();
    let client = Client::connect(target.options(&stats)).await?;
    let before = stats.bytes_in.load(Relaxed);
    stats.arm_first_byte();
    let asked = Instant::now();
    client.open(Light::subscriber(Arc::clone(&ledger), Arc::clone(&stats)));
    client.synced(Duration::from_secs(120)).await?;
    let whole = asked.elapsed();
    let cost = meter.finish();
    let bytes = stats.bytes_in.load(Relaxed) - before;
    let first = stats.first_byte().context("in sync without a byte")?.saturating_duration_since(asked);
    client.stop().await;
    let equal = is_equal(target, &ledger, &seed).await?;
    let results = results(json!({
        "first_byte_ms": round(first.as_secs_f64() * 1e3),
        "whole_ms": round(whole.as_secs_f64() * 1e3),
        "bytes": bytes,
        "save_bytes": seed.bytes.len(),
        "bytes_over_save": round(bytes as f64 / seed.bytes.len() as f64),
        "text_equal": equal,
    }));
    Ok(Outcome { results, cost })
}

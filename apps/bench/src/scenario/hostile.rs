//! Frames that no honest client sends, while a pair of honest ones works beside them.
//!
//! Owns: the same pair measured with and without the attackers, and the server's memory meanwhile. Must not: let them take
//! the pair's processor time: they are a process of their own, which gives way. Next: `../attack.rs`, `../forge.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, losses, results, round, type_on_schedule};
use crate::attack::{AttackJob, Tally};
use crate::author;
use crate::beside;
use crate::client::Client;
use crate::light::Light;
use crate::metrics::Metrics;
use crate::process;
use crate::stats::Stats;
use crate::target::Target;

/// Between two looks at the server's memory.
const SAMPLE: Duration = Duration::from_millis(250);

/// Flags of `hostile`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct HostileArgs {
    /// Hostile frames in all.
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// Hostile frames a second, of all attackers together.
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// Attackers, each with a connection.
    #[arg(long, default_value_t = 16)]
    attackers: u64,
    /// Characters a second that the honest pair types.
    #[arg(long, default_value_t = 20.0)]
    typing: f64,
    /// How long the pair is measured alone, seconds.
    #[arg(long, default_value_t = 30.0)]
    quiet: f64,
    /// What the frames are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fuzzer's corpora, half of the damaged frames, messages and chunks: the repository's fuzz/corpus.
    #[arg(long)]
    corpus: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When the honest pair does not get its document, or the server ends.
pub(crate) async fn run(args: &HostileArgs, target: &Target) -> anyhow::Result<Outcome> {
    let quiet = Stats::new();
    let (document, pair) = honest_pair(target, &quiet).await?;
    type_on_schedule(&pair, 1, args.typing, args.quiet).await;
    drop(pair);

    let busy = Stats::new();
    let (victim, pair) = honest_pair(target, &busy).await?;
    ensure!(victim != document, "each pair has a document of its own");
    let before = Metrics::fetch(&target.endpoint).await.unwrap_or_default();
    let meter = target.meter();
    let mut looks = Vec::new();
    let HostileArgs { seed, rate, frames, attackers, .. } = *args;
    let (url, corpus) = (target.endpoint.url(), args.corpus.clone());
    let job = AttackJob { url, victim, corpus, seed, rate, frames, attackers };
    let attacking = beside::start("attack-job", &job, None)?.wait_with_output();
    let output = tokio::select! {
        output = attacking => output?,
        _ = type_on_schedule(&pair, 1, args.typing, f64::INFINITY) => anyhow::bail!("the pair stopped typing"),
        () = watch_memory(target.pid(), &mut looks) => anyhow::bail!("the server has ended"),
    };
    let tally: Tally = serde_json::from_slice(&output.stdout).context("the attackers did not say what they did")?;
    for user in &pair {
        user.synced(Duration::from_secs(30)).await.context("the honest pair after the attack")?;
    }
    let cost = meter.finish();
    let after = Metrics::fetch(&target.endpoint).await.unwrap_or_default();
    let received = after.value("syncline_frames_received_total").zip(before.value("syncline_frames_received_total"));
    let p99 = |stats: &Stats| stats.delivery_ms()["p99"].as_f64();
    let results = results(json!({
        "hostile_frames": tally.frames.values().sum::<u64>(),
        "by_kind": tally.frames,
        "hostile_frames_per_s": (tally.frames.values().sum::<u64>() as f64 / cost.seconds).round(),
        "reconnects": tally.connections,
        "server_frames_received": received.map(|(after, before)| after - before),
        "server_refused": after.by_label("syncline_refused_total"),
        "quiet_delivery_ms": quiet.delivery_ms(),
        "attacked_delivery_ms": busy.delivery_ms(),
        "p99_over_quiet": p99(&busy).zip(p99(&quiet)).map(|(busy, quiet)| round(busy / quiet)),
        "honest_edits": busy.edits.load(Relaxed),
        "honest_deliveries": busy.deliveries.load(Relaxed),
        "quiet_lag_ms": quiet.lag_ms(),
        "attacked_lag_ms": busy.lag_ms(),
        "rss_kib": MemoryTrace::of(&looks),
        "connections_lost": losses(&busy),
    }));
    Ok(Outcome { results, cost })
}

/// Two clients of a new document, and its id.
pub(super) async fn honest_pair(target: &Target, stats: &Arc<Stats>) -> anyhow::Result<(String, Vec<Client>)> {
    let (ledger, first) = author::new_document();
    let pair = [Client::connect(target.options(stats)).await?, Client::connect(target.options(stats)).await?];
    pair[0].open(Light::creator(Arc::clone(&ledger), Arc::clone(stats), first));
    pair[0].synced(Duration::from_secs(60)).await?;
    pair[1].open(Light::subscriber(Arc::clone(&ledger), Arc::clone(stats)));
    pair[1].synced(Duration::from_secs(60)).await?;
    Ok((ledger.id.clone(), pair.into()))
}

/// The server's resident memory over the attack, KiB.
#[derive(Debug, Serialize)]
struct MemoryTrace {
    /// In the middle of the looks during each tenth of the time.
    medians_by_tenth: Vec<u64>,
    /// The most of any look.
    most: u64,
}

impl MemoryTrace {
    fn of(looks: &[u64]) -> Self {
        let tenths = looks.chunks(looks.len().div_ceil(10).max(1));
        let median = |tenth: &[u64]| {
            let mut tenth = tenth.to_vec();
            tenth.sort_unstable();
            tenth[tenth.len() / 2]
        };
        Self { medians_by_tenth: tenths.map(median).collect(), most: looks.iter().copied().max().unwrap_or(0) }
    }
}

/// Looks at the memory of a server that was started here, until it ends.
async fn watch_memory(pid: Option<u32>, looks: &mut Vec<u64>) {
    let Some(pid) = pid else { return std::future::pending().await };
    while let Some(now) = process::memory(pid) {
        looks.push(now.resident_kib);
        tokio::time::sleep(SAMPLE).await;
    }
}

//! An honest pair of clients beside a mob, and the same pair alone just before: how much slower does it get?
//!
//! Owns: the pairs, the mob's process, the ratio. Must not: let the mob take the pair's processor time: it runs beside it as
//! other machines would, so it is a process of its own and gives way.
//! Next: `../mob.rs`, what the mob does; `hostile.rs`, frames that no client sends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::hostile::honest_pair;
use super::{Outcome, losses, round, type_on_schedule, wait_for};
use crate::beside;
use crate::metrics::Metrics;
use crate::mob::{Done, Flood, MobJob};
use crate::stats::Stats;
use crate::target::Target;

/// Until a mob has its connections.
const GATHERING: Duration = Duration::from_secs(3);

/// Until what a mob has left behind is done with.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Flags of `flood`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct FloodArgs {
    /// Which floods; all of them unless said.
    #[arg(long, value_enum, value_delimiter = ',')]
    floods: Vec<Flood>,
    /// How long the pair types, alone and beside each flood, seconds.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Characters a second that the pair types.
    #[arg(long, default_value_t = 50.0)]
    typing: f64,
    /// Members of a mob, each with a connection.
    #[arg(long, default_value_t = 16)]
    members: usize,
    /// Messages a second of all members, in floods of messages.
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// The processor that a mob is kept to, by its number; with `taskset` before this program the rest is the server's and the pair's.
    /// Where the kernel is not preempted, what a mob has it do keeps others waiting on the same processor, however much
    /// the mob gives way.
    #[arg(long)]
    mob_processor: Option<usize>,
    /// Connections that slow readers and slow handshakes hold.
    #[arg(long, default_value_t = 1_000)]
    held: usize,
}

/// Runs it.
///
/// # Errors
/// When the pair does not get its document, or a mob does not start.
pub(crate) async fn run(args: &FloodArgs, target: &Target) -> anyhow::Result<Outcome> {
    let meter = target.meter();
    let floods = if args.floods.is_empty() { Flood::value_variants() } else { &args.floods };
    let mut results = Map::new();
    let mut worst = 0.0_f64;
    for flood in floods {
        let name = flood.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        eprintln!("{name}: the pair alone");
        let quiet = type_beside(args, target, None).await?;
        eprintln!("{name}: the pair beside the mob");
        let before = Metrics::fetch(&target.endpoint).await.unwrap_or_default();
        let beside = type_beside(args, target, Some(*flood)).await?;
        let after = Metrics::fetch(&target.endpoint).await.unwrap_or_default();
        let p99 = |stats: &Stats| stats.delivery_ms()["p99"].as_f64();
        let ratio = p99(&beside.stats).zip(p99(&quiet.stats)).map(|(beside, quiet)| round(beside / quiet));
        worst = worst.max(ratio.unwrap_or(f64::INFINITY));
        let refused: Map<String, Value> = after
            .by_label("syncline_refused_total")
            .into_iter()
            .map(|(reason, count)| {
                let earlier = before.by_label("syncline_refused_total").get(&reason).copied().unwrap_or(0);
                (reason, json!(count - earlier))
            })
            .filter(|(_, more)| *more != json!(0))
            .collect();
        let found = json!({
            "p99_over_quiet": ratio,
            "quiet_ms": quiet.stats.delivery_ms(),
            "flooded_ms": beside.stats.delivery_ms(),
            "quiet_lag_ms": quiet.stats.lag_ms(),
            "flooded_lag_ms": beside.stats.lag_ms(),
            "undelivered": quiet.undelivered + beside.undelivered,
            "pair_lost": losses(&beside.stats),
            "mob": beside.mob,
            "server_refused": refused,
        });
        results.insert(name, found);
    }
    results.insert("worst_p99_over_quiet".to_owned(), json!(worst));
    Ok(Outcome { results, cost: meter.finish() })
}

struct Typed {
    stats: Arc<Stats>,
    undelivered: u64,
    mob: Option<Done>,
}

/// A new pair types into a document of its own.
async fn type_beside(args: &FloodArgs, target: &Target, flood: Option<Flood>) -> anyhow::Result<Typed> {
    let stats = Stats::new();
    let (document, pair) = honest_pair(target, &stats).await?;
    let mob = match flood {
        None => None,
        Some(flood) => {
            let seconds = args.seconds + GATHERING.as_secs_f64() + 1.0;
            let FloodArgs { members, rate, held, .. } = *args;
            let job = MobJob { flood, url: target.endpoint.url(), victim: document, members, rate, held, seconds };
            let mob = beside::start("mob-job", &job, args.mob_processor)?;
            tokio::time::sleep(GATHERING).await;
            Some(mob)
        }
    };
    let edits = type_on_schedule(&pair, 1, args.typing, args.seconds).await;
    wait_for(&stats.deliveries, edits, Duration::from_secs(15)).await;
    let delivered = stats.deliveries.load(std::sync::atomic::Ordering::Relaxed);
    let mob = match mob {
        None => None,
        Some(mob) => {
            let output = tokio::time::timeout(Duration::from_secs(60), mob.wait_with_output()).await??;
            let done = serde_json::from_slice(&output.stdout).context("the mob did not say what it did")?;
            tokio::time::sleep(AFTERMATH).await;
            Some(done)
        }
    };
    drop(pair);
    Ok(Typed { stats, undelivered: edits.saturating_sub(delivered), mob })
}

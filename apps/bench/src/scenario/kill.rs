//! kill -9 under load: is every edit still there that the server had confirmed?
//!
//! Owns: the rounds and the count of what was lost. Must not: let a writer come back before the count, since it would
//! upload again what the server had lost. Next: `../target.rs`.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, connect_many, on_all, results, round, type_on_schedule};
use crate::author;
use crate::client::{Client, Replica};
use crate::ledger::Ledger;
use crate::light::Light;
use crate::stats::Stats;
use crate::target::Target;

/// How often a silent server is asked.
const COUNTS_MAX: usize = 3;

/// Flags of `kill`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct KillArgs {
    /// Times that the server is killed.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Clients that type, each into documents of its own.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Documents of each client.
    #[arg(long, default_value_t = 2)]
    documents: usize,
    /// Edits per second and client.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Shortest time under load before the kill, ms; the longest is three times that.
    #[arg(long, default_value_t = 500)]
    load_ms: u64,
    /// A command to run on the data after the last kill, with {data} in it.
    #[arg(long)]
    check_command: Option<String>,
}

#[derive(Default)]
struct Tally {
    unanswered: u64,
    edits: u64,
    confirmed: u64,
    lost: u64,
    restarts_ms: Vec<f64>,
    crashes: usize,
}

/// Runs it.
///
/// # Errors
/// When the server was not started here, or does not come back.
pub(crate) async fn run(args: &KillArgs, target: &mut Target) -> anyhow::Result<Outcome> {
    let meter = target.meter();
    let mut tally = Tally::default();
    let mut everything: Vec<(Arc<Ledger>, Box<dyn Replica>)> = Vec::new();
    for _ in 0..args.rounds {
        let written = round_of_load(args, target, &mut tally).await?;
        let missing = count_missing(target, &written).await?;
        tally.lost += missing.lost;
        tally.unanswered += missing.unanswered;
        everything.extend(written);
    }
    let at_the_end = count_missing(target, &everything).await?;
    let mut cost = meter.finish();
    // The process that the meter began with is long dead.
    cost.server = None;
    target.kill()?;
    let check = args.check_command.as_ref().map(|command| check(target, command)).transpose()?;
    tally.restarts_ms.sort_by(f64::total_cmp);
    let results = results(json!({
        "edits": tally.edits,
        "confirmed": tally.confirmed,
        "lost": tally.lost,
        "unanswered": tally.unanswered,
        "lost_at_the_end": at_the_end.lost,
        "unanswered_at_the_end": at_the_end.unanswered,
        "restart_p50_ms": tally.restarts_ms.get(tally.restarts_ms.len() / 2),
        "restart_max_ms": tally.restarts_ms.last(),
        "crashes": tally.crashes,
        "check": check,
    }));
    Ok(Outcome { results, cost })
}

/// Types, kills in the middle of it, restarts. What was written comes back with what was confirmed of it.
async fn round_of_load(
    args: &KillArgs,
    target: &mut Target,
    tally: &mut Tally,
) -> anyhow::Result<Vec<(Arc<Ledger>, Box<dyn Replica>)>> {
    let stats = Stats::new();
    let clients = connect_many(&target.options(&stats), args.clients).await;
    let mut ledgers = Vec::new();
    for client in &clients {
        for _ in 0..args.documents {
            let (ledger, first) = author::new_document();
            client.open(Light::creator(Arc::clone(&ledger), Arc::clone(&stats), first));
            ledgers.push(ledger);
        }
    }
    for synced in on_all(&clients, |at| clients[at].synced(Duration::from_secs(30))).await {
        synced?;
    }
    let load_ms = args.load_ms + rand::random_range(0..=args.load_ms * 2);
    let per_second = args.rate * clients.len() as f64;
    {
        let typing = type_on_schedule(&clients, args.documents, per_second, f64::INFINITY);
        let _ = tokio::time::timeout(Duration::from_millis(load_ms), typing).await;
    }
    tally.crashes += usize::from(target.has_crashed());
    target.kill()?;
    let mut replicas = Vec::new();
    for client in clients {
        replicas.extend(client.stop().await);
    }
    tally.edits += stats.edits.load(Relaxed);
    tally.confirmed += stats.acknowledgements.load(Relaxed);
    tally.restarts_ms.push(round(target.start().await?.as_secs_f64() * 1e3));
    let ledger_of = |id: &str| ledgers.iter().find(|ledger| ledger.id == id).map(Arc::clone);
    Ok(replicas.into_iter().filter_map(|replica| Some((ledger_of(replica.document())?, replica))).collect())
}

/// What a client that has nothing did not get of what had been confirmed.
#[derive(Debug, Clone, Copy, Default)]
struct Missing {
    /// Edits of documents about which the server answered without them.
    lost: u64,
    /// Edits of documents about which the server never answered: unknown, not lost.
    unanswered: u64,
}

/// Fetches every document with a client that has nothing. A server that has just started may drop what it is asked
/// before it is ready, so one that stays silent is asked again.
async fn count_missing(target: &Target, written: &[(Arc<Ledger>, Box<dyn Replica>)]) -> anyhow::Result<Missing> {
    let mut missing = Missing::default();
    for _ in 0..COUNTS_MAX {
        let stats = Stats::new();
        let client = Client::connect(target.options(&stats)).await?;
        for (ledger, _) in written {
            client.open(Light::subscriber(Arc::clone(ledger), Arc::clone(&stats)));
        }
        // Documents that the server lost whole never get in sync; a server that answers at all answers sooner.
        let _ = client.synced(Duration::from_secs(10)).await;
        let fetched = client.stop().await;
        ensure!(fetched.len() == written.len(), "the connection for the count was lost");
        missing = Missing::default();
        for ((_, writer), reader) in written.iter().zip(&fetched) {
            let (author, confirmed) = writer.confirmed();
            let absent = u64::from(confirmed.saturating_sub(reader.known().seq(author)));
            if reader.is_answered() {
                missing.lost += absent;
            } else {
                missing.unanswered += absent;
            }
        }
        if missing.unanswered == 0 {
            break;
        }
    }
    Ok(missing)
}

fn check(target: &Target, command: &str) -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-c", &target.fill(command)?]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    Ok(format!("{}: {last}", if output.status.success() { "passed" } else { "FAILED" }))
}

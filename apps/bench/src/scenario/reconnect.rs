//! Clients that come back: one with very many documents, and very many at once.
//!
//! Owns: what a client kept while it was away. Must not: give a client more than a stock one keeps: documents and
//! persisted sync states. Next: `idle.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, losses, results, round, upload_all};
use crate::author;
use crate::client::{Client, Options, Replica};
use crate::full::Full;
use crate::ledger::Ledger;
use crate::light::Light;
use crate::stats::Stats;
use crate::target::Target;

/// Flags of `reconnect`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ReconnectArgs {
    /// Documents of the client.
    #[arg(long, default_value_t = 10_000)]
    documents: usize,
    /// Documents that somebody else changed in the meantime.
    #[arg(long, default_value_t = 10)]
    changed: usize,
    /// The client holds automerge documents, and pays for them.
    #[arg(long)]
    full: bool,
    /// How long creating the documents may take, seconds.
    #[arg(long, default_value_t = 300)]
    create_within: u64,
    /// How long coming back may take, seconds.
    #[arg(long, default_value_t = 120)]
    within: u64,
}

/// Flags of `reconnect-storm`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct StormArgs {
    /// Clients.
    #[arg(long, default_value_t = 500)]
    clients: usize,
    /// Documents of each.
    #[arg(long, default_value_t = 20)]
    documents: usize,
    /// How long creating the documents may take, seconds.
    #[arg(long, default_value_t = 300)]
    create_within: u64,
    /// How long coming back may take, seconds.
    #[arg(long, default_value_t = 60)]
    within: u64,
}

/// Runs `reconnect`.
///
/// # Errors
/// When the documents cannot be made or changed.
pub(crate) async fn run(args: &ReconnectArgs, target: &Target) -> anyhow::Result<Outcome> {
    let stats = Stats::new();
    let options = Options { storage_id: Some(uuid::Uuid::new_v4().to_string()), ..target.options(&stats) };
    let (ledgers, mut replicas) = create(&options, args.documents, args.create_within).await?;
    if args.full {
        replicas = replicas
            .iter()
            .map(|replica| {
                let ledger = Arc::clone(&ledgers[replica.document()]);
                Ok(Box::new(Full::returning(ledger, Arc::clone(&stats))?) as Box<dyn Replica>)
            })
            .collect::<anyhow::Result<_>>()?;
    }
    let changed: Vec<_> =
        replicas.iter().take(args.changed).map(|replica| Arc::clone(&ledgers[replica.document()])).collect();
    change(target, &changed).await?;

    let stats = Stats::new();
    let meter = target.meter();
    let began = Instant::now();
    let client = Client::connect(Options { stats: Arc::clone(&stats), own_thread: args.full, ..options }).await?;
    let documents = replicas.len();
    for mut replica in replicas {
        replica.disconnect();
        client.reopen(replica);
    }
    let outcome = client.synced(Duration::from_secs(args.within)).await;
    let elapsed = began.elapsed();
    let cost = meter.finish();
    let synced = client.stop().await.iter().filter(|replica| replica.is_synced()).count();
    let results = results(json!({
        "documents": documents,
        "changed": changed.len(),
        "in_sync": synced,
        "time_ms": round(elapsed.as_secs_f64() * 1e3),
        "bytes_up": stats.bytes_out.load(Relaxed),
        "bytes_down": stats.bytes_in.load(Relaxed),
        "messages_up": stats.messages_out.load(Relaxed),
        "messages_down": stats.messages_in.load(Relaxed),
        "complete": outcome.is_ok(),
        "connections_lost": losses(&stats),
    }));
    Ok(Outcome { results, cost })
}

/// Runs `reconnect-storm`.
///
/// # Errors
/// When the documents cannot be made.
pub(crate) async fn run_storm(args: &StormArgs, target: &Target) -> anyhow::Result<Outcome> {
    let stats = Stats::new();
    let (_, mut replicas) = create(&target.options(&stats), args.clients * args.documents, args.create_within).await?;
    let stats = Stats::new();
    let within = Duration::from_secs(args.within);
    let meter = target.meter();
    let began = Instant::now();
    let mut storm = Vec::new();
    while !replicas.is_empty() {
        let share = replicas.split_off(replicas.len().saturating_sub(args.documents));
        let storage_id = Some(uuid::Uuid::new_v4().to_string());
        let options = Options { storage_id, ..target.options(&stats) };
        storm.push(tokio::spawn(come_back(options, share, began, within)));
    }
    let clients = storm.len();
    let mut times: Vec<f64> = join_all(storm).await.into_iter().filter_map(|time| time.ok()?.ok()).collect();
    let elapsed = began.elapsed();
    let cost = meter.finish();
    times.sort_by(f64::total_cmp);
    let quantile = |q: f64| times.get(((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1))).copied();
    let results = results(json!({
        "clients": clients,
        "failed": clients - times.len(),
        "time_ms": round(elapsed.as_secs_f64() * 1e3),
        "client_p50_ms": quantile(0.5),
        "client_p99_ms": quantile(0.99),
        "bytes_up": stats.bytes_out.load(Relaxed),
        "bytes_down": stats.bytes_in.load(Relaxed),
        "connections_lost": losses(&stats),
    }));
    Ok(Outcome { results, cost })
}

async fn come_back(
    options: Options,
    replicas: Vec<Box<dyn Replica>>,
    began: Instant,
    within: Duration,
) -> anyhow::Result<f64> {
    let client = Client::connect(options).await?;
    for mut replica in replicas {
        replica.disconnect();
        client.reopen(replica);
    }
    client.synced(within.saturating_sub(began.elapsed())).await?;
    Ok(round(began.elapsed().as_secs_f64() * 1e3))
}

type Created = (HashMap<String, Arc<Ledger>>, Vec<Box<dyn Replica>>);

async fn create(options: &Options, documents: usize, within: u64) -> anyhow::Result<Created> {
    let mut ledgers = HashMap::new();
    let mut creators = Vec::new();
    for _ in 0..documents {
        let (ledger, first) = author::new_document();
        creators.push(Light::creator(Arc::clone(&ledger), Arc::clone(&options.stats), first));
        ledgers.insert(ledger.id.clone(), ledger);
    }
    // One connection: a client with a store is one peer. Servers store its sync states while it uploads.
    let replicas = upload_all(options, creators, 1, 64, Duration::from_secs(within)).await;
    ensure!(!replicas.is_empty(), "no document was confirmed: {}", losses(&options.stats));
    Ok((ledgers, replicas))
}

async fn change(target: &Target, ledgers: &[Arc<Ledger>]) -> anyhow::Result<()> {
    let stats = Stats::new();
    let client = Client::connect(target.options(&stats)).await?;
    for ledger in ledgers {
        client.open(Light::subscriber(Arc::clone(ledger), Arc::clone(&stats)));
    }
    let within = Duration::from_secs(60);
    client.synced(within).await?;
    for slot in 0..ledgers.len() {
        client.edit(slot, Instant::now());
    }
    client.synced(within).await?;
    client.stop().await;
    Ok(())
}

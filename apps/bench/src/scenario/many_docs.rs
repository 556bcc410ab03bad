//! Many clients, each with documents of its own, each typing slowly.
//!
//! Owns: creating the documents and the measured stretch. Must not: let two clients share a document.
//! Next: `fanout_cpu.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, connect_many, losses, on_all, percent, results, round, type_on_schedule, wait_for};
use crate::author;
use crate::light::Light;
use crate::stats::Stats;
use crate::target::Target;

/// Flags of `many-docs`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ManyDocsArgs {
    /// Clients.
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// Documents of each client.
    #[arg(long, default_value_t = 10)]
    documents: usize,
    /// Edits per second and client; raise it until acknowledgements fall behind to find the sustained maximum.
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Length of the run, seconds.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// How long to wait afterwards for acknowledgements, seconds.
    #[arg(long, default_value_t = 15)]
    grace: u64,
    /// How long creating the documents may take, seconds.
    #[arg(long, default_value_t = 180)]
    create_within: u64,
}

/// Runs it.
///
/// # Errors
/// When no client can connect.
pub(crate) async fn run(args: &ManyDocsArgs, target: &Target) -> anyhow::Result<Outcome> {
    let stats = Stats::new();
    let clients = connect_many(&target.options(&stats), args.clients).await;
    anyhow::ensure!(!clients.is_empty(), "no client could connect: {}", losses(&stats));
    let creating = Instant::now();
    for client in &clients {
        for _ in 0..args.documents {
            let (ledger, first) = author::new_document();
            client.open(Light::creator(ledger, Arc::clone(&stats), first));
        }
    }
    let create_within = Duration::from_secs(args.create_within);
    let created = on_all(&clients, |at| clients[at].synced(create_within)).await;
    let created = created.iter().filter(|created| created.is_ok()).count() * args.documents;
    let create_s = creating.elapsed().as_secs_f64();

    let meter = target.meter();
    let began = Instant::now();
    let edits = type_on_schedule(&clients, args.documents, args.rate * clients.len() as f64, args.seconds).await;
    let in_time = stats.acknowledgements.load(Relaxed) as f64 / began.elapsed().as_secs_f64();
    wait_for(&stats.acknowledgements, edits, Duration::from_secs(args.grace)).await;
    let cost = meter.finish();
    let cpu_us = cost.server.as_ref().map(|server| round(server.cpu_s * 1e6 / edits.max(1) as f64));
    let results = results(json!({
        "created": created,
        "create_s": round(create_s),
        "edits": edits,
        "acknowledged_per_s": round(in_time),
        "acknowledged_percent": percent(stats.acknowledgements.load(Relaxed), edits),
        "acknowledgement_ms": stats.acknowledgement_ms(),
        "server_cpu_us_per_edit": cpu_us,
        "generator_lag_ms": stats.lag_ms(),
        "connections_lost": losses(&stats),
    }));
    drop(clients);
    Ok(Outcome { results, cost })
}

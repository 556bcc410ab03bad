//! What the server remembers while nothing happens: connections, and documents that nobody has open any more.
//!
//! Owns: the crowd and the wait. Must not: send anything once everybody has joined.
//! Next: `kill.rs`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, connect_many, losses, results, round, upload_all};
use crate::author;
use crate::client::Options;
use crate::light::Light;
use crate::process;
use crate::stats::Stats;
use crate::target::Target;

/// Connections from one local address before its ports run out.
const PORTS_PER_ADDRESS: usize = 20_000;

/// Flags of `idle`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct IdleArgs {
    /// Connections that have joined and say nothing.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Documents that are uploaded, closed and left alone.
    #[arg(long, default_value_t = 10_000)]
    documents: usize,
    /// How long nothing happens before memory is read, seconds. Longer than the server takes to let go.
    #[arg(long, default_value_t = 45)]
    settle: u64,
}

/// Runs it.
///
/// # Errors
/// When the server's process is unknown, or the limit on open files is too low.
pub(crate) async fn run(args: &IdleArgs, target: &Target) -> anyhow::Result<Outcome> {
    let (limit, _) = process::open_files_limits().context("no limits in /proc")?;
    ensure!(args.connections as u64 + 100 <= limit, "{} connections, but a limit of {limit} files", args.connections);
    let pid = target.pid().context("the server's process must be known: --server-pid or --server-command")?;
    let resident = || process::memory(pid).map(|memory| memory.resident_kib).context("the server is gone");
    let settle = Duration::from_secs(args.settle);
    let stats = Stats::new();
    let meter = target.meter();
    let empty = resident()?;

    let mut clients = Vec::new();
    for block in 0..args.connections.div_ceil(PORTS_PER_ADDRESS) {
        let last = u8::try_from(block + 2).context("too many connections for 127.0.0.0/24")?;
        let source = (args.connections > PORTS_PER_ADDRESS).then_some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        let share = PORTS_PER_ADDRESS.min(args.connections - block * PORTS_PER_ADDRESS);
        clients.extend(connect_many(&Options { source, ..target.options(&stats) }, share).await);
    }
    tokio::time::sleep(settle).await;
    let crowded = resident()?;
    let connected = clients.len();
    let lost = losses(&stats);
    futures_util::future::join_all(clients.into_iter().map(|client| client.stop())).await;
    tokio::time::sleep(settle).await;
    let deserted = resident()?;

    let creators = (0..args.documents)
        .map(|_| {
            let (ledger, first) = author::new_document();
            Light::creator(ledger, Arc::clone(&stats), first)
        })
        .collect();
    let stored = upload_all(&target.options(&stats), creators, 8, 32, Duration::from_secs(180)).await.len();
    let busy = resident()?;
    tokio::time::sleep(settle).await;
    let quiet = resident()?;
    let each = |now: u64, then: u64, count: usize| round((now as f64 - then as f64) / count.max(1) as f64);
    let results = results(json!({
        "connected": connected,
        "rss_empty_kib": empty,
        "rss_connected_kib": crowded,
        "kib_per_connection": each(crowded, empty, connected),
        "rss_disconnected_kib": deserted,
        "documents": stored,
        "rss_uploaded_kib": busy,
        "rss_documents_idle_kib": quiet,
        "kib_per_idle_document": each(quiet, deserted, stored),
        "connections_lost": lost,
    }));
    Ok(Outcome { results, cost: meter.finish() })
}

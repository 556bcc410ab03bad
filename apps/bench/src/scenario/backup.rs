//! A backup while many type: does what is restored of it have every edit that was acknowledged before it began?
//!
//! Owns: the note of what was acknowledged, the backup, the restored server and the count. Must not: let a writer meet the
//! restored server, since it would upload again what that lacks. Next: `kill.rs`, the same question after a kill.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::process::Command;

use super::import::{last_line, succeed};
use super::{Outcome, connect_many, on_all, results, round, type_on_schedule};
use crate::author;
use crate::client::{Client, Confirmed, Options};
use crate::ledger::Ledger;
use crate::light::Light;
use crate::process::{Scratch, Template};
use crate::stats::Stats;
use crate::target::Target;
use crate::wire::Endpoint;

/// Flags of `backup`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct BackupArgs {
    /// The program whose `backup`, `restore` and `check` are measured; it is what --server-command starts.
    #[arg(long)]
    program: PathBuf,
    /// Clients that type, each into documents of its own.
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Documents of each client.
    #[arg(long, default_value_t = 4)]
    documents: usize,
    /// Edits a second, of all clients.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// How long they type before the backup begins, seconds.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

/// Runs it.
///
/// # Errors
/// When the server was not started here, or a command fails.
pub(crate) async fn run(args: &BackupArgs, target: &Target) -> anyhow::Result<Outcome> {
    let stats = Stats::new();
    let (clients, ledgers) = open_documents(args, target, &stats).await?;
    let scratch = Scratch::new(None);
    std::fs::create_dir_all(scratch.path())?;
    let file = scratch.path().join("backup.db");
    let program = args.program.display();
    let meter = target.meter();
    let backing_up = async {
        tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
        let noted = on_all(&clients, |at| clients[at].confirmed()).await.concat();
        let (began, typed) = (Instant::now(), stats.edits.load(Relaxed));
        let command = target.fill(&format!("{program} backup {} --data {{data}}", file.display()))?;
        let output = Command::new("sh").args(["-c", &command]).output().await?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let meanwhile = stats.edits.load(Relaxed) - typed;
        anyhow::Ok((noted, began.elapsed(), meanwhile))
    };
    let (noted, took, meanwhile) = tokio::select! {
        backed_up = backing_up => backed_up?,
        _ = type_on_schedule(&clients, args.documents, args.rate, f64::INFINITY) => anyhow::bail!("nobody types"),
    };
    let cost = meter.finish();
    drop(clients);
    let restored = scratch.path().join("restored");
    let (check, missing) = restore_and_count(args, target, (&file, &restored), &ledgers, &noted).await?;
    let acknowledged: u64 = noted.iter().map(|confirmed| u64::from(confirmed.seq)).sum();
    let results = results(json!({
        "edits_per_s": round(stats.edits.load(Relaxed) as f64 / cost.seconds),
        "acknowledged_before": acknowledged,
        "edits_meanwhile": meanwhile,
        "backup_s": round(took.as_secs_f64()),
        "backup_bytes": file.metadata()?.len(),
        "missing": missing,
        "check": check,
        "acknowledgement_ms": stats.acknowledgement_ms(),
        "generator_lag_ms": stats.lag_ms(),
    }));
    Ok(Outcome { results, cost })
}

async fn open_documents(
    args: &BackupArgs,
    target: &Target,
    stats: &Arc<Stats>,
) -> anyhow::Result<(Vec<Client>, Vec<Arc<Ledger>>)> {
    let clients = connect_many(&target.options(stats), args.clients).await;
    ensure!(clients.len() == args.clients, "some clients cannot connect");
    let mut ledgers = Vec::new();
    for client in &clients {
        for _ in 0..args.documents {
            let (ledger, first) = author::new_document();
            client.open(Light::creator(Arc::clone(&ledger), Arc::clone(stats), first));
            ledgers.push(ledger);
        }
    }
    let synced = on_all(&clients, |at| clients[at].synced(Duration::from_secs(60))).await;
    synced.into_iter().collect::<anyhow::Result<()>>()?;
    Ok((clients, ledgers))
}

/// Restores, checks, serves, and asks for every document: what `check` says, and the edits that are not there.
async fn restore_and_count(
    args: &BackupArgs,
    target: &Target,
    (file, restored): (&Path, &Path),
    ledgers: &[Arc<Ledger>],
    noted: &[Confirmed],
) -> anyhow::Result<(String, u64)> {
    let program = args.program.display();
    let template = Template::new(target.command()?, None, restored.to_owned())?;
    succeed(&template.fill(&format!("{program} restore {} --data {{data}}", file.display())))?;
    let check = succeed(&template.fill(&format!("{program} check --data {{data}}")))?;
    let server = template.start()?;
    let endpoint = Endpoint::resolve(&template.url()).await?;
    let stats = Stats::new();
    let options = Options { endpoint, ..target.options(&stats) };
    let client = connect(options).await.with_context(|| template.log_tail())?;
    for ledger in ledgers {
        client.open(Light::subscriber(Arc::clone(ledger), Arc::clone(&stats)));
    }
    // A document that is missing whole never gets in sync, and is counted.
    let _ = client.synced(Duration::from_secs(60)).await;
    let fetched = client.stop().await;
    server.stop().await;
    let missing = noted.iter().map(|confirmed| {
        let there = fetched.iter().find(|replica| replica.document() == confirmed.document);
        u64::from(confirmed.seq.saturating_sub(there.map_or(0, |replica| replica.known().seq(confirmed.author))))
    });
    Ok((last_line(&check).to_owned(), missing.sum()))
}

/// To a server that is starting.
async fn connect(options: Options) -> anyhow::Result<Client> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Client::connect(options.clone()).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

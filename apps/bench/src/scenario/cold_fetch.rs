//! Every document at once from a server that has just started.
//!
//! Owns: the upload, the restart and the fetch. Must not: help the server by fetching in a gentle order.
//! Next: `long_text.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use automerge::Automerge;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, losses, results, round, upload_all};
use crate::author::{self, Seed};
use crate::client::Client;
use crate::full::Full;
use crate::ledger::Ledger;
use crate::light::Light;
use crate::stats::Stats;
use crate::target::Target;

/// Distinct contents; uploading the same ones under many ids saves building each.
const CONTENTS: usize = 8;

/// Flags of `cold-fetch`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ColdFetchArgs {
    /// Documents.
    #[arg(long, default_value_t = 1_000)]
    documents: usize,
    /// Size of each as saved, about, kB.
    #[arg(long, default_value_t = 50)]
    kilobytes: usize,
    /// How long the upload may take, seconds; what is confirmed by then is fetched.
    #[arg(long, default_value_t = 180)]
    upload_within: u64,
    /// How long the fetch may take, seconds.
    #[arg(long, default_value_t = 120)]
    within: u64,
    /// How long the server may settle before it is stopped, seconds.
    #[arg(long, default_value_t = 3)]
    settle: u64,
    /// Documents to load whole afterwards and compare.
    #[arg(long, default_value_t = 10)]
    verify: usize,
}

/// Runs it.
///
/// # Errors
/// When the server was not started here, or holds nothing after the restart.
pub(crate) async fn run(args: &ColdFetchArgs, target: &mut Target) -> anyhow::Result<Outcome> {
    let stats = Stats::new();
    // Printable characters deflate to about seven eighths.
    let chars = args.kilobytes * 1_000 * 8 / 7 / 50;
    let seeds = (0..CONTENTS).map(|_| Seed::typed(51, chars)).collect::<anyhow::Result<Vec<_>>>()?;
    let documents: Vec<_> = (0..args.documents).map(|at| (seeds[at % CONTENTS].document(), at % CONTENTS)).collect();
    let creators = documents
        .iter()
        .map(|((ledger, head), _)| Light::creator(Arc::clone(ledger), Arc::clone(&stats), *head))
        .collect();
    let uploading = Instant::now();
    let upload_within = Duration::from_secs(args.upload_within);
    let uploaded = upload_all(&target.options(&stats), creators, 4, 4, upload_within).await;
    let upload_s = uploading.elapsed().as_secs_f64();
    ensure!(!uploaded.is_empty(), "nothing was uploaded: {}", losses(&stats));
    let stored: std::collections::HashSet<String> = uploaded.iter().map(|doc| doc.document().to_owned()).collect();
    tokio::time::sleep(Duration::from_secs(args.settle)).await;
    target.stop().await?;
    let restart = target.start().await?;

    let stats = Stats::new();
    let meter = target.meter();
    let client = Client::connect(target.options(&stats)).await?;
    for ((ledger, _), _) in documents.iter().filter(|((ledger, _), _)| stored.contains(&ledger.id)) {
        client.open(Light::subscriber(Arc::clone(ledger), Arc::clone(&stats)));
    }
    let fetching = Instant::now();
    let complete = client.synced(Duration::from_secs(args.within)).await;
    let fetch_s = fetching.elapsed().as_secs_f64();
    let cost = meter.finish();
    let fetched = client.stop().await.iter().filter(|replica| replica.is_synced()).count();
    let checked: Vec<_> = documents.iter().filter(|((ledger, _), _)| stored.contains(&ledger.id)).collect();
    let mut equal = 0;
    for ((ledger, _), content) in checked.iter().take(args.verify) {
        equal += usize::from(is_equal(target, ledger, &seeds[*content]).await?);
    }
    let ms_cpu = cost.server.as_ref().map(|server| round(server.cpu_s * 1e3 / fetched.max(1) as f64));
    let results = results(json!({
        "document_bytes": seeds[0].bytes.len(),
        "uploaded": stored.len(),
        "upload_s": round(upload_s),
        "restart_ms": round(restart.as_secs_f64() * 1e3),
        "fetched": fetched,
        "fetch_s": round(fetch_s),
        "complete": complete.is_ok(),
        "server_cpu_ms_per_document": ms_cpu,
        "compared_equal": format!("{equal} of {}", checked.len().min(args.verify)),
        "connections_lost": losses(&stats),
    }));
    Ok(Outcome { results, cost })
}

/// Whether a document that automerge itself fetches and applies has the contents that were uploaded.
pub(super) async fn is_equal(target: &Target, ledger: &Arc<Ledger>, seed: &Seed) -> anyhow::Result<bool> {
    let stats = Stats::new();
    let options = crate::client::Options { own_thread: true, ..target.options(&stats) };
    let client = Client::connect(options).await?;
    client.open(Full::subscriber(Arc::clone(ledger), stats));
    let synced = client.synced(Duration::from_secs(60)).await;
    let replicas = client.stop().await;
    let expected = author::text_of(&Automerge::load(&seed.bytes)?)?;
    Ok(synced.is_ok() && replicas.iter().all(|replica| replica.text().as_deref() == Some(expected.as_str())))
}

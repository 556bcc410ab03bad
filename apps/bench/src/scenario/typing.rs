//! Many users type in one text at once.
//!
//! Owns: the users and the comparison of their texts afterwards. Must not: generate load in any other way than users do.
//! Next: `fanout.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use automerge::Automerge;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, losses, on_all, percent, results, type_on_schedule, wait_for};
use crate::author;
use crate::client::{Client, Options, Replica};
use crate::full::Full;
use crate::ledger::Ledger;
use crate::light::Light;
use crate::stats::Stats;
use crate::target::Target;

/// Flags of `typing`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct TypingArgs {
    /// Users, the full ones included.
    #[arg(long, default_value_t = 32)]
    users: usize,
    /// Users that hold the document and check its contents.
    #[arg(long, default_value_t = 2)]
    full: usize,
    /// Characters per second and user.
    #[arg(long, default_value_t = 6.0)]
    rate: f64,
    /// Length of the run, seconds.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// How long to wait afterwards for what is still on its way, seconds.
    #[arg(long, default_value_t = 15)]
    grace: u64,
}

/// Runs it.
///
/// # Errors
/// When the users cannot connect or do not get the empty document.
pub(crate) async fn run(args: &TypingArgs, target: &Target) -> anyhow::Result<Outcome> {
    let stats = Stats::new();
    let (ledger, users) = join_document(args, target.options(&stats), &stats).await?;
    let meter = target.meter();
    stats.late_from(Instant::now() + Duration::from_secs_f64(args.seconds * 2.0 / 3.0));
    let edits = type_on_schedule(&users, 1, args.rate * args.users as f64, args.seconds).await;
    let due = edits * (users.len() as u64 - 1);
    let complete = wait_for(&stats.deliveries, due, Duration::from_secs(args.grace)).await;
    let delivered = stats.deliveries.load(Relaxed);
    let cost = meter.finish();
    let lost = losses(&stats);
    if complete {
        // The last acknowledgements may still be on their way; heads are compared below.
        let within = Duration::from_secs(args.grace);
        on_all(&users, |at| users[at].synced(within)).await;
    }
    let mut replicas = Vec::new();
    for user in users {
        replicas.extend(user.stop().await);
    }
    let results = results(json!({
        "edits": edits,
        "delivered_percent": percent(delivered, due),
        "delivery_ms": stats.delivery_ms(),
        "delivery_last_third_ms": stats.delivery_late_ms(),
        "delivery_full_ms": stats.delivery_full_ms(),
        "acknowledged_percent": percent(stats.acknowledgements.load(Relaxed), edits),
        "acknowledgement_ms": stats.acknowledgement_ms(),
        "messages_in_per_s": (stats.messages_in.load(Relaxed) as f64 / cost.seconds).round(),
        "generator_lag_ms": stats.lag_ms(),
        "contents": if complete { compare(&ledger, &replicas) } else { "not everything arrived".to_owned() },
        "connections_lost": lost,
    }));
    Ok(Outcome { results, cost })
}

async fn join_document(
    args: &TypingArgs,
    options: Options,
    stats: &Arc<Stats>,
) -> anyhow::Result<(Arc<Ledger>, Vec<Client>)> {
    let (ledger, first) = author::new_document();
    let mut users = Vec::new();
    let within = Duration::from_secs(60);
    for user in 0..args.users {
        let full = user >= args.users.saturating_sub(args.full) && user > 0;
        let client = Client::connect(Options { own_thread: full, ..options.clone() }).await?;
        if full {
            client.open(Full::subscriber(Arc::clone(&ledger), Arc::clone(stats)));
        } else if user > 0 {
            client.open(Light::subscriber(Arc::clone(&ledger), Arc::clone(stats)));
        } else {
            client.open(Light::creator(Arc::clone(&ledger), Arc::clone(stats), first));
            client.synced(within).await?;
        }
        users.push(client);
    }
    for user in &users {
        user.synced(within).await?;
    }
    Ok((ledger, users))
}

/// Every full replica against a document made of every change that was written, applied afresh.
fn compare(ledger: &Ledger, replicas: &[Box<dyn Replica>]) -> String {
    let stream: Vec<u8> = ledger.book().nodes().iter().flat_map(|node| node.bytes.to_vec()).collect();
    let expected = match Automerge::load(&stream).map_err(anyhow::Error::from).and_then(|doc| author::text_of(&doc)) {
        Ok(text) => text,
        Err(error) => return format!("automerge refuses the changes: {error:#}"),
    };
    let texts: Vec<String> = replicas.iter().filter_map(|replica| replica.text()).collect();
    let differing = texts.iter().filter(|text| **text != expected).count();
    let heads: std::collections::BTreeSet<_> = replicas.iter().map(|replica| replica.heads()).collect();
    match (differing, heads.len()) {
        (0, 1) => format!("{} full and {} light agree", texts.len(), replicas.len() - texts.len()),
        (0, heads) => format!("texts agree, but there are {heads} different heads"),
        (differing, _) => format!("{differing} of {} texts differ", texts.len()),
    }
}

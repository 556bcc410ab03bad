//! Frames that no honest client sends, while a pair of honest ones works beside them.
//!
//! Owns: the attackers, their pace, and the same pair measured with and without them. Must not: let an attacker spare
//! the server: who is cut off connects again. Next: `forge.rs`, what they send.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::{Outcome, losses, results, round, type_on_schedule};
use crate::author;
use crate::client::Client;
use crate::forge::{Corpus, Forge};
use crate::frame;
use crate::light::Light;
use crate::metrics::Metrics;
use crate::process;
use crate::stats::Stats;
use crate::target::Target;
use crate::wire::Endpoint;

/// Longest that an attacker waits for the end of a connection that it has given reason to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

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
    let corpus = args.corpus.as_deref().map(Corpus::read).transpose()?.unwrap_or_default();
    let quiet = Stats::new();
    let (document, pair) = honest_pair(target, &quiet).await?;
    type_on_schedule(&pair, 1, args.typing, args.quiet).await;
    drop(pair);

    let busy = Stats::new();
    let (victim, pair) = honest_pair(target, &busy).await?;
    ensure!(victim != document, "each pair has a document of its own");
    let before = Metrics::fetch(&target.endpoint).await.unwrap_or_default();
    let meter = target.meter();
    let attack = Arc::new(Attack::new(args, target.endpoint.clone(), victim, corpus));
    let memory = target.pid().map(|pid| watch_memory(pid, Arc::clone(&attack)));
    let attackers: Vec<_> = (0..args.attackers).map(|number| tokio::spawn(Arc::clone(&attack).run(number))).collect();
    let attacking = async {
        let mut tally = Tally::default();
        for attacker in attackers {
            tally.add(attacker.await.context("an attacker panicked")?);
        }
        anyhow::Ok(tally)
    };
    let tally = tokio::select! {
        tally = attacking => tally?,
        _ = type_on_schedule(&pair, 1, args.typing, f64::INFINITY) => anyhow::bail!("the pair stopped typing"),
    };
    for user in &pair {
        user.synced(Duration::from_secs(30)).await.context("the honest pair after the attack")?;
    }
    let cost = meter.finish();
    let after = Metrics::fetch(&target.endpoint).await.unwrap_or_default();
    let memory = match memory {
        Some(watching) => watching.await.ok(),
        None => None,
    };
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
        "generator_lag_ms": busy.lag_ms(),
        "rss_kib": memory,
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

/// What the attackers share.
struct Attack {
    endpoint: Endpoint,
    victim: String,
    corpus: Arc<Corpus>,
    seed: u64,
    began: Instant,
    rate: f64,
    frames: u64,
    begun: AtomicU64,
}

/// What an attacker did.
#[derive(Debug, Default)]
struct Tally {
    frames: BTreeMap<&'static str, u64>,
    connections: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        for (kind, frames) in other.frames {
            *self.frames.entry(kind).or_default() += frames;
        }
    }
}

impl Attack {
    fn new(args: &HostileArgs, endpoint: Endpoint, victim: String, corpus: Corpus) -> Self {
        let (corpus, began, begun) = (Arc::new(corpus), Instant::now(), AtomicU64::new(0));
        let HostileArgs { seed, rate, frames, .. } = *args;
        Self { endpoint, victim, corpus, seed, began, rate, frames, begun }
    }

    async fn run(self: Arc<Self>, number: u64) -> Tally {
        let name = format!("mallory-{number}");
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let mut forge = Forge::new(seed, name.clone(), self.victim.clone(), Arc::clone(&self.corpus));
        let mut tally = Tally::default();
        while self.begun.load(Relaxed) < self.frames {
            tally.connections += 1;
            // A server that has just cut somebody off may be busy; the frames left are counted, so this ends.
            let _ = self.connection(&name, &mut forge, &mut tally).await;
        }
        tally
    }

    /// Sends until the connection ends or nothing is left to send.
    async fn connection(&self, name: &str, forge: &mut Forge, tally: &mut Tally) -> anyhow::Result<()> {
        let (mut sink, mut source) = self.endpoint.dial(None, Stats::new()).await?.split();
        // What is said is not heard, but taken: one who never reads is another scenario.
        let mut ended: JoinHandle<()> = tokio::spawn(async move { while let Some(Ok(_)) = source.next().await {} });
        sink.send(Message::Binary(frame::encode_join(name, None).into())).await?;
        while !ended.is_finished() {
            let number = self.begun.fetch_add(1, Relaxed);
            if number >= self.frames {
                break;
            }
            let due = self.began + Duration::from_secs_f64(number as f64 / self.rate);
            tokio::time::sleep_until(due.into()).await;
            let forged = forge.next();
            sink.send(Message::Binary(forged.bytes.into())).await?;
            *tally.frames.entry(forged.kind).or_default() += 1;
            if forged.closes && tokio::time::timeout(CLOSE_TIMEOUT, &mut ended).await.is_ok() {
                return Ok(());
            }
        }
        ended.abort();
        Ok(())
    }
}

/// The server's memory over the attack.
#[derive(Debug, Default, Serialize)]
struct MemoryTrace {
    /// After a tenth of the frames.
    after_a_tenth: u64,
    /// The most of any look after that.
    most: u64,
    /// At the end.
    end: u64,
}

fn watch_memory(pid: u32, attack: Arc<Attack>) -> JoinHandle<MemoryTrace> {
    tokio::spawn(async move {
        let mut trace = MemoryTrace::default();
        loop {
            let (begun, resident) =
                (attack.begun.load(Relaxed), process::memory(pid).map_or(0, |now| now.resident_kib));
            if trace.after_a_tenth == 0 && begun >= attack.frames / 10 {
                trace.after_a_tenth = resident;
            }
            if trace.after_a_tenth > 0 {
                trace.most = trace.most.max(resident);
            }
            trace.end = resident;
            if begun >= attack.frames {
                return trace;
            }
            tokio::time::sleep(SAMPLE).await;
        }
    })
}

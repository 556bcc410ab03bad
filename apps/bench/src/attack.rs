//! Attackers: connections that send what no honest client sends, until so many frames are sent. They run in a process of
//! their own.
//!
//! Owns: their pace and the count of what was sent. Must not: let an attacker spare the server: who is cut off connects
//! again; measure anything of the server. Next: `forge.rs`, what they send; `scenario/hostile.rs`, which measures an
//! honest pair beside them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::forge::{Corpus, Forge};
use crate::frame;
use crate::stats::Stats;
use crate::wire::Endpoint;

/// Longest that an attacker waits for the end of a connection that it has given reason to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The order for a process of attackers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AttackJob {
    pub(crate) url: String,
    /// The honest pair's document.
    pub(crate) victim: String,
    pub(crate) corpus: Option<PathBuf>,
    pub(crate) seed: u64,
    /// Frames a second of all attackers.
    pub(crate) rate: f64,
    /// Frames of all attackers.
    pub(crate) frames: u64,
    pub(crate) attackers: u64,
}

/// What attackers did.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Frames by what is wrong with them.
    pub(crate) frames: BTreeMap<String, u64>,
    pub(crate) connections: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        for (kind, frames) in other.frames {
            *self.frames.entry(kind).or_default() += frames;
        }
    }
}

/// Attacks until everything is sent, and prints what was done.
pub(crate) async fn run(job: AttackJob) -> anyhow::Result<()> {
    let corpus = job.corpus.as_deref().map(Corpus::read).transpose()?.unwrap_or_default();
    let endpoint = Endpoint::resolve(&job.url).await?;
    let attackers = job.attackers;
    let (corpus, began, begun) = (Arc::new(corpus), Instant::now(), AtomicU64::new(0));
    let attack = Arc::new(Attack { job, endpoint, corpus, began, begun });
    let attackers: Vec<_> = (0..attackers).map(|number| tokio::spawn(Arc::clone(&attack).attacker(number))).collect();
    let mut tally = Tally::default();
    for attacker in attackers {
        tally.add(attacker.await.context("an attacker panicked")?);
    }
    println!("{}", serde_json::to_string(&tally)?);
    Ok(())
}

/// What the attackers share.
struct Attack {
    job: AttackJob,
    endpoint: Endpoint,
    corpus: Arc<Corpus>,
    began: Instant,
    begun: AtomicU64,
}

impl Attack {
    async fn attacker(self: Arc<Self>, number: u64) -> Tally {
        let name = format!("mallory-{number}");
        let seed = self.job.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let mut forge = Forge::new(seed, name.clone(), self.job.victim.clone(), Arc::clone(&self.corpus));
        let mut tally = Tally::default();
        while self.begun.load(Relaxed) < self.job.frames {
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
            if number >= self.job.frames {
                break;
            }
            let due = self.began + Duration::from_secs_f64(number as f64 / self.job.rate);
            tokio::time::sleep_until(due.into()).await;
            let forged = forge.next();
            sink.send(Message::Binary(forged.bytes.into())).await?;
            *tally.frames.entry(forged.kind.to_owned()).or_default() += 1;
            if forged.closes && tokio::time::timeout(CLOSE_TIMEOUT, &mut ended).await.is_ok() {
                return Ok(());
            }
        }
        ended.abort();
        Ok(())
    }
}

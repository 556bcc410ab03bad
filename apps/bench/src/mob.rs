//! A mob: many connections that do what is allowed, or nearly, without measure. It runs in a process of its own.
//!
//! Owns: what each kind of flood does, and the count of it. Must not: measure anything of the server.
//! Next: `mob/members.rs`; `scenario/flood.rs`, which measures an honest pair beside it.

mod members;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::wire::Endpoint;

/// What a mob does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Flood {
    /// Messages of 16 MiB of noise, and of more than any message may have.
    GiantFrames,
    /// Ephemeral messages at the honest pair's own document.
    Ephemeral,
    /// Changes of one character, each in a message of its own, into documents of their own.
    TinyChanges,
    /// Clients that ask for a document of 300 kB and for the honest one, and read nothing.
    SlowReaders,
    /// Connections that join and go.
    Connections,
    /// Connections whose HTTP request comes a byte a second.
    SlowHandshakes,
    /// Questions about documents that nobody has.
    UnknownIds,
}

/// The order for a process that is a mob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MobJob {
    pub(crate) flood: Flood,
    pub(crate) url: String,
    /// The honest pair's document.
    pub(crate) victim: String,
    pub(crate) members: usize,
    /// Messages a second of all members, where they send many.
    pub(crate) rate: f64,
    /// Connections that are held, where that is the flood.
    pub(crate) held: usize,
    pub(crate) seconds: f64,
}

/// What a mob has done.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) connections: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// What the members share.
struct Mob {
    job: MobJob,
    endpoint: Endpoint,
    began: Instant,
    begun: AtomicU64,
    connections: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// Is a mob for as long as the job says, and prints what was done.
pub(crate) fn be(job: MobJob) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(run(job))?;
    println!("{}", serde_json::to_string(&done)?);
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

async fn run(job: MobJob) -> anyhow::Result<Done> {
    let endpoint = Endpoint::resolve(&job.url).await?;
    let seconds = Duration::from_secs_f64(job.seconds);
    let count = match job.flood {
        Flood::SlowReaders | Flood::SlowHandshakes => job.held,
        Flood::GiantFrames | Flood::Ephemeral | Flood::TinyChanges | Flood::Connections | Flood::UnknownIds => {
            job.members
        }
    };
    let mob = Arc::new(Mob {
        job,
        endpoint,
        began: Instant::now(),
        begun: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        messages: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    let big = members::upload_big(&mob).await?;
    let members: Vec<_> = (0..count).map(|number| tokio::spawn(Arc::clone(&mob).member(number, big.clone()))).collect();
    tokio::time::sleep(seconds).await;
    members.iter().for_each(tokio::task::JoinHandle::abort);
    let Mob { connections, messages, bytes, .. } = &*mob;
    Ok(Done { connections: connections.load(Relaxed), messages: messages.load(Relaxed), bytes: bytes.load(Relaxed) })
}

impl Mob {
    /// Does the same again and again: whoever is cut off comes back.
    async fn member(self: Arc<Self>, number: usize, big: Option<String>) {
        loop {
            self.connections.fetch_add(1, Relaxed);
            let again = match self.job.flood {
                Flood::GiantFrames => self.send_giants(number).await,
                Flood::Ephemeral => self.chatter(number).await,
                Flood::TinyChanges => self.type_wildly(number).await,
                Flood::SlowReaders => self.read_nothing(number, big.as_deref()).await,
                Flood::Connections => self.join_and_go(number).await,
                Flood::SlowHandshakes => self.ask_slowly().await,
                Flood::UnknownIds => self.ask_in_vain(number).await,
            };
            if again.is_err() {
                // Where nobody listens at this moment, no member spins.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits for the turn of the next message.
    async fn turn(&self) {
        let number = self.begun.fetch_add(1, Relaxed);
        tokio::time::sleep_until((self.began + Duration::from_secs_f64(number as f64 / self.job.rate)).into()).await;
    }

    fn note(&self, bytes: usize) {
        self.messages.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

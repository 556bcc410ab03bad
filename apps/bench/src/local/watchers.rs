//! Watched documents that others edit: what the watching process pays, minute after minute.
//!
//! Owns: the writer, the samples of the watching process. Must not: watch in the writer's process.
//! Next: `job.rs`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use automerge::ROOT;
use automerge::transaction::Transactable;
use futures_util::StreamExt;
use serde_json::{Value, json};
use syncline::{DocumentUrl, Repo};

use super::job::Job;
use super::{Library, command, name_of};
use crate::process::{self, Scratch};
use crate::scenario::round;
use crate::target::Target;

/// Samples of the watching process's memory.
const SAMPLES: u64 = 10;

/// Runs it with both libraries, one after the other.
///
/// # Errors
/// When a process fails or the server cannot be reached.
pub(crate) async fn run(target: &Target, documents: usize, rate: u64, seconds: u64) -> anyhow::Result<Value> {
    let mut all = serde_json::Map::new();
    for library in [Library::Syncline, Library::Samod] {
        let measured = run_one(target, library, documents, rate, seconds).await?;
        all.insert(name_of(library).to_owned(), measured);
    }
    Ok(Value::Object(all))
}

async fn run_one(
    target: &Target,
    library: Library,
    documents: usize,
    rate: u64,
    seconds: u64,
) -> anyhow::Result<Value> {
    let address = target.endpoint.url();
    let (own, theirs) = (Scratch::new(None), Scratch::new(None));
    let repo = Repo::open(own.path())?;
    let _server = repo.connect(&address)?;
    let made: Result<Vec<_>, _> = (0..documents).map(|_| repo.create(|tx| tx.put(ROOT, "n", 0))).collect();
    let made = made?;
    for document in &made {
        document.on_server().await?;
    }
    let urls = made.iter().map(|document| document.url().to_string()).collect();
    let job = Job::Watch { library, server: address, documents: urls, directory: theirs.path().to_owned() };
    let watching = Watching::begin(&job)?;
    let process = watching.child.id();
    let cpu_before = process::cpu_seconds(process).context("the process is in /proc")?;
    let (began, mut written, mut memory) = (Instant::now(), 0_u64, Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        let document = &made[written as usize % made.len()];
        document.change(|tx| tx.put(ROOT, "n", written as i64))?;
        written += 1;
        if began.elapsed().as_secs() * SAMPLES / seconds.max(1) >= memory.len() as u64 {
            memory.push(resident_mib(process));
        }
        let due = began + Duration::from_secs_f64(written as f64 / rate as f64);
        tokio::time::sleep_until(due.into()).await;
    }
    for document in &made {
        document.on_server().await?;
    }
    let cpu = process::cpu_seconds(process).context("the process is in /proc")? - cpu_before;
    memory.push(resident_mib(process));
    let result = watching.end()?;
    // What the documents have grown by is in a new process too.
    let afresh = Watching::begin(&job)?;
    let afresh_mib = resident_mib(afresh.child.id());
    afresh.end()?;
    Ok(json!({
        "edits": written,
        "updates_seen": result["updates"],
        "cpu_us_an_edit": round(cpu * 1e6 / written.max(1) as f64),
        "rss_mib_over_time": memory,
        "rss_mib_afresh": afresh_mib,
    }))
}

fn resident_mib(process: u32) -> u64 {
    process::memory(process).map_or(0, |memory| memory.resident_kib / 1_024)
}

/// A process that watches all documents.
struct Watching {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    /// Returns once it watches them.
    fn begin(job: &Job) -> anyhow::Result<Self> {
        let mut child = command(job)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("the process's output")?).lines();
        said.next().context("the watching process ended")??;
        Ok(Self { child, said })
    }

    /// What it has seen.
    fn end(mut self) -> anyhow::Result<Value> {
        let mut input = self.child.stdin.take().context("the process's input")?;
        input.write_all(b"end\n")?;
        drop(input);
        let result = serde_json::from_str(&self.said.next().context("the watching process ended")??)?;
        self.child.wait()?;
        Ok(result)
    }
}

/// The watching process: says when it watches everything, and at the end of its input what it has seen.
///
/// # Errors
/// When a document cannot be found.
pub(crate) async fn watch(
    library: Library,
    server: &str,
    documents: &[String],
    directory: &Path,
) -> anyhow::Result<Value> {
    let updates = Arc::new(AtomicU64::new(0));
    match library {
        Library::Syncline => {
            let repo = Repo::open(directory)?;
            let _server = repo.connect(server)?;
            for url in documents {
                let url: DocumentUrl = url.parse()?;
                let mut watch = repo.find(&url).await?.watch();
                let updates = Arc::clone(&updates);
                tokio::spawn(async move {
                    while watch.changed().await.is_ok() {
                        updates.fetch_add(1, Relaxed);
                    }
                });
            }
            until_input_ends().await?;
        }
        Library::Samod => {
            std::fs::create_dir_all(directory)?;
            let storage = samod::storage::TokioFilesystemStorage::new(directory);
            let repo = samod::Repo::build_tokio().with_storage(storage).load().await;
            let dialer = repo
                .dial_websocket(url::Url::parse(server)?, samod::BackoffConfig::default())
                .map_err(|_| anyhow::anyhow!("samod has stopped"))?;
            dialer.established().await.map_err(|_| anyhow::anyhow!("samod does not connect"))?;
            for url in documents {
                let url: samod::AutomergeUrl = url.parse().map_err(|_| anyhow::anyhow!("no URL: {url}"))?;
                let found = repo.find(url.document_id().clone()).await;
                let handle =
                    found.map_err(|_| anyhow::anyhow!("samod has stopped"))?.context("samod does not find it")?;
                let (mut changes, updates) = (handle.changes(), Arc::clone(&updates));
                tokio::spawn(async move {
                    // A handle that is dropped would let samod unload the document.
                    let _handle = handle;
                    while changes.next().await.is_some() {
                        updates.fetch_add(1, Relaxed);
                    }
                });
            }
            until_input_ends().await?;
        }
    }
    Ok(json!({ "updates": updates.load(Relaxed) }))
}

async fn until_input_ends() -> anyhow::Result<()> {
    println!("\"watching\"");
    tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose().map(drop)).await??;
    Ok(())
}

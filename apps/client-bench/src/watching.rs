//! Many watched documents that receive remote edits.
//!
//! Owns: the edits, and what the receiving process costs. Must not: make the edits in the process that is measured.
//! Next: `merge.rs`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use automerge::{ROOT, transaction::Transactable};
use clap::ValueEnum;
use futures_util::StreamExt;
use serde_json::{Value, json};
use syncline::{Document, Repo};
use syncline_core::limits::Limits;
use syncline_core::loader::InProcess;
use syncline_server::{Config, Server};

use crate::Side;
use crate::measure::{processor_seconds, resident_kib, round};

/// Measurements of memory over the run.
const SAMPLES: u64 = 12;

pub(crate) fn run(documents: usize, rate: u64, seconds: u64) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ours = runtime.block_on(side(Side::Syncline, documents, rate, seconds))?;
    let theirs = runtime.block_on(side(Side::Samod, documents, rate, seconds))?;
    Ok(json!({ "documents": documents, "rate": rate, "seconds": seconds, "syncline": ours, "samod": theirs }))
}

async fn side(side: Side, documents: usize, rate: u64, seconds: u64) -> anyhow::Result<Value> {
    let data = tempfile::tempdir()?;
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let (data_path, loader) = (data.path().to_owned(), Arc::new(InProcess));
    let config = Config { listen, data: data_path, limits: Limits::default(), loader };
    let server = Server::start(config).await?;
    let address = format!("ws://{}", server.address());
    let author = Repo::memory()?;
    let _link = author.connect(&address)?;
    let mut written: Vec<Document> = Vec::new();
    for n in 0..documents {
        written.push(author.create(|tx| tx.put(ROOT, "n", n as u64))?);
    }
    for document in &written {
        document.on_server().await?;
    }
    let name = side.to_possible_value().context("a name")?.get_name().to_owned();
    let mut receiver = Command::new(std::env::current_exe()?)
        .args(["child", "watching", &name, &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut orders = receiver.stdin.take().context("piped")?;
    let mut answers = BufReader::new(receiver.stdout.take().context("piped")?).lines();
    let mut ask = |order: &str| -> anyhow::Result<Value> {
        writeln!(orders, "{order}")?;
        Ok(serde_json::from_str(&answers.next().context("the receiver has ended")??)?)
    };
    let urls: Vec<String> = written.iter().map(|document| document.url().to_string()).collect();
    ask(&urls.join(" "))?;
    let (before, start) = (ask("sample")?, Instant::now());
    let (edits, pause) = (rate * seconds, Duration::from_secs(1) / u32::try_from(rate)?);
    let mut resident = Vec::new();
    for n in 0..edits {
        tokio::time::sleep_until((start + pause * u32::try_from(n)?).into()).await;
        written[n as usize % documents].change(|tx| tx.put(ROOT, "n", n))?;
        if n % (edits / SAMPLES).max(1) == 0 {
            resident.push(ask("sample")?["resident_kib"].clone());
        }
    }
    let after = ask(&format!("until {edits}"))?;
    writeln!(orders, "end")?;
    receiver.wait()?;
    let number = |value: &Value, field: &str| value[field].as_f64().unwrap_or_default();
    let processor = number(&after, "processor_seconds") - number(&before, "processor_seconds");
    drop(written);
    author.close().await?;
    server.stop().await;
    Ok(json!({
        "edits": edits,
        "processor_us_an_edit": round(processor * 1e6 / edits as f64),
        "updates": after["updates"],
        "resident_kib": resident,
    }))
}

/// The receiving process: opens the documents that it is told, and answers what it costs.
pub(crate) fn child(side: Side, server: &str) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let updates = Arc::new(AtomicU64::new(0));
    let mut lines = std::io::stdin().lock().lines();
    let urls = lines.next().context("addresses")??;
    let urls: Vec<&str> = urls.split_whitespace().collect();
    let _keep = runtime.block_on(watch(side, server, &urls, &updates))?;
    let say = |value: Value| -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{value}")?;
        Ok(out.flush()?)
    };
    say(json!({}))?;
    for line in lines {
        let line = line?;
        if let Some(wanted) = line.strip_prefix("until ") {
            let wanted: u64 = wanted.parse()?;
            // Several edits of one document may come in one update, the last of each never goes missing.
            let deadline = Instant::now() + Duration::from_secs(30);
            while updates.load(Ordering::Relaxed) < wanted && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        } else if line != "sample" {
            break;
        }
        say(json!({
            "resident_kib": resident_kib()?,
            "processor_seconds": processor_seconds()?,
            "updates": updates.load(Ordering::Relaxed),
        }))?;
    }
    std::process::exit(0);
}

/// What has to stay alive while documents are watched.
enum Kept {
    Syncline { _repo: Repo, _server: syncline::Server },
    Samod { _repo: samod::Repo },
}

async fn watch(side: Side, server: &str, urls: &[&str], updates: &Arc<AtomicU64>) -> anyhow::Result<Kept> {
    match side {
        Side::Syncline => {
            let repo = Repo::memory()?;
            let link = repo.connect(server)?;
            for url in urls {
                let mut watch = repo.find(&url.parse()?).await?.watch();
                let updates = Arc::clone(updates);
                tokio::spawn(async move {
                    while watch.changed().await.is_ok() {
                        updates.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            Ok(Kept::Syncline { _repo: repo, _server: link })
        }
        Side::Samod => {
            let stopped = |_| anyhow::anyhow!("samod has stopped");
            let repo = samod::Repo::build_tokio().load().await;
            let dialer =
                repo.dial_websocket(url::Url::parse(server)?, samod::BackoffConfig::default()).map_err(stopped)?;
            dialer.established().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
            for url in urls {
                let url: samod::AutomergeUrl = url.parse().map_err(|error| anyhow::anyhow!("{error:?}"))?;
                let found = repo.find(url.document_id().clone()).await.map_err(stopped)?.context("on the server")?;
                let updates = Arc::clone(updates);
                tokio::spawn(async move {
                    let mut changes = found.changes();
                    while changes.next().await.is_some() {
                        updates.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            Ok(Kept::Samod { _repo: repo })
        }
    }
}

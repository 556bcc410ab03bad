//! What one measured process does with one library.
//!
//! Owns: the work and its clock. Must not: compare. Next: `mod.rs`, which does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT, ReadDoc};
use hdrhistogram::Histogram;
use samod::storage::TokioFilesystemStorage;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use syncline::{Document, DocumentUrl, Repo, block_on};

use super::trace::{self, Edit};
use super::{Library, rejoin, selection, watchers};
use crate::process;
use crate::scenario::round;

/// Work for a process of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Types a trace, a change for each edit.
    Type { library: Library, trace: PathBuf, edits: Option<usize>, directory: PathBuf },
    /// Opens the document that was typed, and its text.
    Read { directory: PathBuf, url: String },
    /// Types at a pace, beside a watcher.
    Edit { trace: PathBuf, edits: usize, rate: u64, directory: PathBuf },
    /// Makes documents.
    Fill { documents: usize, directory: PathBuf },
    /// Opens what was filled.
    Open { directory: PathBuf },
    /// Brings what was filled to a server.
    Upload { directory: PathBuf, server: SocketAddr },
    /// Opens some of what was filled and lets go of it.
    Touch { directory: PathBuf, server: SocketAddr, touched: usize },
    /// Comes back to a server after a few documents have changed.
    Rejoin { directory: PathBuf, server: SocketAddr, changed: usize },
    /// The same, with documents that it makes.
    RejoinSamod { directory: PathBuf, server: SocketAddr, documents: usize, changed: usize },
    /// The same with automerge-repo, whose packages are in a directory.
    RejoinJavaScript { packages: PathBuf, directory: PathBuf, server: SocketAddr, documents: usize, changed: usize },
    /// Watches documents and says what it sees, until its input ends.
    Watch { library: Library, server: String, documents: Vec<String>, directory: PathBuf },
}

/// Does it and prints what came of it as JSON.
///
/// # Errors
/// Whatever goes wrong.
pub(crate) fn do_job(job: Job) -> anyhow::Result<()> {
    let result = match job {
        Job::Type { library, trace, edits, directory } => {
            let (mut typed, end) = trace::read(&trace)?;
            let whole = edits.is_none_or(|edits| edits >= typed.len());
            typed.truncate(edits.unwrap_or(usize::MAX));
            let end = whole.then_some(end);
            match library {
                Library::Syncline => type_syncline(&typed, end.as_deref(), &directory)?,
                Library::Samod => runtime()?.block_on(type_samod(&typed, end.as_deref(), &directory))?,
            }
        }
        Job::Read { directory, url } => read(&directory, &url)?,
        Job::Edit { trace, edits, rate, directory } => edit(&trace, edits, rate, &directory)?,
        Job::Fill { documents, directory } => fill(documents, &directory)?,
        Job::Open { directory } => open(&directory)?,
        Job::Upload { directory, server } => runtime()?.block_on(selection::upload(&directory, server))?,
        Job::Touch { directory, server, touched } => {
            runtime()?.block_on(selection::touch(&directory, server, touched))?
        }
        Job::Rejoin { directory, server, changed } => {
            runtime()?.block_on(rejoin::syncline(&directory, server, changed))?
        }
        Job::RejoinSamod { directory, server, documents, changed } => {
            runtime()?.block_on(rejoin::samod(&directory, server, (documents, changed)))?
        }
        Job::RejoinJavaScript { packages, directory, server, documents, changed } => {
            runtime()?.block_on(rejoin::automerge_repo(&packages, &directory, server, (documents, changed)))?
        }
        Job::Watch { library, server, documents, directory } => {
            runtime()?.block_on(watchers::watch(library, &server, &documents, &directory))?
        }
    };
    println!("{result}");
    Ok(())
}

pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn typed(began: Instant, in_memory: Duration, edits: usize) -> Value {
    let memory = process::memory(std::process::id());
    json!({
        "edits": edits,
        "typed_s": round(in_memory.as_secs_f64()),
        "durable_s": round(began.elapsed().as_secs_f64()),
        "cpu_s": process::cpu_seconds(std::process::id()).map(round),
        "rss_peak_mib": memory.map(|memory| memory.peak_kib / 1_024),
    })
}

fn type_syncline(edits: &[Edit], end: Option<&str>, directory: &Path) -> anyhow::Result<Value> {
    let repo = Repo::open(directory)?;
    let began = Instant::now();
    let mut text = ROOT;
    let document = repo.create(|tx| {
        text = tx.put_object(ROOT, "text", ObjType::Text)?;
        Ok(())
    })?;
    for Edit(at, deleted, inserted) in edits {
        document.change(|tx| tx.splice_text(&text, *at, *deleted, inserted))?;
    }
    let in_memory = began.elapsed();
    block_on(document.saved())?;
    let mut result = typed(began, in_memory, edits.len());
    result["url"] = document.url().to_string().into();
    check_text(&document.read(|doc| doc.text(&text))??, end)?;
    Ok(result)
}

async fn type_samod(edits: &[Edit], end: Option<&str>, directory: &Path) -> anyhow::Result<Value> {
    std::fs::create_dir_all(directory)?;
    let repo = samod::Repo::build_tokio().with_storage(TokioFilesystemStorage::new(directory)).load().await;
    let began = Instant::now();
    let mut text = ROOT;
    let mut fresh = Automerge::new();
    let mut filling = fresh.transaction();
    text.clone_from(&filling.put_object(ROOT, "text", ObjType::Text)?);
    filling.commit();
    let handle = repo.create(fresh).await.map_err(|_| anyhow::anyhow!("samod has stopped"))?;
    for Edit(at, deleted, inserted) in edits {
        handle.with_document(|doc| {
            let mut transaction = doc.transaction();
            transaction.splice_text(&text, *at, *deleted, inserted)?;
            transaction.commit();
            anyhow::Ok(())
        })?;
    }
    let in_memory = began.elapsed();
    check_text(&handle.with_document(|doc| doc.text(&text))?, end)?;
    repo.stop().await;
    Ok(typed(began, in_memory, edits.len()))
}

fn check_text(text: &str, end: Option<&str>) -> anyhow::Result<()> {
    ensure!(end.is_none_or(|end| end == text), "the trace ends with another text");
    Ok(())
}

/// The text in the application's hands: from the opening of the directory on, and from the opening of a file that
/// automerge has saved.
fn read(directory: &Path, url: &str) -> anyhow::Result<Value> {
    let url: DocumentUrl = url.parse()?;
    let text_of = |doc: &Automerge| -> anyhow::Result<String> {
        let (_, text) = doc.get(ROOT, "text")?.context("there is a text")?;
        Ok(doc.text(&text)?)
    };
    let file = directory.join("saved.automerge");
    {
        let repo = Repo::open(directory)?;
        std::fs::write(&file, repo.find_local(&url)?.read(Automerge::save)?)?;
    }
    let (mut ours, mut automerges) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let began = Instant::now();
        let loaded = text_of(&Automerge::load(&std::fs::read(&file)?)?)?;
        automerges.push(began.elapsed());
        let began = Instant::now();
        let repo = Repo::open(directory)?;
        let read = repo.find_local(&url)?.read(text_of)??;
        ours.push(began.elapsed());
        ensure!(read == loaded, "two readings of one document differ");
    }
    ours.sort_unstable();
    automerges.sort_unstable();
    let ms = |times: &[Duration]| round(times[times.len() / 2].as_secs_f64() * 1_000.0);
    Ok(json!({ "open_and_read_ms": ms(&ours), "automerge_load_and_read_ms": ms(&automerges) }))
}

fn edit(trace: &Path, edits: usize, rate: u64, directory: &Path) -> anyhow::Result<Value> {
    let (typed, _) = trace::read(trace)?;
    let repo = Repo::open(directory)?;
    let mut text = ROOT;
    let document = repo.create(|tx| {
        text = tx.put_object(ROOT, "text", ObjType::Text)?;
        Ok(())
    })?;
    let (seen, visible) = mpsc::channel();
    let mut watch = document.watch();
    let watcher = std::thread::spawn(move || {
        while let Ok(update) = block_on(watch.changed()) {
            if seen.send((update.after, Instant::now())).is_err() {
                return;
            }
        }
    });
    let (mut to_see, mut to_disk, mut to_return) = (histogram()?, histogram()?, histogram()?);
    let began = Instant::now();
    for (number, Edit(at, deleted, inserted)) in typed.iter().take(edits).enumerate() {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let written = Instant::now();
        document.change(|tx| tx.splice_text(&text, *at, *deleted, inserted))?;
        to_return.record(micros(written.elapsed()))?;
        let heads = document.heads();
        loop {
            let (after, at) = visible.recv().context("the watcher has ended")?;
            if after == heads {
                to_see.record(micros(at.saturating_duration_since(written)))?;
                break;
            }
        }
        block_on(document.saved())?;
        to_disk.record(micros(written.elapsed()))?;
    }
    let unpaced = unpaced(&document, &text, &typed[edits.min(typed.len())..])?;
    drop((document, repo, visible));
    drop(watcher);
    Ok(json!({
        "change_returns_us": quantiles(&to_return),
        "visible_to_watcher_us": quantiles(&to_see),
        "durable_us": quantiles(&to_disk),
        "unpaced": unpaced,
    }))
}

/// Edits as fast as they can be typed: how long each waits for the disk at most, in the end.
fn unpaced(document: &Document, text: &automerge::ObjId, edits: &[Edit]) -> anyhow::Result<Value> {
    let began = Instant::now();
    let edits = &edits[..edits.len().min(20_000)];
    for Edit(at, deleted, inserted) in edits {
        document.change(|tx| tx.splice_text(text, *at, *deleted, inserted))?;
    }
    let in_memory = began.elapsed();
    block_on(document.saved())?;
    let behind = began.elapsed().saturating_sub(in_memory);
    let per_second = edits.len() as f64 / began.elapsed().as_secs_f64();
    Ok(json!({
        "edits": edits.len(), "durable_per_s": round(per_second), "disk_behind_ms": round(behind.as_secs_f64() * 1_000.0)
    }))
}

fn fill(documents: usize, directory: &Path) -> anyhow::Result<Value> {
    let repo = Repo::open(directory)?;
    let began = Instant::now();
    for number in 0..documents {
        repo.create(|tx| tx.put(ROOT, "number", number as i64))?;
    }
    block_on(repo.close())?;
    Ok(json!({ "documents": documents, "seconds": round(began.elapsed().as_secs_f64()) }))
}

fn open(directory: &Path) -> anyhow::Result<Value> {
    let began = Instant::now();
    let repo = Repo::open(directory)?;
    let opened = began.elapsed();
    let memory = process::memory(std::process::id()).context("this process is in /proc")?;
    let listed = Instant::now();
    let documents = repo.list()?.len();
    Ok(json!({
        "open_ms": round(opened.as_secs_f64() * 1_000.0),
        "rss_mib": round(memory.resident_kib as f64 / 1_024.0),
        "documents": documents,
        "list_ms": round(listed.elapsed().as_secs_f64() * 1_000.0),
    }))
}

pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

pub(super) fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

pub(super) fn quantiles(histogram: &Histogram<u64>) -> Value {
    json!({
        "p50": histogram.value_at_quantile(0.5),
        "p99": histogram.value_at_quantile(0.99),
        "max": histogram.max(),
    })
}

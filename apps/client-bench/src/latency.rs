//! How long an edit takes to a watcher, and to the disk.
//!
//! Owns: the pace of the edits. Must not: wait for an edit before the next one is due. Next: `typing.rs`.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use automerge::{ObjType, ROOT, transaction::Transactable};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use syncline::{Repo, Watch, block_on};

use crate::measure::round;
use crate::trace::Trace;

pub(crate) fn run(trace: &Path, rate: u64, edits: usize) -> anyhow::Result<Value> {
    let trace = Trace::read(trace)?;
    let directory = tempfile::tempdir()?;
    let repo = Repo::open(directory.path())?;
    let mut text = None;
    let document = repo.create(|tx| {
        text = Some(tx.put_object(ROOT, "text", ObjType::Text)?);
        Ok(())
    })?;
    let text = text.context("a text")?;
    block_on(document.saved())?;
    let watch = document.watch();
    let (begun, begins) = mpsc::channel();
    let seeing = std::thread::spawn(move || visible(watch, &begins));
    let saving = document.clone();
    let (made, makes) = mpsc::channel();
    let storing = std::thread::spawn(move || durable(&saving, &makes));
    let (pause, start) = (Duration::from_secs(1) / u32::try_from(rate)?, Instant::now());
    for (edit, n) in trace.edits(edits).zip(0u32..) {
        std::thread::sleep((start + pause * n).saturating_duration_since(Instant::now()));
        let at = Instant::now();
        begun.send(at)?;
        let delete = isize::try_from(edit.delete)?;
        document.change(|tx| tx.splice_text(&text, edit.position, delete, edit.insert))?;
        made.send(at)?;
    }
    drop((begun, made));
    let visible = seeing.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
    let durable = storing.join().map_err(|_| anyhow::anyhow!("the saver panicked"))??;
    drop(document);
    block_on(repo.close())?;
    Ok(json!({ "rate": rate, "visible_us": quantiles(&visible), "durable_us": quantiles(&durable) }))
}

/// The time from each edit to the update that has it.
fn visible(mut watch: Watch, begins: &mpsc::Receiver<Instant>) -> anyhow::Result<Histogram<u64>> {
    let mut times = Histogram::new(3)?;
    while let Ok(begun) = begins.recv() {
        // Each edit is one update, as long as this thread keeps up; where it does not, the next ones are seen at once.
        block_on(watch.changed())?;
        let seen = Instant::now();
        times.record((seen - begun).as_micros() as u64)?;
        let mut missed = watch.document().history_since(&[])?.len().saturating_sub(times.len() as usize + 1);
        while missed > 0 {
            let Ok(begun) = begins.recv() else { break };
            times.record(seen.saturating_duration_since(begun).as_micros() as u64)?;
            missed -= 1;
        }
    }
    Ok(times)
}

/// The time from each edit to the disk; edits that are saved together are counted each.
fn durable(document: &syncline::Document, makes: &mpsc::Receiver<Instant>) -> anyhow::Result<Histogram<u64>> {
    let mut times = Histogram::new(3)?;
    while let Ok(first) = makes.recv() {
        let together: Vec<Instant> = std::iter::once(first).chain(makes.try_iter()).collect();
        block_on(document.saved())?;
        let saved = Instant::now();
        together.iter().try_for_each(|begun| times.record((saved - *begun).as_micros() as u64))?;
    }
    Ok(times)
}

fn quantiles(times: &Histogram<u64>) -> Value {
    let at = |quantile| round(times.value_at_quantile(quantile) as f64);
    json!({ "edits": times.len(), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": times.max() })
}

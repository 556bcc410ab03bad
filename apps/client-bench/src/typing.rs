//! Typing a recorded text, edit by edit, into a document that is saved.
//!
//! Owns: the same edits on both sides. Must not: let one side skip its disk. Next: `load.rs`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, transaction::Transactable};
use clap::ValueEnum;
use samod::storage::TokioFilesystemStorage;
use serde_json::{Value, json};
use syncline::{Document, Repo, block_on};

use crate::Side;
use crate::measure::{child as run_child, processor_seconds, resident_peak_kib, round};
use crate::trace::Trace;

pub(crate) fn run(trace: &Path, edits: usize) -> anyhow::Result<Value> {
    let side = |side: Side| -> anyhow::Result<Value> {
        let directory = tempfile::tempdir()?;
        let name = side.to_possible_value().context("a name")?.get_name().to_owned();
        let edits = edits.to_string();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        run_child(&["typing", &name, &path(trace), &path(directory.path()), &edits])
    };
    let (ours, theirs) = (side(Side::Syncline)?, side(Side::Samod)?);
    let ratio = |field: &str| match (ours[field].as_f64(), theirs[field].as_f64()) {
        (Some(ours), Some(theirs)) => round(theirs / ours),
        _ => 0.0,
    };
    Ok(json!({
        "times_as_fast": ratio("seconds"),
        "times_the_memory_of_ours": ratio("resident_peak_kib"),
        "syncline": ours,
        "samod": theirs,
    }))
}

pub(crate) fn child(side: Side, trace: &Path, directory: &Path, edits: usize) -> anyhow::Result<Value> {
    let trace = Trace::read(trace)?;
    let (started, before) = (Instant::now(), processor_seconds()?);
    let (typed_seconds, text) = match side {
        Side::Syncline => with_syncline(&trace, directory, edits)?,
        Side::Samod => with_samod(&trace, directory, edits)?,
    };
    let (seconds, processor) = (started.elapsed().as_secs_f64(), processor_seconds()? - before);
    ensure!(edits < usize::MAX || text == trace.end_content, "the text is not that of the trace");
    Ok(json!({
        "edits": trace.edits(edits).count(),
        "typed_seconds": round(typed_seconds),
        "seconds": round(seconds),
        "processor_seconds": round(processor),
        "resident_peak_kib": resident_peak_kib()?,
    }))
}

/// Makes the document and types into it. The document is saved when this returns.
pub(crate) fn type_with_syncline(repo: &Repo, trace: &Trace, edits: usize) -> anyhow::Result<(Document, ObjId)> {
    let mut text = None;
    let document = repo.create(|tx| {
        text = Some(tx.put_object(ROOT, "text", ObjType::Text)?);
        Ok(())
    })?;
    let text = text.context("a text")?;
    for edit in trace.edits(edits) {
        let delete = isize::try_from(edit.delete)?;
        document.change(|tx| tx.splice_text(&text, edit.position, delete, edit.insert))?;
    }
    Ok((document, text))
}

fn with_syncline(trace: &Trace, directory: &Path, edits: usize) -> anyhow::Result<(f64, String)> {
    let started = Instant::now();
    let repo = Repo::open(directory)?;
    let (document, text) = type_with_syncline(&repo, trace, edits)?;
    let typed = started.elapsed().as_secs_f64();
    block_on(document.saved())?;
    let text = document.read(|document| document.text(&text))??;
    drop(document);
    block_on(repo.close())?;
    Ok((typed, text))
}

fn with_samod(trace: &Trace, directory: &Path, edits: usize) -> anyhow::Result<(f64, String)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let started = Instant::now();
        let storage = TokioFilesystemStorage::new(directory);
        let repo = samod::Repo::build_tokio().with_storage(storage).load().await;
        let mut empty = Automerge::new();
        let mut transaction = empty.transaction();
        let text = transaction.put_object(ROOT, "text", ObjType::Text)?;
        transaction.commit();
        let document = repo.create(empty).await.map_err(|_| anyhow::anyhow!("samod has stopped"))?;
        for edit in trace.edits(edits) {
            let delete = isize::try_from(edit.delete)?;
            document.with_document(|document| {
                let mut transaction = document.transaction();
                let done = transaction.splice_text(&text, edit.position, delete, edit.insert);
                transaction.commit();
                done
            })?;
        }
        let typed = started.elapsed().as_secs_f64();
        let text = document.with_document(|document| document.text(&text))?;
        repo.stop().await;
        Ok((typed, text))
    })
}

//! Opening a repo with many documents.
//!
//! Owns: the repo that is opened. Must not: measure in the process that made it. Next: `main.rs`.

use std::path::Path;
use std::time::Instant;

use automerge::{ROOT, transaction::Transactable};
use serde_json::{Value, json};
use syncline::{Repo, block_on};

use crate::measure::{child as run_child, resident_kib, round};

pub(crate) fn run(documents: usize) -> anyhow::Result<Value> {
    let directory = tempfile::tempdir()?;
    let repo = Repo::open(directory.path())?;
    for n in 0..documents {
        repo.create(|tx| tx.put(ROOT, "title", format!("document {n}")))?;
    }
    block_on(repo.close())?;
    let path = directory.path().as_os_str();
    let opened = run_child(&["open".as_ref(), path])?;
    // The second opening finds the file in the kernel's cache, as the first may not.
    Ok(json!({ "documents": documents, "first": opened, "second": run_child(&["open".as_ref(), path])? }))
}

pub(crate) fn child(directory: &Path) -> anyhow::Result<Value> {
    let before_kib = resident_kib()?;
    let started = Instant::now();
    let repo = Repo::open(directory)?;
    let open_ms = started.elapsed().as_secs_f64() * 1e3;
    let after_kib = resident_kib()?;
    let listed = Instant::now();
    let documents = repo.list()?.len();
    let list_ms = listed.elapsed().as_secs_f64() * 1e3;
    block_on(repo.close())?;
    Ok(json!({
        "documents": documents,
        "open_ms": round(open_ms),
        "list_ms": round(list_ms),
        "resident_before_kib": before_kib,
        "resident_after_kib": after_kib,
    }))
}

//! Opening one long document and reading its text.
//!
//! Owns: the same document in both forms. Must not: count what is not needed to read it. Next: `typing.rs`.

use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use automerge::{Automerge, ReadDoc};
use serde_json::{Value, json};
use syncline::{Repo, block_on};

use crate::measure::{median, round};
use crate::trace::Trace;
use crate::typing::type_with_syncline;

pub(crate) fn run(trace: &Path, rounds: usize) -> anyhow::Result<Value> {
    let trace = Trace::read(trace)?;
    let directory = tempfile::tempdir()?;
    let repo = Repo::open(directory.path())?;
    let (document, text) = type_with_syncline(&repo, &trace, usize::MAX)?;
    let (url, file) = (document.url(), document.export()?);
    drop(document);
    block_on(repo.close())?;
    let (mut ours, mut theirs, mut opening) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let started = Instant::now();
        let loaded = Automerge::load(&file)?;
        let read = loaded.text(&text)?;
        theirs.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(read == trace.end_content, "automerge reads another text");
        drop(loaded);

        let started = Instant::now();
        let repo = Repo::open(directory.path())?;
        opening.push(started.elapsed().as_secs_f64() * 1e3);
        let document = repo.find_local(&url)?;
        let read = document.read(|document| document.text(&text))??;
        ours.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(read == trace.end_content, "the document has another text");
        drop(document);
        block_on(repo.close())?;
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(json!({
        "file_bytes": file.len(),
        "automerge_ms": round(theirs),
        "syncline_ms": round(ours),
        "of_which_repo_ms": round(median(opening)),
        "ratio": round(ours / theirs),
    }))
}

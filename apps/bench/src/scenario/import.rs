//! The directory of an automerge-repo server, taken in by `syncline-server import`: how fast, and is all of it there?
//!
//! Owns: the directory, laid out as automerge-repo's NodeFS storage does it, and the comparison afterwards.
//! Must not: count the making of the directory. Next: `backup.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use automerge::ChangeHash;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Outcome, results, round};
use crate::author::{Pen, Seed};
use crate::client::Client;
use crate::ledger::Ledger;
use crate::light::Light;
use crate::process::Scratch;
use crate::stats::Stats;
use crate::target::Target;

/// Distinct contents; the same ones under many ids save building each.
const CONTENTS: usize = 64;

/// Documents fetched over one connection.
const FETCHED_AT_ONCE: usize = 2_500;

/// Flags of `import`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ImportArgs {
    /// The program whose `import` and `check` are measured; it is what --server-command starts.
    #[arg(long)]
    program: PathBuf,
    /// Documents.
    #[arg(long, default_value_t = 10_000)]
    documents: usize,
    /// Changes in the snapshot of each.
    #[arg(long, default_value_t = 20)]
    changes: u64,
    /// Characters of each of these.
    #[arg(long, default_value_t = 50)]
    chars: usize,
    /// Most changes of each that are files of their own: as many of this as there is turn.
    #[arg(long, default_value_t = 3)]
    incremental: usize,
    /// How long the comparison may take, seconds.
    #[arg(long, default_value_t = 120)]
    within: u64,
}

/// Runs it.
///
/// # Errors
/// When the server was not started here, or the import fails.
pub(crate) async fn run(args: &ImportArgs, target: &mut Target) -> anyhow::Result<Outcome> {
    let from = Scratch::new(None);
    eprintln!("making {} documents in {}", args.documents, from.path().display());
    let documents = make(args, from.path())?;
    let files = documents.iter().map(|(.., files)| files).sum::<usize>();
    target.stop().await?;
    let meter = target.meter();
    let command =
        format!("{} import --automerge-repo {} --data {{data}}", args.program.display(), from.path().display());
    let began = Instant::now();
    let said = succeed(&target.fill(&command)?)?;
    let import_s = began.elapsed().as_secs_f64();
    let check = succeed(&target.fill(&format!("{} check --data {{data}}", args.program.display()))?)?;
    target.start().await?;
    eprintln!("comparing");
    let mut equal = 0;
    for some in documents.chunks(FETCHED_AT_ONCE) {
        equal += fetch(args, target, some).await?;
    }
    let cost = meter.finish();
    let results = results(json!({
        "documents": documents.len(),
        "files": files,
        "import_s": round(import_s),
        "documents_per_s": (documents.len() as f64 / import_s).round(),
        "said": last_line(&said),
        "check": last_line(&check),
        "equal": equal,
    }));
    Ok(Outcome { results, cost })
}

/// A document, the head that it has in the end, and its files.
type Made = (Arc<Ledger>, ChangeHash, usize);

fn make(args: &ImportArgs, root: &Path) -> anyhow::Result<Vec<Made>> {
    let seeds = (0..CONTENTS).map(|_| Seed::typed(args.changes, args.chars)).collect::<anyhow::Result<Vec<_>>>()?;
    (0..args.documents).map(|at| make_one(args, root, at, &seeds[at % CONTENTS])).collect()
}

fn make_one(args: &ImportArgs, root: &Path, at: usize, seed: &Seed) -> anyhow::Result<Made> {
    let (ledger, last) = seed.document();
    let (shelf, rest) = ledger.id.split_at(2);
    let home = root.join(shelf).join(rest);
    let write = |kind: &str, hash: ChangeHash, bytes: &[u8]| -> anyhow::Result<()> {
        let directory = home.join(kind);
        std::fs::create_dir_all(&directory)?;
        Ok(std::fs::write(directory.join(hash.to_string()), bytes)?)
    };
    let (mut head, mut max_op) = {
        let book = ledger.book();
        (book.node(last).hash, book.node(last).max_op)
    };
    write("snapshot", head, &seed.bytes)?;
    let mut pen = Pen::new();
    let typed = at % (args.incremental + 1);
    for _ in 0..typed {
        let change = pen.type_char(&ledger.text, vec![head], max_op);
        (head, max_op) = (change.hash(), max_op + 1);
        write("incremental", head, change.raw_bytes())?;
        ledger.book().insert(&change, None).context("a change on top of the one before")?;
    }
    Ok((ledger, head, 1 + typed))
}

/// How many of these documents the server gives a client that has nothing, up to their last change.
async fn fetch(args: &ImportArgs, target: &Target, documents: &[Made]) -> anyhow::Result<usize> {
    let stats = Stats::new();
    let client = Client::connect(target.options(&stats)).await?;
    for (ledger, ..) in documents {
        client.open(Light::subscriber(Arc::clone(ledger), Arc::clone(&stats)));
    }
    // What is missing never gets in sync, and is counted.
    let _ = client.synced(Duration::from_secs(args.within)).await;
    let fetched = client.stop().await;
    let is_equal =
        |id: &str, heads: &[ChangeHash]| documents.iter().any(|(ledger, head, _)| ledger.id == id && heads == [*head]);
    Ok(fetched.iter().filter(|replica| is_equal(replica.document(), &replica.heads())).count())
}

/// What a command says on standard output.
///
/// # Errors
/// When it fails.
pub(super) fn succeed(command: &str) -> anyhow::Result<String> {
    let output = Command::new("sh").args(["-c", command]).output()?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command}: {}; {said}{complained}", output.status);
    Ok(said.into_owned())
}

pub(super) fn last_line(said: &str) -> &str {
    said.lines().last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_lies_as_automerge_repo_lays_it() {
        let root = Scratch::new(None);
        let args =
            ImportArgs { program: PathBuf::new(), documents: 4, changes: 3, chars: 2, incremental: 3, within: 1 };
        let (ledger, head, files) = make_one(&args, root.path(), 3, &Seed::typed(3, 2).unwrap()).unwrap();
        let home = root.path().join(&ledger.id[..2]).join(&ledger.id[2..]);
        let mut document = automerge::Automerge::new();
        for kind in ["snapshot", "incremental"] {
            for entry in std::fs::read_dir(home.join(kind)).unwrap() {
                document.load_incremental(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
            }
        }
        assert_eq!((document.get_heads(), files), (vec![head], 4));
    }
}

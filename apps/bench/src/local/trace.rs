//! Editing traces: what people really typed.
//!
//! Owns: reading one. Must not: replay concurrent traces; their positions mean nothing one after the other.
//! Next: `job.rs`.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use flate2::read::GzDecoder;
use serde::Deserialize;

/// One edit: where, how many characters are deleted there, what is inserted.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Edit(pub(crate) usize, pub(crate) isize, pub(crate) String);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    end_content: String,
    kind: Option<String>,
    txns: Vec<Transaction>,
}

#[derive(Debug, Deserialize)]
struct Transaction {
    patches: Vec<Edit>,
}

/// The edits in order, and the text that they end with.
///
/// # Errors
/// When it is no such file, or a concurrent trace.
pub(crate) fn read(path: &Path) -> anyhow::Result<(Vec<Edit>, String)> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let trace: Trace = serde_json::from_reader(std::io::BufReader::new(GzDecoder::new(file)))
        .with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(trace.kind.as_deref() != Some("concurrent"), "{} has concurrent edits", path.display());
    Ok((trace.txns.into_iter().flat_map(|transaction| transaction.patches).collect(), trace.end_content))
}

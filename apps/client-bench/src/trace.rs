//! Recorded editing sessions.
//!
//! Owns: the format of `editing-traces`. Must not: ship one. Next: `typing.rs`.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use flate2::read::GzDecoder;
use serde::Deserialize;

/// A text, and the edits that made it from nothing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trace {
    pub(crate) end_content: String,
    txns: Vec<Transaction>,
}

#[derive(Debug, Deserialize)]
struct Transaction {
    patches: Vec<(usize, usize, String)>,
}

/// At a position, so many characters are deleted and these put in their place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edit<'a> {
    pub(crate) position: usize,
    pub(crate) delete: usize,
    pub(crate) insert: &'a str,
}

impl Trace {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(serde_json::from_reader(std::io::BufReader::new(GzDecoder::new(file)))?)
    }

    /// The edits, at most so many.
    pub(crate) fn edits(&self, max: usize) -> impl Iterator<Item = Edit<'_>> {
        let patches = self.txns.iter().flat_map(|txn| &txn.patches);
        patches.take(max).map(|(position, delete, insert)| Edit { position: *position, delete: *delete, insert })
    }
}

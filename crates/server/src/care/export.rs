//! Writing every document to a file that automerge loads.
//!
//! Owns: the names of the files. Must not: change the store. Next: `import.rs`; docs/operations.md, "Moving in and out".

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use syncline_core::id::DocumentId;
use syncline_core::storage::Payload;
use syncline_store::{Store, StoreError};

use super::source::ENDING;

/// Documents listed at one time.
const PAGE: usize = 256;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Files.
    pub documents: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Why an export stops. **State:** the files that are there are whole. **Do:** as the words say, and begin again.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes every document that is not deleted to `<id>.automerge`; `progress` is told after each.
///
/// # Errors
/// [`ExportError`].
pub fn export(store: &Store, directory: &Path, mut progress: impl FnMut()) -> Result<Exported, ExportError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::Write { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let mut exported = Exported::default();
    let mut after: Option<DocumentId> = None;
    loop {
        let page = store.documents(after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(exported) };
        after = Some(last.clone());
        for (id, _) in page {
            // Purged or damaged since it was listed.
            let Some(payload) = store.payload(&id)? else { continue };
            let path = directory.join(format!("{id}.{ENDING}"));
            exported.bytes += write(&path, &payload).map_err(failed(&path))?;
            exported.documents += 1;
            progress();
        }
    }
}

/// A file that is there is whole.
fn write(path: &Path, payload: &Payload) -> io::Result<u64> {
    let partial = path.with_extension("partial");
    let mut file = io::BufWriter::new(fs::File::create(&partial)?);
    let snapshot = payload.snapshot.iter();
    let mut bytes = 0;
    for chunk in snapshot.chain(payload.tail.iter().map(|change| &change.bytes)) {
        file.write_all(chunk)?;
        bytes += chunk.len() as u64;
    }
    file.into_inner()?.sync_all()?;
    fs::rename(&partial, path)?;
    Ok(bytes)
}

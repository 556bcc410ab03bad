//! Whether files have changed.
//!
//! Owns: what tells one state of a file from another. Must not: read what is in it.
//! Next: `tls.rs`, `access/keyring.rs`.

use std::path::Path;
use std::time::SystemTime;

/// What was seen of some files: when each was changed last, and its size; nothing of one that is not there.
pub(crate) type Stamps = Vec<Option<(SystemTime, u64)>>;

/// Looks at files.
pub(crate) fn stamps(files: impl IntoIterator<Item = impl AsRef<Path>>) -> Stamps {
    let stamp = |file: &Path| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.into_iter().map(|file| stamp(file.as_ref())).collect()
}

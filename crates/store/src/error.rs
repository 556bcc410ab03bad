//! Everything that can go wrong with a store.
//!
//! Owns: the error type and which SQLite failure means what. Must not: decide what to do about one.
//! Next: `writer.rs`; docs/store.md, "Failures".

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;
use syncline_core::ChangeHash;
use syncline_core::blob::BlobHash;
use syncline_core::id::DocumentId;
use syncline_core::loader::LoadError;

/// Why a store could not be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another `Store` in this one, has the directory open.
    /// **State:** nothing was touched. **Do:** stop the other one, or choose another directory.
    #[error("the store at {path} is in use by another process")]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// A later version of Syncline wrote the file. **State:** nothing was touched. **Do:** run that version, or a later one.
    #[error("the store at {path} has format {found}; this version reads formats up to {supported}")]
    NewerFormat {
        /// The database file.
        path: PathBuf,
        /// Its format number.
        found: u32,
        /// The newest format that this version knows.
        supported: u32,
    },
    /// The file is no SQLite database, or the database of another application.
    /// **State:** nothing was touched. **Do:** move the file away or choose another directory.
    #[error("{path} is not a Syncline store: {reason}")]
    NotAStore {
        /// The database file.
        path: PathBuf,
        /// What was found instead.
        reason: &'static str,
    },
    /// A copy of the store was not clean; the log lists what is wrong. **State:** the copy was removed, the store is as it was.
    /// **Do:** run the check on the store.
    #[error("the copy has {faults} faults, which the log lists: run the check on what was copied")]
    FaultyCopy {
        /// How many.
        faults: u64,
    },
    /// SQLite found the file's structure damaged. **State:** commits are refused from here on; nothing is repaired.
    /// **Do:** run the check, then restore a backup or let another replica fill a new store.
    #[error("the database is damaged: {source}")]
    Corrupt {
        /// What SQLite reported.
        source: Arc<rusqlite::Error>,
    },
    /// A record of a document cannot be decoded, or rows of it in the log were set aside because one of them could not.
    /// **State:** nothing was changed; all other documents are served. **Do:** run the check; restore the document from another replica.
    #[error("a stored record of document {document} is damaged: {what}")]
    Damaged {
        /// The document.
        document: DocumentId,
        /// Which record, and how.
        what: &'static str,
    },
    /// The document's snapshot had to be built, and could not be. **State:** nothing was changed; whoever has nothing of
    /// the document still gets it. **Do:** run the check; see [`LoadError`].
    #[error("the snapshot of document {document} cannot be taken apart: {source}")]
    NotLoaded {
        /// The document.
        document: DocumentId,
        /// Why.
        source: LoadError,
    },
    /// The directory or a file in it could not be made, opened or synced. **State:** the store is not open.
    /// **Do:** mend what the system reports (permissions, missing volume) and try again.
    #[error("{path}: {source}")]
    Io {
        /// The path concerned.
        path: PathBuf,
        /// What the system reported.
        source: Arc<std::io::Error>,
    },
    /// The disk, or the size allowed to the file, is used up. **State:** nothing of this commit was kept; everything
    /// acknowledged before is. **Do:** free space and commit again; the store stays usable.
    #[error("the disk is full")]
    DiskFull,
    /// A write or sync failed earlier, so that what the disk holds is unknown until the file is opened anew.
    /// **State:** everything acknowledged is kept; this commit is not acknowledged and may or may not be found after a
    /// restart. **Do:** restart the process; never retry on this handle.
    #[error("the store stopped writing after a disk error ({source}); restart to recover")]
    Poisoned {
        /// The first failure.
        source: Arc<rusqlite::Error>,
    },
    /// SQLite failed in another way while reading or opening. **State:** nothing was changed. **Do:** try again; report it if it stays.
    #[error("the database could not be read: {source}")]
    Sqlite {
        /// What SQLite reported.
        source: Arc<rusqlite::Error>,
    },
    /// The linked SQLite has a known corruption bug in its write-ahead log. **State:** nothing was touched.
    /// **Do:** build with the bundled SQLite.
    #[error("SQLite {found} can corrupt its write-ahead log; 3.51.3 or later is needed")]
    SqliteTooOld {
        /// The version found.
        found: &'static str,
    },
    /// A commit assumed another number of changes than the document has. **State:** nothing of the commit was kept.
    /// **Do:** read the document's summary again and commit on top of it.
    #[error("document {document} has {found} changes; the commit expects {expected}")]
    Stale {
        /// The document.
        document: DocumentId,
        /// Changes that the document has.
        found: u32,
        /// Changes that the commit was made on top of.
        expected: u32,
    },
    /// A document has as many changes as a journal number can count. **State:** nothing of the commit was kept.
    /// **Do:** continue in a new document.
    #[error("document {document} cannot take more changes")]
    TooManyChanges {
        /// The document.
        document: DocumentId,
    },
    /// A change was asked for that the document does not hold. **State:** nothing was changed. **Do:** ask for hashes that
    /// the document's graph names; run the check if this one is among them.
    #[error("document {document} holds no change {hash}")]
    UnknownChange {
        /// The document.
        document: DocumentId,
        /// The hash asked for.
        hash: ChangeHash,
    },
    /// Blobs take as much room as they may ([`Options::blob_bytes_max`](crate::Options::blob_bytes_max)), or one is larger
    /// than any may be. **State:** the piece was not kept; what was stored before is. **Do:** allow more, or remove some.
    #[error("there is no room for more blobs")]
    BlobsFull,
    /// A stored piece of a blob is not what was stored. **State:** nothing was changed; other pieces can be read.
    /// **Do:** note it with [`BlobChange::Damage`](syncline_core::blob::BlobChange::Damage) and fetch the blob again.
    #[error("blob {hash} is damaged at byte {at}")]
    BlobDamaged {
        /// The blob.
        hash: BlobHash,
        /// Where the piece begins.
        at: u64,
    },
    /// A blob was to be finished of which not everything is stored. **State:** nothing was changed. **Do:** write it again.
    #[error("blob {hash} is not stored as it was said to be")]
    NoSuchBlob {
        /// The blob.
        hash: BlobHash,
    },
    /// The store was closed. **State:** everything acknowledged is kept; this call did nothing. **Do:** open it again.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What a failed read or open means.
    pub(crate) fn from_read(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt { source: Arc::new(error) },
            _ => Self::Sqlite { source: Arc::new(error) },
        }
    }

    /// What a failed write means: only a full disk leaves the handle trustworthy.
    pub(crate) fn from_write(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt { source: Arc::new(error) },
            _ => Self::Poisoned { source: Arc::new(error) },
        }
    }

    /// Whether the writer may go on after this.
    pub(crate) fn ends_writing(&self) -> bool {
        matches!(self, Self::Poisoned { .. } | Self::Corrupt { .. })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::from_read(error)
    }
}

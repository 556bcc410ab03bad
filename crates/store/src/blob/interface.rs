//! Blobs as the users of a store see them.
//!
//! Owns: the calls, and what waits for the writer. Must not: write; the writer does.
//! Next: `../blob.rs`, `../writer.rs`.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use rusqlite::Connection;
use sha2::{Digest, Sha256};
use syncline_core::blob::{BlobChange, BlobHash, BlobStanding, PIECE_BYTES};

use super::{BlobRow, STAGED, piece_digest, proved_piece};
use crate::error::StoreError;
use crate::group::tell;
use crate::store::Store;

/// Called once per change of a blob, from the writer thread, in the order of changes.
pub(crate) type BlobDone = Box<dyn FnOnce(Result<BlobStanding, StoreError>) + Send>;

/// A change of a blob that waits for its turn.
pub(crate) struct BlobUnit {
    pub change: BlobChange,
    pub digest: [u8; 16],
    done: BlobDone,
}

impl BlobUnit {
    fn new(change: BlobChange, done: BlobDone) -> Self {
        let digest = match &change {
            BlobChange::Write { offset, data, .. } => piece_digest(*offset, data),
            BlobChange::Finish { .. }
            | BlobChange::Confirm { .. }
            | BlobChange::Damage { .. }
            | BlobChange::Remove { .. } => [0; 16],
        };
        Self { change, digest, done }
    }

    pub(crate) fn weight(&self) -> usize {
        match &self.change {
            BlobChange::Write { data, .. } => data.len(),
            BlobChange::Finish { .. }
            | BlobChange::Confirm { .. }
            | BlobChange::Damage { .. }
            | BlobChange::Remove { .. } => 0,
        }
    }

    pub(crate) fn answer(self, result: Result<BlobStanding, StoreError>) {
        tell(|| (self.done)(result));
    }
}

impl Store {
    /// How a blob stands; `None` if nothing of it is here.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn blob(&self, hash: &BlobHash) -> Result<Option<BlobStanding>, StoreError> {
        self.readers().read(|read| Ok(found(read, hash)?.map(|row| row.standing)))
    }

    /// At most `limit` blobs in the order of their hashes, those after the one given; of those, if `to_push`, the whole ones
    /// that no server has confirmed.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn blobs(
        &self,
        after: Option<&BlobHash>,
        limit: usize,
        to_push: bool,
    ) -> Result<Vec<(BlobHash, BlobStanding)>, StoreError> {
        let sql = format!(
            "SELECT {} FROM blob WHERE (?1 IS NULL OR hash > ?1) AND state <> {STAGED} AND (NOT ?2 OR \
             (state = 1 AND NOT confirmed)) ORDER BY hash LIMIT ?3",
            BlobRow::COLUMNS
        );
        self.readers().read(|read| {
            let mut statement = read.prepare_cached(&sql)?;
            let rows = statement.query_map((after.map(|hash| &hash.0[..]), to_push, limit), BlobRow::from_row)?;
            let rows: Result<Vec<_>, _> = rows.map(|row| row.map(|row| (row.hash, row.standing))).collect();
            Ok(rows?)
        })
    }

    /// The piece of a whole blob that begins here, and how the blob stands; `None` if it is not whole, or ends before.
    ///
    /// # Errors
    /// [`StoreError::BlobDamaged`] when the piece is not what was stored, and as [`Store::documents`].
    pub fn blob_piece(&self, hash: &BlobHash, offset: u64) -> Result<Option<(BlobStanding, Bytes)>, StoreError> {
        self.readers().read(|read| {
            let Some(row) = found(read, hash)?.filter(|row| row.standing.is_whole()) else { return Ok(None) };
            if row.standing.size == 0 && offset == 0 {
                return Ok(Some((row.standing, Bytes::new())));
            }
            if offset >= row.standing.size || !offset.is_multiple_of(PIECE_BYTES as u64) {
                return Ok(None);
            }
            match proved_piece(read, &row, offset)? {
                Some(data) => Ok(Some((row.standing, Bytes::from(data)))),
                None => Err(StoreError::BlobDamaged { hash: *hash, at: offset }),
            }
        })
    }

    /// Reads everything that is stored of a blob and says whether that is all of it: whether it has the hash. Takes
    /// time in proportion to the blob, and the memory of a piece.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn verify_blob(&self, hash: &BlobHash) -> Result<bool, StoreError> {
        let mut digest = Sha256::new();
        let mut offset = 0;
        loop {
            // Each piece is a read of its own: one that lasted as long as the blob would hold up checkpoints.
            let piece = self.readers().read(|read| {
                let Some(row) = found(read, hash)? else { return Ok(None) };
                if offset == row.standing.size {
                    return Ok(Some(Vec::new()));
                }
                Ok(proved_piece(read, &row, offset)?)
            })?;
            match piece {
                None => return Ok(false),
                Some(piece) if piece.is_empty() => return Ok(BlobHash(digest.finalize().into()) == *hash),
                Some(piece) => {
                    digest.update(&piece);
                    offset += piece.len() as u64;
                }
            }
        }
    }

    /// Makes a change of a blob durable and then calls `done` from the writer thread. Changes of blobs are made in the
    /// order of the calls, in transactions of their own between those of commits. The queue has no bound of its own: a
    /// caller limits what it has outstanding.
    ///
    /// `done` gets [`StoreError::BlobsFull`], [`StoreError::NoSuchBlob`], [`StoreError::DiskFull`],
    /// [`StoreError::Poisoned`], [`StoreError::Corrupt`] or [`StoreError::Closed`]; it must not block.
    pub fn change_blob(
        &self,
        change: BlobChange,
        done: impl FnOnce(Result<BlobStanding, StoreError>) + Send + 'static,
    ) {
        self.shared().enqueue_blob(BlobUnit::new(change, Box::new(done)));
    }

    /// Bytes of all blobs, those of partial ones included.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.shared().blob_bytes.load(Ordering::Relaxed)
    }
}

fn found(read: &Connection, hash: &BlobHash) -> rusqlite::Result<Option<BlobRow>> {
    Ok(BlobRow::find(read, hash)?.filter(|row| !row.staged))
}

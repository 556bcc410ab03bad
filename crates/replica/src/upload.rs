//! A blob on its way from whoever has its content into the store.
//!
//! Owns: the hash of what came, the pieces that are not durable yet. Must not: hold more than a few pieces, or leave
//! anything behind if it is given up. Next: `blobs.rs`; docs/blobs.md, "Stored".

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use syncline_core::blob::{BlobChange, BlobHash, BlobStanding, PIECE_BYTES};
use syncline_store::StoreError;
use tokio::sync::oneshot;

use crate::replica::Inner;

/// Pieces that may be on their way to the disk.
const UNDER_WAY_MAX: usize = 4;

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It is larger than blobs may be. **State:** nothing of it is kept. **Do:** split it, or raise the limit.
    #[error("the blob has more than {bytes_max} bytes, which is the most that is taken")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// The content has another hash than it was said to have. **State:** nothing of it is kept. **Do:** send it again.
    #[error("the content has the hash {found}, not {expected}")]
    Mismatch {
        /// As it was said.
        expected: BlobHash,
        /// As it is.
        found: BlobHash,
    },
    /// The store could not take it. **State:** nothing of it is kept. **Do:** as the message says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A blob that is being stored. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    replica: Arc<Inner>,
    /// Its name until the hash is known.
    name: BlobHash,
    digest: Sha256,
    /// Less than a piece.
    rest: Vec<u8>,
    size: u64,
    /// Bytes handed to the store.
    handed: u64,
    under_way: VecDeque<oneshot::Receiver<Result<BlobStanding, StoreError>>>,
    finished: bool,
}

impl Upload {
    pub(crate) fn begin(replica: Arc<Inner>) -> Self {
        Self {
            replica,
            name: BlobHash(rand::random()),
            digest: Sha256::new(),
            rest: Vec::new(),
            size: 0,
            handed: 0,
            under_way: VecDeque::new(),
            finished: false,
        }
    }

    /// Bytes that have come.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes. Waits while several pieces are on their way to the disk.
    ///
    /// # Errors
    /// [`UploadError::TooLarge`], [`UploadError::Store`]; the upload is of no use then.
    pub async fn write(&mut self, mut data: &[u8]) -> Result<(), UploadError> {
        self.size += data.len() as u64;
        let bytes_max = self.replica.limits().blob_bytes_max;
        if self.size > bytes_max {
            return Err(UploadError::TooLarge { bytes_max });
        }
        self.digest.update(data);
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(PIECE_BYTES - self.rest.len()));
            self.rest.extend_from_slice(now);
            data = later;
            if self.rest.len() == PIECE_BYTES {
                self.hand_over();
                while self.under_way.len() >= UNDER_WAY_MAX {
                    self.settle_one().await?;
                }
            }
        }
        Ok(())
    }

    /// Makes durable that this is all, and says what the blob's address is. If one is expected, it must be that.
    ///
    /// # Errors
    /// [`UploadError::Mismatch`], [`UploadError::Store`].
    pub async fn finish(mut self, expected: Option<BlobHash>) -> Result<(BlobHash, u64), UploadError> {
        let found = BlobHash(std::mem::take(&mut self.digest).finalize().into());
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(UploadError::Mismatch { expected, found });
        }
        if !self.rest.is_empty() || self.size == 0 {
            self.hand_over();
        }
        while !self.under_way.is_empty() {
            self.settle_one().await?;
        }
        self.change(BlobChange::Finish { written_as: self.name, hash: found, size: self.size });
        self.settle_one().await?;
        self.finished = true;
        Ok((found, self.size))
    }

    fn hand_over(&mut self) {
        let data = Bytes::from(std::mem::take(&mut self.rest));
        let offset = self.handed;
        self.handed += data.len() as u64;
        self.replica.spend_room(data.len());
        self.change(BlobChange::Write { hash: self.name, size: None, offset, data });
    }

    fn change(&mut self, change: BlobChange) {
        let (tell, told) = oneshot::channel();
        // Who has given up does not need to know.
        self.replica.store.change_blob(change, move |result| drop(tell.send(result)));
        self.under_way.push_back(told);
    }

    async fn settle_one(&mut self) -> Result<(), UploadError> {
        let Some(told) = self.under_way.front_mut() else { return Ok(()) };
        let standing = told.await.map_err(|_| StoreError::Closed)?;
        self.under_way.pop_front();
        standing?;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished {
            self.replica.store.change_blob(BlobChange::Remove { hash: self.name, even_whole: false }, |_| {});
        }
    }
}

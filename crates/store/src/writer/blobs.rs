//! The writer's turns for blobs.
//!
//! Owns: how much of blobs one turn writes or removes. Must not: let a change of a document wait for more than a turn.
//! Next: `../blob.rs`; docs/blobs.md, "Stored".

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Transaction, TransactionBehavior};
use syncline_core::blob::BlobStanding;

use super::{Shared, Writer};
use crate::blob::{self, BlobUnit, Blobs, Cleaned};
use crate::error::StoreError;

/// Wait before another look for blobs that nobody goes on with.
const CLEAN_WAIT: Duration = Duration::from_secs(3600);

/// Bytes of pieces after which a turn takes no more changes of blobs.
const BLOB_TURN_BYTES: usize = 256 * 1024;

/// Most changes of blobs in a turn.
const BLOB_TURN_CHANGES: usize = 64;

impl Shared {
    /// The blob changes of one turn: a change of a document waits for no more than these.
    fn take_blobs(&self) -> Vec<BlobUnit> {
        let mut queue = self.lock_queue();
        let (mut bytes, mut taken) = (0, Vec::new());
        while bytes < BLOB_TURN_BYTES
            && taken.len() < BLOB_TURN_CHANGES
            && let Some(unit) = queue.blobs.pop_front()
        {
            bytes += unit.weight();
            taken.push(unit);
        }
        taken
    }
}

impl Writer {
    pub(super) fn clean_is_due(&self) -> bool {
        self.failed.is_none() && self.clean_at <= Instant::now()
    }

    /// Removes a slice of the blobs that are to go, if it is time to look.
    pub(crate) fn clean_waiting(&mut self) -> bool {
        self.hear_checkpointer();
        let is_due = self.clean_is_due();
        if is_due {
            self.clean();
        }
        is_due
    }

    /// Removes a slice of the blobs that are to go.
    pub(super) fn clean(&mut self) {
        let wall_ms = self.shared.ground.wall_ms();
        let step = self.relaxed(|writer| blob::clean_step(&writer.connection, wall_ms));
        let now = Instant::now();
        match step {
            Ok(Cleaned::Pieces) => {}
            Ok(Cleaned::Partial(bytes)) => drop(self.shared.blob_bytes.fetch_sub(bytes, Ordering::Relaxed)),
            Ok(Cleaned::Nothing) => self.clean_at = now + CLEAN_WAIT,
            Err(error) => {
                let error = self.note_failure(error);
                self.clean_at = now + self.options.fold_retry;
                tracing::warn!(%error, "blobs could not be removed; it is tried again");
            }
        }
    }

    /// Makes the blob changes of one turn durable, in a transaction of their own, so that a disk that is too full for them
    /// may still have room for changes. False if none waits.
    pub(super) fn write_blobs(&mut self) -> bool {
        let units = self.shared.take_blobs();
        if units.is_empty() {
            return false;
        }
        let outcome = match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => self.apply_blobs(&units).map_err(|error| self.note_failure(error)),
        };
        match outcome {
            Ok((results, removed)) => {
                if removed {
                    self.clean_at = Instant::now();
                }
                units.into_iter().zip(results).for_each(|(unit, result)| unit.answer(result));
            }
            Err(error) => units.into_iter().for_each(|unit| unit.answer(Err(error.clone()))),
        }
        true
    }

    fn apply_blobs(&self, units: &[BlobUnit]) -> rusqlite::Result<(Vec<Result<BlobStanding, StoreError>>, bool)> {
        let shared = &self.shared;
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let (bytes, bytes_max) = (shared.blob_bytes.load(Ordering::Relaxed), self.options.blob_bytes_max);
        let wall_ms = shared.ground.wall_ms();
        let mut blobs = Blobs { write: &transaction, wall_ms, bytes, bytes_max, removed: false };
        let results: rusqlite::Result<Vec<_>> =
            units.iter().map(|unit| blobs.apply(&unit.change, &unit.digest)).collect();
        let (results, bytes, removed) = (results?, blobs.bytes, blobs.removed);
        transaction.commit()?;
        // As for commits.
        self.checkpointer.expect_sound()?;
        shared.blob_bytes.store(bytes, Ordering::Relaxed);
        Ok((results, removed))
    }
}

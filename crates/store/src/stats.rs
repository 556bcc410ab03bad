//! What a store holds, in numbers, whether it is in use or not.
//!
//! Owns: the queries. Must not: load a document, or write. Next: `check.rs`, `schema.rs`.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;

use crate::error::StoreError;
use crate::ground::System;
use crate::schema::{self, Checked};

/// What is in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Documents, deleted ones included as long as their content is kept, without those that are only in the log so far.
    pub documents: u64,
    /// Changes in them.
    pub changes: u64,
    /// Bytes of these as raw chunks.
    pub bytes: u64,
    /// Bytes of the document chunks that stand for most of them.
    pub snapshot_bytes: u64,
    /// Commits that are in the log and not yet folded into the documents.
    pub unfolded: u64,
    /// Documents that are deleted, purged ones included.
    pub deleted: u64,
    /// Blobs, partial ones included.
    pub blobs: u64,
    /// Bytes of them that are here.
    pub blob_bytes: u64,
    /// The stamp of the last change that is folded.
    pub newest: Stamp,
    /// The largest documents: bytes and number of changes.
    pub largest: Vec<(DocumentId, u64, u32)>,
}

/// Counts what is in the store in this directory; names so many of the largest documents.
///
/// # Errors
/// As [`crate::check()`].
pub fn stats(directory: &Path, largest: usize) -> Result<Stats, StoreError> {
    let Checked { connection, has_life, has_blobs, .. } = schema::open_for_check(directory, Arc::new(System))?;
    let read = connection.unchecked_transaction()?;
    let sums = "SELECT count(*), coalesce(sum(changes), 0), coalesce(sum(bytes), 0), coalesce(sum(snapshot_bytes), 0), \
                coalesce(max(last_stamp), 0) FROM document";
    let [documents, changes, bytes, snapshot_bytes, newest] = numbers(&read, sums)?;
    let [unfolded] = numbers(&read, "SELECT count(*) FROM log")?;
    let [deleted] = if has_life { numbers(&read, "SELECT count(*) FROM life WHERE deleted = 1")? } else { [0] };
    let [blobs, blob_bytes] = match has_blobs {
        true => numbers(&read, "SELECT count(*), coalesce(sum(held), 0) FROM blob")?,
        false => [0, 0],
    };
    let mut statement = read.prepare("SELECT id, bytes, changes FROM document ORDER BY bytes DESC LIMIT ?1")?;
    let mut rows = statement.query([i64::try_from(largest).unwrap_or(i64::MAX)])?;
    let mut named = Vec::new();
    while let Some(row) = rows.next()? {
        if let Ok(id) = DocumentId::from_bytes(&row.get::<_, Vec<u8>>(0)?) {
            named.push((id, row.get(1)?, row.get(2)?));
        }
    }
    let newest = Stamp::from_u64(newest);
    let largest = named;
    Ok(Stats { documents, changes, bytes, snapshot_bytes, unfolded, deleted, blobs, blob_bytes, newest, largest })
}

fn numbers<const N: usize>(read: &Connection, sql: &str) -> Result<[u64; N], StoreError> {
    let row = read.query_row(sql, [], |row| {
        let mut numbers = [0; N];
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = row.get::<_, i64>(at)?.cast_unsigned();
        }
        Ok(numbers)
    });
    Ok(row?)
}

//! The verification of blobs: every piece, every hash.
//!
//! Owns: what is a fault of a blob. Must not: write, or repair.
//! Next: `../check.rs`.

use std::collections::BTreeSet;

use rusqlite::Connection;
use sha2::{Digest, Sha256};
use syncline_core::blob::{BlobHash, BlobState};

use super::{BlobRow, NUMBER_BITS, proved_piece, remove};
use crate::check::{CheckReport, FaultKind};
use crate::error::StoreError;

/// Looks at every blob in the file.
pub(crate) fn check_blobs(read: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let (going, damaged) = remove::going(read)?;
    if damaged {
        report.add(None, FaultKind::Undecodable("which blobs are being removed"));
    }
    let mut keys: BTreeSet<i64> = going.into_iter().collect();
    let mut statement = read.prepare(&format!("SELECT {} FROM blob ORDER BY hash", BlobRow::COLUMNS))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(row) = BlobRow::from_row(row) else {
            report.add(None, FaultKind::Undecodable("a blob's record"));
            continue;
        };
        keys.insert(row.key);
        report.blobs += 1;
        report.blob_bytes += row.standing.held;
        if let Some(what) = fault_of(read, &row)? {
            report.add(None, FaultKind::BadBlob { hash: row.hash, what });
        }
    }
    let mut statement = read.prepare("SELECT DISTINCT place >> ?1 FROM blob_piece")?;
    let found = statement.query_map([NUMBER_BITS], |row| row.get::<_, i64>(0))?;
    for key in found {
        if !keys.contains(&key?) {
            report.add(None, FaultKind::Stray("blob_piece"));
        }
    }
    Ok(())
}

fn fault_of(read: &Connection, row: &BlobRow) -> Result<Option<&'static str>, StoreError> {
    let mut standing = row.standing;
    if standing.state == BlobState::Damaged {
        return Ok(Some("a piece of it was found damaged"));
    }
    if standing.held > standing.size || (standing.is_whole() && standing.held != standing.size) {
        return Ok(Some("more or less of it is stored than it has"));
    }
    if row.staged {
        // Its size is not known yet.
        standing.size = standing.held;
    }
    let (row, mut digest, mut offset) = (BlobRow { standing, ..*row }, Sha256::new(), 0);
    while offset < standing.held {
        let Some(piece) = proved_piece(read, &row, offset)? else { return Ok(Some("a piece of it is damaged")) };
        digest.update(&piece);
        offset += piece.len() as u64;
    }
    let is_right = !standing.is_whole() || BlobHash(digest.finalize().into()) == row.hash;
    Ok((!is_right).then_some("its content does not have its hash"))
}

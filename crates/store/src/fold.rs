//! Folding: moving what the log holds into rows per document, in slices, while commits go on.
//!
//! Owns: one round through the log and its order of steps: documents first, then the log rows that have become
//! superfluous. Must not: lose a row whose document is not folded; a crash between any two steps repeats work only.
//! Next: `overlay.rs`, `compact.rs`; docs/store.md, "Fold".

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;

use crate::life;
use crate::overlay::{Overlay, State, Unfolded};
use crate::record::{self, Content};
use crate::schema::{self, DocumentKey, DocumentRow};
use crate::store::Options;

/// A piece of a document's tail grows up to this size before the next one begins, bytes.
const PIECE_BYTES: usize = 8 * 1024;

/// Bytes of changes after which one slice ends.
const SLICE_BYTES: u64 = 1024 * 1024;

/// Log rows that one slice deletes.
const SLICE_DELETED_ROWS: usize = 1024;

/// How large the log is, and where it ends.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Rows in the log, folded or not.
    pub rows: usize,
    /// Bytes of their data.
    pub bytes: usize,
    /// The number that the next row gets.
    pub next_seq: i64,
}

impl Log {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(crate) fn grow(&mut self, next_seq: i64, rows: usize, bytes: usize) {
        self.next_seq = next_seq;
        self.rows += rows;
        self.bytes += bytes;
    }

    pub(crate) fn shrink(&mut self, rows: usize, bytes: usize) {
        self.rows -= rows;
        self.bytes -= bytes;
    }
}

/// One way through the log: fold every document that has rows in it, then delete these rows.
#[derive(Debug)]
pub(crate) struct Round {
    documents: VecDeque<DocumentId>,
    /// The log's rows when the round began: those that can be deleted once all documents are folded.
    last_seq: i64,
    rows: usize,
    bytes: usize,
}

/// What one slice did.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// The rest of the round, unless it is complete.
    pub rest: Option<Round>,
    /// Documents whose raw changes have grown enough to be compacted.
    pub ripe: Vec<DocumentId>,
    pub deleted_rows: usize,
    pub deleted_bytes: usize,
}

impl Round {
    pub(crate) fn begin(overlay: &RwLock<Overlay>, log: &Log) -> Self {
        let documents = overlay.read().unwrap_or_else(PoisonError::into_inner).fold_order();
        Self { documents, last_seq: log.next_seq - 1, rows: log.rows, bytes: log.bytes }
    }

    /// Does one slice in one transaction.
    pub(crate) fn step(
        mut self,
        connection: &Connection,
        overlay: &RwLock<Overlay>,
        highest: Stamp,
        options: &Options,
    ) -> rusqlite::Result<Step> {
        if self.documents.is_empty() {
            return self.delete_slice(connection, highest);
        }
        let started = Instant::now();
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let mut folded = Vec::new();
        let mut ripe = Vec::new();
        let mut bytes = 0;
        while bytes < SLICE_BYTES && started.elapsed() < options.fold_slice {
            let Some(id) = self.documents.pop_front() else { break };
            let unfolded = overlay.read().unwrap_or_else(PoisonError::into_inner).find(&id).cloned();
            let Some(unfolded) = unfolded else { continue };
            let part = fold_document(&transaction, &id, &unfolded, SLICE_BYTES - bytes)?;
            bytes += part.bytes;
            if options.is_ripe(&part.row) {
                ripe.push(id.clone());
            }
            folded.push((id.clone(), part.row.key, part.rows));
            if part.rows < unfolded.rows.len() {
                // The overlay gives these rows up only after this transaction: in it, they would be folded again.
                self.documents.push_front(id);
                break;
            }
        }
        transaction.commit()?;
        let mut overlay = overlay.write().unwrap_or_else(PoisonError::into_inner);
        folded.iter().for_each(|(id, key, rows)| overlay.folded(id, *key, *rows));
        Ok(Step { rest: Some(self), ripe, ..Step::default() })
    }

    fn delete_slice(self, connection: &Connection, highest: Stamp) -> rusqlite::Result<Step> {
        const DELETE: &str = "DELETE FROM log WHERE seq IN (SELECT seq FROM log WHERE seq <= ?1 ORDER BY seq LIMIT ?2)";
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        // The stamps in these rows are no longer found by the next start, so the highest one is kept beside.
        schema::write_highest_stamp(&transaction, highest)?;
        let deleted = transaction.prepare_cached(DELETE)?.execute((self.last_seq, SLICE_DELETED_ROWS))?;
        if deleted < SLICE_DELETED_ROWS {
            life::drop_floors(&transaction, self.last_seq)?;
        }
        transaction.commit()?;
        if deleted == SLICE_DELETED_ROWS {
            return Ok(Step { rest: Some(self), ..Step::default() });
        }
        let (deleted_rows, deleted_bytes) = (self.rows, self.bytes);
        Ok(Step { deleted_rows, deleted_bytes, ..Step::default() })
    }
}

/// What was folded of one document.
struct Part {
    rows: usize,
    bytes: u64,
    row: DocumentRow,
}

/// Appends a document's first unfolded rows to its tail: whole rows, at least one, about as many bytes as allowed.
fn fold_document(write: &Connection, id: &DocumentId, unfolded: &Unfolded, bytes_max: u64) -> rusqlite::Result<Part> {
    let mut state = State::empty();
    let (mut batches, mut first, mut cover) = (Vec::new(), None, None);
    let (mut rows, mut bytes, mut tail_bytes) = (0, 0, 0);
    for row in &unfolded.rows {
        if rows > 0 && bytes + row.folded_bytes() > bytes_max {
            break;
        }
        rows += 1;
        bytes += row.folded_bytes();
        state.advance(row);
        match &row.content {
            Content::Batch(batch) => {
                first.get_or_insert(row.before);
                tail_bytes += row.bytes;
                batches.extend_from_slice(batch);
            }
            Content::Whole(whole) => cover = Some(whole),
        }
    }
    let row = match unfolded.key {
        Some(key) => update_document(write, key, &state)?,
        None => insert_document(write, id, &state, tail_bytes)?,
    };
    // Only a document's first row is a chunk, so there is no snapshot yet that it could replace.
    if let Some(cover) = cover {
        cover.write(write, row.key, 0)?;
    }
    if let Some(first) = first {
        append_piece(write, row.key, first, first > row.snapshot_changes, &batches)?;
    }
    Ok(Part { rows, bytes, row })
}

fn insert_document(
    write: &Connection,
    id: &DocumentId,
    state: &State,
    tail_bytes: u64,
) -> rusqlite::Result<DocumentRow> {
    const SQL: &str = "INSERT INTO document (key, id, heads, changes, bytes, last_stamp, snapshot_changes, \
                       snapshot_bytes, tail_bytes, authored) VALUES (1 + max(coalesce((SELECT max(key) FROM document), 0), \
                       coalesce((SELECT max(key) FROM purge WHERE length(proof) = 8), 0)), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING key, heads, changes, bytes, \
                       last_stamp, snapshot_changes, snapshot_bytes, tail_bytes, refused_changes, authored";
    let heads = record::encode_heads(&state.heads);
    let stamp = state.last_stamp.as_u64().cast_signed();
    let snapshot = (state.snapshot_changes, state.snapshot_bytes);
    let authored = state.authored.seconds();
    let values =
        (id.as_bytes(), heads, state.changes, state.bytes, stamp, snapshot.0, snapshot.1, tail_bytes, authored);
    write.prepare_cached(SQL)?.query_row(values, DocumentRow::from_row)
}

/// Rows after a document's first hold raw changes, so all their bytes are the tail's.
fn update_document(write: &Connection, key: DocumentKey, state: &State) -> rusqlite::Result<DocumentRow> {
    const SQL: &str = "UPDATE document SET heads = ?2, changes = ?3, bytes = bytes + ?4, last_stamp = ?5, \
                       tail_bytes = tail_bytes + ?4, authored = max(authored, ?6) WHERE key = ?1 \
                       RETURNING key, heads, changes, bytes, last_stamp, \
                       snapshot_changes, snapshot_bytes, tail_bytes, refused_changes, authored";
    let heads = record::encode_heads(&state.heads);
    let stamp = state.last_stamp.as_u64().cast_signed();
    let values = (key.0, heads, state.changes, state.bytes, stamp, state.authored.seconds());
    write.prepare_cached(SQL)?.query_row(values, DocumentRow::from_row)
}

/// Puts batches behind the document's last piece, or into a new one when that is large enough already.
fn append_piece(write: &Connection, key: DocumentKey, first: u32, grow: bool, batches: &[u8]) -> rusqlite::Result<()> {
    if grow {
        const LAST: &str = "SELECT place, data FROM tail WHERE place BETWEEN ?1 AND ?2 ORDER BY place DESC LIMIT 1";
        let mut statement = write.prepare_cached(LAST)?;
        let last = statement
            .query_row((key.place(0), key.last_place()), |row| {
                let data = row.get_ref(1)?.as_blob()?;
                let joined = (data.len() + batches.len() <= PIECE_BYTES).then(|| [data, batches].concat());
                Ok((row.get::<_, i64>(0)?, joined))
            })
            .optional()?;
        if let Some((place, Some(joined))) = last {
            write.prepare_cached("UPDATE tail SET data = ?2 WHERE place = ?1")?.execute((place, joined))?;
            return Ok(());
        }
    }
    write.prepare_cached("INSERT INTO tail (place, data) VALUES (?1, ?2)")?.execute((key.place(first), batches))?;
    Ok(())
}

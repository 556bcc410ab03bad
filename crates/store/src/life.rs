//! Which documents are deleted, and the removal of their bytes once nobody may restore them any more.
//!
//! Owns: the tables `life`, `purge` and `floor`, the order of steps in which a document goes.
//! Must not: decide which of two records stands (`syncline_core::life`), or run anywhere but on the writer's thread.
//! Next: `writer.rs`; docs/store.md, "Deletion".

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};
use sha2::{Digest, Sha256};
use syncline_core::clock::Stamp;
use syncline_core::id::{DocumentId, ReplicaId};
use syncline_core::life::Life;

use crate::error::StoreError;
use crate::fold::Log;
use crate::overlay::Overlay;
use crate::read;
use crate::schema::{DocumentKey, DocumentRow};
use crate::store::selection;
use crate::subject::{self, GivenBack};

/// Pieces that one step removes.
const SLICE_ROWS: usize = 64;

/// Documents whose time has come that one step looks at: those that are not folded yet are passed over.
const DUE_MAX: usize = 64;

/// What is proved of an entry in the table `purge`.
const PURGE: &[u8] = b"purge";

/// A document's life record, as a store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeEntry {
    /// The record.
    pub life: Life,
    /// When this store noted it, by this machine's clock: milliseconds since the Unix epoch. The grace period counts
    /// from then.
    pub noted_ms: u64,
    /// The same by this store's own clock: a place among the stamps of changes. Zero for what an earlier version noted.
    pub noted: Stamp,
    /// Whether the document's bytes are gone from this store.
    pub purged: bool,
}

impl LifeEntry {
    const COLUMNS: &str = "document, stamp, replica, deleted, noted_ms, purged, noted, proof";

    /// The entry of a row, if that is what was written.
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let Ok((document, entry, found)) = Self::columns(row) else { return Ok(None) };
        Ok((found == entry.proof(&document)).then_some(entry))
    }

    fn columns(row: &Row<'_>) -> rusqlite::Result<(Vec<u8>, Self, Vec<u8>)> {
        let stamp = Stamp::from_u64(row.get::<_, i64>(1)?.cast_unsigned());
        let life = Life { stamp, replica: ReplicaId(row.get(2)?), deleted: row.get(3)? };
        let noted = Stamp::from_u64(row.get::<_, i64>(6)?.cast_unsigned());
        let noted_ms = row.get::<_, i64>(4)?.cast_unsigned();
        Ok((row.get(0)?, Self { life, noted_ms, noted, purged: row.get(5)? }, row.get(7)?))
    }

    /// Tells an entry that was written from one in which a bit has changed: it would bring a deleted document back, or
    /// remove a living one.
    fn proof(&self, document: &[u8]) -> [u8; 8] {
        let Self { life, noted_ms, noted, purged } = self;
        let flags = [u8::from(life.deleted), u8::from(*purged)];
        let stamps = [life.stamp.as_u64(), *noted_ms, noted.as_u64()].map(u64::to_be_bytes);
        proof(&[document, &life.replica.0, &flags, stamps.as_flattened()].concat(), 0)
    }

    /// The entry of a document.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the row is not what was written.
    pub(crate) fn find(connection: &Connection, id: &DocumentId) -> Result<Option<Self>, StoreError> {
        match Self::find_row(connection, id)? {
            None => Ok(None),
            Some(None) => Err(StoreError::Damaged { document: id.clone(), what: "whether it is deleted" }),
            Some(entry) => Ok(entry),
        }
    }

    /// The row of a document, and its entry if that is what was written.
    pub(crate) fn find_row(connection: &Connection, id: &DocumentId) -> rusqlite::Result<Option<Option<Self>>> {
        let sql = format!("SELECT {} FROM life WHERE document = ?1", Self::COLUMNS);
        connection.prepare_cached(&sql)?.query_row([id.as_bytes()], Self::from_row).optional()
    }

    /// Entries of documents after this one, in the order of ids, without those that are damaged.
    pub(crate) fn after(
        read: &Connection,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Self)>, StoreError> {
        let columns = Self::COLUMNS;
        let sql = format!("SELECT {columns} FROM life WHERE ?1 IS NULL OR document > ?1 ORDER BY document LIMIT ?2");
        let mut statement = read.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query((after.map(DocumentId::as_bytes), limit))?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let id = read::document_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
            match Self::from_row(row)? {
                Some(entry) => entries.push((id, entry)),
                None => tracing::error!(document = %id, "whether it is deleted is damaged"),
            }
        }
        Ok(entries)
    }

    /// Writes the entry in the place of the one that there is.
    pub(crate) fn write(&self, write: &Connection, id: &DocumentId) -> rusqlite::Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO life (document, stamp, replica, deleted, noted_ms, purged, noted, proof) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let Self { life, noted_ms, noted, purged } = self;
        let [stamp, noted] = [life.stamp, *noted].map(|stamp| stamp.as_u64().cast_signed());
        let noted_ms = noted_ms.cast_signed();
        let proof = self.proof(id.as_bytes());
        let values = (id.as_bytes(), stamp, &life.replica.0[..], life.deleted, noted_ms, purged, noted, proof);
        write.prepare_cached(SQL)?.execute(values).map(|_| ())
    }
}

/// Proves the entries that an earlier format wrote.
pub(crate) fn prove_all(write: &Connection) -> Result<(), StoreError> {
    let mut statement = write.prepare(&format!("SELECT {} FROM life", LifeEntry::COLUMNS))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (document, entry, _) = LifeEntry::columns(row)?;
        const SQL: &str = "UPDATE life SET proof = ?2 WHERE document = ?1";
        write.prepare_cached(SQL)?.execute((&document, entry.proof(&document)))?;
    }
    Ok(())
}

/// The documents of which the table has an entry that cannot be what was written.
pub(crate) fn damaged(read: &Connection) -> rusqlite::Result<Vec<Option<DocumentId>>> {
    let mut statement = read.prepare(&format!("SELECT {} FROM life", LifeEntry::COLUMNS))?;
    let mut rows = statement.query([])?;
    let mut damaged = Vec::new();
    while let Some(row) = rows.next()? {
        let id = DocumentId::from_bytes(&row.get::<_, Vec<u8>>(0).unwrap_or_default()).ok();
        if id.is_none() || LifeEntry::from_row(row)?.is_none() {
            damaged.push(id);
        }
    }
    Ok(damaged)
}

/// Whether the last word on a document is that it is deleted. One of which that cannot be read is not passed over.
pub(crate) fn is_deleted(read: &Connection, id: &DocumentId) -> rusqlite::Result<bool> {
    Ok(LifeEntry::find_row(read, id)?.flatten().is_some_and(|entry| entry.life.deleted))
}

/// The latest stamp at which a record was noted.
pub(crate) fn latest_noted(read: &Connection) -> rusqlite::Result<Stamp> {
    let latest = read.query_row("SELECT ifnull(max(noted), 0) FROM life", [], |row| row.get::<_, i64>(0))?;
    Ok(Stamp::from_u64(latest.cast_unsigned()))
}

/// What one step of purging did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Purged {
    /// This document is gone; whether it had any changes, and what subjects had stored in it.
    Document(DocumentId, bool, GivenBack),
    /// Some of a document's pieces are gone.
    Pieces,
    /// There is nothing to do, and nothing will be before this time by the wall, if at all.
    Nothing(Option<u64>),
    /// Documents wait until they are folded.
    Unfolded,
}

/// Removes a little of what is due: the rest of a document before the next one begins to go.
pub(crate) fn purge_step(
    connection: &Connection,
    overlay: &RwLock<Overlay>,
    log: &Log,
    keep: Duration,
    wall_ms: u64,
) -> rusqlite::Result<Purged> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let step = match begun(&transaction)? {
        Some(key) => {
            remove_pieces(&transaction, key)?;
            Purged::Pieces
        }
        None => begin(&transaction, overlay, log, keep, wall_ms)?,
    };
    transaction.commit()?;
    Ok(step)
}

fn begun(read: &Connection) -> rusqlite::Result<Option<DocumentKey>> {
    Ok(purging(read)?.0.first().copied())
}

/// Documents of which only pieces are left, and whether some entry that says so is damaged: it would have the pieces of a
/// living document removed.
pub(crate) fn purging(read: &Connection) -> rusqlite::Result<(Vec<DocumentKey>, bool)> {
    let mut statement = read.prepare_cached("SELECT key, proof FROM purge")?;
    let mut rows = statement.query([])?;
    let (mut keys, mut damaged) = (Vec::new(), false);
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        let proved = row.get::<_, Vec<u8>>(1).is_ok_and(|found| found == proof(PURGE, key));
        damaged |= !proved;
        keys.extend(proved.then_some(DocumentKey(key)));
    }
    Ok((keys, damaged))
}

fn begin(
    write: &Connection,
    overlay: &RwLock<Overlay>,
    log: &Log,
    keep: Duration,
    wall_ms: u64,
) -> rusqlite::Result<Purged> {
    let columns = LifeEntry::COLUMNS;
    let due = format!("SELECT {columns} FROM life WHERE deleted = 1 AND purged = 0 ORDER BY noted_ms LIMIT ?1");
    let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    let mut statement = write.prepare_cached(&due)?;
    let mut rows = statement.query([DUE_MAX])?;
    let mut unfolded = false;
    while let Some(row) = rows.next()? {
        // The check reports an entry that is damaged. Nothing is removed on its word.
        let Some(entry) = LifeEntry::from_row(row)? else { continue };
        let due_ms = entry.noted_ms.saturating_add(keep_ms);
        if due_ms > wall_ms {
            return Ok(if unfolded { Purged::Unfolded } else { Purged::Nothing(Some(due_ms)) });
        }
        let Ok(id) = DocumentId::from_bytes(row.get_ref(0)?.as_blob()?) else { continue };
        if overlay.read().unwrap_or_else(PoisonError::into_inner).find(&id).is_some() {
            unfolded = true;
            continue;
        }
        let (existed, given_back) = remove_document(write, &id, log)?;
        LifeEntry { purged: true, ..entry }.write(write, &id)?;
        return Ok(Purged::Document(id, existed, given_back));
    }
    Ok(if unfolded { Purged::Unfolded } else { Purged::Nothing(None) })
}

/// Takes a folded document's row away, and notes what is to follow. Returns whether there was one, and what subjects had
/// stored in it.
pub(crate) fn remove_document(write: &Connection, id: &DocumentId, log: &Log) -> rusqlite::Result<(bool, GivenBack)> {
    write.prepare_cached("DELETE FROM damaged WHERE document = ?1")?.execute([id.as_bytes()])?;
    selection::forget(write, id)?;
    let given_back = subject::forget(write, id)?;
    let row = DocumentRow::find(write, id.as_bytes())?;
    if let Some(row) = &row {
        write
            .prepare_cached("INSERT INTO purge (key, proof) VALUES (?1, ?2)")?
            .execute((row.key.0, proof(PURGE, row.key.0)))?;
        write.prepare_cached("DELETE FROM document WHERE key = ?1")?.execute([row.key.0])?;
    }
    if !log.is_empty() {
        // Folded rows may still lie in the log; without the document's row they would look like a new document.
        write.prepare_cached("INSERT OR REPLACE INTO floor (document, seq, proof) VALUES (?1, ?2, ?3)")?.execute((
            id.as_bytes(),
            log.next_seq - 1,
            proof(id.as_bytes(), log.next_seq - 1),
        ))?;
    }
    Ok((row.is_some(), given_back))
}

fn remove_pieces(write: &Connection, key: DocumentKey) -> rusqlite::Result<()> {
    for table in ["tail", "node_index"] {
        let sql = format!(
            "DELETE FROM {table} WHERE place IN \
             (SELECT place FROM {table} WHERE place BETWEEN ?1 AND ?2 LIMIT {SLICE_ROWS})"
        );
        if write.prepare_cached(&sql)?.execute((key.place(0), key.last_place()))? > 0 {
            return Ok(());
        }
    }
    write.prepare_cached("DELETE FROM snapshot WHERE document = ?1")?.execute([key.0])?;
    write.prepare_cached("DELETE FROM purge WHERE key = ?1")?.execute([key.0])?;
    Ok(())
}

/// Per document, the number of the log's row up to which its rows do not count; `None` if one of them is damaged. It would
/// hide changes that are there.
pub(crate) fn floors(read: &Connection) -> rusqlite::Result<Option<HashMap<Vec<u8>, i64>>> {
    let mut statement = read.prepare("SELECT document, seq, proof FROM floor")?;
    let mut rows = statement.query([])?;
    let mut floors = HashMap::new();
    while let Some(row) = rows.next()? {
        // A page that belongs to another table has other columns.
        let (Ok(document), Ok(seq), Ok(found)) =
            (row.get::<_, Vec<u8>>(0), row.get::<_, i64>(1), row.get::<_, Vec<u8>>(2))
        else {
            return Ok(None);
        };
        if found != proof(&document, seq) {
            return Ok(None);
        }
        floors.insert(document, seq);
    }
    Ok(Some(floors))
}

/// Tells a row that was written from a page that belongs to another table.
pub(crate) fn proof(what: &[u8], number: i64) -> [u8; 8] {
    let digest = Sha256::new().chain_update(number.to_be_bytes()).chain_update(what).finalize();
    std::array::from_fn(|at| digest[at])
}

/// Forgets the floors whose rows are gone from the log.
pub(crate) fn drop_floors(write: &Connection, deleted_to: i64) -> rusqlite::Result<()> {
    write.prepare_cached("DELETE FROM floor WHERE seq <= ?1")?.execute([deleted_to]).map(|_| ())
}

//! Reading: a small pool of connections, and answers that join the database with what is not folded yet.
//!
//! Owns: the pool, the queries, the join. Must not: write, or keep a connection while a caller works.
//! Next: `overlay.rs`, `store.rs`; docs/store.md, "Reading".

use std::collections::{BTreeMap, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Transaction};
use syncline_core::ChangeHash;
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_core::loader::Loader;
use syncline_core::storage::{Payload, StoredChange, StoredGraph, Summary};

use crate::compact;
use crate::error::StoreError;
use crate::overlay::{State, Unfolded};
use crate::record;
use crate::schema::{self, Database, DocumentKey, DocumentRow};

/// Connections that only read; a caller waits when all are in use.
#[derive(Debug)]
pub(crate) struct Readers {
    database: Database,
    connections_max: usize,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Connection>,
    open: usize,
    closed: bool,
}

impl Readers {
    pub(crate) fn new(database: Database, connections_max: usize) -> Self {
        Self { database, connections_max: connections_max.max(1), pool: Mutex::default(), returned: Condvar::new() }
    }

    /// Runs one consistent read: everything that `read` sees belongs to one state of the database.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lease = self.lease()?;
        let connection = lease.connection.as_ref().ok_or(StoreError::Closed)?;
        let transaction = connection.unchecked_transaction()?;
        read(&transaction)
    }

    /// Closes the idle connections and refuses further reads.
    pub(crate) fn close(&self) {
        let mut pool = self.lock();
        pool.closed = true;
        pool.idle.clear();
        while pool.open > 0 {
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lease(&self) -> Result<Lease<'_>, StoreError> {
        let mut pool = self.lock();
        loop {
            if pool.closed {
                return Err(StoreError::Closed);
            }
            if let Some(connection) = pool.idle.pop() {
                pool.open += 1;
                return Ok(Lease { readers: self, connection: Some(connection) });
            }
            if pool.open < self.connections_max {
                pool.open += 1;
                drop(pool);
                let mut lease = Lease { readers: self, connection: None };
                lease.connection = Some(schema::open_reader(&self.database)?);
                return Ok(lease);
            }
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // A panic elsewhere leaves at worst a connection too few in here.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan, returned when dropped, also by a panic.
struct Lease<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut pool = self.readers.lock();
        pool.open -= 1;
        if !pool.closed {
            pool.idle.extend(self.connection.take());
        }
        self.readers.returned.notify_all();
    }
}

/// The summary of a document from its row and from what is not folded yet, whichever is later.
pub(crate) fn join_summary(row: Option<DocumentRow>, unfolded: Option<State>) -> Option<Summary> {
    // A row in the database knows of compactions that the state beside the log has not heard of.
    let snapshot = match (&row, &unfolded) {
        (Some(row), _) => (row.snapshot_changes, row.snapshot_bytes),
        (None, Some(state)) => (state.snapshot_changes, state.snapshot_bytes),
        (None, None) => return None,
    };
    let folded = row.map(State::from);
    let state = match (folded, unfolded) {
        (Some(folded), Some(unfolded)) if folded.changes >= unfolded.changes => folded,
        (_, Some(unfolded)) => unfolded,
        (folded, None) => folded?,
    };
    Some(Summary {
        heads: state.heads,
        changes: state.changes,
        bytes: state.bytes,
        last_stamp: state.last_stamp,
        authored: state.authored,
        snapshot_changes: snapshot.0,
        snapshot_bytes: snapshot.1,
    })
}

/// The document's graph: index pieces, then raw changes.
pub(crate) fn graph(
    read: &Connection,
    id: &DocumentId,
    unfolded: Option<&Unfolded>,
) -> Result<Option<StoredGraph>, StoreError> {
    let row = DocumentRow::find(read, id.as_bytes())?;
    let mut index = Vec::new();
    let mut tail = Vec::new();
    if let Some(row) = &row {
        index = index_pieces(read, row.key)?;
        tail = stored_tail(read, id, row.key)?;
    } else if let Some((cover, _)) = unfolded.and_then(Unfolded::cover) {
        index.push(cover.index.clone());
    }
    append_unfolded(id, row.as_ref(), unfolded, &mut tail)?;
    let summary = join_summary(row, unfolded.map(|unfolded| unfolded.state.clone()));
    Ok(summary.map(|summary| StoredGraph { summary, index, tail }))
}

/// The document's bytes for a peer that has nothing.
pub(crate) fn payload(
    read: &Connection,
    id: &DocumentId,
    unfolded: Option<&Unfolded>,
) -> Result<Option<Payload>, StoreError> {
    let row = DocumentRow::find(read, id.as_bytes())?;
    if row.is_none() && unfolded.is_none() {
        return Ok(None);
    }
    let (mut snapshot, mut covered) = (None, 0);
    let mut tail = Vec::new();
    if let Some(row) = &row {
        snapshot = if row.snapshot_changes > 0 { Some(snapshot_bytes(read, id, row.key)?) } else { None };
        tail = stored_tail(read, id, row.key)?;
        covered = row.snapshot_changes;
    } else if let Some((cover, changes)) = unfolded.and_then(Unfolded::cover) {
        snapshot = Some(cover.snapshot.clone());
        covered = changes;
    }
    append_unfolded(id, row.as_ref(), unfolded, &mut tail)?;
    let changes = covered + tail.len() as u32;
    Ok(Some(Payload { snapshot, tail, changes }))
}

/// When each change of a document was committed, in journal order.
pub(crate) fn stamps(
    read: &Connection,
    id: &DocumentId,
    unfolded: Option<&Unfolded>,
) -> Result<Vec<Stamp>, StoreError> {
    const SQL: &str = "SELECT stamps FROM node_index WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
    let damaged = || StoreError::Damaged { document: id.clone(), what: "the stamps under the snapshot" };
    let row = DocumentRow::find(read, id.as_bytes())?;
    let mut stamps = Vec::new();
    let mut tail = Vec::new();
    if let Some(row) = &row {
        let mut statement = read.prepare_cached(SQL)?;
        let pieces = statement.query_map((row.key.place(0), row.key.last_place()), |row| row.get::<_, Vec<u8>>(0))?;
        for piece in pieces {
            stamps.extend(record::decode_stamps(&piece?).ok_or_else(damaged)?);
        }
        tail = stored_tail(read, id, row.key)?;
    } else if let Some((cover, _)) = unfolded.and_then(Unfolded::cover) {
        stamps.extend(record::decode_stamps(&cover.stamps).ok_or_else(damaged)?);
    }
    append_unfolded(id, row.as_ref(), unfolded, &mut tail)?;
    stamps.extend(tail.iter().map(|change| change.stamp));
    Ok(stamps)
}

/// The raw bytes of these changes, in the order asked for.
pub(crate) fn changes(
    read: &Connection,
    id: &DocumentId,
    unfolded: Option<&Unfolded>,
    (hashes, loader): (&[ChangeHash], &dyn Loader),
) -> Result<Vec<Bytes>, StoreError> {
    let Some(payload) = payload(read, id, unfolded)? else {
        let missing = hashes.first().map(|&hash| StoreError::UnknownChange { document: id.clone(), hash });
        return missing.map_or(Ok(Vec::new()), Err);
    };
    let mut wanted: HashMap<ChangeHash, Option<Bytes>> = hashes.iter().map(|&hash| (hash, None)).collect();
    let mut missing = wanted.len();
    // The most recent changes are asked for most often.
    for stored in payload.tail.iter().rev() {
        if missing == 0 {
            break;
        }
        let slot = compact::hash_of(&stored.bytes).and_then(|hash| wanted.get_mut(&hash));
        if let Some(slot @ None) = slot {
            *slot = Some(stored.bytes.clone());
            missing -= 1;
        }
    }
    if let (1.., Some(snapshot)) = (missing, &payload.snapshot) {
        compact::extract(loader, (id, snapshot), &mut wanted)?;
    }
    let take = |hash: &ChangeHash| wanted.get(hash).cloned().flatten();
    hashes
        .iter()
        .map(|hash| take(hash).ok_or_else(|| StoreError::UnknownChange { document: id.clone(), hash: *hash }))
        .collect()
}

/// Documents after this id in the order of ids, from the database alone; `deleted`: those too. The columns are as
/// [`DocumentRow::from_row`] reads them.
pub(crate) fn documents_after(
    read: &Connection,
    after: Option<&DocumentId>,
    limit: usize,
    (columns, deleted): (&str, bool),
) -> Result<Vec<(DocumentId, DocumentRow)>, StoreError> {
    let living = "AND NOT EXISTS (SELECT 1 FROM life WHERE life.document = id AND deleted = 1)";
    let sql = format!(
        "SELECT {columns}, id FROM document WHERE (?1 IS NULL OR id > ?1) {} ORDER BY id LIMIT ?2",
        if deleted { "" } else { living }
    );
    let mut statement = read.prepare_cached(&sql)?;
    // SQLite counts with a sign.
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((after.map(DocumentId::as_bytes), limit))?;
    let mut documents = Vec::new();
    while let Some(row) = rows.next()? {
        documents.push((
            document_id(row.get_ref(DocumentRow::COLUMN_COUNT)?.as_blob().map_err(rusqlite::Error::from)?)?,
            DocumentRow::from_row(row)?,
        ));
    }
    Ok(documents)
}

/// Joins two lists in the order of ids. Each holds its first `limit` entries, so the first `limit` of both are in them.
pub(crate) fn merge_documents(
    rows: Vec<(DocumentId, DocumentRow)>,
    unfolded: Vec<(DocumentId, State)>,
    limit: usize,
) -> Vec<(DocumentId, Summary)> {
    let mut documents: BTreeMap<DocumentId, (Option<DocumentRow>, Option<State>)> = BTreeMap::new();
    for (id, row) in rows {
        documents.entry(id).or_default().0 = Some(row);
    }
    for (id, state) in unfolded {
        documents.entry(id).or_default().1 = Some(state);
    }
    let joined = documents.into_iter().filter_map(|(id, (row, state))| Some((id, join_summary(row, state)?)));
    joined.take(limit).collect()
}

/// An id column; it was a valid id when it was written.
pub(crate) fn document_id(bytes: &[u8]) -> Result<DocumentId, StoreError> {
    DocumentId::from_bytes(bytes).map_err(|error| {
        StoreError::from_read(rusqlite::Error::FromSqlConversionFailure(
            0,
            rusqlite::types::Type::Blob,
            Box::new(error),
        ))
    })
}

/// The raw changes after the snapshot that are folded, in journal order.
pub(crate) fn stored_tail(
    read: &Connection,
    id: &DocumentId,
    key: DocumentKey,
) -> Result<Vec<StoredChange>, StoreError> {
    let mut statement = read.prepare_cached("SELECT data FROM tail WHERE place BETWEEN ?1 AND ?2 ORDER BY place")?;
    let mut rows = statement.query((key.place(0), key.last_place()))?;
    let mut tail = Vec::new();
    while let Some(row) = rows.next()? {
        let data = Bytes::copy_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
        let decoded = record::decode_batches(&data, &mut tail);
        decoded.ok_or_else(|| StoreError::Damaged { document: id.clone(), what: "a piece of its recent changes" })?;
    }
    Ok(tail)
}

/// The encoded node records under the snapshot, in order.
pub(crate) fn index_pieces(read: &Connection, key: DocumentKey) -> Result<Vec<Bytes>, StoreError> {
    let mut statement =
        read.prepare_cached("SELECT data FROM node_index WHERE place BETWEEN ?1 AND ?2 ORDER BY place")?;
    let pieces = statement
        .query_map((key.place(0), key.last_place()), |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)))?;
    Ok(pieces.collect::<Result<_, _>>()?)
}

/// The automerge document chunk of a document that has one.
pub(crate) fn snapshot_bytes(read: &Connection, id: &DocumentId, key: DocumentKey) -> Result<Bytes, StoreError> {
    let mut statement = read.prepare_cached("SELECT data FROM snapshot WHERE document = ?1")?;
    let bytes =
        statement.query_row([key.0], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?))).optional()?;
    bytes.ok_or_else(|| StoreError::Damaged { document: id.clone(), what: "its snapshot is missing" })
}

fn append_unfolded(
    id: &DocumentId,
    row: Option<&DocumentRow>,
    unfolded: Option<&Unfolded>,
    tail: &mut Vec<StoredChange>,
) -> Result<(), StoreError> {
    let Some(unfolded) = unfolded else { return Ok(()) };
    let have = row.map_or(0, |row| row.changes);
    unfolded
        .append_after(have, tail)
        .ok_or_else(|| StoreError::Damaged { document: id.clone(), what: "a row of the log" })
}

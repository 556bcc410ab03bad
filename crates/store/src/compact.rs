//! Compaction: rewriting a document's old raw changes into one automerge document chunk, beside an index of its graph.
//!
//! Owns: the thread that does so, what is covered, the proof before anything is replaced.
//! Must not: write itself (the writer installs), delete what it has not read into the snapshot, build a document (the
//! loader does), or give up a thread to a document that cannot be built.
//! Next: `writer.rs`, `read.rs`; docs/store.md, "Compaction".

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use syncline_core::ChangeHash;
use syncline_core::change::Change;
use syncline_core::graph::Graph;
use syncline_core::id::DocumentId;
use syncline_core::loader::{InProcess, LoadError, Loader, Merged, Old};
use syncline_core::storage::{StoredGraph, Summary};

use crate::cover::Cover;
use crate::error::StoreError;
use crate::read::{self, Readers};
use crate::record;
use crate::schema::{DocumentKey, DocumentRow, change_at};
use crate::store::Options;
use crate::writer::{Job, Shared};

/// Called after each compaction with the document and the number of changes that its snapshot covers.
pub(crate) type Compacted = Arc<dyn Fn(DocumentId, u32) + Send + Sync>;

/// Called for each document that cannot be compacted, with a short name of the reason.
pub(crate) type Quarantined = Arc<dyn Fn(DocumentId, &'static str) + Send + Sync>;

/// Documents that wait for compaction; each at most once.
#[derive(Default)]
pub(crate) struct Backlog {
    state: Mutex<BacklogState>,
    wake: Condvar,
}

#[derive(Default)]
struct BacklogState {
    documents: BTreeSet<DocumentId>,
    working: bool,
    ended: bool,
    compacted: Option<Compacted>,
    quarantined: Option<Quarantined>,
}

impl Backlog {
    pub(crate) fn add(&self, documents: Vec<DocumentId>) {
        if !documents.is_empty() {
            self.lock().documents.extend(documents);
            self.wake.notify_all();
        }
    }

    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.wake.notify_all();
    }

    pub(crate) fn on_compacted(&self, callback: Compacted) {
        self.lock().compacted = Some(callback);
    }

    pub(crate) fn on_quarantined(&self, callback: Quarantined) {
        self.lock().quarantined = Some(callback);
    }

    /// Waits until no document waits for compaction or is in work.
    pub(crate) fn settle(&self) {
        let mut state = self.lock();
        while !state.ended && (state.working || !state.documents.is_empty()) {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn next(&self) -> Option<DocumentId> {
        let mut state = self.lock();
        state.working = false;
        self.wake.notify_all();
        loop {
            if state.ended {
                return None;
            }
            if let Some(document) = state.documents.pop_first() {
                state.working = true;
                return Some(document);
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next document that waits, without waiting for one.
    pub(crate) fn take(&self) -> Option<DocumentId> {
        self.lock().documents.pop_first()
    }

    fn announce(&self, document: DocumentId, changes: u32) {
        let callback = self.lock().compacted.clone();
        if let Some(callback) = callback {
            callback(document, changes);
        }
    }

    fn announce_quarantine(&self, document: DocumentId, kind: &'static str) {
        let callback = self.lock().quarantined.clone();
        if let Some(callback) = callback {
            callback(document, kind);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BacklogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The compaction thread: one document at a time, until told to end.
pub(crate) fn run(backlog: &Backlog, readers: &Readers, shared: &Shared, options: &Options) {
    match readers.read(|read| ripe_documents(read, options)) {
        Ok(documents) => backlog.add(documents),
        Err(error) => tracing::warn!(%error, "documents that wait for compaction could not be listed"),
    }
    while let Some(document) = backlog.next() {
        if let Some(covered) = compact(&document, (backlog, readers), options, |job| shared.submit(job)) {
            backlog.announce(document, covered);
        }
    }
}

/// Compacts a document through jobs for the writer; how many changes its snapshot then covers, if it has a new one.
pub(crate) fn compact(
    document: &DocumentId,
    (backlog, readers): (&Backlog, &Readers),
    options: &Options,
    mut submit: impl FnMut(Job),
) -> Option<u32> {
    let compacted = match prepare(readers, document, options) {
        Ok(Some(compaction)) => hand_in(submit, compaction),
        Ok(None) => Ok(None),
        Err(Failure::Store(error)) => Err(error),
        Err(Failure::PutOff(error)) => {
            tracing::warn!(%document, %error, "a compaction was put off");
            Ok(None)
        }
        Err(Failure::Refused { changes, kind, reason }) => {
            tracing::warn!(%document, kind, reason, "the document cannot be compacted; its changes stay as they are");
            submit(Job::Refuse(document.clone(), changes));
            backlog.announce_quarantine(document.clone(), kind);
            Ok(None)
        }
    };
    compacted.unwrap_or_else(|error| {
        tracing::warn!(%document, %error, "a compaction was put off");
        None
    })
}

/// A snapshot that has been proved, ready to replace the raw changes it covers.
pub(crate) struct Compaction {
    key: DocumentKey,
    /// What the old snapshot covered: if that has changed, this compaction is void.
    covered_before: u32,
    covered: u32,
    covered_bytes: u64,
    cover: Cover,
}

impl Compaction {
    /// Puts the snapshot and the index in place and deletes exactly the raw changes that they cover.
    ///
    /// Folding may have added to the tail meanwhile. The number of a change never changes, so the covered ones are
    /// still the first in it.
    pub(crate) fn install(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        const DOCUMENT: &str = "UPDATE document SET snapshot_changes = ?3, snapshot_bytes = ?4, \
                                tail_bytes = tail_bytes - ?5, refused_changes = 0 WHERE key = ?1 AND snapshot_changes = ?2";
        let size = self.cover.snapshot.len() as u64;
        let values = (self.key.0, self.covered_before, self.covered, size, self.covered_bytes);
        if transaction.prepare_cached(DOCUMENT)?.execute(values)? == 0 {
            return Ok(false);
        }
        self.cover.write(&transaction, self.key, self.covered_before)?;
        self.keep_rest_of_last_piece(&transaction)?;
        transaction
            .prepare_cached("DELETE FROM tail WHERE place BETWEEN ?1 AND ?2")?
            .execute((self.key.place(0), self.key.place(self.covered) - 1))?;
        transaction.commit()?;
        Ok(true)
    }

    /// The piece in which the covered changes end is written again without them.
    fn keep_rest_of_last_piece(&self, write: &Connection) -> rusqlite::Result<()> {
        const LAST: &str = "SELECT place, data FROM tail WHERE place BETWEEN ?1 AND ?2 ORDER BY place DESC LIMIT 1";
        let range = (self.key.place(0), self.key.place(self.covered) - 1);
        let piece =
            write.prepare_cached(LAST)?.query_row(range, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
        let Some((place, data)) = piece.optional()? else { return Ok(()) };
        let mut changes = Vec::new();
        // Compaction has just decoded the same bytes; damage in between ends the transaction.
        record::decode_batches(&Bytes::from(data), &mut changes).ok_or(rusqlite::Error::InvalidQuery)?;
        let covered = (self.covered - change_at(place)) as usize;
        if !record::stamps_rise(&changes) {
            return Err(rusqlite::Error::InvalidQuery);
        }
        if covered < changes.len() {
            let rest = record::encode_stored(&changes[covered..]);
            let mut insert = write.prepare_cached("INSERT INTO tail (place, data) VALUES (?1, ?2)")?;
            insert.execute((self.key.place(self.covered), rest))?;
        }
        Ok(())
    }
}

/// Why a document was not compacted.
enum Failure {
    /// The document itself is the reason: it is not tried again until it has grown.
    Refused { changes: u32, kind: &'static str, reason: String },
    /// There is nobody to build it: tried again when the document is folded next.
    PutOff(LoadError),
    /// The store is the reason: tried again when the document is folded next.
    Store(StoreError),
}

impl Failure {
    fn of_load(changes: u32, error: LoadError) -> Self {
        if error.concerns_document() {
            Self::Refused { changes, kind: error.kind(), reason: error.to_string() }
        } else {
            Self::PutOff(error)
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Documents that were ripe when the process ended.
pub(crate) fn ripe_documents(read: &Connection, options: &Options) -> Result<Vec<DocumentId>, StoreError> {
    let sql = format!("SELECT {}, id FROM document", DocumentRow::COLUMNS);
    let mut statement = read.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut ripe = Vec::new();
    while let Some(row) = rows.next()? {
        if options.is_ripe(&DocumentRow::from_row(row)?) {
            ripe.push(read::document_id(
                row.get_ref(DocumentRow::COLUMN_COUNT)?.as_blob().map_err(rusqlite::Error::from)?,
            )?);
        }
    }
    Ok(ripe)
}

/// Reads the document, builds its snapshot and proves that it holds the same changes.
fn prepare(readers: &Readers, id: &DocumentId, options: &Options) -> Result<Option<Compaction>, Failure> {
    let stored = readers.read(|read| {
        let Some(row) = DocumentRow::find(read, id.as_bytes())? else { return Ok(None) };
        let graph = read::graph(read, id, None)?;
        let snapshot = if row.snapshot_changes > 0 { Some(read::snapshot_bytes(read, id, row.key)?) } else { None };
        Ok(graph.map(|graph| (row, graph, snapshot)))
    })?;
    let Some((row, mut stored, snapshot)) = stored else { return Ok(None) };
    if !options.is_ripe(&row) {
        return Ok(None);
    }
    let damaged = |kind, reason: &str| Failure::Refused { changes: row.changes, kind, reason: reason.to_owned() };
    if !record::stamps_rise(&stored.tail) {
        return Err(damaged("stamps", "its stamps do not rise: the file is damaged"));
    }
    let kept = options.kept_raw(&stored.tail);
    let covered_in_tail = stored.tail.len() - kept;
    if covered_in_tail == 0 {
        return Ok(None);
    }
    stored.tail.truncate(covered_in_tail);
    let covered = row.snapshot_changes + covered_in_tail as u32;
    let changes = stored.tail.iter().map(|change| &change.bytes[..]).collect();
    let merged = options.loader.merge(&Old { snapshot: snapshot.as_deref(), changes, count: covered });
    let Merged { snapshot, heads } = merged.map_err(|error| Failure::of_load(row.changes, error))?;
    stored.summary = Summary { heads, changes: covered, ..stored.summary };
    let index = encode_index(&stored, row.snapshot_changes, covered).map_err(|reason| damaged("index", reason))?;
    let mut stamps = Vec::new();
    record::write_stamps(stored.tail.iter().map(|change| change.stamp), &mut stamps);
    Ok(Some(Compaction {
        key: row.key,
        covered_before: row.snapshot_changes,
        covered,
        covered_bytes: stored.tail.iter().map(|change| change.bytes.len() as u64).sum(),
        cover: Cover { snapshot, index: Bytes::from(index), stamps: Bytes::from(stamps) },
    }))
}

fn hand_in(mut submit: impl FnMut(Job), compaction: Compaction) -> Result<Option<u32>, StoreError> {
    let covered = compaction.covered;
    let (reply, answer) = sync_channel(1);
    submit(Job::Install(Box::new(compaction), reply));
    // A writer that ends drops the job, and with it the sender.
    let installed = answer.recv().map_err(|_| StoreError::Closed)??;
    Ok(installed.then_some(covered))
}

/// The node records of the changes that the new snapshot covers beyond the old one.
fn encode_index(stored: &StoredGraph, from: u32, to: u32) -> Result<Vec<u8>, &'static str> {
    let graph = load_graph(stored).map_err(|_| "its change graph does not load")?;
    let piece = graph.encode_index(from, to);
    // Read back what will be all that is left of these nodes.
    let mut index = stored.index.clone();
    index.push(Bytes::from(piece.clone()));
    let summary = Summary { snapshot_changes: to, ..stored.summary.clone() };
    let again =
        load_graph(&StoredGraph { summary, index, tail: Vec::new() }).map_err(|_| "its new index does not load")?;
    let same = (0..to).all(|node| again.hash(node) == graph.hash(node) && again.deps(node) == graph.deps(node));
    if same { Ok(piece) } else { Err("its new index differs from its graph") }
}

/// The change graph of a document, under a hash key that nobody outside knows.
pub(crate) fn load_graph(stored: &StoredGraph) -> Result<Graph, syncline_core::graph::GraphError> {
    Graph::from_stored(stored, hash_key())
}

/// A key for the hash table of one graph.
pub(crate) fn hash_key() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// The hash of a raw change chunk, unless it is damaged.
pub(crate) fn hash_of(bytes: &Bytes) -> Option<ChangeHash> {
    Change::decode_stored(bytes.clone()).ok().map(|change| change.hash)
}

/// Fills in the raw bytes of wanted changes that lie in a snapshot.
pub(crate) fn extract(
    loader: &dyn Loader,
    (id, snapshot): (&DocumentId, &[u8]),
    wanted: &mut HashMap<ChangeHash, Option<Bytes>>,
) -> Result<(), StoreError> {
    let missing: Vec<ChangeHash> = wanted.iter().filter(|(_, bytes)| bytes.is_none()).map(|(hash, _)| *hash).collect();
    let found = loader.changes(snapshot, &missing);
    let found = found.map_err(|source| StoreError::NotLoaded { document: id.clone(), source })?;
    for bytes in found {
        if let Some(slot @ None) = hash_of(&bytes).and_then(|hash| wanted.get_mut(&hash)) {
            *slot = Some(bytes);
        }
    }
    Ok(())
}

/// Every change in a snapshot as a raw chunk. For those who look at a store that nobody serves: built in this process.
pub(crate) fn list(snapshot: &[u8]) -> Result<HashMap<ChangeHash, Bytes>, LoadError> {
    let changes = InProcess.changes(snapshot, &[])?;
    Ok(changes.into_iter().filter_map(|bytes| Some((hash_of(&bytes)?, bytes))).collect())
}

//! The verification of a whole file: every hash, every dependency, every count, against each other.
//!
//! Owns: what is a fault and how it is reported. Must not: write, repair, or stop at the first fault.
//! Next: `schema.rs`; docs/store.md, "Check".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;
use syncline_core::ChangeHash;
use syncline_core::authored::Authored;
use syncline_core::blob::BlobHash;
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::graph::Graph;
use syncline_core::id::DocumentId;
use syncline_core::storage::{StoredChange, StoredGraph, Summary};

use crate::blob;
use crate::compact;
use crate::cover::Cover;
use crate::error::StoreError;
use crate::ground::{Ground, System};
use crate::life;
use crate::read;
use crate::record::{self, Content, LogRow};
use crate::reindex;
use crate::schema::{self, DocumentKey, DocumentRow, LOG_SEQ_MAX, change_at, document_at};
use crate::store::selection;
use crate::subject;

/// Faults after which no more are listed; they are still counted.
const FAULTS_LISTED_MAX: usize = 1000;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Documents in the file.
    pub documents: u64,
    /// Changes in them.
    pub changes: u64,
    /// Bytes of these as raw chunks.
    pub bytes: u64,
    /// Blobs, partial ones included.
    pub blobs: u64,
    /// Bytes of them that are stored.
    pub blob_bytes: u64,
    /// Number of faults.
    pub faults: u64,
    /// The first thousand of them.
    pub listed: Vec<Fault>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults == 0
    }

    pub(crate) fn add(&mut self, document: Option<&DocumentId>, kind: FaultKind) {
        self.faults += 1;
        if self.listed.len() < FAULTS_LISTED_MAX {
            self.listed.push(Fault { document: document.cloned(), kind });
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The document concerned, unless it is the file itself.
    pub document: Option<DocumentId>,
    /// What is wrong.
    pub kind: FaultKind,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.document {
            Some(document) => write!(f, "document {document}: {}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

/// The kinds of faults. None of them is repaired; a document with one is best fetched again from another replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// SQLite's own integrity check complains. **State:** the file's structure is damaged. **Do:** restore a backup.
    #[error("SQLite: {0}")]
    Structure(String),
    /// A record cannot be decoded. **State:** its changes cannot be read. **Do:** fetch the document again.
    #[error("{0} cannot be decoded")]
    Undecodable(&'static str),
    /// A start found a row of the log that cannot be used, and put this document's rows beside it. **State:** the
    /// document is not served; the others are. **Do:** fetch the document again into another store.
    #[error("{rows} rows of the log are set aside because one of them is damaged")]
    SetAside {
        /// How many.
        rows: u64,
    },
    /// A raw change is not what its hash and checksum say. **State:** peers refuse it. **Do:** fetch the document again.
    #[error("change {number} is damaged")]
    DamagedChange {
        /// Its number in the document's journal.
        number: u32,
    },
    /// A change comes before one that it depends on, or that one is not there. **State:** the document has a hole.
    /// **Do:** fetch the document again.
    #[error("change {change} depends on {dependency}, which is not before it")]
    MissingDependency {
        /// The change.
        change: ChangeHash,
        /// What it needs.
        dependency: ChangeHash,
    },
    /// The same change is there twice. **State:** nothing is lost. **Do:** report it.
    #[error("change {0} is stored twice")]
    Repeated(ChangeHash),
    /// The stored heads are not those of the changes. **State:** the changes are there. **Do:** fetch the document again.
    #[error("the stored heads are not those of its changes")]
    WrongHeads,
    /// A stored number differs from what was counted. **State:** changes are missing or the number is wrong. **Do:** fetch the document again.
    #[error("{what} is stored as {stored} but is {found}")]
    WrongCount {
        /// Which number.
        what: &'static str,
        /// As stored.
        stored: u64,
        /// As counted.
        found: u64,
    },
    /// The snapshot is missing or automerge does not accept it. **State:** the changes under it cannot be read.
    /// **Do:** fetch the document again.
    #[error("snapshot: {0}")]
    BadSnapshot(String),
    /// The index and the snapshot disagree. **State:** the snapshot is right if it loads. **Do:** fetch the document again.
    #[error("index: {0}")]
    BadIndex(&'static str),
    /// Stamps do not rise along the journal. **State:** the changes are there; a feed by stamp may skip some. **Do:** report it.
    #[error("the stamp of change {number} is not above the one before it")]
    StampOrder {
        /// The number of the change in the document's journal.
        number: u32,
    },
    /// Pieces that belong to no document. **State:** nothing refers to them. **Do:** report it.
    #[error("{0} holds pieces of a document or blob that does not exist")]
    Stray(&'static str),
    /// A blob is not what was stored. **State:** it is not served from the damage on. **Do:** fetch or push it again.
    #[error("blob {hash}: {what}")]
    BadBlob {
        /// The blob.
        hash: BlobHash,
        /// What is wrong.
        what: &'static str,
    },
}

/// Verifies the store in this directory, whether it is open elsewhere or not, and changes nothing.
///
/// Takes time and memory in proportion to the largest document and to the log.
///
/// # Errors
/// [`StoreError::NotAStore`], [`StoreError::NewerFormat`], [`StoreError::Io`] and [`StoreError::Corrupt`] when the file
/// cannot be read at all. What is wrong inside is in the report instead.
pub fn check(directory: &Path) -> Result<CheckReport, StoreError> {
    check_on(directory, Arc::new(System))
}

/// [`check()`], of a store that stands on something else than the system.
///
/// # Errors
/// As [`check()`].
pub fn check_on(directory: &Path, ground: Arc<dyn Ground>) -> Result<CheckReport, StoreError> {
    let found = schema::open_for_check(directory, ground)?;
    let columns = if found.has_authored { DocumentRow::COLUMNS } else { DocumentRow::OLD_COLUMNS };
    let format = (found.old_index, found.has_authored);
    let read = found.connection.unchecked_transaction()?;
    let mut report = CheckReport::default();
    check_structure(&read, &mut report)?;
    let strange = found.strange_tables()?;
    strange.iter().for_each(|name| report.add(None, FaultKind::Structure(format!("{name} is not as it was made"))));
    if !strange.is_empty() {
        // What else is asked may need what has another name now.
        return Ok(report);
    }
    let mut log = read_log(&read, found.log, &mut report)?;
    let mut keys = if found.has_life { check_life(&read, found.proves_life, &mut report)? } else { BTreeSet::new() };
    let damaged = if found.has_selection { selection::damaged(&read)? } else { Vec::new() };
    damaged.iter().for_each(|id| report.add(id.as_ref(), FaultKind::Undecodable("what is wanted of a document")));
    let mut after = None;
    loop {
        let page = read::documents_after(&read, after.as_ref(), 256, (columns, true))?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (id, row) in page {
            keys.insert(row.key);
            let rows = log.remove(&id).unwrap_or_default();
            Examination::new(&id, format, &mut report).document(&read, Some(&row), &rows)?;
        }
    }
    for (id, rows) in log {
        Examination::new(&id, format, &mut report).document(&read, None, &rows)?;
    }
    check_log_numbers(&read, &mut report)?;
    check_strays(&read, &keys, &mut report)?;
    check_identity(&read, &mut report)?;
    if found.has_blobs {
        blob::check::check_blobs(&read, &mut report)?;
    }
    if found.has_subjects {
        check_subjects(&read, &mut report)?;
    }
    Ok(report)
}

/// Rows that a start sets aside for their number.
fn check_log_numbers(read: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let mut statement = read.prepare("SELECT document FROM log WHERE seq > ?1")?;
    let documents = statement.query_map([LOG_SEQ_MAX], |row| row.get::<_, Vec<u8>>(0))?;
    for document in documents {
        let id = DocumentId::from_bytes(&document?).ok();
        report.add(id.as_ref(), FaultKind::Undecodable("the number of a row of the log"));
    }
    Ok(())
}

/// Records of deletions, and the keys of documents of which only pieces are left, to be removed.
fn check_life(read: &Connection, proved: bool, report: &mut CheckReport) -> Result<BTreeSet<DocumentKey>, StoreError> {
    for id in if proved { life::damaged(read)? } else { Vec::new() } {
        report.add(id.as_ref(), FaultKind::Undecodable("a life record"));
    }
    if life::floors(read)?.is_none() {
        report.add(None, FaultKind::Undecodable("which rows of the log count"));
    }
    let (keys, damaged) = life::purging(read)?;
    if damaged {
        report.add(None, FaultKind::Undecodable("which documents are being removed"));
    }
    Ok(keys.into_iter().collect())
}

/// Whose actors are, and who has stored how much.
fn check_subjects(read: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let (owners, shares) = subject::damaged(read)?;
    (0..owners).for_each(|_| report.add(None, FaultKind::Undecodable("whose an actor is")));
    (0..shares).for_each(|_| report.add(None, FaultKind::Undecodable("how much a subject has stored")));
    Ok(())
}

/// What the file says of itself: nothing opens it without.
fn check_identity(read: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let found = [
        ("the replica id", schema::replica_id(read).map(drop)),
        ("the highest stamp", schema::highest_stamp(read).map(drop)),
    ];
    for (what, read) in found {
        match read {
            Ok(()) => {}
            Err(StoreError::Corrupt { .. }) => report.add(None, FaultKind::Undecodable(what)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn check_structure(read: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let mut statement = read.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    for line in lines {
        let line = line?;
        if line != "ok" {
            report.add(None, FaultKind::Structure(line));
        }
    }
    Ok(())
}

/// The rows of the log by document; those that were set aside are counted, not examined.
fn read_log(
    read: &Connection,
    sql: &str,
    report: &mut CheckReport,
) -> Result<BTreeMap<DocumentId, Vec<LogRow>>, StoreError> {
    let mut log: BTreeMap<DocumentId, Vec<LogRow>> = BTreeMap::new();
    let mut aside: BTreeMap<Option<DocumentId>, u64> = BTreeMap::new();
    let mut statement = read.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = DocumentId::from_bytes(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?).ok();
        let data = Bytes::copy_from_slice(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?);
        if row.get(3)? {
            *aside.entry(id).or_default() += 1;
            continue;
        }
        match (id, LogRow::decode(row.get(1)?, &data)) {
            (Some(id), Some(row)) => log.entry(id).or_default().push(row),
            (id, _) => report.add(id.as_ref(), FaultKind::Undecodable("a row of the log")),
        }
    }
    for (id, rows) in aside {
        report.add(id.as_ref(), FaultKind::SetAside { rows });
    }
    Ok(log)
}

fn check_strays(read: &Connection, keys: &BTreeSet<DocumentKey>, report: &mut CheckReport) -> Result<(), StoreError> {
    for (table, column) in [("tail", "place"), ("node_index", "place"), ("snapshot", "document")] {
        let mut statement = read.prepare(&format!("SELECT {column} FROM {table}"))?;
        let places = statement.query_map([], |row| row.get::<_, i64>(0))?;
        for place in places {
            let place = place?;
            let key = if column == "place" { document_at(place) } else { DocumentKey(place) };
            if !keys.contains(&key) {
                report.add(None, FaultKind::Stray(table));
            }
        }
    }
    Ok(())
}

/// The examination of one document.
struct Examination<'a> {
    id: &'a DocumentId,
    old_index: bool,
    /// The file knows when documents were written to.
    has_authored: bool,
    report: &'a mut CheckReport,
    known: BTreeSet<ChangeHash>,
    /// Dependencies of the changes under the snapshot.
    depended: BTreeSet<ChangeHash>,
    heads: BTreeSet<ChangeHash>,
    changes: u32,
    bytes: u64,
    last_stamp: Stamp,
    /// The latest time of the changes.
    authored: Authored,
}

impl<'a> Examination<'a> {
    fn new(id: &'a DocumentId, (old_index, has_authored): (bool, bool), report: &'a mut CheckReport) -> Self {
        let (known, depended, heads) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (last_stamp, authored) = (Stamp::ZERO, Authored::NEVER);
        Self { id, old_index, has_authored, report, known, depended, heads, changes: 0, bytes: 0, last_stamp, authored }
    }

    fn document(&mut self, read: &Connection, row: Option<&DocumentRow>, log: &[LogRow]) -> Result<(), StoreError> {
        if let Some(row) = row {
            self.covered(read, row)?;
            self.tail(read, row)?;
            self.compare(row);
        }
        for row in log {
            // Rows of an interrupted fold are in the tail already.
            if row.after() <= self.changes {
                continue;
            }
            if row.before != self.changes {
                self.count(
                    "the number of changes before a row of the log",
                    u64::from(row.before),
                    u64::from(self.changes),
                );
            }
            match &row.content {
                Content::Batch(batch) => self.batch(batch, "a row of the log"),
                Content::Whole(cover) => self.whole(row, cover),
            }
            self.compare_heads(&row.heads);
        }
        self.report.documents += 1;
        self.report.changes += u64::from(self.changes);
        self.report.bytes += self.bytes;
        Ok(())
    }

    /// The snapshot, the index over it and the stamps beside it.
    fn covered(&mut self, read: &Connection, row: &DocumentRow) -> Result<(), StoreError> {
        self.folded_stamps(read, row)?;
        if row.snapshot_changes == 0 {
            return Ok(());
        }
        let snapshot = match read::snapshot_bytes(read, self.id, row.key) {
            Ok(bytes) => bytes,
            Err(StoreError::Damaged { .. }) => {
                self.fault(FaultKind::BadSnapshot("it is missing".to_owned()));
                Bytes::new()
            }
            Err(error) => return Err(error),
        };
        self.count("the size of the snapshot", row.snapshot_bytes, snapshot.len() as u64);
        self.snapshot(&snapshot, read::index_pieces(read, row.key)?, row.snapshot_changes);
        Ok(())
    }

    /// A chunk that is still in the log. Its row was decoded, so its stamps were too, and are as many as its changes.
    fn whole(&mut self, row: &LogRow, cover: &Cover) {
        let before = self.bytes;
        self.stamps(&record::decode_stamps(&cover.stamps).unwrap_or_default());
        self.snapshot(&cover.snapshot, vec![cover.index.clone()], row.changes);
        self.count("the size of the changes in a row of the log", row.bytes, self.bytes - before);
    }

    /// A chunk of the document's first changes, with the index over it.
    fn snapshot(&mut self, snapshot: &[u8], index: Vec<Bytes>, covered: u32) {
        match compact::list(snapshot) {
            Ok(changes) => {
                self.count("the number of changes in the snapshot", u64::from(covered), changes.len() as u64);
                self.bytes += changes.values().map(|bytes| bytes.len() as u64).sum::<u64>();
                self.index(covered, index, &changes);
            }
            Err(what) => self.fault(FaultKind::BadSnapshot(what.to_string())),
        }
        self.changes = covered;
    }

    /// The index says in which order the snapshot's changes were committed; made again from them, it must be the same.
    fn index(&mut self, covered: u32, index: Vec<Bytes>, changes: &HashMap<ChangeHash, Bytes>) {
        changes.values().for_each(|bytes| self.enter_snapshot_change(bytes));
        let heads: Vec<ChangeHash> = self.heads.iter().copied().collect();
        // Of an older format's records only the order counts: the rest is made from the changes when the file is opened.
        let index = if self.old_index { reindex::rewritten(&index, changes) } else { Some(index) };
        let Some(index) = index else { return self.fault(FaultKind::BadIndex("it does not load")) };
        let stored = index.concat();
        let graph = load_graph(heads.clone(), covered, index, Vec::new());
        let Some(graph) = graph else { return self.fault(FaultKind::BadIndex("it does not load")) };
        let order = (0..graph.len()).map(|node| changes.get(&graph.hash(node)).cloned());
        let Some(ordered) = order.collect::<Option<Vec<Bytes>>>() else {
            return self.fault(FaultKind::BadIndex("it names a change that the snapshot does not hold"));
        };
        let again = load_graph(heads, 0, Vec::new(), ordered);
        if again.is_none_or(|graph| graph.encode_index(0, covered) != stored) {
            self.fault(FaultKind::BadIndex("it is not the index of the snapshot's changes"));
        }
    }

    fn enter_snapshot_change(&mut self, bytes: &Bytes) {
        match Change::decode_stored(bytes.clone()) {
            Ok(change) => {
                self.authored = self.authored.max(Authored::at(change.time));
                self.heads.retain(|head| !change.deps.contains(head));
                // Order within a snapshot is automerge's; only the sum of it counts here.
                if !self.depended.contains(&change.hash) {
                    self.heads.insert(change.hash);
                }
                self.depended.extend(change.deps.iter().copied());
                self.known.insert(change.hash);
            }
            Err(_) => self.fault(FaultKind::BadSnapshot("a change in it does not decode".to_owned())),
        }
    }

    /// The stamps of the changes under the snapshot.
    fn folded_stamps(&mut self, read: &Connection, row: &DocumentRow) -> Result<(), StoreError> {
        const SQL: &str = "SELECT stamps FROM node_index WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
        let mut statement = read.prepare_cached(SQL)?;
        let pieces = statement.query_map((row.key.place(0), row.key.last_place()), |row| row.get::<_, Vec<u8>>(0))?;
        let mut stamps = Vec::new();
        for piece in pieces {
            match record::decode_stamps(&piece?) {
                Some(piece) => stamps.extend(piece),
                None => self.fault(FaultKind::Undecodable("the stamps under the snapshot")),
            }
        }
        self.count("the number of changes with a stamp", u64::from(row.snapshot_changes), stamps.len() as u64);
        self.stamps(&stamps);
        Ok(())
    }

    fn stamps(&mut self, stamps: &[Stamp]) {
        stamps.iter().enumerate().for_each(|(number, stamp)| self.stamp(number as u32, *stamp));
    }

    fn tail(&mut self, read: &Connection, row: &DocumentRow) -> Result<(), StoreError> {
        let before = self.bytes;
        let mut statement =
            read.prepare_cached("SELECT place, data FROM tail WHERE place BETWEEN ?1 AND ?2 ORDER BY place")?;
        let mut pieces = statement.query((row.key.place(0), row.key.last_place()))?;
        while let Some(piece) = pieces.next()? {
            let first = change_at(piece.get(0)?);
            let data = Bytes::copy_from_slice(piece.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
            if first != self.changes {
                self.count("the number of the first change of a tail piece", u64::from(first), u64::from(self.changes));
            }
            self.batch(&data, "a piece of the tail");
        }
        self.count("the size of the tail", row.tail_bytes, self.bytes - before);
        Ok(())
    }

    fn compare(&mut self, row: &DocumentRow) {
        self.count("the number of changes", u64::from(row.changes), u64::from(self.changes));
        self.count("the number of bytes", row.bytes, self.bytes);
        self.count("the last stamp", row.last_stamp.as_u64(), self.last_stamp.as_u64());
        if self.has_authored {
            self.count("the latest time", row.authored.seconds().into(), self.authored.seconds().into());
        }
        self.compare_heads(&row.heads);
        // What the row says is what the log continues.
        self.changes = row.changes;
    }

    fn compare_heads(&mut self, stored: &[ChangeHash]) {
        if !self.heads.iter().eq(stored) {
            self.fault(FaultKind::WrongHeads);
        }
    }

    fn batch(&mut self, data: &Bytes, what: &'static str) {
        let mut changes = Vec::new();
        if record::decode_batches(data, &mut changes).is_none() {
            self.fault(FaultKind::Undecodable(what));
        }
        for stored in changes {
            let number = self.changes;
            self.changes += 1;
            self.bytes += stored.bytes.len() as u64;
            self.stamp(number, stored.stamp);
            match Change::decode_stored(stored.bytes) {
                Ok(change) => self.change(&change),
                Err(_) => self.fault(FaultKind::DamagedChange { number }),
            }
        }
    }

    fn change(&mut self, change: &Change) {
        self.authored = self.authored.max(Authored::at(change.time));
        for &dependency in &change.deps {
            self.heads.remove(&dependency);
            if !self.known.contains(&dependency) {
                self.fault(FaultKind::MissingDependency { change: change.hash, dependency });
            }
        }
        if !self.known.insert(change.hash) {
            self.fault(FaultKind::Repeated(change.hash));
        }
        self.heads.insert(change.hash);
    }

    fn stamp(&mut self, number: u32, stamp: Stamp) {
        if stamp <= self.last_stamp {
            self.fault(FaultKind::StampOrder { number });
        }
        self.last_stamp = stamp;
    }

    fn count(&mut self, what: &'static str, stored: u64, found: u64) {
        if stored != found {
            self.fault(FaultKind::WrongCount { what, stored, found });
        }
    }

    fn fault(&mut self, kind: FaultKind) {
        self.report.add(Some(self.id), kind);
    }
}

/// The graph of nodes in an index or of raw changes, if it loads and has these heads.
fn load_graph(heads: Vec<ChangeHash>, covered: u32, index: Vec<Bytes>, raw: Vec<Bytes>) -> Option<Graph> {
    let summary = Summary {
        heads,
        changes: covered + raw.len() as u32,
        bytes: 0,
        last_stamp: Stamp::ZERO,
        authored: Authored::NEVER,
        snapshot_changes: covered,
        snapshot_bytes: 0,
    };
    let tail = raw.into_iter().map(|bytes| StoredChange { stamp: Stamp::ZERO, bytes }).collect();
    compact::load_graph(&StoredGraph { summary, index, tail }).ok()
}

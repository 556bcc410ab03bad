//! A store's file with arbitrary damage: opened or refused, told by the check, and never wrong in silence.
//!
//! Owns: two healthy files, the kinds of damage. Must not: damage a file that is open. Next: docs/store.md "Failures".

use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use rusqlite::{Connection, params};
use syncline_core::ChangeHash;
use syncline_core::graph::Graph;
use syncline_core::id::DocumentId;
use syncline_core::storage::Commit;
use syncline_store::{Options, Store, StoreError, check};

use crate::pool::pool;
use crate::script::Script;

/// Which file, whether its bytes or its rows are damaged, and how.
pub fn store(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = script.byte();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("syncline.db");
    let mut bytes = template(kind & 1 == 0).clone();
    let mut untold = false;
    if kind & 2 == 0 {
        damage_bytes(&mut bytes, &mut script);
        std::fs::write(&file, bytes).expect("a temporary directory");
    } else {
        std::fs::write(&file, bytes).expect("a temporary directory");
        untold = damage_rows(&file, &mut script);
    }
    check_opens(directory.path(), untold);
}

const DOCUMENTS: [u8; 3] = [1, 2, 3];

/// A file in which all is folded and the first document compacted, or one in which everything is still in the log.
fn template(folded: bool) -> &'static Vec<u8> {
    static FILES: [OnceLock<Vec<u8>>; 2] = [OnceLock::new(), OnceLock::new()];
    FILES[usize::from(folded)].get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(directory.path(), options()).expect("a new store");
        fill(&store);
        if folded {
            store.close().expect("a healthy disk");
        }
        store.settle();
        drop(store);
        // What is in the write-ahead log moves into the file, so that one file is all there is.
        let connection = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a healthy disk");
        drop(connection);
        assert!(check(directory.path()).is_ok_and(|report| report.is_clean() && report.documents == 3));
        std::fs::read(directory.path().join("syncline.db")).expect("a file")
    })
}

fn options() -> Options {
    Options {
        fold_idle: Duration::from_secs(3600),
        fold_rows: usize::MAX,
        compact_changes: 8,
        keep_changes: 4,
        durable: false,
        ..Options::default()
    }
}

/// Two documents in raw changes, one of them long enough to be compacted, and one that comes as a chunk.
fn fill(store: &Store) {
    let honest = pool().honest;
    for (document, pieces) in [(1, vec![10, 20, honest]), (2, vec![1, 3])] {
        let mut before = 0;
        for until in pieces {
            commit(store, commit_of(document, before, until)).expect("a healthy disk");
            before = until;
        }
    }
    let whole = Commit { snapshot: Some(pool().saved(honest).into()), ..commit_of(3, 0, honest) };
    commit(store, whole).expect("a healthy disk");
}

fn commit_of(document: u8, before: usize, until: usize) -> Commit {
    let changes = pool().changes[before..until].iter().map(|change| change.bytes.clone()).collect();
    Commit {
        document: id(document),
        changes,
        heads: heads_at(until),
        changes_before: before as u32,
        snapshot: None,
        contributions: Vec::new(),
    }
}

fn heads_at(length: usize) -> Vec<ChangeHash> {
    let mut graph = Graph::new(7);
    for change in &pool().changes[..length] {
        graph.push(change).expect("in causal order");
    }
    graph.pending_heads()
}

fn id(document: u8) -> DocumentId {
    DocumentId::from_bytes(&[document; 16]).expect("16 bytes")
}

/// Commits and waits for the answer.
fn commit(store: &Store, commit: Commit) -> Result<(), StoreError> {
    let (tell, told) = channel();
    store.commit(vec![commit], Box::new(move |result| drop(tell.send(result))));
    told.recv().expect("every commit is answered")
}

fn damage_bytes(bytes: &mut Vec<u8>, script: &mut Script<'_>) {
    if script.byte() & 1 == 1 {
        bytes.truncate(script.below(bytes.len()));
    }
    while !script.is_empty() && !bytes.is_empty() {
        let at = script.number(3) as usize % bytes.len();
        bytes[at] ^= script.byte();
    }
}

/// Columns whose bytes only this crate's code reads.
const PLACES: [(&str, &str); 8] = [
    ("log", "data"),
    ("tail", "data"),
    ("snapshot", "data"),
    ("node_index", "data"),
    ("node_index", "stamps"),
    ("document", "heads"),
    ("document", "id"),
    ("meta", "value"),
];

const STATEMENTS: [&str; 13] = [
    "UPDATE log SET kind = kind + ?1 WHERE seq = (SELECT min(seq) + ?1 FROM log)",
    "DELETE FROM log WHERE seq = (SELECT min(seq) + ?1 FROM log)",
    "UPDATE log SET seq = seq + 1000 WHERE seq = (SELECT min(seq) + ?1 FROM log)",
    "UPDATE document SET changes = changes + ?1",
    "UPDATE document SET snapshot_changes = snapshot_changes + ?1",
    "UPDATE document SET key = key + 1 + ?1 WHERE key = 1",
    "UPDATE tail SET place = place + ?1 WHERE place = (SELECT min(place) FROM tail)",
    "UPDATE document SET last_stamp = last_stamp - ?1",
    "DELETE FROM snapshot WHERE document = ?1",
    "UPDATE node_index SET place = place + ?1 WHERE place = (SELECT max(place) FROM node_index)",
    "UPDATE log SET seq = 9223372036854775807 - ?1 WHERE seq = (SELECT max(seq) FROM log)",
    "UPDATE document SET key = 9223372036854775807 - ?1 WHERE key = 2",
    "UPDATE document SET bytes = 9223372036854775807 - ?1, tail_bytes = 9223372036854775807 - ?1",
];

/// Whether there is damage that no check can tell: a document's name is covered by no hash, only by SQLite's index of it,
/// which is led along here; and without the last row of a document in the log, a shorter history is left that is whole.
fn damage_rows(file: &Path, script: &mut Script<'_>) -> bool {
    let mut untold = false;
    let connection = Connection::open(file).expect("a healthy file");
    while !script.is_empty() {
        let choice = script.below(PLACES.len() + STATEMENTS.len());
        let number = script.byte();
        // Damage that the tables' own constraints refuse is no damage.
        if let Some(statement) = choice.checked_sub(PLACES.len()).map(|choice| STATEMENTS[choice]) {
            untold |= statement.starts_with("DELETE FROM log");
            let _ = connection.execute(statement, [number]);
            continue;
        }
        let (table, column) = PLACES[choice];
        untold |= column == "id";
        let name = if matches!(table, "meta") { "name" } else { "rowid" };
        let select = format!("SELECT {name}, {column} FROM {table} ORDER BY {name} LIMIT 1 OFFSET ?1");
        let row = connection.query_row(&select, [number % 4], |row| {
            Ok((row.get::<_, rusqlite::types::Value>(0)?, row.get::<_, Vec<u8>>(1)?))
        });
        let Ok((row, mut bytes)) = row else { continue };
        let at = script.below(bytes.len() + 1);
        let removed = script.below(32).min(bytes.len() - at);
        let inserted = script.byte() % 32;
        let inserted = script.take(inserted.into()).to_vec();
        bytes.splice(at..at + removed, inserted);
        let _ = connection.execute(&format!("UPDATE {table} SET {column} = ?2 WHERE {name} = ?1"), params![row, bytes]);
    }
    untold
}

/// Opens what can be opened and reads all of it; what the check calls clean must be what was stored.
fn check_opens(directory: &Path, untold: bool) {
    let report = check(directory);
    let clean = !untold && report.is_ok_and(|report| report.is_clean() && report.documents == 3);
    let store = match Store::open(directory, options()) {
        Ok(store) => store,
        Err(error) => {
            assert!(!clean, "clean, but not opened: {error}");
            assert!(!matches!(error, StoreError::Closed | StoreError::InUse { .. }), "{error}");
            return;
        }
    };
    let listed = store.documents(None, 100);
    assert!(!clean || listed.is_ok_and(|listed| listed.len() == DOCUMENTS.len()));
    for document in DOCUMENTS {
        read_all(&store, document, clean);
    }
    let new = commit_of(9, 0, 2);
    match commit(&store, new) {
        Ok(()) => assert_eq!(heads(&store, 9), Some(heads_at(2)), "what was acknowledged is there"),
        Err(error) => assert!(!clean && !matches!(error, StoreError::Closed), "the writer is gone: {error}"),
    }
    store.settle();
    match store.close() {
        Ok(()) => {}
        Err(error) => assert!(!clean && !matches!(error, StoreError::Closed), "the writer is gone: {error}"),
    }
    drop(store);
    assert!(!clean || check(directory).is_ok_and(|report| report.is_clean()), "clean before, not after");
}

fn heads(store: &Store, document: u8) -> Option<Vec<ChangeHash>> {
    store.summary(&id(document)).ok().flatten().map(|summary| summary.heads)
}

/// Every read is answered or says what is damaged. Where the check found nothing, nothing is lost.
fn read_all(store: &Store, document: u8, clean: bool) {
    let id = id(document);
    let expected = if document == 2 { 3 } else { pool().honest };
    let summary = store.summary(&id);
    let graph = store.graph(&id);
    let payload = store.payload(&id);
    let hashes: Vec<_> = pool().changes[..expected].iter().map(|change| change.hash).collect();
    let changes = store.changes(&id, &hashes);
    if let Ok(Some(stored)) = &graph {
        let loaded = Graph::from_stored(stored, 7);
        assert!(!clean || loaded.is_ok_and(|graph| graph.heads() == heads_at(expected)));
    }
    if let Ok(Some(payload)) = &payload {
        let chunks = payload.snapshot.iter().chain(payload.tail.iter().map(|change| &change.bytes));
        let bytes: Vec<u8> = chunks.flat_map(|bytes| bytes.to_vec()).collect();
        if clean {
            let document = automerge::Automerge::load(&bytes).expect("clean");
            assert_eq!(document.get_heads(), heads_at(expected));
        }
    }
    if clean {
        let summary = summary.expect("clean").expect("it exists");
        assert_eq!((summary.changes as usize, summary.heads), (expected, heads_at(expected)));
        let expected: Vec<_> = pool().changes[..expected].iter().map(|change| change.bytes.clone()).collect();
        assert_eq!(changes.expect("clean"), expected);
        assert!(graph.is_ok() && payload.is_ok());
    }
}

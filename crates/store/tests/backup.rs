//! Copies of a store while it is written, and what becomes of them.
//!
//! Owns: what a copy holds, what is never overwritten, the room that is given back. Must not: damage a store in use.
//! Next: `round_trip.rs`.

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use support::{Model, commit, eager, open};
use syncline_store::backup::{backup, restore, vacuum};
use syncline_store::{Options, StoreError, check, stats};

/// A store with one document of many changes, some of them only in the log.
fn filled(directory: &std::path::Path, changes: usize) -> (syncline_store::Store, Model) {
    let store = open(directory, eager());
    let mut model = Model::new(1, 2);
    for _ in 0..changes {
        model.edit(0, 400);
        commit(&store, vec![model.commit(1)]).expect("stored");
    }
    (store, model)
}

#[test]
fn a_copy_made_under_load_has_all_that_was_durable_when_it_began() {
    let (home, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (store, mut model) = filled(home.path(), 200);
    let durable = model.journal.len();
    let done = AtomicBool::new(false);
    let file = other.path().join("copy.db");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                model.edit(1, 4_000);
                commit(&store, vec![model.commit(1)]).expect("stored");
            }
        });
        backup(home.path(), &file, |_| {}).expect("a copy");
        done.store(true, Ordering::Relaxed);
        writing.join().expect("no panic");
    });
    let restored = other.path().join("restored");
    let report = restore(&file, &restored, |_| {}).expect("a store");
    assert!(report.is_clean());
    let copy = open(&restored, eager());
    let changes = copy.summary(&model.id).expect("readable").expect("there").changes as usize;
    assert!((durable..=model.journal.len()).contains(&changes), "{changes} of {durable} and more");
    let hashes: Vec<_> = model.journal[..durable].iter().map(|(hash, _)| *hash).collect();
    let bytes: Vec<_> = model.journal[..durable].iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(copy.changes(&model.id, &hashes).expect("readable"), bytes);
    assert_eq!(copy.stamps(&model.id).expect("readable").len(), changes);
    store.close().expect("closed");
    assert_eq!(store.replica_id(), copy.replica_id(), "it is the same replica");
}

#[test]
fn nothing_is_overwritten_and_no_broken_file_is_restored() {
    let (home, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (store, _) = filled(home.path(), 3);
    let file = other.path().join("copy.db");
    backup(home.path(), &file, |_| {}).expect("a copy");
    assert!(matches!(backup(home.path(), &file, |_| {}), Err(StoreError::Io { .. })), "the copy is there already");
    assert!(matches!(restore(&file, home.path(), |_| {}), Err(StoreError::Io { .. })), "a store is there already");

    // A bit of every change's bytes flips on the backup's disk: some may lie in rows that were removed.
    let mut bytes = fs::read(&file).expect("readable");
    let chunks = bytes.windows(4).enumerate().filter(|(_, four)| *four == [0x85, 0x6f, 0x4a, 0x83]);
    let places: Vec<usize> = chunks.map(|(at, _)| at + 40).collect();
    assert!(!places.is_empty(), "there are changes");
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    fs::write(&file, &bytes).expect("writable");
    let target = other.path().join("restored");
    assert!(matches!(restore(&file, &target, |_| {}), Err(StoreError::FaultyCopy { .. })));
    assert_eq!(fs::read_dir(&target).expect("a directory").count(), 0, "nothing of it is left");
    fs::write(&file, b"no database").expect("writable");
    assert!(matches!(restore(&file, &target, |_| {}), Err(StoreError::NotAStore { .. })));
    assert!(store.close().is_ok() && check(home.path()).expect("readable").is_clean());
}

#[test]
fn a_store_is_counted_while_in_use_and_shrinks_when_it_is_not() {
    let home = tempfile::tempdir().expect("a directory");
    let (store, model) = filled(home.path(), 300);
    assert!(matches!(vacuum(home.path()), Err(StoreError::InUse { .. })));
    store.settle();
    store.close().expect("closed");
    let found = stats(home.path(), 5).expect("readable");
    assert_eq!((found.documents, found.changes, found.unfolded), (1, 300, 0));
    assert_eq!(found.largest[0].0, model.id);
    let file = home.path().join("syncline.db");
    let before = file.metadata().expect("there").len();
    vacuum(home.path()).expect("done");
    assert!(file.metadata().expect("there").len() < before, "rows under the snapshot left room");
    assert!(check(home.path()).expect("readable").is_clean());
}

/// The part of a log that counts: its header, and the frames with the header's salts. What was there before it began anew
/// lies behind.
fn current(log: &std::path::Path) -> Vec<u8> {
    const HEADER: usize = 32;
    let bytes = fs::read(log).expect("readable");
    let page = u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    let frames = bytes[HEADER..].chunks_exact(24 + page);
    let count = frames.take_while(|frame| frame[8..16] == bytes[16..24]).count();
    bytes[..HEADER + count * (24 + page)].to_vec()
}

/// As Litestream does it: a read transaction keeps the log from beginning anew before it is copied, tables of its own lie in
/// the database, and it moves the log itself from time to time. The store is closed and opened again beside it.
#[test]
fn a_tool_that_copies_the_log_as_it_grows_gets_all_of_it() {
    const TABLES: &str = "PRAGMA wal_autocheckpoint = 0;
        CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
        CREATE TABLE _litestream_lock (id INTEGER);";
    const NEXT: &str = "INSERT INTO _litestream_seq VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET seq = seq + 1";
    let (home, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let options = || Options { checkpoint_pages: 16, ..eager() };
    let mut store = open(home.path(), options());
    let mut model = Model::new(1, 2);
    let tool = Connection::open(home.path().join("syncline.db")).expect("it opens");
    tool.busy_timeout(Duration::from_secs(60)).expect("set");
    let mode: String = tool.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0)).expect("a mode");
    assert_eq!(mode, "wal");
    tool.execute_batch(TABLES).expect("it writes between the commits");
    let log = home.path().join("syncline.db-wal");
    for round in 0..4 {
        tool.execute(NEXT, []).expect("it writes between the commits");
        tool.execute_batch("BEGIN; SELECT count(1) FROM _litestream_seq").expect("it reads");
        let copied = current(&log);
        for _ in 0..50 {
            model.edit(0, 4_000);
            commit(&store, vec![model.commit(1)]).expect("stored");
        }
        if round == 2 {
            store.close().expect("closed");
            store = open(home.path(), options());
        }
        let grown = current(&log);
        assert!(grown.len() > copied.len() + 50 * 4_000 && grown.starts_with(&copied), "round {round}");
        if round < 3 {
            tool.execute_batch("ROLLBACK").expect("it ends");
            let moved = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            assert_eq!(tool.query_row("PRAGMA wal_checkpoint(RESTART)", [], moved).expect("it moves"), 0);
        }
    }
    store.close().expect("closed");
    // What the tool has by then: the database and the log.
    for file in ["syncline.db", "syncline.db-wal"] {
        fs::copy(home.path().join(file), other.path().join(file)).expect("copied");
    }
    for directory in [home.path(), other.path()] {
        assert!(check(directory).expect("readable").is_clean());
        let store = open(directory, options());
        let hashes: Vec<_> = model.journal.iter().map(|(hash, _)| *hash).collect();
        let bytes: Vec<_> = model.journal.iter().map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!(store.changes(&model.id, &hashes).expect("readable"), bytes);
        store.close().expect("closed");
    }
}

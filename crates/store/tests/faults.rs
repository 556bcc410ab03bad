//! Files that are damaged, foreign, from the future or on a full disk.
//!
//! Owns: what is refused, what the check finds, what stays usable. Must not: damage a file while a store has it open.
//! Next: `support/mod.rs`, `crash.rs`.

mod support;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use support::{Model, assert_clean, commit, eager, lazy, open};
use syncline_core::ChangeHash;
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_store::check::FaultKind;
use syncline_store::{Options, Store, StoreError, check};

/// A store with a document that has a snapshot, an index and a tail, and one that has a tail only.
fn sample(directory: &Path) -> (Model, Model) {
    let store = open(directory, eager());
    let (mut large, mut small) = (Model::new(1, 2), Model::new(2, 1));
    while store.summary(&large.id).expect("readable").is_none_or(|summary| summary.snapshot_changes == 0) {
        large.grow(&store, 10, 30);
        store.settle();
    }
    small.grow(&store, 4, 30);
    store.close().expect("a healthy disk");
    assert_clean(directory, large.journal.len() + small.journal.len());
    (large, small)
}

/// Damages a healthy file and returns the faults that the check then finds.
fn faults_after(damage: impl FnOnce(&Connection)) -> Vec<(Option<DocumentId>, FaultKind)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    sample(directory.path());
    let connection = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    damage(&connection);
    drop(connection);
    let before = files(directory.path());
    let report = check(directory.path()).expect("readable");
    assert_eq!(files(directory.path()), before, "the check writes nothing");
    assert_eq!(report.faults as usize, report.listed.len());
    report.listed.into_iter().map(|fault| (fault.document, fault.kind)).collect()
}

/// Fingerprints of the database and its write-ahead log; an empty log is none.
fn files(directory: &Path) -> Vec<Option<u64>> {
    let read = |name: &&str| std::fs::read(directory.join(name)).ok().filter(|bytes| !bytes.is_empty());
    let fingerprint = |bytes: Vec<u8>| BuildHasherDefault::<DefaultHasher>::default().hash_one(bytes);
    ["syncline.db", "syncline.db-wal"].iter().map(|name| read(name).map(fingerprint)).collect()
}

fn flip(connection: &Connection, table: &str, column: &str, at: impl Fn(usize) -> usize) {
    let select = format!("SELECT rowid, {column} FROM {table} ORDER BY rowid LIMIT 1");
    let (rowid, mut data): (i64, Vec<u8>) =
        connection.query_row(&select, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("a row to damage");
    let at = at(data.len());
    data[at] ^= 0x10;
    connection
        .execute(&format!("UPDATE {table} SET {column} = ?2 WHERE rowid = ?1"), params![rowid, data])
        .expect("damage");
}

fn is_fault(found: &[(Option<DocumentId>, FaultKind)], expected: impl Fn(&FaultKind) -> bool) {
    assert!(found.iter().any(|(document, kind)| document.is_some() && expected(kind)), "{found:#?}");
}

#[test]
fn a_flipped_byte_in_a_change_is_found() {
    let found = faults_after(|file| flip(file, "tail", "data", |length| length - 20));
    is_fault(&found, |kind| matches!(kind, FaultKind::DamagedChange { .. }));
}

#[test]
fn a_flipped_byte_anywhere_in_a_snapshot_is_found() {
    for part in 1..8 {
        let found = faults_after(|file| flip(file, "snapshot", "data", |length| length * part / 8));
        is_fault(&found, |kind| matches!(kind, FaultKind::BadSnapshot(_)));
    }
}

#[test]
fn a_flipped_byte_anywhere_in_an_index_is_found() {
    for part in [0, 7, 40, 90, 150, 152, 153] {
        let found = faults_after(|file| flip(file, "node_index", "data", |_| part));
        is_fault(&found, |kind| matches!(kind, FaultKind::BadIndex(_)));
    }
}

// An empty table is read by no query that names its columns, and a store that began to write would take the query that
// then fails for a failure of the disk.
#[test]
fn a_damaged_name_of_a_column_is_found_and_the_file_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    sample(directory.path());
    let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    file.execute_batch(
        "PRAGMA writable_schema = ON; \
         UPDATE sqlite_schema SET sql = replace(sql, 'confirmed', 'confirmee') WHERE name = 'blob'; \
         PRAGMA writable_schema = OFF;",
    )
    .expect("damage");
    drop(file);
    let report = check(directory.path()).expect("readable");
    let [fault] = &report.listed[..] else { panic!("one fault, not {:?}", report.listed) };
    assert!(matches!(&fault.kind, FaultKind::Structure(words) if words.contains("blob")), "{fault}");
    let refused = Store::open(directory.path(), Options::default());
    assert!(
        matches!(&refused, Err(error @ StoreError::Corrupt { .. }) if error.to_string().contains("blob")),
        "{refused:?}"
    );
}

#[test]
fn stamps_that_are_missing_or_fall_are_found() {
    let found = faults_after(|file| {
        file.execute("UPDATE node_index SET stamps = x'05' WHERE place = (SELECT min(place) FROM node_index)", [])
            .expect("damage");
    });
    is_fault(&found, |kind| matches!(kind, FaultKind::WrongCount { what: "the number of changes with a stamp", .. }));
    let found = faults_after(|file| {
        file.execute("UPDATE node_index SET stamps = zeroblob(length(stamps))", []).expect("damage");
    });
    is_fault(&found, |kind| matches!(kind, FaultKind::StampOrder { .. }));
}

// The compaction thread ended with it, and nothing was compacted any more.
#[test]
fn stamps_that_fall_keep_only_their_document_from_being_compacted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), lazy());
    let (mut damaged, mut good) = (Model::new(1, 1), Model::new(2, 1));
    for _ in 0..60 {
        damaged.grow(&store, 1, 30);
        good.grow(&store, 1, 30);
    }
    store.close().expect("a healthy disk");
    let connection = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    // The first document has the lowest places.
    const FIRST: &str = "SELECT place, data FROM tail ORDER BY place LIMIT 1";
    let first = connection.query_row(FIRST, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
    let (place, mut piece) = first.expect("it was folded");
    // The highest bits but one of the first stamp, after the number of changes.
    let bit = [0x40, 0x20, 0x10, 0x08].into_iter().find(|bit| piece[8] & bit == 0).expect("one is not set");
    piece[8] |= bit;
    connection.execute("UPDATE tail SET data = ?2 WHERE place = ?1", (place, piece)).expect("damage");
    drop(connection);
    let store = open(directory.path(), eager());
    let covered = |model: &Model| store.summary(&model.id).expect("readable").expect("it exists").snapshot_changes;
    let start = std::time::Instant::now();
    while covered(&good) == 0 && start.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    store.settle();
    assert!(covered(&good) > 0, "others are compacted");
    assert_eq!(covered(&damaged), 0);
    let payload = store.payload(&damaged.id).expect("readable").expect("it exists");
    let changes = damaged.journal.iter().map(|(_, bytes)| bytes);
    assert!(payload.tail.iter().map(|change| &change.bytes).eq(changes), "it is served as it is");
}

#[test]
fn a_missing_piece_is_found_as_missing_dependencies() {
    let found = faults_after(|file| {
        file.execute("DELETE FROM tail WHERE place = (SELECT min(place) FROM tail)", []).expect("damage");
    });
    is_fault(&found, |kind| matches!(kind, FaultKind::WrongCount { what: "the number of changes", .. }));
}

#[test]
fn a_hole_in_the_history_is_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), lazy());
    let mut model = Model::new(1, 1);
    (0..3).for_each(|_| drop(model.edit(0, 5)));
    let mut holed = model.commit(3);
    holed.changes.remove(1);
    commit(&store, vec![holed]).expect("the store does not look inside");
    store.close().expect("a healthy disk");
    let report = check(directory.path()).expect("readable");
    let dependency = model.journal[1].0;
    let expected = FaultKind::MissingDependency { change: model.journal[2].0, dependency };
    assert!(
        report.listed.iter().any(|fault| fault.kind == expected && fault.document.as_ref() == Some(&model.id)),
        "{report:#?}"
    );
}

#[test]
fn wrong_heads_are_found_in_a_row_and_in_the_log() {
    let found = faults_after(|file| {
        file.execute("UPDATE document SET heads = zeroblob(32) WHERE key = 1", []).expect("damage");
    });
    is_fault(&found, |kind| *kind == FaultKind::WrongHeads);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), lazy());
    let mut model = Model::new(1, 1);
    model.edit(0, 5);
    model.heads = vec![ChangeHash([9; 32])];
    commit(&store, vec![model.commit(1)]).expect("the store does not look inside");
    drop(store);
    let report = check(directory.path()).expect("readable");
    assert!(report.listed.iter().any(|fault| fault.kind == FaultKind::WrongHeads), "{report:#?}");
}

// A start failed on such a file although the check had called it clean, or took a lost stamp for the first one.
#[test]
fn a_file_that_does_not_know_its_name_or_stamp_is_refused_and_found() {
    for (name, what) in [("replica", "the replica id"), ("highest_stamp", "the highest stamp")] {
        for damage in ["UPDATE meta SET value = x'0102' WHERE name = ?1", "DELETE FROM meta WHERE name = ?1"] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            sample(directory.path());
            let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
            assert_eq!(file.execute(damage, [name]).expect("damage"), 1);
            drop(file);
            let report = check(directory.path()).expect("readable");
            let found: Vec<_> = report.listed.into_iter().map(|fault| (fault.document, fault.kind)).collect();
            assert_eq!(found, [(None, FaultKind::Undecodable(what))]);
            let refused = Store::open(directory.path(), Options::default());
            assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
        }
    }
}

#[test]
fn pieces_of_no_document_are_found() {
    let found = faults_after(|file| {
        file.execute("DELETE FROM document WHERE key = 2", []).expect("damage");
    });
    assert_eq!(found, [(None, FaultKind::Stray("tail"))]);
}

#[test]
fn a_file_from_the_future_is_refused_untouched() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    sample(directory.path());
    let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    file.pragma_update(None, "user_version", 99).expect("a newer format");
    drop(file);
    let before = files(directory.path());
    let refused = Store::open(directory.path(), Options::default());
    assert!(matches!(refused, Err(StoreError::NewerFormat { found: 99, supported: 9, .. })), "{refused:?}");
    assert!(matches!(check(directory.path()), Err(StoreError::NewerFormat { .. })));
    assert_eq!(files(directory.path()), before);
}

#[test]
fn a_format_that_is_newer_only_in_the_write_ahead_log_is_refused_untouched() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    sample(directory.path());
    let database = directory.path().join("syncline.db");
    let file = Connection::open(&database).expect("nobody has it open");
    file.pragma_update(None, "user_version", 99).expect("a newer format");
    // A copy taken now has the number in its log only, as after a crash of the newer version.
    let copy = tempfile::tempdir().expect("a temporary directory");
    for name in ["syncline.db", "syncline.db-wal"] {
        std::fs::copy(directory.path().join(name), copy.path().join(name)).expect("both exist");
    }
    drop(file);
    let before = files(copy.path());
    let refused = Store::open(copy.path(), Options::default());
    assert!(matches!(refused, Err(StoreError::NewerFormat { found: 99, .. })), "{refused:?}");
    assert_eq!(files(copy.path()), before);
}

#[test]
fn files_that_are_no_stores_are_refused_untouched() {
    let healthy = tempfile::tempdir().expect("a temporary directory");
    sample(healthy.path());
    let whole = std::fs::read(healthy.path().join("syncline.db")).expect("a file");
    let foreign = tempfile::NamedTempFile::new().expect("a temporary file");
    Connection::open(foreign.path()).expect("a new file").execute_batch("CREATE TABLE mine (x)").expect("a table");
    let foreign = std::fs::read(foreign.path()).expect("a file");
    for bytes in [b"hello".to_vec(), vec![7; 8192], whole[..60].to_vec(), foreign] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("syncline.db"), &bytes).expect("a temporary directory");
        let before = files(directory.path());
        let refused = Store::open(directory.path(), Options::default());
        assert!(matches!(refused, Err(StoreError::NotAStore { .. })), "{refused:?}");
        assert!(matches!(check(directory.path()), Err(StoreError::NotAStore { .. })));
        assert_eq!(files(directory.path()), before);
    }
}

#[test]
fn a_truncated_file_never_opens_as_if_it_were_whole() {
    let healthy = tempfile::tempdir().expect("a temporary directory");
    let (large, small) = sample(healthy.path());
    let whole = std::fs::read(healthy.path().join("syncline.db")).expect("a file");
    for pages in 1..whole.len() / 4096 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("syncline.db"), &whole[..pages * 4096]).expect("a temporary directory");
        let report = check(directory.path());
        assert!(
            report.as_ref().is_ok_and(|report| !report.is_clean()) || matches!(report, Err(StoreError::Corrupt { .. }))
        );
        let Ok(store) = Store::open(directory.path(), Options::default()) else { continue };
        for model in [&large, &small] {
            match store.payload(&model.id) {
                Ok(Some(payload)) => assert_eq!(payload.changes as usize, model.journal.len()),
                Ok(None) => panic!("a document vanished without an error"),
                Err(StoreError::Corrupt { .. } | StoreError::Damaged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn an_interrupted_creation_is_completed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = Connection::open(directory.path().join("syncline.db")).expect("a new file");
    file.pragma_update(None, "journal_mode", "WAL").expect("the first step of a creation");
    drop(file);
    let mut model = Model::new(1, 1);
    model.grow(&open(directory.path(), lazy()), 3, 5);
    model.assert_stored(&open(directory.path(), lazy()));
}

#[test]
fn a_fold_that_was_cut_short_before_the_log_was_deleted_repeats_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("syncline.db");
    let mut model = Model::new(1, 2);
    let store = open(directory.path(), lazy());
    model.upload(&store, 20, 10);
    (0..4).for_each(|_| model.grow(&store, 3, 10));
    drop(store);
    let rows = "CREATE TABLE kept AS SELECT * FROM log";
    Connection::open(&database).expect("nobody has it open").execute_batch(rows).expect("a copy");
    open(directory.path(), lazy()).close().expect("a healthy disk");
    let rows = "INSERT INTO log SELECT * FROM kept; DROP TABLE kept";
    Connection::open(&database).expect("nobody has it open").execute_batch(rows).expect("the log as it was");
    assert_clean(directory.path(), model.journal.len());
    let store = open(directory.path(), lazy());
    model.assert_stored(&store);
    model.grow(&store, 2, 10);
    store.close().expect("a healthy disk");
    assert_clean(directory.path(), model.journal.len());
    model.assert_stored(&open(directory.path(), lazy()));
}

#[test]
fn a_file_of_the_first_format_is_checked_as_it_is_and_led_forward() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut model = Model::new(1, 2);
    let store = open(directory.path(), lazy());
    model.grow(&store, 10, 10);
    store.close().expect("a healthy disk");
    let store = open(directory.path(), lazy());
    model.grow(&store, 10, 10);
    drop(store);
    // What the second format added, taken away: a file with rows in its log as the first one wrote it.
    let first = "ALTER TABLE document DROP COLUMN authored; ALTER TABLE log DROP COLUMN kind; DROP TABLE damaged; DROP TABLE life; DROP TABLE purge; \
                 DROP TABLE floor; DROP TABLE policy; DROP TABLE server; DROP TABLE in_step; DROP TABLE blob; \
                 DROP TABLE blob_piece; DROP TABLE blob_gone; DROP TABLE actor; DROP TABLE share; PRAGMA user_version = 1";
    let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    file.execute_batch(first).expect("an older file");
    drop(file);
    assert_clean(directory.path(), 20);
    let store = open(directory.path(), lazy());
    model.assert_stored(&store);
    let mut whole = Model::new(2, 1);
    whole.upload(&store, 20, 10);
    drop(store);
    assert_clean(directory.path(), 40);
    let store = open(directory.path(), lazy());
    model.assert_stored(&store);
    whole.assert_stored(&store);
}

#[test]
fn a_flipped_byte_anywhere_in_a_chunk_is_found_while_it_is_in_the_log_and_after() {
    for (folded, part) in (1..8).flat_map(|part| [(false, part), (true, part)]) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut model = Model::new(1, 1);
        let store = open(directory.path(), lazy());
        model.upload(&store, 40, 10);
        if folded {
            store.close().expect("a healthy disk");
        }
        drop(store);
        let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
        let chunk = model.commit_whole().snapshot.expect("just made").len();
        let table = if folded { "snapshot" } else { "log" };
        flip(&file, table, "data", |length| length - chunk * part / 8);
        drop(file);
        let found = check(directory.path()).expect("readable").listed;
        assert!(
            found.iter().any(|fault| matches!(fault.kind, FaultKind::BadSnapshot(_))),
            "{table} {part}/8: {found:#?}"
        );
    }
}

/// Damages the log of one document of three, and requires that only that one is lost to readers, for good.
fn only_its_document_is_lost(damage: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut models = [Model::new(1, 1), Model::new(2, 2), Model::new(3, 1)];
    let store = open(directory.path(), lazy());
    models.iter_mut().for_each(|model| model.upload(&store, 20, 10));
    store.close().expect("a healthy disk");
    let store = open(directory.path(), lazy());
    (0..2).for_each(|_| [0, 2, 1].iter().for_each(|n| models[*n].grow(&store, 2, 10)));
    // The document that will be lost holds the highest stamp, and the wall clock is far from it.
    store.observe(Stamp::from_u64(store.highest_stamp().as_u64() + (20_000 << 16))).expect("within the drift bound");
    models[1].grow(&store, 2, 10);
    let highest = store.highest_stamp();
    drop(store);
    let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    assert_eq!(file.execute(damage, []).expect("damage"), 1);
    drop(file);
    assert!(!check(directory.path()).expect("readable").is_clean(), "found before a start, too");
    drop(open(directory.path(), lazy()));
    for round in 0..3 {
        let store = open(directory.path(), lazy());
        assert!(store.highest_stamp() >= highest, "stamps in rows that are set aside still count");
        let [one, lost, three] = &mut models;
        let is_lost = |result: Result<(), StoreError>| match result {
            Err(StoreError::Damaged { document, .. }) => assert_eq!(document, lost.id),
            other => panic!("round {round}: {other:?}"),
        };
        is_lost(store.summary(&lost.id).map(drop));
        is_lost(store.graph(&lost.id).map(drop));
        is_lost(store.payload(&lost.id).map(drop));
        is_lost(store.changes(&lost.id, &[]).map(drop));
        let mut more = lost.commit(1);
        more.changes_before += 1;
        is_lost(commit(&store, vec![more]));
        is_lost(commit(&store, vec![lost.commit_whole()]));
        for model in [one, three] {
            model.assert_stored(&store);
            model.grow(&store, 1, 10);
        }
        assert_eq!(store.count(), 2);
        let listed = |after, limit| store.documents(after, limit).expect("readable").into_iter().map(|(id, _)| id);
        assert!(listed(None, 5).eq([models[0].id.clone(), models[2].id.clone()]));
        // A page that begins before the lost document is not shorter for it: an empty page means the end.
        assert!(listed(Some(&models[0].id), 1).eq([models[2].id.clone()]));
        store.close().expect("the log folds without the document");
        let report = check(directory.path()).expect("readable");
        let found: Vec<_> = report.listed.iter().map(|fault| (fault.document.clone(), fault.kind.clone())).collect();
        let rows = if damage.starts_with("DELETE") { 2 } else { 3 };
        assert!(found.contains(&(Some(models[1].id.clone()), FaultKind::SetAside { rows })), "{found:#?}");
        assert!(found.iter().all(|(document, _)| document.as_ref() == Some(&models[1].id)), "{found:#?}");
    }
}

#[test]
fn a_log_row_that_does_not_decode_costs_only_its_document() {
    only_its_document_is_lost("UPDATE log SET data = x'ff' WHERE seq = (SELECT min(seq) + 5 FROM log)");
    only_its_document_is_lost("UPDATE log SET kind = 9 WHERE seq = (SELECT min(seq) + 2 FROM log)");
}

// The writer's thread ended at the next commit, having no number for it.
#[test]
fn a_log_row_with_the_last_number_of_all_costs_only_its_document() {
    only_its_document_is_lost(
        "UPDATE log SET seq = 9223372036854775807 WHERE seq = (SELECT max(seq) FROM log WHERE document = x'02020202020202020202020202020202')",
    );
}

// The fold counted through all numbers in between, a thousand at a time, and no commit came through meanwhile.
#[test]
fn a_gap_in_the_numbers_of_the_log_is_folded_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut model = Model::new(1, 1);
    let store = open(directory.path(), lazy());
    (0..3).for_each(|_| model.grow(&store, 2, 10));
    drop(store);
    let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    let gap = "UPDATE log SET seq = seq + 4000000000000000000 WHERE seq = (SELECT max(seq) FROM log)";
    assert_eq!(file.execute(gap, []).expect("damage"), 1);
    drop(file);
    let store = open(directory.path(), lazy());
    model.grow(&store, 2, 10);
    store.close().expect("a healthy disk");
    assert_clean(directory.path(), model.journal.len());
}

#[test]
fn a_log_row_that_is_missing_costs_only_its_document() {
    only_its_document_is_lost("DELETE FROM log WHERE seq = (SELECT min(seq) + 2 FROM log)");
}

#[test]
fn a_log_row_of_no_document_is_set_aside_and_reported() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut model = Model::new(1, 1);
    let store = open(directory.path(), lazy());
    model.grow(&store, 3, 10);
    drop(store);
    let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    file.execute("INSERT INTO log (seq, document, data) VALUES (99, zeroblob(500), x'00')", []).expect("damage");
    drop(file);
    let store = open(directory.path(), lazy());
    model.assert_stored(&store);
    store.close().expect("a healthy disk");
    let listed = check(directory.path()).expect("readable").listed;
    assert!(listed.len() == 1 && listed[0].document.is_none(), "{listed:#?}");
    assert_eq!(listed[0].kind, FaultKind::SetAside { rows: 1 });
    model.assert_stored(&open(directory.path(), lazy()));
}

#[test]
fn a_full_disk_refuses_a_commit_keeps_the_rest_and_recovers() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let limited = Options { pages_max: Some(64), ..lazy() };
    let store = open(directory.path(), limited);
    let mut model = Model::new(1, 1);
    let mut other = Model::new(2, 1);
    model.grow(&store, 3, 1000);
    model.edit(0, 400_000);
    let refused = commit(&store, vec![model.commit(1)]);
    assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
    // The same handle takes what still fits.
    other.grow(&store, 3, 1000);
    other.assert_stored(&store);
    let refused = commit(&store, vec![model.commit(1)]);
    assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
    drop(store);
    let store = open(directory.path(), lazy());
    commit(&store, vec![model.commit(1)]).expect("there is room again");
    model.assert_stored(&store);
    other.assert_stored(&store);
    store.close().expect("a healthy disk");
    assert_clean(directory.path(), model.journal.len() + other.journal.len());
}

#[test]
fn a_disk_too_full_to_fold_keeps_the_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), Options { pages_max: Some(64), ..lazy() });
    let mut model = Model::new(1, 1);
    // More than half of the space: a copy of it cannot be made before the original is deleted.
    model.grow(&store, 1, 150_000);
    assert!(matches!(store.close(), Err(StoreError::DiskFull) | Ok(())));
    let store = open(directory.path(), lazy());
    model.assert_stored(&store);
    model.grow(&store, 1, 10);
    store.close().expect("there is room again");
    assert_clean(directory.path(), 2);
}

#[test]
fn a_disk_error_stops_the_writer_and_keeps_what_was_acknowledged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), lazy());
    let mut model = Model::new(1, 1);
    model.grow(&store, 3, 10);
    let kept = model.journal.len();
    // The table disappears under the writer: any failure but a full disk leaves the handle untrusted.
    let saboteur = Connection::open(directory.path().join("syncline.db")).expect("SQLite lets several in");
    saboteur.execute_batch("ALTER TABLE log RENAME TO gone").expect("sabotage");
    model.edit(0, 10);
    let refused = commit(&store, vec![model.commit(1)]);
    assert!(matches!(refused, Err(StoreError::Poisoned { .. })), "{refused:?}");
    saboteur.execute_batch("ALTER TABLE gone RENAME TO log").expect("undone");
    drop(saboteur);
    let again = commit(&store, vec![model.commit(1)]);
    assert!(matches!(again, Err(StoreError::Poisoned { .. })), "never again on this handle: {again:?}");
    assert_eq!(store.summary(&model.id).expect("reads go on").expect("it exists").changes as usize, kept);
    assert!(store.close().is_err());
    let store = open(directory.path(), lazy());
    commit(&store, vec![model.commit(1)]).expect("after a restart");
    model.assert_stored(&store);
}

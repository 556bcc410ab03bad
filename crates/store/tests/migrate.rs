//! Files that earlier formats wrote, led forward.
//!
//! Owns: what earlier formats looked like, written without the store's code. Must not: be edited for a format that
//! is released. Next: `faults.rs`; docs/store.md, "Migrations".

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, params};
use support::{Model, assert_clean, eager, lazy, open};
use syncline_core::ChangeHash;
use syncline_core::blob::{BlobChange, BlobHash};
use syncline_core::change::{Actor, Change};
use syncline_core::collection::DocumentState;
use syncline_core::id::DocumentId;
use syncline_store::Store;

fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_number(input: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = input.split_first().expect("a whole number");
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

/// The records of a journal's changes as the first two formats had them.
fn old_records(journal: &[(ChangeHash, Bytes)]) -> Vec<Vec<u8>> {
    let mut places: BTreeMap<ChangeHash, u64> = BTreeMap::new();
    let mut actors: Vec<Actor> = Vec::new();
    let mut records = Vec::new();
    for (place, (hash, raw)) in (0..).zip(journal) {
        let change = Change::decode_stored(raw.clone()).expect("made by automerge");
        let mut record = hash.0.to_vec();
        number(change.deps.len() as u64, &mut record);
        change.deps.iter().for_each(|dep| number(place - places[dep], &mut record));
        let known = actors.iter().position(|actor| *actor == change.actor);
        number(known.unwrap_or(actors.len()) as u64, &mut record);
        if known.is_none() {
            number(change.actor.as_bytes().len() as u64, &mut record);
            record.extend_from_slice(change.actor.as_bytes());
            actors.push(change.actor);
        }
        number(change.start_op, &mut record);
        number(change.operations, &mut record);
        places.insert(*hash, place);
        records.push(record);
    }
    records
}

/// Turns the file back into one of the second format.
fn as_second_format(directory: &Path, models: &[&Model]) {
    let file = Connection::open(directory.join("syncline.db")).expect("nobody has it open");
    for model in models {
        let records = old_records(&model.journal);
        fold_back(&file, model, &records);
        log_back(&file, model, &records);
    }
    without_lives(&file, 2);
}

/// Takes away what the fifth format added.
fn without_selection(file: &Connection, format: u32) {
    without_blobs(file, format);
    let added = "DROP TABLE policy; DROP TABLE server; DROP TABLE in_step; ALTER TABLE life DROP COLUMN noted";
    file.execute_batch(added).expect("the tables");
    file.pragma_update(None, "user_version", format).expect("an older file");
}

/// Takes away what the fourth format added.
fn without_lives(file: &Connection, format: u32) {
    without_selection(file, format);
    file.execute_batch("DROP TABLE life; DROP TABLE purge; DROP TABLE floor").expect("the tables");
    file.pragma_update(None, "user_version", format).expect("an older file");
}

/// Takes away what the ninth format added.
fn without_subjects(file: &Connection, format: u32) {
    file.execute_batch("DROP TABLE actor; DROP TABLE share").expect("the tables");
    file.pragma_update(None, "user_version", format).expect("an older file");
}

/// Takes away what the eighth format added.
fn without_times(file: &Connection, format: u32) {
    without_subjects(file, format);
    file.execute_batch("ALTER TABLE document DROP COLUMN authored").expect("the table");
    file.pragma_update(None, "user_version", format).expect("an older file");
}

/// Takes away what the seventh format added.
fn without_proofs(file: &Connection, format: u32) {
    without_times(file, format);
    file.execute_batch("ALTER TABLE life DROP COLUMN proof").expect("the table");
    file.pragma_update(None, "user_version", format).expect("an older file");
}

/// Takes away what the sixth format added.
fn without_blobs(file: &Connection, format: u32) {
    without_proofs(file, format);
    file.execute_batch("DROP TABLE blob; DROP TABLE blob_piece; DROP TABLE blob_gone").expect("the tables");
    file.pragma_update(None, "user_version", format).expect("an older file");
}

/// The pieces beside the document's snapshot.
fn fold_back(file: &Connection, model: &Model, records: &[Vec<u8>]) {
    let mut statement = file
        .prepare("SELECT place, snapshot_changes FROM node_index JOIN document ON place >> 28 = key WHERE id = ?1 ORDER BY place")
        .expect("the tables");
    let places = statement.query_map([model.id.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, usize>(1)?)));
    let places: Vec<_> = places.expect("rows").collect::<Result<_, _>>().expect("rows");
    let first = |place: i64| (place & ((1 << 28) - 1)) as usize;
    for (at, (place, covered)) in places.iter().enumerate() {
        let end = places.get(at + 1).map_or(*covered, |(next, _)| first(*next));
        let data = records[first(*place)..end].concat();
        file.execute("UPDATE node_index SET data = ?2 WHERE place = ?1", params![place, data]).expect("written");
    }
}

/// The row of the log that holds the document as one chunk: bytes, heads, three lengths, stamps, index, chunk.
fn log_back(file: &Connection, model: &Model, records: &[Vec<u8>]) {
    let row =
        file.query_row("SELECT seq, data FROM log WHERE document = ?1 AND kind = 1", [model.id.as_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        });
    let Ok((seq, data)) = row else { return };
    let mut input = &data[..];
    take_number(&mut input);
    let heads = take_number(&mut input) as usize;
    input = &input[32 * heads..];
    let mut out = data[..data.len() - input.len()].to_vec();
    let [stamps, index, chunk] = [(); 3].map(|()| take_number(&mut input) as usize);
    let records = records.concat();
    for length in [stamps, records.len(), chunk] {
        number(length as u64, &mut out);
    }
    out.extend_from_slice(&input[..stamps]);
    out.extend_from_slice(&records);
    out.extend_from_slice(&input[stamps + index..]);
    file.execute("UPDATE log SET data = ?2 WHERE seq = ?1", params![seq, out]).expect("written");
}

fn indexes(store: &Store, models: &[&Model]) -> Vec<Vec<Bytes>> {
    let index = |model: &&Model| store.graph(&model.id).expect("readable").expect("stored").index;
    models.iter().map(index).collect()
}

#[test]
fn an_index_of_the_second_format_is_checked_as_it_is_and_written_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut grown, mut folded, mut logged) = (Model::new(1, 2), Model::new(2, 2), Model::new(3, 1));
    let store = open(directory.path(), eager());
    let pieces =
        |store: &Store, model: &Model| store.graph(&model.id).expect("readable").map_or(0, |stored| stored.index.len());
    while pieces(&store, &grown) < 2 {
        grown.grow(&store, 10, 30);
        grown.meet(0, 1);
        store.settle();
    }
    folded.upload(&store, 20, 10);
    store.close().expect("a healthy disk");
    let store = open(directory.path(), lazy());
    logged.upload(&store, 20, 10);
    let models = [&grown, &folded, &logged];
    let before = indexes(&store, &models);
    assert!(before.iter().all(|index| !index.is_empty()), "each has an index");
    drop(store);

    let changes = grown.journal.len() + 40;
    assert_clean(directory.path(), changes);
    as_second_format(directory.path(), &models);
    assert_clean(directory.path(), changes);
    let store = open(directory.path(), lazy());
    assert_eq!(indexes(&store, &models), before);
    models.iter().for_each(|model| model.assert_stored(&store));
    drop(store);
    assert_clean(directory.path(), changes);
}

#[test]
fn an_index_that_cannot_be_written_anew_costs_its_document_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut lost, mut kept) = (Model::new(1, 1), Model::new(2, 1));
    let store = open(directory.path(), eager());
    lost.upload(&store, 20, 10);
    kept.upload(&store, 20, 10);
    store.close().expect("a healthy disk");
    as_second_format(directory.path(), &[&lost, &kept]);
    let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    let key = "(SELECT key FROM document WHERE id = ?1)";
    let damage = format!("UPDATE node_index SET data = zeroblob(100) WHERE place >> 28 = {key}");
    assert_eq!(file.execute(&damage, [lost.id.as_bytes()]).expect("damaged"), 1);
    drop(file);
    let store = open(directory.path(), lazy());
    kept.assert_stored(&store);
    let graph = store.graph(&lost.id).expect("readable").expect("stored");
    assert!(syncline_core::graph::Graph::from_stored(&graph, 7).is_err(), "it is found when it is used");
    drop(store);
    let report = syncline_store::check(directory.path()).expect("readable");
    assert!(report.listed.iter().all(|fault| fault.document.as_ref() == Some(&lost.id)), "{:?}", report.listed);
    assert!(!report.is_clean());
}

#[test]
fn documents_of_the_third_format_can_be_deleted_after_the_migration() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut grown, mut logged) = (Model::new(1, 2), Model::new(2, 1));
    let store = open(directory.path(), eager());
    grown.grow(&store, 60, 30);
    store.close().expect("a clean end");
    drop(store);
    let store = open(directory.path(), lazy());
    logged.grow(&store, 3, 10);
    drop(store);
    without_lives(&Connection::open(directory.path().join("syncline.db")).expect("nobody has it open"), 3);
    assert_clean(directory.path(), 63);

    let store = open(directory.path(), lazy());
    grown.assert_stored(&store);
    logged.assert_stored(&store);
    assert_eq!(store.lives(None, 10).expect("readable"), []);
    let (tell, told) = std::sync::mpsc::channel();
    let update = syncline_core::life::LifeUpdate::Own { deleted: true };
    store.set_life(grown.id.clone(), update, Box::new(move |result| tell.send(result).expect("somebody waits")));
    told.recv().expect("answered").expect("room on the disk");
    assert_eq!(store.documents(None, 10).expect("readable").len(), 1);
    drop(store);
    assert_clean(directory.path(), 63);
}

#[test]
fn a_file_of_the_fifth_format_takes_blobs_after_the_migration() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut grown = Model::new(1, 2);
    let store = open(directory.path(), lazy());
    grown.grow(&store, 30, 30);
    drop(store);
    without_blobs(&Connection::open(directory.path().join("syncline.db")).expect("nobody has it open"), 5);
    assert_clean(directory.path(), 30);

    let store = open(directory.path(), lazy());
    grown.assert_stored(&store);
    let hash = BlobHash::of(b"attached");
    let change = |change| {
        let (tell, told) = std::sync::mpsc::channel();
        store.change_blob(change, move |result| tell.send(result).expect("somebody waits"));
        told.recv().expect("answered").expect("room on the disk")
    };
    change(BlobChange::Write { hash, size: Some(8), offset: 0, data: Bytes::from_static(b"attached") });
    change(BlobChange::Finish { written_as: hash, hash, size: 8 });
    drop(store);
    assert_eq!(syncline_store::check(directory.path()).expect("readable").blobs, 1);
    assert_clean(directory.path(), 30);
}

#[test]
fn a_document_of_the_fourth_format_can_be_kept_here_after_the_migration() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut model = Model::new(1, 2);
    let store = open(directory.path(), lazy());
    model.grow(&store, 3, 10);
    drop(store);
    without_selection(&Connection::open(directory.path().join("syncline.db")).expect("nobody has it open"), 4);
    assert_clean(directory.path(), 3);

    let store = open(directory.path(), lazy());
    model.assert_stored(&store);
    assert_eq!(store.policies(None, 10).expect("readable"), []);
    let (tell, told) = std::sync::mpsc::channel();
    store.set_local_only(model.id.clone(), true, Box::new(move |result| tell.send(result).expect("somebody waits")));
    told.recv().expect("answered").expect("room on the disk");
    assert!(store.standing(&model.id).expect("readable").local_only);
    drop(store);
    assert_clean(directory.path(), 3);
}

/// A bit that changed in the record of a deletion had brought the document back, or removed a living one.
#[test]
fn records_of_deletions_carry_a_proof_after_the_migration() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut grown = Model::new(1, 2);
    let store = open(directory.path(), lazy());
    grown.grow(&store, 30, 30);
    let (tell, told) = std::sync::mpsc::channel();
    let update = syncline_core::life::LifeUpdate::Own { deleted: true };
    store.set_life(grown.id.clone(), update, Box::new(move |result| tell.send(result).expect("somebody waits")));
    let life = told.recv().expect("answered").expect("room on the disk");
    store.close().expect("a clean end");
    drop(store);
    let file = || Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    without_proofs(&file(), 6);
    assert_clean(directory.path(), 30);

    let store = open(directory.path(), lazy());
    assert_eq!(store.life(&grown.id).expect("readable").map(|entry| entry.life), Some(life));
    drop(store);
    assert_clean(directory.path(), 30);
    for damage in ["deleted = 0", "stamp = stamp + 1", "noted_ms = 0", "purged = 1", "replica = zeroblob(16)"] {
        file().execute(&format!("UPDATE life SET {damage}"), []).expect("damaged");
        assert!(!syncline_store::check(directory.path()).expect("readable").is_clean(), "{damage}");
        let store = open(directory.path(), lazy());
        assert!(matches!(store.life(&grown.id), Err(syncline_store::StoreError::Damaged { .. })), "{damage}");
        let update = syncline_core::life::LifeUpdate::Own { deleted: true };
        let (tell, told) = std::sync::mpsc::channel();
        store.set_life(grown.id.clone(), update, Box::new(move |result| tell.send(result).expect("somebody waits")));
        assert!(told.recv().expect("answered").expect("room on the disk").deleted, "it is mended by the next word");
        drop(store);
        assert_clean(directory.path(), 30);
    }
}

#[test]
fn a_file_of_the_seventh_format_knows_when_its_documents_were_written_after_the_migration() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut raw, mut compacted, mut later) = (Model::new(1, 2), Model::new(2, 2), Model::new(3, 1));
    let store = open(directory.path(), eager());
    raw.grow(&store, 1, 3);
    compacted.grow(&store, 30, 40);
    store.settle();
    store.close().expect("a clean end");
    let before = states(&open(directory.path(), lazy()));
    let seconds = |document: &Model| before[&document.id].authored.seconds();
    assert!(seconds(&raw) > 0 && seconds(&compacted) > 0, "the models date their changes");
    without_times(&Connection::open(directory.path().join("syncline.db")).expect("nobody has it open"), 7);
    assert_clean(directory.path(), 31);

    let store = open(directory.path(), lazy());
    assert_eq!(states(&store), before);
    // What is not folded yet is in the states as well, and a deletion.
    later.grow(&store, 2, 2);
    let update = syncline_core::life::LifeUpdate::Own { deleted: true };
    let gone = DocumentId::from_bytes(b"never here").expect("short");
    for id in [&raw.id, &gone] {
        let (tell, told) = std::sync::mpsc::channel();
        store.set_life(id.clone(), update, Box::new(move |result| tell.send(result).expect("somebody waits")));
        assert!(told.recv().expect("answered").is_ok());
    }
    let after = states(&store);
    assert_eq!(after[&compacted.id], before[&compacted.id]);
    let of_summary = store.summary(&later.id).expect("readable").expect("just made");
    assert_eq!((&after[&later.id].heads, after[&later.id].authored), (&of_summary.heads, of_summary.authored));
    assert!([&raw.id, &gone].iter().all(|id| after[*id].life.is_some_and(|life| life.deleted)));
    drop(store);
    // The start reads the times of what was not folded from the log.
    assert_eq!(states(&open(directory.path(), lazy())), after);
    assert_clean(directory.path(), 33);
}

/// The state of every document, each of which must come once.
fn states(store: &Store) -> BTreeMap<DocumentId, DocumentState> {
    let mut states = BTreeMap::new();
    let page = |page: Vec<(DocumentId, DocumentState)>| {
        for (id, state) in page {
            assert!(states.insert(id, state).is_none(), "a document comes twice");
        }
    };
    store.states(page).expect("readable");
    states
}

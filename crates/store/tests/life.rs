//! Documents that are deleted, restored, purged and begun anew, through crashes and restarts.
//!
//! Owns: what the store keeps of a deletion, and what is left of a purged document. Must not: test which of two records
//! stands. Next: docs/store.md, "Deletion".

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rusqlite::Connection;
use sha2::{Digest, Sha256};
use support::{Model, assert_clean, commit, eager, lazy, open};
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::id::{DocumentId, ReplicaId};
use syncline_core::life::{Life, LifeUpdate};
use syncline_core::storage::Commit;
use syncline_core::subject::Contribution;
use syncline_store::{Options, Store, StoreError};

/// Sets a record and waits until it is durable.
fn set(store: &Store, id: &DocumentId, update: LifeUpdate) -> Life {
    let (tell, told) = channel();
    store.set_life(id.clone(), update, Box::new(move |result| tell.send(result).expect("somebody waits")));
    told.recv().expect("every call is answered").expect("room on the disk")
}

fn delete(store: &Store, id: &DocumentId) -> Life {
    set(store, id, LifeUpdate::Own { deleted: true })
}

fn restore(store: &Store, id: &DocumentId) -> Life {
    set(store, id, LifeUpdate::Own { deleted: false })
}

fn purges(store: &Store) -> Receiver<DocumentId> {
    let (tell, told) = channel();
    store.on_purged(move |document| tell.send(document).expect("somebody waits"));
    told
}

/// Deleted documents go as soon as they are folded.
fn at_once() -> Options {
    Options { deleted_keep: Duration::ZERO, ..eager() }
}

fn listed(store: &Store) -> Vec<DocumentId> {
    store.documents(None, 100).expect("readable").into_iter().map(|(id, _)| id).collect()
}

/// Rows in the tables that hold pieces of documents.
fn pieces(directory: &Path) -> u64 {
    let file = Connection::open(directory.join("syncline.db")).expect("nobody has it open");
    let count = |table: &str| {
        file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0)).expect("a table")
    };
    ["log", "tail", "node_index", "snapshot", "document", "purge", "floor"].into_iter().map(count).sum()
}

#[test]
fn a_deletion_outlives_restarts_and_can_be_taken_back_with_everything_that_was_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut kept, mut gone) = (Model::new(1, 1), Model::new(2, 2));
    let store = open(directory.path(), eager());
    kept.grow(&store, 3, 10);
    gone.grow(&store, 40, 30);
    let deleted = delete(&store, &gone.id);
    assert!(deleted.deleted && deleted.replica == store.replica_id());
    assert_eq!(listed(&store), [kept.id.clone()]);
    drop(store);

    let store = open(directory.path(), eager());
    assert_eq!(store.standing(&gone.id).expect("readable").life, Some(deleted));
    assert_eq!(listed(&store), [kept.id.clone()]);
    gone.assert_stored(&store);
    // What was on its way when it was deleted belongs to it.
    gone.grow(&store, 1, 10);
    let restored = restore(&store, &gone.id);
    assert!(restored > deleted);
    assert_eq!(listed(&store), [kept.id.clone(), gone.id.clone()]);
    gone.assert_stored(&store);
    let lives = store.lives(None, 10).expect("readable");
    assert!(matches!(&lives[..], [(id, entry)] if *id == gone.id && entry.life == restored && !entry.purged));
    store.close().expect("a clean end");
    assert_clean(directory.path(), 44);
}

#[test]
fn the_greater_of_two_records_stands_and_the_next_one_made_here_is_above_it() {
    let store = Store::memory().expect("a store");
    let id = DocumentId::from_bytes(&[1; 16]).expect("16 bytes");
    let heard = |millis, deleted| Life { stamp: Stamp::new(millis, 0), replica: ReplicaId([9; 16]), deleted };
    let (early, late) = (heard(1_000, true), heard(1 << 46, true));
    assert_eq!(set(&store, &id, LifeUpdate::Heard(late)), late, "from a clock that is far ahead");
    assert_eq!(set(&store, &id, LifeUpdate::Heard(early)), late);
    let restored = restore(&store, &id);
    assert!(restored > late);
    assert!(store.highest_stamp() < late.stamp, "such a clock is not followed");
    assert_eq!(set(&store, &id, LifeUpdate::Heard(late)), restored);
}

#[test]
fn a_deleted_document_is_left_out_of_every_page_however_many_there_are() {
    let store = Store::memory().expect("a store");
    let mut models: Vec<Model> = (0..40).map(|n| Model::new(n, 1)).collect();
    models.iter_mut().for_each(|model| model.grow(&store, 1, 1));
    models.iter().filter(|model| model.id.as_bytes()[0] % 8 != 7).for_each(|model| {
        delete(&store, &model.id);
    });
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.documents(after.as_ref(), 3).expect("readable");
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        found.extend(page.into_iter().map(|(id, _)| id.as_bytes()[0]));
    }
    assert_eq!(found, [7, 15, 23, 31, 39]);
}

#[test]
fn a_purged_document_leaves_its_record_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut model = Model::new(1, 2);
    let store = open(directory.path(), at_once());
    let purged = purges(&store);
    // A snapshot, an index in pieces, and a tail of more rows than one step removes.
    for _ in 0..40 {
        model.grow(&store, 8, 900);
        model.meet(0, 1);
    }
    store.settle();
    assert!(store.summary(&model.id).expect("readable").expect("stored").snapshot_changes > 0);
    let life = delete(&store, &model.id);
    assert_eq!(purged.recv(), Ok(model.id.clone()));
    assert_eq!((store.count(), store.standing(&model.id).expect("readable").summary), (0, None));
    let stale = commit(&store, vec![model.commit(1)]);
    assert!(matches!(stale, Err(StoreError::Stale { found: 0, .. })), "{stale:?}");
    store.close().expect("a clean end");

    let store = open(directory.path(), at_once());
    let entry = store.life(&model.id).expect("readable").expect("a record");
    assert!(entry.purged && entry.life == life);
    // The writer goes on with the rest of a purge before it looks for another one.
    let mut other = Model::new(2, 1);
    other.grow(&store, 1, 1);
    let purged = purges(&store);
    delete(&store, &other.id);
    assert_eq!(purged.recv(), Ok(other.id));
    purge_next(&store, 3);
    store.close().expect("a clean end");
    drop(store);
    assert_eq!(pieces(directory.path()), 0);
    assert_clean(directory.path(), 0);
}

/// Waits until the purge before this one is through.
fn purge_next(store: &Store, seed: u8) {
    let purged = purges(store);
    let id = DocumentId::from_bytes(&[seed; 16]).expect("16 bytes");
    delete(store, &id);
    assert_eq!(purged.recv(), Ok(id));
}

#[test]
fn a_document_can_come_again_after_its_purge_also_while_its_old_rows_are_in_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut model, mut busy) = (Model::new(1, 1), Model::new(2, 1));
    // Folds, but seldom enough that the log has rows when the document goes.
    let options = Options { fold_idle: Duration::from_millis(50), ..at_once() };
    let store = open(directory.path(), options.clone());
    model.grow(&store, 3, 10);
    let purged = purges(&store);
    delete(&store, &model.id);
    while purged.try_recv().is_err() {
        busy.grow(&store, 1, 10);
    }
    restore(&store, &model.id);
    commit(&store, vec![model.commit(3)]).expect("as a new document");
    model.grow(&store, 1, 10);
    model.assert_stored(&store);
    // As after a crash: nothing is folded at the end.
    drop(store);
    let store = open(directory.path(), options);
    model.assert_stored(&store);
    busy.assert_stored(&store);
    store.close().expect("a clean end");
    assert_clean(directory.path(), 4 + busy.journal.len());
}

#[test]
fn a_crash_anywhere_in_a_purge_leaves_a_whole_store_without_the_document() {
    for steps in 0..8 {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut model, mut other) = (Model::new(1, 1), Model::new(2, 1));
        let store = open(directory.path(), Options { compact_changes: 60, ..eager() });
        for _ in 0..30 {
            model.grow(&store, 6, 900);
        }
        other.grow(&store, 5, 10);
        store.settle();
        delete(&store, &model.id);
        store.close().expect("a clean end");
        drop(store);
        purge_by_hand(directory.path(), &model.id, steps);

        let store = open(directory.path(), at_once());
        other.assert_stored(&store);
        // Its key is not given out while pieces of the old document are there.
        let mut newest = Model::new(3, 1);
        newest.grow(&store, 30, 10);
        if steps == 0 {
            assert_eq!(purges_one(&store), model.id);
        }
        assert_eq!(store.summary(&model.id).expect("readable"), None);
        newest.assert_stored(&store);
        store.close().expect("a clean end");
        assert_clean(directory.path(), 35);
    }
}

fn purges_one(store: &Store) -> DocumentId {
    let purged = purges(store);
    let entry = |store: &Store| store.lives(None, 1).expect("readable").pop().expect("a record");
    match entry(store) {
        (id, entry) if entry.purged => id,
        _ => purged.recv().expect("the writer lives"),
    }
}

/// Makes the proof of a record's row fit the row again, as docs/store.md says.
fn prove(file: &Connection, id: &DocumentId) {
    let columns = "replica, deleted, purged, stamp, noted_ms, noted";
    let (replica, flags, numbers) = file
        .query_row(&format!("SELECT {columns} FROM life WHERE document = ?1"), [id.as_bytes()], |row| {
            let numbers: [i64; 3] = [row.get(3)?, row.get(4)?, row.get(5)?];
            Ok((row.get::<_, Vec<u8>>(0)?, [row.get::<_, u8>(1)?, row.get::<_, u8>(2)?], numbers))
        })
        .expect("a row");
    let digest =
        Sha256::new().chain_update([0; 8]).chain_update(id.as_bytes()).chain_update(replica).chain_update(flags);
    let digest = numbers.iter().fold(digest, |digest, number| digest.chain_update(number.to_be_bytes())).finalize();
    file.execute("UPDATE life SET proof = ?2 WHERE document = ?1", (id.as_bytes(), &digest[..8])).expect("written");
}

/// What the writer's first steps of a purge do to the file, as docs/store.md says.
fn purge_by_hand(directory: &Path, id: &DocumentId, steps: usize) {
    let file = Connection::open(directory.join("syncline.db")).expect("nobody has it open");
    let key: i64 =
        file.query_row("SELECT key FROM document WHERE id = ?1", [id.as_bytes()], |row| row.get(0)).expect("a row");
    if steps > 0 {
        let digest = Sha256::new().chain_update(key.to_be_bytes()).chain_update(b"purge").finalize();
        file.execute("INSERT INTO purge (key, proof) VALUES (?1, ?2)", (key, &digest[..8])).expect("written");
        file.execute("DELETE FROM document WHERE key = ?1", [key]).expect("written");
        file.execute("UPDATE life SET purged = 1 WHERE document = ?1", [id.as_bytes()]).expect("written");
        prove(&file, id);
    }
    for step in 1..steps {
        let table = ["tail", "node_index"][step % 2];
        let sql =
            format!("DELETE FROM {table} WHERE place IN (SELECT place FROM {table} WHERE place >> 28 = ?1 LIMIT 3)");
        file.execute(&sql, [key]).expect("written");
    }
}

#[test]
fn a_document_is_not_purged_before_its_time_nor_after_it_was_restored() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut early, mut late, mut restored) = (Model::new(1, 1), Model::new(2, 1), Model::new(3, 1));
    let keep = Options { deleted_keep: Duration::from_secs(3600), ..eager() };
    let store = open(directory.path(), keep.clone());
    for model in [&mut early, &mut late, &mut restored] {
        model.grow(&store, 2, 10);
        delete(&store, &model.id);
    }
    restore(&store, &restored.id);
    store.close().expect("a clean end");
    drop(store);
    let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    let two_hours = 2 * 3600 * 1000;
    for model in [&early, &restored] {
        file.execute("UPDATE life SET noted_ms = noted_ms - ?2 WHERE document = ?1", (model.id.as_bytes(), two_hours))
            .expect("written");
        prove(&file, &model.id);
    }
    drop(file);
    let store = open(directory.path(), keep);
    assert_eq!(purges_one(&store), early.id);
    // In the order of times, so the next one would have gone by now.
    let mut last = Model::new(4, 1);
    last.grow(&store, 10, 10);
    late.assert_stored(&store);
    restored.assert_stored(&store);
    store.close().expect("a clean end");
    assert_clean(directory.path(), 14);
}

#[test]
fn records_wait_for_the_disk_like_commits() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), lazy());
    store.close().expect("a clean end");
    let (tell, told) = channel();
    let id = DocumentId::from_bytes(&[1; 16]).expect("16 bytes");
    let done = move |result| tell.send(result).expect("somebody waits");
    store.set_life(id, LifeUpdate::Own { deleted: true }, Box::new(done));
    assert!(matches!(told.recv(), Ok(Err(StoreError::Closed))));
}

/// Puts the model's journal in the place of what the store has under its id.
fn replace(store: &Store, model: &Model) -> Result<(), StoreError> {
    let (tell, told) = channel();
    let commit = model.commit(model.journal.len());
    store.replace(commit, Box::new(move |result| tell.send(result).expect("somebody waits")));
    told.recv().expect("every call is answered")
}

#[test]
fn a_document_that_begins_anew_has_only_its_new_history_folded_or_not_and_after_a_crash() {
    for options in [lazy(), eager()] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut old, mut anew, mut other) = (Model::new(1, 1), Model::new(1, 2), Model::new(2, 1));
        let store = open(directory.path(), options.clone());
        for _ in 0..6 {
            old.grow(&store, 8, 600);
            other.grow(&store, 1, 10);
        }
        store.settle();
        (0..5).for_each(|n| drop(anew.edit(n, 20)));
        replace(&store, &anew).expect("room on the disk");
        anew.assert_stored(&store);
        assert_eq!(store.count(), 2);
        anew.grow(&store, 2, 10);
        // As after a crash: what is not folded stays in the log.
        drop(store);
        let store = open(directory.path(), options);
        anew.assert_stored(&store);
        other.assert_stored(&store);
        assert_eq!(store.count(), 2);
        store.close().expect("a clean end");
        assert_clean(directory.path(), 7 + other.journal.len());
    }
}

#[test]
fn a_history_that_cannot_stand_alone_replaces_nothing() {
    let store = Store::memory().expect("a store");
    let (mut old, mut anew) = (Model::new(1, 1), Model::new(1, 1));
    old.grow(&store, 3, 10);
    (0..3).for_each(|n| drop(anew.edit(n, 20)));
    let (tell, told) = channel();
    store.replace(anew.commit(1), Box::new(move |result| tell.send(result).expect("somebody waits")));
    assert!(matches!(told.recv(), Ok(Err(StoreError::Stale { .. }))));
    old.assert_stored(&store);
}

/// The commit of the last so many changes, all of which a subject has brought.
fn brought_by(subject: &str, model: &Model, changes: usize) -> Commit {
    let commit = model.commit(changes);
    let actors = commit.changes.iter().map(|raw| Change::decode_stored(raw.clone()).expect("automerge's").actor);
    let bytes = commit.changes.iter().map(|raw| raw.len() as u64).sum();
    let contribution = Contribution { subject: subject.into(), actors: actors.collect(), bytes };
    Commit { contributions: vec![contribution], ..commit }
}

#[test]
fn whose_an_actor_is_and_who_has_stored_how_much_outlives_a_restart_and_a_purge_gives_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut one, mut other) = (Model::new(1, 1), Model::new(2, 1));
    let alice: Arc<str> = "alice".into();
    let store = open(directory.path(), eager());
    let put = |store: &Store, model: &mut Model, subject: &str| {
        model.edit(0, 1_000);
        commit(store, vec![brought_by(subject, model, 1)]).expect("a commit on top of the last");
        model.journal.last().map_or(0, |(_, raw)| raw.len() as u64)
    };
    let first = put(&store, &mut one, "alice");
    let second = put(&store, &mut one, "alice");
    let third = put(&store, &mut other, "alice");
    put(&store, &mut other, "bob");
    // Nobody has a commit of its own: a failed one leaves nothing behind.
    let stale = Commit { changes_before: 9, ..brought_by("mallory", &one, 1) };
    assert!(matches!(commit(&store, vec![stale]), Err(StoreError::Stale { .. })));
    drop(store);

    let store = open(directory.path(), at_once());
    let actors = [&one, &other].map(|model| Change::decode_stored(model.journal[0].1.clone()).expect("whole").actor);
    let (owners, account) = store.subject(&actors, Some(&alice)).expect("readable");
    let bob: Arc<str> = "bob".into();
    assert!(owners[0].1.is_stored() && owners[0].1.claim(&alice) && !owners[0].1.claim(&bob));
    let (_, account) = account.expect("asked for");
    assert_eq!(account.bytes(), first + second + third);
    let again = store.subject(&actors[..1], Some(&alice)).expect("readable");
    assert!(account.take(5, u64::MAX) && again.1.expect("asked for").1.bytes() == account.bytes(), "all share it");
    let purged = purges(&store);
    delete(&store, &one.id);
    assert_eq!(purged.recv(), Ok(one.id.clone()));
    // The callback comes after the account.
    assert_eq!(account.bytes(), third + 5);
    store.close().expect("a clean end");
    assert_clean(directory.path(), 2);
    drop((account, owners));
    let store = open(directory.path(), eager());
    let (_, account) = store.subject(&[], Some(&alice)).expect("readable");
    assert_eq!(account.expect("asked for").1.bytes(), third, "what was on its way never came");
    store.close().expect("a clean end");
    for damage in ["UPDATE actor SET subject = 'mallory'", "UPDATE share SET bytes = 1 WHERE subject = 'alice'"] {
        let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
        file.execute_batch(damage).expect("damaged");
        drop(file);
        assert!(!syncline_store::check(directory.path()).expect("readable").is_clean(), "{damage}");
    }
}

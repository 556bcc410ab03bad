//! Blobs: appended piece by piece, whole when they have their hash, gone on when a process begins again.
//!
//! Owns: what a store promises of blobs. Must not: know how they travel.
//! Next: `migrate.rs`; docs/blobs.md.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use rusqlite::Connection;
use support::{Model, assert_clean, lazy, open};
use syncline_core::blob::{BlobChange, BlobHash, BlobStanding, BlobState, PIECE_BYTES};
use syncline_store::check::FaultKind;
use syncline_store::ground::System;
use syncline_store::{Driven, Options, Store, StoreError, check};

const PIECE: u64 = PIECE_BYTES as u64;

fn content(length: usize) -> Bytes {
    Bytes::from_iter((0..length).map(|at| (at / 5 + at / PIECE_BYTES * 11) as u8))
}

fn ask(store: &Store, change: BlobChange) -> Receiver<Result<BlobStanding, StoreError>> {
    let (tell, told) = channel();
    // A test may have seen enough before the answer comes.
    store.change_blob(change, move |result| drop(tell.send(result)));
    told
}

fn change(store: &Store, wanted: BlobChange) -> Result<BlobStanding, StoreError> {
    ask(store, wanted).recv().expect("every change is answered")
}

fn piece(hash: BlobHash, content: &Bytes, offset: u64) -> BlobChange {
    let (from, size) = (offset as usize, Some(content.len() as u64));
    let data = content.slice(from..content.len().min(from + PIECE_BYTES));
    BlobChange::Write { hash, size, offset, data }
}

/// Writes what is missing, and finishes.
fn put(store: &Store, content: &Bytes) -> BlobHash {
    let (hash, size) = (BlobHash::of(content), content.len() as u64);
    let mut offset = store.blob(&hash).expect("readable").map_or(0, |standing| standing.resumable(size));
    while offset < size || size == 0 {
        offset = change(store, piece(hash, content, offset)).expect("room").held;
        if size == 0 {
            break;
        }
    }
    assert!(store.verify_blob(&hash).expect("readable"));
    change(store, BlobChange::Finish { written_as: hash, hash, size }).expect("all is there");
    hash
}

fn assert_stored(store: &Store, content: &Bytes) {
    let hash = BlobHash::of(content);
    assert!(store.blob(&hash).expect("readable").expect("stored").is_whole());
    let mut read = Vec::new();
    while read.len() < content.len() {
        let (standing, data) = store.blob_piece(&hash, read.len() as u64).expect("readable").expect("whole");
        assert_eq!(standing.size, content.len() as u64);
        read.extend_from_slice(&data);
    }
    assert_eq!(&read[..], &content[..]);
    assert_eq!(
        store.blob_piece(&hash, content.len().next_multiple_of(PIECE_BYTES) as u64 + PIECE).expect("readable"),
        None
    );
}

fn file(directory: &Path) -> Connection {
    Connection::open(directory.join("syncline.db")).expect("nobody has it open")
}

#[test]
fn blobs_of_all_sizes_come_back_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let contents: Vec<_> = [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES].map(content).into_iter().collect();
    let store = open(directory.path(), lazy());
    for content in &contents {
        put(&store, content);
    }
    let bytes: usize = contents.iter().map(Bytes::len).sum();
    assert_eq!(store.blob_bytes(), bytes as u64);
    store.close().expect("a healthy disk");
    let store = open(directory.path(), lazy());
    contents.iter().for_each(|content| assert_stored(&store, content));
    assert_eq!(store.blob_bytes(), bytes as u64);
    assert_eq!(store.blobs(None, 10, false).expect("readable").len(), contents.len());
    drop(store);
    let report = check(directory.path()).expect("readable");
    assert_eq!((report.is_clean(), report.blobs, report.blob_bytes), (true, 5, bytes as u64));
}

#[test]
fn a_partial_blob_is_gone_on_with_and_shown_to_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let content = content(3 * PIECE_BYTES + 9);
    let hash = BlobHash::of(&content);
    let store = open(directory.path(), lazy());
    change(&store, piece(hash, &content, 0)).expect("room");
    assert_eq!(change(&store, piece(hash, &content, 2 * PIECE)).expect("no fault").held, PIECE, "a hole is not stored");
    change(&store, piece(hash, &content, PIECE)).expect("room");
    assert_eq!(change(&store, piece(hash, &content, 0)).expect("no fault").held, 2 * PIECE, "nor a piece twice");
    drop(store);

    let store = open(directory.path(), lazy());
    let standing = store.blob(&hash).expect("readable").expect("begun");
    assert_eq!((standing.held, standing.state), (2 * PIECE, BlobState::Partial));
    assert_eq!(store.blob_piece(&hash, 0).expect("readable"), None);
    assert!(!store.verify_blob(&hash).expect("readable"));
    let finish = BlobChange::Finish { written_as: hash, hash, size: content.len() as u64 };
    assert!(matches!(change(&store, finish), Err(StoreError::NoSuchBlob { .. })));
    assert!(check(directory.path()).expect("readable").is_clean(), "to be partial is no fault");
    put(&store, &content);
    assert_stored(&store, &content);

    let to_push = |store: &Store| store.blobs(None, 10, true).expect("readable").len();
    assert_eq!(to_push(&store), 1);
    change(&store, BlobChange::Confirm { hash }).expect("room");
    assert_eq!(to_push(&store), 0);
}

#[test]
fn a_partial_blob_of_another_size_begins_anew() {
    let store = Store::memory().expect("a store");
    let content = content(PIECE_BYTES + 9);
    let hash = BlobHash::of(&content);
    let lie = BlobChange::Write { hash, size: Some(5 * PIECE), offset: 0, data: Bytes::from(vec![1; PIECE_BYTES]) };
    change(&store, lie).expect("room");
    let held = change(&store, piece(hash, &content, PIECE)).expect("no fault");
    assert_eq!((held.size, held.held), (5 * PIECE, PIECE), "two senders' bytes are not mixed");
    put(&store, &content);
    assert_stored(&store, &content);
    assert_eq!(store.blob_bytes(), content.len() as u64);
}

#[test]
fn what_has_its_name_from_chance_gets_its_hash_or_is_forgotten_by_the_next_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let content = content(PIECE_BYTES + 9);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let names = [BlobHash([1; 32]), BlobHash([2; 32]), BlobHash([3; 32])];
    let store = open(directory.path(), lazy());
    change(&store, piece(hash, &content, 0)).expect("room for one that is sent meanwhile");
    for name in names {
        for offset in [0, PIECE] {
            let BlobChange::Write { data, .. } = piece(name, &content, offset) else { unreachable!() };
            change(&store, BlobChange::Write { hash: name, size: None, offset, data }).expect("room");
        }
        assert_eq!(store.blob(&name).expect("readable"), None, "nobody hears of it");
    }
    for name in &names[..2] {
        let finish = BlobChange::Finish { written_as: *name, hash, size };
        assert!(change(&store, finish).expect("all is there").is_whole());
    }
    assert_stored(&store, &content);
    assert_eq!(store.blob_bytes(), 2 * size, "the third is still being written");
    drop(store);
    assert!(check(directory.path()).expect("readable").is_clean());
    let store = open(directory.path(), lazy());
    assert_eq!(store.blob_bytes(), size);
    assert_stored(&store, &content);
}

#[test]
fn a_damaged_piece_is_noticed_and_only_what_follows_is_written_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let content = content(4 * PIECE_BYTES);
    let store = open(directory.path(), lazy());
    let hash = put(&store, &content);
    store.close().expect("a healthy disk");
    let damage = "UPDATE blob_piece SET data = zeroblob(65536) WHERE (place & 16777215) = 2";
    assert_eq!(file(directory.path()).execute(damage, []).expect("damaged"), 1);
    let report = check(directory.path()).expect("readable");
    assert!(matches!(report.listed[..], [ref fault] if matches!(fault.kind, FaultKind::BadBlob { .. })), "{report:?}");

    let store = open(directory.path(), lazy());
    assert!(store.blob_piece(&hash, PIECE).expect("whole").is_some(), "the others can be read");
    let error = store.blob_piece(&hash, 2 * PIECE).expect_err("damaged");
    assert!(matches!(error, StoreError::BlobDamaged { at, .. } if at == 2 * PIECE), "{error}");
    let standing = change(&store, BlobChange::Damage { hash, at: 2 * PIECE }).expect("room");
    assert_eq!((standing.state, standing.held), (BlobState::Damaged, 2 * PIECE));
    assert_eq!(store.blob_piece(&hash, 0).expect("readable"), None, "it is not served");
    assert!(!check(directory.path()).expect("readable").is_clean(), "it is reported until it is mended");
    put(&store, &content);
    assert_stored(&store, &content);
    assert_eq!(store.blob_bytes(), content.len() as u64);
    assert!(check(directory.path()).expect("readable").is_clean());
}

#[test]
fn pieces_in_each_others_places_are_noticed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), lazy());
    let hash = put(&store, &content(2 * PIECE_BYTES));
    store.close().expect("a healthy disk");
    let file = file(directory.path());
    file.execute_batch(
        "UPDATE blob_piece SET place = place + 8; UPDATE blob_piece SET place = place - 7 - 2 * (place & 1) WHERE (place & 8) = 8",
    )
    .expect("swapped");
    drop(file);
    let store = open(directory.path(), lazy());
    assert!(matches!(store.blob_piece(&hash, 0), Err(StoreError::BlobDamaged { .. })));
    assert!(!store.verify_blob(&hash).expect("readable"));
}

#[test]
fn blobs_stop_at_their_limit_and_changes_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), Options { blob_bytes_max: Some(3 * PIECE), ..lazy() });
    let (first, second) = (content(2 * PIECE_BYTES), content(2 * PIECE_BYTES + 1));
    let kept = put(&store, &first);
    let hash = BlobHash::of(&second);
    change(&store, piece(hash, &second, 0)).expect("the last that fits");
    assert!(matches!(change(&store, piece(hash, &second, PIECE)), Err(StoreError::BlobsFull)));
    Model::new(1, 1).grow(&store, 5, 10);
    change(&store, BlobChange::Remove { hash: kept, even_whole: true }).expect("room");
    put(&store, &second);
    assert_eq!(store.blob(&kept).expect("readable"), None);
    assert_stored(&store, &second);
    drop(store);
    assert_clean(directory.path(), 5);
}

#[test]
fn removed_pieces_go_and_partial_blobs_that_nobody_goes_on_with() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), lazy());
    let (kept, gone, late) = (content(40), content(40 * PIECE_BYTES), content(9 * PIECE_BYTES));
    put(&store, &kept);
    let hash = put(&store, &gone);
    let standing = change(&store, BlobChange::Remove { hash, even_whole: false }).expect("no fault");
    assert!(standing.is_whole(), "kept");
    change(&store, BlobChange::Remove { hash, even_whole: true }).expect("room");
    change(&store, piece(BlobHash::of(&late), &late, 0)).expect("room");
    store.close().expect("a healthy disk");
    let count = || file(directory.path()).query_row("SELECT count(*) FROM blob_piece", [], |row| row.get::<_, u32>(0));
    file(directory.path()).execute("UPDATE blob SET touched_ms = 1 WHERE state = 0", []).expect("long ago");
    // The writer cleans when nothing else is to be done; a store that is closed has no writer.
    let mut driven = Driven::open(directory.path(), lazy(), Arc::new(System)).expect("a store");
    let mut turns = 0;
    while turns < 20 {
        let told = ask(driven.store(), BlobChange::Confirm { hash });
        driven.commit();
        driven.clean();
        told.recv().expect("answered").expect("room");
        turns += 1;
    }
    driven.close().expect("a healthy disk");
    assert_eq!(count().expect("readable"), 1);
    let store = open(directory.path(), lazy());
    assert_stored(&store, &kept);
    assert_eq!(store.blob_bytes(), 40);
    drop(store);
    assert!(check(directory.path()).expect("readable").is_clean());
}

#[test]
fn a_change_waits_for_one_turn_of_blobs_at_most() {
    let directory = tempfile::tempdir().expect("a directory");
    let content = content(40 * PIECE_BYTES);
    let hash = BlobHash::of(&content);
    let mut driven = Driven::open(directory.path(), lazy(), Arc::new(System)).expect("a store");
    let pieces: Vec<_> = (0..40).map(|number| ask(driven.store(), piece(hash, &content, number * PIECE))).collect();
    driven.commit();
    let mut model = Model::new(1, 1);
    model.edit(0, 10);
    let (tell, told) = channel();
    driven.store().commit(vec![model.commit(1)], Box::new(move |result| tell.send(result).expect("somebody waits")));
    driven.commit();
    told.try_recv().expect("done in the next turn").expect("room");
    let done = pieces.iter().filter(|piece| piece.try_recv().is_ok()).count();
    assert!((4..=8).contains(&done), "{done} pieces in two turns");
    while driven.commit() {}
    assert!(driven.store().verify_blob(&hash).expect("readable"));
    driven.close().expect("a healthy disk");
}

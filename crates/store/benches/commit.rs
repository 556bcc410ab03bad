//! What commits, folding, cold reads and a start cost.
//!
//! Owns: the numbers in docs/store.md. Must not: assert any. Next: `latency.rs`.

mod support;

use std::path::Path;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT};
use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::{Load, commit};
use syncline_core::id::DocumentId;
use syncline_core::storage::Commit;
use syncline_store::{Options, Store};
use tempfile::TempDir;

const DOCUMENTS: usize = 10_000;
const LOG_ROWS: usize = 65_000;

fn main() {
    divan::main();
}

fn open(directory: &Path, options: Options) -> Store {
    Store::open(directory, options).expect("a store that can be opened")
}

/// A store beside the build, on the disk that the build is on.
fn home() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

/// Nothing is folded before the store is closed.
fn lazy() -> Options {
    Options {
        fold_idle: Duration::from_secs(3600),
        fold_rows: usize::MAX,
        fold_bytes: usize::MAX,
        ..Options::default()
    }
}

/// Units of so many commits to random documents, folding included as it falls due.
#[divan::bench(args = [1, 16, 256, 4096], sample_count = 20, max_time = 8)]
fn commits(bencher: Bencher<'_, '_>, batch: usize) {
    let home = home();
    let store = open(home.path(), Options::default());
    let mut load = Load::new(DOCUMENTS);
    load.fill(&store);
    // One sample is about the same number of changes whatever the batch.
    let units = (8192 / batch).clamp(1, 64);
    bencher
        .counter(ItemsCount::new(batch * units))
        .with_inputs(|| (0..units).map(|_| load.batch(batch)).collect::<Vec<_>>())
        .bench_local_values(|units| units.into_iter().for_each(|unit| commit(&store, unit)));
}

/// A store of 10,000 documents with a log of 65,000 rows that nobody has folded.
fn unfolded() -> TempDir {
    let home = home();
    let mut load = Load::new(DOCUMENTS);
    let store = open(home.path(), lazy());
    load.fill(&store);
    store.close().expect("a healthy disk");
    let store = open(home.path(), lazy());
    (0..LOG_ROWS / 1000).for_each(|_| commit(&store, load.batch(1000)));
    home
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn start_with_a_full_log(bencher: Bencher<'_, '_>) {
    let home = unfolded();
    bencher.bench_local(|| open(home.path(), lazy()));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn fold_a_full_log_and_close(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(LOG_ROWS))
        .with_inputs(|| {
            let home = unfolded();
            let store = open(home.path(), lazy());
            (home, store)
        })
        .bench_local_refs(|(_, store)| store.close().expect("a healthy disk"));
}

#[divan::bench]
fn cold_summary(bencher: Bencher<'_, '_>) {
    let home = unfolded();
    open(home.path(), lazy()).close().expect("a healthy disk");
    let store = open(home.path(), lazy());
    let mut document = 0;
    bencher.bench_local(|| {
        document = (document + 7919) % DOCUMENTS;
        store.summary(&Load::id(document)).expect("readable").expect("it exists")
    });
}

/// 50 kB: as 250 raw changes (`false`), or as a snapshot and the last 20 changes (`true`).
#[divan::bench(args = [false, true])]
fn cold_payload(bencher: Bencher<'_, '_>, compacted: bool) {
    let home = home();
    let (store, documents) = fifty_kilobytes(home.path(), compacted);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 7) % documents.len();
        store.payload(&documents[next]).expect("readable").expect("it exists")
    });
}

#[divan::bench(args = [false, true])]
fn cold_graph(bencher: Bencher<'_, '_>, compacted: bool) {
    let home = home();
    let (store, documents) = fifty_kilobytes(home.path(), compacted);
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 7) % documents.len();
        store.graph(&documents[next]).expect("readable").expect("it exists")
    });
}

/// A hundred folded documents of real changes.
fn fifty_kilobytes(directory: &Path, compacted: bool) -> (Store, Vec<DocumentId>) {
    let compact_bytes = if compacted { 8 * 1024 } else { u64::MAX };
    let options = Options { compact_bytes, keep_changes: 20, ..Options::default() };
    let store = open(directory, options.clone());
    let documents: Vec<DocumentId> = (0..100).map(Load::id).collect();
    let mut random = StdRng::seed_from_u64(3);
    for document in &documents {
        commit(&store, vec![written(document.clone(), &mut random)]);
    }
    store.close().expect("a healthy disk");
    let store = open(directory, options);
    let ready =
        |id: &DocumentId| !compacted || store.summary(id).is_ok_and(|s| s.is_some_and(|s| s.snapshot_changes > 0));
    while !documents.iter().all(ready) {
        store.settle();
    }
    (store, documents)
}

fn written(document: DocumentId, random: &mut StdRng) -> Commit {
    let mut author = Automerge::new();
    for number in 0..250 {
        let mut value = [0; 100];
        random.fill_bytes(&mut value);
        let mut transaction = author.transaction();
        transaction.put(ROOT, format!("key {number}"), value.to_vec()).expect("a map");
        transaction.commit();
    }
    let changes = author.get_changes(&[]);
    Commit {
        document,
        changes: changes.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect(),
        heads: author.get_heads(),
        changes_before: 0,
        snapshot: None,
        contributions: Vec::new(),
    }
}

//! Bytes on the disk that are not what was written.
//!
//! Owns: drawn damage to a healthy store's files, and the judgement: recovered, refused with a reason, or reported by
//! the check, and never wrong without a word. Must not: damage a file while a store has it open.
//! Next: `faults.rs` for damage at places that matter; docs/store.md, "Failures".

mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{Model, eager, lazy, open};
use syncline_store::{Options, Store, StoreError, check};

/// Drawn damages for each file; every one opens a store, so they are dear.
const DAMAGES: u64 = 120;

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// A store with a snapshot, an index, a tail and unfolded rows of the log in the write-ahead log.
fn sample(directory: &Path) -> Vec<Model> {
    let store = open(directory, eager());
    let mut models = vec![Model::new(1, 1), Model::new(2, 1), Model::new(3, 1)];
    models[0].grow(&store, 60, 30);
    store.settle();
    models[1].grow(&store, 4, 30);
    store.close().expect("a healthy disk");
    let store = open(directory, lazy());
    models[1].grow(&store, 3, 30);
    models[2].upload(&store, 20, 10);
    drop(store);
    assert!(check(directory).expect("readable").is_clean());
    models
}

fn damage(bytes: &mut Vec<u8>, random: &mut StdRng) -> String {
    let sectors = bytes.len() / SECTOR_BYTES;
    match random.random_range(0..5) {
        0 => {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a bit at {at} flipped")
        }
        1 => {
            let at = random.random_range(0..sectors) * SECTOR_BYTES;
            bytes[at..at + SECTOR_BYTES].fill(0);
            format!("the sector at {at} zeroed")
        }
        2 => {
            let at = random.random_range(0..sectors) * SECTOR_BYTES;
            random.fill(&mut bytes[at..at + SECTOR_BYTES]);
            format!("the sector at {at} overwritten")
        }
        3 => {
            let pages = bytes.len() / PAGE_BYTES;
            let (from, to) = (random.random_range(0..pages) * PAGE_BYTES, random.random_range(0..pages) * PAGE_BYTES);
            bytes.copy_within(from..from + PAGE_BYTES, to);
            format!("the page at {from} written to {to}")
        }
        _ => {
            let length = random.random_range(1..bytes.len());
            bytes.truncate(length);
            format!("truncated to {length}")
        }
    }
}

/// Damages one file in many ways, each on a fresh copy, and judges what the store makes of it.
fn damaged(file: &str, judge: impl Fn(&Model, usize, bool, &str)) -> u64 {
    let healthy = tempfile::tempdir().expect("a temporary directory");
    let models = sample(healthy.path());
    let names = ["syncline.db", "syncline.db-wal"];
    let files = names.map(|name| fs::read(healthy.path().join(name)).expect("a file"));
    let mut told = 0;
    for seed in 0..DAMAGES {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut random = StdRng::seed_from_u64(seed);
        let mut what = format!("seed {seed}: {file}: ");
        for (name, bytes) in names.iter().zip(&files) {
            let mut bytes = bytes.clone();
            if *name == file {
                what += &damage(&mut bytes, &mut random);
            }
            fs::write(directory.path().join(name), bytes).expect("a temporary directory");
        }
        let look = || look(directory.path(), &models, &what, &judge);
        told += u64::from(catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| panic!("{what}")));
    }
    println!("{file}: {told} of {DAMAGES} damages were noticed");
    told
}

/// Whether the store or the check had anything to say.
fn look(directory: &Path, models: &[Model], what: &str, judge: &impl Fn(&Model, usize, bool, &str)) -> bool {
    let report = check(directory);
    let noticed = !report.as_ref().is_ok_and(syncline_store::CheckReport::is_clean);
    let store = match Store::open(directory, Options { durable: false, ..eager() }) {
        Ok(store) => store,
        Err(error) => {
            assert!(says_why(&error), "{what}: {error}");
            return true;
        }
    };
    for model in models {
        match store.summary(&model.id).and_then(|summary| Ok((summary, store.payload(&model.id)?))) {
            Ok((None, _)) => judge(model, 0, noticed, what),
            Ok((Some(summary), payload)) => {
                let whole = payload.is_some_and(|payload| is_prefix(model, summary.changes as usize, &payload));
                let right = whole && (summary.heads == model.prefix(summary.changes as usize).heads);
                assert!(right || noticed, "{what}: something else is served, and the check is content");
                if right {
                    judge(model, summary.changes as usize, noticed, what);
                }
            }
            Err(error) => assert!(says_why(&error), "{what}: {error}"),
        }
    }
    noticed
}

/// Whether a fresh peer would get exactly the first so many changes.
fn is_prefix(model: &Model, changes: usize, payload: &syncline_core::storage::Payload) -> bool {
    if changes > model.journal.len() || payload.changes as usize != changes {
        return false;
    }
    let mut bytes = payload.snapshot.as_ref().map(|snapshot| snapshot.to_vec()).unwrap_or_default();
    payload.tail.iter().for_each(|change| bytes.extend_from_slice(&change.bytes));
    let loaded = catch_unwind(|| automerge::Automerge::load(&bytes).map(|document| document.get_heads()));
    matches!(loaded, Ok(Ok(heads)) if heads == model.prefix(changes).heads)
}

fn says_why(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Corrupt { .. }
            | StoreError::NotAStore { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::Damaged { .. }
            | StoreError::Sqlite { .. }
    )
}

#[test]
fn a_damaged_database_is_never_wrong_without_a_word() {
    let told = damaged("syncline.db", |model, changes, noticed, what| {
        assert!(changes == model.journal.len() || noticed, "{what}: {changes} of {} changes", model.journal.len());
    });
    assert!(told > DAMAGES / 5, "{told} of {DAMAGES} damages were noticed");
}

/// SQLite cannot tell a damaged frame of its log from one that a power cut tore: what follows is gone. What is left must
/// be a state that was there.
#[test]
fn a_damaged_write_ahead_log_leaves_an_earlier_state() {
    damaged("syncline.db-wal", |model, changes, _, what| {
        assert!(changes <= model.journal.len(), "{what}: {changes} changes");
    });
}

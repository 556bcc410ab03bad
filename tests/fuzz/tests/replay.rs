//! Every input that is worth keeping, through its target.
//!
//! Owns: that each target has a corpus, and each corpus a target. Must not: judge by time.
//! Next: `../src/lib.rs`; docs/fuzzing.md.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use syncline_fuzz_targets::{TARGETS, Target};

/// Fewer than this is a corpus that was lost.
const INPUTS_MIN: usize = 5;

/// All corpora together; more belongs to whoever fuzzes, not into the repository.
const CORPORA_BYTES_MAX: u64 = 1 << 20;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

fn inputs(name: &str) -> Vec<PathBuf> {
    let directory = corpora().join(name);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

fn replay(name: &str) {
    let target: Target = TARGETS.into_iter().find(|(other, _)| *other == name).expect("a target").1;
    let inputs = inputs(name);
    assert!(inputs.len() >= INPUTS_MIN, "the corpus of {name} has {} inputs", inputs.len());
    let replay = |path: &Path| {
        let data = std::fs::read(path).expect("readable");
        catch_unwind(|| target(&data)).is_err()
    };
    let broken: Vec<_> = inputs.iter().filter(|path| replay(path)).collect();
    assert!(broken.is_empty(), "{name} breaks on {broken:#?}");
}

macro_rules! replays {
    ($($name:ident),*) => {
        /// The names of the tests below.
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*
    };
}

replays!(wire, ids, message, bloom, chunks, change, document, graph, index, reconcile, session, store, bodies);

#[test]
fn every_target_has_a_corpus_and_is_replayed() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let replayed: BTreeSet<String> = REPLAYED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(targets, replayed);
    let entries = std::fs::read_dir(corpora()).expect("fuzz/corpus");
    let found: BTreeSet<String> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(targets, found);
    let wrappers = std::fs::read_dir(corpora().join("../fuzz_targets")).expect("fuzz/fuzz_targets");
    let wrapped: BTreeSet<String> = wrappers
        .map(|entry| entry.expect("readable").path().with_extension("").file_name().expect("a name").to_owned())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    assert_eq!(targets, wrapped);
}

#[test]
fn corpora_stay_small() {
    let files = TARGETS.iter().flat_map(|(name, _)| inputs(name));
    let bytes: u64 = files.map(|path| path.metadata().expect("readable").len()).sum();
    assert!(bytes <= CORPORA_BYTES_MAX, "{bytes} bytes of corpora");
}

//! A process that is killed at any moment loses nothing that it acknowledged.
//!
//! Owns: the child that commits and says so, and the parent that kills it. A kill keeps the system's page cache, so
//! this proves atomicity and the order of acknowledgements, not that the disk was synced.
//! Must not: sleep; the moment of the kill is drawn in acknowledged commits. Next: `support/mod.rs`, `faults.rs`.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{Model, assert_clean, eager, open};
use syncline_store::{Options, Store, StoreError};

const CHILD: &str = "SYNCLINE_STORE_CRASH_CHILD";
const DOCUMENTS: u8 = 40;

/// Most commits go to so many documents; the others come later, some of them as one chunk.
const BUSY: usize = 5;

/// Changes of a document that comes as one chunk.
const WHOLE: usize = 20;

#[test]
fn acknowledged_changes_survive_a_kill() {
    if let Ok(directory) = std::env::var(CHILD) {
        return commit_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut random = StdRng::seed_from_u64(11);
    let mut acknowledged = [0usize; DOCUMENTS as usize];
    for round in 0..30 {
        let commits = random.random_range(1..60);
        let mut child = spawn(directory.path());
        collect(&mut child, commits, &mut acknowledged);
        let report = syncline_store::check(directory.path()).expect("readable after a kill");
        assert!(report.is_clean(), "round {round}: {:#?}", report.listed);
        let store = open(directory.path(), eager());
        for (document, count) in acknowledged.iter_mut().enumerate() {
            let model = Model::new(document as u8, 1);
            let found = store.summary(&model.id).expect("readable").map_or(0, |summary| summary.changes as usize);
            assert!(found >= *count, "round {round}: document {document} has {found} of {count} changes");
            // What was committed but not yet announced may be there too.
            *count = found;
        }
        // Some rounds leave the log to the next child, some fold it.
        if random.random_bool(0.3) {
            store.close().expect("a healthy disk");
        }
    }
    let store = open(directory.path(), eager());
    for (document, count) in acknowledged.iter().enumerate() {
        let mut model = Model::new(document as u8, 1);
        (0..*count).for_each(|_| drop(model.edit(0, 40)));
        model.assert_stored(&store);
    }
    store.close().expect("a healthy disk");
    assert_clean(directory.path(), acknowledged.iter().sum());
}

#[test]
fn a_second_process_is_refused_and_a_dead_one_is_not_in_the_way() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut child = spawn(directory.path());
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    wait_for_line(&mut lines);
    let refused = Store::open(directory.path(), Options::default());
    assert!(matches!(&refused, Err(StoreError::InUse { path }) if path == directory.path()), "{refused:?}");
    // The check reads beside a running process.
    assert!(syncline_store::check(directory.path()).expect("readable").is_clean());
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    open(directory.path(), Options::default());
}

/// Starts this very test binary as the process that commits.
fn spawn(directory: &Path) -> Child {
    let binary: PathBuf = std::env::current_exe().expect("a running test has a binary");
    Command::new(binary)
        .args(["--exact", "acknowledged_changes_survive_a_kill", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the same binary runs again")
}

/// Counts acknowledgements, kills after so many, and counts those that were still on their way.
fn collect(child: &mut Child, commits: usize, acknowledged: &mut [usize]) {
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for _ in 0..commits {
        note(&wait_for_line(&mut lines), acknowledged);
    }
    child.kill().expect("our own child");
    for line in lines {
        note(&line.expect("a pipe"), acknowledged);
    }
    child.wait().expect("our own child");
}

fn wait_for_line(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> String {
    let acknowledgement = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("ack ")));
    acknowledgement.expect("the child commits until it is killed").expect("a pipe")
}

fn note(line: &str, acknowledged: &mut [usize]) {
    let mut words = line.split(' ');
    // A kill may cut the last line: only a whole one counts.
    let (Some("ack"), Some(document), Some(count), Some(".")) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return;
    };
    let (document, count): (usize, usize) = (document.parse().expect("a number"), count.parse().expect("a number"));
    assert!(count >= acknowledged[document], "acknowledgements of a document count up");
    acknowledged[document] = count;
}

/// The child: commits to a few documents, several at a time, and prints what is acknowledged.
fn commit_until_killed(directory: &Path) {
    let store = open(directory, eager());
    let mut models: Vec<Model> = (0..DOCUMENTS).map(|seed| Model::new(seed, 1)).collect();
    for model in &mut models {
        let before = store.summary(&model.id).expect("readable").map_or(0, |summary| summary.changes);
        // Equal seeds make equal changes, so the history so far is made again rather than read.
        (0..before).for_each(|_| drop(model.edit(0, 40)));
    }
    let mut random = StdRng::from_rng(&mut rand::rng());
    let (tell, told) = channel();
    let mut waiting = 0;
    loop {
        let among = if random.random_bool(0.8) { BUSY } else { models.len() };
        let document = random.random_range(0..among);
        let model = &mut models[document];
        let whole = model.journal.is_empty() && random.random_bool(0.7);
        let count = if whole { WHOLE } else { random.random_range(1..4) };
        (0..count).for_each(|_| drop(model.edit(0, 40)));
        let (tell, length) = (tell.clone(), model.journal.len());
        let done = move |result: Result<(), StoreError>| {
            result.expect("a healthy disk");
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {document} {length} .").and_then(|()| out.flush()).expect("the parent reads");
            tell.send(()).expect("the child waits");
        };
        let commit = if whole { model.commit_whole() } else { model.commit(count) };
        store.commit(vec![commit], Box::new(done));
        waiting += 1;
        if waiting > 8 {
            told.recv().expect("every commit is answered");
            waiting -= 1;
        }
    }
}

//! A store's whole life on a disk that can fail: what it does, and what must be true afterwards.
//!
//! Owns: the scenario, the process that lives it, and the judgement of what a directory holds after it.
//! Must not: fail anything itself, or open a store on the mounted disk: a process that serves a file system and maps
//! files on it waits for itself. Next: `../fire.rs`, `../images.rs`.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use syncline_disk::{Cut, Disk, Image, Mount, mounted_or_skipped};
use syncline_store::{Options, Store, StoreError, check};

use crate::support::{Model, commit, eager};

/// Names the directory to the process that lives in it.
const CHILD: &str = "SYNCLINE_STORE_LIFE";

/// Tells that process at how many pages in the write-ahead log the checkpoint thread gets work.
const PAGES: &str = "SYNCLINE_STORE_LIFE_PAGES";

/// What is committed one after the other: the document, its changes, their filler, and whether as one chunk.
const FIRST: [(usize, usize, usize, bool); 6] = [
    (0, 2, 30, false),
    (0, 2, 30, false),
    (1, 30, 20, false),
    (2, 20, 10, true),
    (0, 1, 5_000, false),
    (1, 3, 20, false),
];
const SECOND: [(usize, usize, usize, bool); 2] = [(1, 2, 20, false), (2, 2, 20, false)];

/// A mounted disk with a place for one store.
pub(crate) struct Ground {
    pub(crate) disk: Disk,
    mount: Mount,
    pub(crate) place: String,
}

/// What a process did, as it told it.
pub(crate) struct Life {
    pub(crate) documents: Vec<Known>,
    /// The errors that it met: the variant's name, and the message.
    pub(crate) errors: Vec<(String, String)>,
    /// For each store that had stopped: how often a file was touched after a failed sync, when it was gone.
    pub(crate) touched: Vec<u64>,
}

/// A document and what was acknowledged of it.
pub(crate) struct Known {
    model: Model,
    /// Operations that the disk had recorded when the process said so, and the changes that were then kept.
    acknowledged: Vec<(usize, usize)>,
}

impl Ground {
    /// `None`, with a word on why, on machines that cannot mount.
    pub(crate) fn new() -> Option<Self> {
        let (disk, mount) = mounted_or_skipped()?;
        let place = disk.place(&Image::new());
        Some(Self { disk, mount, place })
    }

    /// An empty place, as at the start.
    pub(crate) fn start_over(&mut self) {
        self.disk.mend();
        self.disk.remove(&self.place);
        self.place = self.disk.place(&Image::new());
    }

    /// Lets a process live on the disk: this very binary, which must have a test of this name that calls [`live`].
    pub(crate) fn live(&self, test: &str) -> Life {
        self.live_with(test, Options::default().checkpoint_pages)
    }

    /// As [`Ground::live`], with checkpoints from so many pages on.
    pub(crate) fn live_with(&self, test: &str, checkpoint_pages: u32) -> Life {
        let directory: PathBuf = self.mount.path().join(&self.place).join("data");
        let mut child = Command::new(std::env::current_exe().expect("a running test has a binary"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CHILD, directory)
            .env(PAGES, checkpoint_pages.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the same binary runs again");
        let mut answers = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut life = Life::untold();
        let mut ended = false;
        for line in lines.map_while(Result::ok) {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            match words[..] {
                ["ack", document, changes] => {
                    let document: usize = document.parse().expect("a number");
                    let kept = (self.disk.recorded(), changes.parse().expect("a number"));
                    life.documents[document].acknowledged.push(kept);
                    // It waits, so that nothing it does next counts as done before.
                    writeln!(answers).expect("it waits");
                }
                ["error", name, message] => life.errors.push((name.to_owned(), message.to_owned())),
                ["gone"] => {
                    life.touched.push(self.disk.touched_after_failure());
                    writeln!(answers).expect("it waits");
                }
                ["end"] => ended = true,
                _ => {}
            }
        }
        let status = child.wait().expect("our own child");
        assert!(ended && status.success(), "the process died: {status}; it had met {:?}", life.errors);
        life
    }

    /// What the disk holds, opened elsewhere.
    pub(crate) fn assert_kept(&self, life: &Life, cut: Cut, what: &str) {
        life.assert_kept(&self.disk.image(&self.place, cut), usize::MAX, &format!("{what}, {cut:?}"));
    }
}

/// The life itself, if this is the process for it.
pub(crate) fn live() -> bool {
    let Ok(directory) = std::env::var(CHILD) else { return false };
    let mut models = models();
    println!();
    // Whoever cannot open a store tries again.
    let directory = Path::new(&directory);
    if stage(directory, &mut models, &FIRST, true) || stage(directory, &mut models, &FIRST, true) {
        stage(directory, &mut models, &SECOND, false);
    }
    println!("end");
    true
}

fn models() -> Vec<Model> {
    (1..=3).map(|seed| Model::new(seed, 1)).collect()
}

/// One opening, if it opens: commits, reads, and a close or an end without one.
fn stage(directory: &Path, models: &mut [Model], steps: &[(usize, usize, usize, bool)], close: bool) -> bool {
    let checkpoint_pages = std::env::var(PAGES).ok().and_then(|pages| pages.parse().ok()).expect("set by the parent");
    let opened = Store::open(directory, Options { durable: true, checkpoint_pages, ..eager() });
    let Some(store) = opened.map_err(|error| report(&error)).ok() else { return false };
    let mut stopped = false;
    for &(document, changes, filler, whole) in steps {
        let model = &mut models[document];
        (0..changes).for_each(|n| drop(model.edit(n, filler)));
        let next = if whole { model.commit_whole() } else { model.commit(changes) };
        match commit(&store, vec![next]) {
            Ok(()) => {
                assert!(!stopped, "a store that had stopped took a commit");
                println!("ack {document} {}", model.journal.len());
                std::io::stdin().read_line(&mut String::new()).expect("the parent answers");
            }
            Err(error) => {
                stopped |= matches!(error, StoreError::Poisoned { .. } | StoreError::Corrupt { .. });
                report(&error);
            }
        }
        store.settle();
    }
    for model in models {
        let read = store.summary(&model.id).and_then(|_| store.payload(&model.id)).and_then(|_| store.graph(&model.id));
        read.map_err(|error| report(&error)).ok();
    }
    if close {
        stopped |= store.close().map_err(|error| report(&error)).is_err();
    }
    drop(store);
    if stopped {
        println!("gone");
        std::io::stdin().read_line(&mut String::new()).expect("the parent answers");
    }
    true
}

fn report(error: &StoreError) {
    let debug = format!("{error:?}");
    let name = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    println!("error {name} {error}");
}

impl Life {
    /// Every document as it is if nothing is refused.
    fn untold() -> Self {
        let mut models = models();
        for (document, changes, filler, _) in FIRST.into_iter().chain(SECOND) {
            (0..changes).for_each(|n| drop(models[document].edit(n, filler)));
        }
        let documents = models.into_iter().map(|model| Known { model, acknowledged: Vec::new() }).collect();
        Self { documents, errors: Vec::new(), touched: Vec::new() }
    }

    /// The image opens, holds everything that had been acknowledged by then and nothing that was not made, and is clean.
    pub(crate) fn assert_kept(&self, image: &Image, recorded: usize, what: &str) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (path, contents) in image {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a temporary directory");
            std::fs::write(path, contents).expect("a temporary directory");
        }
        let data = directory.path().join("data");
        let store = Store::open(&data, Options { durable: false, ..eager() });
        let store = store.unwrap_or_else(|error| panic!("{what}: it does not open: {error}"));
        let mut changes = self.assert_served(&store, recorded, what);
        drop(store);
        let report = check(&data).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(report.is_clean(), "{what}: {:#?}", report.listed);
        if report.changes as usize > changes {
            // A commit in flight behind a fold that was lost: the start has folded the same again, byte for byte, and its
            // frames continue the old log's. See docs/store.md, "Failures".
            let again = Store::open(&data, Options { durable: false, ..eager() }).expect("it was open before");
            changes = self.assert_served(&again, recorded, what);
        }
        assert_eq!(report.changes as usize, changes, "{what}");
    }

    /// Returns how many changes the store serves: of each document all that were acknowledged, and none that were not made.
    fn assert_served(&self, store: &Store, recorded: usize, what: &str) -> usize {
        let mut changes = 0;
        for known in &self.documents {
            let found = store.summary(&known.model.id).unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = found.map_or(0, |summary| summary.changes as usize);
            let (owed, made) = (known.owed(recorded), known.model.journal.len());
            assert!((owed..=made).contains(&found), "{what}: {found} changes, acknowledged {owed}, made {made}");
            known.model.prefix(found).assert_stored(store);
            changes += found;
        }
        changes
    }
}

impl Known {
    /// Changes that had been acknowledged when the disk had recorded so many operations.
    pub(crate) fn owed(&self, recorded: usize) -> usize {
        let acknowledged = self.acknowledged.iter().filter(|(at, _)| *at <= recorded);
        acknowledged.map(|(_, changes)| *changes).max().unwrap_or(0)
    }
}

//! Scenarios for the store's tests: authors who make real automerge changes, and a model of what must be stored.
//!
//! Owns: the model, which knows changes and heads by its own naive counting. Must not: use the store's code for that.
//! Next: `round_trip.rs`, `crash.rs`, `faults.rs`.

#![allow(dead_code, reason = "each test binary uses another part")]

#[cfg(target_os = "linux")]
pub(crate) mod fire;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ROOT, ReadDoc};
use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::id::DocumentId;
use syncline_core::storage::Commit;
use syncline_store::{Options, Store, StoreError};

/// One document as it must be stored: every change in the order of commits.
pub(crate) struct Model {
    pub(crate) id: DocumentId,
    pub(crate) journal: Vec<(ChangeHash, Bytes)>,
    pub(crate) heads: Vec<ChangeHash>,
    authors: Vec<Automerge>,
    number: u64,
}

impl Model {
    pub(crate) fn new(seed: u8, authors: usize) -> Self {
        let id = DocumentId::from_bytes(&[seed; 16]).expect("16 bytes");
        let authors = (0..authors).map(|n| Automerge::new().with_actor(ActorId::from([seed, n as u8]))).collect();
        Self { id, journal: Vec::new(), heads: Vec::new(), authors, number: 0 }
    }

    /// One author makes one change without knowing of the others' since they last met.
    pub(crate) fn edit(&mut self, author: usize, filler: usize) -> Bytes {
        self.number += 1;
        let index = author % self.authors.len();
        let author = &mut self.authors[index];
        let mut transaction = author.transaction();
        transaction.put(ROOT, format!("key {}", self.number % 7), self.number).expect("a map");
        transaction.put(ROOT, "filler", noise(self.number, filler)).expect("a map");
        transaction.commit_with(CommitOptions::default().with_time(1_700_000_000 + self.number as i64));
        let change = author.get_last_local_change().expect("just made");
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        self.journal.push((change.hash(), bytes.clone()));
        self.heads.retain(|head| !change.deps().contains(head));
        self.heads.push(change.hash());
        self.heads.sort_unstable();
        bytes
    }

    /// One author takes in what another has.
    pub(crate) fn meet(&mut self, one: usize, other: usize) {
        let count = self.authors.len();
        let mut from = self.authors[other % count].clone();
        self.authors[one % count].merge(&mut from).expect("changes of the same document");
    }

    /// The commit of the last so many changes.
    pub(crate) fn commit(&self, changes: usize) -> Commit {
        let before = self.journal.len() - changes;
        Commit {
            document: self.id.clone(),
            changes: self.journal[before..].iter().map(|(_, bytes)| bytes.clone()).collect(),
            heads: self.heads.clone(),
            changes_before: before as u32,
            snapshot: None,
            contributions: Vec::new(),
        }
    }

    /// The commit of everything, as it comes from a peer that sent one document chunk.
    pub(crate) fn commit_whole(&self) -> Commit {
        Commit { snapshot: Some(Bytes::from(self.oracle().save())), ..self.commit(self.journal.len()) }
    }

    /// A new document of so many changes by all its authors, uploaded as one chunk.
    pub(crate) fn upload(&mut self, store: &Store, changes: usize, filler: usize) {
        (0..changes).for_each(|n| drop(self.edit(n, filler)));
        commit(store, vec![self.commit_whole()]).expect("a new document");
    }

    /// Edits and commits at once, as most tests need it.
    pub(crate) fn grow(&mut self, store: &Store, changes: usize, filler: usize) {
        for n in 0..changes {
            self.edit(n, filler);
        }
        commit(store, vec![self.commit(changes)]).expect("a commit on top of the last");
    }

    /// The document as it was after so many changes, if one author made them all.
    pub(crate) fn prefix(&self, changes: usize) -> Self {
        assert_eq!(self.authors.len(), 1, "heads of a prefix are known for one author only");
        let journal = self.journal[..changes].to_vec();
        let heads = journal.last().map(|(hash, _)| *hash).into_iter().collect();
        Self { id: self.id.clone(), journal, heads, authors: Vec::new(), number: 0 }
    }

    /// Everything that the store says of the document is what the journal says.
    pub(crate) fn assert_stored(&self, store: &Store) {
        self.assert_summary(store);
        if !self.journal.is_empty() {
            self.assert_graph(store);
            self.assert_payload(store);
            self.assert_changes(store);
        }
    }

    pub(crate) fn assert_summary(&self, store: &Store) {
        let summary = store.summary(&self.id).expect("readable");
        let Some(summary) = summary else {
            assert!(self.journal.is_empty(), "the document is missing");
            return;
        };
        assert_eq!(summary.heads, self.heads);
        assert_eq!(summary.changes as usize, self.journal.len());
        assert_eq!(summary.bytes as usize, self.journal.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    }

    fn assert_graph(&self, store: &Store) {
        let stored = store.graph(&self.id).expect("readable").expect("it has a summary");
        let tail: Vec<&Bytes> = stored.tail.iter().map(|change| &change.bytes).collect();
        let covered = stored.summary.snapshot_changes as usize;
        assert_eq!(covered + tail.len(), self.journal.len());
        assert!(
            tail.into_iter().eq(self.journal[covered..].iter().map(|(_, bytes)| bytes)),
            "the tail is the journal's"
        );
        assert!(stored.tail.windows(2).all(|pair| pair[0].stamp < pair[1].stamp), "stamps rise");
        if let Some(last) = stored.tail.last() {
            assert_eq!(last.stamp, stored.summary.last_stamp);
        }
        let graph = syncline_core::graph::Graph::from_stored(&stored, 7).expect("a whole graph");
        let hashes = (0..graph.len()).map(|node| graph.hash(node));
        assert!(hashes.eq(self.journal.iter().map(|(hash, _)| *hash)), "the graph is in journal order");
    }

    fn assert_payload(&self, store: &Store) {
        let payload = store.payload(&self.id).expect("readable").expect("it has a summary");
        assert_eq!(payload.changes as usize, self.journal.len());
        let mut bytes = payload.snapshot.map(|snapshot| snapshot.to_vec()).unwrap_or_default();
        payload.tail.iter().for_each(|change| bytes.extend_from_slice(&change.bytes));
        let loaded = Automerge::load(&bytes).expect("what a fresh peer gets");
        let mut heads = loaded.get_heads();
        heads.sort_unstable();
        assert_eq!(heads, self.heads);
        assert_eq!(canonical(&loaded), canonical(&self.oracle()));
    }

    fn assert_changes(&self, store: &Store) {
        let hashes: Vec<ChangeHash> = self.journal.iter().rev().map(|(hash, _)| *hash).collect();
        let read = store.changes(&self.id, &hashes).expect("every change of the journal");
        assert!(read.iter().eq(self.journal.iter().rev().map(|(_, bytes)| bytes)), "changes come back byte for byte");
        if let Some((hash, bytes)) = self.journal.first() {
            let first = store.changes(&self.id, std::slice::from_ref(hash));
            assert_eq!(first.expect("the first"), std::slice::from_ref(bytes));
        }
    }

    fn oracle(&self) -> Automerge {
        let mut document = Automerge::new();
        let decode =
            |(_, bytes): &(_, Bytes)| automerge::Change::from_bytes(bytes.to_vec()).expect("made by automerge");
        document.apply_changes(self.journal.iter().map(decode).collect::<Vec<_>>()).expect("a whole journal");
        document
    }
}

/// The bytes that equal documents share whatever order their changes came in.
fn canonical(document: &Automerge) -> Vec<u8> {
    let mut changes = document.get_changes(&[]);
    changes.sort_by_key(|change| (change.max_op(), change.hash()));
    let mut again = Automerge::new();
    changes.into_iter().for_each(|change| again.apply_changes([change]).expect("in causal order"));
    assert_eq!(again.keys(ROOT).collect::<BTreeSet<_>>(), document.keys(ROOT).collect());
    again.save()
}

/// Bytes that do not compress, so that sizes are what they seem.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Commits and waits for the acknowledgement.
pub(crate) fn commit(store: &Store, commits: Vec<Commit>) -> Result<(), StoreError> {
    let (tell, told) = channel();
    store.commit(commits, Box::new(move |result| tell.send(result).expect("somebody waits")));
    told.recv().expect("every commit is answered")
}

/// Thresholds so low that small scenarios fold and compact.
pub(crate) fn eager() -> Options {
    Options {
        fold_rows: 5,
        fold_idle: Duration::from_millis(1),
        compact_changes: 24,
        compact_bytes: 8 * 1024,
        keep_changes: 6,
        keep_bytes: 4 * 1024,
        durable: false,
        ..Options::default()
    }
}

/// Thresholds so high that nothing is folded before the store is closed.
pub(crate) fn lazy() -> Options {
    Options { fold_idle: Duration::from_secs(3600), durable: false, ..eager_compaction() }
}

fn eager_compaction() -> Options {
    Options { fold_rows: usize::MAX, fold_bytes: usize::MAX, ..eager() }
}

pub(crate) fn open(directory: &Path, options: Options) -> Store {
    Store::open(directory, options).expect("a store that can be opened")
}

/// The check finds nothing wrong, and as many changes as there should be.
pub(crate) fn assert_clean(directory: &Path, changes: usize) {
    let report = syncline_store::check(directory).expect("readable");
    let faults: Vec<String> = report.listed.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{faults:#?}");
    assert_eq!(report.changes as usize, changes);
}

//! Documents of opaque changes, as many and as fast as a benchmark needs them.
//!
//! Owns: random commits that continue their documents. Must not: make real changes where the store does not look.
//! Next: `commit.rs`, `latency.rs`.

#![allow(dead_code, reason = "each benchmark uses another part")]

use std::sync::mpsc::channel;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use syncline_core::ChangeHash;
use syncline_core::id::DocumentId;
use syncline_core::storage::Commit;
use syncline_store::Store;

/// Size of one opaque change, bytes: what one edit of a text costs in automerge-repo.
const CHANGE_BYTES: usize = 200;

/// Random single-change commits over many documents.
pub(crate) struct Load {
    random: StdRng,
    changes: Vec<u32>,
    bytes: Bytes,
}

impl Load {
    pub(crate) fn new(documents: usize) -> Self {
        let mut random = StdRng::seed_from_u64(5);
        let mut bytes = vec![0; 1 << 20];
        random.fill_bytes(&mut bytes);
        Self { random, changes: vec![0; documents], bytes: Bytes::from(bytes) }
    }

    pub(crate) fn id(document: usize) -> DocumentId {
        let mut id = [0; 16];
        // Ids are random in practice: neighbours in time are far apart in order.
        let mixed = (document as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        id[..8].copy_from_slice(&mixed.to_be_bytes());
        DocumentId::from_bytes(&id).expect("16 bytes")
    }

    pub(crate) fn commit(&mut self) -> Commit {
        let document = self.random.random_range(0..self.changes.len());
        self.commit_to(document)
    }

    pub(crate) fn commit_to(&mut self, document: usize) -> Commit {
        let at = self.random.random_range(0..self.bytes.len() - CHANGE_BYTES);
        let mut head = [0; 32];
        self.random.fill_bytes(&mut head);
        self.changes[document] += 1;
        Commit {
            document: Self::id(document),
            changes: vec![self.bytes.slice(at..at + CHANGE_BYTES)],
            heads: vec![ChangeHash(head)],
            changes_before: self.changes[document] - 1,
            snapshot: None,
            contributions: Vec::new(),
        }
    }

    pub(crate) fn batch(&mut self, count: usize) -> Vec<Commit> {
        (0..count).map(|_| self.commit()).collect()
    }

    /// Commits to every document once, so that the store holds them all.
    pub(crate) fn fill(&mut self, store: &Store) {
        let all: Vec<usize> = (0..self.changes.len()).collect();
        for part in all.chunks(4096) {
            let commits = part.iter().map(|document| self.commit_to(*document)).collect();
            commit(store, commits);
        }
    }
}

/// Commits as one unit and waits until it is durable.
pub(crate) fn commit(store: &Store, commits: Vec<Commit>) {
    let (tell, told) = channel();
    store.commit(commits, Box::new(move |result| tell.send(result).expect("somebody waits")));
    told.recv().expect("every commit is answered").expect("a healthy disk");
}

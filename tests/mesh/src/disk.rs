//! A disk that keeps what was committed, in memory.
//!
//! Owns: each document's changes in the order in which they were committed. Must not: lose any.
//! Next: `node.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::authored::Authored;
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::collection::DocumentState;
use syncline_core::graph::Graph;
use syncline_core::hub::{Load, Loaded};
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;
use syncline_core::storage::{Commit, Payload, Standing, StoredChange, StoredGraph, Summary};

/// What one replica has made durable.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    documents: BTreeMap<DocumentId, Stored>,
}

#[derive(Debug, Default)]
struct Stored {
    heads: Vec<ChangeHash>,
    changes: Vec<StoredChange>,
    authored: Authored,
}

impl Disk {
    /// Takes a commit; returns the hashes of its changes.
    pub(crate) fn commit(&mut self, commit: Commit, stamp: Stamp) -> Vec<ChangeHash> {
        let stored = self.documents.entry(commit.document).or_default();
        assert_eq!(commit.changes_before as usize, stored.changes.len(), "a commit on top of another history");
        stored.heads = commit.heads;
        let authored = commit.changes.iter().filter_map(Authored::of_change).max();
        stored.authored = stored.authored.max(authored.unwrap_or_default());
        let named = |bytes: &Bytes| Change::name(bytes).expect("the hub commits changes");
        let hashes = commit.changes.iter().map(named).collect();
        stored.changes.extend(commit.changes.into_iter().map(|bytes| StoredChange { stamp, bytes }));
        hashes
    }

    /// Answers a hub.
    pub(crate) fn load(&self, document: &DocumentId, what: &Load, hash_key: u64) -> Loaded {
        let stored = self.documents.get(document);
        match what {
            Load::Summary => Loaded::Summary(Standing::from(stored.map(Stored::summary))),
            Load::Graph => Loaded::Graph(stored.map(|stored| {
                let graph = StoredGraph { summary: stored.summary(), index: Vec::new(), tail: stored.changes.clone() };
                Box::new(Graph::from_stored(&graph, hash_key).expect("what was committed is a graph"))
            })),
            Load::Payload => Loaded::Payload(stored.map(|stored| Payload {
                snapshot: None,
                tail: stored.changes.clone(),
                changes: stored.changes.len() as u32,
            })),
            Load::Changes { session, hashes } => {
                let find = |hash: &ChangeHash| {
                    let all = stored.iter().flat_map(|stored| &stored.changes);
                    let found = all.map(|change| &change.bytes).find(|bytes| Change::name(bytes) == Some(*hash));
                    found.map(|bytes| (*hash, bytes.clone()))
                };
                Loaded::Changes { session: *session, changes: hashes.iter().filter_map(find).collect() }
            }
            Load::Owners { .. } => unreachable!("whose changes are is not kept in this world"),
        }
    }

    /// The changes of a document from this one on.
    pub(crate) fn changes_from(&self, document: &DocumentId, from: usize) -> Vec<Bytes> {
        let stored = self.documents.get(document);
        stored.iter().flat_map(|stored| &stored.changes).skip(from).map(|change| change.bytes.clone()).collect()
    }

    /// The documents, in the states in which they are.
    pub(crate) fn states(&self) -> impl Iterator<Item = (DocumentId, DocumentState)> {
        let state = |stored: &Stored| DocumentState::from(&Standing::from(Some(stored.summary())));
        self.documents.iter().map(move |(document, stored)| (document.clone(), state(stored)))
    }

    /// The documents, with their heads.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&DocumentId, &[ChangeHash])> {
        self.documents.iter().map(|(document, stored)| (document, &stored.heads[..]))
    }
}

impl Stored {
    fn summary(&self) -> Summary {
        Summary {
            heads: self.heads.clone(),
            authored: self.authored,
            changes: self.changes.len() as u32,
            bytes: self.changes.iter().map(|change| change.bytes.len() as u64).sum(),
            last_stamp: self.changes.last().map(|change| change.stamp).unwrap_or_default(),
            snapshot_changes: 0,
            snapshot_bytes: 0,
        }
    }
}

/// Bounds that keep a few documents in memory.
pub(crate) fn limits() -> Limits {
    Limits::default()
}

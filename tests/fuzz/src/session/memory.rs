//! A store in memory that answers as the real one does, when the script lets it.
//!
//! Owns: what is durable. Must not: use the hub's own idea of that; a refused commit leaves nothing.
//! Next: `world.rs`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::authored::Authored;
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::graph::Graph;
use syncline_core::hub::{Load, Loaded};
use syncline_core::id::{DocumentId, ReplicaId};
use syncline_core::life::{Life, LifeUpdate};
use syncline_core::storage::{Commit, Payload, Standing, StoredChange, StoredGraph, Summary};

/// All documents that are durable.
#[derive(Default)]
pub(super) struct Memory {
    documents: BTreeMap<DocumentId, Stored>,
    lives: BTreeMap<DocumentId, Life>,
}

#[derive(Default)]
struct Stored {
    changes: Vec<Bytes>,
    order: Vec<ChangeHash>,
    hashes: BTreeSet<ChangeHash>,
    heads: Vec<ChangeHash>,
    snapshot: Option<Snapshot>,
}

struct Snapshot {
    covered: u32,
    bytes: Bytes,
    index: Bytes,
}

impl Memory {
    /// Whether the commit fits on top of what is there; if so, it is durable.
    pub(super) fn commit(&mut self, commit: Commit) -> bool {
        let stored = self.documents.entry(commit.document).or_default();
        if stored.changes.len() != commit.changes_before as usize {
            return false;
        }
        for bytes in commit.changes {
            let change = Change::decode_stored(bytes.clone()).expect("only changes are committed");
            assert!(change.deps.iter().all(|dep| stored.hashes.contains(dep)), "committed before its dependencies");
            assert!(stored.hashes.insert(change.hash), "committed twice");
            stored.order.push(change.hash);
            stored.changes.push(bytes);
        }
        stored.heads = commit.heads;
        true
    }

    /// The record that stands after the update.
    pub(super) fn set_life(&mut self, document: &DocumentId, update: LifeUpdate) -> Life {
        let before = self.lives.get(document).copied();
        let own = |deleted| Life::own(before, Stamp::from_u64(1), ReplicaId([7; 16]), deleted);
        let life = Life::after(before, update, own);
        self.lives.insert(document.clone(), life);
        life
    }

    pub(super) fn is_deleted(&self, document: &DocumentId) -> bool {
        self.lives.get(document).is_some_and(|life| life.deleted)
    }

    pub(super) fn holds(&self, document: &DocumentId, hash: &ChangeHash) -> bool {
        self.documents.get(document).is_some_and(|stored| stored.hashes.contains(hash))
    }

    /// Whether these bytes are the document's snapshot.
    pub(super) fn is_snapshot(&self, document: &DocumentId, bytes: &[u8]) -> bool {
        let stored = self.documents.get(document).and_then(|stored| stored.snapshot.as_ref());
        stored.is_some_and(|snapshot| snapshot.bytes == bytes)
    }

    /// Bytes of the largest answer that can be made of what is stored.
    pub(super) fn bytes(&self) -> usize {
        let sizes = self.documents.values().map(|stored| {
            let raw: usize = stored.changes.iter().map(|bytes| bytes.len() + 8).sum();
            raw + stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes.len())
        });
        sizes.sum()
    }

    /// Puts the first changes into a snapshot, and tells how many, unless the present one covers as many.
    pub(super) fn compact(&mut self, document: &DocumentId, covered: u32) -> Option<u32> {
        let stored = self.documents.get_mut(document)?;
        let covered = covered.min(stored.changes.len() as u32);
        let before = stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.covered);
        let mut replayed = automerge::Automerge::new();
        let changes = stored.changes[..covered as usize].iter().map(|raw| automerge::Change::try_from(&raw[..]));
        let changes: Vec<_> = changes.collect::<Result<_, _>>().ok()?;
        // What automerge does not take stays raw, as in the real store.
        if covered <= before || replayed.apply_changes(changes).is_err() {
            return None;
        }
        let graph = Graph::from_stored(&stored.graph(), 7).expect("what was committed is a graph");
        let index = Bytes::from(graph.encode_index(0, covered));
        stored.snapshot = Some(Snapshot { covered, bytes: replayed.save().into(), index });
        Some(covered)
    }

    pub(super) fn load(&self, document: &DocumentId, what: &Load, hash_key: u64) -> Loaded {
        let stored = self.documents.get(document).filter(|stored| !stored.changes.is_empty());
        match what {
            Load::Summary => {
                let life = self.lives.get(document).copied();
                Loaded::Summary(Standing { summary: stored.map(Stored::summary), life, local_only: false })
            }
            Load::Graph => {
                let load = |stored: &Stored| Graph::from_stored(&stored.graph(), hash_key).expect("a whole graph");
                Loaded::Graph(stored.map(load).map(Box::new))
            }
            Load::Payload => Loaded::Payload(stored.map(|stored| Payload {
                snapshot: stored.snapshot.as_ref().map(|snapshot| snapshot.bytes.clone()),
                tail: stored.tail(),
                changes: stored.changes.len() as u32,
            })),
            Load::Changes { session, hashes } => {
                let find = |hash: &ChangeHash| {
                    let stored = stored?;
                    let place = stored.order.iter().position(|stored| stored == hash)?;
                    Some((*hash, stored.changes[place].clone()))
                };
                Loaded::Changes { session: *session, changes: hashes.iter().filter_map(find).collect() }
            }
            Load::Owners { .. } => unreachable!("whose changes are is not kept in this world"),
        }
    }
}

impl Stored {
    fn tail(&self) -> Vec<StoredChange> {
        let covered = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.covered as usize);
        let stored = |bytes: &Bytes| StoredChange { stamp: Stamp::from_u64(1), bytes: bytes.clone() };
        self.changes[covered..].iter().map(stored).collect()
    }

    fn graph(&self) -> StoredGraph {
        let index = self.snapshot.iter().map(|snapshot| snapshot.index.clone()).collect();
        StoredGraph { summary: self.summary(), index, tail: self.tail() }
    }

    fn summary(&self) -> Summary {
        Summary {
            heads: self.heads.clone(),
            changes: self.changes.len() as u32,
            bytes: self.changes.iter().map(|bytes| bytes.len() as u64).sum(),
            last_stamp: Stamp::from_u64(1),
            authored: self.changes.iter().filter_map(Authored::of_change).max().unwrap_or_default(),
            snapshot_changes: self.snapshot.as_ref().map_or(0, |snapshot| snapshot.covered),
            snapshot_bytes: self.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes.len() as u64),
        }
    }
}

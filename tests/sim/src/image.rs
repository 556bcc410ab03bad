//! What is on a disk: per document the changes in journal order, and a snapshot of the first of them.
//!
//! Owns: appending with the checks that a store relies on, reading in the forms of `core::storage`, snapshots.
//! Must not: know what is not durable. Next: `disk.rs`; docs/store.md.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::authored::Authored;
use syncline_core::clock::Stamp;
use syncline_core::collection::DocumentState;
use syncline_core::graph::Graph;
use syncline_core::hub::{Load, Loaded, StoreFailure};
use syncline_core::id::DocumentId;
use syncline_core::life::Life;
use syncline_core::storage::{Commit, Payload, Standing, StoredChange, StoredGraph, Summary};

use crate::disk::Call;
use crate::oracle::{Checked, Oracle, require};
use crate::shares::Subjects;

/// Everything that a disk holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    pub(crate) documents: BTreeMap<DocumentId, Stored>,
    /// Who said last whether a document is deleted.
    pub(crate) lives: BTreeMap<DocumentId, Life>,
    /// Documents that stay on their machine.
    pub(crate) local_only: BTreeSet<DocumentId>,
    pub(crate) highest: Stamp,
    /// Whose actors are, and what subjects have stored.
    pub(crate) subjects: Subjects,
}

/// One document.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) changes: Vec<StoredChange>,
    hash_order: Vec<ChangeHash>,
    pub(crate) hashes: BTreeSet<ChangeHash>,
    pub(crate) heads: BTreeSet<ChangeHash>,
    /// The heads after each commit, from those of nothing on.
    pub(crate) history: Vec<Vec<ChangeHash>>,
    snapshot: Option<Snapshot>,
    /// Every snapshot that there was: one that has been read may still be on its way.
    pub(crate) snapshots: Vec<Bytes>,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct Snapshot {
    covers: u32,
    bytes: Bytes,
    index: Vec<Bytes>,
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            changes: Vec::new(),
            hash_order: Vec::new(),
            hashes: BTreeSet::new(),
            heads: BTreeSet::new(),
            history: vec![Vec::new()],
            snapshot: None,
            snapshots: Vec::new(),
            bytes: 0,
        }
    }
}

impl Image {
    /// Whether each commit begins where the document ends.
    pub(crate) fn continues(&self, commits: &[(u64, Commit)]) -> bool {
        let mut lengths: BTreeMap<&DocumentId, usize> = BTreeMap::new();
        commits.iter().all(|(_, commit)| {
            let stored = self.documents.get(&commit.document).map_or(0, |stored| stored.changes.len());
            let length = lengths.entry(&commit.document).or_insert(stored);
            let fits = *length == commit.changes_before as usize;
            *length += commit.changes.len();
            fits
        })
    }

    /// Appends one change, which somebody must have made, and whose dependencies must be there.
    pub(crate) fn append(&mut self, document: &DocumentId, bytes: Bytes, stamp: Stamp, oracle: &Oracle) -> Checked {
        let hash = ChangeHash(crate::forge::hash(crate::forge::CHANGE, crate::forge::body(&bytes)));
        let stored = self.documents.entry(document.clone()).or_default();
        let made = oracle.made(&hash);
        require(made.is_some(), "stored changes were made by somebody", || format!("nobody made {hash}"))?;
        let deps = made.map(|made| made.deps.as_slice()).unwrap_or_default();
        let missing = deps.iter().find(|dep| !stored.hashes.contains(dep));
        require(missing.is_none(), "dependencies are stored first", || {
            format!("{hash} is stored without {missing:?}")
        })?;
        require(stored.hashes.insert(hash), "a change is stored once", || format!("{hash} is stored twice"))?;
        for dep in deps {
            stored.heads.remove(dep);
        }
        stored.heads.insert(hash);
        stored.hash_order.push(hash);
        stored.bytes += bytes.len() as u64;
        stored.changes.push(StoredChange { stamp, bytes });
        self.highest = stamp;
        Ok(())
    }

    /// Ends a commit, whose heads must be those of the changes.
    pub(crate) fn end_commit(&mut self, commit: &Commit) -> Checked {
        let Some(stored) = self.documents.get_mut(&commit.document) else { return Ok(()) };
        let heads: Vec<ChangeHash> = stored.heads.iter().copied().collect();
        require(heads == commit.heads, "committed heads are the heads of the changes", || {
            format!("{:?} where the changes have {heads:?}", commit.heads)
        })?;
        stored.history.push(heads);
        self.subjects.note(commit);
        Ok(())
    }

    /// The record that stands of the document that a call is about, if it is about one's life.
    pub(crate) fn life_of(&self, call: &Call) -> Option<Life> {
        match call {
            Call::Life { document, .. } => self.lives.get(document).copied(),
            Call::Commits(_) | Call::LocalOnly { .. } => None,
        }
    }

    pub(crate) fn set_local_only(&mut self, document: &DocumentId, local_only: bool) {
        if local_only {
            self.local_only.insert(document.clone());
        } else {
            self.local_only.remove(document);
        }
    }

    /// Whether a document is deleted.
    pub(crate) fn is_deleted(&self, document: &DocumentId) -> bool {
        self.lives.get(document).is_some_and(|life| life.deleted)
    }

    /// The first so many changes of each document.
    pub(crate) fn prefix(&self, lengths: &BTreeMap<DocumentId, usize>, oracle: &Oracle) -> Checked<Self> {
        let mut prefix = Self::default();
        for (document, stored) in &self.documents {
            let length = lengths.get(document).copied().unwrap_or(0);
            for change in stored.changes.iter().take(length) {
                prefix.append(document, change.bytes.clone(), change.stamp, oracle)?;
            }
            if let Some(begun) = prefix.documents.get_mut(document) {
                begun.history.push(begun.heads.iter().copied().collect());
                begun.snapshots.clone_from(&stored.snapshots);
            }
        }
        prefix.lives.clone_from(&self.lives);
        prefix.local_only.clone_from(&self.local_only);
        prefix.subjects = self.subjects.clone();
        prefix.highest = self.highest;
        Ok(prefix)
    }

    /// The state of every document, as a start reads them for a set.
    pub(crate) fn states(&self) -> BTreeMap<DocumentId, DocumentState> {
        let ids: BTreeSet<&DocumentId> = self.documents.keys().chain(self.lives.keys()).collect();
        let state = |id: &DocumentId| {
            let summary = self.documents.get(id).map(Stored::summary);
            let (life, local_only) = (self.lives.get(id).copied(), self.local_only.contains(id));
            DocumentState::from(&Standing { summary, life, local_only })
        };
        ids.into_iter().map(|id| (id.clone(), state(id))).collect()
    }

    /// Reads what a hub asks for.
    pub(crate) fn load(&mut self, document: &DocumentId, what: &Load, hash_key: u64) -> Result<Loaded, StoreFailure> {
        let stored = self.documents.get(document);
        Ok(match what {
            Load::Summary => {
                let life = self.lives.get(document).copied();
                let local_only = self.local_only.contains(document);
                Loaded::Summary(Standing { summary: stored.map(Stored::summary), life, local_only })
            }
            Load::Graph => {
                let graph = stored.map(|stored| Graph::from_stored(&stored.graph(), hash_key)).transpose();
                let graph = graph.map_err(|error| StoreFailure { message: error.to_string() })?;
                Loaded::Graph(graph.map(Box::new))
            }
            Load::Payload => Loaded::Payload(stored.map(Stored::payload)),
            Load::Changes { session, hashes } => {
                let find = |hash: &ChangeHash| Some((*hash, stored?.find(hash)?));
                Loaded::Changes { session: *session, changes: hashes.iter().filter_map(find).collect() }
            }
            Load::Owners { actors, subject } => self.subjects.load(actors, subject.as_ref()),
        })
    }

    /// Moves more of a document into its snapshot, as the store's compactor does: `None` if there is nothing to move,
    /// or automerge refuses the document.
    pub(crate) fn compact(&mut self, document: &DocumentId, random: u64) -> Option<u32> {
        let stored = self.documents.get_mut(document)?;
        let before = stored.covered();
        let raw = stored.changes.len() as u32 - before;
        let covers = before + (random % u64::from(raw.max(1))) as u32 + 1;
        if raw == 0 {
            return None;
        }
        let changes =
            stored.changes[..covers as usize].iter().map(|change| automerge::Change::try_from(&change.bytes[..]));
        let mut built = automerge::Automerge::new();
        built.apply_changes(changes.collect::<Result<Vec<_>, _>>().ok()?).ok()?;
        let bytes = Bytes::from(built.save());
        let graph = Graph::from_stored(&stored.graph(), 0).ok()?;
        let mut index = stored.snapshot.as_ref().map(|snapshot| snapshot.index.clone()).unwrap_or_default();
        index.push(Bytes::from(graph.encode_index(before, covers)));
        stored.snapshots.push(bytes.clone());
        stored.snapshot = Some(Snapshot { covers, bytes, index });
        Some(covers)
    }
}

impl Stored {
    fn covered(&self) -> u32 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.covers)
    }

    fn tail(&self) -> Vec<StoredChange> {
        self.changes[self.covered() as usize..].to_vec()
    }

    /// The changes in journal order.
    pub(crate) fn hash_order(&self) -> &[ChangeHash] {
        &self.hash_order
    }

    /// Bytes of all changes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn find(&self, hash: &ChangeHash) -> Option<Bytes> {
        let at = self.hash_order.iter().position(|other| other == hash)?;
        Some(self.changes[at].bytes.clone())
    }

    fn summary(&self) -> Summary {
        Summary {
            heads: self.heads.iter().copied().collect(),
            changes: self.changes.len() as u32,
            bytes: self.bytes,
            last_stamp: self.changes.last().map(|change| change.stamp).unwrap_or_default(),
            authored: self
                .changes
                .iter()
                .filter_map(|change| Authored::of_change(&change.bytes))
                .max()
                .unwrap_or_default(),
            snapshot_changes: self.covered(),
            snapshot_bytes: self.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes.len() as u64),
        }
    }

    fn graph(&self) -> StoredGraph {
        let index = self.snapshot.as_ref().map(|snapshot| snapshot.index.clone()).unwrap_or_default();
        StoredGraph { summary: self.summary(), index, tail: self.tail() }
    }

    fn payload(&self) -> Payload {
        let snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.bytes.clone());
        Payload { snapshot, tail: self.tail(), changes: self.changes.len() as u32 }
    }
}

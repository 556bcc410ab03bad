//! The seam between the hub and a store: what is committed, and in which forms it comes back.
//!
//! Owns: the types that cross. Must not: know SQLite, or any other engine.
//! Next: `hub.rs`, the store crate; docs/store.md.

use bytes::Bytes;

use crate::ChangeHash;
use crate::authored::Authored;
use crate::clock::Stamp;
use crate::id::DocumentId;
use crate::life::Life;
use crate::subject::Contribution;

/// New changes of one document, to be made durable together.
///
/// The store stamps each change with its clock in the order in which it commits them, so that the journal's order is
/// the order of the stamps whatever thread a commit came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The document.
    pub document: DocumentId,
    /// Raw, uncompressed change chunks; dependencies come before dependents.
    pub changes: Vec<Bytes>,
    /// The document's heads once these changes are in, sorted.
    pub heads: Vec<ChangeHash>,
    /// How many changes the document has before these: a guard against a commit on top of another history.
    pub changes_before: u32,
    /// The same changes, all of them and no others, as one automerge document chunk, if they came as one and the
    /// document has no earlier changes. A store may keep it in place of the raw chunks.
    pub snapshot: Option<Bytes>,
    /// Who brought these changes, where that is kept: it becomes durable with them.
    pub contributions: Vec<Contribution>,
}

/// One change as the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChange {
    /// When this replica committed it.
    pub stamp: Stamp,
    /// The raw, uncompressed change chunk.
    pub bytes: Bytes,
}

/// What a store knows of a document, whether it has changes of it or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its changes in short; `None` if there are none.
    pub summary: Option<Summary>,
    /// Who said last whether it is deleted; `None` if nobody did.
    pub life: Option<Life>,
    /// It stays on this machine: no peer may learn that it is here.
    pub local_only: bool,
}

impl From<Option<Summary>> for Standing {
    fn from(summary: Option<Summary>) -> Self {
        Self { summary, life: None, local_only: false }
    }
}

/// What is known of a stored document without reading its changes: enough to answer a peer that is in sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Hashes of the changes that no other change depends on, sorted.
    pub heads: Vec<ChangeHash>,
    /// Number of changes.
    pub changes: u32,
    /// Bytes of all raw change chunks.
    pub bytes: u64,
    /// Stamp of the change committed last.
    pub last_stamp: Stamp,
    /// When it was last written to, by its authors' clocks.
    pub authored: Authored,
    /// The first so many changes in journal order are covered by the snapshot.
    pub snapshot_changes: u32,
    /// Bytes of the snapshot.
    pub snapshot_bytes: u64,
}

/// A document's change graph: encoded node records under the snapshot, raw changes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGraph {
    /// The document in short.
    pub summary: Summary,
    /// Pieces written by `Graph::encode_index`, in order; together they hold `summary.snapshot_changes` nodes.
    pub index: Vec<Bytes>,
    /// The changes after the snapshot, in journal order.
    pub tail: Vec<StoredChange>,
}

/// A document's bytes for a peer that has nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// An automerge document chunk that covers the first `changes - tail.len()` changes.
    pub snapshot: Option<Bytes>,
    /// The changes after the snapshot, in journal order.
    pub tail: Vec<StoredChange>,
    /// Number of changes in snapshot and tail together.
    pub changes: u32,
}

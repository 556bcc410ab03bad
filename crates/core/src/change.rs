//! One change: read from hostile bytes, checked, indexed.
//!
//! Owns: what can be known of a change from its own bytes. Must not: know other changes; that is the graph's part.
//! Next: `change/header.rs`, `change/operations.rs`, `change/kind.rs`, `graph.rs`; docs/architecture.md "What is refused".
//!
//! A change that automerge accepts on its own can still stop every client that applies it, swell to gigabytes, or come
//! out of a saved document with another hash. So a change from a peer must be exactly what automerge would write: each
//! column in its one canonical encoding, every operation one that automerge makes, run lengths counted before anything
//! is expanded. The library's own decoder is the second line, not the first.

mod error;
mod header;
mod kind;
mod operations;

use std::fmt;

use automerge::ChangeHash;
use bytes::Bytes;
use smallvec::SmallVec;

pub use crate::chunk::reader::Damage;
use crate::chunk::runs::count_rows;
use crate::chunk::{Chunk, ChunkKind, guarded};
use crate::limits::Limits;
pub use error::ChangeError;
use header::Header;
pub use kind::{Expectation, KindRun, ObjectType, ObjectUse, OperationId, OperationKind, OperationRange, Reference};

/// Longest actor id accepted, in bytes. automerge mints 16.
pub const ACTOR_BYTES_MAX: usize = 128;

/// A compressed change may inflate to so many times its size, and [`INFLATE_ALLOWANCE_BYTES`] more.
const INFLATE_RATIO_MAX: usize = 100;
const INFLATE_ALLOWANCE_BYTES: usize = 64 * 1024;

/// automerge holds operation counters and sequence numbers in 32 bits.
const COUNTER_MAX: u64 = u32::MAX as u64;

/// Seconds; beyond this, JavaScript cannot hold a time, and differences of times stay far from overflow.
const TIME_MAX: u64 = 1 << 53;

/// The author of a change: one device, tab or process.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor(SmallVec<[u8; 16]>);

impl Actor {
    /// The actor with these bytes.
    ///
    /// # Errors
    /// [`ChangeError::ActorTooLong`] above [`ACTOR_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ChangeError> {
        if bytes.len() > ACTOR_BYTES_MAX {
            return Err(ChangeError::ActorTooLong { bytes: bytes.len() });
        }
        Ok(Self(SmallVec::from_slice(bytes)))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One valid change, without its operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its identity.
    pub hash: ChangeHash,
    /// The changes it was made on top of, sorted.
    pub deps: SmallVec<[ChangeHash; 2]>,
    /// Its author.
    pub actor: Actor,
    /// Its number among its author's changes, from one.
    pub seq: u64,
    /// The counter of its first operation.
    pub start_op: u64,
    /// Number of operations.
    pub operations: u64,
    /// When its author made it, seconds as stored.
    pub time: i64,
    /// The raw, uncompressed chunk with its header.
    pub bytes: Bytes,
    /// The operations of other changes that this one names, and what it takes them for, sorted. Empty after
    /// [`Change::decode_stored`].
    pub references: Vec<Reference>,
    /// What other changes may take this one's operations for, from the first operation on.
    pub kinds: SmallVec<[KindRun; 1]>,
}

impl Change {
    /// Reads one change from a peer, compressed or not, and checks everything that its own bytes can show.
    ///
    /// # Errors
    /// [`ChangeError`], whose variants are the checks.
    pub fn decode(bytes: Bytes, limits: &Limits) -> Result<Self, ChangeError> {
        let change = Self::decode_own(bytes, limits)?;
        change.agree_with_automerge()?;
        Ok(change)
    }

    /// As [`Change::decode`], for a change that automerge has just written, here or for a loader: its decoder has nothing to say of it.
    ///
    /// # Errors
    /// [`ChangeError`], whose variants are the checks.
    pub fn decode_own(bytes: Bytes, limits: &Limits) -> Result<Self, ChangeError> {
        let mut chunk = sole_chunk(&bytes)?;
        match chunk.kind {
            ChunkKind::Change => {}
            ChunkKind::CompressedChange => {
                let ratio_max = chunk.body.len().saturating_mul(INFLATE_RATIO_MAX) + INFLATE_ALLOWANCE_BYTES;
                chunk = chunk.inflated(ratio_max.min(limits.inflate_bytes_max))?;
            }
            kind @ (ChunkKind::Document | ChunkKind::Bundle) => return Err(ChangeError::WrongKind { kind }),
        }
        let hash = verified_hash(&chunk)?;
        let header = Header::read(&chunk.body)?;
        header.check(limits)?;
        let operations = header.count_operations()?;
        if operations > limits.change_operations_max {
            return Err(ChangeError::TooManyOperations { operations, operations_max: limits.change_operations_max });
        }
        let end_max = limits.document_operations_max.min(COUNTER_MAX);
        if header.start_op.saturating_add(operations) > end_max {
            return Err(ChangeError::StartOutOfRange { start_op: header.start_op, operations, end_max });
        }
        let (references, kinds) = operations::check(&header, operations, limits)?;
        Ok(header.into_change(hash, operations, chunk.bytes.clone(), references, kinds))
    }

    /// Reads one change from this replica's own store: header fields, hash, number and kinds of operations.
    ///
    /// # Errors
    /// [`ChangeError`] when the stored bytes are damaged.
    pub fn decode_stored(bytes: Bytes) -> Result<Self, ChangeError> {
        let chunk = sole_chunk(&bytes)?;
        if chunk.kind != ChunkKind::Change {
            return Err(ChangeError::WrongKind { kind: chunk.kind });
        }
        let hash = verified_hash(&chunk)?;
        let header = Header::read(&chunk.body)?;
        let operations = header.count_operations()?;
        if header.start_op.saturating_add(operations) > COUNTER_MAX {
            return Err(ChangeError::StartOutOfRange { start_op: header.start_op, operations, end_max: COUNTER_MAX });
        }
        let kinds = operations::kinds(&header, operations)?;
        Ok(header.into_change(hash, operations, chunk.bytes.clone(), Vec::new(), kinds))
    }

    /// The hash of a raw change chunk whose checksum is right, whatever else may be wrong with it.
    #[must_use]
    pub fn name(bytes: &Bytes) -> Option<ChangeHash> {
        let chunk = sole_chunk(bytes).ok().filter(|chunk| chunk.kind == ChunkKind::Change)?;
        verified_hash(&chunk).ok()
    }

    /// The counter of the last operation; one less than `start_op` when there is none.
    #[must_use]
    pub fn max_op(&self) -> u64 {
        self.start_op + self.operations - 1
    }

    /// The second line: automerge's own decoder must read the same change.
    fn agree_with_automerge(&self) -> Result<(), ChangeError> {
        let theirs = guarded(|| automerge::Change::try_from(&self.bytes[..]))
            .ok_or(ChangeError::LibraryPanicked)?
            .map_err(|error| ChangeError::LibraryRefused { reason: error.to_string() })?;
        let disagreement = |field| Err(ChangeError::LibraryDisagrees { field });
        if theirs.hash() != self.hash {
            return disagreement("hash");
        }
        if theirs.deps() != &self.deps[..] {
            return disagreement("dependencies");
        }
        if theirs.actor_id().to_bytes() != self.actor.as_bytes() {
            return disagreement("actor");
        }
        if theirs.seq() != self.seq {
            return disagreement("sequence number");
        }
        if theirs.start_op().get() != self.start_op || theirs.len() as u64 != self.operations {
            return disagreement("operations");
        }
        if theirs.author().is_some() && self.seq != 1 {
            return Err(ChangeError::AuthorNotFirst { seq: self.seq });
        }
        Ok(())
    }
}

impl Header<'_> {
    fn into_change(
        self,
        hash: ChangeHash,
        operations: u64,
        bytes: Bytes,
        references: Vec<Reference>,
        kinds: SmallVec<[KindRun; 1]>,
    ) -> Change {
        let Self { deps, actor, seq, start_op, time, .. } = self;
        Change { hash, deps, actor, seq, start_op, operations, time, bytes, references, kinds }
    }

    /// From the run lengths of the action column; nothing is expanded.
    fn count_operations(&self) -> Result<u64, ChangeError> {
        count_rows::<u64>(self.columns.action).map_err(|damage| ChangeError::Damaged { part: "action", damage })
    }
}

fn sole_chunk(bytes: &Bytes) -> Result<Chunk, ChangeError> {
    let chunk = Chunk::first(bytes)?;
    match bytes.len() - chunk.bytes.len() {
        0 => Ok(chunk),
        extra => Err(ChangeError::TrailingBytes { bytes: extra }),
    }
}

fn verified_hash(chunk: &Chunk) -> Result<ChangeHash, ChangeError> {
    let hash = chunk.hash();
    if hash.0[..4] == chunk.checksum { Ok(hash) } else { Err(ChangeError::BadChecksum { hash }) }
}

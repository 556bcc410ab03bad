//! The change graph of one document: which changes there are and what each depends on.
//!
//! Owns: nodes in journal order, their dependencies, the recent raw bytes, which prefix is durable, the heads.
//! Must not: build the document, know peers, or trust a change that [`Graph::admit`] has not passed.
//! Next: `sync.rs`; docs/architecture.md "The change graph".
//!
//! A node is an index. Indices follow the journal, so dependencies always have smaller indices and "the first n
//! changes" is closed under dependencies. That makes a peer's knowledge cheap to write down: see [`Frontier`].

mod admission;
mod chunked;
mod difference;
mod index;
mod kinds;
mod orphans;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::ChangeHash;
use crate::change::{Actor, Change, ChangeError};
use crate::storage::StoredGraph;
use chunked::Chunked;
use kinds::KindRun;

pub use admission::{Admission, Refusal};
pub use difference::Frontier;
pub use orphans::{OrphanError, Orphans};

const NONE: u32 = u32::MAX;

/// Widest stretch of concurrent nodes in which [`Node::base`] is computed exactly; beyond it a lower bound is kept.
const EXACT_BASE_WINDOW: u32 = 512;

/// Changes up to this size are copied out of the message that they came in, bytes. Of a larger one the rest is small.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// The change graph of one document.
#[derive(Debug, Clone)]
pub struct Graph {
    hashes: Chunked<ChangeHash>,
    nodes: Chunked<Node>,
    /// Dependency lists of nodes that have not exactly one: a count, then indices.
    dependency_lists: Vec<u32>,
    by_hash: HashTable<u32>,
    hash_key: u64,
    actors: Vec<ActorLog>,
    actor_numbers: BTreeMap<Actor, u32>,
    /// Raw bytes of the nodes from `raw_from` on; earlier ones are in the store's snapshot.
    raw: VecDeque<Bytes>,
    raw_from: u32,
    raw_bytes: usize,
    durable: u32,
    /// Heads among the durable nodes.
    heads: SmallVec<[u32; 4]>,
    max_op: u64,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// The only dependency, or [`NONE`].
    parent: u32,
    /// Where the dependency list starts if there are several, or [`NONE`].
    list: u32,
    actor: u32,
    start_op: u32,
    operations: u32,
    /// Every node below this index is an ancestor of this node: a lower bound that is exact in small windows.
    base: u32,
}

/// An actor's changes in sequence order; sequence numbers start at 1 and have no gaps, and counters ascend.
#[derive(Debug, Clone)]
struct ActorLog {
    actor: Actor,
    nodes: Chunked<u32>,
    /// What the actor's operations are, by counter; a run goes on until the next begins, also over the gaps between the
    /// actor's changes.
    kinds: Chunked<KindRun>,
}

impl Graph {
    /// An empty graph. `hash_key` is secret: it keeps peers from choosing hashes that collide in the index.
    #[must_use]
    pub fn new(hash_key: u64) -> Self {
        Self {
            hashes: Chunked::new(),
            nodes: Chunked::new(),
            dependency_lists: Vec::new(),
            by_hash: HashTable::new(),
            hash_key,
            actors: Vec::new(),
            actor_numbers: BTreeMap::new(),
            raw: VecDeque::new(),
            raw_from: 0,
            raw_bytes: 0,
            durable: 0,
            heads: SmallVec::new(),
            max_op: 0,
        }
    }

    /// The graph as a store holds it; all of it is durable.
    ///
    /// # Errors
    /// [`GraphError`] when the stored bytes contradict themselves, which is damage: the store's own check tells where.
    pub fn from_stored(stored: &StoredGraph, hash_key: u64) -> Result<Self, GraphError> {
        let mut graph = Self::new(hash_key);
        for piece in &stored.index {
            index::decode(&mut graph, piece)?;
        }
        if graph.len() != stored.summary.snapshot_changes {
            return Err(GraphError::WrongCount { found: graph.len(), expected: stored.summary.snapshot_changes });
        }
        graph.raw_from = graph.len();
        for stored_change in &stored.tail {
            graph.push(&Change::decode_stored(stored_change.bytes.clone())?)?;
        }
        if graph.len() != stored.summary.changes {
            return Err(GraphError::WrongCount { found: graph.len(), expected: stored.summary.changes });
        }
        graph.mark_durable(graph.len());
        if graph.heads() != stored.summary.heads {
            return Err(GraphError::WrongHeads);
        }
        Ok(graph)
    }

    /// Appends a change whose dependencies are all present. Not durable until [`Self::mark_durable`].
    ///
    /// # Errors
    /// [`GraphError::MissingDependency`] or [`GraphError::TooLarge`]; nothing is added.
    pub fn push(&mut self, change: &Change) -> Result<u32, GraphError> {
        let mut deps: SmallVec<[u32; 4]> = SmallVec::new();
        for dep in &change.deps {
            deps.push(self.find(dep).ok_or(GraphError::MissingDependency { change: change.hash, dependency: *dep })?);
        }
        let start_op = u32::try_from(change.start_op).map_err(|_| GraphError::TooLarge)?;
        let operations = u32::try_from(change.operations).map_err(|_| GraphError::TooLarge)?;
        let node = self.append(change.hash, &deps, &change.actor, start_op, operations)?;
        self.note_kinds(node, change);
        self.raw_bytes += change.bytes.len();
        self.raw.push_back(of_its_own(&change.bytes));
        Ok(node)
    }

    /// Number of nodes, durable or not.
    #[must_use]
    pub fn len(&self) -> u32 {
        // `append` refuses to grow past u32.
        self.nodes.len() as u32
    }

    /// Whether the document has no changes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of nodes, from the first, that the store has committed. Only these are visible to peers.
    #[must_use]
    pub fn durable(&self) -> u32 {
        self.durable
    }

    /// Makes the first `length` nodes durable and moves the heads along.
    pub fn mark_durable(&mut self, length: u32) {
        for node in self.durable..length.min(self.len()) {
            let deps = self.deps(node);
            self.heads.retain(|head| !deps.contains(head));
            self.heads.push(node);
        }
        self.durable = self.durable.max(length.min(self.len()));
    }

    /// Heads of the durable changes, sorted by hash.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<_> = self.heads.iter().map(|head| self.hashes.at(*head)).collect();
        heads.sort_unstable();
        heads
    }

    /// Heads that the document will have once every node is durable, sorted by hash.
    #[must_use]
    pub fn pending_heads(&self) -> Vec<ChangeHash> {
        let mut heads = self.heads.clone();
        for node in self.durable..self.len() {
            let deps = self.deps(node);
            heads.retain(|head| !deps.contains(head));
            heads.push(node);
        }
        let mut hashes: Vec<_> = heads.iter().map(|head| self.hashes.at(*head)).collect();
        hashes.sort_unstable();
        hashes
    }

    /// The node of a change, durable or not.
    #[must_use]
    pub fn find(&self, hash: &ChangeHash) -> Option<u32> {
        self.by_hash.find(self.table_hash(hash), |node| self.hashes.at(*node) == *hash).copied()
    }

    /// The node of a change if it is durable.
    #[must_use]
    pub fn find_durable(&self, hash: &ChangeHash) -> Option<u32> {
        self.find(hash).filter(|node| *node < self.durable)
    }

    /// The hash of a node.
    #[must_use]
    pub fn hash(&self, node: u32) -> ChangeHash {
        self.hashes.at(node)
    }

    /// Dependencies of a node.
    #[must_use]
    pub fn deps(&self, node: u32) -> SmallVec<[u32; 4]> {
        let Node { parent, list, .. } = self.nodes.at(node);
        if list != NONE {
            let start = list as usize + 1;
            let count = self.dependency_lists[list as usize] as usize;
            return SmallVec::from_slice(&self.dependency_lists[start..start + count]);
        }
        if parent == NONE { SmallVec::new() } else { SmallVec::from_slice(&[parent]) }
    }

    /// The raw chunk of a node, or `None` if only the store's snapshot has it.
    #[must_use]
    pub fn raw(&self, node: u32) -> Option<&Bytes> {
        self.raw.get(node.checked_sub(self.raw_from)? as usize)
    }

    /// The first node whose raw bytes are held here.
    #[must_use]
    pub fn raw_from(&self) -> u32 {
        self.raw_from
    }

    /// Bytes of the raw chunks held here.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// Gives up raw bytes below `node`, which a snapshot covers.
    pub fn release_raw(&mut self, node: u32) {
        while self.raw_from < node.min(self.durable) {
            if let Some(bytes) = self.raw.pop_front() {
                self.raw_bytes -= bytes.len();
            }
            self.raw_from += 1;
        }
    }

    /// Bytes of memory that the graph takes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let actors: usize = self.actors.iter().map(|log| log.nodes.heap_bytes() + log.kinds.heap_bytes() + 128).sum();
        self.hashes.heap_bytes()
            + self.nodes.heap_bytes()
            + self.by_hash.capacity() * 5
            + self.raw.capacity() * size_of::<Bytes>()
            + self.raw_bytes
            + self.dependency_lists.capacity() * 4
            + actors
    }

    /// Whether `ancestor` is `node` or one of its ancestors.
    #[must_use]
    pub fn reaches(&self, node: u32, ancestor: u32) -> bool {
        ancestor == node || (ancestor < node && self.any_reaches(&[node], ancestor))
    }

    /// Encoded records of the nodes `from..to`, for the store to keep beside a snapshot.
    #[must_use]
    pub fn encode_index(&self, from: u32, to: u32) -> Vec<u8> {
        index::encode(self, from, to)
    }

    fn append(
        &mut self,
        hash: ChangeHash,
        deps: &[u32],
        actor: &Actor,
        start_op: u32,
        operations: u32,
    ) -> Result<u32, GraphError> {
        let index = u32::try_from(self.nodes.len()).ok().filter(|n| *n < NONE).ok_or(GraphError::TooLarge)?;
        let (parent, list) = match deps {
            [] => (NONE, NONE),
            [only] => (*only, NONE),
            several => {
                let list = u32::try_from(self.dependency_lists.len()).map_err(|_| GraphError::TooLarge)?;
                self.dependency_lists.push(several.len() as u32);
                self.dependency_lists.extend_from_slice(several);
                (NONE, list)
            }
        };
        let actor = self.actor_number(actor);
        let base = self.base_of(index, deps);
        self.hashes.push(hash);
        self.nodes.push(Node { parent, list, actor, start_op, operations, base });
        self.actors[actor as usize].nodes.push(index);
        self.max_op = self.max_op.max(self.last_op(index));
        let table_hash = self.table_hash(&hash);
        let (hashes, key) = (&self.hashes, self.hash_key);
        self.by_hash.insert_unique(table_hash, index, |node| keyed_hash(key, &hashes.at(*node)));
        Ok(index)
    }

    fn actor_number(&mut self, actor: &Actor) -> u32 {
        if let Some(number) = self.actor_numbers.get(actor) {
            return *number;
        }
        let number = self.actors.len() as u32;
        self.actors.push(ActorLog { actor: actor.clone(), nodes: Chunked::new(), kinds: Chunked::new() });
        self.actor_numbers.insert(actor.clone(), number);
        number
    }

    /// The last operation counter that a node's ancestors and itself can have used.
    fn last_op(&self, node: u32) -> u64 {
        let node = self.nodes.at(node);
        u64::from(node.start_op) + u64::from(node.operations) - 1
    }

    /// All nodes below this index are ancestors of `node` or `node` itself.
    fn dominated(&self, node: u32) -> u32 {
        let base = self.nodes.at(node).base;
        if base == node { node + 1 } else { base }
    }

    fn base_of(&self, index: u32, deps: &[u32]) -> u32 {
        let lower = deps.iter().map(|dep| self.dominated(*dep)).max().unwrap_or(0);
        if deps.len() < 2 || index - lower > EXACT_BASE_WINDOW {
            return lower;
        }
        let painted = self.paint(deps, lower, index);
        lower + painted.iter().position(|theirs| !theirs).unwrap_or(painted.len()) as u32
    }

    fn table_hash(&self, hash: &ChangeHash) -> u64 {
        keyed_hash(self.hash_key, hash)
    }
}

/// The bytes without what they were cut out of: a slice keeps the whole buffer of its socket in memory.
fn of_its_own(bytes: &Bytes) -> Bytes {
    if bytes.len() > COPIED_BYTES_MAX { bytes.clone() } else { Bytes::copy_from_slice(bytes) }
}

/// SipHash of the key and the hash's first half.
fn keyed_hash(key: u64, hash: &ChangeHash) -> u64 {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_u64(key);
    hasher.write(&hash.0[..16]);
    hasher.finish()
}

/// Why a graph cannot be built or extended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A stored change is not a change. **State:** the document's graph was not loaded. **Do:** run the store's check.
    #[error("a stored change is damaged: {0}")]
    Damaged(#[from] ChangeError),
    /// A change names a dependency that is not there. **State:** nothing was added. **Do:** run the store's check.
    #[error("change {change} depends on {dependency}, which is not there")]
    MissingDependency {
        /// The change.
        change: ChangeHash,
        /// What it names.
        dependency: ChangeHash,
    },
    /// The index beside a snapshot is cut or malformed. **State:** nothing was loaded. **Do:** run the store's check.
    #[error("the stored index is damaged at byte {at}")]
    DamagedIndex {
        /// Offset in its piece, bytes.
        at: usize,
    },
    /// The stored number of changes differs from what is there. **State:** nothing was loaded. **Do:** run the store's check.
    #[error("{found} changes found where {expected} are recorded")]
    WrongCount {
        /// Changes found.
        found: u32,
        /// Changes recorded.
        expected: u32,
    },
    /// The stored heads differ from the graph's. **State:** nothing was loaded. **Do:** run the store's check.
    #[error("the recorded heads are not the heads of the changes")]
    WrongHeads,
    /// More than 2^32 changes or operations. **State:** nothing was added. **Do:** start a new document.
    #[error("the document is too large: more than 2^32 changes or operations")]
    TooLarge,
}

#[cfg(test)]
mod tests;

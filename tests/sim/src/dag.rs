//! A plain peer for the cheap tier: a set of small changes, and sync messages by the book without any cleverness.
//!
//! Owns: changes with their dependencies, what one server has said. Must not: share code with the graph under test.
//! Next: `content.rs`, `forge.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::change::Change;
use syncline_core::chunk::{self, ChunkKind};
use syncline_core::limits::Limits;
use syncline_core::sync::bloom::Bloom;
use syncline_core::sync::message::{Flags, Have, Message, Version};

use crate::forge::{self, Forged};

/// A change with one operation, of which all others differ in the header only.
static TEMPLATE: LazyLock<Forged> = LazyLock::new(forge::change);

/// A forged change and the hash that follows from its bytes.
pub(crate) fn forged(deps: &[ChangeHash], actor: &[u8], seq: u64, start_op: u64) -> (ChangeHash, Bytes) {
    let mut deps: Vec<[u8; 32]> = deps.iter().map(|dep| dep.0).collect();
    deps.sort_unstable();
    let change = Forged { deps, actor: actor.to_vec(), seq, start_op, ..TEMPLATE.clone() };
    let body = change.body();
    let hash = forge::hash(forge::CHANGE, &body);
    (ChangeHash(hash), Bytes::from(forge::framed(forge::CHANGE, &body, hash)))
}

#[derive(Debug, Clone)]
struct Node {
    hash: ChangeHash,
    deps: Vec<ChangeHash>,
    /// Where the dependencies are, all before this one.
    places: Vec<usize>,
    bytes: Bytes,
    max_op: u64,
}

/// A document as the set of its changes.
#[derive(Debug, Clone)]
pub(crate) struct Dag {
    actor: Vec<u8>,
    seq: u64,
    max_op: u64,
    /// In order of arrival, dependencies first.
    nodes: Vec<Node>,
    place: BTreeMap<ChangeHash, usize>,
    heads: BTreeSet<ChangeHash>,
    /// Came before what they build on.
    waiting: BTreeMap<ChangeHash, Node>,
}

/// What one server has said and was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct DagSync {
    their_heads: Option<Vec<ChangeHash>>,
    their_have: Vec<ChangeHash>,
    wants: Vec<ChangeHash>,
    sent: BTreeSet<ChangeHash>,
    common: Vec<ChangeHash>,
    told: Option<(Vec<ChangeHash>, Vec<ChangeHash>)>,
}

impl DagSync {
    pub(crate) fn their_heads(&self) -> Option<&[ChangeHash]> {
        self.their_heads.as_deref()
    }

    /// What survives a connection.
    pub(crate) fn reconnected(&self) -> Self {
        Self { common: self.common.clone(), ..Self::default() }
    }
}

impl Dag {
    pub(crate) fn new(actor: &[u8]) -> Self {
        Self {
            actor: actor.to_vec(),
            seq: 0,
            max_op: 0,
            nodes: Vec::new(),
            place: BTreeMap::new(),
            heads: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }

    pub(crate) fn set_actor(&mut self, actor: &[u8]) {
        self.actor = actor.to_vec();
        self.seq = 0;
    }

    pub(crate) fn edit(&mut self) -> (ChangeHash, Bytes) {
        let deps: Vec<ChangeHash> = self.heads.iter().copied().collect();
        self.seq += 1;
        let (hash, bytes) = forged(&deps, &self.actor, self.seq, self.max_op + 1);
        let (places, max_op) = (Vec::new(), self.max_op + 1);
        self.insert(Node { hash, deps, places, bytes: bytes.clone(), max_op });
        (hash, bytes)
    }

    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        self.heads.iter().copied().collect()
    }

    pub(crate) fn max_op(&self) -> u64 {
        self.max_op
    }

    pub(crate) fn hashes(&self) -> BTreeSet<ChangeHash> {
        self.place.keys().copied().collect()
    }

    pub(crate) fn has(&self, hash: &ChangeHash) -> bool {
        self.place.contains_key(hash)
    }

    pub(crate) fn raw(&self) -> Vec<Bytes> {
        self.nodes.iter().map(|node| node.bytes.clone()).collect()
    }

    /// Takes a change in, or keeps it until what it builds on has come.
    pub(crate) fn take(&mut self, bytes: &Bytes) -> Result<(), String> {
        let change = Change::decode_stored(bytes.clone()).map_err(|error| error.to_string())?;
        let (hash, max_op) = (change.hash, change.max_op());
        if self.place.contains_key(&hash) {
            return Ok(());
        }
        let node = Node { hash, deps: change.deps.to_vec(), places: Vec::new(), bytes: bytes.clone(), max_op };
        self.waiting.insert(hash, node);
        while let Some(hash) = self.waiting.values().find(|node| self.has_all(&node.deps)).map(|node| node.hash) {
            if let Some(node) = self.waiting.remove(&hash) {
                self.insert(node);
            }
        }
        Ok(())
    }

    fn has_all(&self, deps: &[ChangeHash]) -> bool {
        deps.iter().all(|dep| self.place.contains_key(dep))
    }

    fn insert(&mut self, mut node: Node) {
        for dep in &node.deps {
            self.heads.remove(dep);
            node.places.extend(self.place.get(dep));
        }
        self.heads.insert(node.hash);
        self.max_op = self.max_op.max(node.max_op);
        self.place.insert(node.hash, self.nodes.len());
        self.nodes.push(node);
    }

    /// For each node whether it is one of these or an ancestor of one.
    fn closure<'a>(&self, heads: impl Iterator<Item = &'a ChangeHash>) -> Vec<bool> {
        let mut inside = vec![false; self.nodes.len()];
        heads.filter_map(|head| self.place.get(head)).for_each(|place| inside[*place] = true);
        for place in (0..inside.len()).rev() {
            if inside[place] {
                self.nodes[place].places.iter().for_each(|dep| inside[*dep] = true);
            }
        }
        inside
    }

    /// The next message to a server, if there is anything to say.
    pub(crate) fn generate(&self, state: &mut DagSync) -> Option<Bytes> {
        let heads = self.heads();
        let need = self.need(state);
        let told = (heads, need);
        let heads_equal = state.their_heads.as_ref() == Some(&told.0);
        if heads_equal && state.wants.is_empty() && state.told.as_ref() == Some(&told) {
            return None;
        }
        let theirs = state.their_heads.as_ref().map(|theirs| self.closure(theirs.iter().chain(&state.their_have)));
        let wanted = |(place, node): &(usize, &Node)| {
            let lacks = theirs.as_ref().is_some_and(|theirs| !theirs[*place]) && !state.sent.contains(&node.hash);
            lacks || state.wants.contains(&node.hash)
        };
        let sending: Vec<&Node> = self.nodes.iter().enumerate().filter(wanted).map(|(_, node)| node).collect();
        if sending.is_empty() && state.told.as_ref() == Some(&told) {
            return None;
        }
        let common = self.closure(state.common.iter());
        let last_sync = state.common.iter().filter(|hash| self.place.contains_key(hash)).copied().collect();
        let mut bloom = Vec::new();
        let since = self.nodes.iter().zip(&common).filter(|(_, common)| !**common).map(|(node, _)| &node.hash);
        Bloom::from_hashes(since.collect::<Vec<_>>()).encode(&mut bloom);
        let message = Message {
            version: Version::V1,
            heads: told.0.clone(),
            need: told.1.clone(),
            have: vec![Have { last_sync, bloom: Bytes::from(bloom) }],
            changes: sending.iter().map(|node| node.bytes.clone()).collect(),
            flags: Some(Flags { reset: false, read_only: false, supports_reset: true }),
        };
        state.sent.extend(sending.iter().map(|node| node.hash));
        state.wants.clear();
        state.told = Some(told);
        let mut out = Vec::new();
        message.encode(&mut out);
        Some(Bytes::from(out))
    }

    fn need(&self, state: &DagSync) -> Vec<ChangeHash> {
        let known = |hash: &ChangeHash| self.place.contains_key(hash) || self.waiting.contains_key(hash);
        let missing = self.waiting.values().flat_map(|node| &node.deps);
        let mut need: Vec<ChangeHash> =
            missing.chain(state.their_heads.iter().flatten()).filter(|hash| !known(hash)).copied().collect();
        need.sort_unstable();
        need.dedup();
        need
    }

    pub(crate) fn receive(&mut self, state: &mut DagSync, data: Bytes) -> Result<(), String> {
        let message = Message::decode(data, &Limits::default()).map_err(|error| error.to_string())?;
        let blank = matches!(message.have.as_slice(), [have] if have.last_sync.is_empty() && have.bloom.is_empty());
        let reset = blank && message.need.is_empty() && message.changes.is_empty();
        for chunk in message.changes.into_iter().flat_map(chunk::split) {
            let chunk = chunk.map_err(|error| error.to_string())?;
            for raw in raw_changes(&chunk)? {
                self.take(&raw)?;
            }
        }
        if message.heads.is_empty() || reset {
            state.sent.clear();
            state.common.clear();
            state.told = None;
        }
        if !reset {
            state.common = message.heads.iter().filter(|head| self.place.contains_key(head)).copied().collect();
        }
        state.their_have = message.have.into_iter().flat_map(|have| have.last_sync).collect();
        state.their_heads = Some(message.heads);
        state.wants = message.need;
        Ok(())
    }
}

/// The changes in a chunk; a whole document is taken apart by automerge.
fn raw_changes(chunk: &chunk::Chunk) -> Result<Vec<Bytes>, String> {
    if chunk.kind != ChunkKind::Document {
        return Ok(vec![chunk.bytes.clone()]);
    }
    let document = automerge::Automerge::load(&chunk.bytes).map_err(|error| error.to_string())?;
    Ok(document.get_changes(&[]).iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect())
}

//! What is known in this process of one document: every change that passed through, without its contents.
//!
//! Owns: the change graph as vector clocks, and when each change was written. Must not: know who holds what; that is
//! `tracker.rs`. Next: `chunk.rs`, which reads what a server sent into a ledger.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use automerge::legacy::OpId;
use automerge::{ActorId, Change, ChangeHash};
use bytes::Bytes;

/// A change's place in its ledger. A change comes after everything it depends on.
pub(crate) type Index = u32;

/// How many changes of each author, numbered by the ledger; short clocks mean zero for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clock(Vec<u32>);

impl Clock {
    /// The last sequence number of this author.
    pub(crate) fn seq(&self, author: u32) -> u32 {
        self.0.get(author as usize).copied().unwrap_or(0)
    }

    /// Raises one author's number.
    pub(crate) fn raise(&mut self, author: u32, seq: u32) {
        let at = author as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = self.0[at].max(seq);
    }

    /// Raises every author's number to the other's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (author, seq) in other.iter() {
            self.raise(author, seq);
        }
    }

    /// Authors and their last sequence numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().enumerate().map(|(author, seq)| (u32::try_from(author).expect("few authors"), *seq))
    }
}

/// One change, or a stored document that stands for all changes up to it.
#[derive(Debug)]
pub(crate) struct Node {
    /// The change's hash.
    pub(crate) hash: ChangeHash,
    /// Its author's number in this ledger.
    pub(crate) author: u32,
    /// Its number among its author's changes.
    pub(crate) seq: u32,
    /// The highest operation counter in it.
    pub(crate) max_op: u64,
    /// Everything that it includes, itself too.
    pub(crate) clock: Clock,
    /// When this process wrote it; none for what came from elsewhere or before.
    pub(crate) sent: Option<Instant>,
    /// Its bytes on the wire: a change chunk, or a document chunk for a seed's last; empty for what that includes.
    pub(crate) bytes: Bytes,
}

/// A document's ledger, shared by all clients of this process that have it open.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The document's id.
    pub(crate) id: String,
    /// The text object that users type into.
    pub(crate) text: OpId,
    book: Mutex<Book>,
}

impl Ledger {
    /// A ledger that holds nothing yet, of a document whose text is `text`.
    pub(crate) fn new(id: String, text: OpId) -> Arc<Self> {
        Arc::new(Self { id, text, book: Mutex::new(Book::default()) })
    }

    /// The contents. A panic elsewhere leaves them as they were after the last whole insertion.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The contents of a ledger.
#[derive(Debug, Default)]
pub(crate) struct Book {
    nodes: Vec<Node>,
    by_hash: HashMap<ChangeHash, Index>,
    authors: HashMap<ActorId, u32>,
    chains: Vec<BTreeMap<u32, Index>>,
}

impl Book {
    /// The number of this author.
    pub(crate) fn author(&mut self, actor: &ActorId) -> u32 {
        if let Some(author) = self.authors.get(actor) {
            return *author;
        }
        let author = u32::try_from(self.chains.len()).expect("fewer authors than 2^32");
        self.authors.insert(actor.clone(), author);
        self.chains.push(BTreeMap::new());
        author
    }

    /// Where the change with this hash stands.
    pub(crate) fn index_of(&self, hash: &ChangeHash) -> Option<Index> {
        self.by_hash.get(hash).copied()
    }

    /// The change at an index that this ledger gave out.
    pub(crate) fn node(&self, index: Index) -> &Node {
        &self.nodes[index as usize]
    }

    /// Every change in topological order.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The changes of one author after `from`, up to and with `to`.
    pub(crate) fn chain(&self, author: u32, from: u32, to: u32) -> impl Iterator<Item = Index> + '_ {
        let chain = self.chains.get(author as usize).filter(|_| to > from);
        chain.into_iter().flat_map(move |chain| chain.range(from + 1..=to)).map(|(_, index)| *index)
    }

    /// Enters a change; the same change twice is one entry. None when a dependency is not here yet.
    pub(crate) fn insert(&mut self, change: &Change, sent: Option<Instant>) -> Option<Index> {
        if let Some(index) = self.index_of(&change.hash()) {
            return Some(index);
        }
        let mut clock = Clock::default();
        for dep in change.deps() {
            clock.merge(&self.node(self.index_of(dep)?).clock);
        }
        let author = self.author(change.actor_id());
        let seq = u32::try_from(change.seq()).ok()?;
        clock.raise(author, seq);
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        Some(self.push(Node { hash: change.hash(), author, seq, max_op: change.max_op(), clock, sent, bytes }))
    }

    /// Enters a stored document: all changes of one author, one on the other. They are known by hash, so that a
    /// client recognises them however a server sends them; only the last has bytes, and they are the whole document.
    pub(crate) fn insert_seed(&mut self, changes: &[Change], document: Bytes) -> Index {
        let mut last = 0;
        for change in changes {
            let author = self.author(change.actor_id());
            let seq = u32::try_from(change.seq()).expect("seeds have fewer than 2^32 changes");
            let mut clock = Clock::default();
            clock.raise(author, seq);
            let (hash, max_op) = (change.hash(), change.max_op());
            last = self.push(Node { hash, author, seq, max_op, clock, sent: None, bytes: Bytes::new() });
        }
        self.nodes[last as usize].bytes = document;
        last
    }

    /// Drops every index that another one includes.
    pub(crate) fn keep_maximal(&self, indices: &mut Vec<Index>) {
        indices.sort_unstable();
        indices.dedup();
        if indices.len() < 2 {
            return;
        }
        let all = indices.clone();
        indices.retain(|index| {
            let node = self.node(*index);
            !all.iter().any(|other| other != index && self.node(*other).clock.seq(node.author) >= node.seq)
        });
    }

    /// The union of what these changes include.
    pub(crate) fn clock_of(&self, indices: &[Index]) -> Clock {
        let mut clock = Clock::default();
        for index in indices {
            clock.merge(&self.node(*index).clock);
        }
        clock
    }

    /// Sorted hashes, as sync messages carry them.
    pub(crate) fn hashes(&self, indices: &[Index]) -> Vec<ChangeHash> {
        let mut hashes: Vec<_> = indices.iter().map(|index| self.node(*index).hash).collect();
        hashes.sort_unstable();
        hashes
    }

    fn push(&mut self, node: Node) -> Index {
        let index = Index::try_from(self.nodes.len()).expect("fewer changes than 2^32");
        self.by_hash.insert(node.hash, index);
        self.chains[node.author as usize].insert(node.seq, index);
        self.nodes.push(node);
        index
    }
}

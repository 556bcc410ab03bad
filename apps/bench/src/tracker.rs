//! What one client has of one document, and what the server has confirmed of it.
//!
//! Owns: a client's heads and orphans, and the queue of its own unconfirmed edits. Must not: build messages.
//! Next: `light.rs` and `full.rs`, which answer the server.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use automerge::ChangeHash;
use bytes::Bytes;

use crate::chunk::{self, Chunk};
use crate::ledger::{Book, Clock, Index, Node};
use crate::stats::Stats;

/// A client's part of a ledger, closed under dependencies.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    known: Clock,
    heads: Vec<Index>,
    orphans: Vec<Bytes>,
}

impl Tracker {
    /// A client that has these changes and all that they depend on.
    pub(crate) fn from_heads(book: &Book, heads: Vec<Index>) -> Self {
        Self { known: book.clock_of(&heads), heads, orphans: Vec::new() }
    }

    /// The client's heads.
    pub(crate) fn heads(&self) -> &[Index] {
        &self.heads
    }

    /// Everything that it has.
    pub(crate) fn known(&self) -> &Clock {
        &self.known
    }

    /// Whether it has this change.
    pub(crate) fn has(&self, node: &Node) -> bool {
        self.known.seq(node.author) >= node.seq
    }

    /// The highest operation counter that it knows.
    pub(crate) fn max_op(&self, book: &Book) -> u64 {
        self.heads.iter().map(|index| book.node(*index).max_op).max().unwrap_or(0)
    }

    /// Takes a change written on top of the client's heads.
    pub(crate) fn add_own(&mut self, book: &Book, index: Index) {
        let node = book.node(index);
        self.known.raise(node.author, node.seq);
        self.heads = vec![index];
    }

    /// Takes what a sync message brought; `new` gets every change that the client did not have.
    ///
    /// # Errors
    /// When the bytes are not chunks that automerge can read.
    pub(crate) fn receive<'a>(
        &mut self,
        book: &mut Book,
        elements: impl Iterator<Item = &'a [u8]>,
        new: &mut Vec<Index>,
    ) -> anyhow::Result<()> {
        for mut rest in elements {
            while !rest.is_empty() {
                match Chunk::next(&mut rest)? {
                    Chunk::Change(whole) => self.receive_change(book, whole, new)?,
                    Chunk::Document { whole, data } => self.receive_document(book, whole, data, new)?,
                    Chunk::Deflated { whole, data } => {
                        self.receive_change(book, &chunk::inflate(whole, data)?, new)?;
                    }
                    bundle @ Chunk::Bundle(_) => {
                        for change in bundle.changes()? {
                            self.receive_change(book, change.raw_bytes(), new)?;
                        }
                    }
                }
            }
        }
        self.adopt_orphans(book, new)?;
        self.heads.extend_from_slice(new);
        book.keep_maximal(&mut self.heads);
        Ok(())
    }

    /// What the client must ask for to reach these heads, sorted.
    pub(crate) fn missing(&self, book: &Book, heads: &[ChangeHash]) -> Vec<ChangeHash> {
        let orphans: HashSet<ChangeHash> = self.orphans.iter().map(|bytes| chunk::change_hash(bytes)).collect();
        // An orphan's dependency may be an orphan too, which the server has sent and does not send again.
        let deps = self.orphans.iter().filter_map(|bytes| Chunk::Change(bytes).changes().ok()).flatten();
        let deps = deps.flat_map(|change| change.deps().to_vec());
        let wanted = heads.iter().copied().chain(deps);
        let mut missing: Vec<ChangeHash> =
            wanted.filter(|hash| !self.knows(book, hash) && !orphans.contains(hash)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Whether the client has the change with this hash.
    pub(crate) fn knows(&self, book: &Book, hash: &ChangeHash) -> bool {
        book.index_of(hash).is_some_and(|index| self.has(book.node(index)))
    }

    fn receive_change(&mut self, book: &mut Book, whole: &[u8], new: &mut Vec<Index>) -> anyhow::Result<()> {
        let entered = match book.index_of(&chunk::change_hash(whole)) {
            Some(index) => Some(index),
            None => {
                let changes = Chunk::Change(whole).changes()?;
                changes.first().and_then(|change| book.insert(change, None))
            }
        };
        match entered {
            Some(index) if self.has(book.node(index)) => {}
            Some(index) if self.is_ready(book.node(index)) => {
                let node = book.node(index);
                self.known.raise(node.author, node.seq);
                new.push(index);
            }
            Some(_) | None => self.orphans.push(Bytes::copy_from_slice(whole)),
        }
        Ok(())
    }

    fn receive_document(
        &mut self,
        book: &mut Book,
        whole: &[u8],
        data: &[u8],
        new: &mut Vec<Index>,
    ) -> anyhow::Result<()> {
        let hashes = chunk::document_heads(whole, data)?;
        if hashes.iter().any(|hash| book.index_of(hash).is_none()) {
            for change in (Chunk::Document { whole, data }).changes()? {
                book.insert(&change, None);
            }
        }
        let heads: Vec<Index> = hashes.iter().filter_map(|hash| book.index_of(hash)).collect();
        for (author, seq) in book.clock_of(&heads).iter() {
            new.extend(book.chain(author, self.known.seq(author), seq));
            self.known.raise(author, seq);
        }
        Ok(())
    }

    fn adopt_orphans(&mut self, book: &mut Book, new: &mut Vec<Index>) -> anyhow::Result<()> {
        loop {
            let orphans = std::mem::take(&mut self.orphans);
            let before = orphans.len();
            for orphan in orphans {
                self.receive_change(book, &orphan, new)?;
            }
            if self.orphans.len() == before || self.orphans.is_empty() {
                return Ok(());
            }
        }
    }

    fn is_ready(&self, node: &Node) -> bool {
        node.clock.iter().all(|(author, seq)| {
            let needed = if author == node.author { seq - 1 } else { seq };
            self.known.seq(author) >= needed
        })
    }
}

/// Edits that wait until the server's heads include them.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    author: u32,
    waiting: VecDeque<(u32, Instant)>,
    confirmed: u32,
}

impl Receipts {
    /// Waits for one more edit.
    pub(crate) fn expect(&mut self, author: u32, seq: u32, sent: Instant) {
        self.author = author;
        self.waiting.push_back((seq, sent));
    }

    /// Reads the server's heads, which came at `at`.
    pub(crate) fn confirm(&mut self, book: &Book, heads: &[ChangeHash], at: Instant, stats: &Stats) {
        if self.waiting.is_empty() {
            return;
        }
        for head in heads.iter().filter_map(|hash| book.index_of(hash)) {
            self.confirmed = self.confirmed.max(book.node(head).clock.seq(self.author));
        }
        while let Some((_, sent)) = self.waiting.pop_front_if(|(seq, _)| *seq <= self.confirmed) {
            stats.acknowledged(at.saturating_duration_since(sent));
        }
    }

    /// The author's number in the ledger and its last edit that a server's heads included.
    pub(crate) fn confirmed(&self) -> (u32, u32) {
        (self.author, self.confirmed)
    }
}

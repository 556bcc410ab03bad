//! What one side has and the other lacks, in time that follows the difference and not the history.
//!
//! Owns: [`Frontier`], a peer's knowledge in node indices, and the walks that compare it with the graph.
//! Must not: know messages or peers.
//! Next: `sync.rs`; docs/architecture.md "Frontiers".

use smallvec::SmallVec;

use super::Graph;
use crate::ChangeHash;
use crate::sync::bloom::Bloom;

/// What a peer has of a document: the first `prefix` nodes, and all ancestors of `heads` with the heads themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    /// The peer has every node below this index.
    pub prefix: u32,
    /// The peer has these nodes and all their ancestors.
    pub heads: SmallVec<[u32; 2]>,
}

impl Frontier {
    /// Adds a node and its ancestors.
    pub fn add(&mut self, graph: &Graph, node: u32) {
        self.prefix = self.prefix.max(graph.dominated(node));
        let prefix = self.prefix;
        self.heads.retain(|head| *head >= prefix);
        if node >= prefix && !self.heads.iter().any(|head| graph.reaches(*head, node)) {
            self.heads.retain(|head| !graph.reaches(node, *head));
            self.heads.push(node);
        }
    }

    /// Adds everything below `length`.
    pub fn add_prefix(&mut self, length: u32) {
        self.prefix = self.prefix.max(length);
        let prefix = self.prefix;
        self.heads.retain(|head| *head >= prefix);
    }

    /// Whether this includes every node below `length`.
    #[must_use]
    pub fn covers(&self, graph: &Graph, length: u32) -> bool {
        self.prefix >= length
            || (!self.heads.is_empty() && graph.paint(&self.heads, self.prefix, length).iter().all(|theirs| *theirs))
    }
}

impl Graph {
    /// Durable nodes that a peer with this frontier lacks, in journal order: dependencies first.
    #[must_use]
    pub fn missing_from(&self, frontier: &Frontier) -> Vec<u32> {
        if frontier.heads.is_empty() {
            return (frontier.prefix..self.durable).collect();
        }
        let theirs = self.paint(&frontier.heads, frontier.prefix, self.durable);
        (frontier.prefix..self.durable).zip(theirs).filter_map(|(node, theirs)| (!theirs).then_some(node)).collect()
    }

    /// What a peer has by the word of its Bloom filter: walks down from the newest node, and takes a hit with all its
    /// ancestors. False positives leave out changes, which the peer then asks for by hash.
    #[must_use]
    pub fn frontier_by_bloom(&self, known: &Frontier, bloom: &Bloom) -> Frontier {
        let mut frontier = known.clone();
        let mut theirs = self.paint(&known.heads, known.prefix, self.durable);
        for node in (known.prefix..self.durable).rev() {
            let offset = (node - known.prefix) as usize;
            if !theirs[offset] && bloom.contains(&self.hashes.at(node)) {
                frontier.add(self, node);
                theirs[offset] = true;
            }
            if theirs[offset] {
                self.paint_deps(node, known.prefix, &mut theirs);
            }
        }
        frontier
    }

    /// A filter over every durable change that is not in `known`.
    #[must_use]
    pub fn bloom_since(&self, known: &Frontier) -> Bloom {
        let hashes: Vec<ChangeHash> = self.missing_from(known).into_iter().map(|node| self.hashes.at(node)).collect();
        Bloom::from_hashes(hashes.iter())
    }

    /// Whether one of `nodes` has `ancestor` among its ancestors.
    pub(super) fn any_reaches(&self, nodes: &[u32], ancestor: u32) -> bool {
        if nodes.iter().any(|node| *node == ancestor || ancestor < self.dominated(*node)) {
            return true;
        }
        let actor = self.nodes.at(ancestor).actor;
        // An actor's change depends on all its earlier ones.
        if nodes.iter().any(|node| ancestor < *node && self.nodes.at(*node).actor == actor) {
            return true;
        }
        let Some(newest) = nodes.iter().max().filter(|newest| **newest > ancestor) else { return false };
        self.paint(nodes, ancestor, newest + 1)[0]
    }

    /// For each node in `from..to`: whether it is one of `heads` or an ancestor of one.
    pub(super) fn paint(&self, heads: &[u32], from: u32, to: u32) -> Vec<bool> {
        let end = heads.iter().map(|head| head + 1).max().unwrap_or(0).max(to);
        let mut painted = vec![false; end.saturating_sub(from) as usize];
        for head in heads {
            if let Some(offset) = head.checked_sub(from) {
                painted[offset as usize] = true;
            }
        }
        for node in (from..end).rev() {
            if painted[(node - from) as usize] {
                self.paint_deps(node, from, &mut painted);
            }
        }
        painted.truncate(to.saturating_sub(from) as usize);
        painted
    }

    fn paint_deps(&self, node: u32, from: u32, painted: &mut [bool]) {
        for dep in self.deps(node) {
            if let Some(offset) = dep.checked_sub(from) {
                painted[offset as usize] = true;
            }
        }
    }
}

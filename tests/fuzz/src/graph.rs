//! The change graph beside automerge's, and its stored form.
//!
//! Owns: an oracle that is a real document, and plain sets. Must not: use the graph's own bookkeeping to judge it.
//! Next: `pool.rs`, `session.rs`.

use std::collections::BTreeSet;

use automerge::{Automerge, ChangeHash, ReadDoc};
use bytes::Bytes;
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::graph::{Admission, Frontier, Graph, Orphans};
use syncline_core::id::SessionId;
use syncline_core::storage::{StoredChange, StoredGraph, Summary};

use crate::pool::pool;
use crate::script::Script;

const HASH_KEY: u64 = 7;

/// Which change of the pool comes next, how far the store is, and who asks for what is new.
pub fn graph(data: &[u8]) {
    let mut script = Script::new(data);
    let mut intake = Intake::default();
    while !script.is_empty() {
        match script.byte() {
            200..=229 => {
                let length = script.below(intake.graph.len() as usize + 1) as u32;
                intake.graph.mark_durable(length);
                intake.check_heads();
            }
            230..=255 => intake.check_difference(&mut script),
            choice => intake.take(&pool().changes[usize::from(choice) % pool().len()]),
        }
    }
    intake.check_waiting();
    intake.graph.mark_durable(intake.graph.len());
    intake.check_heads();
    intake.check_automerge_in_any_order();
    intake.check_difference(&mut script);
    intake.check_stored(&mut script);
}

/// A graph that takes changes as they come, and a document that takes what the graph has admitted.
struct Intake {
    graph: Graph,
    orphans: Orphans,
    admitted: Vec<Change>,
    waiting: Vec<Change>,
    arrived: Vec<Change>,
    document: Automerge,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            graph: Graph::new(HASH_KEY),
            orphans: Orphans::default(),
            admitted: Vec::new(),
            waiting: Vec::new(),
            arrived: Vec::new(),
            document: Automerge::new(),
        }
    }
}

impl Intake {
    fn take(&mut self, change: &Change) {
        self.arrived.push(change.clone());
        let mut queue = vec![change.clone()];
        while let Some(change) = queue.pop() {
            match self.graph.admit(&change, &crate::limits()) {
                Ok(Admission::Known) => assert!(self.admitted.contains(&change), "known without having come"),
                Ok(Admission::Ready) => {
                    self.admit(&change);
                    let freed: Vec<_> = self.orphans.take_dependents(&change.hash);
                    self.waiting.retain(|waiting| !freed.iter().any(|(_, freed)| freed == waiting));
                    queue.extend(freed.into_iter().map(|(_, change)| change));
                }
                Ok(Admission::Orphan(missing)) => {
                    self.orphans.insert(SessionId(1), change.clone(), &missing, &crate::limits()).expect("few wait");
                    if !self.waiting.contains(&change) {
                        self.waiting.push(change);
                    }
                }
                Err(refusal) => assert!(!refusal.kind().is_empty() && !refusal.to_string().is_empty()),
            }
        }
    }

    fn admit(&mut self, change: &Change) {
        assert!(change.deps.iter().all(|dep| self.has(dep)), "admitted before its dependencies");
        self.graph.push(change).expect("its dependencies are there");
        self.admitted.push(change.clone());
        let theirs = automerge::Change::try_from(&change.bytes[..]).expect("it was decoded");
        self.document.apply_changes([theirs]).expect("automerge takes what the graph admits");
        assert_eq!(self.graph.pending_heads(), self.document.get_heads());
    }

    fn has(&self, hash: &ChangeHash) -> bool {
        self.admitted.iter().any(|change| change.hash == *hash)
    }

    /// The durable heads are those on which no other durable change depends.
    fn check_heads(&self) {
        let durable = &self.admitted[..self.graph.durable() as usize];
        let named: BTreeSet<_> = durable.iter().flat_map(|change| &change.deps).collect();
        let heads: BTreeSet<_> =
            durable.iter().map(|change| change.hash).filter(|hash| !named.contains(hash)).collect();
        assert_eq!(self.graph.heads(), heads.into_iter().collect::<Vec<_>>());
    }

    fn check_waiting(&self) {
        let waits = |hash: &ChangeHash| self.waiting.iter().any(|change| change.hash == *hash);
        let named = self.waiting.iter().flat_map(|change| &change.deps);
        let missing: BTreeSet<_> = named.filter(|dep| !self.has(dep) && !waits(dep)).copied().collect();
        assert_eq!(self.orphans.missing(), missing.into_iter().collect::<Vec<_>>());
        assert_eq!(self.orphans.is_empty(), self.waiting.is_empty());
    }

    /// If all that came was honest, automerge makes the same of it in the order in which it came.
    fn check_automerge_in_any_order(&self) {
        let honest = &pool().changes[..pool().honest];
        if !self.arrived.iter().all(|change| honest.contains(change)) {
            return;
        }
        let mut document = Automerge::new();
        for change in &self.arrived {
            let theirs = automerge::Change::try_from(&change.bytes[..]).expect("it was decoded");
            document.apply_changes([theirs]).expect("automerge wrote it");
        }
        assert_eq!(self.graph.heads(), document.get_heads());
        assert_eq!(self.orphans.missing(), document.get_missing_deps(&[]));
    }

    /// What a peer lacks that has some changes with all their ancestors.
    fn check_difference(&self, script: &mut Script<'_>) {
        let durable = self.graph.durable();
        if durable == 0 {
            return;
        }
        let mut frontier = Frontier::default();
        let mut had = BTreeSet::new();
        for _ in 0..script.below(4) {
            let node = script.below(durable as usize) as u32;
            frontier.add(&self.graph, node);
            self.add_ancestors(self.graph.hash(node), &mut had);
        }
        let expected: Vec<_> = self.admitted[..durable as usize].iter().map(|change| change.hash).collect();
        let expected: Vec<_> = expected.into_iter().filter(|hash| !had.contains(hash)).collect();
        let missing: Vec<_> = self.graph.missing_from(&frontier).iter().map(|node| self.graph.hash(*node)).collect();
        assert_eq!(missing, expected, "in journal order");
        assert_eq!(frontier.covers(&self.graph, durable), missing.is_empty());
        if durable == self.graph.len() {
            let had: Vec<_> = had.into_iter().collect();
            let theirs = self.document.get_changes(&had);
            let theirs: BTreeSet<_> = theirs.iter().map(|change| change.hash()).collect();
            assert_eq!(missing.into_iter().collect::<BTreeSet<_>>(), theirs);
        }
    }

    fn add_ancestors(&self, hash: ChangeHash, had: &mut BTreeSet<ChangeHash>) {
        let mut queue = vec![hash];
        while let Some(hash) = queue.pop() {
            if had.insert(hash) {
                let change = self.admitted.iter().find(|change| change.hash == hash).expect("an ancestor was admitted");
                queue.extend(&change.deps);
            }
        }
    }

    /// The graph survives its stored form at any split between index and raw changes.
    fn check_stored(&self, script: &mut Script<'_>) {
        let covered = script.below(self.graph.len() as usize + 1) as u32;
        let index = vec![Bytes::from(self.graph.encode_index(0, covered))];
        let again = Graph::from_stored(&stored(&self.admitted, self.graph.heads(), index, covered), HASH_KEY + 1);
        let again = again.expect("its own records");
        assert_eq!(again.heads(), self.graph.heads());
        assert_eq!(again.encode_index(0, again.len()), self.graph.encode_index(0, self.graph.len()));
    }
}

fn stored(changes: &[Change], heads: Vec<ChangeHash>, index: Vec<Bytes>, covered: u32) -> StoredGraph {
    let tail = changes[(covered as usize).min(changes.len())..].iter();
    let tail: Vec<_> = tail.map(|change| StoredChange { stamp: Stamp::ZERO, bytes: change.bytes.clone() }).collect();
    let summary = Summary {
        heads,
        changes: covered + tail.len() as u32,
        bytes: 0,
        last_stamp: Stamp::ZERO,
        authored: syncline_core::authored::Authored::NEVER,
        snapshot_changes: covered,
        snapshot_bytes: 0,
    };
    StoredGraph { summary, index, tail }
}

/// The number of nodes that the store claims, and the index records beside a snapshot, in two pieces.
pub fn index(data: &[u8]) {
    let mut script = Script::new(data);
    let covered = u32::from(script.byte());
    let first = script.block();
    let pieces = vec![Bytes::copy_from_slice(first), Bytes::copy_from_slice(script.rest())];
    // The right heads are not known before the records are read: the error tells that only they were wrong.
    let mut graph = Graph::new(HASH_KEY);
    let without_heads = stored(&[], Vec::new(), pieces.clone(), covered);
    match Graph::from_stored(&without_heads, HASH_KEY) {
        Ok(empty) => assert!(empty.is_empty(), "a document with changes has heads"),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if error != syncline_core::graph::GraphError::WrongHeads {
                return;
            }
            let heads = heads_of(&pieces, covered);
            graph = Graph::from_stored(&stored(&[], heads, pieces, covered), HASH_KEY).expect("the right heads");
        }
    }
    check_loaded(&graph);
}

/// The heads, from the records alone: hashes of nodes to which no later node points back.
fn heads_of(pieces: &[Bytes], covered: u32) -> Vec<ChangeHash> {
    let mut hashes = Vec::new();
    let mut named = BTreeSet::new();
    let mut actors = 0;
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            let mut hash = [0; 32];
            hash.copy_from_slice(&piece[at..at + 32]);
            at += 32;
            for _ in 0..number(piece, &mut at) {
                named.insert(hashes.len() as u64 - number(piece, &mut at));
            }
            if number(piece, &mut at) == actors {
                actors += 1;
                let length = number(piece, &mut at) as usize;
                at += length;
            }
            let (_, _) = (number(piece, &mut at), number(piece, &mut at));
            skip_kinds(piece, &mut at);
            hashes.push(ChangeHash(hash));
        }
    }
    assert_eq!(hashes.len(), covered as usize);
    let heads = hashes.iter().enumerate().filter(|(node, _)| !named.contains(&(*node as u64)));
    let mut heads: Vec<_> = heads.map(|(_, hash)| *hash).collect();
    heads.sort_unstable();
    heads
}

/// Runs of operations of one kind; with bit 2, the list or text that they insert into.
fn skip_kinds(piece: &[u8], at: &mut usize) {
    for _ in 0..number(piece, at) {
        let _ = number(piece, at);
        if number(piece, at) & 0b100 != 0 {
            let (_, _) = (number(piece, at), number(piece, at));
        }
    }
}

fn number(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// A graph from damaged records may be wrong; the store's check finds that. It must still answer everything.
fn check_loaded(graph: &Graph) {
    let length = graph.len();
    let written = Bytes::from(graph.encode_index(0, length));
    let again = Graph::from_stored(&stored(&[], graph.heads(), vec![written.clone()], length), HASH_KEY);
    let again = again.expect("its own records");
    assert_eq!(again.encode_index(0, length), written);
    for node in 0..length {
        assert!(graph.deps(node).iter().all(|dep| *dep < node), "dependencies come first");
        let mut frontier = Frontier::default();
        frontier.add(graph, node);
        // An actor whose records do not build on each other makes these two contradict each other.
        let missing = graph.missing_from(&frontier);
        let _ = missing.iter().filter(|other| graph.reaches(node, **other)).count();
        let _ = graph.frontier_by_bloom(&frontier, &graph.bloom_since(&frontier));
        assert!(graph.find(&graph.hash(node)).is_some());
    }
    for change in &pool().changes {
        let _ = graph.admit(change, &crate::limits());
    }
}

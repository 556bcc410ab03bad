//! The change graph against automerge and against plain sets, on random histories.
//!
//! Owns: an oracle that knows only "hash, dependencies" and walks. Must not: use an index, a base or a frontier to judge.
//! Next: `src/graph.rs`, `src/graph/difference.rs`; `support/authors.rs`.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ChangeHash, ROOT};
use bytes::Bytes;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::authors;
use syncline_core::authored::Authored;
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::graph::{Admission, Frontier, Graph, GraphError, Orphans};
use syncline_core::id::SessionId;
use syncline_core::limits::Limits;
use syncline_core::storage::{StoredChange, StoredGraph, Summary};
use syncline_core::sync::bloom::Bloom;

const HASH_KEY: u64 = 7;
const SEEDS: u64 = 40;
const STEPS: usize = 60;

/// Everything that a history knows, as sets.
struct Oracle {
    deps: BTreeMap<ChangeHash, Vec<ChangeHash>>,
}

impl Oracle {
    fn new(changes: &[Change]) -> Self {
        Self { deps: changes.iter().map(|change| (change.hash, change.deps.to_vec())).collect() }
    }

    /// The changes with all that they build on.
    fn closure(&self, heads: impl IntoIterator<Item = ChangeHash>) -> BTreeSet<ChangeHash> {
        let mut found = BTreeSet::new();
        let mut queue: Vec<_> = heads.into_iter().collect();
        while let Some(hash) = queue.pop() {
            if found.insert(hash) {
                queue.extend(&self.deps[&hash]);
            }
        }
        found
    }

    /// Those of `present` on which none of `present` depends.
    fn heads(&self, present: &BTreeSet<ChangeHash>) -> Vec<ChangeHash> {
        let named: BTreeSet<_> = present.iter().flat_map(|hash| &self.deps[hash]).collect();
        present.iter().filter(|hash| !named.contains(hash)).copied().collect()
    }
}

/// A replica that takes changes in any order.
struct Intake {
    graph: Graph,
    orphans: Orphans,
}

impl Intake {
    fn new() -> Self {
        Self { graph: Graph::new(HASH_KEY), orphans: Orphans::default() }
    }

    fn take(&mut self, change: &Change) {
        let limits = Limits { orphans_max: usize::MAX, orphan_bytes_max: usize::MAX, ..Limits::default() };
        let mut queue = vec![change.clone()];
        while let Some(change) = queue.pop() {
            match self.graph.admit(&change, &limits).expect("automerge wrote it") {
                Admission::Known => {}
                Admission::Ready => {
                    self.graph.push(&change).expect("its dependencies are there");
                    queue.extend(self.orphans.take_dependents(&change.hash).into_iter().map(|(_, change)| change));
                }
                Admission::Orphan(missing) => {
                    self.orphans.insert(SessionId(1), change, &missing, &limits).expect("no bound");
                }
            }
        }
    }
}

/// A random history with its heads as automerge has them; the changes in automerge's order.
fn history(seed: u64) -> (Vec<Change>, Vec<ChangeHash>) {
    let mut documents = authors::history(seed, STEPS);
    let all = documents.last_mut().expect("at least one");
    (changes_of(all), all.get_heads())
}

fn changes_of(document: &mut AutoCommit) -> Vec<Change> {
    let raw = document.get_changes(&[]).into_iter().map(|change| Bytes::copy_from_slice(change.raw_bytes()));
    raw.map(|bytes| Change::decode(bytes, &Limits::default()).expect("automerge wrote it")).collect()
}

/// A graph of these changes, arrived in an order drawn from `rng`; the first part of it durable.
fn shuffled_graph(changes: &[Change], rng: &mut impl Rng) -> Graph {
    let mut order = changes.to_vec();
    order.shuffle(rng);
    let mut intake = Intake::new();
    order.iter().for_each(|change| intake.take(change));
    let length = intake.graph.len();
    intake.graph.mark_durable(if rng.random_bool(0.5) { length } else { rng.random_range(0..=length) });
    intake.graph
}

fn hashes(graph: &Graph, nodes: impl IntoIterator<Item = u32>) -> BTreeSet<ChangeHash> {
    nodes.into_iter().map(|node| graph.hash(node)).collect()
}

/// A frontier over durable nodes, grown in random steps, and the set that it stands for.
fn random_frontier(graph: &Graph, oracle: &Oracle, rng: &mut impl Rng) -> (Frontier, BTreeSet<ChangeHash>) {
    let mut frontier = Frontier::default();
    let mut set = BTreeSet::new();
    for _ in 0..rng.random_range(0..4) {
        if graph.durable() == 0 || rng.random_bool(0.3) {
            let length = rng.random_range(0..=graph.durable() / 2);
            frontier.add_prefix(length);
            set.extend(hashes(graph, 0..length));
        } else {
            let node = rng.random_range(0..graph.durable());
            frontier.add(graph, node);
            set.extend(oracle.closure([graph.hash(node)]));
        }
    }
    (frontier, set)
}

#[test]
fn any_order_with_orphans_and_duplicates_gives_the_same_graph() {
    for seed in 0..SEEDS {
        let (changes, heads) = history(seed);
        let oracle = Oracle::new(&changes);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut arrivals: Vec<_> = changes.iter().chain(&changes).cloned().collect();
        arrivals.shuffle(&mut rng);
        let mut intake = Intake::new();
        let mut arrived = BTreeSet::new();
        for change in &arrivals {
            intake.take(change);
            arrived.insert(change.hash);
            check_partial(&intake, &oracle, &arrived);
        }
        assert!(intake.orphans.is_empty(), "seed {seed}");
        assert_eq!(intake.graph.pending_heads(), heads, "seed {seed}");
        assert!(intake.graph.heads().is_empty(), "seed {seed}: nothing is durable yet");
        intake.graph.mark_durable(intake.graph.len());
        assert_eq!(intake.graph.heads(), heads, "seed {seed}");
        assert_eq!(hashes(&intake.graph, 0..intake.graph.len()).len(), changes.len(), "seed {seed}");
    }
}

/// What has arrived whole is in the graph, the rest waits and names what it lacks.
fn check_partial(intake: &Intake, oracle: &Oracle, arrived: &BTreeSet<ChangeHash>) {
    let whole = |hash: &&ChangeHash| oracle.closure([**hash]).is_subset(arrived);
    let ready: BTreeSet<_> = arrived.iter().filter(whole).copied().collect();
    assert_eq!(hashes(&intake.graph, 0..intake.graph.len()), ready);
    assert_eq!(intake.graph.pending_heads(), oracle.heads(&ready));
    let waiting = arrived.difference(&ready);
    let lacking: BTreeSet<_> = waiting.flat_map(|hash| &oracle.deps[hash]).filter(|d| !arrived.contains(d)).collect();
    assert_eq!(intake.orphans.missing(), lacking.into_iter().copied().collect::<Vec<_>>());
}

#[test]
fn durable_heads_follow_the_journal_step_by_step() {
    for seed in 0..SEEDS {
        let (changes, _) = history(seed);
        let oracle = Oracle::new(&changes);
        let mut graph = shuffled_graph(&changes, &mut ChaCha8Rng::seed_from_u64(seed));
        for length in graph.durable()..=graph.len() {
            graph.mark_durable(length);
            assert_eq!(graph.heads(), oracle.heads(&hashes(&graph, 0..length)), "seed {seed}, length {length}");
            graph.mark_durable(length / 2);
            assert_eq!(graph.durable(), length, "what is durable stays so");
        }
    }
}

#[test]
fn ancestry_equals_a_plain_walk() {
    for seed in 0..SEEDS / 2 {
        let (changes, _) = history(seed);
        let oracle = Oracle::new(&changes);
        let graph = shuffled_graph(&changes, &mut ChaCha8Rng::seed_from_u64(seed));
        for node in 0..graph.len() {
            assert_eq!(graph.find(&graph.hash(node)), Some(node));
            let dependencies = hashes(&graph, graph.deps(node));
            assert_eq!(dependencies, oracle.deps[&graph.hash(node)].iter().copied().collect());
            let ancestors = oracle.closure([graph.hash(node)]);
            for other in 0..graph.len() {
                let expected = ancestors.contains(&graph.hash(other));
                assert_eq!(graph.reaches(node, other), expected, "seed {seed}: {node} reaches {other}");
            }
        }
    }
}

#[test]
fn differences_equal_set_differences() {
    for seed in 0..SEEDS {
        let (changes, _) = history(seed);
        let oracle = Oracle::new(&changes);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let graph = shuffled_graph(&changes, &mut rng);
        for _ in 0..20 {
            check_difference(&graph, &oracle, &mut rng);
        }
    }
}

fn check_difference(graph: &Graph, oracle: &Oracle, rng: &mut impl Rng) {
    let (frontier, had) = random_frontier(graph, oracle, rng);
    let missing = graph.missing_from(&frontier);
    assert!(missing.is_sorted(), "journal order, so that dependencies come first");
    let durable = hashes(graph, 0..graph.durable());
    assert_eq!(hashes(graph, missing.iter().copied()), durable.difference(&had).copied().collect());
    for length in 0..=graph.durable() {
        let expected = hashes(graph, 0..length).is_subset(&had);
        assert_eq!(frontier.covers(graph, length), expected, "{frontier:?} covers {length}");
    }
    let bloom = graph.bloom_since(&frontier);
    assert!(missing.iter().all(|node| bloom.contains(&graph.hash(*node))));
    assert_eq!(bloom == Bloom::empty(), missing.is_empty());
}

#[test]
fn a_bloom_filter_gives_its_hits_with_their_ancestors() {
    let mut false_positives = 0;
    for seed in 0..SEEDS {
        let (changes, _) = history(seed);
        let oracle = Oracle::new(&changes);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let graph = shuffled_graph(&changes, &mut rng);
        for _ in 0..10 {
            let (known, mut expected) = random_frontier(&graph, &oracle, &mut rng);
            let (_, theirs) = random_frontier(&graph, &oracle, &mut rng);
            let bloom = Bloom::from_hashes(theirs.iter());
            let durable = hashes(&graph, 0..graph.durable());
            let hits: Vec<_> = durable.iter().filter(|hash| bloom.contains(hash)).copied().collect();
            false_positives += hits.iter().filter(|hash| !theirs.contains(hash)).count();
            expected.extend(oracle.closure(hits));
            let frontier = graph.frontier_by_bloom(&known, &bloom);
            let missing = hashes(&graph, graph.missing_from(&frontier));
            assert_eq!(missing, durable.difference(&expected).copied().collect(), "seed {seed}");
        }
    }
    assert!(false_positives > 0, "the walk met a filter that claims too much");
}

#[test]
fn a_stored_graph_reads_back_the_same_at_every_split() {
    for seed in 0..SEEDS / 4 {
        let (changes, heads) = history(seed);
        let (last, earlier) = changes.split_last().expect("some");
        let mut graph = Intake::new();
        earlier.iter().for_each(|change| graph.take(change));
        let mut graph = graph.graph;
        graph.mark_durable(graph.len());
        for split in 0..=graph.len() {
            let mut again = Graph::from_stored(&stored(&graph, split / 2, split), HASH_KEY + 1).expect("undamaged");
            assert_eq!(again.raw_from(), split);
            assert_eq!(again.durable(), graph.len());
            assert_eq!(again.heads(), graph.heads());
            assert_eq!(again.encode_index(0, again.len()), graph.encode_index(0, graph.len()));
            for node in 0..graph.len() {
                assert_eq!(again.raw(node), graph.raw(node).filter(|_| node >= split));
            }
            assert_eq!(again.admit(last, &Limits::default()), Ok(Admission::Ready));
            again.push(last).expect("admitted");
            again.mark_durable(again.len());
            assert_eq!(again.heads(), heads);
        }
    }
}

/// The graph as a store holds it: `split` changes in two pieces of index, the rest raw.
fn stored(graph: &Graph, piece: u32, split: u32) -> StoredGraph {
    let index = vec![Bytes::from(graph.encode_index(0, piece)), Bytes::from(graph.encode_index(piece, split))];
    let raw = (split..graph.len()).map(|node| graph.raw(node).expect("held").clone());
    let tail = raw.map(|bytes| StoredChange { stamp: Stamp::ZERO, bytes }).collect();
    let summary = Summary {
        heads: graph.heads(),
        changes: graph.len(),
        bytes: graph.raw_bytes() as u64,
        last_stamp: Stamp::ZERO,
        authored: Authored::NEVER,
        snapshot_changes: split,
        snapshot_bytes: 0,
    };
    StoredGraph { summary, index, tail }
}

#[test]
fn a_damaged_stored_graph_is_an_error_and_never_a_panic() {
    let (changes, _) = history(3);
    let mut intake = Intake::new();
    changes.iter().take(12).for_each(|change| intake.take(change));
    let mut graph = intake.graph;
    graph.mark_durable(graph.len());
    let whole = stored(&graph, 0, graph.len());
    let index = whole.index[1].clone();
    for length in 0..index.len() {
        let cut = StoredGraph { index: vec![index.slice(..length)], ..whole.clone() };
        let error = Graph::from_stored(&cut, HASH_KEY).expect_err("cut");
        assert!(matches!(error, GraphError::DamagedIndex { .. } | GraphError::WrongCount { .. }), "{length}: {error}");
    }
    for bit in 0..index.len() * 8 {
        let mut flipped = index.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // Most flips hit a hash and show in the heads or nowhere: that is the store's check to find.
        drop(Graph::from_stored(&StoredGraph { index: vec![flipped.into()], ..whole.clone() }, HASH_KEY));
    }
    let mut few = whole.clone();
    few.summary.changes += 1;
    assert!(matches!(Graph::from_stored(&few, HASH_KEY), Err(GraphError::WrongCount { .. })));
    let mut other_heads = whole.clone();
    other_heads.summary.heads.pop();
    assert_eq!(Graph::from_stored(&other_heads, HASH_KEY).map(|_| ()), Err(GraphError::WrongHeads));
    let mut tail = stored(&graph, 0, 0);
    tail.tail.remove(0);
    assert!(matches!(Graph::from_stored(&tail, HASH_KEY), Err(GraphError::MissingDependency { .. })));
}

/// An index record without dependencies: a first byte for the hash, the actor's number with its name at its first record,
/// the first operation, and where runs of one kind begin. It has ten operations.
type Record<'a> = (u8, u8, Option<u8>, u8, &'a [u8]);

fn records(nodes: &[Record<'_>]) -> Result<Graph, GraphError> {
    let mut index = Vec::new();
    for (hash, number, name, start_op, runs) in nodes {
        index.extend([*hash; 32]);
        index.extend([0, *number]);
        index.extend(name.iter().flat_map(|name| [1, *name]));
        index.extend([*start_op, 10, runs.len() as u8]);
        index.extend(runs.iter().flat_map(|distance| [*distance, 0]));
    }
    let mut heads: Vec<_> = nodes.iter().map(|(hash, ..)| ChangeHash([*hash; 32])).collect();
    heads.sort_unstable();
    let changes = nodes.len() as u32;
    let summary = Summary {
        heads,
        changes,
        bytes: 0,
        last_stamp: Stamp::ZERO,
        authored: Authored::NEVER,
        snapshot_changes: changes,
        snapshot_bytes: 0,
    };
    Graph::from_stored(&StoredGraph { summary, index: vec![index.into()], tail: Vec::new() }, HASH_KEY)
}

// Searched as if they rose, such records gave a graph that panicked when it was encoded or asked.
#[test]
fn records_whose_operations_do_not_rise_or_whose_actor_comes_twice_are_damage() {
    let sound = [(1, 0, Some(7), 1, &[0, 4][..]), (2, 1, Some(8), 1, &[0]), (3, 0, None, 11, &[2])];
    let graph = records(&sound).expect("undamaged");
    assert_eq!(graph.len(), 3);
    let mut earlier = sound;
    earlier[2].3 = 10;
    let mut runs = sound;
    runs[0].4 = &[4, 4];
    let mut twice = sound;
    twice[1].2 = Some(7);
    for damaged in [earlier, runs, twice] {
        let error = records(&damaged).expect_err("damaged");
        assert!(matches!(error, GraphError::DamagedIndex { .. }), "{error}");
    }
}

/// Two branches longer than the window in which bases are exact, so that lower bounds must do.
#[test]
fn branches_beyond_the_exact_window_are_told_apart() {
    const LENGTH: usize = 700;
    let mut left = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    left.put(ROOT, "start", 0).expect("put");
    left.commit();
    let mut right = left.fork().with_actor(ActorId::from([2; 16]));
    for step in 0..LENGTH {
        for document in [&mut left, &mut right] {
            document.put(ROOT, "step", step as u64).expect("put");
            document.commit();
        }
    }
    left.merge(&mut right).expect("one document");
    left.put(ROOT, "merged", 1).expect("put");
    left.commit();
    let changes = changes_of(&mut left);
    let oracle = Oracle::new(&changes);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for order in 0..3 {
        let mut graph = if order == 0 { in_order(&changes) } else { shuffled_graph(&changes, &mut rng) };
        graph.mark_durable(graph.len());
        for _ in 0..200 {
            let (node, other) = (rng.random_range(0..graph.len()), rng.random_range(0..graph.len()));
            let expected = oracle.closure([graph.hash(node)]).contains(&graph.hash(other));
            assert_eq!(graph.reaches(node, other), expected);
        }
        for _ in 0..10 {
            let (frontier, had) = random_frontier(&graph, &oracle, &mut rng);
            let missing = hashes(&graph, graph.missing_from(&frontier));
            assert_eq!(missing, hashes(&graph, 0..graph.len()).difference(&had).copied().collect());
            let length = rng.random_range(0..=graph.len());
            assert_eq!(frontier.covers(&graph, length), hashes(&graph, 0..length).is_subset(&had));
        }
    }
}

fn in_order(changes: &[Change]) -> Graph {
    let mut intake = Intake::new();
    changes.iter().for_each(|change| intake.take(change));
    intake.graph
}

//! What a change costs in the graph: checked against its ancestors and added, and read back from a store.
//!
//! Owns: letters typed into one text by one and by two authors, and a table filled row by row. Must not: assert a time.
//! Next: `src/graph.rs`; docs/decisions/0012-operation-kinds-beside-the-graph.md.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT};
use bytes::Bytes;
use divan::{Bencher, black_box};
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::graph::Graph;
use syncline_core::limits::Limits;
use syncline_core::storage::{StoredChange, StoredGraph, Summary};

const CHANGES: usize = 5_000;

fn main() {
    for (name, changes) in [("one author", typed(1)), ("two authors", typed(2)), ("table", table())] {
        let graph = graph_of(&changes);
        let (weight, raw, index) = (graph.weight(), graph.raw_bytes(), graph.encode_index(0, graph.len()).len());
        let each = |bytes: usize| bytes as f64 / changes.len() as f64;
        println!("{name}: {:.1} B of graph, {:.1} B of index a change", each(weight - raw), each(index));
    }
    divan::main();
}

fn decoded(document: &mut AutoCommit) -> Vec<Change> {
    let changes = document.get_changes(&[]);
    let decode = |change: &automerge::Change| Change::decode(Bytes::copy_from_slice(change.raw_bytes()), &limits());
    changes.iter().map(|change| decode(change).expect("automerge's own")).collect()
}

fn limits() -> Limits {
    Limits::default()
}

/// A text typed letter by letter, each fifth key a deletion; the authors take turns.
fn typed(authors: u8) -> Vec<Change> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([0; 16]));
    let text = document.put_object(ROOT, "text", ObjType::Text).expect("a fresh document");
    let mut length = 0;
    for key in 1..CHANGES {
        document.set_actor(ActorId::from([(key % usize::from(authors)) as u8; 16]));
        let deletes = key % 5 == 0;
        let (at, letters) = if deletes { (length - 1, "") } else { (length, "x") };
        document.splice_text(&text, at, isize::from(deletes), letters).expect("in range");
        length = if deletes { length - 1 } else { length + 1 };
        document.commit();
    }
    decoded(&mut document)
}

/// Rows of three fields, each a change.
fn table() -> Vec<Change> {
    let mut document = AutoCommit::new();
    let rows = document.put_object(ROOT, "rows", ObjType::List).expect("a fresh document");
    document.commit();
    for row in 0..CHANGES - 1 {
        let map = document.insert_object(&rows, row, ObjType::Map).expect("in range");
        for field in ["name", "place", "note"] {
            document.put(&map, field, row as u64).expect("a map");
        }
        document.commit();
    }
    decoded(&mut document)
}

fn graph_of(changes: &[Change]) -> Graph {
    let mut graph = Graph::new(1);
    for change in changes {
        graph.admit(change, &limits()).expect("honest");
        graph.push(change).expect("in order");
    }
    graph
}

fn stored(changes: &[Change], covered: u32) -> StoredGraph {
    let graph = graph_of(changes);
    let summary = Summary {
        heads: graph.pending_heads(),
        changes: graph.len(),
        bytes: graph.raw_bytes() as u64,
        last_stamp: Stamp::ZERO,
        authored: syncline_core::authored::Authored::NEVER,
        snapshot_changes: covered,
        snapshot_bytes: 0,
    };
    let tail = changes[covered as usize..].iter();
    let tail = tail.map(|change| StoredChange { stamp: Stamp::ZERO, bytes: change.bytes.clone() }).collect();
    StoredGraph { summary, index: vec![graph.encode_index(0, covered).into()], tail }
}

#[divan::bench(args = [1, 2])]
fn letters_admitted_and_added(bencher: Bencher, authors: u8) {
    let changes = typed(authors);
    bencher.counter(changes.len()).bench_local(|| graph_of(black_box(&changes)));
}

#[divan::bench]
fn rows_admitted_and_added(bencher: Bencher) {
    let changes = table();
    bencher.counter(changes.len()).bench_local(|| graph_of(black_box(&changes)));
}

#[divan::bench]
fn letters_read_from_an_index(bencher: Bencher) {
    let stored = stored(&typed(2), CHANGES as u32);
    bencher.counter(CHANGES).bench_local(|| Graph::from_stored(black_box(&stored), 1).expect("undamaged"));
}

#[divan::bench]
fn letters_read_raw(bencher: Bencher) {
    let stored = stored(&typed(2), 0);
    bencher.counter(CHANGES).bench_local(|| Graph::from_stored(black_box(&stored), 1).expect("undamaged"));
}

//! What may join the graph, on forged changes; what waits for it; what it lets go of.
//!
//! Owns: for each refusal, the lie and the honest change beside it. Must not: test what random histories do better;
//! those are in `tests/graph_differential.rs`.
//! Next: `admission.rs`, `orphans.rs`.

use super::*;
use crate::forge::{self, Forged, Key, Row};
use crate::id::SessionId;
use crate::limits::Limits;

const ALICE: [u8; 16] = [0xaa; 16];
const BOB: [u8; 16] = [0xbb; 16];

fn decoded(forged: &Forged) -> Change {
    Change::decode(forged.bytes(), &Limits::default()).expect("good by itself")
}

/// A change of one put by `actor`; later parts overwrite what a test is about.
fn change(actor: [u8; 16], seq: u64, start_op: u64, deps: &[&Forged]) -> Forged {
    let mut deps: Vec<_> = deps.iter().map(|dep| dep.hash()).collect();
    deps.sort_unstable();
    Forged { actor: actor.to_vec(), seq, start_op, deps, ..forge::change() }
}

/// Alice's first: a key and a text, operations 1 and 2.
fn first() -> Forged {
    change(ALICE, 1, 1, &[]).rows(&[Row::put(Key::Property("key")), Row::bare(4, Key::Property("text"))])
}

fn graph_of(changes: &[&Forged]) -> Graph {
    let mut graph = Graph::new(7);
    for forged in changes {
        let change = decoded(forged);
        assert_eq!(graph.admit(&change, &Limits::default()), Ok(Admission::Ready));
        graph.push(&change).expect("admitted");
    }
    graph
}

fn check_admitted(graph: &Graph, honest: &Forged) {
    assert_eq!(graph.admit(&decoded(honest), &Limits::default()), Ok(Admission::Ready));
}

fn check_refused(graph: &Graph, lie: &Forged, kind: &str) -> Refusal {
    let before = graph.len();
    let refusal = graph.admit(&decoded(lie), &Limits::default()).expect_err("a lie");
    assert_eq!(refusal.kind(), kind, "{refusal}");
    assert_eq!(graph.len(), before);
    refusal
}

#[test]
fn a_second_change_with_one_sequence_number_is_refused_and_the_first_stands() {
    let first = first();
    let second = change(ALICE, 2, 3, &[&first]);
    let graph = graph_of(&[&first, &second]);
    for (lie, existing) in [
        (Forged { time: 5, ..first.clone() }, &first),
        (Forged { time: 5, ..second.clone() }, &second),
        (change(ALICE, 1, 4, &[&second]), &first),
    ] {
        let refusal = check_refused(&graph, &lie, "change_duplicate_sequence");
        let Refusal::DuplicateSequence { existing: found, hash, .. } = refusal else { panic!("{refusal}") };
        assert_eq!((found.0, hash.0), (existing.hash(), lie.hash()));
    }
    assert_eq!(graph.admit(&decoded(&second), &Limits::default()), Ok(Admission::Known));
}

#[test]
fn a_gap_in_the_sequence_is_refused() {
    let first = first();
    let graph = graph_of(&[&first]);
    for (lie, due) in [(change(ALICE, 3, 3, &[&first]), 2), (change(BOB, 2, 3, &[&first]), 1)] {
        let refusal = check_refused(&graph, &lie, "change_sequence_gap");
        let Refusal::SequenceGap { expected, .. } = refusal else { panic!("{refusal}") };
        assert_eq!(expected, due);
    }
    check_admitted(&graph, &change(ALICE, 2, 3, &[&first]));
    check_admitted(&graph, &change(BOB, 1, 3, &[&first]));
}

#[test]
fn a_change_beside_its_authors_previous_one_is_refused() {
    let first = first();
    let bobs = change(BOB, 1, 1, &[]);
    let merge = change(BOB, 2, 3, &[&first, &bobs]);
    let graph = graph_of(&[&first, &bobs, &merge]);
    for lie in [change(ALICE, 2, 3, &[&bobs]), change(ALICE, 2, 3, &[])] {
        check_refused(&graph, &lie, "change_previous_not_ancestor");
    }
    check_admitted(&graph, &change(ALICE, 2, 4, &[&merge]));
    check_admitted(&graph, &change(ALICE, 2, 3, &[&first, &bobs]));
}

#[test]
fn operation_ids_of_an_ancestor_are_refused() {
    let first = first();
    let graph = graph_of(&[&first]);
    for start_op in [1, 2] {
        check_refused(&graph, &change(BOB, 1, start_op, &[&first]), "change_reused_operations");
    }
    check_admitted(&graph, &change(BOB, 1, 3, &[&first]));
    check_admitted(&graph, &change(BOB, 1, 1, &[]));
}

#[test]
fn a_start_far_beyond_the_document_is_refused() {
    let first = first();
    let graph = graph_of(&[&first]);
    check_admitted(&graph, &change(BOB, 1, 1_000_002, &[&first]));
    check_refused(&graph, &change(BOB, 1, 1_000_003, &[&first]), "change_implausible_start");
    check_refused(&graph, &change(BOB, 1, 19_999_999, &[&first]), "change_implausible_start");
    // The document's own bound, however near.
    let limits = Limits { document_operations_max: 4, ..Limits::default() };
    let last = decoded(&change(ALICE, 2, 3, &[&first]));
    assert_eq!(graph.admit(&last, &limits), Ok(Admission::Ready));
    let one_more = decoded(&change(ALICE, 2, 4, &[&first]));
    assert_eq!(graph.admit(&one_more, &limits).map_err(|refusal| refusal.kind()), Err("change_implausible_start"));
}

// automerge applies and saves such a change, and then refuses to load what it saved: operations are missing.
#[test]
fn an_empty_change_that_skips_operation_ids_is_refused() {
    let first = first();
    let graph = graph_of(&[&first]);
    let empty = |start_op| change(BOB, 1, start_op, &[&first]).rows(&[]);
    check_admitted(&graph, &empty(3));
    check_refused(&graph, &empty(4), "change_implausible_start");
    check_refused(&Graph::new(3), &change(BOB, 1, 2, &[]).rows(&[]), "change_implausible_start");
}

#[test]
fn an_operation_that_no_ancestor_has_is_refused_wherever_it_is_named() {
    let first = first();
    let graph = graph_of(&[&first]);
    let next = change(ALICE, 2, 10, &[&first]);
    let text = |counter| Row::insert(Key::Element(counter, 0)).within(2, 0);
    let put = || Row::put(Key::Property("key"));
    for (row, name) in [
        (put().within(5, 0), "object"),
        (put().after(&[(5, 0)]), "predecessor"),
        (text(5), "element"),
        (put().after(&[(1, 0), (3, 0)]), "the second predecessor"),
    ] {
        let refusal = check_refused(&graph, &next.clone().rows(&[row]), "change_unknown_operation");
        let Refusal::UnknownOperation { counter, .. } = refusal else { panic!("{refusal}") };
        assert!([3, 5].contains(&counter), "{name}: {counter}");
    }
    for row in [put().after(&[(1, 0)]), Row::insert(Key::Head).within(2, 0)] {
        check_admitted(&graph, &next.clone().rows(&[row]));
    }
}

#[test]
fn an_operation_of_somebody_who_is_no_ancestor_is_refused() {
    let first = first();
    let bobs = change(BOB, 1, 1, &[]);
    let names_bob = |deps: &[&Forged], seq| {
        let row = Row::put(Key::Property("key")).after(&[(1, 1)]);
        Forged { others: vec![BOB.to_vec()], ..change(ALICE, seq, 3, deps) }.rows(&[row])
    };
    check_refused(&graph_of(&[&first]), &names_bob(&[&first], 2), "change_unknown_operation");
    let both = graph_of(&[&first, &bobs]);
    check_refused(&both, &names_bob(&[&first], 2), "change_unknown_operation");
    check_admitted(&both, &names_bob(&[&first, &bobs], 2));
}

#[test]
fn a_range_of_operations_may_span_changes_but_not_a_gap_between_them() {
    let first = first();
    let overwrites = |start_op, last, graph: &[&Forged]| {
        let dep = graph[graph.len() - 1];
        let predecessors: Vec<_> = (1..=last).map(|counter| (counter, 0)).collect();
        change(ALICE, 3, start_op, &[dep]).rows(&[Row::put(Key::Property("key")).after(&predecessors)])
    };
    let near = change(ALICE, 2, 3, &[&first]);
    check_admitted(&graph_of(&[&first, &near]), &overwrites(4, 3, &[&first, &near]));
    let far = change(ALICE, 2, 5, &[&first]);
    let refusal =
        check_refused(&graph_of(&[&first, &far]), &overwrites(6, 5, &[&first, &far]), "change_unknown_operation");
    assert!(matches!(refusal, Refusal::UnknownOperation { counter: 3, .. }), "{refusal}");
}

#[test]
fn a_change_without_its_dependencies_waits_whatever_else_it_claims() {
    let first = first();
    let second = change(BOB, 1, 1, &[]);
    let merge = change(ALICE, 9, 1, &[&first, &second]);
    let missing = |graph: &Graph| match graph.admit(&decoded(&merge), &Limits::default()) {
        Ok(Admission::Orphan(missing)) => missing.iter().map(|hash| hash.0).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(&Graph::new(7)), merge.deps);
    assert_eq!(missing(&graph_of(&[&first])), [second.hash()]);
    check_refused(&graph_of(&[&first, &second]), &merge, "change_sequence_gap");
}

#[test]
fn a_push_without_dependencies_adds_nothing() {
    let first = first();
    let mut graph = Graph::new(7);
    let orphan = decoded(&change(ALICE, 2, 3, &[&first]));
    let (change, dependency) = (orphan.hash, ChangeHash(first.hash()));
    assert_eq!(graph.push(&orphan), Err(GraphError::MissingDependency { change, dependency }));
    assert!(graph.is_empty() && graph.raw_bytes() == 0 && graph.find(&orphan.hash).is_none());
}

#[test]
fn raw_bytes_are_let_go_only_under_what_is_durable() {
    let first = first();
    let second = change(ALICE, 2, 3, &[&first]);
    let third = change(ALICE, 3, 4, &[&second]);
    let mut graph = graph_of(&[&first, &second, &third]);
    let all = graph.raw_bytes();
    let weight = graph.weight();
    graph.release_raw(3);
    assert_eq!((graph.raw_from(), graph.raw_bytes()), (0, all), "nothing is durable");
    graph.mark_durable(2);
    graph.release_raw(3);
    assert_eq!((graph.raw_from(), graph.raw_bytes()), (2, third.bytes().len()));
    assert!(graph.weight() < weight);
    assert_eq!((graph.raw(0), graph.raw(1), graph.raw(2)), (None, None, Some(&third.bytes())));
    graph.release_raw(1);
    assert_eq!(graph.raw_from(), 2, "it never goes back");
    check_admitted(&graph, &change(ALICE, 4, 5, &[&third]));
}

#[test]
fn only_durable_nodes_are_found_as_such() {
    let first = first();
    let second = change(ALICE, 2, 3, &[&first]);
    let mut graph = graph_of(&[&first, &second]);
    graph.mark_durable(1);
    let [first, second] = [&first, &second].map(|forged| ChangeHash(forged.hash()));
    assert_eq!((graph.find(&first), graph.find(&second)), (Some(0), Some(1)));
    assert_eq!((graph.find_durable(&first), graph.find_durable(&second)), (Some(0), None));
    assert_eq!((graph.heads(), graph.pending_heads()), (vec![first], vec![second]));
}

const MINE: SessionId = SessionId(1);
const YOURS: SessionId = SessionId(2);

/// Changes that wait for dependencies nobody has.
fn waiting(count: u64) -> Vec<Change> {
    let absent = |n: u64| Forged { time: n as i64, ..first() };
    (0..count).map(|n| decoded(&change(BOB, 1, 3, &[&absent(n)]))).collect()
}

#[test]
fn orphans_are_bounded_in_number_for_each_session() {
    let limits = Limits { orphans_max: 2, ..Limits::default() };
    let changes = waiting(4);
    let mut orphans = Orphans::default();
    let mut insert = |session, n: usize| orphans.insert(session, changes[n].clone(), &changes[n].deps, &limits);
    assert_eq!([insert(MINE, 0), insert(MINE, 1), insert(MINE, 1)], [Ok(()), Ok(()), Ok(())]);
    let bytes = changes[0].bytes.len() + changes[1].bytes.len();
    assert_eq!(insert(MINE, 2), Err(OrphanError { hash: changes[2].hash, changes: 2, bytes }));
    assert_eq!(insert(YOURS, 2), Ok(()), "another session has bounds of its own");
    assert!(!orphans.contains(&changes[3].hash) && orphans.contains(&changes[2].hash));
}

#[test]
fn orphans_are_bounded_in_bytes_for_each_session() {
    let changes = waiting(3);
    let size = changes[0].bytes.len();
    let limits = Limits { orphan_bytes_max: 2 * size, ..Limits::default() };
    let mut orphans = Orphans::default();
    let mut insert = |session, n: usize| orphans.insert(session, changes[n].clone(), &changes[n].deps, &limits);
    assert_eq!([insert(MINE, 0), insert(MINE, 1)], [Ok(()), Ok(())]);
    assert!(insert(MINE, 2).is_err());
    assert_eq!(insert(YOURS, 2), Ok(()));
}

#[test]
fn room_comes_back_when_orphans_are_taken_or_their_session_is_forgotten() {
    let limits = Limits { orphans_max: 1, ..Limits::default() };
    let changes = waiting(3);
    let mut orphans = Orphans::default();
    let insert = |orphans: &mut Orphans, session, n: usize| {
        orphans.insert(session, changes[n].clone(), &changes[n].deps, &limits)
    };
    insert(&mut orphans, MINE, 0).expect("room");
    insert(&mut orphans, YOURS, 1).expect("room");
    let taken = orphans.take_dependents(&changes[0].deps[0]);
    assert_eq!(taken, [(MINE, changes[0].clone())]);
    insert(&mut orphans, MINE, 2).expect("room again");
    orphans.forget_session(MINE);
    assert_eq!(orphans.missing(), changes[1].deps.to_vec(), "the other session's orphan still waits");
    insert(&mut orphans, MINE, 0).expect("room again");
    orphans.forget_session(MINE);
    orphans.forget_session(YOURS);
    assert!(orphans.is_empty() && orphans.missing().is_empty());
}

#[test]
fn what_waits_for_several_is_given_out_at_the_first_and_asks_for_the_rest() {
    let limits = Limits::default();
    let (left, right) = (first(), change(BOB, 1, 1, &[]));
    let merge = decoded(&change(ALICE, 2, 3, &[&left, &right]));
    let child = Forged { deps: vec![merge.hash.0], ..change(ALICE, 3, 4, &[]) };
    let child = decoded(&child);
    let mut orphans = Orphans::default();
    orphans.insert(MINE, merge.clone(), &merge.deps, &limits).expect("room");
    orphans.insert(MINE, child.clone(), &child.deps, &limits).expect("room");
    assert_eq!(orphans.missing(), merge.deps.to_vec(), "what waits here is not asked for");
    let [first, rest] = [merge.deps[0], merge.deps[1]];
    assert_eq!(orphans.take_dependents(&first), [(MINE, merge.clone())]);
    orphans.insert(MINE, merge.clone(), &[rest], &limits).expect("room");
    assert_eq!(orphans.missing(), [rest]);
    assert_eq!(orphans.take_dependents(&rest), [(MINE, merge.clone())]);
    assert_eq!(orphans.take_dependents(&merge.hash), [(MINE, child)]);
    assert!(orphans.is_empty());
}

/// Alice's document, one of everything: operations 1 to 13.
fn furnished() -> Forged {
    change(ALICE, 1, 1, &[]).rows(&[
        Row::put(Key::Property("number")),
        Row::bare(0, Key::Property("map")),
        Row::put(Key::Property("inside")).within(2, 0),
        Row::bare(4, Key::Property("text")),
        Row::insert(Key::Head).within(4, 0),
        Row::insert(Key::Element(5, 0)).within(4, 0),
        Row::bare(2, Key::Property("list")),
        Row::insert(Key::Head).within(7, 0),
        Row { insert: true, ..Row::bare(0, Key::Element(8, 0)) }.within(7, 0),
        Row::put(Key::Element(8, 0)).within(7, 0).after(&[(8, 0)]),
        Row::bare(3, Key::Element(6, 0)).within(4, 0).after(&[(6, 0)]),
        Row::insert(Key::Element(6, 0)).within(4, 0),
        Row::bare(0, Key::Property("last")),
    ])
}

/// A change of Bob's on top; the ids in the rows are Alice's.
fn bobs(below: &Forged, start_op: u64, rows: &[Row]) -> Forged {
    Forged { others: vec![ALICE.to_vec()], ..change(BOB, 1, start_op, &[below]) }.rows(rows)
}

/// The same graph as a store gives it back: kept raw, under one index, under an index in two pieces.
fn as_stored(changes: &[&Forged]) -> Vec<Graph> {
    let graph = graph_of(changes);
    let stored = |covered: u32, cut: u32| {
        let pieces = [(0, cut), (cut, covered)].into_iter().filter(|(from, to)| from < to);
        let index = pieces.map(|(from, to)| Bytes::from(graph.encode_index(from, to))).collect();
        let raw = (covered..graph.len()).filter_map(|node| graph.raw(node).cloned());
        let tail = raw.map(|bytes| crate::storage::StoredChange { stamp: crate::clock::Stamp::ZERO, bytes }).collect();
        let summary = crate::storage::Summary {
            heads: graph.pending_heads(),
            changes: graph.len(),
            bytes: 0,
            last_stamp: crate::clock::Stamp::ZERO,
            authored: crate::authored::Authored::NEVER,
            snapshot_changes: covered,
            snapshot_bytes: 0,
        };
        Graph::from_stored(&StoredGraph { summary, index, tail }, 3).expect("undamaged")
    };
    vec![stored(0, 0), stored(graph.len(), graph.len()), stored(graph.len(), 1), graph]
}

#[test]
fn an_operation_is_only_taken_for_what_it_is() {
    let furnished = furnished();
    let mark = |key| Row { mark_name: Some("bold"), action: 7, ..Row::insert(key) };
    for graph in as_stored(&[&furnished]) {
        for honest in [
            Row::put(Key::Property("x")).within(2, 1),
            Row::put(Key::Property("x")).within(9, 1),
            Row::put(Key::Property("x")).within(13, 1),
            Row::insert(Key::Head).within(4, 1),
            Row::insert(Key::Element(5, 1)).within(4, 1),
            Row::insert(Key::Element(6, 1)).within(4, 1),
            Row::insert(Key::Element(12, 1)).within(4, 1),
            Row::insert(Key::Element(9, 1)).within(7, 1),
            Row::put(Key::Element(8, 1)).within(7, 1).after(&[(10, 1)]),
            Row::bare(3, Key::Element(5, 1)).within(4, 1).after(&[(5, 1)]),
            mark(Key::Element(5, 1)).within(4, 1),
        ] {
            check_admitted(&graph, &bobs(&furnished, 14, &[honest]));
        }
        for lie in [
            // Written into what is no object: a number, a letter, an overwritten item, a deletion.
            Row::put(Key::Property("x")).within(1, 1),
            Row::put(Key::Property("x")).within(5, 1),
            Row::put(Key::Property("x")).within(10, 1),
            Row::insert(Key::Head).within(11, 1),
            // A key of the wrong type.
            Row::put(Key::Property("x")).within(4, 1),
            Row::put(Key::Property("x")).within(7, 1),
            Row::insert(Key::Head).within(2, 1),
            Row::insert(Key::Head).within(9, 1),
            Row::put(Key::Element(3, 1)).within(2, 1),
            // Behind, onto or over what is no element of that object.
            Row::insert(Key::Element(8, 1)).within(4, 1),
            Row::insert(Key::Element(5, 1)).within(7, 1),
            Row::insert(Key::Element(10, 1)).within(7, 1),
            Row::insert(Key::Element(11, 1)).within(4, 1),
            Row::insert(Key::Element(4, 1)).within(4, 1),
            Row::insert(Key::Element(3, 1)).within(4, 1),
            Row::put(Key::Element(10, 1)).within(7, 1),
            Row::bare(3, Key::Element(8, 1)).within(4, 1).after(&[(8, 1)]),
            mark(Key::Element(3, 1)).within(4, 1),
            // A mark in a list.
            mark(Key::Element(8, 1)).within(7, 1),
        ] {
            check_refused(&graph, &bobs(&furnished, 14, &[lie]), "change_mistaken_operation");
        }
    }
}

#[test]
fn one_lie_in_a_run_of_honest_operations_is_found_and_named() {
    let furnished = furnished();
    let graph = graph_of(&[&furnished]);
    let delete = |counter| Row::bare(3, Key::Element(counter, 1)).within(4, 1).after(&[(counter, 1)]);
    check_admitted(&graph, &bobs(&furnished, 14, &[delete(5), delete(6), delete(12)]));
    let lie = bobs(&furnished, 14, &[delete(5), delete(6), delete(7), delete(12)]);
    let refusal = check_refused(&graph, &lie, "change_mistaken_operation");
    let Refusal::MistakenOperation { actor, counter, .. } = refusal else { panic!("{refusal}") };
    assert_eq!((actor.as_bytes(), counter), (&ALICE[..], 7));
}

#[test]
fn letters_typed_one_by_one_are_one_run_whoever_types_between_them() {
    let text = change(ALICE, 1, 1, &[]).rows(&[Row::bare(4, Key::Property("text"))]);
    let mut changes = vec![text];
    for n in 0..40u64 {
        let below = &changes[changes.len() - 1];
        let (seq, start_op) = (n / 2 + 1, n + 2);
        let letter = if n % 2 == 0 {
            change(BOB, seq, start_op, &[below]).rows(&[Row::insert(Key::Head).within(1, 1)])
        } else {
            change(ALICE, seq + 1, start_op, &[below]).rows(&[Row::insert(Key::Head).within(1, 0)])
        };
        let others = if n % 2 == 0 { vec![ALICE.to_vec()] } else { Vec::new() };
        changes.push(Forged { others, ..letter });
    }
    let graph = graph_of(&changes.iter().collect::<Vec<_>>());
    let runs: Vec<_> = graph.actors.iter().map(|log| log.kinds.len()).collect();
    assert_eq!(runs, [2, 1], "Alice's text and her letters, Bob's letters");
}

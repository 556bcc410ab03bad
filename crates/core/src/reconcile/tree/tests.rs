//! The tree against a sorted set, and the room that it takes.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::clock::Stamp;

fn element(rng: &mut ChaCha8Rng, stamps: u64) -> Element {
    Element::new(Stamp::from_u64(rng.random_range(0..stamps)), rng.random())
}

fn part_of<'a>(elements: impl Iterator<Item = &'a Element>) -> Part {
    let mut part = Part::default();
    elements.for_each(|element| part.add(element));
    part
}

/// Every node knows its own part and keeps to its share of room; gives the depth.
fn check_node(node: &Node, is_root: bool) -> usize {
    assert!(is_root || !node.is_sparse(), "a node with few entries");
    match node {
        Node::Leaf(elements) => {
            assert!(elements.len() <= LEAF && elements.capacity() <= LEAF);
            assert!(elements.is_sorted());
            1
        }
        Node::Inner(children) => {
            assert!((2..=INNER).contains(&children.len()) && children.capacity() <= INNER);
            let depths: BTreeSet<usize> = children.iter().map(|child| check_node(&child.node, false)).collect();
            assert!(children.iter().all(|child| child.part == child.node.part()));
            assert_eq!(depths.len(), 1, "all leaves are equally deep");
            1 + depths.first().copied().unwrap_or_default()
        }
    }
}

fn check_same(tree: &Tree, model: &BTreeSet<Element>, rng: &mut ChaCha8Rng) {
    check_node(&tree.root, true);
    assert!(tree.from(0).eq(model.iter().copied()));
    assert_eq!(*tree.total(), part_of(model.iter()));
    for _ in 0..10 {
        let bound = element(rng, 1_000);
        assert_eq!(tree.below(&bound), part_of(model.range(..bound)));
        assert_eq!(tree.first_from(&bound), model.range(bound..).next().copied());
        let position = rng.random_range(0..=model.len());
        assert_eq!(tree.first(position as u64), part_of(model.iter().take(position)));
        assert!(tree.from(position as u64).eq(model.iter().skip(position).copied()));
    }
}

#[test]
fn it_stays_what_a_sorted_set_is_while_it_grows_and_shrinks() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut tree, mut model) = (Tree::new(), BTreeSet::new());
    for share in [100, 60, 20, 90] {
        for step in 0..6_000 {
            let some = element(&mut rng, 1_000);
            if rng.random_range(0..100) < share {
                assert_eq!(tree.insert(&some), model.insert(some));
                assert!(!tree.insert(&some), "a second time");
            } else if let Some(old) = model.range(some..).next().or(model.first()).copied() {
                assert!(tree.remove(&old) && model.remove(&old));
                assert!(!tree.remove(&old), "a second time");
            }
            if step % 3_000 == 0 {
                check_same(&tree, &model, &mut rng);
            }
        }
        check_same(&tree, &model, &mut rng);
    }
    while let Some(last) = model.pop_last() {
        assert!(tree.remove(&last));
        if model.len().is_multiple_of(1_000) {
            check_same(&tree, &model, &mut rng);
        }
    }
}

#[test]
fn what_is_built_at_once_is_what_grows() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for count in [0, 1, 55, 56, 57, 64, 500, 1_600, 5_000, 30_000] {
        let mut model: BTreeSet<Element> = (0..count).map(|_| element(&mut rng, 1_000)).collect();
        let sorted: Vec<Element> = model.iter().copied().collect();
        let mut tree = Tree::from_sorted(&sorted);
        check_same(&tree, &model, &mut rng);
        for _ in 0..200 {
            let some = element(&mut rng, 1_000);
            assert_eq!(tree.insert(&some), model.insert(some));
        }
        check_same(&tree, &model, &mut rng);
    }
}

#[test]
fn what_comes_in_order_fills_its_leaves() {
    let mut tree = Tree::new();
    for stamp in 0..20_000 {
        tree.insert(&Element::new(Stamp::from_u64(stamp), [stamp as u8; 32]));
    }
    fn leaves(node: &Node) -> usize {
        match node {
            Node::Leaf(_) => 1,
            Node::Inner(children) => children.iter().map(|child| leaves(&child.node)).sum(),
        }
    }
    let leaves = leaves(&tree.root);
    assert!(leaves * LEAF < 20_000 * 14 / 10, "{leaves} leaves");
}

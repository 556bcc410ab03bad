//! The elements in order: a B+ tree whose inner nodes know the count and the sum of each subtree.
//!
//! Owns: order, balance, parts of the set by key and by position. Must not: know messages or sketches.
//! Next: `ranges.rs`.

use super::Element;
use super::sum::Part;

/// Elements in a leaf, and subtrees in an inner node. A leaf takes 2.5 KiB.
const LEAF: usize = 64;
const INNER: usize = 32;

/// A node with less than this share of its room is mended.
const SPARSE: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: Node,
    total: Part,
}

#[derive(Debug, Clone)]
enum Node {
    Leaf(Vec<Element>),
    Inner(Vec<Child>),
}

#[derive(Debug, Clone)]
struct Child {
    /// No element of the subtree is below this, and none of the subtrees before reaches it.
    first: Element,
    part: Part,
    node: Node,
}

enum Inserted {
    WasThere,
    Fits,
    Split(Child),
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { root: Node::Leaf(Vec::new()), total: Part::default() }
    }

    /// The tree of elements that are sorted and all different.
    pub(super) fn from_sorted(elements: &[Element]) -> Self {
        let leaves = even(elements, LEAF).map(|some| Node::Leaf(with_room(some.iter().copied(), LEAF)));
        let mut level: Vec<Child> = leaves.map(Child::of).collect();
        while level.len() > 1 {
            let mut children = level.into_iter();
            let mut above = Vec::new();
            let (nodes, count) = (children.len().div_ceil(filled(INNER)), children.len());
            for node in 0..nodes {
                let length = (node + 1) * count / nodes - node * count / nodes;
                above.push(Child::of(Node::Inner(with_room(children.by_ref().take(length), INNER))));
            }
            level = above;
        }
        level.pop().map_or_else(Self::new, |child| Self { root: child.node, total: child.part })
    }

    pub(super) fn len(&self) -> u64 {
        self.total.count
    }

    pub(super) fn total(&self) -> &Part {
        &self.total
    }

    pub(super) fn insert(&mut self, element: &Element) -> bool {
        match self.root.insert(element) {
            Inserted::WasThere => return false,
            Inserted::Fits => {}
            Inserted::Split(right) => {
                let left = Child::of(std::mem::replace(&mut self.root, Node::Inner(Vec::with_capacity(INNER))));
                if let Node::Inner(children) = &mut self.root {
                    children.extend([left, right]);
                }
            }
        }
        self.total.add(element);
        true
    }

    pub(super) fn remove(&mut self, element: &Element) -> bool {
        if !self.root.remove(element) {
            return false;
        }
        self.total.take(element);
        if let Node::Inner(children) = &mut self.root
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.root = only.node;
        }
        true
    }

    pub(super) fn contains(&self, element: &Element) -> bool {
        self.first_from(element).as_ref() == Some(element)
    }

    /// The first element that is not below this one.
    pub(super) fn first_from(&self, element: &Element) -> Option<Element> {
        self.at(self.below(element).count)
    }

    /// The elements below this one.
    pub(super) fn below(&self, bound: &Element) -> Part {
        let mut part = Part::default();
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(elements) => {
                    let end = elements.partition_point(|element| element < bound);
                    elements[..end].iter().for_each(|element| part.add(element));
                    return part;
                }
                Node::Inner(children) => {
                    let end = children.partition_point(|child| child.first < *bound).saturating_sub(1);
                    children[..end].iter().for_each(|child| part.join(&child.part));
                    node = &children[end].node;
                }
            }
        }
    }

    /// The first elements, this many, which are not more than there are.
    pub(super) fn first(&self, count: u64) -> Part {
        let mut part = Part::default();
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(elements) => {
                    let left = (count - part.count) as usize;
                    elements.iter().take(left).for_each(|element| part.add(element));
                    return part;
                }
                Node::Inner(children) => {
                    let mut children = children.iter().peekable();
                    while let Some(child) = children.next_if(|child| part.count + child.part.count <= count) {
                        part.join(&child.part);
                    }
                    let Some(child) = children.next() else { return part };
                    node = &child.node;
                }
            }
        }
    }

    /// The element at this position.
    pub(super) fn at(&self, position: u64) -> Option<Element> {
        self.from(position).next()
    }

    /// The elements from this position on.
    pub(super) fn from(&self, position: u64) -> Elements<'_> {
        let mut elements = Elements { leaf: &[], above: Vec::new() };
        let (mut node, mut left) = (&self.root, position);
        loop {
            match node {
                Node::Leaf(all) => {
                    elements.leaf = all.get(left as usize..).unwrap_or_default();
                    return elements;
                }
                Node::Inner(children) => {
                    let mut skipped = 0;
                    while let Some(child) = children.get(skipped)
                        && child.part.count <= left
                    {
                        left -= child.part.count;
                        skipped += 1;
                    }
                    let Some((child, rest)) = children[skipped..].split_first() else { return elements };
                    elements.above.push(rest);
                    node = &child.node;
                }
            }
        }
    }
}

/// Elements in order.
pub(super) struct Elements<'a> {
    leaf: &'a [Element],
    above: Vec<&'a [Child]>,
}

impl Iterator for Elements<'_> {
    type Item = Element;

    fn next(&mut self) -> Option<Element> {
        loop {
            if let Some((element, rest)) = self.leaf.split_first() {
                self.leaf = rest;
                return Some(*element);
            }
            let (child, rest) = self.above.pop()?.split_first().unzip();
            self.above.extend(rest.map(|rest| rest as &[Child]));
            match child.map(|child: &Child| &child.node) {
                Some(Node::Leaf(elements)) => self.leaf = elements,
                Some(Node::Inner(children)) => self.above.push(children),
                None => {}
            }
        }
    }
}

impl Node {
    fn is_sparse(&self) -> bool {
        match self {
            Self::Leaf(elements) => elements.len() < LEAF / SPARSE,
            Self::Inner(children) => children.len() < INNER / SPARSE,
        }
    }

    fn part(&self) -> Part {
        let mut part = Part::default();
        match self {
            Self::Leaf(elements) => elements.iter().for_each(|element| part.add(element)),
            Self::Inner(children) => children.iter().for_each(|child| part.join(&child.part)),
        }
        part
    }

    fn insert(&mut self, element: &Element) -> Inserted {
        match self {
            Self::Leaf(elements) => match elements.binary_search(element) {
                Ok(_) => Inserted::WasThere,
                Err(at) => insert_into(elements, at, *element, LEAF)
                    .map_or(Inserted::Fits, |right| Inserted::Split(Child::of(Self::Leaf(right)))),
            },
            Self::Inner(children) => {
                let at = place(children, element);
                let child = &mut children[at];
                match child.node.insert(element) {
                    Inserted::WasThere => return Inserted::WasThere,
                    Inserted::Fits => child.grow(element),
                    Inserted::Split(right) => {
                        child.grow(element);
                        child.part = child.part.without(&right.part);
                        if let Some(right) = insert_into(children, at + 1, right, INNER) {
                            return Inserted::Split(Child::of(Self::Inner(right)));
                        }
                    }
                }
                Inserted::Fits
            }
        }
    }

    fn remove(&mut self, element: &Element) -> bool {
        match self {
            Self::Leaf(elements) => {
                let found = elements.binary_search(element);
                found.is_ok_and(|at| elements.remove(at) == *element)
            }
            Self::Inner(children) => {
                let at = place(children, element);
                if !children[at].node.remove(element) {
                    return false;
                }
                children[at].part.take(element);
                if children[at].node.is_sparse() {
                    mend(children, at);
                }
                true
            }
        }
    }
}

impl Child {
    /// The subtree of this node, which is not empty.
    fn of(node: Node) -> Self {
        let first = match &node {
            Node::Leaf(elements) => elements[0],
            Node::Inner(children) => children[0].first,
        };
        Self { first, part: node.part(), node }
    }

    fn grow(&mut self, element: &Element) {
        self.part.add(element);
        self.first = self.first.min(*element);
    }
}

/// Which subtree this element belongs to.
fn place(children: &[Child], element: &Element) -> usize {
    children.partition_point(|child| child.first <= *element).saturating_sub(1)
}

/// Inserts an entry; gives the upper part of the entries if there is no room for all.
fn insert_into<T>(entries: &mut Vec<T>, at: usize, entry: T, room: usize) -> Option<Vec<T>> {
    if entries.capacity() < room {
        entries.reserve_exact(room - entries.len());
    }
    if entries.len() < room {
        entries.insert(at, entry);
        return None;
    }
    // What comes in order fills its nodes better if little is moved out of them.
    let cut = if at == room { room - room / SPARSE } else { room / 2 };
    let mut right = with_room(entries.drain(cut..), room);
    if at <= cut {
        entries.insert(at, entry);
    } else {
        right.insert(at - cut, entry);
    }
    Some(right)
}

/// Joins a sparse node with a neighbour, or shares the entries of both evenly.
fn mend(children: &mut Vec<Child>, at: usize) {
    let left = at.saturating_sub(1);
    if left + 1 >= children.len() {
        return;
    }
    let right = children.remove(left + 1);
    let child = &mut children[left];
    let rest = match (&mut child.node, right.node) {
        (Node::Leaf(left), Node::Leaf(right)) => share(left, right, LEAF).map(Node::Leaf),
        (Node::Inner(left), Node::Inner(right)) => share(left, right, INNER).map(Node::Inner),
        // All leaves are equally deep.
        (Node::Leaf(_), other @ Node::Inner(_)) | (Node::Inner(_), other @ Node::Leaf(_)) => Some(other),
    };
    child.part = child.node.part();
    if let Some(rest) = rest {
        children.insert(left + 1, Child::of(rest));
    }
}

/// Moves everything to the left if that leaves room there; otherwise gives the right half.
fn share<T>(left: &mut Vec<T>, mut right: Vec<T>, room: usize) -> Option<Vec<T>> {
    let all = left.len() + right.len();
    if all <= filled(room) {
        left.append(&mut right);
        return None;
    }
    if left.len() < all / 2 {
        left.extend(right.drain(..all / 2 - left.len()));
    } else {
        right.splice(0..0, left.drain(all / 2..));
    }
    Some(right)
}

/// Entries of a node that leave room for a few more.
fn filled(room: usize) -> usize {
    room - room / 8
}

fn with_room<T>(entries: impl Iterator<Item = T>, room: usize) -> Vec<T> {
    let mut list = Vec::with_capacity(room);
    list.extend(entries);
    list
}

/// Runs of about equal length, none of them more than filled.
fn even(elements: &[Element], room: usize) -> impl Iterator<Item = &[Element]> {
    let (runs, count) = (elements.len().div_ceil(filled(room)), elements.len());
    (0..runs).map(move |run| &elements[run * count / runs..(run + 1) * count / runs])
}

#[cfg(test)]
mod tests;

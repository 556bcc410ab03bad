//! The documents of a set: their elements in order, and the way from a document to its element and back.
//!
//! Owns: that each document has one element at most. Must not: know rounds or peers.
//! Next: `../reconcile.rs`; docs/decisions/0021-the-collection-is-compared-documents-are-greeted.md.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hasher};

use hashbrown::HashTable;

use super::DocumentState;
use crate::clock::Stamp;
use crate::id::DocumentId;
use crate::reconcile::{Element, ElementSet, SetKey};

/// Ids of this length, which is that of all that Syncline and automerge-repo make, are held in little room.
const ID_BYTES: usize = 16;

/// Bytes of its digest by which a document's element is found among those of the same second.
const PREFIX_BYTES: usize = 8;

/// A set with its documents.
pub struct Members {
    key: SetKey,
    elements: ElementSet,
    directory: Directory,
}

/// Which document has which element. What does not fit a slot is beside them: other ids, and elements that begin like another's.
#[derive(Debug, Default)]
struct Directory {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    by_element: HashTable<u32>,
    keyed: Keyed,
    others: BTreeMap<DocumentId, Element>,
    documents_of_others: BTreeMap<Element, DocumentId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    id: [u8; ID_BYTES],
    prefix: [u8; PREFIX_BYTES],
    second: u32,
}

/// SipHash with a key that peers do not know: they choose ids, and with them digests.
#[derive(Debug, Clone, Copy, Default)]
struct Keyed(u64);

impl Keyed {
    fn hash(self, bytes: &[u8]) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl Members {
    /// A set without documents. `hash_key` is a secret of this process.
    #[must_use]
    pub fn new(key: SetKey, hash_key: u64) -> Self {
        let directory = Directory { keyed: Keyed(hash_key), ..Directory::default() };
        Self { key, elements: ElementSet::new(), directory }
    }

    /// The document is in this state from here on.
    pub fn set(&mut self, id: &DocumentId, state: &DocumentState) {
        let element = state.element(&self.key, id);
        let before = self.element_of(id);
        if before == element {
            return;
        }
        if let Some(before) = before {
            self.elements.remove(&before);
            self.directory.remove(id);
        }
        if let Some(element) = element {
            self.elements.insert(element);
            self.directory.insert(id.clone(), element);
        }
    }

    /// The elements.
    #[must_use]
    pub fn elements(&self) -> &ElementSet {
        &self.elements
    }

    /// The element of a document that is in the set.
    #[must_use]
    pub fn element_of(&self, id: &DocumentId) -> Option<Element> {
        if let Some(other) = self.directory.others.get(id) {
            return Some(*other);
        }
        let slot = self.directory.slots[self.directory.slot_of(id)? as usize];
        let same = self.elements.beginning(Stamp::from_u64(u64::from(slot.second)), &slot.prefix);
        same.into_iter().find(|element| !self.directory.documents_of_others.contains_key(element))
    }

    /// The document that has this element.
    #[must_use]
    pub fn document_of(&self, element: &Element) -> Option<DocumentId> {
        self.directory.document_of(element)
    }
}

/// A set in the making: that of all documents at once costs less than document by document.
#[derive(Debug)]
pub struct Gathering {
    members: Members,
    elements: Vec<Element>,
}

impl Gathering {
    /// Nothing yet. `hash_key` is a secret of this process.
    #[must_use]
    pub fn new(key: SetKey, hash_key: u64) -> Self {
        Self { members: Members::new(key, hash_key), elements: Vec::new() }
    }

    /// Adds documents, each of which comes once, in whatever order.
    pub fn add(&mut self, documents: impl IntoIterator<Item = (DocumentId, DocumentState)>) {
        for (id, state) in documents {
            if let Some(element) = state.element(&self.members.key, &id) {
                self.members.directory.insert(id, element);
                self.elements.push(element);
            }
        }
    }

    /// The set of what was added.
    #[must_use]
    pub fn finish(self) -> Members {
        let Self { mut members, elements } = self;
        members.elements = elements.into_iter().collect();
        members.directory.slots.shrink_to_fit();
        members
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("documents", &self.elements.len()).finish_non_exhaustive()
    }
}

impl Directory {
    fn insert(&mut self, id: DocumentId, element: Element) {
        let Ok(bytes) = <[u8; ID_BYTES]>::try_from(id.as_bytes()) else { return self.insert_beside(id, element) };
        let slot = Slot { id: bytes, prefix: prefix_of(&element), second: second_of(&element) };
        let twin = self.find_element(&slot).is_some();
        if twin {
            return self.insert_beside(id, element);
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.make_room();
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        let Self { slots, by_id, by_element, keyed, .. } = self;
        by_id.insert_unique(keyed.hash(&slot.id), number, |n| keyed.hash(&slots[*n as usize].id));
        by_element.insert_unique(keyed.hash(&slot.prefix), number, |n| keyed.hash(&slots[*n as usize].prefix));
    }

    /// By an eighth: to double a gigabyte for one more document would cost half of it.
    fn make_room(&mut self) {
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.slots.len() / 8 + 64);
        }
    }

    fn insert_beside(&mut self, id: DocumentId, element: Element) {
        self.documents_of_others.insert(element, id.clone());
        self.others.insert(id, element);
    }

    fn remove(&mut self, id: &DocumentId) {
        if let Some(element) = self.others.remove(id) {
            self.documents_of_others.remove(&element);
            return;
        }
        let Some(number) = self.slot_of(id) else { return };
        let slot = self.slots[number as usize];
        let Self { by_id, by_element, keyed, .. } = self;
        if let Ok(entry) = by_id.find_entry(keyed.hash(&slot.id), |n| *n == number) {
            entry.remove();
        }
        if let Ok(entry) = by_element.find_entry(keyed.hash(&slot.prefix), |n| *n == number) {
            entry.remove();
        }
        self.free.push(number);
    }

    fn slot_of(&self, id: &DocumentId) -> Option<u32> {
        let bytes = <[u8; ID_BYTES]>::try_from(id.as_bytes()).ok()?;
        self.by_id.find(self.keyed.hash(&bytes), |n| self.slots[*n as usize].id == bytes).copied()
    }

    fn find_element(&self, like: &Slot) -> Option<u32> {
        let same = |n: &u32| {
            let slot = self.slots[*n as usize];
            slot.prefix == like.prefix && slot.second == like.second
        };
        self.by_element.find(self.keyed.hash(&like.prefix), same).copied()
    }

    fn document_of(&self, element: &Element) -> Option<DocumentId> {
        if let Some(id) = self.documents_of_others.get(element) {
            return Some(id.clone());
        }
        let like = Slot { id: [0; ID_BYTES], prefix: prefix_of(element), second: second_of(element) };
        let number = self.find_element(&like)?;
        DocumentId::from_bytes(&self.slots[number as usize].id).ok()
    }
}

fn prefix_of(element: &Element) -> [u8; PREFIX_BYTES] {
    std::array::from_fn(|at| element.digest()[at])
}

/// Stamps of a collection are seconds that 32 bits hold.
fn second_of(element: &Element) -> u32 {
    u32::try_from(element.stamp().as_u64()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ChangeHash;
    use crate::authored::Authored;

    fn id(number: u8) -> DocumentId {
        // Some of another length, which go beside the slots.
        let length = if number.is_multiple_of(5) { 3 } else { 16 };
        DocumentId::from_bytes(&vec![number; length]).expect("short")
    }

    fn state(head: u8, second: u32) -> DocumentState {
        let heads = if head == 0 { Vec::new() } else { vec![ChangeHash([head; 32])] };
        DocumentState { heads, authored: Authored::from_seconds(second), life: None, local_only: head == 1 }
    }

    proptest! {
        #[test]
        fn a_set_kept_current_is_the_set_built_at_once(
            steps in proptest::collection::vec((0u8..20, 0u8..5, 0u32..3), 1..200),
        ) {
            let mut members = Members::new(SetKey([7; 32]), 3);
            let mut last = BTreeMap::new();
            for (document, head, second) in steps {
                members.set(&id(document), &state(head, second));
                last.insert(id(document), state(head, second));
            }
            let mut fresh = Gathering::new(SetKey([7; 32]), 4);
            fresh.add(last.clone());
            let fresh = fresh.finish();
            prop_assert_eq!(members.elements().len(), fresh.elements().len());
            for (id, state) in &last {
                let element = state.element(&SetKey([7; 32]), id);
                for members in [&members, &fresh] {
                    prop_assert_eq!(members.element_of(id), element);
                    let found = element.and_then(|element| members.document_of(&element));
                    prop_assert_eq!(found.as_ref(), element.map(|_| id));
                    prop_assert!(element.is_none_or(|element| members.elements().contains(&element)));
                }
            }
        }
    }

    #[test]
    fn elements_that_begin_alike_are_told_apart() {
        let digest = |last: u8| {
            let mut digest = [9; 32];
            digest[31] = last;
            Element::new(Stamp::from_u64(5), digest)
        };
        let mut members = Members::new(SetKey([0; 32]), 1);
        for (number, last) in [(2, 7), (1, 200), (3, 1)] {
            members.elements.insert(digest(last));
            members.directory.insert(id(number), digest(last));
        }
        for (number, last) in [(2, 7), (1, 200), (3, 1)] {
            assert_eq!(members.element_of(&id(number)), Some(digest(last)));
            assert_eq!(members.document_of(&digest(last)), Some(id(number)));
        }
        members.set(&id(1), &DocumentState::default());
        assert_eq!(members.element_of(&id(1)), None);
        assert_eq!(members.element_of(&id(2)), Some(digest(7)));
        assert_eq!(members.elements().len(), 2);
    }
}

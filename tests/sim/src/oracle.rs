//! What is true: every change that was made, and what its makers were promised.
//!
//! Owns: the set of changes with what each builds on, acknowledgements, the answer when something is wrong.
//! Must not: use the code under test: hashes come from whoever made the change, ancestry from a walk over the set.
//! Next: `checks.rs`.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which check found it.
    pub checker: &'static str,
    /// What was seen.
    pub detail: String,
}

/// The outcome of a check or of whatever contains one.
pub(crate) type Checked<T = ()> = Result<T, Violation>;

/// Fails with the checker's name and what was seen, unless the condition holds.
pub(crate) fn require(holds: bool, checker: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { checker, detail: detail() }) }
}

/// A change that exists.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) max_op: u64,
}

/// Everything that was made, and what was promised about it.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    made: BTreeMap<ChangeHash, Made>,
    /// Heads that a machine has announced to somebody, by machine and document: it must hold them for good.
    promised: BTreeMap<(usize, usize), BTreeSet<ChangeHash>>,
    /// What a subject says its changes do, in the order in which they were made.
    deeds: Vec<(ChangeHash, String)>,
}

impl Oracle {
    pub(crate) fn make(&mut self, hash: ChangeHash, made: Made) {
        self.made.insert(hash, made);
    }

    pub(crate) fn made(&self, hash: &ChangeHash) -> Option<&Made> {
        self.made.get(hash)
    }

    pub(crate) fn note_deed(&mut self, hash: ChangeHash, deed: String) {
        self.deeds.push((hash, deed));
    }

    /// What was done by the changes of a set.
    pub(crate) fn deeds_of(&self, set: &BTreeSet<ChangeHash>) -> Vec<String> {
        self.deeds.iter().filter(|(hash, _)| set.contains(hash)).map(|(_, deed)| deed.clone()).collect()
    }

    pub(crate) fn promise(&mut self, machine: usize, document: usize, heads: &[ChangeHash]) {
        self.promised.entry((machine, document)).or_default().extend(heads.iter().copied());
    }

    /// The machine has lost its disk, or went back to an older one: that is no fault of the code.
    pub(crate) fn release(&mut self, machine: usize) {
        self.promised.retain(|(holder, _), _| *holder != machine);
    }

    /// The machine may forget this document.
    pub(crate) fn release_document(&mut self, machine: usize, document: usize) {
        self.promised.remove(&(machine, document));
    }

    /// Checks that what a machine holds of a document includes all that it ever announced.
    pub(crate) fn check_promises(&self, machine: usize, document: usize, holds: &BTreeSet<ChangeHash>) -> Checked {
        let lost = self.promised.get(&(machine, document)).and_then(|promised| promised.difference(holds).next());
        require(lost.is_none(), "acknowledged is durable", || {
            format!("machine {machine} has announced {lost:?} of document {document} and does not have it")
        })
    }

    /// These changes and all their ancestors.
    pub(crate) fn closure<'a>(&self, heads: impl IntoIterator<Item = &'a ChangeHash>) -> BTreeSet<ChangeHash> {
        let mut closure = BTreeSet::new();
        let mut queue: Vec<ChangeHash> = heads.into_iter().copied().collect();
        while let Some(hash) = queue.pop() {
            if closure.insert(hash) {
                queue.extend(self.made.get(&hash).into_iter().flat_map(|made| &made.deps));
            }
        }
        closure
    }

    /// The changes of a set on which no other of it builds.
    pub(crate) fn heads_of(&self, set: &BTreeSet<ChangeHash>) -> BTreeSet<ChangeHash> {
        let mut heads = set.clone();
        for made in set.iter().filter_map(|hash| self.made.get(hash)) {
            for dep in &made.deps {
                heads.remove(dep);
            }
        }
        heads
    }
}

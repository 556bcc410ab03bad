//! The last things that happened to a document, for those who watch it.
//!
//! Owns: who brought what, the bound on what is remembered. Must not: know who watches.
//! Next: `watch.rs`, `live.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use automerge::{ChangeHash, Patch};

/// Steps remembered one by one; older ones are merged. A step takes some 2 KiB, and there may be thousands of documents
/// that are watched.
const STEPS_MAX: usize = 8;

/// Patches remembered for all steps of a document; beyond it they are worked out when somebody asks.
const PATCHES_MAX: usize = 4_096;

/// Where a change of a document came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// This repo's application made it.
    Local,
    /// The server at this address sent it.
    Server(Arc<str>),
    /// This neighbour in the mesh brought it.
    Member(syncline_gossip::Member),
    /// It was found in the store or came over a connection that is gone.
    Stored,
}

/// Something that happened to a document: the smallest unit that watchers are told of.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) before: Vec<ChangeHash>,
    pub(crate) after: Vec<ChangeHash>,
    /// Sorted, each once: a set takes ten times as much.
    pub(crate) origins: Box<[Origin]>,
    /// `None` when they are to be worked out from the heads.
    pub(crate) patches: Option<Vec<Patch>>,
}

/// The latest steps.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// Each with its number; a merged one has that of its last.
    kept: VecDeque<(u64, Arc<Step>)>,
    /// Number of the last step that there was.
    last: u64,
    patches: usize,
}

impl Steps {
    /// The number of the last step.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Notes a step that nobody watches.
    pub(crate) fn skip(&mut self) {
        self.last += 1;
        self.kept.clear();
        self.patches = 0;
    }

    /// Notes a step.
    pub(crate) fn push(&mut self, mut step: Step) {
        step.patches.iter_mut().for_each(Vec::shrink_to_fit);
        self.last += 1;
        self.patches += weight(&step);
        self.kept.push_back((self.last, Arc::new(step)));
        while self.kept.len() > STEPS_MAX || self.patches > PATCHES_MAX {
            self.merge_oldest();
        }
    }

    /// The steps after this number, oldest first. The first may begin before it.
    pub(crate) fn after(&self, number: u64) -> Vec<Arc<Step>> {
        let from = self.kept.partition_point(|(last, _)| *last <= number);
        self.kept.range(from..).map(|(_, step)| Arc::clone(step)).collect()
    }

    fn merge_oldest(&mut self) {
        let Some((number, first)) = self.kept.pop_front() else { return };
        self.patches -= weight(&first);
        let (number, merged) = match self.kept.pop_front() {
            None => (number, Step { patches: None, ..copy(&first) }),
            Some((number, second)) => {
                self.patches -= weight(&second);
                let origins: BTreeSet<Origin> = first.origins.iter().chain(&second.origins).cloned().collect();
                let origins = origins.into_iter().collect();
                (number, Step { before: first.before.clone(), after: second.after.clone(), origins, patches: None })
            }
        };
        self.kept.push_front((number, Arc::new(merged)));
    }
}

fn copy(step: &Step) -> Step {
    Step { before: step.before.clone(), after: step.after.clone(), origins: step.origins.clone(), patches: None }
}

fn weight(step: &Step) -> usize {
    step.patches.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::{Automerge, ROOT, transaction::Transactable};

    fn head(n: u64) -> Vec<ChangeHash> {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        vec![ChangeHash(hash)]
    }

    fn patches(count: usize) -> Vec<Patch> {
        let mut document = Automerge::new();
        let mut transaction = document.transaction();
        (0..count).for_each(|n| transaction.put(ROOT, n.to_string(), true).expect("put"));
        transaction.commit();
        document.current_state()
    }

    fn step(n: u64, patches: Vec<Patch>) -> Step {
        let origin = if n.is_multiple_of(2) { Origin::Local } else { Origin::Stored };
        Step { before: head(n), after: head(n + 1), origins: Box::new([origin]), patches: Some(patches) }
    }

    #[test]
    fn a_reader_that_keeps_up_gets_each_step_and_a_slow_one_all_of_them_in_few() {
        let mut steps = Steps::default();
        for n in 0..1_000 {
            steps.push(step(n, patches(1)));
            let new = steps.after(steps.last() - 1);
            assert!(matches!(&new[..], [only] if only.before == head(n) && only.patches.is_some()));
        }
        let all = steps.after(0);
        assert_eq!(all.len(), STEPS_MAX);
        assert_eq!((&all[0].before, &all[STEPS_MAX - 1].after), (&head(0), &head(1_000)));
        assert!(all.windows(2).all(|pair| pair[0].after == pair[1].before), "without a gap");
        assert!(all[0].patches.is_none() && all[0].origins.len() == 2);
        assert!(steps.after(steps.last()).is_empty());
    }

    #[test]
    fn patches_are_bounded_however_many_one_step_has() {
        let mut steps = Steps::default();
        for n in 0..10 {
            steps.push(step(n, patches(PATCHES_MAX / 2)));
            assert!(steps.patches <= PATCHES_MAX);
        }
        steps.push(step(10, patches(PATCHES_MAX + 1)));
        let all = steps.after(0);
        assert!(matches!(&all[..], [only] if only.patches.is_none() && only.after == head(11)));
        steps.skip();
        assert!(steps.after(0).is_empty() && steps.last() == 12);
    }
}

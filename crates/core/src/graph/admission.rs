//! Whether a change may join the graph.
//!
//! Owns: the checks that need the other changes: dependencies, sequence, operation ids.
//! Must not: repeat what `change.rs` has checked on the change alone.
//! Next: `hub/ingest.rs`; docs/architecture.md "What is refused".
//!
//! A relay that passes on a change which contradicts its ancestors stops every client behind it, so these checks stand
//! before the store. What is not checked is what a predecessor is, beyond that it exists: see
//! docs/decisions/0012-operation-kinds-beside-the-graph.md.

use smallvec::SmallVec;

use super::Graph;
use crate::ChangeHash;
use crate::change::{Actor, Change, Expectation, OperationRange};
use crate::limits::Limits;

/// Operation counters may run ahead of what this replica has seen of the document by so much: an author may hold
/// unsent changes of its own, and a branch may be written at old heads.
const START_OP_SLACK: u64 = 1_000_000;

/// What is to be done with a valid change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is already there.
    Known,
    /// It can be pushed.
    Ready,
    /// These dependencies are missing.
    Orphan(Vec<ChangeHash>),
}

/// Why a change is refused. **State:** the change is not stored and not passed on; the rest of its message is.
/// **Do:** the author re-creates the edit in a healthy document, under a fresh actor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another change already has this actor and sequence number: a copied device, a restored backup, or a lie.
    #[error(
        "change {hash} by actor {actor} has sequence number {seq}, which {existing} has: a copied or restored device?"
    )]
    DuplicateSequence {
        /// The refused change.
        hash: ChangeHash,
        /// Its author.
        actor: Actor,
        /// The number.
        seq: u64,
        /// The change that stands.
        existing: ChangeHash,
    },
    /// The sequence number leaves a gap although all dependencies are there.
    #[error("change {hash} by actor {actor} has sequence number {seq} where {expected} is next")]
    SequenceGap {
        /// The refused change.
        hash: ChangeHash,
        /// Its author.
        actor: Actor,
        /// The number found.
        seq: u64,
        /// The number due.
        expected: u64,
    },
    /// The change does not depend on its author's previous change.
    #[error("change {hash} by actor {actor} does not depend on the same actor's previous change {previous}")]
    PreviousNotAncestor {
        /// The refused change.
        hash: ChangeHash,
        /// Its author.
        actor: Actor,
        /// The previous change.
        previous: ChangeHash,
    },
    /// The first operation id is one that an ancestor has used.
    #[error(
        "change {hash} starts at operation {start_op}, but its dependencies reach {max_op}: operation ids are reused"
    )]
    ReusedOperations {
        /// The refused change.
        hash: ChangeHash,
        /// Its first operation counter.
        start_op: u64,
        /// The highest counter of its dependencies.
        max_op: u64,
    },
    /// The first operation counter is implausibly far ahead, or the document would have too many operations.
    #[error("change {hash} starts at operation {start_op}; at most {start_op_max} is plausible here")]
    ImplausibleStart {
        /// The refused change.
        hash: ChangeHash,
        /// Its first operation counter.
        start_op: u64,
        /// The bound.
        start_op_max: u64,
    },
    /// The change names operations that none of its ancestors has.
    #[error("change {hash} refers to operation {counter}@{actor}, which none of its ancestors has")]
    UnknownOperation {
        /// The refused change.
        hash: ChangeHash,
        /// Author of the named operation.
        actor: Actor,
        /// Counter of the named operation.
        counter: u64,
    },
    /// The change takes an operation for something that it is not: it writes into a number, or behind another object's
    /// element.
    #[error("change {hash} takes operation {counter}@{actor} for {}, which it is not", .expectation.name())]
    MistakenOperation {
        /// The refused change.
        hash: ChangeHash,
        /// Author of the named operation.
        actor: Actor,
        /// Counter of the named operation.
        counter: u64,
        /// What it is taken for.
        expectation: Expectation,
    },
}

impl Refusal {
    /// A short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DuplicateSequence { .. } => "change_duplicate_sequence",
            Self::SequenceGap { .. } => "change_sequence_gap",
            Self::PreviousNotAncestor { .. } => "change_previous_not_ancestor",
            Self::ReusedOperations { .. } => "change_reused_operations",
            Self::ImplausibleStart { .. } => "change_implausible_start",
            Self::UnknownOperation { .. } => "change_unknown_operation",
            Self::MistakenOperation { .. } => "change_mistaken_operation",
        }
    }
}

impl Graph {
    /// Checks a change against the graph. Adds nothing.
    ///
    /// # Errors
    /// [`Refusal`] when the change contradicts its ancestors.
    pub fn admit(&self, change: &Change, limits: &Limits) -> Result<Admission, Refusal> {
        if self.find(&change.hash).is_some() {
            return Ok(Admission::Known);
        }
        let mut deps: SmallVec<[u32; 4]> = SmallVec::new();
        let mut missing = Vec::new();
        for dep in &change.deps {
            match self.find(dep) {
                Some(node) => deps.push(node),
                None => missing.push(*dep),
            }
        }
        if !missing.is_empty() {
            return Ok(Admission::Orphan(missing));
        }
        self.check_sequence(change, &deps)?;
        self.check_start(change, &deps, limits)?;
        for reference in &change.references {
            let (range, expectation) = (&reference.operations, &reference.expectation);
            self.check_reference(change, &deps, range)?;
            self.check_kinds(range, expectation).map_err(|counter| Refusal::MistakenOperation {
                hash: change.hash,
                actor: range.actor.clone(),
                counter,
                expectation: expectation.clone(),
            })?;
        }
        Ok(Admission::Ready)
    }

    fn check_sequence(&self, change: &Change, deps: &[u32]) -> Result<(), Refusal> {
        let log = self.actor_numbers.get(&change.actor).map(|number| &self.actors[*number as usize]);
        let written = log.map_or(0, |log| log.nodes.len() as u64);
        let (hash, actor, seq) = (change.hash, change.actor.clone(), change.seq);
        if let Some(log) = log.filter(|_| seq <= written) {
            let existing = self.hashes.at(log.nodes.at(seq.saturating_sub(1) as u32));
            return Err(Refusal::DuplicateSequence { hash, actor, seq, existing });
        }
        if seq != written + 1 {
            return Err(Refusal::SequenceGap { hash, actor, seq, expected: written + 1 });
        }
        let previous = log.and_then(|log| written.checked_sub(1).map(|last| log.nodes.at(last as u32)));
        match previous {
            Some(previous) if !self.any_reaches_by_deps(deps, previous) => {
                Err(Refusal::PreviousNotAncestor { hash, actor, previous: self.hashes.at(previous) })
            }
            _ => Ok(()),
        }
    }

    fn check_start(&self, change: &Change, deps: &[u32], limits: &Limits) -> Result<(), Refusal> {
        let max_op = deps.iter().map(|dep| self.last_op(*dep)).max().unwrap_or(0);
        let (hash, start_op) = (change.hash, change.start_op);
        if start_op <= max_op {
            return Err(Refusal::ReusedOperations { hash, start_op, max_op });
        }
        // A document saved with an empty change that skips operation ids cannot be loaded again.
        let slack = if change.operations == 0 { max_op + 1 } else { self.max_op + START_OP_SLACK };
        let start_op_max = slack.min(limits.document_operations_max);
        if start_op > start_op_max || start_op + change.operations > limits.document_operations_max {
            return Err(Refusal::ImplausibleStart { hash, start_op, start_op_max });
        }
        Ok(())
    }

    /// Every counter of the range must lie in a change of that actor which is an ancestor.
    fn check_reference(&self, change: &Change, deps: &[u32], range: &OperationRange) -> Result<(), Refusal> {
        let unknown = |counter| Refusal::UnknownOperation { hash: change.hash, actor: range.actor.clone(), counter };
        let number = self.actor_numbers.get(&range.actor).ok_or_else(|| unknown(range.first))?;
        let log = &self.actors[*number as usize].nodes;
        let mut low = 0;
        let mut high = log.len() as u32;
        while low < high {
            let middle = low.midpoint(high);
            if self.last_op(log.at(middle)) < range.first {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut counter = range.first;
        let mut last = None;
        while counter <= range.last {
            if low >= log.len() as u32 {
                return Err(unknown(counter));
            }
            let node = log.at(low);
            if u64::from(self.nodes.at(node).start_op) > counter {
                return Err(unknown(counter));
            }
            counter = counter.max(self.last_op(node) + 1);
            last = Some(node);
            low += 1;
        }
        match last {
            Some(node) if !self.any_reaches_by_deps(deps, node) => Err(unknown(range.last)),
            _ => Ok(()),
        }
    }

    fn any_reaches_by_deps(&self, deps: &[u32], ancestor: u32) -> bool {
        deps.contains(&ancestor) || self.any_reaches(deps, ancestor)
    }
}

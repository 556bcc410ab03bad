//! What the operations of a document are to each other, in as few words as will do.
//!
//! Owns: for each actor, runs of operations of one kind, and the answer whether an operation is what it is taken for.
//! Must not: keep an operation, a key or a value.
//! Next: `admission.rs`, `index.rs`; docs/decisions/0012-operation-kinds-beside-the-graph.md.
//!
//! A run goes on until the next one of its actor begins, whatever counters lie between the actor's changes: those are
//! not its operations, and nobody asks for what does not exist. So a letter typed after a letter costs nothing.

use super::Graph;
use crate::change::{Change, Expectation, ObjectType, ObjectUse, OperationId, OperationRange};

/// Operations of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KindRun {
    /// The counter of the first.
    pub(super) first: u32,
    pub(super) kind: Kind,
}

/// What an operation is, with ids that are good within the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) makes: Option<ObjectType>,
    pub(super) inserts_into: Option<Object>,
}

/// The operation that made an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) actor: ActorNumber,
    pub(super) counter: u32,
}

/// An actor's number in the graph, plus one: so an object takes no more room if it may be missing.
pub(super) type ActorNumber = std::num::NonZeroU32;

impl Graph {
    /// Notes what the operations of a change are that has just become a node.
    pub(super) fn note_kinds(&mut self, node: u32, change: &Change) {
        let actor = self.nodes.at(node).actor as usize;
        for run in &change.kinds {
            let inserts_into = run.kind.inserts_into.as_ref().and_then(|object| self.object(object));
            let kind = Kind { makes: run.kind.makes, inserts_into };
            let runs = &mut self.actors[actor].kinds;
            let last = (runs.len() as u32).checked_sub(1).map(|last| runs.at(last).kind);
            // `push` has bounded the counters to 32 bits.
            if last != Some(kind) {
                runs.push(KindRun { first: run.first as u32, kind });
            }
        }
    }

    /// Whether all operations of a range, which exist, are what they are taken for; otherwise the first that is not.
    pub(super) fn check_kinds(&self, range: &OperationRange, expectation: &Expectation) -> Result<(), u64> {
        let fits = match expectation {
            Expectation::Exists => return Ok(()),
            Expectation::IsObject(object_use) => Fits::Makes(*object_use),
            Expectation::IsElementOf(object) => Fits::InsertsInto(self.object(object).ok_or(range.first)?),
        };
        let number = self.actor_numbers.get(&range.actor).ok_or(range.first)?;
        let runs = &self.actors[*number as usize].kinds;
        let (mut low, mut high) = (0, runs.len() as u32);
        while low < high {
            let middle = low.midpoint(high);
            if u64::from(runs.at(middle).first) <= range.first {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let begins_in = low.checked_sub(1).ok_or(range.first)?;
        for run in (begins_in..runs.len() as u32).map(|run| runs.at(run)) {
            if u64::from(run.first) > range.last {
                break;
            }
            if !fits.accepts(run.kind) {
                return Err(range.first.max(u64::from(run.first)));
            }
        }
        Ok(())
    }

    /// The runs that begin in a node.
    pub(super) fn kinds_of(&self, node: u32) -> impl Iterator<Item = KindRun> + '_ {
        let node = self.nodes.at(node);
        let runs = &self.actors[node.actor as usize].kinds;
        let end = u64::from(node.start_op) + u64::from(node.operations);
        let (mut low, mut high) = (0, runs.len() as u32);
        while low < high {
            let middle = low.midpoint(high);
            if runs.at(middle).first < node.start_op {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low..runs.len() as u32).map(|run| runs.at(run)).take_while(move |run| u64::from(run.first) < end)
    }

    fn object(&self, id: &OperationId) -> Option<Object> {
        let actor = ActorNumber::new(self.actor_numbers.get(&id.actor)? + 1)?;
        Some(Object { actor, counter: u32::try_from(id.counter).ok()? })
    }
}

/// As [`Expectation`], with ids that are good within the graph.
#[derive(Debug, Clone, Copy)]
enum Fits {
    Makes(ObjectUse),
    InsertsInto(Object),
}

impl Fits {
    fn accepts(self, kind: Kind) -> bool {
        match self {
            Self::Makes(object_use) => kind.makes.is_some_and(|made| object_use.fits(made)),
            Self::InsertsInto(object) => kind.inserts_into == Some(object),
        }
    }
}

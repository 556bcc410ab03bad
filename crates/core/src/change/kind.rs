//! What operations are to each other: an object, an element of a list or text, or neither.
//!
//! Owns: the names for what an operation is, and for what a later one takes it for. Must not: look anything up.
//! Next: `change/operations.rs`, `graph/kinds.rs`; docs/decisions/0012-operation-kinds-beside-the-graph.md.

use smallvec::SmallVec;

use super::Actor;

/// The type of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectType {
    /// Keys are strings.
    Map,
    /// Keys are elements.
    List,
    /// Keys are elements, some of which begin or end a mark.
    Text,
}

/// How an operation uses the object that it writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectUse {
    /// Its key is a string.
    AsMap,
    /// Its key is an element.
    AsSequence,
    /// It begins or ends a mark.
    AsText,
}

impl ObjectUse {
    /// Whether an object of this type can be used so.
    #[must_use]
    pub fn fits(self, object: ObjectType) -> bool {
        match self {
            Self::AsMap => object == ObjectType::Map,
            Self::AsSequence => object != ObjectType::Map,
            Self::AsText => object == ObjectType::Text,
        }
    }
}

/// The name of an operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId {
    /// Its author.
    pub actor: Actor,
    /// Its counter.
    pub counter: u64,
}

/// Consecutive operation ids of one actor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationRange {
    /// Their author.
    pub actor: Actor,
    /// The first counter.
    pub first: u64,
    /// The last counter, included.
    pub last: u64,
}

/// What others may take an operation for. By default for neither: it puts, deletes or increments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationKind {
    /// The type of the object that it makes.
    pub makes: Option<ObjectType>,
    /// The list or text into which it inserts an element.
    pub inserts_into: Option<OperationId>,
}

/// Operations of one kind that follow each other, up to where the next run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindRun {
    /// The counter of the first.
    pub first: u64,
    /// What they are.
    pub kind: OperationKind,
}

/// Operations of other changes, and what a change takes each of them for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The operations.
    pub operations: OperationRange,
    /// What they are to be.
    pub expectation: Expectation,
}

/// What a change takes an operation of another change for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expectation {
    /// A predecessor: it exists.
    Exists,
    /// An object that can be used so.
    IsObject(ObjectUse),
    /// An element of this list or text.
    IsElementOf(OperationId),
}

impl Expectation {
    /// The words for what was expected.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exists => "an operation",
            Self::IsObject(ObjectUse::AsMap) => "a map",
            Self::IsObject(ObjectUse::AsSequence) => "a list or text",
            Self::IsObject(ObjectUse::AsText) => "a text",
            Self::IsElementOf(_) => "an element of the list or text that it writes to",
        }
    }
}

/// Adds an operation to runs that end just before it.
pub(super) fn add_to_runs(runs: &mut SmallVec<[KindRun; 1]>, counter: u64, kind: OperationKind) {
    if runs.last().is_none_or(|last| last.kind != kind) {
        runs.push(KindRun { first: counter, kind });
    }
}

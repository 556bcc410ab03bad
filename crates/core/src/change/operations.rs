//! A walk over a change's columns, operation by operation.
//!
//! Owns: what one operation may be, alone and beside the others of its change. Must not: keep values, or build a document.
//! Next: `chunk/runs.rs`; docs/architecture.md "What is refused".
//!
//! The rules are those of automerge's writer, and each guards its readers: an operation on an object or element that
//! does not exist stops a client, one that a document cannot represent comes out of it under another hash, and then
//! the saved document can no longer be loaded.

use smallvec::SmallVec;

use super::header::{Header, damaged};
use super::kind::add_to_runs;
use super::{
    Actor, ChangeError, Expectation, KindRun, ObjectType, ObjectUse, OperationId, OperationKind, OperationRange,
    Reference,
};
use crate::chunk::reader::{Damage, Reader};
use crate::chunk::runs::{Booleans, Cells, Deltas};
use crate::limits::Limits;

/// An operation may have several predecessors, where others wrote at the same time.
const PREDECESSORS_PER_OPERATION_MAX: u64 = 4;

/// An operation id with the actor as an index into the change's table; the author is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    actor: u32,
    counter: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    MakeMap,
    Set,
    MakeList,
    Delete,
    MakeText,
    Increment,
    Mark,
}

impl Action {
    fn from_number(number: Option<u64>) -> Result<Self, &'static str> {
        match number {
            Some(0) => Ok(Self::MakeMap),
            Some(1) => Ok(Self::Set),
            Some(2) => Ok(Self::MakeList),
            Some(3) => Ok(Self::Delete),
            Some(4) => Ok(Self::MakeText),
            Some(5) => Ok(Self::Increment),
            // automerge reads it, but stops on the first operation inside of the table.
            Some(6) => Err("tables are not supported"),
            Some(7) => Ok(Self::Mark),
            Some(_) => Err("its action is not known"),
            None => Err("it has no action"),
        }
    }

    /// The type of the object that it makes.
    fn makes(self) -> Option<ObjectType> {
        match self {
            Self::MakeMap => Some(ObjectType::Map),
            Self::MakeList => Some(ObjectType::List),
            Self::MakeText => Some(ObjectType::Text),
            Self::Set | Self::Delete | Self::Increment | Self::Mark => None,
        }
    }
}

/// What a change takes an operation for; as [`Expectation`], with ids that are good within the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Expected {
    Exists,
    Object(ObjectUse),
    ElementOf(Id),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key<'a> {
    Property(&'a str),
    Head,
    Element(Id),
}

/// What stays known of an operation while the later ones are checked.
#[derive(Debug, Clone, Copy)]
struct Operation<'a> {
    id: Id,
    object: Option<Id>,
    key: Key<'a>,
    insert: bool,
    action: Action,
    mark_begins: bool,
}

impl<'a> Operation<'a> {
    /// What its object has to be.
    fn object_use(&self) -> ObjectUse {
        match (self.key, self.action) {
            (Key::Property(_), _) => ObjectUse::AsMap,
            (Key::Head | Key::Element(_), Action::Mark) => ObjectUse::AsText,
            (Key::Head | Key::Element(_), _) => ObjectUse::AsSequence,
        }
    }

    /// The place that the operation writes to: its key, or the element that it inserts.
    fn register(&self) -> Key<'a> {
        if self.insert { Key::Element(self.id) } else { self.key }
    }
}

/// Checks every operation. Returns the operations of other changes that they name, and what others may take them for.
pub(super) fn check(
    header: &Header<'_>,
    operations: u64,
    limits: &Limits,
) -> Result<(Vec<Reference>, SmallVec<[KindRun; 1]>), ChangeError> {
    if operations > 0 && header.columns.insert.is_empty() {
        return Err(damaged("insert")(Damage::RowCount));
    }
    let predecessors_max = limits.change_operations_max.saturating_mul(PREDECESSORS_PER_OPERATION_MAX);
    let mut walk = Walk::new(header, predecessors_max);
    for counter in header.start_op..header.start_op + operations {
        walk.operation(counter)?;
    }
    walk.finish()
}

/// What others may take a stored change's operations for. Reads the four columns that tell, and believes them.
pub(super) fn kinds(header: &Header<'_>, operations: u64) -> Result<SmallVec<[KindRun; 1]>, ChangeError> {
    let columns = &header.columns;
    let mut object_actor = Cells::<u64>::new(columns.object_actor);
    let mut object_counter = Cells::<u64>::new(columns.object_counter);
    let mut inserts = Booleans::new(columns.insert);
    let mut actions = Cells::<u64>::new(columns.action);
    let mut runs = SmallVec::new();
    for counter in header.start_op..header.start_op + operations {
        let actor = object_actor.row().map_err(damaged("object actor"))?;
        let object = object_counter.row().map_err(damaged("object counter"))?;
        let insert = inserts.row().map_err(damaged("insert"))?;
        let action = Action::from_number(actions.row().map_err(damaged("action"))?);
        let action = action.map_err(|rule| ChangeError::ImpossibleOperation { counter, rule })?;
        let object = match actor.zip(object) {
            Some((index, named)) if index <= header.others.len() as u64 => {
                Some(Id { actor: index as u32, counter: u32::try_from(named).unwrap_or(u32::MAX) })
            }
            Some((index, _)) => return Err(ChangeError::UnknownActor { counter, index }),
            None => None,
        };
        add_to_runs(&mut runs, counter, kind_of(header, action, insert, object));
    }
    Ok(runs)
}

fn kind_of(header: &Header<'_>, action: Action, insert: bool, object: Option<Id>) -> OperationKind {
    let inserts_into = object.filter(|_| insert).map(|object| operation_id(header, object));
    OperationKind { makes: action.makes(), inserts_into }
}

struct Walk<'a, 'h> {
    header: &'h Header<'a>,
    columns: Rows<'a>,
    before: SmallVec<[Operation<'a>; 2]>,
    named: SmallVec<[(Expected, Id); 8]>,
    kinds: SmallVec<[KindRun; 1]>,
    used: SmallVec<[bool; 8]>,
    predecessors_left: u64,
    predecessors_max: u64,
    any_expand: bool,
}

impl<'a, 'h> Walk<'a, 'h> {
    fn new(header: &'h Header<'a>, predecessors_max: u64) -> Self {
        let mut used = SmallVec::from_elem(false, header.others.len() + 1);
        used[0] = true;
        Self {
            header,
            columns: Rows::new(header),
            before: SmallVec::new(),
            named: SmallVec::new(),
            kinds: SmallVec::new(),
            used,
            predecessors_left: predecessors_max,
            predecessors_max,
            any_expand: false,
        }
    }

    fn operation(&mut self, counter: u64) -> Result<(), ChangeError> {
        // `Change::decode` has bounded the counters to 32 bits.
        let id = Id { actor: 0, counter: counter as u32 };
        let object = self.read_object(counter)?;
        let key = self.read_key(counter)?;
        let insert = self.columns.insert.row().map_err(damaged("insert"))?;
        let action = self.read_action(counter)?;
        let value = self.columns.read_value()?;
        let predecessors = self.columns.predecessor_count.row().map_err(damaged("predecessor count"))?;
        let predecessors = predecessors.ok_or(damaged("predecessor count")(Damage::RowCount))?;
        let expand = self.columns.expand.row().map_err(damaged("expand"))?;
        let mark_name = self.columns.mark_name.row().map_err(damaged("mark name"))?;
        self.any_expand |= expand;

        let mark_begins = mark_name.is_some();
        let operation = Operation { id, object, key, insert, action, mark_begins };
        let malformed = |rule| Err(ChangeError::ImpossibleOperation { counter, rule });
        if let Err(rule) = check_shape(&operation, value, predecessors) {
            return malformed(rule);
        }
        if action != Action::Mark && (expand || mark_begins) {
            return malformed("only marks have a name and expand");
        }
        if action == Action::Mark && !mark_begins && !self.ends_mark(&operation) {
            return malformed("a mark's end follows its beginning, at another place of the same text");
        }
        self.check_object(&operation)?;
        self.check_element(&operation)?;
        self.check_predecessors(&operation, predecessors)?;
        add_to_runs(&mut self.kinds, counter, kind_of(self.header, action, insert, object));
        self.before.push(operation);
        Ok(())
    }

    fn finish(self) -> Result<(Vec<Reference>, SmallVec<[KindRun; 1]>), ChangeError> {
        self.columns.finish()?;
        if !self.any_expand && !self.header.columns.expand.is_empty() {
            return Err(damaged("expand")(Damage::NotCanonical));
        }
        if self.used.contains(&false) {
            return Err(ChangeError::ActorUnused);
        }
        Ok((into_references(self.header, self.named), self.kinds))
    }

    fn read_object(&mut self, counter: u64) -> Result<Option<Id>, ChangeError> {
        let actor = self.columns.object_actor.row().map_err(damaged("object actor"))?;
        let object = self.columns.object_counter.row().map_err(damaged("object counter"))?;
        match (actor, object) {
            (None, None) => Ok(None),
            (Some(actor), Some(object)) => self.id(counter, actor, object, "object").map(Some),
            _ => Err(ChangeError::ImpossibleOperation { counter, rule: "half an object id" }),
        }
    }

    fn read_key(&mut self, counter: u64) -> Result<Key<'a>, ChangeError> {
        let actor = self.columns.key_actor.row().map_err(damaged("key actor"))?;
        let element = self.columns.key_counter.row().map_err(damaged("key counter"))?;
        let string = self.columns.key_string.row().map_err(damaged("key string"))?;
        match (actor, element, string) {
            (None, None, Some(property)) => Ok(Key::Property(property)),
            (None, Some(0), None) => Ok(Key::Head),
            (Some(actor), Some(element), None) => {
                let element = u64::try_from(element).map_err(|_| damaged("key counter")(Damage::OutOfRange))?;
                self.id(counter, actor, element, "element").map(Key::Element)
            }
            _ => Err(ChangeError::ImpossibleOperation { counter, rule: "a key is a property, the head or an element" }),
        }
    }

    fn read_action(&mut self, counter: u64) -> Result<Action, ChangeError> {
        let action = self.columns.action.row().map_err(damaged("action"))?;
        Action::from_number(action).map_err(|rule| ChangeError::ImpossibleOperation { counter, rule })
    }

    /// Holds an id to the table of actors and to the time before this operation.
    fn id(&mut self, counter: u64, actor: u64, named: u64, role: &'static str) -> Result<Id, ChangeError> {
        let index = usize::try_from(actor).ok().filter(|index| *index < self.used.len());
        let index = index.ok_or(ChangeError::UnknownActor { counter, index: actor })?;
        self.used[index] = true;
        // Only this change can have counters from its first one on, and nobody has one below 1.
        let end = if index == 0 { counter } else { self.header.start_op };
        if named == 0 || named >= end {
            return Err(ChangeError::ImpossibleReference { counter, reference: named, role });
        }
        Ok(Id { actor: index as u32, counter: named as u32 })
    }

    /// The operation of this change with this id; otherwise the id is noted as another change's, with what it is taken
    /// for.
    fn resolve(&mut self, id: Id, expected: Expected) -> Option<Operation<'a>> {
        if self.is_own(id) {
            let index = u64::from(id.counter) - self.header.start_op;
            return self.before.get(index as usize).copied();
        }
        if self.named.last() != Some(&(expected, id)) {
            self.named.push((expected, id));
        }
        None
    }

    fn is_own(&self, id: Id) -> bool {
        id.actor == 0 && u64::from(id.counter) >= self.header.start_op
    }

    fn check_object(&mut self, operation: &Operation<'a>) -> Result<(), ChangeError> {
        let counter = u64::from(operation.id.counter);
        let object_use = operation.object_use();
        // Runs of operations on one object are the rule.
        let before = self.before.last().filter(|last| last.object == operation.object);
        if before.is_some_and(|last| last.object_use() == object_use) {
            return Ok(());
        }
        let made = match operation.object {
            None => Some(ObjectType::Map),
            Some(object) => match self.resolve(object, Expected::Object(object_use)).map(|made| made.action.makes()) {
                Some(None) => {
                    let reference = u64::from(object.counter);
                    return Err(ChangeError::ImpossibleReference { counter, reference, role: "object" });
                }
                made => made.flatten(),
            },
        };
        match made.filter(|made| !object_use.fits(*made)) {
            Some(_) => Err(ChangeError::ImpossibleOperation { counter, rule: "it does not fit its object's type" }),
            None => Ok(()),
        }
    }

    fn check_element(&mut self, operation: &Operation<'a>) -> Result<(), ChangeError> {
        // `check_object` lets no element into the root.
        let (Key::Element(element), Some(object)) = (operation.key, operation.object) else {
            return Ok(());
        };
        let fits = match self.resolve(element, Expected::ElementOf(object)) {
            Some(inserted) => inserted.insert && inserted.object == operation.object,
            // No other change has an element of an object that this one makes.
            None => !self.is_own(object),
        };
        let (counter, reference) = (u64::from(operation.id.counter), u64::from(element.counter));
        if fits { Ok(()) } else { Err(ChangeError::ImpossibleReference { counter, reference, role: "element" }) }
    }

    fn check_predecessors(&mut self, operation: &Operation<'a>, count: u64) -> Result<(), ChangeError> {
        let too_many = ChangeError::TooManyPredecessors { predecessors_max: self.predecessors_max };
        self.predecessors_left = self.predecessors_left.checked_sub(count).ok_or(too_many)?;
        let counter = u64::from(operation.id.counter);
        let mut last: Option<Id> = None;
        for _ in 0..count {
            let actor = self.columns.predecessor_actor.row().map_err(damaged("predecessor actor"))?;
            let actor = actor.ok_or(damaged("predecessor actor")(Damage::RowCount))?;
            let named = self.columns.predecessor_counter.row().map_err(damaged("predecessor counter"))?;
            let named = named.ok_or(damaged("predecessor counter")(Damage::RowCount))?;
            let named = u64::try_from(named).map_err(|_| damaged("predecessor counter")(Damage::OutOfRange))?;
            let id = self.id(counter, actor, named, "predecessor")?;
            if last.is_some_and(|last| !self.is_before(last, id)) {
                return Err(ChangeError::ImpossibleOperation { counter, rule: "predecessors are sorted and unique" });
            }
            last = Some(id);
            // Of an element, all is known already that a predecessor has to be.
            if operation.key == Key::Element(id) && !self.is_own(id) {
                continue;
            }
            if let Some(earlier) = self.resolve(id, Expected::Exists) {
                let same_place = earlier.object == operation.object && earlier.register() == operation.key;
                if !same_place || earlier.action == Action::Delete {
                    return Err(ChangeError::ImpossibleReference { counter, reference: named, role: "predecessor" });
                }
            }
        }
        Ok(())
    }

    /// Predecessors are in Lamport order, with the actors compared by their bytes, not by their index.
    fn is_before(&self, left: Id, right: Id) -> bool {
        let actors = || actor_at(self.header, left.actor).cmp(actor_at(self.header, right.actor));
        left.counter.cmp(&right.counter).then_with(actors).is_lt()
    }

    /// automerge takes the operation before a mark's end for its beginning. Of two insertions at one place the later
    /// comes first, so an end at its beginning's place would stand before it.
    fn ends_mark(&self, end: &Operation<'a>) -> bool {
        self.before.last().is_some_and(|begin| {
            begin.action == Action::Mark && begin.mark_begins && begin.object == end.object && begin.key != end.key
        })
    }
}

/// The rules that need neither other operations nor the table of actors.
fn check_shape(operation: &Operation<'_>, value: ValueKind, predecessors: u64) -> Result<(), &'static str> {
    match operation.action {
        Action::MakeMap | Action::MakeList | Action::MakeText | Action::Delete if value != ValueKind::Null => {
            return Err("only puts, increments and marks have a value");
        }
        Action::Delete if operation.insert || predecessors == 0 => return Err("a deletion deletes something"),
        Action::Increment if operation.insert || value != ValueKind::Integer => {
            return Err("an increment adds an integer to an existing value");
        }
        Action::Mark if !operation.insert => return Err("marks are inserted"),
        Action::MakeMap
        | Action::Set
        | Action::MakeList
        | Action::Delete
        | Action::MakeText
        | Action::Increment
        | Action::Mark => {}
    }
    match operation.key {
        Key::Property(_) if operation.insert => Err("only sequences have insertions"),
        Key::Head if !operation.insert => Err("nothing but insertions stands at the head"),
        _ if operation.insert && predecessors > 0 => Err("an insertion has no predecessors"),
        Key::Property(_) | Key::Head | Key::Element(_) => Ok(()),
    }
}

/// What the rules need to know of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Null,
    Integer,
    Other,
}

/// The columns, each at the same row.
struct Rows<'a> {
    object_actor: Cells<'a, u64>,
    object_counter: Cells<'a, u64>,
    key_actor: Cells<'a, u64>,
    key_counter: Deltas<'a>,
    key_string: Cells<'a, &'a str>,
    insert: Booleans<'a>,
    action: Cells<'a, u64>,
    value_kind: Cells<'a, u64>,
    value: Reader<'a>,
    predecessor_count: Cells<'a, u64>,
    predecessor_actor: Cells<'a, u64>,
    predecessor_counter: Deltas<'a>,
    expand: Booleans<'a>,
    mark_name: Cells<'a, &'a str>,
}

impl<'a> Rows<'a> {
    fn new(header: &Header<'a>) -> Self {
        let columns = &header.columns;
        Self {
            object_actor: Cells::new(columns.object_actor),
            object_counter: Cells::new(columns.object_counter),
            key_actor: Cells::new(columns.key_actor),
            key_counter: Deltas::new(columns.key_counter),
            key_string: Cells::new(columns.key_string),
            insert: Booleans::new(columns.insert),
            action: Cells::new(columns.action),
            value_kind: Cells::new(columns.value_kind),
            value: Reader::new(columns.value),
            predecessor_count: Cells::new(columns.predecessor_count),
            predecessor_actor: Cells::new(columns.predecessor_actor),
            predecessor_counter: Deltas::new(columns.predecessor_counter),
            expand: Booleans::new(columns.expand),
            mark_name: Cells::new(columns.mark_name),
        }
    }

    /// The low four bits of a value's kind are its type, the rest its length in bytes.
    fn read_value(&mut self) -> Result<ValueKind, ChangeError> {
        let kind = self.value_kind.row().map_err(damaged("value kind"))?;
        let kind = kind.ok_or(damaged("value kind")(Damage::RowCount))?;
        let damage = damaged("value");
        let length = usize::try_from(kind >> 4).map_err(|_| damage(Damage::Truncated))?;
        let mut raw = Reader::new(self.value.take(length).map_err(&damage)?);
        let read = match kind & 0xf {
            0 => Ok(ValueKind::Null),
            1 | 2 => Ok(ValueKind::Other),
            3 => raw.unsigned().map(|_| ValueKind::Integer),
            4 => raw.signed().map(|_| ValueKind::Integer),
            5 => raw.take(8).map(|_| ValueKind::Other),
            6 => std::str::from_utf8(raw.take_rest()).map(|_| ValueKind::Other).map_err(|_| Damage::NotUtf8),
            8 | 9 => raw.signed().map(|_| ValueKind::Other),
            // Bytes, and types of later formats, which automerge carries along.
            _ => Ok(raw.take_rest()).map(|_| ValueKind::Other),
        };
        let kind = read.map_err(&damage)?;
        if raw.is_empty() { Ok(kind) } else { Err(damage(Damage::NotCanonical)) }
    }

    fn finish(self) -> Result<(), ChangeError> {
        self.object_actor.finish().map_err(damaged("object actor"))?;
        self.object_counter.finish().map_err(damaged("object counter"))?;
        self.key_actor.finish().map_err(damaged("key actor"))?;
        self.key_counter.finish().map_err(damaged("key counter"))?;
        self.key_string.finish().map_err(damaged("key string"))?;
        self.insert.finish().map_err(damaged("insert"))?;
        self.action.finish().map_err(damaged("action"))?;
        self.value_kind.finish().map_err(damaged("value kind"))?;
        self.predecessor_count.finish().map_err(damaged("predecessor count"))?;
        self.predecessor_actor.finish().map_err(damaged("predecessor actor"))?;
        self.predecessor_counter.finish().map_err(damaged("predecessor counter"))?;
        self.expand.finish().map_err(damaged("expand"))?;
        self.mark_name.finish().map_err(damaged("mark name"))?;
        if self.value.is_empty() { Ok(()) } else { Err(damaged("value")(Damage::RowCount)) }
    }
}

fn actor_at<'h>(header: &'h Header<'_>, index: u32) -> &'h Actor {
    match index {
        0 => &header.actor,
        // `Walk::id` lets no index beyond the table in.
        other => &header.others[other as usize - 1],
    }
}

fn operation_id(header: &Header<'_>, id: Id) -> OperationId {
    OperationId { actor: actor_at(header, id.actor).clone(), counter: u64::from(id.counter) }
}

/// Merges the ids of which the same is expected into ranges.
fn into_references(header: &Header<'_>, mut named: SmallVec<[(Expected, Id); 8]>) -> Vec<Reference> {
    named.sort_unstable();
    named.dedup();
    let follows = |left: &(Expected, Id), right: &(Expected, Id)| {
        left.0 == right.0 && left.1.actor == right.1.actor && left.1.counter + 1 == right.1.counter
    };
    let reference = |run: &[(Expected, Id)]| {
        let (expected, first) = run[0];
        let last = run.last().map_or(first, |(_, last)| *last);
        let expectation = match expected {
            Expected::Exists => Expectation::Exists,
            Expected::Object(object_use) => Expectation::IsObject(object_use),
            Expected::ElementOf(object) => Expectation::IsElementOf(operation_id(header, object)),
        };
        let actor = actor_at(header, first.actor).clone();
        let (first, last) = (u64::from(first.counter), u64::from(last.counter));
        Reference { operations: OperationRange { actor, first, last }, expectation }
    };
    let mut references: Vec<_> = named.chunk_by(follows).map(reference).collect();
    // The author's index is 0, wherever its bytes sort.
    references.sort_unstable();
    references
}

//! Taking back one change without touching what others did.
//!
//! Owns: the opposite of each operation, and the ids under which things came back.
//! Must not: take back what somebody else has built on. Next: `undo.rs`; docs/client.md, "Undo".

use std::collections::{BTreeMap, BTreeSet, HashMap};

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{
    AutomergeError, Change, ChangeHash, ExpandedChange, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value,
};

use sequence::Sequence;

// Named, since the simulator takes this file in from elsewhere.
#[path = "reverse/sequence.rs"]
mod sequence;

/// Where things are that were deleted and came back: their ids of old, and those that they have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aliases(HashMap<ObjId, ObjId>);

impl Aliases {
    fn resolve(&self, id: &ObjId) -> ObjId {
        let mut id = id;
        while let Some(new) = self.0.get(id) {
            id = new;
        }
        id.clone()
    }

    fn note(&mut self, old: ObjId, new: ObjId) {
        if self.resolve(&new) != old {
            self.0.insert(old, new);
        }
    }
}

/// Does the opposite of a change of this replica's.
pub(crate) fn reverse(
    transaction: &mut Transaction<'_>,
    change: &Change,
    aliases: &mut Aliases,
) -> Result<(), AutomergeError> {
    let (before, after) = (change.deps().to_vec(), vec![change.hash()]);
    let (now, then) = (BTreeMap::new(), BTreeMap::new());
    Reversal { transaction, aliases, before, after, now, then }.run(&change.decode())
}

struct Reversal<'a, 'd> {
    transaction: &'a mut Transaction<'d>,
    aliases: &'a mut Aliases,
    /// The heads that the change was made on.
    before: Vec<ChangeHash>,
    /// The heads that it led to.
    after: Vec<ChangeHash>,
    /// Sequences as they are, by their present ids.
    now: BTreeMap<ObjId, Sequence>,
    /// Sequences as they were before the change.
    then: BTreeMap<ObjId, Sequence>,
}

/// A place that the change put something at.
struct Place {
    now: Prop,
    then: Prop,
}

impl Reversal<'_, '_> {
    fn run(mut self, change: &ExpandedChange) -> Result<(), AutomergeError> {
        let mut deleted: BTreeMap<ObjId, BTreeSet<usize>> = BTreeMap::new();
        let mut marked: BTreeSet<ObjId> = BTreeSet::new();
        let id = |counter: u64| ObjId::Id(counter, change.actor_id.clone(), 0);
        let numbered: Vec<_> = (change.start_op.get()..).zip(&change.operations).collect();
        let made = numbered.iter().filter(|(_, op)| matches!(op.action, OpType::Make(_)));
        let made: BTreeSet<ObjId> = made.map(|(counter, _)| id(*counter)).collect();
        for (counter, op) in numbered.into_iter().rev() {
            let (id, object) = (id(counter), object_of(&op.obj));
            // What is in an object that the change made goes or stays with the object.
            if made.contains(&object) {
                continue;
            }
            match &op.action {
                OpType::MarkBegin(_) => {
                    marked.insert(object);
                }
                OpType::MarkEnd(_) => {}
                OpType::Delete if op.key.is_map_key() => self.bring_back_key(&object, op)?,
                OpType::Delete => {
                    let index = self.index_before(&object, op);
                    deleted.entry(object).or_default().extend(index);
                }
                OpType::Increment(by) => self.decrement(&object, op, *by)?,
                OpType::Put(_) | OpType::Make(_) if op.insert => self.take_out(&object, &id, op)?,
                OpType::Put(_) | OpType::Make(_) => self.put_back(&object, &id, op)?,
            }
        }
        for (object, indices) in deleted {
            // In the order of their places, so that each comes behind those that were before it.
            indices.iter().try_for_each(|index| self.bring_back_element(&object, *index))?;
            self.bring_back_marks(&object, &indices)?;
        }
        marked.iter().try_for_each(|text| self.reverse_marks(text))
    }

    /// Deletes what the change inserted, if it is as the change left it.
    fn take_out(&mut self, object: &ObjId, id: &ObjId, op: &Op) -> Result<(), AutomergeError> {
        let (object, element) = (self.aliases.resolve(object), self.aliases.resolve(id));
        let Some(index) = self.now(&object).index_of(&element) else { return Ok(()) };
        if !self.is_untouched(id, op)? {
            return Ok(());
        }
        let (position, width) = (self.now(&object).position_of(index), self.now(&object).width(index));
        match self.transaction.object_type(&object)? {
            ObjType::Text => self.transaction.splice_text(&object, position, width as isize, "")?,
            ObjType::Map | ObjType::Table | ObjType::List => self.transaction.delete(&object, position)?,
        }
        self.now(&object).remove(index);
        Ok(())
    }

    /// Puts back what the change replaced, if nobody has replaced it since.
    fn put_back(&mut self, object: &ObjId, id: &ObjId, op: &Op) -> Result<(), AutomergeError> {
        let present = self.aliases.resolve(object);
        let Some(Place { now, then }) = self.place(object, &present, id, op) else { return Ok(()) };
        let ours = self.aliases.resolve(id);
        let found = self.transaction.get(&present, now.clone())?;
        if found.is_none_or(|(_, found)| found != ours) || !self.is_untouched(id, op)? {
            return Ok(());
        }
        let others = self.in_conflict_with(&present, &now, &ours)?;
        match others.as_slice() {
            [] => match self.value_before(object, then)? {
                Some((value, old)) => self.put(&present, now, value, old),
                None => self.transaction.delete(&present, now),
            },
            // What somebody put at the same time is what is there without ours.
            [(value @ Value::Scalar(_), old)] => self.put(&present, now, value.clone(), old.clone()),
            // Of an object there would be a copy, and of several values one.
            _ => Ok(()),
        }
    }

    /// The values that are at a place beside the one that is shown.
    fn in_conflict_with(
        &self,
        object: &ObjId,
        place: &Prop,
        shown: &ObjId,
    ) -> Result<Vec<(Value<'static>, ObjId)>, AutomergeError> {
        let all = self.transaction.get_all(object, place.clone())?.into_iter();
        Ok(all.filter(|(_, id)| id != shown).map(|(value, id)| (value.into_owned(), id)).collect())
    }

    /// Puts back a map's entry that the change deleted, if nobody has put another.
    fn bring_back_key(&mut self, object: &ObjId, op: &Op) -> Result<(), AutomergeError> {
        let Key::Map(key) = &op.key else { return Ok(()) };
        let present = self.aliases.resolve(object);
        if self.transaction.get(&present, key.as_str())?.is_some() {
            return Ok(());
        }
        match self.value_before(object, Prop::Map(key.to_string()))? {
            Some((value, old)) => self.put(&present, Prop::Map(key.to_string()), value, old),
            None => Ok(()),
        }
    }

    /// Inserts again what the change deleted from a sequence, behind the nearest element before it that is still there.
    fn bring_back_element(&mut self, object: &ObjId, index: usize) -> Result<(), AutomergeError> {
        let present = self.aliases.resolve(object);
        let is_text = self.transaction.object_type(&present)? == ObjType::Text;
        let (position, width) = (self.then(object).position_of(index), self.then(object).width(index));
        let Some((value, old)) = self.value_before(object, Prop::Seq(position))? else { return Ok(()) };
        let mut behind = 0;
        for before in (0..index).rev() {
            let Some(id) = self.then(object).id(before).cloned() else { continue };
            let id = self.aliases.resolve(&id);
            if let Some(found) = self.now(&present).index_of(&id) {
                behind = found + 1;
                break;
            }
        }
        let at = self.now(&present).position_of(behind);
        let new = match &value {
            // A block in a text is not brought back: its place without its text means nothing.
            Value::Object(_) if is_text => return Ok(()),
            Value::Object(kind) => self.transaction.insert_object(&present, at, *kind)?,
            Value::Scalar(scalar) if is_text => {
                self.transaction.splice_text(&present, at, 0, scalar.as_str().unwrap_or_default())?;
                self.id_at(&present, Prop::Seq(at))?
            }
            Value::Scalar(scalar) => {
                self.transaction.insert(&present, at, scalar.as_ref().clone())?;
                self.id_at(&present, Prop::Seq(at))?
            }
        };
        if let Value::Object(kind) = value {
            self.copy(&old, &new, kind)?;
        }
        self.now(&present).insert(behind, new.clone(), width);
        self.aliases.note(old, new);
        Ok(())
    }

    /// Marks what came back as it was marked, and not as what is beside it.
    fn bring_back_marks(&mut self, text: &ObjId, indices: &BTreeSet<usize>) -> Result<(), AutomergeError> {
        let present = self.aliases.resolve(text);
        if self.transaction.object_type(&present)? != ObjType::Text {
            return Ok(());
        }
        let (wanted, found) = (self.transaction.marks_at(text, &self.before)?, self.transaction.marks(&present)?);
        let at = |marks: &[Mark], position: usize| -> BTreeMap<String, Mark> {
            let covering = marks.iter().filter(|mark| (mark.start..mark.end).contains(&position));
            covering.map(|mark| (mark.name.to_string(), mark.clone())).collect()
        };
        for index in indices {
            let then = self.then(text);
            let (before, Some(id)) = (then.position_of(*index), then.id(*index).cloned()) else { continue };
            let id = self.aliases.resolve(&id);
            let now = self.now(&present);
            let Some(place) = now.index_of(&id) else { continue };
            let (start, end) = (now.position_of(place), now.position_of(place + 1));
            let (wanted, found) = (at(&wanted, before), at(&found, start));
            for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
                self.transaction.unmark(&present, name, start, end, ExpandMark::None)?;
            }
            for (name, mark) in wanted {
                if found.get(&name).is_none_or(|found| found.value != mark.value) {
                    self.transaction.mark(&present, Mark { start, end, ..mark }, ExpandMark::None)?;
                }
            }
        }
        Ok(())
    }

    fn decrement(&mut self, object: &ObjId, op: &Op, by: i64) -> Result<(), AutomergeError> {
        let present = self.aliases.resolve(object);
        let Some(counter) = op.pred.iter().next().map(id_of) else { return Ok(()) };
        let Some(Place { now, .. }) = self.place(object, &present, &counter, op) else { return Ok(()) };
        let found = self.transaction.get(&present, now.clone())?;
        match found {
            Some((value, _)) if value.is_counter() => self.transaction.increment(&present, now, -by),
            _ => Ok(()),
        }
    }

    /// Makes the marks that the change made or took away what they were before, where they are by now.
    fn reverse_marks(&mut self, text: &ObjId) -> Result<(), AutomergeError> {
        let present = self.aliases.resolve(text);
        let (before, after) = (self.before.clone(), self.after.clone());
        let (before, after) = (self.marks(text, &before)?, self.marks(text, &after)?);
        for mark in after.iter().filter(|mark| !before.contains(mark)) {
            self.transaction.unmark(&present, &mark.name, mark.start, mark.end, ExpandMark::None)?;
        }
        for mark in before.into_iter().filter(|mark| !after.contains(mark)) {
            self.transaction.mark(&present, mark, ExpandMark::After)?;
        }
        Ok(())
    }

    /// The marks at these heads, where their characters are by now.
    fn marks(&mut self, text: &ObjId, heads: &[ChangeHash]) -> Result<Vec<Mark>, AutomergeError> {
        let present = self.aliases.resolve(text);
        let sequence = Sequence::of(&*self.transaction, text, Some(heads));
        let mut moved = Vec::new();
        for mark in self.transaction.marks_at(text, heads)? {
            let marked = sequence.index_at(mark.start)..sequence.index_at(mark.end);
            let ids: Vec<ObjId> =
                marked.filter_map(|index| sequence.id(index)).map(|id| self.aliases.resolve(id)).collect();
            let now = self.now(&present);
            let mut places = ids.iter().filter_map(|id| now.index_of(id));
            if let Some(first) = places.next() {
                let end = places.last().unwrap_or(first) + 1;
                moved.push(Mark { start: now.position_of(first), end: now.position_of(end), ..mark });
            }
        }
        Ok(moved)
    }

    /// Where the value with this id is, and where what it replaced was; `None` for an element that is gone.
    fn place(&mut self, object: &ObjId, present: &ObjId, id: &ObjId, op: &Op) -> Option<Place> {
        if let Key::Map(key) = &op.key {
            let key = Prop::Map(key.to_string());
            return Some(Place { now: key.clone(), then: key });
        }
        let id = self.aliases.resolve(id);
        let now = self.now(present).find(&id)?;
        let then = self.index_before(object, op)?;
        Some(Place { now: Prop::Seq(now), then: Prop::Seq(self.then(object).position_of(then)) })
    }

    /// The number that an element had before the change, which replaced or deleted its value.
    fn index_before(&mut self, object: &ObjId, op: &Op) -> Option<usize> {
        let then = self.then(object);
        op.pred.iter().find_map(|replaced| then.index_of(&id_of(replaced)))
    }

    fn value_before(&self, object: &ObjId, prop: Prop) -> Result<Option<(Value<'static>, ObjId)>, AutomergeError> {
        let found = self.transaction.get_at(object, prop, &self.before)?;
        Ok(found.map(|(value, id)| (value.into_owned(), id)))
    }

    /// Whether there is nothing of others in an object that the change made.
    fn is_untouched(&self, id: &ObjId, op: &Op) -> Result<bool, AutomergeError> {
        if !matches!(op.action, OpType::Make(_)) {
            return Ok(true);
        }
        let present = self.aliases.resolve(id);
        let then = ReadDoc::hydrate(&*self.transaction, id, Some(&self.after))?;
        Ok(ReadDoc::hydrate(&*self.transaction, &present, None)? == then)
    }

    fn put(&mut self, object: &ObjId, prop: Prop, value: Value<'static>, old: ObjId) -> Result<(), AutomergeError> {
        let new = match value {
            Value::Object(kind) => {
                let new = self.transaction.put_object(object, prop.clone(), kind)?;
                self.copy(&old, &new, kind)?;
                new
            }
            Value::Scalar(scalar) => {
                self.transaction.put(object, prop.clone(), scalar.into_owned())?;
                self.id_at(object, prop.clone())?
            }
        };
        if let (Prop::Seq(position), Some(now)) = (prop, self.now.get_mut(object)) {
            now.replace(now.index_at(position), new.clone());
        }
        self.aliases.note(old, new);
        Ok(())
    }

    /// Fills a new object with what an old one had before the change.
    fn copy(&mut self, old: &ObjId, new: &ObjId, kind: ObjType) -> Result<(), AutomergeError> {
        match kind {
            ObjType::Map | ObjType::Table => {
                let keys: Vec<String> = self.transaction.keys_at(old, &self.before).collect();
                for key in keys {
                    if let Some((value, id)) = self.value_before(old, Prop::Map(key.clone()))? {
                        self.put(new, Prop::Map(key), value, id)?;
                    }
                }
                Ok(())
            }
            ObjType::List => (0..self.transaction.length_at(old, &self.before)).try_for_each(|index| {
                let Some((value, id)) = self.value_before(old, Prop::Seq(index))? else { return Ok(()) };
                self.transaction.insert(new, index, ScalarValue::Null)?;
                self.put(new, Prop::Seq(index), value, id)
            }),
            ObjType::Text => self.copy_text(old, new),
        }
    }

    fn copy_text(&mut self, old: &ObjId, new: &ObjId) -> Result<(), AutomergeError> {
        let text = self.transaction.text_at(old, &self.before)?;
        self.transaction.splice_text(new, 0, 0, &text)?;
        let then = Sequence::of(&*self.transaction, old, Some(&self.before)).into_ids();
        let now = Sequence::of(&*self.transaction, new, None).into_ids();
        then.zip(now).for_each(|(old, new)| self.aliases.note(old, new));
        let marks = self.transaction.marks_at(old, &self.before)?;
        marks.into_iter().try_for_each(|mark| self.transaction.mark(new, mark, ExpandMark::After))
    }

    fn id_at(&self, object: &ObjId, prop: Prop) -> Result<ObjId, AutomergeError> {
        let found = self.transaction.get(object, prop)?;
        found.map(|(_, id)| id).ok_or(AutomergeError::Fail)
    }

    /// A sequence as it is, by its present id.
    fn now(&mut self, present: &ObjId) -> &mut Sequence {
        let read = || Sequence::of(&*self.transaction, present, None);
        self.now.entry(present.clone()).or_insert_with(read)
    }

    /// A sequence as it was before the change.
    fn then(&mut self, object: &ObjId) -> &mut Sequence {
        let read = || Sequence::of(&*self.transaction, object, Some(&self.before));
        self.then.entry(object.clone()).or_insert_with(read)
    }
}

fn object_of(id: &ObjectId) -> ObjId {
    match id {
        ObjectId::Root => ROOT,
        ObjectId::Id(id) => id_of(id),
    }
}

fn id_of(id: &OpId) -> ObjId {
    ObjId::Id(id.counter(), id.actor().clone(), 0)
}

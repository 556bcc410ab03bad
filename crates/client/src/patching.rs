//! Doing to a document what patches say.
//!
//! Owns: operations for each kind of patch, objects that come back under new ids, marks.
//! Must not: decide what to go back to. Next: `history.rs`.

use std::collections::{BTreeSet, HashMap};

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ChangeHash, ObjId, ObjType, Patch, PatchAction, Prop, ReadDoc, Value};

/// Applies patches that lead from the transaction's document to the one at these heads.
pub(crate) fn apply(
    transaction: &mut Transaction<'_>,
    patches: &[Patch],
    heads: &[ChangeHash],
) -> Result<(), AutomergeError> {
    let mut patching = Patching { transaction, made: HashMap::new(), texts: BTreeSet::new() };
    for patch in patches {
        patching.apply(patch)?;
    }
    patching.mend_marks(heads)
}

struct Patching<'a, 'd> {
    transaction: &'a mut Transaction<'d>,
    /// The new objects, by the ids of those whose place they take.
    made: HashMap<ObjId, ObjId>,
    /// Texts with something to do about marks, by the ids that they have at the heads.
    texts: BTreeSet<ObjId>,
}

impl Patching<'_, '_> {
    fn apply(&mut self, patch: &Patch) -> Result<(), AutomergeError> {
        let object = self.object(&patch.obj);
        match &patch.action {
            PatchAction::PutMap { key, value: (value, id), .. } => self.put(&object, Prop::Map(key.clone()), value, id),
            PatchAction::PutSeq { index, value: (value, id), .. } => self.put(&object, Prop::Seq(*index), value, id),
            PatchAction::Insert { index, values } => {
                for (at, (value, id, _)) in (*index..).zip(values.iter()) {
                    self.insert(&object, at, value, id)?;
                }
                Ok(())
            }
            PatchAction::SpliceText { index, value, .. } => {
                self.texts.insert(patch.obj.clone());
                self.transaction.splice_text(&object, *index, 0, &value.make_string())
            }
            PatchAction::Increment { prop, value } => self.transaction.increment(&object, prop.clone(), *value),
            PatchAction::DeleteMap { key } => self.transaction.delete(&object, key.as_str()),
            PatchAction::DeleteSeq { index, length } => self.delete(&object, &patch.obj, *index, *length),
            PatchAction::Mark { .. } => {
                self.texts.insert(patch.obj.clone());
                Ok(())
            }
            PatchAction::Conflict { .. } => Ok(()),
        }
    }

    fn object(&self, id: &ObjId) -> ObjId {
        self.made.get(id).unwrap_or(id).clone()
    }

    fn put(&mut self, object: &ObjId, prop: Prop, value: &Value<'_>, id: &ObjId) -> Result<(), AutomergeError> {
        match value {
            Value::Object(kind) => {
                let made = self.transaction.put_object(object, prop, *kind)?;
                self.made.insert(id.clone(), made);
                Ok(())
            }
            Value::Scalar(scalar) => self.transaction.put(object, prop, scalar.as_ref().clone()),
        }
    }

    fn insert(&mut self, object: &ObjId, at: usize, value: &Value<'_>, id: &ObjId) -> Result<(), AutomergeError> {
        match value {
            Value::Object(kind) => {
                let made = self.transaction.insert_object(object, at, *kind)?;
                self.made.insert(id.clone(), made);
                Ok(())
            }
            Value::Scalar(scalar) => self.transaction.insert(object, at, scalar.as_ref().clone()),
        }
    }

    fn delete(&mut self, object: &ObjId, id: &ObjId, index: usize, length: usize) -> Result<(), AutomergeError> {
        if self.transaction.object_type(object)? == ObjType::Text {
            self.texts.insert(id.clone());
            return self.transaction.splice_text(object, index, length as isize, "");
        }
        (0..length).try_for_each(|_| self.transaction.delete(object, index))
    }

    /// Makes the marks of the texts that were touched those that they have at the heads: what is typed beside a mark may
    /// have become part of it.
    fn mend_marks(&mut self, heads: &[ChangeHash]) -> Result<(), AutomergeError> {
        for id in std::mem::take(&mut self.texts) {
            let object = self.object(&id);
            let wanted = self.transaction.marks_at(&id, heads)?;
            let present = self.transaction.marks(&object)?;
            for mark in present.iter().filter(|mark| !wanted.contains(mark)) {
                self.transaction.unmark(&object, &mark.name, mark.start, mark.end, ExpandMark::None)?;
            }
            let present = self.transaction.marks(&object)?;
            let lacking: Vec<Mark> = wanted.into_iter().filter(|mark| !present.contains(mark)).collect();
            for mark in lacking {
                self.transaction.mark(&object, mark, ExpandMark::After)?;
            }
        }
        Ok(())
    }
}

//! JSON pointers (RFC 6901) into a document.
//!
//! Owns: the way from a path to an object and a key or index in it. Must not: change anything.
//! Next: `../edit.rs`.

use automerge::transaction::Transaction;
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc};

use super::EditError;

/// Why a step leads nowhere, whatever is there.
const NO_STEP: &str = "a list has numbers, text has no parts, ~ in a key is written ~0";

/// An object, and a key or an index in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) object: ObjId,
    pub(super) prop: Prop,
    path: String,
}

impl Place {
    /// Where a value can be added: at any key of a map, up to the end of a list.
    pub(super) fn new(transaction: &Transaction<'_>, path: &str) -> Result<Self, EditError> {
        let lacks = |reason| EditError::NoSuchPlace { path: path.to_owned(), reason };
        let steps = path.strip_prefix('/').ok_or_else(|| lacks("a path begins with a slash, and the whole is none"))?;
        let mut steps = steps.split('/');
        let last = steps.next_back().unwrap_or_default();
        let (mut object, mut kind) = (ROOT, ObjType::Map);
        for step in steps {
            let prop = prop(transaction, &object, kind, step).ok_or_else(|| lacks(NO_STEP))?;
            let found = transaction.get(&object, prop)?.ok_or_else(|| lacks("nothing is on the way"))?;
            kind = found.0.to_objtype().ok_or_else(|| lacks("a plain value is on the way"))?;
            object = found.1;
        }
        let prop = prop(transaction, &object, kind, last).ok_or_else(|| lacks(NO_STEP))?;
        if matches!(prop, Prop::Seq(at) if at > transaction.length(&object)) {
            return Err(lacks("the list is shorter"));
        }
        Ok(Self { object, prop, path: path.to_owned() })
    }

    /// Where a value is.
    pub(super) fn find(transaction: &Transaction<'_>, path: &str) -> Result<Self, EditError> {
        let place = Self::new(transaction, path)?;
        place.there(transaction)?;
        Ok(place)
    }

    /// What is there: its kind if it is an object, and its id.
    pub(super) fn there(&self, transaction: &Transaction<'_>) -> Result<(Option<ObjType>, ObjId), EditError> {
        let found = transaction.get(&self.object, self.prop.clone())?;
        let (value, id) =
            found.ok_or_else(|| EditError::NoSuchPlace { path: self.path.clone(), reason: "nothing is there" })?;
        Ok((value.to_objtype(), id))
    }
}

/// The key that a step names; `~` is written `~0` and a slash `~1`.
fn key(step: &str) -> Option<String> {
    let escaped = step.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    escaped.then(|| step.replace("~1", "/").replace("~0", "~"))
}

fn prop(transaction: &Transaction<'_>, object: &ObjId, kind: ObjType, step: &str) -> Option<Prop> {
    match kind {
        ObjType::Map | ObjType::Table => key(step).map(Prop::Map),
        ObjType::List if step == "-" => Some(Prop::Seq(transaction.length(object))),
        // Neither a sign nor a leading zero: one element has one name.
        ObjType::List if step == "0" || step.starts_with(|digit: char| ('1'..='9').contains(&digit)) => {
            step.parse().ok().map(Prop::Seq)
        }
        ObjType::List | ObjType::Text => None,
    }
}

//! What a patch makes of a document.
//!
//! Owns: JSON merge patch (RFC 7396), JSON patch (RFC 6902) with two operations more, and how either is put as few
//! automerge operations, so that it merges with what others do. Must not: touch what a patch does not name.
//! Next: `json.rs`, `question.rs`; docs/http-api.md, "Patching a document".

mod pointer;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::{self, DEPTH_MAX, TooDeep};
use pointer::Place;

/// Changes to a document, as a script states them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    /// RFC 7396: objects are merged, `null` removes, everything else replaces.
    Merge(Value),
    /// RFC 6902 and more: all of them, or none.
    Operations(Vec<Operation>),
}

/// One operation; paths are JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Puts a value at a key, or inserts it into a list; `-` is the end of one.
    Add {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Removes what is there.
    Remove {
        /// Where.
        path: String,
    },
    /// Puts a value in the place of one that is there. Text that is replaced by text is edited.
    Replace {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Removes a value and adds it elsewhere.
    Move {
        /// From where.
        from: String,
        /// To where.
        path: String,
    },
    /// Adds a copy of a value.
    Copy {
        /// Of what.
        from: String,
        /// Where.
        path: String,
    },
    /// Refuses the whole patch unless this value is there.
    Test {
        /// Where.
        path: String,
        /// What must be there.
        value: Value,
    },
    /// Edits text: removes and inserts at a position, counted in Unicode code points.
    Splice {
        /// Of which text.
        path: String,
        /// From which code point.
        index: usize,
        /// How many to remove.
        #[serde(default)]
        delete: usize,
        /// What to insert.
        #[serde(default)]
        insert: String,
    },
    /// Adds to a counter.
    Increment {
        /// Which.
        path: String,
        /// How much.
        by: i64,
    },
}

/// Why a patch is refused. **State:** the document is as it was. **Do:** read it, and patch what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A merge patch for a document is an object.
    #[error("a merge patch of a document must be an object")]
    NotAnObject,
    /// A path is no JSON pointer, or nothing is there.
    #[error("there is no {path:?}: {reason}")]
    NoSuchPlace {
        /// The path.
        path: String,
        /// What it lacks.
        reason: &'static str,
    },
    /// The value is not of the kind that the operation needs.
    #[error("{path:?} is not {wanted}")]
    WrongKind {
        /// The path.
        path: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A `test` found something else.
    #[error("{path:?} is not what the patch expects")]
    TestFailed {
        /// The path.
        path: String,
    },
    /// A value nests too deep to be compared or copied.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    /// automerge refuses it.
    #[error("automerge refuses it: {0}")]
    Automerge(String),
}

impl From<AutomergeError> for EditError {
    fn from(error: AutomergeError) -> Self {
        Self::Automerge(error.to_string())
    }
}

impl Edit {
    /// What makes a document of this object where there is none.
    #[must_use]
    pub fn creating(entries: Map<String, Value>) -> Self {
        let add = |(key, value): (String, Value)| Operation::Add {
            path: format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            value,
        };
        Self::Operations(entries.into_iter().map(add).collect())
    }

    /// Makes the edit within a transaction. After an error the transaction must be rolled back.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn apply(&self, transaction: &mut Transaction<'_>) -> Result<(), EditError> {
        match self {
            Self::Merge(patch @ Value::Object(_)) => merge(transaction, &ROOT, patch),
            Self::Merge(_) => Err(EditError::NotAnObject),
            Self::Operations(operations) => operations.iter().try_for_each(|operation| operation.apply(transaction)),
        }
    }
}

fn merge(transaction: &mut Transaction<'_>, map: &ObjId, patch: &Value) -> Result<(), EditError> {
    let Value::Object(entries) = patch else { return Ok(()) };
    for (key, wanted) in entries {
        let there = transaction.get(map, key.as_str())?.map(|(value, id)| (value.to_objtype(), id));
        match (wanted, there) {
            (Value::Null, Some(_)) => transaction.delete(map, key.as_str())?,
            (Value::Null, None) => {}
            (Value::Object(_), Some((Some(ObjType::Map), id))) => merge(transaction, &id, wanted)?,
            (Value::Object(_), _) => {
                let id = transaction.put_object(map, key.as_str(), ObjType::Map)?;
                merge(transaction, &id, wanted)?;
            }
            (_, there) => replace(transaction, (map, Prop::Map(key.clone())), there, wanted)?,
        }
    }
    Ok(())
}

/// Makes what is at a place equal to a value, with as few operations as an honest edit would need.
fn replace(
    transaction: &mut Transaction<'_>,
    (object, prop): (&ObjId, Prop),
    there: Option<(Option<ObjType>, ObjId)>,
    wanted: &Value,
) -> Result<(), EditError> {
    match (wanted, there) {
        (Value::String(text), Some((Some(ObjType::Text), id))) => transaction.update_text(&id, text)?,
        (Value::Array(items), Some((Some(ObjType::List), id))) => replace_items(transaction, &id, items)?,
        (_, there) => {
            let same = there.is_some() && value_at(transaction, object, &prop)? == Some(wanted.clone());
            if !same {
                json::put(transaction, object, prop, wanted, false)?;
            }
        }
    }
    Ok(())
}

/// Leaves alone what a list begins and ends with already.
fn replace_items(transaction: &mut Transaction<'_>, list: &ObjId, wanted: &[Value]) -> Result<(), EditError> {
    let there = json::of_value(&transaction.hydrate(list, None)?, DEPTH_MAX)?;
    let there = there.as_array().map(Vec::as_slice).unwrap_or_default();
    let before = there.iter().zip(wanted).take_while(|(there, wanted)| there == wanted).count();
    let (there, wanted) = (&there[before..], &wanted[before..]);
    let after = there.iter().rev().zip(wanted.iter().rev()).take_while(|(there, wanted)| there == wanted).count();
    for _ in 0..there.len() - after {
        transaction.delete(list, before)?;
    }
    for (at, item) in wanted[..wanted.len() - after].iter().enumerate() {
        json::put(transaction, list, Prop::Seq(before + at), item, true)?;
    }
    Ok(())
}

fn value_at(transaction: &Transaction<'_>, object: &ObjId, prop: &Prop) -> Result<Option<Value>, EditError> {
    let Some((value, id)) = transaction.get(object, prop.clone())? else { return Ok(None) };
    let value = match value {
        automerge::Value::Object(_) => transaction.hydrate(&id, None)?,
        automerge::Value::Scalar(scalar) => automerge::hydrate::Value::Scalar(scalar.into_owned()),
    };
    Ok(Some(json::of_value(&value, DEPTH_MAX)?))
}

impl Operation {
    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<(), EditError> {
        match self {
            Self::Add { path, value } => add(transaction, path, value),
            Self::Remove { path } => remove(transaction, path).map(drop),
            Self::Replace { path, value } => {
                let place = Place::find(transaction, path)?;
                let there = place.there(transaction)?;
                replace(transaction, (&place.object, place.prop), Some(there), value)
            }
            Self::Move { from, path } => {
                let value = remove(transaction, from)?;
                add(transaction, path, &value)
            }
            Self::Copy { from, path } => {
                let value = read(transaction, from)?;
                add(transaction, path, &value)
            }
            Self::Test { path, value } => match read(transaction, path)? == *value {
                true => Ok(()),
                false => Err(EditError::TestFailed { path: path.clone() }),
            },
            Self::Splice { path, index, delete, insert } => {
                let (kind, id) = Place::find(transaction, path)?.there(transaction)?;
                if kind != Some(ObjType::Text) {
                    return Err(EditError::WrongKind { path: path.clone(), wanted: "text" });
                }
                if index.checked_add(*delete).is_none_or(|end| end > transaction.length(&id)) {
                    return Err(EditError::NoSuchPlace { path: path.clone(), reason: "the text is shorter" });
                }
                let delete = isize::try_from(*delete).unwrap_or(isize::MAX);
                Ok(transaction.splice_text(&id, *index, delete, insert)?)
            }
            Self::Increment { path, by } => {
                let place = Place::find(transaction, path)?;
                let value = transaction.get(&place.object, place.prop.clone())?;
                let is_counter =
                    value.is_some_and(|(value, _)| matches!(value.as_scalar(), Some(ScalarValue::Counter(_))));
                if !is_counter {
                    return Err(EditError::WrongKind { path: path.clone(), wanted: "a counter" });
                }
                Ok(transaction.increment(&place.object, place.prop, *by)?)
            }
        }
    }
}

fn add(transaction: &mut Transaction<'_>, path: &str, value: &Value) -> Result<(), EditError> {
    let place = Place::new(transaction, path)?;
    match place.prop {
        Prop::Seq(_) => Ok(json::put(transaction, &place.object, place.prop, value, true)?),
        Prop::Map(_) => {
            let there = transaction.get(&place.object, place.prop.clone())?;
            let there = there.map(|(value, id)| (value.to_objtype(), id));
            replace(transaction, (&place.object, place.prop), there, value)
        }
    }
}

fn read(transaction: &Transaction<'_>, path: &str) -> Result<Value, EditError> {
    if path.is_empty() {
        return Ok(json::of_value(&transaction.hydrate(ROOT, None)?, DEPTH_MAX)?);
    }
    let place = Place::find(transaction, path)?;
    let nothing = || EditError::NoSuchPlace { path: path.to_owned(), reason: "nothing is there" };
    value_at(transaction, &place.object, &place.prop)?.ok_or_else(nothing)
}

fn remove(transaction: &mut Transaction<'_>, path: &str) -> Result<Value, EditError> {
    let value = read(transaction, path)?;
    let place = Place::find(transaction, path)?;
    transaction.delete(&place.object, place.prop)?;
    Ok(value)
}

#[cfg(test)]
mod tests;

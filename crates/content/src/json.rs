//! Automerge values as JSON, and JSON as automerge values.
//!
//! Owns: which is which. Must not: guess at dates and counters, which JSON has no word for.
//! Next: `edit.rs`; docs/client.md, "Files and addresses".

use automerge::hydrate;
use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError, ChangeHash, ObjId, ObjType, Prop, ScalarValue};
use serde_json::{Map, Number, Value};

/// Deepest nesting of objects and lists that is written as JSON.
pub const DEPTH_MAX: usize = 512;

/// Whole numbers up to this are exact as floats.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The document nests deeper than [`DEPTH_MAX`]. **State:** nothing changed. **Do:** read it with automerge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document nests deeper than {DEPTH_MAX} objects and lists")]
pub struct TooDeep;

/// A document's values, as they are or as they were at these heads, without its history: text and strings as strings,
/// counters and dates (milliseconds) as numbers, bytes as lists of numbers, numbers that JSON has not as null.
///
/// # Errors
/// [`TooDeep`].
pub fn of_document(document: &Automerge, heads: Option<&[ChangeHash]>) -> Result<Value, TooDeep> {
    of_value(&document.hydrate(heads), DEPTH_MAX)
}

pub(crate) fn of_value(value: &hydrate::Value, depth_left: usize) -> Result<Value, TooDeep> {
    let depth_left = depth_left.checked_sub(1).ok_or(TooDeep)?;
    Ok(match value {
        hydrate::Value::Scalar(scalar) => of_scalar(scalar),
        hydrate::Value::Text(text) => Value::String(String::from(text)),
        hydrate::Value::List(list) => {
            Value::Array(list.iter().map(|item| of_value(&item.value, depth_left)).collect::<Result<_, _>>()?)
        }
        hydrate::Value::Map(map) => {
            let entries = map.iter().map(|(key, entry)| Ok((key.clone(), of_value(&entry.value, depth_left)?)));
            Value::Object(entries.collect::<Result<Map<_, _>, _>>()?)
        }
    })
}

fn of_scalar(scalar: &ScalarValue) -> Value {
    let bytes = |bytes: &[u8]| Value::Array(bytes.iter().map(|byte| Value::from(*byte)).collect());
    match scalar {
        ScalarValue::Null => Value::Null,
        ScalarValue::Boolean(yes) => Value::Bool(*yes),
        ScalarValue::Int(number) | ScalarValue::Timestamp(number) => Value::from(*number),
        ScalarValue::Uint(number) => Value::from(*number),
        // Where a whole number was written by a language that has no other, it is one.
        ScalarValue::F64(number) if number.fract() == 0.0 && number.abs() < WHOLE_MAX => Value::from(*number as i64),
        ScalarValue::F64(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        ScalarValue::Counter(counter) => Value::from(i64::from(counter)),
        ScalarValue::Str(text) => Value::from(text.as_str()),
        ScalarValue::Bytes(found) | ScalarValue::Unknown { bytes: found, .. } => bytes(found),
    }
}

/// Puts a value at a place, as JavaScript's automerge would: strings become collaborative text, whole numbers integers.
/// `insert` makes room for it in a list.
///
/// # Errors
/// [`AutomergeError`] when the object is not there or has no such place.
pub fn put(
    transaction: &mut impl Transactable,
    object: &ObjId,
    prop: Prop,
    value: &Value,
    insert: bool,
) -> Result<(), AutomergeError> {
    let scalar = match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(yes) => ScalarValue::Boolean(*yes),
        Value::Number(number) => number_of(number),
        Value::String(text) => {
            let id = make(transaction, object, prop, ObjType::Text, insert)?;
            return transaction.splice_text(&id, 0, 0, text);
        }
        Value::Array(items) => {
            let id = make(transaction, object, prop, ObjType::List, insert)?;
            let mut items = items.iter().enumerate();
            return items.try_for_each(|(at, item)| put(transaction, &id, Prop::Seq(at), item, true));
        }
        Value::Object(entries) => {
            let id = make(transaction, object, prop, ObjType::Map, insert)?;
            let mut entries = entries.iter();
            return entries.try_for_each(|(key, value)| put(transaction, &id, Prop::Map(key.clone()), value, false));
        }
    };
    match prop {
        Prop::Seq(at) if insert => transaction.insert(object, at, scalar),
        prop @ (Prop::Seq(_) | Prop::Map(_)) => transaction.put(object, prop, scalar),
    }
}

fn make(
    transaction: &mut impl Transactable,
    object: &ObjId,
    prop: Prop,
    kind: ObjType,
    insert: bool,
) -> Result<ObjId, AutomergeError> {
    match prop {
        Prop::Seq(at) if insert => transaction.insert_object(object, at, kind),
        prop @ (Prop::Seq(_) | Prop::Map(_)) => transaction.put_object(object, prop, kind),
    }
}

/// Whole numbers are signed integers where they fit, as JavaScript stores them.
pub(crate) fn number_of(number: &Number) -> ScalarValue {
    match (number.as_i64(), number.as_u64()) {
        (Some(signed), _) => ScalarValue::Int(signed),
        (None, Some(unsigned)) => ScalarValue::Uint(unsigned),
        (None, None) => ScalarValue::F64(number.as_f64().unwrap_or_default()),
    }
}

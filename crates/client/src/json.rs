//! Documents from JSON and as JSON.
//!
//! Owns: which automerge value each JSON value is. Must not: guess at dates and counters, which JSON has no word for.
//! Next: `branch.rs` for files with history; docs/client.md, "Files and addresses".

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutoSerde, AutomergeError, ObjId, ObjType, Prop, ROOT, ScalarValue};
use serde_json::{Number, Value};

use crate::document::Document;
use crate::repo::Repo;
use crate::{DocumentUrl, Error};

impl Repo {
    /// Makes a document from a JSON object, as JavaScript's `repo.create` would: strings become collaborative text, whole
    /// numbers integers.
    ///
    /// ```
    /// use serde_json::json;
    /// let repo = syncline::Repo::memory()?;
    /// let list = repo.import_json(&json!({ "title": "Groceries", "items": ["milk", { "done": false }] }))?;
    /// assert_eq!(list.export_json()?["items"][1]["done"], false);
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAMap`] when it is no object; all of [`Repo::create`].
    pub fn import_json(&self, value: &Value) -> Result<Document, Error> {
        self.create_by(|url: &DocumentUrl, transaction| {
            let Value::Object(entries) = value else {
                return Err(Error::NotAMap { document: url.id().clone() });
            };
            for (key, value) in entries {
                put(transaction, &ROOT, Prop::Map(key.clone()), value, false)?;
            }
            Ok(())
        })
    }
}

impl Document {
    /// The document's values as JSON, without its history: text and strings as strings, counters and dates (milliseconds)
    /// as numbers, bytes as lists of numbers.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn export_json(&self) -> Result<Value, Error> {
        let exported = self.read(|document| serde_json::to_value(AutoSerde::from(document)))?;
        exported.map_err(|error| Error::Broken { document: self.url().id().clone(), reason: error.to_string() })
    }
}

fn put(
    transaction: &mut Transaction<'_>,
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
    transaction: &mut Transaction<'_>,
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
fn number_of(number: &Number) -> ScalarValue {
    match (number.as_i64(), number.as_u64()) {
        (Some(signed), _) => ScalarValue::Int(signed),
        (None, Some(unsigned)) => ScalarValue::Uint(unsigned),
        (None, None) => ScalarValue::F64(number.as_f64().unwrap_or_default()),
    }
}

//! Documents from JSON and as JSON.
//!
//! Owns: making one and reading one. Must not: know which automerge value each JSON value is: `syncline-content` does.
//! Next: `branch.rs` for files with history; docs/client.md, "Files and addresses".

use automerge::{Prop, ROOT};
use serde_json::Value;
use syncline_content::json;

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
                json::put(transaction, &ROOT, Prop::Map(key.clone()), value, false)?;
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
        let exported = self.read(|document| json::of_document(document, None))?;
        exported.map_err(|error| Error::Broken { document: self.url().id().clone(), reason: error.to_string() })
    }
}

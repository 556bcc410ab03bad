//! Documents as structs: autosurgeon's derives over this crate's documents.
//!
//! Owns: reading a struct, changing one, and errors that name the field. Must not: define types; `value.rs` does.
//! Next: `value.rs`, `view.rs`; docs/client.md, "Typed documents".

use automerge::ReadDoc;
use automerge::transaction::Transaction;
use autosurgeon::hydrate::Unexpected;
use autosurgeon::{Hydrate, HydrateError, Reconcile, ReconcileError};

use crate::document::Document;
use crate::repo::Repo;
use crate::view::View;
use crate::{DocumentUrl, Error};

impl Repo {
    /// Makes a document that holds this struct's fields.
    ///
    /// ```
    /// use autosurgeon::{Hydrate, Reconcile};
    /// use syncline::{Repo, value::Text};
    ///
    /// #[derive(Debug, PartialEq, Hydrate, Reconcile)]
    /// struct Todo {
    ///     title: Text,
    ///     done: bool,
    /// }
    ///
    /// let repo = Repo::memory()?;
    /// let todo = repo.create_from(&Todo { title: "Buy milk".into(), done: false })?;
    /// todo.update(|todo: &mut Todo| todo.done = true)?;
    /// assert_eq!(todo.hydrate::<Todo>()?, Todo { title: "Buy milk".into(), done: true });
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Document::reconcile`]; there is no document then.
    pub fn create_from<T: Reconcile>(&self, value: &T) -> Result<Document, Error> {
        self.create_by(|url, transaction| reconcile(url, transaction, value))
    }
}

impl Document {
    /// The document as a struct.
    ///
    /// # Errors
    /// [`Error::Shape`] names the field that is missing or of another type. [`Error::Broken`].
    pub fn hydrate<T: Hydrate>(&self) -> Result<T, Error> {
        self.read(|document| hydrate(&self.url(), &View::now(document, document.get_heads())))?
    }

    /// Reads the document as a struct, lets the closure change that, and writes back what is different, in one change.
    /// Nobody else's change can come in between.
    ///
    /// # Errors
    /// [`Error::Shape`] as in [`Document::hydrate`], and all of [`Document::change`].
    pub fn update<T: Hydrate + Reconcile, R>(&self, update: impl FnOnce(&mut T) -> R) -> Result<R, Error> {
        let url = self.url();
        self.change_by(Default::default(), |transaction| {
            let mut value: T = hydrate(&url, &View::now(&*transaction, transaction.get_heads()))?;
            let result = update(&mut value);
            reconcile(&url, transaction, &value)?;
            Ok::<R, Error>(result)
        })
    }

    /// Makes the document hold this struct's fields, in one change. What others changed since the struct was read is
    /// overwritten where it differs: to change a part, use [`Document::update`].
    ///
    /// # Errors
    /// [`Error::NotAMap`] when the type is no struct or map; all of [`Document::change`].
    pub fn reconcile<T: Reconcile>(&self, value: &T) -> Result<(), Error> {
        let url = self.url();
        self.change_by(Default::default(), |transaction| reconcile(&url, transaction, value))
    }
}

/// A struct from a view.
pub(crate) fn hydrate<T: Hydrate, D: ReadDoc>(url: &DocumentUrl, view: &View<'_, D>) -> Result<T, Error> {
    view.hydrate().map_err(|error| shape(url, view.last_path(), error))
}

fn reconcile<T: Reconcile>(url: &DocumentUrl, transaction: &mut Transaction<'_>, value: &T) -> Result<(), Error> {
    autosurgeon::reconcile(transaction, value).map_err(|error| match error {
        ReconcileError::Automerge(error) => Error::Edit(error),
        ReconcileError::TopLevelNotMap => Error::NotAMap { document: url.id().clone() },
        ReconcileError::StaleHeads(_) => Error::Stale { document: url.id().clone() },
    })
}

fn shape(url: &DocumentUrl, path: String, error: HydrateError) -> Error {
    let reason = match error {
        HydrateError::Automerge(error) => return Error::Edit(error),
        HydrateError::Unexpected(found) => hint(&found),
        HydrateError::ParseMapKey(error) => format!("a key cannot be read: {error}"),
    };
    Error::Shape { document: url.id().clone(), path, reason }
}

/// What was found where another type was expected, and the type that reads it.
fn hint(found: &Unexpected) -> String {
    let advice = match found {
        Unexpected::Text => "collaborative text, as every string of JavaScript is: use syncline::value::Text",
        Unexpected::String => "a plain string: use String, or syncline::value::Text, which reads both",
        Unexpected::Int => "a signed integer: use i64, or syncline::value::Integer, which reads every whole number",
        Unexpected::Uint => "an unsigned integer: use u64, or syncline::value::Integer, which reads every whole number",
        Unexpected::F64 => "a float: use f64, or syncline::value::Number, which reads every number",
        Unexpected::Timestamp => "a date: use syncline::value::Date",
        Unexpected::Counter => "a counter: use syncline::value::Counter",
        Unexpected::Bytes => "bytes: use autosurgeon::bytes::ByteVec",
        Unexpected::None => "nothing, or null: use Option for null, #[autosurgeon(missing = …)] for a missing field",
        Unexpected::Map => "a map",
        Unexpected::Seq => "a list",
        Unexpected::Boolean => "true or false",
        Unexpected::Unknown => "a value of a type that this version does not know",
        Unexpected::Other { expected, found } => return format!("{found} was found where {expected} is expected"),
    };
    format!("found {advice}")
}

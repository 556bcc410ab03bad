//! What a document holds, for programs that do not know automerge.
//!
//! Reading order: [`json`] is which JSON value each automerge value is, [`history`] who changed what and when, [`edit`]
//! what a patch makes of a document, [`question`] all of it as one question and its answer, which go through a pipe to
//! whoever may load documents of unknown origin. Beside documents, [`presence`] is what peers say that is not stored,
//! and [`cbor`] how that is written.

pub mod cbor;
pub mod edit;
pub mod history;
pub mod json;
pub mod presence;
pub mod question;

pub use edit::Edit;
pub use history::Entry;
pub use question::{Answer, At, ContentError, Question, Viewer};

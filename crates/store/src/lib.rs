//! Makes batches of automerge changes durable in SQLite and finds them again.
//!
//! A [`Store`] is one directory with one SQLite database in it. Commits of all documents are grouped by one writer
//! thread into an append-only log; the log is folded into rows per document when the writer has time; old changes of a
//! document are compacted into one automerge document chunk beside an index of its change graph. A change is durable
//! when its commit's callback says so, and from then on every read sees it.
//!
//! Reading order: [`store`] is the interface, `schema` the tables and how a file is opened, `record` the byte forms in
//! them, `ground` what is under them, `cover` documents that come and stay as one chunk, `overlay` the part of the log that is not folded yet,
//! `writer`, `group` and `fold` the one thread that writes, [`life`]
//! which documents are deleted, `blob` the attachments, `recover` what a start makes of the log, `authored` what sets of documents are made from, `read` the readers, `checkpoint` and
//! `compact` the threads in the background, `store/selection.rs` what is wanted of documents beside their changes,
//! `store/driven.rs` a store without threads, [`check()`] the verification of a
//! whole file, [`backup`](mod@backup) copies of one, [`stats()`] what one holds.
//! docs/store.md says what is durable when.

mod authored;
pub mod backup;
mod blob;
pub mod check;
mod checkpoint;
mod compact;
mod cover;
mod error;
mod fold;
pub mod ground;
mod group;
pub mod life;
mod overlay;
mod read;
mod record;
mod recover;
mod reindex;
mod schema;
mod stats;
pub mod store;
mod subject;
mod writer;

pub use check::{CheckReport, check, check_on};
pub use error::StoreError;
pub use life::LifeEntry;
pub use stats::{Stats, stats};
pub use store::selection::{Offer, Policy};
pub use store::{Driven, Options, Store};
pub use subject::Standing;
pub use writer::Transacted;

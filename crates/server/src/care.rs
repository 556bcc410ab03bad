//! Looking after a store that no server uses at this time: what goes in and out of it as files.
//!
//! Reading order: `care/export.rs` writes every document to a file, `care/import.rs` takes them in, `care/rewind.rs` takes in
//! what another store had at a time, `care/schedule.rs` makes
//! copies from time to time, `care/source.rs` knows which files of a directory are which document. Copies of a whole store are `syncline_store::backup`.

mod export;
mod import;
mod rewind;
mod schedule;
mod source;

pub use export::{ExportError, Exported, export};
pub use import::{Import, Imported};
pub use rewind::rewind;
pub use schedule::{Schedule, backup_name};
pub use source::{Layout, SourceError};

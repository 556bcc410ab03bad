//! Offline-first automerge documents that keep themselves in sync.
//!
//! A [`Repo`] is a directory of documents. Reading and changing them works on this machine alone, at its speed; a
//! server that can be reached is kept in sync with, and one that cannot is caught up with later.
//!
//! ```no_run
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
//!
//! A change is in three places, one after the other: in memory when [`Document::change`] returns, on this disk when
//! [`Document::saved`] does, on a server's disk when [`Document::on_server`] does. [`Document::status`] says at any
//! time which of these are true.
//!
//! Reading order: [`repo`] opens and finds, [`document`] reads, changes and watches, [`deletion`] deletes
//! and restores, [`selection`] says what goes to servers, [`blob`] keeps attachments, [`status`] and [`server`] name what
//! is known, [`url`] is how documents are passed on, [`error`] what can go wrong; `engine` runs behind a repo, `live` is
//! one document in memory, `journal` its changes that are not saved.

pub mod blob;
mod blocking;
mod branch;
mod compare;
mod complaints;
pub mod deletion;
pub mod document;
mod engine;
pub mod error;
pub mod feed;
pub mod history;
mod journal;
mod json;
mod live;
pub mod mesh;
mod offer;
mod patching;
pub mod presence;
mod reauthor;
pub mod receipt;
pub mod repo;
mod reverse;
pub mod selection;
pub mod server;
pub mod status;
mod steps;
pub mod text;
mod timer;
mod typed;
mod undo;
pub mod url;
pub mod value;
pub mod view;
pub mod watch;

pub use automerge;
pub use autosurgeon;
pub use blob::{BlobFetch, BlobProgress, BlobStatus};
pub use blocking::block_on;
pub use deletion::Deleted;
pub use document::{ChangeOptions, Document};
pub use error::Error;
pub use feed::{Feed, Position};
pub use history::ChangeInfo;
pub use mesh::{Mesh, MeshConfig};
pub use presence::{Presence, PresenceOptions};
pub use receipt::Receipt;
pub use repo::{Options, Repo};
pub use selection::SyncPolicy;
pub use server::{ConnectOptions, Connection, Server};
pub use status::{Complaint, OnOneServer, OnServer, RepoStatus, Saved, Status};
pub use steps::Origin;
pub use syncline_core::blob::{BlobHash, BlobRefusal};
pub use text::TextEditor;
pub use url::DocumentUrl;
pub use view::View;
pub use watch::{Update, Watch};

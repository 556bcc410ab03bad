//! What can be said of a document's safety: saved here, on the server, on how many replicas.
//!
//! Owns: the words. Must not: work them out; `live.rs` and `server.rs` do.
//! Next: `receipt.rs`, `live.rs`; docs/client.md, "Is it saved, and where?".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::DocumentUrl;

/// Where the changes of a document are, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// On this disk.
    pub saved: Saved,
    /// On a server.
    pub server: OnServer,
    /// Changes that no server has announced: what is lost with this machine.
    pub ahead: usize,
    /// By the address of each server that has spoken of the document.
    pub servers: BTreeMap<String, OnOneServer>,
    /// Since when no server is connected; `None` while one is, or where none is connected to.
    pub offline_since: Option<SystemTime>,
    /// What servers did not take of this document and have not got since.
    pub complaints: Vec<Complaint>,
}

/// Whether a document's changes are on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// All of them: no crash and no power cut loses one.
    Here,
    /// So many are on their way.
    Pending {
        /// Changes that are in memory only.
        changes: usize,
    },
    /// The last try to save so many failed; it is tried again.
    Failed {
        /// Changes that are in memory only.
        changes: usize,
        /// What the store said.
        reason: Arc<str>,
    },
}

/// Whether a document's changes are on a server.
///
/// A Syncline server announces only what is durable on its disk, so each of these is a fact about that disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnServer {
    /// No server is connected, so its present state is not known.
    Offline {
        /// Whether everything that is in the document had been announced by a server when it was last heard of.
        confirmed: bool,
    },
    /// It stays on this machine.
    LocalOnly,
    /// A server is connected and has not announced everything that is in the document.
    Behind,
    /// A connected server has announced everything that is in the document.
    InSync,
}

/// What one server is known to have of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnOneServer {
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it has announced everything that is in the document.
    pub has_all: bool,
    /// When it last announced what it has, by this machine's clock.
    pub heard: SystemTime,
}

/// Something that a server did not take. It stays until the server has what it is about; nothing is lost meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The server's address.
    pub server: String,
    /// The document that it is about, if the server names one.
    pub document: Option<DocumentUrl>,
    /// Why, in the server's words.
    pub message: Arc<str>,
    /// When it came, by this machine's clock.
    pub at: SystemTime,
}

/// Where the changes of a repo are, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoStatus {
    /// On this disk: of all documents together.
    pub saved: Saved,
    /// The addresses of the servers that are connected.
    pub connected: Vec<String>,
    /// Since when no server is connected; `None` while one is, or where none is connected to.
    pub offline_since: Option<SystemTime>,
    /// What servers did not take and have not got since.
    pub complaints: Vec<Complaint>,
}

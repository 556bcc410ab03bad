//! What can be said of a document's safety: saved here, on the server.
//!
//! Owns: the words. Must not: work them out; `live.rs` does.
//! Next: `document.rs`, `live.rs`.

use std::sync::Arc;

/// Where the changes of a document are, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// On this disk.
    pub saved: Saved,
    /// On a server.
    pub server: OnServer,
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
    /// A server is connected and has not announced everything that is in the document.
    Behind,
    /// A connected server has announced everything that is in the document.
    InSync,
}

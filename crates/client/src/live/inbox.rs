//! What came from elsewhere and waits until the document is free.
//!
//! Owns: its order and its bound. Must not: apply anything. Next: `live.rs`.

use std::collections::BTreeSet;

use automerge::ChangeHash;
use bytes::Bytes;

use crate::steps::Origin;

/// Bytes of changes of others that wait in memory for a busy document; beyond it they are read from the store again.
const INBOX_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) changes: Vec<Bytes>,
    bytes: usize,
    /// Who brought them.
    pub(crate) origins: BTreeSet<Origin>,
    /// What the document's heads include once the changes are in.
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) reload: bool,
    /// Somebody is at it.
    at_work: bool,
}

impl Inbox {
    /// Takes in what became durable.
    pub(crate) fn add(&mut self, changes: Vec<Bytes>, heads: Vec<ChangeHash>, origin: Origin) {
        self.heads = heads;
        self.origins.insert(origin);
        self.bytes += changes.iter().map(Bytes::len).sum::<usize>();
        if self.bytes > INBOX_BYTES_MAX {
            self.changes = Vec::new();
            self.reload = true;
        }
        if !self.reload {
            self.changes.extend(changes);
        }
    }

    /// Whether the caller has to put somebody to work.
    pub(crate) fn start(&mut self) -> bool {
        !std::mem::replace(&mut self.at_work, true)
    }

    /// What is in, or `None`, and the work is over.
    pub(crate) fn take(&mut self) -> Option<Self> {
        let empty = self.changes.is_empty() && self.heads.is_empty() && !self.reload;
        let taken = std::mem::take(self);
        self.at_work = !empty;
        (!empty).then_some(taken)
    }
}

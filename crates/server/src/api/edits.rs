//! Whose turn it is to edit a document over HTTP.
//!
//! Owns: one edit of a document at a time, so that an actor's numbers have no twins. Must not: hold up peers.
//! Next: `content.rs`.

use std::hash::{BuildHasher, RandomState};

use syncline_core::id::DocumentId;
use tokio::sync::{Mutex, MutexGuard};

/// Documents that can be edited at one time; those that fall on one lock wait for each other.
const LOCKS: usize = 64;

/// Locks for documents.
#[derive(Debug)]
pub(crate) struct Edits {
    locks: [Mutex<()>; LOCKS],
    hasher: RandomState,
    /// What the actors of this run are derived from.
    pub(super) seed: [u8; 32],
}

impl Edits {
    pub(crate) fn new() -> Self {
        Self { locks: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new(), seed: rand::random() }
    }

    /// Waits until nobody else edits the document.
    pub(super) async fn turn(&self, document: &DocumentId) -> MutexGuard<'_, ()> {
        let number = self.hasher.hash_one(document) % LOCKS as u64;
        self.locks[number as usize].lock().await
    }
}

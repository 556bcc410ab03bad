//! Who changed a document, when, and what it was then.
//!
//! Owns: a change as an entry of a list, the heads of a time. Must not: believe the times: they are their authors'.
//! Next: `question.rs`.

use std::collections::HashSet;

use automerge::{Automerge, ChangeHash, ChangeMetadata};
use serde::Serialize;

/// A change, as a program reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its hash, hexadecimal: as heads, it names the document as its author saw it then.
    pub hash: String,
    /// The changes that it builds on.
    pub deps: Vec<String>,
    /// The process that made it, hexadecimal.
    pub actor: String,
    /// Its number among those of its actor, from 1.
    pub seq: u64,
    /// Who made it, if the application says so: text where it is text, otherwise hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it was for, if the application says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When, by its author's clock, seconds since 1970; missing where the application does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// How many operations it has.
    pub operations: u64,
}

impl From<ChangeMetadata<'_>> for Entry {
    fn from(change: ChangeMetadata<'_>) -> Self {
        let author = change.author.map(|author| {
            let text = std::str::from_utf8(author.as_bytes());
            text.map_or_else(|_| author.to_hex_string(), str::to_owned)
        });
        Self {
            hash: change.hash.to_string(),
            deps: change.deps.iter().map(ChangeHash::to_string).collect(),
            actor: change.actor.to_hex_string(),
            seq: change.seq,
            author,
            message: change.message.map(|message| message.into_owned()),
            time: (change.timestamp > 0).then_some(change.timestamp),
            operations: (change.max_op + 1).saturating_sub(change.start_op),
        }
    }
}

/// A part of a document's changes, the newest first, and how many there are in all.
pub(crate) fn list(document: &Automerge, skip: usize, limit: usize) -> (usize, Vec<Entry>) {
    let changes = document.get_changes_meta(&[]);
    let count = changes.len();
    (count, changes.into_iter().rev().skip(skip).take(limit).map(Entry::from).collect())
}

/// The heads that the document had at a time, seconds since 1970, by the clocks of those who changed it: a change counts
/// if it and all that it builds on were made by then. Changes without a time count as made with what they build on.
#[must_use]
pub fn heads_at(document: &Automerge, time_s: i64) -> Vec<ChangeHash> {
    let mut made = HashSet::new();
    let mut heads: Vec<ChangeHash> = Vec::new();
    // Each change comes after those that it builds on.
    for change in document.get_changes_meta(&[]) {
        if change.timestamp <= time_s && change.deps.iter().all(|dep| made.contains(dep)) {
            made.insert(change.hash);
            heads.retain(|head| !change.deps.contains(head));
            heads.push(change.hash);
        }
    }
    heads.sort_unstable();
    heads
}

//! The commits that are durable in the log but not yet folded into their documents.
//!
//! Owns: those rows, per document, and the state of each such document after them.
//! Must not: touch SQLite. Only the writer thread changes it; readers take it before they look at the database.
//! Next: `writer.rs`, `fold.rs`, `read.rs`; docs/store.md, "Reading".

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use syncline_core::ChangeHash;
use syncline_core::authored::Authored;
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_core::storage::StoredChange;

use crate::cover::Cover;
use crate::record::{self, Content, LogRow};
use crate::schema::{DocumentKey, DocumentRow};

/// Every document that has rows in the log which are not folded.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    documents: BTreeMap<DocumentId, Unfolded>,
    /// Of all changes in it.
    bytes: u64,
}

impl Overlay {
    /// Bytes of the changes that are not folded.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn find(&self, id: &DocumentId) -> Option<&Unfolded> {
        self.documents.get(id)
    }

    /// Documents in the order of their ids, after the one given.
    pub(crate) fn after(&self, id: Option<&DocumentId>) -> impl Iterator<Item = (&DocumentId, &Unfolded)> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.documents.range::<DocumentId, _>((start, Bound::Unbounded))
    }

    /// Every such document, those that have rows in the database first and in the order of their places there.
    pub(crate) fn fold_order(&self) -> VecDeque<DocumentId> {
        let mut order: Vec<_> = self.documents.iter().map(|(id, unfolded)| (unfolded.key, id)).collect();
        order.sort_unstable_by_key(|(key, _)| key.map_or(i64::MAX, |key| key.0));
        order.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Adds rows that have become durable.
    pub(crate) fn add(&mut self, id: DocumentId, base: &State, rows: Vec<LogRow>) {
        let unfolded = self.documents.entry(id).or_insert_with(|| Unfolded {
            key: base.key,
            rows: VecDeque::new(),
            state: base.clone(),
        });
        for row in rows {
            unfolded.state.advance(&row);
            self.bytes += row.bytes;
            unfolded.rows.push_back(row);
        }
    }

    /// Forgets a document that begins anew.
    pub(crate) fn remove(&mut self, id: &DocumentId) {
        let removed = self.documents.remove(id);
        self.bytes -= removed.map_or(0, |unfolded| unfolded.rows.iter().map(|row| row.bytes).sum());
    }

    /// Drops the first rows of a document that have been folded under this key.
    pub(crate) fn folded(&mut self, id: &DocumentId, key: DocumentKey, rows: usize) {
        let Some(unfolded) = self.documents.get_mut(id) else { return };
        unfolded.key = Some(key);
        self.bytes -= unfolded.rows.drain(..rows).map(|row| row.bytes).sum::<u64>();
        if unfolded.rows.is_empty() {
            self.documents.remove(id);
        }
    }
}

/// The unfolded rows of one document, and what they make of it.
#[derive(Debug, Clone)]
pub(crate) struct Unfolded {
    /// The document's key, once it has a row in the database.
    pub key: Option<DocumentKey>,
    /// The rows, oldest first; never empty.
    pub rows: VecDeque<LogRow>,
    /// The document after all of them.
    pub state: State,
}

impl Unfolded {
    /// Appends the raw changes that come after the first `have` of the document.
    ///
    /// The database may have folded some or all of these rows since they were taken: the number of a change in its
    /// document never changes, so the ends fit whatever happened in between.
    pub(crate) fn append_after(&self, have: u32, out: &mut Vec<StoredChange>) -> Option<()> {
        for row in self.rows.iter().filter(|row| row.before >= have) {
            if let Content::Batch(batch) = &row.content {
                record::decode_batches(batch, out)?;
            }
        }
        Some(())
    }

    /// The chunk that the document begins with and the number of changes in it, for a reader who found nothing of the
    /// document in the database.
    pub(crate) fn cover(&self) -> Option<(&Cover, u32)> {
        let first = self.rows.front()?;
        match &first.content {
            Content::Whole(cover) => Some((cover, first.changes)),
            Content::Batch(_) => None,
        }
    }
}

/// A document after some row: what the next commit builds on and what a summary says.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub key: Option<DocumentKey>,
    pub heads: Vec<ChangeHash>,
    pub changes: u32,
    pub bytes: u64,
    pub last_stamp: Stamp,
    pub authored: Authored,
    /// As the snapshot was when the first of the unfolded rows came; compaction may have replaced it since.
    pub snapshot_changes: u32,
    pub snapshot_bytes: u64,
}

impl State {
    /// A document that has no change yet.
    pub(crate) fn empty() -> Self {
        Self {
            key: None,
            heads: Vec::new(),
            changes: 0,
            bytes: 0,
            last_stamp: Stamp::ZERO,
            authored: Authored::NEVER,
            snapshot_changes: 0,
            snapshot_bytes: 0,
        }
    }

    pub(crate) fn advance(&mut self, row: &LogRow) {
        self.heads.clone_from(&row.heads);
        self.changes = row.after();
        self.bytes += row.bytes;
        self.last_stamp = row.last_stamp;
        self.authored = self.authored.max(row.authored);
        if let Content::Whole(cover) = &row.content {
            self.snapshot_changes = row.after();
            self.snapshot_bytes = cover.snapshot.len() as u64;
        }
    }
}

impl From<DocumentRow> for State {
    fn from(row: DocumentRow) -> Self {
        Self {
            key: Some(row.key),
            heads: row.heads,
            changes: row.changes,
            bytes: row.bytes,
            last_stamp: row.last_stamp,
            authored: row.authored,
            snapshot_changes: row.snapshot_changes,
            snapshot_bytes: row.snapshot_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A read that began before a fold sees the same changes in the database and here.
    #[test]
    fn what_the_database_has_is_not_appended_again() {
        let id = DocumentId::from_bytes(&[1]).expect("one byte");
        let stamps: Vec<Stamp> = (1..=4).map(Stamp::from_u64).collect();
        let part = Bytes::from_static(b"part");
        let (_, _, whole) = LogRow::encode_whole(&[], 9, (&part, &part), &stamps[..2]);
        let (_, _, third) = LogRow::encode(2, &[], std::slice::from_ref(&part), &stamps[2..3]);
        let (_, _, fourth) = LogRow::encode(3, &[], std::slice::from_ref(&part), &stamps[3..]);
        let mut overlay = Overlay::default();
        overlay.add(id.clone(), &State::empty(), vec![whole, third, fourth]);
        let unfolded = overlay.find(&id).expect("just added");
        assert_eq!(unfolded.cover().map(|(_, changes)| changes), Some(2));
        for (have, appended) in [(0, 2..4), (2, 2..4), (3, 3..4), (4, 4..4)] {
            let mut tail = Vec::new();
            unfolded.append_after(have, &mut tail).expect("just encoded");
            assert!(tail.iter().map(|change| change.stamp).eq(stamps[appended].iter().copied()), "after {have}");
        }
    }
}

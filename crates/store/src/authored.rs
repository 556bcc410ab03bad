//! When documents were last written to, of a file that did not know it; and the states of all documents for a set.
//!
//! Owns: the step to the eighth format, the scan at a start. Must not: build a document.
//! Next: `schema.rs`, `read.rs`; docs/store.md, "Elements" and "Migrations".

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use syncline_core::authored::Authored;
use syncline_core::collection::DocumentState;
use syncline_core::id::DocumentId;
use syncline_core::storage::Standing;

use crate::error::StoreError;
use crate::life::LifeEntry;
use crate::overlay::State;
use crate::read;
use crate::record;
use crate::schema::{DocumentKey, DocumentRow};
use crate::store::Store;
use crate::store::selection::Policy;

/// Documents whose states are handed over at once.
const PAGE: usize = 4_096;

/// Reads the times of every document in the file. What is damaged has none: the document is compared in another place.
pub(crate) fn read_all(write: &Connection) -> rusqlite::Result<()> {
    let mut documents = write.prepare("SELECT key FROM document ORDER BY key")?;
    let keys: Vec<i64> = documents.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for key in keys {
        let latest = latest_of(write, DocumentKey(key))?;
        write.prepare_cached("UPDATE document SET authored = ?2 WHERE key = ?1")?.execute((key, latest.seconds()))?;
    }
    Ok(())
}

fn latest_of(read: &Connection, key: DocumentKey) -> rusqlite::Result<Authored> {
    const SNAPSHOT: &str = "SELECT data FROM snapshot WHERE document = ?1";
    const TAIL: &str = "SELECT data FROM tail WHERE place BETWEEN ?1 AND ?2";
    let snapshot = read.prepare_cached(SNAPSHOT)?.query_row([key.0], |row| row.get::<_, Vec<u8>>(0)).optional()?;
    let mut latest = snapshot.and_then(|bytes| Authored::of_document(&bytes.into())).unwrap_or_default();
    let mut statement = read.prepare_cached(TAIL)?;
    let mut pieces = statement.query((key.place(0), key.last_place()))?;
    while let Some(piece) = pieces.next()? {
        let mut changes = Vec::new();
        if record::decode_batches(&Bytes::from(piece.get::<_, Vec<u8>>(0)?), &mut changes).is_some() {
            latest = changes.iter().filter_map(|change| Authored::of_change(&change.bytes)).fold(latest, Authored::max);
        }
    }
    Ok(latest)
}

impl Store {
    /// Hands over the state of every document, and of every one that has a life record, each once, in no order. What is
    /// committed meanwhile may be in it or not. A document whose log was damaged is left out.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn states(&self, mut each: impl FnMut(Vec<(DocumentId, DocumentState)>)) -> Result<(), StoreError> {
        // The log's part is taken before the database's: what is folded in between is then seen twice, never not at all.
        let overlay = self.shared().overlay.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut unfolded: BTreeMap<DocumentId, State> =
            overlay.after(None).map(|(id, unfolded)| (id.clone(), unfolded.state.clone())).collect();
        drop(overlay);
        self.readers().read(|read| {
            let mut lives: BTreeMap<DocumentId, _> = LifeEntry::after(read, None, usize::MAX)?.into_iter().collect();
            let policies = Policy::range(read, None, None, usize::MAX)?.into_iter();
            let here: HashSet<DocumentId> =
                policies.filter(|(_, policy)| policy.local_only).map(|(id, _)| id).collect();
            let mut state_of = |id: DocumentId, row: Option<DocumentRow>, unfolded: Option<State>| {
                let summary = read::join_summary(row, unfolded);
                let (life, local_only) = (lives.remove(&id).map(|entry| entry.life), here.contains(&id));
                let state = DocumentState::from(&Standing { summary, life, local_only });
                (id, state)
            };
            let sql = format!("SELECT {}, id FROM document", DocumentRow::COLUMNS);
            let mut statement = read.prepare(&sql)?;
            let mut rows = statement.query([])?;
            let mut page = Vec::with_capacity(PAGE);
            while let Some(row) = rows.next()? {
                let id = row.get_ref(DocumentRow::COLUMN_COUNT)?.as_blob().map_err(rusqlite::Error::from)?;
                let id = read::document_id(id)?;
                if self.shared().damaged.contains(&id) {
                    continue;
                }
                let later = unfolded.remove(&id);
                page.push(state_of(id, Some(DocumentRow::from_row(row)?), later));
                if page.len() == PAGE {
                    each(std::mem::replace(&mut page, Vec::with_capacity(PAGE)));
                }
            }
            let rest = std::mem::take(&mut unfolded).into_iter();
            page.extend(rest.map(|(id, state)| state_of(id, None, Some(state))));
            let only_lives: Vec<DocumentId> = lives.keys().cloned().collect();
            let damaged = &self.shared().damaged;
            for id in only_lives.into_iter().filter(|id| !damaged.contains(id)) {
                let (life, local_only) = (lives.remove(&id).map(|entry| entry.life), here.contains(&id));
                page.push((id, DocumentState { life, local_only, ..DocumentState::default() }));
            }
            each(page);
            Ok(())
        })
    }
}

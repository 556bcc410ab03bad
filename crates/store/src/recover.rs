//! The start: what the log holds that is not folded yet, and which documents have a damaged row in it.
//!
//! Owns: reading the log into memory, setting aside what does not decode or continue its document.
//! Must not: drop a row, or let one document's damage keep the others from being served.
//! Next: `overlay.rs`, `fold.rs`; docs/store.md, "Failures".

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;

use crate::error::StoreError;
use crate::fold::Log;
use crate::life;
use crate::overlay::{Overlay, State};
use crate::record::LogRow;
use crate::schema::{self, DocumentRow, LOG_SEQ_MAX};

/// What the file held when it was opened.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub overlay: Overlay,
    pub log: Log,
    /// The highest stamp that any change or life record has, or that was written down.
    pub highest: Stamp,
    /// Documents with rows that have been set aside, at this start or an earlier one.
    pub damaged: BTreeSet<DocumentId>,
}

/// Reads the log. Rows of documents in which it is damaged are moved out of it first, all or none.
pub(crate) fn recover(connection: &Connection) -> Result<Recovered, StoreError> {
    let mut pass = Pass::over(connection)?;
    let highest = pass.highest.max(schema::highest_stamp(connection)?).max(life::latest_noted(connection)?);
    if !pass.damaged.is_empty() {
        set_aside(connection, &pass.damaged, highest)?;
        pass = Pass::over(connection)?;
    }
    let mut damaged = BTreeSet::new();
    let mut statement = connection.prepare("SELECT DISTINCT document FROM damaged")?;
    let ids = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    for id in ids {
        // A name that is itself damaged is nobody's: no caller can ask for it, and the check reports it.
        let Ok(id) = DocumentId::from_bytes(&id?) else { continue };
        tracing::error!(document = %id, "its rows in the log are damaged and set aside; it is not served");
        damaged.insert(id);
    }
    Ok(Recovered { overlay: pass.overlay, log: pass.log, highest, damaged })
}

/// Moves all rows of these documents out of the log, so that no fold deletes them.
fn set_aside(connection: &Connection, documents: &BTreeSet<Vec<u8>>, highest: Stamp) -> Result<(), StoreError> {
    const MOVE: &str = "INSERT INTO damaged (document, number, kind, data) \
                        SELECT document, (SELECT coalesce(max(number), 0) FROM damaged WHERE document = ?1) + \
                        row_number() OVER (ORDER BY seq), kind, data FROM log WHERE document = ?1";
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    for document in documents {
        transaction.execute(MOVE, [document])?;
        transaction.execute("DELETE FROM log WHERE document = ?1", [document])?;
    }
    // The stamps in these rows are no longer found by the next start.
    schema::write_highest_stamp(&transaction, highest)?;
    transaction.commit().map_err(StoreError::from_write)
}

/// One way through the log.
#[derive(Debug)]
struct Pass {
    overlay: Overlay,
    log: Log,
    highest: Stamp,
    /// Rows that are of a document that is gone.
    floors: HashMap<Vec<u8>, i64>,
    /// The document column of every document with a row that cannot be used.
    damaged: BTreeSet<Vec<u8>>,
}

impl Pass {
    fn over(read: &Connection) -> Result<Self, StoreError> {
        let log = Log { next_seq: 1, ..Log::default() };
        let damaged = BTreeSet::new();
        let floors = life::floors(read)?
            .ok_or_else(|| StoreError::Corrupt { source: Arc::new(rusqlite::Error::InvalidQuery) })?;
        let mut pass = Self { overlay: Overlay::default(), log, highest: Stamp::ZERO, floors, damaged };
        let mut statement = read.prepare("SELECT seq, document, kind, data FROM log ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            let document = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let data = Bytes::copy_from_slice(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?);
            pass.count(seq, data.len());
            if pass.floors.get(document).is_some_and(|floor| seq <= *floor) {
                continue;
            }
            let taken = pass.take(read, document, row.get(2)?, &data)?;
            if taken.is_none() || seq > LOG_SEQ_MAX {
                pass.damaged.insert(document.to_vec());
            }
        }
        Ok(pass)
    }

    fn count(&mut self, seq: i64, bytes: usize) {
        self.log.grow(seq.saturating_add(1), 1, bytes);
    }

    /// Adds a row that is not folded yet; `None` if it does not decode or does not continue its document.
    ///
    /// A row is folded when its document already has more changes than came before the row.
    fn take(&mut self, read: &Connection, document: &[u8], kind: i64, data: &Bytes) -> Result<Option<()>, StoreError> {
        let (Ok(id), Some(row)) = (DocumentId::from_bytes(document), LogRow::decode(kind, data)) else {
            return Ok(None);
        };
        self.highest = self.highest.max(row.last_stamp);
        let base = match self.overlay.find(&id) {
            Some(unfolded) => unfolded.state.clone(),
            None => DocumentRow::find(read, id.as_bytes())?.map_or_else(State::empty, State::from),
        };
        if row.after() <= base.changes {
            return Ok(Some(()));
        }
        if row.before != base.changes {
            return Ok(None);
        }
        self.overlay.add(id, &base, vec![row]);
        Ok(Some(()))
    }
}

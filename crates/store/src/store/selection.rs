//! What is wanted of a document beside its changes: to be kept in step although nobody has it open, or to stay on this
//! machine; and which servers were last seen to have everything of it.
//!
//! Owns: the tables `policy`, `server` and `in_step`. Must not: decide what is offered to whom; the application does.
//! Next: `../group.rs`; docs/store.md, "Selection".

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use rusqlite::{Connection, OptionalExtension, Row};
use sha2::{Digest, Sha256};
use syncline_core::ChangeHash;
use syncline_core::id::{DocumentId, StorageId};

use super::Store;
use crate::error::StoreError;
use crate::group::{Done, Unit};
use crate::{life, read};

/// Servers of which it is remembered what they have. The one that was heard of longest ago makes room for another.
const SERVERS_MAX: i64 = 16;

/// What an application wants of a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// It is kept in step with servers although nobody has it open.
    pub pinned: bool,
    /// It stays on this machine.
    pub local_only: bool,
}

/// A stored document, as somebody sees it who decides what a server is to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The document.
    pub document: DocumentId,
    /// What is wanted of it.
    pub policy: Policy,
    /// The server last announced what is stored here now.
    pub in_step: bool,
}

/// What is to be noted beside the changes.
#[derive(Debug)]
pub(crate) enum Note {
    Pinned(DocumentId, bool),
    LocalOnly(DocumentId, bool),
    InStep(StorageId, Vec<(DocumentId, i64)>),
}

impl Store {
    /// What is wanted of a document.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn policy(&self, id: &DocumentId) -> Result<Policy, StoreError> {
        self.inner.readers.read(|read| Ok(Policy::find(read, id)?))
    }

    /// At most `limit` documents of which something is wanted, in the order of their ids, those after the one given. They
    /// need not be stored here.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn policies(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<(DocumentId, Policy)>, StoreError> {
        self.inner.readers.read(|read| Policy::range(read, after, None, limit))
    }

    /// At most `limit` documents as [`Store::documents`] lists them, each with whether this server, or any if none is
    /// named, last announced what is stored here now.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn offers(
        &self,
        server: Option<&StorageId>,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<Offer>, StoreError> {
        let page = self.documents(after, limit)?;
        let Some((last, _)) = page.last() else { return Ok(Vec::new()) };
        let (policies, seen) = self.inner.readers.read(|read| {
            let policies = Policy::range(read, after, Some(last), usize::MAX)?;
            Ok((policies, announced(read, server, after, last)?))
        })?;
        let policies: BTreeMap<_, _> = policies.into_iter().collect();
        let offer = |(document, summary): (DocumentId, syncline_core::storage::Summary)| {
            let policy = policies.get(&document).copied().unwrap_or_default();
            let first = (document.clone(), i64::MIN);
            let own = seen.range((Bound::Included(first), Bound::Unbounded));
            let present = digest(&summary.heads);
            let mut own = own.take_while(|(of, _)| *of == document);
            let in_step = own.any(|(_, digest)| *digest == present);
            Offer { document, policy, in_step }
        };
        Ok(page.into_iter().map(offer).collect())
    }

    /// These documents, in the order given, as [`Store::offers`] has them.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn offers_of(&self, server: Option<&StorageId>, ids: &[DocumentId]) -> Result<Vec<Offer>, StoreError> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM in_step WHERE document = ?2 AND heads = ?3 \
                           AND server IN (SELECT key FROM server WHERE ?1 IS NULL OR storage = ?1))";
        let summaries = self.summaries(ids)?;
        self.inner.readers.read(|read| {
            let offer = |(id, summary): (&DocumentId, Option<syncline_core::storage::Summary>)| {
                let present = digest(&summary.map(|summary| summary.heads).unwrap_or_default());
                let values = (server.map(StorageId::as_str), id.as_bytes(), present);
                let in_step = read.prepare_cached(SQL)?.query_row(values, |row| row.get(0))?;
                Ok(Offer { document: id.clone(), policy: Policy::find(read, id)?, in_step })
            };
            ids.iter().zip(summaries).map(offer).collect()
        })
    }

    /// Whether some server last announced these heads, sorted, of a document.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn is_in_step(&self, id: &DocumentId, heads: &[ChangeHash]) -> Result<bool, StoreError> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM in_step WHERE server IN (SELECT key FROM server) \
                           AND document = ?1 AND heads = ?2)";
        self.inner
            .readers
            .read(|read| Ok(read.prepare_cached(SQL)?.query_row((id.as_bytes(), digest(heads)), |row| row.get(0))?))
    }

    /// Has a document kept in step although nobody has it open, or not. Calls `done` when that is durable.
    pub fn set_pinned(&self, document: DocumentId, pinned: bool, done: Done) {
        self.note(Note::Pinned(document, pinned), done);
    }

    /// Keeps a document on this machine, or not. Calls `done` when that is durable.
    pub fn set_local_only(&self, document: DocumentId, local_only: bool, done: Done) {
        self.note(Note::LocalOnly(document, local_only), done);
    }

    /// Notes which heads, sorted, a server has announced of documents of which it has everything.
    pub fn set_in_step(&self, server: &StorageId, documents: &[(DocumentId, Vec<ChangeHash>)], done: Done) {
        let digests = documents.iter().map(|(document, heads)| (document.clone(), digest(heads))).collect();
        self.note(Note::InStep(server.clone(), digests), done);
    }

    fn note(&self, note: Note, done: Done) {
        self.inner.shared.enqueue(Unit::Note { note, done });
    }
}

impl Policy {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (pinned, local_only) = (row.get(0)?, row.get(1)?);
        let found = Self { pinned, local_only };
        let document = row.get_ref(3)?.as_blob()?;
        if row.get_ref(2)?.as_blob()? == life::proof(document, found.number()) {
            return Ok(found);
        }
        tracing::error!("what is wanted of a document is damaged: it stays on this machine");
        Ok(Self { pinned: false, local_only: true })
    }

    fn number(self) -> i64 {
        i64::from(self.pinned) | i64::from(self.local_only) << 1
    }

    fn find(read: &Connection, id: &DocumentId) -> rusqlite::Result<Self> {
        const SQL: &str = "SELECT pinned, local_only, proof, document FROM policy WHERE document = ?1";
        let found = read.prepare_cached(SQL)?.query_row([id.as_bytes()], Self::from_row).optional()?;
        Ok(found.unwrap_or_default())
    }

    /// Those after one id, up to another.
    pub(crate) fn range(
        read: &Connection,
        after: Option<&DocumentId>,
        last: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Self)>, StoreError> {
        const SQL: &str = "SELECT pinned, local_only, proof, document FROM policy \
                           WHERE document > ?1 AND (?2 IS NULL OR document <= ?2) ORDER BY document LIMIT ?3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = read.prepare_cached(SQL)?;
        let mut rows = statement.query((first_after(after), last.map(DocumentId::as_bytes), limit))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let id = read::document_id(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?)?;
            found.push((id, Self::from_row(row)?));
        }
        Ok(found)
    }

    fn write(self, write: &Connection, id: &DocumentId) -> rusqlite::Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO policy (document, pinned, local_only, proof) VALUES (?1, ?2, ?3, ?4)";
        if self == Self::default() {
            let mut statement = write.prepare_cached("DELETE FROM policy WHERE document = ?1")?;
            return statement.execute([id.as_bytes()]).map(|_| ());
        }
        let proof = life::proof(id.as_bytes(), self.number());
        write.prepare_cached(SQL)?.execute((id.as_bytes(), self.pinned, self.local_only, proof)).map(|_| ())
    }
}

impl Note {
    /// Writes it within the transaction of a group.
    pub(crate) fn write(&self, write: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Pinned(id, pinned) => Policy { pinned: *pinned, ..Policy::find(write, id)? }.write(write, id),
            Self::LocalOnly(id, local_only) => {
                Policy { local_only: *local_only, ..Policy::find(write, id)? }.write(write, id)
            }
            Self::InStep(server, documents) => {
                let key = server_key(write, server)?;
                let mut statement = write
                    .prepare_cached("INSERT OR REPLACE INTO in_step (server, document, heads) VALUES (?1, ?2, ?3)")?;
                documents
                    .iter()
                    .try_for_each(|(id, digest)| statement.execute((key, id.as_bytes(), digest)).map(|_| ()))
            }
        }
    }
}

/// The documents of which the table has an entry that cannot be what was written.
pub(crate) fn damaged(read: &Connection) -> rusqlite::Result<Vec<Option<DocumentId>>> {
    let mut statement = read.prepare("SELECT document, pinned, local_only, proof FROM policy")?;
    let mut rows = statement.query([])?;
    let mut damaged = Vec::new();
    while let Some(row) = rows.next()? {
        let document: Vec<u8> = row.get(0).unwrap_or_default();
        let whole =
            row.get(1).and_then(|pinned| Ok((Policy { pinned, local_only: row.get(2)? }, row.get::<_, Vec<u8>>(3)?)));
        if !whole.is_ok_and(|(policy, proof)| proof == life::proof(&document, policy.number())) {
            damaged.push(DocumentId::from_bytes(&document).ok());
        }
    }
    Ok(damaged)
}

/// Forgets what servers have of a document: its history is gone.
pub(crate) fn forget(write: &Connection, id: &DocumentId) -> rusqlite::Result<()> {
    const SQL: &str = "DELETE FROM in_step WHERE server IN (SELECT key FROM server) AND document = ?1";
    write.prepare_cached(SQL)?.execute([id.as_bytes()]).map(|_| ())
}

/// A server's short name in this file, which is given to it if it has none.
fn server_key(write: &Connection, server: &StorageId) -> rusqlite::Result<i64> {
    const USE: &str = "UPDATE server SET used = (SELECT max(used) + 1 FROM server) WHERE storage = ?1 RETURNING key";
    const ADD: &str =
        "INSERT INTO server (storage, used) VALUES (?1, (SELECT ifnull(max(used), 0) + 1 FROM server)) RETURNING key";
    const OLDEST: &str = "SELECT key FROM server WHERE (SELECT count(*) FROM server) >= ?1 ORDER BY used LIMIT 1";
    let known = write.prepare_cached(USE)?.query_row([server.as_str()], |row| row.get(0)).optional()?;
    if let Some(key) = known {
        return Ok(key);
    }
    let oldest: Option<i64> = write.prepare_cached(OLDEST)?.query_row([SERVERS_MAX], |row| row.get(0)).optional()?;
    if let Some(oldest) = oldest {
        write.execute("DELETE FROM in_step WHERE server = ?1", [oldest])?;
        write.execute("DELETE FROM server WHERE key = ?1", [oldest])?;
    }
    write.prepare_cached(ADD)?.query_row([server.as_str()], |row| row.get(0))
}

/// What was announced by one server, or by any, of the documents after one id and up to another.
fn announced(
    read: &Connection,
    server: Option<&StorageId>,
    after: Option<&DocumentId>,
    last: &DocumentId,
) -> Result<BTreeSet<(DocumentId, i64)>, StoreError> {
    const SQL: &str = "SELECT document, heads FROM in_step \
                       WHERE server IN (SELECT key FROM server WHERE ?1 IS NULL OR storage = ?1) \
                       AND document > ?2 AND document <= ?3";
    let mut statement = read.prepare_cached(SQL)?;
    let mut rows = statement.query((server.map(StorageId::as_str), first_after(after), last.as_bytes()))?;
    let mut found = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let id = read::document_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        found.insert((id, row.get(1)?));
    }
    Ok(found)
}

/// What ids are compared with that come after this one. Nothing is below the empty id, which is an id too: the number 0
/// is below every blob.
fn first_after(after: Option<&DocumentId>) -> rusqlite::types::ToSqlOutput<'_> {
    use rusqlite::types::{ToSqlOutput, Value, ValueRef};
    after.map_or(ToSqlOutput::Owned(Value::Integer(0)), |id| ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())))
}

/// What heads come down to. Two sets that a server could announce do not fall together by chance.
fn digest(heads: &[ChangeHash]) -> i64 {
    let hashed = heads.iter().fold(Sha256::new(), |hashed, head| hashed.chain_update(head.0)).finalize();
    i64::from_be_bytes(std::array::from_fn(|at| hashed[at]))
}

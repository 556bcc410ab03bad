//! Whose actors are, and how much each subject has stored in which document.
//!
//! Owns: the tables `actor` and `share`, and what is in memory of them for all hubs. Must not: decide what may be taken.
//! Next: `group.rs`, `life.rs`; docs/store.md, "Subjects".
//!
//! What a hub was given counts what is on its way too, so as long as somebody holds it nothing is read again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row};
use syncline_core::change::Actor;
use syncline_core::id::DocumentId;
use syncline_core::subject::{Account, Contribution, Owner};

use crate::error::StoreError;
use crate::life;
use crate::store::Store;

/// Entries below which nothing is looked for that nobody holds any more.
const PRUNED_MIN: usize = 1024;

/// Whose actors are, and what the subject that was asked for has.
pub type Standing = (Vec<(Actor, Owner)>, Option<(Arc<str>, Account)>);

/// Bytes by subject that a purge has given back.
pub(crate) type GivenBack = Vec<(String, u64)>;

/// What somebody holds of the tables.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    accounts: Mutex<Held<Arc<str>, Account>>,
    owners: Mutex<Held<Actor, Owner>>,
}

#[derive(Debug)]
pub(crate) struct Held<K, V> {
    entries: HashMap<K, V>,
    prune_at: usize,
}

impl<K, V> Default for Held<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), prune_at: PRUNED_MIN }
    }
}

impl<K: std::hash::Hash + Eq, V: Clone> Held<K, V> {
    /// The entry that is held, or one that is read now.
    fn entry(
        &mut self,
        key: K,
        is_held: impl Fn(&V) -> bool,
        read: impl FnOnce() -> rusqlite::Result<V>,
    ) -> rusqlite::Result<V> {
        if let Some(held) = self.entries.get(&key).filter(|held| is_held(held)) {
            return Ok(held.clone());
        }
        if self.entries.len() >= self.prune_at {
            self.entries.retain(|_, value| is_held(value));
            self.prune_at = (self.entries.len() * 2).max(PRUNED_MIN);
        }
        let value = read()?;
        self.entries.insert(key, value.clone());
        Ok(value)
    }
}

/// Keeps accounts from being read while a purge is between the disk and them.
pub(crate) struct Purging<'a>(MutexGuard<'a, Held<Arc<str>, Account>>);

impl Subjects {
    pub(crate) fn purging(&self) -> Purging<'_> {
        Purging(self.accounts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Purging<'_> {
    /// A purge is on the disk.
    pub(crate) fn give_back(self, given_back: GivenBack) {
        for (subject, bytes) in given_back {
            if let Some(account) = self.0.entries.get(subject.as_str()) {
                account.give_back(bytes);
            }
        }
    }
}

impl Store {
    /// Whose these actors are, and what a subject has stored. All who ask share what they are given.
    ///
    /// # Errors
    /// As [`Store::documents`].
    pub fn subject(&self, actors: &[Actor], subject: Option<&Arc<str>>) -> Result<Standing, StoreError> {
        let subjects = &self.shared().subjects;
        self.readers().read(|read| {
            let mut held = subjects.owners.lock().unwrap_or_else(PoisonError::into_inner);
            let mut owners = Vec::with_capacity(actors.len());
            for actor in actors {
                let owner = held.entry(actor.clone(), Owner::is_shared, || owner(read, actor).map(Owner::stored))?;
                owners.push((actor.clone(), owner));
            }
            drop(held);
            let Some(subject) = subject else { return Ok((owners, None)) };
            let mut held = subjects.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            let read_account = || stored_bytes(read, subject).map(Account::new);
            let account = held.entry(Arc::clone(subject), Account::is_shared, read_account)?;
            Ok((owners, Some((Arc::clone(subject), account))))
        })
    }
}

/// Writes what a group of commits brings of whom, within its transaction.
pub(crate) fn write(
    write: &Connection,
    contributions: &BTreeMap<DocumentId, Vec<Contribution>>,
) -> rusqlite::Result<()> {
    for (document, contributions) in contributions {
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for Contribution { subject, actors, bytes: more } in contributions {
            for actor in actors {
                write
                    .prepare_cached("INSERT OR REPLACE INTO actor (actor, subject, proof) VALUES (?1, ?2, ?3)")?
                    .execute((actor.as_bytes(), &**subject, proof_of_owner(actor.as_bytes(), subject)))?;
            }
            *bytes.entry(subject).or_default() += more;
        }
        for (subject, more) in bytes.into_iter().filter(|(_, bytes)| *bytes > 0) {
            add_share(write, document, subject, more)?;
        }
    }
    Ok(())
}

fn add_share(write: &Connection, document: &DocumentId, subject: &str, more: u64) -> rusqlite::Result<()> {
    const FIND: &str = "SELECT subject, document, bytes, proof FROM share WHERE subject = ?1 AND document = ?2";
    const PUT: &str = "INSERT OR REPLACE INTO share (subject, document, bytes, proof) VALUES (?1, ?2, ?3, ?4)";
    let found = write.prepare_cached(FIND)?.query_row((subject, document.as_bytes()), share_of).optional()?.flatten();
    let bytes = found.unwrap_or(0).saturating_add(more).cast_signed();
    let proof = proof_of_share(document.as_bytes(), subject, bytes);
    write.prepare_cached(PUT)?.execute((subject, document.as_bytes(), bytes, proof)).map(|_| ())
}

/// The subject whose an actor is. A row that is damaged is none: whoever writes next has the actor.
fn owner(read: &Connection, actor: &Actor) -> rusqlite::Result<Option<Arc<str>>> {
    const SQL: &str = "SELECT actor, subject, proof FROM actor WHERE actor = ?1";
    let found = read.prepare_cached(SQL)?.query_row([actor.as_bytes()], owner_of).optional()?.flatten();
    Ok(found.map(Arc::from))
}

/// All that a subject has, without what is damaged.
fn stored_bytes(read: &Connection, subject: &str) -> rusqlite::Result<u64> {
    let mut statement = read.prepare_cached("SELECT subject, document, bytes, proof FROM share WHERE subject = ?1")?;
    let mut rows = statement.query([subject])?;
    let mut bytes = 0u64;
    while let Some(row) = rows.next()? {
        bytes = bytes.saturating_add(share_of(row)?.unwrap_or(0));
    }
    Ok(bytes)
}

fn owner_of(row: &Row<'_>) -> rusqlite::Result<Option<String>> {
    let columns =
        || Ok::<_, rusqlite::Error>((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?));
    let Ok((actor, subject, proof)) = columns() else { return Ok(None) };
    Ok((proof == proof_of_owner(&actor, &subject)).then_some(subject))
}

fn share_of(row: &Row<'_>) -> rusqlite::Result<Option<u64>> {
    let columns = || {
        Ok::<_, rusqlite::Error>((
            row.get::<_, String>(0)?,
            row.get::<_, Vec<u8>>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, Vec<u8>>(3)?,
        ))
    };
    let Ok((subject, document, bytes, proof)) = columns() else { return Ok(None) };
    Ok((proof == proof_of_share(&document, &subject, bytes)).then_some(bytes.cast_unsigned()))
}

fn proof_of_owner(actor: &[u8], subject: &str) -> [u8; 8] {
    life::proof(&[actor, subject.as_bytes()].concat(), actor.len() as i64)
}

fn proof_of_share(document: &[u8], subject: &str, bytes: i64) -> [u8; 8] {
    life::proof(&[document, &[0], subject.as_bytes()].concat(), bytes)
}

/// Nobody has anything stored in a document any more.
pub(crate) fn forget(write: &Connection, id: &DocumentId) -> rusqlite::Result<GivenBack> {
    const SQL: &str = "DELETE FROM share WHERE document = ?1 RETURNING subject, document, bytes, proof";
    let mut statement = write.prepare_cached(SQL)?;
    let mut rows = statement.query([id.as_bytes()])?;
    let mut given_back = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(bytes) = share_of(row)? {
            given_back.push((row.get(0)?, bytes));
        }
    }
    Ok(given_back)
}

/// How many rows of each table cannot be what was written: of actors, and of documents.
pub(crate) fn damaged(read: &Connection) -> rusqlite::Result<(u64, u64)> {
    let mut statement = read.prepare("SELECT actor, subject, proof FROM actor")?;
    let mut rows = statement.query([])?;
    let (mut owners, mut shares) = (0, 0);
    while let Some(row) = rows.next()? {
        owners += u64::from(owner_of(row)?.is_none());
    }
    let mut statement = read.prepare("SELECT subject, document, bytes, proof FROM share")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        shares += u64::from(share_of(row)?.is_none());
    }
    Ok((owners, shares))
}

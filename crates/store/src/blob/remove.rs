//! The removal of blobs, a little at a time.
//!
//! Owns: the table `blob_gone`, keys, what is given up by itself. Must not: run anywhere but on the writer's thread.
//! Next: `../writer.rs`; docs/blobs.md, "Removed".

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{NUMBER_BITS, STAGED, place};
use crate::life::proof;

/// Pieces that one step removes, so that it takes a millisecond or two.
const SLICE_PIECES: usize = 16;

/// How long a partial blob is kept although nothing comes.
const PARTIAL_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is proved of an entry in the table `blob_gone`.
const GONE: &[u8] = b"blob gone";

/// What one step of cleaning did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cleaned {
    /// Some pieces are gone.
    Pieces,
    /// A partial blob of so many bytes was given up.
    Partial(u64),
    /// There is nothing to do.
    Nothing,
}

/// A key that no blob has, nor one that is being removed.
pub(super) fn next_key(read: &Connection) -> rusqlite::Result<i64> {
    const SQL: &str =
        "SELECT max(coalesce((SELECT max(key) FROM blob), 0), coalesce((SELECT max(key) FROM blob_gone), 0))";
    read.prepare_cached(SQL)?.query_row([], |row| row.get::<_, i64>(0)).map(|highest| highest + 1)
}

/// Takes a blob's row away, and notes that its pieces are to follow.
pub(super) fn begin(write: &Connection, key: i64) -> rusqlite::Result<()> {
    write
        .prepare_cached("INSERT OR REPLACE INTO blob_gone (key, proof) VALUES (?1, ?2)")?
        .execute((key, proof(GONE, key)))?;
    write.prepare_cached("DELETE FROM blob WHERE key = ?1")?.execute([key]).map(|_| ())
}

/// Gives up what an earlier process was writing without knowing its hash.
pub(crate) fn forget_staged(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let mut statement = transaction.prepare("SELECT key FROM blob WHERE state = ?1")?;
    let keys = statement.query_map([STAGED], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    drop(statement);
    keys.into_iter().try_for_each(|key| begin(&transaction, key))?;
    transaction.commit()
}

/// Removes a little of what is to go: the rest of a blob before another is given up.
pub(crate) fn clean_step(connection: &Connection, wall_ms: u64) -> rusqlite::Result<Cleaned> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let step = match going(&transaction)?.0.first() {
        Some(key) => remove_pieces(&transaction, *key).map(|()| Cleaned::Pieces)?,
        None => give_up(&transaction, wall_ms)?,
    };
    transaction.commit()?;
    Ok(step)
}

/// Blobs of which only pieces are left, and whether some entry that says so is damaged: it would have the pieces of another
/// removed.
pub(super) fn going(read: &Connection) -> rusqlite::Result<(Vec<i64>, bool)> {
    let mut statement = read.prepare_cached("SELECT key, proof FROM blob_gone")?;
    let mut rows = statement.query([])?;
    let (mut keys, mut damaged) = (Vec::new(), false);
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        let proved = row.get::<_, Vec<u8>>(1).is_ok_and(|found| found == proof(GONE, key));
        damaged |= !proved;
        keys.extend(proved.then_some(key));
    }
    Ok((keys, damaged))
}

fn remove_pieces(write: &Connection, key: i64) -> rusqlite::Result<()> {
    let sql = format!(
        "DELETE FROM blob_piece WHERE place IN \
         (SELECT place FROM blob_piece WHERE place BETWEEN ?1 AND ?2 LIMIT {SLICE_PIECES})"
    );
    let last = place(key, 0) | ((1 << NUMBER_BITS) - 1);
    if write.prepare_cached(&sql)?.execute((place(key, 0), last))? == 0 {
        write.prepare_cached("DELETE FROM blob_gone WHERE key = ?1")?.execute([key])?;
    }
    Ok(())
}

fn give_up(write: &Connection, wall_ms: u64) -> rusqlite::Result<Cleaned> {
    const SQL: &str = "SELECT key, held FROM blob WHERE state = 0 AND touched_ms < ?1 ORDER BY touched_ms LIMIT 1";
    let before = wall_ms.saturating_sub(PARTIAL_KEEP.as_millis() as u64).cast_signed();
    let mut statement = write.prepare_cached(SQL)?;
    let late = statement.query_row([before], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?))).optional()?;
    let Some((key, held)) = late else { return Ok(Cleaned::Nothing) };
    begin(write, key)?;
    Ok(Cleaned::Partial(held))
}

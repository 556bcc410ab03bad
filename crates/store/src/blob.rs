//! Blobs in the database: rows of pieces, appended, read, proved, removed.
//!
//! Owns: the tables `blob`, `blob_piece` and `blob_gone`, what a change of a blob does to them, digests of pieces.
//! Must not: show what is not whole, or hold more than a piece. Changes run on the writer's thread only.
//! Next: `blob/check.rs`, `writer.rs`; docs/store.md, "Blobs", docs/blobs.md.

pub(crate) mod check;
mod interface;
mod remove;

use rusqlite::{Connection, OptionalExtension, Row};
use sha2::{Digest, Sha256};
use syncline_core::blob::{BLOB_BYTES_MAX, BlobChange, BlobHash, BlobStanding, BlobState, PIECE_BYTES};

use crate::error::StoreError;

pub(crate) use interface::BlobUnit;
pub(crate) use remove::{Cleaned, clean_step, forget_staged};

const PIECE: u64 = PIECE_BYTES as u64;

/// Bits of a place that number the piece within its blob; the bits above are the blob's key.
const NUMBER_BITS: u32 = 24;

/// State of a row whose name is random, because the hash is not known yet. Nobody outside hears of it.
const STAGED: i64 = 3;

/// A blob's row.
#[derive(Debug, Clone, Copy)]
struct BlobRow {
    key: i64,
    hash: BlobHash,
    standing: BlobStanding,
    staged: bool,
}

impl BlobRow {
    const COLUMNS: &str = "key, hash, size, held, state, confirmed";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let state: i64 = row.get(4)?;
        let standing = BlobStanding {
            size: row.get(2)?,
            held: row.get(3)?,
            state: match state {
                1 => BlobState::Whole,
                2 => BlobState::Damaged,
                _ => BlobState::Partial,
            },
            confirmed: row.get(5)?,
        };
        Ok(Self { key: row.get(0)?, hash: BlobHash(row.get(1)?), standing, staged: state == STAGED })
    }

    fn find(connection: &Connection, hash: &BlobHash) -> rusqlite::Result<Option<Self>> {
        let sql = format!("SELECT {} FROM blob WHERE hash = ?1", Self::COLUMNS);
        connection.prepare_cached(&sql)?.query_row([&hash.0[..]], Self::from_row).optional()
    }

    fn place(&self, offset: u64) -> i64 {
        place(self.key, offset)
    }

    fn write(&self, write: &Connection, wall_ms: u64) -> rusqlite::Result<()> {
        const SQL: &str = "INSERT INTO blob (key, hash, size, held, state, confirmed, touched_ms) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
                           ON CONFLICT (key) DO UPDATE SET hash = ?2, size = ?3, held = ?4, state = ?5, confirmed = ?6, \
                           touched_ms = ?7";
        let BlobStanding { size, held, state, confirmed } = self.standing;
        let state = match state {
            BlobState::Partial if self.staged => STAGED,
            BlobState::Partial => 0,
            BlobState::Whole => 1,
            BlobState::Damaged => 2,
        };
        let values = (self.key, &self.hash.0[..], size, held, state, confirmed, wall_ms.cast_signed());
        write.prepare_cached(SQL)?.execute(values).map(|_| ())
    }
}

fn place(key: i64, offset: u64) -> i64 {
    key << NUMBER_BITS | (offset / PIECE) as i64
}

/// What proves a piece: of its number too, so that one that lies in another's place is noticed.
pub(crate) fn piece_digest(offset: u64, data: &[u8]) -> [u8; 16] {
    let digest = Sha256::new().chain_update((offset / PIECE).to_be_bytes()).chain_update(data).finalize();
    std::array::from_fn(|at| digest[at])
}

/// The writer's view while it changes blobs.
pub(crate) struct Blobs<'a> {
    pub write: &'a Connection,
    pub wall_ms: u64,
    /// Bytes of all blobs.
    pub bytes: u64,
    pub bytes_max: Option<u64>,
    /// Something is to be removed.
    pub removed: bool,
}

impl Blobs<'_> {
    /// Does what is asked, and says how the blob stands then.
    pub(crate) fn apply(
        &mut self,
        change: &BlobChange,
        digest: &[u8],
    ) -> rusqlite::Result<Result<BlobStanding, StoreError>> {
        match change {
            BlobChange::Write { hash, size, offset, data } => self.append(hash, *size, *offset, (data, digest)),
            BlobChange::Finish { written_as, hash, size } => self.finish(written_as, hash, *size),
            BlobChange::Confirm { hash } => self.set(hash, |standing| standing.confirmed = true),
            BlobChange::Damage { hash, at } => self.set(hash, |standing| {
                if standing.state != BlobState::Partial {
                    standing.state = BlobState::Damaged;
                    standing.held = standing.held.min(*at);
                }
            }),
            BlobChange::Remove { hash, even_whole } => match BlobRow::find(self.write, hash)? {
                Some(row) if row.standing.is_whole() && !even_whole => Ok(Ok(row.standing)),
                Some(row) => self.remove(&row).map(|()| Ok(nothing(0))),
                None => Ok(Ok(nothing(0))),
            },
        }
    }

    fn append(
        &mut self,
        hash: &BlobHash,
        size: Option<u64>,
        offset: u64,
        (data, digest): (&[u8], &[u8]),
    ) -> rusqlite::Result<Result<BlobStanding, StoreError>> {
        let found = BlobRow::find(self.write, hash)?;
        let anew = |row: &BlobRow| offset == 0 && size.is_some_and(|size| size != row.standing.size);
        let mut row = match found {
            Some(row) if row.standing.is_whole() => return Ok(Ok(row.standing)),
            Some(row) if !anew(&row) => row,
            None if offset > 0 => return Ok(Ok(nothing(size.unwrap_or(0)))),
            other => {
                if let Some(row) = other {
                    self.remove(&row)?;
                }
                let (key, standing) = (remove::next_key(self.write)?, nothing(size.unwrap_or(0)));
                BlobRow { key, hash: *hash, standing, staged: size.is_none() }
            }
        };
        let end = offset + data.len() as u64;
        let continues = row.standing.held == offset && offset.is_multiple_of(PIECE) && data.len() <= PIECE_BYTES;
        if !continues || size.is_some_and(|size| end > size || size != row.standing.size) {
            return Ok(Ok(row.standing));
        }
        if end > BLOB_BYTES_MAX || self.bytes_max.is_some_and(|bytes_max| self.bytes + data.len() as u64 > bytes_max) {
            return Ok(Err(StoreError::BlobsFull));
        }
        if !data.is_empty() {
            const SQL: &str = "INSERT OR REPLACE INTO blob_piece (place, digest, data) VALUES (?1, ?2, ?3)";
            self.write.prepare_cached(SQL)?.execute((row.place(offset), digest, data))?;
        }
        self.bytes += data.len() as u64;
        row.standing.held = end;
        row.standing.size = size.unwrap_or(end);
        row.standing.state = BlobState::Partial;
        row.write(self.write, self.wall_ms)?;
        Ok(Ok(row.standing))
    }

    /// What has its name from chance gets its hash, unless somebody else was faster.
    fn finish(
        &mut self,
        written_as: &BlobHash,
        hash: &BlobHash,
        size: u64,
    ) -> rusqlite::Result<Result<BlobStanding, StoreError>> {
        let Some(mut row) = BlobRow::find(self.write, written_as)? else {
            return Ok(Err(StoreError::NoSuchBlob { hash: *hash }));
        };
        if row.standing.held != size {
            return Ok(Err(StoreError::NoSuchBlob { hash: *hash }));
        }
        if written_as != hash
            && let Some(other) = BlobRow::find(self.write, hash)?
        {
            if other.standing.is_whole() {
                self.remove(&row)?;
                return Ok(Ok(other.standing));
            }
            self.remove(&other)?;
        }
        row.hash = *hash;
        row.staged = false;
        row.standing.size = size;
        row.standing.state = BlobState::Whole;
        row.write(self.write, self.wall_ms)?;
        Ok(Ok(row.standing))
    }

    fn set(
        &mut self,
        hash: &BlobHash,
        change: impl FnOnce(&mut BlobStanding),
    ) -> rusqlite::Result<Result<BlobStanding, StoreError>> {
        let Some(mut row) = BlobRow::find(self.write, hash)? else { return Ok(Ok(nothing(0))) };
        let held = row.standing.held;
        change(&mut row.standing);
        self.bytes = self.bytes.saturating_sub(held - row.standing.held);
        row.write(self.write, self.wall_ms)?;
        Ok(Ok(row.standing))
    }

    fn remove(&mut self, row: &BlobRow) -> rusqlite::Result<()> {
        self.bytes = self.bytes.saturating_sub(row.standing.held);
        self.removed = true;
        remove::begin(self.write, row.key)
    }
}

fn nothing(size: u64) -> BlobStanding {
    BlobStanding { size, held: 0, state: BlobState::Partial, confirmed: false }
}

/// The bytes of all blobs, as far as they count.
pub(crate) fn total(read: &Connection) -> rusqlite::Result<u64> {
    read.query_row("SELECT coalesce(sum(held), 0) FROM blob", [], |row| row.get(0))
}

/// A stored piece, if it has its digest; `None` if it is missing or does not.
fn proved_piece(read: &Connection, row: &BlobRow, offset: u64) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement = read.prepare_cached("SELECT digest, data FROM blob_piece WHERE place = ?1")?;
    let mut rows = statement.query([row.place(offset)])?;
    let Some(found) = rows.next()? else { return Ok(None) };
    let (Ok(digest), Ok(data)) = (found.get::<_, Vec<u8>>(0), found.get::<_, Vec<u8>>(1)) else { return Ok(None) };
    let length = (row.standing.size - offset).min(PIECE) as usize;
    Ok(Some(data).filter(|data| data.len() == length && digest == piece_digest(offset, data)))
}

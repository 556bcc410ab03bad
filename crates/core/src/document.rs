//! A whole document in one chunk: measured before it is built, then taken apart into its changes.
//!
//! Owns: the bounds that stand before automerge builds a document. Must not: keep a document, or send one.
//! Next: `change.rs`, `hub.rs`; docs/architecture.md "What is refused".
//!
//! A document chunk hides its changes: their hashes are known only once every operation has been rebuilt. That costs
//! memory in proportion to counts which a few bytes of run lengths can claim, so the counts are read first. Source: the
//! automerge binary format specification, "Document chunks".

use bytes::Bytes;

use crate::change::{ACTOR_BYTES_MAX, Damage};
use crate::chunk::reader::Reader;
use crate::chunk::runs::{Deltas, count_boolean_rows, count_rows, visit_runs};
use crate::chunk::{Chunk, ChunkError, ChunkKind, inflate};
use crate::limits::Limits;
use crate::loader::{LoadError, Loader};

/// deflate shrinks at most so much, and honest text has a byte for each of its operations.
const DEFLATE_RATIO_MAX: u64 = 1_032;

/// Actors without a change, which early versions of automerge saved along.
const IDLE_ACTORS_MAX: u64 = 1_024;

const COLUMNS_MAX: u64 = 64;

/// Changes of one document of which the times are read, and bytes of these.
const TIMES_MAX: u64 = 1 << 28;
const INFLATED_TIMES_MAX: usize = 1 << 30;
const HASH_BYTES: usize = 32;

/// In a column specification: the column is deflated.
const DEFLATED: u64 = 0b1000;

/// How large a document is, read from its columns' run lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DocumentTotals {
    /// Number of changes.
    pub changes: u64,
    /// Rows of operations, and entries of their successor lists: a bound on the number of operations, since deletions
    /// stand only in the lists.
    pub operations: u64,
    /// Bytes of all columns, inflated.
    pub inflated_bytes: usize,
}

/// Reads a document chunk's columns within bounds and counts their rows. Builds no operation.
///
/// # Errors
/// [`DocumentError`] when the chunk is damaged or beyond a limit.
pub fn measure(chunk: &Chunk, limits: &Limits) -> Result<DocumentTotals, DocumentError> {
    if chunk.kind != ChunkKind::Document {
        return Err(DocumentError::WrongKind { kind: chunk.kind });
    }
    if chunk.hash().0[..4] != chunk.checksum {
        return Err(DocumentError::BadChecksum);
    }
    let size_max =
        limits.change_operations_max.saturating_add(DEFLATE_RATIO_MAX.saturating_mul(chunk.body.len() as u64));
    let mut reader = Reader::new(&chunk.body);
    let actors = read_actors(&mut reader)?;
    skip_heads(&mut reader)?;

    let mut meter = Meter {
        actors,
        rows_max: limits.document_operations_max.min(size_max),
        inflate_bytes_max: limits.inflate_bytes_max,
        totals: DocumentTotals::default(),
    };
    let change_columns = read_columns(&mut reader)?;
    let operation_columns = read_columns(&mut reader)?;
    for (columns, meaning) in [(change_columns, change_column as Meaning), (operation_columns, operation_column)] {
        for (spec, length) in columns {
            let data = reader.take(length).map_err(damaged("columns"))?;
            meter.column(data, spec & DEFLATED != 0, meaning(spec & !DEFLATED))?;
        }
    }
    if actors > meter.totals.changes.saturating_add(IDLE_ACTORS_MAX) {
        return Err(DocumentError::TooManyActors { actors });
    }
    Ok(meter.totals)
}

/// Takes a document apart: the raw, uncompressed chunks of all its changes, dependencies first.
///
/// The loader builds the whole document in memory for a moment, so callers run this in a bounded pool.
///
/// # Errors
/// [`DocumentError`] when the document is beyond a limit, or cannot be loaded.
pub fn expand(chunk: &Chunk, limits: &Limits, loader: &dyn Loader) -> Result<Vec<Bytes>, DocumentError> {
    let totals = measure(chunk, limits)?;
    if totals.changes == 0 {
        return if totals.operations == 0 { Ok(Vec::new()) } else { Err(DocumentError::OrphanOperations) };
    }
    Ok(loader.changes(&chunk.bytes, &[])?)
}

/// The times of a document's changes, from a chunk that this replica has stored.
pub(crate) fn times(chunk: &Chunk) -> Result<Vec<i64>, DocumentError> {
    const TIME: u64 = 35;
    let mut reader = Reader::new(&chunk.body);
    read_actors(&mut reader)?;
    skip_heads(&mut reader)?;
    let change_columns = read_columns(&mut reader)?;
    read_columns(&mut reader)?;
    for (spec, length) in change_columns {
        let data = reader.take(length).map_err(damaged("columns"))?;
        if spec & !DEFLATED != TIME {
            continue;
        }
        let inflated = if spec & DEFLATED == 0 { None } else { Some(inflate(data, INFLATED_TIMES_MAX)?) };
        let data = inflated.as_deref().unwrap_or(data);
        let rows = count_rows::<i64>(data).map_err(damaged("times"))?;
        let mut cells = Deltas::new(data);
        return (0..rows.min(TIMES_MAX))
            .map(|_| Ok(cells.row().map_err(damaged("times"))?.unwrap_or_default()))
            .collect();
    }
    Ok(Vec::new())
}

type Meaning = fn(u64) -> Column;

/// What a column's rows are, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// Actor indices; there are as many rows as changes.
    ChangeActor,
    /// Actor indices; there are as many rows as operations.
    OperationActor,
    /// Actor indices, one for each successor.
    SuccessorActor,
    /// Other actor indices.
    Actor,
    Unsigned,
    Delta,
    Boolean,
    Text,
    /// Raw bytes, or a column of a later format, which automerge skips.
    Bytes,
}

/// The column numbers of changes; a specification is the number times 16, plus the type.
fn change_column(spec: u64) -> Column {
    match spec {
        1 => Column::ChangeActor,
        3 | 19 | 35 | 67 => Column::Delta,
        53 => Column::Text,
        64 | 86 => Column::Unsigned,
        _ => Column::Bytes,
    }
}

fn operation_column(spec: u64) -> Column {
    match spec {
        33 => Column::OperationActor,
        129 => Column::SuccessorActor,
        1 | 17 => Column::Actor,
        2 | 66 | 86 | 128 => Column::Unsigned,
        19 | 35 | 131 => Column::Delta,
        21 | 165 => Column::Text,
        52 | 148 => Column::Boolean,
        _ => Column::Bytes,
    }
}

struct Meter {
    actors: u64,
    rows_max: u64,
    inflate_bytes_max: usize,
    totals: DocumentTotals,
}

impl Meter {
    fn column(&mut self, data: &[u8], deflated: bool, column: Column) -> Result<(), DocumentError> {
        if !deflated {
            self.inflated(data.len())?;
            return self.rows(data, column);
        }
        let data = inflate(data, self.inflate_bytes_max - self.totals.inflated_bytes)?;
        self.inflated(data.len())?;
        self.rows(&data, column)
    }

    fn inflated(&mut self, bytes: usize) -> Result<(), DocumentError> {
        let total = self.totals.inflated_bytes.saturating_add(bytes);
        if total > self.inflate_bytes_max {
            return Err(ChunkError::TooLarge { bytes_max: self.inflate_bytes_max }.into());
        }
        self.totals.inflated_bytes = total;
        Ok(())
    }

    fn rows(&mut self, data: &[u8], column: Column) -> Result<(), DocumentError> {
        let rows = match column {
            Column::ChangeActor | Column::OperationActor | Column::SuccessorActor | Column::Actor => {
                visit_runs::<u64>(data, |actor, _| match actor {
                    Some(actor) if actor >= self.actors => Err(Damage::OutOfRange),
                    _ => Ok(()),
                })
            }
            Column::Unsigned => count_rows::<u64>(data),
            Column::Delta => count_rows::<i64>(data),
            Column::Text => count_rows::<&str>(data),
            Column::Boolean => count_boolean_rows(data),
            Column::Bytes => return Ok(()),
        };
        let rows = rows.map_err(damaged("columns"))?;
        match column {
            Column::ChangeActor => self.totals.changes = rows,
            Column::OperationActor | Column::SuccessorActor => {
                self.totals.operations = self.totals.operations.saturating_add(rows);
            }
            Column::Actor | Column::Unsigned | Column::Delta | Column::Boolean | Column::Text | Column::Bytes => {}
        }
        if rows.max(self.totals.operations) > self.rows_max {
            return Err(DocumentError::TooManyRows { rows, rows_max: self.rows_max });
        }
        Ok(())
    }
}

fn read_actors(reader: &mut Reader<'_>) -> Result<u64, DocumentError> {
    let count = reader.unsigned().map_err(damaged("actors"))?;
    let mut last: Option<&[u8]> = None;
    for _ in 0..count {
        let actor = reader.prefixed().map_err(damaged("actors"))?;
        if actor.len() > ACTOR_BYTES_MAX {
            return Err(DocumentError::ActorTooLong { bytes: actor.len() });
        }
        if last >= Some(actor) {
            return Err(DocumentError::ActorsUnsorted);
        }
        last = Some(actor);
    }
    Ok(count)
}

fn skip_heads(reader: &mut Reader<'_>) -> Result<(), DocumentError> {
    let heads = reader.unsigned().map_err(damaged("heads"))?;
    let heads_bytes = usize::try_from(heads).ok().and_then(|heads| heads.checked_mul(HASH_BYTES));
    heads_bytes.ok_or(Damage::Truncated).and_then(|length| reader.take(length)).map_err(damaged("heads"))?;
    Ok(())
}

/// Specifications and lengths of the columns.
fn read_columns(reader: &mut Reader<'_>) -> Result<Vec<(u64, usize)>, DocumentError> {
    let count = reader.unsigned().map_err(damaged("table of columns"))?;
    if count > COLUMNS_MAX {
        return Err(DocumentError::TooManyColumns { columns: count });
    }
    let mut columns: Vec<(u64, usize)> = Vec::new();
    for _ in 0..count {
        let spec = reader.unsigned().map_err(damaged("table of columns"))?;
        let length = reader.unsigned().map_err(damaged("table of columns"))?;
        let length = usize::try_from(length).map_err(|_| damaged("columns")(Damage::Truncated))?;
        if columns.last().is_some_and(|(last, _)| last & !DEFLATED >= spec & !DEFLATED) {
            return Err(DocumentError::ColumnsUnsorted);
        }
        columns.push((spec, length));
    }
    Ok(columns)
}

fn damaged(part: &'static str) -> impl Fn(Damage) -> DocumentError {
    move |damage| DocumentError::Damaged { part, damage }
}

/// Why a document chunk is refused.
///
/// **State**, for all: nothing of the document was kept or passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The chunk is no document. **State:** not kept. **Do:** decode changes one by one; unpack bundles before sending.
    #[error("a {} stands where a document was expected", .kind.name())]
    WrongKind {
        /// The kind found.
        kind: ChunkKind,
    },
    /// The checksum does not fit the content. **State:** not kept. **Do:** send the document again; the copy is damaged.
    #[error("the document's checksum is wrong: it was damaged on its way or on disk")]
    BadChecksum,
    /// A column does not inflate, or inflates beyond the limit. **State:** not kept. **Do:** see [`ChunkError`].
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A field or column cannot be read. **State:** not kept. **Do:** repair or update the author's program.
    #[error("one of the document's {part} {damage}")]
    Damaged {
        /// The field or columns.
        part: &'static str,
        /// What is wrong with it.
        damage: Damage,
    },
    /// More columns than any version has. **State:** not kept. **Do:** repair the author's program.
    #[error("the document has {columns} columns")]
    TooManyColumns {
        /// Number found.
        columns: u64,
    },
    /// Columns out of order or repeated. **State:** not kept. **Do:** repair the author's program.
    #[error("the document's columns are out of order or repeated")]
    ColumnsUnsorted,
    /// An actor id above the limit. **State:** not kept. **Do:** use a shorter actor id.
    #[error("an actor id of the document is {bytes} bytes long; at most {ACTOR_BYTES_MAX} are accepted")]
    ActorTooLong {
        /// Length found.
        bytes: usize,
    },
    /// Actors out of order or repeated. **State:** not kept. **Do:** repair the author's program.
    #[error("the document's actors are not sorted or not unique")]
    ActorsUnsorted,
    /// Many more actors than changes. **State:** not kept. **Do:** repair the author's program.
    #[error("the document names {actors} actors, many more than it has changes")]
    TooManyActors {
        /// Number found.
        actors: u64,
    },
    /// More operations, changes or dependencies than accepted for a document of this size, counted before they are
    /// expanded. **State:** not kept. **Do:** raise the limit if the document is honest.
    #[error("a column of the document has {rows} rows; at most {rows_max} are accepted")]
    TooManyRows {
        /// Number found.
        rows: u64,
        /// Number accepted.
        rows_max: u64,
    },
    /// Operations, but no change that made them. **State:** not kept. **Do:** repair the author's program.
    #[error("the document has operations but no changes")]
    OrphanOperations,
    /// It could not be loaded. **State:** not kept. **Do:** see [`LoadError`].
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl DocumentError {
    /// A short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WrongKind { kind: ChunkKind::Bundle } => "document_is_a_bundle",
            Self::WrongKind { .. } => "document_wrong_kind",
            Self::BadChecksum => "document_bad_checksum",
            Self::Chunk(error) => error.kind(),
            Self::Damaged { .. } => "document_damaged",
            Self::TooManyColumns { .. } => "document_too_many_columns",
            Self::ColumnsUnsorted => "document_columns_unsorted",
            Self::ActorTooLong { .. } => "document_actor_too_long",
            Self::ActorsUnsorted => "document_actors_unsorted",
            Self::TooManyActors { .. } => "document_too_many_actors",
            Self::TooManyRows { .. } => "document_too_many_rows",
            Self::OrphanOperations => "document_orphan_operations",
            Self::Load(LoadError::Refused { .. }) => "document_library_refused",
            Self::Load(LoadError::Panicked) => "document_library_panicked",
            Self::Load(LoadError::Died { .. }) => "document_loader_died",
            Self::Load(LoadError::Unavailable { .. }) => "document_loader_unavailable",
        }
    }
}

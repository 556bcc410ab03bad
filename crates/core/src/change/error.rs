//! Why a change is refused.
//!
//! Owns: one variant for each check, in words for users and in short names for counters.
//! Must not: hold bytes that a peer chose beyond a hash or a number.
//! Next: `change.rs`.

use automerge::ChangeHash;

use crate::chunk::reader::Damage;
use crate::chunk::{ChunkError, ChunkKind};

/// Why bytes are no change that may be stored or passed on.
///
/// **State**, for all: nothing of the change was kept or passed on; other changes of the same message are not touched.
/// In a store's own bytes it means damage on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The bytes are no chunk, or do not inflate. **State:** not kept. **Do:** see [`ChunkError`].
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The chunk is a document or a bundle. **State:** not kept. **Do:** expand documents; send changes instead of
    /// bundles.
    #[error("a {} stands where a single change was expected", .kind.name())]
    WrongKind {
        /// The kind found.
        kind: ChunkKind,
    },
    /// More bytes follow the change. **State:** not kept. **Do:** split the chunks before decoding.
    #[error("{bytes} bytes follow the change")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// The checksum does not fit the content. **State:** not kept. **Do:** send the change again; the copy is damaged.
    #[error("the checksum of change {hash} is wrong: it was damaged on its way or on disk")]
    BadChecksum {
        /// The hash of the content as it stands.
        hash: ChangeHash,
    },
    /// A field or column cannot be read. **State:** not kept. **Do:** repair or update the author's program.
    #[error("the change's {part} {damage}")]
    Damaged {
        /// The field or column.
        part: &'static str,
        /// What is wrong with it.
        damage: Damage,
    },
    /// More dependencies than accepted. **State:** not kept. **Do:** raise the limit if the change is honest.
    #[error("the change has {dependencies} dependencies; at most {dependencies_max} are accepted")]
    TooManyDependencies {
        /// Number found.
        dependencies: u64,
        /// Number accepted.
        dependencies_max: u64,
    },
    /// Dependencies out of order or repeated. **State:** not kept. **Do:** repair the author's program.
    #[error("the change's dependencies are not sorted or not unique")]
    DependenciesUnsorted,
    /// An actor id above the limit. **State:** not kept. **Do:** use a shorter actor id.
    #[error("an actor id of the change is {bytes} bytes long; at most {} are accepted", super::ACTOR_BYTES_MAX)]
    ActorTooLong {
        /// Length found.
        bytes: usize,
    },
    /// More actors than accepted. **State:** not kept. **Do:** make the edit in smaller steps.
    #[error("the change names {actors} other actors; at most {actors_max} are accepted")]
    TooManyActors {
        /// Number found.
        actors: u64,
        /// Number accepted.
        actors_max: u64,
    },
    /// Other actors out of order, repeated, or equal to the author. **State:** not kept. **Do:** repair the author's
    /// program.
    #[error("the change's table of actors is not sorted or not unique")]
    ActorsUnsorted,
    /// An actor that no operation names. **State:** not kept. **Do:** repair the author's program.
    #[error("the change's table of actors has entries that no operation names")]
    ActorUnused,
    /// Zero, or more than 32 bits. **State:** not kept. **Do:** repair the author's program.
    #[error("sequence number {seq} is impossible")]
    SequenceOutOfRange {
        /// The number.
        seq: u64,
    },
    /// The operation counters start at zero or end beyond the limit. **State:** not kept. **Do:** start a fresh
    /// document; raise the limit if the change is honest.
    #[error("{operations} operations from counter {start_op} are out of range; counters end below {end_max}")]
    StartOutOfRange {
        /// The first counter.
        start_op: u64,
        /// Number of operations.
        operations: u64,
        /// The bound.
        end_max: u64,
    },
    /// A time that JavaScript cannot hold. **State:** not kept. **Do:** set the author's clock.
    #[error("the change's time, {time} s, is impossible")]
    TimeOutOfRange {
        /// The time, seconds.
        time: i64,
    },
    /// A column of a later format. **State:** not kept. **Do:** update this program.
    #[error("the change has a column of kind {spec}, which is not known here")]
    UnknownColumn {
        /// The column specification.
        spec: u64,
    },
    /// Columns out of order, repeated or empty. **State:** not kept. **Do:** repair the author's program.
    #[error("the change's columns are out of order, repeated or empty")]
    ColumnsUnsorted,
    /// A deflated column, which only documents may have. **State:** not kept. **Do:** repair the author's program.
    #[error("a column of the change is compressed")]
    CompressedColumn,
    /// More operations than accepted, counted before they are expanded. **State:** not kept. **Do:** make the edit in
    /// smaller steps; raise the limit if the change is honest.
    #[error("the change has {operations} operations; at most {operations_max} are accepted")]
    TooManyOperations {
        /// Number found.
        operations: u64,
        /// Number accepted.
        operations_max: u64,
    },
    /// More predecessors than operations allow for. **State:** not kept. **Do:** make the edit in smaller steps.
    #[error("the change names more than {predecessors_max} predecessors")]
    TooManyPredecessors {
        /// Number accepted.
        predecessors_max: u64,
    },
    /// An actor index beyond the table. **State:** not kept. **Do:** repair the author's program.
    #[error("operation {counter} of the change names actor {index}, but the table ends before it")]
    UnknownActor {
        /// The operation's counter.
        counter: u64,
        /// The index.
        index: u64,
    },
    /// A named operation that cannot have existed, or cannot stand there. **State:** not kept. **Do:** repair the
    /// author's program.
    #[error("operation {counter} of the change cannot have operation {reference} as its {role}")]
    ImpossibleReference {
        /// The operation's counter.
        counter: u64,
        /// The counter of the named operation.
        reference: u64,
        /// Object, element or predecessor.
        role: &'static str,
    },
    /// An operation that automerge does not make. **State:** not kept. **Do:** repair the author's program.
    #[error("operation {counter} of the change is malformed: {rule}")]
    ImpossibleOperation {
        /// The operation's counter.
        counter: u64,
        /// What it breaks.
        rule: &'static str,
    },
    /// An author's name in a change that is not the actor's first. **State:** not kept. **Do:** repair the author's
    /// program.
    #[error("the change names an author but is the actor's number {seq}, not its first")]
    AuthorNotFirst {
        /// The sequence number.
        seq: u64,
    },
    /// automerge refuses what passed all checks here. **State:** not kept. **Do:** report the change as a bug.
    #[error("automerge refuses the change: {reason}")]
    LibraryRefused {
        /// Its words.
        reason: String,
    },
    /// automerge panicked on what passed all checks here. **State:** not kept. **Do:** report the change as a bug.
    #[error("automerge cannot read the change")]
    LibraryPanicked,
    /// automerge reads another change from the same bytes. **State:** not kept. **Do:** report the change as a bug.
    #[error("automerge reads another {field} from the change")]
    LibraryDisagrees {
        /// The first difference.
        field: &'static str,
    },
}

impl ChangeError {
    /// A short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Chunk(error) => error.kind(),
            Self::WrongKind { kind: ChunkKind::Bundle } => "change_is_a_bundle",
            Self::WrongKind { .. } => "change_wrong_kind",
            Self::TrailingBytes { .. } => "change_trailing_bytes",
            Self::BadChecksum { .. } => "change_bad_checksum",
            Self::Damaged { damage, .. } => damage_kind(*damage),
            Self::TooManyDependencies { .. } => "change_too_many_dependencies",
            Self::DependenciesUnsorted => "change_dependencies_unsorted",
            Self::ActorTooLong { .. } => "change_actor_too_long",
            Self::TooManyActors { .. } => "change_too_many_actors",
            Self::ActorsUnsorted => "change_actors_unsorted",
            Self::ActorUnused => "change_actor_unused",
            Self::SequenceOutOfRange { .. } => "change_sequence_out_of_range",
            Self::StartOutOfRange { .. } => "change_start_out_of_range",
            Self::TimeOutOfRange { .. } => "change_time_out_of_range",
            Self::UnknownColumn { .. } => "change_unknown_column",
            Self::ColumnsUnsorted => "change_columns_unsorted",
            Self::CompressedColumn => "change_compressed_column",
            Self::TooManyOperations { .. } => "change_too_many_operations",
            Self::TooManyPredecessors { .. } => "change_too_many_predecessors",
            Self::UnknownActor { .. } => "change_unknown_actor",
            Self::ImpossibleReference { .. } => "change_impossible_reference",
            Self::ImpossibleOperation { .. } => "change_impossible_operation",
            Self::AuthorNotFirst { .. } => "change_author_not_first",
            Self::LibraryRefused { .. } => "change_library_refused",
            Self::LibraryPanicked => "change_library_panicked",
            Self::LibraryDisagrees { .. } => "change_library_disagrees",
        }
    }
}

fn damage_kind(damage: Damage) -> &'static str {
    match damage {
        Damage::Truncated => "change_truncated",
        Damage::BadNumber => "change_bad_number",
        Damage::OutOfRange => "change_number_out_of_range",
        Damage::NotUtf8 => "change_not_utf8",
        Damage::RowCount => "change_row_count",
        Damage::NotCanonical => "change_not_canonical",
    }
}

//! What was not taken, and why: for counters, for the peer concerned, for a change's author.
//!
//! Owns: the names and words of refusals. Must not: decide what is refused.
//! Next: `input.rs`, `ingest.rs`; docs/architecture.md "What is refused".

use super::StoreFailure;
use crate::ChangeHash;
use crate::access::Permissions;
use crate::change::Actor;
use crate::graph::{OrphanError, Refusal};
use crate::id::DocumentId;
use crate::native::RefusalReason;

/// Something that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// A change contradicts its ancestors.
    Change(Refusal),
    /// Too many changes wait for dependencies.
    Orphan(OrphanError),
    /// A local change builds on one that is not stored: it is not kept for later, so that its author is not told that
    /// it is saved.
    LocalOrphan {
        /// The change.
        hash: ChangeHash,
    },
    /// The connection has as many documents open as it may.
    TooManyDocuments {
        /// The limit.
        documents_max: usize,
    },
    /// The peer may not do that. What was to be done names the permission.
    NotPermitted(Permissions),
    /// There is no room for what peers bring, for the time being.
    NoRoom,
    /// The document is as large as it may become.
    DocumentFull {
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        max: u64,
    },
    /// The author has as much stored as it may.
    SubjectFull {
        /// The limit, bytes.
        max: u64,
    },
    /// The change is written in the name of an actor that belongs to somebody else.
    ForeignActor {
        /// The change.
        hash: ChangeHash,
        /// The actor.
        actor: Actor,
    },
    /// The document is deleted.
    Deleted,
    /// The store could not commit or read.
    Store(StoreFailure),
    /// The document is larger than a message may be.
    TooLargeToSend {
        /// Size, bytes.
        bytes: usize,
        /// The limit, bytes.
        bytes_max: usize,
    },
}

impl Remark {
    /// A short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Change(refusal) => refusal.kind(),
            Self::Orphan(_) => "change_orphans_full",
            Self::LocalOrphan { .. } => "local_orphan",
            Self::TooManyDocuments { .. } => "session_documents",
            Self::NotPermitted(Permissions::READ) => "read_not_permitted",
            Self::NotPermitted(Permissions::DELETE) => "delete_not_permitted",
            Self::NotPermitted(Permissions::CREATE) => "create_not_permitted",
            Self::NotPermitted(_) => "write_not_permitted",
            Self::NoRoom => "no_room",
            Self::DocumentFull { limit, .. } => limit,
            Self::SubjectFull { .. } => "subject_bytes_max",
            Self::ForeignActor { .. } => "actor_of_another_subject",
            Self::Deleted => "document_deleted",
            Self::Store(_) => "store",
            Self::TooLargeToSend { .. } => "document_too_large",
        }
    }

    /// The same for the change's author, as far as it can do something about it.
    pub(super) fn reason(&self) -> RefusalReason {
        match self {
            Self::Change(Refusal::DuplicateSequence { .. } | Refusal::PreviousNotAncestor { .. }) => {
                RefusalReason::ActorInUse
            }
            Self::Change(Refusal::ImplausibleStart { .. }) => RefusalReason::Limit,
            Self::Orphan(_) => RefusalReason::NoRoomToWait,
            Self::NotPermitted(_) => RefusalReason::NotPermitted,
            // Its author can write it anew as another actor.
            Self::ForeignActor { .. } => RefusalReason::ActorInUse,
            Self::NoRoom | Self::DocumentFull { .. } | Self::SubjectFull { .. } => RefusalReason::Limit,
            Self::Change(_)
            | Self::LocalOrphan { .. }
            | Self::TooManyDocuments { .. }
            | Self::Deleted
            | Self::Store(_)
            | Self::TooLargeToSend { .. } => RefusalReason::Other,
        }
    }

    /// Whether it may be taken once a limit is another, or something was removed.
    pub(super) fn is_for_want_of_space(&self) -> bool {
        matches!(self, Self::DocumentFull { .. } | Self::SubjectFull { .. })
    }

    /// The words for the peer concerned.
    #[must_use]
    pub fn for_peer(&self, document: Option<&DocumentId>) -> String {
        match document {
            Some(document) => format!("document {document}: {self}"),
            None => self.to_string(),
        }
    }
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Change(refusal) => refusal.fmt(f),
            Self::Orphan(error) => error.fmt(f),
            Self::LocalOrphan { hash } => write!(f, "change {hash} builds on a change that is not stored"),
            Self::TooManyDocuments { documents_max } => {
                write!(f, "this connection already has {documents_max} documents open, the most allowed")
            }
            Self::NotPermitted(Permissions::READ) => f.write_str("there is no such document, or it may not be read"),
            Self::NotPermitted(Permissions::DELETE) => f.write_str("it may not be deleted or restored by this peer"),
            Self::NotPermitted(Permissions::CREATE) => {
                f.write_str("there is no such document, and this peer may not create it")
            }
            Self::NotPermitted(_) => f.write_str("it may not be changed by this peer: nothing of this is kept"),
            Self::NoRoom => {
                f.write_str("there is no room on the server: nothing is taken until there is, everything can be read")
            }
            Self::DocumentFull { limit, max } => {
                write!(f, "the document has as much in it as it may ({limit}: {max}): nothing is added to it")
            }
            Self::SubjectFull { max } => {
                write!(
                    f,
                    "this subject has as much stored as it may (subject_bytes_max: {max}): nothing is added to it"
                )
            }
            Self::ForeignActor { hash, actor } => {
                write!(f, "change {hash} is written as actor {actor}, which belongs to another subject")
            }
            Self::Deleted => f.write_str("the document is deleted"),
            Self::Store(failure) => f.write_str(&failure.message),
            Self::TooLargeToSend { bytes, bytes_max } => {
                write!(f, "the document takes {bytes} bytes; a message may have {bytes_max}")
            }
        }
    }
}

//! Everything that can go wrong for an application.
//!
//! Owns: the error type. Must not: hide which document or server it is about.
//! Next: `repo.rs`, `document.rs`.

use std::time::Duration;

use automerge::ChangeHash;
use syncline_core::blob::{BlobHash, BlobRefusal};
use syncline_core::change::ChangeError;
use syncline_core::id::DocumentId;
use syncline_replica::{DialError, MeshError, NoCertificate};
use syncline_store::StoreError;

use crate::receipt::Receipt;

/// Why a call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store in the directory cannot be opened or read: another process has it open, the disk is full or damaged.
    /// **State:** as the message says; nothing acknowledged is lost. **Do:** as the message says.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The threads behind the repo could not be started. **State:** nothing was opened. **Do:** free memory or threads.
    #[error("cannot start the threads of the repo: {0}")]
    Threads(std::io::Error),
    /// The text is not the URL of a document. **State:** nothing was looked for. **Do:** copy the URL again.
    #[error("{text:?} is not the URL of a document: {reason}")]
    Url {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text is not the address of a server. **State:** nothing was dialled. **Do:** write `ws://host:port` or `wss://host`.
    #[error(transparent)]
    Address(#[from] DialError),
    /// The text has no certificate that could be trusted. **State:** nobody is trusted who was not before. **Do:** give the
    /// authority's certificate as PEM.
    #[error(transparent)]
    Certificate(#[from] NoCertificate),
    /// The repo cannot take part in a mesh. **State:** it takes no part. **Do:** as the message says.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The closure that was to change or make a document returned an error. **State:** the document is as it was.
    /// **Do:** mend the closure; the error is automerge's.
    #[error("the document was not changed: {0}")]
    Edit(#[from] automerge::AutomergeError),
    /// A field of the document is missing or of another type than the struct's. **State:** nothing was changed.
    /// **Do:** give the field the type that the message names.
    #[error("document {document} does not fit: {path}: {reason}")]
    Shape {
        /// The document.
        document: DocumentId,
        /// The field, as `items[2].title`.
        path: String,
        /// What was found, and what reads it.
        reason: String,
    },
    /// A document is a map, and the type to be written is not. **State:** the document is as it was.
    /// **Do:** wrap it in a struct.
    #[error("document {document} can only hold a struct or a map")]
    NotAMap {
        /// The document.
        document: DocumentId,
    },
    /// A struct that holds edits was read before the document changed. **State:** the document is as it was.
    /// **Do:** use `update`, which reads and writes in one step.
    #[error("document {document} has changed since the struct was read")]
    Stale {
        /// The document.
        document: DocumentId,
    },
    /// There is no text at the path: nothing, another type, or a plain string. **State:** nothing was changed.
    /// **Do:** make a text there (`ObjType::Text`, or a field of type `value::Text`).
    #[error("document {document} has no text at {path}")]
    NoText {
        /// The document.
        document: DocumentId,
        /// The path.
        path: String,
    },
    /// The document has no change with this hash: the heads are another document's, or lie ahead of what has come here.
    /// **State:** nothing was changed. **Do:** wait until the document has come that far.
    #[error("document {document} has no change {unknown}")]
    UnknownHeads {
        /// The document.
        document: DocumentId,
        /// The hash.
        unknown: ChangeHash,
    },
    /// The bytes are not an automerge document. **State:** nothing was made. **Do:** choose another file.
    #[error("this is not an automerge document: {reason}")]
    Import {
        /// What automerge said.
        reason: String,
    },
    /// The documents share no change, so that one would only be mixed into the other. **State:** nothing was changed.
    /// **Do:** merge branches of one document; copy values between others.
    #[error("document {document} shares no history with the other")]
    Unrelated {
        /// The document that was to take the other in.
        document: DocumentId,
    },
    /// One call of `change` made more operations than a change may have. **State:** the document is as it was.
    /// **Do:** spread the work over several changes.
    #[error("a change of {operations} operations is too large; at most {operations_max} are accepted")]
    TooManyOperations {
        /// Operations made.
        operations: u64,
        /// Operations accepted in one change.
        operations_max: u64,
    },
    /// The change is one that no replica would take: a value that is too long, mostly. **State:** the document is as it
    /// was. **Do:** make a smaller change.
    #[error("the change cannot be stored: {0}")]
    Refused(#[from] ChangeError),
    /// automerge could not load the document or apply a change of another replica to it. **State:** what was saved is
    /// kept and synced; this process cannot show it. **Do:** report it with the URL; other documents work.
    #[error("document {document} cannot be shown: {reason}")]
    Broken {
        /// The document.
        document: DocumentId,
        /// What automerge said.
        reason: String,
    },
    /// Changes are not on this disk. **State:** they are in memory, in sight of this process only, and are tried again
    /// until they are saved. **Do:** free space or mend the disk; do not end the process before `saved` says so.
    #[error("changes of document {document} are not saved: {reason}")]
    NotSaved {
        /// The document.
        document: DocumentId,
        /// What the store said.
        reason: String,
    },
    /// Changes are not where they were to be when the time was up. **State:** they are in the document, and on their way.
    /// **Do:** go on; `status` says what they wait for.
    #[error("document {document} has no receipt within {waited:?}: {receipt:?}")]
    NoReceipt {
        /// The document.
        document: DocumentId,
        /// What was waited for.
        receipt: Receipt,
        /// How long.
        waited: Duration,
    },
    /// The document stays on this machine, and was to be on another or to go into a document that does not stay here.
    /// **State:** nothing was changed or sent. **Do:** let it go with [`Document::set_local_only`](crate::Document::set_local_only).
    #[error("document {document} stays on this machine")]
    LocalOnly {
        /// The document.
        document: DocumentId,
    },
    /// That a document is pinned, or stays on this machine, could not be written. **State:** it is as it was. **Do:** free
    /// space or mend the disk, and call again.
    #[error("what was chosen for document {document} is not saved: {reason}")]
    NotChosen {
        /// The document.
        document: DocumentId,
        /// What the store said.
        reason: String,
    },
    /// A presence's state is larger than a message may be. **State:** it is as it was. **Do:** say less.
    #[error("a presence of {bytes} bytes is too large; at most {bytes_max} are sent")]
    PresenceTooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that is sent.
        bytes_max: usize,
    },
    /// The document is not stored here, and the repo connects to no server. **State:** nothing was changed.
    /// **Do:** connect to a server that has it.
    #[error("document {document} is not stored here, and no server is connected to")]
    NoServer {
        /// The document.
        document: DocumentId,
    },
    /// The document is not stored here, and every connected server says that it has not got it either.
    /// **State:** nothing was changed. **Do:** check the URL, or try again once its author has been online.
    #[error("document {document} is neither stored here nor on a connected server")]
    Unavailable {
        /// The document.
        document: DocumentId,
    },
    /// The document is not stored here and no server answered in time. **State:** nothing was changed.
    /// **Do:** try again when a server can be reached.
    #[error("document {document} is not stored here, and no server has sent it within {waited:?}")]
    FindTimeout {
        /// The document.
        document: DocumentId,
        /// How long was waited.
        waited: Duration,
    },
    /// The document is not stored here. **State:** nothing was changed. **Do:** use `find`, which asks servers.
    #[error("document {document} is not stored here")]
    NotHere {
        /// The document.
        document: DocumentId,
    },
    /// The document is deleted. **State:** nothing was changed. **Do:** [`Repo::restore`](crate::Repo::restore) it, while
    /// that can be done.
    #[error("document {document} is deleted")]
    Deleted {
        /// The document.
        document: DocumentId,
    },
    /// The grace period of a deleted document is over. **State:** its content is not on this disk any more.
    /// **Do:** restore it on a replica that still has it.
    #[error("document {document} was deleted too long ago: its content is gone from this disk")]
    Purged {
        /// The document.
        document: DocumentId,
    },
    /// A deletion or restoration could not be written. **State:** the document is as it was. **Do:** free space or mend the
    /// disk, and call again.
    #[error("document {document} was neither deleted nor restored: {reason}")]
    NotDeleted {
        /// The document.
        document: DocumentId,
        /// What the store said.
        reason: String,
    },
    /// A blob is larger than blobs may be. **State:** nothing of it is kept. **Do:** split it, or raise
    /// `Limits::blob_bytes_max`.
    #[error("the blob has more than {bytes_max} bytes, which is the most that is kept")]
    BlobTooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// What was to become a blob could not be read. **State:** nothing of it is kept. **Do:** as the message says.
    #[error("the content cannot be read: {0}")]
    BlobRead(std::io::Error),
    /// The blob, or a part of it, is not on this disk. **State:** nothing was changed. **Do:** fetch it.
    #[error("blob {blob} is not stored here")]
    BlobNotHere {
        /// The blob.
        blob: BlobHash,
    },
    /// No connected server has said that it has the blob. **State:** this device's copy stays. **Do:** try again when a server
    /// is connected and has it.
    #[error("blob {blob} may be on no other disk than this one")]
    BlobOnlyHere {
        /// The blob.
        blob: BlobHash,
    },
    /// The blob is not stored here, and the repo connects to no server. **State:** what has come of it is kept.
    /// **Do:** connect to a server that has it.
    #[error("blob {blob} is not stored here, and no server is connected to")]
    BlobNoServer {
        /// The blob.
        blob: BlobHash,
    },
    /// The blob is not stored here, and every connected server says that it has not got it either. **State:** what has come
    /// of it is kept. **Do:** try again once whoever put it has been online.
    #[error("blob {blob} is neither stored here nor on a connected server")]
    BlobUnavailable {
        /// The blob.
        blob: BlobHash,
    },
    /// Nothing of the blob has come for too long. **State:** what has come of it is kept. **Do:** fetch it again.
    #[error("nothing of blob {blob} has come within {waited:?}")]
    BlobTimeout {
        /// The blob.
        blob: BlobHash,
        /// How long was waited.
        waited: Duration,
    },
    /// The blob cannot be had, or not be kept: what came does not have the hash, it is too large, or there is no room.
    /// **State:** as the message says; nothing else was changed. **Do:** as the message says.
    #[error("blob {blob} cannot be fetched: {message}")]
    BlobRefused {
        /// The blob.
        blob: BlobHash,
        /// Why, for programs.
        reason: BlobRefusal,
        /// Why, for people.
        message: String,
    },
    /// The repo was closed. **State:** what was saved is kept; this call did nothing. **Do:** open it again.
    #[error("the repo is closed")]
    Closed,
}

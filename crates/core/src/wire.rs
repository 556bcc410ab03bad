//! The automerge-repo websocket protocol, version 1: one CBOR map a frame, values to bytes and back.
//!
//! Owns: message shapes, field names, what is forgiven in what others send, and the exact bytes that we send.
//! Must not: know sessions or documents, look into `data`, or let an unbounded structure grow.
//! Next: `wire/decode.rs`, `wire/encode.rs`, `session.rs`; docs/protocol.md, "Frames".

mod cbor;
mod decode;
mod encode;

use automerge::ChangeHash;
use bytes::Bytes;

use crate::access::Token;
use crate::id::{DocumentId, IdError, PEER_ID_BYTES_MAX, StorageId};

pub use decode::decode;
pub use encode::{encode, encode_sync};

/// One frame: who speaks, to whom, and what.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<'a> {
    /// The speaker's peer id, at most [`PEER_ID_BYTES_MAX`] bytes. Empty if the frame names none, which only an error
    /// and an unknown message may do.
    pub sender: &'a str,
    /// The peer spoken to, with the same bound; stock peers ignore a wrong one.
    pub target: Option<&'a str>,
    /// What is said.
    pub message: Body<'a>,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// A dialling peer's first frame.
    Join {
        /// What the peer tells about itself.
        metadata: PeerMetadata,
        /// Protocol versions it speaks; a missing list means version 1.
        versions: Option<Vec<&'a str>>,
    },
    /// The answer to a join.
    Peer {
        /// What the peer tells about itself.
        metadata: PeerMetadata,
        /// The version chosen; stock clients do not check it.
        selected_version: Option<&'a str>,
    },
    /// The connection is refused and about to be closed.
    Error {
        /// Why, for humans; empty if none was given.
        message: &'a str,
    },
    /// The sender goes away. JavaScript peers neither send nor understand it.
    Leave,
    /// A sync message from a peer that holds nothing of the document and wants to be told if nobody does.
    Request {
        /// The document.
        document: DocumentId,
        /// An automerge sync message.
        data: Bytes,
    },
    /// A sync message.
    Sync {
        /// The document.
        document: DocumentId,
        /// An automerge sync message.
        data: Bytes,
    },
    /// Neither the sender nor anyone it asked has the document.
    DocUnavailable {
        /// The document.
        document: DocumentId,
    },
    /// A message that is relayed to the document's other peers and never stored. The envelope's sender is its author,
    /// who may be a third peer.
    Ephemeral {
        /// The document.
        document: DocumentId,
        /// Position among the author's ephemeral messages, from 1, at most 2⁵³.
        count: u64,
        /// The author's process, at most [`PEER_ID_BYTES_MAX`] bytes.
        session: &'a str,
        /// CBOR that only applications read.
        data: Bytes,
    },
    /// Storage ids whose heads the sender wants to hear of, and those it no longer does.
    RemoteSubscriptionChange {
        /// To subscribe to.
        add: Vec<StorageId>,
        /// To unsubscribe from.
        remove: Vec<StorageId>,
    },
    /// Heads of the document on other stores.
    RemoteHeadsChanged {
        /// The document.
        document: DocumentId,
        /// One element for each store.
        heads: Vec<RemoteHeads>,
    },
    /// A message of the native extension, between peers that both announced it.
    Native {
        /// What [`crate::native`] reads.
        data: Bytes,
    },
    /// A message of a kind that this version does not know; to be ignored.
    Unknown {
        /// The value of its `type` field, at most [`PEER_ID_BYTES_MAX`] bytes.
        kind: &'a str,
    },
}

impl Body<'_> {
    /// The value of the `type` field on the wire.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Join { .. } => "join",
            Self::Peer { .. } => "peer",
            Self::Error { .. } => "error",
            Self::Leave => "leave",
            Self::Request { .. } => "request",
            Self::Sync { .. } => "sync",
            Self::DocUnavailable { .. } => "doc-unavailable",
            Self::Ephemeral { .. } => "ephemeral",
            Self::RemoteSubscriptionChange { .. } => "remote-subscription-change",
            Self::RemoteHeadsChanged { .. } => "remote-heads-changed",
            Self::Native { .. } => "syncline",
            Self::Unknown { kind } => kind,
        }
    }
}

/// What a peer tells about itself in its first frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerMetadata {
    /// The lasting name of the peer's store, if it has one.
    pub storage_id: Option<StorageId>,
    /// Whether the peer's store dies with it, so that nothing about it need be remembered.
    pub is_ephemeral: bool,
    /// The newest native protocol that the peer speaks, if it is a Syncline replica. Stock peers ignore the key.
    pub native: Option<u16>,
    /// What it presents to be let in, if not already with its request for a websocket. Never sent back.
    pub token: Option<Token>,
}

/// One store's heads of one document, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteHeads {
    /// The store.
    pub storage_id: StorageId,
    /// Its heads, in the order received.
    pub heads: Vec<ChangeHash>,
    /// When it had them by its own clock, milliseconds since the Unix epoch; finite. JavaScript compares it as a float.
    pub timestamp_ms: f64,
}

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame is empty or ends inside a value. **State:** nothing changed. **Do:** close the session.
    #[error("the frame ends inside a value")]
    Truncated,
    /// The bytes are not CBOR, or of a kind that JavaScript peers refuse: strings of indefinite length.
    /// **State:** nothing changed. **Do:** close the session.
    #[error("the frame is not CBOR at byte {position}")]
    NotCbor {
        /// Where, bytes from the start.
        position: usize,
    },
    /// The frame is a lone value, such as null. **State:** nothing changed. **Do:** close the session.
    #[error("the frame is not a CBOR map")]
    NotAMap,
    /// Bytes follow the map. **State:** nothing changed. **Do:** close the session.
    #[error("{bytes} bytes follow the frame's map")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A map's key is not text. **State:** nothing changed. **Do:** close the session.
    #[error("a key at byte {position} is not text")]
    KeyNotText {
        /// Where, bytes from the start of the frame, or of the map for a map inside it.
        position: usize,
    },
    /// A map has one key twice, so that readers could differ about its meaning. **State:** nothing changed.
    /// **Do:** close the session.
    #[error("a map has the same key twice")]
    DuplicateKey,
    /// A value is nested deeper than any honest frame. **State:** nothing changed. **Do:** close the session.
    #[error("values are nested deeper than {depth_max}")]
    TooDeep {
        /// Depth accepted.
        depth_max: usize,
    },
    /// A map or list has more entries than accepted. **State:** nothing changed. **Do:** ignore the message and count it;
    /// raise the limit if the peer is honest.
    #[error("{field} has more than {count_max} entries")]
    TooMany {
        /// The map or list.
        field: &'static str,
        /// Entries accepted there; for hashes, what earlier lists of the frame left of the limit.
        count_max: usize,
    },
    /// A field that the kind of message needs is missing, undefined or null. **State:** nothing changed.
    /// **Do:** ignore the message and count it.
    #[error("the field {field} is missing")]
    MissingField {
        /// The field.
        field: &'static str,
    },
    /// A field has a value of another type. **State:** nothing changed. **Do:** ignore the message and count it.
    #[error("the field {field} has a value of the wrong type")]
    WrongType {
        /// The field.
        field: &'static str,
    },
    /// A number is negative, fractional, infinite or too large. **State:** nothing changed. **Do:** ignore the message
    /// and count it.
    #[error("the number {field} is out of range")]
    BadNumber {
        /// The field.
        field: &'static str,
    },
    /// A name is longer than accepted. **State:** nothing changed. **Do:** ignore the message and count it.
    #[error("the field {field} is longer than {PEER_ID_BYTES_MAX} bytes")]
    NameTooLong {
        /// The field.
        field: &'static str,
    },
    /// A document id, storage id or hash is not one. **State:** nothing changed. **Do:** ignore the message and count it.
    #[error("the field {field} is refused: {source}")]
    BadId {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: IdError,
    },
}

impl WireError {
    /// A short label for counters and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Truncated => "frame_truncated",
            Self::NotCbor { .. } => "frame_not_cbor",
            Self::NotAMap => "frame_not_a_map",
            Self::TrailingBytes { .. } => "frame_trailing_bytes",
            Self::KeyNotText { .. } => "frame_key_not_text",
            Self::DuplicateKey => "frame_duplicate_key",
            Self::TooDeep { .. } => "frame_too_deep",
            Self::TooMany { .. } => "frame_too_many",
            Self::MissingField { .. } => "frame_missing_field",
            Self::WrongType { .. } => "frame_wrong_type",
            Self::BadNumber { .. } => "frame_bad_number",
            Self::NameTooLong { .. } => "frame_name_too_long",
            Self::BadId { .. } => "frame_bad_id",
        }
    }

    /// Whether only one message is lost, not the connection. Stock peers log a message whose fields they refuse and go
    /// on, and close on a frame that they cannot read at all; to close on the former would cut off a whole client for
    /// one odd document id.
    #[must_use]
    pub fn concerns_message_only(&self) -> bool {
        match self {
            Self::Truncated
            | Self::NotCbor { .. }
            | Self::NotAMap
            | Self::TrailingBytes { .. }
            | Self::KeyNotText { .. }
            | Self::DuplicateKey
            | Self::TooDeep { .. } => false,
            Self::TooMany { .. }
            | Self::MissingField { .. }
            | Self::WrongType { .. }
            | Self::BadNumber { .. }
            | Self::NameTooLong { .. }
            | Self::BadId { .. } => true,
        }
    }
}

/// Field names, once for reading and writing.
mod field {
    pub(super) const TYPE: &str = "type";
    pub(super) const SENDER: &str = "senderId";
    pub(super) const TARGET: &str = "targetId";
    pub(super) const DOCUMENT: &str = "documentId";
    pub(super) const DATA: &str = "data";
    pub(super) const METADATA: &str = "peerMetadata";
    /// What the protocol's prose calls the metadata, although no implementation writes it.
    pub(super) const METADATA_IN_PROSE: &str = "metadata";
    pub(super) const STORAGE: &str = "storageId";
    pub(super) const IS_EPHEMERAL: &str = "isEphemeral";
    pub(super) const NATIVE: &str = "synclineVersion";
    pub(super) const TOKEN: &str = "synclineToken";
    pub(super) const VERSIONS: &str = "supportedProtocolVersions";
    pub(super) const SELECTED_VERSION: &str = "selectedProtocolVersion";
    pub(super) const MESSAGE: &str = "message";
    pub(super) const COUNT: &str = "count";
    pub(super) const SESSION: &str = "sessionId";
    pub(super) const ADD: &str = "add";
    pub(super) const REMOVE: &str = "remove";
    pub(super) const NEW_HEADS: &str = "newHeads";
    pub(super) const HEADS: &str = "heads";
    pub(super) const TIMESTAMP: &str = "timestamp";
}

#[cfg(test)]
mod tests;

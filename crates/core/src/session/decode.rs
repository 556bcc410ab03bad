//! From a sync frame's payload to checked changes, and what is refused on the way.
//!
//! Owns: the step from hostile bytes to [`SyncMessage`], the offences and what follows from each.
//! Must not: need anything but the bytes, the limits and the loader: the shell may run it on another thread.
//! Next: `chunk.rs`, `change.rs`, `document.rs`, `sync/message.rs`.

use std::time::Duration;

use bytes::Bytes;

use crate::ChangeHash;
use crate::access::Denial;
use crate::change::{Change, ChangeError};
use crate::chunk::{self, Chunk, ChunkError, ChunkKind};
use crate::document::{self, DocumentError};
use crate::hub::SyncMessage;
use crate::id::DocumentId;
use crate::limits::Limits;
use crate::loader::Loader;
use crate::native::NativeError;
use crate::sync::Statement;
use crate::sync::bloom::{Bloom, BloomError};
use crate::sync::message::{Message, MessageError};
use crate::wire::WireError;

/// Frames above this are decoded away from the threads that serve sockets, bytes.
const HEAVY_FRAME_BYTES: usize = 32 * 1024;

/// First bytes of every automerge chunk.
const CHUNK_MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Something a peer did that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// The frame is not a message of the protocol. **State:** nothing changed. **Do:** speak automerge-repo v1.
    #[error("undecodable frame: {0}")]
    Wire(#[from] WireError),
    /// A text frame. **State:** closed. **Do:** send binary frames.
    #[error("text frames are not part of the protocol: send one CBOR map in each binary frame")]
    TextFrame,
    /// Larger than this phase allows. **State:** closed. **Do:** join first; split the document.
    #[error("the frame has {bytes} bytes; at most {bytes_max} are accepted")]
    FrameTooLarge {
        /// Size, bytes.
        bytes: usize,
        /// The limit, bytes.
        bytes_max: usize,
    },
    /// No join came in time. **State:** closed. **Do:** join at once.
    #[error("no handshake within {0:?}")]
    JoinTimeout(Duration),
    /// The first message is not a join. **State:** closed. **Do:** join first.
    #[error("expected a join message first")]
    ExpectedJoin,
    /// The answer to our join is not one. **State:** closed. **Do:** dial a sync server.
    #[error("expected a peer message as the answer to join")]
    ExpectedPeer,
    /// A second handshake on one connection. **State:** closed. **Do:** open another connection.
    #[error("this connection has already joined")]
    JoinedTwice,
    /// No common protocol version. **State:** closed. **Do:** offer version 1.
    #[error("unsupported protocol version: this server speaks version 1")]
    UnsupportedVersion,
    /// The peer's id is empty or too long. **State:** closed. **Do:** name the peer.
    #[error("the sender id is empty or too long")]
    BadPeerId,
    /// A message in another peer's name. **State:** dropped. **Do:** send with the id that joined.
    #[error("the sender id is not the one that joined")]
    WrongSender,
    /// The peer reports an error. **State:** as the peer says.
    #[error("the peer reports: {0}")]
    PeerError(String),
    /// The peer says goodbye.
    #[error("the peer left")]
    Left,
    /// Too large an ephemeral message. **State:** dropped. **Do:** send less; store what matters in a document.
    #[error("the ephemeral message has {bytes} bytes; at most {bytes_max} are relayed")]
    EphemeralTooLarge {
        /// Size, bytes.
        bytes: usize,
        /// The limit, bytes.
        bytes_max: usize,
    },
    /// Too many ephemeral messages. **State:** dropped. **Do:** send fewer.
    #[error("more than {per_second_max} ephemeral messages a second")]
    EphemeralRate {
        /// The limit.
        per_second_max: u32,
    },
    /// The payload is not a sync message. **State:** dropped.
    #[error("document {document}: undecodable sync message: {error}")]
    Message {
        /// The document.
        document: DocumentId,
        /// Why.
        error: MessageError,
    },
    /// A Bloom filter out of bounds. **State:** the message is dropped.
    #[error("document {document}: {error}")]
    Bloom {
        /// The document.
        document: DocumentId,
        /// Why.
        error: BloomError,
    },
    /// A chunk cannot be told apart. **State:** the rest of its element is dropped.
    #[error("document {document}: undecodable chunk: {error}")]
    Chunk {
        /// The document.
        document: DocumentId,
        /// Why.
        error: ChunkError,
    },
    /// A change is not well formed. **State:** it alone is refused.
    #[error("document {document}: change refused: {error}")]
    Change {
        /// The document.
        document: DocumentId,
        /// Why.
        error: ChangeError,
    },
    /// A message of the native extension is not well formed. **State:** dropped.
    #[error(transparent)]
    Native(#[from] NativeError),
    /// Somebody is not let in, not any longer, or does not get what a new token was to give. **State:** as the reason says.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// More messages than a connection may send. **State:** taken; what follows is read later. **Do:** send fewer.
    #[error("more than {per_second_max} messages a second (messages_per_second_max): what follows is read later")]
    MessageRate {
        /// The limit.
        per_second_max: u32,
    },
    /// More bytes than a connection may send. **State:** taken; what follows is read later. **Do:** send less.
    #[error("more than {per_second_max} bytes a second (bytes_per_second_max): what follows is read later")]
    ByteRate {
        /// The limit.
        per_second_max: u64,
    },
    /// A blob is brought by one who may write no document, or wanted by one who may read none. **State:** dropped.
    #[error("this peer may not do that with attachments")]
    BlobNotPermitted,
    /// A whole document is not well formed. **State:** it is refused.
    #[error("document {document}: document chunk refused: {error}")]
    Document {
        /// The document.
        document: DocumentId,
        /// Why.
        error: DocumentError,
    },
}

impl Offence {
    /// A short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Wire(error) => error.kind(),
            Self::TextFrame => "frame_text",
            Self::Native(_) => "native_malformed",
            Self::Denied(denial) => denial.kind(),
            Self::MessageRate { .. } => "message_rate",
            Self::ByteRate { .. } => "byte_rate",
            Self::BlobNotPermitted => "blob_not_permitted",
            Self::FrameTooLarge { .. } => "frame_too_large",
            Self::JoinTimeout(_) => "join_timeout",
            Self::ExpectedJoin => "expected_join",
            Self::ExpectedPeer => "expected_peer",
            Self::JoinedTwice => "joined_twice",
            Self::UnsupportedVersion => "unsupported_version",
            Self::BadPeerId => "bad_peer_id",
            Self::WrongSender => "wrong_sender",
            Self::PeerError(_) => "peer_error",
            Self::Left => "left",
            Self::EphemeralTooLarge { .. } => "ephemeral_too_large",
            Self::EphemeralRate { .. } => "ephemeral_rate",
            Self::Message { error, .. } => error.kind(),
            Self::Bloom { error, .. } => error.kind(),
            Self::Chunk { error, .. } => error.kind(),
            Self::Change { error, .. } => error.kind(),
            Self::Document { error, .. } => error.kind(),
        }
    }
}

/// Whether a frame takes long enough to decode that it belongs on another thread.
#[must_use]
pub fn is_heavy(frame: &[u8]) -> bool {
    let document_chunk = |window: &[u8]| window[..4] == CHUNK_MAGIC && window[8] == 0;
    frame.len() > HEAVY_FRAME_BYTES || frame.windows(9).any(document_chunk)
}

/// Reads a sync payload. Good changes come back even if others beside them are refused.
pub(super) fn sync(
    document: DocumentId,
    request: bool,
    data: Bytes,
    (limits, loader): (&Limits, &dyn Loader),
) -> (Option<SyncMessage>, Vec<Offence>) {
    let message = match Message::decode(data, limits) {
        Ok(message) => message,
        Err(error) => return (None, vec![Offence::Message { document, error }]),
    };
    for have in &message.have {
        if let Err(error) = Bloom::decode(&have.bloom, limits) {
            return (None, vec![Offence::Bloom { document, error }]);
        }
    }
    let Message { heads, need, have, changes: elements, flags, .. } = message;
    let (changes, refused, offences) = (Vec::new(), Vec::new(), Vec::new());
    let mut reader = Reader { document: &document, limits, loader, changes, refused, offences };
    let with_changes = !elements.is_empty();
    for element in elements {
        reader.element(element);
    }
    let Reader { changes, refused, offences, .. } = reader;
    let statement = Statement { heads, need, have, flags, with_changes };
    (Some(SyncMessage { document, request, statement, changes, refused }), offences)
}

struct Reader<'a> {
    document: &'a DocumentId,
    limits: &'a Limits,
    loader: &'a dyn Loader,
    changes: Vec<Change>,
    refused: Vec<ChangeHash>,
    offences: Vec<Offence>,
}

impl Reader<'_> {
    fn element(&mut self, element: Bytes) {
        for chunk in chunk::split(element) {
            let document = self.document.clone();
            match chunk {
                Ok(chunk) if chunk.kind == ChunkKind::Document => self.whole_document(&chunk),
                Ok(chunk) => self.change(&chunk),
                Err(error) => return self.offences.push(Offence::Chunk { document, error }),
            }
        }
    }

    fn whole_document(&mut self, chunk: &Chunk) {
        match document::expand(chunk, self.limits, self.loader) {
            Ok(changes) => {
                for bytes in changes {
                    self.change_bytes(bytes);
                }
            }
            Err(error) => self.offences.push(Offence::Document { document: self.document.clone(), error }),
        }
    }

    fn change(&mut self, chunk: &Chunk) {
        self.change_bytes(chunk.bytes.clone());
    }

    fn change_bytes(&mut self, bytes: Bytes) {
        match Change::decode(bytes.clone(), self.limits) {
            Ok(change) => self.changes.push(change),
            Err(error) => {
                // Named, so that it is not asked for again; a change too broken to have a name is not.
                self.refused.extend(Change::name(&bytes));
                self.offences.push(Offence::Change { document: self.document.clone(), error });
            }
        }
    }
}

//! The few frames of automerge-repo's protocol that a client needs, as CBOR.
//!
//! Owns: writing `join`, `request` and `sync`, reading what a server answers. Must not: know documents.
//! Next: `client.rs`; docs/protocol.md §3.

use anyhow::{Context, ensure};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use sha2::{Digest, Sha256};

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// The handshake is done; the server's peer id.
    Peer(String),
    /// A sync message about a document.
    Sync(String, Vec<u8>),
    /// The server has nothing of the document.
    Unavailable(String),
    /// The server refuses something.
    Error(String),
    /// Anything else.
    Other,
}

/// The first frame of a connection.
pub(crate) fn join(peer: &str) -> Vec<u8> {
    encode(|encoder| {
        encoder.map(4)?.str("type")?.str("join")?.str("senderId")?.str(peer)?;
        encoder.str("peerMetadata")?.map(1)?.str("isEphemeral")?.bool(true)?;
        encoder.str("supportedProtocolVersions")?.array(1)?.str("1")?.ok()
    })
}

/// A sync message about a document; `kind` is `request` or `sync`.
pub(crate) fn about(kind: &str, peer: &str, server: &str, document: &str, data: &[u8]) -> Vec<u8> {
    encode(|encoder| {
        encoder.map(5)?.str("type")?.str(kind)?.str("senderId")?.str(peer)?;
        encoder.str("targetId")?.str(server)?.str("documentId")?.str(document)?;
        encoder.str("data")?.bytes(data)?.ok()
    })
}

/// Reads a frame.
///
/// # Errors
/// When it is no map with the fields that its type needs.
pub(crate) fn decode(bytes: &[u8]) -> anyhow::Result<Incoming> {
    let mut decoder = Decoder::new(bytes);
    let fields = decoder.map()?.context("a frame is a map of known length")?;
    let (mut kind, mut sender, mut document, mut message, mut data) = (None, None, None, None, None);
    for _ in 0..fields {
        match decoder.str()? {
            "type" => kind = Some(decoder.str()?),
            "senderId" => sender = Some(decoder.str()?),
            "documentId" => document = Some(decoder.str()?.to_owned()),
            "message" => message = Some(decoder.str()?),
            "data" if decoder.datatype()? == Type::Bytes => data = Some(decoder.bytes()?.to_vec()),
            _ => decoder.skip()?,
        }
    }
    ensure!(decoder.position() == bytes.len(), "bytes after the frame");
    Ok(match kind.context("a frame has a type")? {
        "peer" => Incoming::Peer(sender.context("a peer has an id")?.to_owned()),
        "sync" | "request" => Incoming::Sync(document.context("which document")?, data.context("no message")?),
        "doc-unavailable" => Incoming::Unavailable(document.context("which document")?),
        "error" => Incoming::Error(message.unwrap_or_default().to_owned()),
        _ => Incoming::Other,
    })
}

/// A document id of 16 given bytes, as a version 4 UUID in base58 with a checksum.
pub(crate) fn document_id(mut payload: [u8; 16]) -> String {
    payload[6] = payload[6] & 0x0f | 0x40;
    payload[8] = payload[8] & 0x3f | 0x80;
    let checksum = Sha256::digest(Sha256::digest(payload));
    bs58::encode([&payload[..], &checksum[..4]].concat()).into_string()
}

type Failed = minicbor::encode::Error<std::convert::Infallible>;

fn encode(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), Failed>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A vector accepts every byte.
    let _ = write(&mut Encoder::new(&mut bytes));
    bytes
}

//! automerge-repo's websocket frames: one CBOR map each.
//!
//! Owns: the bytes around a sync message, and document ids. Must not: look into the sync message.
//! Next: `client.rs`, which sends and receives them; `light.rs` for what is inside.

use anyhow::{Context, bail};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use sha2::{Digest, Sha256};

/// What a server said, as far as a load generator cares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// The handshake's answer, with the server's name.
    Peer { sender: &'a str },
    /// A sync message for one document; `request` and `sync` are read alike.
    Sync { document: &'a str, data: &'a [u8] },
    /// The server does not have the document.
    Unavailable { document: &'a str },
    /// The server gave up on us.
    Error { message: &'a str },
    /// A kind that this tool does not use.
    Other,
}

/// Reads one frame.
///
/// # Errors
/// When the bytes are not a CBOR map with the fields of the message that it names.
pub(crate) fn decode(frame: &[u8]) -> anyhow::Result<Incoming<'_>> {
    let mut decoder = Decoder::new(frame);
    let (mut kind, mut sender, mut document, mut data, mut message) = (None, None, None, None, None);
    let mut left = decoder.map()?;
    loop {
        match left.as_mut() {
            Some(0) => break,
            Some(count) => *count -= 1,
            None if decoder.datatype()? == Type::Break => break,
            None => {}
        }
        match decoder.str()? {
            "type" => kind = Some(decoder.str()?),
            "senderId" => sender = Some(decoder.str()?),
            "documentId" => document = Some(decoder.str()?),
            "message" => message = Some(decoder.str()?),
            "data" => {
                if decoder.datatype()? == Type::Tag {
                    decoder.tag()?;
                }
                data = Some(decoder.bytes()?);
            }
            _ => decoder.skip()?,
        }
    }
    Ok(match kind.context("a frame without a type")? {
        "peer" => Incoming::Peer { sender: sender.context("peer without senderId")? },
        "sync" | "request" => Incoming::Sync {
            document: document.context("sync without documentId")?,
            data: data.context("sync without data")?,
        },
        "doc-unavailable" => {
            Incoming::Unavailable { document: document.context("doc-unavailable without documentId")? }
        }
        "error" => Incoming::Error { message: message.unwrap_or("no reason given") },
        _ => Incoming::Other,
    })
}

/// The first frame of a client. A storage id makes it a client with a store, whose sync state servers may keep.
pub(crate) fn encode_join(sender: &str, storage_id: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    let mut encoder = Encoder::new(&mut out);
    let written = (|| {
        encoder.map(4)?.str("type")?.str("join")?.str("senderId")?.str(sender)?.str("peerMetadata")?;
        encoder.map(2)?.str("storageId")?;
        match storage_id {
            Some(id) => encoder.str(id)?,
            None => encoder.undefined()?,
        };
        encoder.str("isEphemeral")?.bool(storage_id.is_none())?;
        encoder.str("supportedProtocolVersions")?.array(1)?.str("1")?.ok()
    })();
    written.expect("a vector takes every byte");
    out
}

/// A `sync` or `request` frame around one sync message.
pub(crate) fn encode_sync(kind: &str, sender: &str, target: &str, document: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 160);
    let mut encoder = Encoder::new(&mut out);
    let written = (|| {
        encoder.map(5)?.str("type")?.str(kind)?.str("senderId")?.str(sender)?.str("targetId")?.str(target)?;
        encoder.str("documentId")?.str(document)?.str("data")?.bytes(data)?.ok()
    })();
    written.expect("a vector takes every byte");
    out
}

/// An `ephemeral` frame; `data` is CBOR of the application's value.
pub(crate) fn encode_ephemeral(sender: &str, document: &str, count: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 160);
    let mut encoder = Encoder::new(&mut out);
    let written = (|| {
        encoder.map(7)?.str("type")?.str("ephemeral")?.str("senderId")?.str(sender)?.str("targetId")?.str("")?;
        encoder.str("count")?.u64(count)?.str("sessionId")?.str("mob")?;
        encoder.str("documentId")?.str(document)?.str("data")?.bytes(data)?.ok()
    })();
    written.expect("a vector takes every byte");
    out
}

/// A fresh document id, as automerge-repo mints them: base58 of 16 random bytes and 4 bytes of their double SHA-256.
pub(crate) fn random_document_id() -> String {
    let payload = uuid::Uuid::new_v4();
    let mut bytes = payload.as_bytes().to_vec();
    let checksum = Sha256::digest(Sha256::digest(&bytes));
    bytes.extend_from_slice(&checksum[..4]);
    bs58::encode(bytes).into_string()
}

/// Reads the server's name from the answer to a join.
///
/// # Errors
/// When the frame is anything but `peer`.
pub(crate) fn decode_peer(frame: &[u8]) -> anyhow::Result<String> {
    match decode(frame)? {
        Incoming::Peer { sender } => Ok(sender.to_owned()),
        Incoming::Error { message } => bail!("the server refused the join: {message}"),
        other @ (Incoming::Sync { .. } | Incoming::Unavailable { .. } | Incoming::Other) => {
            bail!("expected peer, got {other:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_javascript_server_are_read() {
        // cbor-x writes 16-bit map headers and undefined members.
        let mut frame = vec![0xb9, 0, 4];
        let mut encoder = Encoder::new(&mut frame);
        encoder.str("type").unwrap().str("sync").unwrap().str("storageId").unwrap().undefined().unwrap();
        encoder.str("documentId").unwrap().str("abc").unwrap().str("data").unwrap().bytes(&[1, 2]).unwrap();
        assert_eq!(decode(&frame).unwrap(), Incoming::Sync { document: "abc", data: &[1, 2] });
    }

    #[test]
    fn what_is_sent_is_read_back() {
        let frame = encode_sync("request", "me", "you", "doc", b"bytes");
        assert_eq!(decode(&frame).unwrap(), Incoming::Sync { document: "doc", data: b"bytes" });
        assert_eq!(decode(&encode_join("me", None)).unwrap(), Incoming::Other);
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        let frame = encode_sync("sync", "me", "you", "doc", b"bytes");
        for end in 0..frame.len() {
            assert!(decode(&frame[..end]).is_err(), "cut at {end}");
        }
        assert!(decode(&[0xf6]).is_err());
    }
}

//! Values to frames: exactly what JavaScript peers write and accept, in the shortest form.
//!
//! Owns: the order of fields and which are left out. Nothing is ever written as null or undefined.
//! Must not: write a 64-bit integer or a tag; JavaScript reads those as something else.
//! Next: `decode.rs`, `cbor.rs`; docs/protocol.md, "Frames".

use super::cbor::{write_array, write_bool, write_bytes, write_float, write_map, write_number, write_text};
use super::{Body, PeerMetadata, RemoteHeads, field};
use crate::id::{DocumentId, StorageId, encode_base58_check};

/// Appends one frame. The sender's id comes first after the type, `data` last.
///
/// A count above 2⁵³ loses precision, as it would in JavaScript; `decode` lets none in.
pub fn encode(sender: &str, target: Option<&str>, body: &Body<'_>, out: &mut Vec<u8>) {
    let head = Head { kind: body.kind(), sender, target };
    match body {
        Body::Join { metadata, versions } => encode_join(&head, metadata, versions.as_deref(), out),
        Body::Peer { metadata, selected_version } => encode_peer(&head, metadata, *selected_version, out),
        Body::Error { message } => {
            head.write(out, 1);
            write_field(out, field::MESSAGE, message);
        }
        Body::Leave | Body::Unknown { .. } => head.write(out, 0),
        Body::Request { document, data } | Body::Sync { document, data } => {
            encode_data(&head, &document.to_string(), data, out);
        }
        Body::Native { data } => {
            head.write(out, 1);
            write_text(out, field::DATA);
            write_bytes(out, data);
        }
        Body::DocUnavailable { document } => {
            head.write(out, 1);
            write_document(out, document);
        }
        Body::Ephemeral { document, count, session, data } => {
            head.write(out, 4);
            write_document(out, document);
            write_text(out, field::COUNT);
            write_number(out, *count);
            write_field(out, field::SESSION, session);
            write_text(out, field::DATA);
            write_bytes(out, data);
        }
        Body::RemoteSubscriptionChange { add, remove } => {
            head.write(out, 2);
            write_storage_ids(out, field::ADD, add);
            write_storage_ids(out, field::REMOVE, remove);
        }
        Body::RemoteHeadsChanged { document, heads } => {
            head.write(out, 2);
            write_document(out, document);
            write_text(out, field::NEW_HEADS);
            write_map(out, heads.len());
            heads.iter().for_each(|heads| write_remote_heads(out, heads));
        }
    }
}

/// Appends a `sync` frame, the same bytes as [`encode`], from a document id that is already text: base58 would cost
/// more than the rest of the frame.
pub fn encode_sync(sender: &str, target: &str, document_text: &str, data: &[u8], out: &mut Vec<u8>) {
    encode_data(&Head { kind: "sync", sender, target: Some(target) }, document_text, data, out);
}

/// The fields that every frame starts with.
struct Head<'a> {
    kind: &'a str,
    sender: &'a str,
    target: Option<&'a str>,
}

impl Head<'_> {
    /// Starts a frame of this head and `others` more fields.
    fn write(&self, out: &mut Vec<u8>, others: usize) {
        write_map(out, 2 + usize::from(self.target.is_some()) + others);
        write_field(out, field::TYPE, self.kind);
        write_field(out, field::SENDER, self.sender);
        if let Some(target) = self.target {
            write_field(out, field::TARGET, target);
        }
    }
}

fn encode_join(head: &Head<'_>, metadata: &PeerMetadata, versions: Option<&[&str]>, out: &mut Vec<u8>) {
    head.write(out, 1 + usize::from(versions.is_some()));
    write_metadata(out, metadata);
    if let Some(versions) = versions {
        write_text(out, field::VERSIONS);
        write_array(out, versions.len());
        versions.iter().for_each(|version| write_text(out, version));
    }
}

fn encode_peer(head: &Head<'_>, metadata: &PeerMetadata, selected_version: Option<&str>, out: &mut Vec<u8>) {
    head.write(out, 1 + usize::from(selected_version.is_some()));
    write_metadata(out, metadata);
    if let Some(version) = selected_version {
        write_field(out, field::SELECTED_VERSION, version);
    }
}

fn encode_data(head: &Head<'_>, document_text: &str, data: &[u8], out: &mut Vec<u8>) {
    // Field names and heads of strings take less than 64 bytes.
    let names = head.sender.len() + head.target.map_or(0, str::len) + document_text.len();
    out.reserve(64 + names + data.len());
    head.write(out, 2);
    write_field(out, field::DOCUMENT, document_text);
    write_text(out, field::DATA);
    write_bytes(out, data);
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    write_text(out, name);
    write_text(out, value);
}

fn write_document(out: &mut Vec<u8>, document: &DocumentId) {
    write_field(out, field::DOCUMENT, &document.to_string());
}

fn write_metadata(out: &mut Vec<u8>, metadata: &PeerMetadata) {
    write_text(out, field::METADATA);
    let there = [metadata.storage_id.is_some(), metadata.native.is_some(), metadata.token.is_some()];
    write_map(out, 1 + there.into_iter().filter(|is_there| *is_there).count());
    // A null in place of a missing storage id cuts off some Rust peers.
    if let Some(storage_id) = &metadata.storage_id {
        write_field(out, field::STORAGE, storage_id.as_str());
    }
    write_text(out, field::IS_EPHEMERAL);
    write_bool(out, metadata.is_ephemeral);
    if let Some(native) = metadata.native {
        write_text(out, field::NATIVE);
        write_number(out, u64::from(native));
    }
    if let Some(token) = &metadata.token {
        write_field(out, field::TOKEN, token.reveal());
    }
}

/// Written also if empty: the protocol's prose asks for `remove` where the JavaScript leaves it out.
fn write_storage_ids(out: &mut Vec<u8>, name: &str, ids: &[StorageId]) {
    write_text(out, name);
    write_array(out, ids.len());
    ids.iter().for_each(|id| write_text(out, id.as_str()));
}

fn write_remote_heads(out: &mut Vec<u8>, remote: &RemoteHeads) {
    write_text(out, remote.storage_id.as_str());
    write_map(out, 2);
    write_text(out, field::HEADS);
    write_array(out, remote.heads.len());
    remote.heads.iter().for_each(|hash| write_text(out, &encode_base58_check(&hash.0)));
    write_text(out, field::TIMESTAMP);
    write_float(out, remote.timestamp_ms);
}

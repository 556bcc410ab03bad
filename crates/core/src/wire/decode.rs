//! Frames to values: liberal in the encodings it takes, strict about what they mean.
//!
//! Owns: which fields each kind of message needs, the bounds on names, lists and numbers.
//! Must not: copy `data`, or look at fields that a kind of message does not have.
//! Next: `cbor.rs`, `encode.rs`; docs/protocol.md, "Frames".

use bytes::Bytes;
use minicbor::Decoder;

use super::cbor::{Fields, Value, is_array, is_map, malformed, next_element};
use super::{Body, Envelope, PeerMetadata, RemoteHeads, WireError, field};
use crate::access::Token;
use crate::id::{DocumentId, IdError, PEER_ID_BYTES_MAX, StorageId, decode_base58_hash};
use crate::limits::Limits;

/// Most entries of a frame or its metadata. Known kinds have at most 7; the rest is room for the future.
const FIELDS_MAX: usize = 64;

/// Most protocol versions that a join may list.
const VERSIONS_MAX: usize = 64;

/// The largest integer up to which a float tells all integers apart: 2⁵³.
const COUNT_MAX: u64 = 1 << 53;

/// Reads one frame. Texts borrow from it, byte fields are slices of it: nothing is copied.
///
/// Accepted: fields in any order, unknown fields, undefined or null for what is optional, headers of any width, maps
/// and lists of indefinite length, byte strings tagged as typed arrays, numbers as integers or floats.
///
/// # Errors
/// [`WireError`]; see [`WireError::concerns_message_only`] for what it means for the connection.
pub fn decode<'a>(frame: &'a Bytes, limits: &Limits) -> Result<Envelope<'a>, WireError> {
    let mut decoder = Decoder::new(frame);
    if !is_map(&decoder)? {
        return Err(WireError::NotAMap);
    }
    let fields = Fields::decode(&mut decoder, "frame", FIELDS_MAX)?;
    if decoder.position() != frame.len() {
        return Err(WireError::TrailingBytes { bytes: frame.len() - decoder.position() });
    }
    let frame = Frame { bytes: frame, fields, limits };
    let kind = frame.name(field::TYPE)?;
    let message = frame.body(kind)?;
    let sender = match &message {
        Body::Error { .. } | Body::Unknown { .. } => frame.optional_name(field::SENDER)?.unwrap_or(""),
        Body::Join { .. }
        | Body::Peer { .. }
        | Body::Leave
        | Body::Request { .. }
        | Body::Sync { .. }
        | Body::DocUnavailable { .. }
        | Body::Ephemeral { .. }
        | Body::RemoteSubscriptionChange { .. }
        | Body::RemoteHeadsChanged { .. }
        | Body::Native { .. } => frame.name(field::SENDER)?,
    };
    Ok(Envelope { sender, target: frame.optional_name(field::TARGET)?, message })
}

/// A frame whose structure is sound, with its fields still untyped.
struct Frame<'a, 'l> {
    bytes: &'a Bytes,
    fields: Fields<'a>,
    limits: &'l Limits,
}

impl<'a> Frame<'a, '_> {
    fn body(&self, kind: &'a str) -> Result<Body<'a>, WireError> {
        Ok(match kind {
            "join" => Body::Join { metadata: self.metadata()?, versions: self.versions()? },
            "peer" => Body::Peer {
                metadata: self.metadata()?,
                selected_version: self.optional_name(field::SELECTED_VERSION)?,
            },
            "error" => Body::Error { message: text_in(&self.fields, field::MESSAGE)?.unwrap_or("") },
            "leave" => Body::Leave,
            "request" => Body::Request { document: self.document()?, data: self.data()? },
            "sync" => Body::Sync { document: self.document()?, data: self.data()? },
            "doc-unavailable" => Body::DocUnavailable { document: self.document()? },
            "ephemeral" => Body::Ephemeral {
                document: self.document()?,
                count: self.count()?,
                session: self.name(field::SESSION)?,
                data: self.data()?,
            },
            "remote-subscription-change" => Body::RemoteSubscriptionChange {
                add: self.storage_ids(field::ADD)?,
                remove: self.storage_ids(field::REMOVE)?,
            },
            "remote-heads-changed" => {
                Body::RemoteHeadsChanged { document: self.document()?, heads: self.remote_heads()? }
            }
            "syncline" => Body::Native { data: self.data()? },
            kind => Body::Unknown { kind },
        })
    }

    /// A text short enough to be kept, compared and logged, if there is one.
    fn optional_name(&self, field: &'static str) -> Result<Option<&'a str>, WireError> {
        let text = text_in(&self.fields, field)?;
        if text.is_some_and(|text| text.len() > PEER_ID_BYTES_MAX) {
            return Err(WireError::NameTooLong { field });
        }
        Ok(text)
    }

    fn name(&self, field: &'static str) -> Result<&'a str, WireError> {
        self.optional_name(field)?.ok_or(WireError::MissingField { field })
    }

    fn document(&self) -> Result<DocumentId, WireError> {
        let text = text_in(&self.fields, field::DOCUMENT)?.ok_or(WireError::MissingField { field: field::DOCUMENT })?;
        text.parse().map_err(bad_id(field::DOCUMENT))
    }

    fn data(&self) -> Result<Bytes, WireError> {
        match self.fields.find(field::DATA) {
            Some(Value::Bytes(data)) => Ok(self.bytes.slice_ref(data)),
            Some(_) => Err(WireError::WrongType { field: field::DATA }),
            None => Err(WireError::MissingField { field: field::DATA }),
        }
    }

    fn count(&self) -> Result<u64, WireError> {
        let count = match self.fields.find(field::COUNT) {
            Some(Value::Uint(count)) => count,
            Some(Value::Float(count)) if count >= 0.0 && count.fract() == 0.0 && count <= COUNT_MAX as f64 => {
                count as u64
            }
            Some(Value::Float(_)) => return Err(WireError::BadNumber { field: field::COUNT }),
            Some(_) => return Err(WireError::WrongType { field: field::COUNT }),
            None => return Err(WireError::MissingField { field: field::COUNT }),
        };
        if count > COUNT_MAX { Err(WireError::BadNumber { field: field::COUNT }) } else { Ok(count) }
    }

    fn metadata(&self) -> Result<PeerMetadata, WireError> {
        let value = self.fields.find(field::METADATA).or_else(|| self.fields.find(field::METADATA_IN_PROSE));
        let Some(value) = value else { return Ok(PeerMetadata::default()) };
        let fields = map_of(value, field::METADATA, FIELDS_MAX)?;
        // A store without a name may say so with an empty one.
        let storage_id = text_in(&fields, field::STORAGE)?.filter(|text| !text.is_empty());
        Ok(PeerMetadata {
            storage_id: storage_id.map(StorageId::new).transpose().map_err(bad_id(field::STORAGE))?,
            is_ephemeral: match fields.find(field::IS_EPHEMERAL) {
                Some(Value::Bool(is_ephemeral)) => is_ephemeral,
                Some(_) => return Err(WireError::WrongType { field: field::IS_EPHEMERAL }),
                None => false,
            },
            // Whatever else a later version may put there, it can be spoken to as a stock peer.
            native: match fields.find(field::NATIVE) {
                Some(Value::Uint(native)) => u16::try_from(native).ok(),
                Some(_) | None => None,
            },
            token: text_in(&fields, field::TOKEN)?.filter(|text| !text.is_empty()).map(Token::new),
        })
    }

    fn versions(&self) -> Result<Option<Vec<&'a str>>, WireError> {
        self.fields.find(field::VERSIONS).map(|value| texts_of(value, field::VERSIONS, VERSIONS_MAX)).transpose()
    }

    fn storage_ids(&self, field: &'static str) -> Result<Vec<StorageId>, WireError> {
        let Some(value) = self.fields.find(field) else { return Ok(Vec::new()) };
        let texts = texts_of(value, field, self.limits.remote_subscriptions_max)?;
        texts.into_iter().map(StorageId::new).collect::<Result<_, _>>().map_err(bad_id(field))
    }

    fn remote_heads(&self) -> Result<Vec<RemoteHeads>, WireError> {
        let value = self.fields.find(field::NEW_HEADS).ok_or(WireError::MissingField { field: field::NEW_HEADS })?;
        let stores = map_of(value, field::NEW_HEADS, self.limits.remote_subscriptions_max)?;
        // One limit for all lists of the frame: each hash costs a checksum.
        let mut heads_left = self.limits.message_hashes_max;
        let mut remote_heads = Vec::with_capacity(stores.iter().len());
        for (storage_id, value) in stores.iter() {
            let heads = decode_remote_heads(storage_id, value, heads_left)?;
            heads_left -= heads.heads.len();
            remote_heads.push(heads);
        }
        Ok(remote_heads)
    }
}

fn decode_remote_heads(storage_id: &str, value: Value<'_>, heads_max: usize) -> Result<RemoteHeads, WireError> {
    let fields = map_of(value, field::NEW_HEADS, FIELDS_MAX)?;
    let heads = fields.find(field::HEADS).ok_or(WireError::MissingField { field: field::HEADS })?;
    let heads = texts_of(heads, field::HEADS, heads_max)?;
    let timestamp_ms = match fields.find(field::TIMESTAMP) {
        Some(Value::Float(timestamp)) if timestamp.is_finite() => timestamp,
        Some(Value::Float(_)) => return Err(WireError::BadNumber { field: field::TIMESTAMP }),
        Some(Value::Uint(timestamp)) => timestamp as f64,
        Some(_) => return Err(WireError::WrongType { field: field::TIMESTAMP }),
        None => return Err(WireError::MissingField { field: field::TIMESTAMP }),
    };
    Ok(RemoteHeads {
        storage_id: StorageId::new(storage_id).map_err(bad_id(field::NEW_HEADS))?,
        heads: heads.into_iter().map(decode_base58_hash).collect::<Result<_, _>>().map_err(bad_id(field::HEADS))?,
        timestamp_ms,
    })
}

fn text_in<'a>(fields: &Fields<'a>, field: &'static str) -> Result<Option<&'a str>, WireError> {
    match fields.find(field) {
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(WireError::WrongType { field }),
        None => Ok(None),
    }
}

fn map_of<'a>(value: Value<'a>, field: &'static str, count_max: usize) -> Result<Fields<'a>, WireError> {
    let Value::Encoded(encoded) = value else { return Err(WireError::WrongType { field }) };
    let mut decoder = Decoder::new(encoded);
    if !is_map(&decoder)? {
        return Err(WireError::WrongType { field });
    }
    Fields::decode(&mut decoder, field, count_max)
}

fn texts_of<'a>(value: Value<'a>, field: &'static str, count_max: usize) -> Result<Vec<&'a str>, WireError> {
    let Value::Encoded(encoded) = value else { return Err(WireError::WrongType { field }) };
    if !is_array(encoded) {
        return Err(WireError::WrongType { field });
    }
    let mut decoder = Decoder::new(encoded);
    let mut left = decoder.array().map_err(malformed(0))?;
    let mut texts = Vec::new();
    while next_element(&mut decoder, &mut left)? {
        let Value::Text(text) = Value::decode(&mut decoder)? else { return Err(WireError::WrongType { field }) };
        if texts.len() == count_max {
            return Err(WireError::TooMany { field, count_max });
        }
        texts.push(text);
    }
    Ok(texts)
}

fn bad_id(field: &'static str) -> impl Fn(IdError) -> WireError {
    move |source| WireError::BadId { field, source }
}

//! One frame of automerge-repo's protocol: a CBOR map with text keys, written and read by hand.
//!
//! Owns: the bytes. A second implementation beside the server's, so that both must be right to agree.
//! Must not: require any field; hostile frames lack what they should have.
//! Next: `raw.rs`.

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// A value inside a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `null` or `undefined`.
    Null,
    /// A truth value.
    Bool(bool),
    /// Any number; JavaScript knows no other.
    Number(f64),
    /// Text.
    Text(String),
    /// A byte string.
    Bytes(Vec<u8>),
    /// An array.
    Array(Vec<Self>),
    /// A map with text keys.
    Map(BTreeMap<String, Self>),
}

/// Why bytes are not a frame; only for messages of failing tests.
pub type FrameError = minicbor::decode::Error;

/// A map with text keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frame(BTreeMap<String, Item>);

impl Frame {
    /// A frame of this type without any other field.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self::default().with("type", Item::Text(kind.to_owned()))
    }

    /// The join that a stock client without storage sends.
    #[must_use]
    pub fn join(peer: &str) -> Self {
        Self::new("join")
            .text("senderId", peer)
            .with("peerMetadata", Item::Map(BTreeMap::from([("isEphemeral".to_owned(), Item::Bool(true))])))
            .with("supportedProtocolVersions", Item::Array(vec![Item::Text("1".to_owned())]))
    }

    /// The frame with one more field, or another value of it.
    #[must_use]
    pub fn with(mut self, key: &str, item: Item) -> Self {
        self.0.insert(key.to_owned(), item);
        self
    }

    /// The frame with one more text field.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        self.with(key, Item::Text(value.to_owned()))
    }

    /// The frame with one more byte string.
    #[must_use]
    pub fn bytes(self, key: &str, value: &[u8]) -> Self {
        self.with(key, Item::Bytes(value.to_vec()))
    }

    /// The field's value.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&Item> {
        self.0.get(key)
    }

    /// The field's text; empty when it is absent or something else.
    #[must_use]
    pub fn text_of(&self, key: &str) -> &str {
        match self.0.get(key) {
            Some(Item::Text(text)) => text,
            _ => "",
        }
    }

    /// The field's bytes; empty when it is absent or something else.
    #[must_use]
    pub fn bytes_of(&self, key: &str) -> &[u8] {
        match self.0.get(key) {
            Some(Item::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    /// The frame's type.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text_of("type")
    }

    /// The bytes for the socket.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes);
        encode_item(&mut encoder, &Item::Map(self.0.clone())).expect("a vector accepts every byte");
        bytes
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// When the bytes are not one CBOR map with text keys, or something follows it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut decoder = Decoder::new(bytes);
        let item = decode_item(&mut decoder)?;
        if decoder.position() != bytes.len() {
            return Err(FrameError::message("bytes after the frame"));
        }
        let Item::Map(fields) = item else { return Err(FrameError::message("a frame is a map")) };
        Ok(Self(fields))
    }
}

fn encode_item(
    encoder: &mut Encoder<&mut Vec<u8>>,
    item: &Item,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    match item {
        Item::Null => encoder.null()?.ok(),
        Item::Bool(value) => encoder.bool(*value)?.ok(),
        // JavaScript writes what fits in 32 bits as an integer and everything else as a float.
        Item::Number(value) if value.fract() == 0.0 && (0.0..4_294_967_296.0).contains(value) => {
            encoder.u32(*value as u32)?.ok()
        }
        Item::Number(value) => encoder.f64(*value)?.ok(),
        Item::Text(value) => encoder.str(value)?.ok(),
        Item::Bytes(value) => encoder.bytes(value)?.ok(),
        Item::Array(items) => {
            encoder.array(items.len() as u64)?;
            items.iter().try_for_each(|item| encode_item(encoder, item))
        }
        Item::Map(fields) => {
            encoder.map(fields.len() as u64)?;
            fields.iter().try_for_each(|(key, item)| encode_item(encoder.str(key)?, item))
        }
    }
}

fn decode_item(decoder: &mut Decoder<'_>) -> Result<Item, FrameError> {
    match decoder.datatype()? {
        Type::Null => decoder.null().map(|()| Item::Null),
        Type::Undefined => decoder.undefined().map(|()| Item::Null),
        Type::Bool => decoder.bool().map(Item::Bool),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => decoder.u64().map(|value| Item::Number(value as f64)),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => decoder.i64().map(|value| Item::Number(value as f64)),
        Type::F16 | Type::F32 | Type::F64 => decoder.f64().map(Item::Number),
        Type::String => decoder.str().map(|text| Item::Text(text.to_owned())),
        Type::Bytes => decoder.bytes().map(|bytes| Item::Bytes(bytes.to_vec())),
        Type::Array => {
            let length = decoder.array()?.ok_or_else(|| FrameError::message("an array without a length"))?;
            (0..length).map(|_| decode_item(decoder)).collect::<Result<_, _>>().map(Item::Array)
        }
        Type::Map => {
            let length = decoder.map()?.ok_or_else(|| FrameError::message("a map without a length"))?;
            let mut fields = BTreeMap::new();
            for _ in 0..length {
                let key = decoder.str()?.to_owned();
                fields.insert(key, decode_item(decoder)?);
            }
            Ok(Item::Map(fields))
        }
        // cbor-x, which automerge-repo reads with, refuses the indefinite strings, and nobody sends the others.
        Type::BytesIndef
        | Type::StringIndef
        | Type::ArrayIndef
        | Type::MapIndef
        | Type::Int
        | Type::Simple
        | Type::Tag
        | Type::Break
        | Type::Unknown(_) => Err(FrameError::message("a type that automerge-repo's JavaScript side does not expect")),
    }
}

//! The CBOR that frames are made of: values and maps read strictly within bounds, and a writer without failures.
//!
//! Owns: which CBOR is accepted (RFC 8949, as the JavaScript peers' cbor-x reads it), nesting, duplicate keys.
//! Must not: know field names or messages.
//! Next: `decode.rs`, `encode.rs`.

use minicbor::Decoder;
use smallvec::SmallVec;

use super::WireError;

/// Deepest nesting of a value. Honest frames reach 4; a field of the future may go further.
pub(super) const DEPTH_MAX: usize = 32;

/// A byte string that JavaScript typed as `Uint8Array`.
const TAG_UINT8_ARRAY: u64 = 64;

const MAJOR_UINT: u8 = 0;
const MAJOR_NEGATIVE: u8 = 1;
const MAJOR_BYTES: u8 = 2;
const MAJOR_TEXT: u8 = 3;
const MAJOR_ARRAY: u8 = 4;
const MAJOR_MAP: u8 = 5;
const MAJOR_TAG: u8 = 6;

const BREAK: u8 = 0xff;

/// One value, borrowed from the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// Null or undefined: JavaScript writes a missing member as undefined.
    Nothing,
    Bool(bool),
    Uint(u64),
    /// A float of any width, or a negative integer.
    Float(f64),
    Text(&'a str),
    /// A byte string, with the tag of a typed array or without.
    Bytes(&'a [u8]),
    /// An array, a map, or a tag's or simple value that has no meaning here, still encoded.
    Encoded(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads the next value.
    pub(super) fn decode(decoder: &mut Decoder<'a>) -> Result<Self, WireError> {
        Self::decode_within(decoder, DEPTH_MAX)
    }

    fn decode_within(decoder: &mut Decoder<'a>, depth: usize) -> Result<Self, WireError> {
        let start = decoder.position();
        let initial = peek(decoder)?;
        let value = match initial >> 5 {
            MAJOR_UINT => Self::Uint(decoder.u64().map_err(malformed(start))?),
            MAJOR_NEGATIVE => Self::Float(i128::from(decoder.int().map_err(malformed(start))?) as f64),
            MAJOR_BYTES => Self::Bytes(decoder.bytes().map_err(malformed(start))?),
            MAJOR_TEXT => Self::Text(decoder.str().map_err(malformed(start))?),
            MAJOR_ARRAY => {
                let count = decoder.array().map_err(malformed(start))?;
                skip_elements(decoder, count, depth)?;
                Self::Encoded(&decoder.input()[start..decoder.position()])
            }
            MAJOR_MAP => {
                let pairs = decoder.map().map_err(malformed(start))?;
                skip_pairs(decoder, pairs, depth)?;
                Self::Encoded(&decoder.input()[start..decoder.position()])
            }
            MAJOR_TAG => {
                let tag = decoder.tag().map_err(malformed(start))?;
                match (tag.as_u64(), Self::decode_within(decoder, deeper(depth)?)?) {
                    (TAG_UINT8_ARRAY, Self::Bytes(bytes)) => Self::Bytes(bytes),
                    (_, _) => Self::Encoded(&decoder.input()[start..decoder.position()]),
                }
            }
            _ => Self::decode_simple(decoder, initial)?,
        };
        Ok(value)
    }

    fn decode_simple(decoder: &mut Decoder<'a>, initial: u8) -> Result<Self, WireError> {
        let start = decoder.position();
        let value = match initial {
            0xf4 | 0xf5 => Self::Bool(decoder.bool().map_err(malformed(start))?),
            0xf6 => decoder.null().map(|()| Self::Nothing).map_err(malformed(start))?,
            0xf7 => decoder.undefined().map(|()| Self::Nothing).map_err(malformed(start))?,
            0xf9..=0xfb => Self::Float(decoder.f64().map_err(malformed(start))?),
            _ => {
                // A break where a value should be, and reserved bytes, are refused here.
                decoder.simple().map_err(malformed(start))?;
                Self::Encoded(&decoder.input()[start..decoder.position()])
            }
        };
        Ok(value)
    }
}

/// The entries of one map, in the order received.
#[derive(Debug)]
pub(super) struct Fields<'a>(SmallVec<[(&'a str, Value<'a>); 8]>);

impl<'a> Fields<'a> {
    /// Reads a map with text keys, none of them twice. `name` is the map's own name for errors.
    pub(super) fn decode(decoder: &mut Decoder<'a>, name: &'static str, count_max: usize) -> Result<Self, WireError> {
        let start = decoder.position();
        let mut left = decoder.map().map_err(malformed(start))?;
        let mut fields = SmallVec::new();
        while next_element(decoder, &mut left)? {
            if fields.len() == count_max {
                return Err(WireError::TooMany { field: name, count_max });
            }
            fields.push((decode_key(decoder)?, Value::decode(decoder)?));
        }
        check_keys_differ(&fields)?;
        Ok(Self(fields))
    }

    /// The value of a field, unless it is missing, undefined or null.
    pub(super) fn find(&self, field: &str) -> Option<Value<'a>> {
        let (_, value) = self.0.iter().find(|(key, _)| *key == field)?;
        (*value != Value::Nothing).then_some(*value)
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, Value<'a>)> {
        self.0.iter().copied()
    }
}

/// Whether `decoder` stands at a map.
pub(super) fn is_map(decoder: &Decoder<'_>) -> Result<bool, WireError> {
    Ok(peek(decoder)? >> 5 == MAJOR_MAP)
}

/// Whether an encoded value is an array.
pub(super) fn is_array(encoded: &[u8]) -> bool {
    encoded.first().is_some_and(|initial| initial >> 5 == MAJOR_ARRAY)
}

/// Whether another element follows in an array or map, of which `left` are announced. Consumes the end of one of
/// indefinite length.
pub(super) fn next_element(decoder: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, WireError> {
    match left {
        Some(0) => Ok(false),
        Some(count) => {
            *count -= 1;
            Ok(true)
        }
        None if peek(decoder)? == BREAK => {
            decoder.set_position(decoder.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

/// Why minicbor stopped, told in our terms: it started at `start`.
pub(super) fn malformed(start: usize) -> impl Fn(minicbor::decode::Error) -> WireError {
    move |error| match error.is_end_of_input() {
        true => WireError::Truncated,
        false => WireError::NotCbor { position: error.position().unwrap_or(start) },
    }
}

fn peek(decoder: &Decoder<'_>) -> Result<u8, WireError> {
    decoder.input().get(decoder.position()).copied().ok_or(WireError::Truncated)
}

fn deeper(depth: usize) -> Result<usize, WireError> {
    depth.checked_sub(1).ok_or(WireError::TooDeep { depth_max: DEPTH_MAX })
}

fn skip_elements(decoder: &mut Decoder<'_>, mut left: Option<u64>, depth: usize) -> Result<(), WireError> {
    let depth = deeper(depth)?;
    while next_element(decoder, &mut left)? {
        Value::decode_within(decoder, depth)?;
    }
    Ok(())
}

fn skip_pairs(decoder: &mut Decoder<'_>, mut left: Option<u64>, depth: usize) -> Result<(), WireError> {
    let depth = deeper(depth)?;
    while next_element(decoder, &mut left)? {
        Value::decode_within(decoder, depth)?;
        Value::decode_within(decoder, depth)?;
    }
    Ok(())
}

fn decode_key<'a>(decoder: &mut Decoder<'a>) -> Result<&'a str, WireError> {
    let position = decoder.position();
    if peek(decoder)? >> 5 != MAJOR_TEXT {
        return Err(WireError::KeyNotText { position });
    }
    decoder.str().map_err(malformed(position))
}

fn check_keys_differ(fields: &[(&str, Value<'_>)]) -> Result<(), WireError> {
    // Honest maps are small, and comparing all pairs of a few is faster than sorting them.
    let repeats = if fields.len() <= 8 {
        (1..fields.len()).any(|end| fields[..end].iter().any(|(key, _)| *key == fields[end].0))
    } else {
        let mut keys: Vec<&str> = fields.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.windows(2).any(|pair| pair[0] == pair[1])
    };
    if repeats { Err(WireError::DuplicateKey) } else { Ok(()) }
}

/// Appends the start of a map of `count` entries.
pub(super) fn write_map(out: &mut Vec<u8>, count: usize) {
    write_head(out, MAJOR_MAP, count as u64);
}

/// Appends the start of an array of `count` elements.
pub(super) fn write_array(out: &mut Vec<u8>, count: usize) {
    write_head(out, MAJOR_ARRAY, count as u64);
}

/// Appends a text string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, MAJOR_TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a byte string, without tag.
pub(super) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_head(out, MAJOR_BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a boolean.
pub(super) fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xf5 } else { 0xf4 });
}

/// Appends a float of 64 bits.
pub(super) fn write_float(out: &mut Vec<u8>, value: f64) {
    out.push(0xfb);
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a number as JavaScript does: an integer below 2³², a float above. A 64-bit integer would arrive there as a
/// BigInt, which is not comparable with numbers everywhere.
pub(super) fn write_number(out: &mut Vec<u8>, value: u64) {
    match u32::try_from(value) {
        Ok(small) => write_head(out, MAJOR_UINT, u64::from(small)),
        Err(_) => write_float(out, value as f64),
    }
}

fn write_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    let [.., third, second, first, zeroth] = value.to_be_bytes();
    match value {
        0..24 => out.push(major | zeroth),
        24..0x100 => out.extend_from_slice(&[major | 24, zeroth]),
        0x100..0x1_0000 => out.extend_from_slice(&[major | 25, first, zeroth]),
        0x1_0000..0x1_0000_0000 => out.extend_from_slice(&[major | 26, third, second, first, zeroth]),
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

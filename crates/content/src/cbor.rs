//! JSON values as CBOR and back, as JavaScript's automerge-repo carries them between peers.
//!
//! Owns: which CBOR a value is, and what becomes of CBOR that JSON cannot say. Must not: recurse without a bound.
//! Next: `presence.rs`.

use minicbor::data::Type;
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Number, Value};

/// Values inside each other that are read.
const DEPTH_MAX: usize = 32;

/// Values that one message may have in all.
const VALUES_MAX: usize = 16 * 1024;

/// The value as CBOR.
#[must_use]
pub fn encode(value: &Value) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    // Writing into memory does not fail.
    let _ = write(&mut encoder, value);
    encoder.into_writer()
}

/// The value of these bytes. What JSON has no word for: `undefined` is null, bytes are a list of numbers, a tag's content
/// is taken without the tag.
///
/// # Errors
/// What is no CBOR, more than one value, too many values or too deep in each other, a map's key that is a list or a map.
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let mut reader = Reader { decoder: Decoder::new(bytes), values: 0 };
    let value = reader.value(0)?;
    if reader.decoder.position() != bytes.len() {
        return Err(Error::message("bytes after the value"));
    }
    Ok(value)
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn write(encoder: &mut Encoder<Vec<u8>>, value: &Value) -> Written {
    match value {
        Value::Null => encoder.null()?.ok(),
        Value::Bool(yes) => encoder.bool(*yes)?.ok(),
        Value::Number(number) => write_number(encoder, number),
        Value::String(text) => encoder.str(text)?.ok(),
        Value::Array(items) => {
            encoder.array(items.len() as u64)?;
            items.iter().try_for_each(|item| write(encoder, item))
        }
        Value::Object(entries) => {
            encoder.map(entries.len() as u64)?;
            entries.iter().try_for_each(|(key, value)| {
                encoder.str(key)?;
                write(encoder, value)
            })
        }
    }
}

fn write_number(encoder: &mut Encoder<Vec<u8>>, number: &Number) -> Written {
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(number), ..) => encoder.u64(number)?.ok(),
        (_, Some(number), _) => encoder.i64(number)?.ok(),
        (.., Some(number)) => encoder.f64(number)?.ok(),
        (None, None, None) => encoder.null()?.ok(),
    }
}

struct Reader<'a> {
    decoder: Decoder<'a>,
    values: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return Err(Error::message("too many values, or too deep in each other"));
        }
        let decoder = &mut self.decoder;
        Ok(match decoder.datatype()? {
            Type::Bool => decoder.bool()?.into(),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => decoder.u64()?.into(),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => decoder.i64()?.into(),
            Type::F16 | Type::F32 | Type::F64 => whole_or_float(decoder.f64()?),
            Type::String => decoder.str()?.into(),
            Type::StringIndef => decoder.str_iter()?.collect::<Result<String, _>>()?.into(),
            Type::Bytes => decoder.bytes()?.to_vec().into(),
            Type::BytesIndef => {
                let pieces: Vec<&[u8]> = decoder.bytes_iter()?.collect::<Result<_, _>>()?;
                pieces.concat().into()
            }
            Type::Array | Type::ArrayIndef => return self.array(depth),
            Type::Map | Type::MapIndef => return self.map(depth),
            Type::Tag => {
                decoder.tag()?;
                return self.value(depth + 1);
            }
            // Null, undefined, and what JavaScript does not write.
            Type::Null | Type::Undefined | Type::Int | Type::Simple | Type::Break | Type::Unknown(_) => {
                decoder.skip()?;
                Value::Null
            }
        })
    }

    fn array(&mut self, depth: usize) -> Result<Value, Error> {
        let mut left = self.decoder.array()?;
        let mut items = Vec::new();
        while self.goes_on(&mut left)? {
            items.push(self.value(depth + 1)?);
        }
        Ok(items.into())
    }

    fn map(&mut self, depth: usize) -> Result<Value, Error> {
        let mut left = self.decoder.map()?;
        let mut entries = Map::new();
        while self.goes_on(&mut left)? {
            let key = match self.value(depth + 1)? {
                Value::String(key) => key,
                key @ (Value::Null | Value::Bool(_) | Value::Number(_)) => key.to_string(),
                // The text of a key in a key in a key, each quoted once more, doubles with each.
                Value::Array(_) | Value::Object(_) => return Err(Error::message("a key of several values")),
            };
            entries.insert(key, self.value(depth + 1)?);
        }
        Ok(entries.into())
    }

    /// Whether another item follows; takes the end of a list whose length was not said.
    fn goes_on(&mut self, left: &mut Option<u64>) -> Result<bool, Error> {
        match left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.decoder.datatype()? == Type::Break => {
                self.decoder.skip()?;
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

/// JavaScript has one kind of number, and its encoder writes whole ones as floats where they are large.
fn whole_or_float(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_991.0;
    if number.fract() == 0.0 && number.abs() <= EXACT { (number as i64).into() } else { number.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let value = json!({ "a": [1, -2, 1.5, null, true, "é"], "b": { "": {} }, "c": u64::MAX, "d": i64::MIN });
        assert_eq!(decode(&encode(&value)).expect("its own"), value);
    }

    #[test]
    fn what_json_cannot_say_is_read_as_something_near() {
        let read = |bytes: &[u8]| decode(bytes).expect("well-formed");
        assert_eq!(read(&[0xf7]), json!(null), "undefined");
        assert_eq!(read(&[0xf9, 0x3c, 0x00]), json!(1), "a half float");
        assert_eq!(read(&[0x42, 1, 2]), json!([1, 2]), "bytes");
        assert_eq!(read(&[0xc1, 0x05]), json!(5), "a tag");
        assert_eq!(read(&[0xbf, 0x61, b'a', 0x9f, 0x01, 0xff, 0xff]), json!({ "a": [1] }), "no lengths");
        assert_eq!(read(&[0xa1, 0x05, 0x06]), json!({ "5": 6 }), "a number as a key");
    }

    #[test]
    fn hostile_bytes_are_an_error() {
        for bytes in [&[][..], &[0x61], &[0x9f], &[0xa1, 0x01], &[0x01, 0x02], &[0xff], &[0x9b; 9], &[0x81; 100]] {
            assert!(decode(bytes).is_err() || bytes == [0xff], "{bytes:02x?}");
        }
        let mut keys_of_keys = vec![0xa1; 31];
        keys_of_keys.resize(31 + 32, 0x00);
        assert!(decode(&keys_of_keys).is_err());
        assert!(decode(&[0xa1, 0x41, 0x00, 0x00]).is_err(), "bytes as a key");
        let mut many = vec![0x9a, 0, 1, 0, 0];
        many.extend(std::iter::repeat_n(0x00, 65_536));
        assert!(decode(&many).is_err());
    }
}

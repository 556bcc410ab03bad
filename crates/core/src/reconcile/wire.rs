//! The bytes of a round: negentropy's protocol V1, and the two messages about sketches beside it.
//!
//! Owns: numbers, bounds, ranges, symbols; what can be refused without a set. Must not: know a set.
//! Next: `ranges.rs`, `sketch.rs`; docs/protocol.md §10.

use super::sketch::{Symbol, expected};
use super::{Element, ReconcileError};
use crate::clock::Stamp;

/// The first byte of a message of negentropy's protocol V1. All its versions lie in 0x60 to 0x6f.
pub(super) const VERSION: u8 = 0x61;
const SKETCH_ASK: u8 = 1;
const SKETCH_SYMBOLS: u8 = 2;

/// Largest message that is read. Peers are told to send less; what is read bounds what reading costs.
pub(super) const RECEIVED_BYTES_MAX: usize = 256 * 1024;

const MODE_SKIP: u64 = 0;
const MODE_FINGERPRINT: u64 = 1;
const MODE_LIST: u64 = 2;

/// Most bytes of a symbol: three fixed fields, and a count.
pub(super) const SYMBOL_BYTES_MAX: usize = 8 + 16 + 8 + 10;

/// Where a range ends: before this element, of which so many bytes of the digest travel. The last stamp of all is
/// the end of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) element: Element,
    prefix_bytes: usize,
}

impl Bound {
    pub(super) const END: Self =
        Self { element: Element { stamp: Stamp::from_u64(u64::MAX), digest: [0; 32] }, prefix_bytes: 0 };

    /// Before this very element.
    pub(super) fn before(element: Element) -> Self {
        Self { element, prefix_bytes: 32 }
    }

    /// The shortest that lies between two neighbours.
    pub(super) fn between(lower: &Element, upper: &Element) -> Self {
        let prefix_bytes = if lower.stamp == upper.stamp {
            let same = lower.digest.iter().zip(&upper.digest).take_while(|(one, other)| one == other);
            same.count() + 1
        } else {
            0
        };
        let mut element = Element { stamp: upper.stamp, digest: [0; 32] };
        element.digest[..prefix_bytes].copy_from_slice(&upper.digest[..prefix_bytes]);
        Self { element, prefix_bytes }
    }
}

/// What a message says of a range.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Skip,
    Fingerprint([u8; 16]),
    /// Digests, 32 bytes each.
    List(&'a [u8]),
}

#[derive(Debug)]
pub(super) struct Range<'a> {
    pub(super) end: Bound,
    pub(super) content: Content<'a>,
}

/// A message, as far as its first byte and what follows it say.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    Ranges(Ranges<'a>),
    Ask { from: u64, to: u64 },
    Symbols(Vec<Symbol>, u64),
}

pub(super) fn decode(message: &[u8]) -> Result<Incoming<'_>, ReconcileError> {
    if message.len() > RECEIVED_BYTES_MAX {
        return Err(ReconcileError::TooLarge(message.len()));
    }
    let (kind, mut rest) = message.split_first().ok_or(ReconcileError::Truncated)?;
    match *kind {
        VERSION => Ok(Incoming::Ranges(Ranges { rest, end: Element::MIN, stamp: 0 })),
        version @ 0x60..=0x6f => Err(ReconcileError::Version(version)),
        SKETCH_ASK => {
            let (from, to) = (take_number(&mut rest)?, take_number(&mut rest)?);
            Ok(Incoming::Ask { from, to })
        }
        SKETCH_SYMBOLS => take_symbols(rest),
        _ => Err(ReconcileError::OutOfTurn),
    }
}

/// The ranges of a message, read one at a time.
#[derive(Debug)]
pub(super) struct Ranges<'a> {
    rest: &'a [u8],
    end: Element,
    stamp: u64,
}

impl<'a> Ranges<'a> {
    pub(super) fn next(&mut self) -> Result<Option<Range<'a>>, ReconcileError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.end.stamp == Bound::END.element.stamp {
            return Err(ReconcileError::Unordered);
        }
        let end = self.take_bound()?;
        if end.element < self.end {
            return Err(ReconcileError::Unordered);
        }
        self.end = end.element;
        let content = match take_number(&mut self.rest)? {
            MODE_SKIP => Content::Skip,
            MODE_FINGERPRINT => Content::Fingerprint(take_array(&mut self.rest)?),
            MODE_LIST => {
                let count = take_number(&mut self.rest)?;
                let bytes = count.checked_mul(32).and_then(|bytes| usize::try_from(bytes).ok());
                Content::List(take(&mut self.rest, bytes.ok_or(ReconcileError::Truncated)?)?)
            }
            mode => return Err(ReconcileError::Mode(mode)),
        };
        Ok(Some(Range { end, content }))
    }

    fn take_bound(&mut self) -> Result<Bound, ReconcileError> {
        let step = take_number(&mut self.rest)?;
        let stamp = match step {
            0 => u64::MAX,
            _ => self.stamp.checked_add(step - 1).ok_or(ReconcileError::Number)?,
        };
        self.stamp = stamp;
        let length = take_number(&mut self.rest)?;
        let prefix_bytes = usize::try_from(length).ok().filter(|length| *length <= 32);
        let prefix_bytes = prefix_bytes.ok_or(ReconcileError::Prefix(length))?;
        let mut element = Element { stamp: Stamp::from_u64(stamp), digest: [0; 32] };
        element.digest[..prefix_bytes].copy_from_slice(take(&mut self.rest, prefix_bytes)?);
        Ok(Bound { element, prefix_bytes })
    }
}

/// Ranges on their way out.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    stamp: u64,
}

/// How far a writer had come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    length: usize,
    stamp: u64,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![VERSION], stamp: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { length: self.bytes.len(), stamp: self.stamp }
    }

    /// Takes back what was written since.
    pub(super) fn rewind(&mut self, mark: Mark) {
        self.bytes.truncate(mark.length);
        self.stamp = mark.stamp;
    }

    pub(super) fn skip(&mut self, end: &Bound) {
        self.range(end, MODE_SKIP);
    }

    pub(super) fn fingerprint(&mut self, end: &Bound, fingerprint: [u8; 16]) {
        self.range(end, MODE_FINGERPRINT);
        self.bytes.extend_from_slice(&fingerprint);
    }

    pub(super) fn list(&mut self, end: &Bound, elements: &[Element]) {
        self.range(end, MODE_LIST);
        put_number(&mut self.bytes, elements.len() as u64);
        for element in elements {
            self.bytes.extend_from_slice(&element.digest);
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn range(&mut self, end: &Bound, mode: u64) {
        let stamp = end.element.stamp.as_u64();
        if stamp == u64::MAX {
            put_number(&mut self.bytes, 0);
        } else {
            put_number(&mut self.bytes, 1 + stamp - self.stamp);
        }
        self.stamp = stamp;
        put_number(&mut self.bytes, end.prefix_bytes as u64);
        self.bytes.extend_from_slice(&end.element.digest[..end.prefix_bytes]);
        put_number(&mut self.bytes, mode);
    }
}

/// Asks for the symbols of the peer's sketch in this half-open range.
pub(super) fn encode_ask(from: u64, to: u64) -> Vec<u8> {
    let mut bytes = vec![SKETCH_ASK];
    put_number(&mut bytes, from);
    put_number(&mut bytes, to);
    bytes
}

/// These symbols of a sketch of so many elements.
pub(super) fn encode_symbols(from: u64, size: u64, symbols: &[Symbol]) -> Vec<u8> {
    let mut bytes = vec![SKETCH_SYMBOLS];
    put_number(&mut bytes, from);
    put_number(&mut bytes, size);
    for (index, symbol) in (from..).zip(symbols) {
        bytes.extend_from_slice(&symbol.stamp.to_be_bytes());
        bytes.extend_from_slice(&symbol.digest[0].to_be_bytes());
        bytes.extend_from_slice(&symbol.digest[1].to_be_bytes());
        bytes.extend_from_slice(&symbol.check.to_be_bytes());
        // What lies near to what is expected takes two bytes, however large the set.
        let beyond = symbol.count.wrapping_sub(expected(size, index));
        put_number(&mut bytes, (beyond.wrapping_shl(1) ^ (beyond >> 63)) as u64);
    }
    bytes
}

fn take_symbols(mut rest: &[u8]) -> Result<Incoming<'_>, ReconcileError> {
    let (from, size) = (take_number(&mut rest)?, take_number(&mut rest)?);
    let mut symbols = Vec::new();
    let mut index = from;
    while !rest.is_empty() {
        let stamp = u64::from_be_bytes(take_array(&mut rest)?);
        let digest = [u64::from_be_bytes(take_array(&mut rest)?), u64::from_be_bytes(take_array(&mut rest)?)];
        let check = u64::from_be_bytes(take_array(&mut rest)?);
        let folded = take_number(&mut rest)?;
        let beyond = (folded >> 1) as i64 ^ -((folded & 1) as i64);
        let count = expected(size, index).wrapping_add(beyond);
        symbols.push(Symbol { stamp, digest, check, count });
        index = index.checked_add(1).ok_or(ReconcileError::Number)?;
    }
    Ok(Incoming::Symbols(symbols, from))
}

/// Base 128, most significant first, each byte but the last with its top bit.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    let digits = (64 - number.leading_zeros()).div_ceil(7).max(1);
    for digit in (0..digits).rev() {
        let more = if digit > 0 { 0x80 } else { 0 };
        out.push((number >> (7 * digit) & 0x7f) as u8 | more);
    }
}

fn take_number(rest: &mut &[u8]) -> Result<u64, ReconcileError> {
    let mut number = 0_u64;
    loop {
        let [byte] = take_array(rest)?;
        if number > u64::MAX >> 7 {
            return Err(ReconcileError::Number);
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ReconcileError> {
    let (array, behind) = rest.split_first_chunk().ok_or(ReconcileError::Truncated)?;
    *rest = behind;
    Ok(*array)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ReconcileError> {
    let (bytes, behind) = rest.split_at_checked(length).ok_or(ReconcileError::Truncated)?;
    *rest = behind;
    Ok(bytes)
}

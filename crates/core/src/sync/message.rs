//! The automerge sync message, versions 1 and 2: bytes to values and back.
//!
//! Owns: the message layout, its flags, the bounds on its counts.
//! Must not: look inside changes or Bloom filters; whoever needs them decodes them.
//! Next: `bloom.rs`, `../sync.rs`, `../chunk.rs`; docs/protocol.md, "Sync messages".

use automerge::ChangeHash;
use bytes::Bytes;

use crate::limits::Limits;

/// The shortest whole chunk: magic, checksum, type and a length of one byte.
const CHUNK_BYTES_MIN: usize = 10;

const HASH_BYTES: usize = 32;

/// The flag byte that says "version 2 is understood" to versions of automerge that know no other flag.
const LEGACY_V2_FLAG: u8 = 0x02;

/// Marks the flag byte whose other bits are the flags.
const FLAG_BITS_MARKER: u8 = 0x80;

const FLAG_RESET: u8 = 1;
const FLAG_READ_ONLY: u8 = 1 << 1;
const FLAG_SUPPORTS_RESET: u8 = 1 << 2;

/// What one replica tells another about one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How the sender packed the changes; it does not restrict what a receiver must accept.
    pub version: Version,
    /// The sender's heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// Changes that the sender asks for by name, sorted.
    pub need: Vec<ChangeHash>,
    /// What the sender holds; empty while it waits for what it needs.
    pub have: Vec<Have>,
    /// Changes for the receiver: each element is one or several whole chunks, one after the other.
    pub changes: Vec<Bytes>,
    /// Signals and capabilities. Their presence alone says that the sender understands version 2.
    pub flags: Option<Flags>,
}

impl Message {
    /// Reads a message. Changes and Bloom filters stay slices of `bytes`; hash lists come out sorted and without
    /// repetition; empty elements of `changes` are dropped. Like automerge, ignores what follows the flags.
    ///
    /// # Errors
    /// [`MessageError`] when the bytes are no sync message, are cut, or hold more than the limits allow.
    pub fn decode(bytes: Bytes, limits: &Limits) -> Result<Self, MessageError> {
        let mut reader = Reader { bytes: &bytes, position: 0 };
        let version = Version::from_byte(reader.byte("version")?)?;
        let heads = reader.hashes("heads", limits)?;
        let need = reader.hashes("need", limits)?;
        let have = reader.have(limits)?;
        let changes = reader.changes()?;
        let flags = if reader.is_empty() { None } else { Some(Flags::from_bytes(&reader.prefixed("flags")?)) };
        Ok(Self { version, heads, need, have, changes, flags })
    }

    /// Appends the message, byte for byte as automerge writes it. The hash lists must be sorted.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_bytes_about());
        out.push(self.version.byte());
        encode_hashes(out, &self.heads);
        encode_hashes(out, &self.need);
        write_length(out, self.have.len());
        for have in &self.have {
            encode_hashes(out, &have.last_sync);
            encode_prefixed(out, &have.bloom);
        }
        write_length(out, self.changes.len());
        for change in &self.changes {
            encode_prefixed(out, change);
        }
        if let Some(flags) = self.flags {
            out.extend_from_slice(&[2, LEGACY_V2_FLAG, FLAG_BITS_MARKER | flags.bits()]);
        }
    }

    fn encoded_bytes_about(&self) -> usize {
        let have: usize = self.have.iter().map(|have| 16 + have.last_sync.len() * HASH_BYTES + have.bloom.len()).sum();
        let changes: usize = self.changes.iter().map(|change| 5 + change.len()).sum();
        32 + (self.heads.len() + self.need.len()) * HASH_BYTES + have + changes
    }
}

/// How a sender packed the changes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// Each change a chunk of its own.
    V1,
    /// One element of concatenated changes, or a whole document.
    V2,
}

impl Version {
    fn from_byte(byte: u8) -> Result<Self, MessageError> {
        match byte {
            0x42 => Ok(Self::V1),
            0x43 => Ok(Self::V2),
            found => Err(MessageError::UnknownVersion { found }),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::V1 => 0x42,
            Self::V2 => 0x43,
        }
    }
}

/// A summary of what the sender holds: everything up to `last_sync`, and what the filter contains since.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Have {
    /// Heads that both sides held when they last agreed, sorted.
    pub last_sync: Vec<ChangeHash>,
    /// The encoded Bloom filter of the changes since; undecoded, because a receiver that knows the sender's heads
    /// does not need it. See [`Bloom`](super::bloom::Bloom).
    pub bloom: Bytes,
}

/// Signals about one message and capabilities of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags {
    /// Forget what was sent before and start over.
    pub reset: bool,
    /// The sender applies nothing that it receives.
    pub read_only: bool,
    /// The sender obeys `reset`.
    pub supports_reset: bool,
}

impl Flags {
    /// Reads the flag section. Bytes without the marker are of an older form, whose only meaning is their presence.
    fn from_bytes(bytes: &[u8]) -> Self {
        let bits = bytes.iter().filter(|&byte| byte & FLAG_BITS_MARKER != 0).fold(0, |bits, byte| bits | byte);
        Self {
            reset: bits & FLAG_RESET != 0,
            read_only: bits & FLAG_READ_ONLY != 0,
            supports_reset: bits & FLAG_SUPPORTS_RESET != 0,
        }
    }

    fn bits(self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.reset, FLAG_RESET)
            | bit(self.read_only, FLAG_READ_ONLY)
            | bit(self.supports_reset, FLAG_SUPPORTS_RESET)
    }
}

/// A position in a message. Each step names the part it reads, so that an error says where the message was cut.
struct Reader<'a> {
    bytes: &'a Bytes,
    position: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.position..]
    }

    fn is_empty(&self) -> bool {
        self.position == self.bytes.len()
    }

    fn byte(&mut self, part: &'static str) -> Result<u8, MessageError> {
        let byte = *self.rest().first().ok_or(MessageError::Truncated { part })?;
        self.position += 1;
        Ok(byte)
    }

    /// The next count, which must leave at least `element_bytes_min` bytes of input for each element.
    fn count(&mut self, part: &'static str, element_bytes_min: usize) -> Result<usize, MessageError> {
        let (number, length) = read_leb128(self.rest()).map_err(|error| error.in_part(part))?;
        self.position += length;
        let count = usize::try_from(number).map_err(|_| MessageError::Truncated { part })?;
        if count > self.rest().len() / element_bytes_min {
            return Err(MessageError::Truncated { part });
        }
        Ok(count)
    }

    fn prefixed(&mut self, part: &'static str) -> Result<Bytes, MessageError> {
        let length = self.count(part, 1)?;
        let start = self.position;
        self.position += length;
        Ok(self.bytes.slice(start..self.position))
    }

    fn hashes(&mut self, part: &'static str, limits: &Limits) -> Result<Vec<ChangeHash>, MessageError> {
        let count = self.count(part, HASH_BYTES)?;
        check_count(part, count, limits)?;
        let (block, _) = self.rest().split_at(count * HASH_BYTES);
        let (hashes, _) = block.as_chunks::<HASH_BYTES>();
        let mut hashes: Vec<ChangeHash> = hashes.iter().copied().map(ChangeHash).collect();
        self.position += count * HASH_BYTES;
        // Senders sort; sorted input costs one comparison an element here.
        hashes.sort_unstable();
        hashes.dedup();
        Ok(hashes)
    }

    fn have(&mut self, limits: &Limits) -> Result<Vec<Have>, MessageError> {
        // A count of hashes and a length of bytes are the least that an element takes.
        let count = self.count("have", 2)?;
        check_count("have", count, limits)?;
        let mut have = Vec::with_capacity(count);
        for _ in 0..count {
            have.push(Have { last_sync: self.hashes("last_sync", limits)?, bloom: self.prefixed("bloom")? });
        }
        Ok(have)
    }

    fn changes(&mut self) -> Result<Vec<Bytes>, MessageError> {
        let count = self.count("changes", 1)?;
        // Not reserved by the announced count: only elements that hold a chunk are kept, and those pay for their place.
        let mut changes = Vec::new();
        for _ in 0..count {
            let change = self.prefixed("changes")?;
            match change.len() {
                0 => {}
                1..CHUNK_BYTES_MIN => return Err(MessageError::ChunkTooShort { bytes: change.len() }),
                _ => changes.push(change),
            }
        }
        Ok(changes)
    }
}

fn check_count(part: &'static str, count: usize, limits: &Limits) -> Result<(), MessageError> {
    if count > limits.message_hashes_max {
        return Err(MessageError::TooMany { part, count, count_max: limits.message_hashes_max });
    }
    Ok(())
}

fn encode_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    debug_assert!(hashes.is_sorted(), "receivers compare hash lists as sorted lists");
    write_length(out, hashes.len());
    for hash in hashes {
        out.extend_from_slice(&hash.0);
    }
}

fn encode_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    write_leb128(out, length as u64);
}

/// Appends a number in unsigned LEB128.
pub(crate) fn write_leb128(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        let [low, ..] = number.to_le_bytes();
        out.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    out.push(low);
}

/// Reads an unsigned LEB128 number and the bytes it took. Refuses what automerge refuses: superfluous zero bytes, and
/// numbers beyond 64 bits.
pub(crate) fn read_leb128(bytes: &[u8]) -> Result<(u64, usize), Leb128Error> {
    let mut number = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 != 0 {
            continue;
        }
        let overlong = index > 0 && byte == 0;
        let too_large = index == 9 && byte > 1;
        return if overlong || too_large { Err(Leb128Error::Malformed) } else { Ok((number, index + 1)) };
    }
    Err(if bytes.len() < 10 { Leb128Error::Truncated } else { Leb128Error::Malformed })
}

/// Why bytes are not an unsigned LEB128 number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leb128Error {
    /// The bytes end inside the number.
    Truncated,
    /// The number is longer than needed or beyond 64 bits.
    Malformed,
}

impl Leb128Error {
    fn in_part(self, part: &'static str) -> MessageError {
        match self {
            Self::Truncated => MessageError::Truncated { part },
            Self::Malformed => MessageError::BadNumber { part },
        }
    }
}

/// Why bytes are refused as a sync message. A stock peer logs such a message and keeps the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The first byte names a version that does not exist yet. **State:** nothing changed. **Do:** ignore the message
    /// and count it; if the sender is newer, upgrade.
    #[error("0x{found:02x} is no version of a sync message")]
    UnknownVersion {
        /// The byte found.
        found: u8,
    },
    /// The message ends early, or a count is larger than the rest could hold. **State:** nothing changed. **Do:**
    /// ignore the message and count it.
    #[error("the sync message ends inside its {part}")]
    Truncated {
        /// The part that is cut.
        part: &'static str,
    },
    /// A number is longer than needed or beyond 64 bits. **State:** nothing changed. **Do:** ignore the message and
    /// count it.
    #[error("a number in the sync message's {part} is malformed")]
    BadNumber {
        /// The part that holds it.
        part: &'static str,
    },
    /// A list is longer than the limit. **State:** nothing changed. **Do:** raise `message_hashes_max` if the document
    /// honestly has so many heads.
    #[error("the sync message lists {count} {part}; at most {count_max} are accepted")]
    TooMany {
        /// The list.
        part: &'static str,
        /// Elements announced.
        count: usize,
        /// Elements accepted.
        count_max: usize,
    },
    /// An element of the changes is shorter than any chunk. **State:** nothing changed. **Do:** ignore the message and
    /// count it.
    #[error("the sync message holds a change of {bytes} bytes, less than a chunk's header")]
    ChunkTooShort {
        /// Length of the element, bytes.
        bytes: usize,
    },
}

impl MessageError {
    /// A short label for counters and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownVersion { .. } => "message_unknown_version",
            Self::Truncated { .. } => "message_truncated",
            Self::BadNumber { .. } => "message_bad_number",
            Self::TooMany { .. } => "message_too_many",
            Self::ChunkTooShort { .. } => "message_chunk_too_short",
        }
    }
}

#[cfg(test)]
mod tests;

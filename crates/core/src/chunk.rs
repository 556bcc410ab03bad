//! Chunks: the outermost layer of automerge's storage format.
//!
//! Owns: magic bytes, kinds, lengths, checksums and bounded inflation. Must not: look into a chunk's body.
//! Next: `change.rs`, `document.rs`; `chunk/reader.rs`, `chunk/runs.rs`.
//!
//! A chunk is `85 6f 4a 83`, four bytes of checksum, one byte of kind, the body's length as LEB128, the body. The
//! hash of a chunk is SHA-256 of kind, length and body, and the checksum is its first four bytes. Source: the
//! automerge binary format specification, "Chunks".

pub(crate) mod reader;
pub(crate) mod runs;

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::ChangeHash;
use bytes::{BufMut, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use sha2::{Digest, Sha256};

use reader::{Damage, Reader};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHECKSUM_BYTES: usize = 4;

/// Inflation grows its buffer by at least this much.
const INFLATE_BLOCK_BYTES: usize = 16 * 1024;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChunkKind {
    /// A whole document in columns.
    Document,
    /// One change.
    Change,
    /// One change, deflated; its checksum is that of the inflated change.
    CompressedChange,
    /// Several changes in shared columns.
    Bundle,
}

impl ChunkKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Document),
            1 => Some(Self::Change),
            2 => Some(Self::CompressedChange),
            3 => Some(Self::Bundle),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Document => 0,
            Self::Change => 1,
            Self::CompressedChange => 2,
            Self::Bundle => 3,
        }
    }

    /// The kind in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Change => "change",
            Self::CompressedChange => "compressed change",
            Self::Bundle => "bundle",
        }
    }
}

/// One chunk, as it stood in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What it holds.
    pub kind: ChunkKind,
    /// The whole chunk with its header.
    pub bytes: Bytes,
    /// The bytes after the header.
    pub body: Bytes,
    /// The checksum found in the header; not yet compared.
    pub checksum: [u8; 4],
}

impl Chunk {
    /// Reads the first chunk of `bytes`.
    ///
    /// # Errors
    /// [`ChunkError`] when there is none, or it is cut off.
    pub fn first(bytes: &Bytes) -> Result<Self, ChunkError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.take(MAGIC.len()).map_err(|_| ChunkError::Truncated)?;
        if magic != MAGIC {
            return Err(ChunkError::NotAChunk);
        }
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(reader.take(CHECKSUM_BYTES).map_err(|_| ChunkError::Truncated)?);
        let byte = reader.byte().map_err(|_| ChunkError::Truncated)?;
        let kind = ChunkKind::from_byte(byte).ok_or(ChunkError::UnknownKind { kind: byte })?;
        let length = reader.unsigned().map_err(|damage| {
            if damage == Damage::Truncated { ChunkError::Truncated } else { ChunkError::BadLength }
        })?;
        let header_bytes = bytes.len() - reader.len();
        if length > reader.len() as u64 {
            return Err(ChunkError::Truncated);
        }
        let end = header_bytes + length as usize;
        Ok(Self { kind, bytes: bytes.slice(..end), body: bytes.slice(header_bytes..end), checksum })
    }

    /// The chunk's own hash, computed from its kind and body. A change's identity is the hash of its uncompressed chunk.
    #[must_use]
    pub fn hash(&self) -> ChangeHash {
        let mut prefix = [0; 11];
        prefix[0] = self.kind.byte();
        let length = write_unsigned(self.body.len() as u64, &mut prefix[1..]);
        let digest = Sha256::new().chain_update(&prefix[..=length]).chain_update(&self.body).finalize();
        ChangeHash(digest.into())
    }

    /// The change chunk inside of a compressed one, its checksum copied and not yet compared.
    ///
    /// # Errors
    /// [`ChunkError`] when the body is not one deflate stream or inflates beyond `bytes_max`.
    pub(crate) fn inflated(&self, bytes_max: usize) -> Result<Self, ChunkError> {
        let body = inflate(&self.body, bytes_max)?;
        let mut length = [0; 10];
        let length_bytes = write_unsigned(body.len() as u64, &mut length);
        let header_bytes = MAGIC.len() + CHECKSUM_BYTES + 1 + length_bytes;
        let mut bytes = Vec::with_capacity(header_bytes + body.len());
        bytes.put_slice(&MAGIC);
        bytes.put_slice(&self.checksum);
        bytes.put_u8(ChunkKind::Change.byte());
        bytes.put_slice(&length[..length_bytes]);
        bytes.put_slice(&body);
        let bytes = Bytes::from(bytes);
        Ok(Self { kind: ChunkKind::Change, body: bytes.slice(header_bytes..), bytes, checksum: self.checksum })
    }
}

/// Splits concatenated chunks; the chunks are slices of the input. Stops at the first error.
#[must_use]
pub fn split(bytes: Bytes) -> Chunks {
    Chunks { rest: bytes }
}

/// The chunks of some bytes, in order; see [`split`].
#[derive(Debug, Clone)]
pub struct Chunks {
    rest: Bytes,
}

impl Iterator for Chunks {
    type Item = Result<Chunk, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let first = Chunk::first(&self.rest);
        match &first {
            Ok(chunk) => self.rest = self.rest.slice(chunk.bytes.len()..),
            Err(_) => self.rest = Bytes::new(),
        }
        Some(first)
    }
}

/// Inflates raw deflate (RFC 1951) within a bound. Never allocates more than the bound and one block.
///
/// # Errors
/// [`ChunkError::TooLarge`] above `bytes_max`, [`ChunkError::NotDeflate`] when `body` is not exactly one stream.
pub fn inflate(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, ChunkError> {
    let mut inflater = Decompress::new(false);
    let mut output: Vec<u8> = Vec::new();
    loop {
        if output.len() == output.capacity() {
            if output.len() > bytes_max {
                return Err(ChunkError::TooLarge { bytes_max });
            }
            let growth = output.len().max(body.len().saturating_mul(2)).max(INFLATE_BLOCK_BYTES);
            output.reserve_exact(growth.min(bytes_max - output.len() + INFLATE_BLOCK_BYTES));
        }
        let consumed = inflater.total_in() as usize;
        let produced = inflater.total_out();
        let status = inflater
            .decompress_vec(&body[consumed..], &mut output, FlushDecompress::None)
            .map_err(|_| ChunkError::NotDeflate)?;
        let stuck = inflater.total_in() as usize == consumed && inflater.total_out() == produced;
        match status {
            Status::StreamEnd => break,
            // Room was left and nothing moved: the stream is cut off.
            Status::Ok | Status::BufError if stuck && output.len() < output.capacity() => {
                return Err(ChunkError::NotDeflate);
            }
            Status::Ok | Status::BufError => {}
        }
    }
    if output.len() > bytes_max {
        return Err(ChunkError::TooLarge { bytes_max });
    }
    if inflater.total_in() as usize != body.len() {
        return Err(ChunkError::NotDeflate);
    }
    Ok(output)
}

/// Runs a dependency's code on bytes that a peer chose; `None` when it panicked.
///
/// Nothing that the closure could leave half changed is used after a panic: it only borrows bytes.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

fn write_unsigned(mut value: u64, out: &mut [u8]) -> usize {
    let mut length = 0;
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        out[length] = if value == 0 { low } else { low | 0x80 };
        length += 1;
        if value == 0 {
            return length;
        }
    }
}

/// Why bytes are not chunks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes do not begin with automerge's magic bytes. **State:** nothing was kept. **Do:** send automerge data.
    #[error("these bytes are not automerge data")]
    NotAChunk,
    /// The bytes end inside of a chunk. **State:** nothing was kept. **Do:** send the chunk again, whole.
    #[error("the automerge data is cut off")]
    Truncated,
    /// A chunk kind of a later format. **State:** nothing was kept. **Do:** update this program.
    #[error("automerge chunk kind {kind} is not known here")]
    UnknownKind {
        /// The kind found.
        kind: u8,
    },
    /// The length field is no minimal LEB128 number. **State:** nothing was kept. **Do:** repair the sender.
    #[error("a chunk's length field is malformed")]
    BadLength,
    /// The compressed body is not exactly one deflate stream. **State:** nothing was kept. **Do:** send it again.
    #[error("compressed data is damaged")]
    NotDeflate,
    /// The compressed body inflates beyond the bound. **State:** nothing was kept. **Do:** raise the limit if the data
    /// is honest.
    #[error("compressed data inflates to more than {bytes_max} bytes")]
    TooLarge {
        /// The bound, bytes.
        bytes_max: usize,
    },
}

impl ChunkError {
    /// A short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotAChunk => "chunk_not_automerge",
            Self::Truncated => "chunk_truncated",
            Self::UnknownKind { .. } => "chunk_unknown_kind",
            Self::BadLength => "chunk_bad_length",
            Self::NotDeflate => "chunk_not_deflate",
            Self::TooLarge { .. } => "chunk_inflates_too_large",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 2, 3, 4, kind, body.len() as u8]);
        bytes.extend(body);
        bytes
    }

    fn deflate(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    }

    #[test]
    fn concatenated_chunks_come_apart_without_copies() {
        let joined = Bytes::from([chunk(1, b"one"), chunk(0, b""), chunk(3, b"three")].concat());
        let chunks: Vec<_> = split(joined.clone()).collect::<Result<_, _>>().expect("three chunks");
        let kinds: Vec<_> = chunks.iter().map(|chunk| chunk.kind).collect();
        assert_eq!(kinds, [ChunkKind::Change, ChunkKind::Document, ChunkKind::Bundle]);
        assert_eq!(chunks[2].body, &b"three"[..]);
        assert_eq!(chunks[0].checksum, [1, 2, 3, 4]);
        assert_eq!(chunks[2].bytes.as_ptr_range().end, joined.as_ptr_range().end);
    }

    #[test]
    fn splitting_stops_at_the_first_error() {
        let joined = Bytes::from([chunk(1, b"one"), chunk(9, b"two"), chunk(1, b"three")].concat());
        let results: Vec<_> = split(joined).collect();
        assert_eq!(results.len(), 2);
        assert_eq!(results[1], Err(ChunkError::UnknownKind { kind: 9 }));
    }

    #[test]
    fn every_cut_is_an_error() {
        let whole = chunk(1, b"body");
        for length in 1..whole.len() {
            let result = Chunk::first(&Bytes::copy_from_slice(&whole[..length]));
            assert_eq!(result, Err(ChunkError::Truncated), "{length}");
        }
        assert_eq!(Chunk::first(&Bytes::from_static(b"hello")), Err(ChunkError::NotAChunk));
    }

    #[test]
    fn overlong_lengths_are_refused() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0, 0, 0, 0, 1, 0x80, 0x00]);
        assert_eq!(Chunk::first(&bytes.into()), Err(ChunkError::BadLength));
    }

    #[test]
    fn inflation_holds_its_bound_exactly() {
        for size in [0, 1, 1000, INFLATE_BLOCK_BYTES, INFLATE_BLOCK_BYTES + 1, 300_000] {
            let packed = deflate(&vec![7; size]);
            assert_eq!(inflate(&packed, size).expect("within the bound").len(), size);
            if size > 0 {
                assert_eq!(inflate(&packed, size - 1), Err(ChunkError::TooLarge { bytes_max: size - 1 }));
            }
        }
    }

    #[test]
    fn an_inflation_bomb_allocates_no_more_than_the_bound_and_a_block() {
        let bomb = deflate(&vec![0; 50_000_000]);
        assert_eq!(inflate(&bomb, 100_000), Err(ChunkError::TooLarge { bytes_max: 100_000 }));
        let fits = inflate(&bomb, 60_000_000).expect("within the bound");
        assert!(fits.capacity() <= 60_000_000 + INFLATE_BLOCK_BYTES);
    }

    #[test]
    fn cut_and_padded_streams_are_refused() {
        let packed = deflate(b"some text, some text, some text");
        for length in 0..packed.len() {
            assert_eq!(inflate(&packed[..length], 1000), Err(ChunkError::NotDeflate), "{length}");
        }
        assert_eq!(inflate(&[&packed[..], b"x"].concat(), 1000), Err(ChunkError::NotDeflate));
    }
}

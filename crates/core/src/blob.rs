//! Blobs: content that documents refer to by its hash.
//!
//! Owns: the address, the size of a piece, and the types that cross between the exchange and a store.
//! Must not: hold content beyond one piece. Next: `blob/exchange.rs`; docs/blobs.md.

pub mod exchange;
pub mod message;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use message::{BlobMessage, BlobRefusal};

/// Bytes of a piece, of which only the last of a blob has fewer. Part of the store's format and of the protocol.
pub const PIECE_BYTES: usize = 64 * 1024;

/// The largest blob that the store's numbers can hold, bytes.
pub const BLOB_BYTES_MAX: u64 = (PIECE_BYTES as u64) << 24;

/// A blob's address: the SHA-256 of its content.
///
/// ```
/// use syncline_core::blob::BlobHash;
/// let hash = BlobHash::of(b"abc");
/// assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// assert_eq!(hash.to_string().parse(), Ok(hash));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

/// The text is no address. **State:** nothing was looked for. **Do:** copy it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address of a blob is 64 hexadecimal digits in lower case")]
pub struct BadBlobHash;

impl BlobHash {
    /// The address of this content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl FromStr for BlobHash {
    type Err = BadBlobHash;

    fn from_str(text: &str) -> Result<Self, BadBlobHash> {
        // One content has one text, so upper case is another text.
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(BadBlobHash),
        };
        let text: &[u8; 64] = text.as_bytes().try_into().map_err(|_| BadBlobHash)?;
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(digits[0])? << 4 | digit(digits[1])?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How much of a blob a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// Its first `held` bytes; nothing is known of whether they have the hash.
    Partial,
    /// All of it: it was read back and has the hash.
    Whole,
    /// It was whole, and a piece behind its first `held` bytes has been damaged since.
    Damaged,
}

/// What a store knows of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobStanding {
    /// Its size, bytes; of a blob that is not whole, as whoever sends it says.
    pub size: u64,
    /// Durable bytes, from the first on.
    pub held: u64,
    /// Whether that is all.
    pub state: BlobState,
    /// Whether a server has said that it has the blob.
    pub confirmed: bool,
}

impl BlobStanding {
    /// Whether it can be shown.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state == BlobState::Whole
    }

    /// How many bytes of a blob of this size are there to go on from.
    #[must_use]
    pub fn resumable(&self, size: u64) -> u64 {
        if self.size == size { self.held } else { 0 }
    }
}

/// What a store is asked to do to a blob. The answer is how the blob stands then.
#[derive(Debug, Clone)]
pub enum BlobChange {
    /// Append a piece. One that does not begin where the stored bytes end changes nothing; one at 0 of a blob that is not
    /// whole begins it anew if the size is another.
    Write {
        /// The blob, or the random name of one whose hash is not known yet.
        hash: BlobHash,
        /// Its size; `None` while that is not known, which makes it one whose hash is not known either.
        size: Option<u64>,
        /// Where the piece begins.
        offset: u64,
        /// A whole piece, or the rest of the blob. Empty for an empty blob.
        data: Bytes,
    },
    /// The stored bytes have the hash: they are the whole blob.
    Finish {
        /// The name under which it was written.
        written_as: BlobHash,
        /// Its hash.
        hash: BlobHash,
        /// Its size.
        size: u64,
    },
    /// A server has it.
    Confirm {
        /// The blob.
        hash: BlobHash,
    },
    /// A piece of it no longer has its digest.
    Damage {
        /// The blob.
        hash: BlobHash,
        /// Where the piece begins.
        at: u64,
    },
    /// Nothing of it is to be kept.
    Remove {
        /// The blob.
        hash: BlobHash,
        /// Also if it is whole.
        even_whole: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_text() {
        let text = BlobHash::of(b"").to_string();
        assert_eq!(text.parse(), Ok(BlobHash::of(b"")));
        for wrong in [text.to_uppercase(), text[1..].to_owned(), format!("{text}0"), text.replace('e', "g")] {
            assert_eq!(wrong.parse::<BlobHash>(), Err(BadBlobHash), "{wrong}");
        }
    }
}

//! What two replicas say to each other about blobs.
//!
//! Owns: the messages and their bytes. Must not: know what follows from a message.
//! Next: `exchange.rs`, `../native.rs`; docs/protocol.md §9.

use bytes::{Buf, BufMut, Bytes};

use super::{BlobHash, PIECE_BYTES};
use crate::native::{NativeError, cut, take, take_array, take_u8};

/// The version of the native extension in which blobs came up.
pub const SINCE: u16 = 2;

/// Longest words of a refusal, bytes.
const WORDS_BYTES_MAX: usize = 1024;

const OFFER: u8 = 3;
const WANT: u8 = 4;
const PIECE: u8 = 5;
const HAVE: u8 = 6;
const REFUSED: u8 = 7;

/// A message about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobMessage {
    /// I have it: take it, or say that you have it too.
    Offer {
        /// The blob.
        hash: BlobHash,
        /// Its size, bytes.
        size: u64,
    },
    /// Send me these bytes of it. If they begin where those end that I asked for before, they are asked for as well;
    /// otherwise instead.
    Want {
        /// The blob.
        hash: BlobHash,
        /// The first byte, which begins a piece.
        from: u64,
        /// The byte behind the last; beyond the end of the blob means up to it.
        to: u64,
    },
    /// A piece that was asked for.
    Piece {
        /// The blob.
        hash: BlobHash,
        /// Its size, bytes.
        size: u64,
        /// Where the piece begins.
        offset: u64,
        /// A whole piece, or the rest of the blob.
        data: Bytes,
    },
    /// All of it is durable here.
    Have {
        /// The blob.
        hash: BlobHash,
        /// Its size, bytes.
        size: u64,
    },
    /// An offer is not taken, or what was wanted is not sent.
    Refused {
        /// The blob.
        hash: BlobHash,
        /// Why, for programs.
        reason: BlobRefusal,
        /// Why, for people.
        words: String,
    },
}

/// Why a blob is neither taken nor sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobRefusal {
    /// The words say it.
    Other,
    /// It is not here, or not all of it.
    NotHere,
    /// It is larger than is taken.
    TooLarge,
    /// There is no room for it, for the time being.
    NoRoom,
    /// What was sent does not have the hash, or not the size.
    Mismatch,
    /// Too many are under way on the connection, or it was too slow.
    Busy,
}

impl BlobRefusal {
    fn code(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::NotHere => 1,
            Self::TooLarge => 2,
            Self::NoRoom => 3,
            Self::Mismatch => 4,
            Self::Busy => 5,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::NotHere,
            2 => Self::TooLarge,
            3 => Self::NoRoom,
            4 => Self::Mismatch,
            5 => Self::Busy,
            _ => Self::Other,
        }
    }
}

impl BlobMessage {
    /// Whether a native message of this kind is about a blob.
    pub(crate) fn is_kind(kind: u8) -> bool {
        (OFFER..=REFUSED).contains(&kind)
    }

    /// The blob that it is about.
    #[must_use]
    pub fn hash(&self) -> &BlobHash {
        match self {
            Self::Offer { hash, .. }
            | Self::Want { hash, .. }
            | Self::Piece { hash, .. }
            | Self::Have { hash, .. }
            | Self::Refused { hash, .. } => hash,
        }
    }

    /// Bytes of content in it.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Piece { data, .. } => data.len(),
            Self::Offer { .. } | Self::Want { .. } | Self::Have { .. } | Self::Refused { .. } => 0,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut begin = |kind: u8, hash: &BlobHash, numbers: &[u64]| {
            out.put_u8(kind);
            out.put_slice(&hash.0);
            numbers.iter().for_each(|number| out.put_u64(*number));
        };
        match self {
            Self::Offer { hash, size } => begin(OFFER, hash, &[*size]),
            Self::Want { hash, from, to } => begin(WANT, hash, &[*from, *to]),
            Self::Have { hash, size } => begin(HAVE, hash, &[*size]),
            Self::Piece { hash, size, offset, data } => {
                begin(PIECE, hash, &[*size, *offset]);
                // A piece has 64 KiB at most.
                out.put_u32(data.len() as u32);
                out.put_slice(data);
            }
            Self::Refused { hash, reason, words } => {
                begin(REFUSED, hash, &[]);
                let words = cut(words, WORDS_BYTES_MAX);
                out.put_u8(reason.code());
                out.put_u16(words.len() as u16);
                out.put_slice(words.as_bytes());
            }
        }
    }

    /// Reads the fields behind the kind.
    pub(crate) fn decode(kind: u8, data: &mut Bytes) -> Result<Self, NativeError> {
        let hash = BlobHash(take_array(data)?);
        let number = |data: &mut Bytes| data.try_get_u64().map_err(|_| NativeError::Truncated);
        match kind {
            OFFER => Ok(Self::Offer { hash, size: number(data)? }),
            WANT => {
                let (from, to) = (number(data)?, number(data)?);
                let begins_piece = from.is_multiple_of(PIECE_BYTES as u64);
                if begins_piece && from < to {
                    Ok(Self::Want { hash, from, to })
                } else {
                    Err(NativeError::Bad("range"))
                }
            }
            PIECE => {
                let (size, offset) = (number(data)?, number(data)?);
                let length = data.try_get_u32().map_err(|_| NativeError::Truncated)? as usize;
                if length > PIECE_BYTES {
                    return Err(NativeError::Bad("length"));
                }
                Ok(Self::Piece { hash, size, offset, data: take(data, length)? })
            }
            HAVE => Ok(Self::Have { hash, size: number(data)? }),
            _ => {
                let reason = BlobRefusal::from_code(take_u8(data)?);
                let length = usize::from(data.try_get_u16().map_err(|_| NativeError::Truncated)?);
                let words = take(data, length)?;
                let words = String::from_utf8(words.to_vec()).map_err(|_| NativeError::Bad("text"))?;
                Ok(Self::Refused { hash, reason, words })
            }
        }
    }
}

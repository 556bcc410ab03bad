//! Names of documents, peers, stores and replicas.
//!
//! Owns: the text forms of ids and their validation. A value of these types is always well formed.
//! Must not: know what the ids are used for.
//! Next: `wire.rs`; docs/protocol.md §2.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use automerge::ChangeHash;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

/// Longest id payload accepted, in bytes. automerge-repo sets no limit; base58 decoding is quadratic, so we do.
pub const DOCUMENT_ID_BYTES_MAX: usize = 128;

/// Longest peer or storage id accepted, in bytes of UTF-8.
pub const PEER_ID_BYTES_MAX: usize = 256;

/// A document's identity: any payload that bs58check accepts, 16 random bytes by default.
///
/// The text form is Bitcoin base58 of the payload and the first four bytes of its double SHA-256, without a version
/// byte, as automerge-repo writes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(SmallVec<[u8; 16]>);

impl DocumentId {
    /// The id with these payload bytes.
    ///
    /// # Errors
    /// [`IdError::TooLong`] above [`DOCUMENT_ID_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        if bytes.len() > DOCUMENT_ID_BYTES_MAX {
            return Err(IdError::TooLong { bytes: bytes.len(), bytes_max: DOCUMENT_ID_BYTES_MAX });
        }
        Ok(Self(SmallVec::from_slice(bytes)))
    }

    /// The id that these 16 random bytes make: a version 4 UUID, as automerge-repo mints them.
    #[must_use]
    pub fn from_random(random: [u8; 16]) -> Self {
        let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
        Self(SmallVec::from_slice(uuid.as_bytes()))
    }

    /// The payload bytes, without checksum.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for DocumentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        // 138 base58 digits carry 101 bytes: 1.37 digits a byte, and leading zeros one digit each.
        let digits_max = (DOCUMENT_ID_BYTES_MAX + 4) * 7 / 5;
        if text.len() > digits_max {
            return Err(IdError::TooLong { bytes: text.len(), bytes_max: digits_max });
        }
        let mut buffer = [0u8; DOCUMENT_ID_BYTES_MAX * 2];
        let length = bs58::decode(text).onto(&mut buffer[..]).map_err(|_| IdError::NotBase58)?;
        let payload_length = length.checked_sub(4).ok_or(IdError::BadChecksum)?;
        let (payload, checksum) = buffer[..length].split_at(payload_length);
        if checksum != base58_checksum(payload) {
            return Err(IdError::BadChecksum);
        }
        Self::from_bytes(payload)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_base58_check(&self.0))
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The base58check text of 32-byte hashes and ids: base58 of payload and checksum, without a version byte.
#[must_use]
pub fn encode_base58_check(payload: &[u8]) -> String {
    let mut bytes: SmallVec<[u8; 64]> = SmallVec::from_slice(payload);
    bytes.extend_from_slice(&base58_checksum(payload));
    bs58::encode(bytes).into_string()
}

/// Reads a change hash from its base58check text, as remote heads and URL fragments carry it.
///
/// # Errors
/// [`IdError`] when the text is not base58, its checksum differs, or it is not 32 bytes.
pub fn decode_base58_hash(text: &str) -> Result<ChangeHash, IdError> {
    let id = DocumentId::from_str(text)?;
    let bytes: [u8; 32] = id.as_bytes().try_into().map_err(|_| IdError::NotAHash)?;
    Ok(ChangeHash(bytes))
}

fn base58_checksum(payload: &[u8]) -> [u8; 4] {
    let hash = Sha256::digest(Sha256::digest(payload));
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A peer's name for the lifetime of its process or tab, chosen by itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Arc<str>);

/// A store's lasting name: the same after a restart of the peer that owns it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageId(Arc<str>);

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// The id with this text.
            ///
            /// # Errors
            /// [`IdError::Empty`], or [`IdError::TooLong`] above [`PEER_ID_BYTES_MAX`].
            pub fn new(text: &str) -> Result<Self, IdError> {
                if text.is_empty() {
                    return Err(IdError::Empty);
                }
                if text.len() > PEER_ID_BYTES_MAX {
                    return Err(IdError::TooLong { bytes: text.len(), bytes_max: PEER_ID_BYTES_MAX });
                }
                Ok(Self(Arc::from(text)))
            }

            /// The text as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_id!(PeerId);
text_id!(StorageId);

/// One store's random identity, made when the store is created; the tie-break of clock stamps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub [u8; 16]);

impl ReplicaId {
    /// The storage id under which automerge-repo peers know this replica: the UUID text of its bytes.
    #[must_use]
    pub fn storage_id(self) -> StorageId {
        StorageId(Arc::from(uuid::Uuid::from_bytes(self.0).to_string()))
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&uuid::Uuid::from_bytes(self.0), f)
    }
}

/// One accepted or dialled connection, numbered by the shell, never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Why a text or byte string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A character outside the base58 alphabet. **State:** nothing was kept. **Do:** copy the id again.
    #[error("the id is not base58 text")]
    NotBase58,
    /// The checksum does not fit the payload. **State:** nothing was kept. **Do:** copy the id again; a character is wrong or missing.
    #[error("the id's checksum is wrong: it was mistyped or cut")]
    BadChecksum,
    /// Longer than the limit. **State:** nothing was kept. **Do:** use a shorter id.
    #[error("the id is {bytes} bytes long; at most {bytes_max} are accepted")]
    TooLong {
        /// Length found, bytes.
        bytes: usize,
        /// Length accepted, bytes.
        bytes_max: usize,
    },
    /// Empty where a name is needed. **State:** nothing was kept. **Do:** name the peer.
    #[error("the id is empty")]
    Empty,
    /// A hash that is not 32 bytes. **State:** nothing was kept. **Do:** copy the hash again.
    #[error("a change hash is 32 bytes")]
    NotAHash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_zero_id_has_automerge_repos_text() {
        let id = DocumentId::from_bytes(&[0; 16]).expect("16 bytes");
        assert_eq!(id.to_string(), "11111111111111114Ki9Gx");
        assert_eq!("11111111111111114Ki9Gx".parse(), Ok(id));
    }

    #[test]
    fn every_payload_length_survives_its_text() {
        for length in 0..=DOCUMENT_ID_BYTES_MAX {
            for fill in [0u8, 1, 0xff] {
                let id = DocumentId::from_bytes(&vec![fill; length]).expect("within bounds");
                assert_eq!(id.to_string().parse(), Ok(id.clone()), "{length} × {fill:#x}");
            }
        }
    }

    #[test]
    fn a_changed_character_is_refused() {
        assert_eq!("11111111111111114Ki9Gy".parse::<DocumentId>(), Err(IdError::BadChecksum));
        assert_eq!("1111111111111111lKi9Gx".parse::<DocumentId>(), Err(IdError::NotBase58));
        assert_eq!("".parse::<DocumentId>(), Err(IdError::BadChecksum));
        assert!(matches!("2".repeat(4096).parse::<DocumentId>(), Err(IdError::TooLong { .. })));
    }
}

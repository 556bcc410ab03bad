//! What Syncline replicas say to each other beside automerge-repo's protocol.
//!
//! Owns: the versions, the kinds of messages and their bytes. Must not: know what follows from a message.
//! Next: `session.rs`, `hub/life.rs`, `blob/message.rs`; docs/protocol.md §9.

use bytes::{Buf, BufMut, Bytes};

use crate::ChangeHash;
use crate::access::Token;
use crate::blob::{self, BlobMessage};
use crate::clock::Stamp;
use crate::collection::{self, CollectionMessage};
use crate::id::{DocumentId, ReplicaId};
use crate::life::Life;
use crate::sync::{Account, HASHES_MAX};

/// The newest version that this code speaks.
pub const VERSION: u16 = 4;

/// The version from which on every message ends with the sender's stamp.
pub const STAMPED_SINCE: u16 = 3;

/// Bytes of that stamp.
const STAMP_BYTES: usize = 8;

/// Longest words of a refusal, bytes.
const WORDS_BYTES_MAX: usize = 4 * 1024;

const LIFE: u8 = 1;
const REFUSED: u8 = 2;
const MESH: u8 = 48;

/// The version in which messages of the mesh came up.
pub const MESH_SINCE: u16 = 4;

/// Longest message of the mesh, bytes.
const MESH_BYTES_MAX: usize = 20 * 1024;
const TOKEN: u8 = 32;
const ACCESS: u8 = 33;

/// The version in which access came up.
const ACCESS_SINCE: u16 = 3;

/// Longest token, bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
const ACCOUNT: u8 = 14;

/// The version in which accounts came up.
pub const ACCOUNTS_SINCE: u16 = 3;

const HASH_BYTES: usize = 32;

/// The flag of an account that is to be answered with changes.
const FLAG_LAST: u8 = 1;

/// The flag of a life record that says that the document is deleted.
const FLAG_DELETED: u8 = 1;

/// A message of the native extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeMessage {
    /// Whether a document is deleted, as the sender has it.
    Life {
        /// The document.
        document: DocumentId,
        /// The record.
        life: Life,
    },
    /// A change of the receiver was not taken.
    Refused {
        /// The document.
        document: DocumentId,
        /// The change.
        hash: ChangeHash,
        /// Why, for programs.
        reason: RefusalReason,
        /// Why, for people.
        words: String,
    },
    /// What the sender presents in place of the token that it was let in with.
    Token(Token),
    /// The receiver may do something else than before, or for so long, milliseconds; without a number for as long as it is
    /// connected.
    Access {
        /// From now on.
        left_ms: Option<u64>,
    },
    /// Which changes of a document the sender has.
    Account {
        /// The document.
        document: DocumentId,
        /// Those changes.
        account: Account,
    },
    /// About a blob, which is no document's.
    Blob(BlobMessage),
    /// Between members of a mesh; what it says is the gossip crate's.
    Mesh(Bytes),
    /// About a round in which two collections are compared.
    Collection(CollectionMessage),
}

/// Why a change was not taken, as far as its author can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// The words say it.
    Other,
    /// Another change has the same actor and sequence number: two devices write as one.
    ActorInUse,
    /// It waits for changes that are not here, and there is no more room for such.
    NoRoomToWait,
    /// A limit of the receiver.
    Limit,
    /// Its author may not write the document, or not create it.
    NotPermitted,
}

impl RefusalReason {
    fn code(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::ActorInUse => 1,
            Self::NoRoomToWait => 2,
            Self::Limit => 3,
            Self::NotPermitted => 4,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::ActorInUse,
            2 => Self::NoRoomToWait,
            3 => Self::Limit,
            4 => Self::NotPermitted,
            _ => Self::Other,
        }
    }
}

/// Why a native message is refused. **State:** nothing changed, the message is dropped. **Do:** report it to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NativeError {
    /// It ends inside a field, or is empty.
    #[error("a native message ends inside its fields")]
    Truncated,
    /// A field has a value that none may have.
    #[error("a native message has a bad {0}")]
    Bad(&'static str),
}

impl NativeMessage {
    /// The version in which the message came up: it is sent only to peers that speak this or a later one.
    #[must_use]
    pub fn since(&self) -> u16 {
        match self {
            Self::Life { .. } | Self::Refused { .. } => 1,
            Self::Token(_) | Self::Access { .. } => ACCESS_SINCE,
            Self::Blob(_) => blob::message::SINCE,
            Self::Mesh(_) => MESH_SINCE,
            Self::Collection(_) => collection::message::SINCE,
            Self::Account { .. } => ACCOUNTS_SINCE,
        }
    }

    /// Bytes beyond a few dozen that it takes in a queue.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Blob(message) => message.weight(),
            Self::Mesh(message) => message.len(),
            Self::Token(token) => token.reveal().len(),
            Self::Collection(message) => message.weight(),
            Self::Account { account, .. } => (account.heads.len() + account.hashes.len()) * HASH_BYTES,
            Self::Life { .. } | Self::Refused { .. } | Self::Access { .. } => 0,
        }
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Life { document, life } => {
                out.put_u8(LIFE);
                out.put_u8(if life.deleted { FLAG_DELETED } else { 0 });
                out.put_u64(life.stamp.as_u64());
                out.put_slice(&life.replica.0);
                put_document(&mut out, document);
            }
            Self::Refused { document, hash, reason, words } => {
                out.put_u8(REFUSED);
                out.put_u8(reason.code());
                out.put_slice(&hash.0);
                put_document(&mut out, document);
                let words = cut(words, WORDS_BYTES_MAX);
                out.put_u16(words.len() as u16);
                out.put_slice(words.as_bytes());
            }
            Self::Token(token) => {
                out.put_u8(TOKEN);
                let token = cut(token.reveal(), TOKEN_BYTES_MAX);
                out.put_u16(token.len() as u16);
                out.put_slice(token.as_bytes());
            }
            Self::Access { left_ms } => {
                out.put_u8(ACCESS);
                out.put_u64(left_ms.map_or(0, |left_ms| left_ms.max(1)));
            }
            Self::Account { document, account } => {
                out.put_u8(ACCOUNT);
                out.put_u8(if account.last { FLAG_LAST } else { 0 });
                put_document(&mut out, document);
                for hashes in [&account.heads, &account.hashes] {
                    out.put_u16(hashes.len() as u16);
                    hashes.iter().for_each(|hash| out.put_slice(&hash.0));
                }
            }
            Self::Blob(message) => message.encode(&mut out),
            Self::Mesh(message) => {
                out.put_u8(MESH);
                out.put_u16(message.len() as u16);
                out.put_slice(message);
            }
            Self::Collection(message) => message.encode(&mut out),
        }
        Bytes::from(out)
    }

    /// The message's bytes as they go to a peer that speaks this version, at this moment of the sender's clock.
    #[must_use]
    pub fn encode_for(&self, version: u16, stamp: Stamp) -> Bytes {
        let bytes = self.encode();
        if version < STAMPED_SINCE {
            return bytes;
        }
        let mut stamped = Vec::with_capacity(bytes.len() + STAMP_BYTES);
        stamped.put_slice(&bytes);
        stamped.put_u64(stamp.as_u64());
        Bytes::from(stamped)
    }

    /// Takes the stamp off a message of a peer that speaks this version, if that has one.
    ///
    /// # Errors
    /// [`NativeError`] when there is none where one belongs, or one that no clock makes.
    pub fn split_stamp(version: u16, mut data: Bytes) -> Result<(Bytes, Option<Stamp>), NativeError> {
        if version < STAMPED_SINCE {
            return Ok((data, None));
        }
        let length = data.len().checked_sub(STAMP_BYTES).ok_or(NativeError::Truncated)?;
        let stamp = data.split_off(length).get_u64();
        if stamp >> 63 != 0 {
            return Err(NativeError::Bad("stamp"));
        }
        Ok((data, Some(Stamp::from_u64(stamp))))
    }

    /// Reads a message; `None` if it is of a kind that this version does not know.
    ///
    /// # Errors
    /// [`NativeError`] when its fields are not what the kind has.
    pub fn decode(mut data: Bytes) -> Result<Option<Self>, NativeError> {
        match take_u8(&mut data)? {
            LIFE => Ok(Some(decode_life(&mut data)?)),
            REFUSED => Ok(Some(decode_refused(&mut data)?)),
            MESH => Ok(Some(decode_mesh(&mut data)?)),
            TOKEN => Ok(Some(decode_token(&mut data)?)),
            ACCESS => {
                let left_ms = data.try_get_u64().map_err(|_| NativeError::Truncated)?;
                Ok(Some(Self::Access { left_ms: Some(left_ms).filter(|left_ms| *left_ms > 0) }))
            }
            ACCOUNT => Ok(Some(decode_account(&mut data)?)),
            kind if BlobMessage::is_kind(kind) => Ok(Some(Self::Blob(BlobMessage::decode(kind, &mut data)?))),
            kind if CollectionMessage::is_kind(kind) => {
                Ok(Some(Self::Collection(CollectionMessage::decode(kind, &mut data)?)))
            }
            _ => Ok(None),
        }
    }
}

fn decode_life(data: &mut Bytes) -> Result<NativeMessage, NativeError> {
    let flags = take_u8(data)?;
    if flags & !FLAG_DELETED != 0 {
        return Err(NativeError::Bad("flag"));
    }
    let stamp = Stamp::from_u64(data.try_get_u64().map_err(|_| NativeError::Truncated)?);
    let replica = ReplicaId(take_array(data)?);
    let document = take_document(data)?;
    let life = Life { stamp, replica, deleted: flags & FLAG_DELETED != 0 };
    if !life.can_be_replaced() {
        return Err(NativeError::Bad("stamp"));
    }
    Ok(NativeMessage::Life { document, life })
}

fn decode_account(data: &mut Bytes) -> Result<NativeMessage, NativeError> {
    let flags = take_u8(data)?;
    if flags & !FLAG_LAST != 0 {
        return Err(NativeError::Bad("flag"));
    }
    let document = take_document(data)?;
    let (mut heads, hashes) = (take_hashes(data)?, take_hashes(data)?);
    heads.sort_unstable();
    heads.dedup();
    let account = Account { heads, hashes, last: flags & FLAG_LAST != 0 };
    Ok(NativeMessage::Account { document, account })
}

fn take_hashes(data: &mut Bytes) -> Result<Vec<ChangeHash>, NativeError> {
    let count = usize::from(data.try_get_u16().map_err(|_| NativeError::Truncated)?);
    if count > HASHES_MAX {
        return Err(NativeError::Bad("number"));
    }
    let hashes = take(data, count * HASH_BYTES)?;
    Ok(hashes.chunks_exact(HASH_BYTES).map(|hash| ChangeHash(std::array::from_fn(|at| hash[at]))).collect())
}

fn decode_refused(data: &mut Bytes) -> Result<NativeMessage, NativeError> {
    let reason = RefusalReason::from_code(take_u8(data)?);
    let hash = ChangeHash(take_array(data)?);
    let document = take_document(data)?;
    let length = usize::from(data.try_get_u16().map_err(|_| NativeError::Truncated)?);
    let words = take(data, length)?;
    let words = String::from_utf8(words.to_vec()).map_err(|_| NativeError::Bad("text"))?;
    Ok(NativeMessage::Refused { document, hash, reason, words })
}

fn decode_mesh(data: &mut Bytes) -> Result<NativeMessage, NativeError> {
    let length = usize::from(data.try_get_u16().map_err(|_| NativeError::Truncated)?);
    if length > MESH_BYTES_MAX {
        return Err(NativeError::Bad("length"));
    }
    Ok(NativeMessage::Mesh(take(data, length)?))
}

fn decode_token(data: &mut Bytes) -> Result<NativeMessage, NativeError> {
    let length = usize::from(data.try_get_u16().map_err(|_| NativeError::Truncated)?);
    if length > TOKEN_BYTES_MAX {
        return Err(NativeError::Bad("token"));
    }
    let token = take(data, length)?;
    let token = std::str::from_utf8(&token).map_err(|_| NativeError::Bad("token"))?;
    Ok(NativeMessage::Token(Token::new(token)))
}

pub(crate) fn put_document(out: &mut Vec<u8>, document: &DocumentId) {
    let bytes = document.as_bytes();
    // An id has 128 bytes at most.
    out.put_u8(bytes.len() as u8);
    out.put_slice(bytes);
}

pub(crate) fn take_document(data: &mut Bytes) -> Result<DocumentId, NativeError> {
    let length = usize::from(take_u8(data)?);
    let bytes = take(data, length)?;
    DocumentId::from_bytes(&bytes).map_err(|_| NativeError::Bad("document id"))
}

pub(crate) fn take_u8(data: &mut Bytes) -> Result<u8, NativeError> {
    data.try_get_u8().map_err(|_| NativeError::Truncated)
}

pub(crate) fn take_array<const N: usize>(data: &mut Bytes) -> Result<[u8; N], NativeError> {
    let mut array = [0; N];
    data.try_copy_to_slice(&mut array).map_err(|_| NativeError::Truncated)?;
    Ok(array)
}

pub(crate) fn take(data: &mut Bytes, length: usize) -> Result<Bytes, NativeError> {
    if data.len() < length {
        return Err(NativeError::Truncated);
    }
    Ok(data.split_to(length))
}

/// The text, or as much of its start as fits.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::{BlobHash, BlobRefusal};
    use crate::collection::{EndReason, SetName};
    use crate::reconcile::{Listed, Missing};

    fn document() -> DocumentId {
        DocumentId::from_bytes(&[7; 16]).expect("16 bytes")
    }

    fn messages() -> Vec<NativeMessage> {
        let life = |deleted| Life { stamp: Stamp::new(1_700_000_000_000, 3), replica: ReplicaId([9; 16]), deleted };
        let refused = |reason| NativeMessage::Refused {
            document: document(),
            hash: ChangeHash([5; 32]),
            reason,
            words: "two devices, one näme".into(),
        };
        vec![
            NativeMessage::Life { document: document(), life: life(true) },
            NativeMessage::Life { document: document(), life: life(false) },
            refused(RefusalReason::Other),
            refused(RefusalReason::ActorInUse),
            refused(RefusalReason::NoRoomToWait),
            refused(RefusalReason::Limit),
            NativeMessage::Blob(BlobMessage::Offer { hash: BlobHash([3; 32]), size: 70_000 }),
            NativeMessage::Blob(BlobMessage::Want { hash: BlobHash([3; 32]), from: 65_536, to: 70_000 }),
            NativeMessage::Blob(BlobMessage::Piece {
                hash: BlobHash([3; 32]),
                size: 70_000,
                offset: 65_536,
                data: Bytes::from_static(b"rest"),
            }),
            NativeMessage::Blob(BlobMessage::Have { hash: BlobHash([3; 32]), size: 70_000 }),
            NativeMessage::Blob(BlobMessage::Refused {
                hash: BlobHash([3; 32]),
                reason: BlobRefusal::NoRoom,
                words: "füll".into(),
            }),
            NativeMessage::Mesh(Bytes::from_static(b"between members")),
            NativeMessage::Collection(CollectionMessage::Compare {
                round: 258,
                set: SetName([6; 8]),
                count: 70_000,
                names: true,
                message: Bytes::from_static(b"ranges"),
            }),
            NativeMessage::Account {
                document: document(),
                account: Account { heads: vec![ChangeHash([1; 32])], hashes: vec![ChangeHash([2; 32]); 2], last: true },
            },
            NativeMessage::Collection(CollectionMessage::Question { round: 1, message: Bytes::from_static(b"ask") }),
            NativeMessage::Collection(CollectionMessage::Answer { round: 1, message: Bytes::from_static(b"symbols") }),
            NativeMessage::Collection(CollectionMessage::Missing {
                round: 1,
                elements: vec![Missing { stamps: Stamp::from_u64(3)..=Stamp::from_u64(5), digest: [8; 16] }],
            }),
            NativeMessage::Collection(CollectionMessage::Named { round: 1, documents: vec![document()] }),
            NativeMessage::Collection(CollectionMessage::Ended {
                round: 1,
                own: false,
                reason: EndReason::NotReady,
                words: "später".into(),
            }),
            NativeMessage::Collection(CollectionMessage::Listed {
                round: 1,
                elements: vec![Listed { stamp: Stamp::from_u64(3), digest: [8; 16] }; 2],
            }),
            NativeMessage::Collection(CollectionMessage::Lacking { round: 1, lacking: Bytes::from_static(&[0x80]) }),
            NativeMessage::Token(Token::new("a.b.c")),
            NativeMessage::Access { left_ms: Some(60_000) },
            NativeMessage::Access { left_ms: None },
            refused(RefusalReason::NotPermitted),
        ]
    }

    #[test]
    fn messages_survive_their_bytes_and_fields_of_later_versions() {
        for message in messages() {
            let bytes = message.encode();
            assert_eq!(NativeMessage::decode(bytes.clone()), Ok(Some(message.clone())));
            let longer = Bytes::from([&bytes[..], b"more"].concat());
            assert_eq!(NativeMessage::decode(longer), Ok(Some(message)));
            for end in 0..bytes.len() {
                assert!(NativeMessage::decode(bytes.slice(..end)).is_err(), "cut to {end}");
            }
        }
    }

    #[test]
    fn the_bytes_of_a_life_record_are_as_documented() {
        let bytes = messages()[0].encode();
        let golden = [&[1, 1][..], &[0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, 0, 3], &[9; 16], &[16], &[7; 16]].concat();
        assert_eq!(bytes, golden);
    }

    #[test]
    fn the_bytes_of_a_piece_are_as_documented() {
        let bytes = messages()[8].encode();
        let (size, offset) = (70_000_u64.to_be_bytes(), 65_536_u64.to_be_bytes());
        let golden = [&[5][..], &[3; 32], &size, &offset, &[0, 0, 0, 4], b"rest"].concat();
        assert_eq!(bytes, golden);
    }

    #[test]
    fn the_bytes_of_a_round_are_as_documented() {
        let of_kind = |kind: u8| {
            let mut all = messages().into_iter().map(|message| message.encode());
            all.find(|bytes| bytes[0] == kind).expect("one of each kind")
        };
        let golden = [&[8, 0, 0, 1, 2][..], &[6; 8], &70_000_u64.to_be_bytes(), &[1, 0, 0, 0, 6], b"ranges"].concat();
        assert_eq!(of_kind(8), golden);
        let (from, to) = (3_u64.to_be_bytes(), 5_u64.to_be_bytes());
        let golden = [&[11, 0, 0, 0, 1, 0, 1][..], &from, &to, &[8; 16]].concat();
        assert_eq!(of_kind(11), golden);
        let golden = [&[14, 1, 16][..], &[7; 16], &[0, 1], &[1; 32], &[0, 2], &[2; 64]].concat();
        assert_eq!(of_kind(14), golden);
        let golden = [&[13, 0, 0, 0, 1, 1, 4, 0, 7][..], "später".as_bytes()].concat();
        assert_eq!(of_kind(13), golden);
        let element = [&from[..], &[8; 16]].concat();
        assert_eq!(of_kind(15), [&[15, 0, 0, 0, 1, 0, 2][..], &element, &element].concat());
        assert_eq!(of_kind(16), [16, 0, 0, 0, 1, 0, 1, 0x80].as_slice());
    }

    #[test]
    fn a_stamp_ends_the_messages_of_those_who_know_it() {
        let stamp = Stamp::new(1_700_000_000_000, 3);
        for message in messages() {
            assert_eq!(message.encode_for(2, stamp), message.encode());
            let bytes = message.encode_for(3, stamp);
            let (rest, found) = NativeMessage::split_stamp(3, bytes.clone()).expect("a stamp");
            assert_eq!((NativeMessage::decode(rest), found), (Ok(Some(message)), Some(stamp)));
            assert_eq!(NativeMessage::split_stamp(2, bytes.clone()), Ok((bytes, None)));
        }
        assert_eq!(NativeMessage::split_stamp(3, Bytes::from_static(&[1; 7])), Err(NativeError::Truncated));
        assert_eq!(NativeMessage::split_stamp(3, Bytes::from_static(&[0x80; 9])), Err(NativeError::Bad("stamp")));
    }

    #[test]
    fn a_want_begins_with_a_piece_and_ends_behind_it() {
        for (from, to) in [(1, 70_000), (65_536, 65_536), (65_536, 3)] {
            let bytes = NativeMessage::Blob(BlobMessage::Want { hash: BlobHash([3; 32]), from, to }).encode();
            assert_eq!(NativeMessage::decode(bytes), Err(NativeError::Bad("range")));
        }
    }

    #[test]
    fn what_is_not_known_is_ignored_and_what_is_wrong_is_not() {
        assert_eq!(NativeMessage::decode(Bytes::from_static(&[200, 1, 2])), Ok(None));
        let with = |at: usize, value: u8| {
            let mut bytes = messages()[0].encode().to_vec();
            bytes[at] = value;
            NativeMessage::decode(Bytes::from(bytes))
        };
        assert_eq!(with(1, 3), Err(NativeError::Bad("flag")));
        assert_eq!(with(2, 0x80), Err(NativeError::Bad("stamp")));
        assert_eq!(with(26, 200), Err(NativeError::Truncated));
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        let words = "ä".repeat(WORDS_BYTES_MAX);
        let NativeMessage::Refused { document, hash, reason, .. } = &messages()[2] else { panic!("the third") };
        let message =
            NativeMessage::Refused { document: document.clone(), hash: *hash, reason: *reason, words: words.clone() };
        let Ok(Some(NativeMessage::Refused { words: read, .. })) = NativeMessage::decode(message.encode()) else {
            panic!("it does not come back");
        };
        assert_eq!(read, words[..WORDS_BYTES_MAX]);
    }
}

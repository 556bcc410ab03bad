//! What two replicas say to each other about their collections.
//!
//! Owns: the messages and their bytes. Must not: know what follows from a message.
//! Next: `../collection.rs`, `../native.rs`; docs/protocol.md §9.

use bytes::{Buf, BufMut, Bytes};

use super::SetName;
use crate::clock::Stamp;
use crate::id::DocumentId;
use crate::native::{NativeError, cut, put_document, take, take_array, take_document, take_u8};
use crate::reconcile::{DIGEST_PREFIX_BYTES, Listed, Missing};

/// The version of the native extension in which rounds came up.
pub const SINCE: u16 = 3;

/// Most elements in one message that asks for names, and so most documents in one answer.
pub(super) const NAMES_MAX: usize = 1_024;

/// Longest words of an end, bytes.
const WORDS_BYTES_MAX: usize = 1024;

const COMPARE: u8 = 8;
const QUESTION: u8 = 9;
const ANSWER: u8 = 10;
const MISSING: u8 = 11;
const NAMED: u8 = 12;
const ENDED: u8 = 13;
const LISTED: u8 = 15;
const LACKING: u8 = 16;

/// Bytes of an element that is listed.
const LISTED_BYTES: usize = 8 + DIGEST_PREFIX_BYTES;

/// The flag of a round whose initiator wants names of what it misses.
const FLAG_NAMES: u8 = 1;

/// A message about a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectionMessage {
    /// A round begins.
    Compare {
        /// Its number among those that the sender began.
        round: u32,
        /// What is compared.
        set: SetName,
        /// Elements that the sender has in it.
        count: u64,
        /// Whether the sender will ask for names.
        names: bool,
        /// The first message of the reconciliation.
        message: Bytes,
    },
    /// The initiator goes on.
    Question {
        /// The round.
        round: u32,
        /// A message of the reconciliation.
        message: Bytes,
    },
    /// The responder's answer.
    Answer {
        /// The round.
        round: u32,
        /// A message of the reconciliation.
        message: Bytes,
    },
    /// The initiator asks of which documents these elements are.
    Missing {
        /// The round.
        round: u32,
        /// The elements.
        elements: Vec<Missing>,
    },
    /// The documents.
    Named {
        /// The round.
        round: u32,
        /// Those that are here still.
        documents: Vec<DocumentId>,
    },
    /// The initiator lists its elements, because the responder wants that.
    Listed {
        /// The round.
        round: u32,
        /// Some of them.
        elements: Vec<Listed>,
    },
    /// Which of them the responder has not.
    Lacking {
        /// The round.
        round: u32,
        /// A bit for each that was listed, the highest bit of the first byte first.
        lacking: Bytes,
    },
    /// The round is over.
    Ended {
        /// The round.
        round: u32,
        /// Whether the sender began it.
        own: bool,
        /// Why, for programs.
        reason: EndReason,
        /// Why, for people.
        words: String,
    },
}

/// Why a round is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// There is nothing more to ask.
    Done,
    /// The responder has no such set.
    NoSuchSet,
    /// The initiator may not compare, or may not be told names.
    NotForYou,
    /// One side has so much more, and both so much, that naming documents costs less.
    NotWorthIt,
    /// One side has so much more that the initiator is to list what it has: the round goes on.
    List,
    /// The responder is reading its set from the disk.
    NotReady,
    /// A limit of the sender's.
    Limit,
    /// The other side broke the protocol.
    Broken,
}

impl EndReason {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NoSuchSet => 1,
            Self::NotForYou => 2,
            Self::NotWorthIt => 3,
            Self::NotReady => 4,
            Self::Limit => 5,
            Self::Broken => 6,
            Self::List => 7,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::NoSuchSet,
            2 => Self::NotForYou,
            3 => Self::NotWorthIt,
            4 => Self::NotReady,
            6 => Self::Broken,
            7 => Self::List,
            _ => Self::Limit,
        }
    }

    /// A short name for counters.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Done => "round_done",
            Self::NoSuchSet => "round_no_such_set",
            Self::NotForYou => "round_not_allowed",
            Self::NotWorthIt => "round_not_worth_it",
            Self::List => "round_to_be_listed",
            Self::NotReady => "round_not_ready",
            Self::Limit => "round_limit",
            Self::Broken => "round_broken",
        }
    }
}

impl CollectionMessage {
    /// Whether a message of this kind is one of these.
    pub(crate) fn is_kind(kind: u8) -> bool {
        (COMPARE..=ENDED).contains(&kind) || matches!(kind, LISTED | LACKING)
    }

    /// Bytes beyond a few dozen that it takes in a queue.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Compare { message, .. } | Self::Question { message, .. } | Self::Answer { message, .. } => {
                message.len()
            }
            Self::Missing { elements, .. } => elements.len() * (16 + DIGEST_PREFIX_BYTES),
            Self::Named { documents, .. } => documents.iter().map(|id| 1 + id.as_bytes().len()).sum(),
            Self::Listed { elements, .. } => elements.len() * LISTED_BYTES,
            Self::Lacking { lacking, .. } => lacking.len(),
            Self::Ended { words, .. } => words.len(),
        }
    }

    /// Appends the message's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Compare { round, set, count, names, message } => {
                out.put_u8(COMPARE);
                out.put_u32(*round);
                out.put_slice(&set.0);
                out.put_u64(*count);
                out.put_u8(if *names { FLAG_NAMES } else { 0 });
                put_message(out, message);
            }
            Self::Question { round, message } => {
                out.put_u8(QUESTION);
                out.put_u32(*round);
                put_message(out, message);
            }
            Self::Answer { round, message } => {
                out.put_u8(ANSWER);
                out.put_u32(*round);
                put_message(out, message);
            }
            Self::Missing { round, elements } => {
                out.put_u8(MISSING);
                out.put_u32(*round);
                out.put_u16(elements.len() as u16);
                for element in elements {
                    out.put_u64(element.stamps.start().as_u64());
                    out.put_u64(element.stamps.end().as_u64());
                    out.put_slice(&element.digest);
                }
            }
            Self::Named { round, documents } => {
                out.put_u8(NAMED);
                out.put_u32(*round);
                out.put_u16(documents.len() as u16);
                documents.iter().for_each(|document| put_document(out, document));
            }
            Self::Listed { round, elements } => {
                out.put_u8(LISTED);
                out.put_u32(*round);
                out.put_u16(elements.len() as u16);
                for element in elements {
                    out.put_u64(element.stamp.as_u64());
                    out.put_slice(&element.digest);
                }
            }
            Self::Lacking { round, lacking } => {
                out.put_u8(LACKING);
                out.put_u32(*round);
                out.put_u16(lacking.len() as u16);
                out.put_slice(lacking);
            }
            Self::Ended { round, own, reason, words } => {
                out.put_u8(ENDED);
                out.put_u32(*round);
                out.put_u8(u8::from(!own));
                out.put_u8(reason.code());
                let words = cut(words, WORDS_BYTES_MAX);
                out.put_u16(words.len() as u16);
                out.put_slice(words.as_bytes());
            }
        }
    }

    /// Reads the fields of a message of this kind.
    ///
    /// # Errors
    /// [`NativeError`] when they are not what the kind has.
    pub(crate) fn decode(kind: u8, data: &mut Bytes) -> Result<Self, NativeError> {
        let round = take_u32(data)?;
        Ok(match kind {
            COMPARE => {
                let set = SetName(take_array(data)?);
                let count = take_u64(data)?;
                let flags = take_u8(data)?;
                if flags & !FLAG_NAMES != 0 {
                    return Err(NativeError::Bad("flag"));
                }
                Self::Compare { round, set, count, names: flags & FLAG_NAMES != 0, message: take_message(data)? }
            }
            QUESTION => Self::Question { round, message: take_message(data)? },
            ANSWER => Self::Answer { round, message: take_message(data)? },
            MISSING => Self::Missing { round, elements: take_missing(data)? },
            NAMED => {
                let count = take_count(data)?;
                Self::Named { round, documents: (0..count).map(|_| take_document(data)).collect::<Result<_, _>>()? }
            }
            LISTED => Self::Listed { round, elements: take_listed(data)? },
            LACKING => {
                let length = take_count(data)?;
                Self::Lacking { round, lacking: take(data, length)? }
            }
            _ => {
                let own = match take_u8(data)? {
                    0 => true,
                    1 => false,
                    _ => return Err(NativeError::Bad("side")),
                };
                let reason = EndReason::from_code(take_u8(data)?);
                let length = usize::from(data.try_get_u16().map_err(|_| NativeError::Truncated)?);
                let words = String::from_utf8(take(data, length)?.to_vec()).map_err(|_| NativeError::Bad("text"))?;
                Self::Ended { round, own, reason, words }
            }
        })
    }
}

fn take_missing(data: &mut Bytes) -> Result<Vec<Missing>, NativeError> {
    let count = take_count(data)?;
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let (from, to) = (take_u64(data)?, take_u64(data)?);
        if from > to {
            return Err(NativeError::Bad("stamp"));
        }
        let digest = take_array(data)?;
        elements.push(Missing { stamps: Stamp::from_u64(from)..=Stamp::from_u64(to), digest });
    }
    Ok(elements)
}

fn take_listed(data: &mut Bytes) -> Result<Vec<Listed>, NativeError> {
    let count = take_count(data)?;
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let stamp = Stamp::from_u64(take_u64(data)?);
        elements.push(Listed { stamp, digest: take_array(data)? });
    }
    Ok(elements)
}

fn take_count(data: &mut Bytes) -> Result<usize, NativeError> {
    let count = usize::from(data.try_get_u16().map_err(|_| NativeError::Truncated)?);
    if count > NAMES_MAX {
        return Err(NativeError::Bad("number"));
    }
    Ok(count)
}

fn put_message(out: &mut Vec<u8>, message: &[u8]) {
    // A message of a reconciliation has 60,000 bytes at most.
    out.put_u32(message.len() as u32);
    out.put_slice(message);
}

fn take_message(data: &mut Bytes) -> Result<Bytes, NativeError> {
    let length = take_u32(data)? as usize;
    take(data, length)
}

fn take_u32(data: &mut Bytes) -> Result<u32, NativeError> {
    data.try_get_u32().map_err(|_| NativeError::Truncated)
}

fn take_u64(data: &mut Bytes) -> Result<u64, NativeError> {
    data.try_get_u64().map_err(|_| NativeError::Truncated)
}

//! What members of a mesh say to each other, and its bytes.
//!
//! Owns: the messages, their tags and bounds. Must not: know what follows from one.
//! Next: `overlay.rs`; docs/protocol.md §11.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use syncline_core::clock::Stamp;

use crate::key::SEAL_BYTES;

mod read;

/// Longest address, bytes.
pub const ADDRESS_BYTES_MAX: usize = 128;

/// Addresses of one member.
pub const ADDRESSES_MAX: usize = 4;

/// Contacts in one message.
pub const CONTACTS_MAX: usize = 16;

/// Bytes that a member shows its neighbours of itself.
pub const ABOUT_BYTES_MAX: usize = 512;

/// Largest body of a notice, bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// Names in one message.
pub const NAMES_MAX: usize = 256;

/// Most steps of a walk.
pub const WALK_STEPS_MAX: u8 = 8;

/// A replica for as long as it is in a mesh: drawn at random each time that it joins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(pub [u8; 16]);

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a member can be dialled, as the shell understands it: a websocket address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

impl Address {
    /// An address; `None` if it is empty or too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=ADDRESS_BYTES_MAX).contains(&text.len()).then(|| Self(Arc::from(text)))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId {
    /// Who made it.
    pub author: Member,
    /// Its number among the author's, from 1.
    pub number: u64,
}

/// A member and where it can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub member: Member,
    /// Where; nowhere if it does not listen.
    pub addresses: Vec<Address>,
}

/// Why a member dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be a neighbour if there is room.
    IfRoom,
    /// It has too few neighbours.
    TooFew,
    /// It is new.
    New,
}

/// Why a connection is not, or no longer, one of neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Something that this version does not know.
    Other,
    /// The proof is not that of the mesh's key.
    WrongKey,
    /// No room.
    NoRoom,
    /// A member has dialled itself.
    Myself,
    /// Another connection with the same member stands.
    Duplicate,
    /// Another member took the place.
    Replaced,
    /// The member leaves the mesh.
    Leaving,
    /// Nothing was heard of the other for too long.
    Silent,
    /// The other sent too much that was not taken.
    Offences,
}

/// A message of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who dialled wants to be a neighbour.
    Hello {
        /// Why.
        purpose: Purpose,
        /// Who it is.
        member: Member,
        /// Drawn for this connection.
        nonce: [u8; 32],
        /// Where it can be dialled.
        addresses: Vec<Address>,
    },
    /// Who was dialled shows that it holds the key.
    Challenge {
        /// Who it is.
        member: Member,
        /// Drawn for this connection.
        nonce: [u8; 32],
        /// Where it can be dialled.
        addresses: Vec<Address>,
        /// Its proof.
        proof: [u8; SEAL_BYTES],
    },
    /// Who dialled shows it too.
    Proof {
        /// Its proof.
        proof: [u8; SEAL_BYTES],
    },
    /// From here on both are neighbours.
    Welcome {
        /// Some members that the sender knows.
        contacts: Vec<Contact>,
    },
    /// Not, or no longer.
    Refusal {
        /// Why.
        reason: Refusal,
        /// Some members that the sender knows, for one that has proved itself.
        contacts: Vec<Contact>,
    },
    /// A new member on a random walk.
    Walk {
        /// Steps that are left.
        steps: u8,
        /// The new member.
        contact: Contact,
    },
    /// Some members that the sender knows; to be answered in kind.
    Exchange {
        /// They.
        contacts: Vec<Contact>,
    },
    /// The answer.
    Exchanged {
        /// Some members that the sender knows.
        contacts: Vec<Contact>,
    },
    /// The sender is there; to be answered.
    Beat(Beat),
    /// The answer, with the number of what it answers.
    BeatBack(Beat),
    /// A notice.
    Notice(Notice),
    /// Notices that the sender could send.
    Have {
        /// Their names.
        names: Vec<NoticeId>,
    },
    /// The sender wants this notice, and from now on all.
    Graft {
        /// Its name.
        id: NoticeId,
    },
    /// The sender wants names only.
    Prune,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Which.
    pub number: u32,
    /// The sender's clock.
    pub stamp: Stamp,
    /// What the sender shows of itself.
    pub about: Bytes,
}

/// A notice as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Connections that it has gone through before this one.
    pub hops: u8,
    /// Its name.
    pub id: NoticeId,
    /// The author's seal over name and body.
    pub seal: [u8; SEAL_BYTES],
    /// What it says.
    pub body: Bytes,
}

/// Why a message is refused. **State:** it is dropped. **Do:** nothing; the sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends inside a field, or is empty.
    #[error("a message of the mesh ends inside its fields")]
    Truncated,
    /// A field has a value that none may have.
    #[error("a message of the mesh has a bad {0}")]
    Bad(&'static str),
    /// The tag is not one that this version knows.
    #[error("a message of the mesh has the unknown tag {0}")]
    UnknownTag(u8),
}

impl Message {
    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.put_u8(self.tag());
        match self {
            Self::Hello { purpose, member, nonce, addresses } => {
                out.put_u8(purpose.code());
                out.put_slice(&member.0);
                out.put_slice(nonce);
                put_addresses(&mut out, addresses);
            }
            Self::Challenge { member, nonce, addresses, proof } => {
                out.put_slice(&member.0);
                out.put_slice(nonce);
                put_addresses(&mut out, addresses);
                out.put_slice(proof);
            }
            Self::Proof { proof } => out.put_slice(proof),
            Self::Refusal { reason, contacts } => {
                out.put_u8(reason.code());
                put_contacts(&mut out, contacts);
            }
            Self::Walk { steps, contact } => {
                out.put_u8(*steps);
                put_contact(&mut out, contact);
            }
            Self::Welcome { contacts } | Self::Exchange { contacts } | Self::Exchanged { contacts } => {
                put_contacts(&mut out, contacts);
            }
            Self::Beat(beat) | Self::BeatBack(beat) => {
                out.put_u32(beat.number);
                out.put_u64(beat.stamp.as_u64());
                out.put_u16(beat.about.len() as u16);
                out.put_slice(&beat.about);
            }
            Self::Notice(notice) => {
                out.put_u8(notice.hops);
                put_name(&mut out, &notice.id);
                out.put_slice(&notice.seal);
                out.put_slice(&notice.body);
            }
            Self::Have { names } => {
                out.put_u16(names.len() as u16);
                names.iter().for_each(|name| put_name(&mut out, name));
            }
            Self::Graft { id } => put_name(&mut out, id),
            Self::Prune => {}
        }
        Bytes::from(out)
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Challenge { .. } => 2,
            Self::Proof { .. } => 3,
            Self::Welcome { .. } => 4,
            Self::Refusal { .. } => 5,
            Self::Walk { .. } => 6,
            Self::Exchange { .. } => 7,
            Self::Exchanged { .. } => 8,
            Self::Beat(_) => 9,
            Self::BeatBack(_) => 10,
            Self::Notice(_) => 16,
            Self::Have { .. } => 17,
            Self::Graft { .. } => 18,
            Self::Prune => 19,
        }
    }
}

impl Purpose {
    fn code(self) -> u8 {
        match self {
            Self::IfRoom => 0,
            Self::TooFew => 1,
            Self::New => 2,
        }
    }
}

impl Refusal {
    const ALL: [Self; 9] = [
        Self::Other,
        Self::WrongKey,
        Self::NoRoom,
        Self::Myself,
        Self::Duplicate,
        Self::Replaced,
        Self::Leaving,
        Self::Silent,
        Self::Offences,
    ];

    fn code(self) -> u8 {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or_default() as u8
    }

    fn from_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Self::Other)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other => "not taken as a neighbour",
            Self::WrongKey => "the key of the mesh is another one",
            Self::NoRoom => "no room for another neighbour",
            Self::Myself => "a replica has dialled itself",
            Self::Duplicate => "another connection with the same member stands",
            Self::Replaced => "another neighbour has taken the place",
            Self::Leaving => "the member leaves the mesh",
            Self::Silent => "nothing was heard for too long",
            Self::Offences => "too many messages that were not taken",
        })
    }
}

fn put_name(out: &mut Vec<u8>, name: &NoticeId) {
    out.put_slice(&name.author.0);
    out.put_u64(name.number);
}

fn put_addresses(out: &mut Vec<u8>, addresses: &[Address]) {
    let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
    out.put_u8(addresses.len() as u8);
    for address in addresses {
        out.put_u8(address.as_str().len() as u8);
        out.put_slice(address.as_str().as_bytes());
    }
}

fn put_contact(out: &mut Vec<u8>, contact: &Contact) {
    out.put_slice(&contact.member.0);
    put_addresses(out, &contact.addresses);
}

fn put_contacts(out: &mut Vec<u8>, contacts: &[Contact]) {
    let contacts = &contacts[..contacts.len().min(CONTACTS_MAX)];
    out.put_u8(contacts.len() as u8);
    contacts.iter().for_each(|contact| put_contact(out, contact));
}

//! What a member that means harm does.
//!
//! Owns: its lies. Must not: do what the protocol says that members are trusted with (docs/protocol.md §11,
//! "Assumptions"). Next: `../bad.rs`.

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::authored::Authored;
use syncline_core::clock::Stamp;
use syncline_core::collection::{CollectionMessage, DocumentState, Gathering, Members, SetName};
use syncline_core::id::DocumentId;
use syncline_core::native::NativeMessage;
use syncline_core::reconcile::SetKey;
use syncline_gossip::message::{Beat, Message, Notice};
use syncline_gossip::notice::DocumentNotice;
use syncline_gossip::{Member, NoticeId};

use super::super::{World, key};
use crate::action::Kind;
use crate::oracle::Checked;
use crate::random::Stream;

/// More beats than a neighbour takes at once.
const FLOOD: u32 = 1_100;

/// A fingerprint of all elements that is nobody's.
const NEVER: &[u8] = &[0x61, 0, 0, 1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];

fn bytes<const N: usize>(stream: &mut Stream) -> [u8; N] {
    std::array::from_fn(|_| stream.next() as u8)
}

impl World {
    /// Does what is to be done.
    pub(super) fn bad_does_all(&mut self) -> Checked {
        while let Some((kind, value)) = self.bad.deeds.pop_front() {
            let Some(node) = self.bad.party.as_ref().map(|party| party.node) else { return Ok(()) };
            self.met(kind, node);
            self.log.say(|| format!("  the bad member at node {node}: {}", kind.name()));
            let mut stream = Stream::new(value, "bad");
            if kind == Kind::Replay {
                self.bad_replays(&mut stream);
            } else if kind == Kind::Forge {
                let notice = self.forged(&mut stream);
                self.bad_says(&NativeMessage::Mesh(Message::Notice(notice).encode()));
            } else if kind == Kind::BadNotice {
                let notice = self.notice_of_nothing(&mut stream);
                self.bad_says(&NativeMessage::Mesh(Message::Notice(notice).encode()));
            } else if kind == Kind::Flood {
                for number in 0..FLOOD {
                    let beat = Beat { number, stamp: Stamp::ZERO, about: Bytes::new() };
                    self.bad_says(&NativeMessage::Mesh(Message::Beat(beat).encode()));
                }
            } else {
                self.bad_begins_a_round(kind, value, &mut stream);
            }
        }
        Ok(())
    }

    fn bad_replays(&mut self, stream: &mut Stream) {
        let heard = self.bad.heard.len() as u64;
        if heard > 0 {
            for _ in 0..=stream.below(4) {
                let bytes = self.bad.heard[stream.below(heard) as usize].clone();
                self.bad_says(&NativeMessage::Mesh(bytes));
            }
        }
    }

    /// A notice with a seal that is not its own, or in a name that is the receiver's.
    fn forged(&self, stream: &mut Stream) -> Notice {
        let read = |bytes: &Bytes| {
            if let Ok(Message::Notice(notice)) = Message::decode(bytes.clone()) { Some(notice) } else { None }
        };
        let heard: Vec<Notice> = self.bad.heard.iter().filter_map(read).collect();
        let author = Member(bytes(stream));
        let mut notice = if heard.is_empty() {
            let id = NoticeId { author, number: 1 };
            Notice { hops: 0, id, seal: bytes(stream), body: Bytes::from_static(b"nothing") }
        } else {
            heard[stream.below(heard.len() as u64) as usize].clone()
        };
        match stream.below(4) {
            0 => notice.id.number += 1,
            1 => notice.id.author = author,
            2 => notice.body = [&notice.body[..], b"x"].concat().into(),
            _ => notice.seal[stream.below(32) as usize] ^= 1,
        }
        notice
    }

    /// A notice with the seal that it should have, and in it: noise, no change, or heads that nobody has.
    fn notice_of_nothing(&self, stream: &mut Stream) -> Notice {
        let document = self.documents[stream.below(self.documents.len() as u64) as usize].clone();
        let heads = vec![ChangeHash(bytes(stream))];
        let body = match stream.below(4) {
            0 => Bytes::from(bytes::<24>(stream).to_vec()),
            1 => {
                let changes = vec![Bytes::from(bytes::<40>(stream).to_vec())];
                DocumentNotice { stamp: Stamp::ZERO, document, heads, changes }.encode()
            }
            2 => DocumentNotice { stamp: Stamp::ZERO, document, heads, changes: Vec::new() }.encode(),
            _ => {
                let document = DocumentId::from_bytes(&bytes::<16>(stream)).expect("16 bytes");
                DocumentNotice { stamp: Stamp::ZERO, document, heads, changes: Vec::new() }.encode()
            }
        };
        let id = NoticeId { author: Member(bytes(stream)), number: 1 + stream.below(3) };
        Notice { hops: 0, id, seal: key().notices().seal(&id, &body), body }
    }

    fn bad_begins_a_round(&mut self, kind: Kind, value: u64, stream: &mut Stream) {
        let Some(party) = &mut self.bad.party else { return };
        party.manner = Some((kind, value));
        party.answered = 0;
        let (round, set) = (1 + stream.below(1_000) as u32, SetName::of(&key().set_key()));
        let count = if stream.chance(5_000) { u64::MAX } else { stream.below(10) };
        let message = match stream.below(4) {
            0 => Bytes::from_static(NEVER),
            1 => Bytes::from(bytes::<30>(stream).to_vec()),
            2 => Bytes::new(),
            _ => Bytes::from_static(&[0x61, 0, 0, 2, 0]),
        };
        self.bad_says(&NativeMessage::Collection(CollectionMessage::Compare {
            round,
            set,
            count,
            names: true,
            message,
        }));
        if kind == Kind::LieInRound {
            let documents = (0..2).map(|_| DocumentId::from_bytes(&bytes::<16>(stream)).expect("16 bytes")).collect();
            let message = match stream.below(3) {
                0 => CollectionMessage::Missing { round, elements: Vec::new() },
                1 => CollectionMessage::Named { round: 1, documents },
                _ => CollectionMessage::Answer { round: 1, message: Bytes::from_static(NEVER) },
            };
            self.bad_says(&NativeMessage::Collection(message));
        }
    }

    /// Whatever is said in a round is answered with another fingerprint, or with nothing.
    pub(super) fn bad_never_agrees(&mut self, message: &CollectionMessage) {
        let Some((_, value)) = self.bad.party.as_ref().and_then(|party| party.manner) else { return };
        if value.is_multiple_of(3) {
            return;
        }
        let lie = Bytes::from_static(NEVER);
        let (round, asked) = match message {
            CollectionMessage::Compare { round, .. } | CollectionMessage::Question { round, .. } => (*round, true),
            CollectionMessage::Answer { round, .. } => (*round, false),
            CollectionMessage::Missing { .. }
            | CollectionMessage::Named { .. }
            | CollectionMessage::Listed { .. }
            | CollectionMessage::Lacking { .. }
            | CollectionMessage::Ended { .. } => {
                return;
            }
        };
        let message = if asked {
            CollectionMessage::Answer { round, message: lie }
        } else {
            CollectionMessage::Question { round, message: lie }
        };
        self.bad_says(&NativeMessage::Collection(message));
    }

    /// What it says in a round when it is to lie: something near to the truth.
    pub(super) fn bad_bends(&mut self, message: CollectionMessage) -> CollectionMessage {
        let Some(party) = &mut self.bad.party else { return message };
        let Some((Kind::LieInRound, value)) = party.manner else { return message };
        party.answered += 1;
        let mut stream = Stream::new(value ^ u64::from(party.answered), "lie");
        let mut bend = |bytes: &Bytes| {
            let mut bent = bytes.to_vec();
            match stream.below(3) {
                0 => bent.truncate(stream.below(bent.len() as u64 + 1) as usize),
                1 => bent.extend_from_slice(&[0; 3]),
                _ if bent.is_empty() => {}
                _ => {
                    let at = stream.below(bent.len() as u64) as usize;
                    bent[at] ^= 1 << stream.below(8);
                }
            }
            Bytes::from(bent)
        };
        match message {
            CollectionMessage::Answer { round, message } => {
                CollectionMessage::Answer { round, message: bend(&message) }
            }
            CollectionMessage::Question { round, message } => {
                CollectionMessage::Question { round, message: bend(&message) }
            }
            CollectionMessage::Named { round, mut documents } => {
                documents.extend(documents.clone());
                CollectionMessage::Named { round, documents }
            }
            CollectionMessage::Compare { .. }
            | CollectionMessage::Missing { .. }
            | CollectionMessage::Listed { .. }
            | CollectionMessage::Lacking { .. }
            | CollectionMessage::Ended { .. } => message,
        }
    }

    /// Documents that it says it has, and that are nowhere.
    pub(super) fn bad_documents(&self, key: SetKey, hash_key: u64) -> Members {
        let mut stream = Stream::new(self.bad.names, "documents");
        let mut gathering = Gathering::new(key, hash_key);
        let state = |stream: &mut Stream| DocumentState {
            heads: vec![ChangeHash(bytes(stream))],
            authored: Authored::default(),
            life: None,
            local_only: false,
        };
        let known = self.documents[0].clone();
        gathering.add([(known, state(&mut stream))]);
        for _ in 0..stream.below(5) {
            let document = DocumentId::from_bytes(&bytes::<16>(&mut stream)).expect("16 bytes");
            gathering.add([(document, state(&mut stream))]);
        }
        gathering.finish()
    }
}

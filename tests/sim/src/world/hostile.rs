//! A peer that does what no honest one does.
//!
//! Owns: its forged frames, and the record of what it made up. Must not: make a change that keeps an honest author
//! out for good, where actors are not bound: without signatures nobody could tell (`docs/protocol.md` §8).
//! Next: `../forge.rs`.

use std::collections::BTreeSet;

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::sync::message::{Flags, Have, Message, Version};
use syncline_core::wire::{self, Body, RemoteHeads};

use super::link::join_frame;
use super::{Dialler, World};
use crate::dag::forged;
use crate::forge;
use crate::oracle::{Checked, Made};
use crate::random::Stream;
use crate::scenario::Topology;

const NAME: &str = "hostile";

/// The hostile peer.
#[derive(Debug, Default)]
pub(super) struct Hostile {
    pub(super) link: Option<u64>,
    /// It has said something, which may have been somebody else's words.
    pub(super) has_spoken: bool,
    actors: u64,
    /// Hashes that it made up.
    invented: BTreeSet<ChangeHash>,
}

impl Hostile {
    pub(super) fn invented(&self, hash: &ChangeHash) -> bool {
        self.invented.contains(hash)
    }

    fn invent(&mut self, stream: &mut Stream) -> ChangeHash {
        let mut hash = [0; 32];
        hash.chunks_mut(8).for_each(|word| word.copy_from_slice(&stream.next().to_le_bytes()));
        self.invented.insert(ChangeHash(hash));
        ChangeHash(hash)
    }

    fn fresh_actor(&mut self) -> [u8; 16] {
        self.actors += 1;
        let mut actor = [0xee; 16];
        actor[..8].copy_from_slice(&self.actors.to_le_bytes());
        actor
    }
}

fn message(heads: Vec<ChangeHash>, changes: Vec<Bytes>) -> Message {
    let flags = Some(Flags { reset: false, read_only: false, supports_reset: true });
    Message { version: Version::V1, heads, need: Vec::new(), have: Vec::new(), changes, flags }
}

impl World {
    pub(super) fn hostile_acts(&mut self, machine: usize, value: u64) -> Checked {
        let Some(link) = self.hostile.link else {
            let link = self.open_link(Dialler::Hostile, machine);
            self.hostile.link = Some(link);
            self.push_up(link, join_frame(NAME));
            return Ok(());
        };
        self.hostile.has_spoken = true;
        let machine = self.links.get(&link).map_or(machine, |link| link.acceptor);
        let mut stream = Stream::new(value, NAME);
        let document = stream.below(self.documents.len() as u64) as usize;
        if self.topology.has(Topology::BINDS) && Stream::new(value, "forgery").chance(4_000) {
            self.hostile_forges(link, machine, document, &mut stream);
            return Ok(());
        }
        match stream.below(14) {
            0 => self.hostile_bytes(link, &mut stream),
            1 => self.hostile_bends_a_frame(link, &mut stream),
            2 => self.hostile_other_frames(link, document, &mut stream),
            3 => return self.cut(link),
            4..=8 => self.hostile_changes(link, machine, document, &mut stream),
            _ => self.hostile_lies(link, machine, document, &mut stream),
        }
        Ok(())
    }

    fn hostile_says(&mut self, link: u64, sender: &str, body: &Body<'_>) {
        let mut frame = Vec::new();
        wire::encode(sender, Some("server"), body, &mut frame);
        self.push_up(link, Bytes::from(frame));
    }

    fn hostile_syncs(&mut self, link: u64, document: usize, message: &Message) {
        let mut data = Vec::new();
        message.encode(&mut data);
        let body = Body::Sync { document: self.documents[document].clone(), data: Bytes::from(data) };
        self.hostile_says(link, NAME, &body);
    }

    fn hostile_bytes(&mut self, link: u64, stream: &mut Stream) {
        let length = stream.below(80) as usize;
        let bytes: Vec<u8> = (0..length).map(|_| stream.next() as u8).collect();
        self.push_up(link, Bytes::from(bytes));
    }

    /// Somebody else's frame with one bit changed, or cut short.
    fn hostile_bends_a_frame(&mut self, link: u64, stream: &mut Stream) {
        let under_way = self.links.values().flat_map(|link| link.up.iter().chain(&link.down));
        let frames: Vec<Bytes> = under_way.filter(|frame| !frame.is_empty()).cloned().collect();
        if frames.is_empty() {
            return;
        }
        let mut bytes = frames[stream.below(frames.len() as u64) as usize].to_vec();
        if stream.chance(3_000) {
            bytes.truncate(stream.below(bytes.len() as u64) as usize);
        } else {
            let at = stream.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << stream.below(8);
        }
        self.push_up(link, Bytes::from(bytes));
    }

    fn hostile_other_frames(&mut self, link: u64, document: usize, stream: &mut Stream) {
        let id = self.documents[document].clone();
        let (a, b) = (self.hostile.invent(stream), self.hostile.invent(stream));
        match stream.below(6) {
            0 => (1..=60).for_each(|count| {
                let (document, data) = (id.clone(), Bytes::from_static(&[0xf6]));
                self.hostile_says(link, NAME, &Body::Ephemeral { document, count, session: "h", data });
            }),
            1 => self.hostile_says(link, NAME, &Body::DocUnavailable { document: id }),
            2 => self.hostile_says(link, "client-0", &Body::DocUnavailable { document: id }),
            3 => self.push_up(link, join_frame(NAME)),
            4 => self.hostile_says(link, NAME, &Body::Leave),
            _ => {
                let storage_id = syncline_core::id::StorageId::new("store-1").expect("a name");
                let heads = vec![RemoteHeads { storage_id, heads: vec![a, b], timestamp_ms: 1e18 }];
                self.hostile_says(link, NAME, &Body::RemoteHeadsChanged { document: id, heads });
            }
        }
    }

    /// Changes that must be refused, wait for ever, or are valid and everybody's.
    fn hostile_changes(&mut self, link: u64, machine: usize, document: usize, stream: &mut Stream) {
        let stored = self.machines[machine].disk.image.documents.get(&self.documents[document]);
        let raw: Vec<Bytes> = stored.into_iter().flat_map(|s| &s.changes).map(|change| change.bytes.clone()).collect();
        let heads: Vec<ChangeHash> = stored.into_iter().flat_map(|stored| &stored.heads).copied().collect();
        let max_op = heads.iter().filter_map(|head| self.oracle.made(head)).map(|made| made.max_op).max().unwrap_or(0);
        let victim = raw.first().and_then(|bytes| automerge::Change::try_from(&bytes[..]).ok());
        let actor = self.hostile.fresh_actor();
        let bytes = match (stream.below(6), victim) {
            (0 | 1, _) => {
                let (hash, bytes) = forged(&heads, &actor, 1, max_op + 1);
                self.oracle.make(hash, Made { deps: heads, max_op: max_op + 1 });
                bytes
            }
            (2, Some(victim)) => {
                let unknown = self.hostile.invent(stream);
                forged(&[unknown], victim.actor_id().to_bytes(), victim.seq() + 1 + stream.below(3), max_op + 1).1
            }
            (3, Some(victim)) => forged(&heads, victim.actor_id().to_bytes(), victim.seq(), max_op + 1).1,
            (4, Some(victim)) => {
                let whole = victim.raw_bytes();
                let bits = forge::body(whole).len() as u64 * 8;
                let bent = forge::flipped(whole, stream.below(bits) as usize);
                if self.is_of_another_author(&bent, &victim) {
                    return;
                }
                Bytes::from(bent)
            }
            _ => {
                let (seq, start_op) = (1 + stream.below(3), max_op.saturating_sub(stream.below(2)).max(1));
                let (hash, bytes) = forged(&heads, &actor, seq, start_op);
                if seq == 1 && start_op > max_op {
                    self.oracle.make(hash, Made { deps: heads, max_op: start_op });
                }
                bytes
            }
        };
        self.hostile_syncs(link, document, &message(Vec::new(), vec![bytes]));
    }

    /// The next change of somebody's actor, right in everything but whose it is. Nobody made it: it must not be stored.
    fn hostile_forges(&mut self, link: u64, machine: usize, document: usize, stream: &mut Stream) {
        let image = &self.machines[machine].disk.image;
        let owned: Vec<_> = image.subjects.owners.iter().filter(|(_, owner)| &***owner != NAME).collect();
        let Some(stored) = image.documents.get(&self.documents[document]).filter(|_| !owned.is_empty()) else { return };
        let (actor, _) = owned[stream.below(owned.len() as u64) as usize];
        let of_actor = |change: &automerge::Change| change.actor_id().to_bytes() == actor.as_bytes();
        let changes = stored.changes.iter().filter_map(|change| automerge::Change::try_from(&change.bytes[..]).ok());
        let seq = changes.filter(of_actor).map(|change| change.seq()).max().unwrap_or(0);
        let heads: Vec<ChangeHash> = stored.heads.iter().copied().collect();
        let max_op = heads.iter().filter_map(|head| self.oracle.made(head)).map(|made| made.max_op).max().unwrap_or(0);
        let (_, bytes) = forged(&heads, actor.as_bytes(), seq + 1, max_op + 1);
        self.hostile_syncs(link, document, &message(Vec::new(), vec![bytes]));
    }

    /// A bent change may still be a change: if it is stored, that is no fault. In the name of an author who is yet to
    /// write, it would keep that author out.
    fn is_of_another_author(&mut self, bytes: &[u8], victim: &automerge::Change) -> bool {
        let Ok(change) = automerge::Change::try_from(bytes) else { return false };
        let made = Made { deps: change.deps().to_vec(), max_op: change.max_op() };
        self.oracle.make(change.hash(), made);
        change.actor_id() != victim.actor_id()
    }

    /// Statements that are not true.
    fn hostile_lies(&mut self, link: u64, machine: usize, document: usize, stream: &mut Stream) {
        let stored = self.machines[machine].disk.image.documents.get(&self.documents[document]);
        let known: Vec<ChangeHash> = stored.into_iter().flat_map(|stored| &stored.hashes).copied().collect();
        let pick = |stream: &mut Stream| (!known.is_empty()).then(|| known[stream.below(known.len() as u64) as usize]);
        let mut lie = message(Vec::new(), Vec::new());
        if stream.chance(6_000) {
            lie.heads.extend(pick(stream));
        }
        if stream.chance(4_000) {
            lie.heads.push(self.hostile.invent(stream));
        }
        if stream.chance(4_000) {
            lie.need.extend(pick(stream));
            lie.need.push(self.hostile.invent(stream));
        }
        if stream.chance(5_000) {
            let last_sync = if stream.chance(5_000) { vec![self.hostile.invent(stream)] } else { Vec::new() };
            let length = stream.below(12) as usize;
            let bloom: Vec<u8> = (0..length).map(|_| stream.next() as u8).collect();
            let bomb = [[1, 0, 7].as_slice(), &[1, 10, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]];
            let bloom = if stream.chance(3_000) { stream.one_of(&bomb).to_vec() } else { bloom };
            lie.have.push(Have { last_sync, bloom: Bytes::from(bloom) });
        }
        if stream.chance(3_000) {
            lie.flags = Some(Flags { reset: true, read_only: stream.chance(5_000), supports_reset: true });
        }
        lie.heads.sort_unstable();
        lie.need.sort_unstable();
        self.hostile_syncs(link, document, &lie);
    }
}

//! Blobs that go out: pieces to whoever asks, offers to servers.
//!
//! Owns: what one connection wants from us, the pace at which it gets it, what it was offered.
//! Must not: have more than one piece of a connection on its way. Next: `receive.rs`; docs/blobs.md, "On the way".

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::{Event, Exchange, Output};
use crate::blob::{BlobHash, BlobMessage, BlobRefusal, PIECE_BYTES};
use crate::hub::StoreFailure;
use crate::id::SessionId;

/// Offers that one connection did not take for a reason that may pass, and that are made to it again.
const RETRIES_MAX: u32 = 8;

/// A connection whose peer speaks of blobs.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) upstream: bool,
    /// What it wants, in the order in which its next pieces go out.
    wants: VecDeque<Want>,
    /// A piece is being read for it, or has been put on its queue and is not written yet.
    occupied: bool,
    /// Blobs that it offered and has no answer for.
    pub(super) offers: BTreeSet<BlobHash>,
    /// Blobs that we offered and it has not answered for.
    offered: BTreeSet<BlobHash>,
    /// Blobs that are to be offered next, with their sizes.
    lined_up: VecDeque<(BlobHash, u64)>,
    retries: u32,
    /// Bytes that may still come although they are not wanted any more.
    pub(super) excused_bytes: u64,
    /// Pieces that came without having been asked for.
    pub(super) unasked: u32,
}

/// Bytes of a blob that a peer asked for.
#[derive(Debug)]
struct Want {
    hash: BlobHash,
    next: u64,
    to: u64,
}

impl Peer {
    pub(super) fn new(upstream: bool) -> Self {
        Self {
            upstream,
            wants: VecDeque::new(),
            occupied: false,
            offers: BTreeSet::new(),
            offered: BTreeSet::new(),
            lined_up: VecDeque::new(),
            retries: 0,
            excused_bytes: 0,
            unasked: 0,
        }
    }

    /// The peer has answered an offer; whether there was one.
    pub(super) fn settle(&mut self, hash: &BlobHash) -> bool {
        let offered = self.offered.remove(hash);
        if offered {
            self.wants.retain(|want| want.hash != *hash);
        }
        offered
    }
}

impl Exchange {
    /// A peer asks for bytes.
    pub(super) fn wanted(&mut self, session: SessionId, hash: BlobHash, from: u64, to: u64) {
        let wants_max = self.limits.blob_transfers_max;
        let Some(peer) = self.peers.get_mut(&session) else { return };
        let full = peer.wants.len() >= wants_max;
        match peer.wants.iter_mut().find(|want| want.hash == hash) {
            Some(want) if want.to == from => want.to = to,
            Some(want) => (want.next, want.to) = (from, to),
            None if full => {
                let words = format!("at most {wants_max} blobs are sent to one connection at one time");
                return self.refuse(session, hash, BlobRefusal::Busy, &words);
            }
            None => peer.wants.push_back(Want { hash, next: from, to }),
        }
        self.read_next(session);
    }

    pub(super) fn has_room(&mut self, session: SessionId) {
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.occupied = false;
            self.read_next(session);
        }
    }

    fn read_next(&mut self, session: SessionId) {
        let Some(peer) = self.peers.get_mut(&session).filter(|peer| !peer.occupied) else { return };
        if let Some(Want { hash, next: offset, .. }) = peer.wants.front() {
            peer.occupied = true;
            self.outputs.push_back(Output::Read { session, hash: *hash, offset: *offset });
        }
    }

    /// A piece has been read: it goes out, and the next blob of the connection has its turn.
    pub(super) fn read(
        &mut self,
        session: SessionId,
        hash: BlobHash,
        offset: u64,
        piece: Result<Option<(u64, Bytes)>, StoreFailure>,
    ) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        peer.occupied = false;
        let at = peer.wants.iter().position(|want| want.hash == hash);
        let Some(mut want) = at.and_then(|at| peer.wants.remove(at)) else { return self.read_next(session) };
        let (size, data) = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                self.refuse(session, hash, BlobRefusal::NotHere, "the blob is not here");
                return self.read_next(session);
            }
            Err(_) => {
                self.refuse(session, hash, BlobRefusal::Other, "the blob cannot be read");
                return self.read_next(session);
            }
        };
        // The peer may have asked for another range meanwhile.
        if want.next == offset {
            want.next = offset + PIECE_BYTES as u64;
            let is_offered = peer.offered.contains(&hash);
            let bytes = offset + data.len() as u64;
            peer.occupied = true;
            self.send(session, BlobMessage::Piece { hash, size, offset, data });
            self.outputs.push_back(Output::AwaitRoom { session });
            if is_offered {
                self.outputs.push_back(Output::Notify(Event::Sent { hash, session, bytes }));
            }
        }
        if want.next < want.to.min(size)
            && let Some(peer) = self.peers.get_mut(&session)
        {
            peer.wants.push_back(want);
        }
        self.read_next(session);
    }

    /// The application has a blob that servers are to have.
    pub(super) fn push(&mut self, hash: BlobHash, size: u64) {
        self.pushes.insert(hash, size);
        let upstreams: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.upstream).map(|(session, _)| *session).collect();
        for session in upstreams {
            self.line_up(session, hash, size);
            self.offer_next(session);
        }
    }

    pub(super) fn line_up(&mut self, session: SessionId, hash: BlobHash, size: u64) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        if !peer.offered.contains(&hash) && !peer.lined_up.iter().any(|(other, _)| *other == hash) {
            peer.lined_up.push_back((hash, size));
        }
    }

    /// Offers as much as may be under way.
    pub(super) fn offer_next(&mut self, session: SessionId) {
        while let Some(peer) = self.peers.get_mut(&session)
            && peer.offered.len() < self.limits.blob_transfers_max
            && let Some((hash, size)) = peer.lined_up.pop_front()
        {
            peer.offered.insert(hash);
            self.send(session, BlobMessage::Offer { hash, size });
        }
    }

    /// A server does not take a blob: what may pass is tried again, the rest on the next connection.
    pub(super) fn not_taken(&mut self, session: SessionId, hash: BlobHash, reason: BlobRefusal, words: String) {
        let passes = matches!(reason, BlobRefusal::Busy | BlobRefusal::Mismatch);
        let size = self.pushes.get(&hash).copied();
        match (self.peers.get_mut(&session), size) {
            (Some(peer), Some(size)) if passes && peer.retries < RETRIES_MAX => {
                peer.retries += 1;
                peer.lined_up.push_back((hash, size));
            }
            _ => self.outputs.push_back(Output::Notify(Event::NotTaken { hash, session, reason, words })),
        }
        self.offer_next(session);
    }
}

//! Blobs that come in: from one sender at a time, at the pace at which they become durable.
//!
//! Owns: who is asked for what, the window, what follows when a sender fails. Must not: believe a sender's size or bytes
//! before the whole has its hash. Next: `send.rs`; docs/blobs.md, "On the way".

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::{Event, Exchange, Output, WriteFailure};
use crate::blob::{BLOB_BYTES_MAX, BlobHash, BlobMessage, BlobRefusal, BlobStanding, PIECE_BYTES};
use crate::hub::{Now, Receipt, StoreFailure};
use crate::id::SessionId;

/// A blob that is coming, or is to come.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The application waits for it; its size, as the document says.
    wanted: Option<u64>,
    /// Who may have it and is not asked yet.
    sources: VecDeque<Source>,
    /// The size by which the store has it, and how much.
    stored: (u64, u64),
    phase: Phase,
}

/// Somebody who may have a blob.
#[derive(Debug, Clone, Copy)]
struct Source {
    session: SessionId,
    /// As this one says.
    size: u64,
    /// It has offered it, and waits to hear what becomes of that.
    offered: bool,
}

#[derive(Debug)]
enum Phase {
    /// The store is asked how it stands.
    Looking,
    /// Nobody is left to be asked.
    Idle,
    Receiving(Receiving),
    /// All is stored and is being read back; who sent the last of it.
    Verifying(Option<Source>),
}

#[derive(Debug)]
struct Receiving {
    source: Source,
    /// Bytes that are durable.
    held: u64,
    /// Where the next piece begins.
    expected: u64,
    /// The end of what was asked for.
    asked: u64,
    /// When the sender last brought something.
    moved: Duration,
}

impl Incoming {
    fn new(wanted: Option<u64>) -> Self {
        Self { wanted, sources: VecDeque::new(), stored: (0, 0), phase: Phase::Looking }
    }

    /// When whoever sends it last did, if somebody owes us something.
    pub(super) fn moved(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Receiving(receiving) if receiving.expected < receiving.asked => Some(receiving.moved),
            Phase::Receiving(_) | Phase::Looking | Phase::Idle | Phase::Verifying(_) => None,
        }
    }

    fn receiving(&mut self) -> Option<&mut Receiving> {
        match &mut self.phase {
            Phase::Receiving(receiving) => Some(receiving),
            Phase::Looking | Phase::Idle | Phase::Verifying(_) => None,
        }
    }

    /// Whom it is being received from, or was.
    fn source(&self) -> Option<Source> {
        match &self.phase {
            Phase::Receiving(receiving) => Some(receiving.source),
            Phase::Verifying(source) => *source,
            Phase::Looking | Phase::Idle => None,
        }
    }
}

impl Exchange {
    /// A peer has a blob for us.
    pub(super) fn offered(&mut self, session: SessionId, hash: BlobHash, size: u64) {
        let (bytes_max, offers_max) = (self.bytes_max(), self.limits.blob_transfers_max);
        let Some(peer) = self.peers.get_mut(&session) else { return };
        if size > bytes_max {
            let words = format!("a blob of {size} bytes is too large; at most {bytes_max} are taken");
            return self.refuse(session, hash, BlobRefusal::TooLarge, &words);
        }
        if peer.offers.contains(&hash) {
            return;
        }
        if peer.offers.len() >= offers_max {
            let words = format!("at most {offers_max} blobs are taken from one connection at one time");
            return self.refuse(session, hash, BlobRefusal::Busy, &words);
        }
        peer.offers.insert(hash);
        self.add_source(hash, Source { session, size, offered: true });
    }

    /// The application wants a blob: every server may have it.
    pub(super) fn fetch(&mut self, hash: BlobHash, size: u64) {
        let bytes_max = self.bytes_max();
        if size > bytes_max {
            let message = format!("a blob of {size} bytes is too large; at most {bytes_max} are taken");
            return self.outputs.push_back(Output::Notify(Event::Failed {
                hash,
                reason: BlobRefusal::TooLarge,
                message,
            }));
        }
        let servers: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.upstream).map(|(id, _)| *id).collect();
        let incoming = self.incoming.entry(hash).or_insert_with(|| Incoming::new(Some(size)));
        incoming.wanted = Some(size);
        let asked = incoming.source();
        for session in servers {
            let is_asked = asked.is_some_and(|source| source.session == session);
            if !is_asked && !incoming.sources.iter().any(|source| source.session == session) {
                incoming.sources.push_back(Source { session, size, offered: false });
            }
        }
        // Somebody may have removed or stored it since it was last looked at.
        if matches!(incoming.phase, Phase::Looking | Phase::Idle) {
            incoming.phase = Phase::Looking;
            self.outputs.push_back(Output::Look { hash });
        }
    }

    pub(super) fn cancel(&mut self, hash: BlobHash) {
        let Some(incoming) = self.incoming.get_mut(&hash) else { return };
        incoming.wanted = None;
        incoming.sources.retain(|source| source.offered);
        let goes_on = !incoming.sources.is_empty() || incoming.source().is_some_and(|source| source.offered);
        if !goes_on {
            self.excuse(&hash);
            self.incoming.remove(&hash);
        }
    }

    /// What is wanted may be on a server that has come.
    pub(super) fn ask_new_server(&mut self, now: Now, session: SessionId) {
        let wanted: Vec<_> =
            self.incoming.iter().filter_map(|(hash, incoming)| Some((*hash, incoming.wanted?))).collect();
        for (hash, size) in wanted {
            let Some(incoming) = self.incoming.get_mut(&hash) else { continue };
            incoming.sources.push_back(Source { session, size, offered: false });
            if matches!(incoming.phase, Phase::Idle) {
                self.ask_next(now, hash);
            }
        }
    }

    fn add_source(&mut self, hash: BlobHash, source: Source) {
        let outputs = &mut self.outputs;
        let incoming = self.incoming.entry(hash).or_insert_with(|| {
            outputs.push_back(Output::Look { hash });
            Incoming::new(None)
        });
        incoming.sources.push_back(source);
        if matches!(incoming.phase, Phase::Idle) {
            incoming.phase = Phase::Looking;
            outputs.push_back(Output::Look { hash });
        }
    }

    pub(super) fn found(&mut self, now: Now, hash: BlobHash, standing: Result<Option<BlobStanding>, StoreFailure>) {
        let Some(incoming) = self.incoming.get_mut(&hash) else { return };
        if !matches!(incoming.phase, Phase::Looking) {
            return;
        }
        match standing {
            Ok(Some(standing)) if standing.is_whole() => self.complete(hash, standing.size),
            Ok(standing) => {
                incoming.stored = standing.map_or((0, 0), |standing| (standing.size, standing.held));
                self.ask_next(now, hash);
            }
            Err(failure) => self.give_up(hash, BlobRefusal::Other, &failure.message),
        }
    }

    /// Asks the next who may have it for what is missing.
    fn ask_next(&mut self, now: Now, hash: BlobHash) {
        let window = self.limits.blob_window_bytes.max(PIECE_BYTES as u64);
        let servers = self.peers.values().filter(|peer| peer.upstream).count();
        let Some(incoming) = self.incoming.get_mut(&hash) else { return };
        let Some(source) = incoming.sources.pop_front() else {
            incoming.phase = Phase::Idle;
            if incoming.wanted.is_some() {
                self.outputs.push_back(Output::Notify(Event::Unavailable { hash, servers }));
            } else {
                self.incoming.remove(&hash);
            }
            return;
        };
        let (session, size) = (source.session, source.size);
        let held = if incoming.stored.0 == size { incoming.stored.1 } else { 0 };
        if held == size && size > 0 {
            incoming.phase = Phase::Verifying(Some(source));
            return self.outputs.push_back(Output::Verify { hash, size });
        }
        let asked = size.min(held + window);
        incoming.phase = Phase::Receiving(Receiving { source, held, expected: held, asked, moved: now.mono });
        if size == 0 {
            let (data, receipt) = (Bytes::new(), Receipt::default());
            return self.outputs.push_back(Output::Write { hash, size, offset: 0, data, receipt });
        }
        self.send(session, BlobMessage::Want { hash, from: held, to: asked });
    }

    pub(super) fn piece(
        &mut self,
        now: Now,
        (session, hash): (SessionId, BlobHash),
        (size, offset): (u64, u64),
        data: Bytes,
        receipt: Receipt,
    ) {
        let receiving = self.incoming.get_mut(&hash).and_then(Incoming::receiving);
        let asked = receiving.filter(|receiving| {
            receiving.source.session == session && receiving.expected == offset && offset < receiving.asked
        });
        let Some(receiving) = asked else { return self.unasked(session, hash, data.len()) };
        if size != receiving.source.size || data.len() as u64 != (PIECE_BYTES as u64).min(size - offset) {
            self.outputs.push_back(Output::Refused { session, hash, kind: "blob_wrong_size" });
            return self.drop_source(now, hash, Some((BlobRefusal::Mismatch, "a piece has another size")));
        }
        receiving.expected += data.len() as u64;
        receiving.moved = now.mono;
        self.outputs.push_back(Output::Write { hash, size, offset, data, receipt });
    }

    pub(super) fn written(&mut self, now: Now, hash: BlobHash, result: Result<BlobStanding, WriteFailure>) {
        let window = self.limits.blob_window_bytes.max(PIECE_BYTES as u64);
        let Some(incoming) = self.incoming.get_mut(&hash) else { return };
        let wanted = incoming.wanted;
        let standing = match result {
            Ok(standing) => standing,
            Err(failure) => {
                self.excuse(&hash);
                let reason = if failure.no_room { BlobRefusal::NoRoom } else { BlobRefusal::Other };
                return self.give_up(hash, reason, &failure.message);
            }
        };
        incoming.stored = (standing.size, standing.held);
        let Some(receiving) = incoming.receiving() else { return };
        let Source { session, size, .. } = receiving.source;
        if standing.is_whole() {
            // Somebody brought the same content by another way.
            self.excuse(&hash);
            return self.complete(hash, standing.size);
        }
        receiving.held = standing.resumable(size);
        let held = receiving.held;
        if held >= size {
            let source = receiving.source;
            self.excuse(&hash);
            if let Some(incoming) = self.incoming.get_mut(&hash) {
                incoming.phase = Phase::Verifying(Some(source));
            }
            self.outputs.push_back(Output::Verify { hash, size });
        } else if receiving.asked.saturating_sub(held) <= window / 2 && receiving.asked < size {
            let mut late = 0;
            if held > receiving.asked {
                // What another sender brought before has become durable meanwhile.
                late = receiving.asked - receiving.expected;
                (receiving.expected, receiving.asked) = (held, held);
            }
            if receiving.expected == receiving.asked {
                // Until now the sender owed nothing.
                receiving.moved = now.mono;
            }
            let from = receiving.asked;
            receiving.asked = size.min(held + window).max(from);
            let to = receiving.asked;
            if let Some(peer) = self.peers.get_mut(&session) {
                peer.excused_bytes += late;
            }
            self.send(session, BlobMessage::Want { hash, from, to });
        }
        if wanted.is_some() {
            self.outputs.push_back(Output::Notify(Event::Held { hash, held }));
        }
    }

    pub(super) fn verified(&mut self, now: Now, hash: BlobHash, result: Result<bool, StoreFailure>) {
        let Some(incoming) = self.incoming.get_mut(&hash) else { return };
        let Phase::Verifying(source) = incoming.phase else { return };
        match result {
            Ok(true) => {
                let size = incoming.stored.0;
                if let Some(Source { session, .. }) = source
                    && self.peers.get(&session).is_some_and(|peer| peer.upstream)
                {
                    self.outputs.push_back(Output::Confirm { hash, session });
                }
                self.complete(hash, size);
            }
            Ok(false) => {
                incoming.stored = (0, 0);
                if let Some(Source { session, .. }) = source {
                    self.outputs.push_back(Output::Refused { session, hash, kind: "blob_mismatch" });
                }
                let alone = incoming.sources.is_empty();
                let words = "the content does not have the hash";
                if alone && incoming.wanted.is_some() {
                    return self.give_up(hash, BlobRefusal::Mismatch, words);
                }
                self.drop_source(now, hash, Some((BlobRefusal::Mismatch, words)));
            }
            Err(failure) => self.give_up(hash, BlobRefusal::Other, &failure.message),
        }
    }

    /// A peer does not send what it was asked for.
    pub(super) fn not_sent(&mut self, now: Now, session: SessionId, hash: &BlobHash) {
        let receiving = self.incoming.get_mut(hash).and_then(Incoming::receiving);
        if receiving.is_some_and(|receiving| receiving.source.session == session) {
            self.answer_offer(session, hash);
            self.drop_source(now, *hash, None);
        }
    }

    pub(super) fn disconnect(&mut self, now: Now, session: SessionId) {
        self.peers.remove(&session);
        let mut lost = Vec::new();
        for (hash, incoming) in &mut self.incoming {
            incoming.sources.retain(|source| source.session != session);
            match &mut incoming.phase {
                Phase::Receiving(receiving) if receiving.source.session == session => lost.push(*hash),
                Phase::Verifying(source) if source.is_some_and(|source| source.session == session) => *source = None,
                Phase::Receiving(_) | Phase::Verifying(_) | Phase::Looking | Phase::Idle => {}
            }
        }
        lost.into_iter().for_each(|hash| self.drop_source(now, hash, None));
    }

    pub(super) fn time_out(&mut self, now: Now) {
        let stall = self.limits.blob_stall_timeout;
        let late = |incoming: &Incoming| incoming.moved().is_some_and(|moved| moved + stall <= now.mono);
        let late: Vec<_> = self.incoming.iter().filter(|(_, incoming)| late(incoming)).map(|(hash, _)| *hash).collect();
        for hash in late {
            self.drop_source(now, hash, Some((BlobRefusal::Busy, "nothing of the blob has come for too long")));
        }
    }

    /// Goes on with somebody else. Who offered it is told why, if anything is to be told.
    fn drop_source(&mut self, now: Now, hash: BlobHash, why: Option<(BlobRefusal, &str)>) {
        self.excuse(&hash);
        let source = self.incoming.get(&hash).and_then(Incoming::source);
        if let Some(Source { session, offered: true, .. }) = source
            && self.answer_offer(session, &hash)
            && let Some((reason, words)) = why
        {
            self.refuse(session, hash, reason, words);
        }
        self.ask_next(now, hash);
    }

    /// The blob is whole: everyone who offered it hears so, and the application if it waits.
    fn complete(&mut self, hash: BlobHash, size: u64) {
        let Some(incoming) = self.incoming.remove(&hash) else { return };
        for source in incoming.source().into_iter().chain(incoming.sources) {
            if source.offered && self.answer_offer(source.session, &hash) {
                self.send(source.session, BlobMessage::Have { hash, size });
            }
        }
        if incoming.wanted.is_some() {
            self.outputs.push_back(Output::Notify(Event::Here { hash }));
        }
    }

    /// Nobody's copy can be had: everyone who offered it hears so, and the application if it waits.
    fn give_up(&mut self, hash: BlobHash, reason: BlobRefusal, words: &str) {
        let Some(incoming) = self.incoming.remove(&hash) else { return };
        for source in incoming.source().into_iter().chain(incoming.sources) {
            if source.offered && self.answer_offer(source.session, &hash) {
                self.refuse(source.session, hash, reason, words);
            }
        }
        if incoming.wanted.is_some() {
            let message = words.to_owned();
            self.outputs.push_back(Output::Notify(Event::Failed { hash, reason, message }));
        }
    }

    /// The peer is about to hear what became of its offer; whether it is there and waits for that.
    fn answer_offer(&mut self, session: SessionId, hash: &BlobHash) -> bool {
        self.peers.get_mut(&session).is_some_and(|peer| peer.offers.remove(hash))
    }

    /// What was asked for and is still to come is not held against its sender.
    fn excuse(&mut self, hash: &BlobHash) {
        let Some(receiving) = self.incoming.get_mut(hash).and_then(Incoming::receiving) else { return };
        let late = receiving.asked - receiving.expected;
        receiving.asked = receiving.expected;
        if let Some(peer) = self.peers.get_mut(&receiving.source.session) {
            peer.excused_bytes += late;
        }
    }

    fn bytes_max(&self) -> u64 {
        self.limits.blob_bytes_max.min(BLOB_BYTES_MAX)
    }
}

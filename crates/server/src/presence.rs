//! What peers last said of themselves at each document, for those who ask over HTTP.
//!
//! Owns: the memory of it and its bounds. Must not: hold up the replica, or store anything.
//! Next: `api/presence.rs`; the crate `syncline-content`'s `presence.rs`; docs/http-api.md, "Presence".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use syncline_content::presence::{self, Said as Message};
use syncline_core::id::{DocumentId, PeerId};
use syncline_replica::Overheard;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::server::Shared;

/// Messages that wait to be looked at; what comes beyond them is not remembered.
const WAITING_MAX: usize = 1_024;

/// Peers that are remembered at one document.
const PEERS_MAX: usize = 256;

/// Bytes that are remembered of one document.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes that are remembered in all.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a peer takes beside what it said, about.
const PEER_BYTES: usize = 256;

/// Who has said nothing for so long is gone: three of automerge-repo's heartbeats.
const EXPIRY: Duration = Duration::from_secs(45);

/// What a peer said last.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    /// Values by channel, as JSON; `None` of a peer that speaks in other words.
    pub(crate) channels: Option<BTreeMap<String, String>>,
    /// The last message that was no presence message.
    pub(crate) message: Option<Bytes>,
    /// Milliseconds since the Unix epoch.
    pub(crate) seen_ms: u64,
    /// The place among all, by when they last spoke.
    turn: u64,
    at: Instant,
}

/// Who is where. The one that has been silent longest is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    documents: BTreeMap<DocumentId, Place>,
    /// Everybody, the one who has been silent longest first.
    order: BTreeMap<u64, (DocumentId, PeerId)>,
    bytes: usize,
    turns: u64,
}

/// Who is at one document.
#[derive(Debug, Default)]
struct Place {
    peers: BTreeMap<PeerId, Said>,
    bytes: usize,
}

/// Where the replica puts what it overhears, and where that comes out.
pub(crate) fn ear() -> (mpsc::Sender<Overheard>, mpsc::Receiver<Overheard>) {
    mpsc::channel(WAITING_MAX)
}

/// Remembers what is overheard, as long as the server runs.
pub(crate) async fn hear(shared: Arc<Shared>, mut overheard: mpsc::Receiver<Overheard>) {
    while let Some(overheard) = overheard.recv().await {
        shared.presence.note(overheard, Instant::now());
    }
}

impl Presence {
    /// Everybody at a document who has said something lately, by name.
    pub(crate) fn at(&self, document: &DocumentId) -> Vec<(String, Said)> {
        let mut table = self.table();
        table.expire(Instant::now());
        let place = table.documents.get(document);
        let peers = place.into_iter().flat_map(|place| &place.peers);
        peers.map(|(peer, said)| (peer.as_str().to_owned(), said.clone())).collect()
    }

    fn note(&self, overheard: Overheard, now: Instant) {
        let message = presence::read(&overheard.data);
        self.table().note(overheard, message, now);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn note(&mut self, overheard: Overheard, message: Option<Message>, now: Instant) {
        let Overheard { document, sender, data } = overheard;
        self.expire(now);
        let before = self.remove(&document, &sender);
        let mut said = match (before, &message) {
            (_, Some(Message::Goodbye)) => return,
            (Some(before), _) => before,
            // Somebody of whom only this is known shows nothing.
            (None, Some(Message::Alive)) => return,
            (None, _) => Said { channels: None, message: None, seen_ms: 0, turn: 0, at: now },
        };
        match message {
            Some(Message::Channels(channels)) => {
                let known = said.channels.get_or_insert_default();
                known.extend(channels.into_iter().map(|(name, value)| (name, value.to_string())));
            }
            Some(Message::Alive | Message::Goodbye) => {}
            None => said.message = Some(data),
        }
        if said.bytes() > DOCUMENT_BYTES_MAX {
            return;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        said.seen_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        said.at = now;
        self.insert(document, sender, said);
    }

    fn insert(&mut self, document: DocumentId, peer: PeerId, mut said: Said) {
        self.turns += 1;
        said.turn = self.turns;
        let bytes = said.bytes();
        self.order.insert(said.turn, (document.clone(), peer.clone()));
        let place = self.documents.entry(document.clone()).or_default();
        place.peers.insert(peer, said);
        place.bytes += bytes;
        self.bytes += bytes;
        while let Some(place) = self.documents.get(&document)
            && (place.bytes > DOCUMENT_BYTES_MAX || place.peers.len() > PEERS_MAX)
        {
            let silent = place.peers.iter().min_by_key(|(_, said)| said.turn).map(|(peer, _)| peer.clone());
            silent.and_then(|peer| self.remove(&document, &peer));
        }
        while self.bytes > BYTES_MAX {
            let Some((_, (document, peer))) = self.order.first_key_value() else { return };
            let (document, peer) = (document.clone(), peer.clone());
            self.remove(&document, &peer);
        }
    }

    fn remove(&mut self, document: &DocumentId, peer: &PeerId) -> Option<Said> {
        let place = self.documents.get_mut(document)?;
        let said = place.peers.remove(peer)?;
        place.bytes -= said.bytes();
        self.bytes -= said.bytes();
        self.order.remove(&said.turn);
        if place.peers.is_empty() {
            self.documents.remove(document);
        }
        Some(said)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, (document, peer))) = self.order.first_key_value() {
            let (document, peer) = (document.clone(), peer.clone());
            let said = self.documents.get(&document).and_then(|place| place.peers.get(&peer));
            if said.is_some_and(|said| now.duration_since(said.at) < EXPIRY) {
                return;
            }
            self.remove(&document, &peer);
        }
    }
}

impl Said {
    fn bytes(&self) -> usize {
        let channels = self.channels.iter().flatten().map(|(name, value)| PEER_BYTES / 4 + name.len() + value.len());
        PEER_BYTES + channels.sum::<usize>() + self.message.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests;

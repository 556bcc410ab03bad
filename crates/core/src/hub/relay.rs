//! What passes through without being stored: ephemeral messages and the heads of other stores.
//!
//! Owns: deduplication, who hears what. Must not: look into an ephemeral message's data.
//! Next: `hub.rs`; docs/protocol.md §5, §6.

use super::document::Relayed;
use super::{Event, Hub, Now, Outgoing, Output, PeerMessage};
use crate::ChangeHash;
use crate::id::{DocumentId, SessionId, StorageId};
use crate::wire::RemoteHeads;

/// Senders whose counts are remembered per document.
const SENDERS_MAX: usize = 1_024;

/// Stores whose heads are remembered per document.
const REMOTE_STORES_MAX: usize = 64;

impl Hub {
    /// Passes an ephemeral message on to everyone else at the document, once.
    pub(super) fn relay_ephemeral(&mut self, now: Now, from: SessionId, message: PeerMessage) {
        let PeerMessage::Ephemeral { document: id, sender, count, session, data } = message else { return };
        if !self.may_open(from, &id) {
            return;
        }
        let key = self.key_of(&id);
        self.touch(now, key);
        // Speaking at a document is being there: the sender hears what others say.
        self.join_document(from, key);
        let Some(document) = self.document(key) else { return };
        if !document.relayed.get_or_insert_default().is_new(&sender, &session, count) {
            return;
        }
        let watched = document.watched;
        let others: Vec<_> = document.peers.iter().map(|peer| peer.session).filter(|peer| *peer != from).collect();
        for peer in others {
            if self.sessions.get(&peer).is_some_and(|entry| !entry.congested) {
                let (document, sender) = (id.clone(), sender.clone());
                let (session, data) = (session.clone(), data.clone());
                self.send(peer, Outgoing::Ephemeral { document, sender, count, session, data });
            }
        }
        if watched {
            self.outputs.push_back(Output::Notify(Event::Ephemeral { document: id, sender, data }));
        }
    }

    pub(super) fn subscribe(&mut self, session: SessionId, add: Vec<StorageId>, remove: &[StorageId]) {
        for storage in remove {
            if let Some(subscribers) = self.subscriptions.get_mut(storage) {
                subscribers.remove(&session);
            }
        }
        for storage in add {
            let taken = self.subscriptions.values().filter(|subscribers| subscribers.contains(&session)).count();
            if taken >= self.limits.remote_subscriptions_max {
                return;
            }
            self.subscriptions.entry(storage.clone()).or_default().insert(session);
            self.send_remembered_heads(session, &storage);
        }
    }

    /// A peer's own heads are news for those who asked after its store.
    pub(super) fn note_peer_heads(&mut self, now: Now, id: &DocumentId, session: SessionId, heads: Vec<ChangeHash>) {
        let storage = self.sessions.get(&session).and_then(|entry| entry.peer.storage.clone());
        if let Some(storage_id) = storage.filter(|_| !heads.is_empty()) {
            let timestamp_ms = now.wall_ms as f64;
            self.note_remote_heads(id, Some(session), RemoteHeads { storage_id, heads, timestamp_ms });
        }
    }

    /// Remembers another store's heads if they are newer, and tells subscribers at this document.
    pub(super) fn note_remote_heads(&mut self, id: &DocumentId, from: Option<SessionId>, news: RemoteHeads) {
        let Some(key) = self.keys.get(id).copied() else { return };
        let Some(document) = self.document(key) else { return };
        let known = &mut document.relayed.get_or_insert_default().heads;
        let full = known.len() >= REMOTE_STORES_MAX;
        match known.get(&news.storage_id) {
            Some((heads, timestamp)) if *timestamp >= news.timestamp_ms || *heads == news.heads => return,
            None if full => return,
            _ => known.insert(news.storage_id.clone(), (news.heads.clone(), news.timestamp_ms)),
        };
        let Some(subscribers) = self.subscriptions.get(&news.storage_id) else { return };
        let Some(document) = self.documents.get(key as usize).and_then(Option::as_ref) else { return };
        let interested = document.peers.iter().map(|peer| peer.session);
        let interested: Vec<_> = interested.filter(|peer| subscribers.contains(peer) && Some(*peer) != from).collect();
        for peer in interested {
            self.send(peer, Outgoing::RemoteHeads { document: id.clone(), heads: vec![news.clone()] });
        }
    }

    fn send_remembered_heads(&mut self, session: SessionId, storage: &StorageId) {
        let Some(entry) = self.sessions.get(&session) else { return };
        let mut messages = Vec::new();
        for key in &entry.documents {
            let Some(document) = self.documents.get(*key as usize).and_then(Option::as_ref) else { continue };
            let remembered = document.relayed.as_ref().and_then(|relayed| relayed.heads.get(storage));
            if let Some((heads, timestamp_ms)) = remembered {
                let (heads, timestamp_ms) = (heads.clone(), *timestamp_ms);
                let heads = vec![RemoteHeads { storage_id: storage.clone(), heads, timestamp_ms }];
                messages.push(Outgoing::RemoteHeads { document: document.id.clone(), heads });
            }
        }
        for message in messages {
            self.send(session, message);
        }
    }
}

impl Relayed {
    /// Whether this count is the highest yet of that sender's process; notes it.
    fn is_new(&mut self, sender: &crate::id::PeerId, session: &std::sync::Arc<str>, count: u64) -> bool {
        let key = (sender.clone(), session.clone());
        if let Some(seen) = self.counts.get_mut(&key) {
            let new = count > *seen;
            *seen = count.max(*seen);
            return new;
        }
        if self.order.len() >= SENDERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.counts.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.counts.insert(key, count);
        true
    }
}

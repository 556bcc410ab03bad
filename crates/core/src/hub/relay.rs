//! What passes through without being stored: ephemeral messages and the heads of other stores.
//!
//! Owns: deduplication, who hears what. Must not: look into an ephemeral message's data.
//! Next: `hub.rs`; docs/protocol.md §5, §6.

use std::sync::Arc;

use bytes::Bytes;

use super::connection::Session;
use super::document::{Presence, Relayed, StoreHeads};
use super::{Event, Hub, MeshEvent, Now, Outgoing, Output, PeerMessage, Role};
use crate::ChangeHash;
use crate::id::{DocumentId, PeerId, SessionId, StorageId};
use crate::wire::RemoteHeads;

/// Senders whose counts are remembered per document.
const SENDERS_MAX: usize = 1_024;

/// Stores whose heads are remembered per document.
const REMOTE_STORES_MAX: usize = 64;

/// Largest ephemeral message that a mesh carries.
const WORDS_BYTES_MAX: usize = 4 * 1024;

/// An ephemeral message on its way through.
#[derive(Debug, Clone)]
pub(super) struct Spoken {
    pub(super) sender: PeerId,
    pub(super) count: u64,
    pub(super) session: Arc<str>,
    pub(super) data: Bytes,
}

/// From where an ephemeral message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    Application,
    Peer(SessionId),
    Mesh,
}

impl Hub {
    /// Passes an ephemeral message on to everyone else at the document, once.
    pub(super) fn relay_ephemeral(&mut self, now: Now, from: SessionId, message: PeerMessage) {
        let PeerMessage::Ephemeral { document: id, sender, count, session, data } = message else { return };
        if !self.may_open(from, &id) {
            return;
        }
        let key = self.key_of(&id);
        let overhears = self.overhears;
        self.touch(now, key);
        // Speaking at a document is being there: the sender hears what others say.
        self.join_document(from, key);
        let Some(document) = self.document(key) else { return };
        if document.is_deleted() || !document.relayed.get_or_insert_default().is_new(&sender, &session, count) {
            return;
        }
        let heard = (document.watched || overhears) && !document.local_only;
        let spoken = Spoken { sender, count, session, data };
        self.broadcast(now, &id, Speaker::Peer(from), &spoken);
        if !self.neighbours.contains(&from) {
            self.tell_mesh_of_words(&id, spoken.clone());
        }
        if heard {
            let Spoken { sender, data, .. } = spoken;
            self.outputs.push_back(Output::Notify(Event::Ephemeral { document: id, sender, data }));
        }
    }

    /// Words from the mesh, for those who are at the document here. Where nobody is, nothing is remembered of them.
    pub(super) fn hear(&mut self, now: Now, id: &DocumentId, spoken: Spoken) {
        let Some(key) = self.keys.get(id).copied() else { return };
        let overhears = self.overhears;
        let Some(document) = self.document(key) else { return };
        let is_new = document.relayed.get_or_insert_default().is_new(&spoken.sender, &spoken.session, spoken.count);
        if document.is_withheld() || !is_new {
            return;
        }
        let heard = document.watched || overhears;
        self.broadcast(now, id, Speaker::Mesh, &spoken);
        if heard {
            let Spoken { sender, data, .. } = spoken;
            self.outputs.push_back(Output::Notify(Event::Ephemeral { document: id.clone(), sender, data }));
        }
    }

    /// Lets the mesh carry what is said at a document that others may know of.
    pub(super) fn tell_mesh_of_words(&mut self, id: &DocumentId, spoken: Spoken) {
        if self.neighbours.is_empty() || spoken.data.len() > WORDS_BYTES_MAX {
            return;
        }
        let known = self.keys.get(id).copied().and_then(|key| self.document(key));
        let may_be_known = known.is_some_and(|document| {
            !document.is_withheld() && document.withholding.is_none() && document.presence != Presence::Unknown
        });
        if may_be_known {
            let Spoken { sender, count, session, data } = spoken;
            let document = id.clone();
            self.outputs.push_back(Output::Mesh(MeshEvent::Spoken { document, sender, count, session, data }));
        }
    }

    /// Says something to everyone at a document but whom it came from. Who cannot take it now never hears it.
    pub(super) fn broadcast(&mut self, now: Now, id: &DocumentId, from: Speaker, spoken: &Spoken) {
        let Some(key) = self.keys.get(id).copied() else { return };
        let Some(document) = self.document(key) else { return };
        // Whether it stays here is not known before it is loaded. What peers say to each other is theirs.
        let may_stay_here =
            document.local_only || document.withholding.is_some() || document.presence == Presence::Unknown;
        if !matches!(from, Speaker::Peer(_)) && may_stay_here {
            return;
        }
        let present = document.peers.iter().map(|peer| peer.session);
        let others: Vec<_> = present.filter(|peer| Speaker::Peer(*peer) != from).collect();
        for peer in others {
            // The sender may have come back on another connection while its words were on their way.
            // Neighbours hear of it by the mesh.
            let by_sync = |entry: &Session| entry.peer.role != Role::Neighbour;
            let hears = |entry: &Session| !entry.congested && entry.peer.peer != spoken.sender && by_sync(entry);
            if self.sessions.get(&peer).is_some_and(hears) && self.may_be_told(now, peer, from) {
                let Spoken { sender, count, session, data } = spoken.clone();
                self.send(peer, Outgoing::Ephemeral { document: id.clone(), sender, count, session, data });
            }
        }
    }

    /// A peer that we dialled refuses us what goes beyond its limit, so that what others say ends here. Our own
    /// application is to hear from the peer that it says too much.
    fn may_be_told(&mut self, now: Now, peer: SessionId, from: Speaker) -> bool {
        let within_limit = self.upstreams.get_mut(&peer).is_none_or(|bucket| bucket.take(now.mono));
        within_limit || from == Speaker::Application
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
            self.note_remote_heads(id, session, RemoteHeads { storage_id, heads, timestamp_ms });
        }
    }

    /// Remembers another store's heads if they are newer, and tells subscribers at this document.
    pub(super) fn note_remote_heads(&mut self, id: &DocumentId, from: SessionId, news: RemoteHeads) {
        let Some(key) = self.keys.get(id).copied() else { return };
        let Some(document) = self.document(key) else { return };
        let RemoteHeads { storage_id: storage, heads, timestamp_ms } = news;
        let known = &mut document.relayed.get_or_insert_default().heads;
        let full = known.len() >= REMOTE_STORES_MAX;
        match known.get(&storage) {
            Some(before) if before.timestamp_ms >= timestamp_ms || before.heads == heads => return,
            None if full => return,
            _ => known.insert(storage.clone(), StoreHeads { heads, timestamp_ms, from }),
        };
        let Some((storage, subscribers)) = self.subscriptions.get_key_value(&storage) else { return };
        let Some(document) = self.documents.get(key as usize).and_then(Option::as_ref) else { return };
        let present = document.peers.iter().map(|peer| peer.session);
        let interested: Vec<_> = present.filter(|peer| subscribers.contains(peer)).collect();
        // The subscription's own text, so that what is owed to congested peers shares it.
        let storage = storage.clone();
        for peer in interested {
            self.send_remote_heads(peer, key, &storage);
        }
    }

    /// Tells a subscriber what is remembered of a store at a document, unless it came from there. A congested one is
    /// told when it reads again, what is the latest then.
    pub(super) fn send_remote_heads(&mut self, session: SessionId, key: u32, storage: &StorageId) {
        let subscribed = self.subscriptions.get(storage).is_some_and(|subscribers| subscribers.contains(&session));
        let Some(entry) = self.sessions.get_mut(&session).filter(|_| subscribed) else { return };
        let Some(document) = self.documents.get(key as usize).and_then(Option::as_ref) else { return };
        let remembered = document.relayed.as_ref().and_then(|relayed| relayed.heads.get(storage));
        let Some(latest) = remembered.filter(|latest| latest.from != session) else { return };
        if entry.congested {
            entry.dirty_heads.insert((key, storage.clone()));
            return;
        }
        let StoreHeads { heads, timestamp_ms, .. } = latest;
        let heads = RemoteHeads { storage_id: storage.clone(), heads: heads.clone(), timestamp_ms: *timestamp_ms };
        let document = document.id.clone();
        self.send(session, Outgoing::RemoteHeads { document, heads: vec![heads] });
    }

    fn send_remembered_heads(&mut self, session: SessionId, storage: &StorageId) {
        let Some(entry) = self.sessions.get(&session) else { return };
        let remembers = |key: &&u32| {
            let document = self.documents.get(**key as usize).and_then(Option::as_ref);
            let relayed = document.and_then(|document| document.relayed.as_ref());
            relayed.is_some_and(|relayed| relayed.heads.contains_key(storage))
        };
        let news: Vec<u32> = entry.documents.iter().filter(remembers).copied().collect();
        for key in news {
            self.send_remote_heads(session, key, storage);
        }
    }
}

impl Relayed {
    /// Whether this count is the highest yet of that sender's process; notes it.
    fn is_new(&mut self, sender: &PeerId, session: &Arc<str>, count: u64) -> bool {
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

//! Documents that are deleted: records on their way to the store, who is told, and what follows when one stands.
//!
//! Owns: the record under way, what a deleted document still answers. Must not: decide which record stands.
//! Next: `../life.rs`, `ingest.rs`; docs/deletion.md.

use super::document::{Deciding, Origin, Presence};
use super::retry::Retry;
use super::subject::in_use;
use super::{Event, Hub, Now, Outgoing, Output, Remark, StoreFailure};
use crate::ChangeHash;
use crate::access::Permissions;
use crate::authored::Authored;
use crate::graph::Graph;
use crate::id::{DocumentId, SessionId};
use crate::life::{Life, LifeUpdate};
use crate::native::NativeMessage;
use crate::sync::PeerSync;

impl Hub {
    /// The application deletes or restores.
    pub(super) fn decide(&mut self, key: u32, deleted: bool, ticket: u64) {
        self.set_life(key, Origin::Local { ticket }, LifeUpdate::Own { deleted });
    }

    /// A document that nobody has touched for long is deleted, if it is as it was seen and nobody is at it.
    pub(super) fn expire(&mut self, key: u32, heads: &[ChangeHash], ticket: u64) {
        let Some(document) = self.document(key) else { return };
        let unchanged = document.presence == Presence::Stored && document.heads == heads;
        let under_way = !document.persisting.is_empty() || !document.inbox.is_empty();
        let alone = document.peers.is_empty() && !document.watched && !under_way;
        if unchanged && alone && !document.is_withheld() {
            return self.set_life(key, Origin::Local { ticket }, LifeUpdate::Own { deleted: true });
        }
        let id = document.id.clone();
        self.not_decided(&id, ticket, &StoreFailure { message: in_use(&id) });
    }

    /// A peer has a record. One that is greater than ours is to stand; one that is smaller is answered with ours.
    pub(super) fn hear_life(&mut self, now: Now, key: u32, session: SessionId, heard: Life, may: Permissions) {
        let upstream = self.upstreams.contains_key(&session);
        let Some(document) = self.document(key) else { return };
        if document.local_only {
            // As of a document that is not here: there is no answer, and nothing comes of it.
            return;
        }
        match document.life {
            Some(own) if own >= heard => {
                if let Some(peer) = document.peer(session) {
                    peer.told_life = Some(heard);
                    // Of what it was told while it took the document for deleted it has taken nothing.
                    if heard.deleted && !own.deleted {
                        if upstream {
                            peer.begin_anew();
                        } else {
                            peer.sync = PeerSync::default();
                        }
                    }
                }
                self.respond(now, key, session);
            }
            _ if !may.include(Permissions::DELETE) => {
                let id = document.id.clone();
                if let Some(peer) = document.peer(session) {
                    peer.told_life = None;
                }
                self.remark(session, Some(&id), Remark::NotPermitted(Permissions::DELETE));
                self.respond(now, key, session);
            }
            _ => self.set_life(key, Origin::Peer(session), LifeUpdate::Heard(heard)),
        }
    }

    fn set_life(&mut self, key: u32, origin: Origin, update: LifeUpdate) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let Some(document) = self.document(key) else { return };
        document.deciding = Some(Deciding { ticket, origin, update });
        let document = document.id.clone();
        self.outputs.push_back(Output::SetLife { ticket, document, update });
    }

    /// A record is durable.
    pub(super) fn life_set(&mut self, now: Now, id: &DocumentId, ticket: u64, life: Life) {
        let Some((key, Deciding { origin, update, .. })) = self.take_deciding(id, ticket) else { return };
        self.touch(now, key);
        let Some(document) = self.document(key) else { return };
        let before = document.life.replace(life);
        let watched = document.watched;
        self.tell_state(key);
        let Some(document) = self.document(key) else { return };
        if let (Origin::Peer(session), LifeUpdate::Heard(heard)) = (origin, update)
            && let Some(peer) = document.peer(session)
        {
            peer.told_life = Some(heard);
        }
        let own_ticket = match origin {
            Origin::Local { ticket } => Some(ticket),
            Origin::Peer(_) | Origin::Notice(_) => None,
        };
        if own_ticket.is_some() || (watched && before != Some(life)) {
            self.outputs.push_back(Output::Notify(Event::LifeChanged {
                document: id.clone(),
                life,
                ticket: own_ticket,
            }));
        }
        match (before.is_some_and(|before| before.deleted), life.deleted) {
            (false, true) => self.fall_silent(key),
            (true, false) => self.speak_again(key),
            (false, false) | (true, true) => {}
        }
        self.initiate_upstreams(now, key);
        self.respond_to_all(now, key);
        self.drive(now, key);
    }

    /// A record was not written. A peer that brought it brings it again on its next connection.
    pub(super) fn life_not_set(&mut self, now: Now, id: &DocumentId, ticket: u64, failure: &StoreFailure) {
        let Some((key, Deciding { origin, .. })) = self.take_deciding(id, ticket) else { return };
        match origin {
            Origin::Peer(session) | Origin::Notice(session) => self.cut_off(session, id, failure),
            Origin::Local { ticket } => self.not_decided(id, ticket, failure),
        }
        self.respond_to_all(now, key);
        self.drive(now, key);
    }

    pub(super) fn not_decided(&mut self, id: &DocumentId, ticket: u64, failure: &StoreFailure) {
        let (document, message) = (id.clone(), failure.message.clone());
        self.outputs.push_back(Output::Notify(Event::LifeFailed { document, ticket, message }));
    }

    fn take_deciding(&mut self, id: &DocumentId, ticket: u64) -> Option<(u32, Deciding)> {
        let key = self.keys.get(id).copied()?;
        let document = self.document(key)?;
        let deciding = document.deciding.take_if(|deciding| deciding.ticket == ticket)?;
        Some((key, deciding))
    }

    /// What peers brought and is not on its way to the disk yet is let go of: nothing of it is acknowledged.
    pub(super) fn fall_silent(&mut self, key: u32) {
        let Some(document) = self.document(key) else { return };
        let orphans = document.orphans.take();
        for session in orphans.iter().flat_map(|orphans| orphans.sessions()) {
            document.peer_or_new(session).offered_in_vain = true;
        }
        document.awaiting.clear();
        document.encoded.clear();
    }

    /// Conversations begin anew. A stock peer of which something was not taken does so only on a new connection; a Syncline
    /// peer of which that is so may wait for an answer that it would not get. With one that has not heard of the deletion,
    /// since it did not read, the conversation goes on.
    fn speak_again(&mut self, key: u32) {
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let mut closing = Vec::new();
        for peer in &mut document.peers {
            let offered = std::mem::take(&mut peer.offered_in_vain);
            let is_native = self.sessions.get(&peer.session).is_some_and(|entry| entry.peer.native > 0);
            if self.upstreams.contains_key(&peer.session) || offered && is_native {
                peer.begin_anew();
            } else if is_native {
                if peer.told_life.is_some_and(|told| told.deleted) {
                    peer.sync = PeerSync::default();
                }
            } else if offered {
                closing.push(peer.session);
            }
        }
        let id = document.id.clone();
        for session in closing {
            let reason = format!("document {id} can be synced again: connect again");
            self.outputs.push_back(Output::Close { session, reason });
        }
    }

    /// A message about a deleted document is answered, and nothing of it is taken.
    pub(super) fn refuse_deleted(&mut self, now: Now, key: u32, session: SessionId) {
        if !self.is_at(key, session) {
            return;
        }
        let Some(document) = self.document(key) else { return };
        let id = document.id.clone();
        let peer = document.peer_or_new(session);
        (peer.told_life, peer.offered_in_vain) = (None, true);
        self.outputs.push_back(Output::Refused { session: Some(session), document: Some(id), remark: Remark::Deleted });
        self.respond(now, key, session);
    }

    /// Tells a peer that can be written to what it does not know of the record. Returns whether that is all that there is
    /// to say.
    pub(super) fn respond_life(&mut self, key: u32, session: SessionId) -> bool {
        let native = self.sessions.get(&session).is_some_and(|entry| entry.peer.native > 0);
        let Some(document) = self.document(key) else { return true };
        let (id, Some(life)) = (document.id.clone(), document.life) else { return false };
        let Some(peer) = document.peer(session) else { return life.deleted };
        let told = peer.told_life.replace(life);
        if told != Some(life) {
            if native {
                self.send(session, Outgoing::Native(NativeMessage::Life { document: id, life }));
            } else if life.deleted {
                self.send(session, Outgoing::DocUnavailable { document: id });
            }
        }
        life.deleted
    }

    /// The application is told of a record that was there before it listened.
    pub(super) fn tell_life(&mut self, key: u32) {
        let Some(document) = self.document(key) else { return };
        if let Some(life) = document.life {
            let document = document.id.clone();
            self.outputs.push_back(Output::Notify(Event::LifeChanged { document, life, ticket: None }));
        }
    }

    /// The store has nothing of the document any more. Commits that are still under way will fail.
    pub(super) fn purged(&mut self, now: Now, id: &DocumentId) {
        let hash_key = self.hash_key;
        let Some(key) = self.keys.get(id).copied() else { return };
        let Some(document) = self.document(key) else { return };
        if document.presence == Presence::Unknown {
            document.purged_meanwhile = document.loading.is_some();
            return;
        }
        // What peers were sent is counted in a graph that is no more. A stock peer takes this replica to have everything.
        for peer in &mut document.peers {
            peer.sync = PeerSync::default();
            peer.offered_in_vain = true;
            // What a server did not take is not here any more either.
            peer.retry = Retry::default();
        }
        document.presence = Presence::Absent;
        document.graph = Some(Box::new(Graph::new(hash_key)));
        document.heads.clear();
        (document.durable, document.payload_bytes) = (0, 0);
        document.authored = Authored::NEVER;
        document.orphans = None;
        document.encoded.clear();
        document.peers.iter_mut().for_each(|peer| peer.in_step_at = 0);
        self.tell_state(key);
        self.weigh(key);
        self.touch(now, key);
    }
}

//! The gate before everything that a peer says: what it may not do is refused before anything of it is taken.
//!
//! Owns: messages that wait for a decision, what follows when permissions change. Must not: decide who may do what.
//! Next: `../access.rs`, `ingest.rs`; docs/access.md.
//!
//! Of a document that may not be read a peer hears what it would hear if there were none, and the document is not looked
//! at for that answer: neither the answer nor its time tells whether it exists.

use super::connection::Session;
use super::document::{Barred, Presence};
use super::{Hub, Now, Outgoing, Output, PeerMessage, Receipt, Remark, SyncMessage};
use crate::ChangeHash;
use crate::access::{Access, Permissions, Verdict};
use crate::id::{DocumentId, SessionId};
use crate::native::NativeMessage;

/// Changes that are named to a Syncline peer, of one message that may not be written.
const NAMED_MAX: usize = 64;

impl Session {
    /// What the peer may do with a document; `None` while that is not decided.
    pub(super) fn may(&self, document: &DocumentId) -> Option<Permissions> {
        match self.peer.access.verdict(document) {
            Verdict::Known(permissions) => Some(permissions),
            Verdict::Ask => self.decided.get(document).copied(),
        }
    }
}

impl Hub {
    /// Lets a message through with what its sender may do, refuses it, or keeps it until that is decided.
    pub(super) fn receive(&mut self, now: Now, session: SessionId, message: PeerMessage, receipt: Receipt) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        let Some(document) = message.document().cloned() else {
            return self.receive_permitted(now, session, message, (Permissions::NONE, receipt));
        };
        match entry.may(&document) {
            Some(may) if may.include(Permissions::READ) => {
                self.receive_permitted(now, session, message, (may, receipt));
            }
            Some(_) => self.refuse_unseen(session, &document, &message),
            None => {
                let waiting = entry.undecided.entry(document.clone()).or_default();
                waiting.push((message, receipt));
                if waiting.len() == 1 {
                    let access = entry.peer.access.clone();
                    self.outputs.push_back(Output::Decide { session, access, document });
                }
            }
        }
    }

    /// Whoever decides has said what a peer may do with a document, for the first time or again.
    pub(super) fn decided(&mut self, now: Now, session: SessionId, document: &DocumentId, may: Permissions) {
        let decisions_max = self.limits.session_documents_max;
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        let waiting = entry.undecided.remove(document).unwrap_or_default();
        entry.decided.remove(document);
        // What may not be read is asked again each time: whoever tries many ids fills nothing here.
        if may.include(Permissions::READ) && entry.decided.len() < decisions_max {
            entry.decided.insert(document.clone(), may);
        }
        if let Some(key) = self.keys.get(document).copied() {
            self.permissions_changed(now, session, key, (may, false));
        }
        for (message, receipt) in waiting {
            if may.include(Permissions::READ) {
                self.receive_permitted(now, session, message, (may, receipt));
            } else {
                self.refuse_unseen(session, document, &message);
            }
        }
    }

    /// A peer may do more or less than before.
    pub(super) fn access_changed(&mut self, now: Now, session: SessionId, access: Access) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        entry.peer.access = access;
        entry.decided.clear();
        let open: Vec<u32> = entry.documents.iter().copied().collect();
        for key in open {
            let Some(document) = self.document(key).map(|document| document.id.clone()) else { continue };
            let Some(entry) = self.sessions.get(&session) else { return };
            match entry.may(&document) {
                Some(may) => self.permissions_changed(now, session, key, (may, false)),
                None => self.ask_again(session, document),
            }
        }
    }

    /// Has everything decided again that was decided elsewhere about the documents at which a peer is.
    pub(super) fn reconsider(&mut self, session: SessionId) {
        let Some(entry) = self.sessions.get(&session) else { return };
        let decided: Vec<DocumentId> = entry.decided.keys().cloned().collect();
        for document in decided {
            self.ask_again(session, document);
        }
    }

    fn ask_again(&mut self, session: SessionId, document: DocumentId) {
        let Some(entry) = self.sessions.get(&session) else { return };
        if !entry.undecided.contains_key(&document) {
            let access = entry.peer.access.clone();
            self.outputs.push_back(Output::Decide { session, access, document });
        }
    }

    /// A peer may do this with a document, as far as there is room; `more`: there may be more than there was.
    fn permissions_changed(&mut self, now: Now, session: SessionId, key: u32, (may, more): (Permissions, bool)) {
        let Some(entry) = self.sessions.get_mut(&session).filter(|entry| entry.documents.contains(&key)) else {
            return;
        };
        let (has_room, is_upstream) = (self.has_room, self.upstreams.contains_key(&session));
        // A stock client takes "I have nothing" for an answer about the document, and says so to its application.
        let begins_anew = entry.peer.native > 0 || is_upstream;
        if !may.include(Permissions::READ) {
            entry.documents.remove(&key);
            entry.dirty.remove(&key);
            entry.dirty_heads.retain(|(at, _)| *at != key);
            let Some(document) = self.document(key) else { return };
            document.remove_peer(session);
            let document = document.id.clone();
            self.remark(session, Some(&document), Remark::NotPermitted(Permissions::READ));
            self.send(session, Outgoing::DocUnavailable { document });
            return self.touch(now, key);
        }
        let Some(document) = self.document(key) else { return };
        let id = document.id.clone();
        let Some(peer) = document.peer(session) else { return };
        let comes_again = match peer.barred {
            None => false,
            Some(Barred::Needs(needed)) => has_room && may.include(needed),
            Some(Barred::Limit) => has_room && more,
        };
        if !comes_again {
            return;
        }
        peer.barred = None;
        if begins_anew {
            peer.begin_anew();
            self.respond(now, key, session);
        } else {
            let reason = format!("document {id} may be written to: connect again");
            self.outputs.push_back(Output::Close { session, reason });
        }
    }

    /// There is room again, or none any more. Who brought something in vain meanwhile brings it again.
    pub(super) fn room_changed(&mut self, now: Now, has_room: bool) {
        if !std::mem::replace(&mut self.has_room, has_room) && has_room {
            self.offer_all_anew(now);
        }
    }

    /// Has everybody who brought something in vain bring it again, where it may be taken.
    pub(super) fn offer_all_anew(&mut self, now: Now) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            let Some(entry) = self.sessions.get(&session) else { continue };
            let (open, access): (Vec<u32>, _) = (entry.documents.iter().copied().collect(), entry.peer.access.clone());
            let again = NativeMessage::Access { left_ms: access.left(now.wall_ms).map(|left| left.as_millis() as u64) };
            let speaks = entry.peer.native >= again.since();
            let mut barred = false;
            for key in open {
                let Some(document) = self.document(key) else { continue };
                barred |= document.peer(session).is_some_and(|peer| peer.barred.is_some());
                let id = document.id.clone();
                let may = self.sessions.get(&session).and_then(|entry| entry.may(&id)).unwrap_or_default();
                self.permissions_changed(now, session, key, (may, true));
            }
            if barred && speaks {
                self.send(session, Outgoing::Native(again));
            }
        }
    }

    /// Answers as of a document that does not exist.
    fn refuse_unseen(&mut self, session: SessionId, document: &DocumentId, message: &PeerMessage) {
        let wanted = match message {
            PeerMessage::Sync(message) if !message.changes.is_empty() => Permissions::WRITE,
            PeerMessage::Native(NativeMessage::Life { .. }) => Permissions::DELETE,
            PeerMessage::Sync(_)
            | PeerMessage::Ephemeral { .. }
            | PeerMessage::Native(NativeMessage::Account { .. }) => Permissions::READ,
            // Neither asks for anything, nor brings anything that would be kept.
            PeerMessage::DocUnavailable { .. }
            | PeerMessage::RemoteHeads { .. }
            | PeerMessage::RemoteSubscription { .. }
            | PeerMessage::Native(_) => return,
        };
        if let PeerMessage::Sync(message) = message {
            let hashes = message.changes.iter().map(|change| change.hash).collect();
            self.name_barred(session, document, hashes, &Remark::NotPermitted(wanted));
        }
        self.remark(session, Some(document), Remark::NotPermitted(wanted));
        if matches!(message, PeerMessage::Sync(_) | PeerMessage::Native(NativeMessage::Account { .. })) {
            self.send(session, Outgoing::DocUnavailable { document: document.clone() });
        }
    }

    /// Takes the changes out of a message that its sender may not write. The rest of it counts.
    pub(super) fn bar_changes(&mut self, key: u32, session: SessionId, may: Permissions, message: &mut SyncMessage) {
        let Some(document) = self.document(key) else { return };
        let id = document.id.clone();
        let absent = document.presence == Presence::Absent && document.persisting.is_empty();
        let needed = if absent { Permissions::CREATE } else { Permissions::WRITE };
        let brings = !message.changes.is_empty() || !message.refused.is_empty();
        if may.include(needed) && self.has_room || !brings {
            return;
        }
        let remark = if may.include(needed) { Remark::NoRoom } else { Remark::NotPermitted(needed) };
        let Some(document) = self.document(key) else { return };
        let hashes: Vec<_> =
            message.changes.drain(..).map(|change| change.hash).chain(message.refused.drain(..)).collect();
        if let Some(peer) = document.peer(session) {
            hashes.iter().for_each(|hash| peer.sync.refuse(*hash));
            peer.barred = Some(Barred::Needs(needed));
        }
        // A peer would send everything again and again to a replica that has nothing and does not say so.
        message.request |= absent;
        self.name_barred(session, &id, hashes, &remark);
        self.remark(session, Some(&id), remark);
    }

    fn name_barred(&mut self, session: SessionId, document: &DocumentId, hashes: Vec<ChangeHash>, remark: &Remark) {
        let native = self.sessions.get(&session).is_some_and(|entry| entry.peer.native > 0);
        for hash in hashes.into_iter().take(NAMED_MAX).filter(|_| native) {
            let (document, reason, words) = (document.clone(), remark.reason(), remark.to_string());
            self.send(session, Outgoing::Native(NativeMessage::Refused { document, hash, reason, words }));
        }
    }
}

impl PeerMessage {
    /// The document that it is about, if it is about one.
    #[must_use]
    pub fn document(&self) -> Option<&DocumentId> {
        match self {
            Self::Sync(message) => Some(&message.document),
            Self::DocUnavailable { document }
            | Self::Ephemeral { document, .. }
            | Self::RemoteHeads { document, .. }
            | Self::Native(
                NativeMessage::Life { document, .. }
                | NativeMessage::Refused { document, .. }
                | NativeMessage::Account { document, .. },
            ) => Some(document),
            Self::RemoteSubscription { .. } | Self::Native(_) => None,
        }
    }
}

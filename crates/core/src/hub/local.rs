//! Documents that stay on this machine: the decision on its way to the store, and what peers hear of them, which is what
//! they would hear of a document that is not here.
//!
//! Owns: the one place that answers a peer about such a document. Must not: look at the document for that answer.
//! Next: `respond.rs`, `life.rs`; docs/protocol.md §4, "Documents that stay on one machine".

use super::document::Withholding;
use super::{Event, Hub, Now, Outgoing, Output, StoreFailure, SyncMessage};
use crate::graph::Graph;
use crate::id::{DocumentId, SessionId};
use crate::sync::{self, PeerSync, Plan, View};

impl Hub {
    /// The application decides. Until that is durable, nothing is said and nothing is taken.
    pub(super) fn withhold(&mut self, key: u32, local_only: bool, own_ticket: u64) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let Some(document) = self.document(key) else { return };
        document.withholding = Some(Withholding { ticket, own_ticket, local_only });
        let document = document.id.clone();
        self.outputs.push_back(Output::SetLocalOnly { ticket, document, local_only });
    }

    /// The decision is durable.
    pub(super) fn local_only_set(&mut self, now: Now, id: &DocumentId, ticket: u64) {
        let Some((key, decided)) = self.take_withholding(id, ticket) else { return };
        self.touch(now, key);
        let Some(document) = self.document(key) else { return };
        let before = std::mem::replace(&mut document.local_only, decided.local_only);
        self.tell_state(key);
        match (before, decided.local_only) {
            (false, true) => self.forget_conversations(key),
            (true, false) => self.ask_to_come_again(key),
            (false, false) | (true, true) => {}
        }
        let ticket = decided.own_ticket;
        self.outputs.push_back(Output::Notify(Event::Saved { document: id.clone(), ticket }));
        if before && !decided.local_only {
            self.initiate_upstreams(now, key);
        }
        self.respond_to_all(now, key);
        self.drive(now, key);
    }

    /// The decision was not written: it is as it was.
    pub(super) fn local_only_not_set(&mut self, now: Now, id: &DocumentId, ticket: u64, failure: &StoreFailure) {
        let Some((key, decided)) = self.take_withholding(id, ticket) else { return };
        self.not_saved(id, decided.own_ticket, failure);
        self.respond_to_all(now, key);
        self.drive(now, key);
    }

    /// From here on every peer is met as if the document were not here.
    fn forget_conversations(&mut self, key: u32) {
        self.fall_silent(key);
        let Some(document) = self.document(key) else { return };
        for peer in &mut document.peers {
            peer.sync = PeerSync::default();
            peer.unanswered_request = false;
        }
    }

    /// Who was at the document holds on to what was said before and meanwhile: that changes it sent have arrived, or that
    /// all is agreed. It finds out on a new connection.
    fn ask_to_come_again(&mut self, key: u32) {
        let Some(document) = self.documents.get(key as usize).and_then(Option::as_ref) else { return };
        for peer in &document.peers {
            let reason = format!("document {} can be synced again: connect again", document.id);
            self.outputs.push_back(Output::Close { session: peer.session, reason });
        }
    }

    fn take_withholding(&mut self, id: &DocumentId, ticket: u64) -> Option<(u32, Withholding)> {
        let key = self.keys.get(id).copied()?;
        let document = self.document(key)?;
        let decided = document.withholding.take_if(|withholding| withholding.ticket == ticket)?;
        Some((key, decided))
    }

    /// A peer speaks about a document that stays here. Nothing of what it brings is taken or asked for again.
    pub(super) fn hear_of_nothing(&mut self, now: Now, key: u32, session: SessionId, message: SyncMessage) {
        if !self.is_at(key, session) {
            return;
        }
        let SyncMessage { request, statement, changes, refused, .. } = message;
        let nothing = Graph::new(self.hash_key);
        let Some(document) = self.document(key) else { return };
        let id = document.id.clone();
        let peer = document.peer_or_new(session);
        let brought_any = !changes.is_empty();
        let brought = changes.iter().map(|change| change.hash).chain(refused);
        brought.for_each(|hash| peer.sync.refuse(hash));
        let heads = statement.heads.clone();
        peer.sync.receive(view_of(&nothing), statement);
        // Whoever holds the document would send it again and again to a replica that has no heads of it.
        peer.unanswered_request = request || brought_any;
        peer.offered_in_vain |= brought_any;
        if brought_any {
            // More may have come than is remembered as refused: it would be asked for again with whatever is said next.
            peer.sync.set_writable(false);
        }
        self.note_peer_heads(now, &id, session, heads);
        self.respond(now, key, session);
    }

    /// Says what is said of a document that is not here.
    pub(super) fn respond_as_unknown(&mut self, now: Now, key: u32, session: SessionId) {
        let nothing = Graph::new(self.hash_key);
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let text = document.text.clone();
        let id = document.id.clone();
        let Some(peer) = document.peer(session) else { return };
        if std::mem::take(&mut peer.unanswered_request) {
            peer.sync.sent(0, Vec::new(), false, now.mono);
            return self.send(session, Outgoing::DocUnavailable { document: id });
        }
        let data = match peer.sync.plan(view_of(&nothing), None, &self.limits, now.mono) {
            Plan::Send(draft) => {
                let data = sync::encode_message(&[], &draft, Vec::new(), sync::message::Version::V1);
                peer.sync.sent_draft(0, draft, now.mono);
                data
            }
            Plan::Reset => {
                peer.sync.reset_sent();
                sync::encode_reset(&[])
            }
            Plan::Wait(until) => return self.wake_at(key, until),
            // There is nothing that could be loaded.
            Plan::Nothing | Plan::Account | Plan::LoadGraph | Plan::Payload | Plan::StoredChanges(_) => return,
        };
        self.send(session, Outgoing::Sync { document: text, data });
    }
}

/// What a replica that has nothing of a document sees of it.
fn view_of(nothing: &Graph) -> View<'_> {
    View { heads: &[], durable: 0, graph: Some(nothing) }
}

//! A document's history replaced by another: what peers refuse for ever, written anew by its author.
//!
//! Owns: the check that nothing has moved meanwhile, the switch once it is durable. Must not: make changes.
//! Next: `ingest.rs`; the client crate's `reauthor.rs`.

use super::document::{Presence, Replacing};
use super::ingest::commit_of;
use super::{Event, Hub, Now, Output, StoreFailure};
use crate::ChangeHash;
use crate::authored::Authored;
use crate::change::Change;
use crate::graph::{Admission, Graph};
use crate::id::DocumentId;
use crate::sync::PeerSync;

impl Hub {
    pub(super) fn replace(&mut self, key: u32, heads: &[ChangeHash], changes: &[Change], ticket: u64) {
        let (hash_key, limits) = (self.hash_key, self.limits.clone());
        let authored = changes.iter().map(|change| Authored::at(change.time)).max().unwrap_or_default();
        let Some(document) = self.document(key) else { return };
        let id = document.id.clone();
        let moved = document.presence != Presence::Stored || !document.persisting.is_empty() || document.heads != heads;
        let mut graph = Box::new(Graph::new(hash_key));
        let whole = changes.iter().all(|change| {
            let ready = matches!(graph.admit(change, &limits), Ok(Admission::Ready));
            ready && graph.push(change).is_ok()
        });
        let commit = commit_of(&id, &graph, 0).filter(|_| whole && !moved);
        let Some((commit, _)) = commit else {
            let message = "the document has changed meanwhile".to_owned();
            return self.not_saved(&id, ticket, &StoreFailure { message });
        };
        let own_ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(document) = self.document(key) {
            document.replacing = Some(Replacing { ticket: own_ticket, own_ticket: ticket, authored, graph });
        }
        self.outputs.push_back(Output::Replace { ticket: own_ticket, commit });
    }

    /// The new history is durable: with everyone the conversation begins anew.
    pub(super) fn replaced(&mut self, now: Now, id: &DocumentId, ticket: u64) {
        let Some((key, Replacing { own_ticket, authored, mut graph, .. })) = self.take_replacing(id, ticket) else {
            return;
        };
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        graph.mark_durable(graph.len());
        (document.heads, document.durable) = (graph.heads(), graph.durable());
        document.authored = authored;
        document.payload_bytes = graph.raw_bytes();
        document.graph = Some(graph);
        document.orphans = None;
        document.awaiting.clear();
        document.encoded.clear();
        for peer in &mut document.peers {
            peer.in_step_at = 0;
            if self.upstreams.contains_key(&peer.session) {
                peer.begin_anew();
            } else {
                // What it has is counted in the old history.
                peer.sync = PeerSync::default();
                let reason = format!("document {id} was written anew: connect again");
                self.outputs.push_back(Output::Close { session: peer.session, reason });
            }
        }
        self.tell_state(key);
        self.outputs.push_back(Output::Notify(Event::Saved { document: id.clone(), ticket: own_ticket }));
        self.weigh(key);
        self.touch(now, key);
        self.respond_to_all(now, key);
        self.drive(now, key);
    }

    pub(super) fn not_replaced(&mut self, now: Now, id: &DocumentId, ticket: u64, failure: &StoreFailure) {
        let Some((key, Replacing { own_ticket, .. })) = self.take_replacing(id, ticket) else { return };
        self.not_saved(id, own_ticket, failure);
        self.respond_to_all(now, key);
        self.drive(now, key);
    }

    fn take_replacing(&mut self, id: &DocumentId, ticket: u64) -> Option<(u32, Replacing)> {
        let key = self.keys.get(id).copied()?;
        let replacing = self.document(key)?.replacing.take_if(|replacing| replacing.ticket == ticket)?;
        Some((key, replacing))
    }
}

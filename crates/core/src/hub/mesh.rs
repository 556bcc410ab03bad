//! Neighbours in a mesh: what notices bring, what the mesh is told, when a neighbour is let go of.
//!
//! Owns: notices whose content is on its way to the disk, and the rule that a neighbour hears of a document by notices
//! or while it is repaired, not by everything that happens to it. Must not: know how notices travel.
//! Next: `ingest.rs`, `respond.rs`, the gossip crate's `membership.rs`; docs/protocol.md §11.

use bytes::Bytes;

use super::document::{Document, Item, Origin, Presence};
use super::{Hub, Now, Output, Remark};
use crate::ChangeHash;
use crate::change::Change;
use crate::id::{DocumentId, SessionId};
use crate::sync::{Plan, Statement};

/// Most bytes of changes that the mesh is told beside the heads.
const TOLD_BYTES_MAX: usize = 4 * 1024;

/// What a hub tells the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshEvent {
    /// Changes have become durable.
    Durable {
        /// The document.
        document: DocumentId,
        /// The changes, dependencies first; none if they are large.
        changes: Vec<Bytes>,
        /// The heads after them.
        heads: Vec<ChangeHash>,
        /// How they came.
        source: Source,
    },
    /// What [`Input::Noticed`](super::Input::Noticed) asked about.
    Noticed {
        /// From there.
        ticket: u64,
        /// How it stands.
        standing: NoticeStanding,
    },
}

/// How changes came to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From the application, or from a peer that is no neighbour: the mesh does not know of them.
    Outside,
    /// In a notice.
    Notice,
    /// By sync with a neighbour.
    Neighbour(SessionId),
}

/// What has become of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeStanding {
    /// The heads that it names are durable here.
    Here,
    /// Some are not here, and are not on their way to the disk either.
    Missing,
    /// Its changes were not taken, or not stored.
    Refused,
    /// Nothing of the document is taken: it is deleted, or stays on this machine.
    Apart,
}

/// A notice on its way through a document's inbox.
#[derive(Debug)]
pub(super) struct Noticed {
    pub(super) session: SessionId,
    pub(super) changes: Vec<Change>,
    pub(super) heads: Vec<ChangeHash>,
    pub(super) ticket: u64,
}

/// A notice that waits for the disk.
#[derive(Debug)]
pub(super) struct WaitingNotice {
    ticket: u64,
    heads: Vec<ChangeHash>,
}

impl Hub {
    /// Looks at what a notice says of a document, and takes its changes.
    pub(super) fn handle_noticed(&mut self, key: u32, noticed: Noticed) {
        let Noticed { session, changes, heads, ticket } = noticed;
        let Some(document) = self.document(key) else { return };
        if document.is_withheld() {
            return self.tell_standing(ticket, NoticeStanding::Apart);
        }
        let refusal = if document.has_durable(&heads) {
            None
        } else {
            self.admit_all(key, (Origin::Notice(session), None), changes)
        };
        let Some(document) = self.document(key) else { return };
        let known = |head: &ChangeHash| document.graph.as_ref().is_some_and(|graph| graph.find(head).is_some());
        if document.has_durable(&heads) {
            self.tell_standing(ticket, NoticeStanding::Here);
        } else if heads.iter().all(known) {
            document.noticed.push(WaitingNotice { ticket, heads });
        } else {
            let refused = matches!(refusal, Some(Remark::Change(_)));
            self.tell_standing(ticket, if refused { NoticeStanding::Refused } else { NoticeStanding::Missing });
        }
    }

    /// Tells the mesh what has become durable, and which notices therefore go on.
    pub(super) fn tell_mesh(&mut self, key: u32, before: u32, length: u32, origin: Origin) {
        let Some(document) = self.document(key) else { return };
        let waiting = std::mem::take(&mut document.noticed);
        let (here, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|notice| document.has_durable(&notice.heads));
        document.noticed = waiting;
        for notice in here {
            self.tell_standing(notice.ticket, NoticeStanding::Here);
        }
        if self.neighbours.is_empty() {
            return;
        }
        self.leave_silent(key);
        let source = match origin {
            Origin::Notice(_) => Source::Notice,
            Origin::Peer(session) if self.neighbours.contains(&session) => Source::Neighbour(session),
            Origin::Peer(_) | Origin::Local { .. } => Source::Outside,
        };
        let Some(document) = self.document(key).filter(|document| !document.is_withheld()) else { return };
        let raw = |n| document.graph.as_ref().and_then(|graph| graph.raw(n));
        let bytes: usize = (before..length).filter_map(raw).map(Bytes::len).sum();
        let changes =
            if bytes <= TOLD_BYTES_MAX { (before..length).filter_map(raw).cloned().collect() } else { Vec::new() };
        let (document, heads) = (document.id.clone(), document.heads.clone());
        self.outputs.push_back(Output::Mesh(MeshEvent::Durable { document, changes, heads, source }));
    }

    /// What was to be stored is not.
    pub(super) fn refuse_noticed(&mut self, key: u32) {
        let Some(document) = self.document(key) else { return };
        for notice in std::mem::take(&mut document.noticed) {
            self.tell_standing(notice.ticket, NoticeStanding::Refused);
        }
    }

    /// The document cannot be read.
    pub(super) fn refuse_unread(&mut self, noticed: &Noticed) {
        self.tell_standing(noticed.ticket, NoticeStanding::Refused);
    }

    fn tell_standing(&mut self, ticket: u64, standing: NoticeStanding) {
        self.outputs.push_back(Output::Mesh(MeshEvent::Noticed { ticket, standing }));
    }

    /// A neighbour with which all is said and agreed leaves the document: what happens to it travels by notices.
    pub(super) fn leave_if_agreed(&mut self, now: Now, key: u32, session: SessionId) {
        if !self.neighbours.contains(&session) {
            return;
        }
        let limits = &self.limits;
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let busy = !document.inbox.is_empty() || !document.persisting.is_empty() || !document.awaiting.is_empty();
        let Ok(at) = document.peers.binary_search_by_key(&session, |peer| peer.session) else { return };
        let sync = &document.peers[at].sync;
        let agreed = sync.has_spoken() && sync.their_heads() == document.heads && !document.heads.is_empty();
        let plan = sync.plan(document.view(), document.orphans.as_deref(), limits, now.mono);
        if busy || !agreed || plan != Plan::Nothing {
            return;
        }
        self.leave(key, session);
    }

    /// Whether a neighbour says that it has what is here, before it was answered anything. It needs no answer: it knows what
    /// is here, or may have left the document as this replica has, and the two would tell each other for ever.
    pub(super) fn is_greeting_in_agreement(&mut self, key: u32, session: SessionId, statement: &Statement) -> bool {
        if !self.neighbours.contains(&session) {
            return false;
        }
        let Some(document) = self.document(key) else { return false };
        let agreed = document.durable > 0 && statement.heads == document.heads;
        let says_more = statement.with_changes || !statement.need.is_empty();
        agreed && !says_more && {
            let view = document.view();
            let mut peers = document.peers.iter().filter(|peer| peer.session == session);
            peers.all(|peer| peer.sync.is_fresh_or_greeted(view))
        }
    }

    pub(super) fn leave(&mut self, key: u32, session: SessionId) {
        if let Some(document) = self.document(key) {
            document.remove_peer(session);
        }
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.documents.remove(&key);
        }
    }

    /// Neighbours that were greeted and have not answered agreed with what was here: what is here from now on they hear of
    /// by notice.
    fn leave_silent(&mut self, key: u32) {
        let Some(document) = self.document(key) else { return };
        let speaks = |session| document.awaiting.iter().any(|awaiting| awaiting.session == session);
        let silent = document.peers.iter().filter(|peer| peer.sync.is_unanswered()).map(|peer| peer.session);
        let silent = silent.filter(|session| !speaks(*session));
        for session in silent.collect::<Vec<_>>() {
            if self.neighbours.contains(&session) {
                self.leave(key, session);
            }
        }
    }
}

impl Document {
    /// Whether these heads are durable here.
    fn has_durable(&self, heads: &[ChangeHash]) -> bool {
        if self.presence != Presence::Stored {
            return false;
        }
        let known = |head: &ChangeHash| self.graph.as_ref().is_some_and(|graph| graph.find_durable(head).is_some());
        heads == self.heads || heads.iter().all(|head| self.heads.binary_search(head).is_ok() || known(head))
    }

    /// Whether a notice can be looked at without the graph.
    pub(super) fn knows_without_graph(&self, noticed: &Noticed) -> bool {
        self.is_withheld() || noticed.heads == self.heads
    }
}

impl Item {
    /// A notice for a document's inbox.
    pub(super) fn noticed(session: SessionId, changes: Vec<Change>, heads: Vec<ChangeHash>, ticket: u64) -> Self {
        Self::Noticed(Noticed { session, changes, heads, ticket })
    }
}

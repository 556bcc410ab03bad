//! Messages on their way out: what each peer of a document is sent, and when.
//!
//! Owns: the step from a plan to bytes, shared encodings, payload fetches within their bound.
//! Must not: say anything that is not durable.
//! Next: `sync.rs`; docs/protocol.md §4.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::connection::Session;
use super::document::{Document, Presence};
use super::{Hub, Load, Now, Outgoing, Output, Remark};
use crate::ChangeHash;
use crate::access::Permissions;
use crate::id::{DocumentId, SessionId};
use crate::native::NativeMessage;
use crate::storage::Payload;
use crate::sync::message::Version;
use crate::sync::{self, Draft, Plan};

/// Encodings of the present heads that are kept for peers in the same state.
const ENCODED_MAX: usize = 8;

impl Hub {
    /// Gives every peer of a document what it is due.
    pub(super) fn respond_to_all(&mut self, now: Now, key: u32) {
        let Some(document) = self.document(key) else { return };
        let sessions: smallvec::SmallVec<[SessionId; 16]> = document.peers.iter().map(|peer| peer.session).collect();
        for session in sessions {
            self.respond(now, key, session);
        }
    }

    /// Gives one peer what it is due.
    pub(super) fn respond(&mut self, now: Now, key: u32, session: SessionId) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        if entry.congested {
            entry.dirty.insert(key);
            return;
        }
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        if document.presence == Presence::Unknown || document.is_undecided() {
            return;
        }
        if document.local_only {
            return self.respond_as_unknown(now, key, session);
        }
        if self.respond_life(key, session) {
            return;
        }
        self.retry_if_due(now, key, session);
        let (limits, accounts) = (&self.limits, self.accounts(session));
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let Ok(at) = document.peers.binary_search_by_key(&session, |peer| peer.session) else { return };
        if std::mem::take(&mut document.peers[at].unanswered_request) && document.durable == 0 {
            document.peers[at].sync.sent(0, Vec::new(), false, now.mono);
            let document = document.id.clone();
            return self.send(session, Outgoing::DocUnavailable { document });
        }
        let writable = entry_may_write(self.sessions.get(&session), &document.id);
        document.peers[at].sync.set_writable(writable);
        document.peers[at].sync.speak_natively(accounts);
        match document.peers[at].sync.plan(document.view(), document.orphans.as_deref(), limits, now.mono) {
            Plan::Nothing => self.leave_if_agreed(now, key, session),
            Plan::Wait(until) => self.wake_at(key, until),
            Plan::LoadGraph => self.load_once(key, Load::Graph),
            Plan::Payload => self.fetch(key),
            Plan::StoredChanges(hashes) => self.load_once(key, Load::Changes { session, hashes }),
            Plan::Send(draft) => {
                self.send_draft(now, key, session, draft, &BTreeMap::new());
                self.leave_if_agreed(now, key, session);
            }
            Plan::Account => self.send_account(key, session),
            Plan::Reset => {
                document.peers[at].sync.reset_sent();
                let (text, data) = (document.text.clone(), sync::encode_reset(&document.heads));
                self.send(session, Outgoing::Sync { document: text, data });
            }
        }
    }

    pub(super) fn wake_at(&mut self, key: u32, until: std::time::Duration) {
        let Some(document) = self.document(key) else { return };
        let earlier = document.deadline.is_some_and(|deadline| deadline <= until);
        if earlier {
            return;
        }
        let before = document.deadline.replace(until);
        if let Some(before) = before {
            self.deadlines.remove(&(before, key));
        }
        self.deadlines.insert((until, key));
    }

    /// Encodes a draft and sends it. `stored` has raw chunks that the graph no longer holds.
    fn send_draft(
        &mut self,
        now: Now,
        key: u32,
        session: SessionId,
        draft: Draft,
        stored: &BTreeMap<ChangeHash, Bytes>,
    ) {
        let bytes_max = self.limits.message_bytes_max;
        let Some(document) = self.document(key) else { return };
        let Some(data) = encoded(document, &draft, stored) else {
            return self.load_once(key, Load::Graph);
        };
        if data.len() > bytes_max {
            return self.too_large(key, session, data.len());
        }
        let Some(document) = self.document(key) else { return };
        let (id, text, length) = (document.id.clone(), document.text.clone(), document.durable);
        let absent = document.presence == Presence::Absent;
        let Some(peer) = document.peer(session) else { return };
        let asks = absent && peer.sync.speaks_first();
        peer.sync.sent_draft(length, draft, now.mono);
        let message =
            if asks { Outgoing::Request { document: id, data } } else { Outgoing::Sync { document: text, data } };
        self.send(session, message);
    }

    fn send_account(&mut self, key: u32, session: SessionId) {
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let (id, Some(graph)) = (document.id.clone(), document.graph.take()) else { return };
        let account = document.peer(session).map(|peer| {
            let account = peer.sync.account(&graph);
            peer.sync.account_sent();
            account
        });
        document.graph = Some(graph);
        if let Some(account) = account {
            self.send(session, Outgoing::Native(NativeMessage::Account { document: id, account }));
        }
    }

    fn too_large(&mut self, key: u32, session: SessionId, bytes: usize) {
        let bytes_max = self.limits.message_bytes_max;
        let Some(document) = self.document(key) else { return };
        let id = document.id.clone();
        if let Some(peer) = document.peer(session) {
            peer.sync.reset_sent();
        }
        self.remark(session, Some(&id), Remark::TooLargeToSend { bytes, bytes_max });
    }

    /// Asks the store for the whole document, within the bound on bytes under way.
    fn fetch(&mut self, key: u32) {
        let Some(document) = self.document(key) else { return };
        if document.fetching.is_some() {
            return;
        }
        document.fetching = Some(document.payload_bytes);
        self.fetch_queue.push_back(key);
        self.start_fetches();
    }

    fn start_fetches(&mut self) {
        while let Some(key) = self.fetch_queue.front().copied() {
            let document = self.documents.get(key as usize).and_then(Option::as_ref);
            let Some((document, bytes)) = document.and_then(|document| Some((document, document.fetching?))) else {
                self.fetch_queue.pop_front();
                continue;
            };
            if self.fetching_bytes > 0 && self.fetching_bytes + bytes > self.limits.fetch_bytes_max {
                return;
            }
            self.fetching_bytes += bytes;
            self.fetch_queue.pop_front();
            let document = document.id.clone();
            self.outputs.push_back(Output::Load { document, what: Load::Payload });
        }
    }

    /// Frees the place of a finished fetch for the next one.
    pub(super) fn end_fetch(&mut self, key: u32, what: &Load) {
        if *what != Load::Payload {
            return;
        }
        let bytes = self.document(key).and_then(|document| document.fetching.take()).unwrap_or(0);
        self.fetching_bytes = self.fetching_bytes.saturating_sub(bytes);
        self.start_fetches();
    }

    pub(super) fn payload_loaded(&mut self, now: Now, key: u32, payload: Option<Payload>) {
        self.end_fetch(key, &Load::Payload);
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let Some(payload) = payload.filter(|_| !document.is_withheld() && !document.is_undecided()) else { return };
        let element = element_of(&payload);
        document.payload_bytes = element.len();
        let mut waiting = Vec::new();
        for peer in &document.peers {
            let plan = peer.sync.plan(document.view(), document.orphans.as_deref(), &self.limits, now.mono);
            if plan == Plan::Payload {
                waiting.push(peer.session);
            }
        }
        let draft = Draft::with_have(vec![sync::have_all(&document.heads)]);
        let data = sync::encode_message(&document.heads, &draft, vec![element], Version::V2);
        for session in waiting {
            self.send_payload(now, key, session, payload.changes, &data);
            self.respond(now, key, session);
        }
    }

    fn send_payload(&mut self, now: Now, key: u32, session: SessionId, changes: u32, data: &Bytes) {
        let bytes_max = self.limits.message_bytes_max;
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        if entry.congested {
            entry.dirty.insert(key);
            return;
        }
        if data.len() > bytes_max {
            return self.too_large(key, session, data.len());
        }
        let Some(document) = self.document(key) else { return };
        let (text, length) = (document.text.clone(), document.durable.min(changes));
        if let Some(peer) = document.peer(session) {
            peer.sync.sent(length, Vec::new(), true, now.mono);
        }
        self.send(session, Outgoing::Sync { document: text, data: data.clone() });
    }

    /// Single changes have come from under the snapshot, for a peer that takes no snapshot.
    pub(super) fn changes_loaded(&mut self, now: Now, key: u32, session: SessionId, changes: Vec<(ChangeHash, Bytes)>) {
        // One that does not read meanwhile is sent them when it reads again.
        let congested = self.sessions.get_mut(&session).is_some_and(|entry| {
            let congested = entry.congested;
            congested.then(|| entry.dirty.insert(key));
            congested
        });
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        document.loading = None;
        let stored: BTreeMap<_, _> = changes.into_iter().collect();
        let view = document.view();
        let withheld = document.is_withheld() || document.is_undecided();
        let peer = document.peers.iter().find(|peer| peer.session == session && !withheld);
        let draft = peer.zip(view.graph).map(|(peer, graph)| {
            let draft = peer.sync.draft(view, graph, document.orphans.as_deref(), &self.limits);
            let complete =
                draft.nodes.iter().all(|node| *node >= graph.raw_from() || stored.contains_key(&graph.hash(*node)));
            (draft, complete)
        });
        if let Some((draft, true)) = draft.filter(|_| !congested) {
            self.send_draft(now, key, session, draft, &stored);
        }
        self.drive(now, key);
        self.respond_to_all(now, key);
    }
}

fn entry_may_write(entry: Option<&Session>, document: &DocumentId) -> bool {
    entry.and_then(|entry| entry.may(document)).is_some_and(|may| may.include(Permissions::WRITE))
}

/// The message's bytes, from the cache where a peer in the same state was served before; `None` without the graph.
fn encoded(document: &mut Document, draft: &Draft, stored: &BTreeMap<ChangeHash, Bytes>) -> Option<Bytes> {
    let cached = draft.shared_from.filter(|_| draft.need.is_empty());
    if let Some(from) = cached
        && let Some((_, data)) = document.encoded.iter().find(|(start, _)| *start == from)
    {
        return Some(data.clone());
    }
    let mut elements = Vec::with_capacity(draft.nodes.len());
    if !draft.nodes.is_empty() {
        let graph = document.graph.as_deref()?;
        for node in &draft.nodes {
            let raw = graph.raw(*node).or_else(|| stored.get(&graph.hash(*node)));
            elements.push(raw?.clone());
        }
    }
    let data = sync::encode_message(&document.heads, draft, elements, Version::V1);
    if let Some(from) = cached {
        document.encoded.truncate(ENCODED_MAX - 1);
        document.encoded.insert(0, (from, data.clone()));
    }
    Some(data)
}

/// Snapshot and tail as one element, which stock clients load incrementally.
fn element_of(payload: &Payload) -> Bytes {
    if let (Some(snapshot), true) = (&payload.snapshot, payload.tail.is_empty()) {
        return snapshot.clone();
    }
    let mut element = BytesMut::new();
    element.extend_from_slice(payload.snapshot.as_deref().unwrap_or_default());
    for change in &payload.tail {
        element.extend_from_slice(&change.bytes);
    }
    element.freeze()
}

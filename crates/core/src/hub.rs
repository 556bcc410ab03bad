//! All documents and peers of one shard: commands, messages and storage results in, ordered outputs out.
//!
//! Owns: which documents are in memory, who syncs what, what waits for the store, the deadlines.
//! Must not: read a clock, touch a socket or the store, show a peer anything that is not durable.
//! Next: `hub/ingest.rs` (changes in), `hub/respond.rs` (messages out), `sync.rs`; docs/architecture.md "One way through".
//!
//! A document goes through one inbox, in order of arrival. What the inbox needs from the store (a summary, the graph)
//! is asked for and the inbox waits; other documents go on.

mod access;
mod connection;
mod document;
mod ingest;
mod input;
mod insight;
mod life;
mod local;
mod memory;
mod mesh;
mod relay;
mod remark;
mod replace;
mod respond;
mod retry;
mod subject;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::access::Permissions;
use crate::bucket::Bucket;
use crate::id::{DocumentId, SessionId, StorageId};
use crate::limits::Limits;
use crate::native::{self, NativeMessage};
use connection::Session;
use document::{Document, Item, Presence};
use memory::KeyedState;
use relay::{Speaker, Spoken};
use subject::Permit;

pub use connection::{OpenedDocuments, Receipt};
pub use input::{
    Event, Input, Load, Loaded, Now, Outgoing, Output, PeerInfo, PeerMessage, Role, StoreFailure, SyncMessage, Wake,
};
pub use insight::{Insight, PeerInsight, PeerProgress};
pub use mesh::{MeshEvent, NoticeStanding, Source};
pub use remark::Remark;

/// The state machine. One mutator, [`Hub::handle`]; then [`Hub::poll_output`] until it is empty.
#[derive(Debug)]
pub struct Hub {
    limits: Limits,
    hash_key: u64,
    documents: Vec<Option<Document>>,
    free: Vec<u32>,
    keys: HashMap<DocumentId, u32, KeyedState>,
    sessions: BTreeMap<SessionId, Session>,
    /// Peers that we dialled, and how much more each takes of what others than we say.
    upstreams: BTreeMap<SessionId, Bucket>,
    /// Other members of a mesh.
    neighbours: BTreeSet<SessionId>,
    /// Who wants to hear of which store's heads.
    subscriptions: BTreeMap<StorageId, BTreeSet<SessionId>>,
    outputs: VecDeque<Output>,
    /// Times at which some peer of a document may be sent more.
    deadlines: BTreeSet<(Duration, u32)>,
    memory: memory::Memory,
    /// Bytes of payloads asked from the store, and documents whose turn is yet to come.
    fetching_bytes: usize,
    fetch_queue: VecDeque<u32>,
    next_ticket: u64,
    /// Whether there is room for what peers bring.
    has_room: bool,
    /// Whether the application hears what peers say at documents that it does not watch.
    overhears: bool,
}

impl Hub {
    /// An empty hub. `seed` keys the hash maps; equal seeds and inputs give equal outputs.
    #[must_use]
    pub fn new(limits: Limits, seed: [u8; 32]) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| seed[at + byte]));
        Self {
            limits,
            hash_key: word(0),
            documents: Vec::new(),
            free: Vec::new(),
            keys: HashMap::with_hasher(KeyedState::new(word(8))),
            sessions: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            neighbours: BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            outputs: VecDeque::new(),
            deadlines: BTreeSet::new(),
            memory: memory::Memory::default(),
            fetching_bytes: 0,
            fetch_queue: VecDeque::new(),
            next_ticket: 0,
            has_room: true,
            overhears: false,
        }
    }

    /// Has the application told what peers say to each other at every document: [`Event::Ephemeral`]. Otherwise it hears
    /// that of documents that it watches.
    pub fn overhear(&mut self) {
        self.overhears = true;
    }

    /// The secret with which graphs are to be built for this hub: see [`crate::graph::Graph::from_stored`].
    #[must_use]
    pub fn hash_key(&self) -> u64 {
        self.hash_key
    }

    /// Takes one input in. Never panics on what a peer sent.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Connected { session, peer, opened } => self.connect(session, peer, opened),
            Input::Received { session, message, receipt } => self.receive(now, session, message, receipt),
            Input::AccessChanged { session, access } => self.access_changed(now, session, access),
            Input::Decided { session, document, may } => self.decided(now, session, &document, may),
            Input::Reconsider { session } => self.reconsider(session),
            Input::Room { has_room } => self.room_changed(now, has_room),
            Input::Local { document, changes, ticket } => {
                self.enqueue(now, &document, Item::Local { changes, ticket, author: None });
            }
            Input::OnBehalf { subject, document, changes, ticket } => {
                self.enqueue(now, &document, Item::Local { changes, ticket, author: Some(subject) });
            }
            Input::Limits(limits) => self.limits_changed(now, *limits),
            Input::Watch { document } => self.enqueue(now, &document, Item::Watch),
            Input::Unwatch { document } => self.unwatch(now, &document),
            Input::Initiate { session, document } => {
                self.enqueue(now, &document, Item::Initiate { session, only_offers: false });
            }
            Input::Offer { session, document } => {
                self.enqueue(now, &document, Item::Initiate { session, only_offers: true });
            }
            Input::Broadcast { document, sender, count, session, data } => {
                let spoken = Spoken { sender, count, session, data };
                self.broadcast(now, &document, Speaker::Application, &spoken);
                self.tell_mesh_of_words(&document, spoken);
            }
            Input::Heard { document, sender, count, session, data } => {
                self.hear(now, &document, Spoken { sender, count, session, data });
            }
            Input::Noticed { session, document, changes, heads, ticket } => {
                self.enqueue(now, &document, Item::noticed(session, changes, heads, ticket));
            }
            Input::Persisted { document, ticket } => self.persisted(now, &document, ticket),
            Input::PersistFailed { document, ticket, failure } => self.persist_failed(&document, ticket, &failure),
            Input::Loaded { document, loaded } => self.loaded(now, &document, loaded),
            Input::LoadFailed { document, what, failure } => self.load_failed(now, &document, &what, &failure),
            Input::Compacted { document, changes } => self.compacted(&document, changes),
            Input::SetLife { document, deleted, ticket } => {
                self.enqueue(now, &document, Item::SetLife { deleted, ticket });
            }
            Input::Expire { document, heads, ticket } => {
                self.enqueue(now, &document, Item::Expire { heads, ticket });
            }
            Input::SetLocalOnly { document, local_only, ticket } => {
                self.enqueue(now, &document, Item::SetLocalOnly { local_only, ticket });
            }
            Input::LocalOnlySet { document, ticket } => self.local_only_set(now, &document, ticket),
            Input::LocalOnlyNotSet { document, ticket, failure } => {
                self.local_only_not_set(now, &document, ticket, &failure);
            }
            Input::Replace { document, heads, changes, ticket } => {
                self.enqueue(now, &document, Item::Replace { heads, changes, ticket });
            }
            Input::Replaced { document, ticket } => self.replaced(now, &document, ticket),
            Input::NotReplaced { document, ticket, failure } => self.not_replaced(now, &document, ticket, &failure),
            Input::LifeSet { document, ticket, life } => self.life_set(now, &document, ticket, life),
            Input::LifeNotSet { document, ticket, failure } => self.life_not_set(now, &document, ticket, &failure),
            Input::Purged { document } => self.purged(now, &document),
            Input::Drained { session } => self.drained(now, session),
            Input::Disconnected { session } => self.disconnect(now, session),
            Input::Timeout => self.timeout(now),
        }
    }

    /// The next thing for the shell to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due next, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Duration, Wake)> {
        let sends = self.deadlines.first().map(|(at, _)| (*at, Wake::Send));
        let sweep = self.memory.next_sweep().map(|at| (at, Wake::Evict));
        match (sends, sweep) {
            (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
            (one, other) => one.or(other),
        }
    }

    /// Documents in memory, loaded graphs, and the bytes of these: for metrics.
    #[must_use]
    pub fn footprint(&self) -> (usize, usize, usize) {
        (self.keys.len(), self.memory.graphs(), self.memory.bytes())
    }

    fn connect(&mut self, session: SessionId, peer: PeerInfo, opened: OpenedDocuments) {
        match peer.role {
            Role::Upstream => {
                let per_second = f64::from(self.limits.ephemeral_per_second_max);
                self.upstreams.insert(session, Bucket::new(per_second, per_second));
            }
            Role::Neighbour => drop(self.neighbours.insert(session)),
            Role::Downstream => {}
        }
        self.sessions.insert(session, Session::new(peer, opened));
    }

    fn disconnect(&mut self, now: Now, session: SessionId) {
        self.upstreams.remove(&session);
        self.neighbours.remove(&session);
        for subscribers in self.subscriptions.values_mut() {
            subscribers.remove(&session);
        }
        self.subscriptions.retain(|_, subscribers| !subscribers.is_empty());
        let Some(entry) = self.sessions.remove(&session) else { return };
        for key in entry.documents {
            if let Some(document) = self.document(key) {
                document.remove_peer(session);
            }
            // The sweep may have passed while the peer was there: from now on it counts down to forgetting.
            self.touch(now, key);
        }
    }

    /// Takes in what the sender may say.
    fn receive_permitted(
        &mut self,
        now: Now,
        session: SessionId,
        message: PeerMessage,
        (may, receipt): (Permissions, Receipt),
    ) {
        match message {
            PeerMessage::Sync(message) => {
                let document = message.document.clone();
                if self.may_open(session, &document) {
                    let permit = Permit { may, author: self.author_of(session) };
                    self.enqueue(now, &document, Item::Message { session, message, permit, receipt });
                }
            }
            PeerMessage::DocUnavailable { document } => self.unavailable(now, session, document),
            PeerMessage::Ephemeral { .. } => self.relay_ephemeral(now, session, message),
            PeerMessage::RemoteSubscription { add, remove } => self.subscribe(session, add, &remove),
            PeerMessage::RemoteHeads { document, heads } => {
                for entry in heads {
                    self.note_remote_heads(&document, session, entry);
                }
            }
            PeerMessage::Native(message) => self.receive_native(now, session, message, (may, receipt)),
        }
    }

    fn receive_native(
        &mut self,
        now: Now,
        session: SessionId,
        message: NativeMessage,
        (may, receipt): (Permissions, Receipt),
    ) {
        match message {
            NativeMessage::Life { document, life } => {
                if self.may_open(session, &document) {
                    self.enqueue(now, &document, Item::Life { session, life, may, _receipt: receipt });
                }
            }
            NativeMessage::Account { document, account } => {
                if self.may_open(session, &document) {
                    self.enqueue(now, &document, Item::Account { session, account, _receipt: receipt });
                }
            }
            // Only those whom we offer our changes have a say in what becomes of them.
            NativeMessage::Refused { document, hash, reason, words } if self.upstreams.contains_key(&session) => {
                self.retry_later(now, &document, session, reason);
                self.outputs.push_back(Output::Notify(Event::Refused { document, session, hash, reason, words }));
            }
            NativeMessage::Refused { .. } => {}
            NativeMessage::Access { .. } => self.offer_again(now, session),
            // The shell takes these: no hub has a part of a blob or of a mesh, more than a part of the collection, or knows
            // a token.
            NativeMessage::Blob(_)
            | NativeMessage::Collection(_)
            | NativeMessage::Mesh(_)
            | NativeMessage::Token(_) => {}
        }
    }

    /// Bounds the documents that a peer opens on one connection, over all hubs; the refusal names the limit.
    fn may_open(&mut self, session: SessionId, document: &DocumentId) -> bool {
        let key = self.keys.get(document).copied();
        let Some(entry) = self.sessions.get(&session) else { return false };
        let open = key.is_some_and(|key| entry.documents.contains(&key));
        let documents_max = self.limits.session_documents_max;
        if self.neighbours.contains(&session) {
            // It comes and goes: what counts is at how many it is.
            return open || entry.documents.len() < documents_max;
        }
        if open || entry.opened.open_one(documents_max) {
            return true;
        }
        self.remark(session, Some(document), Remark::TooManyDocuments { documents_max });
        self.send(session, Outgoing::DocUnavailable { document: document.clone() });
        false
    }

    fn enqueue(&mut self, now: Now, id: &DocumentId, item: Item) {
        let key = self.key_of(id);
        self.touch(now, key);
        if let Some(session) = item.session() {
            self.join_document(session, key);
        }
        if let Some(document) = self.document(key) {
            document.inbox.push_back(item);
        }
        self.drive(now, key);
    }

    /// Handles what is in a document's inbox, as far as what is loaded allows.
    fn drive(&mut self, now: Now, key: u32) {
        loop {
            let Some(document) = self.document(key) else { return };
            // What a peer says after a record is said of the document as it is then.
            if document.is_undecided() {
                return;
            }
            let Some(item) = document.inbox.front() else { return };
            if document.presence == Presence::Unknown {
                return self.load_once(key, Load::Summary);
            }
            if document.needs_graph_for(item) {
                return self.load_once(key, Load::Graph);
            }
            if let Some(what) = self.owners_needed(key) {
                return self.load_once(key, what);
            }
            let Some(item) = self.document(key).and_then(|document| document.inbox.pop_front()) else { return };
            self.handle_item(now, key, item);
        }
    }

    fn handle_item(&mut self, now: Now, key: u32, item: Item) {
        match item {
            Item::Message { session, message, permit, receipt } => {
                self.handle_message(now, key, session, *message, (permit, receipt));
            }
            Item::Local { changes, ticket, author } => self.handle_local(now, key, changes, ticket, author.as_ref()),
            Item::Watch => self.watch(now, key),
            Item::Noticed(noticed) => self.handle_noticed(key, noticed),
            Item::Initiate { session, only_offers } => self.initiate(now, key, session, only_offers),
            Item::Replace { heads, changes, ticket } => self.replace(key, &heads, &changes, ticket),
            Item::SetLife { deleted, ticket } => self.decide(key, deleted, ticket),
            Item::Expire { heads, ticket } => self.expire(key, &heads, ticket),
            Item::SetLocalOnly { local_only, ticket } => self.withhold(key, local_only, ticket),
            Item::Life { session, life, may, .. } => self.hear_life(now, key, session, life, may),
            Item::Account { session, account, .. } => self.hear_account(now, key, session, account),
        }
    }

    fn watch(&mut self, now: Now, key: u32) {
        if let Some(document) = self.document(key) {
            document.watched = true;
        }
        self.tell_life(key);
        self.tell_what_peers_said(key);
        self.initiate_upstreams(now, key);
    }

    /// What peers have said before somebody listened: in agreement, they will not say it again.
    fn tell_what_peers_said(&mut self, key: u32) {
        let Some(document) = self.documents.get(key as usize).and_then(Option::as_ref) else { return };
        let view = document.view();
        let spoken = document.peers.iter().filter(|peer| peer.sync.has_spoken() && !document.local_only);
        for peer in spoken {
            let (document, session) = (document.id.clone(), peer.session);
            let (heads, has_all) = (peer.sync.their_heads(), peer.sync.has_all(view));
            self.outputs.push_back(Output::Notify(Event::PeerState { document, session, heads, has_all }));
        }
    }

    fn unwatch(&mut self, now: Now, id: &DocumentId) {
        if let Some(key) = self.keys.get(id).copied()
            && let Some(document) = self.document(key)
        {
            document.watched = false;
            document.inbox.retain(|item| !matches!(item, Item::Watch));
            self.touch(now, key);
        }
    }

    fn initiate_upstreams(&mut self, now: Now, key: u32) {
        for session in self.upstreams.keys().copied().collect::<Vec<_>>() {
            self.initiate(now, key, session, false);
        }
    }

    /// Speaks first about a document, unless the peer and we already do, the document stays here, or the peer may not read it.
    fn initiate(&mut self, now: Now, key: u32, session: SessionId, only_offers: bool) {
        let Some(document) = self.document(key).filter(|document| !document.local_only) else { return };
        let id = document.id.clone();
        let may = self.sessions.get(&session).and_then(|entry| entry.may(&id)).unwrap_or_default();
        if !may.include(Permissions::READ) {
            return;
        }
        if let Some(document) = self.document(key) {
            document.initiate(session, only_offers);
        }
        self.join_document(session, key);
        self.respond(now, key, session);
    }

    /// The peer has nothing of the document, so that whatever is here can be sent to it, at once or once it is durable.
    fn unavailable(&mut self, now: Now, session: SessionId, id: DocumentId) {
        let Some(key) = self.keys.get(&id).copied() else { return };
        let Some(document) = self.document(key) else { return };
        if let Some(peer) = document.peer(session) {
            peer.sync.has_nothing();
        }
        if document.watched {
            self.outputs.push_back(Output::Notify(Event::Unavailable { document: id, session }));
        }
        self.respond(now, key, session);
    }

    fn drained(&mut self, now: Now, session: SessionId) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        (entry.queued_messages, entry.queued_bytes, entry.congested) = (0, 0, false);
        let (dirty, heads) = (std::mem::take(&mut entry.dirty), std::mem::take(&mut entry.dirty_heads));
        for key in dirty {
            self.respond(now, key, session);
        }
        for (key, storage) in heads {
            self.send_remote_heads(session, key, &storage);
        }
    }

    fn timeout(&mut self, now: Now) {
        while let Some((at, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.deadlines.remove(&(at, key));
            if let Some(document) = self.document(key) {
                document.deadline = None;
            }
            self.respond_to_all(now, key);
            // A read that failed may be due again.
            self.drive(now, key);
        }
        self.sweep(now);
    }

    /// Whether what a peer said of a document is still to be answered. It may have gone meanwhile, or may not read it any
    /// more; members of a mesh come and go at documents as they speak of them.
    fn is_at(&self, key: u32, session: SessionId) -> bool {
        let Some(entry) = self.sessions.get(&session) else { return false };
        entry.documents.contains(&key) || self.neighbours.contains(&session)
    }

    /// Whether a peer gives and understands accounts of what it has.
    fn accounts(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|entry| entry.peer.native >= native::ACCOUNTS_SINCE)
    }

    /// What is compared with peers has changed, durably.
    fn tell_state(&mut self, key: u32) {
        let Some(document) = self.documents.get(key as usize).and_then(Option::as_ref) else { return };
        let (document, state) = (document.id.clone(), document.state());
        self.outputs.push_back(Output::State { document, state });
    }

    fn document(&mut self, key: u32) -> Option<&mut Document> {
        self.documents.get_mut(key as usize)?.as_mut()
    }

    /// From here on the session is one of the document's peers.
    fn join_document(&mut self, session: SessionId, key: u32) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        if entry.documents.insert(key)
            && let Some(document) = self.document(key)
        {
            document.peer_or_new(session);
        }
    }

    fn key_of(&mut self, id: &DocumentId) -> u32 {
        if let Some(key) = self.keys.get(id) {
            return *key;
        }
        let key = self.free.pop().unwrap_or_else(|| {
            self.documents.push(None);
            self.documents.len() as u32 - 1
        });
        self.documents[key as usize] = Some(Document::new(id.clone()));
        self.keys.insert(id.clone(), key);
        key
    }

    fn load_once(&mut self, key: u32, what: Load) {
        let Some(document) = self.document(key) else { return };
        if document.loading.is_none() {
            document.loading = Some(what.clone());
            let document = document.id.clone();
            self.outputs.push_back(Output::Load { document, what });
        }
    }

    /// Sends, and stops at the bound of the connection's queue until the shell says that the queue is empty. What is
    /// held back is not queued here either: it is worked out anew, from then newer state.
    fn send(&mut self, session: SessionId, message: Outgoing) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        entry.queued_messages += 1;
        entry.queued_bytes += message.weight();
        let full = entry.queued_messages >= self.limits.queue_messages_max
            || entry.queued_bytes >= self.limits.queue_bytes_max;
        self.outputs.push_back(Output::Send { session, message });
        if full && !std::mem::replace(&mut entry.congested, true) {
            self.outputs.push_back(Output::AwaitDrain { session });
        }
    }

    /// Tells a peer, the log and the counters that something of it was not taken.
    fn remark(&mut self, session: SessionId, document: Option<&DocumentId>, remark: Remark) {
        self.send(session, Outgoing::Error { message: remark.for_peer(document) });
        self.outputs.push_back(Output::Refused { session: Some(session), document: document.cloned(), remark });
    }
}

#[cfg(test)]
mod tests;

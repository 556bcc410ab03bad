//! Changes on their way in: from a message to the store, and what follows once they are durable.
//!
//! Owns: admission with its refusals, commits under way, the order of statements. Must not: decide what peers are sent.
//! Next: `hub/respond.rs`, `graph/admission.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::document::{Awaiting, Barred, Item, Origin, Persisting, Presence};
use super::retry::Retry;
use super::subject::{Intake, Permit};
use super::{Event, Hub, Load, Loaded, Now, Outgoing, Output, Receipt, Remark, StoreFailure, SyncMessage};
use crate::ChangeHash;
use crate::authored::Authored;
use crate::change::Change;
use crate::graph::{Admission, Graph, Orphans};
use crate::id::{DocumentId, SessionId};
use crate::native::{NativeMessage, RefusalReason};
use crate::storage::{Commit, Standing, Summary};
use crate::sync::{Account, Statement};

/// Between a read that failed and the next for what was asked; twice as long after each that fails too.
const READ_RETRY: Duration = Duration::from_secs(1);

/// How often that wait doubles: to 64 s.
const READ_RETRY_DOUBLINGS: u8 = 6;

/// What is said of a change that did not get past its bytes; the error that goes with it has the details.
const NOT_READ: &str = "the change is malformed or above a limit";

/// Messages of one peer, without changes, that wait for a document that cannot be read. The latest says all that earlier
/// ones did, save for a reset among them.
const QUESTIONS_KEPT: usize = 4;

impl Hub {
    pub(super) fn handle_message(
        &mut self,
        now: Now,
        key: u32,
        session: SessionId,
        mut message: SyncMessage,
        (permit, receipt): (Permit, Receipt),
    ) {
        if self.document(key).is_some_and(|document| document.local_only) {
            return self.hear_of_nothing(now, key, session, message);
        }
        if self.document(key).is_some_and(|document| document.is_deleted()) {
            return self.refuse_deleted(now, key, session);
        }
        self.bar_changes(key, session, permit.may, &mut message);
        let SyncMessage { mut request, statement, changes, refused, .. } = message;
        if !request && self.is_greeting_in_agreement(key, session, &statement) {
            self.respond_life(key, session);
            return self.leave(key, session);
        }
        // The sender may be gone by now, or may read no more: its changes still count, its questions do not.
        let present = self.is_at(key, session);
        let remark = self.admit_all(key, (Origin::Peer(session), permit.author.as_ref()), changes);
        let Some(document) = self.document(key) else { return };
        // A peer would send everything again and again to a replica that has nothing and does not say so.
        let turned_away = matches!(remark, Some(Remark::SubjectFull { .. } | Remark::ForeignActor { .. }));
        request |= turned_away && document.presence == Presence::Absent && document.persisting.is_empty();
        if !present {
            return document.remove_peer(session);
        }
        let peer = document.peer_or_new(session);
        for hash in &refused {
            peer.sync.refuse(*hash);
        }
        for hash in refused {
            self.refuse_natively(key, session, hash, RefusalReason::Limit, NOT_READ);
        }
        let Some(document) = self.document(key) else { return };
        let length = document.graph.as_ref().map_or(document.durable, |graph| graph.len());
        let after_own = document.awaiting.iter().any(|awaiting| awaiting.session == session);
        if length > document.durable && (statement.with_changes || after_own) {
            document.awaiting.push_back(Awaiting { length, session, statement, request, _receipt: receipt });
            return;
        }
        self.take_statement(now, key, Awaiting { length, session, statement, request, _receipt: receipt });
        self.respond(now, key, session);
    }

    pub(super) fn handle_local(
        &mut self,
        now: Now,
        key: u32,
        changes: Vec<Change>,
        ticket: u64,
        author: Option<&Arc<str>>,
    ) {
        let refused = self.admit_all(key, (Origin::Local { ticket }, author), changes);
        let Some(document) = self.document(key) else { return };
        let under_way = document.persisting.back().is_some_and(|last| last.origin == Origin::Local { ticket });
        if let (false, None, Some(last)) = (under_way, &refused, document.persisting.back_mut()) {
            // They have come back from a peer, and are saved when what is under way is.
            last.also.push(ticket);
        } else if !under_way {
            let document = document.id.clone();
            let event = match refused {
                Some(remark) => {
                    let (message, rule) = (remark.to_string(), Some(remark.kind()));
                    Event::NotSaved { document, ticket, message, rule }
                }
                None => Event::Saved { document, ticket },
            };
            self.outputs.push_back(Output::Notify(event));
        }
        self.initiate_upstreams(now, key);
    }

    /// Admits what can be admitted and commits it. Returns the last refusal.
    pub(super) fn admit_all(
        &mut self,
        key: u32,
        (origin, author): (Origin, Option<&Arc<str>>),
        changes: Vec<Change>,
    ) -> Option<Remark> {
        let limits = self.limits.clone();
        if changes.is_empty() {
            return None;
        }
        let document = self.document(key)?;
        let mut graph = document.graph.take()?;
        let mut orphans = document.orphans.take().unwrap_or_default();
        let before = graph.len();
        let mut bytes = document.payload_bytes as u64;
        let mut remarks = Vec::new();
        let mut authored = Authored::NEVER;
        let mut intake = Intake::new(document.standings.take(), &limits);
        let brought = changes.into_iter().map(|change| (origin, author.cloned(), change));
        let mut queue: std::collections::VecDeque<_> = brought.collect();
        while let Some((from, author, change)) = queue.pop_front() {
            match graph.admit(&change, &limits) {
                Ok(Admission::Known) => {}
                Ok(Admission::Ready) => {
                    let room = is_full(from, (graph.len(), bytes), &limits).map_or(Ok(()), Err);
                    if let Err(remark) = room.and_then(|()| intake.admit(author.as_ref(), &change)) {
                        remarks.push((from, change.hash, remark));
                        continue;
                    }
                    bytes += change.bytes.len() as u64;
                    if graph.push(&change).is_ok() {
                        authored = authored.max(Authored::at(change.time));
                        let freed = orphans.take_dependents(&change.hash).into_iter();
                        queue.extend(freed.map(|(of, change)| (Origin::Peer(of), self.author_of(of), change)));
                    }
                }
                Ok(Admission::Orphan(missing)) => {
                    remarks.extend(wait_for_dependencies(&mut orphans, from, change, &missing, &limits));
                }
                Err(refusal) => remarks.push((from, change.hash, Remark::Change(refusal))),
            }
        }
        let (standings, contributions) = intake.end();
        let document = self.document(key)?;
        let commit = commit_of(&document.id, &graph, before);
        document.orphans = (!orphans.is_empty()).then_some(orphans);
        (document.graph, document.standings) = (Some(graph), standings);
        let last = remarks.last().map(|(_, _, remark)| remark.clone());
        if let Some((mut commit, length)) = commit {
            commit.contributions = contributions;
            self.persist(key, origin, commit, (length, authored));
        }
        self.tell_refusals(key, remarks);
        last
    }

    fn persist(&mut self, key: u32, origin: Origin, commit: Commit, (length, authored): (u32, Authored)) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(document) = self.document(key) {
            let contributions = commit.contributions.clone();
            document.persisting.push_back(Persisting {
                ticket,
                length,
                authored,
                origin,
                contributions,
                also: Vec::new(),
            });
        }
        self.outputs.push_back(Output::Persist { ticket, commit });
    }

    fn tell_refusals(&mut self, key: u32, remarks: Vec<(Origin, ChangeHash, Remark)>) {
        for (origin, hash, remark) in remarks {
            let Some(document) = self.document(key) else { return };
            let id = document.id.clone();
            match origin {
                Origin::Peer(session) | Origin::Notice(session) => {
                    if let Some(peer) = document.peer(session) {
                        peer.sync.refuse(hash);
                        if remark.is_for_want_of_space() {
                            peer.barred = Some(Barred::Limit);
                        }
                    }
                    self.refuse_natively(key, session, hash, remark.reason(), &remark.to_string());
                    self.remark(session, Some(&id), remark);
                }
                Origin::Local { .. } => {
                    self.outputs.push_back(Output::Refused { session: None, document: Some(id), remark });
                }
            }
        }
    }

    /// A Syncline peer can do something about it.
    fn refuse_natively(&mut self, key: u32, session: SessionId, hash: ChangeHash, reason: RefusalReason, words: &str) {
        let Some(document) = self.document(key).map(|document| document.id.clone()) else { return };
        if self.sessions.get(&session).is_some_and(|entry| entry.peer.native > 0) {
            let words = words.to_owned();
            self.send(session, Outgoing::Native(NativeMessage::Refused { document, hash, reason, words }));
        }
    }

    pub(super) fn persisted(&mut self, now: Now, id: &DocumentId, ticket: u64) {
        let Some(key) = self.keys.get(id).copied() else { return };
        self.touch(now, key);
        let Some(document) = self.document(key) else { return };
        if document.persisting.front().is_none_or(|front| front.ticket != ticket) {
            return;
        }
        let Some(Persisting { length, authored, origin, also, contributions, .. }) = document.persisting.pop_front()
        else {
            return;
        };
        document.note_stored(&contributions);
        let before = document.durable;
        document.encoded.clear();
        if let Some(graph) = &mut document.graph {
            graph.mark_durable(length);
            document.heads = graph.heads();
            document.durable = graph.durable();
            document.payload_bytes += (before..length).filter_map(|n| graph.raw(n)).map(|raw| raw.len()).sum::<usize>();
        }
        document.presence = Presence::Stored;
        document.authored = document.authored.max(authored);
        self.tell_state(key);
        self.notify_durable(key, before, length, origin);
        self.tell_mesh(key, before, length, origin);
        for ticket in also {
            self.outputs.push_back(Output::Notify(Event::Saved { document: id.clone(), ticket }));
        }
        self.take_awaiting(now, key);
        self.respond_to_all(now, key);
    }

    fn take_awaiting(&mut self, now: Now, key: u32) {
        while let Some(document) = self.document(key) {
            let ready = document.awaiting.front().is_some_and(|front| front.length <= document.durable);
            let Some(awaiting) = document.awaiting.pop_front_if(|_| ready) else { return };
            self.take_statement(now, key, awaiting);
        }
    }

    fn take_statement(&mut self, now: Now, key: u32, awaiting: Awaiting) {
        let Awaiting { session, statement, request, .. } = awaiting;
        let (heads, accounts) = (statement.heads.clone(), self.accounts(session));
        let Some(document) = self.document(key) else { return };
        document.peer_or_new(session).sync.speak_natively(accounts);
        let Ok(at) = document.peers.binary_search_by_key(&session, |peer| peer.session) else { return };
        let mut peer = std::mem::take(&mut document.peers[at].sync);
        peer.receive(document.view(), statement);
        let has_all = peer.has_all(document.view());
        document.peers[at].sync = peer;
        document.peers[at].unanswered_request = request && document.presence == Presence::Absent;
        let (id, watched) = (document.id.clone(), document.watched);
        self.note_in_step(key, at, &heads);
        if watched {
            let event = Event::PeerState { document: id.clone(), session, heads: heads.clone(), has_all };
            self.outputs.push_back(Output::Notify(event));
        }
        self.note_peer_heads(now, &id, session, heads);
    }

    /// A peer says which changes it has. Of a document that is not to be shown it says that as if of one that is not here.
    pub(super) fn hear_account(&mut self, now: Now, key: u32, session: SessionId, account: Account) {
        let present = self.is_at(key, session);
        let Some(document) = self.document(key) else { return };
        if document.is_withheld() || document.durable == 0 {
            let heads = account.heads;
            let statement = Statement { heads, need: Vec::new(), have: Vec::new(), flags: None, with_changes: false };
            let (document, changes, refused) = (document.id.clone(), Vec::new(), Vec::new());
            let message = SyncMessage { document, request: false, statement, changes, refused };
            return self.handle_message(now, key, session, message, (Permit::to_read(), Receipt::default()));
        }
        if !present {
            return document.remove_peer(session);
        }
        let (id, heads) = (document.id.clone(), account.heads.clone());
        document.peer_or_new(session);
        let Ok(at) = document.peers.binary_search_by_key(&session, |peer| peer.session) else { return };
        let mut peer = std::mem::take(&mut document.peers[at].sync);
        peer.receive_account(document.view(), &account);
        document.peers[at].sync = peer;
        self.note_in_step(key, at, &heads);
        self.note_peer_heads(now, &id, session, heads);
        self.respond(now, key, session);
    }

    /// A server that has announced our heads has everything that is durable here: the application may let go of it.
    fn note_in_step(&mut self, key: u32, at: usize, announced: &[ChangeHash]) {
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let durable = document.durable;
        let Some(peer) = document.peers.get_mut(at).filter(|peer| self.upstreams.contains_key(&peer.session)) else {
            return;
        };
        let has_all = durable > 0 && document.heads.iter().all(|head| announced.binary_search(head).is_ok());
        if has_all {
            peer.retry = Retry::default();
        }
        if has_all && peer.in_step_at != durable {
            peer.in_step_at = durable;
            let (document, session, heads) = (document.id.clone(), peer.session, document.heads.clone());
            self.outputs.push_back(Output::Notify(Event::InStep { document, session, heads }));
        }
    }

    fn notify_durable(&mut self, key: u32, before: u32, length: u32, origin: Origin) {
        let Some(document) = self.document(key) else { return };
        let id = document.id.clone();
        let changes = match &document.graph {
            Some(graph) if document.watched => (before..length).filter_map(|n| graph.raw(n).cloned()).collect(),
            _ => Vec::new(),
        };
        let (heads, watched) = (document.heads.clone(), document.watched);
        if let Origin::Local { ticket } = origin {
            self.outputs.push_back(Output::Notify(Event::Saved { document: id.clone(), ticket }));
        }
        if watched {
            let origin = match origin {
                Origin::Peer(session) | Origin::Notice(session) => Some(session),
                Origin::Local { .. } => None,
            };
            self.outputs.push_back(Output::Notify(Event::Changed { document: id, changes, heads, origin }));
        }
    }

    /// Nothing of the failed commit is stored, and what waited for it goes too. Whoever sent a part of that is cut off:
    /// a stock client believes that what it sent has arrived, and sends it again only on a new connection.
    pub(super) fn persist_failed(&mut self, id: &DocumentId, ticket: u64, failure: &StoreFailure) {
        let hash_key = self.hash_key;
        let Some(key) = self.keys.get(id).copied() else { return };
        let Some(document) = self.document(key) else { return };
        if !document.persisting.iter().any(|persisting| persisting.ticket == ticket) {
            return;
        }
        let mut failed = std::mem::take(&mut document.persisting);
        document.give_back(failed.make_contiguous());
        let mut senders: BTreeSet<_> = document.awaiting.drain(..).map(|awaiting| awaiting.session).collect();
        let announcing = document.peers.iter().filter(|peer| peer.sync.announces_more());
        senders.extend(announcing.map(|peer| peer.session));
        document.graph = (document.presence == Presence::Absent).then(|| Box::new(Graph::new(hash_key)));
        document.orphans = None;
        self.weigh(key);
        for Persisting { origin, also, .. } in failed {
            also.into_iter().for_each(|ticket| self.not_saved(id, ticket, failure));
            match origin {
                Origin::Peer(session) => drop(senders.insert(session)),
                // It was not told that its notice has arrived.
                Origin::Notice(_) => {}
                Origin::Local { ticket } => self.not_saved(id, ticket, failure),
            }
        }
        for session in senders {
            self.cut_off(session, id, failure);
        }
        self.refuse_noticed(key);
    }

    pub(super) fn cut_off(&mut self, session: SessionId, id: &DocumentId, failure: &StoreFailure) {
        if self.sessions.contains_key(&session) {
            self.remark(session, Some(id), Remark::Store(failure.clone()));
            self.outputs.push_back(Output::Close { session, reason: failure.message.clone() });
        }
    }

    pub(super) fn not_saved(&mut self, id: &DocumentId, ticket: u64, failure: &StoreFailure) {
        let (document, message) = (id.clone(), failure.message.clone());
        self.outputs.push_back(Output::Notify(Event::NotSaved { document, ticket, message, rule: None }));
    }

    pub(super) fn loaded(&mut self, now: Now, id: &DocumentId, loaded: Loaded) {
        let Some(key) = self.keys.get(id).copied() else { return };
        self.touch(now, key);
        self.document(key).into_iter().for_each(|document| document.reads_failed = 0);
        match loaded {
            Loaded::Summary(standing) => self.summary_loaded(key, standing),
            Loaded::Graph(graph) => self.graph_loaded(key, graph),
            Loaded::Payload(payload) => return self.payload_loaded(now, key, payload),
            Loaded::Owners { owners, account } => self.owners_loaded(key, owners, account),
            Loaded::Changes { session, changes } => return self.changes_loaded(now, key, session, changes),
        }
        self.drive(now, key);
        self.respond_to_all(now, key);
    }

    fn summary_loaded(&mut self, key: u32, standing: Standing) {
        let hash_key = self.hash_key;
        let Some(document) = self.document(key) else { return };
        document.loading = None;
        if document.presence != Presence::Unknown {
            return;
        }
        document.life = standing.life;
        document.local_only = standing.local_only;
        let purged = std::mem::take(&mut document.purged_meanwhile);
        match standing.summary.filter(|_| !purged) {
            None => {
                document.presence = Presence::Absent;
                document.graph = Some(Box::new(Graph::new(hash_key)));
            }
            Some(summary) => {
                document.presence = Presence::Stored;
                document.durable = summary.changes;
                document.authored = summary.authored;
                document.payload_bytes = payload_estimate(&summary);
                document.heads = summary.heads;
            }
        }
    }

    fn graph_loaded(&mut self, key: u32, graph: Option<Box<Graph>>) {
        let Some(document) = self.document(key) else { return };
        document.loading = None;
        if document.graph.is_none()
            && let Some(graph) = graph
        {
            document.heads = graph.heads();
            document.durable = graph.durable();
            document.graph = Some(graph);
        }
        self.weigh(key);
    }

    /// The document cannot be read: those who asked are told, nothing of it is touched, and it is read again for them
    /// after a while.
    pub(super) fn load_failed(&mut self, now: Now, id: &DocumentId, what: &Load, failure: &StoreFailure) {
        let Some(key) = self.keys.get(id).copied() else { return };
        self.end_fetch(key, what);
        let Some(document) = self.document(key) else { return };
        let first = document.reads_failed == 0;
        let waiting: BTreeSet<_> = match what {
            Load::Summary | Load::Graph | Load::Owners { .. } => {
                document.loading = None;
                self.keep_questions(key, failure)
            }
            Load::Payload if document.local_only => BTreeSet::new(),
            Load::Payload => document.peers.iter().map(|peer| peer.session).collect(),
            Load::Changes { session, .. } => {
                document.loading = None;
                [*session].into()
            }
        };
        for session in waiting.into_iter().filter(|_| first) {
            self.remark(session, Some(id), Remark::Store(failure.clone()));
        }
        self.read_again_later(now, key);
        if !matches!(what, Load::Summary | Load::Graph | Load::Owners { .. }) {
            self.drive(now, key);
        }
    }

    /// Of what waits, keeps what can wait for the next read, and returns the peers that asked. Local changes are given
    /// back. Whoever sent changes is cut off, for the reason of [`Self::persist_failed`].
    fn keep_questions(&mut self, key: u32, failure: &StoreFailure) -> BTreeSet<SessionId> {
        let Some(document) = self.document(key) else { return BTreeSet::new() };
        let (id, mut waiting) = (document.id.clone(), std::mem::take(&mut document.inbox));
        let mut questions: BTreeMap<SessionId, usize> = BTreeMap::new();
        let (mut senders, mut unsaved, mut undecided) = (BTreeSet::new(), Vec::new(), Vec::new());
        // From the latest to the first, so that the latest are kept.
        while let Some(item) = waiting.pop_back() {
            let kept = match item {
                Item::Message { session, message, permit, .. } => {
                    let asked = questions.entry(session).or_default();
                    *asked += 1;
                    let kept = *asked <= QUESTIONS_KEPT && !message.statement.with_changes;
                    if message.statement.with_changes {
                        senders.insert(session);
                    }
                    // What waits for so long must not hold up the rest of the connection.
                    kept.then(|| Item::Message { session, message, permit, receipt: Receipt::default() })
                }
                Item::Local { ticket, .. } | Item::Replace { ticket, .. } => {
                    unsaved.push(ticket);
                    None
                }
                Item::SetLocalOnly { ticket, .. } => {
                    unsaved.push(ticket);
                    None
                }
                Item::SetLife { ticket, .. } | Item::Expire { ticket, .. } => {
                    undecided.push(ticket);
                    None
                }
                // It comes again with the next connection.
                Item::Life { session, .. } => {
                    senders.insert(session);
                    None
                }
                // It goes no further; what it told is found by the next repair.
                Item::Noticed(noticed) => {
                    self.refuse_unread(&noticed);
                    None
                }
                // What it asks is asked anew with the connection.
                Item::Account { session, .. } => {
                    senders.insert(session);
                    None
                }
                Item::Watch | Item::Initiate { .. } => Some(item),
            };
            if let (Some(kept), Some(document)) = (kept, self.document(key)) {
                document.inbox.push_front(kept);
            }
        }
        unsaved.into_iter().rev().for_each(|ticket| self.not_saved(&id, ticket, failure));
        undecided.into_iter().rev().for_each(|ticket| self.not_decided(&id, ticket, failure));
        for session in &senders {
            self.cut_off(*session, &id, failure);
        }
        questions.into_keys().filter(|session| !senders.contains(session)).collect()
    }

    fn read_again_later(&mut self, now: Now, key: u32) {
        let Some(document) = self.document(key) else { return };
        if document.inbox.is_empty() && document.peers.is_empty() {
            return;
        }
        let wait = READ_RETRY * (1 << document.reads_failed.min(READ_RETRY_DOUBLINGS));
        document.reads_failed = document.reads_failed.saturating_add(1);
        self.wake_at(key, now.mono + wait);
    }

    pub(super) fn compacted(&mut self, id: &DocumentId, changes: u32) {
        let Some(key) = self.keys.get(id).copied() else { return };
        if let Some(graph) = self.document(key).and_then(|document| document.graph.as_mut()) {
            graph.release_raw(changes);
            self.weigh(key);
        }
    }
}

/// The commit of the nodes from `before` on, and the document's length after it.
pub(super) fn commit_of(id: &DocumentId, graph: &Graph, before: u32) -> Option<(Commit, u32)> {
    let length = graph.len();
    let changes: Vec<_> = (before..length).filter_map(|node| graph.raw(node).cloned()).collect();
    let (document, heads) = (id.clone(), graph.pending_heads());
    let contributions = Vec::new();
    let commit = Commit { document, changes, heads, changes_before: before, snapshot: None, contributions };
    (length > before).then_some((commit, length))
}

/// Whether a document has as much in it as peers may put there.
fn is_full(from: Origin, (changes, bytes): (u32, u64), limits: &crate::limits::Limits) -> Option<Remark> {
    let full = |limit, max: u64| Some(Remark::DocumentFull { limit, max });
    if matches!(from, Origin::Local { .. }) {
        None
    } else if changes >= limits.document_changes_max {
        full("document_changes_max", limits.document_changes_max.into())
    } else if bytes >= limits.document_bytes_max {
        full("document_bytes_max", limits.document_bytes_max)
    } else {
        None
    }
}

fn wait_for_dependencies(
    orphans: &mut Orphans,
    from: Origin,
    change: Change,
    missing: &[ChangeHash],
    limits: &crate::limits::Limits,
) -> Option<(Origin, ChangeHash, Remark)> {
    let hash = change.hash;
    let remark = match from {
        Origin::Peer(session) | Origin::Notice(session) => {
            orphans.insert(session, change, missing, limits).err().map(Remark::Orphan)
        }
        // What it builds on failed to be stored. The application holds it and comes again with both.
        Origin::Local { .. } => Some(Remark::LocalOrphan { hash }),
    };
    remark.map(|remark| (from, hash, remark))
}

fn payload_estimate(summary: &Summary) -> usize {
    let bytes = if summary.snapshot_changes == summary.changes { 0 } else { summary.bytes };
    usize::try_from(summary.snapshot_bytes + bytes).unwrap_or(usize::MAX)
}

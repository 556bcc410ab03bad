//! The documents of this replica compared with a peer's, so that only those that differ need be spoken of.
//!
//! Owns: the sets, kept current; the rounds with each peer, their bounds; what may be compared with whom.
//! Must not: sync a document, hold one, read a clock, touch a socket or the store.
//! Next: `collection/ask.rs`, `collection/answer.rs`, `reconcile.rs`; docs/protocol.md §9, "Rounds".
//!
//! As with a hub: inputs in, outputs out in order, one deadline. There is one collection for a replica, whatever the number
//! of its hubs: each of them says which state of a document has become durable.

mod answer;
mod ask;
mod members;
pub mod message;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::ChangeHash;
use crate::authored::Authored;
use crate::bucket::Bucket;
use crate::clock::Stamp;
use crate::hub::{Now, Receipt, Role};
use crate::id::{DocumentId, SessionId};
use crate::life::Life;
use crate::limits::Limits;
use crate::reconcile::{DIGEST_PREFIX_BYTES, Element, SetKey};
use crate::storage::Standing;

use answer::Answering;
use ask::{Asked, Asking};

pub use ask::{Outcome, Report};
pub use members::{Gathering, Members};
pub use message::{CollectionMessage, EndReason};

/// Between a set that could not be read and the next try.
const READ_RETRY: Duration = Duration::from_secs(30);

/// What peers call a set whose key both know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName(pub [u8; 8]);

impl SetName {
    /// The name of the set with this key.
    #[must_use]
    pub fn of(key: &SetKey) -> Self {
        let digest = Sha256::new().chain_update(b"syncline set").chain_update(key.0).finalize();
        Self(std::array::from_fn(|at| digest[at]))
    }

    /// The set that every replica has.
    #[must_use]
    pub fn of_documents() -> Self {
        Self::of(&documents_key())
    }
}

/// The key of the set that every replica has: no secret.
#[must_use]
pub fn documents_key() -> SetKey {
    SetKey(Sha256::digest(b"syncline documents").into())
}

/// What of a document makes its element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentState {
    /// Heads of the durable changes, sorted.
    pub heads: Vec<ChangeHash>,
    /// When it was last written to.
    pub authored: Authored,
    /// Who said last, durably, whether it is deleted.
    pub life: Option<Life>,
    /// It stays on this machine: it has no element.
    pub local_only: bool,
}

impl DocumentState {
    /// The element of a document in this state; `None` if it is in no set.
    #[must_use]
    pub fn element(&self, key: &SetKey, id: &DocumentId) -> Option<Element> {
        if self.local_only || self.heads.is_empty() && self.life.is_none() {
            return None;
        }
        let life = self.life.as_ref();
        Some(match life.filter(|life| life.deleted) {
            // What it held is not compared: nobody is sent anything of it.
            Some(deleted) => Element::of(key, whole_seconds(deleted.stamp), id, (&[], life)),
            None => Element::of(key, Stamp::from_u64(self.authored.seconds().into()), id, (&self.heads, life)),
        })
    }
}

impl From<&Standing> for DocumentState {
    fn from(standing: &Standing) -> Self {
        let summary = standing.summary.as_ref();
        Self {
            heads: summary.map(|summary| summary.heads.clone()).unwrap_or_default(),
            authored: summary.map(|summary| summary.authored).unwrap_or_default(),
            life: standing.life,
            local_only: standing.local_only,
        }
    }
}

fn whole_seconds(stamp: Stamp) -> Stamp {
    Stamp::from_u64((stamp.millis() / 1_000).min(u32::MAX.into()))
}

/// What a peer may find out by a round that it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Nothing: it greets each document. So it is where what it may read is not all that is here.
    Nothing,
    /// Which of its own documents are here in the state that it has.
    Own,
    /// That, and the names of those that it has not.
    Names,
}

/// What a collection takes in.
#[derive(Debug)]
pub enum Input {
    /// There is a set with this key from here on.
    AddSet {
        /// Its key.
        key: SetKey,
    },
    /// What [`Output::Read`] asked for.
    Read {
        /// The set.
        set: SetName,
        /// Its documents, as they were at some moment since that was asked.
        members: Box<Members>,
    },
    /// What [`Output::Read`] asked for cannot be read; it is asked for again.
    NotRead {
        /// The set.
        set: SetName,
    },
    /// A document is durably in another state.
    Changed {
        /// The document.
        document: DocumentId,
        /// As it is.
        state: DocumentState,
    },
    /// A peer that speaks of collections has joined.
    Connected {
        /// The connection.
        session: SessionId,
        /// Who dialled: one that we dialled may find out nothing unless it is allowed.
        role: Role,
    },
    /// The connection is gone.
    Disconnected {
        /// The connection.
        session: SessionId,
    },
    /// What a peer may find out is decided.
    Allow {
        /// The connection.
        session: SessionId,
        /// In this set.
        set: SetName,
        /// So much.
        scope: Scope,
    },
    /// Begin a round, now or when one that is under way with the peer is over. [`Event::Compared`] follows.
    Compare {
        /// With this peer.
        session: SessionId,
        /// In this set.
        set: SetName,
        /// Whether the names of documents that are not here are wanted too.
        names: bool,
    },
    /// A peer sent a message.
    Received {
        /// The connection.
        session: SessionId,
        /// The message.
        message: CollectionMessage,
        /// Dropped once it is handled.
        receipt: Receipt,
    },
    /// The time that [`Collection::poll_timeout`] named has come.
    Timeout,
}

/// What a collection wants done.
#[derive(Debug)]
pub enum Output {
    /// Read all documents from the store; answer with [`Input::Read`] or [`Input::NotRead`].
    Read {
        /// The set.
        set: SetName,
        /// Its key.
        key: SetKey,
        /// For [`Gathering::new`].
        hash_key: u64,
    },
    /// Put a message on a connection's queue.
    Send {
        /// The connection.
        session: SessionId,
        /// The message.
        message: CollectionMessage,
    },
    /// Tell the application.
    Notify(Event),
    /// Count and log something that was not taken.
    Refused {
        /// Whose it was.
        session: SessionId,
        /// A short name for counters.
        kind: &'static str,
        /// What and why.
        words: String,
    },
}

/// News for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A round that this replica began is over.
    Compared {
        /// With whom.
        session: SessionId,
        /// What it found and what it cost.
        report: Box<Report>,
    },
}

/// The sets of a replica and the rounds under way.
pub struct Collection {
    limits: Limits,
    hash_key: u64,
    sets: Vec<Set>,
    peers: BTreeMap<SessionId, Peer>,
    /// When a round is given up if nothing comes, and when a set is read again.
    deadlines: BTreeSet<(Duration, Due)>,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Asking(SessionId),
    Answering(SessionId),
    Reading(SetName),
}

struct Set {
    key: SetKey,
    name: SetName,
    stage: Stage,
}

enum Stage {
    /// What changes meanwhile is later than what is read.
    Reading(BTreeMap<DocumentId, DocumentState>),
    Ready(Box<Members>),
}

/// A connection.
struct Peer {
    /// What it may find out in sets of which nothing was said.
    scope: Scope,
    scopes: BTreeMap<SetName, Scope>,
    /// Rounds that are to begin, and whether names are wanted in them.
    waiting: BTreeMap<SetName, bool>,
    asking: Option<Box<Asking>>,
    answering: Option<Box<Answering>>,
    /// Rounds that we have begun.
    rounds: u32,
    begins: Bucket,
    /// Elements whose documents it was asked to name.
    asked: BTreeMap<[u8; DIGEST_PREFIX_BYTES], Asked>,
}

impl Collection {
    /// A collection without sets. `hash_key` is a secret of this process.
    #[must_use]
    pub fn new(limits: Limits, hash_key: u64) -> Self {
        Self {
            limits,
            hash_key,
            sets: Vec::new(),
            peers: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input in. Outputs follow from [`Collection::poll_output`].
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::AddSet { key } => self.add_set(key),
            Input::Read { set, members } => self.read(now, set, members),
            Input::NotRead { set } => self.not_read(now, set),
            Input::Changed { document, state } => self.changed(&document, &state),
            Input::Connected { session, role } => self.connect(session, role),
            Input::Disconnected { session } => self.disconnect(now, session),
            Input::Allow { session, set, scope } => {
                if let Some(peer) = self.peers.get_mut(&session) {
                    peer.scopes.insert(set, scope);
                }
            }
            Input::Compare { session, set, names } => self.compare(now, session, set, names),
            Input::Received { session, message, receipt: _receipt } => self.receive(now, session, message),
            Input::Timeout => self.time_out(now),
        }
    }

    /// The next thing to be done, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due: since the start that [`Now::mono`] counts from.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The documents of a set, once they are read.
    #[must_use]
    pub fn members(&self, set: SetName) -> Option<&Members> {
        match &self.sets.iter().find(|own| own.name == set)?.stage {
            Stage::Ready(members) => Some(members),
            Stage::Reading(_) => None,
        }
    }

    fn add_set(&mut self, key: SetKey) {
        let name = SetName::of(&key);
        if self.sets.iter().any(|set| set.name == name) {
            return;
        }
        self.sets.push(Set { key: key.clone(), name, stage: Stage::Reading(BTreeMap::new()) });
        self.outputs.push_back(Output::Read { set: name, key, hash_key: self.hash_key });
    }

    fn read(&mut self, now: Now, name: SetName, mut members: Box<Members>) {
        let Some(set) = self.sets.iter_mut().find(|set| set.name == name) else { return };
        let Stage::Reading(changed) = &set.stage else { return };
        changed.iter().for_each(|(document, state)| members.set(document, state));
        set.stage = Stage::Ready(members);
        let waiting: Vec<SessionId> = self.peers.keys().copied().collect();
        waiting.into_iter().for_each(|session| self.begin_next(now, session));
    }

    /// Nobody waits for a set that may never be read: documents are greeted instead.
    fn not_read(&mut self, now: Now, set: SetName) {
        self.deadlines.insert((now.mono + READ_RETRY, Due::Reading(set)));
        let waiting = self.peers.iter_mut().filter_map(|(session, peer)| peer.waiting.remove(&set).map(|_| *session));
        let waiting: Vec<SessionId> = waiting.collect();
        for session in waiting {
            let words = "the documents that are here cannot be read".to_owned();
            let outcome = Outcome::Ended { by_peer: false, reason: EndReason::NotReady, words };
            self.tell(session, Report::of_none(set, outcome));
        }
    }

    fn changed(&mut self, document: &DocumentId, state: &DocumentState) {
        for set in &mut self.sets {
            match &mut set.stage {
                Stage::Reading(changed) => drop(changed.insert(document.clone(), state.clone())),
                Stage::Ready(members) => members.set(document, state),
            }
        }
    }

    fn connect(&mut self, session: SessionId, role: Role) {
        let per_minute = self.limits.rounds_per_minute_max;
        let scope = match role {
            Role::Downstream => Scope::Own,
            Role::Upstream | Role::Neighbour => Scope::Nothing,
        };
        let peer = Peer {
            scope,
            scopes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asking: None,
            answering: None,
            rounds: 0,
            begins: Bucket::new(f64::from(per_minute) / 60.0, f64::from(per_minute)),
            asked: BTreeMap::new(),
        };
        self.peers.insert(session, peer);
    }

    fn disconnect(&mut self, now: Now, session: SessionId) {
        if let Some(asking) = self.take_asking(session) {
            self.report(now, session, *asking, Outcome::Gone);
        }
        drop(self.take_answering(session));
        let waiting = self.peers.remove(&session).map(|peer| peer.waiting).unwrap_or_default();
        for set in waiting.into_keys() {
            self.tell(session, Report::of_none(set, Outcome::Gone));
        }
    }

    fn receive(&mut self, now: Now, session: SessionId, message: CollectionMessage) {
        if !self.peers.contains_key(&session) {
            return;
        }
        match message {
            CollectionMessage::Compare { .. } => self.asked_to_compare(now, session, message),
            CollectionMessage::Question { round, message } => self.questioned(now, session, round, &message),
            CollectionMessage::Missing { round, elements } => self.asked_for_names(now, session, round, &elements),
            CollectionMessage::Answer { round, message } => self.answered(now, session, round, &message),
            CollectionMessage::Named { round, documents } => self.named(now, session, round, documents),
            CollectionMessage::Ended { round, own: true, .. } => self.initiator_ended(session, round),
            CollectionMessage::Ended { round, own: false, reason, words } => {
                self.responder_ended(now, session, round, reason, words);
            }
        }
    }

    fn time_out(&mut self, now: Now) {
        while let Some((at, due)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.deadlines.remove(&(at, due));
            match due {
                Due::Asking(session) => self.give_up(now, session, EndReason::Limit, "no answer came in time"),
                Due::Answering(session) => self.end_answering(session, EndReason::Limit, "nothing came in time"),
                Due::Reading(name) => {
                    if let Some(set) = self.sets.iter().find(|set| set.name == name) {
                        let (set, key) = (set.name, set.key.clone());
                        self.outputs.push_back(Output::Read { set, key, hash_key: self.hash_key });
                    }
                }
            }
        }
    }

    fn send(&mut self, session: SessionId, message: CollectionMessage) {
        self.outputs.push_back(Output::Send { session, message });
    }

    fn tell(&mut self, session: SessionId, report: Report) {
        self.outputs.push_back(Output::Notify(Event::Compared { session, report: Box::new(report) }));
    }

    fn refuse(&mut self, session: SessionId, reason: EndReason, words: &str) {
        if matches!(reason, EndReason::Broken | EndReason::Limit) {
            self.outputs.push_back(Output::Refused { session, kind: reason.kind(), words: words.to_owned() });
        }
    }
}

impl Peer {
    fn scope_in(&self, set: SetName) -> Scope {
        let default = if set == SetName::of_documents() { self.scope } else { Scope::Nothing };
        self.scopes.get(&set).copied().unwrap_or(default)
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets: Vec<_> =
            self.sets.iter().map(|set| (set.name, self.members(set.name).map(|m| m.elements().len()))).collect();
        let rounds: Vec<_> = self
            .peers
            .iter()
            .map(|(id, peer)| (id, peer.rounds, peer.asking.is_some(), peer.answering.is_some()))
            .collect();
        f.debug_struct("Collection")
            .field("sets", &sets)
            .field("peers", &rounds)
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

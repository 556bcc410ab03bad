//! One document in memory: what is durable of it, who syncs it, what waits.
//!
//! Owns: the document's part of the hub's state. Must not: emit outputs; the hub does.
//! Next: `hub/ingest.rs`, `hub/respond.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Receipt;
use super::input::{Load, SyncMessage};
use super::mesh::{Noticed, WaitingNotice};
use super::retry::Retry;
use super::subject::{Permit, Standings};
use crate::ChangeHash;
use crate::access::Permissions;
use crate::authored::Authored;
use crate::change::Change;
use crate::collection::DocumentState;
use crate::graph::{Graph, Orphans};
use crate::id::{DocumentId, PeerId, SessionId, StorageId};
use crate::life::{Life, LifeUpdate};
use crate::subject::Contribution;
use crate::sync::{Account, PeerSync, Statement, View};

#[derive(Debug)]
pub(super) struct Document {
    pub(super) id: DocumentId,
    pub(super) text: Arc<str>,
    pub(super) presence: Presence,
    /// Who said last, durably, whether it is deleted.
    pub(super) life: Option<Life>,
    /// Durably: no peer may learn that it is here.
    pub(super) local_only: bool,
    /// Heads of the durable changes, sorted.
    pub(super) heads: Vec<ChangeHash>,
    /// Number of durable changes.
    pub(super) durable: u32,
    /// When the durable changes say that it was last written to.
    pub(super) authored: Authored,
    /// Bytes that a fresh peer would be sent, about.
    pub(super) payload_bytes: usize,
    /// Empty, but there, while the document is absent.
    pub(super) graph: Option<Box<Graph>>,
    pub(super) loading: Option<Load>,
    /// The store has purged it since its summary was asked for: what the summary says of changes may be older than that.
    pub(super) purged_meanwhile: bool,
    /// Reads that failed one after the other; the wait before the next grows with each.
    pub(super) reads_failed: u8,
    /// A payload of about so many bytes is asked for or queued; the peers that wait for it are those whose plan says so.
    pub(super) fetching: Option<usize>,
    pub(super) inbox: VecDeque<Item>,
    /// Sorted by session.
    pub(super) peers: Vec<Peer>,
    /// Commits on their way, oldest first.
    pub(super) persisting: VecDeque<Persisting>,
    /// A life record on its way; the inbox waits for it.
    pub(super) deciding: Option<Deciding>,
    /// Whether it stays here is on its way; the inbox waits for it.
    pub(super) withholding: Option<Withholding>,
    /// Another history on its way; the inbox waits for it.
    pub(super) replacing: Option<Replacing>,
    /// Statements that wait for the changes that came with them.
    pub(super) awaiting: VecDeque<Awaiting>,
    pub(super) orphans: Option<Box<Orphans>>,
    /// What is known of those who write it.
    pub(super) standings: Option<Box<Standings>>,
    /// Notices whose changes are on their way to the disk.
    pub(super) noticed: Vec<WaitingNotice>,
    /// Messages already encoded for the present heads: from which node, for V2 or not.
    pub(super) encoded: Vec<(u32, Bytes)>,
    pub(super) watched: bool,
    pub(super) deadline: Option<Duration>,
    pub(super) last_used: Duration,
    /// What eviction knows of the graph's size.
    pub(super) weight: usize,
    pub(super) relayed: Option<Box<Relayed>>,
}

/// Whether the store has the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Not asked yet.
    Unknown,
    /// It has not.
    Absent,
    /// It has.
    Stored,
}

#[derive(Debug)]
pub(super) enum Item {
    Message { session: SessionId, message: Box<SyncMessage>, permit: Permit, receipt: Receipt },
    Local { changes: Vec<Change>, ticket: u64, author: Option<Arc<str>> },
    Watch,
    Noticed(Noticed),
    Initiate { session: SessionId, only_offers: bool },
    SetLife { deleted: bool, ticket: u64 },
    Expire { heads: Vec<ChangeHash>, ticket: u64 },
    SetLocalOnly { local_only: bool, ticket: u64 },
    Replace { heads: Vec<ChangeHash>, changes: Vec<Change>, ticket: u64 },
    Life { session: SessionId, life: Life, may: Permissions, _receipt: Receipt },
    Account { session: SessionId, account: Account, _receipt: Receipt },
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: SessionId,
    pub(super) sync: PeerSync,
    /// It asked for a document that nobody had.
    pub(super) unanswered_request: bool,
    /// The life record that it knows of.
    pub(super) told_life: Option<Life>,
    /// It offered something while the document was deleted.
    pub(super) offered_in_vain: bool,
    /// It offered something that was not taken, and may be later.
    pub(super) barred: Option<Barred>,
    /// The application knows that the peer had everything when there were so many durable changes.
    pub(super) in_step_at: u32,
    /// It did not take something, which is offered again.
    pub(super) retry: Retry,
}

/// Why something that was offered was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barred {
    /// This was lacking, or room for anything.
    Needs(Permissions),
    /// The document or its author had as much as it may.
    Limit,
}

/// Another history on its way to the disk.
#[derive(Debug)]
pub(super) struct Replacing {
    pub(super) ticket: u64,
    /// The application's.
    pub(super) own_ticket: u64,
    pub(super) authored: Authored,
    pub(super) graph: Box<Graph>,
}

/// A decision about whether the document stays here, on its way to the disk.
#[derive(Debug)]
pub(super) struct Withholding {
    pub(super) ticket: u64,
    /// The application's.
    pub(super) own_ticket: u64,
    pub(super) local_only: bool,
}

/// A life record on its way to the disk.
#[derive(Debug)]
pub(super) struct Deciding {
    pub(super) ticket: u64,
    pub(super) origin: Origin,
    pub(super) update: LifeUpdate,
}

/// A commit on its way to the disk.
#[derive(Debug)]
pub(super) struct Persisting {
    pub(super) ticket: u64,
    /// Number of changes once it is durable.
    pub(super) length: u32,
    /// The latest time of its changes.
    pub(super) authored: Authored,
    /// Where the changes came from.
    pub(super) origin: Origin,
    /// Who brought the changes, as far as that is kept.
    pub(super) contributions: Vec<Contribution>,
    /// Local tickets whose changes were already under way, in this commit or an earlier one.
    pub(super) also: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Peer(SessionId),
    /// A notice that this neighbour brought.
    Notice(SessionId),
    Local {
        ticket: u64,
    },
}

#[derive(Debug)]
pub(super) struct Awaiting {
    /// Number of durable changes at which it can be taken in.
    pub(super) length: u32,
    pub(super) session: SessionId,
    pub(super) statement: Statement,
    pub(super) request: bool,
    /// Kept until then.
    pub(super) _receipt: Receipt,
}

/// What passes through without being stored.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    /// Highest count seen of each process of each sender, oldest entry first to go.
    pub(super) counts: BTreeMap<(PeerId, Arc<str>), u64>,
    pub(super) order: VecDeque<(PeerId, Arc<str>)>,
    /// Heads of other stores, the latest of each.
    pub(super) heads: BTreeMap<StorageId, StoreHeads>,
}

/// What another store holds of a document.
#[derive(Debug)]
pub(super) struct StoreHeads {
    pub(super) heads: Vec<ChangeHash>,
    /// When it had them, as it was announced, milliseconds since the Unix epoch.
    pub(super) timestamp_ms: f64,
    /// The connection over which that came.
    pub(super) from: SessionId,
}

impl Item {
    /// The peer that speaks.
    pub(super) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Message { session, .. } | Self::Life { session, .. } | Self::Account { session, .. } => {
                Some(*session)
            }
            Self::Local { .. }
            | Self::Watch
            | Self::Noticed(_)
            | Self::Initiate { .. }
            | Self::SetLife { .. }
            | Self::Expire { .. }
            | Self::SetLocalOnly { .. }
            | Self::Replace { .. } => None,
        }
    }

    /// Whether it means nothing once this peer has left.
    fn only_asks_for(&self, session: SessionId) -> bool {
        match self {
            Self::Message { session: from, message, .. } => *from == session && !message.statement.with_changes,
            Self::Initiate { session: with, .. } | Self::Account { session: with, .. } => *with == session,
            Self::Local { .. }
            | Self::Watch
            | Self::Noticed(_)
            | Self::SetLife { .. }
            | Self::Expire { .. }
            | Self::SetLocalOnly { .. }
            | Self::Life { .. }
            | Self::Replace { .. } => false,
        }
    }
}

impl Peer {
    fn new(session: SessionId, sync: PeerSync) -> Self {
        Self {
            session,
            sync,
            unanswered_request: false,
            told_life: None,
            offered_in_vain: false,
            barred: None,
            in_step_at: 0,
            retry: Retry::default(),
        }
    }

    /// What is said next begins the conversation anew on both sides. It answers whatever the peer has asked.
    pub(super) fn begin_anew(&mut self) {
        self.sync = self.sync.anew();
        self.unanswered_request = false;
    }
}

impl Document {
    pub(super) fn new(id: DocumentId) -> Self {
        let text = Arc::from(id.to_string());
        Self {
            id,
            text,
            presence: Presence::Unknown,
            life: None,
            local_only: false,
            heads: Vec::new(),
            durable: 0,
            authored: Authored::NEVER,
            payload_bytes: 0,
            graph: None,
            loading: None,
            purged_meanwhile: false,
            reads_failed: 0,
            fetching: None,
            inbox: VecDeque::new(),
            peers: Vec::new(),
            persisting: VecDeque::new(),
            deciding: None,
            withholding: None,
            replacing: None,
            awaiting: VecDeque::new(),
            orphans: None,
            standings: None,
            noticed: Vec::new(),
            encoded: Vec::new(),
            watched: false,
            deadline: None,
            last_used: Duration::ZERO,
            weight: 0,
            relayed: None,
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View { heads: &self.heads, durable: self.durable, graph: self.graph.as_deref() }
    }

    /// As it is compared with peers.
    pub(super) fn state(&self) -> DocumentState {
        let (heads, authored) = (self.heads.clone(), self.authored);
        DocumentState { heads, authored, life: self.life, local_only: self.local_only }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.life.is_some_and(|life| life.deleted)
    }

    /// Whether nothing of it may be shown to a peer, or taken from one.
    pub(super) fn is_withheld(&self) -> bool {
        self.is_deleted() || self.local_only
    }

    /// Whether something is on its way to the disk that decides what may be said of it.
    pub(super) fn is_undecided(&self) -> bool {
        self.deciding.is_some() || self.withholding.is_some() || self.replacing.is_some()
    }

    /// Whether the graph must be loaded before this item can be handled.
    pub(super) fn needs_graph_for(&self, item: &Item) -> bool {
        if self.graph.is_some() || self.presence != Presence::Stored {
            return false;
        }
        match item {
            Item::Message { message, .. } => {
                !self.local_only
                    && (!self.is_deleted() && !message.changes.is_empty()
                        || !PeerSync::is_light(&message.statement, self.view()))
            }
            Item::Local { .. } => true,
            Item::Noticed(noticed) => !self.knows_without_graph(noticed),
            Item::Account { .. } => !self.is_withheld(),
            Item::Watch
            | Item::Initiate { .. }
            | Item::SetLife { .. }
            | Item::Expire { .. }
            | Item::SetLocalOnly { .. }
            | Item::Life { .. }
            | Item::Replace { .. } => false,
        }
    }

    pub(super) fn peer(&mut self, session: SessionId) -> Option<&mut Peer> {
        let at = self.peers.binary_search_by_key(&session, |peer| peer.session).ok()?;
        self.peers.get_mut(at)
    }

    /// The peer's state, begun if it is new here.
    pub(super) fn peer_or_new(&mut self, session: SessionId) -> &mut Peer {
        let at = match self.peers.binary_search_by_key(&session, |peer| peer.session) {
            Ok(at) => at,
            Err(at) => {
                self.peers.insert(at, Peer::new(session, PeerSync::default()));
                at
            }
        };
        &mut self.peers[at]
    }

    /// Begins to speak with a peer, unless the conversation runs already. A peer that did not have the document is
    /// asked once more: it may have it by now, unless it waits for our answer to the same question; and one from which
    /// nothing was wanted, if something is.
    pub(super) fn initiate(&mut self, session: SessionId, only_offers: bool) {
        let absent = self.presence == Presence::Absent && self.persisting.is_empty();
        let begun = || if only_offers { PeerSync::offer() } else { PeerSync::initiate() };
        match self.peers.binary_search_by_key(&session, |peer| peer.session) {
            Err(at) => self.peers.insert(at, Peer::new(session, begun())),
            Ok(at) if !only_offers && self.peers[at].sync.offers_only() => self.peers[at].sync = begun(),
            Ok(at) => {
                let peer = &mut self.peers[at];
                if absent && peer.sync.said_it_has_nothing() && !peer.unanswered_request {
                    peer.sync = PeerSync::initiate();
                }
            }
        }
    }

    pub(super) fn remove_peer(&mut self, session: SessionId) {
        self.peers.retain(|peer| peer.session != session);
        self.awaiting.retain(|awaiting| awaiting.session != session);
        self.inbox.retain(|item| !item.only_asks_for(session));
        if let Some(orphans) = &mut self.orphans {
            orphans.forget_session(session);
            if orphans.is_empty() {
                self.orphans = None;
            }
        }
    }

    /// Whether nothing is under way that the graph's absence would disturb.
    pub(super) fn is_quiet(&self) -> bool {
        self.inbox.is_empty()
            && self.persisting.is_empty()
            && !self.is_undecided()
            && self.awaiting.is_empty()
            && self.loading.is_none()
            && self.fetching.is_none()
            && self.orphans.is_none()
            // With nobody here there is nobody to be sent something then.
            && (self.deadline.is_none() || self.peers.is_empty())
    }
}

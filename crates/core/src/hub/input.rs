//! What goes into a hub and what comes out.
//!
//! Owns: the types of the hub's edge. Must not: hold logic beyond naming things.
//! Next: `hub.rs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{MeshEvent, OpenedDocuments, Receipt, Remark};
use crate::ChangeHash;
use crate::access::{Access, Permissions};
use crate::change::{Actor, Change};
use crate::collection::DocumentState;
use crate::graph::Graph;
use crate::id::{DocumentId, PeerId, SessionId, StorageId};
use crate::life::{Life, LifeUpdate};
use crate::limits::Limits;
use crate::native::{NativeMessage, RefusalReason};
use crate::storage::{Commit, Payload, Standing};
use crate::subject::{Account, Owner};
use crate::sync::Statement;
use crate::wire::RemoteHeads;

/// The time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary start; never steps back.
    pub mono: Duration,
    /// Milliseconds since the Unix epoch, as the machine's clock has it.
    pub wall_ms: u64,
}

/// Who speaks first about a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The peer does: it dialled us.
    Downstream,
    /// We do, about every document that is opened or changed here: we dialled it.
    Upstream,
    /// Either does, about a document that may differ: both are members of a mesh.
    Neighbour,
}

/// A peer after its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its name for this process or tab.
    pub peer: PeerId,
    /// The lasting name of its store, if it has one and keeps it.
    pub storage: Option<StorageId>,
    /// Who speaks first.
    pub role: Role,
    /// The version of the native extension that both speak; 0 for a peer that does not know it.
    pub native: u16,
    /// What it may do.
    pub access: Access,
}

/// A sync message whose changes have each been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncMessage {
    /// The document.
    pub document: DocumentId,
    /// The peer has nothing of it and wants to be told if nobody else has.
    pub request: bool,
    /// What the message says.
    pub statement: Statement,
    /// What it brings.
    pub changes: Vec<Change>,
    /// Hashes of changes in it that were refused, where the bytes were good enough to have one.
    pub refused: Vec<ChangeHash>,
}

impl SyncMessage {
    /// A message that was not read, because its sender may not even know whether there is such a document.
    #[must_use]
    pub fn unread(document: DocumentId, request: bool) -> Self {
        let (heads, need, have) = (Vec::new(), Vec::new(), Vec::new());
        let statement = Statement { heads, need, have, flags: None, with_changes: false };
        Self { document, request, statement, changes: Vec::new(), refused: Vec::new() }
    }
}

/// A message from a peer that has joined.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerMessage {
    /// Sync of one document.
    Sync(Box<SyncMessage>),
    /// The peer does not have a document that it was asked for.
    DocUnavailable {
        /// The document.
        document: DocumentId,
    },
    /// To be relayed to everyone at this document, not stored.
    Ephemeral {
        /// The document.
        document: DocumentId,
        /// The peer that made it, not always the one that relays it.
        sender: PeerId,
        /// Counts up within `session`.
        count: u64,
        /// The sender's process.
        session: Arc<str>,
        /// CBOR of the application's value; not looked into.
        data: Bytes,
    },
    /// Which stores' heads the peer wants to hear of.
    RemoteSubscription {
        /// From here on.
        add: Vec<StorageId>,
        /// No longer.
        remove: Vec<StorageId>,
    },
    /// What other stores hold of a document, as the peer has heard.
    RemoteHeads {
        /// The document.
        document: DocumentId,
        /// By store.
        heads: Vec<RemoteHeads>,
    },
    /// Of the native extension, from a peer that announced it.
    Native(NativeMessage),
}

/// What a hub takes in.
#[derive(Debug)]
pub enum Input {
    /// A peer has finished its handshake.
    Connected {
        /// The connection.
        session: SessionId,
        /// Who it is.
        peer: PeerInfo,
        /// What it has opened in any hub: a clone of one value goes to all hubs that serve the connection.
        opened: OpenedDocuments,
    },
    /// A peer sent a message.
    Received {
        /// The connection.
        session: SessionId,
        /// The message.
        message: PeerMessage,
        /// Dropped once the message is handled.
        receipt: Receipt,
    },
    /// A peer may do something else than before.
    AccessChanged {
        /// The connection.
        session: SessionId,
        /// What it may do from here on.
        access: Access,
    },
    /// What [`Output::Decide`] asked for, or a decision that replaces it.
    Decided {
        /// The connection.
        session: SessionId,
        /// The document.
        document: DocumentId,
        /// What its peer may do with the document.
        may: Permissions,
    },
    /// Decisions about what a peer may do are old: they are asked for again.
    Reconsider {
        /// The connection.
        session: SessionId,
    },
    /// Whether there is room for what peers bring: without it nothing of that is taken, and everything can be read.
    Room {
        /// Whether there is.
        has_room: bool,
    },
    /// The application changed a document.
    Local {
        /// The document.
        document: DocumentId,
        /// Its new changes, dependencies first.
        changes: Vec<Change>,
        /// Comes back in [`Event::Saved`] or [`Event::NotSaved`].
        ticket: u64,
    },
    /// The same for somebody who is not a peer: what is kept of those who write is kept of it.
    OnBehalf {
        /// Who.
        subject: Arc<str>,
        /// The document.
        document: DocumentId,
        /// Its new changes, dependencies first.
        changes: Vec<Change>,
        /// Comes back as that of [`Input::Local`] does.
        ticket: u64,
    },
    /// The bounds are others from here on.
    Limits(Box<Limits>),
    /// The application wants to hear of a document, and upstream peers are asked about it.
    Watch {
        /// The document.
        document: DocumentId,
    },
    /// The application has heard enough.
    Unwatch {
        /// The document.
        document: DocumentId,
    },
    /// Speak first about a document.
    Initiate {
        /// To this peer.
        session: SessionId,
        /// About this document.
        document: DocumentId,
    },
    /// Speak first about a document, so that the peer gets what it lacks of it: what it has beyond is not wanted.
    Offer {
        /// To this peer.
        session: SessionId,
        /// About this document.
        document: DocumentId,
    },
    /// The application says something that is not stored to everyone at a document.
    Broadcast {
        /// The document.
        document: DocumentId,
        /// This replica's name.
        sender: PeerId,
        /// Counts up within `session`, over all documents.
        count: u64,
        /// This replica's process.
        session: Arc<str>,
        /// CBOR of the application's value.
        data: Bytes,
    },
    /// A notice of the mesh says that a document has these heads somewhere. How it stands comes in
    /// [`Output::Mesh`](super::Output::Mesh).
    Noticed {
        /// Who brought it.
        session: SessionId,
        /// The document.
        document: DocumentId,
        /// Changes that came in it, dependencies first.
        changes: Vec<Change>,
        /// Heads after them.
        heads: Vec<ChangeHash>,
        /// Comes back.
        ticket: u64,
    },
    /// A commit is durable. Commits of one document come back in the order in which they went out.
    Persisted {
        /// The document.
        document: DocumentId,
        /// From [`Output::Persist`].
        ticket: u64,
    },
    /// A commit did not happen; nothing of it is stored.
    PersistFailed {
        /// The document.
        document: DocumentId,
        /// From [`Output::Persist`].
        ticket: u64,
        /// Why.
        failure: StoreFailure,
    },
    /// What [`Output::Load`] asked for.
    Loaded {
        /// The document.
        document: DocumentId,
        /// What came.
        loaded: Loaded,
    },
    /// What [`Output::Load`] asked for cannot be read.
    LoadFailed {
        /// The document.
        document: DocumentId,
        /// What was asked for.
        what: Load,
        /// Why.
        failure: StoreFailure,
    },
    /// The store's snapshot covers more: raw bytes held here can go.
    Compacted {
        /// The document.
        document: DocumentId,
        /// The first so many changes are in the snapshot.
        changes: u32,
    },
    /// The application deletes or restores a document.
    SetLife {
        /// The document.
        document: DocumentId,
        /// Deleted, or restored.
        deleted: bool,
        /// Comes back in [`Event::LifeChanged`] or [`Event::LifeFailed`].
        ticket: u64,
    },
    /// A document has not been touched for long: it is deleted, unless it has changed or somebody is at it.
    Expire {
        /// The document.
        document: DocumentId,
        /// The durable heads that were looked at.
        heads: Vec<ChangeHash>,
        /// Comes back in [`Event::LifeChanged`] or, if it is kept, in [`Event::LifeFailed`].
        ticket: u64,
    },
    /// The application keeps a document on this machine, or lets it go to peers.
    SetLocalOnly {
        /// The document, which need not be here yet.
        document: DocumentId,
        /// From here on nothing of it is sent, and nothing of it is taken.
        local_only: bool,
        /// Comes back in [`Event::Saved`] or [`Event::NotSaved`].
        ticket: u64,
    },
    /// It is durable whether a document stays on this machine.
    LocalOnlySet {
        /// The document.
        document: DocumentId,
        /// From [`Output::SetLocalOnly`].
        ticket: u64,
    },
    /// It is as it was whether the document stays on this machine.
    LocalOnlyNotSet {
        /// The document.
        document: DocumentId,
        /// From [`Output::SetLocalOnly`].
        ticket: u64,
        /// Why.
        failure: StoreFailure,
    },
    /// The application puts other changes in the place of a document's history: what no peer takes is written anew.
    Replace {
        /// The document.
        document: DocumentId,
        /// The durable heads that this was worked out from; it is not done if they have moved.
        heads: Vec<ChangeHash>,
        /// The whole new history, dependencies first.
        changes: Vec<Change>,
        /// Comes back in [`Event::Saved`] or [`Event::NotSaved`].
        ticket: u64,
    },
    /// The new history is durable.
    Replaced {
        /// The document.
        document: DocumentId,
        /// From [`Output::Replace`].
        ticket: u64,
    },
    /// The document has its old history.
    NotReplaced {
        /// The document.
        document: DocumentId,
        /// From [`Output::Replace`].
        ticket: u64,
        /// Why.
        failure: StoreFailure,
    },
    /// The record that stands is durable. For one document they come back in the order in which they went out.
    LifeSet {
        /// The document.
        document: DocumentId,
        /// From [`Output::SetLife`].
        ticket: u64,
        /// The greater of what was there and what was to be.
        life: Life,
    },
    /// A record was not written.
    LifeNotSet {
        /// The document.
        document: DocumentId,
        /// From [`Output::SetLife`].
        ticket: u64,
        /// Why.
        failure: StoreFailure,
    },
    /// The grace period of a deleted document is over: the store has none of its changes any more.
    Purged {
        /// The document.
        document: DocumentId,
    },
    /// The connection's queue, for which [`Output::AwaitDrain`] asked, is empty.
    Drained {
        /// The connection.
        session: SessionId,
    },
    /// The connection is gone.
    Disconnected {
        /// The connection.
        session: SessionId,
    },
    /// The time that [`Hub::poll_timeout`](super::Hub::poll_timeout) named has come.
    Timeout,
}

/// Why the store did not do as it was asked, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFailure {
    /// The error and what to do about it.
    pub message: String,
}

/// What a hub asks the store for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Load {
    /// Heads and counts, whether it is deleted, and whether it stays on this machine.
    Summary,
    /// The change graph.
    Graph,
    /// All bytes, for a fresh peer.
    Payload,
    /// Whose actors are, and what a subject has stored.
    Owners {
        /// The actors.
        actors: Vec<Actor>,
        /// The subject, if that is to be known.
        subject: Option<Arc<str>>,
    },
    /// Single changes that lie under the snapshot, for a peer that cannot take a snapshot.
    Changes {
        /// Who wants them.
        session: SessionId,
        /// Which.
        hashes: Vec<ChangeHash>,
    },
}

/// What the store answered; `None` where the document does not exist.
#[derive(Debug)]
pub enum Loaded {
    /// For [`Load::Summary`].
    Summary(Standing),
    /// For [`Load::Graph`].
    Graph(Option<Box<Graph>>),
    /// For [`Load::Payload`].
    Payload(Option<Payload>),
    /// For [`Load::Owners`].
    Owners {
        /// Of each actor.
        owners: Vec<(Actor, Owner)>,
        /// What the subject has.
        account: Option<(Arc<str>, Account)>,
    },
    /// For [`Load::Changes`], in the order of the hashes.
    Changes {
        /// Who wants them.
        session: SessionId,
        /// Hash and raw chunk of each.
        changes: Vec<(ChangeHash, Bytes)>,
    },
}

/// What a hub wants done.
#[derive(Debug)]
pub enum Output {
    /// Make changes durable, then answer with [`Input::Persisted`] or [`Input::PersistFailed`].
    Persist {
        /// Names the commit.
        ticket: u64,
        /// What to commit.
        commit: Commit,
    },
    /// Put these changes in the place of the document's history, then answer with [`Input::Replaced`] or
    /// [`Input::NotReplaced`].
    Replace {
        /// Names the call.
        ticket: u64,
        /// The new history.
        commit: Commit,
    },
    /// Make a life record durable, then answer with [`Input::LifeSet`] or [`Input::LifeNotSet`].
    SetLife {
        /// Names the call.
        ticket: u64,
        /// The document.
        document: DocumentId,
        /// What is to become of its record.
        update: LifeUpdate,
    },
    /// Make it durable whether a document stays on this machine, then answer with [`Input::LocalOnlySet`] or
    /// [`Input::LocalOnlyNotSet`].
    SetLocalOnly {
        /// Names the call.
        ticket: u64,
        /// The document.
        document: DocumentId,
        /// Whether it does.
        local_only: bool,
    },
    /// Read from the store, then answer with [`Input::Loaded`] or [`Input::LoadFailed`].
    Load {
        /// The document.
        document: DocumentId,
        /// What to read.
        what: Load,
    },
    /// Ask whoever decides what a peer may do with a document, then answer with [`Input::Decided`].
    Decide {
        /// The connection.
        session: SessionId,
        /// What it may do in general, and who it is.
        access: Access,
        /// The document.
        document: DocumentId,
    },
    /// Put a message on a connection's queue.
    Send {
        /// The connection.
        session: SessionId,
        /// The message.
        message: Outgoing,
    },
    /// The connection's queue is as long as it may be: answer with [`Input::Drained`] once it is empty.
    AwaitDrain {
        /// The connection.
        session: SessionId,
    },
    /// A document is durably in this state: for the sets that are compared with peers.
    State {
        /// The document.
        document: DocumentId,
        /// As it is.
        state: DocumentState,
    },
    /// Tell the application.
    Notify(Event),
    /// Tell the mesh.
    Mesh(MeshEvent),
    /// Count and log something that was not taken.
    Refused {
        /// Whose it was, if a peer's.
        session: Option<SessionId>,
        /// The document, if one.
        document: Option<DocumentId>,
        /// What and why.
        remark: Remark,
    },
    /// Close a connection after what is queued for it.
    Close {
        /// The connection.
        session: SessionId,
        /// Why, in words for a person.
        reason: String,
    },
}

/// A message to a peer, before it is put into a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// A sync message; the payload is shared among peers.
    Sync {
        /// The document's text form.
        document: Arc<str>,
        /// automerge's sync message.
        data: Bytes,
    },
    /// A sync message that asks: we have nothing of the document.
    Request {
        /// The document.
        document: DocumentId,
        /// automerge's sync message.
        data: Bytes,
    },
    /// Nobody here has the document.
    DocUnavailable {
        /// The document.
        document: DocumentId,
    },
    /// Somebody's ephemeral message.
    Ephemeral {
        /// The document.
        document: DocumentId,
        /// The peer that made it.
        sender: PeerId,
        /// As it came.
        count: u64,
        /// As it came.
        session: Arc<str>,
        /// As it came.
        data: Bytes,
    },
    /// What another store holds of a document.
    RemoteHeads {
        /// The document.
        document: DocumentId,
        /// By store.
        heads: Vec<RemoteHeads>,
    },
    /// Of the native extension, to a peer that announced it.
    Native(NativeMessage),
    /// Something of this peer was not taken.
    Error {
        /// What and why.
        message: String,
    },
}

impl Outgoing {
    /// Bytes that the message takes in a queue, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FRAME_BYTES: usize = 128;
        let payload = match self {
            Self::Sync { data, .. } | Self::Request { data, .. } | Self::Ephemeral { data, .. } => data.len(),
            Self::DocUnavailable { .. } => 0,
            Self::Native(message) => message.weight(),
            Self::RemoteHeads { heads, .. } => heads.iter().map(|entry| 64 + entry.heads.len() * 48).sum(),
            Self::Error { message } => message.len(),
        };
        FRAME_BYTES + payload
    }
}

/// News for the application, about documents that it watches or has changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A local change is durable here.
    Saved {
        /// The document.
        document: DocumentId,
        /// From [`Input::Local`].
        ticket: u64,
    },
    /// A local change is not stored.
    NotSaved {
        /// The document.
        document: DocumentId,
        /// From [`Input::Local`].
        ticket: u64,
        /// Why.
        message: String,
        /// The short name of the rule that it breaks; `None` if it was the store that could not.
        rule: Option<&'static str>,
    },
    /// Changes have become durable.
    Changed {
        /// The document.
        document: DocumentId,
        /// Raw chunks, dependencies first.
        changes: Vec<Bytes>,
        /// Heads after them.
        heads: Vec<ChangeHash>,
        /// The peer that brought them; `None` for local ones.
        origin: Option<SessionId>,
    },
    /// A peer said what it has.
    PeerState {
        /// The document.
        document: DocumentId,
        /// The connection.
        session: SessionId,
        /// The peer's heads.
        heads: Vec<ChangeHash>,
        /// Whether they include everything that is durable here.
        has_all: bool,
    },
    /// A server has announced everything that is durable here of a document, whether it is watched or not.
    InStep {
        /// The document.
        document: DocumentId,
        /// The connection.
        session: SessionId,
        /// The durable heads here, sorted.
        heads: Vec<ChangeHash>,
    },
    /// A document was deleted or restored, here or elsewhere, or turned out to have been.
    LifeChanged {
        /// The document.
        document: DocumentId,
        /// The record that stands.
        life: Life,
        /// From [`Input::SetLife`], if it came from there.
        ticket: Option<u64>,
    },
    /// A document could not be deleted or restored.
    LifeFailed {
        /// The document.
        document: DocumentId,
        /// From [`Input::SetLife`].
        ticket: u64,
        /// Why.
        message: String,
    },
    /// A peer did not take a change of ours.
    Refused {
        /// The document.
        document: DocumentId,
        /// The connection.
        session: SessionId,
        /// The change.
        hash: ChangeHash,
        /// Why.
        reason: RefusalReason,
        /// Why, in words for a person.
        words: String,
    },
    /// A peer does not have the document.
    Unavailable {
        /// The document.
        document: DocumentId,
        /// The connection.
        session: SessionId,
    },
    /// Somebody's ephemeral message.
    Ephemeral {
        /// The document.
        document: DocumentId,
        /// The peer that made it.
        sender: PeerId,
        /// CBOR of the application's value.
        data: Bytes,
    },
}

/// Why [`Input::Timeout`] is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A peer that has not acknowledged may be sent more.
    Send,
    /// Idle documents may go.
    Evict,
}

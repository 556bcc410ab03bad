//! Blobs under way between this replica and its peers.
//!
//! Owns: which blobs are coming and from whom, which are wanted by whom, what is offered to servers, all bounds on that.
//! Must not: hold content (a piece passes through), read a clock, touch a socket or the store.
//! Next: `exchange/receive.rs`, `exchange/send.rs`; docs/blobs.md, "On the way".
//!
//! As with a hub: inputs in, outputs out in order, one deadline. There is one exchange for a replica, for a blob belongs
//! to no document.

mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{BlobHash, BlobMessage, BlobRefusal, BlobStanding};
use crate::hub::{Now, Receipt, StoreFailure};
use crate::id::SessionId;
use crate::limits::Limits;

use receive::Incoming;
use send::Peer;

/// Pieces that nobody asked for after which a connection is closed.
const UNASKED_MAX: u32 = 16;

/// What the exchange takes in.
#[derive(Debug)]
pub enum Input {
    /// A peer that speaks of blobs has joined.
    Connected {
        /// The connection.
        session: SessionId,
        /// We dialled it: it is a server, which is offered what it may not have and asked for what is not here.
        upstream: bool,
    },
    /// The connection is gone.
    Disconnected {
        /// The connection.
        session: SessionId,
    },
    /// A peer sent a message.
    Received {
        /// The connection.
        session: SessionId,
        /// The message.
        message: BlobMessage,
        /// Dropped once the message is handled and what it brings is stored.
        receipt: Receipt,
    },
    /// The connection's queue, for which [`Output::AwaitRoom`] asked, is empty.
    Room {
        /// The connection.
        session: SessionId,
    },
    /// The application wants a blob.
    Fetch {
        /// The blob.
        hash: BlobHash,
        /// Its size, as the document says.
        size: u64,
    },
    /// The application does not want it any more.
    Cancel {
        /// The blob.
        hash: BlobHash,
    },
    /// A whole blob is here that servers are to have.
    Push {
        /// The blob.
        hash: BlobHash,
        /// Its size.
        size: u64,
    },
    /// It is not here any more.
    Withdraw {
        /// The blob.
        hash: BlobHash,
    },
    /// What [`Output::Look`] asked for.
    Found {
        /// The blob.
        hash: BlobHash,
        /// How it stands; `None` if nothing of it is here.
        standing: Result<Option<BlobStanding>, StoreFailure>,
    },
    /// What [`Output::Read`] asked for.
    Read {
        /// For whom.
        session: SessionId,
        /// The blob.
        hash: BlobHash,
        /// Where the piece begins.
        offset: u64,
        /// The blob's size and the piece; `None` if the blob is not whole, or has no such piece.
        piece: Result<Option<(u64, Bytes)>, StoreFailure>,
    },
    /// What [`Output::Write`] asked for is done. They come back in the order in which they went out.
    Written {
        /// The blob.
        hash: BlobHash,
        /// How it stands.
        result: Result<BlobStanding, WriteFailure>,
    },
    /// What [`Output::Verify`] asked for. With `Ok(true)` the store shows the blob; with `Ok(false)` it has nothing of it.
    Verified {
        /// The blob.
        hash: BlobHash,
        /// Whether the stored bytes have the hash.
        result: Result<bool, StoreFailure>,
    },
    /// The time that [`Exchange::poll_timeout`] named has come.
    Timeout,
}

/// Why a piece was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteFailure {
    /// There is no room for it: for lack of space on the disk, or in what blobs may take of it.
    pub no_room: bool,
    /// The error and what to do about it.
    pub message: String,
}

/// What the exchange wants done.
#[derive(Debug)]
pub enum Output {
    /// Put a message on a connection's queue.
    Send {
        /// The connection.
        session: SessionId,
        /// The message.
        message: BlobMessage,
    },
    /// Answer with [`Input::Room`] once the connection's queue is empty.
    AwaitRoom {
        /// The connection.
        session: SessionId,
    },
    /// Look up how a blob stands; answer with [`Input::Found`].
    Look {
        /// The blob.
        hash: BlobHash,
    },
    /// Read a piece of a whole blob; answer with [`Input::Read`].
    Read {
        /// For whom.
        session: SessionId,
        /// The blob.
        hash: BlobHash,
        /// Where the piece begins.
        offset: u64,
    },
    /// Make a piece durable; answer with [`Input::Written`].
    Write {
        /// The blob.
        hash: BlobHash,
        /// Its size.
        size: u64,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        data: Bytes,
        /// To be dropped once that is done.
        receipt: Receipt,
    },
    /// Read all that is stored of a blob. If it has the hash, make durable that it is whole, else remove it; answer with
    /// [`Input::Verified`].
    Verify {
        /// The blob.
        hash: BlobHash,
        /// Its size.
        size: u64,
    },
    /// Make durable that a server has the blob, and then tell the application with [`Event::OnServer`].
    Confirm {
        /// The blob.
        hash: BlobHash,
        /// The server's connection.
        session: SessionId,
    },
    /// Tell the application.
    Notify(Event),
    /// Count and log something that was not taken.
    Refused {
        /// Whose it was.
        session: SessionId,
        /// The blob.
        hash: BlobHash,
        /// A short name for counters.
        kind: &'static str,
    },
    /// Close a connection after what is queued for it.
    Close {
        /// The connection.
        session: SessionId,
        /// Why, in words for a person.
        reason: String,
    },
}

/// News for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A blob that is wanted has grown.
    Held {
        /// The blob.
        hash: BlobHash,
        /// Durable bytes.
        held: u64,
    },
    /// A blob that is wanted is here, whole and durable.
    Here {
        /// The blob.
        hash: BlobHash,
    },
    /// Every server that is connected was asked for it in vain; those that come will be asked too.
    Unavailable {
        /// The blob.
        hash: BlobHash,
        /// How many servers are connected that speak of blobs.
        servers: usize,
    },
    /// A blob that is wanted cannot be had: nobody is asked any more.
    Failed {
        /// The blob.
        hash: BlobHash,
        /// What stands against it.
        reason: BlobRefusal,
        /// In words for a person.
        message: String,
    },
    /// So much of a blob has been sent to a server.
    Sent {
        /// The blob.
        hash: BlobHash,
        /// The connection.
        session: SessionId,
        /// Bytes from the first on, those that the server had before included.
        bytes: u64,
    },
    /// A server says that it has it, whole and durable.
    OnServer {
        /// The blob.
        hash: BlobHash,
        /// The connection.
        session: SessionId,
    },
    /// A server does not take it. It is offered again on the next connection.
    NotTaken {
        /// The blob.
        hash: BlobHash,
        /// The connection.
        session: SessionId,
        /// Why, for programs.
        reason: BlobRefusal,
        /// Why, in the server's words.
        words: String,
    },
}

/// All blobs under way.
#[derive(Debug)]
pub struct Exchange {
    limits: Limits,
    peers: BTreeMap<SessionId, Peer>,
    incoming: BTreeMap<BlobHash, Incoming>,
    /// What servers are to have, and its size, until one has said that it has it.
    pushes: BTreeMap<BlobHash, u64>,
    outputs: VecDeque<Output>,
}

impl Exchange {
    /// An exchange in which nothing is under way.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            peers: BTreeMap::new(),
            incoming: BTreeMap::new(),
            pushes: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input in. Outputs follow from [`Exchange::poll_output`].
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Connected { session, upstream } => self.connect(now, session, upstream),
            Input::Disconnected { session } => self.disconnect(now, session),
            Input::Received { session, message, receipt } => self.receive(now, session, message, receipt),
            Input::Room { session } => self.has_room(session),
            Input::Fetch { hash, size } => self.fetch(hash, size),
            Input::Cancel { hash } => self.cancel(hash),
            Input::Push { hash, size } => self.push(hash, size),
            Input::Withdraw { hash } => drop(self.pushes.remove(&hash)),
            Input::Found { hash, standing } => self.found(now, hash, standing),
            Input::Read { session, hash, offset, piece } => self.read(session, hash, offset, piece),
            Input::Written { hash, result } => self.written(now, hash, result),
            Input::Verified { hash, result } => self.verified(now, hash, result),
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
        let moved = self.incoming.values().filter_map(Incoming::moved).min();
        moved.map(|moved| moved + self.limits.blob_stall_timeout)
    }

    fn connect(&mut self, now: Now, session: SessionId, upstream: bool) {
        self.peers.insert(session, Peer::new(upstream));
        if upstream {
            let pushes: Vec<_> = self.pushes.iter().map(|(hash, size)| (*hash, *size)).collect();
            pushes.into_iter().for_each(|(hash, size)| self.line_up(session, hash, size));
            self.offer_next(session);
            self.ask_new_server(now, session);
        }
    }

    /// Where whether a peer may read or add a blob is asked, once there are rules.
    fn receive(&mut self, now: Now, session: SessionId, message: BlobMessage, receipt: Receipt) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        match message {
            // A server pushes nothing: what is wanted here is asked for.
            BlobMessage::Offer { .. } if peer.upstream => {}
            BlobMessage::Offer { hash, size } => self.offered(session, hash, size),
            BlobMessage::Want { hash, from, to } => self.wanted(session, hash, from, to),
            BlobMessage::Piece { hash, size, offset, data } => {
                self.piece(now, (session, hash), (size, offset), data, receipt);
            }
            BlobMessage::Have { hash, .. } => {
                if peer.settle(&hash) {
                    self.pushes.remove(&hash);
                    self.outputs.push_back(Output::Confirm { hash, session });
                    self.offer_next(session);
                }
            }
            BlobMessage::Refused { hash, reason, words } => {
                if peer.settle(&hash) {
                    self.not_taken(session, hash, reason, words);
                } else {
                    self.not_sent(now, session, &hash);
                }
            }
        }
    }

    fn send(&mut self, session: SessionId, message: BlobMessage) {
        self.outputs.push_back(Output::Send { session, message });
    }

    fn refuse(&mut self, session: SessionId, hash: BlobHash, reason: BlobRefusal, words: &str) {
        self.send(session, BlobMessage::Refused { hash, reason, words: words.to_owned() });
    }

    /// A piece came that nobody asked for. One that was asked for and is not wanted any more is excused.
    fn unasked(&mut self, session: SessionId, hash: BlobHash, bytes: usize) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        if let Some(rest) = peer.excused_bytes.checked_sub(bytes as u64) {
            peer.excused_bytes = rest;
            return;
        }
        peer.unasked += 1;
        let too_many = peer.unasked > UNASKED_MAX;
        self.outputs.push_back(Output::Refused { session, hash, kind: "blob_unasked" });
        if too_many {
            let reason = format!("more than {UNASKED_MAX} pieces of blobs that nobody asked for");
            self.outputs.push_back(Output::Close { session, reason });
        }
    }
}

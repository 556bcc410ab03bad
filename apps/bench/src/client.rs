//! One connection with its documents: frames in, replicas asked, frames out.
//!
//! Owns: the handshake, the socket loop, and when to answer. Must not: know light replicas from full ones.
//! Next: `scenario/mod.rs`, which drives many of them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use automerge::ChangeHash;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;

use crate::frame::{self, Incoming};
use crate::ledger::Clock;
use crate::stats::Stats;
use crate::wire::{Endpoint, Socket};

/// Frames and commands handled before the replicas are asked for their answers.
const BATCH_MAX: usize = 64;

/// Longest wait for the answer to a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Which frame carries a sync message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From a peer that has nothing of the document and asks for it.
    Request,
    /// Every other one.
    Sync,
}

/// A sync message to send.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The frame around it.
    pub(crate) kind: Kind,
    /// The encoded message.
    pub(crate) data: Vec<u8>,
}

/// One document of one client.
pub(crate) trait Replica: Send {
    /// The document's id.
    fn document(&self) -> &str;
    /// Takes a sync message that came at `at`.
    fn receive(&mut self, data: &[u8], at: Instant) -> anyhow::Result<()>;
    /// Takes the server's word that it does not have the document.
    fn receive_unavailable(&mut self);
    /// The next message to send, if there is one.
    fn generate(&mut self) -> Option<Outgoing>;
    /// Types one character.
    fn edit(&mut self) -> anyhow::Result<()>;
    /// Whether the server's heads are this replica's, and there are any.
    fn is_synced(&self) -> bool;
    /// Whether the server has said anything about the document on this connection.
    fn is_answered(&self) -> bool;
    /// Forgets what lasts only as long as a connection.
    fn disconnect(&mut self);
    /// The replica's heads, sorted.
    fn heads(&self) -> Vec<ChangeHash>;
    /// The replica's author number and its last edit that a server's heads included.
    fn confirmed(&self) -> (u32, u32);
    /// Everything that the replica has.
    fn known(&self) -> Clock;
    /// The text, of replicas that hold it.
    fn text(&self) -> Option<String>;
}

/// How to connect.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The server.
    pub(crate) endpoint: Endpoint,
    /// The local address to connect from, where one is not enough.
    pub(crate) source: Option<IpAddr>,
    /// The client's lasting name, for clients with a store of their own.
    pub(crate) storage_id: Option<String>,
    /// Whether the client gets a thread of its own, for full replicas.
    pub(crate) own_thread: bool,
    /// Where to count.
    pub(crate) stats: Arc<Stats>,
}

/// A handle to a running connection.
pub(crate) struct Client {
    commands: mpsc::UnboundedSender<Command>,
    ended: oneshot::Receiver<Vec<Box<dyn Replica>>>,
}

/// What a server has acknowledged of an author's edits in one document.
#[derive(Debug, Clone)]
pub(crate) struct Confirmed {
    /// The document.
    pub(crate) document: String,
    /// The author's number in its ledger.
    pub(crate) author: u32,
    /// The last edit that the server's heads included.
    pub(crate) seq: u32,
}

enum Command {
    Open(Box<dyn Replica>),
    Edit { slot: usize, due: Instant },
    Synced(oneshot::Sender<()>),
    Confirmed(oneshot::Sender<Vec<Confirmed>>),
    Stop,
}

impl Client {
    /// Connects and joins.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub(crate) async fn connect(options: Options) -> anyhow::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (joined, joining) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let own_thread = options.own_thread;
        let running = async move {
            match Connection::join(options, receiver).await {
                Ok(connection) => {
                    let _ = joined.send(Ok(()));
                    let _ = end.send(connection.run().await);
                }
                Err(error) => {
                    let _ = joined.send(Err(error));
                }
            }
        };
        if own_thread {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::spawn(move || runtime.block_on(running));
        } else {
            tokio::spawn(running);
        }
        joining.await.context("the connection's task ended")??;
        Ok(Self { commands, ended })
    }

    /// Opens a document; the slots of a client's documents count from zero.
    pub(crate) fn open(&self, replica: impl Replica + 'static) {
        let _ = self.commands.send(Command::Open(Box::new(replica)));
    }

    /// Opens a document that another connection gave back.
    pub(crate) fn reopen(&self, replica: Box<dyn Replica>) {
        let _ = self.commands.send(Command::Open(replica));
    }

    /// Types a character into the document in this slot.
    pub(crate) fn edit(&self, slot: usize, due: Instant) {
        let _ = self.commands.send(Command::Edit { slot, due });
    }

    /// Waits until every document is in sync with the server.
    ///
    /// # Errors
    /// When the connection ended, or `within` has passed.
    pub(crate) async fn synced(&self, within: Duration) -> anyhow::Result<()> {
        let (done, waiting) = oneshot::channel();
        let _ = self.commands.send(Command::Synced(done));
        match tokio::time::timeout(within, waiting).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => bail!("the connection was lost"),
            Err(_) => bail!("not in sync after {} s", within.as_secs()),
        }
    }

    /// What has been acknowledged until now; nothing when the connection is lost.
    pub(crate) async fn confirmed(&self) -> Vec<Confirmed> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Confirmed(answer));
        answered.await.unwrap_or_default()
    }

    /// Closes the connection and gives the documents back.
    pub(crate) async fn stop(self) -> Vec<Box<dyn Replica>> {
        let _ = self.commands.send(Command::Stop);
        self.ended.await.unwrap_or_default()
    }
}

struct Slot {
    replica: Box<dyn Replica>,
    dirty: bool,
    synced: bool,
}

struct Connection {
    socket: Socket,
    commands: mpsc::UnboundedReceiver<Command>,
    name: String,
    server: String,
    slots: Vec<Slot>,
    by_document: HashMap<String, usize>,
    dirty: Vec<usize>,
    unsynced: usize,
    waiting: Vec<oneshot::Sender<()>>,
    handled: usize,
    stats: Arc<Stats>,
}

enum Event {
    Frame(Message),
    Command(Command),
    Ended(anyhow::Error),
}

impl Connection {
    async fn join(options: Options, commands: mpsc::UnboundedReceiver<Command>) -> anyhow::Result<Self> {
        let name = format!("bench-{}", uuid::Uuid::new_v4());
        let join = frame::encode_join(&name, options.storage_id.as_deref());
        let handshake = async {
            let mut socket = options.endpoint.dial(options.source, Arc::clone(&options.stats)).await?;
            socket.send(Message::Binary(join.into())).await?;
            loop {
                match socket.next().await.context("the server closed before its answer to the join")?? {
                    Message::Binary(bytes) => return anyhow::Ok((socket, frame::decode_peer(&bytes)?)),
                    Message::Close(_) => bail!("the server closed before its answer to the join"),
                    Message::Ping(_) | Message::Pong(_) | Message::Text(_) | Message::Frame(_) => {}
                }
            }
        };
        let (socket, server) =
            tokio::time::timeout(JOIN_TIMEOUT, handshake).await.context("no answer to the join")??;
        Ok(Self {
            socket,
            commands,
            name,
            server,
            slots: Vec::new(),
            by_document: HashMap::new(),
            dirty: Vec::new(),
            unsynced: 0,
            waiting: Vec::new(),
            handled: 0,
            stats: options.stats,
        })
    }

    async fn run(mut self) -> Vec<Box<dyn Replica>> {
        loop {
            let handled = match poll_fn(|cx| self.poll_event(cx)).await {
                Event::Frame(Message::Binary(bytes)) => self.handle_frame(&bytes),
                Event::Frame(Message::Close(reason)) => Err(anyhow::anyhow!("the server closed: {reason:?}")),
                Event::Frame(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(()),
                Event::Command(Command::Stop) => break,
                Event::Command(command) => self.handle_command(command),
                Event::Ended(error) => Err(error),
            };
            if let Err(error) = handled {
                self.stats.lost(format!("{error:#}"));
                break;
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), self.socket.close(None)).await;
        self.slots.into_iter().map(|slot| slot.replica).collect()
    }

    /// Takes what is ready; when nothing is, or a batch is full, answers everything in one write.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.handled < BATCH_MAX {
            if let Poll::Ready(frame) = Pin::new(&mut self.socket).poll_next(cx) {
                self.handled += 1;
                return Poll::Ready(match frame {
                    Some(Ok(frame)) => Event::Frame(frame),
                    Some(Err(error)) => Event::Ended(error.into()),
                    None => Event::Ended(anyhow::anyhow!("the server went away")),
                });
            }
            if let Poll::Ready(command) = self.commands.poll_recv(cx) {
                self.handled += 1;
                return Poll::Ready(Event::Command(command.unwrap_or(Command::Stop)));
            }
        }
        let full = self.handled >= BATCH_MAX;
        self.handled = 0;
        if let Err(error) = self.answer() {
            return Poll::Ready(Event::Ended(error));
        }
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(cx) {
            return Poll::Ready(Event::Ended(error.into()));
        }
        if full {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn handle_frame(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let at = Instant::now();
        match frame::decode(bytes)? {
            Incoming::Sync { document, data } => {
                self.stats.messages_in.fetch_add(1, Relaxed);
                if let Some(slot) = self.by_document.get(document).copied() {
                    self.slots[slot].replica.receive(data, at)?;
                    self.mark(slot);
                }
            }
            Incoming::Unavailable { document } => {
                if let Some(slot) = self.by_document.get(document) {
                    self.slots[*slot].replica.receive_unavailable();
                }
                self.stats.unavailable.fetch_add(1, Relaxed);
            }
            Incoming::Error { message } => bail!("the server gave up: {message}"),
            Incoming::Peer { .. } | Incoming::Other => {}
        }
        Ok(())
    }

    fn handle_command(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Open(replica) => {
                let slot = self.slots.len();
                self.by_document.insert(replica.document().to_owned(), slot);
                self.slots.push(Slot { replica, dirty: false, synced: false });
                self.unsynced += 1;
                self.mark(slot);
            }
            Command::Edit { slot, due } => {
                self.slots[slot].replica.edit()?;
                self.stats.edited(due.elapsed());
                self.mark(slot);
            }
            Command::Synced(done) => {
                self.waiting.push(done);
                self.release_waiting();
            }
            Command::Confirmed(answer) => {
                let confirmed = self.slots.iter().map(|slot| {
                    let (author, seq) = slot.replica.confirmed();
                    Confirmed { document: slot.replica.document().to_owned(), author, seq }
                });
                // Whoever asked may have gone.
                let _ = answer.send(confirmed.collect());
            }
            Command::Stop => {}
        }
        Ok(())
    }

    fn mark(&mut self, slot: usize) {
        if !std::mem::replace(&mut self.slots[slot].dirty, true) {
            self.dirty.push(slot);
        }
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        for at in std::mem::take(&mut self.dirty) {
            let slot = &mut self.slots[at];
            slot.dirty = false;
            if let Some(outgoing) = slot.replica.generate() {
                let kind = match outgoing.kind {
                    Kind::Request => "request",
                    Kind::Sync => "sync",
                };
                let frame = frame::encode_sync(kind, &self.name, &self.server, slot.replica.document(), &outgoing.data);
                Pin::new(&mut self.socket).start_send(Message::Binary(frame.into()))?;
                self.stats.messages_out.fetch_add(1, Relaxed);
            }
            let synced = slot.replica.is_synced();
            match (std::mem::replace(&mut slot.synced, synced), synced) {
                (false, true) => self.unsynced -= 1,
                (true, false) => self.unsynced += 1,
                (false, false) | (true, true) => {}
            }
        }
        self.release_waiting();
        Ok(())
    }

    fn release_waiting(&mut self) {
        if self.unsynced == 0 && self.dirty.is_empty() {
            for done in self.waiting.drain(..) {
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests;

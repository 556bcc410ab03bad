//! A client: stock automerge over a websocket on the simulated network.
//!
//! Owns: its documents, which outlive its connections; what it has not been told about; when it gives a connection up.
//! Must not: know what the network does. Next: `world.rs`, `../../chaos/src/frame.rs`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use automerge::sync::{self, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ROOT, ReadDoc};
use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use turmoil::net::TcpStream;

use crate::frame::{self, Incoming};
use crate::plan::Plan;
use crate::server;

/// Longest to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection on which nothing comes for so long, not even a ping, is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Between two tries.
const RETRY: Duration = Duration::from_millis(300);

/// Changes that the server has not acknowledged, beyond which a client waits.
const OUTSTANDING_MAX: usize = 20;

/// What all clients are told.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Write no more.
    pub(crate) rest: AtomicBool,
    /// End your connection, and make no other.
    pub(crate) leave: AtomicBool,
}

/// One client's documents, seen by itself and by whoever checks.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    pub(crate) held: Vec<Held>,
    random: StdRng,
    edit_ms_max: u64,
    next_edit: Option<Instant>,
}

/// One document.
#[derive(Debug)]
pub(crate) struct Held {
    id: String,
    pub(crate) doc: AutoCommit,
    state: sync::State,
    outstanding: Vec<ChangeHash>,
    /// Own changes that the server has said it has.
    pub(crate) acknowledged: BTreeSet<ChangeHash>,
    has_news: bool,
}

pub(crate) type Shared = Arc<Mutex<Client>>;

struct Session {
    socket: WebSocketStream<TcpStream>,
    server: String,
}

impl Client {
    pub(crate) fn new(number: usize, plan: &Plan, ids: &[String]) -> Self {
        let held = ids.iter().map(|id| Held {
            id: id.clone(),
            doc: AutoCommit::new(),
            state: sync::State::new(),
            outstanding: Vec::new(),
            acknowledged: BTreeSet::new(),
            has_news: true,
        });
        Self {
            name: format!("client-{number}"),
            held: held.collect(),
            random: StdRng::seed_from_u64(plan.seed ^ (number as u64 + 1) << 48),
            edit_ms_max: plan.edit_ms_max,
            next_edit: None,
        }
    }

    /// Whether the server has said that it has exactly what this client has.
    pub(crate) fn agrees(&mut self) -> bool {
        self.held.iter_mut().all(|held| {
            let heads = held.doc.get_heads();
            held.outstanding.is_empty() && held.state.their_heads.as_deref() == Some(&heads[..])
        })
    }

    fn begin_session(&mut self) {
        for held in &mut self.held {
            held.state = sync::State::new();
            held.has_news = true;
        }
    }

    /// Writes if it is time to; says when it is next.
    fn edit(&mut self, rest: bool) -> Instant {
        let now = Instant::now();
        let pause = Duration::from_millis(self.random.random_range(1..=self.edit_ms_max));
        let due = *self.next_edit.get_or_insert(now + pause);
        if rest || now < due {
            return due.max(now + RETRY);
        }
        self.next_edit = Some(now + pause);
        let (key, value) = (self.random.random_range(0..8), self.random.random::<i64>());
        let which = self.random.random_range(0..self.held.len());
        let held = &mut self.held[which];
        if held.outstanding.len() < OUTSTANDING_MAX && held.doc.put(ROOT, format!("key {key}"), value).is_ok() {
            held.outstanding.extend(held.doc.commit());
            held.has_news = true;
        }
        now + pause
    }

    fn hear(&mut self, incoming: Incoming) -> anyhow::Result<()> {
        match incoming {
            Incoming::Sync(id, data) => {
                let held = self.held.iter_mut().find(|held| held.id == id).context("a document of nobody's")?;
                let message = sync::Message::decode(&data).map_err(|error| anyhow::anyhow!("{error}"))?;
                held.doc.sync().receive_sync_message(&mut held.state, message)?;
                held.has_news = true;
                held.note_acknowledged();
                Ok(())
            }
            Incoming::Error(message) => bail!("the server refuses: {message}"),
            Incoming::Unavailable(_) | Incoming::Peer(_) | Incoming::Other => Ok(()),
        }
    }

    /// The frames that are due.
    fn speak(&mut self, server: &str) -> Vec<Vec<u8>> {
        let Self { name, held, .. } = self;
        let news = held.iter_mut().filter_map(|held| {
            let unknown = held.doc.get_heads().is_empty() && held.state.their_heads.is_none();
            if !std::mem::take(&mut held.has_news) {
                return None;
            }
            let message = held.doc.sync().generate_sync_message(&mut held.state)?.encode();
            Some(frame::about(if unknown { "request" } else { "sync" }, name, server, &held.id, &message))
        });
        news.collect()
    }
}

impl Held {
    fn note_acknowledged(&mut self) {
        let Some(theirs) = self.state.their_heads.clone() else { return };
        if theirs.iter().any(|head| self.doc.get_change_by_hash(head).is_none()) {
            return;
        }
        let beyond: BTreeSet<ChangeHash> = self.doc.get_changes(&theirs).iter().map(automerge::Change::hash).collect();
        let (outstanding, acknowledged): (Vec<_>, Vec<_>) =
            self.outstanding.drain(..).partition(|hash| beyond.contains(hash));
        self.outstanding = outstanding;
        self.acknowledged.extend(acknowledged);
    }
}

/// Lives until it is told to leave.
pub(crate) async fn run(client: Shared, orders: Arc<Orders>) -> turmoil::Result {
    while !orders.leave.load(Ordering::Relaxed) {
        lock(&client).edit(orders.rest.load(Ordering::Relaxed));
        // A connection that ends is no failure of the test: what counts is where everybody is in the end.
        if let Ok(Ok(session)) = timeout(CONNECT_TIMEOUT, connect(&client)).await {
            let _ = speak(&client, session, &orders).await;
        }
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

async fn connect(client: &Shared) -> anyhow::Result<Session> {
    let stream = TcpStream::connect((server::NAME, server::PORT)).await?;
    let (socket, _) = tokio_tungstenite::client_async("ws://server/", stream).await?;
    let mut session = Session { socket, server: String::new() };
    let name = lock(client).name.clone();
    session.socket.send(Message::binary(frame::join(&name))).await?;
    let answer = session.receive().await?;
    let Incoming::Peer(server) = answer else { bail!("a join was answered with {answer:?}") };
    session.server = server;
    Ok(session)
}

/// Syncs and writes until the connection ends, or is dead.
async fn speak(client: &Shared, mut session: Session, orders: &Orders) -> anyhow::Result<()> {
    lock(client).begin_session();
    let mut heard = Instant::now();
    while !orders.leave.load(Ordering::Relaxed) {
        let next_edit = lock(client).edit(orders.rest.load(Ordering::Relaxed));
        let frames = lock(client).speak(&session.server);
        for frame in frames {
            session.socket.feed(Message::binary(frame)).await?;
        }
        session.socket.flush().await?;
        tokio::select! {
            incoming = session.receive() => {
                heard = Instant::now();
                lock(client).hear(incoming?)?;
            }
            () = tokio::time::sleep_until(next_edit) => {
                ensure!(heard.elapsed() < SILENCE_MAX, "nothing comes any more");
            }
        }
    }
    session.socket.close(None).await?;
    Ok(())
}

impl Session {
    async fn receive(&mut self) -> anyhow::Result<Incoming> {
        match self.socket.next().await.context("the connection ended")?? {
            Message::Binary(bytes) => frame::decode(&bytes),
            Message::Text(text) => bail!("a text message: {text}"),
            Message::Close(_) => bail!("the server closed the connection"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(Incoming::Other),
        }
    }
}

pub(crate) fn lock(client: &Shared) -> MutexGuard<'_, Client> {
    client.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A client that edits documents for as long as it is told to, over whatever its link lets through.
//!
//! Owns: its copies of the documents, its sync states, what it has not been told about; stock automerge does the rest.
//! Must not: give up; it reconnects for ever, and offers again what no server has acknowledged.
//! Next: `frame.rs`, `world.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use automerge::sync::{self, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ChangeHash, ObjType, ROOT, ReadDoc};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};

use crate::frame::Incoming;
use crate::history::{ClientId, DocumentId, Event, History, Lineage};
use crate::proxy::Link;
use crate::session::Session;

/// Changes of a document that a client has offered and not been told about, before it waits.
const OUTSTANDING_MAX: usize = 3;

/// What is in the words that a client hears when its token has expired.
const EXPIRED: &str = "token has expired";

/// The same when it comes with it.
const UNAUTHORIZED: &str = "401 Unauthorized";

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(2);

/// What the clients of a world show of themselves.
#[derive(Debug, Default)]
pub(crate) struct Board {
    entries: Mutex<BTreeMap<(ClientId, DocumentId), Entry>>,
    connected: AtomicUsize,
    pub(crate) changed: Notify,
}

/// One client's copy of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) changes: usize,
    /// Own changes that no server has acknowledged.
    pub(crate) outstanding: usize,
    /// Whether the connection that stands has agreed on the document.
    pub(crate) agrees: bool,
}

impl Board {
    pub(crate) fn entries(&self) -> BTreeMap<(ClientId, DocumentId), Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Clients whose connection has been greeted and has not ended.
    pub(crate) fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    fn set(&self, client: ClientId, document: DocumentId, entry: Entry) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert((client, document), entry);
        self.changed.notify_waiters();
    }
}

/// What is common to the clients of a world.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) history: History,
    pub(crate) board: Arc<Board>,
    /// Whether to edit.
    pub(crate) work: watch::Receiver<bool>,
}

/// A client.
pub(crate) struct Client {
    number: ClientId,
    link: Arc<Link>,
    around: Surroundings,
    random: StdRng,
    documents: Vec<Held>,
    /// It was told that its token has expired, and has not been let in with another.
    expired: bool,
}

struct Held {
    number: DocumentId,
    id: String,
    doc: AutoCommit,
    state: sync::State,
    outstanding: Vec<ChangeHash>,
    /// Something was edited or heard that the server has not been answered.
    has_news: bool,
}

impl Client {
    pub(crate) fn new(
        number: ClientId,
        link: Arc<Link>,
        documents: &[(DocumentId, String)],
        around: Surroundings,
        random: StdRng,
    ) -> Self {
        let held = |(number, id): &(DocumentId, String)| Held {
            number: *number,
            id: id.clone(),
            doc: AutoCommit::new(),
            state: sync::State::new(),
            outstanding: Vec::new(),
            has_news: false,
        };
        Self { number, link, around, random, documents: documents.iter().map(held).collect(), expired: false }
    }

    /// Lives until its task is aborted.
    pub(crate) async fn run(mut self) {
        loop {
            let connected = self.connect().await;
            if let Err(error) = &connected {
                self.note_expiry(&error.to_string());
            }
            if let Ok((session, lineage)) = connected {
                self.around.board.connected.fetch_add(1, Ordering::Relaxed);
                let Err(error) = self.sync(session, lineage).await;
                self.around.history.add(Event::Fail { client: self.number, why: error.to_string() });
                for held in &mut self.documents {
                    held.show(self.number, &self.around.board, false);
                }
                self.around.board.connected.fetch_sub(1, Ordering::Relaxed);
                self.around.board.changed.notify_waiters();
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connect(&mut self) -> anyhow::Result<(Session, Lineage)> {
        let lineage = self.link.lineage();
        let (peer, token) = (format!("chaos-{}", self.number), self.link.token());
        let session = Session::open(self.link.address(), &peer, token.as_deref()).await?;
        anyhow::ensure!(self.link.token() == token, "it was given another token meanwhile");
        self.expired = false;
        Ok((session, lineage))
    }

    /// Syncs and edits until the connection ends.
    async fn sync(&mut self, mut session: Session, lineage: Lineage) -> anyhow::Result<std::convert::Infallible> {
        for held in &mut self.documents {
            held.state = sync::State::new();
            held.has_news = true;
        }
        loop {
            self.edit();
            for held in &mut self.documents {
                held.speak(&mut session).await?;
            }
            session.flush().await?;
            tokio::select! {
                incoming = session.receive() => self.hear(incoming?, lineage)?,
                changed = self.around.work.changed() => changed.context("the world ended")?,
            }
        }
    }

    fn hear(&mut self, incoming: Incoming, lineage: Lineage) -> anyhow::Result<()> {
        match incoming {
            Incoming::Sync(id, data) => {
                let held = self.documents.iter_mut().find(|held| held.id == id).context("a document of nobody's")?;
                let message = sync::Message::decode(&data).map_err(|error| anyhow::anyhow!("{error}"))?;
                held.doc.sync().receive_sync_message(&mut held.state, message)?;
                held.has_news = true;
                for hash in held.acknowledged() {
                    let (client, document) = (self.number, held.number);
                    self.around.history.add(Event::Ok { client, lineage, document, hash });
                }
                held.show(self.number, &self.around.board, true);
                Ok(())
            }
            Incoming::Error(message) => {
                self.note_expiry(&message);
                self.around.history.add(Event::Fail { client: self.number, why: message });
                Ok(())
            }
            Incoming::Unavailable(_) | Incoming::Peer(_) | Incoming::Other => Ok(()),
        }
    }

    /// Notes it if this is what it is told, in words or as an HTTP status.
    fn note_expiry(&mut self, words: &str) {
        let told = words.contains(EXPIRED) || words.contains(UNAUTHORIZED);
        if told && !std::mem::replace(&mut self.expired, true) {
            self.around.history.add(Event::Expired { client: self.number });
        }
    }

    /// Makes a change in each document that has room for one, if there is work.
    fn edit(&mut self) {
        if !*self.around.work.borrow_and_update() {
            return;
        }
        // Who has just been told that its token has expired writes on.
        let most = OUTSTANDING_MAX + usize::from(self.expired);
        for held in self.documents.iter_mut().filter(|held| held.outstanding.len() < most) {
            let Some(hash) = held.edit(&mut self.random) else { continue };
            self.around.history.add(Event::Invoke { client: self.number, document: held.number, hash });
            held.outstanding.push(hash);
            held.has_news = true;
            held.show(self.number, &self.around.board, false);
        }
    }
}

impl Held {
    /// One change: mostly small, sometimes one that takes several pages on the disk.
    fn edit(&mut self, random: &mut StdRng) -> Option<ChangeHash> {
        let kind = random.random_range(0..20);
        let made = match kind {
            0 => {
                let noise: Vec<u8> = (0..random.random_range(1_000..20_000)).map(|_| random.random()).collect();
                self.doc.put(ROOT, "noise", noise)
            }
            1..4 => match self.doc.get(ROOT, "list") {
                Ok(Some((_, list))) => self.doc.insert(&list, 0, random.random::<u32>() as i64),
                Ok(None) => self.doc.put_object(ROOT, "list", ObjType::List).map(drop),
                Err(error) => Err(error),
            },
            _ => self.doc.put(ROOT, format!("key {}", kind % 5), random.random::<u32>() as i64),
        };
        made.ok()?;
        self.doc.commit()
    }

    /// The changes of ours that are under the heads which the server last named, and were not before.
    fn acknowledged(&mut self) -> Vec<ChangeHash> {
        let Some(theirs) = self.state.their_heads.clone() else { return Vec::new() };
        if self.outstanding.is_empty() || theirs.iter().any(|head| self.doc.get_change_by_hash(head).is_none()) {
            return Vec::new();
        }
        let beyond: Vec<ChangeHash> = self.doc.get_changes(&theirs).iter().map(Change::hash).collect();
        let (outstanding, acknowledged) = self.outstanding.drain(..).partition(|hash| beyond.contains(hash));
        self.outstanding = outstanding;
        acknowledged
    }

    fn show(&mut self, client: ClientId, board: &Board, connected: bool) {
        let heads = self.doc.get_heads();
        let agrees = connected && self.state.their_heads.as_ref().is_some_and(|theirs| *theirs == heads);
        let changes = if agrees && self.outstanding.is_empty() { self.doc.get_changes(&[]).len() } else { 0 };
        board.set(client, self.number, Entry { heads, changes, outstanding: self.outstanding.len(), agrees });
    }

    async fn speak(&mut self, session: &mut Session) -> anyhow::Result<()> {
        let unknown = self.doc.get_heads().is_empty() && self.state.their_heads.is_none();
        let kind = if unknown { "request" } else { "sync" };
        if !std::mem::take(&mut self.has_news) {
            return Ok(());
        }
        // One message for each piece of news, as stock clients do: automerge may offer a reset for ever.
        if let Some(message) = self.doc.sync().generate_sync_message(&mut self.state) {
            session.say(kind, &self.id, &message.encode()).await?;
        }
        Ok(())
    }
}

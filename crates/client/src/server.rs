//! The servers that a repo connects to.
//!
//! Owns: one link per address, which connection belongs to which address, what is known of each.
//! Must not: dial; the replica does. Next: `engine.rs`; the replica crate's `dial.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use syncline_core::id::{DocumentId, SessionId, StorageId};
use syncline_replica::{Credentials, DialOptions, Dialling, ServerUrl};
use tokio::sync::watch;

use crate::Error;
use crate::complaints::Complaints;
use crate::repo::Background;
use crate::status::Complaint;

/// A connection to a server that is kept up, and dialled again, until this and all its clones are dropped.
#[derive(Debug, Clone)]
pub struct Server {
    link: Arc<Link>,
    // The link's tasks run on the repo's threads.
    _background: Arc<Background>,
}

/// How a server is connected to.
#[derive(Debug, Default)]
pub struct ConnectOptions {
    dial: DialOptions,
}

impl ConnectOptions {
    /// Asks for a token before each try to connect, and shows it to the server as `Authorization: Bearer …`. So a token
    /// that has expired is renewed. Where it fails, the server counts as one that cannot be reached, with the error as
    /// the reason.
    #[must_use]
    pub fn token<F>(self, token: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let credentials = Some(Credentials::new(token));
        Self { dial: DialOptions { credentials, ..self.dial } }
    }

    /// Believes servers for whom these authorities vouch, beside those that the system trusts: certificates as PEM, an
    /// authority's or the server's own. They count for `wss://` addresses.
    ///
    /// ```
    /// # use syncline::ConnectOptions;
    /// # fn company_authority() -> &'static [u8] { b"" }
    /// match ConnectOptions::default().trust(company_authority()) {
    ///     Ok(options) => drop(options), // repo.connect_with("wss://sync.example.org", options)?
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Certificate`] when there is none in the text, or one that cannot be read.
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        let trust = self.dial.trust.add_pem(pem.as_ref())?;
        Ok(Self { dial: DialOptions { trust, ..self.dial } })
    }

    /// Believes only those whom [`ConnectOptions::trust`] added, not those that the system trusts.
    #[must_use]
    pub fn trust_nobody_else(self) -> Self {
        let trust = self.dial.trust.without_system();
        Self { dial: DialOptions { trust, ..self.dial } }
    }

    pub(crate) fn into_dial(self) -> DialOptions {
        self.dial
    }
}

/// Whether a server can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// It is being dialled for the first time.
    Connecting,
    /// It has answered, and documents are in sync with it or on their way.
    Connected,
    /// It could not be reached, or is gone again; it is dialled again after a while.
    Offline {
        /// Why, in words for a person.
        reason: Arc<str>,
    },
}

impl Server {
    pub(crate) fn new(link: Arc<Link>, background: Arc<Background>) -> Self {
        Self { link, _background: background }
    }

    /// The address as it was given.
    #[must_use]
    pub fn address(&self) -> String {
        self.link.address.to_string()
    }

    /// Whether it can be reached, at this moment.
    #[must_use]
    pub fn status(&self) -> Connection {
        self.link.state.borrow().connection.clone()
    }

    /// Waits until [`Server::status`] is another one than `before`, and returns it. A slow caller misses those between.
    pub async fn status_changed(&self, before: &Connection) -> Connection {
        let mut state = self.link.state.subscribe();
        // The link that is borrowed here holds the other end.
        let _ = state.wait_for(|state| state.connection != *before || state.ended).await;
        self.status()
    }

    /// What the server last said was wrong with something that this repo sent, in the server's words: above all why a
    /// change is not taken, which then is never [`OnServer::InSync`](crate::OnServer::InSync).
    #[must_use]
    pub fn complaint(&self) -> Option<Arc<str>> {
        self.link.state.borrow().complaint.clone()
    }

    /// Waits until [`Server::complaint`] is another one than `before`, and returns it. A slow caller misses those
    /// between.
    pub async fn complaint_changed(&self, before: &Option<Arc<str>>) -> Option<Arc<str>> {
        let mut state = self.link.state.subscribe();
        // As in `status_changed`.
        let _ = state.wait_for(|state| state.complaint != *before || state.ended).await;
        self.complaint()
    }

    /// Waits until the server has answered.
    ///
    /// # Errors
    /// [`Error::Closed`] when the repo is closed before that.
    pub async fn connected(&self) -> Result<(), Error> {
        let mut state = self.link.state.subscribe();
        loop {
            let (connection, ended) = {
                let state = state.borrow_and_update();
                (state.connection.clone(), state.ended)
            };
            if connection == Connection::Connected {
                return Ok(());
            }
            if ended || state.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }
}

/// One address that is dialled.
#[derive(Debug)]
pub(crate) struct Link {
    address: ServerUrl,
    state: watch::Sender<LinkState>,
    _dialling: Dialling,
}

#[derive(Debug)]
struct LinkState {
    connection: Connection,
    session: Option<SessionId>,
    complaint: Option<Arc<str>>,
    ended: bool,
}

/// All links and connections of a repo.
#[derive(Debug)]
pub(crate) struct Servers {
    state: Mutex<State>,
    /// Ticks when a connection comes or goes.
    pub(crate) changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<String, Weak<Link>>,
    sessions: BTreeMap<SessionId, Session>,
    /// Since when there is no session, once an address is dialled.
    offline_since: Option<SystemTime>,
    complaints: Complaints,
}

/// A connection to a server.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) address: Arc<str>,
    /// The lasting name of the server's store, if it has one.
    pub(crate) storage: Option<StorageId>,
}

impl Servers {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// The link to an address: the one that there is, or a new one.
    pub(crate) fn link(&self, address: ServerUrl, dial: impl FnOnce(ServerUrl) -> Dialling) -> Arc<Link> {
        let mut state = self.lock();
        state.links.retain(|_, link| link.strong_count() > 0);
        let text = address.to_string();
        if let Some(link) = state.links.get(&text).and_then(Weak::upgrade) {
            return link;
        }
        if state.sessions.is_empty() {
            state.offline_since.get_or_insert_with(SystemTime::now);
        }
        let connecting = LinkState { connection: Connection::Connecting, session: None, complaint: None, ended: false };
        let dialling = dial(address.clone());
        let link = Arc::new(Link { address, state: watch::Sender::new(connecting), _dialling: dialling });
        state.links.insert(text, Arc::downgrade(&link));
        link
    }

    /// A server has answered.
    pub(crate) fn joined(&self, session: SessionId, address: &ServerUrl, storage: Option<StorageId>) {
        let text = address.to_string();
        let link = {
            let mut state = self.lock();
            state.sessions.insert(session, Session { address: Arc::from(&*text), storage });
            state.offline_since = None;
            state.links.get(&text).and_then(Weak::upgrade)
        };
        if let Some(link) = link {
            link.turn(Connection::Connected, Some(session));
        }
        self.tick();
    }

    /// A connection is gone. A newer one to the same address is not concerned.
    pub(crate) fn left(&self, session: SessionId) {
        let link = {
            let mut state = self.lock();
            let gone = state.sessions.remove(&session);
            if gone.is_some() && state.sessions.is_empty() {
                state.offline_since = Some(SystemTime::now());
            }
            gone.and_then(|gone| state.links.get(&*gone.address).and_then(Weak::upgrade))
        };
        if let Some(link) = link.filter(|link| link.state.borrow().session == Some(session)) {
            link.turn(Connection::Offline { reason: Arc::from("the connection was lost") }, None);
        }
        self.tick();
    }

    /// A server has said that something of ours was not taken.
    pub(crate) fn complained(&self, session: SessionId, words: &str) {
        let link = {
            let mut state = self.lock();
            let Some(Session { address, .. }) = state.sessions.get(&session).cloned() else { return };
            state.complaints.add(&address, words, SystemTime::now());
            state.links.get(&*address).and_then(Weak::upgrade)
        };
        if let Some(link) = link {
            link.state.send_modify(|state| state.complaint = Some(Arc::from(words)));
        }
        self.tick();
    }

    /// A server has everything of a document.
    pub(crate) fn resolved(&self, server: &Arc<str>, document: &DocumentId) {
        let resolved = self.lock().complaints.resolve(server, document);
        if resolved {
            self.tick();
        }
    }

    /// A document is none of the servers' business any more.
    pub(crate) fn forget(&self, document: &DocumentId) {
        self.lock().complaints.forget(document);
        self.tick();
    }

    /// What stands against a document, or against anything.
    pub(crate) fn complaints(&self, document: Option<&DocumentId>) -> Vec<Complaint> {
        let state = self.lock();
        document.map_or_else(|| state.complaints.all(), |document| state.complaints.about(document))
    }

    /// Since when no server is connected, though one is to be.
    pub(crate) fn offline_since(&self) -> Option<SystemTime> {
        let state = self.lock();
        let dialled = state.links.values().any(|link| link.strong_count() > 0);
        state.offline_since.filter(|_| dialled)
    }

    /// The addresses that are connected.
    pub(crate) fn connected(&self) -> Vec<String> {
        self.lock().sessions.values().map(|session| session.address.to_string()).collect()
    }

    pub(crate) fn unreachable(&self, address: &ServerUrl, reason: &str) {
        let link = self.lock().links.get(&address.to_string()).and_then(Weak::upgrade);
        if let Some(link) = link {
            link.turn(Connection::Offline { reason: Arc::from(reason) }, None);
        }
    }

    /// The server behind a connection.
    pub(crate) fn session(&self, session: SessionId) -> Option<Session> {
        self.lock().sessions.get(&session).cloned()
    }

    /// The connections that there are.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.lock().sessions.keys().copied().collect()
    }

    /// Whether any address is dialled.
    pub(crate) fn are_dialled(&self) -> bool {
        self.lock().links.values().any(|link| link.strong_count() > 0)
    }

    /// The repo is closed: nobody will be connected any more.
    pub(crate) fn end(&self) {
        let links: Vec<_> = self.lock().links.values().filter_map(Weak::upgrade).collect();
        for link in links {
            link.turn(Connection::Offline { reason: Arc::from("the repo is closed") }, None);
            link.state.send_modify(|state| state.ended = true);
        }
        self.lock().sessions.clear();
        self.tick();
    }

    fn tick(&self) {
        self.changed.send_modify(|ticks| *ticks += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn turn(&self, connection: Connection, session: Option<SessionId>) {
        self.state.send_modify(|state| {
            state.connection = connection;
            state.session = session;
        });
    }
}

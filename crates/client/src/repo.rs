//! A repo: the documents in one directory, kept in sync with servers.
//!
//! Owns: opening and closing, making and finding documents, the threads behind it all.
//! Must not: need a tokio runtime of the caller's. Next: `document.rs`, `engine.rs`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use automerge::transaction::Transaction;
use automerge::{Author, AutomergeError, TextEncoding};
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;
use syncline_replica::{Replica, ServerUrl};
use syncline_store::Store;
use tokio::runtime::Runtime;

use crate::document::{ChangeOptions, Document, Lease};
use crate::engine::Engine;
use crate::live::{Arrival, Live};
use crate::selection::SyncPolicy;
use crate::server::{ConnectOptions, Server};
use crate::status::RepoStatus;
use crate::timer::Timer;
use crate::{DocumentUrl, Error};

/// Documents read from the store in one go.
const LIST_PAGE: usize = 1_024;

/// Longest that closing waits for a server to take what is queued for it.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How a repo behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How documents are stored. Default: as on a server, but for changes in its log, which are in memory too: it has at most
    /// 16,384 of them, and 8 MiB, before they are moved to their documents.
    pub store: syncline_store::Options,
    /// Bounds on what servers may do, and on the size of changes.
    pub limits: Limits,
    /// Longest that [`Repo::find`] waits for a server. Default 30 s.
    pub find_timeout: Duration,
    /// The unit in which positions in text count. Default: characters. `Utf16CodeUnit` where positions come from a
    /// browser, as in a Tauri app.
    pub text_encoding: TextEncoding,
    /// Who this repo's changes are by: any bytes that mean a person to the application. Kept in the history for good.
    /// Default none.
    pub author: Option<Author<'static>>,
    /// Which documents servers hear of by themselves. Default [`SyncPolicy::OnDemand`].
    pub sync: SyncPolicy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            store: syncline_store::Options {
                fold_rows: 16_384,
                fold_bytes: 8 * 1024 * 1024,
                ..syncline_store::Options::default()
            },
            limits: Limits::default(),
            find_timeout: Duration::from_secs(30),
            text_encoding: TextEncoding::UnicodeCodePoint,
            author: None,
            sync: SyncPolicy::default(),
        }
    }
}

/// The documents in one directory. Clones share it.
///
/// It runs on threads of its own, so it works in any thread and under any executor. [`Repo::close`] makes durable what
/// there is and ends them; so does, blocking, the drop of the last handle of a repo, its documents and its servers.
#[derive(Debug, Clone)]
pub struct Repo {
    pub(crate) background: Arc<Background>,
    pub(crate) find_timeout: Duration,
}

impl Repo {
    /// Opens the documents in this directory, which is made if it is not there. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Store`], above all when another process has it open, and [`Error::Threads`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(directory, Options::default())
    }

    /// As [`Repo::open`], with options.
    ///
    /// # Errors
    /// As [`Repo::open`].
    #[tracing::instrument(name = "open repo", skip_all, fields(directory = %directory.as_ref().display()))]
    pub fn open_with(directory: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let store = Store::open(directory.as_ref(), options.store.clone())?;
        Self::start(store, options)
    }

    /// A repo for tests: the same code over a directory that is removed with it, without waiting for the disk.
    ///
    /// # Errors
    /// As [`Repo::open`].
    pub fn memory() -> Result<Self, Error> {
        Self::memory_with(Options::default())
    }

    /// As [`Repo::memory`], with options, of which those of the store do not count.
    ///
    /// # Errors
    /// As [`Repo::open`].
    pub fn memory_with(options: Options) -> Result<Self, Error> {
        Self::start(Store::memory()?, options)
    }

    fn start(store: Store, options: Options) -> Result<Self, Error> {
        let find_timeout = options.find_timeout;
        let background = Background::start(store, options).map_err(Error::Threads)?;
        Ok(Self { background: Arc::new(background), find_timeout })
    }

    /// Makes a document. The closure fills it; what it does is the document's first change.
    ///
    /// # Errors
    /// As [`Document::change`]; there is no document then.
    pub fn create<T>(
        &self,
        fill: impl FnOnce(&mut Transaction<'_>) -> Result<T, AutomergeError>,
    ) -> Result<Document, Error> {
        self.create_by(|_, transaction| fill(transaction))
    }

    /// As [`Repo::create`], for closures that want to know the address or have errors of this crate's.
    pub(crate) fn create_by<T, E: Into<Error>>(
        &self,
        fill: impl FnOnce(&DocumentUrl, &mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<Document, Error> {
        self.engine().check_open()?;
        let url = DocumentUrl::from(DocumentId::from_random(rand::random()));
        let document = self.open_document(url.id())?;
        let options = ChangeOptions { even_if_empty: true, ..ChangeOptions::default() };
        document.change_by(options, |transaction| fill(&url, transaction))?;
        Ok(document)
    }

    /// Opens a document: at once if it is stored here, else as soon as a server has sent it.
    ///
    /// # Errors
    /// [`Error::NoServer`], [`Error::Unavailable`] when every connected server says that it has not got it,
    /// [`Error::FindTimeout`] after [`Options::find_timeout`]; [`Error::Broken`], [`Error::Store`], [`Error::Closed`].
    #[tracing::instrument(name = "find document", level = "debug", skip_all, fields(document = %url.id()))]
    pub async fn find(&self, url: &DocumentUrl) -> Result<Document, Error> {
        let document = self.open_on_own_threads(url.id().clone()).await?;
        let live = document.live();
        live.read(|_| ())?;
        let (mut progress, mut latest) = (live.progress.subscribe(), live.latest.subscribe());
        let engine = self.engine();
        let mut servers = engine.servers.changed.subscribe();
        if live.arrival(&[]) == Arrival::Here {
            return Ok(document);
        }
        live.ask_again(engine);
        let mut timer = Timer::start(engine, self.find_timeout);
        let missing = url.id().clone();
        loop {
            engine.check_open()?;
            match live.arrival(&engine.servers.sessions()) {
                Arrival::Here => return Ok(document),
                Arrival::Deleted => return Err(Error::Deleted { document: missing }),
                Arrival::Denied => return Err(Error::Unavailable { document: missing }),
                Arrival::Expected if !engine.servers.are_dialled() && !engine.replica.is_in_mesh() => {
                    return Err(Error::NoServer { document: missing });
                }
                Arrival::Expected => {}
            }
            let _ = tokio::select! {
                () = &mut timer => return Err(Error::FindTimeout { document: missing, waited: self.find_timeout }),
                changed = progress.changed() => changed,
                changed = latest.changed() => changed,
                changed = servers.changed() => changed,
            };
        }
    }

    /// Opens a document that is stored here. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::NotHere`], [`Error::Broken`], [`Error::Store`], [`Error::Closed`].
    pub fn find_local(&self, url: &DocumentUrl) -> Result<Document, Error> {
        self.engine().check_open()?;
        let document = self.open_document(url.id())?;
        document.read(|_| ())?;
        match document.live().arrival(&[]) {
            Arrival::Here => Ok(document),
            Arrival::Deleted => Err(Error::Deleted { document: url.id().clone() }),
            Arrival::Expected | Arrival::Denied => Err(Error::NotHere { document: url.id().clone() }),
        }
    }

    /// The documents that are here, in the order of their ids. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub fn list(&self) -> Result<Vec<DocumentUrl>, Error> {
        let engine = self.engine();
        engine.check_open()?;
        // What is not saved yet is looked up first: what is saved in between is then seen twice, never not at all.
        let mut ids = engine.unsaved_ids();
        let mut after: Option<DocumentId> = None;
        loop {
            let page = engine.replica.store().documents(after.as_ref(), LIST_PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            ids.extend(page.into_iter().map(|(id, _)| id));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids.into_iter().map(DocumentUrl::from).collect())
    }

    /// Where the changes of all documents are at this moment, and what servers did not take.
    #[must_use]
    pub fn status(&self) -> RepoStatus {
        self.engine().status()
    }

    /// Keeps a connection to a server, and what is here in sync with it as [`Options::sync`] says, until the returned handle
    /// is dropped. It is dialled in the background, again and again while it cannot be reached.
    ///
    /// # Errors
    /// [`Error::Address`] when the text is neither `ws://host:port` nor `wss://host`, [`Error::Closed`].
    pub fn connect(&self, address: &str) -> Result<Server, Error> {
        self.connect_with(address, ConnectOptions::default())
    }

    /// As [`Repo::connect`], with options. They do not count where the address is connected to already.
    ///
    /// ```
    /// # use syncline::{ConnectOptions, Repo};
    /// # async fn fresh_token() -> Result<String, std::io::Error> { Ok("secret".to_owned()) }
    /// let repo = Repo::memory()?;
    /// let options = ConnectOptions::default().token(|| async { Ok(fresh_token().await?) });
    /// let server = repo.connect_with("ws://127.0.0.1:3030", options)?;
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Repo::connect`].
    pub fn connect_with(&self, address: &str, options: ConnectOptions) -> Result<Server, Error> {
        let address: ServerUrl = address.parse()?;
        let engine = self.engine();
        engine.check_open()?;
        let _runtime = engine.runtime.enter();
        let dial = |address| engine.replica.dial(address, options.into_dial());
        let link = engine.servers.link(address, dial);
        Ok(Server::new(link, Arc::clone(&self.background)))
    }

    /// Says that the machine's network has changed: servers that cannot be reached are dialled at once, not after their
    /// wait. For an application that hears of it from the system.
    pub fn network_changed(&self) {
        self.engine().replica.network_changed();
    }

    /// Takes no more changes, makes durable those that there are, leaves the servers and releases the directory.
    ///
    /// # Errors
    /// [`Error::NotSaved`] with a document of which something could not be saved and is lost.
    #[tracing::instrument(name = "close repo", skip_all)]
    pub async fn close(self) -> Result<(), Error> {
        let engine = Arc::clone(self.engine());
        let closing = engine.runtime.spawn(Arc::clone(&engine).shut_down());
        closing.await.unwrap_or(Err(Error::Closed))
    }

    pub(crate) async fn open_on_own_threads(&self, id: DocumentId) -> Result<Document, Error> {
        self.engine().check_open()?;
        let repo = self.clone();
        let opening = self.engine().runtime.spawn_blocking(move || {
            let opened = repo.open_document(&id);
            // The last handle of a repo must not be dropped on one of its own threads.
            (opened, repo)
        });
        let (opened, _repo) = opening.await.map_err(|_| Error::Closed)?;
        opened
    }

    pub(crate) fn open_document(&self, id: &DocumentId) -> Result<Document, Error> {
        let engine = self.engine();
        let lease = |live| Arc::new(Lease { live, background: Arc::clone(&self.background) });
        if let Some(lease) = engine.lease(id, lease) {
            return Ok(Document::new(lease));
        }
        let live = Live::load(engine, id)?;
        Ok(Document::new(engine.admit(live, lease)))
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.background.engine
    }
}

/// The threads behind a repo. They end, and what there is is made durable, when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    pub(crate) engine: Arc<Engine>,
    runtime: Mutex<Option<Runtime>>,
}

impl Background {
    fn start(store: Store, options: Options) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("syncline")
            .enable_all()
            .build()?;
        let limits = options.limits.clone();
        let settings =
            syncline_replica::Options { limits, shards: 1, stop_timeout: STOP_TIMEOUT, ..Default::default() };
        let (replica, news) = {
            let _runtime = runtime.enter();
            Replica::start(store, settings)
        };
        let engine = Arc::new(Engine::new(replica, runtime.handle().clone(), &options));
        runtime.spawn(Arc::clone(&engine).run(news));
        runtime.spawn(Arc::clone(&engine).resume_pushes());
        runtime.spawn(Arc::clone(&engine).keep_in_step());
        Ok(Self { engine, runtime: Mutex::new(Some(runtime)) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(runtime) = runtime else { return };
        if self.engine.has_stopped() {
            return runtime.shutdown_background();
        }
        let engine = Arc::clone(&self.engine);
        // A thread that is inside another runtime must not wait for this one; a fresh thread may.
        let flush = std::thread::Builder::new().name("syncline-close".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(engine.shut_down()) {
                tracing::error!("a repo was dropped with changes that are not saved: {error}");
            }
            runtime.shutdown_background();
        });
        if flush.is_ok_and(|thread| thread.join().is_ok()) {
            return;
        }
        tracing::error!("a repo could not be closed; what was not saved is lost");
    }
}

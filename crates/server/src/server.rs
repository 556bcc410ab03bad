//! A running server: its store, its replica, its listener.
//!
//! Owns: start and stop in order. Must not: know HTTP routes or the protocol.
//! Next: `routes.rs`, the replica crate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use syncline_content::Viewer;
use syncline_core::limits::Limits;
use syncline_core::loader::{InProcess, Loader};
use syncline_replica::{News, Options, Replica};
use syncline_store::{Store, StoreError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::access::{Gate, KeyError, Rules};
use crate::api::Api;
use crate::door::{Doorkeeper, Doors, Full, Place};
use crate::pages::{Pages, Series};
use crate::presence::{self, Presence};
use crate::room::{Room, RoomMetrics};
use crate::tls::{Certificate, TlsError, TlsFiles};
use crate::webhooks::{self, WebhookConfig};
use crate::{blobs, expiry, routes};

/// What the kernel is asked to hold for a peer that has not taken it; Linux takes it twice. Left to itself it takes some
/// megabytes, in which a peer that never reads is noticed late.
const SEND_BUFFER_BYTES: u32 = 128 * 1024;

/// Connections that are told at one time that there is no room for them.
const REFUSING_MAX: usize = 64;

/// Between two looks at whether the certificate has changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The directory with the store; made if it is not there.
    pub data: PathBuf,
    /// Who may do what.
    pub rules: Rules,
    /// Bounds on what peers may do.
    pub limits: Limits,
    /// Who builds documents that peers have sent.
    pub loader: Arc<dyn Loader>,
    /// Who loads documents for those who ask over HTTP.
    pub viewer: Arc<dyn Viewer>,
    /// How long deleted documents can be restored before their content is removed.
    pub deleted_keep: Duration,
    /// How long a document may lie without being changed before it is deleted; `None` is for ever.
    pub expire_untouched: Option<Duration>,
    /// Who is told what changes.
    pub webhooks: Vec<WebhookConfig>,
    /// How many may connect.
    pub doors: Doors,
    /// How much room there has to be on the disk.
    pub room: Room,
    /// The certificate with which connections are encrypted; without one they are not.
    pub tls: Option<TlsFiles>,
    /// Longest that a stop waits for peers that take what they are sent slowly.
    pub stop_timeout: Duration,
}

impl Config {
    /// A server with this data on this address, and everything else as it is by default: what it shows is loaded in this
    /// process.
    #[must_use]
    pub fn new(listen: SocketAddr, data: PathBuf, loader: Arc<dyn Loader>) -> Self {
        Self {
            listen,
            data,
            rules: Rules::default(),
            limits: Limits::default(),
            loader,
            viewer: Arc::new(InProcess),
            deleted_keep: Duration::from_secs(30 * 24 * 3600),
            expire_untouched: None,
            webhooks: Vec::new(),
            doors: Doors::default(),
            room: Room::default(),
            tls: None,
            stop_timeout: Duration::from_secs(5),
        }
    }
}

/// What can be set while a server runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds on what peers may do, as far as they are no part of what a server is built on: see [`Replica::set_limits`].
    pub limits: Limits,
    /// How many may connect.
    pub doors: Doors,
    /// How much room there has to be on the disk.
    pub room: Room,
    /// How long a document may lie without being changed before it is deleted.
    pub expire_untouched: Option<Duration>,
}

/// A server that accepts connections until [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    keeping: Vec<JoinHandle<()>>,
    /// What looks at the disk.
    looking: Mutex<JoinHandle<()>>,
    seen: RoomMetrics,
    expire_untouched: watch::Sender<Option<Duration>>,
    certificate: Option<Arc<Certificate>>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be opened. **State:** nothing was changed. **Do:** as the message says.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Everybody who reaches the address could do everything, and nobody has said that this is meant so. **State:** nothing
    /// was changed. **Do:** as the message says.
    #[error(
        "{address} can be reached by other machines, and nothing says who may do what: give a key for tokens with \
         --token-key (and make one with `syncline-server token new-key`), or --access-url, or say with --open that everybody \
         who reaches it may read and write everything"
    )]
    Unprotected {
        /// The address.
        address: SocketAddr,
    },
    /// An actor cannot be bound to anybody where everybody is the same. **State:** nothing was changed. **Do:** as the
    /// message says.
    #[error(
        "--bind-actors and --subject-mib-max need to know who writes: give a key for tokens with --token-key, or --access-url"
    )]
    Nameless,
    /// A key for tokens cannot be used. **State:** nothing was changed. **Do:** as the message says.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate cannot be used. **State:** nothing was changed. **Do:** as the message says.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened on. **State:** the store was opened and closed again.
    /// **Do:** choose another address, or end what listens there.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What the routes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) replica: Replica,
    pub(crate) registry: Registry,
    pub(crate) address: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) gate: Arc<Gate>,
    pub(crate) doorkeeper: Arc<Doorkeeper>,
    pub(crate) encrypted: bool,
    /// Connections that are being told that there is no room for them.
    pub(crate) refusing: Arc<Semaphore>,
    /// Blobs that are being put at this time.
    pub(crate) uploads: Semaphore,
    /// Bytes of all blobs, as of the last look.
    pub(crate) blobs_stored: Gauge,
    pub(crate) api: Api,
    pub(crate) pages: Pages,
    pub(crate) presence: Presence,
    /// How long deleted documents can be restored.
    pub(crate) deleted_keep: Duration,
}

impl Shared {
    /// How often something was refused since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.replica.metrics().refused_in_all()
    }
}

impl Server {
    /// Opens the store and listens.
    ///
    /// # Errors
    /// [`ServerError`] if either cannot be done.
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        let listen = config.listen;
        protected(&config)?;
        let listener = bind(listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listener.map_err(|source| ServerError::Listen { address: listen, source })?;
        Self::start_on(Tcp(listener), Config { listen: address, ..config }).await
    }

    /// Opens the store and accepts from a listener that is there already, of whatever kind of connections.
    ///
    /// # Errors
    /// [`ServerError::Store`].
    pub async fn start_on<L>(listener: L, config: Config) -> Result<Self, ServerError>
    where
        L: Listener<Addr = SocketAddr>,
    {
        protected(&config)?;
        let Config {
            listen: address,
            data,
            rules,
            limits,
            loader,
            viewer,
            deleted_keep,
            expire_untouched,
            webhooks,
            doors,
            room,
            tls,
            stop_timeout,
        } = config;
        let certificate = tls.map(Certificate::read).transpose()?.map(Arc::new);
        let acceptor = certificate.clone().map(Certificate::acceptor).transpose()?;
        let gate = Arc::new(Gate::new(rules)?);
        let blob_bytes_max = Some(limits.blobs_bytes_max);
        let options =
            syncline_store::Options { loader, deleted_keep, blob_bytes_max, ..syncline_store::Options::default() };
        let store = open_store(data.clone(), options).await?;
        let (ear, overheard) = presence::ear();
        let options = Options { limits, authority: gate.clone(), stop_timeout, ear: Some(ear), ..Options::default() };
        let (replica, news) = Replica::start(store, options);
        let mut registry = Registry::with_prefix("syncline");
        replica.metrics().register(&mut registry);
        let blobs_stored = Gauge::default();
        registry.register("blob_stored_bytes", "Bytes of all blobs", blobs_stored.clone());
        let seen = RoomMetrics::default();
        seen.register(&mut registry);
        let view_failures = Counter::default();
        registry.register("view_failures", "Documents that could not be loaded to be shown", view_failures.clone());
        let expired = Counter::default();
        registry.register("expired_documents", "Documents deleted because nobody touched them", expired.clone());
        let uploads = Semaphore::new(blobs::UPLOADS_MAX);
        let api = Api::new(viewer, view_failures);
        let feeds = Arc::clone(&api.feeds);
        replica.store().on_committed(move |committed| feeds.note(committed));
        let shared = Arc::new(Shared {
            replica,
            registry,
            address,
            data,
            gate,
            deleted_keep,
            doorkeeper: Arc::new(Doorkeeper::new(doors)),
            encrypted: acceptor.is_some(),
            refusing: Arc::new(Semaphore::new(REFUSING_MAX)),
            uploads,
            blobs_stored,
            api,
            pages: Pages::default(),
            presence: Presence::default(),
        });
        watch(&shared, news);
        tokio::spawn(presence::hear(Arc::clone(&shared), overheard));
        for webhook in webhooks {
            tokio::spawn(webhooks::run(Arc::clone(&shared), webhook));
        }
        let expire_untouched = watch::Sender::new(expire_untouched);
        let keeping = vec![
            tokio::spawn(Arc::clone(&shared.gate).keep_current(shared.replica.clone())),
            tokio::spawn(expiry::run(Arc::clone(&shared), expired, expire_untouched.subscribe())),
            tokio::spawn(keep_certificate(certificate.clone())),
        ];
        let watching = room.watch(shared.data.clone(), shared.replica.clone(), seen.clone());
        let looking = Mutex::new(tokio::spawn(watching));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), acceptor));
        Ok(Self { address, shared, accepting, keeping, looking, seen, expire_untouched, certificate })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The replica behind it.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.shared.replica
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.certificate.is_some()
    }

    /// Puts other settings in force. Connections go on.
    pub fn set(&self, settings: Settings) {
        let Settings { limits, doors, room, expire_untouched } = settings;
        self.shared.replica.set_limits(limits);
        self.shared.doorkeeper.set(doors);
        let (data, replica) = (self.shared.data.clone(), self.shared.replica.clone());
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        looking.abort();
        *looking = tokio::spawn(room.watch(data, replica, self.seen.clone()));
        drop(looking);
        self.expire_untouched.send_if_modified(|span| std::mem::replace(span, expire_untouched) != expire_untouched);
    }

    /// Reads keys and certificate again, whether they have changed or not.
    pub fn reload(&self) {
        self.shared.gate.reload();
        self.certificate.iter().for_each(|certificate| certificate.read_again(true));
        self.shared.replica.reconsider_access();
    }

    /// Accepts nothing more, makes durable what has come, acknowledges it, closes the connections and the store.
    pub async fn stop(self) {
        self.accepting.abort();
        self.keeping.iter().for_each(JoinHandle::abort);
        self.looking.lock().unwrap_or_else(PoisonError::into_inner).abort();
        self.shared.api.end();
        self.shared.replica.stop().await;
    }
}

/// Hears what the replica has to tell, and counts, as long as the server runs.
fn watch(shared: &Arc<Shared>, news: UnboundedReceiver<News>) {
    let hearing = Arc::clone(shared);
    tokio::spawn(async move {
        let note = |news: &News| {
            if let News::Refused { session, offence } = news {
                hearing.pages.refusals.note(&hearing.replica, *session, offence);
            }
        };
        hearing.api.tickets.hear(news, note).await;
    });
    let counting = Arc::downgrade(shared);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Series::EVERY);
        loop {
            ticks.tick().await;
            let Some(shared) = counting.upgrade() else { return };
            shared.pages.series.sample(&shared);
        }
    });
}

/// An address beyond this machine is for those who have said who may do what.
fn protected(config: &Config) -> Result<(), ServerError> {
    let Config { listen: address, rules, limits, .. } = config;
    if !rules.restrict() && (limits.bind_actors || limits.subject_bytes_max.is_some()) {
        return Err(ServerError::Nameless);
    }
    if address.ip().is_loopback() || rules.open || rules.restrict() {
        return Ok(());
    }
    Err(ServerError::Unprotected { address: *address })
}

/// As `TcpListener::bind`, with a bound on what the kernel takes for a peer; accepted connections inherit it.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub(crate) async fn open_store(data: PathBuf, options: syncline_store::Options) -> Result<Store, StoreError> {
    let open = move || Store::open(&data, options);
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// The kernel's listener.
struct Tcp(TcpListener);

impl Listener for Tcp {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => {
                    // The kernel's delay would hold back every small message.
                    let _ = stream.set_nodelay(true);
                    return (stream, peer);
                }
                Err(error) => {
                    // Out of descriptors, most likely: connections that end make room.
                    tracing::error!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Looks whether the certificate has changed, for ever.
async fn keep_certificate(certificate: Option<Arc<Certificate>>) {
    let Some(certificate) = certificate else { return };
    loop {
        tokio::time::sleep(CERTIFICATE_LOOK).await;
        let certificate = Arc::clone(&certificate);
        let _ = tokio::task::spawn_blocking(move || certificate.read_again(false)).await;
    }
}

/// Where a request came from; with what counts its connection, while that lasts.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) peer: SocketAddr,
    pub(crate) place: Arc<Place>,
}

async fn accept<L>(mut listener: L, shared: Arc<Shared>, tls: Option<TlsAcceptor>)
where
    L: Listener<Addr = SocketAddr>,
{
    let header_timeout = shared.replica.limits().join_timeout;
    let router = routes::router(Arc::clone(&shared));
    loop {
        let (stream, peer) = listener.accept().await;
        let place = match shared.doorkeeper.enter(peer.ip()) {
            Ok(place) => Arc::new(place),
            Err(full) => {
                refuse(&shared, stream, peer, full, tls.is_some());
                continue;
            }
        };
        let (arrival, router) = (Arrival { peer, place }, router.clone());
        match tls.clone() {
            None => drop(tokio::spawn(serve(stream, arrival, router, header_timeout))),
            Some(tls) => drop(tokio::spawn(async move {
                match tokio::time::timeout(header_timeout, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, arrival, router, header_timeout).await,
                    Ok(Err(error)) => tracing::debug!(%peer, "no encrypted connection: {error}"),
                    Err(_) => tracing::debug!(%peer, "no encrypted connection within {header_timeout:?}"),
                }
            })),
        }
    }
}

/// Says why there is no connection, in as few steps as can be: whoever opens thousands gets no work out of it.
fn refuse<S>(shared: &Shared, mut stream: S, peer: SocketAddr, full: Full, encrypted: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    shared.replica.metrics().refuse(full.kind());
    tracing::debug!(%peer, kind = full.kind(), "refused: a connection: {full}");
    // Beyond some at one time they are dropped without a word: the words would cost descriptors.
    let Ok(permit) = Arc::clone(&shared.refusing).try_acquire_owned() else { return };
    if encrypted {
        return;
    }
    let words = format!("{full}\n");
    let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 10\r\nConnection: close";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{words}", words.len());
    tokio::spawn(async move {
        let said = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // What it has sent is read, or the answer could be lost with the connection.
            let mut asked = [0; 1024];
            stream.read(&mut asked).await
        };
        // Whoever does not take it within a second does without.
        let _ = tokio::time::timeout(Duration::from_secs(1), said).await;
        drop(permit);
    });
}

async fn serve<S>(stream: S, arrival: Arrival, router: Router, header_timeout: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = arrival.peer;
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrival.clone());
        router.call(request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, "an HTTP connection ended: {error}");
    }
}

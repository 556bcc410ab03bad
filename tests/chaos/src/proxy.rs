//! A link between one client and the server, with weather.
//!
//! Owns: a listening port, the bytes in between, what the weather does to them, and how often it did.
//! Must not: understand the bytes; a cut falls wherever it falls. Next: `world.rs`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::history::Lineage;

/// What happens to the bytes of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They pass.
    Fair,
    /// Each piece waits.
    Delay(Duration),
    /// They pass at so many bytes per second.
    Rate(u32),
    /// They wait for better weather; nobody is told.
    BlackHole,
    /// The client's end is closed, and the server's end stays open without a word.
    HalfOpen,
    /// Both ends are reset.
    Reset,
    /// After so many more bytes both ends are reset, in whatever frame that is.
    Cut(usize),
}

/// A link; dropping it ends its connections.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<(Lineage, Option<SocketAddr>)>,
    token: Mutex<Option<String>>,
    open: AtomicBool,
    weather: watch::Sender<Weather>,
    /// Counts the times that all connections were reset: the weather may have changed before one looks.
    resets: AtomicU64,
    /// Bytes that still pass before a cut.
    allowance: AtomicUsize,
    hit: AtomicU64,
}

enum End {
    Closed,
    HalfOpen,
    Reset,
}

impl Link {
    pub(crate) async fn new() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new((0, None)),
            token: Mutex::new(None),
            open: AtomicBool::new(false),
            weather: watch::Sender::new(Weather::Fair),
            resets: AtomicU64::new(0),
            allowance: AtomicUsize::new(0),
            hit: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// Where the client connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whose server is at the other end.
    pub(crate) fn lineage(&self) -> Lineage {
        self.shared.target().0
    }

    /// Leads new connections to this server.
    pub(crate) fn lead_to(&self, lineage: Lineage, address: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = (lineage, Some(address));
    }

    /// With what whoever uses the link presents itself.
    pub(crate) fn token(&self) -> Option<String> {
        self.shared.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives whoever uses the link something to present at the next connection.
    pub(crate) fn set_token(&self, token: Option<String>) {
        *self.shared.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Lets new connections in.
    pub(crate) fn open(&self) {
        self.shared.open.store(true, Ordering::Relaxed);
    }

    /// Lets no new connection in; those that are there stay.
    pub(crate) fn close(&self) {
        self.shared.open.store(false, Ordering::Relaxed);
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        if let Weather::Cut(bytes) = weather {
            self.shared.allowance.store(bytes, Ordering::Relaxed);
        }
        if weather == Weather::Reset {
            self.shared.resets.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.weather.send_replace(weather);
    }

    /// Ends all connections.
    pub(crate) fn reset(&self) {
        self.set_weather(Weather::Reset);
    }

    /// Whether its weather may keep a client from noticing that the server is gone.
    pub(crate) fn is_held_up(&self) -> bool {
        *self.shared.weather.borrow() != Weather::Fair
    }

    /// How often the weather did something to bytes or connections.
    pub(crate) fn hit(&self) -> u64 {
        self.shared.hit.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

impl Shared {
    fn target(&self) -> (Lineage, Option<SocketAddr>) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hits(&self) {
        self.hit.fetch_add(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let (true, (_, Some(target))) = (shared.open.load(Ordering::Relaxed), shared.target()) else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A server that is not there is what the client then sees.
            if let Ok(server) = TcpStream::connect(target).await {
                carry(&shared, client, server).await;
            }
        });
    }
}

async fn carry(shared: &Shared, mut client: TcpStream, mut server: TcpStream) {
    let nodelay = [client.set_nodelay(true), server.set_nodelay(true)];
    if nodelay.iter().any(Result::is_err) {
        return;
    }
    let end = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::select! {
            end = pump(shared, from_client, to_server) => end,
            end = pump(shared, from_server, to_client) => end,
        }
    };
    match end {
        End::Closed => {}
        End::HalfOpen => {
            drop(client);
            let mut weather = shared.weather.subscribe();
            let _ = weather.wait_for(|weather| *weather != Weather::HalfOpen).await;
        }
        End::Reset => {
            // Both are dropped at once, with whatever they had not sent.
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
    }
}

/// Carries one direction until either end or the weather ends it.
async fn pump(shared: &Shared, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
    let mut weather = shared.weather.subscribe();
    let resets = shared.resets.load(Ordering::Relaxed);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if shared.resets.load(Ordering::Relaxed) > resets {
            shared.hits();
            return End::Reset;
        }
        match *weather.borrow_and_update() {
            Weather::Reset => {
                shared.hits();
                return End::Reset;
            }
            Weather::HalfOpen => {
                shared.hits();
                return End::HalfOpen;
            }
            Weather::Fair | Weather::Delay(_) | Weather::Rate(_) | Weather::BlackHole | Weather::Cut(_) => {}
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = weather.changed() => continue,
        };
        let Ok(bytes @ 1..) = read else { return End::Closed };
        let now = *weather.borrow();
        let sent = match now {
            Weather::Cut(_) => {
                let pass = shared.allowance.load(Ordering::Relaxed).min(bytes);
                shared.allowance.fetch_sub(pass, Ordering::Relaxed);
                // What passes gets out before the reset, so that the cut is in the middle.
                let sent = to.write_all(&buffer[..pass]).await;
                if pass < bytes {
                    shared.hits();
                    return End::Reset;
                }
                sent
            }
            Weather::Fair
            | Weather::Delay(_)
            | Weather::Rate(_)
            | Weather::BlackHole
            | Weather::HalfOpen
            | Weather::Reset => {
                suffer(shared, now, bytes, &mut weather.clone()).await;
                to.write_all(&buffer[..bytes]).await
            }
        };
        if sent.is_err() {
            return End::Closed;
        }
    }
}

/// Holds bytes up for as long as the weather wants.
async fn suffer(shared: &Shared, now: Weather, bytes: usize, weather: &mut watch::Receiver<Weather>) {
    let wait = match now {
        Weather::Fair | Weather::Cut(_) | Weather::HalfOpen | Weather::Reset => return,
        Weather::Delay(wait) => wait,
        Weather::Rate(per_second) => Duration::from_secs_f64(bytes as f64 / f64::from(per_second.max(1))),
        Weather::BlackHole => Duration::MAX,
    };
    shared.hits();
    let better = weather.wait_for(|weather| *weather != now);
    if wait == Duration::MAX {
        let _ = better.await;
    } else {
        let _ = tokio::time::timeout(wait, better).await;
    }
}

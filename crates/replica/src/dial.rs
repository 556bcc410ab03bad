//! A lasting connection to a server: dials, and dials again.
//!
//! Owns: the server's address, the wait between tries. Must not: give up while the handle lives.
//! Next: `connection.rs`, `tls.rs`.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tracing::Instrument;

use crate::connection::{self, websocket_config};
use crate::mesh::Gate;
use crate::replica::{Inner, News};
use crate::stream::Counted;
use crate::tls::{self, Trust};

/// The first wait; doubles with each failure.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A connection that lasted this long was a success: the next wait is short again.
const STABLE: Duration = Duration::from_secs(5);

/// Longest try to connect and upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server's address: `ws://host[:port][/path]`, or `wss://` for an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    text: String,
    /// `host:port`, for the socket.
    authority: String,
    encrypted: bool,
}

/// Why an address cannot be dialled. **State:** nothing was dialled. **Do:** write `ws://host:port` or `wss://host`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Not a websocket URL. **State:** nothing was dialled. **Do:** write `ws://host:port` or `wss://host`.
    #[error("{0:?} is not a server address: write ws://host:port or wss://host")]
    NotAnAddress(String),
}

impl FromStr for ServerUrl {
    type Err = DialError;

    fn from_str(text: &str) -> Result<Self, DialError> {
        let bad = || DialError::NotAnAddress(text.to_owned());
        let encrypted = text.starts_with("wss://");
        let rest = text.strip_prefix(if encrypted { "wss://" } else { "ws://" }).ok_or_else(bad)?;
        let default_port = if encrypted { 443 } else { 80 };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || host.contains('@') {
            return Err(bad());
        }
        let after_bracket = host.rsplit(']').next().unwrap_or_default();
        let authority = if after_bracket.contains(':') { host.to_owned() } else { format!("{host}:{default_port}") };
        let port = authority.rsplit(':').next().unwrap_or_default();
        port.parse::<u16>().map_err(|_| bad())?;
        Ok(Self { text: text.to_owned(), authority, encrypted })
    }
}

impl ServerUrl {
    /// The name without the port.
    fn host(&self) -> &str {
        self.authority.rsplit_once(':').map_or(&self.authority, |(host, _)| host)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How a server is dialled.
#[derive(Debug, Clone, Default)]
pub struct DialOptions {
    /// What it is shown.
    pub credentials: Option<Credentials>,
    /// Who may vouch for it, where the connection is encrypted.
    pub trust: Trust,
}

/// What a server is shown when it is dialled: a token that is asked for before each try.
#[derive(Clone)]
pub struct Credentials {
    token: Arc<dyn Fn() -> TokenFuture + Send + Sync>,
}

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

impl Credentials {
    /// Credentials from whatever makes a token.
    pub fn new<F, E>(token: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        let token = move || -> TokenFuture {
            let made = token();
            Box::pin(async move { made.await.map_err(|error| error.to_string()) })
        };
        Self { token: Arc::new(token) }
    }

    /// A token.
    pub(crate) async fn token(&self) -> Result<String, String> {
        (self.token)().await
    }

    /// The header's value.
    async fn bearer(&self) -> Result<HeaderValue, String> {
        let token = self.token().await.map_err(|error| format!("there is no token for it: {error}"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "the token for it has characters that a header cannot have".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// A connection that is kept alive until this is dropped.
#[derive(Debug)]
pub struct Dialling {
    task: JoinHandle<()>,
}

impl Dialling {
    pub(crate) fn start(replica: Arc<Inner>, server: ServerUrl, options: DialOptions) -> Self {
        let span = tracing::info_span!("server", address = %server);
        Self { task: tokio::spawn(keep_dialling(replica, server, options).instrument(span)) }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_dialling(replica: Arc<Inner>, server: ServerUrl, options: DialOptions) {
    let mut network = replica.network.subscribe();
    let mut wait = WAIT_MIN;
    while !*replica.quiet.borrow() {
        network.mark_unchanged();
        match dial_once(&replica, &server, &options).await {
            Ok(Some(joined)) if joined >= STABLE => wait = WAIT_MIN,
            Ok(Some(_)) => {}
            Ok(None) => {
                let reason = "it closed the connection before the handshake was done".to_owned();
                replica.tell(News::Unreachable { server: server.clone(), reason });
            }
            Err(reason) => replica.tell(News::Unreachable { server: server.clone(), reason }),
        }
        // Half the wait for certain, half by chance: clients that lost one server do not come back all at once.
        let pause = wait.mul_f64(rand::random_range(0.5..1.0));
        wait = match tokio::time::timeout(pause, network.changed()).await {
            Ok(_) => WAIT_MIN,
            Err(_) => (wait * 2).min(WAIT_MAX),
        };
    }
}

/// One connection from start to end. Returns how long the server's handshake lasted, if it came to that.
async fn dial_once(
    replica: &Arc<Inner>,
    server: &ServerUrl,
    options: &DialOptions,
) -> Result<Option<Duration>, String> {
    let opened = open(replica, server, options).await?;
    let server = (server.clone(), options.credentials.clone());
    match opened {
        Opened::Plain(socket) => Ok(connection::dialled(Arc::clone(replica), *socket, server).await),
        Opened::Encrypted(socket) => Ok(connection::dialled(Arc::clone(replica), *socket, server).await),
    }
}

/// The same with another member of a mesh.
pub(crate) async fn dial_member(
    replica: &Arc<Inner>,
    address: &ServerUrl,
    options: &DialOptions,
    gate: Gate,
) -> Result<(), String> {
    match open(replica, address, options).await? {
        Opened::Plain(socket) => connection::dialled_member(Arc::clone(replica), *socket, gate).await,
        Opened::Encrypted(socket) => connection::dialled_member(Arc::clone(replica), *socket, gate).await,
    }
    Ok(())
}

/// A websocket to somebody that was dialled.
enum Opened {
    Plain(Box<WebSocketStream<Counted<TcpStream>>>),
    Encrypted(Box<WebSocketStream<Counted<TlsStream<TcpStream>>>>),
}

async fn open(replica: &Arc<Inner>, server: &ServerUrl, options: &DialOptions) -> Result<Opened, String> {
    let late = |_| format!("no answer within {CONNECT_TIMEOUT:?}");
    let connect = async {
        let mut request = server.text.as_str().into_client_request().map_err(|error| error.to_string())?;
        if let Some(credentials) = &options.credentials {
            request.headers_mut().insert(AUTHORIZATION, credentials.bearer().await?);
        }
        let stream = TcpStream::connect(&server.authority).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok::<_, String>((request, stream))
    };
    let began = Instant::now();
    let (request, stream) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(late)??;
    let left = CONNECT_TIMEOUT.saturating_sub(began.elapsed());
    if !server.encrypted {
        let socket = tokio::time::timeout(left, upgrade(replica, request, stream)).await.map_err(late)??;
        return Ok(Opened::Plain(Box::new(socket)));
    }
    let connect = async {
        let stream = tls::encrypt(&options.trust, server.host(), stream).await?;
        upgrade(replica, request, stream).await
    };
    let socket = tokio::time::timeout(left, connect).await.map_err(late)??;
    Ok(Opened::Encrypted(Box::new(socket)))
}

/// Makes a websocket of a stream to a server.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    replica: &Arc<Inner>,
    request: Request,
    stream: S,
) -> Result<WebSocketStream<Counted<S>>, String> {
    let config = websocket_config(&replica.limits());
    let upgraded = client_async_with_config(request, Counted::new(stream, u64::MAX), Some(config)).await;
    upgraded.map(|(socket, _)| socket).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_default_port() {
        let authority = |text: &str| text.parse::<ServerUrl>().map(|url| url.authority);
        assert_eq!(authority("ws://example.org"), Ok("example.org:80".into()));
        assert_eq!(authority("ws://127.0.0.1:3030/sync?x=1"), Ok("127.0.0.1:3030".into()));
        assert_eq!(authority("ws://[::1]:3030"), Ok("[::1]:3030".into()));
        assert_eq!(authority("ws://[::1]/"), Ok("[::1]:80".into()));
        assert_eq!(authority("wss://example.org/sync"), Ok("example.org:443".into()));
        assert_eq!(authority("wss://example.org:8443"), Ok("example.org:8443".into()));
    }

    #[test]
    fn what_cannot_be_dialled_says_what_to_write() {
        for text in ["", "http://x", "ws://", "ws://host:port", "ws://a@b", "localhost:3030", "wss://", "wss://host:"] {
            assert_eq!(text.parse::<ServerUrl>(), Err(DialError::NotAnAddress(text.into())));
        }
    }
}

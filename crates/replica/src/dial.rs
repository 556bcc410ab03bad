//! A lasting connection to a server: dials, and dials again.
//!
//! Owns: the server's address, the wait between tries. Must not: give up while the handle lives.
//! Next: `connection.rs`.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tracing::Instrument;

use crate::connection::{self, websocket_config};
use crate::replica::{Inner, News};
use crate::stream::Counted;

/// The first wait; doubles with each failure.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A connection that lasted this long was a success: the next wait is short again.
const STABLE: Duration = Duration::from_secs(5);

/// Longest try to connect and upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server's address: `ws://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    text: String,
    /// `host:port`, for the socket.
    authority: String,
}

/// Why an address cannot be dialled. **State:** nothing was dialled. **Do:** write `ws://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// TLS is not built in. **State:** nothing was dialled. **Do:** use `ws://`, or a TLS proxy on this machine.
    #[error("wss:// is not supported: dial ws://, or put a TLS proxy between")]
    Tls,
    /// Not a websocket URL. **State:** nothing was dialled. **Do:** write `ws://host:port`.
    #[error("{0:?} is not a server address: write ws://host:port")]
    NotAnAddress(String),
}

impl FromStr for ServerUrl {
    type Err = DialError;

    fn from_str(text: &str) -> Result<Self, DialError> {
        if text.starts_with("wss://") {
            return Err(DialError::Tls);
        }
        let bad = || DialError::NotAnAddress(text.to_owned());
        let rest = text.strip_prefix("ws://").ok_or_else(bad)?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || host.contains('@') {
            return Err(bad());
        }
        let after_bracket = host.rsplit(']').next().unwrap_or_default();
        let authority = if after_bracket.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let port = authority.rsplit(':').next().unwrap_or_default();
        port.parse::<u16>().map_err(|_| bad())?;
        Ok(Self { text: text.to_owned(), authority })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
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

    /// The header's value.
    async fn bearer(&self) -> Result<HeaderValue, String> {
        let token = (self.token)().await.map_err(|error| format!("there is no token for it: {error}"))?;
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
    pub(crate) fn start(replica: Arc<Inner>, server: ServerUrl, credentials: Option<Credentials>) -> Self {
        let span = tracing::info_span!("server", address = %server);
        Self { task: tokio::spawn(keep_dialling(replica, server, credentials).instrument(span)) }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_dialling(replica: Arc<Inner>, server: ServerUrl, credentials: Option<Credentials>) {
    let mut network = replica.network.subscribe();
    let mut wait = WAIT_MIN;
    while !*replica.quiet.borrow() {
        network.mark_unchanged();
        match dial_once(&replica, &server, credentials.as_ref()).await {
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
    credentials: Option<&Credentials>,
) -> Result<Option<Duration>, String> {
    let connect = async {
        let mut request = server.text.as_str().into_client_request().map_err(|error| error.to_string())?;
        if let Some(credentials) = credentials {
            request.headers_mut().insert(AUTHORIZATION, credentials.bearer().await?);
        }
        let stream = TcpStream::connect(&server.authority).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let stream = Counted::new(stream, u64::MAX);
        let config = websocket_config(&replica.limits);
        let upgraded = client_async_with_config(request, stream, Some(config)).await;
        upgraded.map_err(|error| error.to_string())
    };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
    let (socket, _) = connected.map_err(|_| format!("no answer within {CONNECT_TIMEOUT:?}"))??;
    Ok(connection::dialled(Arc::clone(replica), socket, server.clone()).await)
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
    }

    #[test]
    fn what_cannot_be_dialled_says_what_to_write() {
        for text in ["", "http://x", "ws://", "ws://host:port", "ws://a@b", "localhost:3030"] {
            assert_eq!(text.parse::<ServerUrl>(), Err(DialError::NotAnAddress(text.into())));
        }
        assert_eq!("wss://example.org".parse::<ServerUrl>(), Err(DialError::Tls));
    }
}

//! A lasting connection to a server: dials, and dials again.
//!
//! Owns: the server's address, the wait between tries. Must not: give up while the handle lives.
//! Next: `connection.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async_with_config;

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

/// A connection that is kept alive until this is dropped.
#[derive(Debug)]
pub struct Dialling {
    task: JoinHandle<()>,
}

impl Dialling {
    pub(crate) fn start(replica: Arc<Inner>, server: ServerUrl) -> Self {
        Self { task: tokio::spawn(keep_dialling(replica, server)) }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_dialling(replica: Arc<Inner>, server: ServerUrl) {
    let mut wait = WAIT_MIN;
    while !*replica.quiet.borrow() {
        match dial_once(&replica, &server).await {
            Ok(Some(joined)) if joined >= STABLE => wait = WAIT_MIN,
            Ok(Some(_)) => {}
            Ok(None) => {
                let reason = "it closed the connection before the handshake was done".to_owned();
                replica.tell(News::Unreachable { server: server.clone(), reason });
            }
            Err(reason) => replica.tell(News::Unreachable { server: server.clone(), reason }),
        }
        // Half the wait for certain, half by chance: clients that lost one server do not come back all at once.
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// One connection from start to end. Returns how long the server's handshake lasted, if it came to that.
async fn dial_once(replica: &Arc<Inner>, server: &ServerUrl) -> Result<Option<Duration>, String> {
    let connect = async {
        let stream = TcpStream::connect(&server.authority).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let stream = Counted::new(stream, u64::MAX);
        let config = websocket_config(&replica.limits);
        let upgraded = client_async_with_config(&server.text, stream, Some(config)).await;
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

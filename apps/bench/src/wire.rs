//! One websocket to a server, with every byte counted.
//!
//! Owns: dialling, socket options, byte counts. Must not: know what the frames mean.
//! Next: `client.rs`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::stats::Stats;

/// A TCP stream that counts.
pub(crate) struct Wire {
    stream: TcpStream,
    stats: Arc<Stats>,
}

/// A websocket over a counted stream.
pub(crate) type Socket = WebSocketStream<Wire>;

/// Where to connect, and from which address.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    url: String,
    address: SocketAddr,
}

impl Endpoint {
    /// Reads `ws://host:port/path`.
    ///
    /// # Errors
    /// When the text is something else, or the host has no address.
    pub(crate) async fn resolve(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("ws://").context("the url must begin with ws://")?;
        let host = rest.split('/').next().unwrap_or(rest);
        let mut addresses =
            tokio::net::lookup_host(host).await.with_context(|| format!("{host}: host:port expected"))?;
        let address = addresses.next().context("the host has no address")?;
        Ok(Self { url: url.to_owned(), address })
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> SocketAddr {
        self.address
    }

    /// As it was given.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Connects; `source` spreads many connections over several local addresses, each with its own ports.
    ///
    /// # Errors
    /// When the server does not accept or refuses the websocket.
    pub(crate) async fn dial(&self, source: Option<IpAddr>, stats: Arc<Stats>) -> anyhow::Result<Socket> {
        self.upgrade(self.connect_from(source, None).await?, stats).await
    }

    /// Connects with a receive buffer of about this size, bytes: what the kernel takes in for one who does not read.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub(crate) async fn dial_narrow(&self, buffer_bytes: u32, stats: Arc<Stats>) -> anyhow::Result<Socket> {
        self.upgrade(self.connect_from(None, Some(buffer_bytes)).await?, stats).await
    }

    /// Connects without a websocket.
    ///
    /// # Errors
    /// When the server does not accept.
    pub(crate) async fn connect(&self) -> anyhow::Result<TcpStream> {
        self.connect_from(None, None).await
    }

    async fn connect_from(&self, source: Option<IpAddr>, buffer_bytes: Option<u32>) -> anyhow::Result<TcpStream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        if let Some(bytes) = buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn upgrade(&self, stream: TcpStream, stats: Arc<Stats>) -> anyhow::Result<Socket> {
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024).max_message_size(None).max_frame_size(None);
        let wire = Wire { stream, stats };
        let (socket, _) = tokio_tungstenite::client_async_with_config(&self.url, wire, Some(config)).await?;
        Ok(socket)
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.stats.read(bytes);
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.stats.bytes_out.fetch_add(*bytes as u64, std::sync::atomic::Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

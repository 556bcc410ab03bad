//! A connection after its handshake.
//!
//! Owns: the handshake, frames in and out. Must not: know documents.
//! Next: `frame.rs`, `client.rs`, `strangers.rs`.

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::frame::{self, Incoming};

pub(crate) struct Session {
    socket: WebSocketStream<TcpStream>,
    peer: String,
    server: String,
}

/// Where a connection leads, with what is presented there.
pub(crate) fn url(token: Option<&str>) -> String {
    token.map_or("ws://localhost/".to_owned(), |token| format!("ws://localhost/?access_token={token}"))
}

impl Session {
    /// Connects and joins; with a token, if there is one.
    ///
    /// # Errors
    /// When the server does not let it in.
    pub(crate) async fn open(address: impl ToSocketAddrs, peer: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = tokio_tungstenite::client_async(url(token), stream).await?;
        let mut session = Self { socket, peer: peer.to_owned(), server: String::new() };
        session.socket.send(Message::binary(frame::join(peer))).await?;
        let answer = session.receive().await?;
        let Incoming::Peer(server) = answer else { bail!("a join was answered with {answer:?}") };
        session.server = server;
        Ok(session)
    }

    /// Says something about a document; it leaves with [`Session::flush`].
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) async fn say(&mut self, kind: &str, document: &str, message: &[u8]) -> anyhow::Result<()> {
        let frame = frame::about(kind, &self.peer, &self.server, document, message);
        Ok(self.socket.feed(Message::binary(frame)).await?)
    }

    /// # Errors
    /// When the connection has ended.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.socket.flush().await?)
    }

    /// The next frame.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) async fn receive(&mut self) -> anyhow::Result<Incoming> {
        loop {
            match self.socket.next().await.context("the connection ended")?? {
                Message::Binary(bytes) => return frame::decode(&bytes),
                Message::Text(text) => bail!("a text message: {text}"),
                Message::Close(_) => bail!("the server closed the connection"),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

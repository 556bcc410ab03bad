//! A peer that sends exactly the bytes it is told to.
//!
//! Owns: one websocket without any manners, and the reading of what the server says to it.
//! Must not: be polite on its own: no retry, no reply, no validation. (tungstenite answers pings while it is read.)
//! Next: `honest.rs`; `../tests/hostile.rs`.

use std::io::Write;
use std::net::TcpStream;

use tokio_tungstenite::tungstenite::client::{IntoClientRequest, client_with_config};
use tokio_tungstenite::tungstenite::handshake::HandshakeError;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WebSocketFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use crate::{Frame, HonestPeer, PATIENCE, SyncMessage};

/// What came from the server.
#[derive(Debug)]
pub enum Received {
    /// A frame.
    Frame(Frame),
    /// The end of the connection, in whatever way.
    Closed,
}

/// A raw connection.
pub struct RawPeer {
    socket: WebSocket<TcpStream>,
    id: String,
    server: String,
}

impl RawPeer {
    /// Opens a websocket and says nothing.
    ///
    /// # Panics
    /// When the server refuses the connection.
    #[must_use]
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let (socket, _) = client_with_config(format!("ws://{address}/"), stream, Some(config))
            .unwrap_or_else(|error| panic!("no websocket: {error}"));
        Self { socket, id: String::new(), server: String::new() }
    }

    /// Opens a websocket at a path, with more headers in the request.
    ///
    /// # Errors
    /// The status with which the server refuses, and its words.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn try_connect(address: &str, path: &str, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        let stream = TcpStream::connect(address).expect("the server accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a good request");
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            request.headers_mut().insert(name, value.parse().expect("a header's value"));
        }
        match client_with_config(request, stream, None) {
            Ok((socket, _)) => Ok(Self { socket, id: String::new(), server: String::new() }),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let words = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                Err((response.status().as_u16(), words.into_owned()))
            }
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// Joins on a connection that is open, with this frame. Returns what the server says if it does not greet back.
    ///
    /// # Errors
    /// What its `error` frames said before it closed.
    pub fn join_by(&mut self, frame: &Frame) -> Result<(), Vec<String>> {
        self.send(frame);
        match self.receive() {
            Received::Frame(greeting) if greeting.kind() == "peer" => {
                self.id = frame.text_of("senderId").to_owned();
                self.server = greeting.text_of("senderId").to_owned();
                Ok(())
            }
            Received::Frame(frame) => {
                let mut told = vec![frame.text_of("message").to_owned()];
                told.extend(self.until_closed());
                Err(told)
            }
            Received::Closed => Err(Vec::new()),
        }
    }

    /// Opens a websocket and joins.
    ///
    /// # Panics
    /// When the server does not greet back.
    #[must_use]
    pub fn join(address: &str, id: &str) -> Self {
        let mut peer = Self::connect(address);
        peer.send(&Frame::join(id));
        let Received::Frame(greeting) = peer.receive() else { panic!("the server closed on a proper join") };
        assert_eq!(greeting.kind(), "peer", "a join is answered with a peer message, not {greeting:?}");
        peer.id = id.to_owned();
        peer.server = greeting.text_of("senderId").to_owned();
        peer
    }

    /// A frame of this kind about a document, addressed as it should be.
    #[must_use]
    pub fn about(&self, kind: &str, document: &str) -> Frame {
        Frame::new(kind).text("senderId", &self.id).text("targetId", &self.server).text("documentId", document)
    }

    /// Sends a frame. A connection that the server has closed meanwhile shows when it is read.
    pub fn send(&mut self, frame: &Frame) {
        self.send_bytes(frame.encode());
    }

    /// Sends a binary message.
    pub fn send_bytes(&mut self, bytes: Vec<u8>) {
        // A refusal that arrives while we still write is a result, not an error; `receive` reports it.
        let _ = self.socket.send(Message::binary(bytes));
    }

    /// Sends a text message.
    pub fn send_text(&mut self, text: &str) {
        let _ = self.socket.send(Message::text(text));
    }

    /// Sends one piece of a fragmented binary message.
    pub fn send_piece(&mut self, bytes: Vec<u8>, first: bool, last: bool) {
        let kind = if first { Data::Binary } else { Data::Continue };
        let _ = self.socket.send(Message::Frame(WebSocketFrame::message(bytes, OpCode::Data(kind), last)));
    }

    /// Sends bytes that are no websocket frame at all.
    pub fn send_unframed(&mut self, bytes: &[u8]) {
        let _ = self.socket.get_mut().write_all(bytes);
    }

    /// The next frame, or the end.
    ///
    /// # Panics
    /// When nothing comes in time, or the server sends what a stock client cannot read.
    pub fn receive(&mut self) -> Received {
        loop {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => {
                    let frame = Frame::decode(&bytes);
                    return Received::Frame(frame.unwrap_or_else(|error| panic!("unreadable frame: {error}")));
                }
                Ok(Message::Text(text)) => panic!("a stock client cannot read text frames: {text}"),
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
                {
                    panic!("nothing came from the server in {PATIENCE:?}")
                }
                Err(_) => return Received::Closed,
            }
        }
    }

    /// Reads until the server closes, and returns what its `error` frames said.
    pub fn until_closed(&mut self) -> Vec<String> {
        let mut messages = Vec::new();
        while let Received::Frame(frame) = self.receive() {
            if frame.kind() == "error" {
                messages.push(frame.text_of("message").to_owned());
            }
        }
        messages
    }

    /// Asks for a document that nobody has, to learn whether the connection still works, and reads what came before.
    ///
    /// # Panics
    /// When the server neither answers nor closes.
    pub fn aftermath(&mut self) -> Aftermath {
        let probe = HonestPeer::fresh_document_id();
        // What a stock client with an empty document asks.
        let question = self.about("request", &probe).bytes("data", &SyncMessage::bringing(&[], Vec::new()).encode());
        self.send(&question);
        let mut told = Vec::new();
        loop {
            match self.receive() {
                Received::Frame(frame) if frame.kind() == "error" => told.push(frame.text_of("message").to_owned()),
                Received::Frame(frame) if frame.text_of("documentId") == probe => {
                    return Aftermath { told, open: true };
                }
                Received::Frame(_) => {}
                Received::Closed => return Aftermath { told, open: false },
            }
        }
    }
}

/// What became of a connection after something was sent on it.
#[derive(Debug)]
pub struct Aftermath {
    /// What the server's `error` frames said.
    pub told: Vec<String>,
    /// Whether the server still answers on it.
    pub open: bool,
}

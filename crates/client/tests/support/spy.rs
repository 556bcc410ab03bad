//! Somebody between a client and its server who reads along, and can speak in the server's name.
//!
//! Owns: every frame that passed, both ways. Must not: change or hold back one.
//! Next: `mod.rs`, `../selection.rs`.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;
use syncline_core::wire::{self, Body, Envelope};
use syncline_server::Server;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

/// A place to connect to in place of the server.
pub(crate) struct Spy {
    address: String,
    frames: Arc<Mutex<Vec<Frame>>>,
    ticks: watch::Sender<u64>,
    inject: mpsc::UnboundedSender<Body<'static>>,
    task: JoinHandle<()>,
}

/// A frame that passed.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) from_client: bool,
    pub(crate) bytes: Bytes,
}

impl Frame {
    /// Whether it names the document, in either of the forms that protocols have for it.
    pub(crate) fn names(&self, id: &DocumentId) -> bool {
        let text = id.to_string();
        [text.as_bytes(), id.as_bytes()].iter().any(|name| self.bytes.windows(name.len()).any(|window| window == *name))
    }

    pub(crate) fn kind(&self) -> String {
        let limits = Limits::default();
        let envelope = wire::decode(&self.bytes, &limits).expect("both ends are honest");
        let kind = format!("{:?}", envelope.message);
        kind.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
    }
}

impl Spy {
    /// Before this server; each connection to the spy becomes one to it.
    pub(crate) async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (frames, ticks, upstream) = (Arc::default(), watch::Sender::new(0), server.address().to_string());
        let (inject, injected) = mpsc::unbounded_channel();
        let task = tokio::spawn(listen(listener, upstream, Arc::clone(&frames), ticks.clone(), injected));
        Self { address, frames, ticks, inject, task }
    }

    pub(crate) fn address(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Says something to the client in the server's name.
    pub(crate) fn say(&self, body: Body<'static>) {
        self.inject.send(body).expect("a connection");
    }

    /// The frames that have passed so far and name this document.
    pub(crate) fn about(&self, id: &DocumentId) -> Vec<Frame> {
        let frames = self.frames.lock().expect("nobody panicked");
        frames.iter().filter(|frame| frame.names(id)).cloned().collect()
    }

    /// Waits until so many frames of the client name this document.
    pub(crate) async fn hears(&self, id: &DocumentId, count: usize) {
        let mut ticks = self.ticks.subscribe();
        while self.about(id).iter().filter(|frame| frame.from_client).count() < count {
            super::within("the client speaks of it", ticks.changed()).await.expect("the spy lives");
        }
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    listener: TcpListener,
    upstream: String,
    frames: Arc<Mutex<Vec<Frame>>>,
    ticks: watch::Sender<u64>,
    mut injected: mpsc::UnboundedReceiver<Body<'static>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut client = accept_async(stream).await.expect("a websocket");
        let stream = TcpStream::connect(&upstream).await.expect("the server listens");
        let (mut server, _) = client_async(format!("ws://{upstream}/"), stream).await.expect("a websocket");
        let (mut client_name, mut server_name) = (String::new(), String::new());
        loop {
            let (from_client, message) = tokio::select! {
                message = client.next() => (true, message),
                message = server.next() => (false, message),
                Some(body) = injected.recv() => {
                    let mut frame = Vec::new();
                    wire::encode(&server_name, Some(&client_name), &body, &mut frame);
                    client.send(Message::Binary(frame.into())).await.expect("the client reads");
                    continue;
                }
            };
            let Some(Ok(message)) = message else { break };
            if let Message::Binary(bytes) = &message {
                let limits = Limits::default();
                let Envelope { sender, .. } = wire::decode(bytes, &limits).expect("both ends are honest");
                let name = if from_client { &mut client_name } else { &mut server_name };
                sender.clone_into(name);
                frames.lock().expect("nobody panicked").push(Frame { from_client, bytes: bytes.clone() });
                ticks.send_modify(|ticks| *ticks += 1);
            }
            let passed = if from_client { server.send(message).await } else { client.send(message).await };
            if passed.is_err() {
                break;
            }
        }
    }
}

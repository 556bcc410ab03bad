//! A client that has nothing fetches documents, to see what a server really has.
//!
//! Owns: one connection straight to the server, and every change hash that came over it, repetitions included.
//! Must not: bring anything: what it finds was there. Next: `chunk.rs`, `checker.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use automerge::sync::{self, SyncDoc};
use automerge::{AutoCommit, ChangeHash, ReadDoc};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::chunk;
use crate::frame::{self, Incoming};
use crate::history::{DocumentId, Event, Lineage};
use crate::session;

const PEER: &str = "chaos-reader";

/// What a server says to whoever takes too long to join.
const TOO_LATE: &str = "no handshake within";

#[derive(Default)]
struct Fetch {
    number: DocumentId,
    doc: AutoCommit,
    state: sync::State,
    hashes: Vec<ChangeHash>,
    done: bool,
}

/// Fetches these documents; an event for each.
///
/// # Errors
/// When the server does not answer, or with what a stock client could not read.
pub(crate) async fn read(
    address: SocketAddr,
    lineage: Lineage,
    documents: &[(DocumentId, String)],
    token: Option<&str>,
) -> anyhow::Result<Vec<Event>> {
    loop {
        if let Some(events) = try_to_read(address, lineage, documents, token).await? {
            return Ok(events);
        }
    }
}

/// One connection; nothing when the server gave up on our join: on a busy machine we may be too slow for it.
async fn try_to_read(
    address: SocketAddr,
    lineage: Lineage,
    documents: &[(DocumentId, String)],
    token: Option<&str>,
) -> anyhow::Result<Option<Vec<Event>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = tokio_tungstenite::client_async(session::url(token), stream).await?;
    socket.send(Message::binary(frame::join(PEER))).await?;
    let mut server = None;
    let mut fetches: BTreeMap<String, Fetch> = BTreeMap::new();
    while server.is_none() || fetches.values().any(|fetch| !fetch.done) {
        let bytes = match socket.next().await.context("the server hung up on a reader")?? {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => bail!("a text message: {text}"),
            Message::Close(_) => bail!("the server closed the reader's connection"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let mut frames = Vec::new();
        match frame::decode(&bytes)? {
            Incoming::Peer(id) => {
                for (number, document) in documents {
                    let mut fetch = Fetch { number: *number, ..Fetch::default() };
                    frames.extend(fetch.speak("request", &id, document));
                    fetches.insert(document.clone(), fetch);
                }
                server = Some(id);
            }
            Incoming::Sync(document, data) => {
                let fetch = fetches.get_mut(&document).context("a document that was not asked for")?;
                fetch.hear(&data)?;
                let id = server.as_deref().context("a server introduces itself first")?;
                frames.extend(fetch.speak("sync", id, &document));
            }
            Incoming::Unavailable(document) => {
                fetches.get_mut(&document).context("a document that was not asked for")?.done = true;
            }
            Incoming::Error(message) if server.is_none() && message.contains(TOO_LATE) => return Ok(None),
            Incoming::Error(message) => bail!("a reader was told: {message}"),
            Incoming::Other => {}
        }
        for frame in frames {
            socket.send(Message::binary(frame)).await?;
        }
    }
    Ok(Some(fetches.into_values().map(|fetch| fetch.into_event(lineage)).collect()))
}

impl Fetch {
    fn hear(&mut self, data: &[u8]) -> anyhow::Result<()> {
        let message = sync::Message::decode(data).map_err(|error| anyhow::anyhow!("{error}"))?;
        for chunks in message.changes.iter() {
            self.hashes.extend(chunk::hashes(chunks)?);
        }
        self.doc.sync().receive_sync_message(&mut self.state, message)?;
        let theirs = self.state.their_heads.as_deref().unwrap_or_default();
        // Heads that are all here: everything below them is, too, or automerge would not have them.
        self.done = !theirs.is_empty() && theirs.iter().all(|head| self.doc.get_change_by_hash(head).is_some());
        Ok(())
    }

    fn speak(&mut self, kind: &str, server: &str, document: &str) -> Option<Vec<u8>> {
        let message = self.doc.sync().generate_sync_message(&mut self.state)?;
        Some(frame::about(kind, PEER, server, document, &message.encode()))
    }

    fn into_event(self, lineage: Lineage) -> Event {
        let heads = self.state.their_heads.unwrap_or_default();
        Event::Read { lineage, document: self.number, hashes: self.hashes, heads }
    }
}

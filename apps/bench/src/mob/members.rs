//! What one member of a mob does on one connection.
//!
//! Owns: the frames of each flood. Must not: wait for leave: what the server says is taken and not heard.
//! Next: `../forge.rs`, for frames that no client sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use automerge::ChangeHash;
use automerge::sync::{ChunkList, Have, Message as SyncMessage, MessageVersion};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::{Flood, Mob};
use crate::author::{self, Pen, Seed};
use crate::frame;
use crate::light::Light;
use crate::scenario::upload;
use crate::stats::Stats;
use crate::wire::Socket;

/// A giant that may come, and one that may not where the limit is the usual one.
const GIANT_BYTES: [usize; 2] = [16 << 20, 65 << 20];

/// What the kernel takes in for one who does not read, bytes, about.
const RECEIVE_BUFFER_BYTES: u32 = 4 * 1024;

/// A connection that has joined; what comes is thrown away.
struct Joined {
    sink: SplitSink<Socket, Message>,
    reading: JoinHandle<()>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// A document that takes long to send, for those who will not read it.
pub(super) async fn upload_big(mob: &Mob) -> anyhow::Result<Option<String>> {
    if mob.job.flood != Flood::SlowReaders {
        return Ok(None);
    }
    let stats = Stats::new();
    let (ledger, last) = Seed::typed(300, 1_000)?.document();
    let creator = Light::creator(Arc::clone(&ledger), Arc::clone(&stats), last);
    let options = crate::client::Options {
        endpoint: mob.endpoint.clone(),
        source: None,
        storage_id: None,
        own_thread: false,
        stats,
    };
    let (_, failed) = upload(options, vec![creator], 1, Instant::now() + Duration::from_secs(60)).await?;
    ensure!(failed == 0, "the big document was not confirmed");
    Ok(Some(ledger.id.clone()))
}

impl Mob {
    async fn join(&self, number: usize) -> anyhow::Result<Joined> {
        let (mut sink, mut source) = self.endpoint.dial(None, Stats::new()).await?.split();
        let reading = tokio::spawn(async move { while let Some(Ok(_)) = source.next().await {} });
        sink.send(Message::Binary(frame::encode_join(&name(number), None).into())).await?;
        Ok(Joined { sink, reading })
    }

    /// Sends a frame; an error once the server has ended the connection.
    async fn send(&self, joined: &mut Joined, frame: Vec<u8>) -> anyhow::Result<()> {
        ensure!(!joined.reading.is_finished(), "the server has ended the connection");
        self.note(frame.len());
        Ok(joined.sink.send(Message::Binary(frame.into())).await?)
    }

    pub(super) async fn send_giants(&self, number: usize) -> anyhow::Result<()> {
        let mut joined = self.join(number).await?;
        let document = frame::random_document_id();
        for bytes in GIANT_BYTES.iter().cycle() {
            let mut noise = vec![0; *bytes];
            rand::rng().fill_bytes(&mut noise[..4096]);
            let frame = frame::encode_sync("sync", &name(number), "", &document, &noise);
            self.send(&mut joined, frame).await?;
        }
        Ok(())
    }

    pub(super) async fn chatter(&self, number: usize) -> anyhow::Result<()> {
        let mut joined = self.join(number).await?;
        for count in 1.. {
            self.turn().await;
            let frame = frame::encode_ephemeral(&name(number), &self.job.victim, count, &[0x18, 0x2a]);
            self.send(&mut joined, frame).await?;
        }
        Ok(())
    }

    pub(super) async fn type_wildly(&self, number: usize) -> anyhow::Result<()> {
        let mut joined = self.join(number).await?;
        let (ledger, first) = author::new_document();
        let (mut deps, mut max_op, bytes) = {
            let book = ledger.book();
            let node = book.node(first);
            (node.hash, node.max_op, node.bytes.to_vec())
        };
        self.send(&mut joined, about(number, &ledger.id, deps, bytes)).await?;
        let mut pen = Pen::new();
        loop {
            self.turn().await;
            let change = pen.type_char(&ledger.text, vec![deps], max_op);
            (deps, max_op) = (change.hash(), max_op + 1);
            self.send(&mut joined, about(number, &ledger.id, deps, change.raw_bytes().to_vec())).await?;
        }
    }

    pub(super) async fn read_nothing(&self, number: usize, big: Option<&str>) -> anyhow::Result<()> {
        let mut socket = self.endpoint.dial_narrow(RECEIVE_BUFFER_BYTES, Stats::new()).await?;
        socket.send(Message::Binary(frame::encode_join(&name(number), None).into())).await?;
        let empty = message(Vec::new(), Vec::new());
        for document in big.into_iter().chain([self.job.victim.as_str()]) {
            let frame = frame::encode_sync("request", &name(number), "", document, &empty);
            self.note(frame.len());
            socket.send(Message::Binary(frame.into())).await?;
        }
        // Longer than any mob lasts: it writes a little, so that it is there to be cut off, and reads nothing.
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let frame = frame::encode_sync("sync", &name(number), "", &self.job.victim, &empty);
            socket.send(Message::Binary(frame.into())).await?;
        }
    }

    pub(super) async fn join_and_go(&self, number: usize) -> anyhow::Result<()> {
        let joined = self.join(number).await?;
        drop(joined);
        Ok(())
    }

    pub(super) async fn ask_slowly(&self) -> anyhow::Result<()> {
        let mut stream = self.endpoint.connect().await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: mob\r\nX-Long: ").await?;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stream.write_all(b"x").await.context("the server has ended the connection")?;
            self.note(1);
        }
    }

    pub(super) async fn ask_in_vain(&self, number: usize) -> anyhow::Result<()> {
        let mut joined = self.join(number).await?;
        let empty = message(Vec::new(), Vec::new());
        loop {
            self.turn().await;
            let frame = frame::encode_sync("request", &name(number), "", &frame::random_document_id(), &empty);
            self.send(&mut joined, frame).await?;
        }
    }
}

fn name(number: usize) -> String {
    format!("mob-{number}")
}

fn about(number: usize, document: &str, head: ChangeHash, change: Vec<u8>) -> Vec<u8> {
    frame::encode_sync("sync", &name(number), "", document, &message(vec![head], vec![change]))
}

fn message(heads: Vec<ChangeHash>, changes: Vec<Vec<u8>>) -> Vec<u8> {
    let have = vec![Have::default()];
    let changes = ChunkList::from(changes);
    SyncMessage { heads, need: Vec::new(), have, changes, flags: None, version: MessageVersion::V1 }.encode()
}

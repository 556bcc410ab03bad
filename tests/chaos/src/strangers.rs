//! Strangers beside the honest clients: who may only read and writes, who stores more than it may, who deletes and offers again,
//! whose key is withdrawn, who floods, who never reads.
//!
//! Owns: what each does, and that the server answers as it should. Must not: write into the history: a change of theirs that
//! anybody reads in a document of the honest is a phantom. Next: `rounds.rs`; docs/access.md, docs/chaos.md.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use automerge::sync::{self, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ReadDoc};
use nix::sys::signal::Signal;
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frame::{self, Incoming};
use crate::history::Event;
use crate::rounds::{recover, work_for_a_while};
use crate::rules::{HOUR, Rules};
use crate::session::Session;
use crate::world::{PATIENCE, World};

/// What one subject may store, and pieces of which that is less than three.
const SUBJECT_MIB_MAX: u32 = 1;
const PIECE_BYTES: usize = 400 * 1024;

/// Frames that a flood sends at once.
const WAVE: usize = 64;

/// Restarts with rules, lets strangers do their worst beside the honest, and restarts without.
pub(crate) async fn strangers(world: &mut World) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    world.kill().await?;
    let rules = Rules::new(world.scratch())?;
    world.environment = rules.environment(Some("create"));
    world.environment.push(("SYNCLINE_SUBJECT_MIB_MAX".to_owned(), SUBJECT_MIB_MAX.to_string()));
    world.check_and_read().await?;
    world.let_clients_in();
    world.history.add(Event::Fault { what: "strangers".to_owned() });
    let (address, honest) = (world.server()?.address(), world.documents()[0].1.clone());
    let [own, doomed, flooded] = std::array::from_fn(|_| frame::document_id(world.random.random()));
    let flood = tokio::spawn(flood(address, flooded));
    let _never_read = never_read(address, &honest).await?;
    world.work(1).await?;
    // What one has stored stays its own through the rounds.
    let glutton = format!("glutton {}", world.random.random::<u32>());
    let (reads, creates) = (rules.token("reader", "read", HOUR)?, rules.token(&glutton, "create", HOUR)?);
    let deletes = rules.token("owner", "create,delete", HOUR)?;
    let (mut reader, (), ()) = in_time(async {
        tokio::try_join!(
            write_in_vain(address, &reads, &honest),
            store_too_much(address, &creates, &own),
            delete(address, &deletes, &doomed),
        )
    })
    .await?;
    rules.exchange()?;
    world.server()?.signal(Signal::SIGHUP)?;
    in_time(async {
        while reader.receive().await.is_ok() {}
        Ok(())
    })
    .await?;
    let again = in_time(async { Ok(Session::open(address, "chaos-again", Some(&reads)).await.is_err()) }).await?;
    ensure!(again, "a token of a key that was withdrawn was taken");
    work_for_a_while(world).await?;
    ensure!(!flood.is_finished(), "the flood was cut off: it is to be read slowly");
    flood.abort();
    world.kill().await?;
    world.environment.clear();
    world.check_and_read().await?;
    let address = world.server()?.address();
    in_time(offer_in_vain(Session::open(address, "chaos-late", None).await?, &doomed)).await?;
    recover(world).await?;
    Ok(6)
}

async fn in_time<T>(doing: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, doing).await.context("a stranger waits in vain")?
}

/// A stranger's copy of a document.
struct Copy {
    id: String,
    doc: AutoCommit,
    state: sync::State,
}

impl Copy {
    fn of(id: &str) -> Self {
        Self { id: id.to_owned(), doc: AutoCommit::new(), state: sync::State::new() }
    }

    async fn speak(&mut self, session: &mut Session, kind: &str) -> anyhow::Result<()> {
        if let Some(message) = self.doc.sync().generate_sync_message(&mut self.state) {
            session.say(kind, &self.id, &message.encode()).await?;
        }
        session.flush().await
    }

    fn hear(&mut self, data: &[u8]) -> anyhow::Result<()> {
        let message = sync::Message::decode(data).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(self.doc.sync().receive_sync_message(&mut self.state, message)?)
    }

    /// Whether the server has said what it has, and all of it is here.
    fn is_whole(&mut self) -> bool {
        let theirs = self.state.their_heads.clone().unwrap_or_default();
        !theirs.is_empty() && theirs.iter().all(|head| self.doc.get_change_by_hash(head).is_some())
    }

    /// Whether the server has all that is here.
    fn is_taken(&mut self) -> bool {
        let heads = self.doc.get_heads();
        self.state.their_heads.as_ref() == Some(&heads)
    }
}

/// Reads a document of the honest, writes into it although it may not, and is told. Its connection goes on.
async fn write_in_vain(address: SocketAddr, token: &str, document: &str) -> anyhow::Result<Session> {
    let mut session = Session::open(address, "chaos-reader-only", Some(token)).await?;
    let mut copy = Copy::of(document);
    copy.speak(&mut session, "request").await?;
    while !copy.is_whole() {
        if let Incoming::Sync(id, data) = session.receive().await?
            && id == document
        {
            copy.hear(&data)?;
            copy.speak(&mut session, "sync").await?;
        }
    }
    copy.doc.put(ROOT, "forbidden", true)?;
    loop {
        copy.speak(&mut session, "sync").await?;
        match session.receive().await? {
            Incoming::Sync(id, data) if id == document => copy.hear(&data)?,
            Incoming::Error(words) => {
                ensure!(words.contains("may not be changed"), "a reader that writes is told: {words}");
                return Ok(session);
            }
            Incoming::Sync(..) | Incoming::Unavailable(_) | Incoming::Peer(_) | Incoming::Other => {}
        }
    }
}

/// Stores until its subject has as much as it may, and is told so.
async fn store_too_much(address: SocketAddr, token: &str, document: &str) -> anyhow::Result<()> {
    let mut session = Session::open(address, "chaos-glutton", Some(token)).await?;
    let mut copy = Copy::of(document);
    for piece in 0..3_u8 {
        // Bytes that deflate makes no smaller.
        let noise: Vec<u8> =
            (0..PIECE_BYTES as u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 13) as u8 ^ piece).collect();
        copy.doc.put(ROOT, "noise", noise)?;
        copy.speak(&mut session, if piece == 0 { "request" } else { "sync" }).await?;
        while !copy.is_taken() {
            match session.receive().await? {
                Incoming::Sync(_, data) => copy.hear(&data)?,
                Incoming::Error(words) => {
                    ensure!(words.contains("subject_bytes_max") && piece == 2, "piece {piece} is refused: {words}");
                    return Ok(());
                }
                Incoming::Unavailable(_) | Incoming::Peer(_) | Incoming::Other => {}
            }
            copy.speak(&mut session, "sync").await?;
        }
    }
    anyhow::bail!("a subject stored more than it may")
}

/// Makes a document, deletes it, and offers it again in vain.
async fn delete(address: SocketAddr, token: &str, document: &str) -> anyhow::Result<()> {
    let mut session = Session::open(address, "chaos-owner", Some(token)).await?;
    let mut copy = Copy::of(document);
    copy.doc.put(ROOT, "doomed", true)?;
    copy.speak(&mut session, "request").await?;
    while !copy.is_taken() {
        if let Incoming::Sync(_, data) = session.receive().await? {
            copy.hear(&data)?;
        }
        copy.speak(&mut session, "sync").await?;
    }
    let status = call(address, "DELETE", &format!("/api/documents/{document}"), token).await?;
    ensure!(status.starts_with('2'), "a deletion by who may was answered with {status}");
    offer_in_vain(session, document).await
}

/// Whoever offers a deleted document hears that it is not there.
async fn offer_in_vain(mut session: Session, document: &str) -> anyhow::Result<()> {
    let mut copy = Copy::of(document);
    copy.doc.put(ROOT, "again", true)?;
    copy.speak(&mut session, "request").await?;
    loop {
        match session.receive().await? {
            Incoming::Unavailable(id) if id == document => return Ok(()),
            Incoming::Sync(id, data) if id == document => {
                copy.hear(&data)?;
                ensure!(!copy.is_taken(), "a deleted document was taken again");
                copy.speak(&mut session, "sync").await?;
            }
            Incoming::Sync(..)
            | Incoming::Unavailable(_)
            | Incoming::Error(_)
            | Incoming::Peer(_)
            | Incoming::Other => {}
        }
    }
}

/// Asks for a document and reads nothing.
async fn never_read(address: SocketAddr, document: &str) -> anyhow::Result<Session> {
    let mut session = Session::open(address, "chaos-silent", None).await?;
    Copy::of(document).speak(&mut session, "request").await?;
    Ok(session)
}

/// Sends as fast as it is read, for ever.
async fn flood(address: SocketAddr, document: String) -> anyhow::Result<()> {
    let mut session = Session::open(address, "chaos-flood", None).await?;
    let message = AutoCommit::new().sync().generate_sync_message(&mut sync::State::new()).context("the first")?;
    let message = message.encode();
    loop {
        for _ in 0..WAVE {
            session.say("sync", &document, &message).await?;
        }
        session.flush().await?;
        tokio::time::timeout(Duration::from_millis(1), session.receive()).await.ok().transpose()?;
    }
}

/// The status line's number of an HTTP request without a body.
async fn call(address: SocketAddr, method: &str, path: &str, token: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

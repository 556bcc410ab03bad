//! A directory of very many documents and a server that has them: what those cost that nobody has open.
//!
//! Owns: the memory before and after a part of them was open, the bytes of a connection. Must not: know how the client
//! decides what it speaks of. Next: `job.rs`, `mod.rs`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use automerge::{Automerge, ROOT, ReadDoc};
use serde_json::{Value, json};
use syncline::{DocumentUrl, OnServer, Repo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::process;
use crate::scenario::round;

/// How long nothing may pass until a connection counts as quiet.
const QUIET: Duration = Duration::from_secs(2);

/// Longest wait for quiet.
const PATIENCE: Duration = Duration::from_secs(900);

/// After this long the engine lets go of what is idle.
const IDLE: Duration = Duration::from_secs(35);

/// Everything that passes to and from a server.
#[derive(Debug)]
pub(super) struct Passed {
    up: AtomicU64,
    down: AtomicU64,
    /// Whether connections are let through.
    open: watch::Sender<bool>,
}

impl Passed {
    /// Ends the connections, and lets none through until [`Self::open`].
    pub(super) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    /// When the next byte passes.
    pub(super) async fn first_byte(&self) -> anyhow::Result<Instant> {
        let (began, before) = (Instant::now(), self.bytes());
        while self.bytes() == before {
            ensure!(began.elapsed() < PATIENCE, "nobody connects");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Instant::now())
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.up.load(Relaxed), self.down.load(Relaxed))
    }

    /// Waits until nothing has passed for a while, and returns when the last byte did.
    pub(super) async fn quiet(&self) -> anyhow::Result<Instant> {
        let began = Instant::now();
        let (mut last, mut at) = (self.bytes(), Instant::now());
        while at.elapsed() < QUIET {
            ensure!(began.elapsed() < PATIENCE, "the connection does not become quiet");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.bytes();
            if now != last {
                (last, at) = (now, Instant::now());
            }
        }
        Ok(at)
    }
}

/// A socket in front of the server that counts.
pub(super) async fn counting(server: SocketAddr) -> anyhow::Result<(String, Arc<Passed>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (up, down, open) = (AtomicU64::new(0), AtomicU64::new(0), watch::Sender::new(true));
    let (address, passed) = (format!("ws://{}", listener.local_addr()?), Arc::new(Passed { up, down, open }));
    let counted = Arc::clone(&passed);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            if !*counted.open.borrow() {
                continue;
            }
            let Ok(upstream) = TcpStream::connect(server).await else { return };
            let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), upstream.into_split());
            tokio::spawn(pass(client_in, server_out, Arc::clone(&counted), true));
            tokio::spawn(pass(server_in, client_out, Arc::clone(&counted), false));
        }
    });
    Ok((address, passed))
}

async fn closed(open: &mut watch::Receiver<bool>) {
    // Without a sender nothing closes any more.
    if open.wait_for(|open| !*open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    passed: Arc<Passed>,
    up: bool,
) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut buffer, mut open) = (vec![0; 64 * 1024], passed.open.subscribe());
    loop {
        let count = tokio::select! {
            read = from.read(&mut buffer) => read?,
            () = closed(&mut open) => 0,
        };
        if count == 0 {
            return to.shutdown().await;
        }
        let counter = if up { &passed.up } else { &passed.down };
        counter.fetch_add(count as u64, Relaxed);
        to.write_all(&buffer[..count]).await?;
    }
}

/// Brings a directory's documents to a server that has none of them.
///
/// # Errors
/// When they do not arrive.
pub(super) async fn upload(directory: &Path, server: SocketAddr) -> anyhow::Result<Value> {
    let repo = Repo::open(directory)?;
    let (address, passed) = counting(server).await?;
    let began = Instant::now();
    let _link = repo.connect(&address)?;
    let end = passed.quiet().await?;
    let unsynced = repo.unsynced()?.len();
    ensure!(unsynced == 0, "{unsynced} documents have not arrived");
    let (up, down) = passed.bytes();
    Ok(json!({ "seconds": round((end - began).as_secs_f64()), "up_bytes": up, "down_bytes": down }))
}

/// Opens the directory, opens some documents and lets go of them, first without a server and then with one.
///
/// # Errors
/// When a document is not what was filled in.
pub(super) async fn touch(directory: &Path, server: SocketAddr, touched: usize) -> anyhow::Result<Value> {
    let repo = Repo::open(directory)?;
    let opened = resident_mib()?;
    let urls = repo.list()?;
    let spread: Vec<_> = urls.iter().step_by((urls.len() / touched.max(1)).max(1)).take(touched).cloned().collect();
    let listed = resident_mib()?;
    let began = Instant::now();
    let handles = open_all(&repo, &spread)?;
    let opening_ms = began.elapsed().as_secs_f64() * 1_000.0;
    let holding = resident_mib()?;
    drop(handles);
    tokio::time::sleep(IDLE).await;
    let dropped = resident_mib()?;

    let cpu = process::cpu_seconds(std::process::id());
    let (address, passed) = counting(server).await?;
    let link = repo.connect(&address)?;
    link.connected().await?;
    passed.quiet().await?;
    let (up, down) = passed.bytes();
    let connecting_cpu_s =
        process::cpu_seconds(std::process::id()).zip(cpu).map(|(after, before)| round(after - before));
    let connected = resident_mib()?;
    let handles = open_all(&repo, &spread)?;
    for document in &handles {
        let mut status = document.status();
        while status.server != OnServer::InSync {
            status = tokio::time::timeout(PATIENCE, document.status_changed(&status)).await.context("no answer")?;
        }
    }
    let in_sync = resident_mib()?;
    drop(handles);
    tokio::time::sleep(IDLE).await;
    let (all_up, all_down) = passed.bytes();
    Ok(json!({
        "documents": urls.len(),
        "touched": spread.len(),
        "opening_ms": round(opening_ms),
        "rss_mib": {
            "opened": opened, "listed": listed, "holding": holding, "dropped": dropped,
            "connected": connected, "holding_in_sync": in_sync, "dropped_connected": resident_mib()?,
        },
        "connect": { "up_bytes": up, "down_bytes": down, "cpu_s": connecting_cpu_s },
        "touched_in_sync": { "up_bytes": all_up - up, "down_bytes": all_down - down },
    }))
}

fn open_all(repo: &Repo, urls: &[DocumentUrl]) -> anyhow::Result<Vec<syncline::Document>> {
    let open = |url: &DocumentUrl| {
        let document = repo.find_local(url)?;
        let read = document.read(|doc: &Automerge| doc.get(ROOT, "number").map(|found| found.is_some()))?;
        ensure!(read?, "{url} has no number");
        Ok(document)
    };
    urls.iter().map(open).collect()
}

fn resident_mib() -> anyhow::Result<f64> {
    let memory = process::memory(std::process::id()).context("this process is in /proc")?;
    Ok(round(memory.resident_kib as f64 / 1_024.0))
}

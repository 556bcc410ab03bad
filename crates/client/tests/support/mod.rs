//! What the tests of the client share: a server in this process, documents with one field each.
//!
//! Owns: the bound after which a test that hangs fails. Must not: assert.
//! Next: `local.rs`, `sync.rs`.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

pub(crate) mod spy;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use syncline::automerge::transaction::Transactable;
use syncline::automerge::{ROOT, ReadDoc};
pub(crate) use syncline::block_on;
use syncline::{Document, Repo, Status};
use syncline_core::limits::Limits;
use syncline_core::loader::InProcess;
use syncline_server::{Config, Server};
use tempfile::TempDir;

/// A server over this directory, on this port or a free one.
pub(crate) async fn serve(data: &Path, listen: Option<SocketAddr>) -> Server {
    serve_with(data, listen, Limits::default()).await
}

pub(crate) async fn serve_with(data: &Path, listen: Option<SocketAddr>, limits: Limits) -> Server {
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = Config { limits, ..Config::new(listen, data.to_owned(), Arc::new(InProcess)) };
    Server::start(config).await.expect("a server")
}

/// A server that is set up in its own way, on a free port.
pub(crate) async fn serve_as(data: &Path, set: impl FnOnce(Config) -> Config) -> Server {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = set(Config::new(listen, data.to_owned(), Arc::new(InProcess)));
    Server::start(config).await.expect("a server")
}

pub(crate) fn address(server: &Server) -> String {
    format!("ws://{}", server.address())
}

/// The future's result; a test that waits for ever fails instead.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let bounded = tokio::time::timeout(Duration::from_secs(60), future).await;
    bounded.unwrap_or_else(|_| panic!("waited too long until {what}"))
}

pub(crate) fn is_ready<F: Future>(future: F) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

pub(crate) fn note(repo: &Repo, text: &str) -> Document {
    repo.create(|tx| tx.put(ROOT, "text", text)).expect("a document")
}

pub(crate) fn put(document: &Document, key: &str, value: &str) {
    document.change(|tx| tx.put(ROOT, key, value)).expect("a change");
}

pub(crate) fn value(document: &Document, key: &str) -> Option<String> {
    let read = document.read(|doc| {
        let found = doc.get(ROOT, key).expect("a readable document");
        found.and_then(|(value, _)| value.as_str().map(str::to_owned))
    });
    read.expect("a document that can be shown")
}

/// Waits until the field has the value, by watching.
pub(crate) async fn becomes(document: &Document, key: &str, wanted: &str) {
    let mut watch = document.watch();
    while value(document, key).as_deref() != Some(wanted) {
        within(&format!("{key} is {wanted}"), watch.changed()).await.expect("an open repo");
    }
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

pub(crate) fn repo(directory: &TempDir) -> Repo {
    Repo::open(directory.path()).expect("a repo")
}

pub(crate) async fn on_server(document: &Document) {
    within("it is on the server", document.on_server()).await.expect("an open repo");
}

pub(crate) async fn until(document: &Document, wanted: impl Fn(&Status) -> bool) {
    let mut status = document.status();
    while !wanted(&status) {
        status = within("the status is as it should be", document.status_changed(&status)).await;
    }
}

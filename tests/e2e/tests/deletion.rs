//! A document that was deleted on the server, and the automerge-repo pages and samod repos that still hold it.
//!
//! Owns: what those see, and that they cost the server nothing but answers. The deletion comes from a raw peer that
//! speaks the native extension by hand. Must not: look inside the server. Next: `javascript.rs`; docs/deletion.md.

use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use futures_util::StreamExt;
use samod::{BackoffConfig, DocHandle, Repo, SearchState};
use serde_json::json;
use syncline_e2e::{Browser, DataDirectory, Found, Frame, Item, PATIENCE, PackageSet, RawPeer, Received, Server};

/// A Syncline replica, as far as a deletion needs one.
struct Replica(RawPeer);

impl Replica {
    fn join(server: &Server) -> Self {
        let mut peer = RawPeer::connect(server.address());
        let metadata = [("synclineVersion".to_owned(), Item::Number(1.0))];
        peer.send(&Frame::join("replica").with("peerMetadata", Item::Map(metadata.into())));
        let Received::Frame(greeting) = peer.receive() else { panic!("the server closed on a proper join") };
        let Some(Item::Map(metadata)) = greeting.field("peerMetadata") else { panic!("no metadata: {greeting:?}") };
        let speaks = matches!(metadata.get("synclineVersion"), Some(Item::Number(version)) if *version >= 1.0);
        assert!(speaks, "the server speaks it too: {metadata:?}");
        Self(peer)
    }

    /// Says that the document is deleted or restored, at this time of its own clock, and waits until the server has
    /// taken it in.
    fn says(&mut self, document: &str, deleted: bool, time: u64) {
        let id = bs58::decode(document).into_vec().expect("base58");
        let id = &id[..id.len() - 4];
        let record =
            [&[1, u8::from(deleted)][..], &(time << 16).to_be_bytes(), &[9; 16], &[id.len() as u8], id].concat();
        self.0.send(&Frame::new("syncline").text("senderId", "replica").bytes("data", &record));
        // An older record is answered with the one that stands.
        let older = [&[1, 0][..], &[0; 8], &[0; 16], &[id.len() as u8], id].concat();
        self.0.send(&Frame::new("syncline").text("senderId", "replica").bytes("data", &older));
        loop {
            let Received::Frame(frame) = self.0.receive() else { panic!("the server hung up") };
            if frame.kind() == "syncline" && frame.bytes_of("data") == record {
                return;
            }
        }
    }
}

fn frames_received(server: &Server) -> u64 {
    let metrics = server.http("/metrics").body;
    let line = metrics.lines().find(|line| line.starts_with("syncline_frames_received_total"));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|number| number.parse().ok()).expect("a counter")
}

fn check(set: PackageSet) {
    let Some(browser) = Browser::start(set) else { return };
    if Server::is_reference() {
        return;
    }
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let holder = browser.open("holder", &server.url());
    let (document, other) = (holder.create(json!({ "text": "a" })), holder.create(json!({ "n": 0 })));
    for document in [&document, &other] {
        holder.until_on_server(&document.url, &document.heads);
    }
    let id = document.url.trim_start_matches("automerge:").to_owned();
    Replica::join(&server).says(&id, true, 1_000);

    // It edits what it holds, now and over a new connection, and the server goes on refusing.
    let edit = |page: &syncline_e2e::Page<'_>, value: u64| {
        page.change(&document.url, json!([{ "op": "set", "path": ["edit"], "value": value }]))
    };
    edit(&holder, 1);
    server.kill();
    holder.until_connected(false);
    edit(&holder, 2);
    server.start_again(data.path());
    holder.until_connected(true);
    let heads = edit(&holder, 3);
    let fresh = browser.open("fresh", &server.url());
    assert_eq!(fresh.find(&document.url), Found::Unavailable, "it does not come back");

    // Both are served as ever, and nobody asks again and again.
    assert_eq!(fresh.find(&other.url), Found::Ready);
    let before = frames_received(&server);
    for n in 1..=5 {
        let heads = holder.change(&other.url, json!([{ "op": "set", "path": ["n"], "value": n }]));
        fresh.until_heads(&other.url, &heads);
    }
    let spent = frames_received(&server) - before;
    assert!(spent <= 40, "{spent} frames for five edits");

    // Restored, it reaches everyone with what was written meanwhile.
    Replica::join(&server).says(&id, false, 2_000);
    holder.until_on_server(&document.url, &heads);
    assert_eq!(fresh.find(&document.url), Found::Ready);
    fresh.until_heads(&document.url, &heads);
    assert!(server.stop().success());
    assert!(Server::check(data.path()).status.success());
}

#[test]
fn pages_that_hold_a_deleted_document_are_refused_politely_newest() {
    check(PackageSet::Newest);
}

#[test]
fn pages_that_hold_a_deleted_document_are_refused_politely_oldest() {
    check(PackageSet::Oldest);
}

/// What the check counts of a data directory, also while a server runs on it.
fn documents_in(data: &DataDirectory) -> String {
    let check = Server::check(data.path());
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{said}");
    let documents = said.split("clean: ").nth(1).and_then(|rest| rest.split(',').next());
    documents.unwrap_or_else(|| panic!("no count in {said}")).to_owned()
}

/// A document of samod's that is on the server, and the repo that made it.
async fn made_with_samod(server: &Server) -> (Repo, DocHandle) {
    let repo = samod_at(server).await;
    let mut document = Automerge::new();
    let mut transaction = document.transaction();
    transaction.put(ROOT, "n", 0).expect("the root accepts any key");
    transaction.commit();
    let handle = repo.create(document).await.expect("the repo runs");
    found(&samod_at(server).await, &handle).await;
    (repo, handle)
}

async fn samod_at(server: &Server) -> Repo {
    let repo = Repo::build_tokio().load().await;
    let url = url::Url::parse(&server.url()).expect("the server's address is a URL");
    let (initial_delay, max_delay) = (Duration::from_millis(50), Duration::from_millis(250));
    let dialer = repo.dial_websocket(url, BackoffConfig { initial_delay, max_delay, max_retries: None });
    let joined = tokio::time::timeout(PATIENCE, dialer.expect("the repo runs").established()).await;
    joined.expect("within the test's patience").expect("the server accepts the join");
    repo
}

/// Searches until the document is there, however long it is not.
async fn found(repo: &Repo, document: &DocHandle) -> DocHandle {
    let (mut state, mut updates) = repo.search(document.document_id().clone()).expect("the repo runs");
    loop {
        if let SearchState::Found(handle) = state {
            return handle;
        }
        let update = tokio::time::timeout(PATIENCE, updates.next()).await;
        state = update.expect("it is found within the test's patience").expect("the repo runs");
    }
}

fn set(handle: &DocHandle, value: i64) {
    handle.with_document(|doc| {
        let mut transaction = doc.transaction();
        transaction.put(ROOT, "n", value).expect("the root accepts any key");
        transaction.commit();
    });
}

fn number(handle: &DocHandle) -> Option<i64> {
    handle.with_document(|doc| doc.get(ROOT, "n").expect("readable").and_then(|(value, _)| value.as_i64()))
}

#[tokio::test(flavor = "multi_thread")]
async fn samod_keeps_what_it_holds_of_a_deleted_document_and_gives_it_back_after_a_restore() {
    if Server::is_reference() {
        return;
    }
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let (_repo, held) = made_with_samod(&server).await;
    let id = held.document_id().to_string();
    let mut replica = Replica::join(&server);
    replica.says(&id, true, 1_000);

    set(&held, 1);
    assert_eq!(number(&held), Some(1), "it goes on with its own copy");
    let control = held.with_document(|doc| doc.get_heads());
    server.until_refused(0);
    let other = samod_at(&server).await;
    let denied = tokio::time::timeout(PATIENCE, other.find(held.document_id().clone())).await;
    assert!(matches!(denied, Ok(Ok(None))), "nobody gets it any more");
    replica.says(&id, false, 2_000);
    let again = found(&other, &held).await;
    let mut changes = again.changes();
    while again.with_document(|doc| doc.get_heads()) != control {
        tokio::time::timeout(PATIENCE, changes.next()).await.expect("it arrives").expect("the repo runs");
    }
    assert_eq!(number(&again), Some(1), "what was written meanwhile comes with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_of_a_deleted_document_goes_when_its_time_is_over() {
    if Server::is_reference() {
        return;
    }
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let (repo, held) = made_with_samod(&server).await;
    repo.stop().await;
    Replica::join(&server).says(&held.document_id().to_string(), true, 1_000);
    assert!(server.stop().success());
    assert_eq!(documents_in(&data), "1 documents", "it is there for 30 days");

    let _server = Server::start_with(data.path(), &["--deleted-keep-days", "0"]);
    let began = Instant::now();
    while documents_in(&data) != "0 documents" {
        assert!(began.elapsed() < PATIENCE, "it is not removed");
    }
}

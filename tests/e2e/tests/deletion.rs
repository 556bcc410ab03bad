//! A document that was deleted on the server, and the automerge-repo pages that still hold it.
//!
//! Owns: what those pages see, and that they cost the server nothing but answers. The deletion comes from a raw peer that
//! speaks the native extension by hand. Must not: look inside the server. Next: `javascript.rs`; docs/deletion.md.

use serde_json::json;
use syncline_e2e::{Browser, DataDirectory, Found, Frame, Item, PackageSet, RawPeer, Received, Server};

/// A Syncline replica, as far as a deletion needs one.
struct Replica(RawPeer);

impl Replica {
    fn join(server: &Server) -> Self {
        let mut peer = RawPeer::connect(server.address());
        let metadata = [("synclineVersion".to_owned(), Item::Number(1.0))];
        peer.send(&Frame::join("replica").with("peerMetadata", Item::Map(metadata.into())));
        let Received::Frame(greeting) = peer.receive() else { panic!("the server closed on a proper join") };
        let Some(Item::Map(metadata)) = greeting.field("peerMetadata") else { panic!("no metadata: {greeting:?}") };
        assert_eq!(metadata.get("synclineVersion"), Some(&Item::Number(2.0)), "the server speaks it too");
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

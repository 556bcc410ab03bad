//! The same document here and in JavaScript, with the real automerge-repo.
//!
//! Owns: that both sides read the same of every type. Must not: test the server; tests/e2e does.
//! Next: `typed.rs`; tests/e2e/js/driver.mjs.

mod support;

use std::collections::BTreeMap;

use autosurgeon::bytes::ByteVec;
use autosurgeon::{Hydrate, Reconcile};
use serde_json::{Value, json};
use support::{address, serve, within};
use syncline::automerge::TextEncoding;
use syncline::automerge::marks::ExpandMark;
use syncline::value::{Blob, Counter, Date, Integer, Number, Text};
use syncline::{BlobHash, Document, DocumentUrl, Error, Options, PresenceOptions, Repo};
use syncline_e2e::{Browser, PackageSet, Page};
use syncline_server::Server;

/// A repo, a server and a page; what is made on one side is found on the other.
struct World {
    repo: Repo,
    _link: syncline::Server,
    server: Server,
    _data: tempfile::TempDir,
}

impl World {
    async fn new(text_encoding: TextEncoding) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let server = serve(data.path(), None).await;
        let repo = Repo::memory_with(Options { text_encoding, ..Options::default() }).expect("a repo");
        let link = repo.connect(&address(&server)).expect("an address");
        Self { repo, _link: link, server, _data: data }
    }

    /// The page's commands block, which this test's runtime has threads for.
    fn page<'a>(&self, browser: &'a Browser) -> Page<'a> {
        tokio::task::block_in_place(|| browser.open("page", &address(&self.server)))
    }

    async fn find(&self, url: &str) -> Document {
        let url: DocumentUrl = url.parse().expect("a URL");
        loop {
            match within("it is found", self.repo.find(&url)).await {
                Ok(document) => return document,
                // The page may not have uploaded it yet.
                Err(Error::Unavailable { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The heads as JavaScript writes them.
fn heads(document: &Document) -> Value {
    let url = document.url_at(&document.heads()).to_string();
    url.split('#').nth(1).expect("heads").split('|').collect()
}

#[derive(Debug, Clone, PartialEq, Hydrate, Reconcile)]
struct Everything {
    text: Text,
    whole: Integer,
    number: Number,
    date: Date,
    counter: Counter,
    bytes: ByteVec,
    yes: bool,
    nothing: Option<Text>,
    list: Vec<Text>,
    inner: Inner,
}

#[derive(Debug, Clone, PartialEq, Hydrate, Reconcile)]
struct Inner {
    plain: String,
    large: i64,
}

fn everything() -> Everything {
    Everything {
        text: "Grüße 🎉".into(),
        whole: 42.into(),
        number: 1.5.into(),
        date: Date::from_millis(1_700_000_000_123),
        counter: Counter::new(7),
        bytes: ByteVec::from(vec![0, 255]),
        yes: true,
        nothing: None,
        list: vec!["one".into(), "zwei".into()],
        inner: Inner { plain: "not edited together".to_owned(), large: 9_007_199_254_740_993 },
    }
}

fn tagged() -> Value {
    json!({
        "text": "Grüße 🎉",
        "whole": 42,
        "number": 1.5,
        "date": { "$date": 1_700_000_000_123_i64 },
        "counter": { "$counter": 7 },
        "bytes": { "$bytes": "00ff" },
        "yes": true,
        "nothing": null,
        "list": ["one", "zwei"],
        "inner": { "plain": { "$scalar": "not edited together" }, "large": { "$big": "9007199254740993" } },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_the_same_on_both_sides() {
    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    let world = World::new(TextEncoding::UnicodeCodePoint).await;
    let page = world.page(&browser);
    let made_here = world.repo.create_from(&everything()).expect("a document");
    within("it is on the server", made_here.on_server()).await.expect("open");
    let url = made_here.url().to_string();
    let (read, made_there) = tokio::task::block_in_place(|| {
        page.find(&url);
        page.until_heads(&url, &heads(&made_here));
        (page.read(&url), page.create(tagged()))
    });
    assert_eq!(read, tagged());
    let found = world.find(&made_there.url).await;
    assert_eq!(found.hydrate::<Everything>().expect("the same types"), everything());

    found
        .update(|everything: &mut Everything| {
            everything.text.push_str(" from Rust");
            everything.counter.add(1);
            everything.number = 2.0.into();
            everything.list.insert(0, "zero".into());
        })
        .expect("a change");
    let url = &made_there.url;
    let read = tokio::task::block_in_place(|| {
        page.until_heads(url, &heads(&found));
        page.read(url)
    });
    assert_eq!(read["text"], "Grüße 🎉 from Rust");
    assert_eq!((&read["counter"], &read["number"]), (&json!({ "$counter": 8 }), &json!(2)));
    assert_eq!(read["list"], json!(["zero", "one", "zwei"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_javascript_string_in_a_string_field_is_an_error_that_says_what_to_do() {
    #[derive(Debug, Hydrate)]
    #[expect(dead_code, reason = "only read from the document")]
    struct Naive {
        title: String,
    }
    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    let world = World::new(TextEncoding::UnicodeCodePoint).await;
    let page = world.page(&browser);
    let made = tokio::task::block_in_place(|| page.create(json!({ "title": "plain" })));
    let error = world.find(&made.url).await.hydrate::<Naive>().expect_err("it is text");
    assert!(error.to_string().contains("title: found collaborative text"), "{error}");
    assert!(error.to_string().contains("syncline::value::Text"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_and_marks_mean_the_same_place_on_both_sides() {
    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    // In the browser's unit, so that positions can be compared as well.
    let world = World::new(TextEncoding::Utf16CodeUnit).await;
    let page = world.page(&browser);
    let document = world.repo.create_from(&everything()).expect("a document");
    let text = document.text(["text"]).expect("a text");
    text.splice(8, 0, " and more").expect("an edit");
    text.mark(0..5, "bold", true, ExpandMark::None).expect("a mark");
    let cursor = text.cursor(9).expect("a cursor");
    within("it is on the server", document.on_server()).await.expect("open");
    let url = document.url().to_string();
    let (position, marks, theirs) = tokio::task::block_in_place(|| {
        page.find(&url);
        page.until_heads(&url, &heads(&document));
        let at = |cursor: &str| json!({ "url": url, "path": ["text"], "cursor": cursor });
        let position = page.call("cursor_position", at(&cursor.to_string()));
        let marks = page.call("marks", json!({ "url": url, "path": ["text"] }));
        (position, marks, page.call("cursor", json!({ "url": url, "path": ["text"], "position": 6 })))
    });
    assert_eq!(position, 9);
    assert_eq!(marks, json!([{ "name": "bold", "value": true, "start": 0, "end": 5 }]));
    let theirs = theirs.as_str().expect("a cursor").try_into().expect("a cursor that is read here");
    text.splice(0, 0, "Viele ").expect("an edit");
    assert_eq!(text.position(&theirs).expect("a position"), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_seen_on_both_sides_and_ends_with_a_goodbye() {
    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    let world = World::new(TextEncoding::UnicodeCodePoint).await;
    let page = world.page(&browser);
    let document = world.repo.create_from(&everything()).expect("a document");
    within("it is on the server", document.on_server()).await.expect("open");
    let url = document.url().to_string();
    let call = |command: &str, mut arguments: Value| {
        arguments["url"] = url.clone().into();
        tokio::task::block_in_place(|| page.call(command, arguments))
    };
    tokio::task::block_in_place(|| page.find(&url));
    call("presence_start", json!({ "state": { "name": "page", "at": { "x": 1.5, "list": [1, null] } } }));
    let ours = [("name".to_owned(), json!("rust"))];
    let presence = document.presence(ours, PresenceOptions::default()).expect("open");

    let mut peers = presence.peers();
    let until = async |peers: &mut _, wanted: Value| {
        while serde_json::to_value(BTreeMap::values(peers).collect::<Vec<_>>()).expect("JSON") != wanted {
            *peers = within("the page is seen", presence.changed(peers)).await.expect("open");
        }
    };
    until(&mut peers, json!([{ "name": "page", "at": { "x": 1.5, "list": [1, null] } }])).await;
    call("until_presences", json!({ "states": [{ "name": "rust" }] }));
    call("presence_broadcast", json!({ "channel": "cursor", "value": "5@abc" }));
    until(&mut peers, json!([{ "name": "page", "at": { "x": 1.5, "list": [1, null] }, "cursor": "5@abc" }])).await;
    for n in 0..1_000 {
        presence.set("cursor", n).expect("small");
    }
    call("until_presences", json!({ "states": [{ "name": "rust", "cursor": 999 }] }));

    call("presence_stop", json!({}));
    until(&mut peers, json!([])).await;
    call("presence_start", json!({ "state": {} }));
    until(&mut peers, json!([{}])).await;
    call("until_presences", json!({ "states": [{ "name": "rust", "cursor": 999 }] }));
    let complaints = world.repo.status().complaints;
    assert!(complaints.is_empty(), "a busy pointer is no flood: {complaints:?}");
    drop(presence);
    call("until_presences", json!({ "states": [] }));
}

#[derive(Debug, PartialEq, Hydrate, Reconcile)]
struct Album {
    cover: Blob,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_is_a_plain_map_with_an_address_that_both_sides_fetch() {
    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    let world = World::new(TextEncoding::UnicodeCodePoint).await;
    let page = world.page(&browser);
    let cover = world.repo.put_blob(vec![7; 100_000]).await.expect("room").named("a b.png", "image/png");
    let document = world.repo.create_from(&Album { cover: cover.clone() }).expect("a document");
    within("the blob is on the server", world.repo.blob_on_server(&cover)).await.expect("open");
    within("it is on the server", document.on_server()).await.expect("open");
    let at = |path: &str| format!("http://{}{path}", world.server.address());
    let (url, there) = (document.url().to_string(), "from JavaScript".repeat(10_000));
    let theirs = Blob::new(BlobHash::of(there.as_bytes()), there.len() as u64);
    let (read, got, put, made) = tokio::task::block_in_place(|| {
        page.find(&url);
        page.until_heads(&url, &heads(&document));
        let got = page.call("fetch", json!({ "url": at(&cover.http_path()), "options": {} }));
        let put = json!({ "url": at(&theirs.http_path()), "options": { "method": "PUT", "body": there } });
        let made = json!({ "cover": { "url": theirs.url(), "size": theirs.size() } });
        (page.read(&url), got, page.call("fetch", put), page.create(made))
    });
    let plain = json!({ "url": cover.url(), "size": 100_000, "name": "a b.png", "mediaType": "image/png" });
    assert_eq!(read, json!({ "cover": plain }));
    assert_eq!(
        (&got["sha256"], &got["headers"]["content-type"]),
        (&json!(cover.hash().to_string()), &json!("image/png"))
    );
    assert_eq!(put["status"], 201);
    let album: Album = world.find(&made.url).await.hydrate().expect("the same fields");
    assert_eq!(album.cover, theirs);
    let content = within("it is fetched", world.repo.read_blob(&album.cover)).await.expect("it is on the server");
    assert_eq!(content, there);
}

//! samod, the Rust implementation that applications run today, against the real server.
//!
//! Owns: the same promises as `javascript.rs`, and the exact value types that JavaScript cannot tell apart.
//! Must not: wait by time; a condition is looked at whenever samod reports a change.
//! Next: `hostile.rs`.

use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ChangeHash, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use futures_util::StreamExt;
use samod::{AutomergeUrl, BackoffConfig, DocHandle, DocumentId, Repo};
use serde_json::json;
use syncline_e2e::{Browser, DataDirectory, Found, HonestPeer, PATIENCE, PackageSet, Page, Server};

/// A repo that reconnects quickly.
async fn client(server: &Server) -> Repo {
    let repo = Repo::build_tokio().load().await;
    let url = url::Url::parse(&server.url()).expect("the server's address is a URL");
    let backoff = BackoffConfig {
        initial_delay: Duration::from_millis(50),
        max_delay: Duration::from_millis(250),
        max_retries: None,
    };
    let dialer = repo.dial_websocket(url, backoff).expect("the repo runs");
    within(dialer.established()).await.expect("the server accepts the join");
    repo
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens within the test's patience")
}

/// Waits until the document satisfies `test`.
async fn until(handle: &DocHandle, test: impl Fn(&Automerge) -> bool) {
    let mut changes = handle.changes();
    while !handle.with_document(|doc| test(doc)) {
        within(changes.next()).await.expect("the repo runs");
    }
}

async fn until_heads(handle: &DocHandle, heads: &[ChangeHash]) {
    until(handle, |doc| doc.get_heads() == heads).await;
}

/// Waits until the document is found, however long it was unavailable before.
async fn until_found(repo: &Repo, id: DocumentId) -> DocHandle {
    let (mut state, mut updates) = repo.search(id).expect("the repo runs");
    loop {
        if let samod::SearchState::Found(handle) = state {
            return handle;
        }
        state = within(updates.next()).await.expect("the repo runs");
    }
}

/// Edits the document in one change and returns its heads.
fn edit(handle: &DocHandle, key: &str, value: impl Into<ScalarValue>) -> Vec<ChangeHash> {
    handle.with_document(|doc| {
        let mut transaction = doc.transaction();
        transaction.put(ROOT, key, value).expect("the root accepts any key");
        transaction.commit();
        doc.get_heads()
    })
}

fn document_with(key: &str, value: impl Into<ScalarValue>) -> Automerge {
    let mut doc = Automerge::new();
    let mut transaction = doc.transaction();
    transaction.put(ROOT, key, value).expect("the root accepts any key");
    transaction.commit();
    doc
}

fn scalar(doc: &Automerge, key: &str) -> Option<ScalarValue> {
    let (value, _) = doc.get(ROOT, key).expect("the root can be read")?;
    value.as_scalar().cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_made_here_is_found_there_and_edited_by_both() {
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let (here, there) = (client(&server).await, client(&server).await);
    let mine = here.create(document_with("title", "plan")).await.expect("the repo runs");
    let yours = until_found(&there, mine.document_id().clone()).await;
    until(&yours, |doc| scalar(doc, "title") == Some("plan".into())).await;

    for round in 0..20_i64 {
        let heads = edit(&mine, "here", round);
        until_heads(&yours, &heads).await;
        let heads = edit(&yours, "there", round);
        until_heads(&mine, &heads).await;
    }
    edit(&mine, "concurrent here", 1);
    edit(&yours, "concurrent there", 1);
    for handle in [&mine, &yours] {
        until(handle, |doc| scalar(doc, "concurrent here").is_some() && scalar(doc, "concurrent there").is_some())
            .await;
    }
    assert_eq!(mine.with_document(|doc| doc.get_heads()), yours.with_document(|doc| doc.get_heads()));
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_made_while_the_server_is_down_merge_when_it_is_back() {
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let (left, right) = (client(&server).await, client(&server).await);
    let mine = left.create(document_with("base", true)).await.expect("the repo runs");
    let yours = until_found(&right, mine.document_id().clone()).await;
    until_heads(&yours, &mine.with_document(|doc| doc.get_heads())).await;

    server.kill();
    let mut heads = [edit(&mine, "left", 1), edit(&yours, "right", 2)].concat();
    heads.sort_unstable();
    server.start_again(data.path());
    until_heads(&mine, &heads).await;
    until_heads(&yours, &heads).await;

    let fresh = client(&server).await;
    let found = until_found(&fresh, mine.document_id().clone()).await;
    until_heads(&found, &heads).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_document_is_unavailable_until_somebody_brings_it() {
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let reader = client(&server).await;
    // Made before its author is connected, so that the server cannot know it yet.
    let author = Repo::build_tokio().load().await;
    let made = author.create(document_with("late", true)).await.expect("the repo runs");
    let missing = within(reader.find(made.document_id().clone())).await.expect("the repo runs");
    assert!(missing.is_none(), "nobody has the document yet");

    let url = url::Url::parse(&server.url()).expect("the server's address is a URL");
    author.dial_websocket(url, BackoffConfig::default()).expect("the repo runs");
    let found = until_found(&reader, made.document_id().clone()).await;
    until(&found, |doc| scalar(doc, "late") == Some(true.into())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_documents_arrive_at_once() {
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let (author, reader) = (client(&server).await, client(&server).await);
    let mut made = Vec::new();
    for number in 0..200_i64 {
        made.push(author.create(document_with("number", number)).await.expect("the repo runs"));
    }
    let searches: Vec<_> = made
        .iter()
        .map(|handle| {
            let (reader, id) = (reader.clone(), handle.document_id().clone());
            tokio::spawn(async move { until_found(&reader, id).await })
        })
        .collect();
    for (search, number) in searches.into_iter().zip(0_i64..) {
        let found = search.await.expect("the search does not panic");
        until(&found, |doc| scalar(doc, "number") == Some(number.into())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_messages_pass_between_samod_and_javascript() {
    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let repo = client(&server).await;
    let page = browser.open_with("page", &server.url(), json!({ "peer": "page-peer" }));
    let handle = repo.create(document_with("shared", true)).await.expect("the repo runs");
    let url = handle.url().to_string();
    find_ready(&page, &url, &handle);

    // The CBOR of {"cursor": 7}, which samod leaves to its user.
    handle.broadcast(b"\xa1\x66cursor\x07".to_vec());
    let received = page.call("until_ephemerals", json!({ "url": url, "count": 1 }));
    assert_eq!(received[0]["message"], json!({ "cursor": 7 }));

    let mut ephemera = handle.ephemera();
    page.call("broadcast", json!({ "url": url, "message": "hello" }));
    assert_eq!(within(ephemera.next()).await.as_deref(), Some(&b"\x65hello"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_type_passes_exactly_between_javascript_and_samod() {
    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let repo = client(&server).await;
    let page = browser.open("page", &server.url());

    let made = page.create(json!({ "text": "文🔑", "map": {}, "list": [1, []] }));
    // Set one by one: as part of an initial value, automerge-js takes its own number types for maps.
    let values = json!({
        "null": null, "bool": true, "int": { "$int": -42 }, "uint": { "$uint": 42 }, "float": { "$float": 3.0 },
        "big": { "$big": "9007199254740993" }, "huge": { "$big": "18446744073709551615" },
        "date": { "$date": 1_700_000_000_123_i64 }, "counter": { "$counter": 5 }, "bytes": { "$bytes": "00ff" },
        "scalar": { "$scalar": "whole" },
    });
    let sets = values.as_object().expect("an object").iter();
    page.change(&made.url, sets.map(|(key, value)| json!({ "op": "set", "path": [key], "value": value })).collect());
    let found = until_found(&repo, made.url.parse::<AutomergeUrl>().expect("a URL").document_id().clone()).await;
    until(&found, |doc| scalar(doc, "null").is_some()).await;
    let expected: [(&str, ScalarValue); 11] = [
        ("null", ScalarValue::Null),
        ("bool", true.into()),
        ("int", ScalarValue::Int(-42)),
        ("uint", ScalarValue::Uint(42)),
        ("float", ScalarValue::F64(3.0)),
        ("big", ScalarValue::Int(9_007_199_254_740_993)),
        ("huge", ScalarValue::Uint(u64::MAX)),
        ("date", ScalarValue::Timestamp(1_700_000_000_123)),
        ("counter", ScalarValue::counter(5)),
        ("bytes", ScalarValue::Bytes(vec![0, 255])),
        ("scalar", "whole".into()),
    ];
    // A copy, since samod aborts the process when a test fails while it holds the document.
    let doc = found.with_document(|doc| doc.fork());
    for (key, value) in &expected {
        assert_eq!(scalar(&doc, key).as_ref(), Some(value), "{key}");
    }
    assert_eq!(text_at(&doc, "text"), "文🔑");
    assert!(matches!(doc.get(ROOT, "map"), Ok(Some((Value::Object(ObjType::Map), _)))));
    assert!(matches!(doc.get(ROOT, "list"), Ok(Some((Value::Object(ObjType::List), _)))));

    // And the other way: what samod writes, JavaScript shows.
    let handle = repo.create(Automerge::new()).await.expect("the repo runs");
    handle.with_document(|doc| {
        let mut transaction = doc.transaction();
        for (key, value) in &expected {
            transaction.put(ROOT, *key, value.clone()).expect("the root accepts any key");
        }
        let text = transaction.put_object(ROOT, "text", ObjType::Text).expect("the root accepts any key");
        transaction.splice_text(&text, 0, 0, "文🔑").expect("the text is empty");
        transaction.commit();
    });
    let url = handle.url().to_string();
    find_ready(&page, &url, &handle);
    assert_eq!(
        page.read(&url),
        json!({
            "null": null, "bool": true, "int": -42, "uint": 42, "float": 3,
            "big": { "$big": "9007199254740993" }, "huge": { "$big": "18446744073709551615" },
            "date": { "$date": 1_700_000_000_123_i64 }, "counter": { "$counter": 5 }, "bytes": { "$bytes": "00ff" },
            "scalar": { "$scalar": "whole" }, "text": "文🔑",
        })
    );
}

/// Waits until the page shows what samod holds.
fn find_ready(page: &Page<'_>, url: &str, handle: &DocHandle) {
    // Asked for before the upload arrived, it is unavailable for a moment, and then comes.
    assert!(matches!(page.find(url), Found::Ready | Found::Unavailable));
    let heads: Vec<String> = handle.with_document(|doc| doc.get_heads().iter().map(HonestPeer::head_text).collect());
    page.until_heads(url, &json!(heads));
}

fn text_at(doc: &Automerge, key: &str) -> String {
    let (_, text) = doc.get(ROOT, key).expect("the root can be read").expect("the key is there");
    doc.text(&text).expect("it is a text")
}

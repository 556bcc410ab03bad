//! The real automerge-repo against the real server, in the newest and the oldest release.
//!
//! Owns: what an application's user would notice: documents that appear, merge, survive, or are not there.
//! Must not: look inside the server; the pages see what a user's page sees.
//! Next: `samod.rs`; `../js/driver.mjs`.

use serde_json::{Value, json};
use syncline_e2e::{Browser, DataDirectory, Found, HonestPeer, PackageSet, Page, Server};

/// A server and a Node process, both ended with the value.
struct World {
    server: Server,
    browser: Browser,
    data: DataDirectory,
}

fn check(set: PackageSet, scenario: fn(World)) {
    let Some(browser) = Browser::start(set) else { return };
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    scenario(World { server, browser, data });
}

/// Each scenario becomes a test with the newest packages and one with the oldest.
macro_rules! with_each_package_set {
    ($($scenario:ident,)*) => {
        mod newest {
            $(#[test]
            fn $scenario() {
                super::check(super::PackageSet::Newest, super::$scenario);
            })*
        }
        mod oldest {
            $(#[test]
            fn $scenario() {
                super::check(super::PackageSet::Oldest, super::$scenario);
            })*
        }
    };
}

with_each_package_set! {
    a_document_made_here_is_found_there,
    edits_made_at_the_same_time_all_stay,
    edits_made_offline_on_both_sides_merge,
    pages_go_on_after_the_server_was_killed,
    what_another_page_has_seen_survives_a_kill,
    ephemeral_messages_reach_the_other_page_once,
    an_unknown_document_is_unavailable,
    a_document_that_appears_later_reaches_whoever_asked,
    remote_heads_tell_who_has_an_edit,
    a_document_of_50_megabytes_arrives,
    every_value_type_keeps_its_type,
    two_hundred_documents_arrive_at_once,
    two_tabs_with_one_peer_id_lose_nothing,
}

fn a_document_made_here_is_found_there(world: World) {
    let here = world.browser.open("here", &world.server.url());
    let there = world.browser.open("there", &world.server.url());
    let document = here.create(json!({ "title": "plan", "items": ["a", { "done": false }] }));
    here.until_on_server(&document.url, &document.heads);
    assert_eq!(there.find(&document.url), Found::Ready);
    there.until_heads(&document.url, &document.heads);
    assert_eq!(there.read(&document.url), json!({ "title": "plan", "items": ["a", { "done": false }] }));

    let heads = here.change(&document.url, json!([{ "op": "set", "path": ["items", 1, "done"], "value": true }]));
    there.until_heads(&document.url, &heads);
    let heads = there.change(&document.url, json!([{ "op": "insert", "path": ["items"], "at": 0, "values": ["b"] }]));
    here.until_heads(&document.url, &heads);
    assert_eq!(here.read(&document.url)["items"], json!(["b", "a", { "done": true }]));
}

fn edits_made_at_the_same_time_all_stay(world: World) {
    const EDITS: u64 = 50;
    let pages = ["one", "two", "three"].map(|name| world.browser.open(name, &world.server.url()));
    let document = pages[0].create(json!({ "text": "", "count": { "$counter": 0 }, "of": {} }));
    pages[0].until_on_server(&document.url, &document.heads);
    for page in &pages[1..] {
        assert_eq!(page.find(&document.url), Found::Ready);
    }
    let mut under_way = Vec::new();
    for edit in 0..EDITS {
        for (index, page) in pages.iter().enumerate() {
            let operations = json!([
                { "op": "increment", "path": ["count"], "by": 1 },
                { "op": "splice", "path": ["text"], "at": 0, "insert": format!("{index}") },
                { "op": "set", "path": ["of", format!("{index}:{edit}")], "value": edit },
            ]);
            under_way.push(page.begin("change", json!({ "url": document.url, "operations": operations })));
        }
    }
    for edit in under_way {
        edit.wait();
    }
    for page in &pages {
        page.until_value(&document.url, json!(["count"]), json!({ "$counter": 3 * EDITS }));
    }
    let [one, two, three] = pages.map(|page| page.read(&document.url));
    assert_eq!(one, two);
    assert_eq!(one, three);
    assert_eq!(one["text"].as_str().map(str::len), Some(3 * EDITS as usize));
    assert_eq!(one["of"].as_object().map(serde_json::Map::len), Some(3 * EDITS as usize));
}

fn edits_made_offline_on_both_sides_merge(world: World) {
    let left = world.browser.open("left", &world.server.url());
    let right = world.browser.open("right", &world.server.url());
    let document = left.create(json!({ "text": "middle" }));
    right.find(&document.url);
    right.until_heads(&document.url, &document.heads);

    left.disconnect();
    right.disconnect();
    let heads = edit_both_ends(&left, &right, &document.url);
    left.connect();
    right.connect();
    for page in [&left, &right] {
        page.until_heads(&document.url, &heads);
        assert_eq!(page.read(&document.url), json!({ "text": "left middle right" }));
    }
}

fn pages_go_on_after_the_server_was_killed(mut world: World) {
    let left = world.browser.open("left", &world.server.url());
    let right = world.browser.open("right", &world.server.url());
    let document = left.create(json!({ "text": "middle" }));
    right.find(&document.url);
    right.until_heads(&document.url, &document.heads);

    world.server.kill();
    left.until_connected(false);
    right.until_connected(false);
    let heads = edit_both_ends(&left, &right, &document.url);
    world.server.start_again(world.data.path());
    for page in [&left, &right] {
        page.until_heads(&document.url, &heads);
        assert_eq!(page.read(&document.url), json!({ "text": "left middle right" }));
    }
    let fresh = world.browser.open("fresh", &world.server.url());
    assert_eq!(fresh.find(&document.url), Found::Ready);
    fresh.until_heads(&document.url, &heads);
}

fn what_another_page_has_seen_survives_a_kill(mut world: World) {
    let writer = world.browser.open("writer", &world.server.url());
    let reader = world.browser.open("reader", &world.server.url());
    let document = writer.create(json!({ "rounds": 0 }));
    reader.find(&document.url);
    let mut heads = document.heads;
    for round in 1..=20 {
        heads = writer.change(&document.url, json!([{ "op": "set", "path": ["rounds"], "value": round }]));
        reader.until_heads(&document.url, &heads);
    }
    // Killed at the moment the last change was visible elsewhere; the pages that have it are gone afterwards.
    world.server.kill();
    writer.close();
    reader.close();
    world.server.start_again(world.data.path());
    let fresh = world.browser.open("fresh", &world.server.url());
    assert_eq!(fresh.find(&document.url), Found::Ready);
    assert_eq!(fresh.heads(&document.url), heads);
}

fn ephemeral_messages_reach_the_other_page_once(world: World) {
    let sender = world.browser.open_with("sender", &world.server.url(), json!({ "peer": "sender-peer" }));
    let readers = ["one", "two"].map(|name| world.browser.open(name, &world.server.url()));
    let document = sender.create(json!({ "shared": true }));
    for reader in &readers {
        reader.find(&document.url);
        reader.until_heads(&document.url, &document.heads);
    }
    for number in 0..5 {
        let message = json!({ "cursor": number, "name": "café", "raw": { "$bytes": "00ff" } });
        sender.call("broadcast", json!({ "url": document.url, "message": message }));
    }
    // A change after them: when it is here, everything before it is, so a sixth message would show.
    for reader in &readers {
        let received = reader.call("until_ephemerals", json!({ "url": document.url, "count": 5 }));
        let expected: Vec<Value> = (0..5)
            .map(|number| {
                let message = json!({ "cursor": number, "name": "café", "raw": { "$bytes": "00ff" } });
                json!({ "from": "sender-peer", "message": message })
            })
            .collect();
        assert_eq!(received, Value::Array(expected));
    }
    let heads = sender.change(&document.url, json!([{ "op": "set", "path": ["after"], "value": true }]));
    for reader in &readers {
        reader.until_heads(&document.url, &heads);
        let received = reader.call("until_ephemerals", json!({ "url": document.url, "count": 0 }));
        assert_eq!(received.as_array().map(Vec::len), Some(5));
    }
    let own = sender.call("until_ephemerals", json!({ "url": document.url, "count": 0 }));
    assert_eq!(own, json!([]), "nobody hears himself");
}

fn an_unknown_document_is_unavailable(world: World) {
    let page = world.browser.open("page", &world.server.url());
    let unknown = format!("automerge:{}", HonestPeer::fresh_document_id());
    assert_eq!(page.find(&unknown), Found::Unavailable);
    // The connection is as good as before.
    let document = page.create(json!({ "still": "here" }));
    page.until_on_server(&document.url, &document.heads);
    let other = world.browser.open("other", &world.server.url());
    assert_eq!(other.find(&document.url), Found::Ready);
}

fn a_document_that_appears_later_reaches_whoever_asked(world: World) {
    let author = world.browser.open("author", &world.server.url());
    author.disconnect();
    let document = author.create(json!({ "late": true }));
    let reader = world.browser.open("reader", &world.server.url());
    assert_eq!(reader.find(&document.url), Found::Unavailable);
    author.connect();
    reader.until_heads(&document.url, &document.heads);
    assert_eq!(reader.read(&document.url), json!({ "late": true }));
}

fn remote_heads_tell_who_has_an_edit(world: World) {
    let open = |name: &str| {
        let options = json!({ "storage": name, "gossip": true });
        let page = world.browser.open_with(name, &world.server.url(), options);
        let storage = page.call("storage", json!({}));
        assert!(storage.is_string(), "a page with storage has a storage id");
        (page, storage)
    };
    let (author, author_storage) = open("author");
    let (reader, reader_storage) = open("reader");
    let server_storage = author.call("server_storage", json!({}));
    assert!(server_storage.is_string(), "a server that keeps documents says under which storage id");

    let document = author.create(json!({ "edits": 0 }));
    reader.find(&document.url);
    author.call("subscribe", json!({ "storages": [server_storage, reader_storage] }));
    reader.call("subscribe", json!({ "storages": [author_storage] }));
    let heads = author.change(&document.url, json!([{ "op": "set", "path": ["edits"], "value": 1 }]));
    // "My edit is on the server", "the other device has my edit", and there: "this is what the author has".
    for (page, storage) in [(&author, &server_storage), (&author, &reader_storage), (&reader, &author_storage)] {
        page.call("until_remote_heads", json!({ "url": document.url, "storage": storage, "heads": heads }));
    }
}

fn a_document_of_50_megabytes_arrives(world: World) {
    let author = world.browser.open("author", &world.server.url());
    let document = author.create(json!({ "noise": { "$noise": 50_000_000 }, "title": "large" }));
    let reader = world.browser.open("reader", &world.server.url());
    // The author's client takes a while to compress; whoever asks earlier is told later.
    reader.find(&document.url);
    reader.until_heads(&document.url, &document.heads);
    let received = reader.read(&document.url);
    assert_eq!(received["noise"]["length"], json!(50_000_000));
    assert_eq!(received, author.read(&document.url));

    let heads = reader.change(&document.url, json!([{ "op": "set", "path": ["title"], "value": "still editable" }]));
    author.until_heads(&document.url, &heads);
}

fn every_value_type_keeps_its_type(mut world: World) {
    let value = json!({
        "null": null, "true": true, "false": false,
        "int": { "$int": -42 }, "uint": { "$uint": 42 }, "float": { "$float": 3.0 }, "fraction": 0.1,
        "largest": 9_007_199_254_740_991_i64, "smallest": -9_007_199_254_740_991_i64,
        "text": "naïve 文 👩‍👩‍👧", "empty text": "", "scalar": { "$scalar": "not merged by character" },
        "date": { "$date": 1_700_000_000_123_i64 }, "before 1970": { "$date": -1 },
        "counter": { "$counter": -7 }, "bytes": { "$bytes": "00010203feff" }, "no bytes": { "$bytes": "" },
        "map": { "nested": { "deep": [[], {}] } }, "list": [1, "two", null, { "$date": 0 }, { "$counter": 1 }],
        "": "the empty key", "\u{1F511}": "a key outside the basic plane",
    });
    // automerge-js reads every number as one type; samod.rs looks at the exact types.
    let mut expected = value.clone();
    expected["int"] = json!(-42);
    expected["uint"] = json!(42);
    expected["float"] = json!(3);

    let author = world.browser.open("author", &world.server.url());
    let mut document = author.create(json!({ "empty": {} }));
    // Set one by one: as part of an initial value, the newest client takes its own number types for maps.
    let sets = value.as_object().expect("an object").iter();
    let sets: Value = sets.map(|(key, value)| json!({ "op": "set", "path": [key], "value": value })).collect();
    document.heads = author.change(&document.url, sets);
    expected["empty"] = json!({});
    author.until_on_server(&document.url, &document.heads);
    let reader = world.browser.open("reader", &world.server.url());
    assert_eq!(reader.find(&document.url), Found::Ready);
    reader.until_heads(&document.url, &document.heads);
    assert_eq!(reader.read(&document.url), expected);
    let heads = reader.change(
        &document.url,
        json!([
            { "op": "increment", "path": ["counter"], "by": 10 },
            { "op": "delete", "path": ["map", "nested"] },
            { "op": "remove", "path": ["list"], "at": 1, "count": 2 },
            { "op": "splice", "path": ["text"], "at": 0, "delete": 5, "insert": "clever" },
        ]),
    );
    author.until_heads(&document.url, &heads);
    let edited = author.read(&document.url);
    assert_eq!(edited["counter"], json!({ "$counter": 3 }));
    assert_eq!(edited["map"], json!({}));
    assert_eq!(edited["list"], json!([1, { "$date": 0 }, { "$counter": 1 }]));
    assert_eq!(edited["text"], json!("clever 文 👩‍👩‍👧"));

    world.server.kill_and_restart(world.data.path());
    let fresh = world.browser.open("fresh", &world.server.url());
    assert_eq!(fresh.find(&document.url), Found::Ready);
    assert_eq!(fresh.read(&document.url), edited);
}

fn two_hundred_documents_arrive_at_once(mut world: World) {
    let author = world.browser.open("author", &world.server.url());
    let reader = world.browser.open("reader", &world.server.url());
    let made: Vec<_> =
        (0..200).map(|number| author.begin("create", json!({ "value": { "number": number } }))).collect();
    let made: Vec<Value> = made.into_iter().map(|pending| pending.wait()).collect();
    find_all(&reader, &made);
    // A client that reconnects speaks about all its documents at once, to a server that has none of them in memory.
    world.server.kill_and_restart(world.data.path());
    let fresh = world.browser.open("fresh", &world.server.url());
    find_all(&fresh, &made);
}

fn find_all(page: &Page<'_>, made: &[Value]) {
    let found: Vec<_> = made.iter().map(|document| page.begin("find", json!({ "url": document["url"] }))).collect();
    for pending in found {
        // One asked for before its upload arrived is unavailable for a moment, and then comes.
        pending.wait();
    }
    for (number, document) in made.iter().enumerate() {
        let url = document["url"].as_str().expect("a URL");
        page.until_heads(url, &document["heads"]);
        assert_eq!(page.read(url), json!({ "number": number }));
    }
}

fn two_tabs_with_one_peer_id_lose_nothing(world: World) {
    let options = json!({ "peer": "one-peer" });
    let first = world.browser.open_with("first", &world.server.url(), options.clone());
    let document = first.create(json!({ "from": {} }));
    let watcher = world.browser.open("watcher", &world.server.url());
    watcher.find(&document.url);
    watcher.until_heads(&document.url, &document.heads);

    // A duplicated tab: same peer id, own edits. Whichever connection the server drops comes back by itself.
    let second = world.browser.open_with("second", &world.server.url(), options);
    second.find(&document.url);
    second.until_heads(&document.url, &document.heads);
    first.change(&document.url, json!([{ "op": "set", "path": ["from", "first"], "value": 1 }]));
    second.change(&document.url, json!([{ "op": "set", "path": ["from", "second"], "value": 2 }]));
    for page in [&first, &second, &watcher] {
        page.until_value(&document.url, json!(["from"]), json!({ "first": 1, "second": 2 }));
    }
}

/// Types at both ends of the document's text, each page on its own, and returns the heads once merged.
fn edit_both_ends(left: &Page<'_>, right: &Page<'_>, url: &str) -> Value {
    let mine = left.change(url, json!([{ "op": "splice", "path": ["text"], "at": 0, "insert": "left " }]));
    let yours = right.change(url, json!([{ "op": "splice", "path": ["text"], "at": 6, "insert": " right" }]));
    json!([mine[0], yours[0]])
}

#[test]
fn newest_and_oldest_edit_one_document() {
    let (Some(newest), Some(oldest)) = (Browser::start(PackageSet::Newest), Browser::start(PackageSet::Oldest)) else {
        return;
    };
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let left = newest.open("left", &server.url());
    let right = oldest.open("right", &server.url());
    let document = left.create(json!({ "text": "middle" }));
    left.until_on_server(&document.url, &document.heads);
    assert_eq!(right.find(&document.url), Found::Ready);
    right.until_heads(&document.url, &document.heads);
    left.disconnect();
    right.disconnect();
    let heads = edit_both_ends(&left, &right, &document.url);
    right.connect();
    left.connect();
    for page in [&left, &right] {
        page.until_heads(&document.url, &heads);
        assert_eq!(page.read(&document.url), json!({ "text": "left middle right" }));
    }
}

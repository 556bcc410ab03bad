//! The HTTP API of a real server, beside peers that sync.
//!
//! Owns: what a script reads, changes and follows. Must not: link the server, or assert times.
//! Next: `hostile.rs`; docs/http-api.md.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT, ReadDoc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use syncline_e2e::http::{self, Answer};
use syncline_e2e::{DataDirectory, Frame, HonestPeer, Item, PATIENCE, RawPeer, Server, token};

const MERGE: (&str, &str) = ("Content-Type", "application/merge-patch+json");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const FILE: (&str, &str) = ("Content-Type", "application/octet-stream");

const SECRET: &[u8] = b"a secret of at least thirty-two bytes, for HS256";

struct Api {
    server: Server,
    data: DataDirectory,
}

impl Api {
    fn start() -> Self {
        let data = DataDirectory::new();
        Self { server: Server::start(data.path()), data }
    }

    fn get(&self, path: &str) -> Answer {
        http::send(self.server.address(), &format!("GET /api{path}"), &[], b"")
    }

    fn send(&self, line: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        http::send(self.server.address(), &format!("{method} /api{path}"), headers, body.to_string().as_bytes())
    }

    fn create(&self, content: &Value) -> String {
        let made = self.send("POST /documents", &[JSON], content);
        assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
        made.json()["id"].as_str().expect("an id").to_owned()
    }

    fn content(&self, id: &str) -> Value {
        self.get(&format!("/documents/{id}/content")).json()["content"].clone()
    }
}

#[test]
fn a_script_makes_reads_and_patches_what_a_peer_sees() {
    let mut api = Api::start();
    let id = api.create(&json!({ "title": "Groceries", "n": 1, "none": null, "a/b~c": [true] }));
    assert_eq!(api.content(&id), json!({ "title": "Groceries", "n": 1, "none": null, "a/b~c": [true] }));

    let mut peer = HonestPeer::join(api.server.address(), "peer", &id, AutoCommit::new());
    peer.until("n", 1);
    let patched = api.send(
        &format!("PATCH /documents/{id}/content?message=by%20a%20script"),
        &[MERGE],
        &json!({ "n": 2, "title": "Shopping", "none": null }),
    );
    assert_eq!((patched.status, &patched.json()["changed"]), (200, &json!(true)));
    peer.until("n", 2);
    let (_, title) = peer.doc().get(ROOT, "title").expect("readable").expect("a title");
    assert_eq!(peer.doc().text(&title).expect("text"), "Shopping");
    peer.put("n", 3);
    peer.until_acknowledged();
    assert_eq!(api.content(&id), json!({ "title": "Shopping", "n": 3, "a/b~c": [true] }));

    // What is acknowledged is on the disk.
    api.server.kill_and_restart(api.data.path());
    assert_eq!(api.content(&id)["title"], "Shopping");
    let again = api.send(&format!("PATCH /documents/{id}/content"), &[MERGE], &json!({ "n": 4 }));
    assert_eq!(again.status, 200);
    let history = api.get(&format!("/documents/{id}/history")).json();
    let changes = history["history"].as_array().expect("a list").iter();
    let actors: BTreeSet<_> = changes.map(|change| change["actor"].as_str().expect("an actor").to_owned()).collect();
    let expected = (Some(4), 3);
    assert_eq!((history["changes"].as_u64(), actors.len()), expected, "a run of the server is an actor of its own");
    assert_eq!(history["history"][2]["message"], "by a script");
}

#[test]
fn a_patch_that_expects_another_state_changes_nothing() {
    let api = Api::start();
    let id = api.create(&json!({ "n": 1, "text": "abc" }));
    let path = format!("/documents/{id}/content");
    let read = api.get(&path);
    let tag = read.header("etag").to_owned();
    let not_modified = http::send(api.server.address(), &format!("GET /api{path}"), &[("If-None-Match", &tag)], b"");
    assert_eq!(not_modified.status, 304);
    let expecting = [MERGE, ("If-Match", tag.as_str())];
    assert_eq!(api.send(&format!("PATCH {path}"), &expecting, &json!({ "n": 2 })).status, 200);
    let late = api.send(&format!("PATCH {path}"), &expecting, &json!({ "n": 3 }));
    assert_eq!((late.status, &late.json()["error"]), (412, &json!("not_as_expected")));
    let operations = json!([
        { "op": "splice", "path": "/text", "index": 1, "delete": 1, "insert": "x" },
        { "op": "test", "path": "/n", "value": 99 },
    ]);
    let patch = [("Content-Type", "application/json-patch+json")];
    assert_eq!(api.send(&format!("PATCH {path}"), &patch, &operations).status, 409);
    assert_eq!(api.content(&id), json!({ "n": 2, "text": "abc" }), "all operations or none");
    let before = api.get(&format!("{path}?heads={}", tag.trim_matches('"')));
    assert_eq!(before.json()["content"]["n"], 1);
    assert_eq!(api.get(&format!("{path}?heads={}", "0".repeat(64))).status, 409);
    assert_eq!(api.send(&format!("PATCH {path}"), &[JSON], &json!({})).status, 415);
}

#[test]
fn files_go_in_and_out_and_merge() {
    let api = Api::start();
    let mut document = AutoCommit::new();
    document.put(ROOT, "n", 1).expect("a map");
    document.put_object(ROOT, "list", ObjType::List).expect("a map");
    let file = document.save();
    let made = http::send(api.server.address(), "POST /api/documents", &[FILE], &file);
    assert_eq!(made.status, 201);
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    document.put(ROOT, "n", 2).expect("a map");
    let path = format!("/api/documents/{id}/automerge");
    assert_eq!(http::send(api.server.address(), &format!("PUT {path}"), &[FILE], &document.save()).status, 204);
    let back = http::send(api.server.address(), &format!("GET {path}"), &[], b"");
    let back = AutoCommit::load(&back.body).expect("a document");
    assert_eq!(back.get(ROOT, "n").expect("readable").expect("there").0.as_i64(), Some(2));
    let refused = http::send(api.server.address(), &format!("PUT {path}"), &[FILE], b"no document");
    assert_eq!(refused.status, 400);
}

#[test]
fn a_document_is_deleted_restored_listed_and_told_of_in_order() {
    let api = Api::start();
    let ids: Vec<String> = (0..5).map(|n| api.create(&json!({ "n": n }))).collect();
    let mut listed = BTreeSet::new();
    let mut after = String::new();
    loop {
        let page = api.get(&format!("/documents?limit=2{after}")).json();
        let documents = page["documents"].as_array().expect("a list");
        listed.extend(documents.iter().map(|entry| entry["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(listed, ids.iter().cloned().collect());

    let first = api.get("/changes?since=0&limit=3").json();
    let position = first["position"].as_str().expect("a stamp").to_owned();
    let told: Vec<&Value> = first["documents"].as_array().expect("a list").iter().map(|entry| &entry["id"]).collect();
    assert_eq!(told, ids[..3].iter().collect::<Vec<_>>(), "in the order in which they were made");
    assert_eq!(api.send(&format!("DELETE /documents/{}", ids[0]), &[], &json!(null)).status, 204);
    let rest = api.get(&format!("/changes?since={position}")).json();
    let told: Vec<(&Value, &Value)> =
        rest["documents"].as_array().expect("a list").iter().map(|entry| (&entry["id"], &entry["deleted"])).collect();
    assert_eq!(
        told,
        [(&json!(ids[3]), &json!(false)), (&json!(ids[4]), &json!(false)), (&json!(ids[0]), &json!(true))]
    );

    assert_eq!(api.get(&format!("/documents/{}/content", ids[0])).status, 410);
    assert_eq!(api.get(&format!("/documents/{}", ids[0])).json()["deleted"], true);
    assert_eq!(api.send(&format!("POST /documents/{}/restore", ids[0]), &[], &json!(null)).status, 204);
    assert_eq!(api.content(&ids[0]), json!({ "n": 0 }));
    let unknown = HonestPeer::fresh_document_id();
    for path in ["", "/content", "/history", "/automerge"] {
        assert_eq!(api.get(&format!("/documents/{unknown}{path}")).status, 404);
    }
    assert_eq!(api.get("/documents/nonsense").status, 400);
}

#[test]
fn changes_are_waited_for_and_streamed() {
    let api = Api::start();
    let address = api.server.address().to_owned();
    let mut events = http::lines(&address, "GET /api/changes", &[("Accept", "text/event-stream")]);
    assert!(events.by_ref().any(|line| line.is_empty()), "the head of the answer ends");
    let id = api.create(&json!({ "n": 1 }));
    let event = events.find(|line| line.starts_with("data:")).expect("an event");
    let changed: Value = serde_json::from_str(&event["data:".len()..]).expect("JSON");
    assert_eq!(changed["id"], json!(id));

    let stamp = changed["stamp"].as_str().expect("a stamp").to_owned();
    let waiting = std::thread::spawn(move || {
        http::send(&address, &format!("GET /api/changes?since={stamp}&wait=60"), &[], b"").json()
    });
    let second = api.create(&json!({ "n": 2 }));
    let told = waiting.join().expect("an answer");
    assert_eq!(told["documents"][0]["id"], json!(second));
    assert_eq!(told["documents"].as_array().map(Vec::len), Some(1), "what came before is not told again");
}

#[test]
fn who_is_at_a_document_is_told_to_those_who_may_read_it() {
    let data = DataDirectory::new();
    let (secret, home) = (data.path().join("secret"), data.path().join("data"));
    std::fs::write(&secret, SECRET).expect("writable");
    let arguments = ["--token-key", secret.to_str().expect("UTF-8")];
    let server = Server::start_with(&home, &arguments);
    let until = token::unix_seconds() + 600;
    let token_for = |may: &[&str]| {
        token::signed(&json!({ "sub": "script", "exp": until, "syncline": [{ "documents": "*", "may": may }] }), SECRET)
    };
    let [reader, writer, nobody] =
        [&["read"][..], &["read", "write", "create"], &[]].map(|may| format!("Bearer {}", token_for(may)));
    let send = |line: &str, token: &str, body: &Value| {
        http::send(server.address(), line, &[JSON, ("Authorization", token)], body.to_string().as_bytes())
    };
    let made = send("POST /api/documents", &writer, &json!({ "n": 1 }));
    assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let path = format!("GET /api/documents/{id}/presence");
    let peers = || send(&path, &reader, &json!(null)).json()["peers"].as_array().expect("a list").clone();
    assert_eq!(peers(), [json!(null); 0]);

    let bearer = [("Authorization", writer.as_str())];
    let mut anna = RawPeer::try_connect(server.address(), "/", &bearer).expect("let in");
    anna.join_by(&Frame::join("anna")).expect("let in");
    let mut count = 0.0;
    let mut say = |data: &[u8]| {
        count += 1.0;
        let frame = Frame::new("ephemeral").text("senderId", "anna").text("documentId", &id).text("sessionId", "tab");
        anna.send(&frame.with("count", Item::Number(count)).bytes("data", data));
    };
    let presence = |message: Item| Frame::default().with("__presence", message).encode();
    let map = |entries: &[(&str, Item)]| {
        Item::Map(entries.iter().map(|(key, item)| ((*key).to_owned(), item.clone())).collect())
    };
    let text = |text: &str| Item::Text(text.to_owned());
    let cursor = map(&[("x", Item::Number(7.0))]);
    say(&presence(map(&[
        ("type", text("snapshot")),
        ("state", map(&[("name", text("Anna")), ("cursor", Item::Null)])),
    ])));
    say(&presence(map(&[("type", text("update")), ("channel", text("cursor")), ("value", cursor)])));
    say(&[0x63, b'h', b'e', b'y']);
    let known = || {
        let mut known = peers();
        assert!(known.iter_mut().all(|peer| peer.as_object_mut().and_then(|peer| peer.remove("seen_ms")).is_some()));
        json!(known)
    };
    let expected =
        json!([{ "peer": "anna", "state": { "name": "Anna", "cursor": { "x": 7 } }, "message": "Y2hleQ==" }]);
    until_equal(known, &expected);
    say(&presence(map(&[("type", text("goodbye"))])));
    until_equal(known, &json!([]));
    assert_eq!(send(&path, &nobody, &json!(null)).status, 404, "as a document that is not there");
    let unknown = HonestPeer::fresh_document_id();
    assert_eq!(send(&format!("GET /api/documents/{unknown}/presence"), &reader, &json!(null)).status, 404);
}

/// Asks again until the answer is this.
fn until_equal(ask: impl Fn() -> Value, expected: &Value) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = ask();
        if found == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found} is not {expected}");
        std::thread::yield_now();
    }
}

#[test]
fn every_path_is_described() {
    let api = Api::start();
    let description = api.get("/openapi.json").json();
    let id = api.create(&json!({}));
    for (path, methods) in description["paths"].as_object().expect("paths") {
        let path = path.replace("{id}", &id);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let described = methods.get(method.to_lowercase()).is_some();
            let answer = http::send(api.server.address(), &format!("{method} {path}"), &[], b"");
            assert_eq!(described, answer.status != 405, "{method} {path}: {}", answer.head);
        }
    }
    assert_eq!(api.get("/nothing").status, 404);
}

#[test]
fn pages_tell_who_is_behind_and_show_every_change() {
    let api = Api::start();
    let id = api.create(&json!({ "title": "<b>Groceries</b>" }));
    let page = |path: &str| {
        let answer = http::send(api.server.address(), &format!("GET {path}"), &[], b"");
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        String::from_utf8_lossy(&answer.body).into_owned()
    };
    assert!(page(&format!("/documents/{id}")).contains("Nobody is connected to this document"));
    let mut peer = HonestPeer::join(api.server.address(), "peer-of-the-test", &id, AutoCommit::new());
    peer.put("n", 1);
    peer.until_acknowledged();
    let shown = page(&format!("/documents/{id}"));
    assert!(shown.contains("The one peer at this document has everything"), "{shown}");
    assert!(shown.contains("&lt;b&gt;Groceries") && !shown.contains("<b>Groceries"), "what peers write is text");
    let history = api.get(&format!("/documents/{id}/history")).json();
    let first = history["history"][1]["hash"].as_str().expect("a hash").to_owned();
    assert!(shown.contains(&format!("?at={first}")), "every change can be stepped to");
    let earlier = page(&format!("/documents/{id}?at={first}"));
    assert!(earlier.contains("Groceries") && !earlier.contains("<span class=\"key\">n: "), "{earlier}");
    assert!(page("/documents").contains(&id));
    assert!(page("/peers").contains("peer-of-the-test"));
    for path in ["/", "/live", "/refused", "/settings", "/ready", "/health"] {
        assert!(!page(path).is_empty());
    }
}

/// HMAC-SHA256, as a receiver of webhooks computes it.
fn hmac(secret: &[u8], message: &[u8]) -> String {
    let padded = |with: u8| -> Vec<u8> { (0..64).map(|at| secret.get(at).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::digest([padded(0x36), message.to_vec()].concat());
    let outer = Sha256::digest([padded(0x5c), inner.to_vec()].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_receiver_that_fails_is_told_again_what_has_changed() {
    let data = DataDirectory::new();
    let secret = data.path().join("secret");
    std::fs::write(&secret, "a secret of some length\n").expect("writable");
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", receiver.local_addr().expect("bound"));
    let home = data.path().join("data");
    let arguments = ["--webhook", &url, "--webhook-secret-file", secret.to_str().expect("UTF-8")];
    let api = Api { server: Server::start_with(&home, &arguments), data };
    let hear = |status: &str| -> Value {
        let (mut stream, _) = receiver.accept().expect("a request");
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        let head: Vec<String> =
            reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let mut lines = head.iter().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).expect("a header").1.to_owned()
        };
        let mut body = vec![0; header("content-length").parse().expect("a number")];
        reader.read_exact(&mut body).expect("a body");
        let signature = header("syncline-signature");
        let (time, mac) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("a signature");
        let signed = [time.as_bytes(), b".", &body].concat();
        assert_eq!(mac, hmac(b"a secret of some length", &signed));
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).expect("sent");
        serde_json::from_slice(&body).expect("JSON")
    };
    let id = api.create(&json!({ "n": 1 }));
    let first = hear("500 No");
    assert_eq!(first["documents"][0]["id"], json!(id));
    assert_eq!(hear("204 Yes"), first, "the same again");
    let second = api.create(&json!({ "n": 2 }));
    assert_eq!(
        hear("200 Yes")["documents"],
        json!([{
            "id": second, "deleted": false, "stamp": api.get(&format!("/documents/{second}")).json()["stamp"],
        }]),
        "and nothing twice that was confirmed"
    );
}

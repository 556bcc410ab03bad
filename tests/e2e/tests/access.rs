//! Who is let in and what they may do there, against the server as a process.
//!
//! Owns: the attacks on access of docs/access.md, each refused, counted by its reason, and told. Must not: look inside
//! the server, or use its code to make tokens. Next: `../src/token.rs`, `hostile.rs`.

#[path = "access/limits.rs"]
mod limits;
#[path = "access/subjects.rs"]
mod subjects;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use serde_json::{Value, json};
use syncline_e2e::token::{signed, signed_as, unix_seconds, unsigned};
use syncline_e2e::{DataDirectory, Frame, HonestPeer, Item, RawPeer, Received, Server, SyncMessage};

const SECRET: &[u8] = b"a secret that is long enough for HS256";

/// A server that believes tokens signed with [`SECRET`].
struct Scene {
    server: Server,
    data: DataDirectory,
}

impl Scene {
    fn start(arguments: &[&str]) -> Self {
        Self::with_key(SECRET, arguments)
    }

    fn with_key(key: &[u8], arguments: &[&str]) -> Self {
        let data = DataDirectory::new();
        let file = data.path().join("key");
        std::fs::write(&file, key).expect("a key file");
        let arguments = [&["--token-key", file.to_str().expect("a path in UTF-8")], arguments].concat();
        let server = Server::start_with(&data.path().join("data"), &arguments);
        Self { server, data }
    }

    /// How often this reason was counted.
    fn refused(&self, kind: &str) -> u64 {
        let admin = format!("Authorization: Bearer {}\r\n", signed(&admin(), SECRET));
        let metrics = self.server.http_as("/metrics", &admin);
        assert_eq!(metrics.status, 200, "{}", metrics.body);
        let start = format!("syncline_refused_total{{reason=\"{kind}\"}}");
        let line = metrics.body.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
        line.map_or(0, |count| count.trim().parse().expect("a number"))
    }

    /// A connection that has joined with these claims in a token.
    fn join(&self, who: &str, claims: &Value) -> RawPeer {
        let mut peer = RawPeer::connect(self.server.address());
        peer.join_by(&join_with(who, &signed(claims, SECRET))).expect("the token is good");
        peer
    }
}

fn claims(may: &[&str], documents: &Value) -> Value {
    json!({ "sub": "alice", "exp": unix_seconds() + 3_600, "syncline": [{ "documents": documents, "may": may }] })
}

fn admin() -> Value {
    claims(&["admin"], &json!("*"))
}

fn join_with(who: &str, token: &str) -> Frame {
    let metadata = [("synclineToken".to_owned(), Item::Text(token.to_owned()))];
    Frame::join(who).with("peerMetadata", Item::Map(metadata.into()))
}

fn native_join(who: &str, token: &str) -> Frame {
    let version = ("synclineVersion".to_owned(), Item::Number(3.0));
    let metadata = [("synclineToken".to_owned(), Item::Text(token.to_owned())), version];
    Frame::join(who).with("peerMetadata", Item::Map(metadata.into()))
}

/// For how long the server says that what it permits lasts, milliseconds.
fn access_left_ms(peer: &mut RawPeer) -> u64 {
    loop {
        let Received::Frame(frame) = peer.receive() else { panic!("cut off") };
        let data = frame.bytes_of("data");
        if frame.kind() == "syncline" && data.first() == Some(&33) {
            return u64::from_be_bytes(data[1..9].try_into().expect("8 bytes"));
        }
    }
}

/// A token is refused in the request and in the join, for this reason.
#[track_caller]
fn check_refused(scene: &Scene, token: &str, kind: &str) {
    let before = scene.refused(kind);
    let header = format!("Bearer {token}");
    let refused = RawPeer::try_connect(scene.server.address(), "/", &[("Authorization", &header)]);
    let (status, words) = refused.err().expect("no websocket");
    assert!(status == 401 && words.len() > 10, "{status} {words}");
    let mut peer = RawPeer::connect(scene.server.address());
    let told = peer.join_by(&join_with("mallory", token)).expect_err("not let in");
    assert!(told.iter().any(|words| words.len() > 10), "told why: {told:?}");
    assert_eq!(scene.refused(kind), before + 2, "{kind} is counted");
    let page = scene.server.http_as("/metrics", &format!("Authorization: {header}\r\n"));
    assert_eq!(page.status, 401);
    assert!(!scene.server.printed().contains(token), "a token is never in the log");
}

#[test]
fn bad_tokens_are_refused_each_for_its_reason() {
    let scene = Scene::start(&["--token-audience", "notes", "--token-issuer", "me"]);
    let good = json!({ "exp": unix_seconds() + 3_600, "aud": "notes", "iss": "me", "syncline": [{ "documents": "*", "may": ["admin"] }] });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let metrics = |token: &str| scene.server.http_as("/metrics", &format!("Authorization: Bearer {token}\r\n"));
    let admin = signed(&good, SECRET);
    assert_eq!(metrics(&admin).status, 200);
    let none = format!("{}.", unsigned(&json!({ "alg": "none" }), &good));
    for (token, status) in [
        (signed(&with("exp", json!(unix_seconds() - 60)), SECRET), "token_expired"),
        (signed(&with("nbf", json!(unix_seconds() + 600)), SECRET), "token_early"),
        (signed(&good, b"another secret that is long enough too"), "token_signature"),
        (none, "token_malformed"),
        (signed_as(&json!({ "alg": "HS512" }), &good, SECRET), "token_algorithm"),
        (signed(&with("aud", json!("mail")), SECRET), "token_audience"),
        (signed(&with("iss", json!("them")), SECRET), "token_issuer"),
        (signed(&with("syncline", json!([{ "documents": "*", "may": ["own"] }])), SECRET), "token_claims"),
        ("garbage".to_owned(), "token_malformed"),
    ] {
        let header = format!("Bearer {token}");
        let refused = RawPeer::try_connect(scene.server.address(), "/", &[("Authorization", &header)]);
        let (code, words) = refused.err().expect("no websocket");
        assert!(code == 401 && words.len() > 10, "{status}: {code} {words}");
        let mut peer = RawPeer::connect(scene.server.address());
        let told = peer.join_by(&join_with("mallory", &token)).expect_err("not let in");
        assert!(told.iter().any(|words| words.len() > 10), "told why: {told:?}");
        let counted = metrics(&admin).body;
        assert!(counted.contains(&format!("syncline_refused_total{{reason=\"{status}\"}}")), "{status}:\n{counted}");
        assert!(!scene.server.printed().contains(&token), "a token is never in the log");
    }
    let mut peer = RawPeer::connect(scene.server.address());
    let told = peer.join_by(&Frame::join("nobody")).expect_err("a token is needed");
    assert!(told[0].contains("token is needed"), "{told:?}");
    assert_eq!(scene.server.http("/").status, 401);
    assert_eq!(scene.server.http("/health").status, 200, "load balancers have no token");
}

#[test]
fn a_public_key_is_no_secret() {
    let directory = DataDirectory::new();
    let private = directory.path().join("pair");
    let private = private.to_str().expect("a path in UTF-8");
    for algorithm in ["eddsa", "es256"] {
        let _ = std::fs::remove_file(private);
        let _ = std::fs::remove_file(format!("{private}.pub"));
        let made = Server::command(&["token", "new-key", private, "--algorithm", algorithm], "");
        assert!(made.status.success(), "{made:?}");
        let public = std::fs::read(format!("{private}.pub")).expect("the public half");
        let scene = Scene::with_key(&public, &[]);
        let minted = Server::command(&["token", "mint", "--key", private, "--may", "admin", "--all"], "");
        let token = String::from_utf8(minted.stdout).expect("a token").trim().to_owned();
        let page = scene.server.http_as("/metrics", &format!("Authorization: Bearer {token}\r\n"));
        assert_eq!(page.status, 200, "{algorithm}: {}", page.body);
        // The oldest trick: who has the public key signs with it as if it were a secret.
        let confused = signed(&admin(), &public);
        let page = scene.server.http_as("/metrics", &format!("Authorization: Bearer {confused}\r\n"));
        assert_eq!(page.status, 401, "{algorithm}");
        let inspected = Server::command(&["token", "inspect"], &token);
        assert!(String::from_utf8_lossy(&inspected.stdout).contains("\"admin\""), "{inspected:?}");
    }
}

#[test]
fn a_token_is_taken_from_wherever_it_may_stand_and_never_logged() {
    let scene = Scene::start(&["--log", "trace"]);
    let token = signed(&admin(), SECRET);
    let (bearer, protocols) = (format!("Bearer {token}"), format!("syncline, syncline.token.{token}"));
    let query = format!("/?access_token={token}");
    let (root, plain) = ("/", Frame::join("tab"));
    for (path, headers, join) in [
        (root, vec![("Authorization", &*bearer)], plain.clone()),
        (&*query, vec![], plain.clone()),
        (root, vec![("Sec-WebSocket-Protocol", &*protocols)], plain),
        (root, vec![], join_with("tab", &token)),
    ] {
        let mut peer = RawPeer::try_connect(scene.server.address(), path, &headers).map_err(|error| error.1);
        let peer = peer.as_mut().unwrap_or_else(|words| panic!("{path} {headers:?}: {words}"));
        peer.join_by(&join).unwrap_or_else(|told| panic!("{path}: {told:?}"));
        assert!(peer.aftermath().open);
    }
    assert!(!scene.server.printed().contains(&token));
    check_refused(&scene, &signed(&admin(), b"another secret that is long enough too"), "token_signature");
}

#[test]
fn a_document_of_others_looks_like_none() {
    let scene = Scene::start(&[]);
    let [own, other, nowhere] = [(); 3].map(|()| HonestPeer::fresh_document_id());
    let mut author = HonestPeer::on(scene.join("author", &admin()), &other, AutoCommit::new());
    author.put("secret", 1);
    author.until_acknowledged();
    let mut guesser = scene.join("guesser", &claims(&["admin"], &json!([own])));
    let mut forged = AutoCommit::new();
    forged.put(ROOT, "forged", 1).expect("the root accepts any key");
    let (heads, change) = (forged.get_heads(), forged.get_last_local_change().expect("a change").raw_bytes().to_vec());
    let [of_other, of_nowhere] = [&other, &nowhere].map(|id| {
        let empty = SyncMessage::bringing(&[], Vec::new()).encode();
        let bringing = SyncMessage::bringing(&heads, vec![change.clone()]).encode();
        guesser.send(&guesser.about("request", id).bytes("data", &empty));
        guesser.send(&guesser.about("sync", id).bytes("data", &empty));
        guesser.send(&guesser.about("sync", id).bytes("data", &bringing));
        let mut answers = Vec::new();
        while answers.len() < 6 {
            let Received::Frame(frame) = guesser.receive() else { panic!("cut off") };
            answers.push(format!("{frame:?}").replace(id, "it"));
        }
        assert!(guesser.aftermath().open);
        answers
    });
    assert_eq!(of_other, of_nowhere);
    assert_eq!(of_other.iter().filter(|answer| answer.contains("doc-unavailable")).count(), 3, "{of_other:?}");
    let mut reader = HonestPeer::on(scene.join("reader", &admin()), &other, AutoCommit::new());
    reader.until("secret", 1);
    assert!(!reader.has(&heads[0]), "nothing of it was taken");
    assert!(scene.refused("read_not_permitted") >= 6, "each is counted");
}

#[test]
fn a_reader_hears_everything_and_changes_nothing() {
    let mut scene = Scene::start(&[]);
    let id = HonestPeer::fresh_document_id();
    let mut author = HonestPeer::on(scene.join("author", &admin()), &id, AutoCommit::new());
    author.put("value", 1);
    author.until_acknowledged();
    let mut reader = HonestPeer::on(scene.join("reader", &claims(&["read"], &json!([id]))), &id, AutoCommit::new());
    reader.until("value", 1);
    reader.put("value", 2);
    let written = reader.doc().get_heads();
    let told = reader.acknowledged().expect_err("it is refused");
    assert!(told.contains("may not be changed"), "{told}");
    author.put("more", 3);
    author.until_acknowledged();
    reader.until("more", 3);
    assert_eq!(scene.refused("write_not_permitted"), 1);
    assert!(scene.server.stop().success());
    let again = Server::start(&scene.data.path().join("data"));
    let mut later = HonestPeer::join(again.address(), "later", &id, AutoCommit::new());
    later.until("more", 3);
    assert!(written.iter().all(|head| !later.has(head)), "what the reader wrote is not on the disk");
}

#[test]
fn what_has_expired_ends_the_connection_or_leaves_what_strangers_may() {
    let expiring = |seconds: u64| {
        let mut claims = admin();
        // Clocks may differ by 30 s.
        claims["exp"] = json!(unix_seconds() - 30 + seconds);
        claims
    };
    let scene = Scene::start(&[]);
    let mut peer = scene.join("tab", &expiring(2));
    let told = peer.until_closed();
    assert!(told.iter().any(|words| words.contains("expired")), "{told:?}");
    assert_eq!(scene.refused("token_expired"), 1);

    let scene = Scene::start(&["--strangers-may", "read"]);
    let id = HonestPeer::fresh_document_id();
    let mut peer = scene.join("tab", &expiring(2));
    let Received::Frame(frame) = peer.receive() else { panic!("cut off") };
    assert!(frame.text_of("message").contains("expired"), "{frame:?}");
    let mut reader = HonestPeer::on(peer, &id, AutoCommit::new());
    reader.put("value", 1);
    let told = reader.acknowledged().expect_err("it only reads from here on");
    assert!(told.contains("may not create"), "{told}");
}

#[test]
fn a_syncline_peer_renews_its_token_without_connecting_anew() {
    let scene = Scene::start(&[]);
    let mut claims = admin();
    claims["exp"] = json!(unix_seconds() - 30 + 2);
    let mut peer = RawPeer::connect(scene.server.address());
    peer.join_by(&native_join("tab", &signed(&claims, SECRET))).expect("the token is good");
    let left_ms = access_left_ms(&mut peer);
    assert!((1..=2_000).contains(&left_ms), "{left_ms}");
    let token = signed(&admin(), SECRET);
    // Kind 32, and room for what later versions put behind it.
    let message = [&[32][..], &(token.len() as u16).to_be_bytes(), token.as_bytes(), &[0; 8]].concat();
    peer.send(&Frame::new("syncline").text("senderId", "tab").bytes("data", &message));
    assert!(access_left_ms(&mut peer) > 3_000_000);
    // Past the first token's end.
    let mut other = scene.join("other", &claims);
    other.until_closed();
    assert!(peer.aftermath().open);
}

#[test]
fn whoever_came_with_a_key_that_is_withdrawn_is_cut_off() {
    let mut scene = Scene::start(&[]);
    let mut peer = scene.join("tab", &admin());
    assert!(peer.aftermath().open);
    std::fs::write(scene.data.path().join("key"), b"another secret that is long enough too").expect("another key");
    scene.server.hang_up();
    let told = peer.until_closed();
    assert!(told.iter().any(|words| words.contains("withdrawn")), "{told:?}");
    let mut again = RawPeer::connect(scene.server.address());
    again.join_by(&join_with("tab", &signed(&admin(), SECRET))).expect_err("the key is not known any more");
}

#[test]
fn pages_of_other_origins_are_turned_away() {
    let scene = Scene::start(&["--allow-origin", "https://app.example.org"]);
    let bearer = format!("Bearer {}", signed(&admin(), SECRET));
    let connect = |origin| {
        let headers = [("Authorization", &*bearer), ("Origin", origin)];
        RawPeer::try_connect(scene.server.address(), "/", &headers).map(drop).map_err(|(status, _)| status)
    };
    assert_eq!(connect("https://evil.example.org"), Err(403));
    assert_eq!(connect("https://app.example.org.evil.org"), Err(403));
    assert_eq!(connect("https://app.example.org"), Ok(()));
    assert_eq!(scene.refused("origin"), 2);
}

/// Decides as it is told, over HTTP, until the value is dropped.
struct Elsewhere(String);

impl Elsewhere {
    fn start(decide: impl Fn(&Value) -> Value + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap_or(0);
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                let answer = decide(&serde_json::from_slice(&body).unwrap_or_default()).to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
                // Who asked may be gone.
                let _ = reader.get_mut().write_all(format!("{head}{answer}").as_bytes());
            }
        });
        Self(format!("http://{address}/decide"))
    }
}

#[test]
fn those_who_decide_elsewhere_are_asked_and_without_an_answer_nothing_is_allowed() {
    let [open, closed] = [(); 2].map(|()| HonestPeer::fresh_document_id());
    let opened = open.clone();
    let elsewhere = Elsewhere::start(move |question| match question.get("token") {
        Some(token) if token == "known to us" => json!({ "subject": "alice" }),
        Some(token) if token == "one of us" => json!({ "subject": "root" }),
        None if question["document"].is_null() && question["subject"] == "root" => json!({ "may": ["admin"] }),
        Some(_) => Value::Null,
        None if question["document"] == json!(opened) && question["subject"] == "alice" => json!({ "may": ["create"] }),
        None => json!({ "may": [] }),
    });
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &["--access-url", &elsewhere.0]);
    let join = |who: &str, token: &str| {
        let mut peer = RawPeer::connect(server.address());
        peer.join_by(&join_with(who, token)).map(|()| peer)
    };
    assert!(join("mallory", "not known").is_err());
    let mut author = HonestPeer::on(join("alice", "known to us").expect("let in"), &open, AutoCommit::new());
    author.put("value", 1);
    author.until_acknowledged();
    let mut author = HonestPeer::on(join("alice too", "known to us").expect("let in"), &closed, AutoCommit::new());
    author.put("value", 1);
    assert!(author.acknowledged().expect_err("refused").contains("no such document"));
    for (token, status) in [("known to us", 403), ("one of us", 200), ("not known", 401)] {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        for path in ["/metrics", "/", "/documents", "/settings"] {
            assert_eq!(server.http_as(path, &bearer).status, status, "{path} with {token:?}");
        }
    }

    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("a bound port");
    let data = DataDirectory::new();
    let key = data.path().join("key");
    std::fs::write(&key, SECRET).expect("a key file");
    let (url, key) = (format!("http://{nobody}/"), key.to_str().expect("a path in UTF-8"));
    let server = Server::start_with(&data.path().join("data"), &["--token-key", key, "--access-url", &url]);
    let mut peer = RawPeer::connect(server.address());
    let claims = json!({ "sub": "alice", "exp": unix_seconds() + 60 });
    peer.join_by(&join_with("alice", &signed(&claims, SECRET))).expect("the token is good");
    let mut author = HonestPeer::on(peer, &open, AutoCommit::new());
    author.put("value", 1);
    assert!(author.acknowledged().expect_err("refused").contains("no such document"));
}

#[test]
fn an_address_for_others_needs_rules_or_a_word_that_it_needs_none() {
    let data = DataDirectory::new();
    let printed = Server::try_start(data.path(), "0.0.0.0:0", &[]).err().expect("it does not start");
    assert!(printed.contains("--token-key") && printed.contains("--open"), "{printed}");
    assert!(data.files().is_empty(), "and makes nothing");
    assert!(Server::try_start(data.path(), "0.0.0.0:0", &["--open"]).is_ok());
}

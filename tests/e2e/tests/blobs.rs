//! Blobs on a real server: peers played by hand, kills in the middle, and JavaScript over HTTP.
//!
//! Owns: what a server says and keeps when its process dies, its limits, and what a browser gets.
//! Must not: link the server, or assert times. Next: `hostile.rs`; docs/blobs.md.

use std::ops::Range;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use syncline_e2e::{Browser, DataDirectory, Frame, Item, PackageSet, RawPeer, Received, Server};

const PIECE: usize = 65_536;

const OFFER: u8 = 3;
const WANT: u8 = 4;
const PIECE_OF: u8 = 5;
const HAVE: u8 = 6;
const REFUSED: u8 = 7;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 3 + at / PIECE * 7) as u8).collect()
}

fn hash(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A Syncline replica that says what a test has it say.
struct Replica(RawPeer);

impl Replica {
    fn join(server: &Server, version: f64) -> Self {
        let mut peer = RawPeer::connect(server.address());
        let metadata = [("synclineVersion".to_owned(), Item::Number(version))];
        peer.send(&Frame::join("replica").with("peerMetadata", Item::Map(metadata.into())));
        let Received::Frame(_) = peer.receive() else { panic!("the server closed on a proper join") };
        Self(peer)
    }

    fn say(&mut self, kind: u8, hash: [u8; 32], fields: &[&[u8]]) {
        let data = [&[kind][..], &hash, &fields.concat()].concat();
        self.0.send(&Frame::new("syncline").text("senderId", "replica").bytes("data", &data));
    }

    fn offer(&mut self, content: &[u8]) {
        self.say(OFFER, hash(content), &[&(content.len() as u64).to_be_bytes()]);
    }

    fn piece(&mut self, content: &[u8], address: [u8; 32], offset: usize) {
        let data = &content[offset..content.len().min(offset + PIECE)];
        let numbers = [content.len() as u64, offset as u64].map(u64::to_be_bytes).concat();
        self.say(PIECE_OF, address, &[&numbers, &(data.len() as u32).to_be_bytes(), data]);
    }

    /// The kind and the fields of the next message about blobs.
    fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match self.0.receive() {
                Received::Frame(frame) if frame.kind() == "syncline" => {
                    let data = frame.bytes_of("data");
                    return Some((data[0], data[33..].to_vec()));
                }
                Received::Frame(_) => {}
                Received::Closed => return None,
            }
        }
    }

    /// Sends what the server asks for until it says what became of it. Returns that, and what was asked for.
    fn upload(&mut self, content: &[u8], address: [u8; 32]) -> (u8, Vec<Range<usize>>) {
        self.say(OFFER, address, &[&(content.len() as u64).to_be_bytes()]);
        let mut asked = Vec::new();
        loop {
            match self.hear().expect("an answer") {
                (WANT, fields) => {
                    let range = range(&fields);
                    (range.start..range.end).step_by(PIECE).for_each(|offset| self.piece(content, address, offset));
                    asked.push(range);
                }
                (kind, _) => return (kind, asked),
            }
        }
    }
}

/// The range of a want.
fn range(fields: &[u8]) -> Range<usize> {
    let number = |at: usize| u64::from_be_bytes(fields[at..at + 8].try_into().expect("8 bytes")) as usize;
    number(0)..number(8)
}

#[test]
fn what_a_killed_server_had_is_not_asked_for_again() {
    if Server::is_reference() {
        return;
    }
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let content = content(40 * PIECE + 5);
    let address = hash(&content);
    let mut replica = Replica::join(&server, 2.0);
    replica.offer(&content);
    let mut durable = 0;
    while durable < 10 * PIECE {
        let (kind, fields) = replica.hear().expect("it asks on");
        assert_eq!(kind, WANT);
        let wanted = range(&fields);
        (wanted.start..wanted.end).step_by(PIECE).for_each(|offset| replica.piece(&content, address, offset));
        // It asks at most 8 pieces beyond what is durable.
        durable = wanted.end.saturating_sub(8 * PIECE);
    }
    server.kill_and_restart(data.path());
    assert_eq!(server.http(&format!("/blobs/{}", hex(&address))).status, 404, "not before all of it is there");
    let mut replica = Replica::join(&server, 2.0);
    let (kind, asked) = replica.upload(&content, address);
    assert_eq!(kind, HAVE);
    assert!(asked[0].start >= durable, "{} bytes were durable, it asks from {}", durable, asked[0].start);
    assert!(asked.windows(2).all(|pair| pair[0].end == pair[1].start), "each byte is asked for once: {asked:?}");
    assert_eq!(replica.upload(&content, address), (HAVE, vec![]), "it has it");

    server.kill_and_restart(data.path());
    let mut replica = Replica::join(&server, 2.0);
    assert_eq!(replica.upload(&content, address), (HAVE, vec![]), "what it said it has outlives it");
    server.stop();
    let report = Server::check(data.path());
    assert!(report.status.success(), "{report:?}");
    assert!(String::from_utf8_lossy(&report.stdout).contains("1 blobs"), "{report:?}");
}

#[test]
fn liars_and_floods_cost_themselves() {
    if Server::is_reference() {
        return;
    }
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &["--blob-mib-max", "2", "--blobs-mib-max", "3"]);
    let (good, other) = (content(20 * PIECE), vec![7; 20 * PIECE]);
    // Content that is not what the address says.
    let mut liar = Replica::join(&server, 2.0);
    assert_eq!(liar.upload(&other, hash(&good)).0, REFUSED);
    // Larger than allowed, and no room: refused before and while it comes.
    assert_eq!(liar.upload(&content(33 * PIECE), [1; 32]), (REFUSED, vec![]));
    assert_eq!(liar.upload(&good, hash(&good)).0, HAVE);
    let (kind, asked) = liar.upload(&content(30 * PIECE), [2; 32]);
    assert_eq!(kind, REFUSED);
    assert!(asked.last().is_some_and(|range| range.end <= 30 * PIECE));
    // Pieces without end that nobody asked for.
    let mut flood = Replica::join(&server, 2.0);
    for _ in 0..17 {
        flood.piece(&good, [3; 32], 0);
    }
    assert_eq!(flood.hear(), None, "it is hung up on");
    // A peer of the first version hears and says nothing of blobs.
    let mut old = Replica::join(&server, 1.0);
    old.offer(&good);
    old.0.send(&Frame::new("leave").text("senderId", "replica"));
    assert_eq!(old.hear(), None);
    let reasons = server.refused().1.join(" ");
    for reason in ["blob_mismatch", "blob_unasked"] {
        assert!(reasons.contains(reason), "{reasons}");
    }
    let mut honest = Replica::join(&server, 2.0);
    assert_eq!(honest.upload(&good, hash(&good)), (HAVE, vec![]));
}

fn fetch(page: &syncline_e2e::Page<'_>, server: &Server, path: &str, options: Value) -> Value {
    page.call("fetch", json!({ "url": format!("http://{}{path}", server.address()), "options": options }))
}

#[test]
fn javascript_puts_and_reads_blobs_over_http() {
    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    if Server::is_reference() {
        return;
    }
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &["--blob-mib-max", "1"]);
    let page = browser.open("page", &server.url());
    let text = "Grüße, ".repeat(40_000);
    let (address, size) = (hex(&hash(text.as_bytes())), text.len());
    let path = format!("/blobs/{address}");
    let get = |path: &str, headers: Value| fetch(&page, &server, path, json!({ "headers": headers }));

    assert_eq!(get(&path, json!({}))["status"], 404);
    let put = |path: &str, body: &str| fetch(&page, &server, path, json!({ "method": "PUT", "body": body }));
    let wrong = put(&path, "something else");
    assert_eq!(wrong["status"], 422, "{wrong}");
    assert_eq!(put(&path, &text)["status"], 201);
    assert_eq!(put(&path, &text)["status"], 200, "it is there");
    assert_eq!(put(&format!("/blobs/{}", "0".repeat(64)), &"x".repeat(1024 * 1024 + 1))["status"], 413);
    assert_eq!(put("/blobs/nonsense", "")["status"], 400);

    let whole = get(&path, json!({}));
    assert_eq!((&whole["status"], &whole["sha256"]), (&json!(200), &json!(address)));
    let headers = &whole["headers"];
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment"),
        ("x-content-type-options", "nosniff"),
        ("access-control-allow-origin", "*"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("etag", &format!("\"{address}\"")),
        ("content-length", &size.to_string()),
        ("content-security-policy", "default-src 'none'; sandbox"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    let part = get(&path, json!({ "range": "bytes=65530-65545" }));
    assert_eq!(
        (&part["status"], &part["headers"]["content-range"]),
        (&json!(206), &json!(format!("bytes 65530-65545/{size}")))
    );
    assert_eq!(part["sha256"], hex(&hash(&text.as_bytes()[65_530..=65_545])));
    let last = get(&path, json!({ "range": "bytes=-1" }));
    assert_eq!((&last["status"], &last["length"]), (&json!(206), &json!(1)));
    let beyond = get(&path, json!({ "range": format!("bytes={size}-") }));
    assert_eq!(
        (&beyond["status"], &beyond["headers"]["content-range"]),
        (&json!(416), &json!(format!("bytes */{size}")))
    );
    let known = get(&path, json!({ "if-none-match": format!("\"{address}\"") }));
    assert_eq!((&known["status"], &known["length"]), (&json!(304), &json!(0)));
    let head = fetch(&page, &server, &path, json!({ "method": "HEAD" }));
    assert_eq!(
        (&head["status"], &head["length"], &head["headers"]["content-length"]),
        (&json!(200), &json!(0), &json!(size.to_string()))
    );
    let shown = get(&format!("{path}?type=text/plain&name=gru%C3%9F.txt"), json!({}));
    assert_eq!(shown["headers"]["content-type"], "text/plain");
    assert_eq!(shown["headers"]["content-disposition"], "inline; filename*=UTF-8''gru%C3%9F.txt");
    assert_eq!(
        get(&format!("{path}?type=text/html"), json!({}))["headers"]["content-type"],
        "application/octet-stream"
    );
    let allowed = fetch(&page, &server, &path, json!({ "method": "OPTIONS" }));
    assert!(allowed["headers"]["access-control-allow-methods"].as_str().expect("named").contains("PUT"), "{allowed}");
    assert_eq!(fetch(&page, &server, &path, json!({ "method": "DELETE" }))["status"], 405);
}

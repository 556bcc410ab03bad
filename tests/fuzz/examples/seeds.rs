//! Writes the first inputs of every corpus: what honest peers send, and what forgers do.
//!
//! Owns: where the fuzzer starts. Must not: depend on chance, so that a second run writes the same files.
//! Next: docs/fuzzing.md. Run: `cargo run -p syncline-fuzz-targets --example seeds -- fuzz/found`.

#[allow(dead_code, unreachable_pub)]
#[path = "../../../crates/core/tests/support/authors.rs"]
mod authors;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../crates/core/tests/support/forge.rs"]
mod forge;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use automerge::marks::{ExpandMark, Mark};
use automerge::sync::{BloomFilter, State, SyncDoc};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, AutomergeError, ChangeHash, ObjType, ROOT, ReadDoc, ScalarValue};
use flate2::read::GzDecoder;
use forge::{Forged, Key, Row};
use syncline_core::reconcile::{ElementSet, Initiator, Options, Responder};
use syncline_fuzz_targets::known_elements;

/// Transactions of a recorded editing session that become changes.
const TRANSACTIONS: usize = 24;

struct Corpora(PathBuf);

impl Corpora {
    fn add(&self, target: &str, name: &str, bytes: &[u8]) {
        let directory = self.0.join(target);
        std::fs::create_dir_all(&directory).expect("a directory to write to");
        std::fs::write(directory.join(name), bytes).expect("a directory to write to");
    }
}

fn main() {
    let to = Corpora(std::env::args_os().nth(1).expect("a directory to write to").into());
    frames(&to);
    let mut documents = authors::history(3, 25);
    documents.push(recorded_session());
    documents.extend((100..106).map(|seed| authors::history(seed, 4).pop().expect("at least one")));
    changes(&to, &mut documents);
    edits(&to);
    forged(&to);
    messages(&to);
    scripts(&to);
    rounds(&to);
    bodies(&to);
}

/// What programs say over HTTP, each after the byte of its kind.
fn bodies(to: &Corpora) {
    let merges = [
        r#"{"n":2,"map":{"x":null,"y":[1]}}"#,
        r#"{"text":"a🦀c","list":[1,false,{"a/b":2.5}]}"#,
        r#"{"new":{"z":null}}"#,
    ];
    let patches = [
        r#"[{"op":"test","path":"/n","value":1},{"op":"replace","path":"/text","value":"b"}]"#,
        r#"[{"op":"add","path":"/list/-","value":{"k":[]}},{"op":"remove","path":"/list/0"}]"#,
        r#"[{"op":"move","from":"/map/x","path":"/x"},{"op":"copy","from":"/list/2/a~1b","path":"/~0"}]"#,
        r#"[{"op":"splice","path":"/text","index":1,"delete":1,"insert":"xy"},{"op":"increment","path":"/hits","by":-4}]"#,
    ];
    let documents = [r#"{"title":"x","done":[true,null,1.5e300],"of":{"":1}}"#, "{}"];
    for (kind, texts) in [&merges[..], &patches[..], &documents[..]].into_iter().enumerate() {
        for (number, text) in texts.iter().enumerate() {
            to.add("bodies", &format!("json.{kind}.{number}"), &[&[kind as u8], text.as_bytes()].concat());
        }
    }
    let mut document = AutoCommit::new();
    document.put(ROOT, "a", 1).expect("a map");
    let saved = document.save();
    document.put(ROOT, "a", 2).expect("a map");
    to.add("bodies", "file", &[&[3], &saved[..], &document.save_incremental()].concat());
    let said = [
        serde_json::json!({ "__presence": { "type": "snapshot", "state": { "cursor": 3 } } }),
        serde_json::json!({ "__presence": { "type": "update", "channel": "name", "value": ["a", 1.5, null] } }),
        serde_json::json!({ "__presence": { "type": "goodbye" } }),
    ];
    for (number, said) in said.iter().enumerate() {
        to.add("bodies", &format!("said.{number}"), &[&[4], &syncline_content::cbor::encode(said)[..]].concat());
    }
}

/// The golden frames, and the ids in them.
fn frames(to: &Corpora) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/core/tests/golden/wire.txt");
    let golden = std::fs::read_to_string(golden).expect("the golden frames");
    for line in golden.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, hex) = line.split_once(' ').expect("a name and bytes");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        to.add("wire", name, &bytes);
        // A connection that joins, then sends the frame as it is.
        let length = [bytes.len() as u8, (bytes.len() >> 8) as u8];
        to.add("session", &format!("frame.{name}"), &[&[0, 0, 1, 0][..], &length, &bytes].concat());
    }
    let texts =
        ["11111111111111114Ki9Gx", "automerge:11111111111111114Ki9Gx", "automerge:11111111111111114Ki9Gy", "peer", ""];
    for (number, text) in texts.iter().enumerate() {
        to.add("ids", &format!("text.{number}"), text.as_bytes());
    }
    for length in [0, 1, 16, 32, 128, 129] {
        to.add("ids", &format!("bytes.{length}"), &vec![0xa5; length]);
    }
}

/// Changes and documents as automerge writes them.
fn changes(to: &Corpora, documents: &mut [AutoCommit]) {
    for (number, document) in documents.iter_mut().enumerate() {
        let saved = document.save();
        if saved.len() < 8_000 {
            to.add("chunks", &format!("document.{number}"), &saved);
            to.add("document", &format!("document.{number}"), &[&[0], forge::body(&saved)].concat());
        }
        let changes = document.get_changes(&[]);
        for (place, change) in changes.iter().enumerate().filter(|(_, change)| change.raw_bytes().len() < 300) {
            let name = format!("change.{number}.{place}");
            to.add("change", &name, &[&[0], forge::body(change.raw_bytes())].concat());
            if place % 8 == 0 {
                to.add("chunks", &name, change.raw_bytes());
                let packed = forge::compressed(forge::body(change.raw_bytes()));
                to.add("chunks", &format!("{name}.packed"), &packed);
                to.add("change", &format!("{name}.packed"), &[&[2], forge::body(&packed)].concat());
                to.add("change", &format!("{name}.whole"), &[&[3], change.raw_bytes()].concat());
            }
        }
    }
    to.add("document", "empty", &[1, 0x85, 0x6f, 0x4a, 0x83, 0xb8, 0x1a, 0x95, 0x44, 0, 4, 0, 0, 0, 0]);
}

type Edit<'a> = &'a dyn Fn(&mut AutoCommit) -> Result<(), AutomergeError>;

/// Changes on top of what the target `change` knows, one of each kind.
fn edits(to: &Corpora) {
    let known = syncline_fuzz_targets::known_document();
    let object = |name| known.get(ROOT, name).expect("readable").expect("it is there").1;
    let (text, list) = (object("text"), object("list"));
    let edits: [Edit<'_>; 9] = [
        &|document| document.put(ROOT, "key 0", 7),
        &|document| document.delete(ROOT, "key 1"),
        &|document| document.put_object(ROOT, "map", ObjType::Map).map(drop),
        &|document| document.put(ROOT, "count", ScalarValue::counter(1)),
        &|document| document.insert(&list, 1, "x"),
        &|document| document.put(&list, 0, "y"),
        &|document| document.delete(&list, 0),
        &|document| document.splice_text(&text, 1, 2, "naïve"),
        &|document| document.mark(&text, Mark::new("bold".into(), true, 0, 3), ExpandMark::Both),
    ];
    for (number, edit) in edits.iter().enumerate() {
        let mut document = known.clone().with_actor(ActorId::from([5; 16]));
        edit(&mut document).expect("in range");
        document.commit();
        let change = document.get_last_local_change().expect("just made");
        to.add("change", &format!("edit.{number}"), &[&[0], forge::body(change.raw_bytes())].concat());
    }
}

/// The first transactions of a recorded session of two people, as they depend on each other.
fn recorded_session() -> AutoCommit {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/traces/friendsforever.json.gz");
    let mut json = String::new();
    GzDecoder::new(std::fs::File::open(path).expect("the trace")).read_to_string(&mut json).expect("the trace");
    let trace: serde_json::Value = serde_json::from_str(&json).expect("the trace");
    let mut start = AutoCommit::new().with_actor(ActorId::from([0; 16]));
    let text = start.put_object(ROOT, "text", ObjType::Text).expect("a fresh document");
    start.commit();
    let mut authors = BTreeMap::new();
    let transactions = trace["txns"].as_array().expect("a list");
    for (number, transaction) in transactions.iter().take(TRANSACTIONS).enumerate() {
        let agent = transaction["agent"].as_u64().expect("a number");
        let fork = || start.clone().with_actor(ActorId::from([agent as u8 + 1; 16]));
        let mut author = authors.remove(&agent).unwrap_or_else(fork);
        let parents = transaction["parents"].as_array().expect("a list");
        if parents.iter().any(|parent| parent.as_u64() != Some((number as u64).saturating_sub(1))) {
            authors.values_mut().for_each(|other| drop(author.merge(other).expect("one document")));
        }
        for patch in transaction["patches"].as_array().expect("a list") {
            let at = patch[0].as_u64().expect("a place") as usize;
            let removed = patch[1].as_i64().expect("a count") as isize;
            // Beyond the end only where the other author's text has not come yet.
            let _ = author.splice_text(&text, at, removed, patch[2].as_str().expect("a text"));
        }
        author.commit_with(CommitOptions::default().with_message(number.to_string()));
        authors.insert(agent, author);
    }
    let mut all = start;
    authors.values_mut().for_each(|author| drop(all.merge(author).expect("one document")));
    all
}

/// What no honest client writes.
fn forged(to: &Corpora) {
    let key = Key::Property("key");
    let list = Row::bare(2, Key::Property("list"));
    let text = Row::bare(4, Key::Property("text"));
    let mark = |value| Row { action: 7, mark_name: value, ..Row::insert(Key::Head).within(1, 0) };
    let rows: [&[Row]; 8] = [
        &[],
        &[Row::put(key.clone()), Row::put(key.clone()).after(&[(1, 0)])],
        &[Row::put(key.clone()), Row::bare(3, key.clone()).after(&[(1, 0)])],
        &[list.clone(), Row::insert(Key::Head).within(1, 0), Row::insert(Key::Element(2, 0)).within(1, 0)],
        &[Row::put(key.clone()).within(1, 0)],
        &[list, Row::insert(Key::Element(9, 0)).within(1, 0)],
        &[text, mark(Some("bold")), Row { value: (0, Vec::new()), ..mark(None) }],
        &[Row { action: 8, ..Row::put(key) }],
    ];
    for (number, rows) in rows.iter().enumerate() {
        to.add("change", &format!("forged.{number}"), &[vec![0], forge::change().rows(rows).body()].concat());
    }
    let plain = forge::change;
    let odd = [
        Forged { deps: vec![[1; 32], [2; 32]], ..plain() },
        Forged { others: vec![vec![2]], ..plain() },
        Forged { start_op: u64::MAX, ..plain() },
        Forged { extra: vec![1, 1, b'x'], ..plain() },
        plain().column(66, &forge::repeat(10_000_000, 1)).column(86, &forge::repeat(10_000_000, 0)),
    ];
    for (number, forged) in odd.iter().enumerate() {
        to.add("change", &format!("odd.{number}"), &[vec![0], forged.body()].concat());
    }
    let bomb = Forged { extra: vec![0; 300_000], ..plain() };
    to.add("change", "bomb", &[&[2], forge::body(&bomb.compressed())].concat());
    to.add("chunks", "bomb", &bomb.compressed());
    to.add("chunks", "kinds", &[0, 1, 2, 3, 4].map(|kind| forge::chunk(kind, b"body")).concat());
}

/// What two stock documents say to each other, and their filters.
fn messages(to: &Corpora) {
    let mut documents = [1u8, 2].map(|actor| AutoCommit::new().with_actor(ActorId::from([actor; 16])));
    let mut states = [State::new(), State::new()];
    for round in 0..12_usize {
        let from = round % 2;
        documents[from].put(ROOT, format!("key {}", round % 3), round as u64).expect("a map");
        documents[from].commit();
        if round == 7 {
            states = [State::new(), State::new()];
        }
        let Some(message) = documents[from].sync().generate_sync_message(&mut states[from]) else { continue };
        let bytes = message.clone().encode();
        to.add("message", &format!("message.{round}"), &bytes);
        documents[1 - from].sync().receive_sync_message(&mut states[1 - from], message).expect("an honest message");
    }
    to.add("message", "first", &[0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84]);
    to.add("message", "no_probes", &[0x42, 0, 0, 1, 0, 3, 1, 10, 0, 0, 0]);
    to.add("message", "many_heads", &[0x42, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
    let hashes: Vec<ChangeHash> = documents[0].get_changes(&[]).iter().map(|change| change.hash()).collect();
    for count in [0, 1, 3, 6] {
        let filter = BloomFilter::from_hashes(hashes[..count].iter()).to_bytes();
        to.add("bloom", &format!("filter.{count}"), &[&hashes[0].0[..], &filter].concat());
    }
    for (name, filter) in [("no_bits", vec![1, 0, 7]), ("probes", vec![1, 10, 0x80, 0x80, 0x80, 0x80, 1, 0, 0])] {
        to.add("bloom", name, &[vec![7; 32], filter].concat());
    }
}

/// Scripts: deliveries to a graph, records of one, actions on a hub, damage to a file.
fn scripts(to: &Corpora) {
    let forwards: Vec<u8> = (0..80).collect();
    let backwards: Vec<u8> = (0..80).rev().collect();
    let interrupted: Vec<u8> = (0..60).flat_map(|place| [place, 200, place, 230, place / 2]).collect();
    for (name, order) in [("forwards", forwards), ("backwards", backwards), ("interrupted", interrupted)] {
        to.add("graph", name, &order);
    }
    to.add("graph", "single", &[5, 5, 0, 200, 9]);
    to.add("graph", "nothing", &[]);
    for (number, count) in [1, 3, 9, 20].into_iter().enumerate() {
        to.add("index", &format!("records.{number}"), &records(count));
    }
    to.add("index", "no_records", &[0, 0, 0]);
    let ask = [0, 0, 3, 0, 0, 4 + 16 + 64, 0, 0, 0, 4];
    let bring = [3, 0, 0, 32, 0, 0, 0, 0, 20, 18, 8, 18];
    let whole = [3, 0, 0, 33, 0, 0, 2, 30, 0, 18, 8, 18];
    let scripts: [(&str, Vec<u8>); 6] = [
        ("ask", [&ask[..], &[18, 13, 0, 9]].concat()),
        ("bring", [&[0, 0][..], &bring, &[18], &ask].concat()),
        ("whole", [&[0, 0][..], &whole, &[16, 0, 40, 18], &ask, &[18]].concat()),
        ("fail", [&[0, 0][..], &bring, &[12, 12, 18], &ask].concat()),
        ("upstream", [&[17, 0, 0, 17, 0, 3, 0, 3, 18, 0, 1, 17, 0, 2, 0, 18, 18][..], &bring].concat()),
        ("presence", vec![0, 0, 0, 4, 7, 0, 0, 2, 1, 3, 0, 1, 2, 3, 7, 1, 1, 3, 0, 1, 2]),
    ];
    for (name, script) in scripts {
        to.add("session", name, &script);
    }
    for file in [0, 1] {
        to.add("store", &format!("sound.{file}"), &[file]);
        to.add("store", &format!("bytes.{file}"), &[file, 0, 0, 0x20, 0, 0xff, 0x10, 0x40, 0, 1]);
        to.add("store", &format!("cut.{file}"), &[file, 1, 0, 0x30, 0, 0]);
        for place in 0..18 {
            to.add("store", &format!("row.{file}.{place}"), &[2 + file, place, 1, 5, 2, 3, 7, 8, 9]);
        }
    }
}

/// Rounds between a known set and one that lacks some of it and has others: each message to both sides.
fn rounds(to: &Corpora) {
    for (count, kept, sketches) in [(1, 1, true), (5, 2, true), (40, 9, false), (120, 40, true), (120, 3, false)] {
        let here: ElementSet = known_elements(count).into_iter().collect();
        let there = known_elements(count + 1).into_iter().enumerate();
        let there: ElementSet = there.filter(|(at, _)| at % kept != 1).map(|(_, element)| element).collect();
        let options = Options { message_bytes_max: 4_096, sketches, ..Options::default() };
        let (mut initiator, mut message) = Initiator::start(&there, options);
        let mut responder = Responder::new(options);
        let mut script = vec![count, u8::from(!sketches)];
        let mut note = |message: &[u8]| {
            script.extend((message.len() as u16).to_le_bytes());
            script.extend(message);
        };
        loop {
            note(&message);
            let mut next = None;
            for answer in responder.handle(&here, &message).expect("our own message") {
                note(&answer);
                next = initiator.handle(&there, &answer).expect("our own answer").send;
            }
            let Some(send) = next else { break };
            message = send;
        }
        script.truncate(4_096);
        to.add("reconcile", &format!("round.{count}.{kept}"), &script);
    }
    for (name, message) in [
        ("version", &[0x62, 1][..]),
        ("list", &[0x61, 5, 0, 2, 0, 0, 0, 2, 0]),
        ("back", &[0x61, 5, 1, 9, 0, 1, 1, 8, 0]),
        ("ask", &[1, 0, 24]),
        (
            "noise",
            &[
                2, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7,
                8, 2,
            ],
        ),
        ("long", &[0x61, 0, 0, 2, 0xff, 0xff, 0xff, 0x7f, 1]),
    ] {
        let length = [message.len() as u8, 0];
        to.add("reconcile", name, &[&[9, 0][..], &length, message].concat());
    }
}

/// Index records of a chain by two actors: each its hash, one distance, the actor, its operations, their one kind.
fn records(count: u8) -> Vec<u8> {
    let mut bytes = vec![count, 0, 0];
    for node in 0..count {
        bytes.extend([node + 1; 32]);
        bytes.extend(if node == 0 { vec![0] } else { vec![1, 1] });
        bytes.push(node % 2);
        if node < 2 {
            bytes.extend([2, 9, node]);
        }
        bytes.extend([node + 1, 1, 1, 0, 0]);
    }
    bytes
}

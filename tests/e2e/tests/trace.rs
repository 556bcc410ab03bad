//! A recorded session of two people, typed again by two real clients while the server is killed under them.
//!
//! Owns: who types, when the server dies, and the three texts that must be equal in the end.
//! Must not: change what was concurrent: `js/replay.mjs` shows each author what it had seen then, nothing else.
//! Next: `../js/replay.mjs`; `../traces/ATTRIBUTION.md`.
//!
//! The authors waited for one another 882 times in a row, and automerge-repo sends a document at most every 100 ms,
//! so the test takes more than a minute, half of it idle.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use syncline_e2e::{Browser, DataDirectory, Found, PackageSet, Server};

/// Transactions of the trace after which the server is killed.
const KILLS: [u64; 3] = [6_000, 13_000, 20_000];

#[test]
fn friends_forever_ends_alike_for_both_authors_and_for_a_newcomer() {
    let (Some(first), Some(second)) = (Browser::start(PackageSet::Newest), Browser::start(PackageSet::Newest)) else {
        return;
    };
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let trace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("traces/friendsforever.json.gz");
    let authors = [first.open("author", &server.url()), second.open("author", &server.url())];
    let document = authors[0].create(json!({ "text": "" }));
    authors[1].find(&document.url);
    authors[1].until_heads(&document.url, &document.heads);

    let typing: Vec<_> = authors
        .iter()
        .enumerate()
        .map(|(author, page)| page.begin("replay", json!({ "url": document.url, "author": author, "trace": trace })))
        .collect();
    for kill in KILLS {
        while first.next_event()["transaction"].as_u64().is_none_or(|transaction| transaction < kill) {}
        server.kill_and_restart(data.path());
    }
    for author in typing {
        author.wait();
    }

    let end = end_content(&trace);
    for page in &authors {
        // Whoever finished first still waits for the other's last words.
        page.until_value(&document.url, json!(["text"]), end.clone());
    }
    let newcomer = second.open("newcomer", &server.url());
    assert_eq!(newcomer.find(&document.url), Found::Ready);
    newcomer.until_value(&document.url, json!(["text"]), end);
    let heads = authors[0].heads(&document.url);
    newcomer.until_heads(&document.url, &heads);
    authors[1].until_heads(&document.url, &heads);
}

/// The text that the recorded session ended with.
fn end_content(trace: &PathBuf) -> Value {
    let mut text = String::new();
    let bytes = fs::read(trace).expect("the trace is in the repository");
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).expect("gzipped JSON");
    let mut trace: Value = serde_json::from_str(&text).expect("gzipped JSON");
    trace["endContent"].take()
}

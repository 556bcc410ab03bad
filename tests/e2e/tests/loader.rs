//! A document that costs more to load than the server grants, while an honest pair works beside it.
//!
//! Owns: that such a document is refused or stays raw, is named where people look, and takes nothing else with it.
//! Must not: need a damaged document: these are honest, and only too large for the limit.
//! Next: `hostile.rs`; the loader's own tests in `apps/server`.

use std::thread;
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjId, ObjType, ROOT};
use syncline_e2e::{DataDirectory, HonestPair, HonestPeer, PATIENCE, Server, skip};

/// Enough for the process and a small document, and for no large one.
const LIMITS: [&str; 4] = ["--load-memory-mib-max", "32", "--load-seconds-max", "60"];

/// Puts sixty thousand letters into a text: a change of that size, for many times the memory.
fn lengthen(doc: &mut AutoCommit, text: &ObjId) {
    doc.splice_text(text, 0, 0, &"as long as it takes ".repeat(3_000)).expect("a text takes any text");
    doc.commit();
}

/// A document with an empty text, whose changes are many enough that a further one is sent as a change.
fn started_document() -> (AutoCommit, ObjId) {
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).expect("the root accepts any key");
    for number in 0..20 {
        doc.put(ROOT, "last", number).expect("the root accepts any key");
        doc.commit();
    }
    (doc, text)
}

/// Waits until the server has counted something under this name and reason.
fn until_counted(server: &Server, counter: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !server.http("/metrics").body.lines().any(|line| line.starts_with(counter)) {
        assert!(Instant::now() < deadline, "{counter} is not counted");
        thread::yield_now();
    }
}

#[test]
fn a_document_that_is_uploaded_whole_and_cannot_be_loaded_is_refused_alone() {
    if Server::is_reference() {
        return skip("another program stands in for the server");
    }
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &LIMITS);
    let mut pair = HonestPair::start(server.address());
    let id = HonestPeer::fresh_document_id();
    let (mut doc, text) = started_document();
    (0..5).for_each(|_| lengthen(&mut doc, &text));
    let mut author = HonestPeer::join(server.address(), "author", &id, doc);
    let told = author.acknowledged().expect_err("the server cannot load the document");
    assert!(told.contains("SIGABRT") && told.contains("32 MiB"), "{told}");
    assert!(server.refused().1.iter().any(|reason| reason.contains("document_loader_died")));
    let line = server.until_printed("document_loader_died");
    assert!(line.contains(&id) && line.contains("author"), "the log says which document and who sent it: {line}");
    pair.still_syncs();
}

#[test]
fn a_document_that_cannot_be_compacted_stays_raw_is_named_and_served() {
    if Server::is_reference() {
        return skip("another program stands in for the server");
    }
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &LIMITS);
    let mut pair = HonestPair::start(server.address());
    let id = HonestPeer::fresh_document_id();
    // What grows change by change is never loaded on its way in, only when it is compacted.
    let (doc, text) = started_document();
    let mut author = HonestPeer::join(server.address(), "author", &id, doc);
    author.until_acknowledged();
    for number in 0..5 {
        lengthen(author.doc(), &text);
        author.put("last", 100 + number);
        author.until_acknowledged();
    }
    until_counted(&server, "syncline_documents_quarantined_total{reason=\"loader_died\"}");
    let line = server.until_printed("cannot be compacted");
    assert!(line.contains(&id) && line.contains("SIGABRT"), "the log says which document and why: {line}");
    let mut newcomer = HonestPeer::join(server.address(), "newcomer", &id, AutoCommit::new());
    newcomer.until("last", 104);
    author.put("last", 200);
    newcomer.until("last", 200);
    pair.still_syncs();
    drop(server);
    assert!(Server::check(data.path()).status.success(), "what stays raw is whole");
}

//! Whose actors are, what a subject stores, limits that change while the server runs, and the log under a flood.
//!
//! Owns: these against the server as a process, through restarts. Must not: repeat the hub's own scenarios.
//! Next: `../access.rs`; docs/access.md, "Actors", docs/server.md.

use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use serde_json::{Value, json};
use syncline_e2e::token::{signed, unix_seconds};
use syncline_e2e::{DataDirectory, HonestPeer, RawPeer, Server, SyncMessage, http};

use super::{SECRET, Scene, admin};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn of(subject: &str, may: &[&str]) -> Value {
    json!({ "sub": subject, "exp": unix_seconds() + 3_600, "syncline": [{ "documents": "*", "may": may }] })
}

fn writer(scene: &Scene, subject: &str, id: &str, doc: AutoCommit) -> HonestPeer {
    HonestPeer::on(scene.join(subject, &of(subject, &["create"])), id, doc)
}

fn written(value: i64) -> AutoCommit {
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "number", value).expect("the root accepts any key");
    doc.commit();
    doc
}

#[test]
fn an_actor_is_its_first_subjects_and_a_forgery_is_refused_also_after_a_restart() {
    let mut scene = Scene::start(&["--bind-actors"]);
    let id = HonestPeer::fresh_document_id();
    let mut doc = written(1);
    writer(&scene, "alice", &id, doc.clone()).until_acknowledged();
    // What only alice's device could write next, or so her peers would believe.
    let mut forged = doc.clone();
    forged.put(ROOT, "number", 666).expect("the root accepts any key");
    forged.commit();
    let file = forged.save();
    let refused = |scene: &Scene| {
        let mut mallory = writer(scene, "mallory", &id, forged.clone());
        let told = mallory.acknowledged().expect_err("it is not taken");
        assert!(told.contains("belongs to another subject"), "{told}");
        assert_eq!(scene.refused("actor_of_another_subject"), 1);
    };
    refused(&scene);
    // Over HTTP as well.
    let header = format!("Bearer {}", signed(&of("mallory", &["create"]), SECRET));
    let headers = [("Authorization", header.as_str()), ("Content-Type", "application/octet-stream")];
    let line = format!("PUT /api/documents/{id}/automerge");
    let answer = http::send(scene.server.address(), &line, &headers, &file);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (409, Some("actor_of_another_subject")), "{answer:?}");
    scene.server.kill();
    let (key, data) = (scene.data.path().join("key"), scene.data.path().join("data"));
    let arguments = ["--bind-actors", "--token-key", key.to_str().expect("a path in UTF-8")];
    scene.server = Server::start_with(&data, &arguments);
    refused(&scene);
    doc.put(ROOT, "number", 2).expect("the root accepts any key");
    doc.commit();
    let mut alice = writer(&scene, "alice", &id, doc);
    alice.until_acknowledged();
    let mut reader = writer(&scene, "bob", &id, AutoCommit::new());
    reader.until("number", 2);
    reader.put("other", 3);
    reader.until_acknowledged();
    scene.server.stop();
    assert!(Server::check(&data).status.success());
}

#[test]
fn what_needs_names_does_not_start_where_nobody_has_one() {
    let data = DataDirectory::new();
    for flag in [&["--bind-actors"][..], &["--subject-mib-max", "5"]] {
        let printed = Server::try_start(data.path(), "127.0.0.1:0", flag).map(drop).expect_err("it does not start");
        assert!(printed.contains("need to know who writes"), "{printed}");
    }
}

/// A document of more than half a MiB.
fn large() -> AutoCommit {
    let mut doc = AutoCommit::new();
    let bytes: Vec<u8> = (0..600 * 1024).map(|_| rand::random()).collect();
    doc.put(ROOT, "noise", bytes).expect("the root accepts any key");
    doc.commit();
    doc
}

#[test]
fn a_subject_stores_so_much_and_a_purge_gives_it_back() {
    let mut scene = Scene::start(&["--subject-mib-max", "1", "--deleted-keep-days", "0"]);
    let ids = [0, 1].map(|_| HonestPeer::fresh_document_id());
    writer(&scene, "alice", &ids[0], large()).until_acknowledged();
    let doc = large();
    let told = writer(&scene, "alice", &ids[1], doc.clone()).acknowledged().expect_err("it is too much");
    assert!(told.contains("subject_bytes_max"), "{told}");
    assert_eq!(scene.refused("subject_bytes_max"), 1);
    // It is hers, not the server's.
    writer(&scene, "bob", &HonestPeer::fresh_document_id(), large()).until_acknowledged();
    let header = format!("Bearer {}", signed(&admin(), SECRET));
    let line = format!("DELETE /api/documents/{}", ids[0]);
    let answer = http::send(scene.server.address(), &line, &[("Authorization", &header)], b"");
    assert_eq!(answer.status, 204, "{answer:?}");
    let deadline = Instant::now() + PATIENCE;
    while let Err(told) = writer(&scene, "alice", &ids[1], doc.clone()).acknowledged() {
        assert!(told.contains("subject_bytes_max") && Instant::now() < deadline, "{told}");
    }
    scene.server.stop();
    assert!(Server::check(&scene.data.path().join("data")).status.success());
}

#[test]
fn limits_are_read_again_while_the_server_runs_and_those_that_cannot_be_are_named() {
    let data = DataDirectory::new();
    let file = data.path().join("settings.toml");
    std::fs::write(&file, "document-changes-max = 1\nblob-mib-max = 5\n").expect("a file");
    let arguments = ["--config", file.to_str().expect("a path in UTF-8")];
    let mut server = Server::start_with(&data.path().join("data"), &arguments);
    let id = HonestPeer::fresh_document_id();
    let mut author = HonestPeer::join(server.address(), "author", &id, written(1));
    author.until_acknowledged();
    author.put("number", 2);
    let told = author.acknowledged().expect_err("it is full");
    assert!(told.contains("document_changes_max: 1"), "{told}");
    std::fs::write(&file, "document-changes-max = 1\nno-such = 1\n").expect("a file");
    server.hang_up();
    server.until_printed("the settings stay as they were");
    std::fs::write(&file, "document-changes-max = 100\nblob-mib-max = 6\n").expect("a file");
    server.hang_up();
    server.until_printed("needs a new start, and is as it was until then: blob-mib-max = 6");
    server.until_printed("from here on: document-changes-max = 100");
    // Who was refused something is asked to come again with it.
    while author.acknowledged().is_ok() {}
    let doc = std::mem::take(author.doc());
    let mut again = HonestPeer::join(server.address(), "author", &id, doc);
    again.until_acknowledged();
}

#[test]
fn of_a_flood_of_refusals_some_are_logged_and_all_are_counted() {
    const FLOOD: usize = 2_000;
    let scene = Scene::start(&[]);
    let nothing = json!({ "sub": "mallory", "exp": unix_seconds() + 3_600, "syncline": [] });
    let mut flooder: RawPeer = scene.join("flooder", &nothing);
    let message = SyncMessage::bringing(&[], Vec::new()).encode();
    for _ in 0..FLOOD {
        let id = HonestPeer::fresh_document_id();
        flooder.send(&flooder.about("request", &id).bytes("data", &message));
    }
    drop(flooder.aftermath());
    let deadline = Instant::now() + PATIENCE;
    loop {
        // With what asked whether all had come.
        let counted = scene.refused("read_not_permitted") as usize;
        let printed = scene.server.printed();
        let written = printed.matches("refused: there is no such document").count();
        let left_out =
            printed.lines().filter_map(|line| line.split_once("in a second, of which ")?.1.split_once(" are"));
        let left_out: usize = left_out.map(|(number, _)| number.parse::<usize>().expect("a number")).sum();
        if counted >= FLOOD && written + left_out == counted {
            assert!(left_out > 0 && written < FLOOD / 2, "{written} lines");
            return;
        }
        assert!(Instant::now() < deadline, "{written} written, {left_out} left out of {counted}");
        std::thread::yield_now();
    }
}

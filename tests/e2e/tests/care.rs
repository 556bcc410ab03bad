//! Looking after a server's data with the commands of its program.
//!
//! Owns: what goes in and out of a data directory, beside a running server and without one. Must not: link the server.
//! Next: `lifecycle.rs`; docs/operations.md.

use std::fs;
use std::path::Path;
use std::process::Output;

use automerge::AutoCommit;
use serde_json::{Value, json};
use syncline_e2e::{DataDirectory, HonestPeer, PackageSet, Server, http};

fn run(arguments: &[&str], data: &Path) -> Output {
    let data = data.to_str().expect("a path in UTF-8");
    Server::command(&[arguments, &["--data", data]].concat(), "")
}

fn succeed(arguments: &[&str], data: &Path) -> String {
    let output = run(arguments, data);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn content(server: &Server, id: &str) -> Value {
    let answer = http::send(server.address(), &format!("GET /api/documents/{id}/content"), &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.head);
    answer.json()["content"].clone()
}

fn stamp(server: &Server, id: &str) -> String {
    let answer = http::send(server.address(), &format!("GET /api/documents/{id}"), &[], b"");
    answer.json()["stamp"].as_str().expect("a stamp").to_owned()
}

#[test]
fn a_backup_of_a_running_server_is_restored_to_its_state_or_an_earlier_one() {
    let (data, elsewhere) = (DataDirectory::new(), DataDirectory::new());
    let server = Server::start(data.path());
    let id = HonestPeer::fresh_document_id();
    let mut peer = HonestPeer::join(server.address(), "peer", &id, AutoCommit::new());
    for n in 1..=20 {
        peer.put("n", n);
        peer.until_acknowledged();
    }
    let earlier = stamp(&server, &id);
    for n in 21..=40 {
        peer.put("n", n);
        peer.until_acknowledged();
    }
    let file = elsewhere.path().join("backup.db");
    let file = file.to_str().expect("a path in UTF-8");
    assert!(succeed(&["backup", file], data.path()).contains("verified"));
    peer.put("n", 99);
    peer.until_acknowledged();

    let whole = elsewhere.path().join("whole");
    succeed(&["restore", file], &whole);
    assert_eq!(content(&Server::start(&whole), &id), json!({ "n": 40 }));
    let rewound = elsewhere.path().join("rewound");
    succeed(&["restore", file, "--until", &earlier], &rewound);
    assert_eq!(content(&Server::start(&rewound), &id), json!({ "n": 20 }));
    assert!(!run(&["restore", file], &whole).status.success(), "a store is there already");
    assert!(!run(&["backup", file], data.path()).status.success(), "the file is there already");
    assert!(succeed(&["stats"], data.path()).contains("documents"), "beside a running server");
    assert!(!run(&["compact"], data.path()).status.success(), "a running server's data is left alone");
}

#[test]
fn what_automerge_repo_has_stored_is_taken_in_and_served() {
    let (nodefs, data) = (DataDirectory::new(), DataDirectory::new());
    let from = nodefs.path().to_str().expect("a path in UTF-8");
    let Some(printed) = PackageSet::Newest.run("nodefs.mjs", &[from, "30"]) else { return };
    let documents: Vec<(String, Value)> = serde_json::from_str(&printed).expect("what the script printed");
    assert!(!run(&["import", from], data.path()).status.success(), "it is not the layout of an export");
    let said = succeed(&["import", "--automerge-repo", from], data.path());
    assert!(said.contains("imported 30 documents"), "{said}");
    succeed(&["import", "--automerge-repo", from], data.path());
    let server = Server::start(data.path());
    for (url, value) in &documents {
        assert_eq!(content(&server, url), *value);
    }
    assert!(Server::check(data.path()).status.success());
}

#[test]
fn what_is_exported_can_be_imported_elsewhere_but_for_what_is_no_document() {
    let (data, files, other) = (DataDirectory::new(), DataDirectory::new(), DataDirectory::new());
    let mut server = Server::start(data.path());
    let ids: Vec<String> = (0..10).map(|_| HonestPeer::fresh_document_id()).collect();
    for (n, id) in (0..).zip(&ids) {
        let mut peer = HonestPeer::join(server.address(), "peer", id, AutoCommit::new());
        peer.put("n", n);
        peer.until_acknowledged();
    }
    let to = files.path().to_str().expect("a path in UTF-8");
    assert!(!run(&["export", to], data.path()).status.success(), "a running server's data is left alone");
    server.stop();
    assert!(succeed(&["export", to], data.path()).contains("exported 10 documents"));
    let loaded = fs::read(files.path().join(format!("{}.automerge", ids[3]))).expect("a file");
    assert!(AutoCommit::load(&loaded).is_ok(), "automerge loads it");

    let broken = HonestPeer::fresh_document_id();
    fs::write(files.path().join(format!("{broken}.automerge")), b"no document").expect("writable");
    fs::write(files.path().join("notes.txt"), b"no document").expect("writable");
    let output = run(&["import", to], other.path());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("refused {broken}")) && said.contains("1 other files"), "{said}");
    let server = Server::start(other.path());
    assert!((0..).zip(&ids).all(|(n, id)| content(&server, id) == json!({ "n": n })));
}

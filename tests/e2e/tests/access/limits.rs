//! Floods and full disks: who causes them is told which limit that is, and an honest pair works on beside.
//!
//! Owns: the limits on numbers, rates and room, against the server as a process. Must not: repeat `hostile.rs`.
//! Next: `../access.rs`; docs/server.md, "Limits".

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use syncline_e2e::token::signed;
use syncline_e2e::{DataDirectory, HonestPair, HonestPeer, RawPeer, Server, SyncMessage, skip};

use super::{SECRET, Scene, admin, join_with};

fn refusals(server: &Server, kind: &str) -> u64 {
    let start = format!("syncline_refused_total{{reason=\"{kind}\"}} ");
    let metrics = server.http("/metrics").body;
    metrics.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |count| count.parse().expect("a number"))
}

#[test]
fn ten_thousand_connections_from_one_address_get_a_few_and_cost_the_others_nothing() {
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &["--connections-per-address-max", "8"]);
    let mut pair = HonestPair::start(server.address());
    let mut held = Vec::new();
    let (status, words) = loop {
        match RawPeer::try_connect(server.address(), "/", &[]) {
            Ok(peer) => held.push(peer),
            Err(refused) => break refused,
        }
        assert!(held.len() < 8, "more than eight");
    };
    assert!(status == 503 && words.contains("connections_per_address_max"), "{status}: {words}");
    for connection in 0..10_000 {
        drop(TcpStream::connect(server.address()).expect("the kernel accepts it"));
        if connection % 1_000 == 0 {
            pair.still_syncs();
        }
    }
    pair.still_syncs();
    drop(held);
    // Until the server has seen that they are gone, this is one too many as well.
    while server.http("/metrics").status != 200 {}
    assert!(refusals(&server, "address_connections") >= 10_000, "each is counted");
}

#[test]
fn a_proxy_asks_for_others_and_each_of_them_counts() {
    let data = DataDirectory::new();
    let arguments = ["--connections-per-address-max", "1", "--trusted-proxy", "127.0.0.0/8"];
    let server = Server::start_with(data.path(), &arguments);
    let connect = |of: &str| RawPeer::try_connect(server.address(), "/", &[("X-Forwarded-For", of)]);
    let first = connect("192.0.2.1").expect("room");
    assert_eq!(connect("192.0.2.66, 192.0.2.1").map(drop).expect_err("the client made up the first").0, 503);
    let _other = connect("192.0.2.2").expect("another address");
    drop(first);
    assert!(refusals(&server, "address_connections") >= 1);
}

#[test]
fn a_subject_has_so_many_connections_and_no_more() {
    let scene = Scene::start(&["--connections-per-subject-max", "2"]);
    let token = signed(&admin(), SECRET);
    let join = |who: &str| {
        let mut peer = RawPeer::connect(scene.server.address());
        let joined = peer.join_by(&join_with(who, &token));
        let told =
            if joined.is_ok() && who == "third" { peer.until_closed() } else { joined.err().unwrap_or_default() };
        (peer, told)
    };
    let (first, told) = join("first");
    assert_eq!(told, [""; 0]);
    let (_second, told) = join("second");
    assert_eq!(told, [""; 0]);
    let (_, told) = join("third");
    assert!(told.iter().any(|words| words.contains("subject_connections_max")), "{told:?}");
    drop(first);
    assert_eq!(scene.refused("subject_connections"), 1);
}

#[test]
fn a_flood_of_messages_is_read_slowly_and_the_others_go_on() {
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &["--messages-per-second-max", "100"]);
    let mut pair = HonestPair::start(server.address());
    let mut flooder = RawPeer::join(server.address(), "flooder");
    let id = HonestPeer::fresh_document_id();
    let mut doc = AutoCommit::new();
    for number in 0..600 {
        doc.put(ROOT, "number", number).expect("the root accepts any key");
        let heads = doc.get_heads();
        let change = doc.get_last_local_change().expect("a change").raw_bytes().to_vec();
        let message = SyncMessage::bringing(&heads, vec![change]).encode();
        flooder.send(&flooder.about("sync", &id).bytes("data", &message));
    }
    for _ in 0..5 {
        pair.still_syncs();
    }
    let told = flooder.aftermath();
    assert!(told.open && told.told.iter().any(|words| words.contains("messages_per_second_max")), "{told:?}");
    let metrics = server.http("/metrics").body;
    let paused = metrics.lines().find_map(|line| line.strip_prefix("syncline_paused_seconds_total "));
    assert!(paused.and_then(|seconds| seconds.parse::<f64>().ok()).is_some_and(|seconds| seconds > 0.0), "{paused:?}");
    // Nothing of it was dropped.
    let mut reader = HonestPeer::join(server.address(), "reader", &id, AutoCommit::new());
    reader.until("number", 599);
}

/// A document that takes a quarter of a MiB.
fn noise(server: &Server, number: usize) -> (String, HonestPeer) {
    let id = HonestPeer::fresh_document_id();
    let mut doc = AutoCommit::new();
    let bytes: Vec<u8> = (0..256 * 1024).map(|_| rand::random()).collect();
    doc.put(ROOT, "noise", bytes).expect("the root accepts any key");
    doc.put(ROOT, "number", number as i64).expect("the root accepts any key");
    (id.clone(), HonestPeer::join(server.address(), &format!("author {number}"), &id, doc))
}

/// Writes until the server says that there is no room. Returns what it took.
fn fill(server: &Server) -> Vec<String> {
    let mut kept = Vec::new();
    loop {
        let (id, mut author) = noise(server, kept.len());
        match author.acknowledged() {
            Ok(()) => kept.push(id),
            Err(told) => {
                assert!(told.contains("no room"), "the author is told why: {told}");
                return kept;
            }
        }
        assert!(kept.len() < 400, "100 MiB do not fit");
    }
}

fn is_there(server: &Server, kept: &[String]) {
    for (number, id) in kept.iter().enumerate() {
        let mut reader = HonestPeer::join(server.address(), &format!("reader {number}"), id, AutoCommit::new());
        reader.until("number", number as i64);
    }
}

#[test]
fn a_server_takes_no_more_than_it_is_given_room_for() {
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &["--storage-mib-max", "4"]);
    let kept = fill(&server);
    assert!(!kept.is_empty());
    is_there(&server, &kept[..1]);
    let metrics = server.http("/metrics").body;
    assert!(metrics.contains("syncline_has_room 0"), "{metrics}");
    assert!(refusals(&server, "no_room") >= 1 && refusals(&server, "store") == 0);
}

#[test]
fn writes_end_before_the_disk_is_full_reads_go_on_and_room_is_noticed() {
    let data = DataDirectory::new();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(data.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skip("a full disk needs a file system of its own; run as root where mount is allowed");
    }
    let _disk = Unmount(data.path());
    let mut server = Server::start(data.path());
    let mut pair = HonestPair::start(server.address());
    let kept = fill(&server);
    assert_eq!(refusals(&server, "store"), 0, "the disk was never full");
    let told = server.http("/ready");
    assert!(told.status == 503 && told.body.contains("no room"), "{told:?}");
    is_there(&server, &kept[..1]);
    let grown = Command::new("mount").args(["-o", "remount,size=256m"]).arg(data.path()).status();
    assert!(grown.is_ok_and(|status| status.success()));
    while server.http("/metrics").body.contains("syncline_has_room 0") {}
    assert_eq!(server.http("/ready").status, 200);
    // Whoever was refused something has been cut off, to come again; the pair was not.
    pair.still_syncs();
    let (id, mut author) = noise(&server, kept.len());
    author.until_acknowledged();
    is_there(&server, &[kept, vec![id]].concat());
    server.stop();
    assert!(Server::check(data.path()).status.success());
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // A lazy unmount also works while a failed test's server is still going down.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_document_takes_so_many_changes_and_names_the_limit() {
    let data = DataDirectory::new();
    let server = Server::start_with(data.path(), &["--document-changes-max", "3"]);
    let id = HonestPeer::fresh_document_id();
    let mut author = HonestPeer::join(server.address(), "author", &id, AutoCommit::new());
    for number in 0..3 {
        author.put("number", number);
        author.until_acknowledged();
    }
    author.put("number", 3);
    let told = author.acknowledged().expect_err("it is full");
    assert!(told.contains("document_changes_max"), "{told}");
    assert_eq!(refusals(&server, "document_changes_max"), 1);
}

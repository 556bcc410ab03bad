//! The server's own life: start, health, stop, kill, and the disks it meets.
//!
//! Owns: that an acknowledged change outlives the process, and that a bad disk is named, not papered over.
//! Must not: mend a file; the operator decides.
//! Next: `trace.rs`; docs/store.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use serde_json::Value;
use syncline_e2e::{DataDirectory, HonestPair, HonestPeer, RawPeer, Server, skip};

#[test]
fn health_and_metrics_answer() {
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let mut pair = HonestPair::start(server.address());
    assert_eq!(server.http("/health").status, 200);
    let metrics = server.http("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("# TYPE syncline_"), "Prometheus text: {}", metrics.body);
    assert_eq!(server.http("/nothing-here").status, 404);
    pair.still_syncs();
    assert_eq!(server.refused().0, 0, "honest peers are not refused anything");
}

/// The dashboard for Grafana that comes with the server asks for metrics that it has, by the names that Prometheus gives them.
#[test]
fn every_metric_of_the_dashboard_is_served() {
    const DASHBOARD: &str = include_str!("../../../packaging/grafana/syncline.json");
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    HonestPair::start(server.address()).still_syncs();
    // Refusals are told by reason, once there is one.
    let mut stranger = RawPeer::connect(server.address());
    stranger.send_bytes(vec![0xff]);
    stranger.until_closed();
    server.until_refused(0);
    let metrics = server.http("/metrics").body;
    let kinds = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let served: BTreeSet<String> = kinds
        .flat_map(|(name, kind)| {
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect();
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked = targets.map(|target| target["expr"].as_str().expect("each target asks for something"));
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let names = asked.flat_map(|expr| expr.split(move |letter| !is_name(letter)));
    let named: BTreeSet<String> = names.filter(|name| name.starts_with("syncline_")).map(str::to_owned).collect();
    let missing: Vec<_> = named.difference(&served).collect();
    assert!(missing.is_empty(), "{missing:?} are not in:\n{metrics}");
    assert!(named.len() > 30, "it shows most of what there is: {named:?}");
    for counted in ["syncline_fan_out_seconds_count", "syncline_transaction_commits_count"] {
        let line = metrics.lines().find_map(|line| line.strip_prefix(counted)?.strip_prefix(' '));
        assert!(line.is_some_and(|count| count != "0"), "{counted} counts the edits of the pair: {line:?}");
    }
    assert!(metrics.contains("syncline_sessions{kind=\"automerge_repo\"} "), "{metrics}");
}

/// Whoever has started the server may close its outputs, or end: it goes on, and stops in order.
#[test]
fn nobody_has_to_read_what_the_server_prints() {
    let data = DataDirectory::new();
    let mut server = Server::start_unheard(data.path());
    // Each of these is logged.
    for _ in 0..3 {
        assert_eq!(server.http("/documents/nonsense").status, 400);
        let mut stranger = RawPeer::connect(server.address());
        stranger.send_bytes(vec![0xff]);
        stranger.until_closed();
    }
    HonestPair::start(server.address()).still_syncs();
    let status = server.stop();
    assert!(status.success(), "it ended with {status}");
    assert_clean(data.path());
}

#[test]
fn a_stopped_server_leaves_everything_in_order() {
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let (id, mut author) = author_of_a_document(&server, 1_000);
    author.until_acknowledged();
    let status = server.stop();
    assert!(status.success(), "SIGTERM is a clean end: {status}");
    assert_clean(data.path());

    let server = Server::start(data.path());
    reader_of(&server, &id).until("value", 1_000);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let (id, mut author) = author_of_a_document(&server, 0);
    for round in 1..=10_i64 {
        for edit in 0..20 {
            author.put("value", round * 100 + edit);
        }
        author.until_acknowledged();
        let heads = author.doc().get_heads();
        // On its way when the server dies: may be kept or lost, but never half.
        author.put("in flight", round);
        server.kill();
        assert_clean(data.path());
        server.start_again(data.path());

        let mut reader = reader_of(&server, &id);
        reader.until_holds(|doc| heads.iter().all(|head| doc.get_change_by_hash(head).is_some()));
        let doc = author.doc().clone();
        author = HonestPeer::join(server.address(), "author", &id, doc);
        author.until_acknowledged();
    }
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let data = DataDirectory::new();
    let server = Server::start(data.path());
    let mut pair = HonestPair::start(server.address());
    let Err(printed) = Server::try_start(data.path(), "127.0.0.1:0", &[]) else {
        panic!("two servers may not share a directory");
    };
    assert!(printed.contains("in use"), "the reason: {printed}");
    pair.still_syncs();
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let database = database_of(&data);
    server.stop();
    let junk = b"these bytes belong to somebody else ".repeat(1_000);
    fs::write(&database, &junk).expect("the database is writable");
    let Err(printed) = Server::try_start(data.path(), "127.0.0.1:0", &[]) else {
        panic!("a file that is no store may not be opened");
    };
    assert!(printed.contains(database.to_str().expect("a UTF-8 path")), "the reason names the file: {printed}");
    assert_eq!(fs::read(&database).expect("the database is readable"), junk, "the file is left as it was");
    assert!(!Server::check(data.path()).status.success());
}

#[test]
fn check_finds_a_flipped_bit() {
    let data = DataDirectory::new();
    let mut server = Server::start(data.path());
    let mut doc = AutoCommit::new();
    let noise: Vec<u8> = (0..64 * 1024).map(|_| rand::random()).collect();
    doc.put(ROOT, "noise", noise.clone()).expect("the root accepts any key");
    doc.commit();
    HonestPeer::join(server.address(), "author", &HonestPeer::fresh_document_id(), doc).until_acknowledged();
    server.stop();
    assert_clean(data.path());

    let needle = &noise[32_000..32_016];
    let mut flipped = 0;
    for path in data.files() {
        let mut bytes = fs::read(&path).expect("the store's files are readable");
        // Everywhere: the first place may be a page that is no longer in use.
        while let Some(place) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[place] ^= 1;
            flipped += 1;
        }
        fs::write(&path, bytes).expect("the store's files are writable");
    }
    assert!(flipped > 0, "noise cannot be compressed away");
    assert!(!Server::check(data.path()).status.success(), "a flipped bit is found");
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let data = DataDirectory::new();
    let Some(disk) = SmallDisk::mount(data.path(), "8m") else { return };
    // It is to run into the end of the disk, which it otherwise avoids.
    let mut server = Server::start_with(data.path(), &["--disk-free-mib-min", "0"]);
    let mut pair = HonestPair::start(server.address());

    let mut kept = Vec::new();
    let told = loop {
        assert!(kept.len() < 200, "8 MiB cannot hold 50 MiB of noise");
        let (id, mut author) = author_of_noise(&server, kept.len() as i64);
        match author.acknowledged() {
            Ok(()) => kept.push(id),
            Err(told) => break told,
        }
    };
    assert!(!kept.is_empty(), "the first documents fit");
    assert!(told.contains("full") || told.contains("space"), "the author is told why: {told:?}");
    let (_, reasons) = server.refused();
    assert!(reasons.iter().any(|reason| reason.contains("store")), "{reasons:?}");
    // Reading needs no space, and nobody else is thrown out.
    reader_of(&server, &kept[0]).until("number", 0);

    disk.grow("64m");
    pair.still_syncs();
    let (id, mut author) = author_of_noise(&server, kept.len() as i64);
    author.until_acknowledged();
    kept.push(id);

    server.kill();
    assert_clean(data.path());
    server.start_again(data.path());
    for (number, id) in kept.iter().enumerate() {
        reader_of(&server, id).until("number", number as i64);
    }
    // The file system can only go once nobody uses it.
    server.stop();
}

fn author_of_a_document(server: &Server, value: i64) -> (String, HonestPeer) {
    let id = HonestPeer::fresh_document_id();
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "value", value).expect("the root accepts any key");
    doc.commit();
    let author = HonestPeer::join(server.address(), "author", &id, doc);
    (id, author)
}

fn author_of_noise(server: &Server, number: i64) -> (String, HonestPeer) {
    let id = HonestPeer::fresh_document_id();
    let mut doc = AutoCommit::new();
    let noise: Vec<u8> = (0..256 * 1024).map(|_| rand::random()).collect();
    doc.put(ROOT, "noise", noise).expect("the root accepts any key");
    doc.put(ROOT, "number", number).expect("the root accepts any key");
    doc.commit();
    let author = HonestPeer::join(server.address(), &format!("author-{number}"), &id, doc);
    (id, author)
}

fn reader_of(server: &Server, id: &str) -> HonestPeer {
    HonestPeer::join(server.address(), "reader", id, AutoCommit::new())
}

fn assert_clean(data: &Path) {
    let check = Server::check(data);
    let printed = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "check finds the store clean: {printed}");
}

/// The file in the data directory that is an SQLite database.
fn database_of(data: &DataDirectory) -> PathBuf {
    let is_database = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
    data.files().into_iter().find(is_database).expect("the data are in an SQLite database")
}

/// A file system in memory, unmounted with the value. Dropped after the server that is on it, since declared before.
struct SmallDisk<'a> {
    path: &'a Path,
}

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { path });
        }
        skip("a full disk needs a file system of its own; run as root where mount is allowed");
        None
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.path).status();
        assert!(status.is_ok_and(|status| status.success()), "a mounted file system can grow");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // A lazy unmount also works while a failed test's server is still going down.
        let _ = Command::new("umount").arg("--lazy").arg(self.path).status();
    }
}

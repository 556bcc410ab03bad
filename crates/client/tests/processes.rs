//! Repos and servers in processes of their own, which are killed.
//!
//! Owns: what a kill leaves, and who may have a directory open. Must not: leave a process behind: a child ends with its
//! standard input.
//! Next: `sync.rs`, `local.rs`.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{block_on, is_ready, note, put, serve, value, within};
use syncline::{Repo, Saved};

/// Names the directory to a child process.
const DIRECTORY: &str = "SYNCLINE_TEST_DIRECTORY";

/// Names the address to a server in a child process.
const LISTEN: &str = "SYNCLINE_TEST_LISTEN";

/// A server in a process of its own; killed when dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn serve(data: &Path, listen: SocketAddr) -> Self {
        let mut child = child("what_is_on_the_server_survives_its_kill_and_the_rest_follows", data)
            .env(LISTEN, listen.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program again");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = lines.find_map(|line| line.expect("text").split("listening:").nth(1).map(str::to_owned));
        let address = address.expect("it listens").parse().expect("an address");
        Self { child, address }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This test program with one test, which sees from its environment that it is the child.
fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]).env(DIRECTORY, directory);
    command
}

/// What the child does: serves until its standard input ends, which is when the parent ends.
async fn serve_for_the_parent(data: &Path, listen: &str) {
    let server = serve(data, Some(listen.parse().expect("an address"))).await;
    println!("listening:{}", server.address());
    let parent = || std::io::stdin().read_to_end(&mut Vec::new());
    let _ = tokio::task::spawn_blocking(parent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_the_server_survives_its_kill_and_the_rest_follows() {
    if let (Some(data), Ok(listen)) = (std::env::var_os(DIRECTORY), std::env::var(LISTEN)) {
        return serve_for_the_parent(Path::new(&data), &listen).await;
    }
    let data = tempfile::tempdir().expect("a directory");
    let here = tempfile::tempdir().expect("a directory");
    let mut server = Process::serve(data.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let address = server.address;
    let repo = Repo::open(here.path()).expect("a repo");
    let _link = repo.connect(&server.url()).expect("an address");
    let document = note(&repo, "start");
    for round in 0..3 {
        put(&document, &format!("before kill {round}"), "confirmed");
        within("it is on the server", document.on_server()).await.expect("an open repo");
        server.kill();
        // Nobody but the server's own disk can answer for it.
        let store = syncline_store::Store::open(data.path(), Default::default()).expect("the server is dead");
        let stored = store.summary(document.url().id()).expect("readable").expect("stored");
        assert_eq!(stored.heads, document.heads(), "round {round}");
        store.close().expect("a healthy disk");

        put(&document, &format!("while dead {round}"), "saved");
        within("it is saved here", document.saved()).await.expect("room on the disk");
        assert!(!is_ready(document.on_server()), "round {round}: nobody has it");
        assert_eq!(document.status().saved, Saved::Here);
        server = Process::serve(data.path(), address);
        within("it caught up", document.on_server()).await.expect("an open repo");
    }
    let there = tempfile::tempdir().expect("a directory");
    let other = Repo::open(there.path()).expect("a repo");
    let _link = other.connect(&server.url()).expect("an address");
    let found = within("it is found", other.find(&document.url())).await.expect("on the server");
    assert_eq!(found.heads(), document.heads());
    assert_eq!(value(&found, "before kill 0").as_deref(), Some("confirmed"));
    assert_eq!(value(&found, "while dead 2").as_deref(), Some("saved"));
    server.kill();
}

#[test]
fn a_second_process_is_refused_and_the_first_goes_on() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let error = Repo::open(directory).expect_err("the parent has it open");
        println!("refused:{error}:");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let repo = Repo::open(directory.path()).expect("a repo");
    let document = note(&repo, "first");
    block_on(document.saved()).expect("saved");
    let output = child("a_second_process_is_refused_and_the_first_goes_on", directory.path()).output();
    let output = output.expect("this program again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let refused = text.split("refused:").nth(1).unwrap_or_else(|| panic!("it was not refused: {text}"));
    assert!(refused.contains("in use by another process"), "{refused}");
    assert!(output.status.success(), "{text}");

    put(&document, "text", "goes on");
    block_on(document.saved()).expect("saved");
    let url = document.url();
    drop(document);
    block_on(repo.close()).expect("a clean close");
    let repo = Repo::open(directory.path()).expect("free again");
    assert_eq!(value(&repo.find_local(&url).expect("stored"), "text").as_deref(), Some("goes on"));
}

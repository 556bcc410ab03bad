//! Two devices that write as one: nobody loses what was typed.
//!
//! Owns: refusals that the client mends by itself. Must not: look at actors where an application would not.
//! Next: `../src/reauthor.rs`.

mod support;

use std::path::Path;

use support::{address, becomes, note, put, serve, value, within};
use syncline::automerge::transaction::Transactable;
use syncline::automerge::{AutoCommit, ROOT};
use syncline::{Document, Repo};
use syncline_core::change::Change;
use syncline_core::limits::Limits;
use syncline_server::Server;
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn repo(directory: &TempDir) -> Repo {
    Repo::open(directory.path()).expect("a repo")
}

/// A change under the actor of the document's last one, as a machine makes it that was copied while it ran.
fn impostor(document: &Document) -> Change {
    let (saved, actor) = document
        .read(|document| {
            let last = document.get_changes(&[]).pop().expect("it has a change");
            (document.save(), last.actor_id().clone())
        })
        .expect("it can be shown");
    let mut copy = AutoCommit::load(&saved).expect("just saved").with_actor(actor);
    copy.put(ROOT, "theirs", "written on the copy").expect("a map");
    let raw = copy.get_last_local_change().expect("just made").raw_bytes().to_vec();
    Change::decode(raw.into(), &Limits::default()).expect("automerge's own")
}

/// A document that is on the server, where another device then writes as its author.
async fn contradicted(repo: &Repo, server: &Server) -> Document {
    let link = repo.connect(&address(server)).expect("an address");
    let mine = note(repo, "text");
    within("it is on the server", mine.on_server()).await.expect("an open repo");
    drop(link);
    let _ticket = server.replica().change(mine.url().id().clone(), vec![impostor(&mine)]);
    put(&mine, "mine", "written here");
    put(&mine, "more", "and here");
    within("it is saved", mine.saved()).await.expect("saved");
    mine
}

async fn is_whole(document: &Document) {
    for (key, text) in [("theirs", "written on the copy"), ("mine", "written here"), ("more", "and here")] {
        becomes(document, key, text).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_copied_device_contradicts_is_written_anew_and_reaches_everyone() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let one = repo(&here);
    let mine = contradicted(&one, &server).await;
    let _link = one.connect(&address(&server)).expect("an address");
    is_whole(&mine).await;
    within("it is on the server", mine.on_server()).await.expect("an open repo");
    put(&mine, "text", "and on it goes");
    let two = repo(&there);
    let _link = two.connect(&address(&server)).expect("an address");
    let theirs = within("it is found", two.find(&mine.url())).await.expect("on the server");
    is_whole(&theirs).await;
    becomes(&theirs, "text", "and on it goes").await;

    // What was written anew is what is on the disk.
    let url = mine.url();
    drop((mine, _link));
    one.close().await.expect("everything is saved");
    let one = repo(&here);
    assert_eq!(value(&one.find_local(&url).expect("stored"), "more").as_deref(), Some("and here"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_need_not_be_open_for_that() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let one = repo(&here);
    let mine = contradicted(&one, &server).await;
    let url = mine.url();
    drop(mine);
    let _link = one.connect(&address(&server)).expect("an address");
    let two = repo(&there);
    let _link = two.connect(&address(&server)).expect("an address");
    let theirs = within("it is found", two.find(&url)).await.expect("on the server");
    is_whole(&theirs).await;
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_was_copied_may_be_used_in_both_places() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let one = repo(&here);
    let mine = note(&one, "text");
    put(&mine, "before", "the copy");
    let url = mine.url();
    drop(mine);
    one.close().await.expect("everything is saved");
    copy(here.path(), there.path());
    let (one, two) = (repo(&here), repo(&there));
    let [mine, theirs] = [&one, &two].map(|repo| repo.find_local(&url).expect("stored"));
    for n in 0..5 {
        put(&mine, &format!("mine {n}"), "1");
        put(&theirs, &format!("theirs {n}"), "2");
    }
    let links = [&one, &two].map(|repo| repo.connect(&address(&server)).expect("an address"));
    becomes(&mine, "theirs 4", "2").await;
    becomes(&theirs, "mine 4", "1").await;
    assert_eq!(mine.heads(), theirs.heads());
    assert!(links.iter().all(|link| link.complaint().is_none()), "nothing was refused");
}

//! Documents that are deleted in one repo: what becomes of them in others, on servers, and after restarts.
//!
//! Owns: docs/deletion.md as an application sees it. Must not: assert times.
//! Next: `sync.rs`.

mod support;

use std::time::Duration;

use support::{address, becomes, note, put, serve, value, within};
use syncline::{Document, DocumentUrl, Error, Options, Repo};
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn repo(directory: &TempDir) -> Repo {
    Repo::open(directory.path()).expect("a repo")
}

async fn becomes_deleted(document: &Document, wanted: bool) {
    assert_eq!(within("the record arrives", document.deletion_changed(!wanted)).await, wanted);
}

fn deleted_urls(repo: &Repo) -> Vec<DocumentUrl> {
    repo.deleted().expect("readable").into_iter().map(|deleted| deleted.url).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_reaches_everyone_and_so_does_its_restoration() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (one, two) = (repo(&here), repo(&there));
    let _links = [one.connect(&address(&server)), two.connect(&address(&server))].map(|link| link.expect("an address"));
    let mine = note(&one, "text");
    within("it is on the server", mine.on_server()).await.expect("an open repo");
    let theirs = within("it is found", two.find(&mine.url())).await.expect("on the server");

    within("it is deleted", mine.delete()).await.expect("room on the disk");
    becomes_deleted(&theirs, true).await;
    for (repo, document) in [(&one, &mine), (&two, &theirs)] {
        assert_eq!(repo.list().expect("readable"), []);
        assert_eq!(deleted_urls(repo), [mine.url()]);
        let refused = document.change(|_| Ok(()));
        assert!(matches!(refused, Err(Error::Deleted { .. })), "{refused:?}");
        assert_eq!(value(document, "text").as_deref(), Some("text"), "what is in memory can be read");
        let found = within("the answer comes", repo.find(&mine.url())).await;
        assert!(matches!(found, Err(Error::Deleted { .. })), "{found:?}");
    }
    assert_eq!(server.replica().store().documents(None, 9).expect("readable"), []);

    let restored = within("it is restored", two.restore(&mine.url())).await.expect("in time");
    becomes_deleted(&mine, false).await;
    put(&restored, "text", "after it");
    becomes(&mine, "text", "after it").await;
    put(&mine, "text", "and back");
    becomes(&restored, "text", "and back").await;
    assert_eq!((deleted_urls(&one), deleted_urls(&two)), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_offline_replica_writes_into_a_deleted_document_comes_back_with_it() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (one, two) = (repo(&here), repo(&there));
    let link = one.connect(&address(&server)).expect("an address");
    let mine = note(&one, "text");
    within("it is on the server", mine.on_server()).await.expect("an open repo");
    let other = two.connect(&address(&server)).expect("an address");
    let theirs = within("it is found", two.find(&mine.url())).await.expect("on the server");
    drop(other);
    within("it is deleted", mine.delete()).await.expect("room on the disk");
    put(&theirs, "offline", "written without knowing");
    within("it is saved", theirs.saved()).await.expect("saved");

    let other = two.connect(&address(&server)).expect("an address");
    becomes_deleted(&theirs, true).await;
    assert_eq!(server.replica().store().documents(None, 9).expect("readable"), [], "it does not come back");
    let restored = within("it is restored", two.restore(&mine.url())).await.expect("in time");
    assert_eq!(value(&restored, "offline").as_deref(), Some("written without knowing"));
    becomes_deleted(&mine, false).await;
    becomes(&mine, "offline", "written without knowing").await;
    drop((link, other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_made_offline_outlives_a_restart_and_reaches_the_server_later() {
    let (data, here) = (directory(), directory());
    let server = serve(data.path(), None).await;
    let one = repo(&here);
    let link = one.connect(&address(&server)).expect("an address");
    let mine = note(&one, "text");
    within("it is on the server", mine.on_server()).await.expect("an open repo");
    let url = mine.url();
    drop((link, mine));
    within("it is deleted", one.delete(&url)).await.expect("room on the disk");
    one.close().await.expect("everything is saved");

    let one = repo(&here);
    assert!(matches!(one.find_local(&url), Err(Error::Deleted { .. })));
    assert_eq!(server.replica().store().count(), 1);
    let _link = one.connect(&address(&server)).expect("an address");
    let store = server.replica().store().clone();
    let gone = async {
        // Whoever asks for it hears of the record as soon as the server has it.
        let there = directory();
        let two = repo(&there);
        let _link = two.connect(&address(&server)).expect("an address");
        loop {
            match two.find(&url).await {
                Err(Error::Deleted { .. }) => return,
                Ok(found) => becomes_deleted(&found, true).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    within("the server knows it", gone).await;
    assert_eq!(store.documents(None, 9).expect("readable"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_grace_period_the_content_is_gone_and_the_record_is_not() {
    let here = directory();
    let mut options = Options::default();
    options.store.deleted_keep = Duration::ZERO;
    options.store.fold_idle = Duration::from_millis(1);
    let one = Repo::open_with(here.path(), options.clone()).expect("a repo");
    let mine = note(&one, "text");
    within("it is saved", mine.saved()).await.expect("saved");
    within("it is deleted", mine.delete()).await.expect("room on the disk");
    let purged = async {
        while one.deleted().expect("readable")[0].restorable_until.is_some() {
            tokio::task::yield_now().await;
        }
    };
    within("it is purged", purged).await;
    let restored = within("the answer comes", one.restore(&mine.url())).await;
    assert!(matches!(restored, Err(Error::Purged { .. })), "{restored:?}");
    let url = mine.url();
    drop(mine);
    one.close().await.expect("everything is saved");
    let one = Repo::open_with(here.path(), options).expect("a repo");
    assert_eq!(deleted_urls(&one), [url]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_here_cannot_be_restored() {
    let here = directory();
    let one = repo(&here);
    let url: DocumentUrl = "automerge:11111111111111114Ki9Gx".parse().expect("a URL");
    assert!(matches!(one.restore(&url).await, Err(Error::NotHere { .. })));
    let living = note(&one, "text");
    within("it is saved", living.saved()).await.expect("saved");
    let same = within("nothing is to be done", one.restore(&living.url())).await.expect("it lives");
    assert_eq!(same.heads(), living.heads());
    assert_eq!(one.deleted().expect("readable"), []);
}

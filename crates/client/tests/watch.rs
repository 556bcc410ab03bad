//! Watching one document and the whole repo.
//!
//! Owns: that nothing is missed and nothing told twice. Must not: need the caller's runtime where there is no server.
//! Next: `sync.rs`.

mod support;

use std::collections::BTreeSet;

use support::{address, block_on, directory, is_ready, note, on_server, put, repo, serve, value, within};
use syncline::automerge::transaction::Transactable;
use syncline::automerge::{PatchAction, ROOT};
use syncline::{DocumentUrl, Error, Feed, Origin, Position, Repo};

/// The keys that an update's patches put.
fn keys(update: &syncline::Update) -> Vec<String> {
    let patches = update.patches().expect("a document that can be shown");
    let key = |action| if let PatchAction::PutMap { key, .. } = action { Some(key) } else { None };
    patches.into_iter().filter_map(|patch| key(patch.action)).collect()
}

fn take(feed: &mut Feed, count: usize) -> Vec<DocumentUrl> {
    (0..count).map(|_| block_on(feed.next()).expect("an open repo")).collect()
}

#[test]
fn an_update_has_heads_origin_and_patches() {
    let repo = Repo::memory().expect("a repo");
    let document = note(&repo, "0");
    let before = document.heads();
    let mut watch = document.watch();
    put(&document, "one", "1");
    let update = block_on(watch.changed()).expect("open");
    assert_eq!((&update.before, &update.after), (&before, &document.heads()));
    assert_eq!(update.origins, BTreeSet::from([Origin::Local]));
    assert_eq!(keys(&update), ["one"]);
    assert!(!is_ready(watch.changed()));
}

#[test]
fn a_slow_watcher_gets_all_of_it_in_one_update() {
    let repo = Repo::memory().expect("a repo");
    let document = note(&repo, "0");
    let before = document.heads();
    let (mut quick, mut slow) = (document.watch(), document.watch());
    for n in 0..1_000 {
        put(&document, &format!("key {n:03}"), "1");
        assert_eq!(keys(&block_on(quick.changed()).expect("open")), [format!("key {n:03}")]);
    }
    let update = block_on(slow.changed()).expect("open");
    assert_eq!((&update.before, &update.after), (&before, &document.heads()));
    let mut all = keys(&update);
    all.sort();
    assert_eq!(all, (0..1_000).map(|n| format!("key {n:03}")).collect::<Vec<_>>());
    assert!(!is_ready(slow.changed()));
}

#[test]
fn thousands_of_watchers_all_see_the_last_state() {
    let repo = Repo::memory().expect("a repo");
    let document = note(&repo, "0");
    let mut watches: Vec<_> = (0..2_000).map(|_| document.watch()).collect();
    for n in 0..10 {
        put(&document, "text", &n.to_string());
    }
    for watch in &mut watches {
        assert_eq!(block_on(watch.changed()).expect("open").after, document.heads());
    }
    block_on(repo.close()).expect("a clean close");
    assert!(watches.iter_mut().all(|watch| matches!(block_on(watch.changed()), Err(Error::Closed))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_change_says_who_brought_it() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (one, two) = (repo(&here), repo(&there));
    let _links = (one.connect(&address(&server)).expect("one"), two.connect(&address(&server)).expect("two"));
    let mine = note(&one, "start");
    on_server(&mine).await;
    let theirs = within("it is found", two.find(&mine.url())).await.expect("on the server");
    let mut watch = mine.watch();
    put(&theirs, "there", "1");
    let mut origins = BTreeSet::new();
    while value(&mine, "there").is_none() {
        let update = within("it comes", watch.changed()).await.expect("open");
        assert_eq!(keys(&update), ["there"]);
        origins.extend(update.origins);
    }
    assert_eq!(origins, BTreeSet::from([Origin::Server(address(&server).into())]));
}

fn saved(document: &syncline::Document) {
    block_on(document.saved()).expect("room on the disk");
}

#[test]
fn the_feed_goes_on_where_it_was_in_a_later_run() {
    let directory = directory();
    let repo = Repo::open(directory.path()).expect("a repo");
    // Documents that are made at one time become durable in any order.
    let documents: Vec<_> = (0..5).map(|n| note(&repo, &n.to_string())).inspect(saved).collect();
    let urls: Vec<_> = documents.iter().map(syncline::Document::url).collect();
    let mut feed = repo.changes_since(Position::START).expect("open");
    assert_eq!(take(&mut feed, 3), urls[..3]);
    let kept = feed.position().to_string();
    assert_eq!(take(&mut feed, 2), urls[3..]);
    assert!(!is_ready(feed.next()));
    // Live, in order, and once for a document that changed twice.
    put(&documents[1], "text", "again");
    put(&documents[0], "text", "again");
    put(&documents[1], "text", "and again");
    block_on(documents[1].saved()).expect("saved");
    assert_eq!(take(&mut feed, 2), [urls[0].clone(), urls[1].clone()]);
    block_on(repo.close()).expect("a clean close");
    assert!(matches!(block_on(feed.next()), Err(Error::Closed)));
    drop((documents, feed));

    let repo = Repo::open(directory.path()).expect("the same repo");
    let mut feed = repo.changes_since(kept.parse().expect("a position")).expect("open");
    let expected = [3, 4, 0, 1].map(|n: usize| urls[n].clone());
    assert_eq!(take(&mut feed, 4), expected);
    let last = note(&repo, "new");
    assert_eq!(take(&mut feed, 1), [last.url()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_tells_of_documents_that_nobody_has_open() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (one, two) = (repo(&here), repo(&there));
    let _links = (one.connect(&address(&server)).expect("one"), two.connect(&address(&server)).expect("two"));
    let mine = note(&one, "start");
    on_server(&mine).await;
    let theirs = within("it is found", two.find(&mine.url())).await.expect("on the server");
    let url = mine.url();
    let mut feed = one.changes_since(Position::START).expect("open");
    assert_eq!(within("it is there", feed.next()).await.expect("open"), url);
    drop(mine);
    theirs.change(|tx| tx.put(ROOT, "there", 1)).expect("a change");
    assert_eq!(within("it comes", feed.next()).await.expect("open"), url);
}

#[test]
fn the_feed_tells_of_deletions_and_restorations_also_after_a_restart() {
    let directory = directory();
    let repo = Repo::open(directory.path()).expect("a repo");
    let urls: Vec<_> = (0..3).map(|n| note(&repo, &n.to_string()).url()).collect();
    let mut feed = repo.changes_since(Position::START).expect("open");
    take(&mut feed, 3);
    block_on(repo.delete(&urls[1])).expect("room on the disk");
    assert_eq!(take(&mut feed, 1), [urls[1].clone()]);
    assert!(matches!(repo.find_local(&urls[1]), Err(Error::Deleted { .. })), "that is what it tells of");
    let kept = feed.position();
    block_on(repo.delete(&urls[0])).expect("room on the disk");
    drop(block_on(repo.restore(&urls[1])).expect("within its time"));
    drop(feed);
    block_on(repo.close()).expect("a clean close");

    let repo = Repo::open(directory.path()).expect("the same repo");
    let mut feed = repo.changes_since(kept).expect("open");
    assert_eq!(take(&mut feed, 2), [urls[0].clone(), urls[1].clone()]);
    assert!(repo.find_local(&urls[1]).is_ok());
    put(&repo.find_local(&urls[2]).expect("stored"), "text", "later");
    assert_eq!(take(&mut feed, 1), [urls[2].clone()], "what comes after a record is after it");
}

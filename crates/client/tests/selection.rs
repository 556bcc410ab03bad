//! Which documents servers hear of, before a real server, with somebody who reads along.
//!
//! Owns: docs/client.md, "Selective sync". Must not: trust what the client says of itself.
//! Next: `support/spy.rs`.

mod support;

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use support::spy::Spy;
use support::{address, directory, note, on_server, put, repo, serve, until, value, within};
use syncline::automerge::ROOT;
use syncline::automerge::transaction::Transactable;
use syncline::{DocumentUrl, Error, OnServer, Options, Position, PresenceOptions, Receipt, Repo, SyncPolicy};
use syncline_core::id::DocumentId;
use syncline_core::wire::Body;
use syncline_server::Server;
use tempfile::TempDir;

/// The message about nothing of a peer that has nothing.
const NOTHING: &[u8] = &[0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];

/// A closed document that the server has not got, behind this one in the order in which documents are offered.
async fn unsynced_after(repo: &Repo, id: &DocumentId) -> DocumentUrl {
    loop {
        let made = note(repo, "made offline");
        within("it is saved", made.saved()).await.expect("room on the disk");
        if made.url().id() > id {
            return made.url();
        }
    }
}

/// Waits until the server has the document, without opening it anywhere.
async fn reaches(server: &Server, id: &DocumentId) {
    let (committed, store) = (tokio::sync::watch::Sender::new(()), server.replica().store());
    let mut news = committed.subscribe();
    store.on_committed(move |_| committed.send_replace(()));
    while store.summary(id).expect("readable").is_none() {
        within("the server has it", news.changed()).await.expect("the store is open");
    }
}

/// Two repos with a document that the server has everything of; the second one is closed again.
async fn shared(server: &Server, here: &TempDir, there: &TempDir, pin: bool) -> (Repo, syncline::Document) {
    let (one, two) = (repo(here), repo(there));
    let link = one.connect(&address(server)).expect("an address");
    let mine = note(&one, "first");
    on_server(&mine).await;
    let their_link = two.connect(&address(server)).expect("an address");
    let theirs = within("it is found", two.find(&mine.url())).await.expect("on the server");
    until(&theirs, |status| status.server == OnServer::InSync).await;
    if pin {
        theirs.pin().await.expect("room on the disk");
        assert!(theirs.is_pinned());
    }
    drop((theirs, their_link));
    within("it closes", two.close()).await.expect("a clean close");
    put(&mine, "text", "second");
    on_server(&mine).await;
    drop(link);
    (one, mine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_document_that_nobody_has_open_nothing_comes_until_it_is_opened() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (_one, mine) = shared(&server, &here, &there, false).await;
    let (url, spy) = (mine.url(), Spy::before(&server).await);

    let two = repo(&there);
    assert_eq!(two.unsynced().expect("readable"), []);
    let behind = unsynced_after(&two, url.id()).await;
    assert!(two.unsynced().expect("readable").contains(&behind));
    let _link = two.connect(&spy.address()).expect("an address");
    reaches(&server, behind.id()).await;
    // The server is told at most what is here, and says what it has. Nothing of that is taken.
    let about = spy.about(url.id());
    assert!(about.len() <= 2 && about.iter().all(|frame| frame.bytes.len() < 300), "{about:?}");
    let closed = two.find_local(&url).expect("stored");
    assert_eq!(value(&closed, "text").as_deref(), Some("first"));
    drop(closed);

    let opened = within("it is here", two.find(&url)).await.expect("stored");
    assert_eq!(value(&opened, "text").as_deref(), Some("first"), "at once, as it is here");
    support::becomes(&opened, "text", "second").await;
    assert!(!spy.about(url.id()).is_empty());
}

/// Whoever has the document open or not: the server's note of what it had is worth nothing once it is restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_restored_gets_back_what_it_lost_although_nobody_has_it_open() {
    let (data, backup, here, there) = (directory(), directory(), directory(), directory());
    let (one, two) = (repo(&here), repo(&there));
    let server = serve(data.path(), None).await;
    let link = one.connect(&address(&server)).expect("an address");
    let mine = note(&one, "first");
    on_server(&mine).await;
    server.stop().await;
    drop(link);
    std::fs::copy(data.path().join("syncline.db"), backup.path().join("syncline.db")).expect("a copy");

    let server = serve(data.path(), None).await;
    let link = one.connect(&address(&server)).expect("an address");
    put(&mine, "text", "second");
    on_server(&mine).await;
    let url = mine.url();
    server.stop().await;
    drop((link, mine));
    assert!(one.unsynced().expect("readable").is_empty(), "the server had everything");

    let server = serve(backup.path(), None).await;
    let _link = one.connect(&address(&server)).expect("an address");
    let _their_link = two.connect(&address(&server)).expect("an address");
    let found = within("it is found", two.find(&url)).await.expect("on the server");
    support::becomes(&found, "text", "second").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_document_is_kept_up_although_nobody_has_it_open() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (_one, mine) = shared(&server, &here, &there, true).await;
    let two = repo(&there);
    assert_eq!(two.pinned().expect("readable"), [mine.url()]);
    let mut feed = two.changes_since(Position::START).expect("readable");
    let told = within("it is told of what is here", feed.next()).await.expect("an open repo");
    assert_eq!(told, mine.url());
    let _link = two.connect(&address(&server)).expect("an address");
    let told = within("the change has come", feed.next()).await.expect("an open repo");
    assert_eq!(told, mine.url());
    let found = two.find_local(&mine.url()).expect("stored");
    assert_eq!(value(&found, "text").as_deref(), Some("second"));
    found.unpin().await.expect("room on the disk");
    assert!(!found.is_pinned() && two.pinned().expect("readable").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_kept_up_where_an_application_wants_that() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (_one, mine) = shared(&server, &here, &there, false).await;
    let options = Options { sync: SyncPolicy::Everything, ..Options::default() };
    let two = Repo::open_with(there.path(), options).expect("a repo");
    let diary = two.create_local_only(|tx| tx.put(ROOT, "text", "mine alone")).expect("a document");
    let spy = Spy::before(&server).await;
    let mut feed = two.changes_since(Position::START).expect("readable");
    let _link = two.connect(&spy.address()).expect("an address");
    loop {
        let told = within("the change has come", feed.next()).await.expect("an open repo");
        let found = two.find_local(&told).expect("stored");
        if told == mine.url() && value(&found, "text").as_deref() == Some("second") {
            break;
        }
    }
    let behind = unsynced_after(&two, diary.url().id()).await;
    reaches(&server, behind.id()).await;
    assert!(spy.about(diary.url().id()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_server_has_is_offered_until_one_has_it_and_not_again() {
    let (data, here) = (directory(), directory());
    let server = serve(data.path(), None).await;
    let offline = repo(&here);
    let made = note(&offline, "made offline");
    let url = made.url();
    drop(made);
    within("it closes", offline.close()).await.expect("a clean close");

    let again = repo(&here);
    assert_eq!(again.unsynced().expect("readable"), std::slice::from_ref(&url));
    let link = again.connect(&address(&server)).expect("an address");
    reaches(&server, url.id()).await;
    on_server(&again.find_local(&url).expect("stored")).await;
    assert_eq!(again.unsynced().expect("readable"), []);
    drop(link);
    within("it closes", again.close()).await.expect("a clean close");

    let third = repo(&here);
    assert_eq!(third.unsynced().expect("readable"), []);
    let known = third.find_local(&url).expect("stored");
    let status = known.status();
    assert_eq!((status.server, status.ahead), (OnServer::Offline { confirmed: true }, 0), "also without a connection");
    within("it is known", known.on_server()).await.expect("an open repo");
    drop(known);
    let (spy, behind) = (Spy::before(&server).await, unsynced_after(&third, url.id()).await);
    let link = third.connect(&spy.address()).expect("an address");
    reaches(&server, behind.id()).await;
    assert!(spy.about(url.id()).is_empty(), "{:?}", spy.about(url.id()));
    drop(link);

    let other = directory();
    let another = serve(other.path(), None).await;
    let _link = third.connect(&address(&another)).expect("an address");
    reaches(&another, url.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_stays_here_is_in_no_frame_and_on_no_server() {
    let (data, here) = (directory(), directory());
    let server = serve(data.path(), None).await;
    let spy = Spy::before(&server).await;
    let first = repo(&here);
    let link = first.connect(&spy.address()).expect("an address");
    within("the server answers", link.connected()).await.expect("an open repo");
    let diary = first.create_local_only(|tx| tx.put(ROOT, "text", "one")).expect("a document");
    let (url, id) = (diary.url(), diary.url().id().clone());
    put(&diary, "text", "two");
    let presence = diary.presence([], PresenceOptions::default()).expect("an open repo");
    presence.set("cursor", json!(1)).expect("small");
    let branch = first.fork(&diary).expect("a branch");
    assert!(branch.is_local_only(), "what is in it is the same");
    let open = note(&first, "anybody's");
    assert!(matches!(open.merge(&diary), Err(Error::LocalOnly { .. })), "it would leave by way of the other");
    assert_eq!(diary.status().server, OnServer::LocalOnly);
    for receipt in [Receipt::Server, Receipt::Replicas(1)] {
        let refused = diary.wait(receipt, Duration::from_secs(3600)).await;
        assert!(matches!(refused, Err(Error::LocalOnly { .. })), "{refused:?}");
    }
    within("it is saved", diary.wait(Receipt::Disk, Duration::from_secs(60))).await.expect("room on the disk");
    on_server(&open).await;
    drop((presence, branch, diary, open, link));
    within("it closes", first.close()).await.expect("a clean close");

    let second = repo(&here);
    assert_eq!(second.local_only().expect("readable").len(), 2);
    let behind = unsynced_after(&second, &id).await;
    let link = second.connect(&spy.address()).expect("an address");
    reaches(&server, behind.id()).await;
    let diary = second.find_local(&url).expect("stored");
    put(&diary, "text", "three");
    second.delete(&url).await.expect("room on the disk");
    let diary = {
        drop(diary);
        second.restore(&url).await.expect("within its time")
    };
    on_server(&note(&second, "after it")).await;
    assert!(spy.about(&id).is_empty(), "{:?}", spy.about(&id));
    assert!(second.unsynced().expect("readable").iter().all(|unsynced| *unsynced != url));

    spy.say(Body::Request { document: id.clone(), data: Bytes::from_static(NOTHING) });
    spy.hears(&id, 1).await;
    let absent = DocumentId::from_random([7; 16]);
    spy.say(Body::Request { document: absent.clone(), data: Bytes::from_static(NOTHING) });
    spy.hears(&absent, 1).await;
    let said = |id: &DocumentId| spy.about(id).iter().map(|frame| frame.kind()).collect::<Vec<_>>();
    assert_eq!(said(&id), said(&absent), "as of one that is not here");
    assert_eq!(said(&id), ["DocUnavailable"]);
    // Two that have nothing of a document have told each other so; what is asked next is answered after it.
    for document in [&id, &absent] {
        spy.say(Body::Sync { document: document.clone(), data: Bytes::from_static(NOTHING) });
    }
    let last = DocumentId::from_random([8; 16]);
    spy.say(Body::Request { document: last.clone(), data: Bytes::from_static(NOTHING) });
    spy.hears(&last, 1).await;
    assert_eq!(said(&id), said(&absent));
    assert_eq!(server.replica().store().summary(&id).expect("readable"), None);

    diary.set_local_only(false).await.expect("room on the disk");
    on_server(&diary).await;
    let stored = server.replica().store().summary(&id).expect("readable").expect("it may go from here on");
    assert_eq!(stored.heads, diary.heads());
    drop(link);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_was_shared_goes_on_here_alone_once_it_is_to_stay() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (one, two) = (repo(&here), repo(&there));
    let _links = [&one, &two].map(|repo| repo.connect(&address(&server)).expect("an address"));
    let mine = note(&one, "shared");
    on_server(&mine).await;
    let theirs = within("it is found", two.find(&mine.url())).await.expect("on the server");
    mine.set_local_only(true).await.expect("room on the disk");
    put(&mine, "mine", "alone");
    put(&theirs, "theirs", "alone");
    on_server(&theirs).await;
    on_server(&note(&one, "a later one, over the same connection")).await;
    within("it is saved", mine.saved()).await.expect("room on the disk");
    assert_eq!((value(&mine, "theirs"), value(&theirs, "mine")), (None, None));

    mine.set_local_only(false).await.expect("room on the disk");
    support::becomes(&mine, "theirs", "alone").await;
    support::becomes(&theirs, "mine", "alone").await;
}

//! What is said of where changes are.
//!
//! Owns: that no status and no receipt claims more than is true, and that complaints stay until they are resolved.
//! Must not: assert times. Next: `sync.rs`.

mod support;

use std::time::Duration;

use support::{address, directory, is_ready, note, on_server, put, repo, serve, serve_with, until, within};
use syncline::automerge::ROOT;
use syncline::automerge::transaction::Transactable;
use syncline::{Error, OnServer, Receipt, Saved};
use syncline_core::limits::Limits;

/// Long enough for anything, so that it is a bound and not a measure.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_counts_what_no_server_has() {
    let (data, here) = (directory(), directory());
    let server = serve(data.path(), None).await;
    let repo = repo(&here);
    let document = note(&repo, "one");
    put(&document, "text", "two");
    let status = document.status();
    assert_eq!((status.ahead, status.servers.len(), status.offline_since), (2, 0, None), "nobody is dialled");

    let link = repo.connect(&address(&server)).expect("an address");
    on_server(&document).await;
    until(&document, |status| status.server == OnServer::InSync).await;
    let status = document.status();
    let known = &status.servers[&address(&server)];
    assert_eq!((status.ahead, known.connected, known.has_all, status.offline_since), (0, true, true, None));
    assert_eq!(repo.status().connected, [address(&server)]);

    server.stop().await;
    until(&document, |status| status.offline_since.is_some()).await;
    (0..3).for_each(|n| put(&document, "text", &n.to_string()));
    let status = document.status();
    let known = &status.servers[&link.address()];
    assert_eq!((status.ahead, known.connected, known.has_all), (3, false, false));
    assert!(repo.status().connected.is_empty() && repo.status().offline_since == status.offline_since);
    within("it is saved", document.saved()).await.expect("room on the disk");
    assert_eq!(repo.status().saved, Saved::Here);
    drop(link);
    assert_eq!(document.status().offline_since, None, "who dials nobody is not offline");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_counted_by_their_stores() {
    let (one, two, here) = (directory(), directory(), directory());
    let (first, second) = (serve(one.path(), None).await, serve(two.path(), None).await);
    let repo = repo(&here);
    let document = note(&repo, "one");
    let _one = repo.connect(&address(&first)).expect("an address");
    // The same server under another name is the same store.
    let _again = repo.connect(&format!("ws://localhost:{}", first.address().port())).expect("an address");
    document.wait(Receipt::Disk, LONG).await.expect("saved");
    document.wait(Receipt::Server, LONG).await.expect("on a server");
    document.wait(Receipt::Replicas(1), LONG).await.expect("on one server");
    until(&document, |status| status.servers.len() == 2 && status.servers.values().all(|server| server.has_all)).await;
    let error = document.wait(Receipt::Replicas(2), Duration::from_millis(20)).await.expect_err("one store");
    assert!(matches!(error, Error::NoReceipt { receipt: Receipt::Replicas(2), .. }), "{error:?}");

    let _two = repo.connect(&address(&second)).expect("an address");
    document.wait(Receipt::Replicas(2), LONG).await.expect("on both");
    for server in [&first, &second] {
        let stored = server.replica().store().summary(document.url().id()).expect("readable").expect("stored");
        assert_eq!(stored.heads, document.heads());
    }
    first.stop().await;
    put(&document, "text", "two");
    document.wait(Receipt::Replicas(1), LONG).await.expect("on the other");
    assert!(!is_ready(document.wait(Receipt::Replicas(2), LONG)), "the first has the old state only");
    repo.close().await.expect("a clean close");
    assert!(matches!(document.wait(Receipt::Replicas(2), LONG).await, Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_complaint_stands_until_the_server_has_the_document() {
    let (data, here) = (directory(), directory());
    let limits = Limits { change_operations_max: 10, ..Limits::default() };
    let server = serve_with(data.path(), None, limits).await;
    let listen = server.address();
    let repo = repo(&here);
    let _link = repo.connect(&address(&server)).expect("an address");
    let (refused, other) = (note(&repo, "taken"), note(&repo, "other"));
    on_server(&refused).await;
    refused.change(|tx| (0..11i64).try_for_each(|n| tx.put(ROOT, format!("key {n}"), n))).expect("fine by this repo");
    until(&refused, |status| !status.complaints.is_empty()).await;
    let complaints = refused.status().complaints;
    assert!(matches!(&complaints[..], [only] if only.message.contains("11 operations")), "{complaints:?}");
    assert_eq!(complaints[0].document, Some(refused.url()));
    assert_eq!(repo.status().complaints, complaints);
    // Work in other documents does not hide it, nor does a restart of the server.
    put(&other, "text", "later");
    on_server(&other).await;
    server.stop().await;
    assert!(other.status().complaints.is_empty());
    assert_eq!(refused.status().complaints, complaints);

    let _generous = serve(data.path(), Some(listen)).await;
    on_server(&refused).await;
    until(&refused, |status| status.complaints.is_empty()).await;
    assert!(repo.status().complaints.is_empty());
}

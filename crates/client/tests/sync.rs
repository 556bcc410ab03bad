//! Repos and a real server, in one process.
//!
//! Owns: what "on the server" means. Must not: assert times.
//! Next: `local.rs`.

#[path = "sync/mesh.rs"]
mod mesh;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::{
    address, becomes, directory, is_ready, note, on_server, put, repo, serve, serve_as, serve_with, until, value,
    within,
};
use syncline::automerge::ROOT;
use syncline::automerge::transaction::Transactable;
use syncline::{ConnectOptions, Connection, DocumentUrl, Error, OnServer, Options, Repo, Saved};
use syncline_core::limits::Limits;
use syncline_server::access::{Claims, Documents, GrantClaim, Rules, SigningKey};
use syncline_server::{Config, TlsFiles};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_repos_changed_offline_converges() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (one, two) = (repo(&here), repo(&there));
    let mine = note(&one, "start");
    let link = one.connect(&address(&server)).expect("an address");
    on_server(&mine).await;
    drop(link);
    let link = two.connect(&address(&server)).expect("an address");
    let theirs = within("it is found", two.find(&mine.url())).await.expect("on the server");
    drop(link);
    until(&mine, |status| status.server == OnServer::Offline { confirmed: true }).await;
    for n in 0..10 {
        put(&mine, &format!("mine {n}"), "1");
        put(&theirs, &format!("theirs {n}"), "2");
    }
    until(&mine, |status| status.server == OnServer::Offline { confirmed: false }).await;
    let _links = (one.connect(&address(&server)), two.connect(&address(&server)));
    becomes(&mine, "theirs 9", "2").await;
    becomes(&theirs, "mine 9", "1").await;
    assert_eq!(mine.heads(), theirs.heads());
    until(&mine, |status| status.server == OnServer::InSync).await;
    // Live, in both directions.
    put(&theirs, "text", "there");
    becomes(&mine, "text", "there").await;
    put(&mine, "text", "here");
    becomes(&theirs, "text", "here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_server_is_not_said_before_it_is_true_and_stays_true() {
    let (data, here) = (directory(), directory());
    let server = serve(data.path(), None).await;
    let listen = server.address();
    server.stop().await;
    let repo = repo(&here);
    let document = note(&repo, "made offline");
    let link = repo.connect(&format!("ws://{listen}")).expect("an address");
    let status = within("the try failed", link.status_changed(&Connection::Connecting)).await;
    assert!(matches!(&status, Connection::Offline { reason } if !reason.is_empty()), "{status:?}");
    within("it is saved", document.saved()).await.expect("room on the disk");
    assert!(!is_ready(document.on_server()), "nobody listens");

    let server = serve(data.path(), Some(listen)).await;
    on_server(&document).await;
    let stored = server.replica().store().summary(document.url().id()).expect("readable").expect("stored");
    assert_eq!(stored.heads, document.heads());
    server.stop().await;
    until(&document, |status| status.server == OnServer::Offline { confirmed: true }).await;
    assert!(is_ready(document.on_server()), "what was confirmed stays confirmed");
    assert_eq!(document.announced_heads().into_values().collect::<Vec<_>>(), [document.heads()]);
    put(&document, "text", "changed while it was down");
    assert!(!is_ready(document.on_server()));

    let server = serve(data.path(), Some(listen)).await;
    assert_eq!(server.replica().store().summary(document.url().id()).expect("readable"), Some(stored));
    on_server(&document).await;
    let stored = server.replica().store().summary(document.url().id()).expect("readable").expect("stored");
    assert_eq!(stored.heads, document.heads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_opened_late_learns_that_it_is_on_the_server() {
    let (data, here) = (directory(), directory());
    let server = serve(data.path(), None).await;
    let repo = repo(&here);
    let _link = repo.connect(&address(&server)).expect("an address");
    let document = note(&repo, "early");
    on_server(&document).await;
    let url = document.url();
    drop(document);
    let document = repo.find_local(&url).expect("stored");
    on_server(&document).await;
    until(&document, |status| status.server == OnServer::InSync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_nobody_has_is_an_error_until_somebody_makes_it() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (one, two) = (repo(&here), repo(&there));
    let document = note(&one, "late");
    within("it is saved", document.saved()).await.expect("saved");
    let link = two.connect(&address(&server)).expect("an address");
    within("the server answers", link.connected()).await.expect("an open repo");
    let error = within("it is denied", two.find(&document.url())).await.expect_err("nobody has it yet");
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(two.list().expect("a list").is_empty());

    let _link = one.connect(&address(&server)).expect("an address");
    on_server(&document).await;
    let found = within("it is found", two.find(&document.url())).await.expect("on the server by now");
    assert_eq!(value(&found, "text").as_deref(), Some("late"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_find_waits_for_a_server_and_says_when_it_gives_up() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let listen = server.address();
    let author = repo(&here);
    let document = note(&author, "on the server");
    let link = author.connect(&address(&server)).expect("an address");
    on_server(&document).await;
    drop(link);
    server.stop().await;

    let options = Options { find_timeout: Duration::from_millis(10), ..Options::default() };
    let hasty = Repo::open_with(there.path(), options).expect("a repo");
    let _link = hasty.connect(&format!("ws://{listen}")).expect("an address");
    let error = within("it gives up", hasty.find(&document.url())).await.expect_err("nobody listens");
    assert!(matches!(error, Error::FindTimeout { .. }), "{error:?}");
    hasty.close().await.expect("a clean close");
    drop(_link);

    let patient = repo(&there);
    let _link = patient.connect(&format!("ws://{listen}")).expect("an address");
    let url = document.url();
    let find = patient.find(&url);
    let (found, _server) = tokio::join!(within("it is found", find), serve(data.path(), Some(listen)));
    assert_eq!(value(&found.expect("found"), "text").as_deref(), Some("on the server"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_offline_in_an_earlier_run_goes_up_unopened() {
    let (data, here) = (directory(), directory());
    let urls: Vec<DocumentUrl> = {
        let repo = repo(&here);
        let urls = (0..100).map(|n| note(&repo, &n.to_string()).url()).collect();
        repo.close().await.expect("a clean close");
        urls
    };
    let server = serve(data.path(), None).await;
    let earlier = repo(&here);
    let _link = earlier.connect(&address(&server)).expect("an address");
    // Nothing is opened here, so another repo tells when all have come.
    let there = directory();
    let other = repo(&there);
    let _link = other.connect(&address(&server)).expect("an address");
    for (n, url) in urls.iter().enumerate() {
        let found = loop {
            match within("it is found", other.find(url)).await {
                Ok(found) => break found,
                Err(Error::Unavailable { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(value(&found, "text"), Some(n.to_string()));
    }
    assert_eq!(server.replica().store().count(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_server_twice_is_one_connection_until_both_handles_are_gone() {
    let (data, here) = (directory(), directory());
    let server = serve(data.path(), None).await;
    let repo = repo(&here);
    let first = repo.connect(&address(&server)).expect("an address");
    let second = repo.connect(&address(&server)).expect("an address");
    within("it is connected", first.connected()).await.expect("open");
    assert_eq!((second.status(), server.replica().peers()), (Connection::Connected, 1));
    drop(first);
    let document = note(&repo, "through the second");
    on_server(&document).await;
    drop(second);
    until(&document, |status| matches!(status.server, OnServer::Offline { confirmed: true })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_history_arrives_whole_while_it_is_being_changed() {
    let (data, here, there) = (directory(), directory(), directory());
    let server = serve(data.path(), None).await;
    let (one, two) = (repo(&here), repo(&there));
    let _links = (one.connect(&address(&server)).expect("one"), two.connect(&address(&server)).expect("two"));
    let document = note(&one, "start");
    on_server(&document).await;
    let found = within("it is found", two.find(&document.url())).await.expect("on the server");
    for n in 0..2_000i64 {
        document.change(|tx| tx.put(ROOT, "n", n)).expect("a change");
        if n % 100 == 0 {
            found.change(|tx| tx.put(ROOT, format!("there {n}"), n)).expect("a change");
            // Leaving and coming back in the middle misses nothing.
            drop(two.find_local(&document.url()).expect("stored"));
        }
    }
    put(&document, "end", "here");
    put(&found, "end there", "here");
    becomes(&found, "end", "here").await;
    becomes(&document, "end there", "here").await;
    assert_eq!(document.heads(), found.heads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_server_refuses_is_saved_here_and_never_called_on_the_server() {
    let (data, here) = (directory(), directory());
    let limits = Limits { change_operations_max: 10, ..Limits::default() };
    let server = serve_with(data.path(), None, limits).await;
    let repo = repo(&here);
    let link = repo.connect(&address(&server)).expect("an address");
    let (refused, other) = (note(&repo, "taken"), note(&repo, "other"));
    on_server(&refused).await;
    let taken = refused.heads();
    assert_eq!(link.complaint(), None);

    refused.change(|tx| (0..11i64).try_for_each(|n| tx.put(ROOT, format!("key {n}"), n))).expect("fine by this repo");
    let complaint = within("the server complains", link.complaint_changed(&None)).await.expect("words");
    assert!(complaint.contains("11 operations") && complaint.contains(&refused.url().id().to_string()), "{complaint}");
    put(&refused, "text", "builds on the refused change");
    within("it is saved here", refused.saved()).await.expect("room on the disk");
    // What is made after it in another document tells that the server has seen all of it.
    put(&other, "text", "later");
    on_server(&other).await;
    let status = refused.status();
    assert_eq!((status.saved, status.server), (Saved::Here, OnServer::Behind));
    assert!(!is_ready(refused.on_server()));
    assert_eq!(other.status().server, OnServer::InSync);
    let stored = server.replica().store().summary(refused.url().id()).expect("readable").expect("stored");
    assert_eq!(stored.heads, taken);

    // A server that takes it gets it from the same directory.
    drop(link);
    server.stop().await;
    let generous = serve(data.path(), None).await;
    let _link = repo.connect(&address(&generous)).expect("an address");
    on_server(&refused).await;
    let stored = generous.replica().store().summary(refused.url().id()).expect("readable").expect("stored");
    assert_eq!(stored.heads, refused.heads());
}

/// A token that lasts so long, beside the half minute by which clocks may differ.
fn token(key: &SigningKey, may: &[&str], seconds: f64) -> String {
    let mut claims = Claims::lasting(Duration::from_secs(60));
    claims.exp += seconds - 90.0;
    claims.sub = Some("alice".to_owned());
    let may = may.iter().map(|name| (*name).to_owned()).collect();
    claims.syncline =
        vec![GrantClaim { documents: Some(Documents::All("*".to_owned())), prefix: None, prefix_hex: None, may }];
    claims.mint(key).expect("good claims")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_and_what_it_permits_grows_without_connecting_anew() {
    let (data, here) = (directory(), directory());
    let file = data.path().join("key");
    std::fs::write(&file, "a secret that is long enough for HS256").expect("a key file");
    let key = Arc::new(SigningKey::read(&file).expect("a key"));
    let rules = Rules { key_files: vec![file], ..Rules::default() };
    let server = serve_as(&data.path().join("data"), |config| Config { rules, ..config }).await;
    let asked = Arc::new(AtomicU32::new(0));
    let ask = Arc::clone(&asked);
    // The first one lasts 2 s, and only reads.
    let options = ConnectOptions::default().token(move || {
        let first = ask.fetch_add(1, Ordering::Relaxed) == 0;
        let made = if first { token(&key, &["read"], 2.0) } else { token(&key, &["create"], 600.0) };
        async move { Ok(made) }
    });
    let repo = repo(&here);
    let link = repo.connect_with(&address(&server), options).expect("an address");
    within("it is connected", link.connected()).await.expect("an open repo");
    let document = note(&repo, "mine");
    let complaint = within("it is refused", link.complaint_changed(&None)).await.expect("a reason");
    assert!(complaint.contains("may not create"), "{complaint}");
    on_server(&document).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(server.replica().metrics().connections_total.get(), 1, "all on one connection");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_with_the_certificate_that_is_there() {
    let (data, here) = (directory(), directory());
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| data.path().join(name));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
        std::fs::write(&certificate, made.cert.pem()).expect("a file");
        made.cert.pem()
    };
    let first = renew();
    let files = TlsFiles { certificate: certificate.clone(), key: key.clone() };
    let server = serve_as(&data.path().join("data"), |config| Config { tls: Some(files), ..config }).await;
    let address = format!("wss://localhost:{}", server.address().port());
    let trusting = |pem: &str| ConnectOptions::default().trust(pem).expect("a certificate").trust_nobody_else();
    let repo = repo(&here);
    let document = note(&repo, "mine");
    let link = repo.connect_with(&address, trusting(&first)).expect("an address");
    on_server(&document).await;
    drop(link);
    let second = renew();
    server.reload();
    put(&document, "text", "renewed");
    let link = repo.connect_with(&address, trusting(&first)).expect("an address");
    let status = within("the try failed", link.status_changed(&Connection::Connecting)).await;
    assert!(matches!(&status, Connection::Offline { reason } if reason.contains("vouches")), "{status:?}");
    drop(link);
    let _link = repo.connect_with(&address, trusting(&second)).expect("an address");
    on_server(&document).await;
    // A key that is not the certificate's changes nothing.
    std::fs::write(&key, "no key").expect("a file");
    server.reload();
    put(&document, "text", "still there");
    on_server(&document).await;
    server.stop().await;
}

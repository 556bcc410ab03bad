//! A replica that dials another, in one process.
//!
//! Owns: what the application is told of connections that it begins and gives up. Must not: test the protocol.
//! Next: `src/dial.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use syncline_replica::{Credentials, DialOptions, News, Options, Replica, ServerUrl};
use syncline_store::Store;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

async fn next(news: &mut UnboundedReceiver<News>) -> News {
    let wait = tokio::time::timeout(Duration::from_secs(30), news.recv());
    wait.await.expect("news within the bound").expect("a running replica")
}

fn replica() -> (Replica, UnboundedReceiver<News>) {
    Replica::start(Store::memory().expect("a store"), Options { shards: 1, ..Options::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialling_given_up_leaves_no_session_behind() {
    let (server, _) = replica();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url: ServerUrl = format!("ws://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    let accepting = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let upgraded = tokio_tungstenite::accept_async(stream).await.expect("an upgrade");
        server.serve(upgraded.into_inner()).await;
    });
    let (client, mut news) = replica();
    let dialling = client.dial(url.clone(), DialOptions::default());
    let News::Joined { session, server, .. } = next(&mut news).await else { panic!("expected to join") };
    assert_eq!(server, Some(url), "the application can tell its servers apart");
    drop(dialling);
    assert_eq!(next(&mut news).await, News::Left { session });
    accepting.await.expect("the server saw the end");
    assert_eq!(client.metrics().connections.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_up_before_the_handshake_counts_as_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url: ServerUrl = format!("ws://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut upgraded = tokio_tungstenite::accept_async(stream).await.expect("an upgrade").into_inner();
        let mut join = [0; 16];
        upgraded.read_exact(&mut join).await.expect("a join");
    });
    let (client, mut news) = replica();
    let _dialling = client.dial(url.clone(), DialOptions::default());
    assert!(matches!(next(&mut news).await, News::Unreachable { server, .. } if server == url));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_try_shows_a_token_that_was_asked_for_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url: ServerUrl = format!("ws://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    let serving = tokio::spawn(async move {
        let mut shown = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.expect("a request");
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let line = request.lines().find_map(|line| line.strip_prefix("authorization: "));
            shown.push(line.expect("a token").to_owned());
        }
        shown
    });
    let (client, mut news) = replica();
    let asked = Arc::new(AtomicUsize::new(0));
    let credentials = Credentials::new(move || {
        let n = asked.fetch_add(1, Ordering::Relaxed);
        async move { if n == 1 { Err("expired") } else { Ok(format!("token-{n}")) } }
    });
    let _dialling = client.dial(url, DialOptions { credentials: Some(credentials), ..DialOptions::default() });
    let mut reasons = Vec::new();
    while reasons.len() < 4 {
        if let News::Unreachable { reason, .. } = next(&mut news).await {
            reasons.push(reason);
        }
    }
    assert!(reasons[1].contains("expired"), "{reasons:?}");
    assert_eq!(serving.await.expect("three tries"), ["bearer token-0", "bearer token-2", "bearer token-3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_network_ends_the_wait_for_the_next_try() {
    // Nobody listens at a port that was just given back.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url: ServerUrl = format!("ws://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    drop(listener);
    let (client, mut news) = replica();
    let _dialling = client.dial(url, DialOptions::default());
    // So many tries with waits that double would take longer than a test waits.
    for _ in 0..12 {
        assert!(matches!(next(&mut news).await, News::Unreachable { .. }));
        client.network_changed();
    }
}

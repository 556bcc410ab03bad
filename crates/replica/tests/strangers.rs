//! Peers that connect and then do nothing, or do not read, over pipes in memory.
//!
//! Owns: that each is cut off, told why if it reads, and counted. Must not: judge by how long that took.
//! Next: `src/connection.rs`.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use syncline_core::limits::Limits;
use syncline_core::wire::{Body, PeerMetadata, encode};
use syncline_replica::metrics::Reason;
use syncline_replica::{Options, Replica};
use syncline_store::Store;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// What a pipe holds: far less than what is sent.
const PIPE_BYTES: usize = 1024;

/// A replica with these limits, one connection to it, and its end.
async fn connected(limits: Limits) -> (Replica, WebSocketStream<DuplexStream>, JoinHandle<()>) {
    let options = Options { shards: 1, limits, ..Options::default() };
    let (replica, _) = Replica::start(Store::memory().expect("a store"), options);
    let (ours, theirs) = duplex(PIPE_BYTES);
    let peer = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let served = tokio::spawn({
        let replica = replica.clone();
        async move { replica.serve(ours).await }
    });
    (replica, peer, served)
}

fn refused(replica: &Replica, reason: &'static str) -> u64 {
    replica.metrics().refused.get_or_create(&Reason { reason }).get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_after_the_upgrade_is_told_and_cut_off() {
    let (replica, mut peer, served) =
        connected(Limits { join_timeout: Duration::from_millis(50), ..Limits::default() }).await;
    let mut told = Vec::new();
    while let Some(Ok(message)) = peer.next().await {
        told.extend(message.into_data());
    }
    served.await.expect("the connection ends");
    assert!(String::from_utf8_lossy(&told).contains("no handshake within"));
    assert_eq!((refused(&replica, "join_timeout"), replica.metrics().connections.get()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_its_answers_is_cut_off() {
    let limits = Limits {
        join_timeout: Duration::from_millis(50),
        stall_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let (replica, mut peer, served) = connected(limits).await;
    let mut join = Vec::new();
    let body = Body::Join { metadata: PeerMetadata::default(), versions: None };
    encode("sleeper", None, &body, &mut join);
    peer.send(Message::binary(join)).await.expect("the pipe is empty");
    // Each of these is answered with an error, until the answers fill the pipe and nothing more is read.
    let mut odd = Vec::new();
    let data = bytes::Bytes::from_static(b"no sync message");
    let document = "11111111111111114Ki9Gx".parse().expect("an id");
    encode("sleeper", None, &Body::Sync { document, data }, &mut odd);
    while peer.send(Message::binary(odd.clone())).await.is_ok() {}
    served.await.expect("the connection ends");
    assert_eq!((refused(&replica, "slow_reader"), replica.metrics().connections.get()), (1, 0));
}

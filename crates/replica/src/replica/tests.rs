//! A replica with peers played by hand, over a disk that another process holds up.
//!
//! Owns: what a connection's allowance covers. Must not: test the protocol.
//! Next: `../shard.rs`, `../outbox.rs`.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use bytes::Bytes;
use syncline_core::access::Access;
use syncline_core::hub::{Outgoing, SyncMessage};
use syncline_core::sync::Statement;

use super::*;
use crate::outbox::Queued;
use crate::shard::Allowance;

const ROOM_BYTES: usize = 1024;

/// Nobody reads from the outboxes in the end, so a stop does not wait for that.
fn options(shards: usize) -> Options {
    Options { shards, stop_timeout: Duration::ZERO, ..Options::default() }
}

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).expect("16 bytes")
}

fn change() -> Change {
    let mut document = AutoCommit::new();
    document.put(ROOT, "key", 1).expect("the root takes any key");
    let raw = Bytes::copy_from_slice(document.get_last_local_change().expect("just made").raw_bytes());
    Change::decode(raw, &Limits::default()).expect("automerge's own")
}

fn sync(document: &DocumentId, changes: Vec<Change>) -> PeerMessage {
    let heads = changes.iter().map(|change| change.hash).collect();
    let with_changes = !changes.is_empty();
    let statement = Statement { heads, need: Vec::new(), have: Vec::new(), flags: None, with_changes };
    let document = document.clone();
    PeerMessage::Sync(Box::new(SyncMessage { document, request: false, statement, changes, refused: Vec::new() }))
}

fn ephemeral(document: &DocumentId, sender: &PeerInfo) -> PeerMessage {
    let (document, sender) = (document.clone(), sender.peer.clone());
    PeerMessage::Ephemeral { document, sender, count: 1, session: "tab".into(), data: Bytes::new() }
}

/// A peer that has joined.
struct Joined {
    session: SessionId,
    outbox: Arc<Outbox>,
    info: PeerInfo,
    allowance: Arc<Allowance>,
}

impl Joined {
    fn new(inner: &Inner, name: &str) -> Self {
        let (session, outbox) = inner.open_session();
        let peer = PeerId::new(name).expect("a name");
        let info = PeerInfo { peer, storage: None, role: Role::Downstream, native: 0, access: Access::full() };
        inner.join(session, &info, None);
        Self { session, outbox, info, allowance: Arc::default() }
    }

    fn say(&self, inner: &Inner, message: PeerMessage) {
        inner.forward(self.session, message, self.allowance.occupy(ROOM_BYTES + 1));
    }

    async fn hears(&self, wanted: impl Fn(&Outgoing) -> bool) {
        poll_fn(|cx| {
            let heard = |queued: &Queued| matches!(queued, Queued::Message(message, _) if wanted(message));
            if self.outbox.take(cx.waker()).iter().any(heard) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn has_room(&self) {
        let room = |cx: &mut std::task::Context<'_>| self.allowance.has_room(ROOM_BYTES, cx.waker());
        poll_fn(|cx| if room(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let bounded = tokio::time::timeout(Duration::from_secs(60), future).await;
    bounded.unwrap_or_else(|_| panic!("waited too long until {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_occupies_its_connection_until_its_changes_are_durable() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path(), syncline_store::Options::default()).expect("a store");
    let (replica, _news) = Replica::start(store, options(1));
    let inner = &*replica.inner;
    let (author, other) = (Joined::new(inner, "author"), Joined::new(inner, "other"));
    other.say(inner, sync(&document(2), Vec::new()));
    within("it is answered", other.hears(|message| matches!(message, Outgoing::Sync { .. }))).await;
    within("a question takes no room once it is answered", other.has_room()).await;

    let blocker = rusqlite::Connection::open(directory.path().join("syncline.db")).expect("the store's file");
    blocker.execute_batch("BEGIN IMMEDIATE").expect("nobody writes now");
    author.say(inner, sync(&document(1), vec![change()]));
    // One shard takes one message after the other, so what follows tells that the first one is with the hub.
    let follower = Joined::new(inner, "follower");
    follower.say(inner, ephemeral(&document(2), &follower.info));
    within("it is passed on", other.hears(|message| matches!(message, Outgoing::Ephemeral { .. }))).await;
    assert!(!author.allowance.has_room(ROOM_BYTES, Waker::noop()), "nothing is durable yet");
    blocker.execute_batch("ROLLBACK").expect("the transaction is open");
    within("it is durable", author.has_room()).await;
    within("it is acknowledged", author.hears(|message| matches!(message, Outgoing::Sync { .. }))).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_all_shards_occupies_its_connection_until_all_have_it() {
    let store = Store::memory().expect("a store");
    let (replica, _news) = Replica::start(store, options(4));
    let inner = &*replica.inner;
    let peer = Joined::new(inner, "peer");
    peer.say(inner, PeerMessage::RemoteSubscription { add: Vec::new(), remove: Vec::new() });
    within("all have handled it", peer.has_room()).await;
    replica.stop().await;
}

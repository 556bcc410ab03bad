//! Clients against a server made of automerge's own documents.
//!
//! Owns: the smallest possible sync server. Must not: share code with the clients beyond the frame around a message.
//! Next: `../light.rs`.

use std::collections::HashMap;
use std::sync::Mutex;

use automerge::Automerge;
use automerge::sync::{Message as SyncMessage, State, SyncDoc};
use futures_util::stream::SplitSink;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;

use super::*;
use crate::author;
use crate::full::Full;
use crate::ledger::Ledger;
use crate::light::Light;

const WITHIN: Duration = Duration::from_secs(30);

type Sink = SplitSink<WebSocketStream<TcpStream>, Message>;

/// Documents, and what each connection is known to have of them.
#[derive(Default)]
struct Peer {
    documents: HashMap<String, Automerge>,
    states: HashMap<(usize, String), State>,
    outboxes: HashMap<usize, mpsc::UnboundedSender<Message>>,
}

impl Peer {
    fn receive(&mut self, connection: usize, document: &str, data: &[u8]) {
        let message = SyncMessage::decode(data).expect("a client's message");
        let entry = self.documents.entry(document.to_owned()).or_default();
        let state = self.states.entry((connection, document.to_owned())).or_default();
        entry.receive_sync_message(state, message).expect("a client's changes apply");
        for ((connection, id), state) in self.states.iter_mut().filter(|((_, id), _)| id == document) {
            if let Some(answer) = self.documents[id].generate_sync_message(state) {
                let frame = frame::encode_sync("sync", "peer", "client", id, &answer.encode());
                let _ = self.outboxes[connection].send(Message::Binary(frame.into()));
            }
        }
    }

    fn text(&self, document: &str) -> String {
        author::text_of(&self.documents[document]).expect("a document with a text")
    }
}

async fn serve() -> (Arc<Mutex<Peer>>, Options) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = Arc::new(Mutex::new(Peer::default()));
    let served = Arc::clone(&peer);
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut sink, mut source) = tokio_tungstenite::accept_async(stream).await.unwrap().split();
            let (sender, mut outbox) = mpsc::unbounded_channel();
            served.lock().unwrap().outboxes.insert(connection, sender);
            let _join = source.next().await;
            answer_join(&mut sink).await;
            tokio::spawn(async move {
                while let Some(frame) = outbox.recv().await {
                    let _ = sink.send(frame).await;
                }
            });
            let served = Arc::clone(&served);
            tokio::spawn(async move {
                while let Some(Ok(Message::Binary(bytes))) = source.next().await {
                    let Incoming::Sync { document, data } = frame::decode(&bytes).unwrap() else { continue };
                    served.lock().unwrap().receive(connection, document, data);
                }
            });
        }
    });
    let endpoint = Endpoint::resolve(&format!("ws://{address}")).await.unwrap();
    let options = Options { endpoint, source: None, storage_id: None, own_thread: false, stats: Stats::new() };
    (peer, options)
}

async fn answer_join(sink: &mut Sink) {
    let mut answer = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut answer);
    encoder.map(2).unwrap().str("type").unwrap().str("peer").unwrap();
    encoder.str("senderId").unwrap().str("peer").unwrap();
    sink.send(Message::Binary(answer.into())).await.unwrap();
}

/// A document on the server and this many clients that have it, the first one its creator.
async fn typists(options: &Options, clients: usize) -> (Arc<Ledger>, Vec<Client>) {
    let stats = &options.stats;
    let (ledger, first) = author::new_document();
    let mut joined = Vec::new();
    for at in 0..clients {
        let client = Client::connect(options.clone()).await.unwrap();
        if at == 0 {
            client.open(Light::creator(Arc::clone(&ledger), Arc::clone(stats), first));
        } else {
            client.open(Light::subscriber(Arc::clone(&ledger), Arc::clone(stats)));
        }
        client.synced(WITHIN).await.unwrap();
        joined.push(client);
    }
    (ledger, joined)
}

async fn settle(clients: &[Client], stats: &Stats, edits: u64) {
    let due = edits * (clients.len() as u64 - 1);
    assert!(crate::scenario::wait_for(&stats.deliveries, due, WITHIN).await, "not everything was delivered");
    assert!(crate::scenario::wait_for(&stats.acknowledgements, edits, WITHIN).await, "not everything was confirmed");
    for client in clients {
        client.synced(WITHIN).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_light_clients_type_is_what_a_real_document_holds() {
    let (peer, options) = serve().await;
    let stats = Arc::clone(&options.stats);
    let (ledger, clients) = typists(&options, 5).await;
    let each = 40_usize;
    for _ in 0..each {
        for client in &clients {
            client.edit(0, Instant::now());
        }
    }
    settle(&clients, &stats, (each * clients.len()) as u64).await;
    assert_eq!(
        stats.deliveries.load(Relaxed),
        (each * clients.len() * (clients.len() - 1)) as u64,
        "none counted twice"
    );
    let run: String = (1..=each).map(|seq| char::from(b'a' + u8::try_from(seq % 26).unwrap())).collect();
    assert_eq!(peer.lock().unwrap().text(&ledger.id), run.repeat(clients.len()), "each run whole and in order");
    for client in clients {
        let replica = client.stop().await.remove(0);
        assert_eq!(replica.heads(), peer.lock().unwrap().documents[&ledger.id].get_heads());
    }
    assert_eq!(stats.first_loss(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_and_light_clients_agree_on_one_text() {
    let (peer, options) = serve().await;
    let stats = Arc::clone(&options.stats);
    let (ledger, mut clients) = typists(&options, 2).await;
    let full = Client::connect(Options { own_thread: true, ..options.clone() }).await.unwrap();
    full.open(Full::subscriber(Arc::clone(&ledger), Arc::clone(&stats)));
    full.synced(WITHIN).await.unwrap();
    clients.push(full);
    for _ in 0..30 {
        for client in &clients {
            client.edit(0, Instant::now());
        }
    }
    settle(&clients, &stats, 90).await;
    let full = clients.pop().unwrap().stop().await.remove(0);
    assert_eq!(full.text().unwrap(), peer.lock().unwrap().text(&ledger.id));
    assert_eq!(full.text().unwrap().chars().count(), 90);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_returns_gets_only_what_it_missed_and_sends_only_what_it_wrote() {
    let (peer, options) = serve().await;
    let (ledger, mut clients) = typists(&options, 2).await;
    let mut replicas = clients.pop().unwrap().stop().await;
    for _ in 0..20 {
        clients[0].edit(0, Instant::now());
    }
    clients[0].synced(WITHIN).await.unwrap();
    // Written offline, on top of what it had when it left.
    for _ in 0..3 {
        replicas[0].edit().unwrap();
    }
    let stats = Stats::new();
    let back = Client::connect(Options { stats: Arc::clone(&stats), ..options }).await.unwrap();
    replicas[0].disconnect();
    back.reopen(replicas.remove(0));
    back.synced(WITHIN).await.unwrap();
    let replica = back.stop().await.remove(0);
    assert_eq!(replica.heads(), peer.lock().unwrap().documents[&ledger.id].get_heads());
    assert_eq!(peer.lock().unwrap().text(&ledger.id).chars().count(), 23);
    // Twenty changes are over two kilobytes; three are a few hundred bytes.
    assert!(stats.bytes_out.load(Relaxed) < 2_000, "{} bytes sent", stats.bytes_out.load(Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_seed_is_the_document_that_was_saved() {
    let (peer, options) = serve().await;
    let seed = author::Seed::typed(200, 5).unwrap();
    let (ledger, head) = seed.document();
    let client = Client::connect(options.clone()).await.unwrap();
    client.open(Light::creator(Arc::clone(&ledger), Arc::clone(&options.stats), head));
    client.synced(WITHIN).await.unwrap();
    let expected = author::text_of(&Automerge::load(&seed.bytes).unwrap()).unwrap();
    assert_eq!(peer.lock().unwrap().text(&ledger.id), expected);
    client.edit(0, Instant::now());
    assert!(crate::scenario::wait_for(&options.stats.acknowledgements, 1, WITHIN).await);
    assert_eq!(peer.lock().unwrap().text(&ledger.id).chars().count(), expected.chars().count() + 1);
}

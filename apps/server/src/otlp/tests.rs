//! A server and two clients beside a collector: spans arrive, with stamps that sort by cause.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};

use syncline::automerge::ROOT;
use syncline::automerge::transaction::Transactable;
use syncline_core::loader::InProcess;
use syncline_server::{Config, Server};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::*;

/// Longest wait for something that is to come.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Span {
    name: String,
    parent: Vec<u8>,
    stamp: u64,
}

/// The fields of a protobuf message: numbers, and what has a length.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number longer than 64 bits");
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let (value, length) = match tag & 7 {
            0 => (varint(&mut bytes), 0),
            1 => (0, 8),
            2 => (0, varint(&mut bytes) as usize),
            5 => (0, 4),
            kind => panic!("a field of kind {kind}"),
        };
        let (content, rest) = bytes.split_at(length);
        bytes = rest;
        found.push((tag >> 3, value, content));
    }
    found
}

fn inside(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).into_iter().filter(move |(found, ..)| *found == number).map(|(.., content)| content)
}

/// The spans of an export request by their ids.
fn spans(request: &[u8]) -> impl Iterator<Item = (Vec<u8>, Span)> + '_ {
    let scopes = inside(request, 1).flat_map(|resource| inside(resource, 2).collect::<Vec<_>>());
    scopes.flat_map(|scope| inside(scope, 2).map(span).collect::<Vec<_>>())
}

fn span(bytes: &[u8]) -> (Vec<u8>, Span) {
    let one = |number| inside(bytes, number).next().unwrap_or_default().to_vec();
    let stamp = inside(bytes, 9).find_map(|attribute| {
        let is_stamp = inside(attribute, 1).next() == Some(b"syncline.stamp");
        let value = inside(attribute, 2).next().filter(|_| is_stamp)?;
        fields(value).into_iter().find(|(number, ..)| *number == 3).map(|(_, value, _)| value)
    });
    let name = String::from_utf8(one(5)).expect("a name is text");
    (one(2), Span { name, parent: one(4), stamp: stamp.unwrap_or(0) })
}

/// A collector that takes everything: what is posted to it.
fn collector() -> (Url, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    let (posted, posts) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let head: Vec<String> =
                reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let length =
                head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.expect("a length")];
            reader.read_exact(&mut body).expect("a body");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("sent");
            if posted.send((head[0].clone(), body)).is_err() {
                return;
            }
        }
    });
    (url, posts)
}

#[test]
fn a_change_is_followed_from_its_arrival_to_its_reader() {
    let (url, posts) = collector();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let traces = Traces::to(&url, Trust::default(), runtime.handle().clone()).expect("an address");
    tracing_subscriber::registry().with(traces.layer()).init();
    let data = tempfile::tempdir().expect("a directory");
    runtime.block_on(async {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let server = Server::start(Config::new(listen, data.path().join("data"), Arc::new(InProcess))).await;
        let server = server.expect("it starts");
        let address = format!("ws://{}", server.address());
        let (author, reader) = (syncline::Repo::memory().expect("a repo"), syncline::Repo::memory().expect("a repo"));
        let links = [author.connect(&address), reader.connect(&address)].map(|link| link.expect("an address"));
        let document = author.create(|tx| tx.put(ROOT, "n", 0)).expect("a document");
        document.on_server().await.expect("it is there");
        let copy = reader.find(&document.url()).await.expect("it is found");
        for n in 1..=5_i64 {
            document.change(|tx| tx.put(ROOT, "n", n)).expect("an edit");
            document.on_server().await.expect("it is there");
        }
        tokio::time::timeout(PATIENCE, async {
            let mut watch = copy.watch();
            while copy.heads() != document.heads() {
                watch.changed().await.expect("the repo is open");
            }
        })
        .await
        .expect("the reader hears of it");
        drop(links);
        server.stop().await;
    });
    traces.end();
    let mut all = BTreeMap::new();
    while let Ok((line, body)) = posts.try_recv() {
        assert_eq!(line, "POST /v1/traces HTTP/1.1");
        all.extend(spans(&body));
    }
    let chains = all.values().filter(|span| span.name == "fan-out").filter_map(|fan_out| {
        let commit = all.get(&fan_out.parent).filter(|span| span.name == "commit")?;
        let admit = all.get(&commit.parent).filter(|span| span.name == "admit")?;
        let receive = all.get(&admit.parent).filter(|span| span.name == "receive")?;
        Some([receive.stamp, admit.stamp, commit.stamp, fan_out.stamp])
    });
    let chains: Vec<_> = chains.collect();
    assert!(!chains.is_empty(), "no change was followed all the way: {all:#?}");
    assert!(chains.iter().all(|stamps| stamps[0] > 0 && stamps.is_sorted_by(|a, b| a < b)), "{chains:?}");
}

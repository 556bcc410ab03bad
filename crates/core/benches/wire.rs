//! What one frame costs: the hot path of a server, once for each message in and once for each subscriber out.
//!
//! Owns: frames of the sizes that editing (300 bytes) and opening documents (64 KiB) produce.
//! Must not: assert times.
//! Next: `../src/wire.rs`.

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;
use syncline_core::sync::message::Message;
use syncline_core::wire::{self, Body};

const SENDER: &str = "peer-8f2k3j9x0q1";
const TARGET: &str = "storage-server-at-syncline-example";
const DATA_BYTES: [usize; 2] = [170, 65_536];

fn main() {
    divan::main();
}

fn document() -> DocumentId {
    DocumentId::from_random([0x5a; 16])
}

fn frame(data_bytes: usize) -> Bytes {
    let mut out = Vec::new();
    let data = Bytes::from(vec![7; data_bytes]);
    wire::encode(SENDER, Some(TARGET), &Body::Sync { document: document(), data }, &mut out);
    Bytes::from(out)
}

#[divan::bench(args = DATA_BYTES)]
fn decode_sync_frame(bencher: Bencher<'_, '_>, data_bytes: usize) {
    let (frame, limits) = (frame(data_bytes), Limits::default());
    bencher
        .counter(BytesCount::new(frame.len()))
        .bench(|| wire::decode(divan::black_box(&frame), &limits).expect("our own frame").message);
}

/// The part of decoding that only base58 and its checksum cost.
#[divan::bench]
fn decode_document_id(bencher: Bencher<'_, '_>) {
    let text = document().to_string();
    bencher.bench(|| divan::black_box(text.as_str()).parse::<DocumentId>().expect("an id"));
}

#[divan::bench(args = DATA_BYTES)]
fn encode_sync_from_text(bencher: Bencher<'_, '_>, data_bytes: usize) {
    let (text, data) = (document().to_string(), vec![7; data_bytes]);
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(data_bytes)).bench_local(|| {
        out.clear();
        wire::encode_sync(SENDER, TARGET, divan::black_box(&text), &data, &mut out);
        divan::black_box(out.len())
    });
}

#[divan::bench(args = DATA_BYTES)]
fn encode_sync_from_id(bencher: Bencher<'_, '_>, data_bytes: usize) {
    let message = Body::Sync { document: document(), data: Bytes::from(vec![7; data_bytes]) };
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(data_bytes)).bench_local(|| {
        out.clear();
        wire::encode(SENDER, Some(TARGET), divan::black_box(&message), &mut out);
        divan::black_box(out.len())
    });
}

/// An acknowledgement: one head, one `have`, no changes, flags.
fn acknowledgement() -> Bytes {
    let mut bytes = vec![0x42, 1];
    bytes.extend([9; 32]);
    bytes.extend([0, 1, 1]);
    bytes.extend([9; 32]);
    bytes.extend([0, 0, 2, 2, 0x84]);
    Bytes::from(bytes)
}

#[divan::bench]
fn decode_acknowledgement(bencher: Bencher<'_, '_>) {
    let (bytes, limits) = (acknowledgement(), Limits::default());
    bencher.bench(|| Message::decode(divan::black_box(&bytes).clone(), &limits).expect("well formed"));
}

#[divan::bench]
fn encode_acknowledgement(bencher: Bencher<'_, '_>) {
    let message = Message::decode(acknowledgement(), &Limits::default()).expect("well formed");
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        divan::black_box(&message).encode(&mut out);
        divan::black_box(out.len())
    });
}

//! What it costs to read a change: checks, automerge's own decoder beside them, and the fast path for stored bytes.
//!
//! Owns: one-operation changes, a paste, and a saved document. Must not: assert a time.
//! Next: `src/change.rs`, `src/document.rs`.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT};
use bytes::Bytes;
use divan::{Bencher, black_box};
use syncline_core::change::Change;
use syncline_core::chunk::Chunk;
use syncline_core::document::{expand, measure};
use syncline_core::limits::Limits;
use syncline_core::loader::InProcess;

fn main() {
    divan::main();
}

/// A text typed letter by letter.
fn typed(letters: usize) -> AutoCommit {
    let mut document = AutoCommit::new();
    let text = document.put_object(ROOT, "text", ObjType::Text).expect("a fresh document");
    for index in 0..letters {
        document.splice_text(&text, index, 0, "x").expect("in range");
        document.commit();
    }
    document
}

/// One letter, typed into a text of some length.
fn letter() -> Bytes {
    let changes = typed(50).get_changes(&[]);
    Bytes::copy_from_slice(changes[changes.len() - 1].raw_bytes())
}

/// Many letters in one change.
fn paste(letters: usize) -> Bytes {
    let mut document = AutoCommit::new();
    let text = document.put_object(ROOT, "text", ObjType::Text).expect("a fresh document");
    let letters: String = (0..letters).map(|index| char::from(b'a' + (index % 26) as u8)).collect();
    document.splice_text(&text, 0, 0, &letters).expect("in range");
    Bytes::copy_from_slice(document.get_changes(&[])[0].raw_bytes())
}

fn saved() -> Chunk {
    Chunk::first(&typed(2_000).save().into()).expect("a document chunk")
}

#[divan::bench]
fn letter_from_a_peer(bencher: Bencher) {
    let (bytes, limits) = (letter(), Limits::default());
    bencher.bench_local(|| Change::decode(black_box(bytes.clone()), &limits));
}

#[divan::bench]
fn letter_by_automerge_alone(bencher: Bencher) {
    let bytes = letter();
    bencher.bench_local(|| automerge::Change::try_from(black_box(&bytes[..])));
}

#[divan::bench]
fn letter_from_the_store(bencher: Bencher) {
    let bytes = letter();
    bencher.bench_local(|| Change::decode_stored(black_box(bytes.clone())));
}

#[divan::bench(args = [1_000, 90_000])]
fn paste_from_a_peer(bencher: Bencher, letters: usize) {
    let (bytes, limits) = (paste(letters), Limits::default());
    bencher.bench_local(|| Change::decode(black_box(bytes.clone()), &limits));
}

#[divan::bench(args = [1_000, 90_000])]
fn paste_by_automerge_alone(bencher: Bencher, letters: usize) {
    let bytes = paste(letters);
    bencher.bench_local(|| automerge::Change::try_from(black_box(&bytes[..])));
}

#[divan::bench]
fn document_of_2001_changes_measured(bencher: Bencher) {
    let (chunk, limits) = (saved(), Limits::default());
    bencher.bench_local(|| measure(black_box(&chunk), &limits));
}

#[divan::bench]
fn document_of_2001_changes_expanded(bencher: Bencher) {
    let (chunk, limits) = (saved(), Limits::default());
    bencher.bench_local(|| expand(black_box(&chunk), &limits, &InProcess));
}

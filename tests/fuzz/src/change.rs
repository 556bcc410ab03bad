//! Chunks, single changes and whole documents through the gatekeeper, and what passes into real documents.
//!
//! Owns: the checksums that a fuzzer cannot guess, the documents that accepted changes are applied to.
//! Must not: excuse a panic of automerge on what was accepted. Next: `graph.rs`.

use std::io::Read;

use automerge::{AutoCommit, Automerge, ReadDoc};
use bytes::Bytes;
use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};
use syncline_core::change::{Change, Expectation};
use syncline_core::chunk::{Chunk, ChunkKind, inflate, split};
use syncline_core::document::{expand, measure};
use syncline_core::graph::{Admission, Graph};
use syncline_core::loader::InProcess;

use crate::forge;
use crate::pool::pool;

/// Largest size to which the targets let anything inflate, bytes.
const INFLATED_BYTES_MAX: usize = 1 << 20;

/// Concatenated chunks.
pub fn chunks(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut at = 0;
    let mut failed = false;
    for chunk in split(bytes.clone()) {
        assert!(!failed, "nothing follows an error");
        let Ok(chunk) = chunk else {
            failed = true;
            continue;
        };
        assert_eq!(chunk.bytes, bytes[at..at + chunk.bytes.len()], "chunks lie one after the other");
        at += chunk.bytes.len();
        check_chunk(&chunk);
    }
    assert!(failed || at == data.len(), "everything was split");
    check_inflation(data);
}

fn check_chunk(chunk: &Chunk) {
    let header = chunk.bytes.len() - chunk.body.len();
    assert!(chunk.bytes.ends_with(&chunk.body) && chunk.checksum[..] == chunk.bytes[4..8]);
    // Kind, length and body as they stand: the length has one form.
    let hashed: [u8; 32] = Sha256::digest(&chunk.bytes[8..]).into();
    assert_eq!(chunk.hash().0, hashed, "header of {header} bytes");
    if chunk.kind == ChunkKind::CompressedChange {
        check_inflation(&chunk.body);
    }
}

/// Bounded inflation gives what the plain one gives, or refuses.
fn check_inflation(body: &[u8]) {
    let mut plain = Vec::new();
    let mut decoder = DeflateDecoder::new(body);
    let whole = decoder.by_ref().take(INFLATED_BYTES_MAX as u64 + 1).read_to_end(&mut plain).is_ok();
    for bytes_max in [100, INFLATED_BYTES_MAX] {
        match inflate(body, bytes_max) {
            Ok(inflated) => {
                assert!(whole && inflated == plain && inflated.len() <= bytes_max);
                assert_eq!(decoder.total_in() as usize, body.len(), "exactly one stream");
            }
            Err(_) => {
                let fits = plain.len() <= bytes_max;
                assert!(!whole || !fits || (decoder.total_in() as usize) < body.len(), "an honest stream is refused");
            }
        }
    }
}

/// How to make a chunk of the bytes, and one change.
pub fn change(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let bytes = match mode % 4 {
        0 => forge::chunk(forge::CHANGE, rest),
        1 => forge::compressed(rest),
        2 => match inflate(rest, INFLATED_BYTES_MAX) {
            Ok(body) => forge::framed(forge::COMPRESSED, rest, forge::hash(forge::CHANGE, &body)),
            Err(_) => return,
        },
        _ => rest.to_vec(),
    };
    let bytes = Bytes::from(bytes);
    let stored = Change::decode_stored(bytes.clone());
    let Ok(change) = Change::decode(bytes, &crate::limits()) else { return };
    let theirs = automerge::Change::try_from(&change.bytes[..]).expect("automerge accepts what is accepted here");
    assert_eq!((theirs.hash(), theirs.deps()), (change.hash, &change.deps[..]));
    assert_eq!((theirs.seq(), theirs.max_op()), (change.seq, change.max_op()));
    let plain = Change { references: Vec::new(), ..change.clone() };
    assert_eq!(Change::decode_stored(change.bytes.clone()).as_ref(), Ok(&plain), "what is accepted can be stored");
    assert!(stored.is_err() || stored == Ok(plain), "both readers agree");
    check_applies(&change, theirs);
}

/// A change that the graph admits must be one that every document behind this replica can take.
fn check_applies(change: &Change, theirs: automerge::Change) {
    let pool = pool();
    let mut graph = Graph::new(7);
    for known in &pool.changes[..pool.honest] {
        graph.push(known).expect("in causal order");
    }
    if graph.admit(change, &crate::limits()) != Ok(Admission::Ready) {
        return;
    }
    let mut document: AutoCommit = pool.document.clone();
    document.apply_changes([theirs]).expect("automerge takes what the graph admits");
    let _ = document.hydrate(automerge::ROOT, None);
    let heads = document.get_heads();
    assert!(heads.contains(&change.hash), "the change has become a head");
    if change.references.iter().any(|reference| reference.expectation == Expectation::Exists) {
        // What a named predecessor is, beyond that it exists, is not checked; it shows when the document is saved.
        return;
    }
    let loaded = Automerge::load(&document.save()).expect("the document can be saved and loaded");
    assert_eq!(loaded.get_heads(), heads);
}

/// How to make a chunk of the bytes, and a whole document.
pub fn document(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let bytes = if mode % 2 == 0 { forge::chunk(forge::DOCUMENT, rest) } else { rest.to_vec() };
    let Ok(chunk) = Chunk::first(&bytes.into()) else { return };
    let totals = measure(&chunk, &crate::limits());
    let Ok(changes) = expand(&chunk, &crate::limits(), &InProcess) else { return };
    let totals = totals.expect("what is taken apart was measured");
    assert_eq!(totals.changes, changes.len() as u64);
    let mut operations = 0;
    for bytes in changes {
        let stored = Change::decode_stored(bytes.clone()).expect("a change of a document can be stored");
        operations += stored.operations;
        if let Ok(change) = Change::decode(bytes, &crate::limits()) {
            assert_eq!(change.hash, stored.hash);
        }
    }
    assert!(totals.operations >= operations, "measured {} operations, found {operations}", totals.operations);
}

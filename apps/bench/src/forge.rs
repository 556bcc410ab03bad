//! Frames that no honest client sends.
//!
//! Owns: what is wrong with each, drawn from a seed. Must not: be told by the server what to send next; an attacker does
//! not listen.
//! Next: `scenario/hostile.rs`; the automerge binary format specification for the bytes inside.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

use crate::frame;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const COMPRESSED_CHANGE: u8 = 2;

/// Documents that the attackers work on beside the honest one.
const DOCUMENTS: usize = 64;

/// Inputs that a fuzzer found, by what they are.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    frames: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
    chunks: Vec<Vec<u8>>,
}

impl Corpus {
    /// Reads the directories of a fuzzer's corpora that hold frames, sync messages and chunks.
    ///
    /// # Errors
    /// When a directory that is there cannot be read.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        let read = |names: &[&str]| {
            let mut inputs = Vec::new();
            for name in names {
                let path = directory.join(name);
                let entries = fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))?;
                let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
                // The order of a directory differs from machine to machine.
                paths.sort();
                for path in paths {
                    inputs.push(fs::read(&path)?);
                }
            }
            anyhow::Ok(inputs)
        };
        Ok(Self {
            frames: read(&["wire"])?,
            messages: read(&["message"])?,
            chunks: read(&["change", "document", "chunks"])?,
        })
    }
}

/// A frame, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Forged {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Whether a server may well end the connection over it.
    pub(crate) closes: bool,
}

/// One attacker's source of frames.
pub(crate) struct Forge {
    random: StdRng,
    name: String,
    victim: String,
    documents: Vec<String>,
    corpus: Arc<Corpus>,
    change: Vec<u8>,
    document: Vec<u8>,
}

impl Forge {
    /// An attacker of this name who knows the id of the honest document.
    pub(crate) fn new(seed: u64, name: String, victim: String, corpus: Arc<Corpus>) -> Self {
        let documents = (0..DOCUMENTS).map(|_| frame::random_document_id()).collect();
        let mut honest = AutoCommit::new();
        for number in 0..20 {
            honest.put(ROOT, format!("key {}", number % 7), number).expect("the root takes any key");
            honest.commit();
        }
        let change = honest.get_last_local_change().expect("there are twenty").raw_bytes().to_vec();
        let document = honest.save();
        Self { random: StdRng::seed_from_u64(seed), name, victim, documents, corpus, change, document }
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Forged {
        let open = |kind, bytes| Forged { kind, bytes, closes: false };
        match self.random.random_range(0..100) {
            0 => Forged { kind: "no_frame", bytes: self.noise(), closes: true },
            1 => Forged { kind: "damaged_frame", bytes: self.damaged_frame(), closes: true },
            2..15 => open("damaged_message", self.damaged_message()),
            15..30 => open("bloom", self.bloom()),
            30..40 => open("counts", self.counts()),
            40..45 => open("run_length_bomb", self.run_length_bomb()),
            45..47 => open("deflate_bomb", self.deflate_bomb()),
            47..52 => open("damaged_document", self.damaged_document()),
            52..65 => open("damaged_change", self.damaged_change()),
            65..75 => open("orphan", self.orphan()),
            75..85 => open("heads", self.heads()),
            85..90 => open("unknown_document", self.unknown_document()),
            _ => open("anothers_name", self.anothers_name()),
        }
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.random.random_range(0..300);
        self.picked(|corpus| &corpus.frames).unwrap_or_else(|random| (0..length).map(|_| random.random()).collect())
    }

    fn damaged_frame(&mut self) -> Vec<u8> {
        let message = self.message(&[], &[], &[]);
        let mut frame = self.about(false, &message);
        self.damage(&mut frame);
        frame
    }

    fn damaged_message(&mut self) -> Vec<u8> {
        let (head, change) = (self.hash(), self.change.clone());
        let mut message = self.picked(|corpus| &corpus.messages).unwrap_or_else(|_| Vec::new());
        if message.is_empty() {
            message = self.message(&[head], &[], &[change]);
        }
        self.damage(&mut message);
        self.about(false, &message)
    }

    fn bloom(&mut self) -> Vec<u8> {
        let mut filter = Vec::new();
        let huge = 1 << self.random.random_range(20..32);
        for number in [self.random.random_range(1..1 << 30), self.either(0, huge), self.either(7, huge)] {
            leb128(&mut filter, number);
        }
        filter.extend(self.hash());
        let message = self.message(&[], &filter, &[]);
        self.about(true, &message)
    }

    fn counts(&mut self) -> Vec<u8> {
        let mut message = vec![0x42 + self.random.random_range(0..3)];
        for _ in 0..self.random.random_range(1..5) {
            let bits = self.random.random_range(8..64);
            leb128(&mut message, 1 << bits);
        }
        self.about(true, &message)
    }

    fn run_length_bomb(&mut self) -> Vec<u8> {
        let bomb = run_length_bomb(1 << self.random.random_range(17..40), self.random.random());
        let (hash, chunk) = (chunk_hash(CHANGE, &bomb), self.chunk(CHANGE, &bomb));
        let message = self.message(&[hash], &[], &[chunk]);
        self.about(false, &message)
    }

    fn deflate_bomb(&mut self) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&vec![0; 4 << 20]).expect("a vector takes every byte");
        let deflated = encoder.finish().expect("a vector takes every byte");
        let chunk = self.chunk(COMPRESSED_CHANGE, &deflated);
        let message = self.message(&[], &[], &[chunk]);
        self.about(false, &message)
    }

    fn damaged_document(&mut self) -> Vec<u8> {
        let mut body = body(&self.document).to_vec();
        self.flip(&mut body);
        let chunk = self.chunk(DOCUMENT, &body);
        let message = self.message(&[], &[], &[chunk]);
        self.about(false, &message)
    }

    fn damaged_change(&mut self) -> Vec<u8> {
        let mut chunk = self.picked(|corpus| &corpus.chunks).unwrap_or_else(|_| Vec::new());
        if chunk.is_empty() {
            let mut body = body(&self.change).to_vec();
            self.flip(&mut body);
            chunk = self.chunk(CHANGE, &body);
        }
        let message = self.message(&[], &[], &[chunk]);
        self.about(false, &message)
    }

    /// A proper change that depends on one that nobody has, in a fresh author's name.
    fn orphan(&mut self) -> Vec<u8> {
        let mut body = vec![1];
        body.extend(self.hash());
        body.push(16);
        body.extend(&self.hash()[..16]);
        // Sequence, start of its operations, time, message, other actors, columns: none.
        body.extend([1, 1, 0, 0, 0, 0]);
        let (hash, chunk) = (chunk_hash(CHANGE, &body), self.chunk(CHANGE, &body));
        let message = self.message(&[hash], &[], &[chunk]);
        self.about(false, &message)
    }

    fn heads(&mut self) -> Vec<u8> {
        let heads: Vec<[u8; 32]> = (0..self.random.random_range(1..40)).map(|_| self.hash()).collect();
        let message = self.message(&heads, &[], &[]);
        self.about(true, &message)
    }

    fn unknown_document(&mut self) -> Vec<u8> {
        let message = self.message(&[], &[], &[]);
        frame::encode_sync("request", &self.name, "", &frame::random_document_id(), &message)
    }

    fn anothers_name(&mut self) -> Vec<u8> {
        let message = self.message(&[], &[], &[]);
        let document = self.pick_document(true);
        frame::encode_sync("sync", "somebody else", "", &document, &message)
    }

    /// A frame around a message about one of the documents; the honest one only for messages that bring no change.
    fn about(&mut self, also_victim: bool, message: &[u8]) -> Vec<u8> {
        let document = self.pick_document(also_victim);
        frame::encode_sync("sync", &self.name, "", &document, message)
    }

    fn pick_document(&mut self, also_victim: bool) -> String {
        if also_victim && self.random.random_bool(0.2) {
            return self.victim.clone();
        }
        self.documents[self.random.random_range(0..DOCUMENTS)].clone()
    }

    /// A sync message of version 1 with one filter.
    fn message(&mut self, heads: &[[u8; 32]], filter: &[u8], chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut message = vec![0x42];
        leb128(&mut message, heads.len() as u64);
        heads.iter().for_each(|head| message.extend(head));
        // Nothing needed; one have, of no common heads.
        message.extend([0, 1, 0]);
        leb128(&mut message, filter.len() as u64);
        message.extend(filter);
        leb128(&mut message, chunks.len() as u64);
        for chunk in chunks {
            leb128(&mut message, chunk.len() as u64);
            message.extend(chunk);
        }
        message
    }

    fn chunk(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(&chunk_hash(kind, body)[..4]);
        bytes.push(kind);
        leb128(&mut bytes, body.len() as u64);
        bytes.extend(body);
        bytes
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let at = self.random.random_range(0..bytes.len());
        bytes[at] ^= 1 << self.random.random_range(0..8);
    }

    /// Bits flipped, cut off, or something put in.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return bytes.push(self.random.random());
        }
        match self.random.random_range(0..3) {
            0 => (0..self.random.random_range(1..5)).for_each(|_| self.flip(bytes)),
            1 => bytes.truncate(self.random.random_range(0..bytes.len())),
            _ => {
                let at = self.random.random_range(0..bytes.len());
                let hash = self.hash();
                bytes.splice(at..at, hash);
            }
        }
    }

    /// One of the corpus, or the random source to make something with.
    fn picked(&mut self, part: impl Fn(&Corpus) -> &Vec<Vec<u8>>) -> Result<Vec<u8>, &mut StdRng> {
        let inputs = part(&self.corpus);
        if inputs.is_empty() || self.random.random() {
            return Err(&mut self.random);
        }
        Ok(inputs[self.random.random_range(0..inputs.len())].clone())
    }

    fn either(&mut self, one: u64, other: u64) -> u64 {
        if self.random.random() { one } else { other }
    }

    fn hash(&mut self) -> [u8; 32] {
        self.random.random()
    }
}

/// The body of a change of so many operations in a few bytes: each column is one run.
fn run_length_bomb(operations: i64, actor: [u8; 16]) -> Vec<u8> {
    // No dependencies, the actor, sequence and start of the operations, time, message, other actors.
    let mut body = vec![0, 16];
    body.extend(actor);
    body.extend([1, 1, 0, 0, 0]);
    let run = |value: &[u8]| {
        let mut column = Vec::new();
        signed_leb128(&mut column, operations);
        column.extend(value);
        column
    };
    let mut inserts = Vec::new();
    leb128(&mut inserts, operations.unsigned_abs());
    // Key text, insert, action, value metadata, number of predecessors.
    let columns = [(21, run(b"\x01x")), (52, inserts), (66, run(&[1])), (86, run(&[0])), (112, run(&[0]))];
    leb128(&mut body, columns.len() as u64);
    for (column, data) in &columns {
        leb128(&mut body, *column);
        leb128(&mut body, data.len() as u64);
    }
    columns.iter().for_each(|(_, data)| body.extend(data));
    body
}

/// What follows a chunk's header.
fn body(chunk: &[u8]) -> &[u8] {
    let length = chunk[9..].iter().position(|byte| byte & 0x80 == 0).map_or(0, |at| at + 1);
    &chunk[9 + length..]
}

fn chunk_hash(kind: u8, body: &[u8]) -> [u8; 32] {
    let mut start = vec![kind];
    leb128(&mut start, body.len() as u64);
    Sha256::new().chain_update(start).chain_update(body).finalize().into()
}

fn leb128(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn signed_leb128(bytes: &mut Vec<u8>, mut value: i64) {
    while !(-0x40..0x40).contains(&value) {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8 & 0x7f);
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::sync::Message;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_forges_the_same_frames_and_every_kind() {
        let forge = || Forge::new(7, "mallory".to_owned(), "victim".to_owned(), Arc::default());
        let (mut one, mut other) = (forge(), forge());
        other.documents.clone_from(&one.documents);
        let mut kinds = BTreeSet::new();
        for _ in 0..2_000 {
            let (one, other) = (one.next(), other.next());
            // The ids of unknown documents and the actor of the honest change are the system's.
            assert_eq!(one.kind, other.kind);
            kinds.insert(one.kind);
        }
        assert_eq!(kinds.len(), 13);
    }

    #[test]
    fn what_is_not_meant_to_be_damaged_is_a_message_that_automerge_reads() {
        let mut forge = Forge::new(7, "mallory".to_owned(), "victim".to_owned(), Arc::default());
        let change = forge.change.clone();
        let message = forge.message(&[[1; 32]], &[], std::slice::from_ref(&change));
        let read = Message::decode(&message).expect("a message");
        assert_eq!((read.heads.len(), read.changes.iter().count()), (1, 1));
        let rebuilt = forge.chunk(CHANGE, body(&change));
        assert_eq!(rebuilt, change, "a chunk is its header and its body");
        let bomb = forge.chunk(CHANGE, &run_length_bomb(1_000, [3; 16]));
        assert_eq!(automerge::Change::try_from(&bomb[..]).expect("a change").len(), 1_000);
    }
}

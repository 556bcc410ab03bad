//! Sync messages and chunks that no honest implementation would write.
//!
//! Owns: the bytes of automerge's sync message and chunk header, with every count open to lies.
//! Must not: share code with the server; what it refuses must not be what it wrote.
//! Next: `../tests/hostile.rs`; the automerge binary format specification.

use std::io::Write;

use automerge::{Change, ChangeHash, ExpandedChange};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The first bytes of every chunk.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// A change chunk.
const CHANGE: u8 = 1;

/// A change chunk whose body is deflated.
const COMPRESSED_CHANGE: u8 = 2;

/// A Bloom filter as it stands in a sync message.
#[derive(Debug, Clone, Default)]
pub struct BloomFilter {
    /// Entries that it claims to hold.
    pub entries: u64,
    /// Bits for each.
    pub bits_per_entry: u64,
    /// Probes for each.
    pub probes: u64,
    /// The bits.
    pub bits: Vec<u8>,
}

/// A sync message, version 1. The default is what a client with an empty document sends first, without flags.
#[derive(Debug, Clone, Default)]
pub struct SyncMessage {
    /// The sender's heads.
    pub heads: Vec<ChangeHash>,
    /// The one `have`, if any.
    pub have: Option<BloomFilter>,
    /// Chunks, as many elements.
    pub changes: Vec<Vec<u8>>,
    /// A number of changes to claim instead of the true one.
    pub claimed_changes: Option<u64>,
}

impl SyncMessage {
    /// A message that brings these chunks and claims `heads`.
    #[must_use]
    pub fn bringing(heads: &[ChangeHash], changes: Vec<Vec<u8>>) -> Self {
        Self { heads: heads.to_vec(), have: Some(BloomFilter::default()), changes, claimed_changes: None }
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0x42];
        let mut heads = self.heads.clone();
        heads.sort_unstable();
        leb128(&mut bytes, heads.len() as u64);
        for head in &heads {
            bytes.extend_from_slice(&head.0);
        }
        leb128(&mut bytes, 0); // need
        leb128(&mut bytes, u64::from(self.have.is_some()));
        if let Some(bloom) = &self.have {
            leb128(&mut bytes, 0); // last_sync
            let mut encoded = Vec::new();
            if bloom.entries > 0 {
                leb128(&mut encoded, bloom.entries);
                leb128(&mut encoded, bloom.bits_per_entry);
                leb128(&mut encoded, bloom.probes);
                encoded.extend_from_slice(&bloom.bits);
            }
            leb128(&mut bytes, encoded.len() as u64);
            bytes.extend_from_slice(&encoded);
        }
        leb128(&mut bytes, self.claimed_changes.unwrap_or(self.changes.len() as u64));
        for change in &self.changes {
            leb128(&mut bytes, change.len() as u64);
            bytes.extend_from_slice(change);
        }
        bytes
    }
}

/// One change with any contents, as automerge's JSON form of changes describes them: `actor`, `seq`, `startOp`, `deps`
/// and `ops` as given, the rest empty.
///
/// # Panics
/// When the JSON is not a change.
#[must_use]
pub fn forged_change(actor: &str, seq: u64, start_op: u64, deps: &[ChangeHash], operations: &Value) -> Change {
    let deps: Vec<String> = deps.iter().map(ToString::to_string).collect();
    let change = json!({
        "actor": actor, "seq": seq, "startOp": start_op, "deps": deps, "ops": operations, "time": 0, "message": null,
    });
    let change: ExpandedChange = serde_json::from_value(change).expect("a change in JSON");
    Change::from(change)
}

/// A chunk of this type around a body, with a true checksum.
#[must_use]
pub fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let hash = chunk_hash(kind, body);
    header(kind, hash, body)
}

/// A compressed change chunk around a body, with a true checksum of what it inflates to.
///
/// # Panics
/// Never: it compresses in memory.
#[must_use]
pub fn compressed_chunk(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("a vector accepts every byte");
    let deflated = encoder.finish().expect("a vector accepts every byte");
    header(COMPRESSED_CHANGE, chunk_hash(CHANGE, body), &deflated)
}

/// A well-formed change of `operations` operations in a few bytes: each column is one run. Returns its hash as well.
#[must_use]
pub fn run_length_bomb(operations: u64) -> (ChangeHash, Vec<u8>) {
    let mut body = Vec::new();
    leb128(&mut body, 0); // dependencies
    leb128(&mut body, 16);
    body.extend_from_slice(&rand::random::<[u8; 16]>()); // actor
    leb128(&mut body, 1); // sequence
    leb128(&mut body, 1); // start op
    leb128(&mut body, 0); // time
    leb128(&mut body, 0); // message
    leb128(&mut body, 0); // other actors
    let run = |value: &[u8]| {
        let mut column = Vec::new();
        signed_leb128(&mut column, i64::try_from(operations).expect("a count that fits"));
        column.extend_from_slice(value);
        column
    };
    let mut inserts = Vec::new();
    leb128(&mut inserts, operations); // that many times false
    // Column numbers of the change chunk: key text, insert, action, value metadata, number of predecessors.
    let columns = [(21, run(b"\x01x")), (52, inserts), (66, run(&[1])), (86, run(&[0])), (112, run(&[0]))];
    leb128(&mut body, columns.len() as u64);
    for (column, data) in &columns {
        leb128(&mut body, *column);
        leb128(&mut body, data.len() as u64);
    }
    for (_, data) in &columns {
        body.extend_from_slice(data);
    }
    (ChangeHash(chunk_hash(CHANGE, &body)), chunk(CHANGE, &body))
}

fn header(kind: u8, hash: [u8; 32], body: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&hash[..4]);
    bytes.push(kind);
    leb128(&mut bytes, body.len() as u64);
    bytes.extend_from_slice(body);
    bytes
}

fn chunk_hash(kind: u8, body: &[u8]) -> [u8; 32] {
    let mut start = vec![kind];
    leb128(&mut start, body.len() as u64);
    Sha256::new().chain_update(start).chain_update(body).finalize().into()
}

fn leb128(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn signed_leb128(bytes: &mut Vec<u8>, mut value: i64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if (value == 0 && low & 0x40 == 0) || (value == -1 && low & 0x40 != 0) {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_bomb_is_a_change_that_automerge_accepts() {
        let (hash, bytes) = run_length_bomb(1);
        let change = automerge::Change::try_from(&bytes[..]).expect("a change");
        assert_eq!(change.hash(), hash);
        let mut doc = automerge::AutoCommit::new();
        doc.apply_changes([change]).expect("it applies");
        let (_, bytes) = run_length_bomb(1_000);
        assert_eq!(automerge::Change::try_from(&bytes[..]).expect("a change").len(), 1_000);
        assert!(bytes.len() < 100);
    }

    #[test]
    fn the_default_message_is_what_automerge_reads_as_empty() {
        let message =
            automerge::sync::Message::decode(&SyncMessage::bringing(&[], vec![]).encode()).expect("a message");
        assert!(message.heads.is_empty() && message.changes.is_empty());
        assert_eq!(message.have.len(), 1);
    }
}

//! Covers: an automerge document chunk in the place of raw changes, with the index and the stamps that go with it.
//!
//! Owns: which chunk of a commit is kept, the index over its changes, how a cover is put into the tables.
//! Must not: build a document, or run on the writer thread what takes longer the more changes there are.
//! Next: `record.rs`, `fold.rs`, `compact.rs`; docs/store.md, "Whole documents".

use bytes::Bytes;
use rusqlite::Connection;
use syncline_core::ChangeHash;
use syncline_core::change::Change;
use syncline_core::chunk::{Chunk, ChunkKind};
use syncline_core::clock::Stamp;
use syncline_core::graph::Graph;
use syncline_core::storage::Commit;

use crate::compact;
use crate::record::{self, Encoded, LogRow};
use crate::schema::DocumentKey;

/// A document chunk, and what only the raw changes that it stands for could tell besides.
#[derive(Debug, Clone)]
pub(crate) struct Cover {
    /// The automerge document chunk: of all changes from the document's first.
    pub snapshot: Bytes,
    /// Graph nodes of the changes that no earlier index has.
    pub index: Bytes,
    /// The stamps of the same changes, encoded.
    pub stamps: Bytes,
}

impl Cover {
    /// Makes this the document's snapshot; its index begins at change `from`.
    pub(crate) fn write(&self, write: &Connection, key: DocumentKey, from: u32) -> rusqlite::Result<()> {
        const SNAPSHOT: &str = "INSERT OR REPLACE INTO snapshot (document, data) VALUES (?1, ?2)";
        const INDEX: &str = "INSERT INTO node_index (place, stamps, data) VALUES (?1, ?2, ?3)";
        write.prepare_cached(SNAPSHOT)?.execute((key.0, &self.snapshot[..]))?;
        write.prepare_cached(INDEX)?.execute((key.place(from), &self.stamps[..], &self.index[..]))?;
        Ok(())
    }

    /// Bytes that it takes in the log and in the tables.
    pub(crate) fn bytes(&self) -> u64 {
        (self.snapshot.len() + self.index.len() + self.stamps.len()) as u64
    }
}

/// A commit on its way to the writer.
pub(crate) struct Incoming {
    pub commit: Commit,
    /// The commit's chunk and the index over it, if they are stored in the place of the raw changes.
    pub whole: Option<(Bytes, Bytes)>,
}

impl Incoming {
    /// Decides about the commit's chunk. This reads every change, so it happens on the caller's thread.
    pub(crate) fn new(mut commit: Commit) -> Self {
        let whole = commit.snapshot.take().and_then(|snapshot| {
            let index = index_under(&snapshot, &commit)?;
            Some((snapshot, index))
        });
        Self { commit, whole }
    }

    /// The log row of the commit.
    pub(crate) fn encode(&self, stamps: &[Stamp]) -> Encoded {
        let Commit { heads, changes, changes_before, .. } = &self.commit;
        match &self.whole {
            Some((snapshot, index)) => {
                let bytes = changes.iter().map(|change| change.len() as u64).sum();
                LogRow::encode_whole(heads, bytes, (snapshot, index), stamps)
            }
            None => LogRow::encode(*changes_before, heads, changes, stamps),
        }
    }
}

/// The index of the commit's changes, if the chunk can and should stand for them.
///
/// What does not fit together is stored raw, as it would be without the chunk: then nothing depends on the chunk.
fn index_under(snapshot: &Bytes, commit: &Commit) -> Option<Bytes> {
    if commit.changes_before != 0 || heads_of_document(snapshot)? != commit.heads {
        return None;
    }
    let mut graph = Graph::new(compact::hash_key());
    for bytes in &commit.changes {
        graph.push(&Change::decode_stored(bytes.clone()).ok()?).ok()?;
    }
    if graph.pending_heads() != commit.heads {
        return None;
    }
    let index = graph.encode_index(0, graph.len());
    // A few small changes take less room raw, and a peer that lacks some of them is then answered without decoding.
    let smaller = snapshot.len() + index.len() < graph.raw_bytes();
    smaller.then(|| Bytes::from(index))
}

/// The heads that an automerge document chunk names, if the bytes are one undamaged such chunk and nothing else.
///
/// The body begins with the actors, each with its length, and the heads. Source: the automerge binary format
/// specification, "Document chunks". Heads are hashes over everything below them: equal ones mean equal changes.
fn heads_of_document(bytes: &Bytes) -> Option<Vec<ChangeHash>> {
    let chunk = Chunk::first(bytes).ok()?;
    let alone = chunk.kind == ChunkKind::Document && chunk.bytes.len() == bytes.len();
    if !alone || chunk.hash().0[..4] != chunk.checksum {
        return None;
    }
    let mut input = &chunk.body[..];
    for _ in 0..record::read_number(&mut input)? {
        let length = usize::try_from(record::read_number(&mut input)?).ok()?;
        input = input.get(length..)?;
    }
    let count = record::read_number(&mut input)?;
    let mut heads = record::read_heads(&mut input, count)?;
    heads.sort_unstable();
    Some(heads)
}

//! The step to the third format: index records that tell what operations are to each other.
//!
//! Owns: the records of the first two formats, as far as they are needed to write them anew. Must not: be edited once it
//! is released.
//! Next: `schema.rs`, `check.rs`; docs/store.md, "Migrations".

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use syncline_core::ChangeHash;
use syncline_core::change::Change;
use syncline_core::graph::Graph;

use crate::compact;
use crate::record::{self, Content, LogRow};
use crate::schema::DocumentKey;

/// Writes every index in the file anew. One that cannot be written is damaged: it stays, and is found to be so when its
/// document is used or checked.
pub(crate) fn rewrite_all(write: &Connection) -> rusqlite::Result<()> {
    let mut documents = write.prepare("SELECT document FROM snapshot ORDER BY document")?;
    let keys: Vec<i64> = documents.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for key in keys {
        rewrite_folded(write, DocumentKey(key))?;
    }
    let mut whole = write.prepare("SELECT seq FROM log WHERE kind = 1 ORDER BY seq")?;
    let rows: Vec<i64> = whole.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for seq in rows {
        let data: Vec<u8> = write.query_row("SELECT data FROM log WHERE seq = ?1", [seq], |row| row.get(0))?;
        match rewritten_row(data.into()) {
            Some(data) => drop(write.execute("UPDATE log SET data = ?2 WHERE seq = ?1", (seq, &data[..]))?),
            None => tracing::warn!(seq, "the index in a row of the log is damaged and stays in its old form"),
        }
    }
    Ok(())
}

fn rewrite_folded(write: &Connection, key: DocumentKey) -> rusqlite::Result<()> {
    const PIECES: &str = "SELECT place, data FROM node_index WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
    let read = write.query_row("SELECT data FROM snapshot WHERE document = ?1", [key.0], |row| row.get(0));
    let snapshot: Option<Vec<u8>> = read.optional()?;
    let mut statement = write.prepare_cached(PIECES)?;
    let pieces = statement.query_map((key.place(0), key.last_place()), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let pieces: Vec<(i64, Vec<u8>)> = pieces.collect::<Result<_, _>>()?;
    let old: Vec<Bytes> = pieces.iter().map(|(_, data)| Bytes::copy_from_slice(data)).collect();
    let changes = snapshot.and_then(|snapshot| compact::list(&snapshot).ok());
    let Some(new) = changes.and_then(|changes| rewritten(&old, &changes)) else {
        tracing::warn!(document = key.0, "the index of a document is damaged and stays in its old form");
        return Ok(());
    };
    for ((place, _), data) in pieces.iter().zip(new) {
        write.execute("UPDATE node_index SET data = ?2 WHERE place = ?1", (place, &data[..]))?;
    }
    Ok(())
}

fn rewritten_row(data: Bytes) -> Option<Bytes> {
    let row = LogRow::decode(1, &data)?;
    let Content::Whole(cover) = &row.content else { return None };
    let changes = compact::list(&cover.snapshot).ok()?;
    let index = rewritten(std::slice::from_ref(&cover.index), &changes)?.pop()?;
    let stamps = record::decode_stamps(&cover.stamps)?;
    let (_, data, _) = LogRow::encode_whole(&row.heads, row.bytes, (&cover.snapshot, &index), &stamps);
    Some(data)
}

/// The pieces of an index in the present form: the old one tells in which order the changes were committed, all else is
/// in the changes.
pub(crate) fn rewritten(old: &[Bytes], changes: &HashMap<ChangeHash, Bytes>) -> Option<Vec<Bytes>> {
    let mut graph = Graph::new(compact::hash_key());
    let (mut actors, mut new) = (0, Vec::with_capacity(old.len()));
    for piece in old {
        let (mut input, from) = (&piece[..], graph.len());
        while !input.is_empty() {
            let raw = changes.get(&read_old_record(&mut input, &mut actors)?)?;
            graph.push(&Change::decode_stored(raw.clone()).ok()?).ok()?;
        }
        new.push(Bytes::from(graph.encode_index(from, graph.len())));
    }
    Some(new)
}

/// A record: 32 bytes of hash; number of dependencies, and each; actor, and at an actor's first record its length and
/// bytes; start op; operations.
fn read_old_record(input: &mut &[u8], actors: &mut u64) -> Option<ChangeHash> {
    let (hash, rest) = input.split_first_chunk::<32>()?;
    *input = rest;
    for _ in 0..record::read_number(input)? {
        record::read_number(input)?;
    }
    if record::read_number(input)? == *actors {
        let length = usize::try_from(record::read_number(input)?).ok()?;
        *input = input.get(length..)?;
        *actors += 1;
    }
    record::read_number(input)?;
    record::read_number(input)?;
    Some(ChangeHash(*hash))
}

//! The byte forms of what the tables hold: batches of changes, log rows, heads.
//!
//! Owns: encoding and bounded decoding; a decoder returns `None` on damage and never panics.
//! Must not: know SQL, or look into a change for more than when it was made.
//! Next: `schema.rs`, `fold.rs`; docs/store.md, "Records".

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::authored::Authored;
use syncline_core::clock::Stamp;
use syncline_core::storage::StoredChange;

use crate::cover::Cover;

/// One commit of one document as a log row holds it.
#[derive(Debug, Clone)]
pub(crate) struct LogRow {
    /// Changes that the document had before.
    pub before: u32,
    /// Changes in this row.
    pub changes: u32,
    /// Bytes of the raw changes.
    pub bytes: u64,
    /// Stamp of the last change.
    pub last_stamp: Stamp,
    /// The latest time of the changes.
    pub authored: Authored,
    /// The document's heads after this row, sorted.
    pub heads: Vec<ChangeHash>,
    /// The changes.
    pub content: Content,
}

/// In which form a log row holds its changes. The number of the form is the row's kind.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Kind 0. An encoded batch of raw changes, which is moved into the document's tail as it is.
    Batch(Bytes),
    /// Kind 1. The document's first changes as one chunk.
    Whole(Cover),
}

/// Encoded log row: its kind and data, and the row that [`LogRow::decode`] would give for them.
pub(crate) type Encoded = (u32, Bytes, LogRow);

impl LogRow {
    /// Encodes a commit: `before`, the number of heads, the heads, one batch.
    pub(crate) fn encode(before: u32, heads: &[ChangeHash], changes: &[Bytes], stamps: &[Stamp]) -> Encoded {
        let bytes: usize = changes.iter().map(Bytes::len).sum();
        let mut data = Vec::with_capacity(bytes + 16 + heads.len() * 32 + changes.len() * 12);
        write_number(u64::from(before), &mut data);
        write_heads(heads, &mut data);
        let batch_at = data.len();
        write_batch(changes, stamps, &mut data);
        let data = Bytes::from(data);
        let row = Self {
            before,
            changes: changes.len() as u32,
            bytes: bytes as u64,
            last_stamp: stamps.last().copied().unwrap_or(Stamp::ZERO),
            authored: latest(changes),
            heads: heads.to_vec(),
            content: Content::Batch(data.slice(batch_at..)),
        };
        (0, data, row)
    }

    /// Encodes a document's first commit as a chunk: bytes of the raw changes, the number of heads, the heads; then
    /// stamps, index and chunk, their lengths before all three.
    pub(crate) fn encode_whole(
        heads: &[ChangeHash],
        bytes: u64,
        (snapshot, index): (&Bytes, &Bytes),
        stamps: &[Stamp],
    ) -> Encoded {
        let mut encoded_stamps = Vec::with_capacity(stamps.len() + 8);
        write_stamps(stamps.iter().copied(), &mut encoded_stamps);
        let parts = [&encoded_stamps[..], &index[..], &snapshot[..]];
        let mut data = Vec::with_capacity(48 + heads.len() * 32 + parts.iter().map(|part| part.len()).sum::<usize>());
        write_number(bytes, &mut data);
        write_heads(heads, &mut data);
        parts.iter().for_each(|part| write_number(part.len() as u64, &mut data));
        parts.iter().for_each(|part| data.extend_from_slice(part));
        let row = Self {
            before: 0,
            changes: stamps.len() as u32,
            bytes,
            last_stamp: stamps.last().copied().unwrap_or(Stamp::ZERO),
            authored: Authored::of_document(snapshot).unwrap_or_default(),
            heads: heads.to_vec(),
            content: Content::Whole(Cover {
                snapshot: snapshot.clone(),
                index: index.clone(),
                stamps: Bytes::from(encoded_stamps),
            }),
        };
        (1, Bytes::from(data), row)
    }

    /// Decodes a row of this kind.
    pub(crate) fn decode(kind: i64, data: &Bytes) -> Option<Self> {
        match kind {
            0 => Self::decode_batch(data),
            1 => Self::decode_whole(data),
            _ => None,
        }
    }

    fn decode_batch(data: &Bytes) -> Option<Self> {
        let mut input = &data[..];
        let before = read_u32(&mut input)?;
        let heads = read_number(&mut input).and_then(|count| read_heads(&mut input, count))?;
        let batch = data.slice(data.len() - input.len()..);
        let (header, rest) = Batch::read(input)?;
        if !rest.is_empty() {
            return None;
        }
        let last_stamp = header.stamps.last().copied()?;
        let (changes, bytes) = (header.lengths.len() as u32, header.bytes);
        let mut stored = Vec::new();
        decode_batches(&batch, &mut stored)?;
        let authored = stored.iter().filter_map(|change| Authored::of_change(&change.bytes)).max().unwrap_or_default();
        Some(Self { before, changes, bytes, last_stamp, authored, heads, content: Content::Batch(batch) })
    }

    fn decode_whole(data: &Bytes) -> Option<Self> {
        let mut input = &data[..];
        let bytes = read_number(&mut input)?;
        let heads = read_number(&mut input).and_then(|count| read_heads(&mut input, count))?;
        let mut lengths = [0usize; 3];
        for length in &mut lengths {
            *length = usize::try_from(read_number(&mut input)?).ok()?;
        }
        let mut rest = data.slice(data.len() - input.len()..);
        let mut parts = lengths.map(|length| (length <= rest.len()).then(|| rest.split_to(length)));
        let [stamps, index, snapshot] = [parts[0].take()?, parts[1].take()?, parts[2].take()?];
        if !rest.is_empty() {
            return None;
        }
        let all_stamps = decode_stamps(&stamps)?;
        let (changes, last_stamp) = (u32::try_from(all_stamps.len()).ok()?, all_stamps.last().copied()?);
        let authored = Authored::of_document(&snapshot).unwrap_or_default();
        let content = Content::Whole(Cover { snapshot, index, stamps });
        Some(Self { before: 0, changes, bytes, last_stamp, authored, heads, content })
    }

    /// The number of changes that the document has after this row.
    pub(crate) fn after(&self) -> u32 {
        self.before.saturating_add(self.changes)
    }

    /// Bytes that folding the row writes, about.
    pub(crate) fn folded_bytes(&self) -> u64 {
        match &self.content {
            Content::Batch(_) => self.bytes,
            Content::Whole(cover) => cover.bytes(),
        }
    }
}

/// The latest time of raw changes.
fn latest(changes: &[Bytes]) -> Authored {
    changes.iter().filter_map(Authored::of_change).max().unwrap_or_default()
}

/// The decoded front of a batch: count, stamps as differences, lengths.
struct Batch {
    stamps: Vec<Stamp>,
    lengths: Vec<usize>,
    bytes: u64,
    header_bytes: usize,
}

impl Batch {
    /// Reads one batch and returns what follows it.
    fn read(data: &[u8]) -> Option<(Self, &[u8])> {
        let mut input = data;
        let count = read_u32(&mut input)? as usize;
        // Every change takes at least one byte for its stamp and one for its length.
        if count > input.len() / 2 {
            return None;
        }
        let mut stamp = 0u64;
        let mut stamps = Vec::with_capacity(count);
        for _ in 0..count {
            stamp = stamp.checked_add(read_number(&mut input)?)?;
            stamps.push(Stamp::from_u64(stamp));
        }
        let mut bytes = 0u64;
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            let length = read_number(&mut input)?;
            bytes = bytes.checked_add(length)?;
            lengths.push(usize::try_from(length).ok()?);
        }
        let header_bytes = data.len() - input.len();
        let rest = input.get(usize::try_from(bytes).ok()?..)?;
        Some((Self { stamps, lengths, bytes, header_bytes }, rest))
    }
}

/// Appends one batch of changes with their stamps.
fn write_batch(changes: &[Bytes], stamps: &[Stamp], out: &mut Vec<u8>) {
    assert_eq!(changes.len(), stamps.len(), "one stamp for each change");
    write_number(changes.len() as u64, out);
    write_stamps(stamps.iter().copied(), out);
    changes.iter().for_each(|change| write_number(change.len() as u64, out));
    changes.iter().for_each(|change| out.extend_from_slice(change));
}

/// Whether these can be written as one batch. No hash covers the stamps that a file holds: a flipped bit may have them fall.
pub(crate) fn stamps_rise(changes: &[StoredChange]) -> bool {
    changes.is_sorted_by_key(|change| change.stamp)
}

/// Encodes changes read from batches, whose stamps rise, as one batch.
pub(crate) fn encode_stored(changes: &[StoredChange]) -> Vec<u8> {
    let stamps: Vec<Stamp> = changes.iter().map(|change| change.stamp).collect();
    let chunks: Vec<Bytes> = changes.iter().map(|change| change.bytes.clone()).collect();
    let mut out = Vec::new();
    write_batch(&chunks, &stamps, &mut out);
    out
}

/// Decodes any number of batches that follow each other; the changes are slices of `data`.
pub(crate) fn decode_batches(data: &Bytes, out: &mut Vec<StoredChange>) -> Option<()> {
    let mut rest = &data[..];
    while !rest.is_empty() {
        let start = data.len() - rest.len();
        let (header, after) = Batch::read(rest)?;
        let mut at = start + header.header_bytes;
        for (stamp, length) in header.stamps.into_iter().zip(header.lengths) {
            out.push(StoredChange { stamp, bytes: data.slice(at..at + length) });
            at += length;
        }
        rest = after;
    }
    Some(())
}

/// Encodes stamps as differences, the first from zero.
pub(crate) fn write_stamps(stamps: impl Iterator<Item = Stamp>, out: &mut Vec<u8>) {
    let mut previous = 0;
    for stamp in stamps {
        let stamp = stamp.as_u64();
        assert!(stamp >= previous, "stamps of one document rise");
        write_number(stamp - previous, out);
        previous = stamp;
    }
}

/// Decodes what [`write_stamps`] wrote, up to the end of the data.
pub(crate) fn decode_stamps(mut data: &[u8]) -> Option<Vec<Stamp>> {
    let mut stamps = Vec::new();
    let mut stamp = 0u64;
    while !data.is_empty() {
        stamp = stamp.checked_add(read_number(&mut data)?)?;
        stamps.push(Stamp::from_u64(stamp));
    }
    Some(stamps)
}

pub(crate) fn encode_heads(heads: &[ChangeHash]) -> Vec<u8> {
    heads.iter().flat_map(|head| head.0).collect()
}

pub(crate) fn decode_heads(mut data: &[u8]) -> Option<Vec<ChangeHash>> {
    if !data.len().is_multiple_of(32) {
        return None;
    }
    let count = data.len() / 32;
    read_heads(&mut data, count as u64)
}

fn write_heads(heads: &[ChangeHash], out: &mut Vec<u8>) {
    write_number(heads.len() as u64, out);
    heads.iter().for_each(|head| out.extend_from_slice(&head.0));
}

pub(crate) fn read_heads(input: &mut &[u8], count: u64) -> Option<Vec<ChangeHash>> {
    let length = usize::try_from(count).ok()?.checked_mul(32)?;
    let (heads, rest) = input.split_at_checked(length)?;
    *input = rest;
    heads.chunks_exact(32).map(|hash| Some(ChangeHash(hash.try_into().ok()?))).collect()
}

/// LEB128, as automerge's own formats use it.
fn write_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn read_number(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn read_u32(input: &mut &[u8]) -> Option<u32> {
    read_number(input).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamps(from: &[u64]) -> Vec<Stamp> {
        from.iter().map(|&stamp| Stamp::from_u64(stamp)).collect()
    }

    proptest! {
        #[test]
        fn a_row_survives_its_bytes(
            before in any::<u32>(),
            heads in proptest::collection::vec(any::<[u8; 32]>(), 0..4),
            changes in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), 0u64..1 << 40), 1..20),
        ) {
            let heads: Vec<ChangeHash> = heads.into_iter().map(ChangeHash).collect();
            let mut clock = u64::MAX >> 2;
            let marks: Vec<u64> = changes.iter().map(|(_, step)| { clock += step; clock }).collect();
            let bytes: Vec<Bytes> = changes.into_iter().map(|(bytes, _)| Bytes::from(bytes)).collect();
            let (kind, data, written) = LogRow::encode(before, &heads, &bytes, &stamps(&marks));
            let read = LogRow::decode(kind.into(), &data).expect("just encoded");
            prop_assert_eq!((read.before, read.changes, read.bytes, read.last_stamp), (before, bytes.len() as u32, written.bytes, written.last_stamp));
            prop_assert_eq!(&read.heads, &heads);
            let (Content::Batch(read), Content::Batch(written)) = (read.content, written.content) else {
                return Err(TestCaseError::fail("raw changes came back as a chunk"));
            };
            let twice = Bytes::from([&read[..], &written[..]].concat());
            let mut stored = Vec::new();
            decode_batches(&twice, &mut stored).expect("two batches");
            let expected: Vec<StoredChange> = stamps(&marks).into_iter().zip(bytes).map(|(stamp, bytes)| StoredChange { stamp, bytes }).collect();
            prop_assert_eq!(&stored[..expected.len()], &expected[..]);
            prop_assert_eq!(&stored[expected.len()..], &expected[..]);
        }

        #[test]
        fn a_whole_document_survives_its_bytes(
            heads in proptest::collection::vec(any::<[u8; 32]>(), 0..4),
            parts in any::<[Vec<u8>; 2]>(),
            steps in proptest::collection::vec(0u64..1 << 40, 1..20),
            bytes in any::<u64>(),
        ) {
            let heads: Vec<ChangeHash> = heads.into_iter().map(ChangeHash).collect();
            let [snapshot, index] = parts.map(Bytes::from);
            let marks: Vec<u64> = steps.iter().scan(1 << 60, |clock, step| { *clock += step; Some(*clock) }).collect();
            let (kind, data, written) = LogRow::encode_whole(&heads, bytes, (&snapshot, &index), &stamps(&marks));
            let read = LogRow::decode(kind.into(), &data).expect("just encoded");
            let facts = |row: &LogRow| (row.before, row.changes, row.bytes, row.last_stamp, row.heads.clone());
            prop_assert_eq!(facts(&read), (0, marks.len() as u32, bytes, *stamps(&marks).last().expect("one"), heads));
            prop_assert_eq!(facts(&read), facts(&written));
            for row in [read, written] {
                let Content::Whole(cover) = row.content else {
                    return Err(TestCaseError::fail("a chunk came back as raw changes"));
                };
                prop_assert_eq!((cover.snapshot, cover.index), (snapshot.clone(), index.clone()));
                prop_assert_eq!(decode_stamps(&cover.stamps), Some(stamps(&marks)));
            }
        }

        #[test]
        fn damage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let data = Bytes::from(bytes);
            (-1..3).for_each(|kind| drop(LogRow::decode(kind, &data)));
            let _ = decode_batches(&data, &mut Vec::new());
            let _ = decode_stamps(&data);
            let _ = decode_heads(&data);
        }
    }

    #[test]
    fn every_truncation_and_every_other_kind_of_a_row_is_refused() {
        let changes = [Bytes::from_static(b"one"), Bytes::from_static(b"three")];
        let (heads, marks) = ([ChangeHash([7; 32])], stamps(&[1 << 40, (1 << 40) + 1]));
        let batch = LogRow::encode(300, &heads, &changes, &marks);
        let whole = LogRow::encode_whole(&heads, 8, (&changes[0], &changes[1]), &marks);
        for (kind, data, _) in [batch, whole] {
            for length in 0..data.len() {
                assert!(LogRow::decode(kind.into(), &data.slice(..length)).is_none(), "kind {kind}, {length} bytes");
            }
            assert!(LogRow::decode(i64::from(1 - kind), &data).is_none(), "kind {kind} as the other");
            assert!(LogRow::decode(2, &data).is_none(), "an unknown kind");
        }
    }
}

//! automerge's chunks: the containers in which changes travel.
//!
//! Owns: splitting a sync message's elements, and the heads at a document chunk's start.
//! Must not: keep anything; `tracker.rs` decides what a client makes of the changes.
//! Next: `tracker.rs`.

use std::io::Read;

use anyhow::{Context, bail, ensure};
use automerge::{Automerge, Bundle, Change, ChangeHash};
use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// One chunk of a stream, whole: header and contents.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chunk<'a> {
    /// A change as it was written; its hash is the hash of these bytes.
    Change(&'a [u8]),
    /// The header and the deflated contents of a change.
    Deflated { whole: &'a [u8], data: &'a [u8] },
    /// A whole document.
    Document { whole: &'a [u8], data: &'a [u8] },
    /// Several changes in one compressed block.
    Bundle(&'a [u8]),
}

impl<'a> Chunk<'a> {
    /// Takes the first chunk off `rest`.
    ///
    /// # Errors
    /// When the bytes do not begin with a whole chunk of a known kind.
    pub(crate) fn next(rest: &mut &'a [u8]) -> anyhow::Result<Self> {
        let bytes = *rest;
        ensure!(bytes.len() > 9 && bytes[..4] == MAGIC, "not an automerge chunk");
        let mut after = &bytes[9..];
        let length = usize::try_from(leb128(&mut after)?)?;
        ensure!(after.len() >= length, "a chunk is cut short");
        let (data, next) = after.split_at(length);
        let whole = &bytes[..bytes.len() - next.len()];
        *rest = next;
        Ok(match bytes[8] {
            0 => Self::Document { whole, data },
            1 => Self::Change(whole),
            2 => Self::Deflated { whole, data },
            3 => Self::Bundle(whole),
            kind => bail!("unknown chunk type {kind}"),
        })
    }

    /// The changes inside, decoded; dear for documents.
    ///
    /// # Errors
    /// When automerge cannot read them.
    pub(crate) fn changes(self) -> anyhow::Result<Vec<Change>> {
        Ok(match self {
            Self::Change(whole) | Self::Deflated { whole, .. } => vec![Change::try_from(whole)?],
            Self::Document { whole, .. } => Automerge::load(whole)?.get_changes(&[]),
            Self::Bundle(whole) => Bundle::try_from(whole).context("bundle")?.to_changes()?,
        })
    }
}

/// The hash of an undeflated change chunk.
pub(crate) fn change_hash(whole: &[u8]) -> ChangeHash {
    ChangeHash(Sha256::digest(&whole[8..]).into())
}

/// The change chunk that a deflated one stands for; its checksum is that of what it stands for.
///
/// # Errors
/// When the contents do not inflate.
pub(crate) fn inflate(whole: &[u8], data: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut contents = Vec::new();
    DeflateDecoder::new(data).read_to_end(&mut contents)?;
    let mut change = whole[..8].to_vec();
    change.push(1);
    let mut length = contents.len();
    while length > 0x7f {
        change.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    change.push(length as u8);
    change.extend_from_slice(&contents);
    Ok(change)
}

/// The heads that a document chunk declares, once its checksum has been verified.
///
/// # Errors
/// When the checksum is wrong or the header is cut.
pub(crate) fn document_heads(whole: &[u8], mut data: &[u8]) -> anyhow::Result<Vec<ChangeHash>> {
    let checksum = Sha256::digest(&whole[8..]);
    ensure!(checksum[..4] == whole[4..8], "a document chunk's checksum is wrong");
    for _ in 0..leb128(&mut data)? {
        let length = usize::try_from(leb128(&mut data)?)?;
        data = data.get(length..).context("a document chunk's actors are cut short")?;
    }
    let mut heads = Vec::new();
    for _ in 0..leb128(&mut data)? {
        let (hash, rest) = data.split_first_chunk::<32>().context("a document chunk's heads are cut short")?;
        heads.push(ChangeHash(*hash));
        data = rest;
    }
    Ok(heads)
}

fn leb128(bytes: &mut &[u8]) -> anyhow::Result<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first().context("a number is cut short")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number is longer than nine bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::author::Seed;

    #[test]
    fn a_documents_heads_are_read_without_loading_it() {
        let seed = Seed::typed(10, 10).unwrap();
        let mut rest = &seed.bytes[..];
        let Chunk::Document { whole, data } = Chunk::next(&mut rest).unwrap() else { panic!("a save is a document") };
        assert!(rest.is_empty());
        assert_eq!(document_heads(whole, data).unwrap(), Automerge::load(&seed.bytes).unwrap().get_heads());
        let mut damaged = whole.to_vec();
        damaged[whole.len() - 1] ^= 1;
        assert!(document_heads(&damaged, data).is_err());
    }

    #[test]
    fn a_change_chunk_hashes_to_its_change() {
        let seed = Seed::typed(3, 1).unwrap();
        let changes = Automerge::load(&seed.bytes).unwrap().get_changes(&[]);
        let stream: Vec<u8> = changes.iter().flat_map(|change| change.raw_bytes().to_vec()).collect();
        let mut rest = &stream[..];
        for change in changes {
            let Chunk::Change(whole) = Chunk::next(&mut rest).unwrap() else { panic!("raw bytes are change chunks") };
            assert_eq!(change_hash(whole), change.hash());
        }
        assert!(rest.is_empty());
    }
    #[test]
    fn a_deflated_change_inflates_to_its_raw_bytes() {
        let seed = Seed::typed(2, 2_000).unwrap();
        let mut change = Automerge::load(&seed.bytes).unwrap().get_changes(&[]).remove(1);
        let deflated = change.bytes().into_owned();
        let mut rest = &deflated[..];
        let Chunk::Deflated { whole, data } = Chunk::next(&mut rest).unwrap() else { panic!("long changes deflate") };
        assert_eq!(inflate(whole, data).unwrap(), change.raw_bytes());
    }
}

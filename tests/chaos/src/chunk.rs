//! automerge's chunks, taken apart by hand: which changes a message really brings, repetitions included.
//!
//! Owns: splitting, and the hash of each change. Must not: trust automerge to have dropped what came twice.
//! Next: `reader.rs`; docs/protocol.md §4.

use anyhow::{Context, bail, ensure};
use automerge::{Automerge, Change, ChangeHash};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// The hashes of all changes in a stream of chunks, in order.
///
/// # Errors
/// When the bytes are not whole chunks of known kinds with true checksums.
pub(crate) fn hashes(mut rest: &[u8]) -> anyhow::Result<Vec<ChangeHash>> {
    let mut hashes = Vec::new();
    while !rest.is_empty() {
        ensure!(rest.len() > 9 && rest[..4] == MAGIC, "not an automerge chunk");
        let (length, header) = leb128(&rest[9..])?;
        let end = 9 + header + length;
        ensure!(rest.len() >= end, "a chunk is cut short");
        let (chunk, after) = rest.split_at(end);
        match chunk[8] {
            0 => hashes.extend(Automerge::load(chunk)?.get_changes(&[]).iter().map(Change::hash)),
            1 => {
                let hash: [u8; 32] = Sha256::digest(&chunk[8..]).into();
                ensure!(hash[..4] == chunk[4..8], "a change's checksum is wrong");
                hashes.push(ChangeHash(hash));
            }
            2 => hashes.push(Change::try_from(chunk)?.hash()),
            kind => bail!("unknown chunk kind {kind}"),
        }
        rest = after;
    }
    Ok(hashes)
}

/// A number, and the bytes it takes.
fn leb128(bytes: &[u8]) -> anyhow::Result<(usize, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok((value, place + 1));
        }
    }
    Err(anyhow::anyhow!("a number is cut short")).context("chunk header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::AutoCommit;
    use automerge::transaction::Transactable;

    #[test]
    fn every_change_is_found_and_one_that_comes_twice_twice() {
        let mut document = AutoCommit::new();
        for n in 0..3_i64 {
            document.put(automerge::ROOT, "key", n).expect("a map");
            document.commit();
        }
        let changes = document.get_changes(&[]);
        let expected: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
        let mut raw: Vec<u8> = changes.iter().flat_map(|change| change.raw_bytes().to_vec()).collect();
        assert_eq!(hashes(&raw).expect("whole chunks"), expected);
        assert_eq!(hashes(&document.save()).expect("whole chunks"), expected);
        raw.extend_from_slice(changes[0].raw_bytes());
        assert_eq!(hashes(&raw).expect("whole chunks").len(), 4);
        raw[20] ^= 1;
        assert!(hashes(&raw).is_err());
    }
}

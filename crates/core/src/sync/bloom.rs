//! The Bloom filter inside automerge's sync messages.
//!
//! Owns: the filter's bytes, its probes, the bounds that make a peer's filter safe to ask.
//! Must not: decide what a hit means; a filter errs towards "contained".
//! Next: `message.rs`, `../sync.rs`; docs/protocol.md, "Sync messages".

use std::borrow::Borrow;

use automerge::ChangeHash;

use super::message::{read_leb128, write_leb128};
use crate::limits::Limits;

/// Parameters of the filters we send: one false positive in a hundred, as automerge chooses.
const BITS_PER_ENTRY: u32 = 10;
const PROBES: u32 = 7;

/// A set of change hashes that may claim too much, never too little (Kleppmann and Howard 2020, "Byzantine Eventual
/// Consistency and the Fundamental Limits of Peer-to-Peer Databases", §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bloom {
    entries: u32,
    bits_per_entry: u32,
    probes: u32,
    bits: Vec<u8>,
}

impl Bloom {
    /// The filter of no hashes; it contains nothing and encodes to no bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self { entries: 0, bits_per_entry: BITS_PER_ENTRY, probes: PROBES, bits: Vec::new() }
    }

    /// The filter of these hashes, with automerge's parameters: 10 bits an entry, 7 probes.
    ///
    /// # Panics
    /// With more than 2³² / 10 hashes: their bits could not be addressed.
    #[must_use]
    pub fn from_hashes<I>(hashes: I) -> Self
    where
        I: IntoIterator<Item: Borrow<ChangeHash>, IntoIter: ExactSizeIterator>,
    {
        let hashes = hashes.into_iter();
        let entries = u32::try_from(hashes.len()).expect("a document has fewer than 2^32 changes");
        let length = bits_length(entries, BITS_PER_ENTRY).expect("a document has fewer than 2^32 / 10 changes");
        let mut bits = vec![0u8; length];
        if let Some(modulo) = modulo(&bits) {
            for probe in hashes.flat_map(|hash| probes(hash.borrow(), PROBES, modulo)) {
                bits[byte_of(probe)] |= mask_of(probe);
            }
        }
        Self { entries, bits_per_entry: BITS_PER_ENTRY, probes: PROBES, bits }
    }

    /// Reads a peer's filter. No bytes are the empty filter.
    ///
    /// # Errors
    /// [`BloomError`] when a number is cut or out of bounds, or the bits are not as long as the numbers say.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, BloomError> {
        if bytes.is_empty() {
            return Ok(Self::empty());
        }
        let mut rest = bytes;
        let [entries, bits_per_entry, probes] = [next_u32(&mut rest)?, next_u32(&mut rest)?, next_u32(&mut rest)?];
        if !(1..=limits.bloom_bits_per_entry_max).contains(&bits_per_entry) {
            return Err(BloomError::BitsPerEntry {
                bits_per_entry,
                bits_per_entry_max: limits.bloom_bits_per_entry_max,
            });
        }
        if !(1..=limits.bloom_probes_max).contains(&probes) {
            return Err(BloomError::Probes { probes, probes_max: limits.bloom_probes_max });
        }
        if bits_length(entries, bits_per_entry) != Some(rest.len()) {
            return Err(BloomError::Length { entries, bits_per_entry, bytes: rest.len() });
        }
        Ok(Self { entries, bits_per_entry, probes, bits: rest.to_vec() })
    }

    /// Appends the filter's bytes, the same as automerge writes; none if the filter is empty.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.entries == 0 {
            return;
        }
        for number in [self.entries, self.bits_per_entry, self.probes] {
            write_leb128(out, u64::from(number));
        }
        out.extend_from_slice(&self.bits);
    }

    /// Whether the hash may be in the set. `false` is certain, `true` is wrong about once in a hundred.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        modulo(&self.bits).is_some_and(|modulo| {
            probes(hash, self.probes, modulo).all(|probe| self.bits[byte_of(probe)] & mask_of(probe) != 0)
        })
    }
}

/// The number of bits, unless there are none or more than automerge's 32-bit probes can address.
fn modulo(bits: &[u8]) -> Option<u32> {
    u32::try_from(bits.len()).ok()?.checked_mul(8).filter(|&modulo| modulo != 0)
}

/// Bytes that this many entries take, rounded up; `None` beyond what 32-bit probes can address.
fn bits_length(entries: u32, bits_per_entry: u32) -> Option<usize> {
    let length = (u64::from(entries) * u64::from(bits_per_entry)).div_ceil(8);
    u32::try_from(length * 8).ok()?;
    usize::try_from(length).ok()
}

/// The bits of a hash: triple hashing over its first twelve bytes, which are as good as random.
fn probes(hash: &ChangeHash, count: u32, modulo: u32) -> impl Iterator<Item = u32> + use<> {
    let word = |at: usize| u32::from_le_bytes([hash.0[at], hash.0[at + 1], hash.0[at + 2], hash.0[at + 3]]) % modulo;
    let (mut x, mut y, z) = (word(0), word(4), word(8));
    (0..count).map(move |_| {
        let probe = x;
        x = add_modulo(x, y, modulo);
        y = add_modulo(y, z, modulo);
        probe
    })
}

/// The sum of two numbers below `modulo`, which may be too large for their sum to fit 32 bits.
fn add_modulo(a: u32, b: u32, modulo: u32) -> u32 {
    if a >= modulo - b { a - (modulo - b) } else { a + b }
}

fn byte_of(probe: u32) -> usize {
    (probe >> 3) as usize
}

fn mask_of(probe: u32) -> u8 {
    1 << (probe & 7)
}

fn next_u32(rest: &mut &[u8]) -> Result<u32, BloomError> {
    let (number, length) = read_leb128(rest).map_err(|_| BloomError::BadNumber)?;
    *rest = &rest[length..];
    u32::try_from(number).map_err(|_| BloomError::BadNumber)
}

/// Why a peer's filter is refused. Sizes that fit these bounds cost no more than the bytes received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BloomError {
    /// A number is cut off, longer than needed, or beyond 32 bits. **State:** nothing changed. **Do:** close the
    /// session; the peer is broken or hostile.
    #[error("a Bloom filter's number is malformed")]
    BadNumber,
    /// Zero divides by nothing, and many waste memory. **State:** nothing changed. **Do:** close the session; no
    /// automerge version sends it.
    #[error("a Bloom filter has {bits_per_entry} bits per entry; 1 to {bits_per_entry_max} are accepted")]
    BitsPerEntry {
        /// Bits per entry found.
        bits_per_entry: u32,
        /// Bits per entry accepted.
        bits_per_entry_max: u32,
    },
    /// Zero probes contain everything, and many waste time. **State:** nothing changed. **Do:** close the session; no
    /// automerge version sends it.
    #[error("a Bloom filter has {probes} probes; 1 to {probes_max} are accepted")]
    Probes {
        /// Probes found.
        probes: u32,
        /// Probes accepted.
        probes_max: u32,
    },
    /// The bits are shorter or longer than the numbers say. **State:** nothing changed. **Do:** close the session; the
    /// message was cut or forged.
    #[error("a Bloom filter of {entries} entries with {bits_per_entry} bits each does not fit {bytes} bytes")]
    Length {
        /// Entries announced.
        entries: u32,
        /// Bits per entry announced.
        bits_per_entry: u32,
        /// Bytes of bits found.
        bytes: usize,
    },
}

impl BloomError {
    /// A short label for counters and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadNumber => "bloom_bad_number",
            Self::BitsPerEntry { .. } => "bloom_bits_per_entry",
            Self::Probes { .. } => "bloom_probes",
            Self::Length { .. } => "bloom_length",
        }
    }
}

#[cfg(test)]
mod tests {
    use automerge::sync::BloomFilter;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn encoded(bloom: &Bloom) -> Vec<u8> {
        let mut out = Vec::new();
        bloom.encode(&mut out);
        out
    }

    fn hashes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<ChangeHash>> {
        vec(any::<[u8; 32]>().prop_map(ChangeHash), count)
    }

    fn decode(bytes: &[u8]) -> Result<Bloom, BloomError> {
        Bloom::decode(bytes, &Limits::default())
    }

    proptest! {
        #[test]
        fn bytes_and_answers_equal_automerges(members in hashes(0..80), others in hashes(0..80)) {
            let ours = Bloom::from_hashes(&members);
            let theirs = BloomFilter::from_hashes(members.iter());
            prop_assert_eq!(encoded(&ours), theirs.to_bytes());
            prop_assert_eq!(decode(&theirs.to_bytes()), Ok(ours.clone()));
            for hash in members.iter().chain(&others) {
                prop_assert_eq!(ours.contains(hash), theirs.contains_hash(hash));
            }
            prop_assert!(members.iter().all(|hash| ours.contains(hash)));
        }

        #[test]
        fn any_accepted_filter_answers_like_automerge(
            entries in 1..20u8, bits_per_entry in 1..=64u8, probes in 1..=16u8, fill: [u8; 32], asked in hashes(1..20),
        ) {
            let length = (usize::from(entries) * usize::from(bits_per_entry)).div_ceil(8);
            let mut bytes = vec![entries, bits_per_entry, probes];
            bytes.extend(fill.iter().cycle().take(length));
            let ours = decode(&bytes).expect("within bounds");
            let theirs = BloomFilter::try_from(&bytes[..]).expect("well formed");
            for hash in &asked {
                prop_assert_eq!(ours.contains(hash), theirs.contains_hash(hash));
            }
            prop_assert_eq!(encoded(&ours), bytes);
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..64), asked: [u8; 32]) {
            if let (Ok(ours), Ok(theirs)) = (decode(&bytes), BloomFilter::try_from(&bytes[..])) {
                prop_assert_eq!(ours.contains(&ChangeHash(asked)), theirs.contains_hash(&ChangeHash(asked)));
            }
        }
    }

    #[test]
    fn no_bytes_are_the_filter_that_contains_nothing() {
        let bloom = decode(&[]).expect("the empty filter");
        assert_eq!(bloom, Bloom::empty());
        assert!(!bloom.contains(&ChangeHash([0; 32])));
        assert_eq!(encoded(&bloom), b"");
    }

    #[test]
    fn no_entries_spelled_out_contain_nothing() {
        let bloom = decode(&[0, 10, 7]).expect("no entries take no bits");
        assert!(!bloom.contains(&ChangeHash([0; 32])));
    }

    #[test]
    fn parameters_out_of_bounds_are_refused() {
        assert_eq!(decode(&[1, 0, 7]), Err(BloomError::BitsPerEntry { bits_per_entry: 0, bits_per_entry_max: 64 }));
        assert_eq!(decode(&[8, 65, 7]).map_err(|error| error.kind()), Err("bloom_bits_per_entry"));
        assert_eq!(decode(&[1, 10, 0, 0, 0]), Err(BloomError::Probes { probes: 0, probes_max: 16 }));
        assert_eq!(
            decode(&[1, 10, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]),
            Err(BloomError::Probes { probes: u32::MAX, probes_max: 16 })
        );
    }

    #[test]
    fn bits_must_be_exactly_as_long_as_announced() {
        for bytes in [&[1, 10, 7, 0][..], &[1, 10, 7, 0, 0, 0], &[0, 10, 7, 0]] {
            assert_eq!(decode(bytes).map_err(|error| error.kind()), Err("bloom_length"), "{bytes:?}");
        }
        let most = [0xff, 0xff, 0xff, 0xff, 0x0f, 64, 7];
        assert_eq!(decode(&most).map_err(|error| error.kind()), Err("bloom_length"));
    }

    #[test]
    fn numbers_beyond_32_bits_or_cut_are_refused() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x1f, 10, 7][..], &[1, 10], &[1, 0x80]] {
            assert_eq!(decode(bytes), Err(BloomError::BadNumber), "{bytes:?}");
        }
    }

    #[test]
    fn sums_that_overflow_32_bits_stay_below_the_modulo() {
        assert_eq!(add_modulo(u32::MAX - 2, u32::MAX - 3, u32::MAX), u32::MAX - 5);
        assert_eq!(add_modulo(3, 4, 7), 0);
        assert_eq!(add_modulo(3, 3, 7), 6);
        assert_eq!(add_modulo(0, 0, 7), 0);
    }
}

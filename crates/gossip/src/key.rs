//! What the members of a mesh share, and the proofs and seals that follow from it.
//!
//! Owns: the key, the keys derived from it, what a proof is over. Must not: be printed or sent.
//! Next: `message.rs`; docs/protocol.md §11, "Keys".

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use syncline_core::reconcile::SetKey;

use crate::message::{Member, NoticeId};

/// Bytes of a proof or a seal.
pub const SEAL_BYTES: usize = 32;

/// The key of a mesh: who holds it is a member.
#[derive(Clone, PartialEq, Eq)]
pub struct MeshKey([u8; 32]);

/// A text is not the key of a mesh. **State:** nothing was done. **Do:** give 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of a mesh is 64 hexadecimal digits")]
pub struct KeyError;

/// The two ends of a handshake, as both see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who dialled, and the nonce that it drew.
    pub dialled: (Member, [u8; 32]),
    /// Who was dialled, and the nonce that it drew.
    pub accepted: (Member, [u8; 32]),
}

/// Who proves that it holds the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who was dialled, in its challenge.
    Accepted = 2,
    /// Who dialled, in its proof.
    Dialled = 3,
}

impl MeshKey {
    /// A key of 32 bytes, which should have been drawn at random.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key of a mesh that has no secret: whoever knows its name is a member.
    #[must_use]
    pub fn open(name: &str) -> Self {
        Self(Self(*b"syncline: a mesh without secrets").derive(name))
    }

    /// The key as [`MeshKey::from_str`] reads it.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The mesh's name where its members look for each other; it does not tell the key.
    #[must_use]
    pub fn name(&self) -> String {
        self.derive("syncline mesh name 1")[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key of the digests with which members compare their documents.
    #[must_use]
    pub fn set_key(&self) -> SetKey {
        SetKey(self.derive("syncline mesh set 1"))
    }

    /// 32 bytes for a purpose of the application's, the same for every member.
    #[must_use]
    pub fn derive(&self, label: &str) -> [u8; 32] {
        mac(&self.0, &[label.as_bytes()]).finalize().into_bytes().into()
    }

    /// Proves to hold the key.
    #[must_use]
    pub fn prove(&self, side: Side, ends: &Ends) -> [u8; SEAL_BYTES] {
        self.proof(side, ends).finalize().into_bytes().into()
    }

    /// Whether a proof is that of this key, in constant time.
    #[must_use]
    pub fn proves(&self, side: Side, ends: &Ends, proof: &[u8; SEAL_BYTES]) -> bool {
        self.proof(side, ends).verify_slice(proof).is_ok()
    }

    fn proof(&self, side: Side, ends: &Ends) -> Hmac<Sha256> {
        let key = self.derive("syncline mesh handshake 1");
        let (dialled, accepted) = (&ends.dialled, &ends.accepted);
        mac(&key, &[&[side as u8], &dialled.0.0, &accepted.0.0, &dialled.1, &accepted.1])
    }

    /// The key that seals notices, so that it is derived once.
    #[must_use]
    pub fn notices(&self) -> NoticeKey {
        NoticeKey(self.derive("syncline mesh notice 1"))
    }
}

impl FromStr for MeshKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim().as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(KeyError);
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |digit: &u8| char::from(*digit).to_digit(16).ok_or(KeyError);
            *byte = (digit(high)? << 4 | digit(low)?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeshKey").field(&self.name()).finish()
    }
}

/// The key that seals notices.
#[derive(Clone)]
pub struct NoticeKey([u8; 32]);

impl NoticeKey {
    /// Seals a notice.
    #[must_use]
    pub fn seal(&self, id: &NoticeId, body: &[u8]) -> [u8; SEAL_BYTES] {
        self.sealed(id, body).finalize().into_bytes().into()
    }

    /// Whether a seal is that of this key, in constant time.
    #[must_use]
    pub fn is_sealed(&self, id: &NoticeId, body: &[u8], seal: &[u8; SEAL_BYTES]) -> bool {
        self.sealed(id, body).verify_slice(seal).is_ok()
    }

    fn sealed(&self, id: &NoticeId, body: &[u8]) -> Hmac<Sha256> {
        mac(&self.0, &[&id.author.0, &id.number.to_be_bytes(), body])
    }
}

impl fmt::Debug for NoticeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoticeKey").finish_non_exhaustive()
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends { dialled: (Member([1; 16]), [3; 32]), accepted: (Member([2; 16]), [4; 32]) }
    }

    #[test]
    fn a_key_survives_its_text_and_nothing_else_is_one() {
        let key = MeshKey::new(std::array::from_fn(|byte| byte as u8 * 7));
        assert_eq!(key.to_text().parse(), Ok(key.clone()));
        assert_eq!(format!(" {}\n", key.to_text().to_uppercase()).parse(), Ok(key.clone()));
        for text in ["", "00", &key.to_text()[1..], &format!("{}0", key.to_text()), &"g".repeat(64)] {
            assert_eq!(text.parse::<MeshKey>(), Err(KeyError), "{text}");
        }
        assert!(!format!("{key:?}").contains(&key.to_text()[..16]), "a log does not tell the key");
    }

    #[test]
    fn a_proof_is_good_for_one_side_of_one_connection_under_one_key() {
        let key = MeshKey::open("a");
        let proof = key.prove(Side::Dialled, &ends());
        assert!(key.proves(Side::Dialled, &ends(), &proof));
        assert!(!key.proves(Side::Accepted, &ends(), &proof), "reflected");
        assert!(!MeshKey::open("b").proves(Side::Dialled, &ends(), &proof), "another mesh");
        for other in [
            Ends { dialled: (Member([1; 16]), [5; 32]), ..ends() },
            Ends { accepted: (Member([2; 16]), [5; 32]), ..ends() },
            Ends { dialled: (Member([9; 16]), [3; 32]), ..ends() },
            Ends { dialled: ends().accepted, accepted: ends().dialled },
        ] {
            assert!(!key.proves(Side::Dialled, &other, &proof), "{other:?}");
        }
    }

    /// Worked out with Python's hmac module.
    #[test]
    fn proofs_and_seals_are_as_documented() {
        let key = MeshKey::new([7; 32]);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let seal = key.notices().seal(&NoticeId { author: Member([1; 16]), number: 258 }, b"body");
        let expected = include_str!("key/golden.txt").lines().collect::<Vec<_>>();
        assert_eq!(key.name(), expected[0]);
        assert_eq!(hex(&key.prove(Side::Accepted, &ends())), expected[1]);
        assert_eq!(hex(&key.prove(Side::Dialled, &ends())), expected[2]);
        assert_eq!(hex(&seal), expected[3]);
    }
}

//! Keys that are made here.
//!
//! Owns: their text forms. Must not: write them anywhere.
//! Next: `keys.rs`.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use super::keys::{ED25519_SPKI, P256_SPKI};

/// What can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// 256 random bits, for HS256.
    Secret,
    /// A pair for EdDSA.
    Ed25519,
    /// A pair for ES256.
    P256,
}

/// A key that was made.
#[derive(Debug)]
pub struct NewKey {
    /// What signs.
    pub private: String,
    /// What verifies, if that is something else.
    pub public: Option<String>,
}

impl NewKey {
    /// Makes a key; `None` when the system gives no random numbers.
    #[must_use]
    pub fn make(kind: KeyKind) -> Option<Self> {
        let random = SystemRandom::new();
        match kind {
            KeyKind::Secret => {
                let mut secret = [0; 32];
                random.fill(&mut secret).ok()?;
                Some(Self { private: format!("{}\n", URL_SAFE_NO_PAD.encode(secret)), public: None })
            }
            KeyKind::Ed25519 => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).ok()?;
                let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).ok()?;
                Some(Self::pair(document.as_ref(), ED25519_SPKI, pair.public_key().as_ref()))
            }
            KeyKind::P256 => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok()?;
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).ok()?;
                Some(Self::pair(document.as_ref(), P256_SPKI, pair.public_key().as_ref()))
            }
        }
    }

    fn pair(private: &[u8], before: &[u8], public: &[u8]) -> Self {
        let private = pem("PRIVATE KEY", private);
        Self { private, public: Some(pem("PUBLIC KEY", &[before, public].concat())) }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let digits = STANDARD.encode(der);
    let lines: Vec<&str> = digits.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

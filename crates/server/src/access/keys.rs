//! The keys that tokens are verified and signed with.
//!
//! Owns: the forms in which a key comes, the algorithm that each is for, its name. Must not: take a private key where a
//! public one is enough, or one form for another. Next: `token.rs`, `keyring.rs`; docs/access.md, "Keys".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::digest::{SHA256, digest};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// Shortest secret, bytes: as long as what it makes, as RFC 7518 asks.
const SECRET_BYTES_MIN: usize = 32;

/// What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410).
pub(super) const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What stands before the 65 bytes of an uncompressed point of P-256 in its DER form (RFC 5480).
pub(super) const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The object identifiers of Ed25519 and of P-256, as they stand in a private key.
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read. **State:** the keys are as they were. **Do:** check path and permissions.
    #[error("the key file {path} cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is in none of the forms that are known, or of a kind that is not taken. **State:** the keys are as they were.
    /// **Do:** as the message says.
    #[error("{origin}: {reason}")]
    Form {
        /// The file or address.
        origin: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A key that verifies tokens of one algorithm.
#[derive(Debug, Clone)]
pub(crate) struct VerifyingKey {
    /// The name by which tokens may ask for it.
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    /// Tells it apart from others; says nothing about a secret.
    pub(super) fingerprint: Arc<str>,
    pub(super) key: DecodingKey,
}

/// A key that signs tokens.
#[derive(Debug)]
pub struct SigningKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: EncodingKey,
}

impl VerifyingKey {
    fn new(id: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Option<Self> {
        let bytes = key.try_get_as_bytes().ok()?;
        #[allow(clippy::wildcard_enum_match_arm, reason = "no key here is for another algorithm")]
        let sized = match algorithm {
            Algorithm::HS256 => bytes.len() >= SECRET_BYTES_MIN,
            Algorithm::EdDSA => bytes.len() == 32,
            Algorithm::ES256 => bytes.len() == 65 && bytes[0] == 4,
            _ => false,
        };
        let fingerprint =
            digest(&SHA256, bytes).as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        sized.then(|| Self { id, algorithm, fingerprint: fingerprint.into(), key })
    }

    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        let declared = jwk.common.key_algorithm;
        #[allow(clippy::wildcard_enum_match_arm, reason = "other kinds of keys are passed over")]
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            _ => return None,
        };
        #[allow(clippy::wildcard_enum_match_arm, reason = "the three of above")]
        let named = match algorithm {
            Algorithm::HS256 => KeyAlgorithm::HS256,
            Algorithm::ES256 => KeyAlgorithm::ES256,
            _ => KeyAlgorithm::EdDSA,
        };
        // A key that says that it is for something else is not used for this.
        if declared.is_some_and(|declared| declared != named) {
            return None;
        }
        Self::new(jwk.common.key_id.clone(), algorithm, DecodingKey::from_jwk(jwk).ok()?)
    }
}

/// The keys in a file: one as PEM or as a secret, or a set as JSON.
///
/// # Errors
/// [`KeyError`], when it cannot be read or has no key that can be used.
pub(crate) fn read(path: &Path) -> Result<Vec<VerifyingKey>, KeyError> {
    let bytes = std::fs::read(path).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
    parse(&bytes, &format!("the key file {}", path.display()))
}

/// The keys in a text of one of the known forms.
///
/// # Errors
/// [`KeyError::Form`].
pub(crate) fn parse(bytes: &[u8], origin: &str) -> Result<Vec<VerifyingKey>, KeyError> {
    let form = |reason| KeyError::Form { origin: origin.to_owned(), reason };
    let text = bytes.trim_ascii();
    if text.starts_with(b"{") {
        let set = serde_json::from_slice::<JwkSet>(text).map(|set| set.keys);
        let keys = set.or_else(|_| serde_json::from_slice::<Jwk>(text).map(|one| vec![one]));
        let keys = keys.map_err(|_| form("this is no JWK and no set of JWKs"))?;
        let usable: Vec<_> = keys.iter().filter_map(VerifyingKey::of_jwk).collect();
        let none = "no key in it can be used: tokens are verified with Ed25519, P-256, or a secret of 32 bytes or more";
        return if usable.is_empty() { Err(form(none)) } else { Ok(usable) };
    }
    if text.starts_with(b"-----BEGIN") {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(text)
            .map_err(|_| form("this is no public key in PEM (-----BEGIN PUBLIC KEY-----)"))?;
        let spki = spki.as_ref();
        let ed25519 = spki.strip_prefix(ED25519_SPKI).map(|key| (Algorithm::EdDSA, DecodingKey::from_ed_der(key)));
        let p256 = spki.strip_prefix(P256_SPKI).map(|key| (Algorithm::ES256, DecodingKey::from_ec_der(key)));
        let key = ed25519.or(p256).and_then(|(algorithm, key)| VerifyingKey::new(None, algorithm, key));
        return key.map(|key| vec![key]).ok_or_else(|| form("public keys are Ed25519 or P-256"));
    }
    let secret = VerifyingKey::new(None, Algorithm::HS256, DecodingKey::from_secret(text));
    secret.map(|key| vec![key]).ok_or_else(|| form("a secret has 32 bytes or more"))
}

impl SigningKey {
    /// The key in a file: a secret, or a private key as PEM (PKCS #8).
    ///
    /// # Errors
    /// [`KeyError`], when it cannot be read or is none.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = std::fs::read(path).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
        let form = |reason| KeyError::Form { origin: format!("the key file {}", path.display()), reason };
        let text = bytes.trim_ascii();
        if !text.starts_with(b"-----BEGIN") {
            let enough = text.len() >= SECRET_BYTES_MIN && !text.starts_with(b"{");
            let secret = || Self { algorithm: Algorithm::HS256, key: EncodingKey::from_secret(text) };
            return enough.then(secret).ok_or_else(|| form("a secret has 32 bytes or more"));
        }
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(text)
            .map_err(|_| form("this is no private key in PEM (-----BEGIN PRIVATE KEY-----)"))?;
        let der = pkcs8.secret_pkcs8_der();
        let names = |identifier: &[u8]| der.windows(identifier.len()).take(64).any(|window| window == identifier);
        if names(ED25519_OID) {
            Ok(Self { algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(der) })
        } else if names(P256_OID) {
            Ok(Self { algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(der) })
        } else {
            Err(form("private keys are Ed25519 or P-256"))
        }
    }
}

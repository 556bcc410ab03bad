//! The cryptography under tokens: ring, which the encrypted connections use too.
//!
//! Owns: the three algorithms that tokens may be signed with. Must not: choose among them; the key does.
//! Next: `keys.rs`, `token.rs`.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory, verifier_factory, key_utils: KeyUtils::new_unimplemented() };

/// Makes ring the provider of the process. Another one cannot be there before: the library has no other built in.
pub(super) fn install() {
    // Fails only where it has been done before.
    let _ = PROVIDER.install_default();
}

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    let bytes = key.as_bytes();
    #[allow(clippy::wildcard_enum_match_arm, reason = "the library has more algorithms; no key here is for them")]
    let signer = match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Signing::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes);
            Signing::Ed25519(Box::new(pair.map_err(|_| ErrorKind::InvalidEddsaKey)?))
        }
        (Algorithm::ES256, AlgorithmFamily::Ec) => {
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes, &random);
            Signing::P256(Box::new(pair.map_err(|_| ErrorKind::InvalidEcdsaKey)?))
        }
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(signer))
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let bytes = key.try_get_as_bytes()?;
    #[allow(clippy::wildcard_enum_match_arm, reason = "the library has more algorithms; no key here is for them")]
    let verifier = match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Verifying::Secret(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => Verifying::public(Algorithm::EdDSA, &ED25519, bytes),
        (Algorithm::ES256, AlgorithmFamily::Ec) => Verifying::public(Algorithm::ES256, &ECDSA_P256_SHA256_FIXED, bytes),
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(verifier))
}

enum Signing {
    Secret(hmac::Key),
    Ed25519(Box<Ed25519KeyPair>),
    P256(Box<EcdsaKeyPair>),
}

impl Signer<Vec<u8>> for Signing {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        match self {
            Self::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| SignatureError::new())?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

impl JwtSigner for Signing {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::HS256,
            Self::Ed25519(_) => Algorithm::EdDSA,
            Self::P256(_) => Algorithm::ES256,
        }
    }
}

enum Verifying {
    Secret(hmac::Key),
    Public { algorithm: Algorithm, key: UnparsedPublicKey<Vec<u8>> },
}

impl Verifying {
    fn public(algorithm: Algorithm, means: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> Self {
        Self::Public { algorithm, key: UnparsedPublicKey::new(means, bytes.to_vec()) }
    }
}

impl Verifier<Vec<u8>> for Verifying {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature).map_err(|_| SignatureError::new()),
            Self::Public { key, .. } => key.verify(message, signature).map_err(|_| SignatureError::new()),
        }
    }
}

impl JwtVerifier for Verifying {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::HS256,
            Self::Public { algorithm, .. } => *algorithm,
        }
    }
}

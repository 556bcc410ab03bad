//! Tokens written by hand, good ones and others.
//!
//! Owns: the bytes of a JWT with HS256, a second implementation beside the server's. Must not: make only good ones.
//! Next: `raw.rs`; `../tests/access.rs`.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Bytes that HMAC takes in at once.
const BLOCK_BYTES: usize = 64;

/// Seconds since the Unix epoch.
///
/// # Panics
/// When the clock stands before that.
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// A token with these claims, signed with a secret.
#[must_use]
pub fn signed(claims: &Value, secret: &[u8]) -> String {
    signed_as(&json!({ "alg": "HS256", "typ": "JWT" }), claims, secret)
}

/// A token with this header, signed with a secret whatever the header says.
#[must_use]
pub fn signed_as(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let said = unsigned(header, claims);
    let signature = URL_SAFE_NO_PAD.encode(hmac_sha256(secret, said.as_bytes()));
    format!("{said}.{signature}")
}

/// Header and claims without a signature.
#[must_use]
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// RFC 2104 over SHA-256.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

//! Tokens: what they claim, how they are verified, minted and looked into.
//!
//! Owns: the claims, and which key may verify which token. Must not: let the token choose its algorithm.
//! Next: `keys.rs`, `gate.rs`; docs/access.md, "Tokens".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use syncline_core::access::{Access, Denial, Grant, Permissions, Scope, Token};
use syncline_core::id::DocumentId;

use super::keys::{SigningKey, VerifyingKey};
use super::provider;

/// By how much clocks may differ.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);

/// Most grants in one token.
const GRANTS_MAX: usize = 1_000;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Who it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// When it ends, seconds since the Unix epoch.
    pub exp: f64,
    /// When it was issued, seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<f64>,
    /// Which server it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<serde_json::Value>,
    /// Who issued it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// What it permits.
    #[serde(default)]
    pub syncline: Vec<GrantClaim>,
}

/// One permission for some documents, as a token or a callback writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantClaim {
    /// `"*"` for all, or the ids or `automerge:` addresses of some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Documents>,
    /// The beginning of the ids of some, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The same as pairs of hexadecimal digits, for ids that are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_hex: Option<String>,
    /// What is permitted: `read`, `write`, `create`, `delete`, `admin`.
    pub may: Vec<String>,
}

/// The documents of a [`GrantClaim`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Documents {
    /// `"*"`.
    All(String),
    /// Some.
    Some(Vec<String>),
}

/// What tokens have to say beside their grants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) audience: Option<String>,
    pub(crate) issuer: Option<String>,
}

/// Verifies a token. The algorithm is the key's: what the token says of it only has to agree.
///
/// # Errors
/// Why it is not believed.
pub(super) fn verify(token: &Token, keys: &[VerifyingKey], expected: &Expected) -> Result<Access, Denial> {
    provider::install();
    let text = token.reveal();
    let header = decode_header(text).map_err(|error| denial_of(&error))?;
    let named: Vec<_> = keys.iter().filter(|key| key.id.is_some() && key.id == header.kid).collect();
    let nameless = || keys.iter().filter(|key| key.id.is_none() || header.kid.is_none()).collect();
    let candidates: Vec<&VerifyingKey> = if named.is_empty() { nameless() } else { named };
    if candidates.is_empty() {
        return Err(Denial::TokenKey);
    }
    let mut denial = Denial::TokenAlgorithm;
    for key in candidates.into_iter().filter(|key| key.algorithm == header.alg) {
        match decode::<Claims>(text, &key.key, &validation(key, expected)) {
            Ok(data) => return access_of(&data.claims, Some(Arc::clone(&key.fingerprint))),
            // Another key may have signed it.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => denial = Denial::TokenSignature,
            Err(error) => return Err(denial_of(&error)),
        }
    }
    Err(denial)
}

fn validation(key: &VerifyingKey, expected: &Expected) -> Validation {
    let mut validation = Validation::new(key.algorithm);
    validation.leeway = LEEWAY.as_secs();
    validation.validate_nbf = true;
    let mut required = vec!["exp"];
    if let Some(audience) = &expected.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    if let Some(issuer) = &expected.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the library adds kinds; all that is left is no token")]
fn denial_of(error: &Error) -> Denial {
    match error.kind() {
        ErrorKind::ExpiredSignature => Denial::TokenExpired,
        ErrorKind::ImmatureSignature => Denial::TokenEarly,
        ErrorKind::InvalidSignature => Denial::TokenSignature,
        ErrorKind::InvalidAudience => Denial::TokenAudience,
        ErrorKind::InvalidIssuer => Denial::TokenIssuer,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            Denial::TokenAlgorithm
        }
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Denial::TokenAudience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Denial::TokenIssuer,
        ErrorKind::MissingRequiredClaim(_) => Denial::TokenClaims("a claim is missing, perhaps exp"),
        _ => Denial::TokenMalformed,
    }
}

/// What claims permit.
///
/// # Errors
/// [`Denial::TokenClaims`].
pub(super) fn access_of(claims: &Claims, key: Option<Arc<str>>) -> Result<Access, Denial> {
    let ends = Duration::try_from_secs_f64(claims.exp).map_err(|_| Denial::TokenClaims("exp is no time"))? + LEEWAY;
    let mut access = Access::of(grants_of(&claims.syncline)?);
    access.until_ms = Some(u64::try_from(ends.as_millis()).unwrap_or(u64::MAX));
    access.subject = claims.sub.as_deref().map(Arc::from);
    access.key = key;
    Ok(access)
}

/// The grants that are written so.
///
/// # Errors
/// [`Denial::TokenClaims`].
pub(super) fn grants_of(claims: &[GrantClaim]) -> Result<Vec<Grant>, Denial> {
    let mut grants = Vec::new();
    for claim in claims {
        let may = permissions_of(&claim.may)?;
        let mut grant = |scope| grants.push(Grant { scope, may });
        match (&claim.documents, prefix_of(claim)?) {
            (Some(Documents::All(all)), None) if all == "*" => grant(Scope::All),
            (Some(Documents::Some(ids)), None) => {
                for id in ids {
                    grant(Scope::Document(document_of(id)?));
                }
            }
            (None, Some(prefix)) if !prefix.is_empty() => grant(Scope::Prefix(prefix.into())),
            _ => {
                return Err(Denial::TokenClaims("a grant names documents (\"*\" or a list) or a prefix, and not both"));
            }
        }
    }
    if grants.len() > GRANTS_MAX {
        return Err(Denial::TokenClaims("it has more than 1,000 grants"));
    }
    Ok(grants)
}

/// The beginning of ids that a claim names, if it does.
fn prefix_of(claim: &GrantClaim) -> Result<Option<Vec<u8>>, Denial> {
    const WRONG: Denial = Denial::TokenClaims("prefix_hex is pairs of hexadecimal digits, and not beside prefix");
    match (&claim.prefix, &claim.prefix_hex) {
        (prefix, None) => Ok(prefix.as_ref().map(|prefix| prefix.as_bytes().to_vec())),
        (None, Some(hex)) => {
            let digits: Option<Vec<u8>> =
                hex.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
            let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or(WRONG)?;
            Ok(Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
        }
        (Some(_), Some(_)) => Err(WRONG),
    }
}

/// The permissions of these names.
///
/// # Errors
/// [`Denial::TokenClaims`], if one is not known.
pub(super) fn permissions_of(names: &[String]) -> Result<Permissions, Denial> {
    let unknown = Denial::TokenClaims("permissions are read, write, create, delete and admin");
    let permissions = names.iter().map(|name| Permissions::named(name).ok_or(unknown));
    permissions.into_iter().try_fold(Permissions::NONE, |all, one| one.map(|one| all.and(one)))
}

fn document_of(text: &str) -> Result<DocumentId, Denial> {
    let id = text.strip_prefix("automerge:").unwrap_or(text);
    id.parse().map_err(|_| Denial::TokenClaims("a document is named by its id or its automerge: address"))
}

impl Claims {
    /// Claims that end after so long.
    #[must_use]
    pub fn lasting(valid: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (iat, exp) = (now.as_secs() as f64, (now + valid).as_secs() as f64);
        Self { sub: None, exp, iat: Some(iat), aud: None, iss: None, syncline: Vec::new() }
    }

    /// Signs a token that says this.
    ///
    /// # Errors
    /// When the claims permit nothing that could be read here, or the key cannot sign.
    pub fn mint(&self, key: &SigningKey) -> Result<String, MintError> {
        provider::install();
        access_of(self, None).map_err(MintError::Claims)?;
        encode(&Header::new(key.algorithm), self, &key.key).map_err(|_| MintError::Key)
    }
}

/// Why no token is made. **State:** there is none. **Do:** as the message says.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// A server would refuse it.
    #[error("{0}")]
    Claims(Denial),
    /// The key is damaged.
    #[error("the key cannot sign")]
    Key,
}

/// What stands in a token, whoever signed it: its header and its claims.
///
/// # Errors
/// When it is none.
pub fn inspect(text: &str) -> Result<(BTreeMap<String, serde_json::Value>, serde_json::Value), Denial> {
    let header = decode_header(text).map_err(|error| denial_of(&error))?;
    let header = serde_json::to_value(header).and_then(serde_json::from_value).map_err(|_| Denial::TokenMalformed)?;
    let claims = jsonwebtoken::dangerous::insecure_decode_claims(text).map_err(|_| Denial::TokenMalformed)?;
    Ok((header, claims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_text_or_bytes_and_one_of_them() {
        let claim = |prefix: Option<&str>, hex: Option<&str>| GrantClaim {
            documents: None,
            prefix: prefix.map(str::to_owned),
            prefix_hex: hex.map(str::to_owned),
            may: vec!["read".to_owned()],
        };
        let prefix = |claim| match grants_of(&[claim]) {
            Ok(grants) => match &grants[..] {
                [Grant { scope: Scope::Prefix(prefix), .. }] => Some(prefix.to_vec()),
                _ => None,
            },
            Err(_) => None,
        };
        assert_eq!(prefix(claim(Some("notes/"), None)), Some(b"notes/".to_vec()));
        assert_eq!(prefix(claim(None, Some("00fF7a"))), Some(vec![0x00, 0xff, 0x7a]));
        for wrong in
            [claim(None, Some("")), claim(None, Some("0")), claim(None, Some("+1zz")), claim(Some("a"), Some("00"))]
        {
            assert_eq!(prefix(wrong), None);
        }
    }
}

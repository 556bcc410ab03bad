//! What whoever is connected may do with which documents.
//!
//! Owns: permissions, the documents that a grant covers, the reasons for which somebody is turned away.
//! Must not: know tokens, keys or a clock; the shell does. Next: `hub/access.rs`, `session.rs`; docs/access.md.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::id::DocumentId;

/// What may be done with a document. Whoever may do more may do less: creating includes writing, writing and deleting
/// include reading, administration includes all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Permissions(u8);

impl Permissions {
    /// Nothing: as if the document did not exist.
    pub const NONE: Self = Self(0);
    /// Hear what is in it, and be heard in what is not stored.
    pub const READ: Self = Self(0b0_0001);
    /// Change it.
    pub const WRITE: Self = Self(0b0_0011);
    /// Bring it to a server that does not have it.
    pub const CREATE: Self = Self(0b0_0111);
    /// Delete and restore it.
    pub const DELETE: Self = Self(0b0_1001);
    /// All of that, and see the server's pages and metrics.
    pub const ADMIN: Self = Self(0b1_1111);

    const NAMES: [(&'static str, Self); 5] = [
        ("read", Self::READ),
        ("write", Self::WRITE),
        ("create", Self::CREATE),
        ("delete", Self::DELETE),
        ("admin", Self::ADMIN),
    ];

    /// The permission of this name: `read`, `write`, `create`, `delete` or `admin`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, permissions)| *permissions)
    }

    /// The names of all that is permitted.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(_, permissions)| self.include(*permissions)).map(|(name, _)| name)
    }

    /// Whether all of `others` is permitted.
    #[must_use]
    pub fn include(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// What either permits.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("nothing");
        }
        let names: Vec<_> = self.names().collect();
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permissions({self})")
    }
}

/// The documents that a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every document, also those that do not exist yet.
    All,
    /// One.
    Document(DocumentId),
    /// Those whose id begins with these bytes: a collection, for applications that choose their ids.
    Prefix(Arc<[u8]>),
}

impl Scope {
    /// Whether the document is one of them.
    #[must_use]
    pub fn covers(&self, document: &DocumentId) -> bool {
        match self {
            Self::All => true,
            Self::Document(one) => one == document,
            Self::Prefix(prefix) => document.as_bytes().starts_with(prefix),
        }
    }
}

/// A permission for some documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub scope: Scope,
    /// What.
    pub may: Permissions,
}

/// What one connection, or one request, may do. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who it is, if that is known: the name that an issuer of tokens gave.
    pub subject: Option<Arc<str>>,
    /// When it ends, milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
    /// The name of the key that it rests on: it ends when the key is withdrawn.
    pub key: Option<Arc<str>>,
    /// What it permits.
    pub(crate) grants: Arc<[Grant]>,
    /// Of documents that no grant covers, somebody else is asked.
    pub(crate) asks: bool,
}

/// What an [`Access`] says of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// So much is permitted.
    Known(Permissions),
    /// The shell has to ask whoever decides.
    Ask,
}

impl Access {
    /// Everything is permitted, to whomever it is: a server without rules, and a server that we dialled.
    #[must_use]
    pub fn full() -> Self {
        Self::of(vec![Grant { scope: Scope::All, may: Permissions::ADMIN }])
    }

    /// Nothing is permitted.
    #[must_use]
    pub fn none() -> Self {
        Self::of(Vec::new())
    }

    /// What these grants permit, to somebody unnamed, for ever.
    #[must_use]
    pub fn of(grants: Vec<Grant>) -> Self {
        Self { subject: None, until_ms: None, key: None, grants: grants.into(), asks: false }
    }

    /// The same, and whoever decides elsewhere is asked about documents that no grant covers.
    #[must_use]
    pub fn asking(self) -> Self {
        Self { asks: true, ..self }
    }

    /// Whether somebody else is asked about some documents.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// What is permitted with a document. It never depends on whether the document exists.
    #[must_use]
    pub fn verdict(&self, document: &DocumentId) -> Verdict {
        let covering = self.grants.iter().filter(|grant| grant.scope.covers(document));
        let known = covering.map(|grant| grant.may).reduce(Permissions::and);
        match known {
            None if self.asks => Verdict::Ask,
            known => Verdict::Known(known.unwrap_or_default()),
        }
    }

    /// What is permitted with some document at the least: for what belongs to no document, as blobs do.
    #[must_use]
    pub fn somewhere(&self) -> Permissions {
        let all = self.grants.iter().map(|grant| grant.may).fold(Permissions::NONE, Permissions::and);
        // Whoever is asked elsewhere about documents would not be let in at all without being allowed to write some.
        if self.asks { all.and(Permissions::WRITE) } else { all }
    }

    /// What is permitted with every document, also those that do not exist yet.
    #[must_use]
    pub fn everywhere(&self) -> Permissions {
        let all = self.grants.iter().filter(|grant| grant.scope == Scope::All);
        all.map(|grant| grant.may).fold(Permissions::NONE, Permissions::and)
    }

    /// Whose what comes with it is, where that is kept. Those who present no name are one subject together, with an empty
    /// name. `None` for whoever administers everything: it may pass on what others wrote.
    #[must_use]
    pub fn author(&self) -> Option<Arc<str>> {
        let passes_on = self.everywhere().include(Permissions::ADMIN);
        (!passes_on).then(|| self.subject.clone().unwrap_or_default())
    }

    /// What it permits.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Whether it has ended by this time.
    #[must_use]
    pub fn has_ended(&self, wall_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| until_ms <= wall_ms)
    }

    /// How long it lasts from this time on, if it ends.
    #[must_use]
    pub fn left(&self, wall_ms: u64) -> Option<Duration> {
        self.until_ms.map(|until_ms| Duration::from_millis(until_ms.saturating_sub(wall_ms)))
    }
}

/// Proof of who somebody is, as it was presented. It is shown nowhere: not in logs, not in errors, not when debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// Takes a token's text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text: for whoever verifies it, and for the message that carries it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why somebody is not let in, or not any longer. The words name no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// No token was presented, and strangers may do nothing. **Do:** present one.
    #[error("a token is needed: none was presented")]
    TokenMissing,
    /// It is no token that could be read. **Do:** present a JWT as it was issued.
    #[error("the token cannot be read")]
    TokenMalformed,
    /// Its time is over. **Do:** have a new one issued.
    #[error("the token has expired")]
    TokenExpired,
    /// Its time has not come. **Do:** wait, or set the clocks right.
    #[error("the token is not valid yet")]
    TokenEarly,
    /// The signature is not the key's. **Do:** sign with the key that the server knows.
    #[error("the token's signature is wrong")]
    TokenSignature,
    /// The algorithm is not the key's. **Do:** sign with the algorithm of the key.
    #[error("the token is signed with an algorithm that its key is not for")]
    TokenAlgorithm,
    /// No key of that name is known. **Do:** give the server the key, or sign with one that it knows.
    #[error("the token is signed with a key that is not known here")]
    TokenKey,
    /// It is for somebody else. **Do:** issue it for this server.
    #[error("the token is for another audience")]
    TokenAudience,
    /// It is from somebody else. **Do:** have the right issuer sign.
    #[error("the token is from another issuer")]
    TokenIssuer,
    /// It lacks a claim, or one says what none may say. **Do:** issue it as `docs/access.md` says.
    #[error("the token's claims are not what is expected here: {0}")]
    TokenClaims(&'static str),
    /// It names another subject than the one that is connected. **Do:** connect anew.
    #[error("the token is another subject's than the one that is connected")]
    TokenSubject,
    /// The key that signed it is no longer trusted. **Do:** have a new one issued.
    #[error("the key that signed the token has been withdrawn")]
    KeyWithdrawn,
    /// Whoever decides elsewhere does not answer. **Do:** see what the server's log says of it.
    #[error("it cannot be decided at the moment who this is")]
    Undecided,
    /// The subject has as many connections as it may. **Do:** close one.
    #[error("this subject has as many connections as it may (subject_connections_max)")]
    SubjectConnections,
    /// The page that asks is of an origin that is not allowed. **Do:** allow the origin.
    #[error("pages of this origin are not allowed to connect")]
    Origin,
}

impl Denial {
    /// A short name for counters.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenMalformed => "token_malformed",
            Self::TokenExpired => "token_expired",
            Self::TokenEarly => "token_early",
            Self::TokenSignature => "token_signature",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenKey => "token_key",
            Self::TokenAudience => "token_audience",
            Self::TokenIssuer => "token_issuer",
            Self::TokenClaims(_) => "token_claims",
            Self::TokenSubject => "token_subject",
            Self::KeyWithdrawn => "key_withdrawn",
            Self::Undecided => "undecided",
            Self::SubjectConnections => "subject_connections",
            Self::Origin => "origin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(bytes: &[u8]) -> DocumentId {
        DocumentId::from_bytes(bytes).expect("an id")
    }

    #[test]
    fn whoever_may_do_more_may_do_less() {
        let included = |of: Permissions| of.names().collect::<Vec<_>>().join(" ");
        assert_eq!(included(Permissions::READ), "read");
        assert_eq!(included(Permissions::WRITE), "read write");
        assert_eq!(included(Permissions::CREATE), "read write create");
        assert_eq!(included(Permissions::DELETE), "read delete");
        assert_eq!(included(Permissions::ADMIN), "read write create delete admin");
        assert_eq!(Permissions::named("create"), Some(Permissions::CREATE));
        assert_eq!(Permissions::named("own"), None);
    }

    #[test]
    fn grants_that_cover_a_document_add_up_and_others_do_not_count() {
        let one = document(b"notes/1");
        let access = Access::of(vec![
            Grant { scope: Scope::Prefix(Arc::from(&b"notes/"[..])), may: Permissions::WRITE },
            Grant { scope: Scope::Document(one.clone()), may: Permissions::DELETE },
            Grant { scope: Scope::Document(document(b"other")), may: Permissions::ADMIN },
        ]);
        let both = Permissions::WRITE.and(Permissions::DELETE);
        assert_eq!(access.verdict(&one), Verdict::Known(both));
        assert_eq!(access.verdict(&document(b"notes/2")), Verdict::Known(Permissions::WRITE));
        assert_eq!(access.verdict(&document(b"note")), Verdict::Known(Permissions::NONE));
        assert_eq!(access.everywhere(), Permissions::NONE);
        assert_eq!(access.somewhere(), Permissions::ADMIN);
    }

    #[test]
    fn somebody_else_is_asked_only_about_what_no_grant_covers() {
        let one = document(b"one");
        let access = Access::of(vec![Grant { scope: Scope::Document(one.clone()), may: Permissions::READ }]).asking();
        assert_eq!(access.verdict(&one), Verdict::Known(Permissions::READ));
        assert_eq!(access.verdict(&document(b"two")), Verdict::Ask);
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::new("secret.secret.secret");
        assert_eq!(format!("{token:?} {:?}", Some(&token)), "Token Some(Token)");
    }
}

//! Who may do what on this server: tokens, whoever is asked elsewhere, and strangers.
//!
//! Owns: the order in which these are asked. Must not: know sockets or documents' contents.
//! Next: `token.rs`, `callback.rs`, `caller.rs`; docs/access.md.

use std::path::PathBuf;
use std::sync::Arc;

use syncline_core::access::{Access, Denial, Grant, Permissions, Scope, Token};
use syncline_core::hub::Now;
use syncline_core::id::DocumentId;
use syncline_replica::authority::{Authority, Decision};
use syncline_replica::{Replica, Trust};
use url::Url;

use super::callback::{Callback, CallbackConfig};
use super::keyring::{Keyring, LOOK};
use super::keys::KeyError;
use super::token::{self, Expected};

/// Who may do what, as it is set up.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Everybody may do everything, and that is meant so, beyond this machine too.
    pub open: bool,
    /// Files with keys that tokens are verified with.
    pub key_files: Vec<PathBuf>,
    /// Where a set of such keys is.
    pub keys_url: Option<Url>,
    /// What tokens name as their audience.
    pub audience: Option<String>,
    /// What tokens name as their issuer.
    pub issuer: Option<String>,
    /// Who else decides.
    pub callback: Option<CallbackConfig>,
    /// What those who present no token may do with every document.
    pub strangers: Permissions,
    /// Origins of pages that may connect; with none, all may.
    pub origins: Vec<String>,
    /// Whose certificates are believed where keys are fetched and decisions asked for.
    pub trust: Trust,
}

impl Rules {
    /// Whether somebody has to present something to do something.
    #[must_use]
    pub fn restrict(&self) -> bool {
        !self.open && (!self.key_files.is_empty() || self.keys_url.is_some() || self.callback.is_some())
    }
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Gate {
    restricts: bool,
    keyring: Keyring,
    expected: Expected,
    callback: Option<Callback>,
    strangers: Permissions,
    origins: Vec<String>,
}

impl Gate {
    /// Puts rules in force.
    ///
    /// # Errors
    /// [`KeyError`] if a key cannot be used.
    pub(crate) fn new(rules: Rules) -> Result<Self, KeyError> {
        let restricts = rules.restrict();
        let Rules { key_files, keys_url, audience, issuer, callback, strangers, origins, trust, .. } = rules;
        let keyring = Keyring::new(key_files, keys_url, trust.clone())?;
        let callback = callback.map(|config| Callback::new(config, trust));
        Ok(Self { restricts, keyring, expected: Expected { audience, issuer }, callback, strangers, origins })
    }

    /// Whether anybody is refused anything for want of a token.
    pub(crate) fn restricts(&self) -> bool {
        self.restricts
    }

    /// Whether a page of this origin may connect.
    pub(crate) fn allows_origin(&self, origin: &str) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// Whether pages of every origin may connect.
    pub(crate) fn allows_every_origin(&self) -> bool {
        self.origins.is_empty()
    }

    /// Reads the keys again.
    pub(crate) fn reload(&self) {
        if let Err(error) = self.keyring.read_files() {
            tracing::error!("the keys for tokens stay as they were: {error}");
        }
    }

    /// Keeps the keys current, for ever, and has connections looked at anew when they have changed.
    pub(crate) async fn keep_current(self: Arc<Self>, replica: Replica) {
        loop {
            let mut changed = self.keyring.refresh(false).await;
            tokio::time::sleep(LOOK).await;
            let gate = Arc::clone(&self);
            // Files may be on a disk that hangs.
            changed |= tokio::task::spawn_blocking(move || gate.keyring.read_changed()).await.unwrap_or_default();
            if changed {
                replica.reconsider_access();
            }
        }
    }

    /// What somebody may do with every document, also where somebody else decides.
    pub(crate) async fn everywhere(&self, access: &Access) -> Permissions {
        let known = access.everywhere();
        match &self.callback {
            Some(callback) if access.asks() => known.and(callback.decide(access, None).await),
            Some(_) | None => known,
        }
    }

    async fn authenticate_token(&self, token: &Token) -> Result<Access, Denial> {
        if !self.keyring.is_used() {
            return match &self.callback {
                Some(callback) => callback.authenticate(token).await,
                None => Err(Denial::TokenKey),
            };
        }
        let mut verified = token::verify(token, &self.keyring.keys(), &self.expected);
        if matches!(verified, Err(Denial::TokenKey | Denial::TokenSignature)) {
            self.keyring.refresh(true).await;
            verified = token::verify(token, &self.keyring.keys(), &self.expected);
        }
        verified.map(|access| if self.callback.is_some() { access.asking() } else { access })
    }
}

impl Authority for Gate {
    fn authenticate<'a>(&'a self, token: Option<&'a Token>) -> Decision<'a, Result<Access, Denial>> {
        Box::pin(async move {
            match token {
                _ if !self.restricts => Ok(Access::full()),
                None => self.strangers().ok_or(Denial::TokenMissing),
                Some(token) => self.authenticate_token(token).await,
            }
        })
    }

    fn decide<'a>(&'a self, access: &'a Access, document: &'a DocumentId) -> Decision<'a, Permissions> {
        Box::pin(async move {
            match &self.callback {
                Some(callback) => callback.decide(access, Some(document)).await,
                None => Permissions::NONE,
            }
        })
    }

    fn still_holds(&self, access: &Access, now: Now) -> Result<(), Denial> {
        if access.has_ended(now.wall_ms) {
            return Err(Denial::TokenExpired);
        }
        match &access.key {
            Some(key) if !self.keyring.trusts(key) => Err(Denial::KeyWithdrawn),
            Some(_) | None => Ok(()),
        }
    }

    fn strangers(&self) -> Option<Access> {
        if !self.restricts {
            return Some(Access::full());
        }
        let grant = Grant { scope: Scope::All, may: self.strangers };
        (self.strangers != Permissions::NONE).then(|| Access::of(vec![grant]))
    }
}

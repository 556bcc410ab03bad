//! The keys that are trusted at this moment, from files and from an address, taken anew when they change.
//!
//! Owns: when they are read again, and that a failure changes nothing. Must not: verify a token.
//! Next: `keys.rs`, `gate.rs`; docs/access.md, "Keys".

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use syncline_replica::Trust;
use url::Url;

use super::keys::{self, KeyError, VerifyingKey};
use crate::fetch::{Ask, fetch};
use crate::files::{Stamps, stamps};

/// Between two looks at whether a file has changed.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// Between two fetches of the set at the address.
const FETCH: Duration = Duration::from_secs(300);

/// The least time between two fetches, when tokens name keys that are not known.
const FETCH_AGAIN: Duration = Duration::from_secs(10);

/// Longest that a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// All trusted keys.
#[derive(Debug)]
pub(super) struct Keyring {
    files: Vec<PathBuf>,
    url: Option<Url>,
    trust: Trust,
    held: RwLock<Held>,
    looked: Mutex<Looked>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    from_files: Vec<VerifyingKey>,
    from_url: Vec<VerifyingKey>,
    /// Both.
    all: Arc<[VerifyingKey]>,
}

#[derive(Debug, Default)]
struct Looked {
    files: Stamps,
    fetched_at: Option<Instant>,
}

impl Keyring {
    /// Reads the files.
    ///
    /// # Errors
    /// [`KeyError`] if one cannot be used.
    pub(super) fn new(files: Vec<PathBuf>, url: Option<Url>, trust: Trust) -> Result<Self, KeyError> {
        let (held, looked) = (RwLock::default(), Mutex::default());
        let keyring = Self { files, url, trust, held, looked, fetching: tokio::sync::Mutex::new(()) };
        keyring.read_files()?;
        Ok(keyring)
    }

    /// Whether tokens are verified here at all.
    pub(super) fn is_used(&self) -> bool {
        !self.files.is_empty() || self.url.is_some()
    }

    pub(super) fn keys(&self) -> Arc<[VerifyingKey]> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner).all)
    }

    pub(super) fn trusts(&self, fingerprint: &str) -> bool {
        self.keys().iter().any(|key| &*key.fingerprint == fingerprint)
    }

    /// Reads all files again.
    ///
    /// # Errors
    /// [`KeyError`]; the keys are then as they were.
    pub(super) fn read_files(&self) -> Result<(), KeyError> {
        let seen = stamps(&self.files);
        self.lock_looked().files = seen;
        let mut keys = Vec::new();
        for file in &self.files {
            keys.extend(keys::read(file)?);
        }
        self.hold(|held| held.from_files = keys);
        Ok(())
    }

    /// Reads the files again if one has changed. Returns whether they were.
    pub(super) fn read_changed(&self) -> bool {
        if stamps(&self.files) == self.lock_looked().files {
            return false;
        }
        match self.read_files() {
            Ok(()) => tracing::info!("the keys for tokens have been read again"),
            Err(error) => tracing::error!("the keys for tokens stay as they were: {error}"),
        }
        true
    }

    /// Fetches the set at the address if it is time to, or sooner if a token names a key that is not known.
    /// Returns whether it was fetched.
    pub(super) async fn refresh(&self, key_missing: bool) -> bool {
        let Some(url) = &self.url else { return false };
        let _one = self.fetching.lock().await;
        let wait = if key_missing { FETCH_AGAIN } else { FETCH };
        if self.lock_looked().fetched_at.is_some_and(|at| at.elapsed() < wait) {
            return false;
        }
        self.lock_looked().fetched_at = Some(Instant::now());
        let fetched = fetch(url, Ask::default(), &self.trust, FETCH_TIMEOUT).await;
        let parsed =
            fetched.and_then(|bytes| keys::parse(&bytes, "the set of keys").map_err(|error| error.to_string()));
        match parsed {
            Ok(keys) => self.hold(|held| held.from_url = keys),
            Err(reason) => tracing::error!("the keys at {} stay as they were: {reason}", origin(url)),
        }
        true
    }

    fn hold(&self, change: impl FnOnce(&mut Held)) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut held);
        held.all = held.from_files.iter().chain(&held.from_url).cloned().collect();
    }

    fn lock_looked(&self) -> std::sync::MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address without what may be secret in it.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

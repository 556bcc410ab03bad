//! What a subject has on a server: the actors in whose name it writes, and the bytes that it has stored.
//!
//! Owns: the first claim on an actor, the count of bytes, for all hubs of a server. Must not: know where they are stored.
//! Next: `hub/subject.rs`, `access.rs`; docs/access.md, "Actors" and docs/server.md, "What a subject stores".

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::change::Actor;

/// Who writes as an actor. Clones share it, so that of two hubs that are asked at one time one is first.
#[derive(Debug, Clone, Default)]
pub struct Owner(Arc<Claim>);

#[derive(Debug, Default)]
struct Claim {
    subject: OnceLock<Arc<str>>,
    /// The store knows.
    stored: AtomicBool,
}

impl Owner {
    /// As a store has it; `None` if nobody has written as the actor.
    #[must_use]
    pub fn stored(subject: Option<Arc<str>>) -> Self {
        let owner = Self::default();
        if let Some(subject) = subject {
            owner.0.stored.store(true, Ordering::Relaxed);
            owner.0.subject.get_or_init(|| subject);
        }
        owner
    }

    /// Makes it the subject's if it is nobody's. Returns whether it is the subject's.
    pub fn claim(&self, subject: &Arc<str>) -> bool {
        self.0.subject.get_or_init(|| Arc::clone(subject)) == subject
    }

    /// Whether it is durable whose it is.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.0.stored.load(Ordering::Relaxed)
    }

    /// It is durable whose it is.
    pub fn mark_stored(&self) {
        self.0.stored.store(true, Ordering::Relaxed);
    }

    /// Whether somebody else holds a clone.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Bytes of the changes that a subject has brought, durable or on their way. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Account(Arc<AtomicU64>);

impl Account {
    /// An account of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds bytes, unless there would then be more than `bytes_max`. Returns whether they were added.
    pub fn take(&self, bytes: u64, bytes_max: u64) -> bool {
        let added = |had: u64| had.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        // Nothing else is ordered by this count.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).is_ok()
    }

    /// Subtracts bytes that are not stored, or not any more.
    pub fn give_back(&self, bytes: u64) {
        let left = |had: u64| Some(had.saturating_sub(bytes));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }

    /// Whether somebody else holds a clone.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// What one subject has of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// Who. Those who are not named are one subject, with an empty name.
    pub subject: Arc<str>,
    /// Actors that are the subject's from here on.
    pub actors: Vec<Actor>,
    /// Bytes of its changes, if that is counted.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_writes_as_an_actor_has_it() {
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let owner = Owner::stored(None);
        let elsewhere = owner.clone();
        assert!(owner.claim(&alice) && !elsewhere.claim(&bob) && elsewhere.claim(&alice));
        assert!(!owner.is_stored());
        assert!(!Owner::stored(Some(bob)).claim(&alice));
    }

    #[test]
    fn an_account_holds_no_more_than_it_may_and_never_less_than_nothing() {
        let account = Account::new(90);
        assert!(!account.take(11, 100) && account.take(10, 100) && !account.take(1, 100));
        assert!(!account.take(u64::MAX, u64::MAX));
        account.clone().give_back(60);
        assert_eq!(account.bytes(), 40);
        account.give_back(60);
        assert_eq!(account.bytes(), 0);
    }
}

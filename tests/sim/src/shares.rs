//! Whose actors are and what subjects have stored, as a disk has it and as hubs are told.
//!
//! Owns: what commits say of that. Must not: use the store's code for it; the oracle compares with it.
//! Next: `image.rs`, `world/access.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use syncline_core::change::Actor;
use syncline_core::hub::Loaded;
use syncline_core::id::DocumentId;
use syncline_core::storage::Commit;
use syncline_core::subject::{Account, Contribution, Owner};

/// What a disk has of subjects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subjects {
    pub(crate) owners: BTreeMap<Actor, Arc<str>>,
    shares: BTreeMap<(DocumentId, Arc<str>), u64>,
    /// What the hub was given and may still hold.
    held_owners: BTreeMap<Actor, Owner>,
    held_accounts: BTreeMap<Arc<str>, Account>,
}

impl Subjects {
    /// A commit is on the disk.
    pub(crate) fn note(&mut self, commit: &Commit) {
        for Contribution { subject, actors, bytes } in &commit.contributions {
            for actor in actors {
                self.owners.insert(actor.clone(), Arc::clone(subject));
            }
            *self.shares.entry((commit.document.clone(), Arc::clone(subject))).or_default() += bytes;
        }
    }

    /// What a subject has stored.
    pub(crate) fn bytes(&self, subject: &str) -> u64 {
        self.shares.iter().filter(|((_, of), _)| **of == *subject).map(|(_, bytes)| bytes).sum()
    }

    /// A document is gone.
    pub(crate) fn purge(&mut self, document: &DocumentId) {
        let (gone, left) = std::mem::take(&mut self.shares).into_iter().partition(|((of, _), _)| of == document);
        self.shares = left;
        let gone: BTreeMap<_, u64> = gone;
        for ((_, subject), bytes) in gone {
            if let Some(account) = self.held_accounts.get(&subject) {
                account.give_back(bytes);
            }
        }
    }

    /// The process that held something is gone.
    pub(crate) fn forget_held(&mut self) {
        self.held_owners.clear();
        self.held_accounts.clear();
    }

    /// Answers a hub. What is held by nobody else is read again, as the store does.
    pub(crate) fn load(&mut self, actors: &[Actor], subject: Option<&Arc<str>>) -> Loaded {
        self.held_owners.retain(|_, owner| owner.is_shared());
        self.held_accounts.retain(|_, account| account.is_shared());
        let mut owners = Vec::new();
        for actor in actors {
            let stored = self.owners.get(actor).cloned();
            let owner = self.held_owners.entry(actor.clone()).or_insert_with(|| Owner::stored(stored));
            owners.push((actor.clone(), owner.clone()));
        }
        let account = subject.map(|subject| {
            let bytes = self.bytes(subject);
            let account = self.held_accounts.entry(Arc::clone(subject)).or_insert_with(|| Account::new(bytes));
            (Arc::clone(subject), account.clone())
        });
        Loaded::Owners { owners, account }
    }
}

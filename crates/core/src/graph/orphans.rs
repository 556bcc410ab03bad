//! Changes that came before their dependencies.
//!
//! Owns: the waiting changes of one document, bounded for each peer that sent them. Must not: be stored.
//! Next: `hub/ingest.rs`.

use std::collections::BTreeMap;

use crate::ChangeHash;
use crate::change::Change;
use crate::id::SessionId;
use crate::limits::Limits;

/// The changes of one document that wait for dependencies.
#[derive(Debug, Default)]
pub struct Orphans {
    waiting: BTreeMap<ChangeHash, Orphan>,
    /// Missing dependency to the orphans that name it.
    wanted: BTreeMap<ChangeHash, Vec<ChangeHash>>,
    by_session: BTreeMap<SessionId, Usage>,
}

#[derive(Debug)]
struct Orphan {
    change: Change,
    session: SessionId,
}

#[derive(Debug, Default)]
struct Usage {
    changes: usize,
    bytes: usize,
}

/// The bound on waiting changes was met. **State:** the change was dropped. **Do:** send dependencies first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("change {hash} waits for dependencies, and this peer already has {changes} changes of {bytes} bytes waiting")]
pub struct OrphanError {
    /// The dropped change.
    pub hash: ChangeHash,
    /// Changes of this peer that wait.
    pub changes: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Orphans {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether this change waits.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.waiting.contains_key(hash)
    }

    /// Missing dependencies that nothing here provides, sorted.
    #[must_use]
    pub fn missing(&self) -> Vec<ChangeHash> {
        self.wanted.keys().filter(|hash| !self.waiting.contains_key(*hash)).copied().collect()
    }

    /// Keeps a change until `missing` have come.
    ///
    /// # Errors
    /// [`OrphanError`] at the peer's bound.
    pub fn insert(
        &mut self,
        session: SessionId,
        change: Change,
        missing: &[ChangeHash],
        limits: &Limits,
    ) -> Result<(), OrphanError> {
        if self.waiting.contains_key(&change.hash) {
            return Ok(());
        }
        let usage = self.by_session.entry(session).or_default();
        if usage.changes >= limits.orphans_max || usage.bytes + change.bytes.len() > limits.orphan_bytes_max {
            return Err(OrphanError { hash: change.hash, changes: usage.changes, bytes: usage.bytes });
        }
        usage.changes += 1;
        usage.bytes += change.bytes.len();
        for dependency in missing {
            self.wanted.entry(*dependency).or_default().push(change.hash);
        }
        self.waiting.insert(change.hash, Orphan { change, session });
        Ok(())
    }

    /// Takes the changes that waited for `dependency`. Some may wait for others still: admit them again.
    pub fn take_dependents(&mut self, dependency: &ChangeHash) -> Vec<(SessionId, Change)> {
        let hashes = self.wanted.remove(dependency).unwrap_or_default();
        hashes.iter().filter_map(|hash| self.remove(hash)).collect()
    }

    /// Forgets what a session that is gone has sent.
    pub fn forget_session(&mut self, session: SessionId) {
        let gone: Vec<_> = self.waiting.iter().filter(|(_, o)| o.session == session).map(|(hash, _)| *hash).collect();
        for hash in gone {
            self.remove(&hash);
        }
    }

    /// Peers of which something waits.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.by_session.keys().copied()
    }

    fn remove(&mut self, hash: &ChangeHash) -> Option<(SessionId, Change)> {
        let Orphan { change, session } = self.waiting.remove(hash)?;
        for dependency in &change.deps {
            if let Some(waiting) = self.wanted.get_mut(dependency) {
                waiting.retain(|waiting| waiting != hash);
                if waiting.is_empty() {
                    self.wanted.remove(dependency);
                }
            }
        }
        if let Some(usage) = self.by_session.get_mut(&session) {
            usage.changes -= 1;
            usage.bytes -= change.bytes.len();
            if usage.changes == 0 {
                self.by_session.remove(&session);
            }
        }
        Some((session, change))
    }
}

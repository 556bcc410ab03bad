//! A store on a disk that can be full, fail, stall, and lose what it had not synced.
//!
//! Owns: the durable image, calls on their way to it, what a power cut leaves. The semantics are those of docs/store.md.
//! Must not: answer a commit before it is in the image, except where a test plants that.
//! Next: `image.rs`, `world/storage.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use syncline_core::clock::{Clock, Stamp};
use syncline_core::hub::{Input, StoreFailure};
use syncline_core::id::{DocumentId, ReplicaId};
use syncline_core::life::{Life, LifeUpdate};
use syncline_core::storage::Commit;

use crate::image::Image;
use crate::oracle::{Checked, Oracle, require};
use crate::real::Real;

/// What is handed to a store at once.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// Commits that stand or fall together.
    Commits(Vec<(u64, Commit)>),
    /// Whether a document is deleted.
    Life { ticket: u64, document: DocumentId, update: LifeUpdate },
    /// Whether a document stays on its machine.
    LocalOnly { ticket: u64, document: DocumentId, local_only: bool },
}

impl Call {
    pub(crate) fn commits(&self) -> &[(u64, Commit)] {
        match self {
            Self::Commits(commits) => commits,
            Self::Life { .. } | Self::LocalOnly { .. } => &[],
        }
    }

    /// What the hub is told when it has failed, or is durable. `life` is the record that stands after a call for one.
    pub(crate) fn outcome(&self, failure: Option<&StoreFailure>, life: Option<Life>) -> Vec<Input> {
        match self {
            Self::Commits(commits) => {
                let told = |(ticket, commit): &(u64, Commit)| {
                    let (document, ticket) = (commit.document.clone(), *ticket);
                    match failure.cloned() {
                        None => Input::Persisted { document, ticket },
                        Some(failure) => Input::PersistFailed { document, ticket, failure },
                    }
                };
                commits.iter().map(told).collect()
            }
            Self::Life { ticket, document, .. } => {
                let (document, ticket) = (document.clone(), *ticket);
                let not_set = |failure: &StoreFailure| {
                    let (document, failure) = (document.clone(), failure.clone());
                    Input::LifeNotSet { document, ticket, failure }
                };
                let set = life.map(|life| Input::LifeSet { document: document.clone(), ticket, life });
                failure.map(not_set).or(set).into_iter().collect()
            }
            Self::LocalOnly { ticket, document, .. } => {
                let (document, ticket) = (document.clone(), *ticket);
                vec![match failure.cloned() {
                    None => Input::LocalOnlySet { document, ticket },
                    Some(failure) => Input::LocalOnlyNotSet { document, ticket, failure },
                }]
            }
        }
    }
}

/// What goes wrong next.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) full: bool,
    pub(crate) dies: bool,
    pub(crate) read_fails: bool,
    /// World time before which nothing is synced.
    pub(crate) stalled_until_ms: u64,
}

/// One machine's store and the disk under it.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) image: Image,
    pub(crate) faults: Faults,
    /// Handed over and not yet synced, in order.
    pub(crate) calls: VecDeque<Call>,
    /// What is to be told of each call that was synced or has failed, in order.
    pub(crate) finished: VecDeque<Vec<Input>>,
    pub(crate) backup: Option<Image>,
    /// Every later commit fails.
    pub(crate) poisoned: bool,
    /// Some commit or read has failed since the machine started: those concerned may be cut off.
    pub(crate) has_failed: bool,
    /// Failed without anybody knowing whether they are on the disk.
    pub(crate) uncertain: VecDeque<Call>,
    clock: Clock,
    /// In whose name documents are deleted and restored.
    pub(crate) replica: ReplicaId,
    /// The store that ships, where one runs: then the image is what that must hold.
    pub(crate) real: Option<Box<Real>>,
}

impl Disk {
    /// A stamp for what is said to other machines.
    pub(crate) fn tick(&mut self, wall_ms: u64) -> Stamp {
        match self.real.as_ref().and_then(|real| real.store().ok()) {
            Some(store) => store.tick(),
            None => self.clock.tick(wall_ms),
        }
    }

    /// Follows what another machine's clock says, as far as that may be.
    pub(crate) fn observe(&mut self, stamp: Stamp, wall_ms: u64) {
        // A stamp that is too far ahead is for the shell to count.
        let _ = match self.real.as_ref().and_then(|real| real.store().ok()) {
            Some(store) => store.observe(stamp),
            None => self.clock.observe(stamp, wall_ms),
        };
    }

    pub(crate) fn new(image: Image, replica: ReplicaId) -> Self {
        let clock = Clock::new(image.highest, Duration::from_secs(60));
        Self {
            image,
            faults: Faults::default(),
            calls: VecDeque::new(),
            finished: VecDeque::new(),
            backup: None,
            poisoned: false,
            has_failed: false,
            uncertain: VecDeque::new(),
            clock,
            replica,
            real: None,
        }
    }

    pub(crate) fn submit(&mut self, call: Call) {
        self.calls.push_back(call);
    }

    /// Syncs the first `count` calls as one group.
    pub(crate) fn sync(&mut self, count: usize, wall_ms: u64, oracle: &Oracle) -> Checked {
        if let Some(real) = &mut self.real {
            real.set_wall_ms(wall_ms);
            return self.sync_real(count, oracle);
        }
        let count = count.min(self.calls.len());
        let group: Vec<Call> = self.calls.drain(..count).collect();
        let failure = if self.poisoned {
            Some("the store has failed: restart the process")
        } else if std::mem::take(&mut self.faults.dies) {
            self.poisoned = true;
            self.uncertain.extend(group.iter().cloned());
            Some("the disk has failed")
        } else if std::mem::take(&mut self.faults.full) {
            Some("the disk is full")
        } else {
            None
        };
        for call in group {
            let message = match failure {
                Some(message) => Some(message),
                None if self.commit(&call, wall_ms, oracle)? => None,
                None => Some("the commit builds on another history"),
            };
            self.has_failed |= message.is_some();
            let failure = message.map(|message| StoreFailure { message: message.to_owned() });
            let life = self.image.life_of(&call);
            self.finished.push_back(call.outcome(failure.as_ref(), life));
        }
        Ok(())
    }

    /// Puts a call into the image; false, and nothing done, if it does not continue what is there.
    fn commit(&mut self, call: &Call, wall_ms: u64, oracle: &Oracle) -> Checked<bool> {
        if let Call::Life { document, update, .. } = call {
            self.set_life(document, *update, wall_ms);
        }
        if let Call::LocalOnly { document, local_only, .. } = call {
            self.image.set_local_only(document, *local_only);
        }
        if !self.image.continues(call.commits()) {
            return Ok(false);
        }
        for (_, commit) in call.commits() {
            for bytes in &commit.changes {
                let stamp = self.clock.tick(wall_ms);
                require(stamp > self.image.highest, "stamps increase", || {
                    format!("{stamp} after {}", self.image.highest)
                })?;
                self.image.append(&commit.document, bytes.clone(), stamp, oracle)?;
            }
            self.image.end_commit(commit)?;
        }
        Ok(true)
    }

    fn set_life(&mut self, document: &DocumentId, update: LifeUpdate, wall_ms: u64) {
        let before = self.image.lives.get(document).copied();
        let (clock, replica) = (&mut self.clock, self.replica);
        let life = Life::after(before, update, |deleted| Life::own(before, clock.tick(wall_ms), replica, deleted));
        self.image.highest = self.image.highest.max(self.clock.highest());
        self.image.lives.insert(document.clone(), life);
    }

    /// What a start finds after the power went: everything synced, some of the calls that were not, in order, and
    /// those whose failure was uncertain or not.
    pub(crate) fn power_cut(&mut self, survive: usize, wall_ms: u64, oracle: &Oracle) -> Checked {
        let uncertain = std::mem::take(&mut self.uncertain);
        let calls = std::mem::take(&mut self.calls);
        let candidates = uncertain.into_iter().chain(if self.poisoned { VecDeque::new() } else { calls });
        for call in candidates.take(survive) {
            self.commit(&call, wall_ms, oracle)?;
        }
        self.restart(None);
        Ok(())
    }

    /// Opens the store anew, on this image or on the one that is there.
    pub(crate) fn restart(&mut self, image: Option<Image>) {
        let (backup, real) = (self.backup.take(), self.real.take());
        let mut image = image.unwrap_or_else(|| std::mem::take(&mut self.image));
        image.subjects.forget_held();
        *self = Self { backup, real, ..Self::new(image, self.replica) };
    }
}

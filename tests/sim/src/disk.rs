//! A store on a disk that can be full, fail, stall, and lose what it had not synced.
//!
//! Owns: the durable image, calls on their way to it, what a power cut leaves. The semantics are those of docs/store.md.
//! Must not: answer a commit before it is in the image, except where a test plants that.
//! Next: `image.rs`, `world/storage.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use syncline_core::clock::Clock;
use syncline_core::hub::StoreFailure;
use syncline_core::id::DocumentId;
use syncline_core::storage::Commit;

use crate::image::Image;
use crate::oracle::{Checked, Oracle, require};
use crate::real::Real;

/// Commits that were handed over together: they stand or fall together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call(pub(crate) Vec<(u64, Commit)>);

impl Call {
    pub(crate) fn tickets(&self) -> Vec<(DocumentId, u64)> {
        self.0.iter().map(|(ticket, commit)| (commit.document.clone(), *ticket)).collect()
    }
}

/// What the store tells about a call.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) tickets: Vec<(DocumentId, u64)>,
    pub(crate) failure: Option<StoreFailure>,
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
    /// Synced or failed, and not yet told, in order.
    pub(crate) finished: VecDeque<Finished>,
    pub(crate) backup: Option<Image>,
    /// Every later commit fails.
    pub(crate) poisoned: bool,
    /// Some commit or read has failed since the machine started: those concerned may be cut off.
    pub(crate) has_failed: bool,
    /// Failed without anybody knowing whether they are on the disk.
    pub(crate) uncertain: VecDeque<Call>,
    clock: Clock,
    /// The store that ships, where one runs: then the image is what that must hold.
    pub(crate) real: Option<Box<Real>>,
}

impl Disk {
    pub(crate) fn new(image: Image) -> Self {
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
            let tickets = call.tickets();
            let message = match failure {
                Some(message) => Some(message),
                None if self.commit(call, wall_ms, oracle)? => None,
                None => Some("the commit builds on another history"),
            };
            self.has_failed |= message.is_some();
            let failure = message.map(|message| StoreFailure { message: message.to_owned() });
            self.finished.push_back(Finished { tickets, failure });
        }
        Ok(())
    }

    /// Puts a call into the image; false, and nothing done, if it does not continue what is there.
    fn commit(&mut self, call: Call, wall_ms: u64, oracle: &Oracle) -> Checked<bool> {
        if !self.image.continues(&call.0) {
            return Ok(false);
        }
        for (_, commit) in call.0 {
            for bytes in &commit.changes {
                let stamp = self.clock.tick(wall_ms);
                require(stamp > self.image.highest, "stamps increase", || {
                    format!("{stamp} after {}", self.image.highest)
                })?;
                self.image.append(&commit.document, bytes.clone(), stamp, oracle)?;
            }
            self.image.end_commit(&commit)?;
        }
        Ok(true)
    }

    /// What a start finds after the power went: everything synced, some of the calls that were not, in order, and
    /// those whose failure was uncertain or not.
    pub(crate) fn power_cut(&mut self, survive: usize, wall_ms: u64, oracle: &Oracle) -> Checked {
        let uncertain = std::mem::take(&mut self.uncertain);
        let calls = std::mem::take(&mut self.calls);
        let candidates = uncertain.into_iter().chain(if self.poisoned { VecDeque::new() } else { calls });
        for call in candidates.take(survive) {
            self.commit(call, wall_ms, oracle)?;
        }
        self.restart(None);
        Ok(())
    }

    /// Opens the store anew, on this image or on the one that is there.
    pub(crate) fn restart(&mut self, image: Option<Image>) {
        let (backup, real) = (self.backup.take(), self.real.take());
        let image = image.unwrap_or_else(|| std::mem::take(&mut self.image));
        *self = Self { backup, real, ..Self::new(image) };
    }
}

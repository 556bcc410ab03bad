//! The store that ships, on a simulated disk.
//!
//! Owns: its life on one machine: starts, commits, reads, work in the background, the end of power.
//! Must not: know what should be in it; `real/mirror.rs` does. Next: `real/volume.rs`, `real/vfs.rs` for what is under
//! it, `real/mirror.rs`.

mod mirror;
#[cfg(feature = "t2")]
mod vfs;
// Nothing opens a volume where nothing can be opened on it.
#[cfg(not(feature = "t2"))]
#[path = "real/without_vfs.rs"]
mod vfs;
#[cfg_attr(not(feature = "t2"), allow(dead_code))]
mod volume;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use syncline_core::graph::Graph;
use syncline_core::hub::{Load, Loaded};
use syncline_core::id::{DocumentId, ReplicaId};
use syncline_core::life::Life;
use syncline_disk::{Cut, Disk, Fault, FaultKind, Image as Files, Site};
use syncline_store::{Driven, Options, Store, StoreError, check_on};

use crate::action::Kind;
use crate::disk::Call;
use crate::image::Image;
use crate::log::State;
use volume::Volume;

/// Turns that one piece of background work may take: more than any log here needs.
const TURNS_MAX: usize = 10_000;

/// A store and the disk under it.
#[derive(Debug)]
pub(crate) struct Real {
    pub(crate) disk: Disk,
    volume: Arc<Volume>,
    /// Of the stores that are created here.
    replica: ReplicaId,
    driven: Option<Driven>,
    pub(crate) backup: Option<Files>,
    /// Faults that had fired when the store was last opened.
    fired_before: u64,
    wall_ms: u64,
    /// The fault that waits, and what its machine was in the middle of when it was set.
    pub(crate) armed: Option<(Kind, State)>,
    fired_seen: u64,
    /// Something on the disk may have been damaged without anybody being told.
    pub(crate) rotten: bool,
    /// Damage has been found: the disk is to be replaced.
    pub(crate) lost: bool,
    /// What was there before damage cut it short.
    whole: Option<Image>,
    /// The disk has lost what was acknowledged, which no store could have prevented.
    pub(crate) went_back: bool,
}

/// Thresholds so low that a few changes meet everything that the store does with many.
fn options() -> Options {
    Options {
        readers_max: 1,
        fold_rows: 4,
        fold_slice: Duration::MAX,
        fold_retry: Duration::ZERO,
        checkpoint_pages: 24,
        compact_changes: 5,
        compact_bytes: 512,
        keep_changes: 2,
        keep_bytes: 400,
        ..Options::default()
    }
}

impl Real {
    /// An empty disk, and no store on it yet.
    pub(crate) fn new(replica: ReplicaId) -> Self {
        let disk = Disk::default();
        let volume = Volume::new(&disk, &Files::new(), replica);
        Self {
            disk,
            volume,
            replica,
            driven: None,
            backup: None,
            fired_before: 0,
            wall_ms: 0,
            armed: None,
            fired_seen: 0,
            rotten: false,
            lost: false,
            whole: None,
            went_back: false,
        }
    }

    pub(crate) fn open(&mut self) -> Result<(), StoreError> {
        self.driven = None;
        self.fired_before = self.disk.fired();
        self.volume.set_wall_ms(self.wall_ms);
        self.driven = Some(Driven::open(&self.volume.directory(), options(), self.volume.clone())?);
        Ok(())
    }

    pub(crate) fn set_wall_ms(&mut self, wall_ms: u64) {
        self.wall_ms = wall_ms;
        self.volume.set_wall_ms(wall_ms);
    }

    pub(crate) fn store(&self) -> Result<&Store, StoreError> {
        self.driven.as_ref().map(Driven::store).ok_or(StoreError::Closed)
    }

    /// Whether something has failed since the store was opened.
    pub(crate) fn has_failed(&self) -> bool {
        self.disk.fired() > self.fired_before
    }

    /// The fault that was set, if it has come.
    pub(crate) fn take_fired(&mut self) -> Option<(Kind, State)> {
        let fired = self.disk.fired();
        if std::mem::replace(&mut self.fired_seen, fired) == fired {
            return None;
        }
        self.armed
    }

    /// Commits these calls as one group; what each was told, in the order in which they were told it.
    pub(crate) fn commit(&mut self, calls: &[Call]) -> Vec<(usize, Result<Option<Life>, StoreError>)> {
        let Some(driven) = &mut self.driven else { return Vec::new() };
        let told = Arc::new(Mutex::new(Vec::new()));
        for (number, call) in calls.iter().enumerate() {
            let told = Arc::clone(&told);
            let note = move |verdict| told.lock().unwrap_or_else(PoisonError::into_inner).push((number, verdict));
            match call {
                Call::Commits(commits) => {
                    let commits = commits.iter().map(|(_, commit)| commit.clone()).collect();
                    driven.store().commit(commits, Box::new(move |verdict| note(verdict.map(|_| None))));
                }
                Call::Life { document, update, .. } => {
                    driven.store().set_life(document.clone(), *update, Box::new(move |life| note(life.map(Some))));
                }
                Call::LocalOnly { document, local_only, .. } => {
                    let note = Box::new(move |verdict: Result<(), StoreError>| note(verdict.map(|()| None)));
                    driven.store().set_local_only(document.clone(), *local_only, note);
                }
            }
        }
        while driven.commit() {}
        std::mem::take(&mut told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what a hub asks for, as the shell does.
    pub(crate) fn load(&self, document: &DocumentId, what: &Load, hash_key: u64) -> Result<Loaded, StoreError> {
        let store = self.store()?;
        Ok(match what {
            Load::Summary => Loaded::Summary(store.standing(document)?),
            Load::Graph => {
                let stored = store.graph(document)?;
                let graph = stored.map(|stored| Graph::from_stored(&stored, hash_key)).transpose();
                let damaged = |_| StoreError::Damaged { document: document.clone(), what: "its graph" };
                Loaded::Graph(graph.map_err(damaged)?.map(Box::new))
            }
            Load::Payload => Loaded::Payload(store.payload(document)?),
            Load::Changes { session, hashes } => {
                let changes = store.changes(document, hashes)?;
                Loaded::Changes { session: *session, changes: hashes.iter().copied().zip(changes).collect() }
            }
            Load::Owners { actors, subject } => {
                let (owners, account) = store.subject(actors, subject.as_ref())?;
                Loaded::Owners { owners, account }
            }
        })
    }

    /// What the store's threads do while nobody waits: folding, compaction, checkpoints.
    pub(crate) fn work(&mut self, random: u64) -> Option<(DocumentId, u32)> {
        let driven = self.driven.as_mut()?;
        let folds = if random.is_multiple_of(4) { 1 } else { TURNS_MAX };
        for _ in 0..folds {
            if !driven.fold() {
                break;
            }
        }
        let compacted = if random % 4 > 1 { driven.compact() } else { None };
        driven.checkpoint();
        compacted.and_then(|(document, covered)| Some((document, covered?)))
    }

    /// Lets operations fail.
    pub(crate) fn fail(&self, kind: FaultKind, site: Option<Site>, after: u64, lasts: bool) {
        self.disk.fail(Fault { kind, site, after, lasts });
    }

    /// Damages the database or its log; false if there is nothing to be damaged.
    pub(crate) fn rot(&mut self, random: u64) -> bool {
        let name = if random.is_multiple_of(3) { "syncline.db-wal" } else { "syncline.db" };
        let struck = self.volume.rot(name, random >> 8, (random >> 4) as u8);
        self.rotten |= struck;
        struck
    }

    /// A copy of the disk as it is.
    pub(crate) fn copy(&self) -> Files {
        self.volume.image(Cut::Kept)
    }

    /// The process ends, and the power with it; what is left of the disk.
    pub(crate) fn power_off(&mut self, cut: Cut) -> Files {
        let left = self.volume.image(cut);
        self.volume.pull_out();
        self.driven = None;
        left
    }

    /// The process is killed, and another starts over the same files; the power stays.
    pub(crate) fn kill(&mut self) {
        self.fail(FaultKind::Off, None, 0, true);
        self.driven = None;
        self.disk.mend();
        self.volume = self.volume.passed_on();
        self.volume.set_wall_ms(self.wall_ms);
    }

    /// Another disk in the place of the one that there was.
    pub(crate) fn insert(&mut self, files: &Files) {
        self.driven = None;
        self.volume = Volume::new(&self.disk, files, self.replica);
        self.volume.set_wall_ms(self.wall_ms);
    }

    /// Closes the store as a server does that is told to end.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.driven.take().map_or(Ok(()), Driven::close)
    }

    /// What the check says of the file as it is: faults in words.
    pub(crate) fn check(&self) -> Result<Vec<String>, StoreError> {
        let report = check_on(&self.volume.directory(), self.volume.clone())?;
        Ok(report.listed.iter().map(ToString::to_string).collect())
    }

    /// Whether an error is one that the store may give after what was done to its disk.
    pub(crate) fn excuses(&self, error: &StoreError) -> bool {
        match error {
            StoreError::DiskFull
            | StoreError::Poisoned { .. }
            | StoreError::Sqlite { .. }
            | StoreError::Io { .. }
            | StoreError::Corrupt { .. } => self.has_failed() || self.rotten,
            StoreError::Damaged { .. }
            | StoreError::NotAStore { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::UnknownChange { .. }
            | StoreError::Stale { .. } => self.rotten,
            // The simulator stores no blobs and makes no copies.
            StoreError::BlobsFull
            | StoreError::FaultyCopy { .. }
            | StoreError::BlobDamaged { .. }
            | StoreError::NoSuchBlob { .. }
            | StoreError::InUse { .. }
            | StoreError::SqliteTooOld { .. }
            | StoreError::TooManyChanges { .. }
            | StoreError::NotLoaded { .. }
            | StoreError::Closed => false,
        }
    }
}

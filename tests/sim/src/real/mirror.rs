//! What the store says and holds against what it should: the image that the model of a disk keeps.
//!
//! Owns: every comparison of the two, and what a start may find. The image has what was acknowledged, no more.
//! Must not: excuse a difference by anything but a fault that has fired. Next: `../image.rs`, `../world/real.rs`.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ChangeHash};
use bytes::Bytes;
use syncline_core::clock::Stamp;
use syncline_core::hub::{Load, Loaded, StoreFailure};
use syncline_core::id::DocumentId;
use syncline_core::life::{Life, LifeUpdate};
use syncline_core::storage::Standing;
use syncline_disk::{Cut, Fault, FaultKind};
use syncline_store::StoreError;

use super::Real;
use crate::disk::{Call, Disk};
use crate::image::{Image, Stored};
use crate::oracle::{Checked, Oracle, require};
use crate::random::Stream;

/// Starts that may fail before one has to succeed: the last is on a mended disk.
const STARTS: usize = 3;

/// Operations within which the power goes once something is under way.
const OPERATIONS: u64 = 60;

impl Disk {
    /// Commits the first `count` calls as one group.
    pub(crate) fn sync_real(&mut self, count: usize, oracle: &Oracle) -> Checked {
        let group: Vec<Call> = self.calls.drain(..count.min(self.calls.len())).collect();
        let Some(real) = &mut self.real else { return Ok(()) };
        let told = real.commit(&group);
        let in_order = told.iter().enumerate().all(|(place, (number, _))| place == *number);
        require(in_order && told.len() == group.len(), "commits are answered in order", || format!("{told:?}"))?;
        let was_poisoned = self.poisoned;
        let (mut kept, mut continued) = (Vec::new(), Vec::new());
        for (call, (_, verdict)) in group.iter().zip(&told) {
            // One that was handed over before another had failed may fit again after what came behind it.
            let commits = kept.iter().chain([call]).flat_map(Call::commits).cloned();
            continued.push(self.image.continues(&commits.collect::<Vec<_>>()));
            kept.extend(verdict.is_ok().then(|| call.clone()));
        }
        self.take_in(&kept, oracle)?;
        for ((call, (_, verdict)), continued) in group.into_iter().zip(told).zip(continued) {
            let outcome = match verdict {
                Ok(life) => {
                    self.note_life(&call, life)?;
                    call.outcome(None, life)
                }
                Err(error) => {
                    self.has_failed = true;
                    let outcome = call.outcome(Some(&failure(&error.to_string())), None);
                    self.refused(call, &error, (was_poisoned, continued))?;
                    outcome
                }
            };
            self.finished.push_back(outcome);
        }
        self.note_failures();
        Ok(())
    }

    /// A commit failed: it must have had a reason, and what that says about the disk must be true.
    fn refused(&mut self, call: Call, error: &StoreError, (was_poisoned, continued): (bool, bool)) -> Checked {
        let Some(real) = &mut self.real else { return Ok(()) };
        let stale = matches!(error, StoreError::Stale { .. }) && !continued;
        require(stale || was_poisoned || real.excuses(error), "commits fail for a reason", || error.to_string())?;
        if let StoreError::Poisoned { .. } | StoreError::Corrupt { .. } = error {
            if !was_poisoned {
                self.uncertain.push_back(call);
            }
            self.poisoned = true;
        }
        real.lost |= real.rotten && !stale && !matches!(error, StoreError::DiskFull | StoreError::Poisoned { .. });
        // Somebody makes room, so that a later commit succeeds.
        if matches!(error, StoreError::DiskFull) {
            real.disk.mend();
        }
        Ok(())
    }

    /// The store has acknowledged these calls, or a start has found them.
    fn take_in(&mut self, calls: &[Call], oracle: &Oracle) -> Checked {
        let before = self.image.highest;
        let mut highest = before;
        for (_, commit) in calls.iter().flat_map(Call::commits) {
            require(self.image.continues(&[(0, commit.clone())]), "commits continue what is there", || {
                format!("{commit:?}")
            })?;
            let stamp = if commit.changes.is_empty() { before } else { self.last_stamp(&commit.document)? };
            // No hash covers the stamps.
            let rotten = self.real.as_ref().is_some_and(|real| real.rotten);
            require(rotten || stamp > before || commit.changes.is_empty(), "stamps increase", || {
                format!("{stamp} after {before}")
            })?;
            highest = highest.max(stamp);
            for bytes in &commit.changes {
                self.image.append(&commit.document, bytes.clone(), stamp, oracle)?;
            }
            self.image.end_commit(commit)?;
        }
        self.image.highest = highest;
        Ok(())
    }

    /// The store says that this record stands after the call: it must be what follows from the one before.
    fn note_life(&mut self, call: &Call, life: Option<Life>) -> Checked {
        if let Call::LocalOnly { document, local_only, .. } = call {
            self.image.set_local_only(document, *local_only);
        }
        let (Call::Life { document, update, .. }, Some(life)) = (call, life) else { return Ok(()) };
        let before = self.image.lives.insert(document.clone(), life);
        let rotten = self.real.as_ref().is_some_and(|real| real.rotten);
        require(rotten || follows(before, *update, life), "the greater record stands", || {
            format!("{life:?} after {before:?} and {update:?}")
        })
    }

    /// A start finds the records that were acknowledged, or what a call that is in doubt made of them.
    fn find_lives(&mut self, candidates: &[Call]) -> Checked {
        let Some(real) = &self.real else { return Ok(()) };
        let lives: BTreeMap<DocumentId, Life> = match real.store().and_then(|store| store.lives(None, usize::MAX)) {
            Ok(lives) => lives.into_iter().map(|(document, entry)| (document, entry.life)).collect(),
            Err(error) => return require(real.rotten, "a store that starts can be read", || error.to_string()),
        };
        let before: &BTreeMap<DocumentId, Life> = &self.image.lives;
        let in_doubt = |document: &DocumentId, found: Life| {
            let mut stands = before.get(document).copied();
            candidates.iter().any(|call| match call {
                Call::Life { document: of, update, .. } if of == document => {
                    let explained = follows(stands, *update, found);
                    stands = stands.max(Some(found));
                    explained
                }
                Call::Life { .. } | Call::LocalOnly { .. } | Call::Commits(_) => false,
            })
        };
        let lost = before.iter().find(|(document, life)| lives.get(*document) < Some(life));
        let strange =
            lives.iter().find(|(document, life)| before.get(*document) != Some(life) && !in_doubt(document, **life));
        require(real.rotten || lost.is_none() && strange.is_none(), "a start finds what was acknowledged", || {
            format!("{lost:?} is lost, nobody wrote {strange:?}")
        })?;
        self.image.lives = lives;
        self.find_local_only(candidates)
    }

    /// A start finds which documents stay here: as was acknowledged, or as a call that is in doubt would have it.
    fn find_local_only(&mut self, candidates: &[Call]) -> Checked {
        let mut expected: BTreeMap<DocumentId, BTreeSet<bool>> = BTreeMap::new();
        let Some(real) = &self.real else { return Ok(()) };
        // An older state of a damaged disk can name documents that are long forgotten.
        let named = match real.store().and_then(|store| store.policies(None, usize::MAX)) {
            Ok(named) => named,
            Err(error) => return require(real.rotten, "a store that starts can be read", || error.to_string()),
        };
        let known = self.image.documents.keys().chain(self.image.lives.keys()).chain(&self.image.local_only);
        let known = known.chain(named.iter().map(|(document, _)| document));
        let decided = candidates.iter().filter_map(|call| match call {
            Call::LocalOnly { document, local_only, .. } => Some((document, *local_only)),
            Call::Life { .. } | Call::Commits(_) => None,
        });
        for document in known.chain(decided.clone().map(|(document, _)| document)) {
            let before = self.image.local_only.contains(document);
            expected.entry(document.clone()).or_default().insert(before);
        }
        for (document, local_only) in decided {
            expected.entry(document.clone()).or_default().insert(local_only);
        }
        for (document, expected) in expected {
            let found = real.store().and_then(|store| store.standing(&document)).map(|standing| standing.local_only);
            let explained = matches!(found, Ok(found) if expected.contains(&found));
            require(real.rotten || explained, "a start finds what was acknowledged", || {
                format!("{document} stays here: {found:?}, not {expected:?}")
            })?;
            self.image.set_local_only(&document, found.unwrap_or(true));
        }
        Ok(())
    }

    /// The stamp of a document's last change. No fault that waits is spent on asking.
    fn last_stamp(&mut self, document: &DocumentId) -> Checked<Stamp> {
        let Some(real) = &mut self.real else { return Ok(Stamp::ZERO) };
        let waiting = real.disk.take_fault();
        let summary = real.store().and_then(|store| store.summary(document));
        waiting.into_iter().for_each(|fault| real.disk.fail(fault));
        if let Ok(Some(summary)) = &summary {
            return Ok(summary.last_stamp);
        }
        require(real.rotten, "what was committed can be read", || format!("{document}: {summary:?}"))?;
        real.lost = true;
        Ok(Stamp::from_u64(self.image.highest.as_u64() + 1))
    }

    fn note_failures(&mut self) {
        self.has_failed |= self.real.as_ref().is_some_and(|real| real.has_failed() || real.rotten);
    }

    /// Reads for a hub; what comes back is what was committed, or an error that has a reason.
    pub(crate) fn read_real(
        &mut self,
        document: &DocumentId,
        what: &Load,
        hash_key: u64,
    ) -> Checked<Result<Loaded, StoreFailure>> {
        let Some(real) = &mut self.real else { return Ok(Err(failure("there is no store"))) };
        let loaded = real.load(document, what, hash_key);
        let wrong = match &loaded {
            Ok(loaded) => compare(&mut self.image, document, loaded).err(),
            Err(error) => {
                require(real.excuses(error), "reads fail for a reason", || error.to_string())?;
                real.lost |= real.rotten && is_damage(error);
                None
            }
        };
        if let Some(wrong) = &wrong {
            require(real.rotten && real.is_found(), "nothing is silently wrong", || format!("{document}: {wrong}"))?;
            real.lost = true;
        }
        self.note_failures();
        Ok(match (loaded, wrong) {
            (Ok(loaded), None) => Ok(loaded),
            (Ok(_), Some(wrong)) => Err(failure(&wrong)),
            (Err(error), _) => Err(failure(&error.to_string())),
        })
    }

    /// The store's own work; which document has a new snapshot, and of how many changes.
    pub(crate) fn work_real(&mut self, random: u64) -> Option<(DocumentId, u32)> {
        let done = self.real.as_mut()?.work(random);
        self.note_failures();
        done
    }

    /// The power goes, now or in the middle of something; then the machine starts again on what is left.
    pub(crate) fn power_cut_real(&mut self, random: u64, oracle: &Oracle) -> Checked {
        let mut stream = Stream::new(random, "power");
        let mut candidates: Vec<Call> = self.uncertain.drain(..).collect();
        let handed: Vec<Call> = if self.poisoned { Vec::new() } else { self.calls.drain(..).collect() };
        let Some(real) = &mut self.real else { return Ok(()) };
        let (cut, seed) = (stream.below(5), stream.next());
        real.armed = None;
        real.fail(FaultKind::Off, None, stream.below(OPERATIONS), true);
        let handed_over = stream.below(handed.len() as u64 + 1) as usize;
        let told = real.commit(&handed[..handed_over]);
        if told.is_empty() {
            real.work(stream.next());
        }
        let mut kept = Vec::new();
        for (call, (_, verdict)) in handed.into_iter().zip(told) {
            // What was told before the power went is a promise, though nobody heard it.
            if let Ok(life) = verdict {
                self.note_life(&call, life)?;
                kept.push(call);
            } else {
                candidates.push(call);
            }
        }
        self.take_in(&kept, oracle)?;
        let Some(real) = &mut self.real else { return Ok(()) };
        let retried = real.disk.touched_after_failure();
        require(retried == 0, "a failed sync is not tried again", || format!("{retried} operations after one"))?;
        let cut = match cut {
            0 => Some(Cut::Lost),
            1 => Some(Cut::Prefix(seed)),
            2 => Some(Cut::Scattered(seed)),
            // The power stays on, and only the process dies.
            _ => None,
        };
        if let Some(cut) = cut {
            let left = real.power_off(cut);
            real.disk.mend();
            real.insert(&left);
        } else {
            real.kill();
        }
        // Some starts find that the disk still fails.
        if stream.chance(2_000) {
            let kind = stream.one_of(&[FaultKind::Io, FaultKind::Io, FaultKind::Full, FaultKind::Torn]);
            real.fail(kind, None, stream.below(OPERATIONS), false);
        }
        self.start_real(&candidates, oracle)
    }

    /// The process is killed and starts again; the power stays.
    pub(crate) fn restart_process(&mut self, oracle: &Oracle) -> Checked {
        let candidates: Vec<Call> = self.uncertain.drain(..).collect();
        let Some(real) = &mut self.real else { return Ok(()) };
        real.kill();
        self.start_real(&candidates, oracle)
    }

    /// Starts the store on another disk: a copy that is older or somebody else's, or an empty one.
    pub(crate) fn replace_real(
        &mut self,
        files: &syncline_disk::Image,
        image: Image,
        candidates: &[Call],
        oracle: &Oracle,
    ) -> Checked {
        let Some(real) = &mut self.real else { return Ok(()) };
        let _ = real.power_off(Cut::Lost);
        real.disk.mend();
        (real.rotten, real.lost, real.whole) = (false, false, None);
        real.insert(files);
        self.image = image;
        self.start_real(candidates, oracle)
    }

    /// Opens the store: it holds what the image has, and of the calls that are in doubt the first so many.
    pub(crate) fn start_real(&mut self, candidates: &[Call], oracle: &Oracle) -> Checked {
        for attempt in 1..=STARTS {
            let Some(real) = &mut self.real else { return Ok(()) };
            let Err(error) = real.open() else { break };
            require(attempt < STARTS && real.excuses(&error), "a store starts", || error.to_string())?;
            if real.rotten && is_damage(&error) {
                return self.start_over(oracle);
            }
            real.disk.mend();
        }
        let Some(real) = &mut self.real else { return Ok(()) };
        let waiting = real.disk.take_fault();
        let checked = self.reconcile(candidates, oracle);
        if let (Some(fault), Some(real)) = (waiting, &self.real) {
            real.disk.fail(fault);
        }
        let wait = self.faults.stalled_until_ms;
        self.restart(None);
        self.faults.stalled_until_ms = wait;
        checked
    }

    /// The disk is damaged, and somebody noticed: the machine goes on with an empty one.
    fn start_over(&mut self, oracle: &Oracle) -> Checked {
        if let Some(real) = &mut self.real {
            real.went_back = true;
        }
        self.replace_real(&syncline_disk::Image::new(), Image::default(), &[], oracle)
    }

    fn reconcile(&mut self, candidates: &[Call], oracle: &Oracle) -> Checked {
        let Some(real) = &mut self.real else { return Ok(()) };
        if real.rotten && real.is_found() {
            return self.start_over(oracle);
        }
        let found = real.store().and_then(|store| {
            let mut lengths = BTreeMap::new();
            for (id, summary) in store.documents(None, usize::MAX)? {
                lengths.insert(id, summary.changes as usize);
            }
            // Those that are deleted are in no list.
            for (id, _) in store.lives(None, usize::MAX)? {
                let summary = store.standing(&id)?.summary;
                lengths.extend(summary.map(|summary| (id, summary.changes as usize)));
            }
            Ok((lengths, store.highest_stamp()))
        });
        let (found, highest): (BTreeMap<DocumentId, usize>, _) = match found {
            Ok(found) => found,
            Err(error) => return require(false, "a store that starts can be read", || error.to_string()),
        };
        let rotten = real.rotten;
        require(rotten || highest >= self.image.highest, "stamps increase through restarts", || {
            format!("{highest} after {}", self.image.highest)
        })?;
        // No hash covers the stamps.
        self.image.highest = self.image.highest.min(highest);
        self.find_lives(candidates)?;
        match self.explained(&found, candidates) {
            Some(calls) => self.take_in(&calls, oracle)?,
            None => {
                require(rotten, "a start finds what was acknowledged", || {
                    format!("{found:?}; acknowledged {:?}, {} calls in doubt", self.lengths(), candidates.len())
                })?;
                // Of a log with a damaged frame nothing after it is read: that is an older disk. If the same frame is
                // written again, what followed is there again.
                let fits = found.iter().all(|(id, length)| *length <= self.lengths().get(id).copied().unwrap_or(0));
                if let (Some(whole), false) = (self.real.as_mut().and_then(|real| real.whole.take()), fits) {
                    // What stands of the rest was found just now.
                    let now = std::mem::replace(&mut self.image, whole);
                    (self.image.lives, self.image.local_only) = (now.lives, now.local_only);
                }
                let stamp = self.image.highest;
                for (_, commit) in candidates.iter().flat_map(Call::commits) {
                    if self.image.continues(&[(0, commit.clone())]) {
                        for bytes in &commit.changes {
                            self.image.append(&commit.document, bytes.clone(), stamp, oracle)?;
                        }
                    }
                }
                let prefix = self.image.prefix(&found, oracle)?;
                let whole = std::mem::replace(&mut self.image, prefix);
                if let Some(real) = &mut self.real {
                    (real.went_back, real.whole) = (true, Some(whole));
                }
            }
        }
        self.check_all()
    }

    fn lengths(&self) -> BTreeMap<DocumentId, usize> {
        let stored = self.image.documents.iter();
        stored.map(|(id, stored)| (id.clone(), stored.changes.len())).filter(|(_, length)| *length > 0).collect()
    }

    /// The calls in doubt that must be there if the documents have these lengths.
    fn explained(&self, found: &BTreeMap<DocumentId, usize>, candidates: &[Call]) -> Option<Vec<Call>> {
        let mut lengths = self.lengths();
        let mut there = Vec::new();
        for call in candidates {
            if lengths == *found {
                return Some(there);
            }
            let mut after = lengths.clone();
            let continues = call.commits().iter().all(|(_, commit)| {
                let length = after.entry(commit.document.clone()).or_default();
                let continues = *length == commit.changes_before as usize;
                *length += commit.changes.len();
                continues
            });
            if continues {
                lengths = after;
                there.push(call.clone());
            }
        }
        (lengths == *found).then_some(there)
    }

    /// Every document reads as it was committed.
    pub(crate) fn check_all(&mut self) -> Checked {
        let Some(real) = &mut self.real else { return Ok(()) };
        for document in self.image.documents.keys().cloned().collect::<Vec<_>>() {
            for what in [Load::Summary, Load::Graph, Load::Payload] {
                let wrong = match real.load(&document, &what, 0) {
                    Ok(loaded) => compare(&mut self.image, &document, &loaded).err(),
                    Err(error) => Some(error.to_string()),
                };
                let Some(wrong) = wrong else { continue };
                require(real.rotten && real.is_found(), "what was committed can be read", || {
                    format!("{what:?} of {document}: {wrong}")
                })?;
                real.lost = true;
            }
        }
        Ok(())
    }

    /// The check finds nothing, unless there is something.
    pub(crate) fn check_file(&self) -> Checked {
        let Some(real) = &self.real else { return Ok(()) };
        let faults = real.check();
        let clean = matches!(&faults, Ok(faults) if faults.is_empty());
        require(clean || real.rotten, "the check is clean", || format!("{faults:?}"))
    }
}

impl Real {
    /// Whether the check finds that something is wrong; no fault that waits is spent on it.
    fn is_found(&self) -> bool {
        let waiting: Option<Fault> = self.disk.take_fault();
        let found = !matches!(self.check(), Ok(faults) if faults.is_empty());
        waiting.into_iter().for_each(|fault| self.disk.fail(fault));
        found
    }
}

/// Whether a record is what an update makes of the one before.
fn follows(before: Option<Life>, update: LifeUpdate, found: Life) -> bool {
    match update {
        LifeUpdate::Own { deleted } => Some(found) > before && found.deleted == deleted,
        LifeUpdate::Heard(heard) => Some(found) == before.max(Some(heard)),
    }
}

fn failure(message: &str) -> StoreFailure {
    StoreFailure { message: message.to_owned() }
}

fn is_damage(error: &StoreError) -> bool {
    !matches!(error, StoreError::DiskFull | StoreError::Io { .. } | StoreError::Poisoned { .. } | StoreError::Closed)
}

/// Compares what a read gave with what was committed.
fn compare(image: &mut Image, document: &DocumentId, loaded: &Loaded) -> Result<(), String> {
    let empty = Stored::default();
    let stored = image.documents.get(document).unwrap_or(&empty);
    let same = match loaded {
        Loaded::Graph(None) | Loaded::Payload(None) => stored.changes.is_empty(),
        Loaded::Summary(Standing { life, .. }) if *life != image.lives.get(document).copied() => false,
        Loaded::Summary(Standing { local_only, .. }) if *local_only != image.local_only.contains(document) => false,
        Loaded::Summary(Standing { summary: None, .. }) => stored.changes.is_empty(),
        Loaded::Summary(Standing { summary: Some(summary), .. }) => {
            let heads: Vec<ChangeHash> = stored.heads.iter().copied().collect();
            (summary.changes as usize, summary.bytes, &summary.heads) == (stored.changes.len(), stored.bytes(), &heads)
        }
        Loaded::Graph(Some(graph)) => {
            let hashes: Vec<ChangeHash> = (0..graph.len()).map(|node| graph.hash(node)).collect();
            hashes == stored.hash_order()
        }
        Loaded::Payload(Some(payload)) => {
            let covered = (payload.changes as usize).checked_sub(payload.tail.len()).ok_or("a tail too long")?;
            let tail = payload.tail.iter().map(|change| &change.bytes);
            let same = payload.changes as usize == stored.changes.len()
                && tail.eq(stored.changes[covered..].iter().map(|change| &change.bytes));
            let snapshot = payload.snapshot.as_ref();
            let known = snapshot.is_none_or(|snapshot| stored.snapshots.contains(snapshot));
            let whole = known || snapshot.is_some_and(|snapshot| holds(snapshot, &stored.hash_order()[..covered]));
            if let (Some(snapshot), true, false) = (snapshot, whole, known) {
                let stored = image.documents.entry(document.clone()).or_default();
                stored.snapshots.push(snapshot.clone());
            }
            same && whole && (covered == 0) == snapshot.is_none()
        }
        Loaded::Changes { changes, .. } => {
            changes.iter().all(|(hash, bytes)| stored.find(hash).as_ref() == Some(bytes))
        }
        // Nobody's are kept where the store that ships is played.
        Loaded::Owners { .. } => true,
    };
    if same {
        return Ok(());
    }
    let stored = image.documents.get(document).unwrap_or(&empty);
    Err(format!("{}; committed were {} changes, heads {:?}", describe(loaded), stored.changes.len(), stored.heads))
}

/// Whether a document chunk has these changes and no others.
fn holds(snapshot: &Bytes, hashes: &[ChangeHash]) -> bool {
    let Ok(document) = Automerge::load(snapshot) else { return false };
    let mut there: Vec<ChangeHash> = document.get_changes(&[]).iter().map(automerge::Change::hash).collect();
    let mut hashes = hashes.to_vec();
    there.sort_unstable();
    hashes.sort_unstable();
    there == hashes
}

fn describe(loaded: &Loaded) -> String {
    match loaded {
        Loaded::Summary(summary) => format!("the summary is {summary:?}"),
        Loaded::Graph(graph) => format!("the graph has {:?} changes", graph.as_ref().map(|graph| graph.len())),
        Loaded::Payload(payload) => format!("the payload has {:?} changes", payload.as_ref().map(|read| read.changes)),
        Loaded::Changes { changes, .. } => format!("{} changes, or other bytes", changes.len()),
        Loaded::Owners { owners, .. } => format!("{} owners", owners.len()),
    }
}

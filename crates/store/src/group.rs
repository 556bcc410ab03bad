//! One transaction in the making: what waits is checked, stamped and appended, and each caller told how it went.
//!
//! Owns: what stands or falls together, the checks of commits, stamps, the order within a transaction.
//! Must not: begin or end the transaction, or let anybody see it before it is durable; the writer does.
//! Next: `writer.rs`; docs/store.md, "What is durable when".

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use bytes::Bytes;
use rusqlite::Connection;
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_core::life::{Life, LifeUpdate};
use syncline_core::subject::Contribution;

use crate::cover::Incoming;
use crate::error::StoreError;
use crate::fold::Log;
use crate::life::{self, LifeEntry};
use crate::overlay::State;
use crate::record::LogRow;
use crate::schema::{CHANGES_MAX, DocumentRow};
use crate::store::selection::Note;
use crate::subject::GivenBack;
use crate::writer::Shared;

/// Called once per commit, from the writer thread, in the order of commits.
pub(crate) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Called once per life record, from the writer thread, in the same order.
pub(crate) type LifeDone = Box<dyn FnOnce(Result<Life, StoreError>) + Send>;

/// Changes after which a transaction takes no further commit in.
const GROUP_CHANGES_MAX: usize = 16 * 1024;

/// Bytes of changes after which a transaction takes no further commit in.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What succeeds or fails as one.
pub(crate) enum Unit {
    Commits {
        commits: Vec<Incoming>,
        done: Done,
    },
    Life {
        document: DocumentId,
        update: LifeUpdate,
        done: LifeDone,
    },
    Note {
        note: Note,
        done: Done,
    },
    /// A document begins anew with these changes. Nothing else is in the same transaction.
    Replace {
        commit: Incoming,
        done: Done,
    },
}

/// What became of a unit that the transaction took in or turned away.
pub(crate) enum Verdict {
    Commits(Result<(), StoreError>),
    Life(Life),
}

impl Unit {
    pub(crate) fn commits(&self) -> &[Incoming] {
        match self {
            Self::Commits { commits, .. } => commits,
            Self::Replace { commit, .. } => std::slice::from_ref(commit),
            Self::Life { .. } | Self::Note { .. } => &[],
        }
    }

    pub(crate) fn fail(self, error: StoreError) {
        match self {
            Self::Commits { done, .. } | Self::Replace { done, .. } | Self::Note { done, .. } => {
                tell(|| done(Err(error)));
            }
            Self::Life { done, .. } => tell(|| done(Err(error))),
        }
    }

    pub(crate) fn succeed(self, verdict: Verdict) {
        match (self, verdict) {
            (
                Self::Commits { done, .. } | Self::Replace { done, .. } | Self::Note { done, .. },
                Verdict::Commits(result),
            ) => tell(|| done(result)),
            (Self::Life { done, .. }, Verdict::Life(life)) => tell(|| done(Ok(life))),
            (unit, _) => unit.fail(StoreError::Closed),
        }
    }
}

/// One transaction in the making.
#[derive(Default)]
pub(crate) struct Group {
    pub documents: HashMap<DocumentId, Pending>,
    pub wall_ms: u64,
    pub next_seq: i64,
    pub rows: usize,
    pub bytes: usize,
    /// Documents whose record has changed, and when that was noted.
    pub lives: Vec<(DocumentId, Stamp)>,
    /// Some record says that its document is deleted.
    pub deleted: bool,
    /// A document that began anew, and whether there was one before.
    pub replaced: Option<(DocumentId, bool)>,
    /// Who brought what is in it, as far as that is kept.
    pub contributions: BTreeMap<DocumentId, Vec<Contribution>>,
    /// What subjects had stored in a document that began anew.
    pub given_back: GivenBack,
}

/// A document in this transaction.
pub(crate) struct Pending {
    /// The document before the transaction.
    pub base: State,
    pub rows: Vec<LogRow>,
    /// Changes with those of this transaction.
    pub changes: u32,
}

impl Group {
    /// Whether every commit of the unit continues its document as it will be then.
    pub(crate) fn check(
        &mut self,
        read: &Connection,
        shared: &Shared,
        commits: &[Incoming],
    ) -> rusqlite::Result<Result<(), StoreError>> {
        let mut ahead: HashMap<&DocumentId, u32> = HashMap::new();
        for Incoming { commit, .. } in commits {
            if let Err(damaged) = shared.expect_sound(&commit.document) {
                return Ok(Err(damaged));
            }
            let found = match ahead.get(&commit.document) {
                Some(changes) => *changes,
                None => self.pending(read, shared, &commit.document)?.changes,
            };
            if found != commit.changes_before {
                let (document, expected) = (commit.document.clone(), commit.changes_before);
                return Ok(Err(StoreError::Stale { document, found, expected }));
            }
            let after = u32::try_from(commit.changes.len()).ok().and_then(|count| found.checked_add(count));
            let Some(after) = after.filter(|after| *after <= CHANGES_MAX) else {
                return Ok(Err(StoreError::TooManyChanges { document: commit.document.clone() }));
            };
            ahead.insert(&commit.document, after);
        }
        Ok(Ok(()))
    }

    /// Stamps the unit's changes and appends them to the log.
    pub(crate) fn append(&mut self, write: &Connection, shared: &Shared, commits: &[Incoming]) -> rusqlite::Result<()> {
        let mut statement =
            write.prepare_cached("INSERT INTO log (seq, document, kind, data) VALUES (?1, ?2, ?3, ?4)")?;
        for incoming in commits.iter().filter(|incoming| !incoming.commit.changes.is_empty()) {
            let commit = &incoming.commit;
            // Whoever speaks with a peer reads the clock as well, and must not wait for the disk.
            let mut clock = shared.clock.lock().unwrap_or_else(PoisonError::into_inner);
            let stamps: Vec<Stamp> = commit.changes.iter().map(|_| clock.tick(self.wall_ms)).collect();
            drop(clock);
            let (kind, data, row) = incoming.encode(&stamps);
            statement.execute((self.next_seq, commit.document.as_bytes(), kind, &data[..]))?;
            if !commit.contributions.is_empty() {
                let kept = self.contributions.entry(commit.document.clone()).or_default();
                kept.extend_from_slice(&commit.contributions);
            }
            self.next_seq += 1;
            self.rows += 1;
            self.bytes += data.len();
            if let Some(pending) = self.documents.get_mut(&commit.document) {
                pending.changes = row.after();
                pending.rows.push(row);
            }
        }
        Ok(())
    }

    /// Takes a document away and puts another history in its place.
    pub(crate) fn replace(
        &mut self,
        write: &Connection,
        shared: &Shared,
        log: &Log,
        incoming: &Incoming,
    ) -> rusqlite::Result<Result<(), StoreError>> {
        let id = &incoming.commit.document;
        let pending = Pending { base: State::empty(), rows: Vec::new(), changes: 0 };
        self.documents.insert(id.clone(), pending);
        let verdict = self.check(write, shared, std::slice::from_ref(incoming))?;
        if verdict.is_ok() {
            let unfolded = shared.overlay.read().unwrap_or_else(PoisonError::into_inner).find(id).is_some();
            let (existed, given_back) = life::remove_document(write, id, log)?;
            let existed = existed || unfolded;
            self.given_back = given_back;
            self.append(write, shared, std::slice::from_ref(incoming))?;
            self.replaced = Some((id.clone(), existed));
        }
        Ok(verdict)
    }

    /// Puts the record in place that stands, and returns it.
    pub(crate) fn set_life(
        &mut self,
        write: &Connection,
        shared: &Shared,
        document: &DocumentId,
        update: LifeUpdate,
    ) -> rusqlite::Result<Life> {
        // One that is damaged is replaced as if there were none.
        let entry = LifeEntry::find_row(write, document)?.flatten();
        let before = entry.map(|entry| entry.life);
        let mut clock = shared.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let LifeUpdate::Heard(heard) = update
            && let Err(ahead) = clock.observe(heard.stamp, self.wall_ms)
        {
            tracing::warn!(%document, "the stamp of a life record is not followed: {ahead}");
        }
        let own = |deleted| Life::own(before, clock.tick(self.wall_ms), shared.replica, deleted);
        let life = Life::after(before, update, own);
        if before != Some(life) {
            let noted = clock.tick(self.wall_ms);
            let purged = life.deleted && entry.is_some_and(|entry| entry.purged);
            LifeEntry { life, noted_ms: self.wall_ms, noted, purged }.write(write, document)?;
            self.lives.push((document.clone(), noted));
        }
        self.deleted |= life.deleted;
        Ok(life)
    }

    pub(crate) fn pending(
        &mut self,
        read: &Connection,
        shared: &Shared,
        id: &DocumentId,
    ) -> rusqlite::Result<&Pending> {
        if !self.documents.contains_key(id) {
            let overlay = shared.overlay.read().unwrap_or_else(PoisonError::into_inner);
            let unfolded = overlay.find(id).map(|unfolded| unfolded.state.clone());
            drop(overlay);
            let base = match unfolded {
                Some(state) => state,
                None => DocumentRow::find(read, id.as_bytes())?.map_or_else(State::empty, State::from),
            };
            let changes = base.changes;
            self.documents.insert(id.clone(), Pending { base, rows: Vec::new(), changes });
        }
        Ok(&self.documents[id])
    }
}

/// Takes commits from the front until a transaction is full; at least one.
pub(crate) fn take_group(units: &mut VecDeque<Unit>) -> Vec<Unit> {
    let (mut changes, mut bytes) = (0, 0);
    let mut group = Vec::new();
    while changes < GROUP_CHANGES_MAX && bytes < GROUP_BYTES_MAX {
        if matches!(units.front(), Some(Unit::Replace { .. })) {
            if group.is_empty() {
                group.extend(units.pop_front());
            }
            break;
        }
        let Some(unit) = units.pop_front() else { break };
        changes += unit.commits().iter().map(|incoming| incoming.commit.changes.len()).sum::<usize>().max(1);
        bytes += unit.commits().iter().flat_map(|incoming| &incoming.commit.changes).map(Bytes::len).sum::<usize>();
        group.push(unit);
    }
    group
}

/// A panic in a caller's callback must not take the store down with it.
pub(crate) fn tell(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("a callback of the store panicked");
    }
}

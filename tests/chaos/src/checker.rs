//! The verdict over a history: what a server promised against what it had.
//!
//! Owns: the rules. Must not: know how a history came about, or ask anybody.
//! Next: `history.rs`; docs/chaos.md, "The checker".

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;

use crate::history::{ClientId, DocumentId, Event, Lineage};

type Changes = BTreeSet<ChangeHash>;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A change that this server had acknowledged was not there.
    Lost(Lineage, DocumentId, ChangeHash),
    /// A change that nobody made was there.
    Phantom(Lineage, DocumentId, ChangeHash),
    /// A change came twice in one answer.
    Duplicate(Lineage, DocumentId, ChangeHash),
    /// A change was kept of a client that knew its token to have expired.
    Forbidden(Lineage, DocumentId, ChangeHash),
    /// A server names a head that it does not send.
    HeadWithoutChange(Lineage, DocumentId, ChangeHash),
    /// After everything was mended, this change had not reached everybody.
    NeverArrived(DocumentId, ChangeHash),
    /// After everything was mended, heads differ.
    Diverged(DocumentId),
    /// `syncline-server check` found faults.
    CheckFailed(Lineage, String),
}

/// Judges one history. It carries over from epoch to epoch what concerns servers, and forgets the documents.
#[derive(Debug, Default)]
pub struct Checker {
    invoked: BTreeMap<DocumentId, Changes>,
    /// What each server has acknowledged and must keep.
    promised: BTreeMap<(Lineage, DocumentId), Changes>,
    /// What it had to keep when its directory was copied.
    copies: BTreeMap<Lineage, BTreeMap<DocumentId, Changes>>,
    /// The heads that were seen since everybody was given time to agree.
    heads: BTreeMap<DocumentId, BTreeSet<Vec<ChangeHash>>>,
    /// What was fetched since then.
    fetched: BTreeMap<DocumentId, Vec<Changes>>,
    /// Whose token has expired.
    expired: BTreeSet<ClientId>,
    /// What they have made since.
    forbidden: Changes,
    violations: Vec<Violation>,
    counts: Counts,
}

/// How much was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes made.
    pub invoked: u64,
    /// Changes acknowledged.
    pub acknowledged: u64,
    /// Documents fetched by a client that had nothing.
    pub reads: u64,
    /// Runs of `syncline-server check`.
    pub checks: u64,
}

impl Checker {
    /// Takes the next events in.
    pub fn observe(&mut self, events: &[Event]) {
        events.iter().for_each(|event| self.take(event));
    }

    /// What was broken so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How much was checked so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Invoke { client, document, hash } => {
                self.counts.invoked += 1;
                if self.expired.contains(client) {
                    self.forbidden.insert(*hash);
                }
                self.invoked.entry(*document).or_default().insert(*hash);
            }
            Event::Ok { lineage, document, hash, .. } => {
                self.counts.acknowledged += 1;
                if self.forbidden.contains(hash) {
                    self.violations.push(Violation::Forbidden(*lineage, *document, *hash));
                }
                self.promised.entry((*lineage, *document)).or_default().insert(*hash);
            }
            Event::Expired { client } => {
                self.expired.insert(*client);
            }
            Event::Renewed => {
                self.expired.clear();
                self.forbidden.clear();
            }
            Event::Read { lineage, document, hashes, heads } => self.read(*lineage, *document, hashes, heads),
            Event::Rest { document, heads, .. } => {
                self.heads.entry(*document).or_default().insert(sorted(heads));
            }
            Event::Copied { lineage } => {
                let kept = self.promises_of(*lineage);
                self.copies.insert(*lineage, kept);
            }
            Event::Restored { lineage } => {
                // Whoever restores an older copy takes back what was acknowledged after it.
                self.promised.retain(|(whose, _), _| whose != lineage);
                self.owe(*lineage, &self.copies.get(lineage).cloned().unwrap_or_default());
            }
            Event::Cloned { from, to } => {
                self.promised.retain(|(whose, _), _| whose != to);
                self.owe(*to, &self.copies.get(from).cloned().unwrap_or_default());
            }
            Event::Check { lineage, faults } => {
                self.counts.checks += 1;
                let failed = faults.iter().map(|faults| Violation::CheckFailed(*lineage, faults.clone()));
                self.violations.extend(failed);
            }
            Event::Settled => {
                self.heads.clear();
                self.fetched.clear();
            }
            Event::Epoch => self.end_epoch(),
            Event::Fail { .. } | Event::Fault { .. } => {}
        }
    }

    fn read(&mut self, lineage: Lineage, document: DocumentId, hashes: &[ChangeHash], heads: &[ChangeHash]) {
        self.counts.reads += 1;
        let mut found = Changes::new();
        for hash in hashes {
            if !found.insert(*hash) {
                self.violations.push(Violation::Duplicate(lineage, document, *hash));
            }
        }
        let nothing = Changes::new();
        let invoked = self.invoked.get(&document).unwrap_or(&nothing);
        let promised = self.promised.get(&(lineage, document)).unwrap_or(&nothing);
        let lost = promised.difference(&found).map(|hash| Violation::Lost(lineage, document, *hash));
        let phantom = found.difference(invoked).map(|hash| Violation::Phantom(lineage, document, *hash));
        let hollow = heads.iter().filter(|head| !found.contains(head));
        let hollow = hollow.map(|head| Violation::HeadWithoutChange(lineage, document, *head));
        let forbidden = self.forbidden.intersection(&found);
        let forbidden = forbidden.map(|hash| Violation::Forbidden(lineage, document, *hash));
        self.violations.extend(lost.chain(phantom).chain(hollow).chain(forbidden));
        // What a server was seen to have it must keep as well: others may have seen it.
        self.promised.entry((lineage, document)).or_default().extend(found.iter().copied());
        self.heads.entry(document).or_default().insert(sorted(heads));
        self.fetched.entry(document).or_default().push(found);
    }

    /// Whatever was seen since everybody was given time to agree must be the same, and all there is.
    fn end_epoch(&mut self) {
        for (document, invoked) in std::mem::take(&mut self.invoked) {
            if self.heads.get(&document).is_none_or(|heads| heads.len() != 1) {
                self.violations.push(Violation::Diverged(document));
            }
            let fetched = self.fetched.remove(&document).unwrap_or_default();
            let everywhere =
                |hash: &&ChangeHash| !fetched.is_empty() && fetched.iter().all(|found| found.contains(*hash));
            let absent = invoked.iter().filter(|hash| !everywhere(hash));
            self.violations.extend(absent.map(|hash| Violation::NeverArrived(document, *hash)));
        }
        self.promised.clear();
        self.copies.clear();
        self.heads.clear();
        self.fetched.clear();
    }

    fn promises_of(&self, lineage: Lineage) -> BTreeMap<DocumentId, Changes> {
        let mine = self.promised.iter().filter(|((whose, _), _)| *whose == lineage);
        mine.map(|((_, document), changes)| (*document, changes.clone())).collect()
    }

    fn owe(&mut self, lineage: Lineage, promises: &BTreeMap<DocumentId, Changes>) {
        let promises = promises.iter().map(|(document, changes)| ((lineage, *document), changes.clone()));
        self.promised.extend(promises);
    }
}

fn sorted(heads: &[ChangeHash]) -> Vec<ChangeHash> {
    let mut heads = heads.to_vec();
    heads.sort_unstable();
    heads
}

#[cfg(test)]
mod tests;

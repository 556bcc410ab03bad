//! What must hold once everything is mended: all agree, nothing that was promised is lost, and then there is silence.
//!
//! Owns: the end of every scenario. Must not: mend what the code should mend itself: it ends faults and dials, no more.
//! Next: `../oracle.rs`.

use std::collections::BTreeSet;

use automerge::ChangeHash;
use syncline_core::hub::Input;

use super::World;
use super::link::accepted;
use crate::content::{self, Content};
use crate::disk::Faults;
use crate::oracle::{Checked, require};

/// Deliveries within which everybody must agree.
const DELIVERIES_MAX: u64 = 20_000;

/// One pause while waiting for silence: longer than any wait of the protocol.
const PAUSE_MS: u64 = 5_000;

/// Simulated time within which there must be silence.
const SILENCE_WITHIN_MS: u64 = 180_000;

impl World {
    /// Ends all faults, lets everybody talk, and checks the end.
    pub(crate) fn settle(&mut self) -> Checked {
        self.log.say(|| "settling".to_owned());
        self.end_faults()?;
        let before: Vec<BTreeSet<ChangeHash>> = (0..self.documents.len()).map(|d| self.everything(d)).collect();
        let lives = self.greatest_lives();
        self.talk_until_silence()?;
        if self.release_all()? {
            self.log.say(|| "nothing is withheld any more".to_owned());
            self.talk_until_silence()?;
        }
        self.check_lives(&lives)?;
        if self.restore_all()? {
            self.log.say(|| "everything is restored".to_owned());
            self.talk_until_silence()?;
            self.check_lives(&lives)?;
        }
        for (document, held) in before.iter().enumerate() {
            self.check_agreement(document, held)?;
        }
        (0..self.machines.len()).try_for_each(|machine| self.check_promises_of(machine))?;
        self.check_sets()?;
        self.check_subject_finally()?;
        self.check_silence()?;
        self.check_memory()?;
        self.check_disks()
    }

    fn end_faults(&mut self) -> Checked {
        self.unclog();
        self.end_restrictions()?;
        if let Some(link) = self.hostile.link {
            self.cut(link)?;
        }
        let half_open: Vec<u64> = self.links.iter().filter(|(_, link)| link.half_open).map(|(n, _)| *n).collect();
        for link in half_open {
            self.drop_end(accepted(link))?;
        }
        for machine in 0..self.machines.len() {
            let machine_ = &mut self.machines[machine];
            machine_.disk.faults = Faults::default();
            (machine_.clocks.frozen, machine_.clocks.rate_percent) = (false, 100);
            if machine_.disk.poisoned {
                self.power_cut(machine, 0)?;
            }
        }
        self.mend_disks()
    }

    /// Every change of a document that is anywhere.
    fn everything(&mut self, document: usize) -> BTreeSet<ChangeHash> {
        let id = &self.documents[document];
        let stored = self.machines.iter().filter_map(|machine| machine.disk.image.documents.get(id));
        let mut all: BTreeSet<ChangeHash> = stored.flat_map(|stored| stored.hashes.iter().copied()).collect();
        let apps = self.machines.iter_mut().filter_map(|machine| machine.app.as_mut());
        apps.for_each(|app| all.extend(app.documents[document].content.hashes()));
        self.clients.iter_mut().for_each(|client| all.extend(client.documents[document].content.hashes()));
        all
    }

    fn dial_all(&mut self) {
        (0..self.machines.len()).for_each(|machine| self.dial_machine(machine));
        (0..self.clients.len()).for_each(|client| self.dial_client(client));
    }

    fn written(&self) -> u64 {
        self.next_link + self.links.values().map(|link| link.written).sum::<u64>()
    }

    fn talk_until_silence(&mut self) -> Checked {
        let mut started_ms = self.now_ms;
        let (mut quiet_pauses, mut passes) = (0, Vec::new());
        for turn in 0..DELIVERIES_MAX {
            self.dial_all();
            if self.deliver(turn.wrapping_mul(0x9e37_79b9))? {
                continue;
            }
            let before = self.written();
            self.advance(PAUSE_MS)?;
            let silent = self.written() == before && self.under_way().is_empty() && !self.is_retrying();
            quiet_pauses = if silent { quiet_pauses + 1 } else { 0 };
            // What could not be read is read again after up to 64 s.
            let failed = self.machines.iter().any(|machine| machine.disk.has_failed);
            if quiet_pauses == if failed { 15 } else { 2 } {
                if !self.compare_everywhere(&mut passes)? {
                    return Ok(());
                }
                (quiet_pauses, started_ms) = (0, self.now_ms);
            }
            require(self.now_ms - started_ms < SILENCE_WITHIN_MS, "agreement within bounded time", || {
                format!("still talking after {SILENCE_WITHIN_MS} ms")
            })?;
        }
        require(false, "agreement within bounded work", || format!("still talking after {DELIVERIES_MAX} deliveries"))
    }

    fn is_retrying(&self) -> bool {
        let apps = self.machines.iter().filter_map(|machine| machine.app.as_ref());
        apps.flat_map(|app| &app.documents).any(|open| open.retry_at_ms.is_some())
    }

    fn check_agreement(&mut self, document: usize, held: &BTreeSet<ChangeHash>) -> Checked {
        let all = self.everything(document);
        let heads: Vec<ChangeHash> = self.oracle.heads_of(&all).into_iter().collect();
        let closed = self.oracle.closure(&heads);
        require(closed == all && held.is_subset(&all), "nothing that somebody holds is lost", || {
            format!("document {document}: {} changes, {} reachable, {} before", all.len(), closed.len(), held.len())
        })?;
        let id = self.documents[document].clone();
        for machine in &self.machines {
            let stored = machine.disk.image.documents.get(&id).map(|stored| &stored.hashes);
            let same = stored.map_or(all.is_empty(), |stored| *stored == all);
            require(same, "all hold the same changes", || {
                let missing = all.iter().filter(|hash| !stored.is_some_and(|stored| stored.contains(hash))).count();
                format!("machine {} lacks {missing} of document {document}", machine.number)
            })?;
        }
        let apps = self.machines.iter_mut().filter_map(|machine| {
            let number = machine.number;
            Some((format!("machine {number}"), &mut machine.app.as_mut()?.documents[document].content))
        });
        let clients = self.clients.iter_mut().map(|client| (client.name(), &mut client.documents[document].content));
        for (name, content) in apps.chain(clients) {
            let theirs = content.heads();
            require(theirs == heads, "all have the same heads", || {
                format!("{name} has {theirs:?} of document {document}, the set of changes {heads:?}")
            })?;
        }
        for client in &self.clients {
            let acknowledged = client.documents[document].state.their_heads();
            require(acknowledged.unwrap_or_default() == heads, "everybody knows that all agree", || {
                format!("{} takes its server to have {acknowledged:?}, not {heads:?}", client.name())
            })?;
        }
        self.check_values(document)
    }

    /// Replays what the first machine stores through automerge: every client must show the same values.
    fn check_values(&mut self, document: usize) -> Checked {
        let Some(stored) = self.machines[0].disk.image.documents.get(&self.documents[document]) else { return Ok(()) };
        let Content::Real(_) = &self.clients[0].documents[document].content else { return Ok(()) };
        let changes = stored.changes.iter().map(|change| automerge::Change::try_from(&change.bytes[..]));
        let Ok(changes) = changes.collect::<Result<Vec<_>, _>>() else {
            return require(false, "values are equal", || "a stored change is not readable".to_owned());
        };
        let replayed = content::canonical(changes.clone());
        let theirs = self.clients[0].documents[document].content.canonical();
        require(replayed == theirs, "canonical bytes are equal", || format!("document {document}"))?;
        let mut naive = automerge::Automerge::new();
        let applied = naive.apply_changes(changes).is_ok();
        let values = applied.then(|| naive.hydrate(None));
        for client in &mut self.clients {
            let Content::Real(document) = &mut client.documents[document].content else { continue };
            let theirs = document.document().hydrate(None);
            require(values.as_ref() == Some(&theirs), "values are equal", || {
                format!("client {} differs", client.number)
            })?;
        }
        Ok(())
    }

    pub(super) fn check_promises_of(&self, machine: usize) -> Checked {
        let nothing = BTreeSet::new();
        (0..self.documents.len()).try_for_each(|document| {
            let stored = self.machines[machine].disk.image.documents.get(&self.documents[document]);
            self.oracle.check_promises(machine, document, stored.map_or(&nothing, |stored| &stored.hashes))
        })
    }

    fn check_silence(&mut self) -> Checked {
        let before = self.written();
        for _ in 0..4 {
            self.advance(60_000)?;
        }
        require(self.written() == before && self.under_way().is_empty(), "agreement is silent", || {
            format!("{:?} after everybody agreed", self.under_way())
        })
    }

    /// Nobody is there, nothing is watched, and time passes: nothing may be left in memory.
    fn check_memory(&mut self) -> Checked {
        let links: Vec<u64> = self.links.keys().copied().collect();
        links.into_iter().try_for_each(|link| self.cut(link))?;
        for machine in 0..self.machines.len() {
            let watched = if self.machines[machine].app.is_some() { self.documents.clone() } else { Vec::new() };
            for document in watched {
                self.input(machine, Input::Unwatch { document })?;
            }
        }
        for _ in 0..4 {
            self.advance(31_000)?;
        }
        for machine in &self.machines {
            let footprint = machine.hub.footprint();
            let messages = std::sync::Arc::strong_count(&machine.receipts) - 1;
            require(messages == 0, "every message is dealt with", || {
                format!("{messages} are held on machine {}", machine.number)
            })?;
            require(footprint == (0, 0, 0), "memory comes back", || {
                format!("{footprint:?} on machine {}", machine.number)
            })?;
        }
        Ok(())
    }
}

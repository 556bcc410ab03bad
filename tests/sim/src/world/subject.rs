//! What a subject does in a world: its beginning, its actions, its checks.
//!
//! Owns: putting the first change everywhere, the lines of the story. Must not: choose who acts.
//! Next: `../subject.rs`, `act.rs`, `local.rs`.

use std::collections::BTreeSet;

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::clock::Clock;
use syncline_core::storage::Commit;

use super::World;
use crate::content::Content;
use crate::disk::Call;
use crate::oracle::{Checked, Made, Violation};

fn broken(detail: String) -> Violation {
    Violation { checker: "actions succeed", detail }
}

impl World {
    /// Every replica has the change that the document begins with, on its disk and in its hands.
    pub(super) fn begin_subject(&mut self) -> Checked {
        let Some(subject) = self.subject.clone() else { return Ok(()) };
        for document in 0..self.documents.len() {
            let mut content = Content::new(self.tier, &[document as u8 + 1; 16]);
            let Content::Real(automerge) = &mut content else { continue };
            let Some(change) = subject.begin(automerge).map_err(broken)? else { continue };
            self.oracle.make(change.hash(), Made { deps: Vec::new(), max_op: change.max_op() });
            let bytes = Bytes::copy_from_slice(change.raw_bytes());
            for machine in 0..self.machines.len() {
                self.begin_on_disk(machine, document, &bytes, change.hash())?;
            }
            for client in &mut self.clients {
                let own = client.fresh_actor();
                client.documents[document].content = content.clone();
                client.documents[document].content.set_actor(&own);
            }
        }
        Ok(())
    }

    fn begin_on_disk(&mut self, machine: usize, document: usize, bytes: &Bytes, hash: ChangeHash) -> Checked {
        let Self { machines, documents, oracle, .. } = self;
        let (machine, document) = (&mut machines[machine], documents[document].clone());
        if machine.disk.real.is_some() {
            let (changes, heads) = (vec![bytes.clone()], vec![hash]);
            machine.disk.submit(Call::Commits(vec![(
                0,
                Commit { document, changes, heads, changes_before: 0, snapshot: None, contributions: Vec::new() },
            )]));
            machine.disk.sync_real(1, oracle)?;
            return machine.disk.restart_process(oracle);
        }
        let image = &mut machine.disk.image;
        let stamp = Clock::new(image.highest, std::time::Duration::from_secs(60)).tick(machine.clocks.wall_ms);
        image.append(&document, bytes.clone(), stamp, oracle)?;
        let (changes, heads) = (vec![bytes.clone()], vec![hash]);
        image.end_commit(&Commit {
            document,
            changes,
            heads,
            changes_before: 0,
            snapshot: None,
            contributions: Vec::new(),
        })?;
        let image = std::mem::take(image);
        machine.disk.restart(Some(image));
        Ok(())
    }

    /// Writes an action into the story; what it changed.
    pub(super) fn note_act(
        &mut self,
        name: &str,
        acted: Result<Option<(Bytes, String)>, String>,
    ) -> Checked<Option<Bytes>> {
        let acted = acted.map_err(|error| broken(format!("{name}: {error}")))?;
        self.log.say(|| {
            let deed = acted.as_ref().map_or("nothing", |(_, deed)| deed);
            format!("{name} does: {deed}")
        });
        Ok(acted.map(|(bytes, _)| bytes))
    }

    pub(super) fn check_subject_always(&mut self) -> Checked {
        let Some(subject) = self.subject.clone().filter(|subject| !subject.always.is_empty()) else { return Ok(()) };
        for client in &mut self.clients {
            let name = client.name();
            for open in &mut client.documents {
                let Content::Real(automerge) = &mut open.content else { continue };
                subject.check_always(&name, automerge.document())?;
            }
        }
        for machine in &mut self.machines {
            let name = format!("machine {}", machine.number);
            for open in machine.app.iter_mut().flat_map(|app| &mut app.documents) {
                let Content::Real(automerge) = &mut open.content else { continue };
                subject.check_always(&name, automerge.document())?;
            }
        }
        Ok(())
    }

    /// All agree: one replica's document is everybody's.
    pub(super) fn check_subject_finally(&mut self) -> Checked {
        let Some(subject) = self.subject.clone() else { return Ok(()) };
        self.check_subject_always()?;
        for document in 0..self.documents.len() {
            let content = &mut self.clients[0].documents[document].content;
            let hashes: BTreeSet<ChangeHash> = content.hashes();
            let Content::Real(automerge) = content else { continue };
            subject.check_finally(automerge.document(), &self.oracle.deeds_of(&hashes))?;
        }
        Ok(())
    }
}

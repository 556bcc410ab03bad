//! Documents that are deleted, restored and purged, or that stay on a machine, and what must hold of that.
//!
//! Owns: the decisions of machines' owners, what a hub has been told of them, the checks of both.
//! Must not: decide which record stands. Next: `../disk.rs`, `hub.rs`; docs/deletion.md.

use std::collections::BTreeMap;

use syncline_core::hub::{Input, Loaded};
use syncline_core::id::DocumentId;
use syncline_core::life::Life;

use super::World;
use crate::action::Kind;
use crate::client::machine_actor;
use crate::content::Content;
use crate::machine::Machine;
use crate::oracle::{Checked, require};

/// Tickets of decisions, apart from those of local changes.
const FIRST_TICKET: u64 = 1 << 32;

impl World {
    /// Whoever a machine belongs to deletes a document or restores it; or the grace period is over, where it is deleted.
    pub(super) fn decide(&mut self, kind: Kind, machine: usize, document: usize) -> Checked {
        if kind == Kind::Purge {
            let deleted = |machine: &&Machine| machine.disk.image.is_deleted(&self.documents[document]);
            let (before, after) = self.machines.split_at(machine);
            let Some(machine) = after.iter().chain(before).find(deleted) else { return Ok(()) };
            return self.purge(machine.number, document);
        }
        self.met(kind, machine);
        if let Kind::Withhold | Kind::Release = kind {
            return self.set_local_only(machine, document, kind == Kind::Withhold);
        }
        self.set_life(machine, document, kind == Kind::Delete)
    }

    fn set_local_only(&mut self, machine: usize, document: usize, local_only: bool) -> Checked {
        self.decisions += 1;
        let ticket = FIRST_TICKET + self.decisions;
        self.input(machine, Input::SetLocalOnly { document: self.documents[document].clone(), local_only, ticket })
    }

    /// Lets every document go that stays on its machine. Returns whether there was any.
    pub(super) fn release_all(&mut self) -> Checked<bool> {
        let mut any = false;
        for machine in 0..self.machines.len() {
            for document in 0..self.documents.len() {
                if self.machines[machine].disk.image.local_only.contains(&self.documents[document]) {
                    self.set_local_only(machine, document, false)?;
                    any = true;
                }
            }
        }
        Ok(any)
    }

    fn set_life(&mut self, machine: usize, document: usize, deleted: bool) -> Checked {
        self.decisions += 1;
        let ticket = FIRST_TICKET + self.decisions;
        self.input(machine, Input::SetLife { document: self.documents[document].clone(), deleted, ticket })
    }

    /// The store of a machine forgets what is in a deleted document. An application has it open no more by then.
    fn purge(&mut self, machine: usize, document: usize) -> Checked {
        let id = self.documents[document].clone();
        let machine_ = &mut self.machines[machine];
        let image = &mut machine_.disk.image;
        let unsaved = machine_.app.as_ref().is_some_and(|app| app.documents[document].journal.unsaved() > 0);
        if !image.is_deleted(&id) || unsaved || image.documents.remove(&id).is_none() {
            return Ok(());
        }
        image.subjects.purge(&id);
        machine_.purges += 1;
        machine_.purged.insert(document);
        for connection in machine_.connections.values_mut() {
            connection.announced.remove(&document);
        }
        if let Some(app) = &mut machine_.app {
            let actor = machine_actor(machine, machine_.purges << 32 | machine_.starts);
            app.documents[document].content = Content::new(self.tier, &actor);
            app.documents[document].saved.clear();
            app.documents[document].undoable.clear();
        }
        // The store's writer tells of it, after all that it told before.
        machine_.disk.finished.push_back(vec![Input::Purged { document: id }]);
        self.oracle.release_document(machine, document);
        self.met(Kind::Purge, machine);
        Ok(())
    }

    /// Notes what a hub is about to be told of a document's life.
    pub(super) fn life_told(&mut self, machine: usize, input: &Input) {
        self.local_only_told(machine, input);
        #[expect(clippy::wildcard_enum_match_arm, reason = "two of the inputs say whether a document is deleted")]
        let (id, deleted) = match input {
            Input::LifeSet { document, life, .. } => (document, life.deleted),
            Input::Loaded { document, loaded: Loaded::Summary(standing) } => {
                (document, standing.life.is_some_and(|life| life.deleted))
            }
            _ => return,
        };
        let Some(document) = self.documents.iter().position(|own| own == id) else { return };
        let machine_ = &mut self.machines[machine];
        if deleted {
            machine_.knows_deleted.insert(document);
        } else if machine_.knows_deleted.remove(&document) {
            // Conversations about it begin anew.
            for connection in machine_.connections.values_mut() {
                connection.sent.retain(|(other, _), _| *other != document);
            }
        }
    }

    fn local_only_told(&mut self, machine: usize, input: &Input) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "two of the inputs say whether a document stays here")]
        let (id, local_only) = match input {
            // Such decisions follow one another.
            Input::LocalOnlySet { document, .. } => {
                (document, self.machines[machine].disk.image.local_only.contains(document))
            }
            Input::Loaded { document, loaded: Loaded::Summary(standing) } => (document, standing.local_only),
            _ => return,
        };
        let Some(document) = self.documents.iter().position(|own| own == id) else { return };
        let machine_ = &mut self.machines[machine];
        if local_only {
            machine_.knows_local_only.insert(document);
        } else {
            machine_.knows_local_only.remove(&document);
        }
        // Conversations begin anew.
        for connection in machine_.connections.values_mut() {
            connection.announced.remove(&document);
            connection.sent.retain(|(other, _), _| *other != document);
        }
    }

    /// Where nobody writes, nothing is committed once the hub knows that the document is deleted.
    pub(super) fn check_taken(&self, machine: usize, id: &DocumentId) -> Checked {
        let machine = &self.machines[machine];
        let deleted = machine.knows_deleted.iter().any(|document| self.documents[*document] == *id);
        require(!deleted || machine.app.is_some(), "the deleted takes nothing", || {
            format!("machine {} commits changes of a deleted document", machine.number)
        })
    }

    /// The application of a machine is told of a record, which must be one that stood in its store.
    pub(super) fn life_changed(&mut self, machine: usize, id: &DocumentId, life: Life) -> Checked {
        let Some(document) = self.documents.iter().position(|own| own == id) else { return Ok(()) };
        let machine_ = &mut self.machines[machine];
        let stored = machine_.disk.image.lives.get(id).copied();
        require(stored >= Some(life), "told is durable", || {
            format!("machine {machine} tells of {life:?}, and has stored {stored:?}")
        })?;
        if let Some(app) = &mut machine_.app {
            app.documents[document].deleted = life.deleted;
        }
        Ok(())
    }

    /// Of each document the greatest record that is anywhere.
    pub(super) fn greatest_lives(&self) -> BTreeMap<DocumentId, Life> {
        let mut greatest = BTreeMap::new();
        for (id, life) in self.machines.iter().flat_map(|machine| &machine.disk.image.lives) {
            let stands = greatest.entry(id.clone()).or_insert(*life);
            *stands = (*life).max(*stands);
        }
        greatest
    }

    /// All have the same records, and none that was replaced before.
    pub(super) fn check_lives(&self, before: &BTreeMap<DocumentId, Life>) -> Checked {
        let lives = self.greatest_lives();
        for machine in &self.machines {
            require(machine.disk.image.lives == lives, "the deleted does not return", || {
                format!("machine {} has {:?}, others {lives:?}", machine.number, machine.disk.image.lives)
            })?;
        }
        let lost = before.iter().find(|(id, life)| lives.get(*id) < Some(life));
        require(lost.is_none(), "the deleted does not return", || format!("{lost:?} is lost"))
    }

    /// Restores what is deleted, through the first machine. Returns whether there was anything.
    pub(super) fn restore_all(&mut self) -> Checked<bool> {
        let deleted: Vec<usize> = self
            .documents
            .iter()
            .enumerate()
            .filter_map(|(document, id)| self.machines[0].disk.image.is_deleted(id).then_some(document))
            .collect();
        for document in &deleted {
            self.set_life(0, *document, false)?;
        }
        Ok(!deleted.is_empty())
    }
}

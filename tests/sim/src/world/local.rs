//! The applications of machines: what they write and what they are told.
//!
//! Owns: the application's side of a hub, and the checks of every claim made to it. Must not: touch sessions.
//! Next: `../app.rs`, `hub.rs`.

use bytes::Bytes;
use syncline_core::hub::{Event, Input};
use syncline_core::id::{DocumentId, SessionId};

use super::World;
use crate::action::Kind;
use crate::app::{App, HandOver};
use crate::client::machine_actor;
use crate::image::Stored;
use crate::oracle::{Checked, Violation, require};

fn hash_of(change: &Bytes) -> automerge::ChangeHash {
    automerge::ChangeHash(crate::forge::hash(crate::forge::CHANGE, crate::forge::body(change)))
}

fn broken(detail: String) -> Violation {
    Violation { checker: "applications can read their documents", detail }
}

impl World {
    /// Every machine that dials another has an application that watches all documents; each has a set of them.
    pub(super) fn start_apps(&mut self) -> Checked {
        (0..self.machines.len()).try_for_each(|machine| self.add_set(machine))?;
        (1..self.machines.len()).try_for_each(|machine| self.start_app(machine))
    }

    /// Opens the application's documents from the disk, under a fresh actor.
    pub(super) fn start_app(&mut self, machine: usize) -> Checked {
        if machine == 0 {
            return Ok(());
        }
        let machine_ = &mut self.machines[machine];
        let raw = |id: &DocumentId| {
            let stored = machine_.disk.image.documents.get(id);
            stored.into_iter().flat_map(|stored| &stored.changes).map(|change| change.bytes.clone()).collect::<Vec<_>>()
        };
        let stored = self.documents.iter().map(raw).collect();
        let actor = machine_actor(machine, machine_.starts);
        let mut app = App::open(self.tier, &actor, stored).map_err(broken)?;
        for (open, id) in app.documents.iter_mut().zip(&self.documents) {
            open.deleted = machine_.disk.image.is_deleted(id);
        }
        machine_.app = Some(app);
        for document in self.documents.clone() {
            self.input(machine, Input::Watch { document })?;
        }
        Ok(())
    }

    /// A machine speaks with the one that it dialled about everything that it has.
    pub(super) fn offer_all(&mut self, machine: usize, session: SessionId) -> Checked {
        for document in self.documents.clone() {
            self.input(machine, Input::Initiate { session, document })?;
        }
        Ok(())
    }

    pub(super) fn local_edit(&mut self, machine: usize, document: usize, random: u64) -> Checked {
        let Some(app) = &mut self.machines[machine].app else { return Ok(()) };
        if app.documents[document].deleted {
            return Ok(());
        }
        let content = &mut app.documents[document].content;
        let bytes = if let Some(subject) = self.subject.clone() {
            let acted = content.act(&subject, random, &mut self.oracle);
            let Some(bytes) = self.note_act(&format!("machine {machine}"), acted)? else { return Ok(()) };
            bytes
        } else {
            content.edit(random, &mut self.oracle)
        };
        let Some(app) = &mut self.machines[machine].app else { return Ok(()) };
        app.documents[document].undoable.push(hash_of(&bytes));
        let handed = app.wrote(document, bytes).map_err(broken)?;
        self.hand_over(machine, document, handed)
    }

    /// The application takes back what it wrote last.
    pub(super) fn local_undo(&mut self, machine: usize, document: usize) -> Checked {
        // What a subject says it did stays done.
        let Some(app) = self.machines[machine].app.as_mut().filter(|_| self.subject.is_none()) else { return Ok(()) };
        let open = &mut app.documents[document];
        if open.deleted {
            return Ok(());
        }
        let Some(change) = open.undoable.pop() else { return Ok(()) };
        let made = open.content.undo(change, &mut open.aliases, &mut self.oracle)?;
        self.met(Kind::Undo, machine);
        let Some(app) = &mut self.machines[machine].app else { return Ok(()) };
        let handed = made.map(|bytes| app.wrote(document, bytes)).transpose().map_err(broken)?;
        self.hand_over(machine, document, handed.flatten())
    }

    fn hand_over(&mut self, machine: usize, document: usize, handed: Option<HandOver>) -> Checked {
        let Some(HandOver { ticket, changes }) = handed else { return Ok(()) };
        let document = self.documents[document].clone();
        changes.iter().for_each(|change| self.note_own(machine, change.hash));
        self.input(machine, Input::Local { document, changes, ticket })
    }

    /// Hands failed changes over again whose time has come.
    pub(super) fn retry(&mut self, machine: usize) -> Checked {
        for document in 0..self.documents.len() {
            let now_ms = self.now_ms;
            let Some(app) = &mut self.machines[machine].app else { return Ok(()) };
            if app.documents[document].retry_at_ms.is_some_and(|at| at <= now_ms) {
                let handed = app.hand_over_again(document);
                self.hand_over(machine, document, handed)?;
            }
        }
        Ok(())
    }

    fn stored(&self, machine: usize, document: usize) -> Option<&Stored> {
        self.machines[machine].disk.image.documents.get(&self.documents[document])
    }

    pub(super) fn event(&mut self, machine: usize, event: Event) -> Checked {
        let index = |id: &DocumentId| self.documents.iter().position(|document| document == id);
        match event {
            Event::Saved { document, ticket } => {
                let Some(document) = index(&document) else { return Ok(()) };
                let Some(app) = &mut self.machines[machine].app else { return Ok(()) };
                let (saved, next) = app.saved(document, ticket);
                let stored = self.stored(machine, document);
                let lies = saved.iter().find(|hash| !stored.is_some_and(|stored| stored.hashes.contains(*hash)));
                require(lies.is_none(), "saved is durable", || format!("machine {machine} calls {lies:?} saved"))?;
                self.hand_over(machine, document, next)
            }
            Event::NotSaved { document, ticket, message, .. } => {
                let Some(document) = index(&document) else { return Ok(()) };
                let (now_ms, failed) = (self.now_ms, self.machines[machine].disk.has_failed);
                let Some(app) = &mut self.machines[machine].app else { return Ok(()) };
                app.documents[document].not_saved(ticket, &message, now_ms);
                require(failed, "local changes are saved", || {
                    format!("machine {machine}, without a failure: {message}")
                })
            }
            Event::Changed { document, changes, origin, .. } => {
                let Some(document) = index(&document) else { return Ok(()) };
                self.told_of_changes(machine, document, &changes, origin.is_none())
            }
            Event::PeerState { document, session, heads, has_all } => {
                let Some(document) = index(&document) else { return Ok(()) };
                self.told_of_peer(machine, document, session, &heads, has_all)
            }
            Event::LifeChanged { document, life, .. } => self.life_changed(machine, &document, life),
            Event::LifeFailed { message, .. } => {
                require(self.machines[machine].disk.has_failed, "decisions are stored", || {
                    format!("machine {machine}, without a failure: {message}")
                })
            }
            Event::Unavailable { .. } | Event::Ephemeral { .. } | Event::InStep { .. } | Event::Refused { .. } => {
                Ok(())
            }
        }
    }

    fn told_of_changes(&mut self, machine: usize, document: usize, changes: &[Bytes], own: bool) -> Checked {
        let stored = self.stored(machine, document);
        let there = |bytes: &&Bytes| stored.is_some_and(|stored| stored.hashes.contains(&hash_of(bytes)));
        let told: Vec<Bytes> = changes.iter().filter(there).cloned().collect();
        // What was committed may be purged before it is told: then the application begins anew without it.
        let purged = self.machines[machine].purged.contains(&document);
        require(purged || told.len() == changes.len(), "told is durable", || {
            format!("machine {machine} tells its application of changes that are not stored")
        })?;
        let hashes: Vec<automerge::ChangeHash> = told.iter().map(hash_of).collect();
        let Some(app) = self.machines[machine].app.as_mut().filter(|_| !own) else { return Ok(()) };
        let content = &mut app.documents[document].content;
        content.apply(&told).map_err(broken)?;
        let complete = hashes.iter().all(|hash| content.has(hash));
        require(complete, "dependencies are told first", || format!("machine {machine}, document {document}"))
    }

    /// What the application is told of a server must be true of that server.
    fn told_of_peer(
        &self,
        machine: usize,
        document: usize,
        session: SessionId,
        heads: &[automerge::ChangeHash],
        has_all: bool,
    ) -> Checked {
        let upstream = machine.checked_sub(1).map(|at| usize::from(self.topology.upstream[at]));
        let Some(upstream) = upstream.filter(|_| session.0 % 2 == 1) else { return Ok(()) };
        if self.machines[upstream].went_back || self.machines[upstream].purged.contains(&document) {
            return Ok(());
        }
        let empty = Stored::default();
        let there = &self.stored(upstream, document).unwrap_or(&empty).hashes;
        let claimed = heads.iter().find(|head| !there.contains(head));
        require(claimed.is_none(), "status claims no more than is true", || {
            format!("machine {machine} hears that machine {upstream} has {claimed:?}")
        })?;
        let Some(app) = self.machines[machine].app.as_ref().filter(|_| has_all) else { return Ok(()) };
        let missing = app.documents[document].saved.iter().find(|hash| !there.contains(hash));
        require(missing.is_none(), "status claims no more than is true", || {
            format!("machine {machine} hears that machine {upstream} has all, which lacks {missing:?}")
        })
    }
}

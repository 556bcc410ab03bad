//! Undo and redo of what this process did to a document.
//!
//! Owns: the two stacks. Must not: take back another replica's change; `reverse.rs` sees to that.
//! Next: `reverse.rs`, `live.rs`; docs/client.md, "Undo".

use std::collections::VecDeque;

use automerge::{Automerge, AutomergeError, Change, ChangeHash, ReadDoc};

use crate::Error;
use crate::document::{ChangeOptions, Document};
use crate::reverse::{Aliases, reverse};

/// Steps that can be undone.
const STEPS_MAX: usize = 1_000;

/// What a change is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The application's own.
    Edit,
    /// To take the last step back.
    Undo,
    /// To take the last undo back.
    Redo,
}

/// What can be undone and redone in one document while it is in memory.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    done: VecDeque<Step>,
    undone: Vec<Step>,
    aliases: Aliases,
}

/// Changes that are undone together, oldest first.
#[derive(Debug, Clone)]
struct Step {
    changes: Vec<ChangeHash>,
    group: Option<String>,
}

impl Document {
    /// Takes back the last step of this process in the document, by one more change. What others did stays: what they have
    /// changed since is left as they made it. Returns whether there was a step.
    ///
    /// Steps are remembered while a handle of the document lives, at most 1,000. [`ChangeOptions::group`] makes several
    /// changes one step.
    ///
    /// ```
    /// # use syncline::Repo;
    /// # use syncline::value::Text;
    /// # use autosurgeon::{Hydrate, Reconcile};
    /// # #[derive(Hydrate, Reconcile)]
    /// # struct Note { body: Text }
    /// let repo = Repo::memory()?;
    /// let note = repo.create_from(&Note { body: "Hello".into() })?;
    /// note.update(|note: &mut Note| note.body.push_str(" world"))?;
    /// note.undo()?;
    /// assert_eq!(note.hydrate::<Note>()?.body, "Hello");
    /// note.redo()?;
    /// assert_eq!(note.hydrate::<Note>()?.body, "Hello world");
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Document::change`]; the step can then be undone again.
    pub fn undo(&self) -> Result<bool, Error> {
        self.turn_back(Purpose::Undo, "Undo")
    }

    /// Takes the last [`Document::undo`] back. After another change of this process there is nothing to redo.
    ///
    /// # Errors
    /// As [`Document::undo`].
    pub fn redo(&self) -> Result<bool, Error> {
        self.turn_back(Purpose::Redo, "Redo")
    }

    /// Whether there is a step to undo.
    #[must_use]
    pub fn can_undo(&self) -> bool {
        !self.live().undo().done.is_empty()
    }

    /// Whether there is an undo to take back.
    #[must_use]
    pub fn can_redo(&self) -> bool {
        !self.live().undo().undone.is_empty()
    }

    fn turn_back(&self, purpose: Purpose, message: &str) -> Result<bool, Error> {
        let live = self.live();
        let plan = |document: &Automerge| {
            let undo = live.undo();
            let (changes, mut aliases) = (undo.next(purpose, document), undo.aliases.clone());
            drop(undo);
            let any = !changes.is_empty();
            Ok(move |transaction: &mut automerge::transaction::Transaction<'_>| {
                changes.iter().try_for_each(|change| reverse(transaction, change, &mut aliases))?;
                live.undo().aliases = aliases;
                Ok::<bool, AutomergeError>(any)
            })
        };
        live.change(self.engine(), ChangeOptions::message(message), purpose, plan)
    }
}

impl Undo {
    /// Notes that a change was made, or that there was nothing to do.
    pub(crate) fn note(&mut self, purpose: Purpose, change: Option<ChangeHash>, group: Option<String>) {
        match purpose {
            Purpose::Edit => {
                let Some(change) = change else { return };
                self.undone.clear();
                self.push(change, group);
            }
            Purpose::Undo => {
                let step = self.done.pop_back();
                let changes = change.map(|change| vec![change]);
                self.undone.extend(changes.map(|changes| Step { changes, group: step.and_then(|step| step.group) }));
            }
            Purpose::Redo => {
                self.undone.pop();
                let changes = change.map(|change| vec![change]);
                // A step that was redone is not added to by what is typed next.
                self.done.extend(changes.map(|changes| Step { changes, group: None }));
            }
        }
        if self.done.is_empty() && self.undone.is_empty() {
            self.aliases = Aliases::default();
        }
    }

    fn push(&mut self, change: ChangeHash, group: Option<String>) {
        match self.done.back_mut() {
            Some(last) if group.is_some() && last.group == group => last.changes.push(change),
            _ => self.done.push_back(Step { changes: vec![change], group }),
        }
        if self.done.len() > STEPS_MAX {
            self.done.pop_front();
        }
    }

    /// The changes to take back next, latest first.
    fn next(&self, purpose: Purpose, document: &Automerge) -> Vec<Change> {
        let step = match purpose {
            Purpose::Undo => self.done.back(),
            Purpose::Redo => self.undone.last(),
            Purpose::Edit => None,
        };
        let changes = step.map(|step| &step.changes[..]).unwrap_or_default();
        changes.iter().rev().filter_map(|hash| document.get_change_by_hash(hash)).collect()
    }
}

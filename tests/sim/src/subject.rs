//! An application's own document code, and what its author says must hold, as a world plays it.
//!
//! Owns: the author's closures, turning one action into one change. Must not: know machines or links.
//! Next: `simulation.rs`, `content.rs`.

use std::fmt;

use automerge::transaction::CommitOptions;
use automerge::{AutoCommit, Automerge, AutomergeError, Change};

use crate::oracle::{Checked, require};
use crate::random::Stream;

type Begin = dyn Fn(&mut AutoCommit) -> Result<(), AutomergeError> + Send + Sync;
type Act = dyn Fn(&mut AutoCommit, &mut Choices) -> Result<String, AutomergeError> + Send + Sync;
type Always = dyn Fn(&Automerge) -> Result<(), String> + Send + Sync;
type Finally = dyn Fn(&Automerge, &[String]) -> Result<(), String> + Send + Sync;

/// The numbers that one action of a simulated user is drawn from. Equal seeds give equal choices.
#[derive(Debug)]
pub struct Choices(Stream);

impl Choices {
    /// A number below `bound`; 0 when there is nothing to choose from.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound.max(1) as u64) as usize
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        self.0.one_of(choices)
    }

    /// A number that no other action is likely to draw: for ids.
    pub fn unique(&mut self) -> u64 {
        self.0.next()
    }
}

/// What is simulated.
pub(crate) struct Subject {
    pub(crate) begin: Option<Box<Begin>>,
    pub(crate) act: Box<Act>,
    pub(crate) always: Vec<(&'static str, Box<Always>)>,
    pub(crate) finally: Vec<(&'static str, Box<Finally>)>,
}

impl Subject {
    /// One action of a user: the change and what the author calls it; `None` if nothing was changed.
    ///
    /// # Errors
    /// What the author's code returned; the document is as it was.
    pub(crate) fn act(&self, document: &mut AutoCommit, random: u64) -> Result<Option<(Change, String)>, String> {
        let mut choices = Choices(Stream::new(random, "action"));
        match (self.act)(document, &mut choices) {
            Ok(deed) => Ok(commit(document).map(|change| (change, deed))),
            Err(error) => {
                document.rollback();
                Err(error.to_string())
            }
        }
    }

    /// The change that every replica begins with.
    pub(crate) fn begin(&self, document: &mut AutoCommit) -> Result<Option<Change>, String> {
        let Some(begin) = &self.begin else { return Ok(None) };
        begin(document).map_err(|error| error.to_string())?;
        Ok(commit(document))
    }

    pub(crate) fn check_always(&self, name: &str, document: &Automerge) -> Checked {
        self.always.iter().try_for_each(|(what, check)| {
            let checked = check(document);
            require(checked.is_ok(), what, || format!("{name}: {}", checked.err().unwrap_or_default()))
        })
    }

    pub(crate) fn check_finally(&self, document: &Automerge, deeds: &[String]) -> Checked {
        self.finally.iter().try_for_each(|(what, check)| {
            let checked = check(document, deeds);
            require(checked.is_ok(), what, || checked.err().unwrap_or_default())
        })
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let always: Vec<&str> = self.always.iter().map(|(what, _)| *what).collect();
        let finally: Vec<&str> = self.finally.iter().map(|(what, _)| *what).collect();
        f.debug_struct("Subject").field("always", &always).field("finally", &finally).finish_non_exhaustive()
    }
}

fn commit(document: &mut AutoCommit) -> Option<Change> {
    // A real time would make equal seeds give different hashes.
    let hash = document.commit_with(CommitOptions::default().with_time(0))?;
    document.get_change_by_hash(&hash)
}

//! A loader that has documents built by other processes.
//!
//! Owns: how many there are, who has which. Must not: let one that died take a second document.
//! Next: `process.rs`; docs/architecture.md, "Documents of unknown origin".

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use syncline_content as content;
use syncline_content::{ContentError, Question, Viewer};
use syncline_core::ChangeHash;
use syncline_core::loader::{LoadError, Loader, Merged, Old};

use crate::message::{self, Answer, Next};
use crate::process::{Launch, Process, ProcessLimits};

/// Most processes at one time: whoever needs another waits. One for a large document, one for the rest.
const PROCESSES_MAX: usize = 2;

/// Builds documents in processes of their own. None runs before it is needed; then they stay.
#[derive(Debug)]
pub struct Processes {
    launch: Launch,
    limits: ProcessLimits,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Process>,
    at_work: usize,
}

impl Processes {
    /// Processes of this program; with these arguments it must call [`serve`](crate::serve) with the same limits.
    #[must_use]
    pub fn new(program: PathBuf, arguments: Vec<OsString>, limits: ProcessLimits) -> Self {
        let launch = Launch { program, arguments };
        Self { launch, limits, pool: Mutex::default(), returned: Condvar::new() }
    }

    fn ask<T: Answer>(
        &self,
        request: impl FnOnce(&mut BufWriter<&UnixStream>) -> io::Result<()>,
    ) -> Result<T, LoadError> {
        let _place = self.wait_for_place();
        let mut process = self.idle_or_new()?;
        let (answer, next) = process.ask(request)?;
        if next == Next::Request {
            self.lock().idle.push(process);
        }
        answer
    }

    fn wait_for_place(&self) -> Place<'_> {
        let mut pool = self.lock();
        while pool.at_work == PROCESSES_MAX {
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        pool.at_work += 1;
        Place(self)
    }

    fn idle_or_new(&self) -> Result<Process, LoadError> {
        loop {
            let Some(mut idle) = self.lock().idle.pop() else { break };
            if idle.is_running() {
                return Ok(idle);
            }
        }
        let started = Process::start(&self.launch, self.limits);
        started.map_err(|error| LoadError::Unavailable { reason: error.to_string() })
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loader for Processes {
    fn changes(&self, document: &[u8], wanted: &[ChangeHash]) -> Result<Vec<Bytes>, LoadError> {
        self.ask(|pipe| message::write_changes(document, wanted, pipe))
    }

    fn merge(&self, old: &Old<'_>) -> Result<Merged, LoadError> {
        self.ask(|pipe| message::write_merge(old, pipe))
    }
}

impl Viewer for Processes {
    fn view(&self, document: &Old<'_>, question: &Question) -> Result<content::Answer, ContentError> {
        let question = serde_json::to_vec(question).map_err(|error| ContentError::Question(error.to_string()))?;
        let pieces: Vec<Bytes> = self.ask(|pipe| message::write_view(document, &question, pipe))?;
        content::Answer::decode(&pieces)
    }
}

/// The right to have a process at work.
struct Place<'a>(&'a Processes);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().at_work -= 1;
        self.0.returned.notify_one();
    }
}

//! One process that loads documents, seen from the one that asks it.
//!
//! Owns: its start, its pipe, its end and how that came. Must not: give it anything but the pipe; wait for ever.
//! Next: `serve.rs`, `processes.rs`.

use std::ffi::OsString;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use syncline_core::loader::LoadError;

use crate::message::{self, Answer, Next};

const MIB: u64 = 1024 * 1024;

/// How much of the pipe is read or written at once, bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a process that loads documents may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Address space, bytes (`RLIMIT_AS`): an allocation beyond it fails, and that ends the process.
    pub memory_bytes: u64,
    /// Processor time for each document, seconds (`RLIMIT_CPU`).
    pub processor_seconds: u64,
}

impl ProcessLimits {
    /// How long an answer is waited for. The limit on processor time ends whatever computes, which may get a tenth of a
    /// processor; this ends what has stopped.
    fn answer_timeout(&self) -> Duration {
        Duration::from_secs(self.processor_seconds.saturating_mul(20).saturating_add(30))
    }
}

/// How such a process is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// A running process. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pipe: UnixStream,
    limits: ProcessLimits,
}

impl Process {
    pub(crate) fn start(launch: &Launch, limits: ProcessLimits) -> io::Result<Self> {
        let (pipe, theirs) = UnixStream::pair()?;
        pipe.set_read_timeout(Some(limits.answer_timeout()))?;
        pipe.set_write_timeout(Some(limits.answer_timeout()))?;
        let theirs = OwnedFd::from(theirs);
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).stdin(theirs.try_clone()?).stdout(theirs).stderr(Stdio::inherit());
        // Where a library panics is not searched for in debug information each time that somebody sends what it panics at.
        command.env("RUST_BACKTRACE", "0");
        // A key that interrupts the server in a terminal does not end what it needs to stop in order.
        command.process_group(0);
        let child = command.spawn()?;
        tracing::debug!(process = child.id(), "started a process that loads documents");
        Ok(Self { child, pipe, limits })
    }

    /// Whether it has not ended since it answered last, as by a hand or by a system without memory.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks for something and waits for the answer.
    pub(crate) fn ask<T: Answer>(
        &mut self,
        request: impl FnOnce(&mut BufWriter<&UnixStream>) -> io::Result<()>,
    ) -> Result<(Result<T, LoadError>, Next), LoadError> {
        let answer = self.exchange(request);
        answer.map_err(|error| LoadError::Died { how: self.end(&error) })
    }

    fn exchange<T: Answer>(
        &self,
        request: impl FnOnce(&mut BufWriter<&UnixStream>) -> io::Result<()>,
    ) -> io::Result<(Result<T, LoadError>, Next)> {
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, &self.pipe);
        let written = request(&mut writer).and_then(|()| writer.flush());
        // What could not be written must not be tried again when the writer is dropped.
        let (_, _) = writer.into_parts();
        written?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, &self.pipe);
        // What it answers was once in its memory.
        message::read_answer(&mut reader, self.limits.memory_bytes)
    }

    /// Ends it after a failed exchange, and says how it ended.
    fn end(&mut self, error: &io::Error) -> String {
        // One that has ended on its own keeps its status.
        let _ = self.child.kill();
        let status = self.child.wait();
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return format!("no answer within {:?}", self.limits.answer_timeout());
        }
        if error.kind() == io::ErrorKind::InvalidData {
            return format!("its answer cannot be read: {error}");
        }
        let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
        let Some(signal) = signal.and_then(|number| Signal::try_from(number).ok()) else {
            return status.map_or_else(|error| error.to_string(), |status| status.to_string());
        };
        let ProcessLimits { memory_bytes, processor_seconds } = self.limits;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other signals say nothing of the limits")]
        let why = match signal {
            Signal::SIGXCPU => format!(", after more than {processor_seconds} s of processor time"),
            Signal::SIGABRT => format!(", as when it needs more than {} MiB of memory", memory_bytes / MIB),
            Signal::SIGKILL => ", as when the system runs out of memory".to_owned(),
            _ => String::new(),
        };
        format!("{signal}{why}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, or waits for a request that will not come.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The end of the pipe where documents are built.
//!
//! Owns: the limits that the process sets on itself before it reads anything. Must not: open, keep or print anything.
//! Next: `message.rs`, `process.rs`.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::AsFd;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use syncline_content::{Answer, ContentError, Question};
use syncline_core::loader::{InProcess, Loader};

use crate::message::{self, Next, Request};
use crate::process::ProcessLimits;

/// A process that has had more memory than this ends after its answer, bytes: what waits for work stays small.
const RESIDENT_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// How far it gives way: about a tenth of a processor that others want, a whole one that nobody wants.
const NICENESS: i32 = 10;

/// Answers requests on standard output as they come on standard input, until that ends.
///
/// The process must be one of its own: its limits are set for good.
///
/// # Errors
/// When a limit cannot be set, or the other end of the pipe is gone in the middle of a request.
pub fn serve(limits: ProcessLimits) -> io::Result<()> {
    confine(limits)?;
    let mut input = BufReader::new(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let mut output = BufWriter::new(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    loop {
        grant_processor_time(limits.processor_seconds)?;
        let Some(request) = Request::read(&mut input)? else { return Ok(()) };
        let next = match request {
            Request::Changes { document, wanted } => {
                let answer = InProcess.changes(&document, &wanted);
                let next = next();
                message::write_answer(&answer, next, &mut output)?;
                next
            }
            Request::Merge(stored) => {
                let answer = InProcess.merge(&stored.old());
                let next = next();
                message::write_answer(&answer, next, &mut output)?;
                next
            }
            Request::View { stored, question } => {
                let question: Question = serde_json::from_slice(&question)?;
                let answer = match question.answer(&stored.old()) {
                    Err(ContentError::Load(error)) => Err(error),
                    answer => Ok(Answer::encode(&answer)),
                };
                let next = next();
                message::write_answer(&answer, next, &mut output)?;
                next
            }
        };
        output.flush()?;
        if next == Next::End {
            return Ok(());
        }
    }
}

fn confine(limits: ProcessLimits) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_AS, limits.memory_bytes, limits.memory_bytes)?;
    // What is in its memory is other people's.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // Who waits for a whole document gives way to who edits one.
    rustix::process::nice(NICENESS)?;
    // A system without memory should end this process before any other. Not every system can be told.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Gives the next request its share. The kernel counts whole seconds since the process began.
fn grant_processor_time(seconds: u64) -> io::Result<()> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = usage.user_time() + usage.system_time();
    let (_, hard) = getrlimit(Resource::RLIMIT_CPU)?;
    let soft = (used.tv_sec() as u64).saturating_add(1).saturating_add(seconds).min(hard);
    setrlimit(Resource::RLIMIT_CPU, soft, hard)?;
    Ok(())
}

fn next() -> Next {
    if resident_bytes_peak().is_some_and(|bytes| bytes > RESIDENT_BYTES_MAX) { Next::End } else { Next::Request }
}

/// Not what `getrusage` says: that begins with the peak of the process that started this one.
fn resident_bytes_peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

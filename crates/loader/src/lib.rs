//! Builds automerge documents of unknown origin in a process that may end.
//!
//! An allocation that fails, or work that does not end, cannot be caught where it happens. So documents go through a
//! pipe to another process of the same program, which may have so much memory and processor time and no more. Whatever
//! ends it costs the one document that it had.
//!
//! Reading order: [`Processes`] is the loader, `process` one of its processes, `message` what goes through the pipe,
//! [`serve`] the other end.

mod message;
mod process;
mod processes;
mod serve;

pub use process::ProcessLimits;
pub use processes::Processes;
pub use serve::serve;

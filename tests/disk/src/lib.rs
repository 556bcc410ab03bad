//! A disk for tests that fails and forgets: a file system in memory, mounted through FUSE without libfuse.
//!
//! Programs use it through the kernel as they use any other, memory-mapped files and locks included; the test holds
//! the [`Disk`] behind it, fails the operations that it wants to fail, cuts the power, and looks at what is left.
//!
//! Reading order: [`tree`] is what is stored and what a power cut leaves, [`disk`] the faults, `mount` the way to it.

pub mod disk;
#[cfg(target_os = "linux")]
mod mount;
pub mod tree;

pub use disk::{Disk, Failure, Fault, FaultKind, Site};
#[cfg(target_os = "linux")]
pub use mount::{Mount, mounted_or_skipped, unavailable};
pub use tree::{Cut, Image, Operation, Tree};

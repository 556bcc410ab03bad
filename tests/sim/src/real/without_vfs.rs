//! What stands where the simulator was built without its way to SQLite's file system: a refusal.
//!
//! Owns: the words of the refusal. Must not: lead SQLite to the machine's own files. Next: `vfs.rs`, `../scenario.rs`.

/// No file is ever held.
#[derive(Debug, Default)]
pub(crate) struct Held;

/// Refuses.
pub(super) fn registered() -> &'static str {
    panic!("{}", crate::scenario::NO_T2)
}

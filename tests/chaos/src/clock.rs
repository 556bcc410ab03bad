//! Another wall clock for a process: libfaketime, which reads from a file how far it is off.
//!
//! Owns: where the library is, what a process needs to find, the file. Must not: touch timers; only what the wall shows is
//! shifted. Next: `world.rs`.

use std::path::{Path, PathBuf};

/// Where libfaketime is, if it is installed.
pub(crate) fn library() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut candidates = found.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    candidates.find(|path| path.exists())
}

/// The environment of a process whose clock is as far off as the file says.
pub(crate) fn environment(library: &Path, file: &Path) -> Vec<(String, String)> {
    let set = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        // Every look at the clock looks at the file, so that a jump is one.
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // Timers must run on.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    set.map(|(name, value)| (name.to_owned(), value)).into()
}

/// From here on the clock of whoever looks at the file is so many seconds off.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn set(file: &Path, seconds: i64) -> std::io::Result<()> {
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{seconds:+}"))?;
    // Nobody sees it half written.
    std::fs::rename(&next, file)
}

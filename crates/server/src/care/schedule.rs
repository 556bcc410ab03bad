//! Copies that a running server makes by itself.
//!
//! Owns: when, how many, which are removed. Must not: remove what it did not make, or the last good copy.
//! Next: `syncline_store::backup`; docs/operations.md, "Backup".

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use syncline_store::backup::backup;

/// When copies are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The directory for them.
    pub to: PathBuf,
    /// Between two.
    pub every: Duration,
    /// How many are kept.
    pub keep: usize,
}

const PREFIX: &str = "syncline-";
const SUFFIX: &str = ".db";

/// The name of a copy that is made at this time: names sort as their times do.
#[must_use]
pub fn backup_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{PREFIX}{:011}{SUFFIX}", since.as_secs())
}

impl Schedule {
    /// Makes copies of the data as long as the future is polled; the first when the last one is old enough.
    pub async fn run(self, data: PathBuf) {
        loop {
            tokio::time::sleep(self.due_in()).await;
            let (schedule, from) = (self.clone(), data.clone());
            let made = tokio::task::spawn_blocking(move || schedule.make(&from)).await;
            if !matches!(made, Ok(true)) {
                // A full disk, most likely: looked at again before the next is due.
                tokio::time::sleep(self.every.min(Duration::from_secs(600))).await;
            }
        }
    }

    fn due_in(&self) -> Duration {
        let newest = self.copies().ok().and_then(|copies| copies.last()?.metadata().ok()?.modified().ok());
        let age = newest.and_then(|made| made.elapsed().ok());
        age.map_or(Duration::ZERO, |age| self.every.saturating_sub(age))
    }

    /// Whether a copy was made.
    fn make(&self, data: &Path) -> bool {
        let to = self.to.join(backup_name());
        let made = fs::create_dir_all(&self.to).map_err(|error| error.to_string());
        let made = made.and_then(|()| backup(data, &to, |_| {}).map_err(|error| error.to_string()));
        match made {
            Ok(report) => {
                tracing::info!(copy = %to.display(), documents = report.documents, "backed up and verified");
                self.remove_old();
                true
            }
            Err(reason) => {
                tracing::error!(copy = %to.display(), "no backup was made: {reason}");
                false
            }
        }
    }

    fn remove_old(&self) {
        let copies = self.copies().unwrap_or_default();
        for old in copies.iter().rev().skip(self.keep) {
            if let Err(error) = fs::remove_file(old) {
                tracing::warn!(copy = %old.display(), "an old backup cannot be removed: {error}");
            }
        }
    }

    /// The copies that are there, oldest first.
    fn copies(&self) -> io::Result<Vec<PathBuf>> {
        let mut copies = Vec::new();
        for entry in fs::read_dir(&self.to)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
            if number.is_some_and(|number| number.len() == 11 && number.bytes().all(|byte| byte.is_ascii_digit())) {
                copies.push(path);
            }
        }
        copies.sort();
        Ok(copies)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn old_copies_go_and_nothing_else_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let (data, to) = (directory.path().join("data"), directory.path().join("copies"));
        let options = syncline_store::Options::default();
        syncline_store::Store::open(&data, options).expect("a store").close().expect("closed");
        fs::create_dir(&to).expect("a directory");
        for name in ["syncline-00000000001.db", "syncline-00000000002.db", "syncline-mine.db", "notes"] {
            fs::write(to.join(name), b"").expect("writable");
        }
        let schedule = Schedule { to: to.clone(), every: Duration::from_secs(3600), keep: 2 };
        assert!(schedule.make(&data));
        let left: BTreeSet<_> =
            fs::read_dir(&to).expect("readable").map(|entry| entry.expect("one").file_name()).collect();
        assert_eq!(left.len(), 4, "{left:?}");
        assert!(!left.contains(std::ffi::OsStr::new("syncline-00000000001.db")));
        assert!(schedule.due_in() > Duration::from_secs(3000), "the next is due when this one is old");
        assert!(!schedule.make(&directory.path().join("nothing")), "there is no store");
        assert_eq!(fs::read_dir(&to).expect("readable").count(), 4, "what there is stays");
    }
}

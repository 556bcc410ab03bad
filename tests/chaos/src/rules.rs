//! Rules of who may do what, for a server that is started with them.
//!
//! Owns: the key for tokens, and tokens. Must not: know who presents them. Next: `strangers.rs`, `expiry.rs`; docs/access.md.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::server;

/// Longer than any round.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The rules of a round.
pub(crate) struct Rules {
    key: PathBuf,
}

impl Rules {
    /// Rules with a key in this directory.
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Self> {
        let rules = Self { key: directory.join("key") };
        rules.exchange()?;
        Ok(rules)
    }

    /// Another key is in the place of the one that was there.
    pub(crate) fn exchange(&self) -> anyhow::Result<()> {
        let next = self.key.with_extension("next");
        server::say(&["token", "new-key", "--algorithm", "hs256", &next.display().to_string()])?;
        Ok(std::fs::rename(next, &self.key)?)
    }

    /// What the server is to find around it, so that those who come with nothing may do this, if anything.
    pub(crate) fn environment(&self, strangers_may: Option<&str>) -> Vec<(String, String)> {
        let mut set = vec![(server::RULES.to_owned(), self.key.display().to_string())];
        set.extend(strangers_may.map(|may| ("SYNCLINE_STRANGERS_MAY".to_owned(), may.to_owned())));
        set
    }

    /// A token for every document.
    pub(crate) fn token(&self, subject: &str, may: &str, valid: Duration) -> anyhow::Result<String> {
        let (key, valid) = (self.key.display().to_string(), format!("{}s", valid.as_secs()));
        server::say(&["token", "mint", "--all", "--key", &key, "--subject", subject, "--may", may, "--valid", &valid])
    }
}

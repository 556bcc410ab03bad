//! Bugs to be planted, each of which the simulator must find.
//!
//! Owns: the list, and making a copy of the sources with all of them in it, each behind its number.
//! Must not: change the sources themselves: a shipped build cannot have a planted bug, since they are in no file of it.
//! Next: `planted/list.rs`, `planted/hunt.rs`; docs/simulator.md.

mod hunt;
mod list;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::scenario::Tier;

pub use hunt::hunt;
pub use list::PLANTED;

/// A bug: a piece of a file, and what stands in its place in the copy.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// By which it is switched on.
    pub number: u32,
    /// What is wrong, in words.
    pub what: &'static str,
    /// The file, from the workspace's directory on.
    pub file: &'static str,
    /// Text that occurs once in the file.
    pub from: &'static str,
    /// Its replacement; `planted!` stands for "this bug is on".
    pub to: &'static str,
}

/// The question that a replacement asks, added to the copies of the crates.
const SWITCH: &str = r#"
pub(crate) fn planted(bug: u32) -> bool {
    static PLANTED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let number = || std::env::var("SYNCLINE_PLANTED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    *PLANTED.get_or_init(number) == bug
}
"#;

/// What is copied.
const PARTS: [&str; 9] = [
    "crates/core",
    "crates/gossip",
    "crates/store",
    "crates/client/src/journal.rs",
    "crates/client/src/reverse.rs",
    "crates/client/src/reverse",
    "tests/disk",
    "tests/mesh",
    "tests/sim",
];

/// The name of the copy's package and binary.
pub const COPY: &str = "syncline-sim-planted";

impl Planted {
    /// Where it is looked for, in this order.
    fn tiers(&self) -> &'static [Tier] {
        let of_a_mesh = self.file.starts_with("crates/gossip") || self.file.ends_with("hub/mesh.rs");
        if of_a_mesh { &[Tier::Mesh] } else { &[Tier::T0, Tier::T1] }
    }

    /// Whether the text to be replaced is there, once.
    #[must_use]
    pub fn fits(&self, source: &str) -> bool {
        source.matches(self.from).count() == 1
    }

    fn apply(&self, source: &str) -> anyhow::Result<String> {
        ensure!(self.fits(source), "bug {} ({}) does not fit {}", self.number, self.what, self.file);
        Ok(source.replace(self.from, &self.to.replace("planted!", &format!("crate::planted({})", self.number))))
    }
}

/// Copies what the simulator is built from, with every bug in it.
///
/// # Errors
/// When a file cannot be read or written, or a bug does not fit its file.
pub fn plant(workspace: &Path, into: &Path) -> anyhow::Result<()> {
    if into.exists() {
        std::fs::remove_dir_all(into).with_context(|| format!("cannot clear {}", into.display()))?;
    }
    // One directory deeper than the original: cargo tells packages of one name apart by their place in the workspace.
    let tree = into.join("tree");
    PARTS.iter().try_for_each(|part| copy(&workspace.join(part), &tree.join(part)))?;
    copy(&workspace.join("Cargo.lock"), &into.join("Cargo.lock"))?;
    let rename = |text: String| {
        let name = format!("name = \"{COPY}\"\nautobins = false");
        let targets =
            format!("\n[lib]\nname = \"syncline_sim\"\n\n[[bin]]\nname = \"{COPY}\"\npath = \"src/main.rs\"\n");
        Ok(text.replacen("name = \"syncline-sim\"", &name, 1) + &targets)
    };
    edit(&tree.join("tests/sim/Cargo.toml"), rename)?;
    let manifest = std::fs::read_to_string(workspace.join("Cargo.toml"))?;
    let lines = manifest.lines().map(|line| match line.split_once(" = ") {
        Some(("members", _)) => {
            let packages = ["crates/core", "crates/gossip", "crates/store", "tests/disk", "tests/mesh", "tests/sim"];
            format!("members = {:?}", packages.map(|package| format!("tree/{package}")))
        }
        Some(("default-members", _)) => "default-members = [\"tree/tests/sim\"]".to_owned(),
        _ => {
            line.replace("path = \"crates/", "path = \"tree/crates/").replace("path = \"tests/", "path = \"tree/tests/")
        }
    });
    std::fs::write(into.join("Cargo.toml"), lines.collect::<Vec<_>>().join("\n"))?;
    for bug in PLANTED {
        edit(&tree.join(bug.file), |text| bug.apply(&text))?;
    }
    for library in ["crates/core/src/lib.rs", "crates/gossip/src/lib.rs", "tests/sim/src/lib.rs"] {
        edit(&tree.join(library), |text| Ok(text + SWITCH))?;
    }
    Ok(())
}

fn edit(file: &Path, change: impl FnOnce(String) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    std::fs::write(file, change(text)?).with_context(|| format!("cannot write {}", file.display()))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.is_dir() {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    std::fs::create_dir_all(to.parent().unwrap_or(to))?;
    std::fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}

/// The workspace that this package was built in.
#[must_use]
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_fits_the_sources_as_they_are() {
        for bug in PLANTED {
            let source = std::fs::read_to_string(workspace().join(bug.file)).expect("a file of the workspace");
            assert!(bug.fits(&source), "bug {} ({}) does not fit {}", bug.number, bug.what, bug.file);
        }
    }

    #[test]
    fn bugs_have_numbers_of_their_own() {
        let mut numbers: Vec<u32> = PLANTED.iter().map(|bug| bug.number).collect();
        numbers.dedup();
        assert_eq!(numbers, (1..=PLANTED.len() as u32).collect::<Vec<_>>());
    }
}

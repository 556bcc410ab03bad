//! The crate's public surface, as a file that is reviewed.
//!
//! Owns: that no public item changes unseen. Must not: judge a change. `SYNCLINE_BLESS=1` writes `surface.txt` anew.
//! Next: `surface.txt`, whose difference a reviewer reads.
//!
//! The sources are read as rustfmt leaves them: an item begins a line, its head ends with a brace, a semicolon or a
//! comma, and what is inside is indented.

use std::path::{Path, PathBuf};

/// The public items of one source, one a line.
fn surface_of(source: &str) -> Vec<String> {
    // Tests come last in a file.
    let source = source.split("\n#[cfg(test)]").next().unwrap_or_default();
    let mut lines = source.lines().filter(|line| {
        let code = line.trim_start();
        !code.is_empty() && !code.starts_with("//") && !code.starts_with("#[")
    });
    let (mut items, mut owner) = (Vec::new(), String::new());
    while let Some(line) = lines.next() {
        let (indent, code) = (line.len() - line.trim_start().len(), line.trim());
        if indent == 0 && !code.starts_with('}') {
            owner.clear();
        }
        let is_public = code.starts_with("pub ");
        let is_owner = indent == 0 && (code.starts_with("impl") || is_public);
        if !is_public && !is_owner && !in_enum(&owner) {
            continue;
        }
        let mut head = code.to_owned();
        while !ends(&head) {
            let Some(more) = lines.next() else { break };
            head = format!("{head} {}", more.trim());
        }
        let shown = head.trim_end_matches(['{', ';', ',', ' ']).to_owned();
        if is_owner {
            owner.clone_from(&shown);
            // What has methods is told by them, what has a trait by this.
            if is_public || shown.contains(" for ") {
                items.push(shown);
            }
        } else if shown != "}" && !shown.is_empty() {
            items.push(format!("{owner} :: {shown}"));
        }
    }
    items
}

/// Whether everything under this owner is public without saying so.
fn in_enum(owner: &str) -> bool {
    owner.starts_with("pub enum ")
}

/// Whether the head of an item is complete.
fn ends(head: &str) -> bool {
    let count = |open: char, close: char| head.matches(open).count() == head.matches(close).count();
    if head.starts_with("pub use ") {
        return head.ends_with(';');
    }
    let closed = count('(', ')') && count('[', ']');
    closed && (head.ends_with(['{', ';', '}']) || (head.ends_with(',') && !head.contains(" where ")))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_public_surface_is_the_one_that_was_reviewed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reviewed = root.join("tests/surface.txt");
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    files.sort();
    let read = |file: &PathBuf| surface_of(&std::fs::read_to_string(file).expect("a readable source"));
    let mut items: Vec<String> = files.iter().flat_map(read).collect();
    items.sort();
    items.dedup();
    let present = items.join("\n") + "\n";
    if std::env::var_os("SYNCLINE_BLESS").is_some() {
        std::fs::write(&reviewed, &present).expect("a file that can be written");
        return;
    }
    let before = std::fs::read_to_string(&reviewed).expect("SYNCLINE_BLESS=1 writes it");
    let gone: Vec<&str> = before.lines().filter(|line| !present.lines().any(|other| other == *line)).collect();
    let new: Vec<&str> = present.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "gone or changed: {gone:#?}\nnew: {new:#?}\nSYNCLINE_BLESS=1 accepts it"
    );
}

#[test]
fn items_are_read_as_they_stand() {
    let source = "
use other::Thing;
pub(crate) struct Hidden {
    pub field: u8,
}
/// Shown.
pub enum Kind {
    /// One.
    One,
    Two {
        what: u8,
    },
}
impl Kind {
    /// Long.
    pub fn long(
        &self,
        more: [u8; 2],
    ) -> Result<(), Error>
    where
        u8: Copy,
    {
        let inside = 1;
    }
    fn hidden(&self) {}
}
impl Clone for Kind {
    fn clone(&self) -> Self {
    }
}
pub use other::{
    A, B,
};
";
    let expected = [
        "pub enum Kind",
        "pub enum Kind :: One",
        "pub enum Kind :: Two",
        "pub enum Kind :: what: u8",
        "impl Kind :: pub fn long( &self, more: [u8; 2], ) -> Result<(), Error> where u8: Copy",
        "impl Clone for Kind",
        "pub use other::{ A, B, }",
    ];
    let found: Vec<String> = surface_of(source).into_iter().filter(|item| !item.contains("field")).collect();
    assert_eq!(found, expected);
}

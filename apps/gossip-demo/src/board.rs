//! The board: one document with a chat, a checklist, a text and a counter.
//!
//! Owns: its shape, and how each part is changed so that it merges as one would expect.
//! Must not: know the mesh. Next: `member.rs`.

use anyhow::Context;
use syncline::automerge::transaction::{CommitOptions, Transactable};
use syncline::automerge::{ActorId, Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use syncline::mesh::MeshKey;
use syncline::{Document, DocumentUrl, Repo};
use syncline_core::id::DocumentId;

/// Who writes the first change, which is the same everywhere.
const BEGINNING: &[u8] = b"syncline board 1";

/// The board of a mesh.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    document: Document,
}

/// What is on it at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BoardState {
    /// Who said what.
    pub(crate) chat: Vec<(String, String)>,
    /// What is to be done, and whether it is.
    pub(crate) tasks: Vec<(String, bool)>,
    pub(crate) notes: String,
    pub(crate) cheers: i64,
    /// As hexadecimal digits.
    pub(crate) heads: Vec<String>,
    /// Changes in its history.
    pub(crate) changes: u64,
}

impl Board {
    /// The board of this mesh, begun if it is not here: every member begins it alike, so all have the same one.
    pub(crate) fn open(repo: &Repo, key: &MeshKey) -> anyhow::Result<Self> {
        let id: [u8; 32] = key.derive("syncline board 1");
        let id = DocumentId::from_bytes(&id[..16]).context("16 bytes are an id")?;
        let document = repo.import_at(&DocumentUrl::from(id), &beginning()?)?;
        Ok(Self { document })
    }

    pub(crate) fn document(&self) -> &Document {
        &self.document
    }

    pub(crate) fn say(&self, who: &str, text: &str) -> Result<(), syncline::Error> {
        self.document.change(|tx| {
            let chat = list(tx, "chat")?;
            let line = tx.insert_object(&chat, tx.length(&chat), ObjType::Map)?;
            tx.put(&line, "who", who)?;
            tx.put(&line, "text", text)
        })
    }

    pub(crate) fn add_task(&self, title: &str) -> Result<(), syncline::Error> {
        self.document.change(|tx| {
            let tasks = list(tx, "tasks")?;
            let task = tx.insert_object(&tasks, tx.length(&tasks), ObjType::Map)?;
            tx.put(&task, "title", title)?;
            tx.put(&task, "done", false)
        })
    }

    /// Ticks a task off, or not; nothing if there is none at this place.
    pub(crate) fn toggle(&self, at: usize) -> Result<(), syncline::Error> {
        self.document.change(|tx| {
            let tasks = list(tx, "tasks")?;
            let Some((_, task)) = tx.get(&tasks, at)? else { return Ok(()) };
            let done = tx.get(&task, "done")?.is_some_and(|(done, _)| done.as_bool() == Some(true));
            tx.put(&task, "done", !done)
        })
    }

    pub(crate) fn cheer(&self) -> Result<(), syncline::Error> {
        self.document.change(|tx| tx.increment(ROOT, "cheers", 1))
    }

    pub(crate) fn append(&self, text: &str) -> Result<(), syncline::Error> {
        let notes = self.document.text(["notes"])?;
        notes.splice(notes.length()?, 0, text)
    }

    /// Replaces `delete` characters of the text; where it is shorter by now, as many as there are.
    pub(crate) fn splice(&self, at: usize, delete: usize, insert: &str) -> Result<(), syncline::Error> {
        let notes = self.document.text(["notes"])?;
        let length = notes.length()?;
        let at = at.min(length);
        notes.splice(at, delete.min(length - at), insert)
    }

    /// What is on it, with so many lines of the chat at most, the last ones.
    pub(crate) fn state(&self, lines_max: usize) -> Result<BoardState, syncline::Error> {
        self.document.read(|document| read(document, lines_max))?.map_err(syncline::Error::Edit)
    }

    /// How far it is: heads and number of changes.
    pub(crate) fn progress(&self) -> Result<(Vec<String>, u64), syncline::Error> {
        self.document.read(progress)
    }

    /// Whether a change is in the history here.
    pub(crate) fn knows(&self, head: &str) -> bool {
        let Ok(hash) = head.parse() else { return false };
        self.document.read(|document| document.get_change_by_hash(&hash).is_some()).unwrap_or(false)
    }
}

/// The file with which every board begins, byte for byte the same.
fn beginning() -> Result<Vec<u8>, AutomergeError> {
    let mut document = Automerge::new().with_actor(ActorId::from(BEGINNING));
    let mut transaction = document.transaction();
    transaction.put_object(ROOT, "chat", ObjType::List)?;
    transaction.put_object(ROOT, "tasks", ObjType::List)?;
    transaction.put_object(ROOT, "notes", ObjType::Text)?;
    transaction.put(ROOT, "cheers", ScalarValue::counter(0))?;
    transaction.commit_with(CommitOptions::default().with_time(0));
    Ok(document.save())
}

fn list(document: &impl ReadDoc, name: &str) -> Result<ObjId, AutomergeError> {
    let found = document.get(ROOT, name)?;
    Ok(found.map(|(_, object)| object).unwrap_or(ROOT))
}

fn progress(document: &Automerge) -> (Vec<String>, u64) {
    let mut heads = document.get_heads();
    heads.sort_unstable();
    (heads.iter().map(ToString::to_string).collect(), document.stats().num_changes)
}

fn read(document: &Automerge, lines_max: usize) -> Result<BoardState, AutomergeError> {
    let (chat, tasks) = (list(document, "chat")?, list(document, "tasks")?);
    let text_of = |object: &ObjId, field: &str| -> Result<String, AutomergeError> {
        Ok(document.get(object, field)?.and_then(|(value, _)| value.into_string().ok()).unwrap_or_default())
    };
    let mut state = BoardState::default();
    let length = document.length(&chat);
    for at in length.saturating_sub(lines_max)..length {
        if let Some((_, line)) = document.get(&chat, at)? {
            state.chat.push((text_of(&line, "who")?, text_of(&line, "text")?));
        }
    }
    for at in 0..document.length(&tasks) {
        if let Some((_, task)) = document.get(&tasks, at)? {
            let done = document.get(&task, "done")?.is_some_and(|(done, _)| done.as_bool() == Some(true));
            state.tasks.push((text_of(&task, "title")?, done));
        }
    }
    state.notes = document.get(ROOT, "notes")?.map(|(_, notes)| document.text(notes)).transpose()?.unwrap_or_default();
    state.cheers = document.get(ROOT, "cheers")?.and_then(|(value, _)| value.as_i64()).unwrap_or_default();
    (state.heads, state.changes) = progress(document);
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(repo: &Repo) -> Board {
        Board::open(repo, &MeshKey::open("test")).expect("a board")
    }

    #[test]
    fn two_that_begin_a_board_have_the_same_one_and_it_merges() {
        let (here, there) = (Repo::memory().expect("a repo"), Repo::memory().expect("a repo"));
        let (mine, theirs) = (board(&here), board(&there));
        assert_eq!(mine.document.url(), theirs.document.url());
        assert_eq!(mine.document.heads(), theirs.document.heads());
        for (board, who) in [(&mine, "anna"), (&theirs, "bert")] {
            board.say(who, "hello").expect("said");
            board.add_task(&format!("{who}'s task")).expect("added");
            board.append(&format!("{who} was here. ")).expect("written");
            board.cheer().expect("cheered");
        }
        let file = theirs.document.export().expect("a file");
        let merged = here.import_at(&mine.document.url(), &file).expect("merged");
        assert_eq!(merged.url(), mine.document.url());
        let state = mine.state(10).expect("a state");
        assert_eq!((state.chat.len(), state.tasks.len(), state.cheers, state.heads.len()), (2, 2, 2, 2));
        assert!(state.notes.contains("anna was here. ") && state.notes.contains("bert was here. "));
    }

    #[test]
    fn a_board_that_is_opened_again_is_as_it_was() {
        let repo = Repo::memory().expect("a repo");
        board(&repo).add_task("once").expect("added");
        let again = board(&repo);
        again.toggle(0).expect("ticked off");
        again.toggle(7).expect("nothing there");
        assert_eq!(again.state(10).expect("a state").tasks, [("once".to_owned(), true)]);
    }
}

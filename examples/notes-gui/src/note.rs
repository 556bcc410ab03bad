//! One note: a text in a document, the editor that shows it, and who else is there.
//!
//! Owns: taking edits out of the editor and into it without moving anybody's cursor. Must not: lay out the window.
//! Next: `main.rs`; docs/client.md.

use std::sync::mpsc::{self, Receiver, TryRecvError};

use eframe::egui::{self, text::CCursor, text::CCursorRange};
use serde_json::{Map, Value};
use syncline::automerge::transaction::Transactable;
use syncline::automerge::{Cursor, ObjType, ROOT};
use syncline::{Document, DocumentUrl, OnServer, Presence, PresenceOptions, Repo, Saved, TextEditor, block_on};

/// The key of the text in a note, as in many JavaScript examples.
const TEXT: &str = "content";

/// Characters of a note that are its title.
const TITLE_MAX: usize = 24;

/// A note in the window.
pub(crate) struct Note {
    document: Document,
    text: TextEditor,
    presence: Presence,
    /// What the editor shows.
    shown: String,
    /// Where this user is, held by a character of the document, so that it stays while others write.
    caret: Option<Cursor>,
}

/// A note on its way from a server.
pub(crate) struct Finding {
    url: DocumentUrl,
    found: Receiver<anyhow::Result<Document>>,
    arrived: std::cell::OnceCell<anyhow::Result<Document>>,
}

/// Makes an empty note.
pub(crate) fn create(repo: &Repo) -> anyhow::Result<Document> {
    Ok(repo.create(|tx| tx.put_object(ROOT, TEXT, ObjType::Text).map(drop))?)
}

impl Note {
    /// Shows a document; the window is drawn again whenever somebody changes it.
    pub(crate) fn open(document: Document, name: &str, context: &egui::Context) -> anyhow::Result<Self> {
        let text = document.text([TEXT])?;
        let shown = text.read()?;
        let presence = document.presence([("name".to_owned(), name.into())], PresenceOptions::default())?;
        let (mut watch, redraw) = (document.watch(), context.clone());
        std::thread::spawn(move || {
            while block_on(watch.changed()).is_ok() {
                redraw.request_repaint();
            }
        });
        Ok(Self { document, text, presence, shown, caret: None })
    }

    pub(crate) fn url(&self) -> DocumentUrl {
        self.document.url()
    }

    pub(crate) fn title(&self) -> String {
        let first = self.shown.lines().find(|line| !line.trim().is_empty()).unwrap_or("Empty note");
        first.chars().take(TITLE_MAX).collect()
    }

    /// Is it saved, and where?
    pub(crate) fn status(&self) -> String {
        let status = self.document.status();
        let here = match status.saved {
            Saved::Here => "saved here".to_owned(),
            Saved::Pending { changes } => format!("saving {changes}"),
            Saved::Failed { reason, .. } => format!("not saved: {reason}"),
        };
        let there = match status.server {
            OnServer::InSync => "on the server".to_owned(),
            OnServer::LocalOnly => "stays here".to_owned(),
            OnServer::Behind => format!("{} on their way to the server", status.ahead),
            OnServer::Offline { .. } if status.ahead > 0 => format!("offline, {} only here", status.ahead),
            OnServer::Offline { .. } => "offline".to_owned(),
        };
        format!("{here} · {there}")
    }

    /// The editor, with the others' names where they are.
    pub(crate) fn show(&mut self, ui: &mut egui::Ui) -> anyhow::Result<()> {
        let id = ui.make_persistent_id(self.url().to_string());
        self.take_in(ui.ctx(), id)?;
        self.show_others(ui);
        let editor = egui::TextEdit::multiline(&mut self.shown).id(id).desired_rows(24).desired_width(f32::INFINITY);
        let output = egui::ScrollArea::vertical().show(ui, |ui| editor.show(ui)).inner;
        if output.response.response.changed() {
            self.text.update(&self.shown)?;
        }
        if let Some(range) = output.cursor_range {
            self.stand_at(range.primary.index.0)?;
        }
        Ok(())
    }

    /// What others wrote goes into the editor, whose cursor stays at its character.
    fn take_in(&mut self, context: &egui::Context, id: egui::Id) -> anyhow::Result<()> {
        let text = self.text.read()?;
        if text == self.shown {
            return Ok(());
        }
        self.shown = text;
        if let (Some(caret), Some(mut state)) = (&self.caret, egui::TextEdit::load_state(context, id)) {
            let at = CCursor::new(self.text.position(caret)?);
            state.cursor.set_char_range(Some(CCursorRange::one(at)));
            egui::TextEdit::store_state(context, id, state);
        }
        Ok(())
    }

    fn stand_at(&mut self, index: usize) -> anyhow::Result<()> {
        let cursor = self.text.cursor(index.min(self.text.length()?))?;
        if self.caret.as_ref() != Some(&cursor) {
            self.presence.set("cursor", cursor.to_string())?;
            self.caret = Some(cursor);
        }
        Ok(())
    }

    fn show_others(&self, ui: &mut egui::Ui) {
        let others: Vec<String> = self.presence.peers().values().filter_map(|peer| self.whereabouts(peer)).collect();
        let line = if others.is_empty() { "nobody else is here".to_owned() } else { others.join(", ") };
        ui.weak(line);
    }

    /// "Anna at line 3".
    fn whereabouts(&self, peer: &Map<String, Value>) -> Option<String> {
        let name = peer.get("name")?.as_str()?;
        let cursor = peer.get("cursor").and_then(Value::as_str).and_then(|text| Cursor::try_from(text).ok());
        let Some(at) = cursor.and_then(|cursor| self.text.position(&cursor).ok()) else { return Some(name.to_owned()) };
        let line = self.shown.chars().take(at).filter(|letter| *letter == '\n').count() + 1;
        Some(format!("{name} at line {line}"))
    }
}

impl Finding {
    /// Looks for a note on a thread of its own: it may take as long as the network does.
    pub(crate) fn start(repo: &Repo, url: DocumentUrl, context: &egui::Context) -> Self {
        let (send, found) = mpsc::channel();
        let (repo, wanted, redraw) = (repo.clone(), url.clone(), context.clone());
        std::thread::spawn(move || {
            // A window that is closed meanwhile needs no answer.
            let _ = send.send(block_on(repo.find(&wanted)).map_err(anyhow::Error::from));
            redraw.request_repaint();
        });
        Self { url, found, arrived: std::cell::OnceCell::new() }
    }

    pub(crate) fn url(&self) -> &DocumentUrl {
        &self.url
    }

    pub(crate) fn is_done(&self) -> bool {
        match self.found.try_recv() {
            Ok(found) => self.arrived.set(found).is_ok(),
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => true,
        }
    }

    pub(crate) fn take(self) -> anyhow::Result<Document> {
        self.arrived.into_inner().unwrap_or_else(|| Err(anyhow::anyhow!("the search for {} ended", self.url)))
    }
}

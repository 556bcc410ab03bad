//! One text of a document, for an editor.
//!
//! Owns: positions, cursors and marks of a text object. Must not: keep a copy of the text.
//! Next: `document.rs`; docs/client.md, "Text".

use std::ops::Range;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, Cursor, ObjId, ObjType, Prop, ReadDoc, ScalarValue, Span};

use crate::Error;
use crate::document::Document;
use crate::view::{View, path_text};

/// A text inside a document. It stays the same text wherever its surroundings move.
///
/// Positions and lengths are in the unit of [`Options::text_encoding`](crate::Options::text_encoding): by default
/// characters (Unicode code points). JavaScript counts UTF-16 units; a [`Cursor`] means the same place on both sides.
#[derive(Debug, Clone)]
pub struct TextEditor {
    document: Document,
    object: ObjId,
}

impl Document {
    /// The text at a path from the root, such as `["body"]`.
    ///
    /// ```
    /// use syncline::{Repo, value::Text};
    /// # use autosurgeon::{Hydrate, Reconcile};
    /// # #[derive(Hydrate, Reconcile)]
    /// # struct Note { body: Text }
    /// let repo = Repo::memory()?;
    /// let note = repo.create_from(&Note { body: "Hello world".into() })?;
    /// let body = note.text(["body"])?;
    /// let cursor = body.cursor(6)?;
    /// body.splice(0, 5, "Good morning")?;
    /// assert_eq!((body.read()?.as_str(), body.position(&cursor)?), ("Good morning world", 13));
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoText`] when there is none, which a plain string is not either.
    pub fn text<P: Into<Prop>>(&self, path: impl IntoIterator<Item = P>) -> Result<TextEditor, Error> {
        let path: Vec<Prop> = path.into_iter().map(Into::into).collect();
        let found = self.read(|document| View::now(document, Vec::new()).find(&path))??;
        let Some((object, ObjType::Text)) = found else {
            return Err(Error::NoText { document: self.url().id().clone(), path: path_text(&path) });
        };
        Ok(TextEditor { document: self.clone(), object })
    }
}

impl TextEditor {
    /// The whole text.
    ///
    /// # Errors
    /// [`Error::Broken`]; [`Error::Edit`] as for all methods here when the text is not in the document any more.
    pub fn read(&self) -> Result<String, Error> {
        self.look(|document| document.text(&self.object))
    }

    /// Its length.
    ///
    /// # Errors
    /// As [`TextEditor::read`].
    pub fn length(&self) -> Result<usize, Error> {
        self.document.read(|document| document.length(&self.object))
    }

    /// Deletes so many characters at a position and puts these in their place.
    ///
    /// # Errors
    /// As [`Document::change`], and [`Error::Edit`] when the position is beyond the end.
    pub fn splice(&self, position: usize, delete: usize, insert: &str) -> Result<(), Error> {
        let delete = isize::try_from(delete).unwrap_or(isize::MAX);
        self.change(|transaction| transaction.splice_text(&self.object, position, delete, insert))
    }

    /// Makes it this text by the smallest edit.
    ///
    /// # Errors
    /// As [`Document::change`].
    pub fn update(&self, text: &str) -> Result<(), Error> {
        self.change(|transaction| transaction.update_text(&self.object, text))
    }

    /// A cursor before the character at this position: it stays there while the text around it changes, here or
    /// elsewhere. Its text form is the one that JavaScript's automerge reads.
    ///
    /// # Errors
    /// As [`TextEditor::read`], and [`Error::Edit`] when the position is beyond the end.
    pub fn cursor(&self, position: usize) -> Result<Cursor, Error> {
        // The end has no character to hold on to, and automerge a name of its own for it.
        let end = position == self.length()?;
        let position = if end { automerge::CursorPosition::End } else { position.into() };
        self.look(|document| document.get_cursor(&self.object, position, None))
    }

    /// Where a cursor is at this moment. Where its character was deleted: at the next one that was not.
    ///
    /// # Errors
    /// As [`TextEditor::read`], and [`Error::Edit`] when it is no cursor of this text.
    pub fn position(&self, cursor: &Cursor) -> Result<usize, Error> {
        self.look(|document| document.get_cursor_position(&self.object, cursor, None))
    }

    /// Marks a range: bold, a link, a comment's id. `expand` says whether what is typed at its edges belongs to it.
    ///
    /// # Errors
    /// As [`TextEditor::splice`].
    pub fn mark(
        &self,
        range: Range<usize>,
        name: &str,
        value: impl Into<ScalarValue>,
        expand: ExpandMark,
    ) -> Result<(), Error> {
        let mark = Mark::new(name.to_owned(), value, range.start, range.end);
        self.change(|transaction| transaction.mark(&self.object, mark, expand))
    }

    /// Takes a mark away from a range.
    ///
    /// # Errors
    /// As [`TextEditor::splice`].
    pub fn unmark(&self, range: Range<usize>, name: &str, expand: ExpandMark) -> Result<(), Error> {
        self.change(|transaction| transaction.unmark(&self.object, name, range.start, range.end, expand))
    }

    /// The marks that there are, in the order of their places.
    ///
    /// # Errors
    /// As [`TextEditor::read`].
    pub fn marks(&self) -> Result<Vec<Mark>, Error> {
        self.look(|document| document.marks(&self.object))
    }

    /// The text in pieces of equal marks, and its blocks.
    ///
    /// # Errors
    /// As [`TextEditor::read`].
    pub fn spans(&self) -> Result<Vec<Span>, Error> {
        self.look(|document| document.spans(&self.object).map(Iterator::collect))
    }

    fn look<R>(&self, read: impl FnOnce(&automerge::Automerge) -> Result<R, AutomergeError>) -> Result<R, Error> {
        Ok(self.document.read(read)??)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Transaction<'_>) -> Result<R, AutomergeError>) -> Result<R, Error> {
        self.document.change(change)
    }
}

//! Copies that share a history, and bringing them together.
//!
//! Owns: forking into a new document, comparing, merging, files. Must not: keep track of who was forked from whom: the
//! histories tell.
//! Next: `history.rs`; docs/client.md, "Branches".

use std::panic::catch_unwind;

use automerge::{Automerge, ChangeHash, LoadOptions, Patch, ReadDoc};
use bytes::Bytes;
use syncline_core::change::Change;
use syncline_core::id::DocumentId;

use crate::document::Document;
use crate::repo::Repo;
use crate::selection::may_merge;
use crate::{DocumentUrl, Error};

impl Repo {
    /// Makes a new document with the whole history of another: a branch, which can be merged back. A branch of one that
    /// stays on this machine stays here too, and making it blocks on the disk.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, ReadDoc, transaction::Transactable};
    /// # use syncline::Repo;
    /// let repo = Repo::memory()?;
    /// let text = repo.create(|tx| tx.put(ROOT, "title", "Draft"))?;
    /// let branch = repo.fork(&text)?;
    /// branch.change(|tx| tx.put(ROOT, "title", "Final"))?;
    /// assert_eq!(text.compare(&branch)?.len(), 1);
    /// text.merge(&branch)?;
    /// assert_eq!(text.heads(), branch.heads());
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`]; [`Error::NotChosen`] for a branch that is to stay here.
    pub fn fork(&self, document: &Document) -> Result<Document, Error> {
        self.fork_at(document, &document.heads())
    }

    /// As [`Repo::fork`], with the history up to these heads only.
    ///
    /// # Errors
    /// As [`Repo::fork`], and [`Error::UnknownHeads`].
    pub fn fork_at(&self, document: &Document, heads: &[ChangeHash]) -> Result<Document, Error> {
        let copy = document.read_knowing(&[heads], |document| document.fork_at(heads))??;
        self.create_from_history(&copy, document.is_local_only())
    }

    /// Makes a document from an automerge file, as [`Document::export`] and JavaScript's `Automerge.save` write it. It
    /// gets an address of its own; its history comes along.
    ///
    /// # Errors
    /// [`Error::Import`] when it is no such file; [`Error::Refused`] when a change in it is one that no replica would
    /// take; [`Error::Closed`].
    pub fn import(&self, file: &[u8]) -> Result<Document, Error> {
        self.import_as(file, false)
    }

    /// As [`Repo::import`], for a document that stays on this machine. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Repo::import`], and [`Error::NotChosen`].
    pub fn import_local_only(&self, file: &[u8]) -> Result<Document, Error> {
        self.import_as(file, true)
    }

    /// Makes a document from an automerge file at an address that the caller knows, or adds the file's history to what is
    /// there: for documents that several repos begin alike, each for itself. It is the same document only if the files
    /// begin with the same change, byte for byte.
    ///
    /// # Errors
    /// As [`Repo::import`].
    pub fn import_at(&self, url: &DocumentUrl, file: &[u8]) -> Result<Document, Error> {
        self.engine().check_open()?;
        let changes = self.load(file)?.get_changes(&[]);
        let document = self.open_document(url.id())?;
        let unknown = |here: &Automerge| {
            let new = changes.into_iter().filter(|change| here.get_change_by_hash(&change.hash()).is_none());
            Ok(new.collect())
        };
        document.live().take_in(self.engine(), unknown)?;
        Ok(document)
    }

    fn load(&self, file: &[u8]) -> Result<Automerge, Error> {
        let encoding = self.engine().text_encoding;
        match catch_unwind(|| Automerge::load_with_options(file, LoadOptions::new().text_encoding(encoding))) {
            Ok(Ok(loaded)) => Ok(loaded),
            Ok(Err(error)) => Err(Error::Import { reason: error.to_string() }),
            Err(_) => Err(Error::Import { reason: "automerge panicked while it loaded it".to_owned() }),
        }
    }

    fn import_as(&self, file: &[u8], local_only: bool) -> Result<Document, Error> {
        self.create_from_history(&self.load(file)?, local_only)
    }

    fn create_from_history(&self, history: &Automerge, local_only: bool) -> Result<Document, Error> {
        self.engine().check_open()?;
        let changes = history.get_changes(&[]);
        if changes.is_empty() {
            return if local_only { self.create_local_only(|_| Ok(())) } else { self.create(|_| Ok(())) };
        }
        let document = match local_only {
            true => self.open_local_only()?,
            false => self.open_document(&DocumentId::from_random(rand::random()))?,
        };
        document.live().take_in(self.engine(), |_| Ok(changes))?;
        Ok(document)
    }
}

impl Document {
    /// The document with its history as an automerge file.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn export(&self) -> Result<Vec<u8>, Error> {
        self.read(Automerge::save)
    }

    /// What merging the other would do to this document.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn compare(&self, other: &Self) -> Result<Vec<Patch>, Error> {
        let other = other.read(Automerge::fork)?;
        let (mut merged, before) = self.read(|document| (document.fork(), document.get_heads()))?;
        merged.apply_changes(lacking(&merged, &other))?;
        Ok(merged.diff(&before, &merged.get_heads()))
    }

    /// Brings into this document what the other has and this has not. They share a history, one being a branch of the
    /// other or both of a third. Merging is no step of this process: it is not undone.
    ///
    /// # Errors
    /// [`Error::Unrelated`] when they share no change; [`Error::LocalOnly`] when the other stays on this machine and this one
    /// does not; [`Error::Refused`], [`Error::Broken`], [`Error::Closed`].
    pub fn merge(&self, other: &Self) -> Result<(), Error> {
        may_merge(other, self)?;
        // A copy, so that no two documents are held at one time: the other may be merging this one.
        let other = other.read(Automerge::fork)?;
        self.live().take_in(self.engine(), |document| {
            let added = lacking(document, &other);
            let theirs = other.get_changes_meta(&[]).len();
            if !document.get_heads().is_empty() && theirs > 0 && added.len() == theirs {
                return Err(Error::Unrelated { document: self.url().id().clone() });
            }
            Ok(added)
        })
    }
}

/// The changes that one document has and the other lacks, dependencies first.
fn lacking(document: &Automerge, other: &Automerge) -> Vec<automerge::Change> {
    let known = |change: &automerge::Change| document.get_change_meta_by_hash(&change.hash()).is_some();
    other.get_changes(&[]).into_iter().filter(|change| !known(change)).collect()
}

/// Changes of automerge's as the replica takes them, dependencies first.
pub(crate) fn checked(
    changes: &[automerge::Change],
    limits: &syncline_core::limits::Limits,
) -> Result<Vec<Change>, Error> {
    let decode = |change: &automerge::Change| Change::decode(Bytes::copy_from_slice(change.raw_bytes()), limits);
    changes.iter().map(|change| decode(change).map_err(Error::Refused)).collect()
}

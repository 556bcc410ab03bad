//! One question about a document, and its answer, as they go to whoever may load it.
//!
//! Owns: what can be asked, the loading of what is stored, the bytes of both. Must not: keep a document.
//! Next: `json.rs`, `edit.rs`, `history.rs`; the crate `syncline-loader`.

use std::fmt::Debug;

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Author, Automerge, AutomergeError, Change, ChangeHash, LoadOptions, ReadDoc, TextEncoding};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use syncline_core::loader::{InProcess, LoadError, Old};

use crate::{Edit, history, json};

/// Answers questions about documents of unknown origin.
pub trait Viewer: Debug + Send + Sync {
    /// Loads a document as it is stored and answers one question.
    ///
    /// # Errors
    /// [`ContentError`].
    fn view(&self, document: &Old<'_>, question: &Question) -> Result<Answer, ContentError>;
}

/// A panic is caught here; an allocation that fails ends the process.
impl Viewer for InProcess {
    fn view(&self, document: &Old<'_>, question: &Question) -> Result<Answer, ContentError> {
        question.answer(document)
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The document's values.
    Values {
        /// When.
        at: At,
    },
    /// Its changes, the newest first.
    History {
        /// How many of the newest to leave out.
        skip: usize,
        /// How many to tell.
        limit: usize,
    },
    /// The whole document in one chunk, as automerge saves it.
    Save,
    /// The change that an edit makes.
    Edit {
        /// What to change.
        edit: Edit,
        /// Who changes it, in the words of the application; kept with the change.
        author: Option<String>,
        /// The automerge actor to write as.
        actor: Vec<u8>,
        /// What for.
        message: Option<String>,
        /// Seconds since 1970.
        time_s: i64,
        /// Make a change even if the edit changes nothing: without any, there is no document.
        even_if_empty: bool,
    },
}

/// A state of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// As it is.
    Now,
    /// As it was at these heads, hexadecimal.
    Heads(Vec<String>),
    /// As it was at a time by the clocks of its authors, seconds since 1970.
    Time(i64),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// JSON.
    Json(Bytes),
    /// A document chunk.
    Saved(Bytes),
    /// The raw chunk of a change, and the heads with it; no change if the edit changes nothing.
    Edited {
        /// The change, uncompressed.
        change: Option<Bytes>,
        /// The heads after it, sorted.
        heads: Vec<ChangeHash>,
    },
}

/// Why there is no answer. **State:** nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The question cannot be answered of this document. **Do:** as the words say.
    #[error("{0}")]
    Question(String),
    /// The document cannot be loaded within the limits. **Do:** raise them if the document is honest.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Question {
    /// Loads a document in this process and answers; a panic of automerge is an error of the document.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn answer(&self, stored: &Old<'_>) -> Result<Answer, ContentError> {
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.answer_of(&mut load(stored)?)));
        answer.unwrap_or(Err(ContentError::Load(LoadError::Panicked)))
    }

    fn answer_of(&self, document: &mut Automerge) -> Result<Answer, ContentError> {
        match self {
            Self::Values { at } => values(document, at),
            Self::History { skip, limit } => {
                let (count, entries) = history::list(document, *skip, *limit);
                to_json(&serde_json::json!({ "changes": count, "history": entries }))
            }
            Self::Save => Ok(Answer::Saved(document.save().into())),
            Self::Edit { edit, author, actor, message, time_s, even_if_empty } => {
                document.set_author(author.as_ref().map(|author| Author::from(author.as_bytes().to_vec())));
                document.set_actor(ActorId::from(actor.as_slice()));
                let mut transaction = document.transaction();
                edit.apply(&mut transaction).map_err(refused)?;
                let commit = || {
                    let commit = CommitOptions::default().with_time(*time_s);
                    message.iter().fold(commit, |commit, message| commit.with_message(message.clone()))
                };
                let (hash, _) = transaction.commit_with(commit());
                let hash = hash.or_else(|| even_if_empty.then(|| document.empty_commit(commit())));
                let change = hash.and_then(|hash| document.get_change_by_hash(&hash));
                Ok(Answer::Edited {
                    change: change.map(|change| Bytes::copy_from_slice(change.raw_bytes())),
                    heads: sorted(document.get_heads()),
                })
            }
        }
    }
}

fn values(document: &Automerge, at: &At) -> Result<Answer, ContentError> {
    let heads = match at {
        At::Now => None,
        At::Time(time_s) => Some(history::heads_at(document, *time_s)),
        At::Heads(wanted) => Some(known(document, wanted)?),
    };
    let content = json::of_document(document, heads.as_deref()).map_err(refused)?;
    let heads = heads.unwrap_or_else(|| sorted(document.get_heads()));
    let heads: Vec<String> = heads.iter().map(ChangeHash::to_string).collect();
    to_json(&serde_json::json!({ "heads": heads, "content": content }))
}

fn known(document: &Automerge, wanted: &[String]) -> Result<Vec<ChangeHash>, ContentError> {
    let known = |text: &String| {
        let hash: ChangeHash = text.parse().map_err(|_| refused(format!("{text:?} is no change hash")))?;
        let there = document.get_change_meta_by_hash(&hash).is_some();
        if there { Ok(hash) } else { Err(refused(format!("the document has no change {hash}"))) }
    };
    wanted.iter().map(known).collect()
}

fn load(stored: &Old<'_>) -> Result<Automerge, ContentError> {
    let refuse = |error: AutomergeError| LoadError::Refused { reason: error.to_string() };
    let options = || LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
    let mut document = match stored.snapshot {
        Some(snapshot) => Automerge::load_with_options(snapshot, options()).map_err(refuse)?,
        None => Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint),
    };
    let change = |bytes: &&[u8]| Change::from_bytes(bytes.to_vec());
    let changes = stored.changes.iter().map(change).collect::<Result<Vec<_>, _>>();
    let changes = changes.map_err(|error| LoadError::Refused { reason: error.to_string() })?;
    document.apply_changes(changes).map_err(refuse)?;
    Ok(document)
}

fn sorted(mut heads: Vec<ChangeHash>) -> Vec<ChangeHash> {
    heads.sort_unstable();
    heads
}

fn to_json(value: &serde_json::Value) -> Result<Answer, ContentError> {
    serde_json::to_vec(value).map(|text| Answer::Json(text.into())).map_err(refused)
}

fn refused(error: impl ToString) -> ContentError {
    ContentError::Question(error.to_string())
}

impl Answer {
    /// The answer, or why there is none, in pieces for a pipe.
    #[must_use]
    pub fn encode(answer: &Result<Self, ContentError>) -> Vec<Bytes> {
        let kind = |kind: u8| Bytes::copy_from_slice(&[kind]);
        match answer {
            Ok(Self::Json(text)) => vec![kind(0), text.clone()],
            Ok(Self::Saved(bytes)) => vec![kind(1), bytes.clone()],
            Ok(Self::Edited { change, heads }) => {
                let heads: Vec<u8> = heads.iter().flat_map(|hash| hash.0).collect();
                [kind(2), heads.into()].into_iter().chain(change.clone()).collect()
            }
            Err(ContentError::Question(words)) => vec![kind(3), words.clone().into()],
            Err(ContentError::Load(error)) => vec![kind(4), error.to_string().into()],
        }
    }

    /// The answer, or why there is none.
    ///
    /// # Errors
    /// [`ContentError`], also for pieces that are none.
    pub fn decode(pieces: &[Bytes]) -> Result<Self, ContentError> {
        let words = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        match pieces {
            [kind, text] if kind[..] == [0] => Ok(Self::Json(text.clone())),
            [kind, bytes] if kind[..] == [1] => Ok(Self::Saved(bytes.clone())),
            [kind, heads, change @ ..] if kind[..] == [2] && change.len() <= 1 => {
                let heads = heads.as_chunks::<32>().0.iter().map(|hash| ChangeHash(*hash)).collect();
                Ok(Self::Edited { change: change.first().cloned(), heads })
            }
            [kind, text] if kind[..] == [3] => Err(ContentError::Question(words(text))),
            [kind, text] if kind[..] == [4] => Err(ContentError::Load(LoadError::Refused { reason: words(text) })),
            _ => Err(ContentError::Load(LoadError::Died { how: "its answer cannot be read".to_owned() })),
        }
    }
}

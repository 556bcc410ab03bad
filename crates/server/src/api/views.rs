//! Questions about documents, asked of whoever may load them.
//!
//! Owns: how many ask at one time, which documents cannot be loaded. Must not: load one itself.
//! Next: `content.rs`; the crates `syncline-content` and `syncline-loader`.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use syncline_content::{Answer, Question, Viewer};
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_core::loader::Old;
use syncline_core::storage::Payload;
use syncline_store::Store;
use tokio::sync::Semaphore;

use super::error::ApiError;

/// Questions that are asked or wait at one time.
const VIEWS_MAX: usize = 16;

/// Documents of which it is remembered that they cannot be loaded.
const MARKED_MAX: usize = 1_024;

/// Who answers questions, within bounds.
#[derive(Debug)]
pub(crate) struct Views {
    viewer: Arc<dyn Viewer>,
    places: Semaphore,
    /// Documents that could not be loaded, as of their last change, and why.
    marked: Mutex<Vec<(DocumentId, Stamp, String)>>,
    failures: Counter,
}

impl Views {
    pub(crate) fn new(viewer: Arc<dyn Viewer>, failures: Counter) -> Self {
        Self { viewer, places: Semaphore::new(VIEWS_MAX), marked: Mutex::default(), failures }
    }

    /// Asks about a document of the store, as it was at its last change.
    pub(crate) async fn ask(
        &self,
        store: &Store,
        (document, last_stamp): (DocumentId, Stamp),
        question: Question,
    ) -> Result<Answer, ApiError> {
        if let Some(reason) = self.marked(&document, last_stamp) {
            return Err(ApiError::Unshowable(reason));
        }
        let place = self.places.try_acquire().map_err(|_| ApiError::Busy)?;
        let (viewer, store, id) = (Arc::clone(&self.viewer), store.clone(), document.clone());
        let work = move || -> Result<Answer, ApiError> {
            let payload = store.payload(&id)?.ok_or(ApiError::NotFound)?;
            Ok(viewer.view(&old(&payload), &question)?)
        };
        let answer = run(work).await;
        drop(place);
        if let Err(ApiError::Unshowable(reason)) = &answer {
            self.mark(document, last_stamp, reason.clone());
        }
        answer
    }

    /// Asks about a document of which nothing is there.
    pub(crate) async fn ask_of_nothing(&self, question: Question) -> Result<Answer, ApiError> {
        let _place = self.places.try_acquire().map_err(|_| ApiError::Busy)?;
        let viewer = Arc::clone(&self.viewer);
        run(move || Ok(viewer.view(&Old { snapshot: None, changes: Vec::new(), count: 0 }, &question)?)).await
    }

    /// Why a document cannot be loaded, if that is known.
    fn marked(&self, document: &DocumentId, last_stamp: Stamp) -> Option<String> {
        let marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut marks = marked.iter().filter(|(id, stamp, _)| id == document && *stamp == last_stamp);
        marks.next().map(|(_, _, reason)| reason.clone())
    }

    fn mark(&self, document: DocumentId, last_stamp: Stamp, reason: String) {
        tracing::warn!(%document, "a document cannot be shown: {reason}");
        self.failures.inc();
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        marked.retain(|(id, _, _)| *id != document);
        if marked.len() == MARKED_MAX {
            marked.remove(0);
        }
        marked.push((document, last_stamp, reason));
    }
}

async fn run(work: impl FnOnce() -> Result<Answer, ApiError> + Send + 'static) -> Result<Answer, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn old(payload: &Payload) -> Old<'_> {
    Old {
        snapshot: payload.snapshot.as_deref(),
        changes: payload.tail.iter().map(|change| &change.bytes[..]).collect(),
        count: payload.changes,
    }
}

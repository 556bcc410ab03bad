//! A store as it was at a stamp.
//!
//! Owns: which changes of a document were there. Must not: change the store that it reads.
//! Next: `import.rs`; docs/operations.md, "Going back in time".
//!
//! A store keeps the stamp of every change, so any backup holds every earlier state too. The changes of one are taken into
//! a new store, which stamps them anew: whoever followed the old one by stamp begins again.

use std::path::Path;
use std::sync::Arc;

use syncline_core::ChangeHash;
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::graph::Graph;
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;
use syncline_core::loader::Loader;
use syncline_store::{Store, StoreError};

use super::import::{Imported, Intake};
use crate::server::{ServerError, open_store};

/// Documents listed at one time.
const PAGE: usize = 256;

/// Fills a new store with what another one had at a stamp; `progress` is told after each document. Documents that are deleted
/// stay behind, and so do blobs.
///
/// # Errors
/// [`ServerError::Store`] when either cannot be opened or read.
pub async fn rewind(
    from: &Path,
    until: Stamp,
    data: &Path,
    loader: Arc<dyn Loader>,
    mut progress: impl FnMut(),
) -> Result<Imported, ServerError> {
    let options = syncline_store::Options { loader: Arc::clone(&loader), ..syncline_store::Options::default() };
    let store = open_store(from.to_owned(), options).await?;
    let intake = Intake::open(data, Arc::clone(&loader)).await?;
    let mut imported = Imported::default();
    let mut after: Option<DocumentId> = None;
    loop {
        let (reading, from) = (store.clone(), after.clone());
        let page = blocking(move || reading.documents(from.as_ref(), PAGE)).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (id, _) in page {
            let (reading, document) = (store.clone(), id.clone());
            let limits = intake.limits().clone();
            match blocking(move || Ok(changes_until(&reading, &document, until, &limits))).await? {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => match intake.take(id.clone(), changes).await {
                    Ok(()) => imported.documents += 1,
                    Err(reason) => imported.refused.push((id, reason)),
                },
                Err(error) => imported.refused.push((id, error)),
            }
            progress();
        }
    }
    intake.close().await;
    Ok(imported)
}

/// The first changes of a document's journal, up to a stamp.
fn changes_until(store: &Store, id: &DocumentId, until: Stamp, limits: &Limits) -> Result<Vec<Change>, String> {
    let words = |error: StoreError| error.to_string();
    let stamps = store.stamps(id).map_err(words)?;
    let count = stamps.iter().take_while(|stamp| **stamp <= until).count();
    let Some(stored) = store.graph(id).map_err(words)? else { return Ok(Vec::new()) };
    let graph = Graph::from_stored(&stored, 0).map_err(|error| error.to_string())?;
    let hashes: Vec<ChangeHash> = (0..graph.len()).take(count).map(|node| graph.hash(node)).collect();
    let chunks = store.changes(id, &hashes).map_err(words)?;
    let changes = chunks.into_iter().map(|chunk| Change::decode(chunk, limits));
    changes.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ServerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(ServerError::Store),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

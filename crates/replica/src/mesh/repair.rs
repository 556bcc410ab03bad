//! Comparing with one neighbour, so that what notices missed comes all the same.
//!
//! Owns: when a repair is over and what it found. Must not: decide with whom or when; the overlay does.
//! Next: `../mesh.rs`; docs/protocol.md §11, "Repair".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use syncline_core::hub::{Input, Source};
use syncline_core::id::{DocumentId, SessionId};
use syncline_gossip::overlay;

use crate::replica::Inner;

/// Documents greeted before other tasks get their turn.
const PAGE: usize = 256;

/// What is found within this time after the last greeting counts as found by the repair.
const LENGTH: Duration = Duration::from_millis(500);

/// Repairs under way, with what each has found.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    found: Mutex<HashMap<SessionId, u64>>,
}

impl Repairs {
    /// Something has become durable.
    pub(super) fn note(&self, source: Source) {
        if let Source::Neighbour(session) = source
            && let Some(found) = self.lock().get_mut(&session)
        {
            *found += 1;
        }
    }

    pub(super) fn forget(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    fn begin(&self, session: SessionId) -> bool {
        self.lock().insert(session, 0).is_none()
    }

    fn end(&self, session: SessionId) -> Option<u64> {
        self.lock().remove(&session)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, u64>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares with a neighbour, one at a time.
pub(super) fn start(inner: &Arc<Inner>, session: SessionId) {
    let Some(mesh) = inner.mesh() else { return };
    if !mesh.repairs.begin(session) {
        return;
    }
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        greet_all(&inner, session).await;
        tokio::time::sleep(LENGTH).await;
        if let (Some(mesh), true) = (inner.mesh(), inner.outbox(session).is_some())
            && let Some(found) = mesh.repairs.end(session)
        {
            mesh.handle(&inner, overlay::Input::Repaired { link: session, found });
        }
    });
}

/// Speaks of every document in which this replica takes part.
async fn greet_all(inner: &Arc<Inner>, session: SessionId) {
    let mut after: Option<DocumentId> = None;
    loop {
        let (store, from) = (inner.store.clone(), after.take());
        let read = tokio::task::spawn_blocking(move || store.documents(from.as_ref(), PAGE)).await;
        let page = match read {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return tracing::error!("cannot compare with a neighbour: {error}"),
            Err(_) => return,
        };
        let Some(mesh) = inner.mesh() else { return };
        for (document, _) in &page {
            if mesh.lock().takes_part_in(document) {
                inner.route(Input::Initiate { session, document: document.clone() }, document);
            }
        }
        let Some((last, _)) = page.last() else { return };
        after = Some(last.clone());
        tokio::task::yield_now().await;
    }
}

//! Comparing with one neighbour, so that what notices missed comes all the same.
//!
//! Owns: which documents are greeted after a comparison. Must not: decide with whom or when; the overlay does.
//! Next: `../mesh.rs`, `../collection.rs`; docs/protocol.md §11, "Repair".

use std::sync::Arc;
use std::time::Duration;

use syncline_core::collection::{EndReason, Event, Input as RoundInput, Outcome, Report, Scope, SetName};
use syncline_core::hub::Input;
use syncline_core::id::{DocumentId, SessionId};
use syncline_gossip::MeshKey;
use syncline_gossip::membership::Participation;
use syncline_gossip::overlay;

use super::MeshState;
use crate::replica::Inner;

/// Documents greeted before other tasks get their turn.
const PAGE: usize = 256;

/// Between two tries with a neighbour that is still reading its documents from the disk.
const NOT_READY_WAIT: Duration = Duration::from_millis(250);

/// With what documents are compared.
#[derive(Debug)]
pub(super) struct Comparison {
    /// The set of all documents under the mesh's key; `None` for a replica that does not take part in all that it has.
    set: Option<SetName>,
}

impl Comparison {
    pub(super) fn new(inner: &Inner, key: &MeshKey, participation: &Participation) -> Self {
        let set = matches!(participation, Participation::All).then(|| {
            let key = key.set_key();
            let name = SetName::of(&key);
            inner.collection.send(RoundInput::AddSet { key });
            name
        });
        Self { set }
    }

    /// A neighbour may compare all documents with ours, and be told the names of those that it lacks.
    pub(super) fn allow(&self, inner: &Inner, session: SessionId) {
        if let Some(set) = self.set {
            inner.collection.send(RoundInput::Allow { session, set, scope: Scope::Names });
        }
    }
}

impl MeshState {
    /// Begins to compare with a neighbour.
    pub(super) fn compare(&self, inner: &Arc<Inner>, session: SessionId) {
        match self.comparison.set {
            Some(set) => inner.collection.send(RoundInput::Compare { session, set, names: true }),
            None => drop(tokio::spawn(greet_all(Arc::clone(inner), session))),
        }
    }

    /// Whether news is about a comparison of this mesh.
    pub(crate) fn compares(&self, event: &Event) -> bool {
        let Event::Compared { report, .. } = event;
        self.comparison.set == Some(report.set)
    }

    /// A comparison is over: what differs is greeted.
    pub(crate) fn compared(&self, inner: &Arc<Inner>, event: Event) {
        let Event::Compared { session, report } = event;
        let Report { set, outcome, ours, theirs, .. } = *report;
        match outcome {
            Outcome::Gone => return,
            Outcome::Ended { reason: EndReason::NotReady, .. } => {
                let inner = Arc::clone(inner);
                tokio::spawn(async move {
                    tokio::time::sleep(NOT_READY_WAIT).await;
                    inner.collection.send(RoundInput::Compare { session, set, names: true });
                });
                return;
            }
            // It takes part in some documents only, so that it has no such set.
            Outcome::Ended { reason: EndReason::NoSuchSet | EndReason::NotForYou, .. } => {
                tokio::spawn(greet_all(Arc::clone(inner), session));
                return;
            }
            Outcome::Complete | Outcome::Ended { .. } => {}
        }
        let found = (ours.len() + theirs.len()) as u64;
        for document in ours.into_iter().chain(theirs) {
            inner.route(Input::Initiate { session, document: document.clone() }, &document);
        }
        self.handle(inner, overlay::Input::Repaired { link: session, found });
    }
}

/// Speaks of every document in which this replica takes part. How many differ is not known afterwards.
async fn greet_all(inner: Arc<Inner>, session: SessionId) {
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
        let Some((last, _)) = page.last() else {
            return mesh.handle(&inner, overlay::Input::Repaired { link: session, found: 0 });
        };
        after = Some(last.clone());
        tokio::task::yield_now().await;
    }
}

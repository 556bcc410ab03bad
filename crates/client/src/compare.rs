//! Documents compared with a server that can do that: those that differ are spoken of, instead of each that it may lack.
//!
//! Owns: when a server is compared with, what is done about each document that differs. Must not: take more from a server
//! than is wanted here. Next: `offer.rs`, `selection.rs`; docs/client.md, "Selective sync".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use syncline_core::collection::{Outcome, Report, SetName};
use syncline_core::hub::PeerInfo;
use syncline_core::id::{DocumentId, SessionId, StorageId};
use syncline_store::{Offer, StoreError};

use crate::engine::Engine;
use crate::selection::SyncPolicy;

/// Documents that a round found, looked up before other tasks get their turn.
const PAGE: usize = 256;

/// Closed documents of which a server had all that is here, that are offered to it once more on one connection: each costs a
/// message and an answer, on every connection on which the server has more. The first that comes is drawn.
const OFFERS_MAX: usize = 256;

/// Where everything is wanted, documents that nobody has open are followed by rounds: so long after one that found
/// something the next one begins, and after twice as long each time that nothing was found.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

/// The rounds with servers that are connected.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// How long to wait for the next one with each, once there was one.
    waits: Mutex<HashMap<SessionId, Duration>>,
}

impl Rounds {
    /// A connection is gone.
    pub(crate) fn left(&self, session: SessionId) {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }

    /// Whether a round is the connection's first, and the wait after it.
    fn ended(&self, session: SessionId, found: usize) -> (bool, Duration) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waits.get(&session).copied();
        let wait = match before {
            Some(before) if found == 0 => (before * 2).min(AGAIN_AFTER_MAX),
            _ => AGAIN_AFTER,
        };
        waits.insert(session, wait);
        (before.is_none(), wait)
    }
}

impl Engine {
    /// Speaks with a server that has come. One that takes part in rounds is compared with: the rest follows from what that
    /// finds.
    pub(crate) async fn welcome(self: Arc<Self>, session: SessionId, peer: PeerInfo) {
        self.offer_wanted(session).await;
        if peer.native >= syncline_core::collection::message::SINCE {
            self.replica.compare(session, SetName::of_documents(), false);
        } else {
            self.offer_stored(session, peer.storage).await;
        }
    }

    /// A round is over.
    pub(crate) async fn compared(self: Arc<Self>, session: SessionId, report: Report) {
        let Some(server) = self.servers.session(session).map(|server| server.storage) else { return };
        let complete = report.outcome == Outcome::Complete;
        let (first, wait) = self.rounds.ended(session, report.ours.len());
        self.speak_of_differing(session, server.clone(), report.ours).await;
        if !complete {
            tracing::debug!(session = session.0, "no round: {:?}", report.outcome);
        }
        if first && complete {
            // Of these no server is known to have everything, though this one may: it is heard, and noted.
            self.offer_behind(session, server).await;
        } else if first {
            self.offer_stored(session, server).await;
        }
        if complete && self.sync == SyncPolicy::Everything {
            let mut stopped = self.stopped();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            if self.servers.session(session).is_some() {
                self.replica.compare(session, SetName::of_documents(), false);
            }
        }
    }

    /// The server has these documents not at all, or in another state. A closed one of which it had all that is here is
    /// offered: if it has lost that, it gets it back, and if it has more, that waits until the document is opened.
    async fn speak_of_differing(
        self: &Arc<Self>,
        session: SessionId,
        server: Option<StorageId>,
        documents: Vec<DocumentId>,
    ) {
        let (mut offers_left, mut documents) = (OFFERS_MAX, documents);
        let first = rand::random_range(0..documents.len().max(1));
        documents.rotate_left(first);
        for some in documents.chunks(PAGE) {
            let (engine, server, ids) = (Arc::clone(self), server.clone(), some.to_vec());
            let look = move || engine.replica.store().offers_of(server.as_ref(), &ids);
            let offers: Vec<Offer> = match tokio::task::spawn_blocking(look).await {
                Ok(Ok(offers)) => offers,
                Ok(Err(StoreError::Closed)) | Err(_) => return,
                Ok(Err(error)) => return tracing::error!("cannot offer documents that differ to a server: {error}"),
            };
            for Offer { document, policy, in_step } in offers {
                let wanted = policy.pinned || self.sync == SyncPolicy::Everything || self.live(&document).is_some();
                if policy.local_only {
                    continue;
                }
                if wanted || !in_step {
                    self.replica.initiate(session, &document);
                } else if let Some(left) = offers_left.checked_sub(1) {
                    offers_left = left;
                    self.replica.offer(session, &document);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

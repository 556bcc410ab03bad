//! Changes of ours that a server did not take, offered again while the connection lasts.
//!
//! Owns: when that is tried, and how often. Must not: change what is offered: a conversation begins anew, and finds out.
//! Next: `respond.rs`, `ingest.rs`; docs/protocol.md §9.

use std::time::Duration;

use super::document::Presence;
use super::{Hub, Now};
use crate::id::{DocumentId, SessionId};
use crate::native::RefusalReason;

/// Between a refusal and the next try; twice as long after each try that is refused too.
const RETRY: Duration = Duration::from_secs(30);

/// Tries on one connection. The last one is 16 minutes after the one before.
const RETRIES_MAX: u8 = 6;

/// What is still to be tried with one server about one document.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Retry {
    at: Option<Duration>,
    tried: u8,
}

impl Retry {
    /// Whether the server has refused something, as far as is known since it last let us do something else.
    fn was_refused(self) -> bool {
        self.at.is_some() || self.tried > 0
    }
}

impl Hub {
    /// A server did not take a change. Most reasons may be gone after a while: there was no room, a limit has been raised.
    pub(super) fn retry_later(&mut self, now: Now, id: &DocumentId, session: SessionId, reason: RefusalReason) {
        let Some(key) = self.keys.get(id).copied() else { return };
        // What was purged meanwhile is not here to be offered.
        let here = self.document(key).filter(|document| document.presence != Presence::Absent);
        let Some(peer) = here.and_then(|document| document.peer(session)) else { return };
        // What another device contradicts is never taken: its author writes it anew.
        if reason == RefusalReason::ActorInUse || peer.retry.at.is_some() || peer.retry.tried >= RETRIES_MAX {
            return;
        }
        let at = now.mono + RETRY * (1 << peer.retry.tried);
        peer.retry.at = Some(at);
        self.wake_at(key, at);
    }

    /// A server lets us do something else than before: what it did not take is offered again, and what it did not have for
    /// us is asked for.
    pub(super) fn offer_again(&mut self, now: Now, session: SessionId) {
        let Some(entry) = self.sessions.get(&session).filter(|_| self.upstreams.contains_key(&session)) else { return };
        let open: Vec<u32> = entry.documents.iter().copied().collect();
        for key in open {
            let Some(peer) = self.document(key).and_then(|document| document.peer(session)) else { continue };
            if peer.retry.was_refused() || peer.sync.said_it_has_nothing() {
                peer.retry = Retry::default();
                peer.begin_anew();
                self.respond(now, key, session);
            }
        }
    }

    /// Begins the conversation anew if a try is due, and sees to it that a later one will be.
    pub(super) fn retry_if_due(&mut self, now: Now, key: u32, session: SessionId) {
        let Some(peer) = self.document(key).and_then(|document| document.peer(session)) else { return };
        match peer.retry.at {
            Some(at) if at <= now.mono => {
                peer.retry = Retry { at: None, tried: peer.retry.tried + 1 };
                peer.begin_anew();
            }
            Some(at) => self.wake_at(key, at),
            None => {}
        }
    }
}

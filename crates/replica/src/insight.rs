//! What a replica can tell of its connections and of how far they are: for people.
//!
//! Owns: the list of those who are connected. Must not: hold up a shard.
//! Next: `replica.rs`, syncline-core's `hub/insight.rs`; the server crate's pages.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use syncline_core::hub::{Insight, PeerInfo};
use syncline_core::id::{DocumentId, SessionId};
use tokio::time::Instant;

use crate::dial::ServerUrl;
use crate::replica::Replica;

/// Somebody who has joined, and is still connected.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The connection.
    pub session: SessionId,
    /// Who.
    pub peer: PeerInfo,
    /// Its address, if it was dialled.
    pub server: Option<ServerUrl>,
    /// Since when.
    since: Instant,
}

impl Connected {
    /// For how long it has been connected.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.since.elapsed()
    }
}

/// All who are connected.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    connected: Mutex<BTreeMap<SessionId, Connected>>,
}

impl Directory {
    pub(crate) fn enter(&self, session: SessionId, peer: &PeerInfo, server: Option<&ServerUrl>) {
        let connected = Connected { session, peer: peer.clone(), server: server.cloned(), since: Instant::now() };
        self.lock().insert(session, connected);
    }

    pub(crate) fn leave(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    /// Everybody who is connected, in the order in which they came.
    #[must_use]
    pub fn connected(&self) -> Vec<Connected> {
        self.inner.directory.lock().values().cloned().collect()
    }

    /// One connection, if it is still there.
    #[must_use]
    pub fn connection(&self, session: SessionId) -> Option<Connected> {
        self.inner.directory.lock().get(&session).cloned()
    }

    /// How far everybody is with a document; `None` if it is not in memory, and so nobody is at it.
    pub async fn insight(&self, document: &DocumentId) -> Option<Insight> {
        self.inner.shard_of(document).look(document.clone()).await
    }
}

//! What a replica can tell of its connections and of how far they are: for people.
//!
//! Owns: the list of those who are connected. Must not: hold up a shard.
//! Next: `replica.rs`, syncline-core's `hub/insight.rs`; the server crate's pages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use syncline_core::clock::Stamp;
use syncline_core::hub::{Insight, Now, PeerInfo, Role};
use syncline_core::id::{DocumentId, SessionId};
use tokio::time::Instant;

use crate::dial::ServerUrl;
use crate::metrics::{Kind, Skew};
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
    clock: Option<Arc<PeerClock>>,
}

/// How far a peer's clock is from this one, as the last stamp says that it sent: how long that took on the way is in it.
#[derive(Debug, Default)]
pub(crate) struct PeerClock {
    ahead_ms: AtomicI64,
}

impl PeerClock {
    pub(crate) fn note(&self, now: Now, stamp: Stamp) {
        let ahead_ms = stamp.millis().cast_signed().saturating_sub(now.wall_ms.cast_signed());
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

impl Connected {
    /// For how long it has been connected.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.since.elapsed()
    }

    /// By how many milliseconds its clock is ahead of this one; negative if it is behind. Only of those that tell stamps.
    #[must_use]
    pub fn clock_ahead_ms(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.ahead_ms.load(Ordering::Relaxed))
    }

    /// What kind of peer it is, for counters.
    fn kind(&self) -> &'static str {
        match (self.peer.role, self.peer.native) {
            (Role::Upstream, _) => "upstream",
            (Role::Neighbour, _) => "neighbour",
            (Role::Downstream, 0) => "automerge_repo",
            (Role::Downstream, _) => "syncline",
        }
    }
}

/// All who are connected.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    connected: Mutex<BTreeMap<SessionId, Connected>>,
}

impl Directory {
    pub(crate) fn enter(&self, session: SessionId, peer: &PeerInfo, server: Option<&ServerUrl>) {
        let connected =
            Connected { session, peer: peer.clone(), server: server.cloned(), since: Instant::now(), clock: None };
        self.lock().insert(session, connected);
    }

    /// The clock of somebody who tells stamps, if they have entered.
    pub(crate) fn clock_of(&self, session: SessionId) -> Option<Arc<PeerClock>> {
        Some(Arc::clone(self.lock().get_mut(&session)?.clock.get_or_insert_default()))
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

    /// Brings the metrics up to this moment that tell what waits and who is connected.
    pub fn sample(&self) {
        let queues = &self.inner.metrics.queues;
        let lengths: Vec<usize> = self.inner.all_outboxes().iter().map(|outbox| outbox.len()).collect();
        queues.outgoing.set(lengths.iter().sum::<usize>() as i64);
        queues.outgoing_most.set(lengths.iter().copied().max().unwrap_or(0) as i64);
        let connected = self.connected();
        let mut kinds: BTreeMap<&'static str, usize> =
            ["automerge_repo", "syncline", "upstream", "neighbour"].map(|kind| (kind, 0)).into();
        for one in &connected {
            *kinds.entry(one.kind()).or_default() += 1;
        }
        *kinds.entry("neighbour").or_default() += self.inner.mesh().map_or(0, |mesh| mesh.members());
        let joined: usize = kinds.values().sum();
        kinds.insert("joining", lengths.len().saturating_sub(joined));
        for (kind, number) in kinds {
            queues.sessions.get_or_create(&Kind { kind }).set(number as i64);
        }
        let skews: Vec<i64> = connected.iter().filter_map(Connected::clock_ahead_ms).collect();
        for (direction, furthest) in
            [("ahead", skews.iter().max()), ("behind", skews.iter().map(|skew| -skew).max().as_ref())]
        {
            let seconds = furthest.copied().unwrap_or(0).max(0) as f64 / 1000.0;
            queues.clock_skew.get_or_create(&Skew { direction }).set(seconds);
        }
    }

    /// How far everybody is with a document; `None` if it is not in memory, and so nobody is at it.
    pub async fn insight(&self, document: &DocumentId) -> Option<Insight> {
        self.inner.shard_of(document).look(document.clone()).await
    }
}

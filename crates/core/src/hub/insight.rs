//! What a hub knows of a document in memory and of those who are at it: for people who ask why something does not sync.
//!
//! Owns: the picture. Must not: change anything, or bring a document into memory. Next: `document.rs`.

use super::Hub;
use crate::ChangeHash;
use crate::id::{DocumentId, SessionId};

/// A document in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insight {
    /// Heads of the durable changes, sorted.
    pub heads: Vec<ChangeHash>,
    /// Number of durable changes.
    pub changes: u32,
    /// Commits on their way to the store.
    pub commits_under_way: usize,
    /// Who is at it, in the order of their connections.
    pub peers: Vec<PeerInsight>,
}

/// How far a peer is with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInsight {
    /// The connection.
    pub session: SessionId,
    /// The heads that it announced, sorted.
    pub heads: Vec<ChangeHash>,
    /// What that means.
    pub state: PeerProgress,
}

/// How far a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerProgress {
    /// It has everything that is durable here.
    InStep,
    /// It was sent what it lacks, or is about to be, and has not confirmed it.
    Behind,
    /// It announces changes that are not here, and is asked for them.
    Ahead,
    /// It does not take what is sent to it: its queue is full.
    Slow,
    /// It has said nothing about the document yet.
    Silent,
}

impl Hub {
    /// What is known of a document, if it is in memory. Nothing of one that stays on this machine.
    #[must_use]
    pub fn insight(&self, id: &DocumentId) -> Option<Insight> {
        let key = *self.keys.get(id)?;
        let document = self.documents.get(key as usize)?.as_ref()?;
        if document.local_only {
            return None;
        }
        let peers = document.peers.iter().map(|peer| {
            let congested = self.sessions.get(&peer.session).is_some_and(|session| session.congested);
            let state = match () {
                () if peer.sync.has_all(document.view()) => PeerProgress::InStep,
                () if congested => PeerProgress::Slow,
                () if peer.sync.announces_more() => PeerProgress::Ahead,
                () if peer.sync.has_spoken() => PeerProgress::Behind,
                () => PeerProgress::Silent,
            };
            PeerInsight { session: peer.session, heads: peer.sync.their_heads(), state }
        });
        Some(Insight {
            heads: document.heads.clone(),
            changes: document.durable,
            commits_under_way: document.persisting.len(),
            peers: peers.collect(),
        })
    }
}

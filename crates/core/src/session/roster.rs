//! Which connection speaks for which peer.
//!
//! Owns: the rule that a peer's newest connection replaces its older one. Must not: close anything itself.
//! Next: `session.rs`; docs/protocol.md §1.

use std::collections::BTreeMap;

use crate::id::{PeerId, SessionId};

/// The peers that have joined, each with its connection.
#[derive(Debug, Default)]
pub struct Roster {
    sessions: BTreeMap<PeerId, SessionId>,
}

impl Roster {
    /// Registers a peer's connection. Returns the connection that it replaces, which is to be closed before the new one
    /// is connected to a hub.
    pub fn join(&mut self, peer: &PeerId, session: SessionId) -> Option<SessionId> {
        self.sessions.insert(peer.clone(), session).filter(|before| *before != session)
    }

    /// Takes a connection out; a newer one of the same peer stays.
    pub fn leave(&mut self, peer: &PeerId, session: SessionId) {
        if self.sessions.get(peer) == Some(&session) {
            self.sessions.remove(peer);
        }
    }

    /// Number of peers that have joined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody has joined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_connection_replaces_the_older_and_outlives_it() {
        let mut roster = Roster::default();
        let peer = PeerId::new("tab").expect("a name");
        assert_eq!(roster.join(&peer, SessionId(1)), None);
        assert_eq!(roster.join(&peer, SessionId(2)), Some(SessionId(1)));
        roster.leave(&peer, SessionId(1));
        assert_eq!(roster.len(), 1);
        roster.leave(&peer, SessionId(2));
        assert!(roster.is_empty());
    }
}

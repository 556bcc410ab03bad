//! A stock client: documents of its own, one connection at a time, automerge's sync protocol.
//!
//! Owns: what it holds, what it knows of its server. Must not: know how the server works.
//! Next: `content.rs`, `world/client.rs`.

use std::collections::BTreeSet;

use crate::content::{Content, SyncState};
use crate::scenario::Tier;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) number: usize,
    /// The machine that it dials.
    pub(crate) server: usize,
    pub(crate) link: Option<u64>,
    /// The server has answered the join.
    pub(crate) joined: bool,
    pub(crate) only_v1: bool,
    pub(crate) documents: Vec<ClientDocument>,
    /// Older states of the documents, to go back to.
    pub(crate) older: Vec<Content>,
    pub(crate) actors: u64,
    pub(crate) spoken: u64,
    /// Ephemeral messages that came over this connection.
    pub(crate) heard: BTreeSet<(String, u64)>,
}

/// One document of a client.
#[derive(Debug)]
pub(crate) struct ClientDocument {
    pub(crate) content: Content,
    pub(crate) state: SyncState,
    /// Has changed since it last spoke.
    pub(crate) edited: bool,
}

impl Client {
    pub(crate) fn new(number: usize, server: usize, tier: Tier, documents: usize, only_v1: bool) -> Self {
        let actor = actor(number, 0);
        let document =
            || ClientDocument { content: Content::new(tier, &actor), state: SyncState::new(tier), edited: false };
        Self {
            number,
            server,
            link: None,
            joined: false,
            only_v1,
            documents: (0..documents).map(|_| document()).collect(),
            older: Vec::new(),
            actors: 0,
            spoken: 0,
            heard: BTreeSet::new(),
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("client-{}", self.number)
    }

    /// An author that was never used.
    pub(crate) fn fresh_actor(&mut self) -> [u8; 16] {
        self.actors += 1;
        actor(self.number, self.actors)
    }
}

fn actor(number: usize, count: u64) -> [u8; 16] {
    let mut actor = [0xc0 + number as u8; 16];
    actor[..8].copy_from_slice(&count.to_le_bytes());
    actor
}

/// An author on a machine: one for each start.
pub(crate) fn machine_actor(number: usize, starts: u64) -> [u8; 16] {
    let mut actor = [0xa0 + number as u8; 16];
    actor[..8].copy_from_slice(&starts.to_le_bytes());
    actor
}

//! Which documents and graphs stay in memory.
//!
//! Owns: last use, weights, eviction, the keyed hash of the document map. Must not: drop what is not durable.
//! Next: `hub.rs`; docs/architecture.md "Memory".

use std::collections::BTreeSet;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::time::Duration;

use super::document::Presence;
use super::{Hub, Now};

/// A document that nobody has used for this long leaves memory; its graph, even if peers are still at it.
const IDLE: Duration = Duration::from_secs(30);

/// Last use is noted in steps of this, so that a busy document does not move in the order with every message.
const STEP: Duration = Duration::from_secs(1);

/// What is in memory, in order of last use.
#[derive(Debug, Default)]
pub(super) struct Memory {
    by_use: BTreeSet<(Duration, u32)>,
    graphs: usize,
    bytes: usize,
}

impl Memory {
    pub(super) fn graphs(&self) -> usize {
        self.graphs
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn next_sweep(&self) -> Option<Duration> {
        self.by_use.first().map(|(used, _)| *used + IDLE)
    }
}

/// Builds SipHash hashers with a secret key: peers choose document ids.
#[derive(Debug, Clone)]
pub(super) struct KeyedState(u64);

impl KeyedState {
    pub(super) fn new(key: u64) -> Self {
        Self(key)
    }
}

impl BuildHasher for KeyedState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl Hub {
    /// Notes that a document is in use.
    pub(super) fn touch(&mut self, now: Now, key: u32) {
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let listed = self.memory.by_use.contains(&(document.last_used, key));
        if listed && now.mono < document.last_used + STEP {
            return;
        }
        self.memory.by_use.remove(&(document.last_used, key));
        document.last_used = now.mono;
        self.memory.by_use.insert((now.mono, key));
        self.weigh(key);
    }

    /// Measures a document's graph anew and evicts others if the graphs are too heavy together.
    pub(super) fn weigh(&mut self, key: u32) {
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let weight = document.graph.as_ref().map_or(0, |graph| graph.weight());
        self.memory.graphs = self.memory.graphs + usize::from(weight > 0) - usize::from(document.weight > 0);
        self.memory.bytes = self.memory.bytes + weight - document.weight;
        document.weight = weight;
        if self.memory.bytes > self.limits.graph_cache_bytes {
            self.evict_heaviest_idle(key);
        }
    }

    /// Drops the graphs used longest ago until the rest fits; the one just used stays.
    fn evict_heaviest_idle(&mut self, keep: u32) {
        let oldest_first: Vec<u32> =
            self.memory.by_use.iter().map(|(_, key)| *key).filter(|key| *key != keep).collect();
        for key in oldest_first {
            if self.memory.bytes <= self.limits.graph_cache_bytes {
                return;
            }
            self.drop_graph(key);
        }
    }

    /// Lets go of what has been idle: graphs, and documents that nobody is at.
    pub(super) fn sweep(&mut self, now: Now) {
        while let Some((used, key)) = self.memory.by_use.first().copied().filter(|(used, _)| *used + IDLE <= now.mono) {
            self.memory.by_use.remove(&(used, key));
            let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { continue };
            if !document.is_quiet() {
                document.last_used = now.mono;
                self.memory.by_use.insert((now.mono, key));
                continue;
            }
            document.encoded = Vec::new();
            document.inbox.shrink_to_fit();
            document.persisting.shrink_to_fit();
            document.awaiting.shrink_to_fit();
            let forgotten = document.peers.is_empty() && !document.watched;
            self.drop_graph(key);
            if forgotten && let Some(document) = self.documents[key as usize].take() {
                if let Some(at) = document.deadline {
                    self.deadlines.remove(&(at, key));
                }
                self.keys.remove(&document.id);
                self.free.push(key);
            }
        }
        if self.keys.is_empty() {
            self.keys.shrink_to_fit();
            self.documents = Vec::new();
            self.free = Vec::new();
        }
    }

    fn drop_graph(&mut self, key: u32) {
        let Some(document) = self.documents.get_mut(key as usize).and_then(Option::as_mut) else { return };
        if document.is_quiet() && document.presence == Presence::Stored {
            (document.graph, document.standings) = (None, None);
            self.memory.graphs -= usize::from(document.weight > 0);
            self.memory.bytes -= document.weight;
            document.weight = 0;
        }
    }
}

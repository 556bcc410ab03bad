//! Who is at a document, and what they say of themselves: cursors, names, colours. Nothing of it is stored.
//!
//! Owns: the messages of automerge-repo's Presence, the state of each peer, heartbeat and expiry.
//! Must not: trust a peer with memory. Next: `live.rs`, the crate `syncline-content`'s `presence.rs`; docs/client.md, "Presence".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use syncline_content::cbor;
use syncline_content::presence::{self, MARKER, Said};
use syncline_core::id::PeerId;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::Error;
use crate::document::Document;
use crate::engine::Engine;

/// Peers of one document that are remembered.
const PEERS_MAX: usize = 1_024;

/// Channels of one peer that are remembered.
const CHANNELS_MAX: usize = 64;

/// The shortest time between two messages of one presence: what is set more often is sent as it is by then.
const SEND_PAUSE: Duration = Duration::from_millis(50);

/// The wait before a newcomer is told our state: it may not listen yet. As in automerge-repo.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(500);

/// How often a presence speaks, and how long it believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceOptions {
    /// The longest time without a message of ours. Default 15 s, as in automerge-repo.
    pub heartbeat: Duration,
    /// The time after which a peer that says nothing counts as gone. Default 45 s, as in automerge-repo.
    pub expiry: Duration,
}

impl Default for PresenceOptions {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(15), expiry: Duration::from_secs(45) }
    }
}

/// This process's presence at a document, and what it knows of the others'. It says goodbye when it is dropped.
///
/// A state is a set of channels, each with a JSON value, such as `cursor` and `name`.
#[derive(Debug)]
pub struct Presence {
    shared: Arc<Shared>,
    document: Document,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Ticks when a peer comes, goes or says something new.
    changed: watch::Sender<u64>,
    /// Something is to be sent.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    local: Map<String, Value>,
    /// Channels that are to be sent.
    dirty: BTreeSet<String>,
    peers: BTreeMap<String, Peer>,
}

#[derive(Debug)]
struct Peer {
    channels: Map<String, Value>,
    seen: Instant,
}

impl Document {
    /// Enters the document with a state of ours, in sight of everyone who has it open, JavaScript peers too.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// use syncline::{PresenceOptions, Repo};
    /// let repo = Repo::memory()?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// let presence = list.presence([("name".to_owned(), "Anna".into())], PresenceOptions::default())?;
    /// presence.set("cursor", 7)?;
    /// assert!(presence.peers().is_empty());
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::PresenceTooLarge`], [`Error::Closed`].
    pub fn presence(
        &self,
        state: impl IntoIterator<Item = (String, Value)>,
        options: PresenceOptions,
    ) -> Result<Presence, Error> {
        let engine = Arc::clone(self.engine());
        engine.check_open()?;
        let local: Map<String, Value> = state.into_iter().collect();
        self.check_size(&snapshot(&local))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { local, ..State::default() }),
            changed: watch::Sender::new(0),
            wake: Notify::new(),
        });
        let messages = self.live().listen_to_ephemerals();
        let speaker = Speaker { engine: Arc::clone(&engine), document: self.url().id().clone() };
        let task = engine.runtime.spawn(run(Arc::clone(&shared), speaker, messages, options));
        Ok(Presence { shared, document: self.clone(), task })
    }

    fn check_size(&self, message: &Value) -> Result<(), Error> {
        let (bytes, bytes_max) = (cbor::encode(message).len(), self.engine().replica.limits().ephemeral_bytes_max);
        if bytes > bytes_max { Err(Error::PresenceTooLarge { bytes, bytes_max }) } else { Ok(()) }
    }
}

impl Presence {
    /// Says something new of us. Set more often than every 50 ms, the others see the latest.
    ///
    /// # Errors
    /// [`Error::PresenceTooLarge`] when all channels together are larger than a message may be: it is not set.
    pub fn set(&self, channel: &str, value: impl Into<Value>) -> Result<(), Error> {
        let mut state = self.shared.lock();
        let mut local = state.local.clone();
        local.insert(channel.to_owned(), value.into());
        self.document.check_size(&snapshot(&local))?;
        state.local = local;
        state.dirty.insert(channel.to_owned());
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// The others who are at the document, by the names of their processes, and what they say of themselves.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<String, Map<String, Value>> {
        self.shared.lock().peers.iter().map(|(name, peer)| (name.clone(), peer.channels.clone())).collect()
    }

    /// Waits until [`Presence::peers`] is another than `before`, and returns it. A slow caller misses those between.
    ///
    /// # Errors
    /// [`Error::Closed`] when the repo is closed.
    pub async fn changed(
        &self,
        before: &BTreeMap<String, Map<String, Value>>,
    ) -> Result<BTreeMap<String, Map<String, Value>>, Error> {
        let mut changed = self.shared.changed.subscribe();
        let mut progress = self.document.live().progress.subscribe();
        loop {
            let peers = self.peers();
            if peers != *before {
                return Ok(peers);
            }
            if self.document.engine().has_stopped() {
                return Err(Error::Closed);
            }
            let _ = tokio::select! {
                changed = changed.changed() => changed,
                // The end of the repo is told so.
                changed = progress.changed() => changed,
            };
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.task.abort();
        let goodbye = Bytes::from(cbor::encode(&json!({ MARKER: { "type": "goodbye" } })));
        self.document.engine().broadcast(self.document.url().id(), goodbye);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Speaks at one document.
struct Speaker {
    engine: Arc<Engine>,
    document: syncline_core::id::DocumentId,
}

impl Speaker {
    fn say(&self, message: &Value) {
        self.engine.broadcast(&self.document, Bytes::from(cbor::encode(message)));
    }
}

/// Speaks and listens until the presence is dropped.
async fn run(
    shared: Arc<Shared>,
    speaker: Speaker,
    mut messages: broadcast::Receiver<(PeerId, Bytes)>,
    options: PresenceOptions,
) {
    let own = speaker.engine.replica.local().peer.clone();
    let mut heartbeat = Instant::now();
    let mut announce: Option<Instant> = Some(heartbeat);
    let mut prune = heartbeat + options.heartbeat;
    loop {
        tokio::select! {
            received = messages.recv() => match received {
                Ok((peer, data)) if peer != own => {
                    if shared.lock().receive(&peer, &data, Instant::now(), &shared.changed) {
                        announce.get_or_insert(Instant::now() + ANNOUNCE_AFTER);
                    }
                }
                // Our own comes back by another way, or too many came to hear each.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = shared.wake.notified() => {
                let updates = shared.lock().updates();
                updates.iter().for_each(|update| speaker.say(update));
                heartbeat = Instant::now() + options.heartbeat;
                tokio::time::sleep(SEND_PAUSE).await;
            }
            () = sleep_until(announce.unwrap_or(heartbeat)), if announce.is_some() => {
                announce = None;
                let message = snapshot(&shared.lock().local);
                speaker.say(&message);
                heartbeat = Instant::now() + options.heartbeat;
            }
            () = sleep_until(heartbeat) => {
                speaker.say(&json!({ MARKER: { "type": "heartbeat" } }));
                heartbeat = Instant::now() + options.heartbeat;
            }
            () = sleep_until(prune) => {
                prune = Instant::now() + options.heartbeat;
                shared.lock().expire(options.expiry, &shared.changed);
            }
        }
    }
}

impl State {
    /// Takes a message in. Returns whether its sender is new here and wants to be told our state.
    fn receive(&mut self, peer: &PeerId, data: &[u8], now: Instant, changed: &watch::Sender<u64>) -> bool {
        // What is no presence message is another part of the application's.
        let Some(said) = presence::read(data) else { return false };
        let name = peer.as_str();
        let known = self.peers.contains_key(name);
        let news = match said {
            Said::Channels(channels) => channels,
            Said::Goodbye => {
                if self.peers.remove(name).is_some() {
                    changed.send_modify(|ticks| *ticks += 1);
                }
                return false;
            }
            Said::Alive => {
                if let Some(peer) = self.peers.get_mut(name) {
                    peer.seen = now;
                }
                return !known;
            }
        };
        if known || self.peers.len() < PEERS_MAX {
            let peer = self.peers.entry(name.to_owned()).or_insert_with(|| Peer { channels: Map::new(), seen: now });
            peer.seen = now;
            for (channel, value) in news {
                if peer.channels.len() < CHANNELS_MAX || peer.channels.contains_key(&channel) {
                    peer.channels.insert(channel, value);
                }
            }
            changed.send_modify(|ticks| *ticks += 1);
        }
        !known
    }

    /// The messages that say what was set.
    fn updates(&mut self) -> Vec<Value> {
        let dirty = std::mem::take(&mut self.dirty);
        let update = |channel: String| {
            let value = self.local.get(&channel).cloned().unwrap_or_default();
            json!({ MARKER: { "type": "update", "channel": channel, "value": value } })
        };
        dirty.into_iter().map(update).collect()
    }

    /// Forgets peers that have said nothing for so long.
    fn expire(&mut self, expiry: Duration, changed: &watch::Sender<u64>) {
        let before = self.peers.len();
        self.peers.retain(|_, peer| peer.seen.elapsed() < expiry);
        if self.peers.len() != before {
            changed.send_modify(|ticks| *ticks += 1);
        }
    }
}

fn snapshot(local: &Map<String, Value>) -> Value {
    json!({ MARKER: { "type": "snapshot", "state": local } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(state: &mut State, peer: &str, message: &Value) -> bool {
        let peer = PeerId::new(peer).expect("a short name");
        let changed = watch::Sender::new(0);
        state.receive(&peer, &cbor::encode(&json!({ MARKER: message })), Instant::now(), &changed)
    }

    #[test]
    fn a_peer_that_is_new_is_answered_and_its_heartbeat_says_nothing_of_its_state() {
        let mut state = State::default();
        assert!(hear(&mut state, "a", &json!({ "type": "heartbeat" })));
        assert!(state.peers.is_empty());
        assert!(hear(&mut state, "a", &json!({ "type": "snapshot", "state": { "x": 1 } })));
        assert!(!hear(&mut state, "a", &json!({ "type": "update", "channel": "y", "value": 2 })));
        assert!(!hear(&mut state, "a", &json!({ "type": "heartbeat" })));
        assert_eq!(Value::Object(state.peers["a"].channels.clone()), json!({ "x": 1, "y": 2 }));
        assert!(!hear(&mut state, "a", &json!({ "type": "goodbye" })));
        assert!(state.peers.is_empty());
    }

    #[test]
    fn peers_and_their_channels_are_bounded() {
        let mut state = State::default();
        for n in 0..PEERS_MAX + 10 {
            hear(&mut state, &n.to_string(), &json!({ "type": "snapshot", "state": {} }));
        }
        assert_eq!(state.peers.len(), PEERS_MAX);
        for n in 0..CHANNELS_MAX + 10 {
            hear(&mut state, "0", &json!({ "type": "update", "channel": n.to_string(), "value": n }));
        }
        assert_eq!(state.peers["0"].channels.len(), CHANNELS_MAX);
        hear(&mut state, "0", &json!({ "type": "update", "channel": "0", "value": "new" }));
        assert_eq!(state.peers["0"].channels["0"], "new");
    }

    #[test]
    fn what_is_no_presence_message_is_left_alone() {
        let mut state = State::default();
        let peer = PeerId::new("a").expect("a short name");
        for data in [cbor::encode(&json!({ "other": 1 })), cbor::encode(&json!([MARKER])), vec![0xff, 0x00], Vec::new()]
        {
            assert!(!state.receive(&peer, &data, Instant::now(), &watch::Sender::new(0)), "{data:?}");
        }
        assert!(state.peers.is_empty());
    }
}

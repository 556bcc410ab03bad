//! Peers as they should be, built on the stock automerge crate: who shows that the others go on.
//!
//! Owns: one document each, its sync state, and every change hash that the server ever sent.
//! Must not: survive what a browser would not; what the server forwards goes straight into automerge.
//! Next: `forge.rs`; `../tests/hostile.rs`.

use std::collections::BTreeSet;

use automerge::sync::{self, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ReadDoc};
use sha2::{Digest, Sha256};

use crate::{Frame, RawPeer, Received};

/// A client with one document.
pub struct HonestPeer {
    raw: RawPeer,
    document: String,
    doc: AutoCommit,
    state: sync::State,
}

impl HonestPeer {
    /// A client that holds this document, possibly still empty.
    ///
    /// # Panics
    /// When the server does not let it join.
    #[must_use]
    pub fn join(address: &str, id: &str, document: &str, doc: AutoCommit) -> Self {
        let mut peer =
            Self { raw: RawPeer::join(address, id), document: document.to_owned(), doc, state: sync::State::new() };
        peer.speak();
        peer
    }

    /// A client on a connection that has joined.
    #[must_use]
    pub fn on(raw: RawPeer, document: &str, doc: AutoCommit) -> Self {
        let mut peer = Self { raw, document: document.to_owned(), doc, state: sync::State::new() };
        peer.speak();
        peer
    }

    /// A fresh document id.
    #[must_use]
    pub fn fresh_document_id() -> String {
        let mut payload: [u8; 16] = rand::random();
        // The marks of a version 4 UUID, without which the oldest client refuses the id.
        payload[6] = payload[6] & 0x0f | 0x40;
        payload[8] = payload[8] & 0x3f | 0x80;
        base58_check(&payload)
    }

    /// A head as automerge-repo writes it.
    #[must_use]
    pub fn head_text(hash: &ChangeHash) -> String {
        base58_check(&hash.0)
    }

    /// The document.
    pub fn doc(&mut self) -> &mut AutoCommit {
        &mut self.doc
    }

    /// Writes a value under a key and sends it.
    ///
    /// # Panics
    /// When automerge refuses the edit.
    pub fn put(&mut self, key: &str, value: i64) {
        self.doc.put(automerge::ROOT, key, value).expect("the root accepts any key");
        self.doc.commit();
        self.speak();
    }

    /// Syncs until this value stands under the key.
    ///
    /// # Panics
    /// When the connection ends or nothing more comes.
    pub fn until(&mut self, key: &str, value: i64) {
        self.until_holds(|doc| {
            let found = doc.get(automerge::ROOT, key).expect("the root can be read");
            found.and_then(|(value, _)| value.as_i64()) == Some(value)
        });
    }

    /// Syncs until the server has said that it has all of our changes: durable, since it acknowledges nothing before.
    ///
    /// # Panics
    /// When the server refuses, the connection ends or nothing more comes.
    pub fn until_acknowledged(&mut self) {
        self.acknowledged().unwrap_or_else(|told| panic!("an honest peer was told: {told}"));
    }

    /// Syncs until the server has said that it has all of our changes, or says that something is wrong.
    ///
    /// # Errors
    /// What its error says; empty when the connection ended without one.
    ///
    /// # Panics
    /// When nothing more comes.
    pub fn acknowledged(&mut self) -> Result<(), String> {
        let ours: BTreeSet<ChangeHash> = self.doc.get_heads().into_iter().collect();
        loop {
            let theirs = self.state.their_heads.iter().flatten().copied().collect::<BTreeSet<_>>();
            if theirs.is_superset(&ours) {
                return Ok(());
            }
            self.hear()?;
        }
    }

    /// Syncs until the document satisfies `test`.
    ///
    /// # Panics
    /// When the connection ends or nothing more comes.
    pub fn until_holds(&mut self, test: impl Fn(&mut AutoCommit) -> bool) {
        while !test(&mut self.doc) {
            self.hear().unwrap_or_else(|told| panic!("an honest peer was told: {told}"));
        }
    }

    /// Whether the document contains this change.
    pub fn has(&mut self, hash: &ChangeHash) -> bool {
        self.doc.get_change_by_hash(hash).is_some()
    }

    fn hear(&mut self) -> Result<(), String> {
        match self.raw.receive() {
            Received::Frame(frame) if matches!(frame.kind(), "sync" | "request") => {
                assert_eq!(frame.text_of("documentId"), self.document, "we opened only one document");
                self.apply(&frame);
                self.speak();
                Ok(())
            }
            Received::Frame(frame) if frame.kind() == "error" => Err(frame.text_of("message").to_owned()),
            Received::Frame(_) => Ok(()),
            Received::Closed => Err(String::new()),
        }
    }

    fn apply(&mut self, frame: &Frame) {
        let message = sync::Message::decode(frame.bytes_of("data")).expect("the server sends proper sync messages");
        self.doc.sync().receive_sync_message(&mut self.state, message).expect("the server forwards proper changes");
    }

    fn speak(&mut self) {
        let unknown = self.doc.get_heads().is_empty() && self.state.their_heads.is_none();
        let kind = if unknown { "request" } else { "sync" };
        // One for each piece of news, as stock clients do: automerge may have a reset to send for ever.
        if let Some(message) = self.doc.sync().generate_sync_message(&mut self.state) {
            let frame = self.raw.about(kind, &self.document).bytes("data", &message.encode());
            self.raw.send(&frame);
        }
    }
}

/// Two clients of one document, who keep working while others misbehave.
pub struct HonestPair {
    alice: HonestPeer,
    bob: HonestPeer,
    rounds: i64,
}

impl HonestPair {
    /// Two clients that have just synced for the first time.
    ///
    /// # Panics
    /// When they have not.
    #[must_use]
    pub fn start(address: &str) -> Self {
        let document = HonestPeer::fresh_document_id();
        let mut doc = AutoCommit::new();
        doc.put(automerge::ROOT, "alice", 0).expect("the root accepts any key");
        doc.commit();
        let mut alice = HonestPeer::join(address, "alice", &document, doc);
        alice.until_acknowledged();
        let bob = HonestPeer::join(address, "bob", &document, AutoCommit::new());
        let mut pair = Self { alice, bob, rounds: 0 };
        pair.still_syncs();
        pair
    }

    /// One edit each way over the connections they have had from the start.
    ///
    /// # Panics
    /// When an edit does not arrive.
    pub fn still_syncs(&mut self) {
        self.rounds += 1;
        self.alice.put("alice", self.rounds);
        self.bob.until("alice", self.rounds);
        self.bob.put("bob", self.rounds);
        self.alice.until("bob", self.rounds);
        self.alice.until_acknowledged();
    }
}

fn base58_check(payload: &[u8]) -> String {
    let checksum = Sha256::digest(Sha256::digest(payload));
    bs58::encode([payload, &checksum[..4]].concat()).into_string()
}

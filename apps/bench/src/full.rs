//! A full replica: automerge's own document and sync state, as an application holds them.
//!
//! Owns: one document and its sync state. Must not: touch a socket; each costs milliseconds a message on long texts,
//! so its client runs on a thread of its own. Next: `client.rs`.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, ChangeHash, ROOT, ReadDoc};

use crate::author::{self, TEXT_KEY};
use crate::client::{Kind, Outgoing, Replica};
use crate::ledger::{Clock, Ledger};
use crate::stats::Stats;
use crate::tracker::{Receipts, Tracker};

/// A document held whole.
pub(crate) struct Full {
    ledger: Arc<Ledger>,
    stats: Arc<Stats>,
    actor: ActorId,
    document: Automerge,
    state: State,
    their_heads: Option<Vec<ChangeHash>>,
    unavailable: bool,
    tracker: Tracker,
    receipts: Receipts,
}

impl Full {
    /// A replica that wants the document and has nothing of it.
    pub(crate) fn subscriber(ledger: Arc<Ledger>, stats: Arc<Stats>) -> Self {
        Self::new(ledger, stats, Automerge::new(), State::new(), Tracker::default())
    }

    /// A replica that was in sync with the server on everything in the ledger, and kept its sync state.
    ///
    /// # Errors
    /// When automerge cannot load what the ledger holds.
    pub(crate) fn returning(ledger: Arc<Ledger>, stats: Arc<Stats>) -> anyhow::Result<Self> {
        let mut document = Automerge::new();
        let mut heads = Vec::new();
        let tracker = {
            let book = ledger.book();
            for (index, node) in book.nodes().iter().enumerate() {
                document.load_incremental(&node.bytes)?;
                heads.push(u32::try_from(index)?);
            }
            book.keep_maximal(&mut heads);
            Tracker::from_heads(&book, heads)
        };
        let mut state = State::new();
        state.shared_heads = document.get_heads();
        Ok(Self::new(ledger, stats, document, state, tracker))
    }

    fn new(ledger: Arc<Ledger>, stats: Arc<Stats>, document: Automerge, state: State, tracker: Tracker) -> Self {
        let actor = author::random_actor();
        let document = document.with_actor(actor.clone());
        Self {
            ledger,
            stats,
            actor,
            document,
            state,
            their_heads: None,
            unavailable: false,
            tracker,
            receipts: Receipts::default(),
        }
    }
}

impl Replica for Full {
    fn document(&self) -> &str {
        &self.ledger.id
    }

    fn receive(&mut self, data: &[u8], _at: Instant) -> anyhow::Result<()> {
        let message = Message::decode(data)?;
        self.their_heads = Some(message.heads.clone());
        self.document.receive_sync_message(&mut self.state, message.clone())?;
        // A user sees the edit once it has been applied, which is later than when the frame came.
        let applied = Instant::now();
        let mut book = self.ledger.book();
        let mut new = Vec::new();
        self.tracker.receive(&mut book, message.changes.iter(), &mut new)?;
        for sent in new.into_iter().filter_map(|index| book.node(index).sent) {
            self.stats.delivered(sent, applied, true);
        }
        self.receipts.confirm(&book, &message.heads, applied, &self.stats);
        Ok(())
    }

    fn receive_unavailable(&mut self) {
        self.unavailable = true;
    }

    fn generate(&mut self) -> Option<Outgoing> {
        let asks = self.their_heads.is_none() && self.state.shared_heads.is_empty() && self.document.is_empty();
        let message = self.document.generate_sync_message(&mut self.state)?;
        Some(Outgoing { kind: if asks { Kind::Request } else { Kind::Sync }, data: message.encode() })
    }

    fn edit(&mut self) -> anyhow::Result<()> {
        let sent = Instant::now();
        let (_, text) = self.document.get(ROOT, TEXT_KEY)?.context("an edit before the document came")?;
        let at = rand::random_range(0..=self.document.length(&text));
        let mut transaction = self.document.transaction();
        transaction.splice_text(&text, at, 0, "x")?;
        let (hash, _) = transaction.commit();
        let hash = hash.context("an edit is a change")?;
        let change = self.document.get_change_by_hash(&hash).context("a document has its own change")?;
        let mut book = self.ledger.book();
        let author = book.author(&self.actor);
        let index = book.insert(&change, Some(sent)).context("a change on top of unknown ones")?;
        self.tracker.add_own(&book, index);
        self.receipts.expect(author, u32::try_from(change.seq())?, sent);
        Ok(())
    }

    fn is_synced(&self) -> bool {
        let heads = self.document.get_heads();
        !heads.is_empty() && self.their_heads.as_ref() == Some(&heads)
    }

    fn is_answered(&self) -> bool {
        self.unavailable || self.their_heads.is_some()
    }

    fn disconnect(&mut self) {
        self.unavailable = false;
        self.state = State::decode(&self.state.encode()).expect("automerge reads its own sync state");
        self.their_heads = None;
    }

    fn heads(&self) -> Vec<ChangeHash> {
        self.document.get_heads()
    }

    fn confirmed(&self) -> (u32, u32) {
        self.receipts.confirmed()
    }

    fn known(&self) -> Clock {
        self.tracker.known().clone()
    }

    fn text(&self) -> Option<String> {
        author::text_of(&self.document).ok()
    }
}

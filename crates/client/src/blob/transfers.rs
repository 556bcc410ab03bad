//! What is known of blobs on their way.
//!
//! Owns: progress, outcomes and complaints, by blob, of those that somebody waits for. Must not: grow with blobs that
//! nobody waits for and that servers have. Next: `fetch.rs`, `../engine.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syncline_core::blob::exchange::Event;
use syncline_core::blob::{BlobHash, BlobRefusal};
use tokio::sync::watch;

/// All blobs on their way.
#[derive(Debug)]
pub(crate) struct Transfers {
    state: Mutex<HashMap<BlobHash, Transfer>>,
    changed: watch::Sender<u64>,
}

/// One blob.
#[derive(Debug, Default)]
struct Transfer {
    /// Those who wait for it.
    fetches: usize,
    held: u64,
    outcome: Option<Outcome>,
    /// Those who wait for a server to say that it has it.
    awaited: usize,
    /// It is to be on a server, and no server has said since that it is.
    pushed: bool,
    sent: u64,
    complaint: Option<Arc<str>>,
    /// How often a server has said that it has it.
    answers: u64,
}

/// How a fetch stands, if it is not on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Here,
    /// So many servers have been asked in vain.
    Unavailable(usize),
    Failed(BlobRefusal, String),
}

/// A wait for a server to say that it has a blob. It ends with the value.
pub(super) struct Answer<'a> {
    transfers: &'a Transfers,
    hash: BlobHash,
    before: u64,
}

impl Answer<'_> {
    /// Whether a server has said so.
    pub(super) fn has_come(&self) -> bool {
        self.transfers.lock().get(&self.hash).is_some_and(|transfer| transfer.answers > self.before)
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if let Some(transfer) = self.transfers.lock().get_mut(&self.hash) {
            transfer.awaited = transfer.awaited.saturating_sub(1);
        }
        self.transfers.let_go(&self.hash);
    }
}

impl Transfers {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Takes in what the exchange says.
    pub(crate) fn hear(&self, event: Event) {
        match event {
            Event::Held { hash, held } => self.change(&hash, |transfer| transfer.held = held),
            Event::Here { hash } => self.change(&hash, |transfer| transfer.outcome = Some(Outcome::Here)),
            Event::Unavailable { hash, servers } => {
                self.change(&hash, |transfer| transfer.outcome = Some(Outcome::Unavailable(servers)));
            }
            Event::Failed { hash, reason, message } => {
                self.change(&hash, |transfer| transfer.outcome = Some(Outcome::Failed(reason, message)));
            }
            Event::Sent { hash, bytes, .. } => self.change(&hash, |transfer| transfer.sent = transfer.sent.max(bytes)),
            Event::OnServer { hash, .. } => {
                self.change(&hash, |transfer| {
                    transfer.answers += 1;
                    transfer.complaint = None;
                    transfer.pushed = false;
                });
                self.let_go(&hash);
            }
            Event::NotTaken { hash, words, .. } => {
                self.change(&hash, |transfer| transfer.complaint = Some(Arc::from(words)));
            }
        }
    }

    /// Ticks at each change of any blob.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes whoever waits: the repo is closed, or servers have come or gone.
    pub(crate) fn tick(&self) {
        self.changed.send_modify(|ticks| *ticks += 1);
    }

    /// Somebody begins to wait for a blob. Returns whether it is to be asked for: nobody did before, or in vain.
    pub(super) fn begin(&self, hash: BlobHash) -> bool {
        let mut state = self.lock();
        let transfer = state.entry(hash).or_default();
        transfer.fetches += 1;
        let on_its_way = matches!(transfer.outcome, None | Some(Outcome::Here));
        let ask = transfer.fetches == 1 || !on_its_way;
        if ask {
            (transfer.held, transfer.outcome) = (0, None);
        }
        ask
    }

    /// Somebody waits no more. Returns whether nobody does.
    pub(super) fn end(&self, hash: &BlobHash) -> bool {
        let mut state = self.lock();
        let Some(transfer) = state.get_mut(hash) else { return true };
        transfer.fetches = transfer.fetches.saturating_sub(1);
        let last = transfer.fetches == 0;
        drop(state);
        self.let_go(hash);
        last
    }

    pub(super) fn fetched(&self, hash: &BlobHash) -> (u64, Option<Outcome>) {
        let state = self.lock();
        state.get(hash).map(|transfer| (transfer.held, transfer.outcome.clone())).unwrap_or_default()
    }

    /// Bytes sent to a server, and why one did not take it.
    pub(super) fn pushed(&self, hash: &BlobHash) -> (u64, Option<Arc<str>>) {
        let state = self.lock();
        state.get(hash).map(|transfer| (transfer.sent, transfer.complaint.clone())).unwrap_or_default()
    }

    /// Begins to wait until a server says, from now on, that it has the blob.
    pub(super) fn await_answer(&self, hash: BlobHash) -> Answer<'_> {
        let mut state = self.lock();
        let transfer = state.entry(hash).or_default();
        transfer.awaited += 1;
        Answer { transfers: self, hash, before: transfer.answers }
    }

    pub(super) fn expect_push(&self, hash: BlobHash) {
        self.lock().entry(hash).or_default().pushed = true;
    }

    /// The blob is not to be on a server any more.
    pub(super) fn withdraw(&self, hash: &BlobHash) {
        self.change(hash, |transfer| (transfer.pushed, transfer.complaint) = (false, None));
        self.let_go(hash);
    }

    /// Forgets a blob that nobody waits for.
    fn let_go(&self, hash: &BlobHash) {
        let mut state = self.lock();
        let idle = |transfer: &Transfer| transfer.fetches == 0 && transfer.awaited == 0 && !transfer.pushed;
        if state.get(hash).is_some_and(idle) {
            state.remove(hash);
        }
    }

    fn change(&self, hash: &BlobHash, change: impl FnOnce(&mut Transfer)) {
        if let Some(transfer) = self.lock().get_mut(hash) {
            change(transfer);
        }
        self.tick();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BlobHash, Transfer>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The queue between the hubs and one connection.
//!
//! Owns: what is to be written to one peer, and the wish to close. Must not: grow beyond what the hubs' own bound lets
//! through. Next: `connection.rs`.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use syncline_core::hub::Outgoing;

use crate::way::FanOut;

/// Answers to one peer's own frames that may wait before it is read from again.
const ANSWERS_MAX: usize = 4_096;

/// What is written to one connection.
#[derive(Debug)]
pub(crate) enum Queued {
    /// A message, put into a frame when its turn comes; with the commit that it tells of, if it is sent because of one.
    Message(Outgoing, Option<FanOut>),
    /// A frame as it is.
    Frame(Vec<u8>),
}

/// Who waits until a connection's queue is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The shard with this number.
    Shard(usize),
    /// The exchange of blobs.
    Blobs,
}

/// The queue of one connection, filled by shards, emptied by the connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Queued>,
    /// Why the connection is to be closed once the queue is written.
    closing: Option<String>,
    /// What the peer may do is to be looked at anew.
    reconsider: bool,
    /// Who waits to hear that the queue is empty.
    awaiting_drain: Vec<Waiting>,
    waker: Option<Waker>,
}

impl Outbox {
    /// Appends; wakes the connection if it slept.
    pub(crate) fn push(&self, queued: Queued) {
        let waker = {
            let mut state = self.lock();
            if state.closing.is_some() {
                return;
            }
            state.queue.push_back(queued);
            state.waker.take()
        };
        wake(waker);
    }

    /// Closes the connection after what is queued.
    pub(crate) fn close(&self, reason: &str) {
        let waker = {
            let mut state = self.lock();
            state.closing.get_or_insert_with(|| reason.to_owned());
            state.waker.take()
        };
        wake(waker);
    }

    /// Asks that somebody hear when everything is written.
    pub(crate) fn await_drain(&self, who: Waiting) {
        let waker = {
            let mut state = self.lock();
            state.awaiting_drain.push(who);
            state.waker.take()
        };
        wake(waker);
    }

    /// Has the connection look anew at what its peer may do.
    pub(crate) fn reconsider(&self) {
        let waker = {
            let mut state = self.lock();
            state.reconsider = true;
            state.waker.take()
        };
        wake(waker);
    }

    /// Whether that was asked for since the last call.
    pub(crate) fn take_reconsider(&self) -> bool {
        std::mem::take(&mut self.lock().reconsider)
    }

    /// Takes all that is queued; leaves the waker for the next push.
    pub(crate) fn take(&self, waker: &Waker) -> VecDeque<Queued> {
        let mut state = self.lock();
        state.waker = Some(waker.clone());
        std::mem::take(&mut state.queue)
    }

    /// Who is to be told that the queue is empty, if it is.
    pub(crate) fn take_drained(&self) -> Vec<Waiting> {
        let mut state = self.lock();
        if state.queue.is_empty() { std::mem::take(&mut state.awaiting_drain) } else { Vec::new() }
    }

    /// Whether the connection is to be closed, now or once the queue is written.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing.is_some()
    }

    /// Why to close, once the queue is empty.
    pub(crate) fn closing(&self) -> Option<String> {
        let state = self.lock();
        state.closing.clone().filter(|_| state.queue.is_empty())
    }

    /// Whether the peer leaves so much unread that it is not read from either.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().queue.len() > ANSWERS_MAX
    }

    /// What waits to be written.
    pub(crate) fn len(&self) -> usize {
        self.lock().queue.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

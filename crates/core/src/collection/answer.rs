//! Rounds that a peer begins: answered from our set, within bounds.
//!
//! Owns: who is answered and for how long. Must not: learn anything from what the peer says.
//! Next: `ask.rs`, `../reconcile.rs`; docs/protocol.md §9, "Rounds".

use std::time::Duration;

use super::list::LISTED_MAX;
use super::message::NAMES_MAX;
use super::{Collection, CollectionMessage, Due, EndReason, Scope, SetName};
use crate::hub::Now;
use crate::id::SessionId;
use crate::reconcile::{Missing, Options, ReconcileError, Responder};

/// A round without names is not worth it where one side has more than so many times the elements of the other, and so
/// many more.
const TIMES_MAX: u64 = 4;
const MORE_MAX: u64 = 1_024;

/// A round that a peer began.
#[derive(Debug)]
pub(super) struct Answering {
    round: u32,
    pub(super) set: SetName,
    names: bool,
    responder: Responder,
    /// The initiator is to list its elements, and has listed so many.
    pub(super) lists: bool,
    pub(super) listed: u64,
    messages: u32,
    bytes: usize,
    deadline: Duration,
}

impl Answering {
    fn new(round: u32, set: SetName, names: bool) -> Self {
        let responder = Responder::new(Options::default());
        let (messages, bytes, deadline) = (0, 0, Duration::ZERO);
        Self { round, set, names, responder, lists: false, listed: 0, messages, bytes, deadline }
    }
}

impl Collection {
    pub(super) fn asked_to_compare(&mut self, now: Now, session: SessionId, begin: CollectionMessage) {
        let CollectionMessage::Compare { round, set, count, names, message } = begin else { return };
        drop(self.take_answering(session));
        let (reason, words) = match self.may_compare(now, session, (set, names, count)) {
            Ok(()) => {
                self.keep_answering(now, session, Box::new(Answering::new(round, set, names)));
                return self.questioned(now, session, round, &message);
            }
            Err(no) => no,
        };
        if reason == EndReason::List {
            self.expect_list(now, session, Box::new(Answering::new(round, set, names)));
        }
        self.refuse(session, reason, words);
        let words = words.to_owned();
        self.send(session, CollectionMessage::Ended { round, own: false, reason, words });
    }

    /// Where whether a peer may read everything is asked, once there are rules.
    fn may_compare(
        &mut self,
        now: Now,
        session: SessionId,
        (set, names, count): (SetName, bool, u64),
    ) -> Result<(), (EndReason, &'static str)> {
        let Some(peer) = self.peers.get_mut(&session) else { return Err((EndReason::NotForYou, "")) };
        if !peer.begins.take(now.mono) {
            return Err((EndReason::Limit, "too many rounds in a short time"));
        }
        let scope = peer.scope_in(set);
        if !self.sets.iter().any(|own| own.name == set) {
            return Err((EndReason::NoSuchSet, "there is no such set here"));
        }
        if scope == Scope::Nothing || names && scope < Scope::Names {
            return Err((EndReason::NotForYou, "this set, or names of it, are not for this connection"));
        }
        let Some(members) = self.members(set) else {
            return Err((EndReason::NotReady, "the set is being read"));
        };
        let (less, more) = (count.min(members.elements().len()), count.max(members.elements().len()));
        if names || more <= less.saturating_mul(TIMES_MAX).saturating_add(MORE_MAX) {
            return Ok(());
        }
        let reason = if count <= LISTED_MAX { EndReason::List } else { EndReason::NotWorthIt };
        Err((reason, "one side has many times what the other has"))
    }

    /// The initiator's next message.
    pub(super) fn questioned(&mut self, now: Now, session: SessionId, round: u32, message: &[u8]) {
        let Some(mut answering) = self.expected(session, round) else { return };
        if self.is_too_much(&mut answering, message.len()) {
            return self.decline(session, round, EndReason::Limit, "the round goes on for too long");
        }
        if answering.lists {
            return self.decline(session, round, EndReason::Broken, "a list was asked for");
        }
        let Some(members) = self.members(answering.set) else { return };
        match answering.responder.handle(members.elements(), message) {
            Ok(answers) => {
                self.keep_answering(now, session, answering);
                for message in answers {
                    self.send(session, CollectionMessage::Answer { round, message: message.into() });
                }
            }
            Err(error) => self.decline(session, round, reason_of(error), &error.to_string()),
        }
    }

    /// The initiator wants to know documents by their elements.
    pub(super) fn asked_for_names(&mut self, now: Now, session: SessionId, round: u32, elements: &[Missing]) {
        let Some(mut answering) = self.expected(session, round) else { return };
        if !answering.names || elements.is_empty() || elements.len() > NAMES_MAX {
            return self.decline(session, round, EndReason::Broken, "names were asked for that the round is not about");
        }
        if self.is_too_much(&mut answering, size_of_val(elements)) {
            return self.decline(session, round, EndReason::Limit, "the round goes on for too long");
        }
        let Some(members) = self.members(answering.set) else { return };
        let mut found = members.elements().find(elements);
        found.sort_unstable();
        found.dedup();
        found.truncate(elements.len());
        let documents = found.iter().filter_map(|element| members.document_of(element)).collect();
        self.keep_answering(now, session, answering);
        self.send(session, CollectionMessage::Named { round, documents });
    }

    pub(super) fn initiator_ended(&mut self, session: SessionId, round: u32) {
        drop(self.expected(session, round));
    }

    /// Ends a round that the peer began, if there is one.
    pub(super) fn end_answering(&mut self, session: SessionId, reason: EndReason, words: &str) {
        if let Some(answering) = self.take_answering(session) {
            self.decline(session, answering.round, reason, words);
        }
    }

    pub(super) fn decline(&mut self, session: SessionId, round: u32, reason: EndReason, words: &str) {
        self.refuse(session, reason, words);
        self.send(session, CollectionMessage::Ended { round, own: false, reason, words: words.to_owned() });
    }

    pub(super) fn is_too_much(&self, answering: &mut Answering, bytes: usize) -> bool {
        answering.messages += 1;
        answering.bytes += bytes;
        answering.messages > Options::default().messages_max || answering.bytes > self.limits.round_bytes_max
    }

    /// The round under way, if it is this one; otherwise what came is of one that is over.
    pub(super) fn expected(&mut self, session: SessionId, round: u32) -> Option<Box<Answering>> {
        let under_way = self.peers.get(&session)?.answering.as_ref()?.round;
        if under_way == round { self.take_answering(session) } else { None }
    }

    pub(super) fn take_answering(&mut self, session: SessionId) -> Option<Box<Answering>> {
        let answering = self.peers.get_mut(&session)?.answering.take()?;
        self.deadlines.remove(&(answering.deadline, Due::Answering(session)));
        Some(answering)
    }

    pub(super) fn keep_answering(&mut self, now: Now, session: SessionId, mut answering: Box<Answering>) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        answering.deadline = now.mono + self.limits.round_stall_timeout;
        self.deadlines.insert((answering.deadline, Due::Answering(session)));
        peer.answering = Some(answering);
    }
}

/// What a peer is told that sent this.
pub(super) fn reason_of(error: ReconcileError) -> EndReason {
    match error {
        ReconcileError::Endless => EndReason::Limit,
        ReconcileError::Truncated
        | ReconcileError::TooLarge(_)
        | ReconcileError::Number
        | ReconcileError::Prefix(_)
        | ReconcileError::Unordered
        | ReconcileError::Mode(_)
        | ReconcileError::Version(_)
        | ReconcileError::OutOfTurn
        | ReconcileError::Contradiction => EndReason::Broken,
    }
}

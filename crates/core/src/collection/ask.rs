//! Rounds that this replica begins: what differs is found, and named.
//!
//! Owns: the rounds under way, what they have found, their reports. Must not: decide which documents are wanted.
//! Next: `answer.rs`, `../reconcile.rs`; docs/protocol.md §9, "Rounds".

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::answer::reason_of;
use super::message::NAMES_MAX;
use super::{Collection, CollectionMessage, Due, EndReason, SetName};
use crate::hub::Now;
use crate::id::{DocumentId, SessionId};
use crate::reconcile::{Initiator, Missing, Options};

/// Elements of a connection that are remembered as asked for, in portions of one round's bound.
const ASKED_ROUNDS: usize = 4;

/// Most doublings of the number of rounds in which an element is not asked for again.
const DOUBLINGS_MAX: u32 = 10;

/// An element that was asked for on this connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// Last asked for in this round.
    round: u32,
    /// How often.
    times: u32,
}

impl Asked {
    /// What has not come was kept back, perhaps only for a while: it is asked for again, each time after twice as many rounds.
    fn is_due(self, round: u32) -> bool {
        round - self.round >= 1 << self.times.min(DOUBLINGS_MAX)
    }
}

/// What a round found and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was compared.
    pub set: SetName,
    /// How it ended.
    pub outcome: Outcome,
    /// Documents of ours that the peer has not, or has in another state, in the order of their ids.
    pub ours: Vec<DocumentId>,
    /// Documents that the peer named and that are not among [`Report::ours`], in the order of their ids.
    pub theirs: Vec<DocumentId>,
    /// Elements that the peer still has and we miss, although it was asked for their documents before, and that are not
    /// asked for again in this round.
    pub undelivered: u64,
    /// There were more elements of the peer's than one round asks for.
    pub more: bool,
    /// Questions, names asked for among them.
    pub round_trips: u32,
    /// Bytes of messages sent.
    pub bytes_sent: u64,
    /// Bytes of messages received.
    pub bytes_received: u64,
    /// From the first message to the end.
    pub elapsed: Duration,
}

/// How a round ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All that differs was found, save for what changed meanwhile.
    Complete,
    /// One side ended it. What was found until then is good; if nothing was, each document is to be greeted.
    Ended {
        /// Whether it was the peer.
        by_peer: bool,
        /// Why, for programs.
        reason: EndReason,
        /// Why, for people.
        words: String,
    },
    /// The connection ended, or is with a peer that takes part in no round.
    Gone,
}

impl Report {
    /// Of a round that did not begin.
    pub(super) fn of_none(set: SetName, outcome: Outcome) -> Self {
        Self {
            set,
            outcome,
            ours: Vec::new(),
            theirs: Vec::new(),
            undelivered: 0,
            more: false,
            round_trips: 0,
            bytes_sent: 0,
            bytes_received: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Documents that differ.
    #[must_use]
    pub fn found(&self) -> usize {
        self.ours.len() + self.theirs.len()
    }
}

/// A round under way.
pub(super) struct Asking {
    round: u32,
    names: bool,
    /// Gone once all that differs is listed.
    initiator: Option<Initiator>,
    ours: BTreeSet<DocumentId>,
    /// Elements of the peer's that are to be named, each once.
    missing: VecDeque<Missing>,
    /// How many were asked for last, and not answered.
    awaiting: usize,
    theirs: BTreeSet<DocumentId>,
    report: Report,
    began: Duration,
    deadline: Duration,
}

impl Collection {
    /// The application wants a round.
    pub(super) fn compare(&mut self, now: Now, session: SessionId, set: SetName, names: bool) {
        let known = self.sets.iter().any(|own| own.name == set);
        match self.peers.get_mut(&session).filter(|_| known) {
            Some(peer) => {
                *peer.waiting.entry(set).or_insert(false) |= names;
                self.begin_next(now, session);
            }
            None => self.tell(session, Report::of_none(set, Outcome::Gone)),
        }
    }

    /// Begins a round that waits, if none is under way and its set is read.
    pub(super) fn begin_next(&mut self, now: Now, session: SessionId) {
        let Some(peer) = self.peers.get(&session).filter(|peer| peer.asking.is_none()) else { return };
        let ready = peer.waiting.iter().find_map(|(set, names)| Some((*set, *names, self.members(*set)?)));
        let Some((set, names, members)) = ready else { return };
        let (initiator, message) = Initiator::start(members.elements(), Options::default());
        let count = members.elements().len();
        let Some(peer) = self.peers.get_mut(&session) else { return };
        peer.waiting.remove(&set);
        peer.rounds += 1;
        let round = peer.rounds;
        let asking = Asking {
            round,
            names,
            initiator: Some(initiator),
            ours: BTreeSet::new(),
            missing: VecDeque::new(),
            awaiting: 0,
            theirs: BTreeSet::new(),
            report: Report::of_none(set, Outcome::Complete),
            began: now.mono,
            deadline: Duration::ZERO,
        };
        let message = CollectionMessage::Compare { round, set, count, names, message: message.into() };
        self.ask(now, session, Box::new(asking), message);
    }

    /// An answer to what was asked last.
    pub(super) fn answered(&mut self, now: Now, session: SessionId, round: u32, message: &[u8]) {
        let Some(mut asking) = self.taken_if_under_way(session, round) else { return };
        asking.report.bytes_received += message.len() as u64;
        if asking.report.bytes_received > self.limits.round_bytes_max as u64 {
            return self.stop(now, session, asking, (EndReason::Limit, "the round takes too many bytes"));
        }
        let Some(members) = self.members(asking.report.set) else { return };
        let Some(initiator) = &mut asking.initiator else {
            return self.stop(now, session, asking, (EndReason::Broken, "an answer came that was not asked for"));
        };
        let step = match initiator.handle(members.elements(), message) {
            Ok(step) => step,
            Err(error) => return self.stop(now, session, asking, (reason_of(error), &error.to_string())),
        };
        asking.ours.extend(step.have.iter().filter_map(|element| members.document_of(element)));
        if asking.names {
            self.note_missing(session, &mut asking, step.missing);
        }
        match step.send {
            Some(message) => {
                let message = CollectionMessage::Question { round, message: message.into() };
                self.ask(now, session, asking, message);
            }
            None if step.is_done => {
                asking.initiator = None;
                self.ask_for_names(now, session, asking);
            }
            // More is to come for what was asked.
            None => self.keep_asking(now, session, asking),
        }
    }

    /// The names of what was asked for last.
    pub(super) fn named(&mut self, now: Now, session: SessionId, round: u32, documents: Vec<DocumentId>) {
        let Some(mut asking) = self.taken_if_under_way(session, round) else { return };
        let message = CollectionMessage::Named { round, documents };
        asking.report.bytes_received += message.weight() as u64;
        let CollectionMessage::Named { documents, .. } = message else { return };
        let count = documents.len();
        let each_once: BTreeSet<DocumentId> = documents.into_iter().collect();
        if count > asking.awaiting || each_once.len() < count {
            return self.stop(now, session, asking, (EndReason::Broken, "more was named than was asked for"));
        }
        asking.awaiting = 0;
        asking.theirs.extend(each_once);
        self.ask_for_names(now, session, asking);
    }

    pub(super) fn responder_ended(
        &mut self,
        now: Now,
        session: SessionId,
        round: u32,
        reason: EndReason,
        words: String,
    ) {
        if let Some(asking) = self.taken_if_under_way(session, round) {
            self.report(now, session, *asking, Outcome::Ended { by_peer: true, reason, words });
            self.begin_next(now, session);
        }
    }

    /// Ends a round that we began, if there is one.
    pub(super) fn give_up(&mut self, now: Now, session: SessionId, reason: EndReason, words: &str) {
        if let Some(asking) = self.take_asking(session) {
            self.stop(now, session, asking, (reason, words));
        }
    }

    /// What was asked for on this connection before, and has not come, is asked for again in ever fewer rounds.
    fn note_missing(&mut self, session: SessionId, asking: &mut Asking, missing: Vec<Missing>) {
        let missing_max = self.limits.round_missing_max;
        let Some(peer) = self.peers.get_mut(&session) else { return };
        if peer.asked.len() > ASKED_ROUNDS * missing_max {
            peer.asked.clear();
        }
        let round = asking.round;
        for element in missing {
            let before = peer.asked.get(&element.digest).copied();
            if let Some(before) = before.filter(|before| !before.is_due(round)) {
                // One can be reported twice in a round.
                asking.report.undelivered += u64::from(before.round != round);
            } else if asking.missing.len() < missing_max {
                let times = before.map_or(1, |before| before.times.saturating_add(1));
                peer.asked.insert(element.digest, Asked { round, times });
                asking.missing.push_back(element);
            } else {
                asking.report.more = true;
            }
        }
    }

    fn ask_for_names(&mut self, now: Now, session: SessionId, mut asking: Box<Asking>) {
        let portion = asking.missing.len().min(NAMES_MAX);
        if portion == 0 {
            let round = asking.round;
            self.send(session, ended(round, EndReason::Done, ""));
            self.report(now, session, *asking, Outcome::Complete);
            return self.begin_next(now, session);
        }
        asking.awaiting = portion;
        let elements = asking.missing.drain(..portion).collect();
        let message = CollectionMessage::Missing { round: asking.round, elements };
        self.ask(now, session, asking, message);
    }

    fn ask(&mut self, now: Now, session: SessionId, mut asking: Box<Asking>, message: CollectionMessage) {
        asking.report.round_trips += 1;
        asking.report.bytes_sent += message.weight() as u64;
        self.keep_asking(now, session, asking);
        self.send(session, message);
    }

    fn stop(&mut self, now: Now, session: SessionId, asking: Box<Asking>, (reason, words): (EndReason, &str)) {
        self.refuse(session, reason, words);
        self.send(session, ended(asking.round, reason, words));
        self.report(now, session, *asking, Outcome::Ended { by_peer: false, reason, words: words.to_owned() });
        self.begin_next(now, session);
    }

    pub(super) fn report(&mut self, now: Now, session: SessionId, asking: Asking, outcome: Outcome) {
        let Asking { ours, theirs, mut report, began, .. } = asking;
        report.outcome = outcome;
        report.theirs = theirs.difference(&ours).cloned().collect();
        report.ours = ours.into_iter().collect();
        report.elapsed = now.mono.saturating_sub(began);
        self.tell(session, report);
    }

    fn taken_if_under_way(&mut self, session: SessionId, round: u32) -> Option<Box<Asking>> {
        let under_way = self.peers.get(&session)?.asking.as_ref()?.round;
        if under_way == round { self.take_asking(session) } else { None }
    }

    pub(super) fn take_asking(&mut self, session: SessionId) -> Option<Box<Asking>> {
        let asking = self.peers.get_mut(&session)?.asking.take()?;
        self.deadlines.remove(&(asking.deadline, Due::Asking(session)));
        Some(asking)
    }

    fn keep_asking(&mut self, now: Now, session: SessionId, mut asking: Box<Asking>) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        asking.deadline = now.mono + self.limits.round_stall_timeout;
        self.deadlines.insert((asking.deadline, Due::Asking(session)));
        peer.asking = Some(asking);
    }
}

fn ended(round: u32, reason: EndReason, words: &str) -> CollectionMessage {
    CollectionMessage::Ended { round, own: true, reason, words: words.to_owned() }
}

//! Who hears a notice next: PlumTree (Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees", 2007).
//!
//! Owns: who is eager and who is lazy, which notices are known, kept, waited for. Must not: know connections beyond
//! their numbers, or look into a body. Next: `overlay.rs`; docs/protocol.md §11, "Notices".
//!
//! A notice is not passed on when it comes but when `Broadcast::accept` says that what it tells is durable here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::id::SessionId;

use crate::bucket::Bucket;
use crate::config::Config;
use crate::key::{MeshKey, NoticeKey, SEAL_BYTES};
use crate::message::{Member, Message, NAMES_MAX, Notice, NoticeId};
use crate::overlay::Offence;

mod known;

use known::Known;

/// Sources of a missing notice that are remembered.
const SOURCES_MAX: usize = 4;

/// What is to be done about a message, in order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// To this neighbour.
    Send(SessionId, Message),
    /// Hand it in; [`Broadcast::accept`] or [`Broadcast::discard`] follows.
    Deliver { id: NoticeId, from: SessionId, body: Bytes },
    /// It is not taken.
    Offence(Offence),
}

/// Whether a notice can be asked for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It is kept for a while, and its name told to who is not sent it.
    Kept,
    /// Whoever is not sent it now never hears of it.
    Fleeting,
}

/// What a replica has counted of its notices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Notices of its own.
    pub published: u64,
    /// Notices of others, each once.
    pub received: u64,
    /// The same again.
    pub repeated: u64,
    /// Asked for by name.
    pub grafted: u64,
    /// Not sent, because a neighbour was sent too much.
    pub shed: u64,
}

/// The broadcast of one member.
#[derive(Debug)]
pub(crate) struct Broadcast {
    me: Member,
    key: NoticeKey,
    /// Number of the latest notice of ours.
    number: u64,
    known: Known,
    neighbours: BTreeMap<SessionId, Link>,
    /// Passed on, to be sent again to who grafts.
    kept: BTreeMap<NoticeId, Notice>,
    /// With the time since when, the oldest first.
    kept_order: VecDeque<(Duration, NoticeId)>,
    kept_bytes: usize,
    /// Delivered, and not durable here yet.
    waiting: BTreeMap<NoticeId, (Notice, SessionId)>,
    waiting_order: VecDeque<NoticeId>,
    missing: BTreeMap<NoticeId, Missing>,
    missing_due: BTreeSet<(Duration, NoticeId)>,
    pub(crate) counts: Counts,
}

#[derive(Debug)]
struct Link {
    eager: bool,
    names: Vec<NoticeId>,
    /// When the names are due.
    names_at: Option<Duration>,
    room: Bucket,
    /// The same for what is fleeting: it must not take the place of what is durable.
    fleeting_room: Bucket,
}

#[derive(Debug)]
struct Missing {
    due: Duration,
    sources: VecDeque<SessionId>,
}

impl Broadcast {
    pub(crate) fn new(me: Member, key: &MeshKey, config: &Config) -> Self {
        Self {
            me,
            key: key.notices(),
            number: 0,
            known: Known::new(config.authors_max),
            neighbours: BTreeMap::new(),
            kept: BTreeMap::new(),
            kept_order: VecDeque::new(),
            kept_bytes: 0,
            waiting: BTreeMap::new(),
            waiting_order: VecDeque::new(),
            missing: BTreeMap::new(),
            missing_due: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// A new neighbour is eager.
    pub(crate) fn up(&mut self, now: Duration, link: SessionId, config: &Config) {
        let room = Bucket::new(config.sent_per_second_max, now);
        let fleeting_room = Bucket::new(config.fleeting_per_second_max, now);
        self.neighbours.insert(link, Link { eager: true, names: Vec::new(), names_at: None, room, fleeting_room });
    }

    pub(crate) fn down(&mut self, link: SessionId) {
        self.neighbours.remove(&link);
    }

    /// Number of neighbours that are sent whole notices.
    pub(crate) fn eager(&self) -> usize {
        self.neighbours.values().filter(|link| link.eager).count()
    }

    /// A notice of our own, whose content is durable or is not to be.
    pub(crate) fn publish(
        &mut self,
        now: Duration,
        body: Bytes,
        stay: Stay,
        config: &Config,
    ) -> (NoticeId, Vec<Effect>) {
        self.number += 1;
        let id = NoticeId { author: self.me, number: self.number };
        let seal: [u8; SEAL_BYTES] = self.key.seal(&id, &body);
        self.known.insert(id);
        self.counts.published += 1;
        let mut effects = Vec::new();
        let notice = Notice { hops: 0, id, seal, body };
        match stay {
            Stay::Kept => self.pass_on(now, notice, None, config, &mut effects),
            Stay::Fleeting => self.say(now, &notice, None, &mut effects),
        }
        (id, effects)
    }

    /// What a notice told is durable here, or is not to be: it goes on.
    pub(crate) fn accept(&mut self, now: Duration, id: &NoticeId, stay: Stay, config: &Config) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some((mut notice, from)) = self.waiting.remove(id) {
            notice.hops = notice.hops.saturating_add(1);
            match stay {
                Stay::Kept => self.pass_on(now, notice, Some(from), config, &mut effects),
                Stay::Fleeting => self.say(now, &notice, Some(from), &mut effects),
            }
        }
        effects
    }

    /// It goes no further.
    pub(crate) fn discard(&mut self, id: &NoticeId) {
        self.waiting.remove(id);
    }

    /// A neighbour's message of the broadcast.
    pub(crate) fn receive(&mut self, now: Duration, from: SessionId, message: Message, config: &Config) -> Vec<Effect> {
        let mut effects = Vec::new();
        match message {
            Message::Notice(notice) => self.receive_notice(from, notice, config, &mut effects),
            Message::Have { names } => {
                for id in names {
                    self.note_missing(now, from, id, config);
                }
            }
            Message::Graft { id } => {
                self.set_eager(from, true);
                if let Some(notice) = self.kept.get(&id).cloned() {
                    self.send(now, from, Message::Notice(notice), &mut effects);
                }
            }
            Message::Prune => self.set_eager(from, false),
            Message::Hello { .. }
            | Message::Challenge { .. }
            | Message::Proof { .. }
            | Message::Welcome { .. }
            | Message::Refusal { .. }
            | Message::Walk { .. }
            | Message::Exchange { .. }
            | Message::Exchanged { .. }
            | Message::Beat(_)
            | Message::BeatBack(_) => effects.push(Effect::Offence(Offence::OutOfPlace)),
        }
        effects
    }

    fn receive_notice(&mut self, from: SessionId, notice: Notice, config: &Config, effects: &mut Vec<Effect>) {
        let id = notice.id;
        let forged_own = id.author == self.me && id.number > self.number;
        if forged_own || !self.key.is_sealed(&id, &notice.body, &notice.seal) {
            return effects.push(Effect::Offence(Offence::Forged));
        }
        if !self.known.insert(id) {
            self.counts.repeated += 1;
            self.set_eager(from, false);
            return effects.push(Effect::Send(from, Message::Prune));
        }
        self.counts.received += 1;
        self.set_eager(from, true);
        if let Some(missing) = self.missing.remove(&id) {
            self.missing_due.remove(&(missing.due, id));
        }
        let body = notice.body.clone();
        self.waiting.insert(id, (notice, from));
        self.waiting_order.push_back(id);
        while self.waiting_order.len() > config.waiting_max {
            if let Some(oldest) = self.waiting_order.pop_front() {
                self.waiting.remove(&oldest);
            }
        }
        effects.push(Effect::Deliver { id, from, body });
    }

    fn note_missing(&mut self, now: Duration, from: SessionId, id: NoticeId, config: &Config) {
        if self.known.contains(&id) {
            return;
        }
        if let Some(missing) = self.missing.get_mut(&id) {
            if missing.sources.len() < SOURCES_MAX && !missing.sources.contains(&from) {
                missing.sources.push_back(from);
            }
            return;
        }
        if self.missing.len() < config.missing_max {
            let due = now + config.graft_wait;
            self.missing.insert(id, Missing { due, sources: VecDeque::from([from]) });
            self.missing_due.insert((due, id));
        }
    }

    /// Does what is due: grafts what has not come, tells names.
    pub(crate) fn timeout(&mut self, now: Duration, config: &Config) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some((due, id)) = self.missing_due.first().copied().filter(|(due, _)| *due <= now) {
            self.missing_due.remove(&(due, id));
            let Some(mut missing) = self.missing.remove(&id) else { continue };
            let there = std::iter::from_fn(|| missing.sources.pop_front()).find(|at| self.neighbours.contains_key(at));
            let Some(source) = there else { continue };
            self.counts.grafted += 1;
            self.set_eager(source, true);
            effects.push(Effect::Send(source, Message::Graft { id }));
            missing.due = now + config.graft_wait;
            self.missing_due.insert((missing.due, id));
            self.missing.insert(id, missing);
        }
        let due: Vec<SessionId> = self
            .neighbours
            .iter()
            .filter(|(_, link)| link.names_at.is_some_and(|at| at <= now))
            .map(|(l, _)| *l)
            .collect();
        due.into_iter().for_each(|link| self.tell_names(now, link, &mut effects));
        while self.kept_order.front().is_some_and(|(at, _)| *at + config.kept_for <= now) {
            self.forget_oldest();
        }
        effects
    }

    /// When [`Broadcast::timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let names = self.neighbours.values().filter_map(|link| link.names_at).min();
        let missing = self.missing_due.first().map(|(due, _)| *due);
        names.into_iter().chain(missing).min()
    }

    fn pass_on(
        &mut self,
        now: Duration,
        notice: Notice,
        from: Option<SessionId>,
        config: &Config,
        effects: &mut Vec<Effect>,
    ) {
        let others: Vec<SessionId> = self.neighbours.keys().filter(|link| Some(**link) != from).copied().collect();
        for link in others {
            if self.neighbours.get(&link).is_some_and(|state| state.eager) {
                self.send(now, link, Message::Notice(notice.clone()), effects);
            } else {
                self.name_later(now, link, notice.id, config, effects);
            }
        }
        self.kept_bytes += notice.body.len();
        self.kept_order.push_back((now, notice.id));
        self.kept.insert(notice.id, notice);
        while self.kept.len() > config.kept_max || self.kept_bytes > config.kept_bytes_max {
            self.forget_oldest();
        }
    }

    /// Sends what is fleeting to the eager neighbours that have room.
    fn say(&mut self, now: Duration, notice: &Notice, from: Option<SessionId>, effects: &mut Vec<Effect>) {
        for (link, state) in self.neighbours.iter_mut().filter(|(link, state)| Some(**link) != from && state.eager) {
            if state.fleeting_room.take(now) {
                effects.push(Effect::Send(*link, Message::Notice(notice.clone())));
            } else {
                self.counts.shed += 1;
            }
        }
    }

    fn name_later(&mut self, now: Duration, link: SessionId, id: NoticeId, config: &Config, effects: &mut Vec<Effect>) {
        let Some(state) = self.neighbours.get_mut(&link) else { return };
        state.names.push(id);
        state.names_at.get_or_insert(now + config.names_wait);
        if state.names.len() >= NAMES_MAX {
            self.tell_names(now, link, effects);
        }
    }

    fn tell_names(&mut self, now: Duration, link: SessionId, effects: &mut Vec<Effect>) {
        let Some(state) = self.neighbours.get_mut(&link) else { return };
        state.names_at = None;
        let names = std::mem::take(&mut state.names);
        self.send(now, link, Message::Have { names }, effects);
    }

    /// Sends, unless the neighbour was sent so much that it would take it for a flood: repair brings the rest.
    fn send(&mut self, now: Duration, link: SessionId, message: Message, effects: &mut Vec<Effect>) {
        let Some(state) = self.neighbours.get_mut(&link) else { return };
        if state.room.take(now) {
            effects.push(Effect::Send(link, message));
        } else {
            self.counts.shed += 1;
        }
    }

    fn set_eager(&mut self, link: SessionId, eager: bool) {
        if let Some(state) = self.neighbours.get_mut(&link) {
            state.eager = eager;
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(notice) = self.kept_order.pop_front().and_then(|(_, oldest)| self.kept.remove(&oldest)) {
            self.kept_bytes -= notice.body.len();
        }
    }
}

#[cfg(test)]
mod tests;

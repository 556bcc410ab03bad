//! Who is a neighbour and for how long: dialling, walks, exchanges, beats, repairs (HyParView).
//!
//! Owns: everything that is due at a time. Must not: let the number of neighbours follow the size of the mesh.
//! Next: `../views.rs`; docs/protocol.md §11, "Neighbours" and "Repair".

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use syncline_core::id::SessionId;

use super::{Neighbour, Output, Overlay, Phase};
use crate::message::{ABOUT_BYTES_MAX, Address, Beat, Contact, Member, Message, Purpose, Refusal};

/// Neighbours in an exchange.
const NEIGHBOURS_SHOWN: usize = 3;

/// Others in an exchange.
const OTHERS_SHOWN: usize = 4;

/// Steps that are left when a walk's contact is remembered.
const REMEMBER_AT: u8 = 2;

/// Neighbours below which one is dialled that has no room.
const FEW: usize = 2;

impl Overlay {
    pub(super) fn do_what_is_due(&mut self) {
        let now = self.now.mono;
        self.end_handshakes();
        if now >= self.times.dial {
            self.times.dial = now + self.config.dial_interval;
            self.dial_more();
        }
        if now >= self.times.rotate {
            self.times.rotate = now + self.random.around(self.config.rotate_interval);
            self.dial_beyond();
        }
        let effects = self.broadcast.timeout(now, &self.config);
        self.carry_out(None, effects);
        if self.members.is_empty() {
            return;
        }
        if now >= self.times.beat {
            self.times.beat = now + self.config.beat_interval;
            self.end_silent();
            let links: Vec<SessionId> = self.members.values().copied().collect();
            links.into_iter().for_each(|link| self.send_beat(link));
        }
        if now >= self.times.exchange {
            self.times.exchange = now + self.random.around(self.config.exchange_interval);
            if let Some(link) = self.some_neighbour(None) {
                let contacts = self.contacts();
                self.send(link, &Message::Exchange { contacts });
            }
        }
        if now >= self.times.repair {
            self.times.repair = now + self.random.around(self.repair_wait);
            if let Some(link) = self.some_neighbour(None) {
                self.outputs.push_back(Output::Repair { link });
            }
        }
    }

    /// The first neighbour has come: what is done with neighbours begins.
    pub(super) fn start_times(&mut self) {
        let now = self.now.mono;
        self.times.beat = now + self.config.beat_interval;
        self.times.exchange = now + self.random.around(self.config.exchange_interval);
        self.times.repair = now + self.random.around(self.repair_wait);
    }

    /// When somebody could be dialled; `None` while nobody is wanted or known.
    pub(super) fn next_dial(&self) -> Option<Duration> {
        if !self.online {
            return None;
        }
        let enough = self.busy() >= self.config.neighbours_wanted;
        let at = if enough { self.times.rotate } else { self.times.dial };
        if self.candidates().next().is_some() {
            return Some(at);
        }
        self.views.next_try(self.now.mono).map(|next| next.max(at))
    }

    /// Neighbours, and those that may become neighbours.
    fn busy(&self) -> usize {
        self.members.len() + self.dialling.len()
    }

    /// Looked for one by one: whether there is any is asked after every message.
    fn candidates(&self) -> impl Iterator<Item = &Address> {
        let is_neighbour = |member: &Member| self.members.contains_key(member);
        self.views.candidates(self.now.mono, is_neighbour, |address| self.dialling.contains_key(address))
    }

    /// Some of those that could be dialled.
    fn some_candidates(&mut self, count: usize) -> Vec<Address> {
        let mut seen = BTreeSet::new();
        let candidates: Vec<Address> = self.candidates().filter(|address| seen.insert(*address)).cloned().collect();
        self.random.some_of(candidates, count)
    }

    fn dial_more(&mut self) {
        let wanted = self.config.neighbours_wanted.saturating_sub(self.busy());
        if !self.online || wanted == 0 {
            return;
        }
        let purpose = match self.members.len() {
            0 if !self.arrived => Purpose::New,
            few if few < FEW => Purpose::TooFew,
            _ => Purpose::IfRoom,
        };
        for address in self.some_candidates(wanted) {
            self.dial(address, purpose);
        }
    }

    /// A member that has enough neighbours takes one that is none now and then: two halves that both have enough would
    /// never meet otherwise.
    fn dial_beyond(&mut self) {
        if self.online && self.busy() >= self.config.neighbours_wanted {
            for address in self.some_candidates(1) {
                self.dial(address, Purpose::TooFew);
            }
        }
    }

    fn dial(&mut self, address: Address, purpose: Purpose) {
        self.dialling.insert(address.clone(), purpose);
        self.outputs.push_back(Output::Dial(address));
    }

    pub(super) fn dial_failed(&mut self, address: &Address, wait: Option<Duration>) {
        if self.dialling.remove(address).is_some() {
            self.views.failed(address, self.now.mono, wait, &self.config);
        }
    }

    pub(super) fn learn(&mut self, contact: Contact) {
        self.views.learn(contact, &self.config, &mut self.random);
    }

    /// Some members that this one knows, itself among them.
    pub(super) fn contacts(&mut self) -> Vec<Contact> {
        let dialable = |neighbour: &Neighbour| !neighbour.addresses.is_empty();
        let near: Vec<Contact> = self.near().filter(|neighbour| dialable(neighbour)).map(Neighbour::contact).collect();
        let mut contacts = self.random.some_of(near, NEIGHBOURS_SHOWN);
        contacts.extend(self.views.sample(OTHERS_SHOWN, &mut self.random));
        if !self.listening.is_empty() {
            contacts.push(Contact { member: self.me, addresses: self.listening.clone() });
        }
        contacts
    }

    fn near(&self) -> impl Iterator<Item = &Neighbour> {
        self.links.values().filter_map(|state| match &state.phase {
            Phase::Neighbour(neighbour) => Some(neighbour),
            Phase::ExpectHello
            | Phase::ExpectChallenge { .. }
            | Phase::ExpectProof { .. }
            | Phase::ExpectWelcome { .. } => None,
        })
    }

    fn neighbour(&mut self, link: SessionId) -> Option<&mut Neighbour> {
        match &mut self.links.get_mut(&link)?.phase {
            Phase::Neighbour(neighbour) => Some(neighbour),
            Phase::ExpectHello
            | Phase::ExpectChallenge { .. }
            | Phase::ExpectProof { .. }
            | Phase::ExpectWelcome { .. } => None,
        }
    }

    fn some_neighbour(&mut self, but: Option<SessionId>) -> Option<SessionId> {
        let others: Vec<SessionId> = self.members.values().copied().filter(|link| Some(*link) != but).collect();
        self.random.one_of(&others)
    }

    /// Sends a new member on a walk from each other neighbour.
    pub(super) fn introduce(&mut self, link: SessionId, contact: &Contact) {
        let others: Vec<SessionId> = self.members.values().copied().filter(|other| *other != link).collect();
        for other in others {
            self.send(other, &Message::Walk { steps: self.config.walk_steps, contact: contact.clone() });
        }
    }

    pub(super) fn walk(&mut self, from: SessionId, steps: u8, contact: Contact) {
        let is_stranger = contact.member != self.me && !self.members.contains_key(&contact.member);
        if !is_stranger || contact.addresses.is_empty() {
            return;
        }
        let next = self.some_neighbour(Some(from)).filter(|_| steps > 0);
        if next.is_none() || steps == REMEMBER_AT {
            self.learn(contact.clone());
        }
        match next {
            Some(next) => self.send(next, &Message::Walk { steps: steps - 1, contact }),
            None => {
                let address = contact.addresses[0].clone();
                if self.online && !self.dialling.contains_key(&address) {
                    self.dial(address, Purpose::TooFew);
                }
            }
        }
    }

    /// Lets a neighbour go if there are too many: any but the one that has just come.
    pub(super) fn make_room(&mut self, newest: SessionId) {
        while self.members.len() > self.config.neighbours_max {
            let Some(link) = self.some_neighbour(Some(newest)) else { return };
            let contacts = self.contacts();
            self.close(link, Refusal::Replaced, contacts);
        }
    }

    fn end_handshakes(&mut self) {
        let (now, longest) = (self.now.mono, self.config.handshake_timeout);
        let late = self.links.iter().filter(|(_, state)| !state.is_neighbour() && state.since + longest <= now);
        let late: Vec<SessionId> = late.map(|(link, _)| *link).collect();
        late.into_iter().for_each(|link| self.close(link, Refusal::Other, Vec::new()));
    }

    fn end_silent(&mut self) {
        let (now, longest) = (self.now.mono, self.config.silence_max);
        let silent: Vec<SessionId> = self
            .members
            .values()
            .copied()
            .filter(|link| match self.links.get(link).map(|state| &state.phase) {
                Some(Phase::Neighbour(neighbour)) => neighbour.heard_at + longest <= now,
                Some(
                    Phase::ExpectHello
                    | Phase::ExpectChallenge { .. }
                    | Phase::ExpectProof { .. }
                    | Phase::ExpectWelcome { .. },
                )
                | None => false,
            })
            .collect();
        silent.into_iter().for_each(|link| self.close(link, Refusal::Silent, Vec::new()));
    }

    pub(super) fn send_beat(&mut self, link: SessionId) {
        let now = self.now;
        let about = self.about.clone();
        let Some(neighbour) = self.neighbour(link) else { return };
        neighbour.beat = (neighbour.beat.0.wrapping_add(1), now.mono);
        let beat = Beat { number: neighbour.beat.0, stamp: now.stamp, about };
        self.send(link, &Message::Beat(beat));
    }

    pub(super) fn beat(&mut self, link: SessionId, beat: Beat) {
        let number = beat.number;
        self.note(link, beat);
        let back = Beat { number, stamp: self.now.stamp, about: self.about.clone() };
        self.send(link, &Message::BeatBack(back));
    }

    pub(super) fn beat_back(&mut self, link: SessionId, beat: Beat) {
        let now = self.now.mono;
        if let Some(neighbour) = self.neighbour(link)
            && neighbour.beat.0 == beat.number
        {
            neighbour.latency = Some((now - neighbour.beat.1) / 2);
        }
        self.note(link, beat);
    }

    fn note(&mut self, link: SessionId, beat: Beat) {
        let now = self.now.mono;
        let Beat { stamp, about, .. } = beat;
        if let Some(neighbour) = self.neighbour(link) {
            neighbour.stamp = Some((stamp, now));
            neighbour.about = about;
            self.outputs.push_back(Output::Stamp { link, stamp });
        }
    }

    /// Shows neighbours something else of this replica, at once.
    pub(super) fn show(&mut self, about: Bytes) {
        let about = about.slice(..about.len().min(ABOUT_BYTES_MAX));
        if std::mem::replace(&mut self.about, about.clone()) != about {
            let links: Vec<SessionId> = self.members.values().copied().collect();
            links.into_iter().for_each(|link| self.send_beat(link));
        }
    }

    /// The next repair comes sooner after one that found something, and later after one that did not.
    pub(super) fn repaired(&mut self, link: SessionId, found: u64) {
        let now = self.now.mono;
        if let Some(neighbour) = self.neighbour(link) {
            neighbour.repaired = Some((now, found));
        }
        let wait = if found > 0 { self.repair_wait / 2 } else { self.repair_wait.mul_f64(1.5) };
        self.repair_wait = wait.clamp(self.config.repair_wait_min, self.config.repair_wait_max);
        if found > 0 {
            self.times.repair = self.times.repair.min(now + self.random.around(self.repair_wait));
        }
    }
}

impl Neighbour {
    fn contact(&self) -> Contact {
        Contact { member: self.member, addresses: self.addresses.clone() }
    }
}

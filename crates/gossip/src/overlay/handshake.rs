//! From a connection to a neighbour: both prove that they hold the key, then one of them says whether there is room.
//!
//! Owns: the order of the handshake, which of two connections with one member stands.
//! Must not: tell a stranger anything but that it is one. Next: `neighbours.rs`; docs/protocol.md §11, "Handshake".

use std::time::Duration;

use syncline_core::id::SessionId;

use super::{Link, Neighbour, Offence, Output, Overlay, Phase};
use crate::bucket::Bucket;
use crate::key::{Ends, Side};
use crate::message::{Address, Contact, Member, Message, Purpose, Refusal};

/// The wait after an address at which the key is another one.
const WRONG_KEY_WAIT: Duration = Duration::from_secs(60);

/// The wait after an address at which there is no room.
const NO_ROOM_WAIT: Duration = Duration::from_secs(10);

impl Overlay {
    pub(super) fn connected(&mut self, link: SessionId, dialled: Option<Address>) {
        let since = self.now.mono;
        let dialled = dialled.map(|address| {
            let purpose = self.dialling.get(&address).copied().unwrap_or(Purpose::IfRoom);
            (address, purpose)
        });
        let room = Bucket::new(self.config.received_per_second_max, since);
        let mut state = Link { dialled, since, phase: Phase::ExpectHello, offences: 0, room };
        let hello = state.dialled.as_ref().map(|(_, purpose)| {
            let nonce = self.random.bytes();
            state.phase = Phase::ExpectChallenge { nonce };
            Message::Hello { purpose: *purpose, member: self.me, nonce, addresses: self.listening.clone() }
        });
        self.links.insert(link, state);
        if !self.online {
            return self.close(link, Refusal::Leaving, Vec::new());
        }
        if let Some(hello) = hello {
            self.send(link, &hello);
        }
    }

    pub(super) fn handshake(&mut self, link: SessionId, message: Message) {
        let Some(state) = self.links.get_mut(&link) else { return };
        match (&mut state.phase, message) {
            (Phase::ExpectHello, Message::Hello { purpose, member, nonce, addresses }) => {
                self.challenge(link, purpose, (member, nonce), addresses);
            }
            (Phase::ExpectChallenge { nonce }, Message::Challenge { member, nonce: theirs, addresses, proof }) => {
                let ends = Ends { dialled: (self.me, *nonce), accepted: (member, theirs) };
                self.answer_challenge(link, &ends, addresses, &proof);
            }
            (Phase::ExpectProof { ends, purpose, addresses }, Message::Proof { proof }) => {
                let (ends, purpose, addresses) = (*ends, *purpose, std::mem::take(addresses));
                if self.key.proves(Side::Dialled, &ends, &proof) {
                    self.decide(link, ends.dialled.0, purpose, addresses);
                } else {
                    self.refuse_stranger(link);
                }
            }
            (Phase::ExpectWelcome { member, addresses }, Message::Welcome { contacts }) => {
                let (member, addresses) = (*member, std::mem::take(addresses));
                self.welcomed(link, member, addresses, contacts);
            }
            _ => self.offend(link, Offence::OutOfPlace),
        }
    }

    fn challenge(&mut self, link: SessionId, purpose: Purpose, dialled: (Member, [u8; 32]), addresses: Vec<Address>) {
        let ends = Ends { dialled, accepted: (self.me, self.random.bytes()) };
        let proof = self.key.prove(Side::Accepted, &ends);
        let challenge =
            Message::Challenge { member: self.me, nonce: ends.accepted.1, addresses: self.listening.clone(), proof };
        if let Some(state) = self.links.get_mut(&link) {
            state.phase = Phase::ExpectProof { ends, purpose, addresses };
        }
        self.send(link, &challenge);
    }

    fn answer_challenge(&mut self, link: SessionId, ends: &Ends, addresses: Vec<Address>, proof: &[u8; 32]) {
        let member = ends.accepted.0;
        if !self.key.proves(Side::Accepted, ends, proof) {
            return self.refuse_stranger(link);
        }
        let Some(state) = self.links.get_mut(&link) else { return };
        let address = state.dialled.as_ref().map(|(address, _)| address.clone());
        if member == self.me {
            address.into_iter().for_each(|address| {
                self.dialling.remove(&address);
                self.views.reached(&address, member);
            });
            return self.close(link, Refusal::Myself, Vec::new());
        }
        state.phase = Phase::ExpectWelcome { member, addresses };
        let proof = self.key.prove(Side::Dialled, ends);
        self.send(link, &Message::Proof { proof });
    }

    /// The other has proved itself: is there room for it?
    fn decide(&mut self, link: SessionId, member: Member, purpose: Purpose, addresses: Vec<Address>) {
        if member == self.me {
            return self.close(link, Refusal::Myself, Vec::new());
        }
        if !self.settle_duplicate(link, member, false) {
            return;
        }
        if purpose == Purpose::IfRoom && self.members.len() >= self.config.neighbours_max {
            self.learn(Contact { member, addresses });
            let contacts = self.contacts();
            return self.close(link, Refusal::NoRoom, contacts);
        }
        let contacts = self.contacts();
        self.send(link, &Message::Welcome { contacts });
        let contact = Contact { member, addresses: addresses.clone() };
        self.rise(link, member, addresses);
        if purpose == Purpose::New && !contact.addresses.is_empty() {
            self.introduce(link, &contact);
        }
    }

    fn welcomed(&mut self, link: SessionId, member: Member, addresses: Vec<Address>, contacts: Vec<Contact>) {
        let address =
            self.links.get(&link).and_then(|state| state.dialled.as_ref()).map(|(address, _)| address.clone());
        if let Some(address) = address {
            self.dialling.remove(&address);
            self.views.reached(&address, member);
        }
        contacts.into_iter().for_each(|contact| self.learn(contact));
        if self.settle_duplicate(link, member, true) {
            self.rise(link, member, addresses);
            self.outputs.push_back(Output::Repair { link });
        }
    }

    /// Whether the new of two connections with one member stands; the other is closed. Both ends decide alike.
    fn settle_duplicate(&mut self, new: SessionId, member: Member, dialled: bool) -> bool {
        let Some(old) = self.members.get(&member).copied() else { return true };
        let old_dialled = self.links.get(&old).is_some_and(|state| state.dialled.is_some());
        // Of two directions, that of the smaller member.
        let new_stands = old_dialled == dialled || (dialled == (self.me < member));
        self.close(if new_stands { old } else { new }, Refusal::Duplicate, Vec::new());
        new_stands
    }

    /// From here on they are neighbours.
    fn rise(&mut self, link: SessionId, member: Member, addresses: Vec<Address>) {
        let now = self.now.mono;
        self.learn(Contact { member, addresses: addresses.clone() });
        let Some(state) = self.links.get_mut(&link) else { return };
        state.offences = 0;
        state.phase = Phase::Neighbour(Neighbour {
            member,
            addresses,
            since: now,
            heard_at: now,
            beat: (0, now),
            latency: None,
            stamp: None,
            about: bytes::Bytes::new(),
            repaired: None,
        });
        if self.members.is_empty() {
            self.start_times();
        }
        self.members.insert(member, link);
        self.arrived = true;
        self.broadcast.up(now, link, &self.config);
        self.outputs.push_back(Output::Up { link, member });
        self.send_beat(link);
        self.make_room(link);
    }

    fn refuse_stranger(&mut self, link: SessionId) {
        self.outputs.push_back(Output::Refused { link, offence: Offence::WrongKey });
        self.send(link, &Message::Refusal { reason: Refusal::WrongKey, contacts: Vec::new() });
        self.outputs.push_back(Output::Close { link, reason: Refusal::WrongKey });
        self.closing.insert(link);
        self.drop_link(link, Some(WRONG_KEY_WAIT));
    }

    /// The other does not want to be, or to stay, a neighbour.
    pub(super) fn refused(&mut self, link: SessionId, reason: Refusal, contacts: Vec<Contact>) {
        let Some(state) = self.links.get(&link) else { return };
        // A stranger's word about others is not taken.
        let proved = matches!(state.phase, Phase::Neighbour(_) | Phase::ExpectWelcome { .. });
        // Who is at the address is a neighbour already: it is not dialled again for that.
        if let (Refusal::Duplicate, Phase::ExpectWelcome { member, .. }, Some((address, _))) =
            (reason, &state.phase, &state.dialled)
        {
            self.views.reached(address, *member);
        }
        if proved {
            contacts.into_iter().for_each(|contact| self.learn(contact));
        }
        let wait = match reason {
            Refusal::WrongKey => {
                self.outputs.push_back(Output::Refused { link, offence: Offence::WrongKey });
                Some(WRONG_KEY_WAIT)
            }
            Refusal::NoRoom | Refusal::Duplicate | Refusal::Replaced => Some(NO_ROOM_WAIT),
            Refusal::Other | Refusal::Myself | Refusal::Leaving | Refusal::Silent | Refusal::Offences => None,
        };
        self.outputs.push_back(Output::Close { link, reason });
        self.closing.insert(link);
        self.drop_link(link, wait);
    }
}

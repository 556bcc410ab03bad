//! One member of a mesh: connections, bytes and time in, ordered outputs out.
//!
//! Owns: every connection's phase, who is a neighbour, when to dial, beat, exchange and repair.
//! Must not: read a clock, open a connection, look into a notice.
//! Next: `overlay/handshake.rs`, `overlay/neighbours.rs`, `broadcast.rs`, `views.rs`; docs/protocol.md §11.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::clock::Stamp;
use syncline_core::id::SessionId;

use crate::broadcast::{Broadcast, Counts, Effect, Stay};
use crate::bucket::Bucket;
use crate::config::Config;
use crate::key::{Ends, MeshKey};
use crate::message::{Address, Contact, Member, Message, MessageError, NoticeId, Purpose, Refusal};
use crate::random::Random;
use crate::views::Views;

mod handshake;
mod neighbours;

/// The time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since an arbitrary start; never steps back.
    pub mono: Duration,
    /// The replica's clock.
    pub stamp: Stamp,
}

/// What an overlay takes in.
#[derive(Debug)]
pub enum Input {
    /// An address to dial, for ever.
    Give(Address),
    /// A member that was found, as on a LAN.
    Found(Contact),
    /// Where this replica can be dialled.
    Listening(Vec<Address>),
    /// A connection is open, and both ends speak native version 4 or later.
    Connected {
        /// The connection.
        link: SessionId,
        /// What was dialled; `None` if the other did.
        dialled: Option<Address>,
    },
    /// A message of the mesh has come.
    Received {
        /// The connection. One that is not known is one on which the other dialled.
        link: SessionId,
        /// The message.
        bytes: Bytes,
    },
    /// A connection has ended.
    Disconnected {
        /// The connection.
        link: SessionId,
    },
    /// An address could not be dialled, or nobody there speaks the language.
    DialFailed(Address),
    /// Tell all members something that is durable here.
    Publish(Bytes),
    /// Tell all members something that is not durable anywhere: whoever misses it misses it.
    Speak(Bytes),
    /// What a notice told is durable here.
    Accept(NoticeId),
    /// What a notice told is nowhere durable: it goes on, and is forgotten.
    PassOn(NoticeId),
    /// What a notice told is not taken.
    Discard(NoticeId),
    /// What a notice told is nothing, and whoever brought it should have seen that.
    Offend {
        /// Who brought it.
        link: SessionId,
        /// What is wrong with it.
        offence: Offence,
    },
    /// A repair is over.
    Repaired {
        /// With whom.
        link: SessionId,
        /// How many differences it found.
        found: u64,
    },
    /// What neighbours are to see of this replica.
    About(Bytes),
    /// Take part, or cut every connection and take none.
    Online(bool),
    /// The network is another one: dial at once.
    NetworkChanged,
    /// The time of [`Overlay::poll_timeout`] has come.
    Timeout,
}

/// What an overlay wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection; answer with [`Input::Connected`] or [`Input::DialFailed`].
    Dial(Address),
    /// Send a message of the mesh.
    Send {
        /// The connection.
        link: SessionId,
        /// The message.
        bytes: Bytes,
    },
    /// Close a connection after what is queued for it.
    Close {
        /// The connection.
        link: SessionId,
        /// Why.
        reason: Refusal,
    },
    /// The other is a member and a neighbour: speak with it about documents from here on.
    Up {
        /// The connection.
        link: SessionId,
        /// Who.
        member: Member,
    },
    /// It is no neighbour any more.
    Down {
        /// The connection.
        link: SessionId,
        /// Who.
        member: Member,
    },
    /// A notice of another, sealed by a member; answer with [`Input::Accept`] or [`Input::Discard`].
    Deliver {
        /// Its name.
        id: NoticeId,
        /// Who brought it.
        link: SessionId,
        /// What it says.
        body: Bytes,
    },
    /// Compare with this neighbour; answer with [`Input::Repaired`].
    Repair {
        /// The connection.
        link: SessionId,
    },
    /// A neighbour's clock said this.
    Stamp {
        /// The connection.
        link: SessionId,
        /// What.
        stamp: Stamp,
    },
    /// A message was not taken. Count and log it.
    Refused {
        /// The connection.
        link: SessionId,
        /// Why.
        offence: Offence,
    },
}

/// Something that a peer did and that is not taken. **State:** dropped; the connection goes on until there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// The peer does not hold the key of this mesh. The connection is closed.
    #[error("the peer does not hold the key of this mesh")]
    WrongKey,
    /// A message that cannot be read.
    #[error(transparent)]
    Malformed(#[from] MessageError),
    /// A message that has no place at this point.
    #[error("a message of the mesh is out of place")]
    OutOfPlace,
    /// A notice whose seal is not that of the mesh, or in this replica's own name.
    #[error("a notice is forged: its seal is not that of this mesh")]
    Forged,
    /// A notice brings something that is no change. The notice goes no further.
    #[error("a notice brings something that is no change")]
    BadChange,
    /// More messages than a neighbour may send.
    #[error("more messages of the mesh than a neighbour may send")]
    Flood,
}

impl Offence {
    /// A short name for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WrongKey => "mesh_wrong_key",
            Self::Malformed(_) => "mesh_malformed",
            Self::OutOfPlace => "mesh_out_of_place",
            Self::Forged => "mesh_forged",
            Self::BadChange => "mesh_bad_change",
            Self::Flood => "mesh_flood",
        }
    }
}

/// A neighbour, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourStatus {
    /// The connection.
    pub link: SessionId,
    /// Who.
    pub member: Member,
    /// Whether this replica dialled.
    pub dialled: bool,
    /// Where it can be dialled.
    pub addresses: Vec<Address>,
    /// Half of the last beat's way there and back; `None` before the first came back.
    pub latency: Option<Duration>,
    /// Its clock when last heard of, and when that was, since the overlay's start.
    pub stamp: Option<(Stamp, Duration)>,
    /// What it shows of itself.
    pub about: Bytes,
    /// The last repair with it: when it was over, and how many differences it found.
    pub repaired: Option<(Duration, u64)>,
    /// When it became a neighbour.
    pub since: Duration,
}

/// The state machine. One mutator, [`Overlay::handle`]; then [`Overlay::poll_output`] until it is empty.
#[derive(Debug)]
pub struct Overlay {
    config: Config,
    key: MeshKey,
    me: Member,
    random: Random,
    now: Moment,
    online: bool,
    listening: Vec<Address>,
    about: Bytes,
    links: BTreeMap<SessionId, Link>,
    /// The connection of each neighbour.
    members: BTreeMap<Member, SessionId>,
    /// Connections that are being closed: what still comes of them is not looked at.
    closing: BTreeSet<SessionId>,
    /// Addresses being dialled, until the other is a neighbour or is not.
    dialling: BTreeMap<Address, Purpose>,
    views: Views,
    broadcast: Broadcast,
    outputs: VecDeque<Output>,
    times: Times,
    repair_wait: Duration,
    /// Whether there has been a neighbour.
    arrived: bool,
}

/// When something is due next.
#[derive(Debug)]
struct Times {
    dial: Duration,
    beat: Duration,
    exchange: Duration,
    rotate: Duration,
    repair: Duration,
}

#[derive(Debug)]
struct Link {
    dialled: Option<(Address, Purpose)>,
    since: Duration,
    phase: Phase,
    offences: u32,
    room: Bucket,
}

#[derive(Debug)]
enum Phase {
    /// The other dialled and has to say hello.
    ExpectHello,
    /// We said hello with this nonce.
    ExpectChallenge { nonce: [u8; 32] },
    /// We sent a challenge.
    ExpectProof { ends: Ends, purpose: Purpose, addresses: Vec<Address> },
    /// We proved ourselves, and the other has.
    ExpectWelcome { member: Member, addresses: Vec<Address> },
    /// Done.
    Neighbour(Neighbour),
}

#[derive(Debug)]
struct Neighbour {
    member: Member,
    addresses: Vec<Address>,
    since: Duration,
    heard_at: Duration,
    beat: (u32, Duration),
    latency: Option<Duration>,
    stamp: Option<(Stamp, Duration)>,
    about: Bytes,
    repaired: Option<(Duration, u64)>,
}

impl Overlay {
    /// A member that knows nobody yet. The seed must not be predictable: nonces are drawn from it.
    #[must_use]
    pub fn new(config: Config, key: MeshKey, seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        let mut me = [0; 16];
        me.copy_from_slice(&random.bytes()[..16]);
        let me = Member(me);
        let broadcast = Broadcast::new(me, &key, &config);
        let start = Duration::ZERO;
        let times = Times { dial: start, beat: start, exchange: start, rotate: config.rotate_interval, repair: start };
        Self {
            repair_wait: config.repair_wait,
            config,
            key,
            me,
            random,
            now: Moment { mono: start, stamp: Stamp::ZERO },
            online: true,
            listening: Vec::new(),
            about: Bytes::new(),
            links: BTreeMap::new(),
            members: BTreeMap::new(),
            closing: BTreeSet::new(),
            dialling: BTreeMap::new(),
            views: Views::new(me),
            broadcast,
            outputs: VecDeque::new(),
            times,
            arrived: false,
        }
    }

    /// Half of a time for certain, half by chance.
    pub(crate) fn around(&mut self, time: Duration) -> Duration {
        self.random.around(time)
    }

    /// Takes one input in. Never panics on what a peer sent.
    pub fn handle(&mut self, now: Moment, input: Input) {
        self.now = now;
        match input {
            Input::Give(address) => self.views.give(address),
            Input::Found(contact) => self.learn(contact),
            Input::Listening(addresses) => self.listening = addresses,
            Input::Connected { link, dialled } => self.connected(link, dialled),
            Input::Received { link, bytes } => self.received(link, bytes),
            Input::Disconnected { link } => self.disconnected(link),
            Input::DialFailed(address) => self.dial_failed(&address, None),
            Input::Publish(body) => {
                let (_, effects) = self.broadcast.publish(now.mono, body, Stay::Kept, &self.config);
                self.carry_out(None, effects);
            }
            Input::Speak(body) => {
                let (_, effects) = self.broadcast.publish(now.mono, body, Stay::Fleeting, &self.config);
                self.carry_out(None, effects);
            }
            Input::Accept(id) => {
                let effects = self.broadcast.accept(now.mono, &id, Stay::Kept, &self.config);
                self.carry_out(None, effects);
            }
            Input::PassOn(id) => {
                let effects = self.broadcast.accept(now.mono, &id, Stay::Fleeting, &self.config);
                self.carry_out(None, effects);
            }
            Input::Discard(id) => self.broadcast.discard(&id),
            Input::Offend { link, offence } => self.offend(link, offence),
            Input::Repaired { link, found } => self.repaired(link, found),
            Input::About(about) => self.show(about),
            Input::Online(online) => self.set_online(online),
            Input::NetworkChanged => {
                self.views.forgive();
                self.times.dial = now.mono;
            }
            Input::Timeout => {}
        }
        self.do_what_is_due();
    }

    /// The next thing for the shell to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let handshakes = self.links.values().filter(|link| !link.is_neighbour()).map(|link| link.since);
        let handshake = handshakes.min().map(|since| since + self.config.handshake_timeout);
        let has_neighbours = !self.members.is_empty();
        let with_neighbours = [self.times.beat, self.times.exchange, self.times.repair];
        let with_neighbours = with_neighbours.into_iter().filter(|_| has_neighbours).min();
        let dial = self.next_dial();
        [handshake, with_neighbours, dial, self.broadcast.poll_timeout()].into_iter().flatten().min()
    }

    /// This replica's name in the mesh.
    #[must_use]
    pub fn me(&self) -> Member {
        self.me
    }

    /// Whether it takes part.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online
    }

    /// The neighbours, in no order that means something.
    #[must_use]
    pub fn neighbours(&self) -> Vec<NeighbourStatus> {
        let neighbours = self.links.iter().filter_map(|(link, state)| match &state.phase {
            Phase::Neighbour(neighbour) => Some(neighbour.status(*link, state.dialled.is_some())),
            Phase::ExpectHello
            | Phase::ExpectChallenge { .. }
            | Phase::ExpectProof { .. }
            | Phase::ExpectWelcome { .. } => None,
        });
        neighbours.collect()
    }

    /// Neighbours that are sent whole notices, and members that are remembered beside the neighbours.
    #[must_use]
    pub fn extent(&self) -> (usize, usize) {
        (self.broadcast.eager(), self.views.len())
    }

    /// What was counted of notices.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.broadcast.counts
    }

    fn received(&mut self, link: SessionId, bytes: Bytes) {
        if self.closing.contains(&link) {
            return;
        }
        if !self.links.contains_key(&link) {
            self.connected(link, None);
        }
        let Some(state) = self.links.get_mut(&link) else { return };
        if !state.room.take(self.now.mono) {
            return self.offend(link, Offence::Flood);
        }
        if let Phase::Neighbour(neighbour) = &mut state.phase {
            neighbour.heard_at = self.now.mono;
        }
        match Message::decode(bytes) {
            Ok(message) => self.message(link, message),
            // Of a later version.
            Err(MessageError::UnknownTag(_)) => {}
            Err(error) => self.offend(link, Offence::Malformed(error)),
        }
    }

    fn message(&mut self, link: SessionId, message: Message) {
        let is_neighbour = self.links.get(&link).is_some_and(Link::is_neighbour);
        match message {
            Message::Hello { .. } | Message::Challenge { .. } | Message::Proof { .. } | Message::Welcome { .. } => {
                self.handshake(link, message);
            }
            Message::Refusal { reason, contacts } => self.refused(link, reason, contacts),
            _ if !is_neighbour => self.offend(link, Offence::OutOfPlace),
            Message::Walk { steps, contact } => self.walk(link, steps, contact),
            Message::Exchange { contacts } => {
                let known = self.contacts();
                self.send(link, &Message::Exchanged { contacts: known });
                contacts.into_iter().for_each(|contact| self.learn(contact));
            }
            Message::Exchanged { contacts } => contacts.into_iter().for_each(|contact| self.learn(contact)),
            Message::Beat(beat) => self.beat(link, beat),
            Message::BeatBack(beat) => self.beat_back(link, beat),
            Message::Notice(_) | Message::Have { .. } | Message::Graft { .. } | Message::Prune => {
                let effects = self.broadcast.receive(self.now.mono, link, message, &self.config);
                self.carry_out(Some(link), effects);
            }
        }
    }

    fn carry_out(&mut self, from: Option<SessionId>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(link, message) => self.send(link, &message),
                Effect::Deliver { id, from: link, body } => {
                    self.outputs.push_back(Output::Deliver { id, link, body });
                }
                Effect::Offence(offence) => from.into_iter().for_each(|link| self.offend(link, offence)),
            }
        }
    }

    fn send(&mut self, link: SessionId, message: &Message) {
        self.outputs.push_back(Output::Send { link, bytes: message.encode() });
    }

    /// Counts an offence, and closes the connection of which there were too many.
    fn offend(&mut self, link: SessionId, offence: Offence) {
        self.outputs.push_back(Output::Refused { link, offence });
        let Some(state) = self.links.get_mut(&link) else { return };
        state.offences += 1;
        if state.offences >= self.config.offences_max {
            self.close(link, Refusal::Offences, Vec::new());
        }
    }

    /// Ends a connection from this side.
    fn close(&mut self, link: SessionId, reason: Refusal, contacts: Vec<Contact>) {
        if !self.links.contains_key(&link) {
            return;
        }
        self.send(link, &Message::Refusal { reason, contacts });
        self.outputs.push_back(Output::Close { link, reason });
        self.closing.insert(link);
        self.drop_link(link, None);
    }

    fn disconnected(&mut self, link: SessionId) {
        self.closing.remove(&link);
        self.drop_link(link, None);
    }

    /// Forgets a connection. One that was dialled and came to nothing counts as a failure of its address.
    fn drop_link(&mut self, link: SessionId, wait: Option<Duration>) {
        let Some(state) = self.links.remove(&link) else { return };
        if let Phase::Neighbour(neighbour) = state.phase {
            let member = neighbour.member;
            if self.members.get(&member) == Some(&link) {
                self.members.remove(&member);
            }
            self.views.left(member);
            self.broadcast.down(link);
            self.outputs.push_back(Output::Down { link, member });
            self.times.dial = self.times.dial.min(self.now.mono + self.config.dial_interval);
        } else if let Some((address, _)) = state.dialled {
            self.dial_failed(&address, wait);
        }
    }

    fn set_online(&mut self, online: bool) {
        if std::mem::replace(&mut self.online, online) == online {
            return;
        }
        if online {
            self.views.forgive();
            self.times.dial = self.now.mono;
            return;
        }
        let links: Vec<SessionId> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.close(link, Refusal::Leaving, Vec::new()));
    }
}

impl Link {
    fn is_neighbour(&self) -> bool {
        matches!(self.phase, Phase::Neighbour(_))
    }
}

impl Neighbour {
    fn status(&self, link: SessionId, dialled: bool) -> NeighbourStatus {
        NeighbourStatus {
            link,
            member: self.member,
            dialled,
            addresses: self.addresses.clone(),
            latency: self.latency,
            stamp: self.stamp,
            about: self.about.clone(),
            repaired: self.repaired,
            since: self.since,
        }
    }
}

#[cfg(test)]
mod tests;

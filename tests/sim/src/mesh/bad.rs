//! A peer that means harm: without the key, or as a member.
//!
//! Owns: what it sends, and what it must not be told. Must not: make a change that could be an honest author's.
//! Next: `bad/deeds.rs`, `act.rs`; docs/protocol.md §11, "Refused".

mod deeds;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use syncline_core::clock::Stamp;
use syncline_core::collection::{self, Collection, CollectionMessage, SetName};
use syncline_core::hub::{Now, Outgoing, PeerMessage, Receipt, Role};
use syncline_core::id::{PeerId, ReplicaId, SessionId};
use syncline_core::limits::Limits;
use syncline_core::native::{self, NativeMessage};
use syncline_core::session::{LocalPeer, Session, Step};
use syncline_gossip::message::Message;
use syncline_gossip::overlay::{self, Moment};
use syncline_gossip::{Address, Config, MeshKey, Overlay};

use super::traffic::{End, session};
use super::{World, key};
use crate::action::Kind;
use crate::oracle::{Checked, require};

/// Messages of the mesh that are remembered to be said again.
const HEARD_MAX: usize = 64;

/// Most messages that it answers in a round before it loses patience.
const PATIENCE: u32 = 40;

/// Where it can be dialled.
pub(super) fn address() -> Address {
    Address::new("ws://bad").expect("short")
}

/// The peer, and what became of it.
#[derive(Default)]
pub(super) struct Bad {
    party: Option<Party>,
    /// Links that were its own.
    links: BTreeSet<u64>,
    /// What it heard of others, to say it again.
    heard: VecDeque<Bytes>,
    /// What it is to do once it is let in.
    deeds: VecDeque<(Kind, u64)>,
    /// Reasons for which it was refused.
    pub(super) punished: BTreeSet<&'static str>,
    names: u64,
}

/// One connection of it.
struct Party {
    link: u64,
    end: usize,
    node: usize,
    session: Session,
    overlay: Overlay,
    collection: Collection,
    has_key: bool,
    is_neighbour: bool,
    /// How it behaves in rounds.
    manner: Option<(Kind, u64)>,
    answered: u32,
}

impl Bad {
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.party.as_ref()?.overlay.poll_timeout()
    }

    pub(super) fn was_on(&self, link: u64) -> bool {
        self.links.contains(&link)
    }
}

impl World {
    pub(super) fn bad_acts(&mut self, kind: Kind, node: usize, value: u64) -> Checked {
        if kind == Kind::Stranger {
            return self.stranger_comes(node, value);
        }
        self.bad.deeds.push_back((kind, value));
        match &self.bad.party {
            None => self.bad_dials(node, key())?,
            Some(party) if party.is_neighbour => return self.bad_does_all(),
            Some(_) => {}
        }
        Ok(())
    }

    /// Somebody without the key: it dials, or is dialled because its address is known.
    fn stranger_comes(&mut self, node: usize, value: u64) -> Checked {
        if self.bad.party.is_some() || !self.nodes[node].up {
            return Ok(());
        }
        self.met(Kind::Stranger, node);
        if value.is_multiple_of(2) {
            return self.bad_dials(node, MeshKey::open("another"));
        }
        self.nodes[node].give(self.now, address());
        self.drain(node)
    }

    fn bad_dials(&mut self, node: usize, key: MeshKey) -> Checked {
        if !self.nodes[node].up {
            return Ok(());
        }
        let link = self.open_link(End::Bad, End::Node(node));
        self.nodes[node].connected(self.now, session(link, 1), None);
        let (session, join) = Session::dial(self.bad_peer(), Limits::default());
        self.meet_bad(link, 0, node, session, key);
        self.send(link, 0, Bytes::from(join), false);
        self.drain(node)
    }

    /// A node has dialled it. It has no key.
    pub(super) fn bad_is_dialled(&mut self, link: u64) {
        let Some(End::Node(node)) = self.links.get(&link).map(|state| state.ends[0]) else { return };
        let session = Session::accept(self.bad_peer(), Limits::default());
        self.meet_bad(link, 1, node, session, MeshKey::open("another"));
    }

    fn bad_peer(&mut self) -> LocalPeer {
        self.bad.names += 1;
        let peer = PeerId::new(&format!("bad-{}", self.bad.names)).expect("a short name");
        LocalPeer { peer, storage: ReplicaId([0xbb; 16]).storage_id(), native: native::VERSION }
    }

    fn meet_bad(&mut self, link: u64, end: usize, node: usize, session: Session, key: MeshKey) {
        let mut seed = [0xbb; 32];
        seed[..8].copy_from_slice(&self.bad.names.to_le_bytes());
        let has_key = key.to_text() == super::key().to_text();
        let overlay = Overlay::new(Config::default(), key, seed);
        let collection = Collection::new(Limits::default(), 7);
        self.bad.links.insert(link);
        let (is_neighbour, manner, answered) = (false, None, 0);
        self.bad.party =
            Some(Party { link, end, node, session, overlay, collection, has_key, is_neighbour, manner, answered });
    }

    pub(super) fn bad_dropped(&mut self, link: u64) {
        if self.bad.party.as_ref().is_some_and(|party| party.link == link) {
            self.bad.party = None;
        }
    }

    /// Ends its connection.
    pub(super) fn bad_leaves(&mut self) -> Checked {
        self.bad.deeds.clear();
        match self.bad.party.as_ref().map(|party| party.link) {
            Some(link) => self.cut(link),
            None => Ok(()),
        }
    }

    pub(super) fn bad_wakes(&mut self) -> Checked {
        self.bad_input(overlay::Input::Timeout)
    }

    pub(super) fn bad_frame(&mut self, link: u64, frame: &Bytes) -> Checked {
        let now = self.bad_now();
        let Some(party) = self.bad.party.as_mut().filter(|party| party.link == link) else { return Ok(()) };
        for step in party.session.receive(now, frame) {
            self.bad_step(link, step)?;
        }
        Ok(())
    }

    fn bad_step(&mut self, link: u64, step: Step) -> Checked {
        let Some(party) = self.bad.party.as_mut().filter(|party| party.link == link) else { return Ok(()) };
        match step {
            Step::Send(frame) => {
                let end = party.end;
                self.send(link, end, Bytes::from(frame), false);
            }
            Step::Joined(_) => {
                let dialled = (party.end == 0).then(address);
                return self.bad_input(overlay::Input::Connected { link: SessionId(link), dialled });
            }
            Step::Forward(PeerMessage::Native(NativeMessage::Mesh(bytes))) => {
                self.bad.heard.push_back(bytes.clone());
                if self.bad.heard.len() > HEARD_MAX {
                    self.bad.heard.pop_front();
                }
                if !party.has_key && self.bad.names.is_multiple_of(2) {
                    return self.claim_to_have_the_key(bytes);
                }
                return self.bad_input(overlay::Input::Received { link: SessionId(link), bytes });
            }
            Step::Forward(message) => {
                let (told, has_key, node) = (party.is_neighbour, party.has_key, party.node);
                let open = self.has(super::tuning::FEDERATION) && self.links[&link].ends[0] == End::Bad;
                require(told || open, "nothing is said to who has not proved itself", || {
                    format!("node {node} says {message:?}; key: {has_key}")
                })?;
                if let PeerMessage::Native(NativeMessage::Collection(message)) = message {
                    return self.bad_in_a_round(message);
                }
            }
            Step::Authenticate(_)
            | Step::AccessChanged(_)
            | Step::AccessLeft(_)
            | Step::Tell(_)
            | Step::Observe(_)
            | Step::Refused(_)
            | Step::Close(_) => {}
        }
        Ok(())
    }

    /// Without the key, it answers a challenge with a proof that it has heard itself, and takes everything for a welcome.
    fn claim_to_have_the_key(&mut self, heard: Bytes) -> Checked {
        if let Ok(Message::Challenge { proof, .. }) = Message::decode(heard) {
            self.bad_says(&NativeMessage::Mesh(Message::Proof { proof }.encode()));
        }
        Ok(())
    }

    fn bad_input(&mut self, input: overlay::Input) -> Checked {
        let now = Moment { mono: self.now, stamp: Stamp::ZERO };
        let Some(party) = &mut self.bad.party else { return Ok(()) };
        party.overlay.handle(now, input);
        while let Some(output) = self.bad.party.as_mut().and_then(|party| party.overlay.poll_output()) {
            self.bad_output(now, output)?;
        }
        Ok(())
    }

    fn bad_output(&mut self, now: Moment, output: overlay::Output) -> Checked {
        let Some(party) = &mut self.bad.party else { return Ok(()) };
        match output {
            overlay::Output::Send { bytes, .. } => self.bad_says(&NativeMessage::Mesh(bytes)),
            overlay::Output::Up { .. } => {
                let (node, has_key) = (party.node, party.has_key);
                party.is_neighbour = true;
                require(has_key, "who has no key is no member", || format!("node {node} has let a stranger in"))?;
                self.bad_takes_part();
                return self.bad_does_all();
            }
            overlay::Output::Dial(address) => party.overlay.handle(now, overlay::Input::DialFailed(address)),
            overlay::Output::Deliver { id, .. } => party.overlay.handle(now, overlay::Input::Accept(id)),
            overlay::Output::Repair { link } => party.overlay.handle(now, overlay::Input::Repaired { link, found: 0 }),
            overlay::Output::Close { .. } => {
                let (link, end) = (party.link, party.end);
                self.close(link, end)?;
                self.bad_dropped(link);
            }
            overlay::Output::Down { .. } => party.is_neighbour = false,
            overlay::Output::Stamp { .. } | overlay::Output::Refused { .. } => {}
        }
        Ok(())
    }

    fn bad_says(&mut self, message: &NativeMessage) {
        let Some(party) = &self.bad.party else { return };
        let (link, end) = (party.link, party.end);
        let mut frame = Vec::new();
        let wall = Stamp::new(syncline_mesh_sim::node::EPOCH_MS + self.now.as_millis() as u64, 0);
        party.session.encode(wall, &Outgoing::Native(message.clone()), &mut frame);
        self.send(link, end, Bytes::from(frame), false);
    }

    fn bad_now(&self) -> Now {
        Now { mono: self.now, wall_ms: 0 }
    }

    /// It takes part in comparisons: honestly, with documents that are nowhere, unless it is to do something else.
    fn bad_takes_part(&mut self) {
        let now = self.bad_now();
        let Some(party) = &mut self.bad.party else { return };
        let (session, key) = (SessionId(party.link), key().set_key());
        let set = SetName::of(&key);
        party.collection.handle(now, collection::Input::AddSet { key });
        party.collection.handle(now, collection::Input::Connected { session, role: Role::Neighbour });
        let scope = collection::Scope::Names;
        party.collection.handle(now, collection::Input::Allow { session, set, scope });
        self.drain_bad_collection();
    }

    fn bad_in_a_round(&mut self, message: CollectionMessage) -> Checked {
        let now = self.bad_now();
        let Some(party) = &mut self.bad.party else { return Ok(()) };
        party.answered += 1;
        if party.answered > PATIENCE {
            return Ok(());
        }
        if matches!(party.manner, Some((Kind::EndlessRound, _))) {
            self.bad_never_agrees(&message);
            return Ok(());
        }
        let (session, receipt) = (SessionId(party.link), Receipt::default());
        party.collection.handle(now, collection::Input::Received { session, message, receipt });
        self.drain_bad_collection();
        Ok(())
    }

    fn drain_bad_collection(&mut self) {
        let now = self.bad_now();
        while let Some(output) = self.bad.party.as_mut().and_then(|party| party.collection.poll_output()) {
            match output {
                collection::Output::Read { set, key, hash_key } => {
                    let members = Box::new(self.bad_documents(key, hash_key));
                    let Some(party) = &mut self.bad.party else { return };
                    party.collection.handle(now, collection::Input::Read { set, members });
                }
                collection::Output::Send { message, .. } => {
                    let message = self.bad_bends(message);
                    self.bad_says(&NativeMessage::Collection(message));
                }
                collection::Output::Notify(_) | collection::Output::Refused { .. } => {}
            }
        }
    }
}

//! What the shell of a replica does, without a socket: frames to sessions, messages to hub and mesh, outputs out.
//!
//! Owns: who is let in on which connection. Must not: decide anything else about the protocol.
//! Next: `../world.rs`; the replica crate's `mesh.rs` and `connection.rs`.

use std::time::Duration;

use bytes::Bytes;
use syncline_core::access::Access;
use syncline_core::clock::Stamp;
use syncline_core::collection::{self, EndReason, Gathering, Outcome, Scope};
use syncline_core::hub::{Input, OpenedDocuments, Outgoing, Output, PeerInfo, PeerMessage, Receipt, Role};
use syncline_core::id::{DocumentId, SessionId};
use syncline_core::native::NativeMessage;
use syncline_core::session::Step;
use syncline_gossip::membership::Output as MeshOutput;
use syncline_gossip::overlay;

use super::{Act, Node};

/// The first message of the broadcast that may be lost: beats and what comes after them.
const FIRST_LOSSY_TAG: u8 = 9;

impl Node {
    /// A frame has come.
    pub fn receive(&mut self, now: Duration, link: SessionId, frame: &Bytes) {
        let hub_now = self.hub_now(now);
        let Some(connection) = self.sessions.get_mut(&link) else { return };
        for step in connection.session.receive(hub_now, frame) {
            self.step(now, link, step);
        }
    }

    fn step(&mut self, now: Duration, link: SessionId, step: Step) {
        match step {
            Step::Send(frame) => {
                self.acts.push_back(Act::Frame { link, bytes: Bytes::from(frame), may_be_lost: false });
            }
            Step::Joined(peer) => self.joined(now, link, peer),
            Step::Forward(message) => self.forward(now, link, message),
            Step::Observe(stamp) => self.observe(now, link, stamp),
            Step::Tell(message) => self.send(link, &message),
            Step::Authenticate(_) | Step::AccessChanged(_) | Step::AccessLeft(_) => {
                unreachable!("nobody shows a token here")
            }
            Step::Refused(offence) => self.acts.push_back(Act::Refused { link: Some(link), kind: offence.kind() }),
            Step::Close(offence) => {
                self.acts.push_back(Act::Refused { link: Some(link), kind: offence.kind() });
                self.acts.push_back(Act::Close(link));
            }
        }
    }

    fn joined(&mut self, now: Duration, link: SessionId, peer: PeerInfo) {
        let Some(connection) = self.sessions.get_mut(&link) else { return };
        connection.peer = Some(peer.clone());
        if !connection.open {
            let dialled = connection.dialled.clone();
            return self.mesh_input(now, overlay::Input::Connected { link, dialled });
        }
        let same = self.sessions.iter().find(|(other, connection)| {
            connection.open && **other != link && connection.peer.as_ref().is_some_and(|other| other.peer == peer.peer)
        });
        if let Some(replaced) = same.map(|(other, _)| *other) {
            self.leave_hub(now, replaced);
            self.acts.push_back(Act::Close(replaced));
        }
        self.enter_hub(now, link, PeerInfo { access: Access::full(), ..peer });
    }

    fn enter_hub(&mut self, now: Duration, link: SessionId, peer: PeerInfo) {
        let (role, native) = (peer.role, peer.native);
        let opened = OpenedDocuments::default();
        self.hub_input(now, Input::Connected { session: link, peer, opened });
        if native >= collection::message::SINCE {
            self.collection_input(now, collection::Input::Connected { session: link, role });
        }
    }

    pub(super) fn leave_hub(&mut self, now: Duration, link: SessionId) {
        self.hub_input(now, Input::Disconnected { session: link });
        self.collection_input(now, collection::Input::Disconnected { session: link });
    }

    fn forward(&mut self, now: Duration, link: SessionId, message: PeerMessage) {
        let Some(connection) = self.sessions.get(&link) else { return };
        let let_in = connection.neighbour || connection.open;
        let receipt = Receipt::default();
        match message {
            PeerMessage::Native(NativeMessage::Mesh(bytes)) => {
                self.mesh_input(now, overlay::Input::Received { link, bytes });
            }
            // Of somebody who has not proved itself.
            _ if !let_in => {}
            PeerMessage::Native(NativeMessage::Collection(message)) => {
                self.collection_input(now, collection::Input::Received { session: link, message, receipt });
            }
            PeerMessage::Sync(sync) => {
                if !self.takes_part_in(&sync.document) {
                    return self.send(link, &Outgoing::DocUnavailable { document: sync.document });
                }
                if connection.neighbour {
                    self.tally.changes_in += sync.changes.len() as u64;
                }
                let message = PeerMessage::Sync(sync);
                self.hub_input(now, Input::Received { session: link, message, receipt });
            }
            message @ (PeerMessage::DocUnavailable { .. }
            | PeerMessage::Ephemeral { .. }
            | PeerMessage::RemoteSubscription { .. }
            | PeerMessage::RemoteHeads { .. }
            | PeerMessage::Native(_)) => {
                self.hub_input(now, Input::Received { session: link, message, receipt });
            }
        }
    }

    fn observe(&mut self, now: Duration, link: SessionId, stamp: Stamp) {
        if let Err(ahead) = self.clock.observe(stamp, self.wall_ms(now)) {
            self.acts.push_back(Act::Refused { link: Some(link), kind: ahead.kind() });
        }
    }

    pub(super) fn hub_input(&mut self, now: Duration, input: Input) {
        self.hub.handle(self.hub_now(now), input);
        while let Some(output) = self.hub.poll_output() {
            self.hub_output(now, output);
        }
    }

    fn hub_output(&mut self, now: Duration, output: Output) {
        match output {
            Output::Persist { ticket, commit } => {
                let document = commit.document.clone();
                self.committing.insert(ticket, commit);
                self.acts.push_back(Act::Persist { document, ticket });
            }
            Output::Load { document, what } => {
                let loaded = self.disk.load(&document, &what, self.hub.hash_key());
                self.hub.handle(self.hub_now(now), Input::Loaded { document, loaded });
            }
            Output::Send { session, message } => self.send(session, &message),
            // Links take everything at once here.
            Output::AwaitDrain { session } => self.hub.handle(self.hub_now(now), Input::Drained { session }),
            Output::State { document, state } => {
                self.collection_input(now, collection::Input::Changed { document, state });
            }
            Output::Mesh(event) => {
                let moment = self.moment(now);
                self.mesh.hear(moment, event);
                self.drain_mesh(now);
            }
            Output::Notify(_) => {}
            Output::Refused { session, remark, .. } => {
                self.acts.push_back(Act::Refused { link: session, kind: remark.kind() });
            }
            Output::Close { session, .. } => self.acts.push_back(Act::Close(session)),
            Output::Decide { .. } | Output::Replace { .. } | Output::SetLife { .. } | Output::SetLocalOnly { .. } => {
                unreachable!("nobody deletes, withholds or rewrites here")
            }
        }
    }

    fn send(&mut self, link: SessionId, message: &Outgoing) {
        let Some(connection) = self.sessions.get(&link) else { return };
        let mut frame = Vec::new();
        connection.session.encode(self.clock.highest(), message, &mut frame);
        let bytes = frame.len() as u64;
        let mut may_be_lost = false;
        match message {
            Outgoing::Native(NativeMessage::Mesh(body)) => may_be_lost = body[0] >= FIRST_LOSSY_TAG,
            Outgoing::Native(NativeMessage::Collection(_)) => self.tally.round_bytes_out += bytes,
            Outgoing::Sync { .. }
            | Outgoing::Request { .. }
            | Outgoing::DocUnavailable { .. }
            | Outgoing::Ephemeral { .. }
            | Outgoing::RemoteHeads { .. }
            | Outgoing::Native(_)
            | Outgoing::Error { .. } => self.tally.document_bytes_out += bytes,
        }
        self.tally.frames_out += 1;
        self.tally.bytes_out += bytes;
        self.acts.push_back(Act::Frame { link, bytes: Bytes::from(frame), may_be_lost });
    }

    pub(super) fn mesh_input(&mut self, now: Duration, input: overlay::Input) {
        let moment = self.moment(now);
        self.mesh.handle(moment, input);
        self.drain_mesh(now);
    }

    fn drain_mesh(&mut self, now: Duration) {
        while let Some(output) = self.mesh.poll_output() {
            match output {
                MeshOutput::Hub { input, .. } => {
                    if let Input::Noticed { changes, .. } = &input {
                        self.tally.changes_in += changes.len() as u64;
                    }
                    self.hub_input(now, input);
                }
                MeshOutput::Overlay(output) => self.carry_out(now, output),
            }
        }
    }

    fn carry_out(&mut self, now: Duration, output: overlay::Output) {
        match output {
            overlay::Output::Dial(address) => self.acts.push_back(Act::Dial(address)),
            overlay::Output::Send { link, bytes } => self.send(link, &Outgoing::Native(NativeMessage::Mesh(bytes))),
            // Who is served as at any server goes on being served.
            overlay::Output::Close { link, .. } => {
                if !self.sessions.get(&link).is_some_and(|connection| connection.open) {
                    self.acts.push_back(Act::Close(link));
                }
            }
            overlay::Output::Up { link, .. } => self.up(now, link),
            overlay::Output::Down { link, .. } => self.down(now, link),
            overlay::Output::Repair { link } => {
                self.tally.repairs += 1;
                if self.takes_part_in_all() {
                    let set = self.set();
                    self.collection_input(now, collection::Input::Compare { session: link, set, names: true });
                } else {
                    self.greet_all(now, link);
                }
            }
            overlay::Output::Stamp { link, stamp } => self.observe(now, link, stamp),
            overlay::Output::Refused { link, offence } => {
                self.acts.push_back(Act::Refused { link: Some(link), kind: offence.kind() });
            }
            overlay::Output::Deliver { .. } => unreachable!("the membership looks into notices"),
        }
    }

    fn up(&mut self, now: Duration, link: SessionId) {
        let Some(connection) = self.sessions.get_mut(&link) else { return };
        connection.neighbour = true;
        let was_in = connection.open;
        let Some(peer) = connection.peer.clone() else { return };
        if was_in {
            self.leave_hub(now, link);
        }
        self.enter_hub(now, link, PeerInfo { role: Role::Neighbour, access: Access::full(), ..peer });
        if self.takes_part_in_all() {
            let (set, scope) = (self.set(), Scope::Names);
            self.collection_input(now, collection::Input::Allow { session: link, set, scope });
        }
    }

    fn down(&mut self, now: Duration, link: SessionId) {
        self.leave_hub(now, link);
        let Some(connection) = self.sessions.get_mut(&link) else { return };
        connection.neighbour = false;
        if let Some(peer) = connection.peer.clone().filter(|_| connection.open) {
            self.enter_hub(now, link, PeerInfo { access: Access::full(), ..peer });
        }
    }

    pub(super) fn collection_input(&mut self, now: Duration, input: collection::Input) {
        self.collection.handle(self.hub_now(now), input);
        while let Some(output) = self.collection.poll_output() {
            match output {
                collection::Output::Read { set, key, hash_key } => {
                    let mut gathering = Gathering::new(key, hash_key);
                    gathering.add(self.disk.states());
                    let members = Box::new(gathering.finish());
                    self.collection.handle(self.hub_now(now), collection::Input::Read { set, members });
                }
                collection::Output::Send { session, message } => {
                    self.send(session, &Outgoing::Native(NativeMessage::Collection(message)));
                }
                collection::Output::Notify(event) => self.compared(now, event),
                collection::Output::Refused { session, kind, .. } => {
                    self.acts.push_back(Act::Refused { link: Some(session), kind });
                }
            }
        }
    }

    /// A comparison is over: what differs is greeted.
    fn compared(&mut self, now: Duration, event: collection::Event) {
        let collection::Event::Compared { session, report } = event;
        match report.outcome {
            Outcome::Gone => return,
            // It takes part in some documents only, so that it has no such set.
            Outcome::Ended { reason: EndReason::NoSuchSet | EndReason::NotForYou, .. } => {
                return self.greet_all(now, session);
            }
            Outcome::Complete | Outcome::Ended { .. } => {}
        }
        let found = (report.ours.len() + report.theirs.len()) as u64;
        for document in report.ours.into_iter().chain(report.theirs) {
            self.greet(now, session, document);
        }
        self.mesh_input(now, overlay::Input::Repaired { link: session, found });
    }

    /// Speaks of every document in which this replica takes part.
    fn greet_all(&mut self, now: Duration, link: SessionId) {
        let documents: Vec<DocumentId> = self.disk.heads().map(|(document, _)| document.clone()).collect();
        for document in documents {
            if self.takes_part_in(&document) {
                self.greet(now, link, document);
            }
        }
        self.mesh_input(now, overlay::Input::Repaired { link, found: 0 });
    }

    fn greet(&mut self, now: Duration, session: SessionId, document: DocumentId) {
        self.hub_input(now, Input::Initiate { session, document });
    }
}

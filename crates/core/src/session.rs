//! One connection's conversation: handshake, then frames into messages.
//!
//! Owns: who the peer says it is, what may be said in which phase, the rate of ephemeral messages.
//! Must not: touch a socket, know documents. Next: `session/decode.rs`, `hub.rs`; docs/protocol.md §1, §3.

mod decode;
mod entry;
mod flow;
mod roster;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::access::{Access, Denial, Token};
use crate::bucket::Bucket;
use crate::clock::Stamp;
use crate::hub::{Now, Outgoing, PeerInfo, PeerMessage, Role, SyncMessage};
use crate::id::{DocumentId, PeerId, StorageId};
use crate::limits::Limits;
use crate::loader::{InProcess, Loader};
use crate::native::NativeMessage;
use crate::wire::{self, Body, Envelope, PeerMetadata};

pub use decode::{Offence, is_heavy};
pub use flow::Pause;
pub use roster::Roster;

use flow::Flow;

/// The protocol version that automerge-repo peers speak.
const VERSION: &str = "1";

/// How this replica presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPeer {
    /// Its name for this process.
    pub peer: PeerId,
    /// The lasting name of its store.
    pub storage: StorageId,
    /// The newest version of the native extension that it speaks, at most [`native::VERSION`](crate::native::VERSION).
    pub native: u16,
}

/// One connection, from its first frame to its last.
#[derive(Debug)]
pub struct Session {
    local: LocalPeer,
    limits: Limits,
    loader: Arc<dyn Loader>,
    /// Who dialled.
    role: Role,
    phase: Phase,
    /// To whom frames go, and in which version of the native extension: also what is still queued when it is closed.
    addressee: Option<(PeerId, u16)>,
    /// What a peer that dials may do; `None` until it has presented something in its join.
    entrant: Option<Access>,
    ephemeral: Bucket,
    flow: Flow,
}

/// What may be said. The later phase is reached only by value of the earlier one's message.
#[derive(Debug)]
enum Phase {
    /// The peer dialled and has to join.
    ExpectJoin,
    /// We dialled, have joined, and the peer has to answer.
    ExpectPeer,
    /// The peer has joined, and what it may do is being found out.
    Presenting(PeerInfo),
    /// Handshake done.
    Syncing(PeerInfo),
    /// Nothing more is taken.
    Closed,
}

/// What a frame leads to, in order.
#[derive(Debug)]
pub enum Step {
    /// Send this frame.
    Send(Vec<u8>),
    /// The handshake is done: register the peer, then connect it to the hub.
    Joined(PeerInfo),
    /// Find out what the peer may do by this, then call [`Session::admit`].
    Authenticate(Option<Token>),
    /// The peer may do something else than before.
    AccessChanged(Access),
    /// The server has said how long what it permits lasts; the token is to be renewed before that.
    AccessLeft(Option<Duration>),
    /// Send this message.
    Tell(Outgoing),
    /// Hand this to the hub.
    Forward(PeerMessage),
    /// The peer's clock stood here when it sent what follows: ours is to be no earlier.
    Observe(Stamp),
    /// Something was not taken; the connection goes on. Count and log it.
    Refused(Offence),
    /// Close the connection after sending what is queued.
    Close(Offence),
}

impl Session {
    /// A session with a peer that dialled us.
    #[must_use]
    pub fn accept(local: LocalPeer, limits: Limits) -> Self {
        Self::begin(local, limits, (Role::Downstream, Phase::ExpectJoin))
    }

    /// A session with a peer that we dialled, and the join frame to send first.
    #[must_use]
    pub fn dial(local: LocalPeer, limits: Limits) -> (Self, Vec<u8>) {
        let body = Body::Join { metadata: metadata(&local), versions: Some(vec![VERSION]) };
        let mut frame = Vec::new();
        wire::encode(local.peer.as_str(), None, &body, &mut frame);
        (Self::begin(local, limits, (Role::Upstream, Phase::ExpectPeer)), frame)
    }

    /// The same session, with whole documents built by this loader instead of in this process.
    #[must_use]
    pub fn with_loader(self, loader: Arc<dyn Loader>) -> Self {
        Self { loader, ..self }
    }

    /// The same session for a peer of which is known what it may do, or `None` if that is to be found out once it joins.
    #[must_use]
    pub fn for_entrant(self, entrant: Option<Access>) -> Self {
        Self { entrant, ..self }
    }

    /// The peer, once it has joined.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerInfo> {
        match &self.phase {
            Phase::Syncing(peer) => Some(peer),
            Phase::ExpectJoin | Phase::ExpectPeer | Phase::Presenting(_) | Phase::Closed => None,
        }
    }

    /// Largest frame that is acceptable in this phase, bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Syncing(_) => self.limits.message_bytes_max,
            Phase::ExpectJoin | Phase::ExpectPeer | Phase::Presenting(_) | Phase::Closed => {
                self.limits.join_frame_bytes_max
            }
        }
    }

    /// Takes a binary frame in.
    pub fn receive(&mut self, now: Now, frame: &Bytes) -> Vec<Step> {
        if matches!(self.phase, Phase::Closed) {
            return Vec::new();
        }
        let (size, size_max) = (frame.len(), self.frame_bytes_max());
        if size > size_max {
            return self.close(Offence::FrameTooLarge { bytes: size, bytes_max: size_max });
        }
        match wire::decode(frame, &self.limits) {
            Ok(envelope) => self.envelope(now, envelope),
            Err(error) if error.concerns_message_only() => self.refuse(Offence::Wire(error)),
            Err(error) => self.close(Offence::Wire(error)),
        }
    }

    /// Counts a frame of so many bytes that was received, and what came of it. A peer that dialled us and is faster than it
    /// may be is to be read from later.
    pub fn pace(&mut self, now: Now, bytes: usize, steps: &[Step]) -> Option<Pause> {
        let joined_us = self.role == Role::Downstream && self.peer().is_some();
        if joined_us { self.flow.count(now.mono, (bytes, flow::weight(steps)), &self.limits) } else { None }
    }

    /// The bounds are others from here on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.flow.set_limits(&limits);
        self.limits = limits;
        let per_second = f64::from(ephemeral_per_second_max(&self.limits, self.role));
        self.ephemeral.set_rate(per_second, per_second);
    }

    /// Takes a text frame in, which the protocol does not have.
    pub fn receive_text(&mut self) -> Vec<Step> {
        self.close(Offence::TextFrame)
    }

    /// The peer has not joined in time.
    pub fn join_timed_out(&mut self) -> Vec<Step> {
        match self.phase {
            Phase::ExpectJoin | Phase::ExpectPeer | Phase::Presenting(_) => {
                self.close(Offence::JoinTimeout(self.limits.join_timeout))
            }
            Phase::Syncing(_) | Phase::Closed => Vec::new(),
        }
    }

    /// The frame of a message to this peer. `stamp` is our clock's, which goes along where the peer knows what it is.
    pub fn encode(&self, stamp: Stamp, message: &Outgoing, out: &mut Vec<u8>) {
        let target = self.addressee.as_ref().map(|(peer, _)| peer.as_str());
        let local = self.local.peer.as_str();
        match message {
            Outgoing::Sync { document, data } => {
                wire::encode_sync(local, target.unwrap_or_default(), document, data, out);
            }
            Outgoing::Request { document, data } => {
                let body = Body::Request { document: document.clone(), data: data.clone() };
                wire::encode(local, target, &body, out);
            }
            Outgoing::DocUnavailable { document } => {
                wire::encode(local, target, &Body::DocUnavailable { document: document.clone() }, out);
            }
            Outgoing::Ephemeral { document, sender, count, session, data } => {
                let (document, data) = (document.clone(), data.clone());
                let body = Body::Ephemeral { document, count: *count, session, data };
                wire::encode(sender.as_str(), target, &body, out);
            }
            Outgoing::RemoteHeads { document, heads } => {
                let body = Body::RemoteHeadsChanged { document: document.clone(), heads: heads.clone() };
                wire::encode(local, target, &body, out);
            }
            Outgoing::Native(message) => {
                let version = self.addressee.as_ref().map_or(0, |(_, version)| *version);
                wire::encode(local, target, &Body::Native { data: message.encode_for(version, stamp) }, out);
            }
            Outgoing::Error { message } => wire::encode(local, target, &Body::Error { message }, out),
        }
    }

    fn begin(local: LocalPeer, limits: Limits, (role, phase): (Role, Phase)) -> Self {
        let per_second = f64::from(ephemeral_per_second_max(&limits, role));
        let ephemeral = Bucket::new(per_second, per_second);
        let entrant = Some(Access::full());
        let flow = Flow::new(&limits);
        Self { local, limits, loader: Arc::new(InProcess), role, phase, addressee: None, entrant, ephemeral, flow }
    }

    fn envelope(&mut self, now: Now, envelope: Envelope<'_>) -> Vec<Step> {
        match &self.phase {
            Phase::ExpectJoin => self.expect_join(now, envelope),
            Phase::ExpectPeer => self.expect_peer(envelope),
            Phase::Syncing(peer) => {
                let from_peer = envelope.sender == peer.peer.as_str();
                self.syncing(now, envelope, from_peer)
            }
            Phase::Presenting(_) | Phase::Closed => Vec::new(),
        }
    }

    fn expect_join(&mut self, now: Now, envelope: Envelope<'_>) -> Vec<Step> {
        let Body::Join { metadata: theirs, versions } = envelope.message else {
            return self.close(Offence::ExpectedJoin);
        };
        if versions.is_some_and(|versions| !versions.contains(&VERSION)) {
            return self.close(Offence::UnsupportedVersion);
        }
        let Ok(peer) = PeerId::new(envelope.sender) else { return self.close(Offence::BadPeerId) };
        let (entrant, token) = (self.entrant.clone(), theirs.token.clone());
        let access = entrant.clone().unwrap_or_else(Access::none);
        let info = info(peer, &theirs, self.local.native, (self.role, access));
        match entrant {
            Some(access) if access.has_ended(now.wall_ms) => self.close(Offence::Denied(Denial::TokenExpired)),
            Some(_) => self.welcome(now, info),
            None => {
                self.phase = Phase::Presenting(info);
                vec![Step::Authenticate(token)]
            }
        }
    }

    fn expect_peer(&mut self, envelope: Envelope<'_>) -> Vec<Step> {
        let theirs = match envelope.message {
            Body::Peer { metadata, selected_version } if selected_version.is_none_or(|version| version == VERSION) => {
                metadata
            }
            Body::Peer { .. } => return self.close(Offence::UnsupportedVersion),
            Body::Error { message } => return self.close(Offence::PeerError(message.to_owned())),
            Body::Join { .. }
            | Body::Leave
            | Body::Request { .. }
            | Body::Sync { .. }
            | Body::DocUnavailable { .. }
            | Body::Ephemeral { .. }
            | Body::RemoteSubscriptionChange { .. }
            | Body::RemoteHeadsChanged { .. }
            | Body::Native { .. }
            | Body::Unknown { .. } => return self.close(Offence::ExpectedPeer),
        };
        let Ok(peer) = PeerId::new(envelope.sender) else { return self.close(Offence::BadPeerId) };
        let info = info(peer, &theirs, self.local.native, (self.role, Access::full()));
        self.addressee = Some((info.peer.clone(), info.native));
        self.phase = Phase::Syncing(info.clone());
        vec![Step::Joined(info)]
    }

    fn syncing(&mut self, now: Now, envelope: Envelope<'_>, from_peer: bool) -> Vec<Step> {
        let Envelope { sender, message, .. } = envelope;
        match message {
            Body::Ephemeral { document, count, session, data } => {
                let Ok(sender) = PeerId::new(sender) else { return self.refuse(Offence::BadPeerId) };
                if data.len() > self.limits.ephemeral_bytes_max {
                    let (bytes, bytes_max) = (data.len(), self.limits.ephemeral_bytes_max);
                    return self.refuse(Offence::EphemeralTooLarge { bytes, bytes_max });
                }
                if !self.ephemeral.take(now.mono) {
                    let per_second_max = ephemeral_per_second_max(&self.limits, self.role);
                    return self.refuse(Offence::EphemeralRate { per_second_max });
                }
                let session = Arc::from(session);
                vec![Step::Forward(PeerMessage::Ephemeral { document, sender, count, session, data })]
            }
            // A bridge of two networks may relay an ephemeral message in another's name, and nothing else.
            _ if !from_peer => self.refuse(Offence::WrongSender),
            Body::Request { document, data } => self.sync(document, true, data),
            Body::Sync { document, data } => self.sync(document, false, data),
            Body::DocUnavailable { document } => vec![Step::Forward(PeerMessage::DocUnavailable { document })],
            Body::RemoteSubscriptionChange { add, remove } => {
                vec![Step::Forward(PeerMessage::RemoteSubscription { add, remove })]
            }
            Body::RemoteHeadsChanged { document, heads } => {
                vec![Step::Forward(PeerMessage::RemoteHeads { document, heads })]
            }
            Body::Error { message } => vec![Step::Refused(Offence::PeerError(message.to_owned()))],
            Body::Leave => self.close(Offence::Left),
            Body::Join { .. } | Body::Peer { .. } => self.close(Offence::JoinedTwice),
            Body::Native { data } => self.native(data),
            // Other implementations add kinds; they do not need an answer.
            Body::Unknown { .. } => Vec::new(),
        }
    }

    fn sync(&self, document: DocumentId, request: bool, data: Bytes) -> Vec<Step> {
        if self.is_out_of_sight(&document) {
            let message = PeerMessage::Sync(Box::new(SyncMessage::unread(document, request)));
            return vec![Step::Forward(message)];
        }
        let (message, offences) = decode::sync(document, request, data, (&self.limits, &*self.loader));
        let mut steps: Vec<Step> = offences.into_iter().flat_map(|offence| self.refuse(offence)).collect();
        steps.extend(message.map(|message| Step::Forward(PeerMessage::Sync(Box::new(message)))));
        steps
    }

    /// For a peer that has not announced it, the extension does not exist.
    fn native(&self, data: Bytes) -> Vec<Step> {
        let version = self.peer().map_or(0, |peer| peer.native);
        if version == 0 {
            return Vec::new();
        }
        let (data, stamp) = match NativeMessage::split_stamp(version, data) {
            Ok(split) => split,
            Err(error) => return self.refuse(Offence::Native(error)),
        };
        let mut steps: Vec<Step> = stamp.map(Step::Observe).into_iter().collect();
        match NativeMessage::decode(data) {
            // What came up after the version that both speak is not known on this connection.
            Ok(message) => {
                let known = message.filter(|message| message.since() <= version);
                steps.extend(known.into_iter().flat_map(|message| self.native_message(message)));
            }
            Err(error) => steps.extend(self.refuse(Offence::Native(error))),
        }
        steps
    }

    /// Tells the peer what was not taken and goes on.
    pub fn refuse(&self, offence: Offence) -> Vec<Step> {
        let mut frame = Vec::new();
        self.encode(Stamp::ZERO, &Outgoing::Error { message: offence.to_string() }, &mut frame);
        vec![Step::Send(frame), Step::Refused(offence)]
    }

    fn close(&mut self, offence: Offence) -> Vec<Step> {
        let target = self.peer().map(|peer| peer.peer.clone());
        self.phase = Phase::Closed;
        if matches!(offence, Offence::Left) {
            return vec![Step::Close(offence)];
        }
        let message = offence.to_string();
        let mut frame = Vec::new();
        let target = target.as_ref().map(PeerId::as_str);
        wire::encode(self.local.peer.as_str(), target, &Body::Error { message: &message }, &mut frame);
        vec![Step::Send(frame), Step::Close(offence)]
    }
}

fn metadata(local: &LocalPeer) -> PeerMetadata {
    let storage_id = Some(local.storage.clone());
    PeerMetadata { storage_id, is_ephemeral: false, native: Some(local.native), token: None }
}

/// Who dialled us speaks for itself, whom we dialled for everybody who is there.
fn ephemeral_per_second_max(limits: &Limits, role: Role) -> u32 {
    match role {
        Role::Downstream => limits.ephemeral_per_second_max,
        Role::Upstream | Role::Neighbour => limits.ephemeral_relayed_per_second_max,
    }
}

/// The peer as it presents itself. Both speak the older of the two versions of the native extension.
fn info(peer: PeerId, metadata: &PeerMetadata, own: u16, (role, access): (Role, Access)) -> PeerInfo {
    let native = metadata.native.unwrap_or(0).min(own);
    PeerInfo { peer, storage: lasting_storage(metadata), role, native, access }
}

/// The store whose heads are worth remembering: an ephemeral peer's is gone with it.
fn lasting_storage(metadata: &PeerMetadata) -> Option<StorageId> {
    metadata.storage_id.clone().filter(|_| !metadata.is_ephemeral)
}

#[cfg(test)]
mod tests;

//! Who is let in and what they may do, as far as one connection is concerned: presented, renewed, ended.
//!
//! Owns: the steps around a token, what a connection may say without a look at documents. Must not: verify a token.
//! Next: `../session.rs`, `../access.rs`; docs/access.md.

use std::time::Duration;

use super::{Body, Offence, Phase, Session, Step, VERSION, metadata};
use crate::access::{Access, Denial, Permissions, Verdict};
use crate::blob::{BlobMessage, BlobRefusal};
use crate::hub::{Now, Outgoing, PeerInfo, PeerMessage, Role};
use crate::id::DocumentId;
use crate::native::NativeMessage;
use crate::wire;

impl Session {
    /// What the token of [`Step::Authenticate`] permits, or why it permits nothing.
    pub fn admit(&mut self, now: Now, decision: Result<Access, Denial>) -> Vec<Step> {
        // Whoever read the token may count in whole seconds: it is good for no part of one longer.
        let ended = |access: &Access| access.has_ended(now.wall_ms);
        let decision = decision.and_then(|access| if ended(&access) { Err(Denial::TokenExpired) } else { Ok(access) });
        match (std::mem::replace(&mut self.phase, Phase::Closed), decision) {
            (Phase::Presenting(peer), Ok(access)) => self.welcome(now, PeerInfo { access, ..peer }),
            (Phase::Presenting(_), Err(denial)) => self.close(Offence::Denied(denial)),
            (Phase::Syncing(peer), Ok(access)) => {
                let same = peer.access.subject.is_none() || peer.access.subject == access.subject;
                self.phase = Phase::Syncing(peer);
                if same { self.change_access(now, access) } else { self.refuse(Offence::Denied(Denial::TokenSubject)) }
            }
            (Phase::Syncing(peer), Err(denial)) => {
                self.phase = Phase::Syncing(peer);
                self.refuse(Offence::Denied(denial))
            }
            (other, _) => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    /// What the peer may do has ended. From here on it may do what strangers may, if they may do anything.
    pub fn end_access(&mut self, now: Now, denial: Denial, strangers: Option<Access>) -> Vec<Step> {
        match strangers {
            None => self.close(Offence::Denied(denial)),
            Some(access) => {
                let mut steps = self.refuse(Offence::Denied(denial));
                steps.extend(self.change_access(now, access));
                steps
            }
        }
    }

    pub(super) fn welcome(&mut self, now: Now, info: PeerInfo) -> Vec<Step> {
        let body = Body::Peer { metadata: metadata(&self.local), selected_version: Some(VERSION) };
        let mut frame = Vec::new();
        wire::encode(self.local.peer.as_str(), Some(info.peer.as_str()), &body, &mut frame);
        let ends = info.access.until_ms.is_some();
        self.addressee = Some((info.peer.clone(), info.native));
        self.phase = Phase::Syncing(info.clone());
        let mut steps = vec![Step::Send(frame), Step::Joined(info)];
        if ends {
            steps.extend(self.tell_access(now));
        }
        steps
    }

    /// Of a document that may not be read, a message is not even decoded.
    pub(super) fn is_out_of_sight(&self, document: &DocumentId) -> bool {
        let verdict = self.peer().map(|peer| peer.access.verdict(document));
        matches!(verdict, Some(Verdict::Known(may)) if !may.include(Permissions::READ))
    }

    pub(super) fn native_message(&self, message: NativeMessage) -> Vec<Step> {
        let upstream = self.peer().is_some_and(|peer| peer.role == Role::Upstream);
        match message {
            NativeMessage::Token(token) if !upstream => vec![Step::Authenticate(Some(token))],
            NativeMessage::Access { left_ms } if upstream => {
                let left = Step::AccessLeft(left_ms.map(Duration::from_millis));
                vec![left, Step::Forward(PeerMessage::Native(message))]
            }
            NativeMessage::Token(_) | NativeMessage::Access { .. } => Vec::new(),
            NativeMessage::Blob(message) => self.blob_message(message),
            NativeMessage::Life { .. }
            | NativeMessage::Refused { .. }
            | NativeMessage::Account { .. }
            | NativeMessage::Mesh(_)
            | NativeMessage::Collection(_) => {
                vec![Step::Forward(PeerMessage::Native(message))]
            }
        }
    }

    /// A blob belongs to no document: whoever may read some document may read those whose address is known, whoever may
    /// write one may add some.
    fn blob_message(&self, message: BlobMessage) -> Vec<Step> {
        let may = self.peer().map_or(Permissions::NONE, |peer| peer.access.somewhere());
        let (hash, needed) = match &message {
            BlobMessage::Offer { hash, .. } | BlobMessage::Piece { hash, .. } => (*hash, Permissions::WRITE),
            BlobMessage::Want { hash, .. } => (*hash, Permissions::READ),
            BlobMessage::Have { .. } | BlobMessage::Refused { .. } => {
                return vec![Step::Forward(PeerMessage::Native(NativeMessage::Blob(message)))];
            }
        };
        if may.include(needed) {
            return vec![Step::Forward(PeerMessage::Native(NativeMessage::Blob(message)))];
        }
        let offence = Offence::BlobNotPermitted;
        let refused = BlobMessage::Refused { hash, reason: BlobRefusal::Other, words: offence.to_string() };
        let mut steps = vec![Step::Tell(Outgoing::Native(NativeMessage::Blob(refused)))];
        steps.extend(self.refuse(offence));
        steps
    }

    fn change_access(&mut self, now: Now, access: Access) -> Vec<Step> {
        let Phase::Syncing(peer) = &mut self.phase else { return Vec::new() };
        peer.access = access.clone();
        let mut steps = vec![Step::AccessChanged(access)];
        steps.extend(self.tell_access(now));
        steps
    }

    /// Tells a Syncline peer how long it has.
    fn tell_access(&self, now: Now) -> Option<Step> {
        let peer = self.peer()?;
        let left_ms = peer.access.left(now.wall_ms).map(|left| left.as_millis() as u64);
        let message = NativeMessage::Access { left_ms };
        (peer.native >= message.since()).then_some(Step::Tell(Outgoing::Native(message)))
    }
}

//! What a replica does in a mesh: it stands between one overlay and the hubs.
//!
//! Owns: which documents it takes part in, what is announced and when, which notices wait for the disk.
//! Must not: read the store or a clock, know how hubs are sharded.
//! Next: `membership/announce.rs`, `overlay.rs`, syncline-core's `hub/mesh.rs`; docs/protocol.md §11.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use syncline_core::ChangeHash;
use syncline_core::change::Change;
use syncline_core::hub::{Input as HubInput, MeshEvent, NoticeStanding, Source};
use syncline_core::id::{DocumentId, SessionId};
use syncline_core::limits::Limits;

use crate::bucket::Bucket;
use crate::config::Config;
use crate::key::MeshKey;
use crate::message::NoticeId;
use crate::notice::{DocumentNotice, SpokenNotice, Told};
use crate::overlay::{self, Moment, Offence, Overlay};

mod announce;
mod hearsay;

use announce::Announcements;
use hearsay::Hearsay;

/// Notices that wait for the disk or for what they build on.
const PENDING_MAX: usize = 1_024;

/// Words that are not stored, of all applications and peers of a replica, in a second, beyond a burst of twice as many.
const WORDS_PER_SECOND_MAX: u32 = 50;

/// Which documents a replica takes part in.
#[derive(Clone, Default)]
pub enum Participation {
    /// All.
    #[default]
    All,
    /// These.
    Only(BTreeSet<DocumentId>),
    /// Those for which this says so.
    Where(Arc<dyn Fn(&DocumentId) -> bool + Send + Sync>),
}

impl Participation {
    /// Whether it takes part in a document.
    #[must_use]
    pub fn includes(&self, document: &DocumentId) -> bool {
        match self {
            Self::All => true,
            Self::Only(documents) => documents.contains(document),
            Self::Where(rule) => rule(document),
        }
    }
}

impl fmt::Debug for Participation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Only(documents) => f.debug_tuple("Only").field(&documents.len()).finish(),
            Self::Where(_) => f.write_str("Where"),
        }
    }
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Output {
    /// What the overlay wants done, except for what follows from notices.
    Overlay(overlay::Output),
    /// Hand this to the hub that has the document.
    Hub {
        /// The document.
        document: DocumentId,
        /// The input.
        input: HubInput,
    },
}

/// One replica in one mesh. Feed it what the overlay takes and what hubs tell the mesh; then drain it.
#[derive(Debug)]
pub struct Membership {
    overlay: Overlay,
    limits: Limits,
    participation: Participation,
    /// Notices that hubs were asked about.
    pending: BTreeMap<u64, Pending>,
    /// Those of them whose content is being fetched.
    fetching: BTreeMap<DocumentId, BTreeSet<u64>>,
    next_ticket: u64,
    announcements: Announcements,
    hearsay: Hearsay,
    hearsay_wait: Duration,
    /// How much may be said.
    words: Bucket,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Pending {
    id: NoticeId,
    link: SessionId,
    document: DocumentId,
    heads: Vec<ChangeHash>,
}

impl Membership {
    /// A member that knows nobody yet. The seed must not be predictable.
    #[must_use]
    pub fn new(config: Config, key: MeshKey, limits: Limits, participation: Participation, seed: [u8; 32]) -> Self {
        Self {
            hearsay: Hearsay::default(),
            hearsay_wait: config.hearsay_wait,
            overlay: Overlay::new(config, key, seed),
            limits,
            participation,
            pending: BTreeMap::new(),
            fetching: BTreeMap::new(),
            next_ticket: 0,
            announcements: Announcements::default(),
            words: Bucket::new(WORDS_PER_SECOND_MAX, Duration::ZERO),
            outputs: VecDeque::new(),
        }
    }

    /// The overlay, to look at.
    #[must_use]
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Notices that wait for the disk or for what they tell.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Whether this replica takes part in a document.
    #[must_use]
    pub fn takes_part_in(&self, document: &DocumentId) -> bool {
        self.participation.includes(document)
    }

    /// Takes in what the overlay takes.
    pub fn handle(&mut self, now: Moment, input: overlay::Input) {
        self.announce_what_is_due(now);
        self.overlay.handle(now, input);
        self.drain(now);
    }

    /// Takes in what a hub tells the mesh.
    pub fn hear(&mut self, now: Moment, event: MeshEvent) {
        match event {
            MeshEvent::Durable { document, changes, heads, source } => {
                self.note_durable(now, document, changes, heads, source);
            }
            MeshEvent::Spoken { document, sender, count, session, data } => {
                self.speak(now, &SpokenNotice { document, sender, session, count, data });
            }
            MeshEvent::Noticed { ticket, standing } => self.note_standing(now, ticket, standing),
        }
        self.announce_what_is_due(now);
        self.drain(now);
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When an input of the kind [`overlay::Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let own = self.announcements.due().into_iter().chain(self.hearsay.due());
        self.overlay.poll_timeout().into_iter().chain(own).min()
    }

    fn drain(&mut self, now: Moment) {
        while let Some(output) = self.overlay.poll_output() {
            match output {
                overlay::Output::Deliver { id, link, body } => self.delivered(now, id, link, body),
                overlay::Output::Dial(_)
                | overlay::Output::Send { .. }
                | overlay::Output::Close { .. }
                | overlay::Output::Up { .. }
                | overlay::Output::Down { .. }
                | overlay::Output::Repair { .. }
                | overlay::Output::Stamp { .. }
                | overlay::Output::Refused { .. } => self.outputs.push_back(Output::Overlay(output)),
            }
        }
    }

    /// A notice has come. Those of documents in which this replica has no part go on as they are.
    fn delivered(&mut self, now: Moment, id: NoticeId, link: SessionId, body: Bytes) {
        let notice = match Told::decode(body) {
            Ok(Told::Document(notice)) if self.takes_part_in(&notice.document) => notice,
            Ok(Told::Spoken(spoken)) => {
                self.overlay.handle(now, overlay::Input::PassOn(id));
                return self.heard(spoken);
            }
            // Of what it has no part in it checks what its neighbours will: nobody is put out for what others made.
            Ok(Told::Document(notice)) if self.read(&notice.changes).is_none() => {
                return self.refuse(now, id, link, Offence::BadChange);
            }
            Ok(Told::Document(_) | Told::Unknown) => return self.overlay.handle(now, overlay::Input::Accept(id)),
            Err(error) => return self.refuse(now, id, link, Offence::Malformed(error)),
        };
        let DocumentNotice { stamp, document, heads, changes } = notice;
        self.outputs.push_back(Output::Overlay(overlay::Output::Stamp { link, stamp }));
        self.hearsay.note_told(&document, &heads);
        let Some(changes) = self.read(&changes) else {
            return self.refuse(now, id, link, Offence::BadChange);
        };
        while self.pending.len() >= PENDING_MAX {
            self.forget_oldest(now);
        }
        self.ask(Pending { id, link, document, heads }, changes);
    }

    fn read(&self, changes: &[Bytes]) -> Option<Vec<Change>> {
        changes.iter().map(|bytes| Change::decode(bytes.clone(), &self.limits).ok()).collect()
    }

    /// Words have come: for those who are at the document here.
    fn heard(&mut self, spoken: SpokenNotice) {
        let SpokenNotice { document, sender, session, count, data } = spoken;
        if self.takes_part_in(&document) {
            let input = HubInput::Heard { document: document.clone(), sender, count, session, data };
            self.outputs.push_back(Output::Hub { document, input });
        }
    }

    /// Somebody here says something: all members hear it, once, or do not.
    fn speak(&mut self, now: Moment, spoken: &SpokenNotice) {
        if !self.takes_part_in(&spoken.document) || !self.words.take(now.mono) {
            return;
        }
        if let Some(body) = spoken.encode() {
            self.overlay.handle(now, overlay::Input::Speak(body));
        }
    }

    fn refuse(&mut self, now: Moment, id: NoticeId, link: SessionId, offence: Offence) {
        self.overlay.handle(now, overlay::Input::Discard(id));
        self.overlay.handle(now, overlay::Input::Offend { link, offence });
    }

    fn forget_oldest(&mut self, now: Moment) {
        if let Some((ticket, oldest)) = self.pending.pop_first() {
            self.end_fetch(&oldest.document, ticket);
            self.overlay.handle(now, overlay::Input::Discard(oldest.id));
        }
    }

    fn ask(&mut self, pending: Pending, changes: Vec<Change>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (session, document, heads) = (pending.link, pending.document.clone(), pending.heads.clone());
        self.pending.insert(ticket, pending);
        let input = HubInput::Noticed { session, document: document.clone(), changes, heads, ticket };
        self.outputs.push_back(Output::Hub { document, input });
    }

    fn note_standing(&mut self, now: Moment, ticket: u64, standing: NoticeStanding) {
        let Some(pending) = self.pending.get(&ticket) else { return };
        let (id, link, document) = (pending.id, pending.link, pending.document.clone());
        if standing == NoticeStanding::Missing {
            self.fetching.entry(document.clone()).or_default().insert(ticket);
            let input = HubInput::Initiate { session: link, document: document.clone() };
            return self.outputs.push_back(Output::Hub { document, input });
        }
        self.pending.remove(&ticket);
        self.end_fetch(&document, ticket);
        let refused = standing == NoticeStanding::Refused;
        self.overlay.handle(now, if refused { overlay::Input::Discard(id) } else { overlay::Input::Accept(id) });
    }

    fn end_fetch(&mut self, document: &DocumentId, ticket: u64) {
        if let Some(tickets) = self.fetching.get_mut(document) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.fetching.remove(document);
            }
        }
    }

    /// Something has become durable: notices may have waited for it, and others may not know of it.
    fn note_durable(
        &mut self,
        now: Moment,
        document: DocumentId,
        changes: Vec<Bytes>,
        heads: Vec<ChangeHash>,
        source: Source,
    ) {
        if !self.takes_part_in(&document) {
            return;
        }
        let waiting = self.fetching.remove(&document).unwrap_or_default();
        let told_of = !waiting.is_empty();
        for pending in waiting.into_iter().filter_map(|ticket| self.pending.remove(&ticket)).collect::<Vec<_>>() {
            self.ask(pending, Vec::new());
        }
        match source {
            Source::Neighbour(_) if !told_of => {
                let due = now.mono + self.overlay.around(self.hearsay_wait);
                self.hearsay.add(document, heads, due);
            }
            Source::Notice | Source::Neighbour(_) => self.hearsay.note_heads(document, heads),
            Source::Outside => {
                self.hearsay.forget(&document);
                self.announcements.add(document, changes, heads);
            }
        }
    }

    fn announce_what_is_due(&mut self, now: Moment) {
        while let Some((document, heads)) = self.hearsay.next(now.mono) {
            self.announcements.add(document, Vec::new(), heads);
        }
        while let Some((document, heads, changes)) = self.announcements.next(now.mono) {
            let notice = DocumentNotice { stamp: now.stamp, document, heads, changes };
            self.hearsay.note_told(&notice.document, &notice.heads);
            self.overlay.handle(now, overlay::Input::Publish(notice.encode()));
        }
    }
}

#[cfg(test)]
mod tests;

//! A round with somebody who has many times what is here, or the reverse: one side lists its elements, the other says which
//! it has not.
//!
//! Owns: both sides of that, page by page. Must not: be begun where ranges and sketches cost less.
//! Next: `ask.rs`, `answer.rs`; docs/protocol.md §9, "Rounds".

use std::collections::BTreeSet;

use bytes::Bytes;

use super::answer::Answering;
use super::ask::Asking;
use super::message::NAMES_MAX;
use super::{Collection, CollectionMessage, EndReason};
use crate::hub::Now;
use crate::id::SessionId;
use crate::reconcile::{Element, Listed};

/// Most elements of a side that lists them: above, what is open or was changed is spoken of instead.
pub(super) const LISTED_MAX: u64 = 10_240;

/// How far a side has listed its elements.
#[derive(Debug)]
pub(super) struct Listing {
    /// Those of the page under way. The last of them is where the next page begins.
    page: Vec<Element>,
}

impl Collection {
    /// The responder wants a list. What was found before is found again.
    pub(super) fn list(&mut self, now: Now, session: SessionId, mut asking: Box<Asking>) {
        asking.initiator = None;
        asking.listing = Some(Listing { page: Vec::new() });
        self.list_more(now, session, asking);
    }

    fn list_more(&mut self, now: Now, session: SessionId, mut asking: Box<Asking>) {
        let (Some(listing), Some(members)) = (&mut asking.listing, self.members(asking.report.set)) else { return };
        listing.page = members.elements().page(listing.page.last(), NAMES_MAX);
        let elements: Vec<Listed> = listing.page.iter().map(Listed::from).collect();
        if elements.is_empty() {
            return self.complete(now, session, asking);
        }
        let message = CollectionMessage::Listed { round: asking.round, elements };
        self.ask(now, session, asking, message);
    }

    /// Which of a page the responder has not.
    pub(super) fn told_lacking(&mut self, now: Now, session: SessionId, round: u32, lacking: &Bytes) {
        let Some(mut asking) = self.taken_if_under_way(session, round) else { return };
        asking.report.bytes_received += lacking.len() as u64;
        let page = asking.listing.as_ref().map_or(&[][..], |listing| &listing.page);
        if page.is_empty() || lacking.len() != page.len().div_ceil(8) {
            return self.stop(
                now,
                session,
                asking,
                (EndReason::Broken, "what was listed is answered with another length"),
            );
        }
        let is_lacking = |at: usize| lacking[at / 8] & 0x80 >> (at % 8) != 0;
        let lacks: BTreeSet<Element> =
            page.iter().enumerate().filter(|(at, _)| is_lacking(*at)).map(|(_, element)| *element).collect();
        let members = self.members(asking.report.set);
        let documents = members.iter().flat_map(|members| lacks.iter().filter_map(|lack| members.document_of(lack)));
        asking.ours.extend(documents);
        self.list_more(now, session, asking);
    }

    /// An initiator that was told to lists what it has.
    pub(super) fn listed(&mut self, now: Now, session: SessionId, round: u32, elements: &[Listed]) {
        let Some(mut answering) = self.expected(session, round) else { return };
        if !answering.lists || elements.is_empty() || elements.len() > NAMES_MAX {
            return self.decline(session, round, EndReason::Broken, "elements were listed that were not asked for");
        }
        answering.listed += elements.len() as u64;
        if answering.listed > 2 * LISTED_MAX || self.is_too_much(&mut answering, size_of_val(elements)) {
            return self.decline(session, round, EndReason::Limit, "the list goes on for too long");
        }
        let Some(members) = self.members(answering.set) else { return };
        let mut lacking = vec![0; elements.len().div_ceil(8)];
        for (at, listed) in elements.iter().enumerate() {
            if !members.elements().has_listed(listed) {
                lacking[at / 8] |= 0x80 >> (at % 8);
            }
        }
        self.keep_answering(now, session, answering);
        self.send(session, CollectionMessage::Lacking { round, lacking: lacking.into() });
    }

    /// Holds a round that goes on with a list.
    pub(super) fn expect_list(&mut self, now: Now, session: SessionId, mut answering: Box<Answering>) {
        answering.lists = true;
        self.keep_answering(now, session, answering);
    }
}

//! The application of a machine that dials another: documents, and what is not saved of them.
//!
//! Owns: local changes on their way to the hub, with the journal that the client crate ships.
//! Must not: touch the hub: it says what is to be handed over. Next: `world/local.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::change::Change;
use syncline_core::limits::Limits;

use crate::content::Content;
use crate::journal::Journal;
use crate::reverse::Aliases;
use crate::scenario::Tier;

/// Changes to be handed to the hub under one ticket.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub(crate) ticket: u64,
    pub(crate) changes: Vec<Change>,
}

/// The documents of one machine's application.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) documents: Vec<Open>,
    next_ticket: u64,
}

/// One open document.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) content: Content,
    pub(crate) journal: Journal,
    /// World time at which failed changes are handed over again.
    pub(crate) retry_at_ms: Option<u64>,
    /// Heads of this application's own changes that were called saved.
    pub(crate) saved: BTreeSet<ChangeHash>,
    /// Changes that can be undone, oldest first, and under which ids things came back.
    pub(crate) undoable: Vec<ChangeHash>,
    pub(crate) aliases: Aliases,
    /// The application knows that the document is deleted, and does not write to it.
    pub(crate) deleted: bool,
    handed_over: BTreeMap<u64, Vec<ChangeHash>>,
}

impl App {
    /// Opens documents with these changes, under an actor that was never used.
    pub(crate) fn open(tier: Tier, actor: &[u8], stored: Vec<Vec<Bytes>>) -> Result<Self, String> {
        let open = |changes: Vec<Bytes>| {
            let mut content = Content::new(tier, actor);
            content.apply(&changes)?;
            let (journal, handed_over) = (Journal::default(), BTreeMap::new());
            Ok(Open {
                content,
                journal,
                retry_at_ms: None,
                saved: BTreeSet::new(),
                undoable: Vec::new(),
                aliases: Aliases::default(),
                deleted: false,
                handed_over,
            })
        };
        Ok(Self { documents: stored.into_iter().map(open).collect::<Result<_, String>>()?, next_ticket: 1 })
    }

    /// Takes a change that was made here.
    pub(crate) fn wrote(&mut self, document: usize, bytes: Bytes) -> Result<Option<HandOver>, String> {
        let change = Change::decode(bytes, &Limits::default()).map_err(|error| error.to_string())?;
        Ok(self.hand_over(document, |journal, hand_over| journal.extend([change], hand_over)))
    }

    pub(crate) fn hand_over_again(&mut self, document: usize) -> Option<HandOver> {
        self.documents[document].retry_at_ms = None;
        self.hand_over(document, |journal, hand_over| journal.hand_over_again(hand_over))
    }

    /// The hub calls a ticket saved. Returns the changes that it stands for, and what is to be handed over next.
    pub(crate) fn saved(&mut self, document: usize, ticket: u64) -> (Vec<ChangeHash>, Option<HandOver>) {
        let next = self.hand_over(document, |journal, hand_over| journal.saved(ticket, hand_over));
        let open = &mut self.documents[document];
        let saved = open.handed_over.get(&ticket).cloned().unwrap_or_default();
        open.saved.extend(saved.iter().copied());
        (saved, next)
    }

    fn hand_over(
        &mut self,
        document: usize,
        act: impl FnOnce(&mut Journal, &mut dyn FnMut(Vec<Change>) -> u64),
    ) -> Option<HandOver> {
        let Self { documents, next_ticket } = self;
        let Open { journal, handed_over, .. } = &mut documents[document];
        let mut handed = None;
        act(journal, &mut |changes| {
            let ticket = *next_ticket;
            *next_ticket += 1;
            handed_over.insert(ticket, changes.iter().map(|change| change.hash).collect());
            handed = Some(HandOver { ticket, changes });
            ticket
        });
        handed
    }
}

impl Open {
    pub(crate) fn not_saved(&mut self, ticket: u64, reason: &str, now_ms: u64) {
        if let Some(wait) = self.journal.not_saved(ticket, reason) {
            self.retry_at_ms = Some(now_ms + wait.max(Duration::from_millis(1)).as_millis() as u64);
        }
    }
}

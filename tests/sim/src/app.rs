//! The application of a machine that dials another: documents, and what is not saved of them.
//!
//! Owns: local changes on their way to the hub, with the journal that the client crate ships.
//! Must not: touch the hub: it says what is to be handed over. Next: `world/local.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::change::Change;
use syncline_core::limits::Limits;

use crate::content::Content;
use crate::journal::Journal;
use crate::reverse::Aliases;
use crate::scenario::Tier;

/// Changes to be handed to the hub, each with its ticket.
pub(crate) type HandOver = Vec<(u64, Change)>;

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
    handed_over: Vec<(u64, ChangeHash)>,
}

impl App {
    /// Opens documents with these changes, under an actor that was never used.
    pub(crate) fn open(tier: Tier, actor: &[u8], stored: Vec<Vec<Bytes>>) -> Result<Self, String> {
        let open = |changes: Vec<Bytes>| {
            let mut content = Content::new(tier, actor);
            content.apply(&changes)?;
            let (journal, handed_over) = (Journal::default(), Vec::new());
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
    pub(crate) fn wrote(&mut self, document: usize, bytes: Bytes) -> Result<HandOver, String> {
        let change = Change::decode(bytes, &Limits::default()).map_err(|error| error.to_string())?;
        let Self { documents, next_ticket } = self;
        let open = &mut documents[document];
        let mut handed = Vec::new();
        let mut hand_over = |change| hand_over(next_ticket, &mut handed, change);
        open.journal.push(change, &mut hand_over);
        open.note(&handed);
        Ok(handed)
    }

    pub(crate) fn hand_over_again(&mut self, document: usize) -> HandOver {
        let Self { documents, next_ticket } = self;
        let open = &mut documents[document];
        open.retry_at_ms = None;
        let mut handed = Vec::new();
        open.journal.hand_over_again(|change| hand_over(next_ticket, &mut handed, change));
        open.note(&handed);
        handed
    }
}

impl Open {
    fn note(&mut self, handed: &HandOver) {
        self.handed_over.extend(handed.iter().map(|(ticket, change)| (*ticket, change.hash)));
    }

    /// The hub calls a ticket saved. Returns the change.
    pub(crate) fn saved(&mut self, ticket: u64) -> Option<ChangeHash> {
        self.journal.saved(ticket);
        let hash = self.handed_over.iter().find(|(handed, _)| *handed == ticket).map(|(_, hash)| *hash);
        self.saved.extend(hash);
        hash
    }

    pub(crate) fn not_saved(&mut self, ticket: u64, reason: &str, now_ms: u64) {
        if let Some(wait) = self.journal.not_saved(ticket, reason) {
            self.retry_at_ms = Some(now_ms + wait.max(Duration::from_millis(1)).as_millis() as u64);
        }
    }
}

fn hand_over(next_ticket: &mut u64, handed: &mut HandOver, change: Change) -> u64 {
    let ticket = *next_ticket;
    *next_ticket += 1;
    handed.push((ticket, change));
    ticket
}

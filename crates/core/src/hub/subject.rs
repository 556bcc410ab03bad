//! Whose changes are: the actors that a subject writes as, and the bytes that it has stored.
//!
//! Owns: what is known of that at a document, what one commit brings of whom. Must not: decide who a peer is.
//! Next: `ingest.rs`, `../subject.rs`; docs/access.md, "Actors", docs/server.md, "What a subject stores".
//!
//! Who passes on what others wrote - another server, a member of the mesh, an administrator - has no changes of its own here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::document::{Document, Item, Persisting};
use super::{Hub, Load, Now, Remark, Role};
use crate::access::Permissions;
use crate::change::{Actor, Change};
use crate::id::{DocumentId, SessionId};
use crate::limits::Limits;
use crate::subject::{Account, Contribution, Owner};

/// What is known at a document of those who write it.
#[derive(Debug, Default)]
pub(super) struct Standings {
    owners: BTreeMap<Actor, Owner>,
    accounts: BTreeMap<Arc<str>, Account>,
}

/// Changes on their way into a commit.
#[derive(Debug)]
pub(super) struct Intake<'a> {
    standings: Option<Box<Standings>>,
    limits: &'a Limits,
    contributions: BTreeMap<Arc<str>, Contribution>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(standings: Option<Box<Standings>>, limits: &'a Limits) -> Self {
        Self { standings, limits, contributions: BTreeMap::new() }
    }

    /// Whether a change may be taken from whoever brings it. If so, its actor and its bytes are the author's.
    pub(super) fn admit(&mut self, author: Option<&Arc<str>>, change: &Change) -> Result<(), Remark> {
        let (Some(author), Some(standings)) = (author, &self.standings) else { return Ok(()) };
        let bytes = change.bytes.len() as u64;
        let account = standings.accounts.get(author);
        if let (Some(max), Some(account)) = (self.limits.subject_bytes_max, account)
            && !account.take(bytes, max)
        {
            return Err(Remark::SubjectFull { max });
        }
        if standings.owners.get(&change.actor).is_none_or(|owner| owner.claim(author)) {
            self.note(author, change);
            return Ok(());
        }
        if self.limits.subject_bytes_max.is_some() {
            account.into_iter().for_each(|account| account.give_back(bytes));
        }
        Err(Remark::ForeignActor { hash: change.hash, actor: change.actor.clone() })
    }

    fn note(&mut self, author: &Arc<str>, change: &Change) {
        let Some(standings) = &self.standings else { return };
        let counted = self.limits.subject_bytes_max.is_some() && standings.accounts.contains_key(author);
        let fresh = standings.owners.get(&change.actor).is_some_and(|owner| !owner.is_stored());
        if !counted && !fresh {
            return;
        }
        let begun = || Contribution { subject: Arc::clone(author), actors: Vec::new(), bytes: 0 };
        let contribution = self.contributions.entry(Arc::clone(author)).or_insert_with(begun);
        contribution.bytes += if counted { change.bytes.len() as u64 } else { 0 };
        if fresh && !contribution.actors.contains(&change.actor) {
            contribution.actors.push(change.actor.clone());
        }
    }

    pub(super) fn end(self) -> (Option<Box<Standings>>, Vec<Contribution>) {
        (self.standings, self.contributions.into_values().collect())
    }
}

impl Hub {
    /// Whose what a peer brings is, if that is kept and its own.
    pub(super) fn author_of(&self, session: SessionId) -> Option<Arc<str>> {
        if !self.limits.bind_actors && self.limits.subject_bytes_max.is_none() {
            return None;
        }
        let peer = &self.sessions.get(&session)?.peer;
        if peer.role == Role::Downstream { peer.access.author() } else { None }
    }

    /// What has to be known before the first item of a document's inbox can be handled.
    pub(super) fn owners_needed(&self, key: u32) -> Option<Load> {
        let document = self.documents.get(key as usize)?.as_ref()?;
        document.needs_owners_for(document.inbox.front()?, &self.limits)
    }

    /// The store says whose actors are, and what a subject has.
    pub(super) fn owners_loaded(
        &mut self,
        key: u32,
        owners: Vec<(Actor, Owner)>,
        account: Option<(Arc<str>, Account)>,
    ) {
        let Some(document) = self.document(key) else { return };
        document.loading = None;
        let standings = document.standings.get_or_insert_default();
        standings.owners.extend(owners);
        standings.accounts.extend(account);
    }

    /// The bounds are others from here on. Who brought something in vain brings it again: it may be within them.
    pub(super) fn limits_changed(&mut self, now: Now, limits: Limits) {
        // Who has written what was not kept before, so that nobody can be told from another.
        let bind_actors = self.limits.bind_actors;
        self.limits = Limits { bind_actors, ..limits };
        let per_second = f64::from(self.limits.ephemeral_per_second_max);
        for bucket in self.upstreams.values_mut() {
            bucket.set_rate(per_second, per_second);
        }
        self.offer_all_anew(now);
    }
}

impl Document {
    /// What has to be known of the authors before this item can be handled.
    pub(super) fn needs_owners_for(&self, item: &Item, limits: &Limits) -> Option<Load> {
        if !limits.bind_actors && limits.subject_bytes_max.is_none() {
            return None;
        }
        let (author, changes) = match item {
            Item::Message { message, permit, .. } if permit.may.include(Permissions::WRITE) => {
                (permit.author.as_ref()?, &message.changes)
            }
            Item::Local { changes, author, .. } => (author.as_ref()?, changes),
            Item::Message { .. }
            | Item::Watch
            | Item::Noticed(_)
            | Item::Initiate { .. }
            | Item::SetLife { .. }
            | Item::Expire { .. }
            | Item::SetLocalOnly { .. }
            | Item::Life { .. }
            | Item::Account { .. }
            | Item::Replace { .. } => return None,
        };
        if changes.is_empty() || self.is_withheld() {
            return None;
        }
        let standings = self.standings.as_deref();
        let is_new = |change: &&Change| self.graph.as_ref().is_none_or(|graph| graph.find(&change.hash).is_none());
        let unknown = |actor: &Actor| standings.is_none_or(|standings| !standings.owners.contains_key(actor));
        let of_new = changes.iter().filter(|_| limits.bind_actors).filter(is_new).map(|change| &change.actor);
        let actors: BTreeSet<Actor> = of_new.filter(|actor| unknown(actor)).cloned().collect();
        let counted = standings.is_some_and(|standings| standings.accounts.contains_key(author));
        let subject = (limits.subject_bytes_max.is_some() && !counted).then(|| Arc::clone(author));
        let needed = !actors.is_empty() || subject.is_some();
        needed.then(|| Load::Owners { actors: actors.into_iter().collect(), subject })
    }

    /// A commit is durable, and with it whose its actors are.
    pub(super) fn note_stored(&mut self, contributions: &[Contribution]) {
        let Some(standings) = &self.standings else { return };
        let actors = contributions.iter().flat_map(|contribution| &contribution.actors);
        actors.filter_map(|actor| standings.owners.get(actor)).for_each(Owner::mark_stored);
    }

    /// Nothing of these commits is stored.
    pub(super) fn give_back(&mut self, failed: &[Persisting]) {
        let Some(standings) = &self.standings else { return };
        for contribution in failed.iter().flat_map(|persisting| &persisting.contributions) {
            if let Some(account) = standings.accounts.get(&contribution.subject) {
                account.give_back(contribution.bytes);
            }
        }
    }
}

/// What a message or a call comes with.
#[derive(Debug, Default)]
pub(super) struct Permit {
    /// What its sender may do.
    pub(super) may: Permissions,
    /// Whose its changes are, if that is kept.
    pub(super) author: Option<Arc<str>>,
}

impl Permit {
    /// One that permits to be heard, and nothing else.
    pub(super) fn to_read() -> Self {
        Self { may: Permissions::READ, author: None }
    }
}

/// Why a document that was to be let go of is kept.
pub(super) fn in_use(document: &DocumentId) -> String {
    format!("document {document} is in use, or has changed")
}

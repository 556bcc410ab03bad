//! Agreement on one document with one peer, in automerge's sync messages, from the change graph alone.
//!
//! Owns: what the peer has, what it asked for, what it was told last. Must not: build a document, know sockets, store.
//! Next: `sync/account.rs`, `graph/difference.rs`, `hub.rs`; docs/protocol.md §4.
//!
//! automerge keeps, per peer, the set of hashes already sent and two Bloom filters. Here one [`Frontier`] stands for
//! all of it: the transport is ordered and reliable, so what was sent counts as had until the peer says otherwise.

mod account;
pub mod bloom;
pub mod message;

use std::time::Duration;

use bytes::Bytes;

use crate::ChangeHash;
use crate::graph::{Frontier, Graph, Orphans};
use crate::limits::Limits;
use account::Accounting;
use bloom::Bloom;
use message::{Flags, Have, Message, Version};

pub use account::{Account, HASHES_MAX};

/// How long a peer that has not acknowledged the last changes waits for the next ones. Doubles with each message that
/// is sent without an acknowledgement, so a slow peer gets fewer and larger messages.
const UNCONFIRMED_WAIT: Duration = Duration::from_millis(20);

/// The longest such wait.
const UNCONFIRMED_WAIT_MAX: Duration = Duration::from_secs(2);

/// Refused changes remembered per peer and document, so that they are not asked for again.
const REFUSED_MAX: usize = 64;

/// Changes sent because the peer asked for them, remembered per peer and document, so that none is sent for each time
/// that the peer asks while the answer is on its way.
const ANSWERED_MAX: usize = 1024;

/// The durable state of a document, as far as it is in memory.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Heads of the durable changes, sorted.
    pub heads: &'a [ChangeHash],
    /// Number of durable changes.
    pub durable: u32,
    /// The graph, if loaded.
    pub graph: Option<&'a Graph>,
}

/// What a sync message says beside its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The sender's heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// Changes that the sender asks for.
    pub need: Vec<ChangeHash>,
    /// What the sender has, by its own words.
    pub have: Vec<Have>,
    /// Absent from peers that know only version 1.
    pub flags: Option<Flags>,
    /// Whether changes came with it: they want an acknowledgement.
    pub with_changes: bool,
}

/// Sync state of one document with one peer, for the lifetime of their connection.
#[derive(Debug, Clone, Default)]
pub struct PeerSync {
    /// What the peer has, or has been sent.
    frontier: Frontier,
    /// Heads that the peer announced and that are not durable here.
    unknown_heads: Vec<ChangeHash>,
    /// Heads that the peer announced and that are durable here: exact, whatever a Bloom filter said.
    known_heads: Vec<ChangeHash>,
    /// The peer's own account of what it has; kept only while it has heads unknown here.
    have: Vec<Have>,
    /// Changes that the peer asked for by hash.
    wants: Vec<ChangeHash>,
    /// Changes that it asked for and was sent.
    answered: Vec<ChangeHash>,
    /// Changes of this peer that were refused.
    refused: Vec<ChangeHash>,
    /// What was said last: number of durable changes, and what was asked for.
    told: Option<Told>,
    /// Messages with changes that the peer's heads do not yet include.
    unconfirmed: u32,
    /// When the last of them was sent.
    unconfirmed_since: Duration,
    heard: bool,
    reply_due: bool,
    /// The peer did not know the heads that we took it to have: name only heads that it announced itself.
    exact: bool,
    /// The peer counts on changes as common to both that are not here.
    counts_on_unknown: bool,
    /// It was told so. A stock peer may go on counting on what itself has lost: from then on its heads and needs count.
    reset_told: bool,
    supports_v2: bool,
    /// It has spoken as one that does not know what it is to begin anew.
    lacks_reset: bool,
    read_only: bool,
    /// The next message has the peer begin the conversation anew too.
    asks_anew: bool,
    /// The peer may not write: nothing is asked of it.
    asks_nothing: bool,
    /// It gives accounts of what it has by hash: see `account.rs`.
    natively: bool,
    accounting: Accounting,
    /// It is told what is here and sent what it lacks; what it has beyond is not wanted.
    offers_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    length: u32,
    need: Vec<ChangeHash>,
}

/// What is to be sent to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the peer knows all it can.
    Nothing,
    /// Something, but not before this time.
    Wait(Duration),
    /// The graph is needed to tell.
    LoadGraph,
    /// The whole document, from the store.
    Payload,
    /// Raw changes that only the store's snapshot has.
    StoredChanges(Vec<ChangeHash>),
    /// These nodes and this frame around them.
    Send(Draft),
    /// An account of what is here, by hash.
    Account,
    /// Our heads alone: the peer counts on changes that are not here, and is to say anew what it has.
    Reset,
}

/// A message whose changes are still node indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Nodes to send, in journal order.
    pub nodes: Vec<u32>,
    /// Changes asked for.
    pub need: Vec<ChangeHash>,
    /// Account of what is had here.
    pub have: Vec<Have>,
    /// The same bytes serve every peer for which this is equal: the peer lacks exactly the changes from here on.
    pub shared_from: Option<u32>,
    /// The peer is to send no changes.
    pub read_only: bool,
    /// The peer is to forget what it has said and heard.
    pub anew: Option<Anew>,
}

/// How a peer is brought to begin a conversation anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anew {
    /// It understands the flag for that.
    ByFlag,
    /// It does not, but begins anew with whoever has nothing.
    ByNoHeads,
}

impl Draft {
    /// Without changes, and nothing asked for.
    #[must_use]
    pub fn with_have(have: Vec<Have>) -> Self {
        Self { nodes: Vec::new(), need: Vec::new(), have, shared_from: None, read_only: false, anew: None }
    }
}

impl PeerSync {
    /// The state towards a peer that will be written to first, before it has said anything.
    #[must_use]
    pub fn initiate() -> Self {
        Self { reply_due: true, ..Self::default() }
    }

    /// The state towards a peer that is to get what it lacks, and from which nothing is wanted.
    #[must_use]
    pub fn offer() -> Self {
        Self { offers_only: true, ..Self::initiate() }
    }

    /// The state in which a conversation for the same purpose begins again, on both sides: what was sent and not taken, by
    /// either, counts as not sent.
    #[must_use]
    pub fn anew(&self) -> Self {
        let begun = if self.offers_only { Self::offer() } else { Self::initiate() };
        Self { asks_anew: true, supports_v2: self.supports_v2, lacks_reset: self.lacks_reset, ..begun }
    }

    /// Whether nothing is wanted from the peer.
    #[must_use]
    pub fn offers_only(&self) -> bool {
        self.offers_only
    }

    /// Whether `statement` can be taken in without the graph.
    #[must_use]
    pub fn is_light(statement: &Statement, view: View<'_>) -> bool {
        statement.need.is_empty() && (statement.heads.is_empty() || statement.heads == view.heads)
    }

    /// Takes in what the peer says. Its changes, if any, must already be durable or refused.
    pub fn receive(&mut self, view: View<'_>, statement: Statement) {
        if let Some(flags) = &statement.flags {
            self.supports_v2 = true;
            self.read_only = flags.read_only;
            if flags.reset {
                self.begin_again();
            }
        }
        self.lacks_reset = !statement.flags.as_ref().is_some_and(|flags| flags.supports_reset);
        // Two that have nothing would tell each other so for ever.
        let lost_everything = statement.heads.is_empty() && (view.durable > 0 || self.told.is_none());
        // A stock peer repeats its reset with all that it says until it hears the answer, which names only its own heads.
        let answer_under_way = self.exact && self.unconfirmed > 0;
        let rejects_frontier = is_reset(&statement) && self.told.is_some() && !answer_under_way;
        if lost_everything || rejects_frontier {
            self.frontier = Frontier::default();
            self.answered.clear();
            self.exact |= rejects_frontier;
            self.told = None;
        }
        if let (true, Some(told), false) = (self.offers_only, &self.told, statement.heads.is_empty()) {
            // One that did not know what it was told of would have answered with a reset.
            self.frontier.add_prefix(told.length);
        }
        let first = !self.heard;
        self.heard = true;
        let before = self.their_heads();
        self.learn_heads(view, &statement);
        self.account_after(rejects_frontier);
        self.confirm(view, &statement.heads);
        let known = |hash: &ChangeHash| view.graph.is_some_and(|graph| graph.find_durable(hash).is_some());
        let unanswered = |hash: &ChangeHash| !self.answered.contains(hash);
        self.wants = statement.need.iter().filter(|hash| unanswered(hash) && known(hash)).copied().collect();
        // A stock peer answers every message as long as heads differ: what it has said before is no reason to speak.
        let news = statement.heads != view.heads && (statement.heads != before || rejects_frontier);
        self.reply_due |= first || statement.with_changes || news || !self.wants.is_empty();
        self.have = if self.unknown_heads.is_empty() { Vec::new() } else { statement.have };
    }

    /// The peer wants to begin anew: all is as on a new connection, but for the pace at which it is sent changes.
    fn begin_again(&mut self) {
        *self = Self {
            supports_v2: self.supports_v2,
            lacks_reset: self.lacks_reset,
            read_only: self.read_only,
            asks_anew: self.asks_anew,
            asks_nothing: self.asks_nothing,
            natively: self.natively,
            offers_only: self.offers_only,
            unconfirmed: self.unconfirmed,
            unconfirmed_since: self.unconfirmed_since,
            ..Self::default()
        };
    }

    /// The peer answered our first words without a sync message of its own: it has nothing of the document.
    pub fn has_nothing(&mut self) {
        self.heard |= self.told.is_some();
    }

    /// Whether nothing has been said, by neither side, or the peer was told of all that is durable and has not answered.
    #[must_use]
    pub fn is_fresh_or_greeted(&self, view: View<'_>) -> bool {
        let told_all = self.told.as_ref().is_none_or(|told| told.length == view.durable);
        !self.heard && told_all && !self.reply_due
    }

    /// Whether the peer was told something and has not said anything yet.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        !self.heard && self.told.is_some()
    }

    /// Whether the peer has announced its heads.
    #[must_use]
    pub fn has_spoken(&self) -> bool {
        self.heard
    }

    /// Whether the peer has spoken and announced no heads.
    #[must_use]
    pub fn said_it_has_nothing(&self) -> bool {
        self.heard && self.known_heads.is_empty() && self.unknown_heads.is_empty()
    }

    /// Whether the peer has announced changes that are not durable here, and that were not refused.
    #[must_use]
    pub fn announces_more(&self) -> bool {
        self.unknown_heads.iter().any(|head| !self.refused.contains(head))
    }

    /// Remembers that a change of this peer will never be accepted.
    pub fn refuse(&mut self, hash: ChangeHash) {
        if self.refused.len() < REFUSED_MAX && !self.refused.contains(&hash) {
            self.refused.push(hash);
        }
    }

    /// Whether the peer may write. What may not be taken from it is not asked for.
    pub fn set_writable(&mut self, writable: bool) {
        self.asks_nothing = !writable;
    }

    /// What to send at `now`, if anything.
    #[must_use]
    pub fn plan(&self, view: View<'_>, orphans: Option<&Orphans>, limits: &Limits, now: Duration) -> Plan {
        if !self.heard && !self.reply_due && !self.asks_anew {
            return Plan::Nothing;
        }
        // To begin anew is more than to say anew what one has.
        if self.counts_on_unknown && !self.asks_anew {
            return if self.reply_due { Plan::Reset } else { Plan::Nothing };
        }
        if let Some(plan) = self.plan_account(view) {
            return plan;
        }
        let told_all = self.told.as_ref().is_some_and(|told| told.length == view.durable);
        let nothing_asked = (self.unknown_heads.is_empty() || self.offers_only) && self.wants.is_empty();
        let all_said = told_all && nothing_asked && !self.reply_due && !self.asks_anew;
        if all_said && self.frontier.prefix >= view.durable {
            return Plan::Nothing;
        }
        let lacks = self.heard && !self.read_only && self.frontier.prefix < view.durable;
        let wait = self.unconfirmed_until();
        if lacks && self.unconfirmed > 0 && now < wait {
            return Plan::Wait(wait);
        }
        if !lacks && nothing_asked {
            return self.plan_without_changes(view, told_all);
        }
        match view.graph {
            Some(graph) => self.plan_with_graph(view, graph, orphans, limits),
            None if self.frontier == Frontier::default() && nothing_asked && self.supports_v2 => Plan::Payload,
            None => Plan::LoadGraph,
        }
    }

    /// Notes that what was planned has been put on its way; `with_changes` if it carried any.
    pub fn sent(&mut self, length: u32, need: Vec<ChangeHash>, with_changes: bool, now: Duration) {
        if self.heard && !self.read_only {
            self.frontier.add_prefix(length);
        }
        self.told = Some(Told { length, need });
        self.reply_due = false;
        let room = ANSWERED_MAX.saturating_sub(self.answered.len());
        self.answered.extend(self.wants.drain(..).take(room));
        if with_changes {
            self.unconfirmed += 1;
            self.unconfirmed_since = now;
        }
    }

    /// The same for all that a draft says.
    pub fn sent_draft(&mut self, length: u32, draft: Draft, now: Duration) {
        self.asks_anew &= draft.anew.is_none();
        self.sent(length, draft.need, !draft.nodes.is_empty(), now);
    }

    /// Notes that our heads alone were sent.
    pub fn reset_sent(&mut self) {
        self.reset_told |= self.counts_on_unknown;
        self.reply_due = false;
    }

    /// Whether the peer is known to hold every durable change of the view.
    #[must_use]
    pub fn has_all(&self, view: View<'_>) -> bool {
        self.heard && self.unconfirmed == 0 && self.frontier.prefix >= view.durable
    }

    /// Whether the next message to the peer is the first of the conversation.
    #[must_use]
    pub fn speaks_first(&self) -> bool {
        !self.heard && self.told.is_none()
    }

    /// Heads that the peer has announced, sorted.
    #[must_use]
    pub fn their_heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<_> = self.known_heads.iter().chain(&self.unknown_heads).copied().collect();
        heads.sort_unstable();
        heads
    }

    fn learn_heads(&mut self, view: View<'_>, statement: &Statement) {
        self.unknown_heads.clear();
        self.known_heads.clear();
        self.counts_on_unknown = false;
        if statement.heads == view.heads {
            self.frontier.add_prefix(view.durable);
            self.known_heads.extend_from_slice(&statement.heads);
            return;
        }
        let Some(graph) = view.graph else {
            self.unknown_heads.extend_from_slice(&statement.heads);
            return;
        };
        for head in &statement.heads {
            match graph.find_durable(head) {
                Some(node) => {
                    self.frontier.add(graph, node);
                    self.known_heads.push(*head);
                }
                None => self.unknown_heads.push(*head),
            }
        }
        for hash in statement.have.iter().flat_map(|have| &have.last_sync) {
            match graph.find_durable(hash) {
                Some(node) => self.frontier.add(graph, node),
                None => self.counts_on_unknown |= graph.find(hash).is_none(),
            }
        }
        // What the peer has beyond is its own business where nothing is wanted.
        self.counts_on_unknown &= !self.reset_told && !self.offers_only;
    }

    /// The peer's heads tell which of the messages to it have arrived.
    fn confirm(&mut self, view: View<'_>, heads: &[ChangeHash]) {
        // A reset confirms nothing: however many of them come, the wait lets one answer out.
        let Some(told) = &self.told else { return };
        let all = heads == view.heads && told.length <= view.durable;
        let covered = || {
            let Some(graph) = view.graph else { return false };
            let mut frontier = Frontier::default();
            for node in heads.iter().filter_map(|head| graph.find_durable(head)) {
                frontier.add(graph, node);
            }
            frontier.covers(graph, told.length)
        };
        if self.unconfirmed > 0 && (all || covered()) {
            self.unconfirmed = 0;
        }
    }

    fn unconfirmed_until(&self) -> Duration {
        let doubled = UNCONFIRMED_WAIT * 2u32.pow(self.unconfirmed.saturating_sub(1).min(7));
        self.unconfirmed_since + doubled.min(UNCONFIRMED_WAIT_MAX)
    }

    fn plan_without_changes(&self, view: View<'_>, told_all: bool) -> Plan {
        let nothing_wanted = self.offers_only && self.heard && self.told.is_some();
        if !self.asks_anew && (nothing_wanted || told_all && !self.reply_due) {
            return Plan::Nothing;
        }
        let like_others = self.heard && !self.offers_only && !self.asks_anew;
        let draft = Draft::with_have(vec![have_all(view.heads)]);
        let shared_from = like_others.then_some(view.durable);
        Plan::Send(Draft { shared_from, read_only: self.offers_only, anew: self.brings_anew(), ..draft })
    }

    fn brings_anew(&self) -> Option<Anew> {
        self.asks_anew.then_some(if self.lacks_reset { Anew::ByNoHeads } else { Anew::ByFlag })
    }

    fn plan_with_graph(&self, view: View<'_>, graph: &Graph, orphans: Option<&Orphans>, limits: &Limits) -> Plan {
        let draft = self.draft(view, graph, orphans, limits);
        let told = self.told.as_ref();
        let repeats = told.is_some_and(|told| told.length == view.durable && told.need == draft.need);
        if draft.nodes.is_empty() && repeats && !self.reply_due && !self.asks_anew {
            return Plan::Nothing;
        }
        let nodes = &draft.nodes;
        if nodes.first().is_some_and(|first| *first < graph.raw_from()) {
            if self.supports_v2 {
                return Plan::Payload;
            }
            let stored = nodes.iter().take_while(|node| **node < graph.raw_from());
            return Plan::StoredChanges(stored.map(|node| graph.hash(*node)).collect());
        }
        Plan::Send(draft)
    }

    /// Everything that the peer lacks, wherever its bytes are.
    #[must_use]
    pub fn draft(&self, view: View<'_>, graph: &Graph, orphans: Option<&Orphans>, limits: &Limits) -> Draft {
        let frontier = self.frontier_with_bloom(graph, limits);
        let mut nodes = if self.read_only { Vec::new() } else { graph.missing_from(&frontier) };
        self.add_wanted(graph, &mut nodes);
        let need = if self.offers_only { Vec::new() } else { self.need(graph, orphans) };
        let shared = frontier.heads.is_empty() && self.unknown_heads.is_empty() && self.wants.is_empty();
        let shared_from = (shared && !self.exact && !self.offers_only && !self.asks_anew).then_some(frontier.prefix);
        let (have, read_only, anew) = (vec![self.have_for(view, graph)], self.offers_only, self.brings_anew());
        Draft { nodes, need, have, shared_from, read_only, anew }
    }

    fn frontier_with_bloom(&self, graph: &Graph, limits: &Limits) -> Frontier {
        // A filter claims some changes by mistake. Who has rejected an account of ours gets an answer without holes.
        if self.exact {
            return self.frontier.clone();
        }
        self.have
            .iter()
            .filter_map(|have| Bloom::decode(&have.bloom, limits).ok())
            .fold(self.frontier.clone(), |frontier, bloom| graph.frontier_by_bloom(&frontier, &bloom))
    }

    fn add_wanted(&self, graph: &Graph, nodes: &mut Vec<u32>) {
        let wanted: Vec<_> = self.wants.iter().filter_map(|hash| graph.find_durable(hash)).collect();
        if !wanted.is_empty() {
            nodes.extend(wanted);
            nodes.sort_unstable();
            nodes.dedup();
        }
    }

    /// Heads of the peer that nothing here accounts for, and the missing dependencies of waiting changes.
    fn need(&self, graph: &Graph, orphans: Option<&Orphans>) -> Vec<ChangeHash> {
        if self.asks_nothing {
            return Vec::new();
        }
        let waiting = |hash: &ChangeHash| orphans.is_some_and(|orphans| orphans.contains(hash));
        let mut need: Vec<_> = self.unknown_heads.iter().filter(|head| !waiting(head)).copied().collect();
        if !self.unknown_heads.is_empty() {
            need.extend(orphans.into_iter().flat_map(Orphans::missing));
        }
        need.retain(|hash| graph.find(hash).is_none() && !self.refused.contains(hash));
        need.sort_unstable();
        need.dedup();
        need
    }

    fn have_for(&self, view: View<'_>, graph: &Graph) -> Have {
        if !self.exact || self.natively || self.unknown_heads.is_empty() {
            return have_all(view.heads);
        }
        let mut common = Frontier::default();
        for node in self.known_heads.iter().filter_map(|head| graph.find_durable(head)) {
            common.add(graph, node);
        }
        let mut bloom = Vec::new();
        graph.bloom_since(&common).encode(&mut bloom);
        Have { last_sync: self.known_heads.clone(), bloom: Bytes::from(bloom) }
    }
}

/// "I have everything up to my heads": the peer sends exactly what is not an ancestor of them.
pub(crate) fn have_all(heads: &[ChangeHash]) -> Have {
    Have { last_sync: heads.to_vec(), bloom: Bytes::new() }
}

/// automerge's answer to a `last_sync` that it does not know: its heads, and one empty account of what it has.
fn is_reset(statement: &Statement) -> bool {
    let blank = |have: &Have| have.last_sync.is_empty() && have.bloom.is_empty();
    statement.need.is_empty()
        && !statement.heads.is_empty()
        && !statement.with_changes
        && matches!(statement.have.as_slice(), [have] if blank(have))
}

/// The message of [`Plan::Reset`], the same bytes that automerge sends for it.
#[must_use]
pub fn encode_reset(heads: &[ChangeHash]) -> Bytes {
    let blank = Have { last_sync: Vec::new(), bloom: Bytes::new() };
    encode_message(heads, &Draft::with_have(vec![blank]), Vec::new(), Version::V1)
}

/// The sync message around `elements`, each of which holds one or more chunks.
#[must_use]
pub fn encode_message(heads: &[ChangeHash], draft: &Draft, elements: Vec<Bytes>, version: Version) -> Bytes {
    let (reset, nothing) = (draft.anew == Some(Anew::ByFlag), draft.anew == Some(Anew::ByNoHeads));
    let message = Message {
        version,
        heads: if nothing { Vec::new() } else { heads.to_vec() },
        need: draft.need.clone(),
        have: draft.have.clone(),
        changes: elements,
        flags: Some(Flags { reset, read_only: draft.read_only, supports_reset: true }),
    };
    let mut out = Vec::new();
    message.encode(&mut out);
    Bytes::from(out)
}

#[cfg(test)]
mod tests;

//! What two Syncline replicas say to each other where both have changes that the other has not: what they have, by hash.
//!
//! Owns: what an account lists, when one is due. Must not: send a filter: what is sent because of an account is exact.
//! Next: `../sync.rs`; docs/protocol.md §9, "Inside a document".
//!
//! A stock peer is answered with a Bloom filter in this case. Here the one that was told of unknown heads lists a few of its
//! changes, further and further apart; the other finds those that it has too, and lists the latest of these and all of its
//! own that are not below them. From that the first sees exactly what the other lacks.

use super::{PeerSync, Plan, Statement, View};
use crate::ChangeHash;
use crate::graph::Graph;

/// Most changes, and most heads, that an account lists.
pub const HASHES_MAX: usize = 4_096;

/// The latest changes of which a sparse account lists each one; before them the distances double.
const EACH_OF_LAST: usize = 16;

/// Which changes the sender has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// Some of the changes that it has. Those that the receiver knows are common to both, with their ancestors.
    pub hashes: Vec<ChangeHash>,
    /// The receiver is to answer with changes; otherwise with an account of its own.
    pub last: bool,
}

/// Where two replicas are in telling each other what they have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Accounting {
    /// What the peer has is known as far as it has said.
    #[default]
    Settled,
    /// It waits for our account.
    Due {
        /// It has given one.
        last: bool,
    },
    /// It has ours, and is to answer.
    Awaiting,
}

impl PeerSync {
    /// Whether the peer understands accounts.
    pub fn speak_natively(&mut self, natively: bool) {
        self.natively = natively;
    }

    /// Takes in what the peer has.
    pub fn receive_account(&mut self, view: View<'_>, account: &Account) {
        let heads = account.heads.clone();
        let statement = Statement { heads, need: Vec::new(), have: Vec::new(), flags: None, with_changes: false };
        (self.heard, self.supports_v2, self.reply_due) = (true, true, true);
        (self.told, self.have) = (None, Vec::new());
        self.learn_heads(view, &statement);
        if let Some(graph) = view.graph {
            let known = account.hashes.iter().filter_map(|hash| graph.find_durable(hash));
            known.for_each(|node| self.frontier.add(graph, node));
        }
        let exact = account.last || self.unknown_heads.is_empty();
        self.accounting = if exact { Accounting::Settled } else { Accounting::Due { last: true } };
    }

    /// The account that is due.
    #[must_use]
    pub fn account(&self, graph: &Graph) -> Account {
        let last = self.accounting == Accounting::Due { last: true };
        let nodes = if last { graph.missing_from(&self.frontier) } else { (0..graph.durable()).collect() };
        let common = if last { heads_below(graph, &nodes) } else { Vec::new() };
        let whole = last && nodes.len() + common.len() <= HASHES_MAX;
        let nodes = if whole { [common, nodes].concat() } else { sparse(&nodes) };
        Account { heads: graph.heads(), hashes: nodes.into_iter().map(|node| graph.hash(node)).collect(), last }
    }

    /// Notes that it was sent.
    pub fn account_sent(&mut self) {
        self.accounting = Accounting::Awaiting;
        self.reply_due = false;
    }

    /// After the peer's ordinary words: a reset from one that has what is not here is answered with an account.
    pub(super) fn account_after(&mut self, was_reset: bool) {
        let apart = self.natively && was_reset && !self.unknown_heads.is_empty();
        self.accounting = if apart { Accounting::Due { last: false } } else { Accounting::Settled };
    }

    pub(super) fn plan_account(&self, view: View<'_>) -> Option<Plan> {
        match self.accounting {
            Accounting::Settled => None,
            Accounting::Awaiting => Some(Plan::Nothing),
            // Nobody has so many heads who means well.
            Accounting::Due { .. } if view.heads.len() > HASHES_MAX => None,
            Accounting::Due { .. } => Some(if view.graph.is_some() { Plan::Account } else { Plan::LoadGraph }),
        }
    }
}

/// Of the changes that are not among these, those on which no other of them builds. Nothing of these is below any of them.
fn heads_below(graph: &Graph, nodes: &[u32]) -> Vec<u32> {
    let mut is_below = vec![true; graph.durable() as usize];
    nodes.iter().for_each(|node| is_below[*node as usize] = false);
    let mut is_head = is_below.clone();
    for node in (0..graph.durable()).filter(|node| is_below[*node as usize]) {
        graph.deps(node).iter().for_each(|dep| is_head[*dep as usize] = false);
    }
    (0..graph.durable()).filter(|node| is_head[*node as usize]).collect()
}

/// Some of these, the latest of them close together.
fn sparse(nodes: &[u32]) -> Vec<u32> {
    let mut some = Vec::new();
    let mut back = 0;
    while back < nodes.len() {
        some.push(nodes[nodes.len() - 1 - back]);
        back += if back < EACH_OF_LAST { 1 } else { back };
    }
    some.extend(nodes.first());
    some.reverse();
    some.dedup();
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_account_is_dense_where_it_is_recent() {
        let nodes: Vec<u32> = (0..1_000).collect();
        let some = sparse(&nodes);
        assert_eq!(some[..5], [0, 487, 743, 871, 935]);
        assert_eq!(some[some.len() - 17..], (983..1_000).collect::<Vec<u32>>());
        assert_eq!(sparse(&nodes[..3]), [0, 1, 2]);
        assert!(sparse(&[]).is_empty());
    }
}

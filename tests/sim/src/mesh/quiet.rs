//! What must hold once everything is mended: all agree soon, at a cost that follows from what differed, and then little
//! is said.
//!
//! Owns: the end of every scenario. Must not: mend what the code should mend itself: it ends faults and starts processes.
//! Next: `../oracle.rs`; docs/gossip.md, "Figures".

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::ChangeHash;

use super::traffic::{End, link_of};
use super::{World, tuning};
use crate::oracle::{Checked, require};

/// Within which all agree once nothing fails any more: silence is noticed, addresses are tried again, neighbours are
/// compared with.
const AGREEMENT_WITHIN: Duration = Duration::from_secs(120);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// In which nothing differs and nothing happens.
const QUIET: Duration = Duration::from_secs(45);

/// What a comparison costs both sides together when nothing differs, frames and all.
const ROUND_BYTES_MAX: u64 = 1_024;

/// Within which a node that has lost its last neighbour has another.
const NEIGHBOUR_WITHIN: Duration = Duration::from_secs(20);

/// Edits in the calm.
const CALM_EDITS: u64 = 10;

/// Within which an edit in the calm is everywhere.
const NOTICE_WITHIN: Duration = Duration::from_secs(10);

/// Edits that one node misses.
const MISSED_EDITS: u64 = 5;

/// What it may cost all nodes together to bring it up to date: the changes are below 200 bytes each.
const CATCH_UP_BYTES_MAX: u64 = 24 * 1024;

impl World {
    pub(super) fn settle(&mut self) -> Checked {
        self.log.say(|| format!("settling at {:?}", self.now));
        self.end_faults()?;
        self.settling = true;
        // In the way of nodes that take few neighbours it could be all the neighbours that they have.
        if !self.has(tuning::BAD_STAYS) || self.has(tuning::FEW_NEIGHBOURS) {
            self.bad_leaves()?;
        }
        let held = self.everything();
        self.talk_until_agreed("agreement within bounded time", AGREEMENT_WITHIN)?;
        self.bad_leaves()?;
        let agreed = self.everything();
        for (document, before) in held.iter().enumerate() {
            let lost = before.difference(&agreed[document]).next();
            require(lost.is_none(), "nothing that somebody holds is lost", || format!("{lost:?}"))?;
        }
        self.check_promises()?;
        self.advance(Duration::from_secs(20))?;
        self.check_quiet()?;
        self.check_calm_edits()?;
        self.check_catching_up()?;
        self.check_promises()
    }

    fn end_faults(&mut self) -> Checked {
        self.links.values_mut().for_each(|link| link.clogged = [false; 2]);
        self.apart = None;
        self.full.fill(false);
        self.stalled.fill(self.now);
        for node in 0..self.nodes.len() {
            self.nodes[node].wall_ahead_ms = 0;
            self.start(node, 0)?;
            self.nodes[node].set_online(self.now, true);
            self.drain(node)?;
        }
        // Members notice a neighbour that is silent; a stock client and its server would by a ping of the websocket.
        let half = self
            .links
            .iter()
            .filter(|(_, link)| link.there != [true; 2] && link.ends.iter().any(|end| matches!(end, End::Client(_))));
        let half: Vec<u64> = half.map(|(number, _)| *number).collect();
        half.into_iter().try_for_each(|link| self.cut(link))
    }

    /// Every change of each document that is anywhere.
    fn everything(&mut self) -> Vec<BTreeSet<ChangeHash>> {
        let mut all = vec![BTreeSet::new(); self.documents.len()];
        for (document, all) in all.iter_mut().enumerate() {
            self.held.iter().for_each(|held| all.extend(held[document].iter().copied()));
            for client in &mut self.clients {
                all.extend(client.documents[document].content.hashes());
            }
        }
        all
    }

    /// The first that lacks something, if anybody does.
    fn behind(&mut self) -> Option<String> {
        let all = self.everything();
        for (document, all) in all.iter().enumerate() {
            let id = &self.documents[document];
            for (node, held) in self.held.iter().enumerate() {
                if self.nodes[node].takes_part_in(id) && held[document] != *all {
                    let lacks = all.difference(&held[document]).count();
                    return Some(format!("node {node} lacks {lacks} changes of document {document}"));
                }
            }
            for client in &mut self.clients {
                let has = client.documents[document].content.hashes();
                if self.nodes[client.server].takes_part_in(id) && has != *all {
                    let lacks = all.difference(&has).count();
                    return Some(format!("{} lacks {lacks} changes of document {document}", client.name()));
                }
            }
        }
        None
    }

    fn talk_until_agreed(&mut self, checker: &'static str, within: Duration) -> Checked {
        let until = self.now + within;
        loop {
            (0..self.clients.len()).try_for_each(|client| self.dial_client(client))?;
            let Some(behind) = self.behind() else { return Ok(()) };
            require(self.now < until, checker, || format!("after {within:?} {behind}"))?;
            self.advance(LOOK)?;
        }
    }

    /// As [`World::talk_until_agreed`], but only time counts in which there is a way from every node to every other: two
    /// halves that both have enough neighbours look for others every 15 s at the latest.
    fn talk_while_connected(&mut self, checker: &'static str, within: Duration) -> Checked {
        let (until, mut left) = (self.now + AGREEMENT_WITHIN, within);
        while let Some(behind) = self.behind() {
            let in_time = !left.is_zero() && self.now < until;
            require(in_time, checker, || format!("after {within:?} of connectivity {behind}"))?;
            self.advance(LOOK)?;
            if self.is_connected() {
                left = left.saturating_sub(LOOK);
            }
        }
        Ok(())
    }

    fn is_connected(&self) -> bool {
        let (mut reached, mut next) = (BTreeSet::from([0]), vec![0]);
        while let Some(node) = next.pop() {
            for neighbour in self.nodes[node].neighbours() {
                let ends = self.links.get(&link_of(neighbour.link).0).map(|link| link.ends);
                for end in ends.into_iter().flatten() {
                    if let End::Node(other) = end
                        && reached.insert(other)
                    {
                        next.push(other);
                    }
                }
            }
        }
        reached.len() == self.nodes.len()
    }

    fn check_promises(&self) -> Checked {
        for (node, held) in self.held.iter().enumerate() {
            for (document, held) in held.iter().enumerate() {
                self.oracle.check_promises(node, document, held)?;
            }
        }
        let heads = |node: usize| self.nodes[node].disk.heads().map(|(id, heads)| (id.clone(), heads.to_vec()));
        for (node, held) in self.held.iter().enumerate() {
            for (id, heads) in heads(node) {
                let Some(document) = self.documents.iter().position(|own| *own == id) else { continue };
                let true_heads: Vec<ChangeHash> = self.oracle.heads_of(&held[document]).into_iter().collect();
                let heads: Vec<ChangeHash> = heads.into_iter().map(|head| ChangeHash(head.0)).collect();
                require(heads == true_heads, "heads are those of what is held", || {
                    format!("node {node}, document {document}: {heads:?}, not {true_heads:?}")
                })?;
            }
        }
        Ok(())
    }

    fn sum(&mut self, value: fn(&syncline_mesh_sim::node::Tally) -> u64) -> u64 {
        self.nodes.iter().map(|node| value(&node.tally)).sum()
    }

    /// Nothing differs: of documents nothing is said, and a comparison is one short question and its answer.
    fn check_quiet(&mut self) -> Checked {
        let before = [self.sum(|t| t.document_bytes_out), self.sum(|t| t.round_bytes_out), self.sum(|t| t.repairs)];
        self.advance(QUIET)?;
        let after = [self.sum(|t| t.document_bytes_out), self.sum(|t| t.round_bytes_out), self.sum(|t| t.repairs)];
        let [documents, rounds, repairs] = std::array::from_fn(|at| after[at] - before[at]);
        // Who takes part in some documents greets each of them instead.
        if self.has(tuning::PARTIAL) {
            return Ok(());
        }
        require(documents == 0, "agreement is silent", || format!("{documents} bytes about documents in {QUIET:?}"))?;
        require(rounds <= ROUND_BYTES_MAX * (repairs + 1), "a comparison without differences is cheap", || {
            format!("{repairs} comparisons took {rounds} bytes")
        })?;
        self.check_neighbours()
    }

    /// Whoever has just been let go of for somebody else finds another soon.
    fn check_neighbours(&mut self) -> Checked {
        let count = self.nodes.len();
        for node in (0..count).filter(|_| count > 1) {
            let until = self.now + NEIGHBOUR_WITHIN;
            while self.nodes[node].neighbours().is_empty() && self.now < until {
                self.advance(LOOK)?;
            }
            let lonely = self.nodes[node].neighbours().is_empty();
            require(!lonely, "everybody has a neighbour", || format!("node {node} has none for {NEIGHBOUR_WITHIN:?}"))?;
        }
        Ok(())
    }

    /// What is written is soon everywhere, about once.
    fn check_calm_edits(&mut self) -> Checked {
        let counted = |world: &Self| {
            let counts = world.nodes.iter().map(|node| node.counts());
            counts.fold((0, 0), |sum, counts| (sum.0 + counts.received, sum.1 + counts.repeated))
        };
        let before = counted(self);
        for number in 0..CALM_EDITS {
            let node = number as usize % self.nodes.len();
            self.local_edit(node, 0, 1_000_000 + number)?;
            self.advance(Duration::from_millis(700))?;
        }
        // A member that may wait for one name forgets the others when its neighbours change: a comparison brings those.
        let within = if self.has(tuning::FORGETFUL) { AGREEMENT_WITHIN } else { NOTICE_WITHIN };
        self.talk_while_connected("notices are soon everywhere", within)?;
        let after = counted(self);
        let (new, again) = (after.0 - before.0, after.1 - before.1);
        // A link that is new is tried once for each direction.
        let links = self.links.len() as u64;
        require(again <= new + 2 * links, "redundancy is bounded", || {
            format!("{new} notices came, and {again} of them again, over {links} links")
        })
    }

    /// A node that was away for a few changes is brought up to date for about what they cost, whatever came before.
    fn check_catching_up(&mut self) -> Checked {
        let away = self.nodes.len() - 1;
        if away == 0 {
            return Ok(());
        }
        self.nodes[away].set_online(self.now, false);
        self.drain(away)?;
        self.advance(Duration::from_secs(1))?;
        for number in 0..MISSED_EDITS {
            self.local_edit(0, 0, 2_000_000 + number)?;
            self.advance(Duration::from_millis(100))?;
        }
        self.advance(Duration::from_secs(3))?;
        self.nodes[away].set_online(self.now, true);
        self.drain(away)?;
        let before = self.sum(|t| t.document_bytes_out + t.round_bytes_out);
        self.talk_until_agreed("who was away is soon up to date", Duration::from_secs(60))?;
        let bytes = self.sum(|t| t.document_bytes_out + t.round_bytes_out) - before;
        // Who takes part in some documents greets each of them at each repair.
        if self.has(tuning::PARTIAL) {
            return Ok(());
        }
        require(bytes <= CATCH_UP_BYTES_MAX, "work follows the difference", || {
            format!("{bytes} bytes for {MISSED_EDITS} changes")
        })
    }
}

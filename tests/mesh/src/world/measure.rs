//! What is measured while a world is played.
//!
//! Owns: when each change got where, samples, sums. Must not: be known to a replica. Next: `../outcome.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use syncline_core::ChangeHash;
use syncline_core::id::DocumentId;

use crate::node::{Node, Tally};
use crate::outcome::{Outcome, Sample};

#[derive(Default)]
pub(super) struct Measure {
    /// Changes that their authors have on disk: since when others can have heard of it, and how many replicas have them.
    changes: BTreeMap<ChangeHash, (Duration, usize)>,
    delays: Vec<Duration>,
    pub(super) samples: Vec<Sample>,
    pub(super) kills: u64,
    pub(super) healed_at: Duration,
    before: (u64, u64, u64, u64),
}

/// What a node has, as far as others may differ from it.
pub(super) fn state_of(node: &Node) -> Vec<(&DocumentId, &[ChangeHash])> {
    node.disk.heads().collect()
}

impl Measure {
    /// Its author has a change on its disk.
    pub(super) fn made(&mut self, now: Duration, hash: ChangeHash) {
        self.changes.insert(hash, (now, 1));
    }

    /// Another node has a change on its disk, whose author's process began at this time.
    pub(super) fn arrived(&mut self, now: Duration, node: &mut Node, hash: ChangeHash, author_up_at: Duration) {
        node.tally.changes_new += 1;
        // A change can be passed on before its author hears that it is durable: never, or the rule is broken.
        let (from, count) = self.changes.get_mut(&hash).expect("nobody has what its author has not on disk");
        if *count == 1 {
            // Its author may have ended before anybody had it.
            *from = (*from).max(author_up_at);
        }
        *count += 1;
        self.delays.push(now.saturating_sub((*from).max(node.up_at).max(self.healed_at)));
    }

    pub(super) fn is_everywhere(&self, nodes: usize) -> bool {
        self.changes.values().all(|(_, count)| *count == nodes)
    }

    pub(super) fn sample(&mut self, at: Duration, nodes: &[Node]) {
        let up: Vec<&Node> = nodes.iter().filter(|node| node.up).collect();
        let mut classes: BTreeMap<Vec<(&DocumentId, &[ChangeHash])>, usize> = BTreeMap::new();
        for node in &up {
            *classes.entry(state_of(node)).or_default() += 1;
        }
        let agreed = classes.values().max().copied().unwrap_or(0);
        let sum = |value: fn(&Node) -> u64| nodes.iter().map(value).sum::<u64>();
        let frames = sum(|node| node.tally.frames_out);
        let bytes = sum(|node| node.tally.bytes_out);
        let received = sum(|node| node.counts().received);
        let repeated = sum(|node| node.counts().repeated);
        let (new, again) = (received.saturating_sub(self.before.2), repeated.saturating_sub(self.before.3));
        let copies = if new == 0 { 0.0 } else { (new + again) as f64 / new as f64 };
        let neighbours = up.iter().map(|node| node.neighbours().len()).sum::<usize>() as f64 / up.len().max(1) as f64;
        let (frames_new, bytes_new) = (frames - self.before.0, bytes - self.before.1);
        self.before = (frames, bytes, received, repeated);
        self.samples.push(Sample {
            at,
            up: up.len(),
            agreed,
            frames: frames_new,
            bytes: bytes_new,
            copies,
            neighbours,
        });
    }

    pub(super) fn outcome(
        mut self,
        agreed: bool,
        settled_after: Option<Duration>,
        tallies: Vec<Tally>,
        time: Duration,
    ) -> Outcome {
        let sum = |value: fn(&Tally) -> u64| tallies.iter().map(value).sum::<u64>();
        let per_second = |total: u64| total as f64 / time.as_secs_f64() / tallies.len() as f64;
        let received = sum(|tally| tally.notices.received);
        let repeated = sum(|tally| tally.notices.repeated);
        self.delays.sort_unstable();
        let quantile = |share: f64| {
            let at = ((self.delays.len().max(1) - 1) as f64 * share).round() as usize;
            self.delays.get(at).copied().unwrap_or_default()
        };
        Outcome {
            agreed,
            settled_after,
            edits: self.changes.len() as u64,
            slowest: quantile(1.0),
            quantiles: (quantile(0.5), quantile(0.99)),
            notice_copies: (received + repeated) as f64 / received.max(1) as f64,
            change_copies: sum(|tally| tally.changes_in) as f64 / sum(|tally| tally.changes_new).max(1) as f64,
            frames_per_second: per_second(sum(|tally| tally.frames_out)),
            bytes_per_second: per_second(sum(|tally| tally.bytes_out)),
            per_node: tallies.iter().map(|tally| (tally.frames_out, tally.bytes_out)).collect(),
            repairs: sum(|tally| tally.repairs),
            grafts: sum(|tally| tally.notices.grafted),
            kills: self.kills,
            samples: self.samples,
        }
    }
}

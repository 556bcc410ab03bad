//! What happened, in three forms: a hash for comparing runs, counts of which fault met which state, words for a reader.
//!
//! Owns: the rolling hash, the coverage table, the trace. Must not: influence what happens.
//! Next: `campaign.rs`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use crate::action::Kind;
use crate::scenario::Tier;

/// What a machine was in the middle of when a fault met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    Idle,
    NotSubmitted,
    NotSynced,
    NotTold,
    Loading,
    Queued,
    Congested,
    UnderWay,
    /// A handshake of the mesh is under way.
    Handshake,
    /// The mesh is cut in two.
    Apart,
}

impl State {
    pub(crate) const ALL: [Self; 10] = [
        Self::Idle,
        Self::NotSubmitted,
        Self::NotSynced,
        Self::NotTold,
        Self::Loading,
        Self::Queued,
        Self::Congested,
        Self::UnderWay,
        Self::Handshake,
        Self::Apart,
    ];

    /// Whether machines of this tier are seen in it.
    fn is_of(self, tier: Tier) -> bool {
        match self {
            Self::Idle | Self::NotSynced | Self::UnderWay => true,
            Self::Handshake | Self::Apart => tier == Tier::Mesh,
            Self::NotSubmitted | Self::NotTold | Self::Loading | Self::Queued | Self::Congested => tier != Tier::Mesh,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::NotSubmitted => "commit not submitted",
            Self::NotSynced => "commit not synced",
            Self::NotTold => "commit not told",
            Self::Loading => "loading",
            Self::Queued => "messages queued",
            Self::Congested => "congested",
            Self::UnderWay => "frames under way",
            Self::Handshake => "handshake under way",
            Self::Apart => "cut in two",
        }
    }
}

/// How often each fault met each state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Coverage(pub(crate) BTreeMap<(Kind, State), u64>);

impl Coverage {
    pub(crate) fn add(&mut self, other: &Self) {
        for (place, count) in &other.0 {
            *self.0.entry(*place).or_default() += count;
        }
    }

    /// Faults that never came.
    pub(crate) fn never(&self, tier: Tier) -> Vec<Kind> {
        let faults = Kind::ALL.iter().copied().filter(|kind| kind.is_fault() && kind.is_of(tier));
        faults.filter(|kind| !State::ALL.iter().any(|state| self.0.contains_key(&(*kind, *state)))).collect()
    }

    /// A table in Markdown.
    pub(crate) fn table(&self, tier: Tier) -> String {
        let states: Vec<State> = State::ALL.into_iter().filter(|state| state.is_of(tier)).collect();
        let names: Vec<&str> = states.iter().map(|state| state.name()).collect();
        let mut table = format!("| fault | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
        for kind in Kind::ALL.iter().filter(|kind| kind.is_fault() && kind.is_of(tier)) {
            let counts = states.iter().map(|state| self.0.get(&(*kind, *state)).copied().unwrap_or(0).to_string());
            table += &format!("| {} | {} |\n", kind.name(), counts.collect::<Vec<_>>().join(" | "));
        }
        table
    }
}

/// The record of one run.
#[derive(Debug, Default)]
pub(crate) struct Log {
    hash: DefaultHasher,
    pub(crate) coverage: Coverage,
    trace: Option<Vec<String>>,
}

impl Log {
    pub(crate) fn new(traced: bool) -> Self {
        Self { trace: traced.then(Vec::new), ..Self::default() }
    }

    /// Takes an input or output of a node into the rolling hash.
    pub(crate) fn note(&mut self, node: usize, what: &str, bytes: &[u8]) {
        self.hash.write_usize(node);
        self.hash.write(what.as_bytes());
        self.hash.write(bytes);
    }

    /// Writes a line of the trace, if there is one.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub(crate) fn fault_met(&mut self, kind: Kind, state: State) {
        *self.coverage.0.entry((kind, state)).or_default() += 1;
    }

    pub(crate) fn digest(&self) -> u64 {
        self.hash.finish()
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_never_came_is_named() {
        let mut coverage = Coverage::default();
        let faults = Kind::ALL.iter().filter(|kind| kind.is_fault());
        faults.for_each(|kind| *coverage.0.entry((*kind, State::Idle)).or_default() += 1);
        assert_eq!(coverage.never(Tier::T2), []);
        coverage.0.remove(&(Kind::PowerCut, State::Idle));
        assert_eq!(coverage.never(Tier::T0), [Kind::PowerCut]);
    }
}

//! From a long failing scenario to a short one.
//!
//! Owns: the search. Must not: accept a scenario that fails another check. Next: `run.rs`.
//!
//! Delta debugging (Zeller and Hildebrandt 2002) over the actions, in ever smaller pieces, and the same over the parts
//! of the world, until nothing more can go.

use crate::action::Action;
use crate::oracle::Violation;
use crate::run::run;
use crate::scenario::{Scenario, Topology};

/// The smallest scenario found that fails the same check as the one given, which must fail; runs at most `runs_max`.
#[must_use]
pub fn shrink(scenario: &Scenario, runs_max: usize) -> Scenario {
    shrink_by(scenario, runs_max, |scenario| run(scenario, false).violation)
}

/// As [`shrink`], where `play` says how a scenario fails.
pub(crate) fn shrink_by(
    scenario: &Scenario,
    runs_max: usize,
    play: impl Fn(&Scenario) -> Option<Violation>,
) -> Scenario {
    let Some(violation) = play(scenario) else { return scenario.clone() };
    let mut runs = 0;
    let mut fails = |candidate: &Scenario| {
        runs += 1;
        runs <= runs_max && play(candidate).is_some_and(|other| other.checker == violation.checker)
    };
    let mut best = scenario.clone();
    loop {
        let before = best.clone();
        shrink_actions(&mut best, &mut fails);
        shrink_world(&mut best, &mut fails);
        shrink_numbers(&mut best, &mut fails);
        if best == before {
            return best;
        }
    }
}

fn shrink_actions(best: &mut Scenario, fails: &mut impl FnMut(&Scenario) -> bool) {
    let mut piece = best.actions.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < best.actions.len() {
            let end = (at + piece).min(best.actions.len());
            let actions: Vec<Action> = [&best.actions[..at], &best.actions[end..]].concat();
            let candidate = Scenario { actions, ..best.clone() };
            if fails(&candidate) {
                *best = candidate;
            } else {
                at = end;
            }
        }
        piece /= 2;
    }
}

/// Fewer machines, clients and documents, and plain settings.
fn shrink_world(best: &mut Scenario, fails: &mut impl FnMut(&Scenario) -> bool) {
    let mut candidates = Vec::new();
    let topology = &best.topology;
    for client in (0..topology.clients.len()).filter(|_| topology.clients.len() > 1) {
        let mut smaller = topology.clone();
        smaller.clients.remove(client);
        candidates.push(smaller);
    }
    if !topology.upstream.is_empty() {
        let mut smaller = topology.clone();
        smaller.upstream.pop();
        let last = smaller.upstream.len() as u8;
        smaller.clients.iter_mut().for_each(|client| *client = (*client).min(last));
        candidates.push(smaller);
    }
    if topology.documents > 1 {
        candidates.push(Topology { documents: 1, ..topology.clone() });
    }
    let bits = (0..8).map(|bit| 1 << bit).filter(|bit| topology.has(*bit));
    candidates.extend(bits.map(|bit| Topology { tuning: topology.tuning & !bit, ..topology.clone() }));
    for topology in candidates {
        let candidate = Scenario { topology, ..best.clone() };
        if fails(&candidate) {
            *best = candidate;
            return;
        }
    }
}

/// Small numbers are easier to read.
fn shrink_numbers(best: &mut Scenario, fails: &mut impl FnMut(&Scenario) -> bool) {
    for at in 0..best.actions.len() {
        let action = best.actions[at];
        let values = [0, 1, 2, action.value % 10, action.value % 100];
        for (who, value) in values.map(|value| (action.who % 6, value)) {
            if value >= action.value {
                continue;
            }
            let mut candidate = best.clone();
            candidate.actions[at] = Action { who, value, ..action };
            if fails(&candidate) {
                *best = candidate;
                break;
            }
        }
    }
}

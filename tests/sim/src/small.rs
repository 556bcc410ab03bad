//! All of a small world: one machine, two clients, a few edits, every order of arrival, and a power cut at every point.
//!
//! Owns: the search through the states. Must not: skip a state because it looks like another: only equal ones are one.
//! Next: `world.rs`.
//!
//! A state is reached again by playing the way to it, since a hub cannot be copied. Two ways whose steps concern
//! different parts lead to equal states, so that one of them is enough (Mazurkiewicz 1977).

use std::collections::{HashSet, VecDeque};

use crate::action::{Action, Kind};
use crate::oracle::{Checked, Violation};
use crate::scenario::{Scenario, Tier, Topology};
use crate::world::World;

/// What came of a search.
#[derive(Debug, Clone, Default)]
pub struct Explored {
    /// Endings tried: each state, settled as it is and after a power cut.
    pub cases: u64,
    /// Different states.
    pub states: u64,
    /// Steps from the beginning within which every state was tried.
    pub depth: usize,
    /// Whether there was nothing left to try.
    pub exhausted: bool,
    /// The way to the first failure, and what was wrong.
    pub failure: Option<(String, Violation)>,
}

/// One step on the way to a state.
#[derive(Debug, Clone, Copy)]
enum Choice {
    /// A client writes.
    Edit(u8),
    /// One of the things under way arrives.
    Arrive(usize),
}

/// How a way ends before everything is settled.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Plain,
    /// The power goes, and so many of the calls that wait are found on the disk.
    PowerCut(usize),
}

/// Tries every state that up to so many edits can lead to, until so many cases are tried.
#[must_use]
pub fn explore(operations: usize, cases_max: u64) -> Explored {
    let scenario = small_world();
    let mut explored = Explored::default();
    let mut seen = HashSet::new();
    let mut queue: VecDeque<Vec<Choice>> = VecDeque::from([Vec::new()]);
    while let Some(way) = queue.pop_front() {
        explored.depth = way.len().saturating_sub(1);
        if explored.cases >= cases_max {
            return explored;
        }
        explored.states += 1;
        let tried = try_state(&scenario, &way, operations, &mut explored.cases).and_then(|choices| {
            for choice in choices {
                let next: Vec<Choice> = way.iter().copied().chain([choice]).collect();
                if seen.insert(reach(&scenario, &next)?.fingerprint()) {
                    queue.push_back(next);
                }
            }
            Ok(())
        });
        if let Err(violation) = tried {
            explored.failure = Some((format!("{way:?}"), violation));
            return explored;
        }
    }
    explored.exhausted = true;
    explored
}

fn small_world() -> Scenario {
    let topology = Topology { upstream: Vec::new(), clients: vec![0, 0], documents: 1, tuning: 0 };
    Scenario { tier: Tier::T0, topology, actions: Vec::new() }
}

/// Tries all endings of a state, and returns how it can go on.
fn try_state(scenario: &Scenario, way: &[Choice], operations: usize, cases: &mut u64) -> Checked<Vec<Choice>> {
    let world = reach(scenario, way)?;
    let arrivals = world.under_way().len();
    let waiting = world.calls_waiting();
    let cuts = (0..=waiting).map(Ending::PowerCut);
    for ending in cuts.chain([Ending::Plain]) {
        let mut world = reach(scenario, way)?;
        if let Ending::PowerCut(survive) = ending {
            world.power_cut(0, survive)?;
        }
        world.settle().map_err(|Violation { checker, detail }| {
            let detail = format!("{ending:?}: {detail}");
            Violation { checker, detail }
        })?;
        *cases += 1;
    }
    let edits = way.iter().filter(|choice| matches!(choice, Choice::Edit(_))).count();
    let writers = if edits < operations { 0..2 } else { 0..0 };
    Ok(writers.map(Choice::Edit).chain((0..arrivals).map(Choice::Arrive)).collect())
}

/// The world after these steps; it begins when both clients are connected and have said what they have.
fn reach(scenario: &Scenario, way: &[Choice]) -> Checked<World> {
    let mut world = World::new(scenario, false);
    world.start_connected()?;
    for choice in way {
        match *choice {
            Choice::Edit(who) => world.act(Action { kind: Kind::Edit, who, value: 0 })?,
            Choice::Arrive(at) => {
                let what = world.under_way()[at];
                world.arrive(what, 0)?;
            }
        }
    }
    Ok(world)
}

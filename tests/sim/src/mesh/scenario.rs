//! What is drawn for a mesh.
//!
//! Owns: its topology and its schedule. Must not: look at a world. Next: `act.rs`, `../scenario.rs`.

use super::tuning;
use crate::action::{Action, Class, Kind};
use crate::random::Stream;
use crate::scenario::{Scenario, Swarm, Tier, Topology, drawn};

/// Kinds that mean in a mesh what they mean elsewhere.
pub(crate) const SHARED: &[Kind] = &[
    Kind::Edit,
    Kind::LocalEdit,
    Kind::Deliver,
    Kind::Dial,
    Kind::Cut,
    Kind::HalfOpen,
    Kind::ClogDown,
    Kind::ClogUp,
    Kind::Unclog,
    Kind::DiskFull,
    Kind::DiskStalls,
    Kind::Advance,
    Kind::LongPause,
    Kind::WallJump,
    Kind::PowerCut,
    Kind::LoseDisk,
    Kind::CloneDisk,
];

/// The scenario of a seed.
pub(crate) fn draw(seed: u64) -> Scenario {
    let topology = draw_topology(&mut Stream::new(seed, "mesh"));
    let swarm = Swarm::draw(seed, Tier::Mesh);
    let mut streams = [
        (Class::Workload, Stream::new(seed, "workload")),
        (Class::Network, Stream::new(seed, "network")),
        (Class::Disk, Stream::new(seed, "disk")),
        (Class::Clock, Stream::new(seed, "clock")),
        (Class::Crash, Stream::new(seed, "crash")),
        (Class::Hostile, Stream::new(seed, "hostile")),
    ];
    let mut actions = Vec::new();
    let everybody = topology.machines() + topology.clients.len();
    let begin = |who| Action { who: who as u8, ..drawn(Kind::Dial, &mut streams[1].1) };
    actions.extend((0..everybody).map(begin));
    let edits = streams[0].1.one_of(&[1_000, 3_000, 6_000]);
    let pauses = streams[3].1.one_of(&[2_000, 4_000, 7_000]);
    let steps = streams[0].1.one_of(&[40, 80, 120]);
    for _ in 0..steps {
        for (class, stream) in &mut streams {
            for (kind, chance) in usual(*class, edits, pauses) {
                if stream.chance(chance) {
                    actions.push(drawn(kind, stream));
                }
            }
            swarm.strike(*class, stream, &mut actions);
        }
    }
    Scenario { tier: Tier::Mesh, topology, actions }
}

/// What happens without faults, and how often in 10,000 steps.
fn usual(class: Class, edits: u64, pauses: u64) -> Vec<(Kind, u64)> {
    match class {
        Class::Workload => vec![(Kind::LocalEdit, edits), (Kind::Edit, edits)],
        Class::Network => vec![
            (Kind::Deliver, 6_000),
            (Kind::Deliver, 6_000),
            (Kind::Dial, 1_000),
            (Kind::Unclog, 700),
            (Kind::Heal, 700),
            (Kind::GoOnline, 700),
        ],
        Class::Clock => vec![(Kind::Advance, pauses)],
        Class::Disk | Class::Crash | Class::Hostile | Class::Access => Vec::new(),
    }
}

fn draw_topology(stream: &mut Stream) -> Topology {
    let nodes = stream.one_of(&[2_u8, 3, 3, 4, 5]);
    let upstream = (1..nodes).map(|node| stream.below(u64::from(node)) as u8).collect();
    let mut bit = |bit: u8, chance: u64| if stream.chance(chance) { bit } else { 0 };
    let tuning = bit(tuning::FEDERATION, 3_500)
        | bit(tuning::PARTIAL, 1_500)
        | bit(tuning::FEW_NEIGHBOURS, 2_000)
        | bit(tuning::FORGETFUL, 2_500)
        | bit(tuning::BAD_STAYS, 5_000);
    let clients = if tuning & tuning::FEDERATION != 0 { stream.one_of(&[1_u8, 2, 3]) } else { 0 };
    let clients = (0..clients).map(|_| stream.below(u64::from(nodes)) as u8).collect();
    Topology { upstream, clients, documents: stream.one_of(&[1, 2, 3]), tuning }
}

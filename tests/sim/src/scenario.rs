//! A world to be and everything that will happen in it: drawn from a seed, or read from text.
//!
//! Owns: topology, tuning, the schedule of actions, the text form in which a failure is kept as a test.
//! Must not: look at a world: what an action meets is decided when it is played.
//! Next: `action.rs`, `world.rs`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};

use crate::action::{Action, Class, Kind};
use crate::mesh;
use crate::random::Stream;

/// Said where tier T2 is asked for and was not built.
pub(crate) const NO_T2: &str = "the simulator was built without T2: install libclang and build with --features t2";

/// What documents are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Small forged changes and a plain client: cheap.
    T0,
    /// Real automerge documents.
    T1,
    /// The same, and the store that ships on disks that fail.
    T2,
    /// Real documents in a mesh, or on servers that federate.
    Mesh,
}

/// Who there is, how they are set up, and what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// What documents are made of.
    pub tier: Tier,
    pub(crate) topology: Topology,
    pub(crate) actions: Vec<Action>,
}

/// Who there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    /// For each machine after the first, the machine that it dials.
    pub(crate) upstream: Vec<u8>,
    /// For each client, the machine that it dials.
    pub(crate) clients: Vec<u8>,
    pub(crate) documents: u8,
    /// Bits: 1 clients begin with a common document, 2 the first client takes single changes only, 4 short queues,
    /// 8 little memory for graphs, 16 payloads one at a time, 32 machines compare their documents and greet those that
    /// differ, 64 the second machine is of an older version, 128 an actor belongs to who first writes as it.
    pub(crate) tuning: u8,
}

impl Topology {
    pub(crate) const SHARED_START: u8 = 1;
    pub(crate) const ONLY_V1: u8 = 2;
    pub(crate) const SHORT_QUEUES: u8 = 4;
    pub(crate) const LITTLE_MEMORY: u8 = 8;
    pub(crate) const ONE_PAYLOAD: u8 = 16;
    pub(crate) const COMPARES: u8 = 32;
    pub(crate) const OLDER: u8 = 64;
    pub(crate) const BINDS: u8 = 128;

    pub(crate) fn has(&self, bit: u8) -> bool {
        self.tuning & bit != 0
    }

    pub(crate) fn machines(&self) -> usize {
        self.upstream.len() + 1
    }

    fn draw(seed: u64, tier: Tier) -> Self {
        let mut stream = Stream::new(seed, "topology");
        let machines = stream.one_of(&[1u8, 1, 2, 2, 3]);
        let upstream = (1..machines).map(|machine| stream.below(u64::from(machine)) as u8).collect();
        let clients = stream.one_of(&[1u8, 2, 2, 2, 3]);
        let clients = (0..clients).map(|_| stream.below(u64::from(machines)) as u8).collect();
        let (documents, tuning) = (stream.one_of(&[1, 1, 1, 2]), stream.below(32) as u8);
        // Apart, so that what was drawn before there were rounds means the same.
        let mut native = Stream::new(seed, "native");
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let natively = bit(native.chance(5_000), Self::COMPARES) | bit(native.chance(2_000), Self::OLDER);
        let mut tuning = tuning | natively;
        if tier != Tier::T2 && Stream::new(seed, "binds").chance(2_500) {
            // What all begin with would be nobody's own.
            tuning = tuning & !Self::SHARED_START | Self::BINDS;
        }
        Self { upstream, clients, documents, tuning }
    }
}

/// How often each fault comes, in 10,000 steps.
pub(crate) struct Swarm(Vec<(Kind, u64)>);

impl Swarm {
    /// Each fault is in half of all scenarios, there with a rate of its own.
    pub(crate) fn draw(seed: u64, tier: Tier) -> Self {
        let mut stream = Stream::new(seed, "swarm");
        let faults = Kind::ALL.iter().copied().filter(|kind| kind.is_fault() && kind.is_of(tier));
        let drawn = faults.map(|kind| (kind, stream.chance(5_000), stream.one_of(&[60, 150, 400, 900])));
        Self(drawn.filter(|(_, on, _)| *on).map(|(kind, _, rate)| (kind, rate)).collect())
    }

    pub(crate) fn strike(&self, class: Class, stream: &mut Stream, actions: &mut Vec<Action>) {
        for (kind, rate) in self.0.iter().filter(|(kind, _)| kind.class() == class) {
            if stream.chance(*rate) {
                actions.push(drawn(*kind, stream));
            }
        }
    }
}

pub(crate) fn drawn(kind: Kind, stream: &mut Stream) -> Action {
    Action { kind, who: stream.below(256) as u8, value: stream.next() >> 20 }
}

impl Scenario {
    /// Whether an action of this kind stands in it.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.actions.iter().any(|action| action.kind == kind)
    }

    /// The scenario of a seed.
    #[must_use]
    pub fn draw(seed: u64, tier: Tier) -> Self {
        if tier == Tier::Mesh {
            return mesh::draw(seed);
        }
        let topology = Topology::draw(seed, tier);
        let swarm = Swarm::draw(seed, tier);
        let mut streams = Streams::new(seed);
        let mut actions = Vec::new();
        let dialling = topology.machines() + topology.clients.len();
        actions.extend((0..dialling).map(|who| Action { kind: Kind::Dial, who: who as u8, value: 0 }));
        let edits = streams.workload.one_of(&[1_000, 3_000, 6_000]);
        let deliveries = streams.network.one_of(&[1, 2, 4]);
        // The cheap tier plays more worlds instead of longer lives.
        let steps = match tier {
            Tier::T0 => streams.workload.one_of(&[20, 40, 60, 100]),
            Tier::T1 | Tier::T2 | Tier::Mesh => streams.workload.one_of(&[40, 80, 100, 140]),
        };
        for _ in 0..steps {
            streams.step(&swarm, edits, deliveries, &mut actions);
        }
        Self { tier, topology, actions }
    }
}

/// The streams of what happens. Each decides alone when its actions come, so that a change in one leaves the others.
struct Streams {
    workload: Stream,
    network: Stream,
    disk: Stream,
    clock: Stream,
    crash: Stream,
    hostile: Stream,
    native: Stream,
    access: Stream,
}

impl Streams {
    fn new(seed: u64) -> Self {
        let stream = |name| Stream::new(seed, name);
        Self {
            workload: stream("workload"),
            network: stream("network"),
            disk: stream("disk"),
            clock: stream("clock"),
            crash: stream("crash"),
            hostile: stream("hostile"),
            native: stream("rounds"),
            access: stream("access"),
        }
    }

    fn step(&mut self, swarm: &Swarm, edits: u64, deliveries: u64, actions: &mut Vec<Action>) {
        for kind in [Kind::Edit, Kind::LocalEdit] {
            if self.workload.chance(edits) {
                actions.push(drawn(kind, &mut self.workload));
            }
        }
        swarm.strike(Class::Workload, &mut self.workload, actions);
        for _ in 0..self.network.below(deliveries * 2 + 1) {
            actions.push(drawn(Kind::Deliver, &mut self.network));
        }
        for (kind, rate) in [(Kind::Dial, 2_000), (Kind::Unclog, 500)] {
            if self.network.chance(rate) {
                actions.push(drawn(kind, &mut self.network));
            }
        }
        swarm.strike(Class::Network, &mut self.network, actions);
        swarm.strike(Class::Disk, &mut self.disk, actions);
        if self.clock.chance(3_000) {
            actions.push(drawn(Kind::Advance, &mut self.clock));
        }
        swarm.strike(Class::Clock, &mut self.clock, actions);
        if self.crash.chance(300) {
            actions.push(drawn(Kind::Backup, &mut self.crash));
        }
        swarm.strike(Class::Crash, &mut self.crash, actions);
        swarm.strike(Class::Hostile, &mut self.hostile, actions);
        swarm.strike(Class::Access, &mut self.access, actions);
        if self.native.chance(800) {
            actions.push(drawn(Kind::Compare, &mut self.native));
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::T0 => "t0",
            Self::T1 => "t1",
            Self::T2 => "t2",
            Self::Mesh => "mesh",
        })
    }
}

impl FromStr for Tier {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "t0" => Ok(Self::T0),
            "t1" => Ok(Self::T1),
            "t2" if cfg!(feature = "t2") => Ok(Self::T2),
            "t2" => bail!(NO_T2),
            "mesh" => Ok(Self::Mesh),
            other => bail!("no such tier: {other}; there are t0, t1, t2 and mesh"),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Topology { upstream, clients, documents, tuning } = &self.topology;
        writeln!(f, "world {} {} {} {documents} {tuning}", self.tier, list(upstream), list(clients))?;
        self.actions.iter().try_for_each(|action| writeln!(f, "{action}"))
    }
}

impl FromStr for Scenario {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let words: Vec<&str> = lines.next().context("an empty scenario")?.split_whitespace().collect();
        let ["world", tier, upstream, clients, documents, tuning] = words[..] else {
            bail!("a scenario begins with its world");
        };
        let topology = Topology {
            upstream: numbers(upstream)?,
            clients: numbers(clients)?,
            documents: documents.parse()?,
            tuning: tuning.parse()?,
        };
        let dangling = topology.upstream.iter().enumerate().any(|(n, to)| usize::from(*to) > n)
            || topology.clients.iter().any(|to| usize::from(*to) >= topology.machines());
        if dangling || topology.documents == 0 {
            bail!("somebody dials a machine that is not there, or there is no document");
        }
        Ok(Self { tier: tier.parse()?, topology, actions: lines.map(str::parse).collect::<anyhow::Result<_>>()? })
    }
}

fn list(numbers: &[u8]) -> String {
    let words: Vec<String> = numbers.iter().map(u8::to_string).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(",") }
}

fn numbers(text: &str) -> anyhow::Result<Vec<u8>> {
    if text == "-" {
        return Ok(Vec::new());
    }
    text.split(',').map(|number| Ok(number.parse()?)).collect()
}

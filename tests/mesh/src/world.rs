//! All replicas, the network and time.
//!
//! Owns: the order of events, the workload, the faults, what is measured. Must not: help a replica.
//! Next: `node.rs`, `network.rs`, `outcome.rs`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use syncline_core::ChangeHash;
use syncline_core::id::{DocumentId, SessionId};
use syncline_core::limits::Limits;
use syncline_gossip::membership::Participation;
use syncline_gossip::{Address, MeshKey};

use crate::network::{Link, half};
use crate::node::{Act, Node, Setup, address_of, node_at};
use crate::outcome::Outcome;
use crate::plan::Plan;

mod authors;
mod measure;

use authors::Authors;
use measure::Measure;

/// Between two looks at the whole.
pub(crate) const SAMPLE: Duration = Duration::from_millis(250);

/// Addresses that each replica is given.
const GIVEN: usize = 3;

/// Something that happens at a time.
#[derive(Debug)]
enum Event {
    Frame { link: SessionId, to: usize, bytes: Bytes },
    Dialled { node: usize, starts: u32, address: Address },
    Persisted { node: usize, starts: u32, document: DocumentId, ticket: u64 },
    Closed { link: SessionId, node: usize },
    Wake { node: usize },
    Edit,
    Kill,
    Restart { node: usize },
    Split(bool),
    Sample,
}

fn setup(plan: &Plan) -> Setup {
    let (config, key) = (plan.config.clone(), MeshKey::open("simulation"));
    Setup { config, key, participation: Participation::All, open: false, limits: Limits::default() }
}

/// Plays a plan to its end.
#[must_use]
pub fn play(plan: &Plan) -> Outcome {
    World::new(plan).run()
}

struct World<'a> {
    plan: &'a Plan,
    now: Duration,
    nodes: Vec<Node>,
    links: BTreeMap<SessionId, Link>,
    next_link: u64,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    what: BTreeMap<u64, Event>,
    next_event: u64,
    split: bool,
    /// One stream of chance for each thing that happens, so that a change in one does not reshuffle the others.
    network: ChaCha8Rng,
    faults: ChaCha8Rng,
    workload: ChaCha8Rng,
    seeds: ChaCha8Rng,
    authors: Authors,
    measure: Measure,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan) -> Self {
        let stream = |number: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
            rng.set_stream(number);
            rng
        };
        let mut world = Self {
            plan,
            now: Duration::ZERO,
            nodes: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            next_event: 0,
            split: false,
            network: stream(1),
            faults: stream(2),
            workload: stream(3),
            seeds: stream(4),
            authors: Authors::new(plan),
            measure: Measure::default(),
        };
        for index in 0..plan.nodes {
            let (given, seed) = (world.given(), world.seed());
            world.nodes.push(Node::new(index, setup(plan), &given, seed));
        }
        world.schedule_plan();
        (0..plan.nodes).for_each(|node| world.drain(node));
        world
    }

    fn schedule_plan(&mut self) {
        let plan = self.plan;
        if let Some(split) = plan.split {
            self.at(split.at, Event::Split(true));
            self.at(split.at + split.length, Event::Split(false));
        }
        self.at(SAMPLE, Event::Sample);
        self.edit_later();
        self.kill_later();
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.seeds.fill_bytes(&mut seed);
        seed
    }

    fn given(&mut self) -> Vec<Address> {
        (0..GIVEN).map(|_| address_of(self.faults.random_range(0..self.plan.nodes))).collect()
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.events.push(Reverse((at, self.next_event)));
        self.what.insert(self.next_event, event);
        self.next_event += 1;
    }

    /// Exponentially distributed around so many in a second.
    fn pause(rng: &mut ChaCha8Rng, per_second: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - rng.random::<f64>()).ln() / per_second)
    }

    fn edit_later(&mut self) {
        if self.plan.edits_per_second > 0.0 {
            let at = self.now + Self::pause(&mut self.workload, self.plan.edits_per_second);
            self.at(at, Event::Edit);
        }
    }

    fn kill_later(&mut self) {
        let per_second = self.plan.churn_per_minute * self.plan.nodes as f64 / 60.0;
        if per_second > 0.0 {
            let at = self.now + Self::pause(&mut self.faults, per_second);
            self.at(at, Event::Kill);
        }
    }

    fn run(mut self) -> Outcome {
        let end = self.plan.duration + self.plan.settle;
        let mut settled = None;
        while let Some(Reverse((at, number))) = self.events.pop() {
            let Some(event) = self.what.remove(&number) else { continue };
            if at > end {
                break;
            }
            self.now = at;
            let sampled = matches!(event, Event::Sample);
            self.happen(event);
            if sampled && at > self.quiet_from() && self.is_agreed() {
                settled = Some(at.saturating_sub(self.quiet_from()));
                break;
            }
        }
        let agreed = settled.is_some();
        let (nodes, time) = (&mut self.nodes, self.now);
        let tallies = nodes.iter_mut().map(Node::final_tally).collect();
        self.measure.outcome(agreed, settled, tallies, time)
    }

    /// From when on nothing happens any more but what replicas do by themselves.
    fn quiet_from(&self) -> Duration {
        let healed = self.plan.split.map_or(Duration::ZERO, |split| split.at + split.length);
        self.plan.duration.max(healed)
    }

    fn is_agreed(&self) -> bool {
        let states = self.nodes.iter().map(|node| measure::state_of(node));
        let mut states = states.collect::<Vec<_>>();
        states.dedup();
        let everywhere = self.measure.is_everywhere(self.nodes.len());
        self.nodes.iter().all(|node| node.up) && states.len() == 1 && everywhere
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Frame { link, to, bytes } => {
                if self.links.contains_key(&link) {
                    self.nodes[to].receive(self.now, link, &bytes);
                    self.drain(to);
                }
            }
            Event::Dialled { node, starts, address } => self.dialled(node, starts, address),
            Event::Persisted { node, starts, document, ticket } => {
                if self.is_same(node, starts) {
                    self.nodes[node].persisted(self.now, document, ticket);
                    self.drain(node);
                }
            }
            Event::Closed { link, node } => {
                if self.nodes[node].up {
                    self.nodes[node].disconnected(self.now, link);
                    self.drain(node);
                }
            }
            Event::Wake { node } => {
                if self.nodes[node].up && self.nodes[node].wake_at.is_some_and(|at| at <= self.now) {
                    self.nodes[node].wake_at = None;
                    self.nodes[node].wake(self.now);
                    self.drain(node);
                }
            }
            Event::Edit => self.edit(),
            Event::Kill => self.kill(),
            Event::Restart { node } => {
                let (given, seed) = (self.given(), self.seed());
                self.nodes[node].restart(self.now, node, &given, seed);
                self.drain(node);
            }
            Event::Split(split) => self.cut(split),
            Event::Sample => {
                self.measure.sample(self.now, &self.nodes);
                self.at(self.now + SAMPLE, Event::Sample);
            }
        }
    }

    fn is_same(&self, node: usize, starts: u32) -> bool {
        self.nodes[node].up && self.nodes[node].starts == starts
    }

    fn edit(&mut self) {
        if self.now < self.plan.duration {
            if let Some((node, document, change)) = self.authors.edit(&self.nodes, self.now, &mut self.workload) {
                self.nodes[node].change(self.now, document, vec![change]);
                self.drain(node);
            }
            self.edit_later();
        }
    }

    fn kill(&mut self) {
        if self.now >= self.plan.duration {
            return;
        }
        let node = self.faults.random_range(0..self.nodes.len());
        if self.nodes[node].up {
            self.measure.kills += 1;
            self.nodes[node].kill();
            let links: Vec<SessionId> =
                self.links.iter().filter(|(_, link)| link.ends.contains(&node)).map(|(number, _)| *number).collect();
            links.into_iter().for_each(|link| self.close(link, node));
            let down = Duration::from_millis(self.faults.random_range(1_000..10_000));
            self.at(self.now + down, Event::Restart { node });
        }
        self.kill_later();
    }

    /// Cuts the network, or makes it whole. What is on its way across is lost, and nobody is told.
    fn cut(&mut self, split: bool) {
        self.split = split;
        if !split {
            self.measure.healed_at = self.now;
        }
    }

    fn can_reach(&self, from: usize, to: usize) -> bool {
        !self.split || half(from) == half(to)
    }

    fn dialled(&mut self, node: usize, starts: u32, address: Address) {
        if !self.is_same(node, starts) {
            return;
        }
        let there = node_at(&address).filter(|to| self.nodes[*to].up && self.can_reach(node, *to));
        let Some(to) = there else {
            self.nodes[node].dial_failed(self.now, address);
            return self.drain(node);
        };
        let link = SessionId(self.next_link);
        self.next_link += 1;
        let (from, until) = self.plan.latency;
        let latency =
            Duration::from_micros(self.network.random_range(from.as_micros() as u64..=until.as_micros() as u64));
        self.links.insert(link, Link::new([node, to], latency));
        self.nodes[node].connected(self.now, link, Some(address));
        if to != node {
            self.nodes[to].connected(self.now, link, None);
            self.drain(to);
        }
        self.drain(node);
    }

    /// One end has closed, or is gone: the other hears of it, if it can.
    fn close(&mut self, link: SessionId, by: usize) {
        let Some(closed) = self.links.remove(&link) else { return };
        let other = if closed.ends[0] == by { closed.ends[1] } else { closed.ends[0] };
        self.at(self.now, Event::Closed { link, node: by });
        if self.can_reach(by, other) {
            self.at(self.now + closed.latency(), Event::Closed { link, node: other });
        }
    }

    /// Carries out what a node wants.
    fn drain(&mut self, node: usize) {
        while let Some(act) = self.nodes[node].poll_act() {
            match act {
                Act::Frame { link, bytes, may_be_lost } => self.carry(node, link, bytes, may_be_lost),
                Act::Dial(address) => {
                    let wait = Duration::from_millis(self.network.random_range(5..50));
                    let starts = self.nodes[node].starts;
                    self.at(self.now + wait, Event::Dialled { node, starts, address });
                }
                Act::Close(link) => {
                    // What was said before is still read by the other.
                    self.linger(link, node);
                }
                Act::Persist { document, ticket } => {
                    let wait = Duration::from_micros(self.network.random_range(1_000..10_000));
                    let starts = self.nodes[node].starts;
                    // A store commits in the order in which it was asked.
                    let at = self.nodes[node].disk_at.max(self.now + wait);
                    self.nodes[node].disk_at = at;
                    self.at(at, Event::Persisted { node, starts, document, ticket });
                }
                Act::Durable { changes, .. } => self.durable(node, &changes),
                // A node that dials itself has one session for both ends here, which hears its own join.
                Act::Refused { kind: "expected_peer", .. } => {}
                Act::Refused { kind, .. } => panic!("something honest was refused: {kind}"),
            }
        }
        let wake = self.nodes[node].next_wake().map(|at| at.max(self.now));
        if let Some(at) = wake
            && self.nodes[node].up
            && self.nodes[node].wake_at.is_none_or(|before| at < before)
        {
            self.nodes[node].wake_at = Some(at);
            self.at(at, Event::Wake { node });
        }
    }

    fn durable(&mut self, node: usize, hashes: &[ChangeHash]) {
        for hash in hashes {
            let author = self.authors.author_of(hash).expect("nobody has what nobody made");
            if author == node {
                self.measure.made(self.now, *hash);
            } else {
                let author_up_at = self.nodes[author].up_at;
                self.measure.arrived(self.now, &mut self.nodes[node], *hash, author_up_at);
            }
        }
    }

    fn carry(&mut self, from: usize, number: SessionId, bytes: Bytes, may_be_lost: bool) {
        let Some(ends) = self.links.get(&number).map(|link| link.ends) else { return };
        let to = if ends[0] == from { ends[1] } else { ends[0] };
        if !self.can_reach(from, to) {
            return;
        }
        let Some(link) = self.links.get_mut(&number) else { return };
        if let Some(at) = link.arrival(self.now, from, (self.plan.loss, may_be_lost), &mut self.network) {
            self.at(at, Event::Frame { link: number, to, bytes });
        }
    }

    /// Closes a link once what is on its way has had time to arrive.
    fn linger(&mut self, link: SessionId, by: usize) {
        let Some(state) = self.links.get(&link) else { return };
        let other = if state.ends[0] == by { state.ends[1] } else { state.ends[0] };
        let wait = state.latency() * 2;
        self.at(self.now, Event::Closed { link, node: by });
        if self.can_reach(by, other) {
            self.at(self.now + wait, Event::Closed { link, node: other });
        }
    }
}

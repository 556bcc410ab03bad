//! Members of a mesh, and servers that federate, in one thread and from one tape of actions.
//!
//! Owns: who there is, playing a scenario from its beginning to its end. Must not: draw anything while it plays.
//! Next: `mesh/scenario.rs` what is drawn, `mesh/act.rs` what each action does, `mesh/traffic.rs` links and time,
//! `mesh/local.rs` applications and disks, `mesh/bad.rs` peers that mean harm, `mesh/quiet.rs` what must hold in the end.
//!
//! A node is that of the crate `syncline-mesh-sim`: the hub, the sessions, the comparison of collections and the overlay
//! that ship.

mod act;
mod bad;
mod client;
mod local;
mod quiet;
mod scenario;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use automerge::ChangeHash;
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;
use syncline_gossip::membership::Participation;
use syncline_gossip::{Address, Config, MeshKey};
use syncline_mesh_sim::node::{Node, Setup, address_of};

use crate::action::Action;
use crate::client::Client;
use crate::log::Log;
use crate::oracle::{Checked, Oracle};
use crate::scenario::{Scenario, Tier, Topology};

use bad::Bad;
use local::App;
use traffic::{Dial, Link, Write};

pub(crate) use scenario::{SHARED, draw};

/// Bits of a world's tuning.
pub(crate) mod tuning {
    /// Nodes are servers: they serve stock clients, and each other as members.
    pub(crate) const FEDERATION: u8 = 1;
    /// The last of three or more nodes takes part in the first document only.
    pub(crate) const PARTIAL: u8 = 2;
    /// Nodes want one neighbour and take two.
    pub(crate) const FEW_NEIGHBOURS: u8 = 4;
    /// Nodes keep and remember next to nothing of notices.
    pub(crate) const FORGETFUL: u8 = 8;
    /// Who means harm stays until the others agree.
    pub(crate) const BAD_STAYS: u8 = 16;
}

/// The whole of it.
pub(crate) struct World {
    pub(crate) log: Log,
    topology: Topology,
    documents: Vec<DocumentId>,
    now: Duration,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    bad: Bad,
    /// What each node's application has in memory, by document.
    apps: Vec<Vec<App>>,
    /// What each node has made durable, by document.
    held: Vec<Vec<BTreeSet<ChangeHash>>>,
    /// Which node's application made a change.
    authors: BTreeMap<ChangeHash, usize>,
    /// Changes that were durable at their author, or left a client.
    saved: BTreeSet<ChangeHash>,
    oracle: Oracle,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    dials: VecDeque<Dial>,
    writes: Vec<VecDeque<Write>>,
    /// When each node is to be woken, and how often it was at this moment.
    wakes: Vec<(Option<Duration>, u32)>,
    /// When each node that is down starts again.
    restarts: Vec<Option<Duration>>,
    /// Which nodes are on the other side of a cut.
    apart: Option<u64>,
    /// A node's next write fails.
    full: Vec<bool>,
    /// A node's disk takes nothing until then.
    stalled: Vec<Duration>,
    /// Something happened after which honest nodes may refuse what is honest: writes failed or clocks were set.
    excused: BTreeSet<&'static str>,
    settling: bool,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, traced: bool) -> Self {
        let topology = scenario.topology.clone();
        let (count, documents) = (topology.machines(), usize::from(topology.documents));
        let ids = (0..documents).map(|number| {
            let mut bytes = [0x5c; 16];
            bytes[0] = number as u8;
            DocumentId::from_bytes(&bytes).expect("16 bytes")
        });
        let documents: Vec<DocumentId> = ids.collect();
        let setup = |node| setup(&topology, node, &documents);
        let nodes = (0..count).map(|number| {
            let mut node = Node::new(number, setup(number), &[], [0; 32]);
            node.kill();
            node
        });
        let nodes: Vec<Node> = nodes.collect();
        let clients = topology
            .clients
            .iter()
            .enumerate()
            .map(|(number, server)| Client::new(number, usize::from(*server), Tier::Mesh, documents.len(), false));
        Self {
            log: Log::new(traced),
            clients: clients.collect(),
            nodes,
            bad: Bad::default(),
            apps: (0..count).map(|node| documents.iter().map(|_| App::new(node)).collect()).collect(),
            held: vec![vec![BTreeSet::new(); documents.len()]; count],
            authors: BTreeMap::new(),
            saved: BTreeSet::new(),
            oracle: Oracle::default(),
            links: BTreeMap::new(),
            next_link: 1,
            dials: VecDeque::new(),
            writes: vec![VecDeque::new(); count],
            wakes: vec![(None, 0); count],
            restarts: vec![None; count],
            apart: None,
            full: vec![false; count],
            stalled: vec![Duration::ZERO; count],
            excused: BTreeSet::new(),
            settling: false,
            now: Duration::ZERO,
            documents,
            topology,
        }
    }

    /// Plays all actions, then mends what was broken from outside, and checks the end.
    pub(crate) fn play(&mut self, actions: &[Action]) -> Checked {
        actions.iter().try_for_each(|action| self.act(*action))?;
        self.settle()
    }

    fn has(&self, bit: u8) -> bool {
        self.topology.has(bit)
    }

    /// The address that a node is given at each start.
    fn given(&self, node: usize) -> Vec<Address> {
        let upstream = node.checked_sub(1).map(|at| usize::from(self.topology.upstream[at]));
        upstream.into_iter().map(address_of).collect()
    }
}

fn key() -> MeshKey {
    MeshKey::open("simulation")
}

fn setup(topology: &Topology, node: usize, documents: &[DocumentId]) -> Setup {
    let mut config = Config::default();
    if topology.has(tuning::FEW_NEIGHBOURS) {
        (config.neighbours_wanted, config.neighbours_max) = (1, 2);
    }
    if topology.has(tuning::FORGETFUL) {
        (config.kept_max, config.authors_max, config.missing_max, config.waiting_max) = (1, 2, 1, 2);
    }
    // A server's clients write in any document.
    let may_be = topology.has(tuning::PARTIAL) && !topology.has(tuning::FEDERATION) && topology.machines() > 2;
    let partial = may_be && node + 1 == topology.machines();
    let participation = match documents.first().filter(|_| partial) {
        Some(first) => Participation::Only(BTreeSet::from([first.clone()])),
        None => Participation::All,
    };
    Setup { config, key: key(), participation, open: topology.has(tuning::FEDERATION), limits: Limits::default() }
}

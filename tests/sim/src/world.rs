//! Machines, clients, links, and one thing that happens at a time.
//!
//! Owns: the parts of a world and how a scenario is played. Must not: draw anything at random.
//! Next: `world/act.rs` (what an action does), `world/deliver.rs` (what is under way), `world/hub.rs` (one hub's
//! inputs and outputs), `world/quiet.rs` (what must hold in the end).

mod access;
mod act;
mod client;
mod collection;
mod deliver;
mod hostile;
mod hub;
mod life;
mod link;
mod local;
mod quiet;
mod real;
mod subject;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use syncline_core::id::DocumentId;

use crate::action::Action;
use crate::client::Client;
use crate::content::Content;
use crate::log::Log;
use crate::machine::Machine;
use crate::oracle::{Checked, Oracle};
use crate::scenario::{Scenario, Tier, Topology};
use crate::subject::Subject;

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    tier: Tier,
    topology: Topology,
    /// Time that has passed.
    now_ms: u64,
    documents: Vec<DocumentId>,
    texts: BTreeMap<String, usize>,
    machines: Vec<Machine>,
    clients: Vec<Client>,
    hostile: hostile::Hostile,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    oracle: Oracle,
    /// How often a document was deleted or restored.
    decisions: u64,
    access: access::AccessWorld,
    /// What replicas do, if it is not the simulator's own edits.
    pub(crate) subject: Option<Arc<Subject>>,
    pub(crate) log: Log,
}

/// Hashes what is written.
#[derive(Default)]
struct DebugHasher(DefaultHasher);

impl fmt::Write for DebugHasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialler {
    Client(usize),
    Machine(usize),
    Hostile,
}

/// A connection: ordered and reliable while it lasts.
#[derive(Debug)]
struct Link {
    dialler: Dialler,
    acceptor: usize,
    /// Frames from the dialler.
    up: VecDeque<Bytes>,
    /// Frames to the dialler.
    down: VecDeque<Bytes>,
    clogged_up: bool,
    clogged_down: bool,
    /// Whether each end believes in it.
    dialler_there: bool,
    acceptor_there: bool,
    /// The dialler does not notice that the other end is gone, nor the other way round, until something happens.
    half_open: bool,
    /// Frames that were written to the dialler, ever.
    written: u64,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, traced: bool) -> Self {
        let Scenario { tier, topology, .. } = scenario;
        let count = usize::from(topology.documents);
        let documents: Vec<DocumentId> =
            (0..count).map(|n| DocumentId::from_bytes(&[n as u8 + 1; 16]).expect("16 bytes")).collect();
        let mut world = Self {
            tier: *tier,
            topology: topology.clone(),
            now_ms: 0,
            texts: documents.iter().enumerate().map(|(n, id)| (id.to_string(), n)).collect(),
            documents,
            machines: (0..topology.machines()).map(|n| Machine::new(n, topology)).collect(),
            clients: Vec::new(),
            hostile: hostile::Hostile::default(),
            links: BTreeMap::new(),
            next_link: 1,
            oracle: Oracle::default(),
            decisions: 0,
            access: access::AccessWorld::default(),
            subject: None,
            log: Log::new(traced),
        };
        world.insert_disks();
        let only_v1 = topology.has(Topology::ONLY_V1);
        let clients = topology.clients.iter().enumerate();
        world.clients =
            clients.map(|(n, to)| Client::new(n, usize::from(*to), *tier, count, only_v1 && n == 0)).collect();
        if topology.has(Topology::SHARED_START) {
            world.share_start();
        }
        world
    }

    /// All clients begin with the same document.
    fn share_start(&mut self) {
        for document in 0..self.documents.len() {
            let mut content = Content::new(self.tier, &[document as u8 + 1; 16]);
            for random in 0..2 {
                content.edit(random, &mut self.oracle);
            }
            for client in &mut self.clients {
                let own = client.fresh_actor();
                client.documents[document].content = content.clone();
                client.documents[document].content.set_actor(&own);
            }
        }
    }

    /// Everybody dials and says what it has; nothing is left under way.
    pub(crate) fn start_connected(&mut self) -> Checked {
        self.start_apps()?;
        (0..self.clients.len()).for_each(|client| self.dial_client(client));
        while self.deliver(0)? {}
        Ok(())
    }

    /// A hash of everything that decides what can happen next.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DebugHasher::default();
        let everything = (&self.machines, &self.clients, &self.links);
        // Writing into a hash cannot fail.
        let _ = write!(hasher, "{everything:?}");
        hasher.0.finish()
    }

    /// Calls that the first machine's disk has not synced.
    pub(crate) fn calls_waiting(&self) -> usize {
        self.machines[0].disk.calls.len()
    }

    /// Plays a scenario to its end and checks what must hold then.
    pub(crate) fn play(&mut self, actions: &[Action]) -> Checked {
        self.begin_subject()?;
        self.start_apps()?;
        for (step, action) in actions.iter().enumerate() {
            self.log.note(step, action.kind.name(), &action.value.to_le_bytes());
            self.act(*action)?;
            self.check_subject_always()?;
        }
        self.settle()
    }
}

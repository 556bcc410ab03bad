//! One plan, from its beginning to what must hold in the end.
//!
//! Owns: the simulated network, when faults begin and end, the checks. Must not: draw anything.
//! Next: `plan.rs`, `client.rs`, `server.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use automerge::ChangeHash;
use syncline_core::id::DocumentId;
use syncline_replica::metrics::Shard;
use syncline_store::{Options, Store, check};
use turmoil::Sim;

use crate::client::{self, Client, Orders, Shared};
use crate::frame;
use crate::plan::{Fault, Plan, Strike};
use crate::server::{self, Counters};

/// How exactly time passes.
const TICK: Duration = Duration::from_millis(5);

/// Simulated time within which all agree once every fault is over: a client may first have to find its connection dead.
const AGREEMENT_WITHIN: Duration = Duration::from_secs(240);

/// Simulated time within which a server forgets peers and documents that are gone.
const FORGETTING_WITHIN: Duration = Duration::from_secs(240);

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Which faults came how often.
    pub faults: BTreeMap<Fault, u64>,
    /// Changes that were acknowledged.
    pub acknowledged: usize,
    /// Simulated time that it took.
    pub simulated: Duration,
}

struct World<'a> {
    sim: Sim<'a>,
    clients: Vec<Shared>,
    orders: Arc<Orders>,
    counters: Counters,
    outcome: Outcome,
}

/// Plays a plan.
///
/// # Errors
/// What did not hold.
pub fn play(plan: &Plan) -> anyhow::Result<Outcome> {
    let panics = count_panics();
    let directory = tempfile::tempdir()?;
    let ids: Vec<String> = (0..plan.documents).map(|n| frame::document_id([n as u8 + 1; 16])).collect();
    let mut world = World::new(plan, directory.path(), &ids);
    world.work(plan)?;
    world.until(AGREEMENT_WITHIN, "all agree", World::agree)?;
    let expected = world.check_agreement()?;
    world.orders.leave.store(true, Ordering::Relaxed);
    world.until(FORGETTING_WITHIN, "the server forgets peers and documents", World::is_forgotten)?;
    world.sim.crash(server::NAME);
    world.outcome.simulated = world.sim.elapsed();
    ensure!(panics.load(Ordering::Relaxed) == 0, "{} panics", panics.load(Ordering::Relaxed));
    check_store(directory.path(), &ids, &expected)?;
    Ok(world.outcome)
}

impl World<'_> {
    fn new(plan: &Plan, data: &Path, ids: &[String]) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(40))
            .tcp_capacity(64 * 1024)
            .build();
        let (counters, orders) = (Counters::default(), Arc::<Orders>::default());
        let (data, shown) = (data.to_owned(), Arc::clone(&counters));
        sim.host(server::NAME, move || server::run(data.clone(), Arc::clone(&shown)));
        let mut clients = Vec::new();
        for number in 0..plan.clients {
            let client: Shared = Arc::new(Mutex::new(Client::new(number, plan, ids)));
            clients.push(Arc::clone(&client));
            let orders = Arc::clone(&orders);
            sim.host(name(number), move || client::run(Arc::clone(&client), Arc::clone(&orders)));
        }
        Self { sim, clients, orders, counters, outcome: Outcome::default() }
    }

    /// Everybody writes while links and the server fail; then every fault is over.
    fn work(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let mut waiting: Vec<Strike> = plan.strikes.clone();
        let mut going: Vec<Strike> = Vec::new();
        while self.sim.elapsed() < plan.work || !waiting.is_empty() || !going.is_empty() {
            let now = self.sim.elapsed();
            self.orders.rest.store(now >= plan.work, Ordering::Relaxed);
            let (due, later) = waiting.into_iter().partition(|strike: &Strike| strike.from <= now);
            waiting = later;
            for strike in due {
                let strike: Strike = strike;
                self.begin(strike);
                going.push(strike);
            }
            let (over, lasting): (Vec<Strike>, Vec<Strike>) = going.into_iter().partition(|strike| strike.until <= now);
            going = lasting;
            over.into_iter().for_each(|strike| self.end(strike, &going));
            self.step()?;
        }
        self.orders.rest.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn begin(&mut self, strike: Strike) {
        *self.outcome.faults.entry(strike.fault).or_default() += 1;
        let client = name(strike.client);
        match strike.fault {
            Fault::Partition => self.sim.partition(client, server::NAME),
            Fault::ClientUnheard => self.sim.partition_oneway(client, server::NAME),
            Fault::ServerUnheard => self.sim.partition_oneway(server::NAME, client),
            Fault::Hold => self.sim.hold(client, server::NAME),
            Fault::Slow => {
                self.sim.set_link_max_message_latency(client, server::NAME, Duration::from_secs(1));
            }
            Fault::Crash => self.sim.crash(server::NAME),
        }
    }

    /// Ends a fault; those of the same link that last begin anew.
    fn end(&mut self, strike: Strike, going: &[Strike]) {
        let client = name(strike.client);
        match strike.fault {
            Fault::Crash if going.iter().any(|other| other.fault == Fault::Crash) => return,
            Fault::Crash => self.sim.bounce(server::NAME),
            Fault::Slow => {
                self.sim.set_link_max_message_latency(client, server::NAME, Duration::from_millis(40));
            }
            Fault::Hold => self.sim.release(client, server::NAME),
            Fault::Partition | Fault::ClientUnheard | Fault::ServerUnheard => self.sim.repair(client, server::NAME),
        }
        let same = |other: &&Strike| other.client == strike.client && other.fault != Fault::Crash;
        let faults: BTreeMap<Fault, u64> = self.outcome.faults.clone();
        for other in going.iter().filter(same) {
            self.begin(*other);
        }
        self.outcome.faults = faults;
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let stepped = self.sim.step();
        stepped.map(drop).map_err(|error| anyhow::anyhow!("a host ended: {error}"))
    }

    fn until(&mut self, within: Duration, what: &str, holds: fn(&mut Self) -> bool) -> anyhow::Result<()> {
        let until = self.sim.elapsed() + within;
        while !holds(self) {
            ensure!(self.sim.elapsed() < until, "{what}: not within {within:?}");
            // To ask is dearer than to let time pass.
            for _ in 0..20 {
                self.step()?;
            }
        }
        Ok(())
    }

    fn agree(&mut self) -> bool {
        let same = self.clients.windows(2).all(|pair| heads(&pair[0]) == heads(&pair[1]));
        same && self.clients.iter().all(|client| client::lock(client).agrees())
    }

    /// Equal values, and nothing that was acknowledged is gone; the changes of each document.
    fn check_agreement(&mut self) -> anyhow::Result<Vec<BTreeSet<ChangeHash>>> {
        let mut first = client::lock(&self.clients[0]);
        let documents = first.held.iter_mut();
        let held: Vec<_> = documents
            .map(|held| {
                let hashes: BTreeSet<ChangeHash> =
                    held.doc.get_changes(&[]).iter().map(automerge::Change::hash).collect();
                (hashes, held.doc.document().hydrate(None))
            })
            .collect();
        drop(first);
        for client in &self.clients {
            let mut client = client::lock(client);
            for (mine, (hashes, values)) in client.held.iter_mut().zip(&held) {
                let lost = mine.acknowledged.difference(hashes).next();
                ensure!(lost.is_none(), "{lost:?} was acknowledged and is gone");
                ensure!(mine.doc.document().hydrate(None) == *values, "equal heads and other values");
                self.outcome.acknowledged += mine.acknowledged.len();
            }
        }
        Ok(held.into_iter().map(|(hashes, _)| hashes).collect())
    }

    fn is_forgotten(&mut self) -> bool {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.as_ref().is_some_and(|metrics| {
            let documents = (0..8).map(|shard| metrics.documents.get_or_create(&Shard { shard }).get()).sum::<i64>();
            metrics.connections.get() == 0 && documents == 0
        })
    }
}

fn name(client: usize) -> String {
    format!("client-{client}")
}

fn heads(client: &Shared) -> Vec<Vec<ChangeHash>> {
    client::lock(client).held.iter_mut().map(|held| held.doc.get_heads()).collect()
}

/// The files that the server left are sound, and hold every change.
fn check_store(data: &Path, ids: &[String], expected: &[BTreeSet<ChangeHash>]) -> anyhow::Result<()> {
    // The threads of the store that died take real time to end.
    let store = loop {
        match Store::open(data, Options::default()) {
            Err(syncline_store::StoreError::InUse { .. }) => std::thread::yield_now(),
            opened => break opened?,
        }
    };
    for (id, expected) in ids.iter().zip(expected) {
        let id: DocumentId = id.parse().context("our own document id")?;
        let stored = store.graph(&id)?;
        let graph = stored.map(|stored| syncline_core::graph::Graph::from_stored(&stored, 0)).transpose()?;
        let hashes: BTreeSet<ChangeHash> =
            graph.iter().flat_map(|graph| (0..graph.len()).map(|node| graph.hash(node))).collect();
        ensure!(hashes == *expected, "the store has {} changes of {}", hashes.len(), expected.len());
    }
    store.close()?;
    let report = check(data)?;
    if !report.is_clean() {
        bail!("the check finds {:?}", report.listed);
    }
    Ok(())
}

/// Tasks that panic end alone: they are counted instead.
fn count_panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(info);
        }));
    });
    &PANICS
}

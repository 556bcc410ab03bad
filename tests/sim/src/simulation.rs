//! The simulator for applications: an author's own document code under partitions, restarts and merges.
//!
//! Owns: the public builder, the story of a failure. Must not: have a world of its own; `world.rs` is the only one.
//! Next: `subject.rs`, `run.rs`, `shrink.rs`.

use std::sync::Arc;

use automerge::{AutoCommit, Automerge, AutomergeError};

use crate::action::Kind;
use crate::oracle::Violation;
use crate::run::run_subject;
use crate::scenario::{Scenario, Tier, Topology};
use crate::shrink::shrink_by;
use crate::subject::{Choices, Subject};

/// Most runs that are spent on making a failure short.
const SHRINK_RUNS_MAX: usize = 3_000;

/// Tests an application's document code: several replicas act on one document at random, offline and online, over
/// connections that break and stall, on machines that lose power and disks that fail, with the engine that ships
/// between them. Whatever happens follows from a seed alone.
///
/// The author's code works on anything that is [`Transactable`](automerge::transaction::Transactable), so the same
/// functions run in `Document::change` and here.
///
/// ```
/// use automerge::{AutomergeError, ROOT, ReadDoc, transaction::Transactable};
/// use syncline_sim::Simulation;
///
/// fn count(doc: &mut impl Transactable) -> Result<String, AutomergeError> {
///     doc.increment(ROOT, "likes", 1)?;
///     Ok("like".to_owned())
/// }
///
/// Simulation::new(|doc, _| count(doc))
///     .begin(|doc| doc.put(ROOT, "likes", automerge::ScalarValue::counter(0)))
///     .finally("every like counts", |doc, done| {
///         let likes = doc.get(ROOT, "likes").ok().flatten().and_then(|(value, _)| value.as_i64());
///         (likes == Some(done.len() as i64)).then_some(()).ok_or(format!("{likes:?} of {}", done.len()))
///     })
///     .run(50);
/// ```
#[derive(Debug)]
#[must_use = "a simulation does nothing until it is run"]
pub struct Simulation(Subject);

/// How a simulation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The first seed that fails.
    pub seed: u64,
    /// The name of the check that does not hold, of the author's or of the engine's own.
    pub check: String,
    /// What was seen.
    pub detail: String,
    /// The shortest way there that was found: what each replica did and what befell it, one line each.
    pub story: Vec<String>,
}

impl Simulation {
    /// A simulation of replicas that each do this now and then. The closure changes the document and says what it did,
    /// for the story and for [`Simulation::finally`]. An error of it is a failure of the simulation.
    pub fn new(
        act: impl Fn(&mut AutoCommit, &mut Choices) -> Result<String, AutomergeError> + Send + Sync + 'static,
    ) -> Self {
        Self(Subject { begin: None, act: Box::new(act), always: Vec::new(), finally: Vec::new() })
    }

    /// What the document has in it before anybody works with it, as an application's `create` does. Without it every
    /// replica begins with an empty document.
    pub fn begin(
        mut self,
        fill: impl Fn(&mut AutoCommit) -> Result<(), AutomergeError> + Send + Sync + 'static,
    ) -> Self {
        self.0.begin = Some(Box::new(fill));
        self
    }

    /// What must hold on every replica after every step.
    pub fn always(
        mut self,
        name: &'static str,
        check: impl Fn(&Automerge) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.0.always.push((name, Box::new(check)));
        self
    }

    /// What must hold once all replicas have met and agree. The check is given what was done, in the order in which it
    /// was, without what was lost with the only disk that had it.
    pub fn finally(
        mut self,
        name: &'static str,
        check: impl Fn(&Automerge, &[String]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.0.finally.push((name, Box::new(check)));
        self
    }

    /// Plays the seeds from 0 on.
    ///
    /// # Panics
    /// At the first that fails, with its story: this is for tests. [`Simulation::find`] is for the rest.
    pub fn run(self, seeds: u64) {
        if let Some(Failure { seed, check, detail, story }) = self.find(0, seeds) {
            panic!("seed {seed}: {check}: {detail}\n{}", story.join("\n"));
        }
    }

    /// The first failure in `seeds` seeds from `from` on.
    #[must_use]
    pub fn find(self, from: u64, seeds: u64) -> Option<Failure> {
        let subject = Arc::new(self.0);
        (from..from.saturating_add(seeds)).find_map(|seed| play(seed, &subject))
    }
}

fn play(seed: u64, subject: &Arc<Subject>) -> Option<Failure> {
    let scenario = scenario(seed);
    let fails = |scenario: &Scenario| run_subject(scenario, Some(subject), false).violation;
    fails(&scenario)?;
    let small = shrink_by(&scenario, SHRINK_RUNS_MAX, fails);
    let outcome = run_subject(&small, Some(subject), true);
    let Violation { checker, detail } = outcome.violation?;
    let untold = [Kind::Deliver, Kind::Edit, Kind::LocalEdit].map(Kind::name);
    let is_told = |line: &String| !untold.iter().any(|name| line.starts_with(name)) && !line.starts_with(' ');
    let story = outcome.trace.into_iter().filter(is_told).collect();
    Some(Failure { seed, check: checker.to_owned(), detail, story })
}

/// The scenario of a seed, without the hostile peer and without what takes away a document that begins with something.
fn scenario(seed: u64) -> Scenario {
    let mut scenario = Scenario::draw(seed, Tier::T1);
    scenario.topology.documents = 1;
    scenario.topology.tuning &= !Topology::BINDS;
    let left_out = [
        Kind::HostileAct,
        Kind::Ephemeral,
        Kind::Subscribe,
        Kind::LoseDisk,
        Kind::ClientLoss,
        Kind::AccessChange,
        Kind::TokenEnds,
        Kind::Quota,
        Kind::RoomEnds,
    ];
    scenario.actions.retain(|action| !left_out.contains(&action.kind));
    scenario
}

//! Many scenarios on all processors, and what came of them.
//!
//! Owns: handing out seeds, the budget, the double runs, the summary. Must not: stop at the first failure unless asked.
//! Next: `run.rs`, `main.rs`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::action::Kind;
use crate::log::Coverage;
use crate::oracle::Violation;
use crate::run::run;
use crate::scenario::{Scenario, Tier};

/// Threads of this name have their panics turned into outcomes.
pub(crate) const WORKER: &str = "simulation";

/// One of so many seeds is played twice.
const TWICE: u64 = 100;

/// Seeds after which every fault must have come at least once.
const FAULTS_DUE: u64 = 2_000;

/// What to play.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// What documents are made of.
    pub tier: Tier,
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Ends earlier after this time.
    pub budget: Option<Duration>,
    /// Threads.
    pub threads: usize,
    /// Failures after which it ends.
    pub failures_max: usize,
    /// Plays every seed twice, and compares.
    pub double: bool,
    /// Plays only seeds in whose scenarios all of these stand.
    pub with: Vec<Kind>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds played.
    pub seeds: u64,
    /// Of these, played twice with the same result.
    pub doubled: u64,
    /// Time taken.
    pub elapsed: Duration,
    /// Seeds that failed, and why.
    pub failures: Vec<(u64, Violation)>,
    coverage: Coverage,
    tier: Option<Tier>,
}

impl Summary {
    /// Faults that never came although so many seeds were played that they should have.
    #[must_use]
    pub fn missing_faults(&self) -> Vec<&'static str> {
        if self.seeds < FAULTS_DUE {
            return Vec::new();
        }
        let never = self.tier.map(|tier| self.coverage.never(tier));
        never.unwrap_or_default().into_iter().map(Kind::name).collect()
    }

    /// Which fault met which state how often, as a table in Markdown.
    #[must_use]
    pub fn coverage(&self) -> String {
        self.tier.map(|tier| self.coverage.table(tier)).unwrap_or_default()
    }

    /// Whether nothing failed and nothing was missed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.missing_faults().is_empty()
    }
}

impl Campaign {
    /// Plays the seeds.
    ///
    /// # Panics
    /// When no thread can be started.
    #[must_use]
    pub fn run(&self) -> Summary {
        let started = Instant::now();
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let summary = Mutex::new(Summary::default());
        std::thread::scope(|scope| {
            for number in 0..self.threads.max(1) {
                let worker = std::thread::Builder::new().name(format!("{WORKER}-{number}"));
                let work = || self.work(started, &next, &stop, &summary);
                worker.spawn_scoped(scope, work).expect("a thread starts");
            }
        });
        let mut summary = summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        summary.elapsed = started.elapsed();
        summary.tier = Some(self.tier);
        summary.failures.sort_by_key(|(seed, _)| *seed);
        summary
    }

    fn work(&self, started: Instant, next: &AtomicU64, stop: &AtomicBool, summary: &Mutex<Summary>) {
        let mut own = Summary::default();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.seeds || self.budget.is_some_and(|budget| started.elapsed() >= budget) {
                break;
            }
            let seed = self.from + number;
            let scenario = Scenario::draw(seed, self.tier);
            if !self.with.iter().all(|kind| scenario.has(*kind)) {
                continue;
            }
            let violation = self.play(seed, &scenario, &mut own);
            own.seeds += 1;
            if let Some(violation) = violation {
                let mut all = summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.failures.push((seed, violation));
                if all.failures.len() >= self.failures_max {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        let mut all = summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.seeds += own.seeds;
        all.doubled += own.doubled;
        all.coverage.add(&own.coverage);
    }

    fn play(&self, seed: u64, scenario: &Scenario, own: &mut Summary) -> Option<Violation> {
        let outcome = run(scenario, false);
        own.coverage.add(&outcome.coverage);
        if outcome.violation.is_some() {
            return outcome.violation;
        }
        if !self.double && !seed.is_multiple_of(TWICE) {
            return None;
        }
        let again = run(scenario, false);
        if again.digest != outcome.digest {
            let detail = format!("{:016x} and {:016x}", outcome.digest, again.digest);
            return Some(Violation { checker: "equal seeds give equal runs", detail });
        }
        own.doubled += 1;
        None
    }
}

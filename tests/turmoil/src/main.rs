//! `syncline-turmoil`: plays seeds of the whole server over simulated TCP.
//!
//! Owns: the command line, the summary. Must not: hold logic of the simulation. Next: `world.rs`; docs/simulator.md.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use syncline_turmoil::{Fault, Plan, play};

/// Seeds after which every fault must have come at least once.
const FAULTS_DUE: u64 = 40;

/// The whole server over simulated TCP. The exit code is 1 if a seed fails, or a fault never came.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// End after so many seconds.
    #[arg(long)]
    budget_seconds: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { seeds, from, budget_seconds } = Arguments::parse();
    let (started, budget) = (Instant::now(), budget_seconds.map(Duration::from_secs));
    let (mut played, mut failed, mut acknowledged, mut simulated) = (0, 0, 0, Duration::ZERO);
    let mut faults: BTreeMap<Fault, u64> = BTreeMap::new();
    for seed in from..from.saturating_add(seeds) {
        if budget.is_some_and(|budget| started.elapsed() >= budget) {
            break;
        }
        played += 1;
        match play(&Plan::draw(seed)) {
            Ok(outcome) => {
                acknowledged += outcome.acknowledged;
                simulated += outcome.simulated;
                outcome.faults.into_iter().for_each(|(fault, count)| *faults.entry(fault).or_default() += count);
            }
            Err(error) => {
                failed += 1;
                println!("seed {seed}: {error:#}");
            }
        }
    }
    let never: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| !faults.contains_key(fault)).collect();
    let elapsed = started.elapsed();
    println!(
        "{played} seeds in {elapsed:.1?}, {failed} failed; {acknowledged} changes acknowledged, {simulated:.0?} simulated"
    );
    println!("faults: {faults:?}");
    let missed = played >= FAULTS_DUE && !never.is_empty();
    if missed {
        println!("never came: {never:?}");
    }
    if failed == 0 && !missed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! `syncline-sim`: plays seeds, replays and shrinks failures.
//!
//! Owns: the command line. Must not: hold logic of the simulation. Next: `campaign.rs`; docs/simulator.md.

use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use syncline_sim::campaign::Campaign;
use syncline_sim::planted::{PLANTED, hunt};
use syncline_sim::small::{Explored, explore};
use syncline_sim::{Kind, Outcome, Scenario, Tier, Violation, run, shrink};

/// A seed is hundreds of thousands of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The simulator of Syncline.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play many seeds. The exit code is 1 if one fails, or a fault never came.
    Run {
        /// t0 (small forged changes), t1 (real automerge documents), t2 (these, and the store that ships on a disk) or mesh
        /// (members of a mesh, and servers that federate).
        #[arg(long, default_value = "t1")]
        tier: Tier,
        /// How many seeds.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// End after so many seconds.
        #[arg(long)]
        budget_seconds: Option<u64>,
        /// Threads. Default: one for each processor.
        #[arg(long)]
        threads: Option<usize>,
        /// End after so many failures.
        #[arg(long, default_value_t = 1)]
        failures: usize,
        /// Play only seeds in whose scenarios this action stands, as Purge; can be given more than once. Runs are equal in
        /// which nothing happens that was changed, so after a change these are the seeds that it can concern.
        #[arg(long)]
        with: Vec<Kind>,
        /// Play every seed twice and compare; otherwise one in a hundred is.
        #[arg(long)]
        double: bool,
        /// Do not print the coverage table.
        #[arg(long)]
        brief: bool,
    },
    /// Play one seed with its trace.
    Replay {
        /// The seed.
        seed: u64,
        /// t0, t1, t2 or mesh.
        #[arg(long, default_value = "t1")]
        tier: Tier,
    },
    /// Try every state of a small world. The exit code is 1 if one fails.
    Small {
        /// Most edits.
        #[arg(long, default_value_t = 4)]
        operations: usize,
        /// End after so many cases.
        #[arg(long, default_value_t = 100_000)]
        cases: u64,
    },
    /// Plant bugs in a copy of the sources under `target`, build it, and find each. The exit code is 1 if one is not
    /// found.
    Planted {
        /// Most seeds for each bug and tier.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// Most seconds for each bug and tier.
        #[arg(long, default_value_t = 600)]
        budget_seconds: u64,
        /// Hunt only these, by their numbers.
        #[arg(long, value_delimiter = ',')]
        only: Vec<u32>,
    },
    /// Make a failing seed small and print it as a test.
    Shrink {
        /// The seed.
        seed: u64,
        /// t0, t1, t2 or mesh.
        #[arg(long, default_value = "t1")]
        tier: Tier,
        /// Most runs.
        #[arg(long, default_value_t = 20_000)]
        runs: usize,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    // Panics are outcomes on threads of the simulation's name only.
    let main = std::thread::Builder::new().name("simulation-main".to_owned()).spawn(command)?;
    main.join().map_err(|_| anyhow::anyhow!("the simulator itself has failed"))?
}

fn command() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { tier, seeds, from, budget_seconds, threads, failures, with, double, brief } => {
            let budget = budget_seconds.map(Duration::from_secs);
            let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
            Ok(play(&Campaign { tier, from, seeds, budget, threads, failures_max: failures, double, with }, brief))
        }
        Command::Replay { seed, tier } => {
            let outcome = run(&Scenario::draw(seed, tier), true);
            outcome.trace.iter().for_each(|line| println!("{line}"));
            println!("digest {:016x}", outcome.digest);
            Ok(report(seed, outcome.violation.as_ref()))
        }
        Command::Small { operations, cases } => {
            let explored = explore(operations, cases);
            let Explored { cases, states, depth, exhausted, failure } = explored;
            let end = if exhausted { "nothing is left".to_owned() } else { format!("all within {depth} steps") };
            println!("{cases} cases of {states} states: {end}");
            if let Some((way, Violation { checker, detail })) = &failure {
                println!("{way}: {checker}: {detail}");
            }
            Ok(if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Planted { seeds, budget_seconds, only } => {
            let bugs: Vec<_> = PLANTED.iter().filter(|bug| only.is_empty() || only.contains(&bug.number)).collect();
            let missed = hunt(&bugs, seeds, budget_seconds)?;
            println!("{} of {} found", bugs.len() - missed.len(), bugs.len());
            Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Shrink { seed, tier, runs } => {
            let small = shrink(&Scenario::draw(seed, tier), runs);
            let Outcome { violation, trace, .. } = run(&small, true);
            trace.iter().for_each(|line| println!("{line}"));
            println!("#[test]\nfn seed_{seed}_of_{tier}() {{\n    syncline_sim::replay(\n        \"\\");
            small.to_string().lines().for_each(|line| println!("        {line}\\n\\"));
            println!("        \",\n    );\n}}");
            Ok(report(seed, violation.as_ref()))
        }
    }
}

fn play(campaign: &Campaign, brief: bool) -> ExitCode {
    let summary = campaign.run();
    let per_second = summary.seeds as f64 / summary.elapsed.as_secs_f64();
    let (seeds, elapsed, doubled) = (summary.seeds, summary.elapsed, summary.doubled);
    println!("{seeds} seeds of {} in {elapsed:.1?}, {per_second:.0} a second, {doubled} of them twice", campaign.tier);
    if !brief {
        println!("{}", summary.coverage());
    }
    for (seed, Violation { checker, detail }) in &summary.failures {
        println!("seed {seed}: {checker}: {detail}");
    }
    for fault in summary.missing_faults() {
        println!("never came: {fault}");
    }
    if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(seed: u64, violation: Option<&Violation>) -> ExitCode {
    match violation {
        None => ExitCode::SUCCESS,
        Some(Violation { checker, detail }) => {
            println!("seed {seed}: {checker}: {detail}");
            ExitCode::FAILURE
        }
    }
}

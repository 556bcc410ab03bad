//! The command `syncline-chaos`: a campaign of faults against a real server, a summary, and one line of JSON.
//!
//! Owns: the command line and the exit code. Must not: hold a rule. Next: `campaign.rs`; docs/chaos.md.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use syncline_chaos::campaign::{self, Class, Plan};

/// Breaks a real syncline-server in every way that can be arranged, and checks that it kept its word.
#[derive(Debug, Parser)]
#[command(name = "syncline-chaos", version)]
struct Arguments {
    /// Rounds, each with one fault
    #[arg(long, default_value_t = 100)]
    rounds: u64,

    /// No round begins after so many minutes
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,

    /// What is drawn is drawn from it; one from the system if it is not given
    #[arg(long)]
    seed: Option<u64>,

    /// Faults, by name and separated by commas; all that this machine can do if they are not given
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Class>,

    /// File for the history, one JSON object a line
    #[arg(long)]
    history: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut classes = arguments.faults;
    if classes.is_empty() {
        let (possible, reasons) = campaign::possible();
        reasons.iter().for_each(|reason| println!("{reason}"));
        classes = possible;
    }
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let plan = Plan { rounds: arguments.rounds, time, seed, classes, history: arguments.history };
    // One thread: the disk is mounted for it and for what it starts.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(campaign::run(&plan))?;
    println!("{outcome}");
    println!("{}", outcome.to_json(seed));
    Ok(if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

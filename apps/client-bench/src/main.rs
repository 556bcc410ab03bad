//! What the crate `syncline` costs an application.
//!
//! Owns: the command line. Must not: measure; each scenario is a file. Next: `typing.rs`, `measure.rs`.
//!
//! Scenarios that compare start one process for each side, so that memory and processor time belong to one side only.

mod latency;
mod load;
mod measure;
mod merge;
mod open;
mod trace;
mod typing;
mod watching;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Whose client is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// This project's.
    Syncline,
    /// samod 0.16.
    Samod,
}

#[derive(Debug, Parser)]
#[command(about = "What the crate syncline costs an application, beside samod and bare automerge")]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Opens a repo with many documents: time and memory.
    Open {
        /// Documents in the repo.
        #[arg(long, default_value_t = 100_000)]
        documents: usize,
    },
    /// The time from an edit to a watcher, and to the disk.
    Latency {
        /// A trace of edits (`editing-traces`, JSON, gzip).
        trace: PathBuf,
        /// Edits a second.
        #[arg(long, default_value_t = 1_000)]
        rate: u64,
        /// Edits at most.
        #[arg(long, default_value_t = 20_000)]
        edits: usize,
    },
    /// Types a trace edit by edit into a document that is saved, with this crate and with samod.
    Typing {
        /// A trace of edits (`editing-traces`, JSON, gzip).
        trace: PathBuf,
        /// Edits at most.
        #[arg(long, default_value_t = usize::MAX)]
        edits: usize,
    },
    /// Opens the document of a trace from disk and reads its text, beside automerge's own load.
    Load {
        /// A trace of edits (`editing-traces`, JSON, gzip).
        trace: PathBuf,
        /// Rounds of each.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
    },
    /// Many watched documents that receive remote edits: memory over time, and processor time for an edit beside samod.
    Watching {
        /// Documents, each with a watcher.
        #[arg(long, default_value_t = 1_000)]
        documents: usize,
        /// Edits a second over all documents.
        #[arg(long, default_value_t = 200)]
        rate: u64,
        /// How long.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// Two replicas change shared documents offline and then meet, beside a merge in memory.
    Merge {
        /// Shared documents.
        #[arg(long, default_value_t = 10)]
        documents: usize,
        /// Edits of each replica over all documents.
        #[arg(long, default_value_t = 10_000)]
        edits: usize,
    },
    /// One side of a scenario, in a process of its own.
    #[command(hide = true)]
    Child {
        #[command(subcommand)]
        part: Part,
    },
}

#[derive(Debug, Subcommand)]
enum Part {
    Open { directory: PathBuf },
    Typing { side: Side, trace: PathBuf, directory: PathBuf, edits: usize },
    Watching { side: Side, server: String },
}

fn main() -> anyhow::Result<()> {
    let results = match Arguments::parse().scenario {
        Scenario::Open { documents } => open::run(documents)?,
        Scenario::Latency { trace, rate, edits } => latency::run(&trace, rate, edits)?,
        Scenario::Typing { trace, edits } => typing::run(&trace, edits)?,
        Scenario::Load { trace, rounds } => load::run(&trace, rounds)?,
        Scenario::Watching { documents, rate, seconds } => watching::run(documents, rate, seconds)?,
        Scenario::Merge { documents, edits } => merge::run(documents, edits)?,
        Scenario::Child { part } => match part {
            Part::Open { directory } => open::child(&directory)?,
            Part::Typing { side, trace, directory, edits } => typing::child(side, &trace, &directory, edits)?,
            Part::Watching { side, server } => watching::child(side, &server)?,
        },
    };
    println!("{}", serde_json::to_string_pretty(&results)?);
    Ok(())
}

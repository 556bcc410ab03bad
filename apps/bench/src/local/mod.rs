//! The client crate measured beside others: what an application feels on its own machine.
//!
//! Owns: the command line of `client`, the runs and their ratios. Must not: measure two libraries in one process.
//! Next: `job.rs`, what one process does; `trace.rs`, what is typed.

mod job;
mod offline;
mod rejoin;
mod selection;
mod trace;
mod watchers;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::process::Scratch;
use crate::scenario::{Outcome, results, round};
use crate::target::{Target, TargetArgs, meter_of_self};
pub(crate) use job::{Job, do_job};

/// Flags of `client`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ClientArgs {
    #[command(subcommand)]
    pub(crate) part: Part,
}

/// What is measured.
#[derive(Debug, Clone, Subcommand, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// A trace typed one change at a time with everything stored, by this library and by samod; then the document is
    /// opened from disk and read, beside automerge's own load.
    Typing {
        /// A sequential editing trace: gzipped JSON with `txns[].patches[] = [position, deleted, inserted]`.
        trace: PathBuf,
        /// Only so many edits of it.
        #[arg(long)]
        edits: Option<usize>,
    },
    /// One edit: when watchers see it, and when it is on the disk.
    Edit {
        /// A trace as for `typing`.
        trace: PathBuf,
        /// Edits measured.
        #[arg(long, default_value_t = 5_000)]
        edits: usize,
        /// Edits a second.
        #[arg(long, default_value_t = 200)]
        rate: u64,
    },
    /// Opening a directory with very many documents.
    Open {
        /// Documents in it.
        #[arg(long, default_value_t = 100_000)]
        documents: usize,
    },
    /// Very many documents that a server has too: memory before and after some were open, bytes of a connection.
    Select {
        /// Documents in the directory.
        #[arg(long, default_value_t = 100_000)]
        documents: usize,
        /// Documents that are opened and let go of.
        #[arg(long, default_value_t = 1_000)]
        touched: usize,
    },
    /// A client that shares very many documents with a server comes back after a few have changed, half of them on either
    /// side, by this library and by samod.
    Reconnect {
        /// Documents that are shared.
        #[arg(long, default_value_t = 100_000)]
        documents: usize,
        /// Documents that have changed.
        #[arg(long, default_value_t = 10)]
        changed: usize,
        /// Documents that the others share.
        #[arg(long, default_value_t = 10_000)]
        others: usize,
        /// A directory with `client.js` and the packages of automerge-repo (`npm/newest`, after `npm ci`), to have that too.
        #[arg(long)]
        automerge_repo: Option<PathBuf>,
        /// Without samod.
        #[arg(long)]
        no_samod: bool,
    },
    /// Watched documents that others edit through a server, by this library and by samod.
    Watchers {
        /// Documents, each with a watcher.
        #[arg(long, default_value_t = 1_000)]
        documents: usize,
        /// Edits a second over all documents.
        #[arg(long, default_value_t = 100)]
        rate: u64,
        /// Length.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Two replicas that write offline and meet, beside automerge merging the same in memory.
    Offline {
        /// Edits of each.
        #[arg(long, default_value_t = 10_000)]
        edits: usize,
        /// Shared documents.
        #[arg(long, default_value_t = 10)]
        documents: usize,
    },
}

/// Whose client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Library {
    Syncline,
    Samod,
}

impl Part {
    /// The scenario's name in the results.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Typing { .. } => "client typing",
            Self::Edit { .. } => "client edit",
            Self::Open { .. } => "client open",
            Self::Select { .. } => "client select",
            Self::Reconnect { .. } => "client reconnect",
            Self::Watchers { .. } => "client watchers",
            Self::Offline { .. } => "client offline",
        }
    }
}

/// Runs one.
///
/// # Errors
/// When a trace cannot be read, a process fails, or there is no server where one is needed.
pub(crate) async fn run(args: &ClientArgs, target: &TargetArgs) -> anyhow::Result<Outcome> {
    let meter = meter_of_self();
    let results = match &args.part {
        Part::Typing { trace, edits } => typing(trace, *edits)?,
        Part::Edit { trace, edits, rate } => edit(trace, *edits, *rate)?,
        Part::Open { documents } => open(*documents)?,
        Part::Select { documents, touched } => select(&Target::open(target).await?, *documents, *touched)?,
        Part::Reconnect { documents, changed, others, automerge_repo, no_samod } => {
            let peers = Others { documents: *others, packages: automerge_repo.clone(), samod: !no_samod };
            reconnect(&Target::open(target).await?, (*documents, *changed), &peers)?
        }
        Part::Watchers { documents, rate, seconds } => {
            watchers::run(&Target::open(target).await?, *documents, *rate, *seconds).await?
        }
        Part::Offline { edits, documents } => offline::run(&Target::open(target).await?, *edits, *documents).await?,
    };
    Ok(Outcome { results: self::results(results), cost: meter.finish() })
}

fn typing(trace: &std::path::Path, edits: Option<usize>) -> anyhow::Result<Value> {
    let mut all = serde_json::Map::new();
    let mut seconds = Vec::new();
    let mut text_seconds = Vec::new();
    for library in [Library::Syncline, Library::Samod] {
        let scratch = Scratch::new(None);
        let job = Job::Type { library, trace: trace.to_owned(), edits, directory: scratch.path().to_owned() };
        let typed = in_own_process(&job)?;
        seconds.push(number(&typed, "durable_s")?);
        all.insert(name_of(library).to_owned(), typed.clone());
        if library == Library::Syncline {
            let url = typed["url"].as_str().context("the typing process names its document")?.to_owned();
            let read = in_own_process(&Job::Read { directory: scratch.path().to_owned(), url })?;
            text_seconds.push((number(&read, "open_and_read_ms")?, number(&read, "automerge_load_and_read_ms")?));
            all.insert("read".to_owned(), read);
        }
    }
    all.insert("times_faster_than_samod".to_owned(), round(seconds[1] / seconds[0]).into());
    let (ours, automerges) = text_seconds[0];
    all.insert("read_to_automerge_load".to_owned(), round(ours / automerges).into());
    Ok(Value::Object(all))
}

fn edit(trace: &std::path::Path, edits: usize, rate: u64) -> anyhow::Result<Value> {
    let scratch = Scratch::new(None);
    let (trace, directory) = (trace.to_owned(), scratch.path().to_owned());
    in_own_process(&Job::Edit { trace, edits, rate, directory })
}

fn open(documents: usize) -> anyhow::Result<Value> {
    let scratch = Scratch::new(None);
    let filled = in_own_process(&Job::Fill { documents, directory: scratch.path().to_owned() })?;
    let opened = in_own_process(&Job::Open { directory: scratch.path().to_owned() })?;
    Ok(json!({ "filled": filled, "opened": opened }))
}

fn select(target: &Target, documents: usize, touched: usize) -> anyhow::Result<Value> {
    let scratch = Scratch::new(None);
    let (directory, server) = (scratch.path().to_owned(), target.endpoint.socket());
    let filled = in_own_process(&Job::Fill { documents, directory: directory.clone() })?;
    let uploaded = in_own_process(&Job::Upload { directory: directory.clone(), server })?;
    let touched = in_own_process(&Job::Touch { directory, server, touched })?;
    Ok(json!({ "filled": filled, "uploaded": uploaded, "touched": touched }))
}

/// Whom a client of ours is compared with.
struct Others {
    documents: usize,
    packages: Option<PathBuf>,
    samod: bool,
}

fn reconnect(target: &Target, (documents, changed): (usize, usize), others: &Others) -> anyhow::Result<Value> {
    let scratch = Scratch::new(None);
    let (directory, server) = (scratch.path().to_owned(), target.endpoint.socket());
    let filled = in_own_process(&Job::Fill { documents, directory: directory.clone() })?;
    let uploaded = in_own_process(&Job::Upload { directory: directory.clone(), server })?;
    let syncline = in_own_process(&Job::Rejoin { directory, server, changed })?;
    let mut all = json!({ "filled": filled, "uploaded": uploaded, "syncline": syncline });
    let documents = others.documents;
    if let Some(packages) = others.packages.clone() {
        let scratch = Scratch::new(None);
        let directory = scratch.path().to_owned();
        let job = Job::RejoinJavaScript { packages, directory, server, documents, changed };
        all["automerge_repo"] = in_own_process(&job)?;
    }
    if others.samod {
        let scratch = Scratch::new(None);
        let directory = scratch.path().to_owned();
        all["samod"] = in_own_process(&Job::RejoinSamod { directory, server, documents, changed })?;
    }
    Ok(all)
}

fn name_of(library: Library) -> &'static str {
    match library {
        Library::Syncline => "syncline",
        Library::Samod => "samod",
    }
}

fn number(value: &Value, name: &str) -> anyhow::Result<f64> {
    value[name].as_f64().with_context(|| format!("no {name} in {value}"))
}

/// Memory is a process's: each job runs in one of its own.
fn in_own_process(job: &Job) -> anyhow::Result<Value> {
    let output = command(job)?.stdout(Stdio::piped()).output().context("starting a process of this program")?;
    anyhow::ensure!(output.status.success(), "{job:?} failed: {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("reading the results of {job:?}"))
}

fn command(job: &Job) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("client-job").arg(serde_json::to_string(job)?);
    Ok(command)
}

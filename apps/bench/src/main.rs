//! syncline-bench: load for any automerge-repo sync server, and what came of it.
//!
//! Owns: the command line. Must not: measure. Next: `scenario/mod.rs` for what is measured; `light.rs` for how one
//! process plays a thousand clients; README.md for how to run it.

mod attack;
mod author;
mod beside;
mod chunk;
mod client;
mod forge;
mod frame;
mod full;
mod ledger;
mod light;
mod local;
mod metrics;
mod mob;
mod process;
mod relay;
mod report;
mod scenario;
mod stats;
mod target;
mod tracker;
mod wire;

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::local::{ClientArgs, Job};
use crate::report::{Report, Usage};
use crate::scenario::Outcome;
use crate::scenario::{backup, cold_fetch, fanout, fanout_cpu, flood, hostile, idle, import, kill};
use crate::scenario::{long_text, many_docs, never_reading, reconnect, typing};
use crate::target::{Target, TargetArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says that the limit on open files has been raised, so that it is tried once.
const RAISED: &str = "SYNCLINE_BENCH_RAISED";

/// Load for automerge-repo sync servers. Prints one JSON line a run on standard output.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    target: TargetArgs,
    /// Also append the JSON line to this file.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Clone, Subcommand)]
enum Scenario {
    /// Users who type in one text.
    Typing(typing::TypingArgs),
    /// One writer, many readers.
    Fanout(fanout::FanoutArgs),
    /// Many clients with documents of their own.
    ManyDocs(many_docs::ManyDocsArgs),
    /// Server CPU an edit: small document against long text.
    FanoutCpu(fanout_cpu::FanoutCpuArgs),
    /// Every document at once after a restart.
    ColdFetch(cold_fetch::ColdFetchArgs),
    /// A long text to a fresh client after a restart.
    LongText(long_text::LongTextArgs),
    /// A client with very many documents comes back.
    Reconnect(reconnect::ReconnectArgs),
    /// Very many clients come back at once.
    ReconnectStorm(reconnect::StormArgs),
    /// Memory while nothing happens.
    Idle(idle::IdleArgs),
    /// kill -9 under load.
    Kill(kill::KillArgs),
    /// The client crate on its own machine, beside samod and automerge.
    Client(ClientArgs),
    /// Work of `client` in a process of its own.
    #[command(hide = true)]
    ClientJob {
        /// The work as JSON.
        job: String,
    },
    /// Frames that no honest client sends, beside a pair of honest ones.
    Hostile(hostile::HostileArgs),
    /// An honest pair beside floods of all kinds, and alone.
    Flood(flood::FloodArgs),
    /// Documents of an automerge-repo server's directory, taken in.
    Import(import::ImportArgs),
    /// A backup under load, restored and compared.
    Backup(backup::BackupArgs),
    /// Attackers, in a process of their own.
    #[command(hide = true)]
    AttackJob {
        /// The work as JSON.
        job: String,
    },
    /// A flood, in a process of its own.
    #[command(hide = true)]
    MobJob {
        /// The work as JSON.
        job: String,
    },
    /// Clients that never read, in a crowd of those who do.
    NeverReading(never_reading::NeverReadingArgs),
    /// A bare websocket relay, for scale.
    Relay {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// Prints a results file as tables.
    Table {
        /// A file of JSON lines.
        file: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    raise_open_files();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.scenario.clone() {
        Scenario::Relay { listen } => runtime.block_on(relay::serve(listen)),
        Scenario::Table { file } => {
            print!("{}", report::table(&report::read(&file)?));
            Ok(())
        }
        Scenario::AttackJob { job } => runtime.block_on(attack::run(serde_json::from_str(&job)?)),
        Scenario::MobJob { job } => mob::be(serde_json::from_str(&job)?),
        Scenario::ClientJob { job } => local::do_job(serde_json::from_str::<Job>(&job)?),
        scenario @ (Scenario::Typing(_)
        | Scenario::Fanout(_)
        | Scenario::ManyDocs(_)
        | Scenario::FanoutCpu(_)
        | Scenario::ColdFetch(_)
        | Scenario::LongText(_)
        | Scenario::Reconnect(_)
        | Scenario::ReconnectStorm(_)
        | Scenario::Idle(_)
        | Scenario::Kill(_)
        | Scenario::Hostile(_)
        | Scenario::NeverReading(_)
        | Scenario::Flood(_)
        | Scenario::Import(_)
        | Scenario::Backup(_)
        | Scenario::Client(_)) => {
            let report = runtime.block_on(measure(&cli, &scenario));
            runtime.shutdown_timeout(std::time::Duration::from_secs(2));
            report.publish(cli.out.as_deref())?;
            eprint!("{}", report::table(std::slice::from_ref(&report)));
            match report.error {
                Some(error) => anyhow::bail!(error),
                None => Ok(()),
            }
        }
    }
}

/// Runs a scenario; one that fails is a result too.
async fn measure(cli: &Cli, scenario: &Scenario) -> Report {
    let (name, parameters) = describe(scenario);
    let date = report::date();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let outcome = if let Scenario::Client(args) = scenario {
        local::run(args, &cli.target).await
    } else {
        against_server(cli, scenario).await
    };
    let label = cli.target.label.clone();
    let scenario = name.to_owned();
    let (results, seconds, server, generator, error) = match outcome {
        Ok(Outcome { results, cost }) => (results, cost.seconds, cost.server, cost.generator, None),
        Err(error) => (Map::new(), 0.0, None, Usage::default(), Some(format!("{error:#}"))),
    };
    Report { scenario, label, date, cores, parameters, seconds, results, server, generator, error }
}

async fn against_server(cli: &Cli, scenario: &Scenario) -> anyhow::Result<Outcome> {
    let mut target = Target::open(&cli.target).await?;
    let outcome = run(scenario, &mut target).await;
    if target.has_crashed() { Err(anyhow::anyhow!("the server ended: {}", target.log_tail())) } else { outcome }
}

async fn run(scenario: &Scenario, target: &mut Target) -> anyhow::Result<Outcome> {
    match scenario {
        Scenario::Typing(args) => typing::run(args, target).await,
        Scenario::Fanout(args) => fanout::run(args, target).await,
        Scenario::ManyDocs(args) => many_docs::run(args, target).await,
        Scenario::FanoutCpu(args) => fanout_cpu::run(args, target).await,
        Scenario::ColdFetch(args) => cold_fetch::run(args, target).await,
        Scenario::LongText(args) => long_text::run(args, target).await,
        Scenario::Reconnect(args) => reconnect::run(args, target).await,
        Scenario::ReconnectStorm(args) => reconnect::run_storm(args, target).await,
        Scenario::Idle(args) => idle::run(args, target).await,
        Scenario::Kill(args) => kill::run(args, target).await,
        Scenario::Hostile(args) => hostile::run(args, target).await,
        Scenario::NeverReading(args) => never_reading::run(args, target).await,
        Scenario::Flood(args) => flood::run(args, target).await,
        Scenario::Import(args) => import::run(args, target).await,
        Scenario::Backup(args) => backup::run(args, target).await,
        Scenario::Client(_)
        | Scenario::ClientJob { .. }
        | Scenario::AttackJob { .. }
        | Scenario::MobJob { .. }
        | Scenario::Relay { .. }
        | Scenario::Table { .. } => unreachable!("not measured"),
    }
}

fn describe(scenario: &Scenario) -> (&'static str, Value) {
    fn json(args: &impl Serialize) -> Value {
        serde_json::to_value(args).expect("flags are plain values")
    }
    match scenario {
        Scenario::Typing(args) => ("typing", json(args)),
        Scenario::Fanout(args) => ("fanout", json(args)),
        Scenario::ManyDocs(args) => ("many-docs", json(args)),
        Scenario::FanoutCpu(args) => ("fanout-cpu", json(args)),
        Scenario::ColdFetch(args) => ("cold-fetch", json(args)),
        Scenario::LongText(args) => ("long-text", json(args)),
        Scenario::Reconnect(args) => ("reconnect", json(args)),
        Scenario::ReconnectStorm(args) => ("reconnect-storm", json(args)),
        Scenario::Idle(args) => ("idle", json(args)),
        Scenario::Kill(args) => ("kill", json(args)),
        Scenario::Hostile(args) => ("hostile", json(args)),
        Scenario::NeverReading(args) => ("never-reading", json(args)),
        Scenario::Client(args) => (args.part.name(), json(args)),
        Scenario::Flood(args) => ("flood", json(args)),
        Scenario::Import(args) => ("import", json(args)),
        Scenario::Backup(args) => ("backup", json(args)),
        Scenario::ClientJob { .. }
        | Scenario::AttackJob { .. }
        | Scenario::MobJob { .. }
        | Scenario::Relay { .. }
        | Scenario::Table { .. } => {
            unreachable!("not measured")
        }
    }
}

/// Thousands of sockets need thousands of files. Only a shell can raise the soft limit for us without unsafe code, so
/// the process starts itself again below one; the servers that it starts inherit the limit.
fn raise_open_files() {
    let Some((soft, hard)) = process::open_files_limits() else { return };
    if soft >= hard || std::env::var_os(RAISED).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let _ = Command::new("sh")
        .args(["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\""])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(RAISED, "1")
        .exec();
}

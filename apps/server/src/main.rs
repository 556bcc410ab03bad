//! The `syncline-server` binary: flags and environment to a running server, signals to a clean stop.
//!
//! Owns: the command line, the log, the exit code. Must not: hold logic of the server.
//! Next: the server crate.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use syncline_core::limits::Limits;
use syncline_loader::{ProcessLimits, Processes};
use syncline_server::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Sync server for offline-first apps: a drop-in peer for automerge-repo that keeps every acknowledged edit.
#[derive(Debug, Parser)]
#[command(name = "syncline-server", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "SYNCLINE_LISTEN", default_value = "127.0.0.1:3030")]
    listen: SocketAddr,

    /// Directory for the data; made if it is not there
    #[arg(long, env = "SYNCLINE_DATA", default_value = "./syncline-data", global = true)]
    data: PathBuf,

    /// Largest message, and so the largest document that can travel, MiB
    #[arg(long, env = "SYNCLINE_MESSAGE_MIB_MAX", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    message_mib_max: u16,

    /// Most documents that one connection may have open
    #[arg(long, env = "SYNCLINE_SESSION_DOCUMENTS_MAX", default_value_t = 10_000)]
    session_documents_max: usize,

    /// How long a deleted document can be restored before its content is removed, days
    #[arg(long, env = "SYNCLINE_DELETED_KEEP_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    deleted_keep_days: u32,

    /// Most memory that the process may have in which documents from peers are loaded, MiB
    #[arg(long, env = "SYNCLINE_LOAD_MEMORY_MIB_MAX", default_value_t = 4096, global = true, value_parser = clap::value_parser!(u32).range(16..))]
    load_memory_mib_max: u32,

    /// Most processor time that loading one document may take, seconds
    #[arg(long, env = "SYNCLINE_LOAD_SECONDS_MAX", default_value_t = 60, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    load_seconds_max: u32,

    /// Largest blob (attachment) that is taken, MiB
    #[arg(long, env = "SYNCLINE_BLOB_MIB_MAX", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    blob_mib_max: u32,

    /// Most room that all blobs together may take, MiB
    #[arg(long, env = "SYNCLINE_BLOBS_MIB_MAX", default_value_t = 16 * 1024)]
    blobs_mib_max: u32,

    /// What to log: error, warn, info, debug or trace, or a filter such as syncline_replica=debug
    #[arg(long, env = "SYNCLINE_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify every hash and dependency of the data without changing it; exits with 2 if something is wrong
    Check,
    /// Loads documents that come on standard input, within limits: what the server starts, not people
    #[command(name = LOAD_COMMAND, hide = true)]
    Load,
}

/// The command under which the server starts itself to load documents.
const LOAD_COMMAND: &str = "load-documents";

/// automerge opens a span, with its fields written out, for every column of every change that it reads: where `info` is
/// logged, that costs more than the reading. `--log automerge=info` still shows them.
const QUIET: &str = "automerge=warn";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("syncline-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Command::Load) = arguments.command {
        syncline_loader::serve(load_limits(arguments))?;
        return Ok(ExitCode::SUCCESS);
    }
    let filter = EnvFilter::try_new(format!("{QUIET},{}", arguments.log)).context("--log is not a log filter")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if let Some(Command::Check) = arguments.command {
        return check(&arguments.data);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(16).build()?;
    runtime.block_on(serve(arguments))?;
    Ok(ExitCode::SUCCESS)
}

fn load_limits(arguments: &Arguments) -> ProcessLimits {
    ProcessLimits {
        memory_bytes: u64::from(arguments.load_memory_mib_max) * 1024 * 1024,
        processor_seconds: u64::from(arguments.load_seconds_max),
    }
}

/// Has documents loaded by processes of this very executable, also after the file has been replaced by another version.
fn loader(arguments: &Arguments) -> anyhow::Result<Processes> {
    let running = PathBuf::from("/proc/self/exe");
    let program = if running.exists() { running } else { std::env::current_exe()? };
    let limits =
        [("--load-memory-mib-max", arguments.load_memory_mib_max), ("--load-seconds-max", arguments.load_seconds_max)];
    let limits = limits.into_iter().flat_map(|(name, value)| [name.into(), value.to_string().into()]);
    let command = std::iter::once(LOAD_COMMAND.into()).chain(limits).collect();
    Ok(Processes::new(program, command, load_limits(arguments)))
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let message_bytes_max = usize::from(arguments.message_mib_max) * 1024 * 1024;
    let limits = Limits {
        message_bytes_max,
        inflate_bytes_max: message_bytes_max,
        session_documents_max: arguments.session_documents_max,
        blob_bytes_max: u64::from(arguments.blob_mib_max) * 1024 * 1024,
        blobs_bytes_max: u64::from(arguments.blobs_mib_max) * 1024 * 1024,
        ..Limits::default()
    };
    let loader = Arc::new(loader(arguments)?);
    let deleted_keep = Duration::from_secs(u64::from(arguments.deleted_keep_days) * 24 * 3600);
    let viewer = Arc::<Processes>::clone(&loader);
    let config =
        Config { listen: arguments.listen, data: arguments.data.clone(), limits, loader, viewer, deleted_keep };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::start(config).await?;
    let address = server.address();
    println!("syncline-server listening on ws://{address}");
    println!("  status page  http://{address}/");
    println!("  data         {}", arguments.data.display());
    if !address.ip().is_loopback() {
        println!(
            "  warning      anyone who can reach {address} can read and write every document whose id they know,\n               and every blob whose address they know"
        );
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    println!("syncline-server stopping: flushing what has come");
    server.stop().await;
    println!("syncline-server stopped");
    Ok(())
}

fn check(data: &Path) -> anyhow::Result<ExitCode> {
    let report = syncline_store::check(data)?;
    for fault in &report.listed {
        println!("{fault}");
    }
    let verdict = if report.is_clean() { "clean".to_owned() } else { format!("{} faults", report.faults) };
    println!(
        "{verdict}: {} documents, {} changes, {} bytes; {} blobs, {} bytes",
        report.documents, report.changes, report.bytes, report.blobs, report.blob_bytes
    );
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

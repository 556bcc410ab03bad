//! The `syncline-server` binary: flags and environment to a running server, signals to a clean stop.
//!
//! Owns: the command line, the log, the exit code. Must not: hold logic of the server.
//! Next: the server crate.

mod arguments;
mod care;
mod config;
mod federation;
mod log;
mod notify;
#[cfg(feature = "otlp")]
mod otlp;
mod say;
mod token;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgMatches, CommandFactory};
use syncline_loader::{ProcessLimits, Processes};
use syncline_server::Server;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Arguments, Command};
use crate::notify::{notify, notify_reloading};
use crate::say::{complain, or_nobody_listens, say};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The command under which the server starts itself to load documents.
const LOAD_COMMAND: &str = "load-documents";

/// Turns of connections after which a thread looks which other sockets have something. With tokio's 61, connections that always
/// have something to read keep those that seldom do waiting for as many turns of theirs.
const TURNS_BETWEEN_EVENTS: u32 = 8;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let (arguments, matches) = config::read()?;
    let arguments = &arguments;
    if arguments.print_config {
        say(config::print(&matches));
        return Ok(ExitCode::SUCCESS);
    }
    match &arguments.command {
        Some(Command::Load) => {
            // The server that it works for may be gone before it has its answer.
            or_nobody_listens(syncline_loader::serve(load_limits(arguments)))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Token(command)) => {
            command.run()?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Man) => {
            or_nobody_listens(clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout()))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "syncline-server", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Check | Command::Care(_)) | None => {}
    }
    if let Some(Command::Check) = arguments.command {
        log::begin(arguments)?;
        return check(&arguments.data);
    }
    if let Some(Command::Care(care)) = &arguments.command {
        log::begin(arguments)?;
        return care.run(&arguments.data, Arc::new(loader(arguments)?));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(TURNS_BETWEEN_EVENTS)
        .max_blocking_threads(16)
        .build()?;
    let end_log = log::begin_with_traces(arguments, runtime.handle())?;
    let served = runtime.block_on(serve(arguments, matches));
    end_log();
    // A thread that hangs in the disk is not waited for.
    runtime.shutdown_background();
    served?;
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

async fn serve(arguments: &Arguments, mut settings: ArgMatches) -> anyhow::Result<()> {
    let config = arguments.server(&Arc::new(loader(arguments)?))?;
    let restricted = config.rules.restrict();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let federation = arguments.federation.options(restricted)?;
    let server = Server::start(config).await?;
    if let Some(schedule) = arguments.backups.schedule() {
        tokio::spawn(schedule.run(arguments.data.clone()));
    }
    let (address, secure) = (server.address(), if server.is_encrypted() { "s" } else { "" });
    say(format_args!("syncline-server listening on ws{secure}://{address}"));
    say(format_args!("  status page  http{secure}://{address}/"));
    say(format_args!("  data         {}", arguments.data.display()));
    say(format_args!(
        "  access       {}",
        if restricted { "by token" } else { "open: everybody who reaches it may do everything" }
    ));
    let mesh = match federation {
        Some(options) => {
            say(format_args!("  federation   {}", arguments.federation.words()));
            Some(arguments.federation.join(server.replica(), address, options).await?)
        }
        None => None,
    };
    notify("READY=1");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                notify_reloading();
                server.reload();
                settings = take_up(&server, arguments, settings);
                notify("READY=1");
            }
        }
    }
    notify("STOPPING=1");
    say("syncline-server stopping: flushing what has come");
    drop(mesh);
    // Slow peers are not waited for longer than the stop's own bound; this one is for a disk that hangs.
    let bound = arguments.stop_timeout() * 2 + Duration::from_secs(5);
    tokio::select! {
        stopped = tokio::time::timeout(bound, server.stop()) => {
            stopped.with_context(|| format!("the data could not be closed within {bound:?}; what was acknowledged is safe"))?;
        }
        _ = terminate.recv() => bail!("stopped at once by a second signal; what was acknowledged is safe"),
        _ = interrupt.recv() => bail!("stopped at once by a second signal; what was acknowledged is safe"),
    }
    say("syncline-server stopped");
    Ok(())
}

/// Reads the settings again, and puts those in force that can be while the server runs. Returns what was read last.
fn take_up(server: &Server, started: &Arguments, before: ArgMatches) -> ArgMatches {
    let (arguments, after) = match config::read_again() {
        Ok(read) => read,
        Err(error) => {
            tracing::error!("the settings stay as they were: {error:#}");
            return before;
        }
    };
    for config::Difference { line, taken_up } in config::differences(&before, &after) {
        if taken_up {
            tracing::info!("from here on: {line}");
        } else {
            tracing::warn!("needs a new start, and is as it was until then: {line}");
        }
    }
    server.set(started.with_settings_of(&arguments));
    after
}

fn check(data: &Path) -> anyhow::Result<ExitCode> {
    let report = syncline_store::check(data)?;
    for fault in &report.listed {
        say(format_args!("{fault}"));
    }
    let verdict = if report.is_clean() { "clean".to_owned() } else { format!("{} faults", report.faults) };
    say(format_args!(
        "{verdict}: {} documents, {} changes, {} bytes; {} blobs, {} bytes",
        report.documents, report.changes, report.bytes, report.blobs, report.blob_bytes
    ));
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

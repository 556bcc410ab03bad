//! The `syncline-gossip` binary: a board that a few machines share without a server, and a simulation of many.
//!
//! Owns: the command line, the log, the exit code. Must not: hold logic of the mesh.
//! Next: `member.rs`, `board.rs`, `screen.rs`, `headless.rs`, `simulate.rs`; docs/gossip.md.

mod board;
mod headless;
mod member;
mod screen;
mod simulate;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use syncline::mesh::{MeshConfig, MeshKey};
use tracing_subscriber::EnvFilter;

use crate::member::Member;

/// A board (chat, checklist, shared text) that a few machines share without a server.
///
/// Start it on two or three laptops of one network, or in two or three terminals, each with a name of its own: they find
/// each other. Everything is kept over restarts.
#[derive(Debug, Parser)]
#[command(name = "syncline-gossip", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    board: BoardArguments,
}

#[derive(Debug, Args)]
struct BoardArguments {
    /// What others see of this machine
    #[arg(long, default_value = "nameless")]
    name: String,

    /// Directory for the data; made if it is not there. Default: ./syncline-gossip-NAME
    #[arg(long)]
    data: Option<PathBuf>,

    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, default_value = "0.0.0.0:0")]
    listen: SocketAddr,

    /// Address of another member (ws://host:port), where it is not found by itself; may be repeated
    #[arg(long = "peer")]
    peers: Vec<String>,

    /// Do not look for others on the local network
    #[arg(long)]
    no_lan: bool,

    /// Name of a mesh without a secret: whoever knows it can join
    #[arg(long, default_value = "board")]
    mesh: String,

    /// File with the key of the mesh, which only those who hold it can join; `syncline-gossip new-key` makes one
    #[arg(long)]
    key_file: Option<PathBuf>,

    /// No screen: commands on standard input, JSON lines on standard output
    #[arg(long)]
    headless: bool,

    /// File to log to; without a screen, standard error is used if none is given
    #[arg(long)]
    log: Option<PathBuf>,

    /// What to log: error, warn, info, debug or trace, or a filter
    #[arg(long, default_value = "warn")]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the key of a mesh, to be copied to each member
    NewKey {
        /// The file, which must not be there yet
        file: PathBuf,
    },
    /// Play many members on a simulated network, and write a page with plots
    Simulate(simulate::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::NewKey { file }) => new_key(file),
        Some(Command::Simulate(plan)) => simulate::run(plan),
        None => share(&arguments.board),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("syncline-gossip: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn new_key(file: &Path) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut written = options.open(file).with_context(|| format!("cannot make {}", file.display()))?;
    writeln!(written, "{}", MeshKey::new(rand::random()).to_text())?;
    println!("{} has the key; copy it to each member and start them with --key-file", file.display());
    Ok(())
}

fn share(arguments: &BoardArguments) -> anyhow::Result<()> {
    start_log(arguments)?;
    let key = match &arguments.key_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            text.parse().with_context(|| format!("{} has no key", file.display()))?
        }
        None => MeshKey::open(&arguments.mesh),
    };
    let mut config = MeshConfig::new(key.clone()).listen(arguments.listen).lan(!arguments.no_lan);
    for peer in &arguments.peers {
        config = config.peer(peer)?;
    }
    let default = || PathBuf::from(format!("syncline-gossip-{}", arguments.name));
    let data = arguments.data.clone().unwrap_or_else(default);
    let member = Member::start(&arguments.name, &data, &key, config)?;
    if arguments.headless { headless::run(member) } else { screen::run(member) }
}

fn start_log(arguments: &BoardArguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("automerge=warn,{}", arguments.log_level));
    let log = tracing_subscriber::fmt().with_env_filter(filter.context("--log-level is not a log filter")?);
    match &arguments.log {
        Some(file) => {
            let file = File::create(file).with_context(|| format!("cannot log to {}", file.display()))?;
            log.with_ansi(false).with_writer(file).init();
        }
        // A screen has no place for a log.
        None if arguments.headless => log.with_writer(std::io::stderr).init(),
        None => {}
    }
    Ok(())
}

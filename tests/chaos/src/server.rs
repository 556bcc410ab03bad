//! One `syncline-server` process.
//!
//! Owns: the executable, start, signals, end, and `check` on a directory. Must not: outlive the campaign.
//! Next: `world.rs`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::network::Network;

/// What the server prints before its address once it accepts connections.
const READY: &str = "syncline-server listening on ws://";

/// The variable that names a file with a key for tokens.
pub(crate) const RULES: &str = "SYNCLINE_TOKEN_KEY";

/// The longest that a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server finds around it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setting<'a> {
    /// Environment variables beside our own.
    pub(crate) environment: &'a [(String, String)],
    /// The network that it is in, if that is not ours.
    pub(crate) network: Option<&'a Network>,
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it listens. What it logs is added to a file.
    ///
    /// # Errors
    /// With what it logged, when it does not come up.
    pub(crate) fn start(data: &Path, log: &Path, setting: Setting<'_>) -> anyhow::Result<Self> {
        let Setting { environment, network } = setting;
        let stderr = File::options().create(true).append(true).open(log)?;
        let mut command = ends_with_us(executable()?, network);
        let address = network.map_or(Ipv4Addr::LOCALHOST, Network::address);
        // Who has said who may do what has not said that everybody may do everything.
        if environment.iter().all(|(name, _)| name != RULES) {
            command.arg("--open");
        }
        command.arg("--listen").arg(format!("{address}:0")).arg("--data").arg(data).env("SYNCLINE_LOG", "warn");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            let first = lines.read_line(&mut line);
            // Nobody waits any more when the start was given up.
            let _ = tell.send(first.map(|_| line));
            // Whatever else it prints must not fill the pipe.
            let _ = std::io::copy(&mut lines.take(u64::MAX), &mut std::io::sink());
        });
        let line = told.recv_timeout(PATIENCE);
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = line.context("the server neither listens nor ends")??;
        let Some(address) = line.trim().strip_prefix(READY) else {
            let status = server.child.wait()?;
            let logged = std::fs::read_to_string(log).unwrap_or_default();
            let last: Vec<&str> = logged.lines().rev().take(5).collect();
            bail!("the server did not start: {status}: {}", last.into_iter().rev().collect::<Vec<_>>().join("; "));
        };
        server.address = address.trim_end_matches('/').parse()?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a library of this name is part of the process.
    pub(crate) fn has_loaded(&self, library: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).is_ok_and(|maps| maps.contains(library))
    }

    /// Whether the process has not ended by itself.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(signal::kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end with success.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "SIGTERM ended the server with {status}");
                return Ok(());
            }
            ensure!(std::time::Instant::now() < deadline, "the server does not end on SIGTERM");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone either way; nobody is left to tell.
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Runs `syncline-server check`; what it found, or nothing if the directory is clean.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn check(data: &Path) -> anyhow::Result<Option<String>> {
    let output = Command::new(executable()?).arg("check").arg("--data").arg(data).output()?;
    if output.status.success() {
        return Ok(None);
    }
    let said = [output.stdout, output.stderr].concat();
    Ok(Some(format!("{}: {}", output.status, String::from_utf8_lossy(&said).trim())))
}

/// Runs a command of the server's program; what it prints.
///
/// # Errors
/// With what it says, when it fails.
pub(crate) fn say(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(executable()?).args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A command whose process the kernel kills when our thread is gone, however we end.
fn ends_with_us(program: &Path, network: Option<&Network>) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let has_setpriv = *SETPRIV.get_or_init(|| {
        let tried = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
        tried.is_ok_and(|output| output.status.success())
    });
    let setpriv = has_setpriv.then(|| ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
    let prefix = setpriv.into_iter().flatten().chain(network.into_iter().flat_map(Network::enter));
    let mut words = prefix.map(OsString::from).chain([program.into()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// The server's executable, built once in each process, alike and beside our own.
fn executable() -> anyhow::Result<&'static Path> {
    static EXECUTABLE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = EXECUTABLE.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("SYNCLINE_SERVER_BIN") {
        return Ok(PathBuf::from(path));
    }
    // A test runs as <target>/<profile>/deps/<name>, the binary as <target>/<profile>/<name>.
    let own = std::env::current_exe()?;
    let mut profile = own.parent().context("an executable is in a directory")?;
    if profile.ends_with("deps") {
        profile = profile.parent().context("deps is in a profile's directory")?;
    }
    let target = profile.parent().context("a profile is in the target directory")?;
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "-p", "syncline-server-app", "--profile", name, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cargo starts")?;
    ensure!(status.success(), "syncline-server does not build");
    Ok(profile.join("syncline-server"))
}

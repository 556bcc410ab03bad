//! The server's process, and this one's, as the kernel counts them.
//!
//! Owns: starting, stopping and killing a server; CPU time and memory from /proc. Must not: speak to the server.
//! Next: `target.rs`, which knows when it answers.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

/// How long a server may take to end by itself before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A command line with `{listen}`, `{port}` and `{data}` in it, and the place that it is run in.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    command: String,
    port: u16,
    data: PathBuf,
}

impl Template {
    /// A server of this command, on a free port when `port` is none, with its data under `data`.
    ///
    /// # Errors
    /// When the directory cannot be made or no port is free.
    pub(crate) fn new(command: &str, port: Option<u16>, data: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&data).with_context(|| format!("making {}", data.display()))?;
        let port = match port {
            Some(port) => port,
            None => TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
        };
        Ok(Self { command: command.to_owned(), port, data })
    }

    /// The command line, its places not filled in.
    pub(crate) fn command(&self) -> &str {
        &self.command
    }

    /// Where the server will listen.
    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Another command line with the same places filled in.
    pub(crate) fn fill(&self, command: &str) -> String {
        command
            .replace("{listen}", &format!("127.0.0.1:{}", self.port))
            .replace("{port}", &self.port.to_string())
            .replace("{data}", &self.data.join("data").display().to_string())
    }

    /// Starts the server; its output goes to a file beside its data.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub(crate) fn start(&self) -> anyhow::Result<Server> {
        let log = File::options().create(true).append(true).open(self.data.join("server.log"))?;
        let child = Command::new("sh")
            .args(["-c", &format!("exec {}", self.fill(&self.command))])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the server")?;
        Ok(Server { child })
    }

    /// The end of what the server printed.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.data.join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A running server; it is killed when this goes.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// The process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// kill -9, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.kill_child();
    }

    /// Asks it to end, and kills it when it does not.
    pub(crate) async fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while asked.is_ok() && !self.has_ended() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill_child();
    }

    fn kill_child(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_child();
    }
}

/// A directory that goes when this goes, unless it was named by the user.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// The named directory, or a fresh one.
    pub(crate) fn new(named: Option<PathBuf>) -> Self {
        let keep = named.is_some();
        let fresh = || std::env::temp_dir().join(format!("syncline-bench-{}", uuid::Uuid::new_v4()));
        Self { path: named.unwrap_or_else(fresh), keep }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// CPU time that a process has used, all threads, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets; the fields after it do not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / ticks_per_second())
}

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) resident_kib: u64,
    /// The most that was resident since [`reset_peak`].
    pub(crate) peak_kib: u64,
}

/// What the kernel says of a process's memory.
pub(crate) fn memory(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    Some(Memory { resident_kib: field("VmRSS:")?, peak_kib: field("VmHWM:")? })
}

/// Lowers the peak of a process's memory to what is resident; not every kernel allows it.
pub(crate) fn reset_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The soft and the hard limit on open files of this process.
pub(crate) fn open_files_limits() -> Option<(u64, u64)> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    Some((numbers.next()?, numbers.next()?))
}

fn ticks_per_second() -> f64 {
    static TICKS: OnceLock<f64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let output = Command::new("getconf").arg("CLK_TCK").output().ok();
        let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(100.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).is_some());
        let memory = memory(pid).unwrap();
        assert!(memory.resident_kib > 0 && memory.peak_kib >= memory.resident_kib);
        assert!(open_files_limits().is_some_and(|(soft, hard)| soft > 0 && hard >= soft));
    }

    #[test]
    fn a_template_names_its_places() {
        let scratch = Scratch::new(None);
        let template = Template::new("serve {listen} {data}", Some(7), scratch.path().to_owned()).unwrap();
        let data = scratch.path().join("data");
        assert_eq!(template.fill("serve {listen} {port} {data}"), format!("serve 127.0.0.1:7 7 {}", data.display()));
    }
}

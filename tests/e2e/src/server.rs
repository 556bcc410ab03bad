//! One server process under test, with its directory.
//!
//! Owns: the process (its whole group ends with the value), what it printed, and the way to its HTTP pages.
//! Must not: wait by sleeping; a server is ready when it says so.
//! Next: `browser.rs`; docs of the command line in `apps/server`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use crate::PATIENCE;

/// What the server prints before its address once it accepts connections.
const READY: &str = "syncline-server listening on ws://";

/// A directory for one server's data, removed with the value.
pub struct DataDirectory(TempDir);

impl DataDirectory {
    /// A fresh, empty directory.
    ///
    /// # Panics
    /// When the file system refuses it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it has a side effect on the disk")]
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("syncline-e2e-").tempdir().expect("a temporary directory"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Every file below it, deepest last.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut open = vec![self.path().to_path_buf()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).expect("a readable directory") {
                let path = entry.expect("a readable entry").path();
                if path.is_dir() { open.push(path) } else { files.push(path) }
            }
        }
        files
    }
}

/// A running server. Dropping it kills its process group.
pub struct Server {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server on a port of the system's choosing and waits until it listens.
    ///
    /// # Panics
    /// With everything the server printed, when it does not come up.
    #[must_use]
    pub fn start(data: &Path) -> Self {
        Self::try_start(data, "127.0.0.1:0", &[]).unwrap_or_else(|output| panic!("the server did not start:\n{output}"))
    }

    /// As [`Server::start`], with more command line arguments.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_with(data: &Path, arguments: &[&str]) -> Self {
        Self::try_start(data, "127.0.0.1:0", arguments)
            .unwrap_or_else(|output| panic!("the server did not start:\n{output}"))
    }

    /// Starts a server whose outputs nobody reads from the moment at which it has said its address.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start_unheard(data: &Path) -> Self {
        let (read, write) = std::io::pipe().expect("a pipe");
        let mut command = server_command(data, &[], "127.0.0.1:0");
        let log = write.try_clone().expect("a handle");
        command.process_group(0).stdin(Stdio::null()).stdout(write).stderr(log);
        let child = command.spawn().expect("the server's executable starts");
        // The command holds the other end as well.
        drop(command);
        let mut lines = BufReader::new(read).lines().map_while(Result::ok);
        let ready = lines.find_map(|line| line.split_once(READY).map(|(_, address)| address.trim().to_owned()));
        let address = ready.expect("the server says where it listens");
        Self { child, address, log: Arc::default() }
    }

    /// Starts a server that may rightly refuse to start.
    ///
    /// # Errors
    /// Everything that it printed, when it ended instead of listening.
    ///
    /// # Panics
    /// When it neither listens nor ends.
    pub fn try_start(data: &Path, listen: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut command = server_command(data, arguments, listen);
        // A group of its own, so that a helper process of the server ends with it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server's executable starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, address) = mpsc::channel();
        let stderr = child.stderr.take().expect("stderr is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let readers = [collect(stderr, Arc::clone(&log), None), collect(stdout, Arc::clone(&log), Some(ready))];
        let hangs = match address.recv_timeout(PATIENCE) {
            Ok(address) => return Ok(Self { child, address, log }),
            Err(RecvTimeoutError::Timeout) => true,
            // Its standard output is closed, as it is when it has ended.
            Err(RecvTimeoutError::Disconnected) => false,
        };
        if hangs {
            signal(&mut child, "KILL");
        }
        let status = child.wait().expect("the server was started");
        for reader in readers {
            reader.join().expect("the log's writers do not panic");
        }
        let printed = log.lock().expect("the log's writers do not panic").clone();
        assert!(!hangs, "the server neither listens nor ends:\n{printed}");
        Err(format!("{status}\n{printed}"))
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The websocket address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The most memory that the process has ever had resident, bytes.
    ///
    /// # Panics
    /// Where there is no Linux `/proc`.
    #[must_use]
    pub fn memory_peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel counts the peak");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024
    }

    /// What the server has printed.
    ///
    /// # Panics
    /// Never in practice: the lock's holders do not panic.
    #[must_use]
    pub fn printed(&self) -> String {
        self.log.lock().expect("the log's writers do not panic").clone()
    }

    /// The first line with these words, once it is there: what a server logs comes after what it answers.
    ///
    /// # Panics
    /// When it does not come.
    pub fn until_printed(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let printed = self.printed();
            if let Some(line) = printed.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "{words} is in:\n{printed}");
            thread::yield_now();
        }
    }

    /// Ends the process as a power cut would, and starts another on the same directory and port.
    ///
    /// # Panics
    /// When the server does not come back.
    pub fn kill_and_restart(&mut self, data: &Path) {
        self.kill();
        self.start_again(data);
    }

    /// Asks the process to read its files again (`SIGHUP`).
    pub fn hang_up(&mut self) {
        signal(&mut self.child, "HUP");
    }

    /// Runs another command of the program, with this on its standard input.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn command(arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(executable());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server's executable starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A command that does not read it ends without it.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("the command ends")
    }

    /// Ends the process at once (`SIGKILL`).
    ///
    /// # Panics
    /// When there is no process to wait for.
    pub fn kill(&mut self) {
        signal(&mut self.child, "KILL");
        self.child.wait().expect("the server was started");
    }

    /// Starts another process where this one listened.
    ///
    /// # Panics
    /// When the server does not come back.
    pub fn start_again(&mut self, data: &Path) {
        let again = Self::try_start(data, &self.address, &[]);
        *self = again.unwrap_or_else(|output| panic!("the server did not start again:\n{output}"));
    }

    /// Asks the process to end (`SIGTERM`) and waits for it.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(&mut self) -> ExitStatus {
        signal(&mut self.child, "TERM");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the server was started") {
                return status;
            }
            thread::yield_now();
        }
        panic!("the server did not end on SIGTERM:\n{}", self.printed());
    }

    /// Fetches a page over HTTP.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn http(&self, path: &str) -> Response {
        self.http_as(path, "")
    }

    /// As [`Server::http`], with more headers: whole lines.
    ///
    /// # Panics
    /// As [`Server::http`].
    #[must_use]
    pub fn http_as(&self, path: &str, headers: &str) -> Response {
        let mut stream = TcpStream::connect(&self.address).expect("the server accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", self.address);
        stream.write_all(request.as_bytes()).expect("the server reads the request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server answers and closes");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP response has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP status");
        Response { status, body: body.to_owned() }
    }

    /// How much the server has refused so far: the sum of `syncline_refused_total` over all reasons, and the reasons.
    ///
    /// # Panics
    /// When `/metrics` is not Prometheus text.
    #[must_use]
    pub fn refused(&self) -> (u64, Vec<String>) {
        let metrics = self.http("/metrics");
        let mut total = 0;
        let mut reasons = Vec::new();
        for line in metrics.body.lines().filter(|line| line.starts_with("syncline_refused_total{")) {
            let (labels, count) = line.rsplit_once(' ').expect("a sample has a value");
            let count: f64 = count.parse().expect("a sample's value is a number");
            if count > 0.0 {
                total += count as u64;
                reasons.push(labels.to_owned());
            }
        }
        (total, reasons)
    }

    /// Waits until the server has refused more than `before`, and says for which reasons.
    ///
    /// # Panics
    /// When it does not.
    pub fn until_refused(&self, before: u64) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (total, reasons) = self.refused();
            if total > before {
                return reasons;
            }
            assert!(Instant::now() < deadline, "nothing was counted as refused:\n{}", self.printed());
            thread::yield_now();
        }
    }

    /// Runs `syncline-server check` on a directory.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn check(data: &Path) -> Output {
        Command::new(executable())
            .arg("check")
            .arg("--data")
            .arg(data)
            .output()
            .expect("the server's executable starts")
    }

    /// Whether another program stands in for `syncline-server`, which then has neither metrics nor `check`.
    #[must_use]
    pub fn is_reference() -> bool {
        reference().is_some()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        signal(&mut self.child, "KILL");
        // The process is gone either way; nobody is left to tell.
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the server printed:\n{}", self.printed());
        }
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

fn reference() -> Option<String> {
    std::env::var("SYNCLINE_E2E_SERVER_COMMAND").ok()
}

fn server_command(data: &Path, arguments: &[&str], listen: &str) -> Command {
    if let Some(template) = reference() {
        let line = template.replace("{listen}", listen).replace("{data}", &data.display().to_string());
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {line}")).current_dir(env!("CARGO_MANIFEST_DIR"));
        return command;
    }
    let mut command = ends_with_us(executable());
    command.args(["--listen", listen]).arg("--data").arg(data).args(arguments);
    command
}

/// A command whose process the kernel kills when the test's thread is gone: a test that is killed, or that aborts,
/// drops nothing. Where util-linux lacks `setpriv`, such a test leaves its server behind.
fn ends_with_us(program: &Path) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let has_setpriv = *SETPRIV.get_or_init(|| {
        let tried = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
        tried.is_ok_and(|output| output.status.success())
    });
    if !has_setpriv {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// The server's executable, built once in each test process.
fn executable() -> &'static Path {
    static EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();
    EXECUTABLE.get_or_init(|| {
        if let Some(path) = std::env::var_os("SYNCLINE_SERVER_BIN") {
            return PathBuf::from(path);
        }
        // A test runs as <target>/<profile>/deps/<name>; the server belongs beside it, built alike.
        let test = std::env::current_exe().expect("a test has an executable");
        let profile = test.parent().and_then(Path::parent).expect("tests run in <target>/<profile>/deps");
        let target = profile.parent().expect("tests run in <target>/<profile>/deps");
        let name = match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "syncline-server-app", "--profile", name, "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo starts");
        assert!(status.success(), "syncline-server does not build");
        profile.join("syncline-server")
    })
}

/// Copies a stream into the log line by line, and reports the address when a line announces it.
fn collect(
    stream: impl Read + Send + 'static,
    log: Arc<Mutex<String>>,
    ready: Option<mpsc::Sender<String>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut ready = ready;
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once(READY)
                && let Some(ready) = ready.take()
            {
                // Nobody waits any more when the start was given up.
                let _ = ready.send(address.trim().trim_end_matches('/').to_owned());
            }
            let mut log = log.lock().expect("the log's writers do not panic");
            log.push_str(&line);
            log.push('\n');
        }
    })
}

/// Sends a signal to the process and all its helpers, unless it has ended.
fn signal(child: &mut Child, name: &str) {
    // The number of a process that has ended may by now name another.
    if child.try_wait().is_ok_and(|status| status.is_some()) {
        return;
    }
    let group = format!("-{}", child.id());
    // A process that ends meanwhile is what was wanted.
    let _ = Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status();
}

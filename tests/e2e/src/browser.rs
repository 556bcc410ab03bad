//! Node processes with the real automerge-repo in them, as the tests see them: browsers with pages.
//!
//! Owns: installing packages once, the process of a driver, and the pairing of commands with answers.
//! Must not: interpret documents; values are tagged JSON as `js/values.mjs` defines them.
//! Next: `../js/driver.mjs`; `chromium.rs`, where there is a browser indeed; `../tests/javascript.rs`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::skip;

/// How long an answer may take. The driver itself gives up on a condition earlier and says what it saw.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);

/// A set of npm packages, pinned by the lock file beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageSet {
    /// The newest stable release.
    Newest,
    /// The oldest 2.x release.
    Oldest,
}

impl PackageSet {
    fn directory(self) -> PathBuf {
        let name = match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
        };
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("js").join(name)
    }
}

impl PackageSet {
    /// Runs one of its scripts to the end and returns what it printed; `None`, said on standard output, where that is not
    /// possible.
    ///
    /// # Panics
    /// When it is not possible although everything is required, or the script fails.
    #[must_use]
    pub fn run(self, script: &str, arguments: &[&str]) -> Option<String> {
        if let Err(reason) = install(&self.directory()) {
            skip(&reason);
            return None;
        }
        let output = Command::new("node").arg(script).args(arguments).current_dir(self.directory()).output();
        let output = output.expect("node starts");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What waits for answers, and what the driver said unasked.
struct Mailbox {
    waiting: HashMap<u64, mpsc::Sender<Result<Value, String>>>,
    ended: bool,
}

/// One Node process. Dropping it kills the process; the end of this process ends it as well.
pub struct Browser {
    child: Child,
    stdin: Mutex<ChildStdin>,
    mailbox: Arc<Mutex<Mailbox>>,
    events: Mutex<mpsc::Receiver<Value>>,
    log: Arc<Mutex<String>>,
    last_id: AtomicU64,
}

impl Browser {
    /// Starts a Node process with these packages; `None`, said on standard output, where that is not possible.
    ///
    /// # Panics
    /// When it is not possible although everything is required, or the process cannot be started.
    #[must_use]
    pub fn start(set: PackageSet) -> Option<Self> {
        let directory = set.directory();
        if let Err(reason) = install(&directory) {
            skip(&reason);
            return None;
        }
        let mut command = Command::new("node");
        command.arg("main.mjs").current_dir(&directory);
        Some(Self::spawn(command))
    }

    /// Starts a process that speaks the drivers' protocol.
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("node starts");
        let stdin = Mutex::new(child.stdin.take().expect("stdin is piped"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let mailbox = Arc::new(Mutex::new(Mailbox { waiting: HashMap::new(), ended: false }));
        let log = Arc::new(Mutex::new(String::new()));
        let (event, events) = mpsc::channel();
        let answers = Arc::clone(&mailbox);
        thread::spawn(move || deliver(BufReader::new(stdout), &answers, &event));
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lines.lock().expect("the log's writers do not panic");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, stdin, mailbox, events: Mutex::new(events), log, last_id: AtomicU64::new(0) }
    }

    /// Opens a page whose repo is connected to `url`.
    #[must_use]
    pub fn open(&self, page: &str, url: &str) -> Page<'_> {
        self.open_with(page, url, json!({}))
    }

    /// Opens a page with options: `peer`, `storage` (a name that survives the page), `gossip`, `retry_ms`, `wait`.
    #[must_use]
    pub fn open_with(&self, page: &str, url: &str, options: Value) -> Page<'_> {
        let mut arguments = as_map(options);
        arguments.insert("url".into(), url.into());
        let opened = self.page(page);
        opened.call("open", Value::Object(arguments));
        opened
    }

    /// A page by its name, whether it is open or not.
    pub(crate) fn page(&self, name: &str) -> Page<'_> {
        Page { browser: self, name: name.to_owned() }
    }

    /// The next thing that the driver says unasked.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn next_event(&self) -> Value {
        let events = self.events.lock().expect("no reader of events panics while holding them");
        events
            .recv_timeout(ANSWER_PATIENCE)
            .unwrap_or_else(|_| panic!("no event came; the page said:\n{}", self.said()))
    }

    fn begin(&self, command: &str, arguments: Value) -> Pending<'_> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = mpsc::channel();
        {
            let mut mailbox = self.mailbox.lock().expect("the mailbox's users do not panic");
            assert!(!mailbox.ended, "the driver has ended:\n{}", self.said());
            mailbox.waiting.insert(id, answer);
        }
        let mut line = as_map(arguments);
        line.insert("id".into(), id.into());
        line.insert("command".into(), command.into());
        let mut stdin = self.stdin.lock().expect("the writers of commands do not panic");
        let written = writeln!(stdin, "{}", Value::Object(line)).and_then(|()| stdin.flush());
        assert!(written.is_ok(), "the driver does not read:\n{}", self.said());
        Pending { browser: self, command: command.to_owned(), answered }
    }

    fn said(&self) -> String {
        self.log.lock().expect("the log's writers do not panic").clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The process may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the browser said:\n{}", self.said());
        }
    }
}

/// An answer under way.
pub struct Pending<'a> {
    browser: &'a Browser,
    command: String,
    answered: mpsc::Receiver<Result<Value, String>>,
}

impl Pending<'_> {
    /// The answer.
    ///
    /// # Panics
    /// When the command failed, with what it says.
    pub fn wait(self) -> Value {
        match self.answered.recv_timeout(ANSWER_PATIENCE) {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => panic!("{} failed: {error}", self.command),
            Err(_) => panic!("{} was not answered; the page said:\n{}", self.command, self.browser.said()),
        }
    }
}

/// What a search for a document found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The document is here.
    Ready,
    /// Nobody has it; it may still come.
    Unavailable,
}

/// A document's address, and its heads when this value was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The `automerge:` URL.
    pub url: String,
    /// The heads, base58check.
    pub heads: Value,
}

/// One repo in a Node process.
#[derive(Clone)]
pub struct Page<'a> {
    browser: &'a Browser,
    name: String,
}

impl<'a> Page<'a> {
    /// Sends a command that this type does not name and waits for its answer.
    pub fn call(&self, command: &str, arguments: Value) -> Value {
        self.begin(command, arguments).wait()
    }

    /// Sends a command without waiting.
    pub fn begin(&self, command: &str, arguments: Value) -> Pending<'a> {
        let mut arguments = as_map(arguments);
        arguments.insert("page".into(), self.name.clone().into());
        self.browser.begin(command, Value::Object(arguments))
    }

    /// Creates a document with this value.
    ///
    /// # Panics
    /// As [`Pending::wait`]; so do the other commands.
    #[must_use]
    pub fn create(&self, value: Value) -> Document {
        let created = self.call("create", json!({ "value": value }));
        Document { url: text(&created["url"]), heads: created["heads"].clone() }
    }

    /// Looks for a document until it is here or known to be unavailable.
    pub fn find(&self, url: &str) -> Found {
        match self.call("find", json!({ "url": url }))["state"].as_str() {
            Some("ready") => Found::Ready,
            _ => Found::Unavailable,
        }
    }

    /// Applies edits in one change, and returns the heads after it.
    pub fn change(&self, url: &str, operations: Value) -> Value {
        self.call("change", json!({ "url": url, "operations": operations }))["heads"].clone()
    }

    /// The document as tagged JSON.
    pub fn read(&self, url: &str) -> Value {
        self.call("read", json!({ "url": url }))
    }

    /// The document's heads.
    pub fn heads(&self, url: &str) -> Value {
        self.call("heads", json!({ "url": url }))
    }

    /// Waits until the document has exactly these heads.
    pub fn until_heads(&self, url: &str, heads: &Value) {
        self.call("until_heads", json!({ "url": url, "heads": heads }));
    }

    /// Waits until the connected server has said that it has these heads, and so holds them on disk.
    pub fn until_on_server(&self, url: &str, heads: &Value) {
        let storage = self.call("server_storage", json!({}));
        self.call("until_remote_heads", json!({ "url": url, "storage": storage, "heads": heads }));
    }

    /// Waits until this value (tagged JSON) stands at this path.
    pub fn until_value(&self, url: &str, path: Value, value: Value) {
        self.call("until_value", json!({ "url": url, "path": path, "value": value }));
    }

    /// Cuts the page's network.
    pub fn disconnect(&self) {
        self.call("disconnect", json!({}));
    }

    /// Mends the page's network.
    pub fn connect(&self) {
        self.call("connect", json!({}));
    }

    /// Waits until the repo has noticed that it is (or is not) connected.
    pub fn until_connected(&self, expected: bool) {
        self.call("until_connected", json!({ "expected": expected }));
    }

    /// Closes the page; its named storage stays.
    pub fn close(self) {
        self.call("close", json!({}));
    }
}

/// Whether there is a program of this name that says its version.
pub(crate) fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Installs the packages that a directory's lock file names, unless they are there; several test processes may ask at
/// once.
pub(crate) fn install(directory: &Path) -> Result<(), String> {
    if let Some(program) = ["node", "npm"].into_iter().find(|program| !runs(program)) {
        return Err(format!("{program} is missing; install Node.js 20 or newer with npm"));
    }
    let lock = File::create(directory.join(".install-lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let wanted = fs::read(directory.join("package-lock.json")).map_err(|error| error.to_string())?;
    let stamp = directory.join("node_modules").join(".installed-from");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(directory)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Anything but a missing network is a fault of the lock file, and skipping would hide it for good.
        let offline = ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH"];
        assert!(offline.iter().any(|code| said.contains(code)), "npm ci failed in {}: {said}", directory.display());
        return Err(format!("the packages of {} cannot be fetched; install them with npm ci", directory.display()));
    }
    fs::write(&stamp, wanted).map_err(|error| error.to_string())
}

/// Hands each answer to whoever waits for it until the driver's output ends.
fn deliver(lines: impl BufRead, mailbox: &Mutex<Mailbox>, events: &mpsc::Sender<Value>) {
    for line in lines.lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let Some(id) = message["id"].as_u64() else {
            // A test that ignores events has dropped nothing it needs.
            let _ = events.send(message);
            continue;
        };
        let answer = match message.get("error") {
            Some(error) => Err(text(error)),
            None => Ok(message["ok"].clone()),
        };
        let waiting = mailbox.lock().expect("the mailbox's users do not panic").waiting.remove(&id);
        if let Some(waiting) = waiting {
            // Nobody waits any more when a test has failed meanwhile.
            let _ = waiting.send(answer);
        }
    }
    let mut mailbox = mailbox.lock().expect("the mailbox's users do not panic");
    mailbox.ended = true;
    mailbox.waiting.clear();
}

fn as_map(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("arguments are an object, not {value}") };
    map
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

//! Random programs of calls on three replicas, each a process that may be killed.
//!
//! Owns: the programs, and the model that says what must and may be there in the end. `SYNCLINE_PROGRAMS` sets how many.
//! Must not: leave a process behind: a replica ends with its standard input. Next: `processes.rs`.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::{address, block_on, serve};
use syncline::automerge::transaction::Transactable;
use syncline::automerge::{ROOT, ReadDoc};
use syncline::{Document, DocumentUrl, Error, Options, Repo};

/// Names the directory to a replica's process.
const REPLICA: &str = "SYNCLINE_TEST_REPLICA";

/// The name of the test, which a replica's process runs as well.
const TEST: &str = "random_programs_converge_and_lose_nothing_that_was_saved";

/// Longest that a call may take: it only decides how long a hang takes to be seen.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
enum Act {
    Create,
    /// Puts a key that nobody else puts, and waits for the disk if so told.
    Put {
        document: usize,
        saved: bool,
    },
    /// Undo, redo or restore: what comes of it the model does not foretell, only that all agree on it.
    Wild {
        order: &'static str,
        document: usize,
        version: usize,
    },
    Branch(usize),
    MergeBack(usize),
    Offline,
    Online,
    Restart,
    Kill,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Create),
        8 => (0..8usize, any::<bool>()).prop_map(|(document, saved)| Act::Put { document, saved }),
        4 => (prop::sample::select(vec!["undo", "undo", "redo", "restore"]), 0..8usize, 0..20usize)
            .prop_map(|(order, document, version)| Act::Wild { order, document, version }),
        1 => (0..8usize).prop_map(Act::Branch),
        1 => (0..8usize).prop_map(Act::MergeBack),
        2 => Just(Act::Offline),
        2 => Just(Act::Online),
        1 => Just(Act::Restart),
        1 => Just(Act::Kill),
    ]
}

/// A replica's process, from outside.
struct Replica {
    child: Child,
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl Replica {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", TEST, "--nocapture"]).env(REPLICA, directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program again");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || {
            // The test harness says things of its own.
            for line in lines.map_while(Result::ok) {
                if let Some(said) = line.split("answer:").nth(1) {
                    let _ = answer.send(said.to_owned());
                }
            }
        });
        let orders = child.stdin.take().expect("piped");
        Self { child, orders, answers }
    }

    /// The answer to a call: its words, or an error's.
    fn call(&mut self, order: &str) -> Result<String, String> {
        writeln!(self.orders, "{order}").expect("the replica reads");
        let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{order:?} hangs"));
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", words) => Ok(words.to_owned()),
            (_, words) => Err(words.to_owned()),
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What must and may be in the documents.
#[derive(Default)]
struct Model {
    documents: Vec<String>,
    /// Documents with calls that the model does not foretell.
    wild: BTreeSet<String>,
    /// By document: every key that was put, and those that a disk has.
    put: BTreeMap<String, BTreeSet<String>>,
    saved: BTreeMap<String, BTreeSet<String>>,
    branches: HashMap<String, String>,
    keys: usize,
}

impl Model {
    fn pick(&self, document: usize) -> Option<String> {
        (!self.documents.is_empty()).then(|| self.documents[document % self.documents.len()].clone())
    }
}

/// Does what the program says on one replica.
fn perform(replica: &mut Replica, model: &mut Model, act: &Act, server: &str) {
    let on = |model: &Model, document: usize| model.pick(document).unwrap_or_default();
    match act {
        Act::Create => {
            let url = replica.call("create").expect("a document");
            model.documents.push(url);
        }
        Act::Put { document, saved } => {
            let url = on(model, *document);
            model.keys += 1;
            let key = format!("k{}", model.keys);
            let order = if *saved { "save" } else { "put" };
            if !url.is_empty() && replica.call(&format!("{order} {url} {key}")).is_ok() {
                if *saved {
                    model.saved.entry(url.clone()).or_default().insert(key.clone());
                }
                model.put.entry(url).or_default().insert(key);
            }
        }
        Act::Wild { order, document, version } => {
            let url = on(model, *document);
            if !url.is_empty() && replica.call(&format!("{order} {url} {version}")).is_ok() {
                model.wild.insert(url);
            }
        }
        Act::Branch(document) => {
            let url = on(model, *document);
            if let Some(branch) = (!url.is_empty()).then(|| replica.call(&format!("fork {url}")).ok()).flatten() {
                // It begins with what the original had here, of which some may not have been saved.
                let had = model.put.get(&url).cloned().unwrap_or_default();
                model.put.insert(branch.clone(), had);
                if model.wild.contains(&url) {
                    model.wild.insert(branch.clone());
                }
                model.branches.insert(branch.clone(), url);
                model.documents.push(branch);
            }
        }
        Act::MergeBack(document) => {
            let branch = on(model, *document);
            let Some(url) = model.branches.get(&branch).cloned() else { return };
            if replica.call(&format!("merge {url} {branch}")).is_ok() {
                let more = model.put.get(&branch).cloned().unwrap_or_default();
                model.put.entry(url.clone()).or_default().extend(more);
                if model.wild.contains(&branch) {
                    model.wild.insert(url);
                }
            }
        }
        Act::Offline => drop(replica.call("offline").expect("nothing to fail")),
        Act::Online => drop(replica.call(&format!("online {server}")).expect("an address")),
        Act::Restart => drop(replica.call("restart").expect("a clean close")),
        Act::Kill => {}
    }
}

fn run_program(acts: &[(usize, Act)]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let data = support::directory();
    let server = runtime.block_on(serve(data.path(), None));
    let (server_address, homes) = (address(&server), [(); 3].map(|()| support::directory()));
    let mut replicas: Vec<Replica> = homes.iter().map(|home| Replica::start(home.path())).collect();
    let mut model = Model::default();
    for (on, act) in acts {
        if matches!(act, Act::Kill) {
            // Dropped first: the directory is free when the process has ended.
            drop(replicas.remove(*on));
            replicas.insert(*on, Replica::start(homes[*on].path()));
        }
        perform(&mut replicas[*on], &mut model, act, &server_address);
    }
    for replica in &mut replicas {
        replica.call(&format!("online {server_address}")).expect("an address");
    }
    for url in &model.documents {
        let keys = converge(&mut replicas, url, model.saved.get(url));
        if let Some(keys) = keys.filter(|_| !model.wild.contains(url)) {
            let put = model.put.get(url).cloned().unwrap_or_default();
            let saved = model.saved.get(url).cloned().unwrap_or_default();
            assert!(saved.is_subset(&keys), "{url} has lost what was saved: {keys:?}, {saved:?}");
            assert!(keys.is_subset(&put), "{url} has what nobody put: {keys:?}, {put:?}");
        }
    }
    drop(replicas);
    runtime.block_on(server.stop());
}

/// Waits until all replicas have the document alike, with what was saved if the calls in it can be foretold. A document that
/// was lost with a killed process before it was saved is nowhere.
fn converge(replicas: &mut [Replica], url: &str, saved: Option<&BTreeSet<String>>) -> Option<BTreeSet<String>> {
    let mut rounds = 0;
    loop {
        rounds += 1;
        assert!(rounds < 2_000, "{url} does not converge");
        let states: Vec<Result<String, String>> =
            replicas.iter_mut().map(|replica| replica.call(&format!("state {url}"))).collect();
        let (Ok(first), true) = (&states[0], states.windows(2).all(|pair| pair[0] == pair[1])) else { continue };
        if first == "nowhere" {
            // Each has asked the server, to which all are connected.
            let none = saved.is_none_or(BTreeSet::is_empty);
            if none && rounds > 3 {
                return None;
            }
            continue;
        }
        return first
            .split_once(' ')
            .map(|(_, keys)| keys.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect());
    }
}

/// A replica's process: calls come in on standard input, one a line.
struct Served {
    directory: String,
    repo: Option<Repo>,
    link: Option<syncline::Server>,
    documents: HashMap<String, Document>,
}

impl Served {
    fn repo(&self) -> &Repo {
        self.repo.as_ref().expect("open between two calls")
    }

    fn open(&mut self) {
        let options = Options { find_timeout: Duration::from_millis(200), ..Options::default() };
        self.repo = Some(Repo::open_with(&self.directory, options).expect("a directory of ours"));
    }

    fn document(&mut self, url: &str) -> Result<Document, Error> {
        if let Some(document) = self.documents.get(url) {
            return Ok(document.clone());
        }
        let parsed: DocumentUrl = url.parse()?;
        let document = match self.repo().find_local(&parsed) {
            Err(Error::NotHere { .. }) => block_on(self.repo().find(&parsed))?,
            found => found?,
        };
        self.documents.insert(url.to_owned(), document.clone());
        Ok(document)
    }

    fn call(&mut self, order: &[&str]) -> Result<String, Error> {
        match *order {
            ["create"] => {
                let document = self.repo().create(|_| Ok(()))?;
                let url = document.url().to_string();
                self.documents.insert(url.clone(), document);
                return Ok(url);
            }
            [how @ ("put" | "save"), url, key] => {
                let document = self.document(url)?;
                document.change(|tx| tx.put(ROOT, key, true))?;
                if how == "save" {
                    block_on(document.saved())?;
                }
            }
            ["undo", url, _] => drop(self.document(url)?.undo()?),
            ["redo", url, _] => drop(self.document(url)?.redo()?),
            ["restore", url, version] => {
                let document = self.document(url)?;
                let history = document.history()?;
                let version: usize = version.parse().expect("a number");
                document.restore(&[history[version % history.len()].hash])?;
            }
            ["fork", url] => {
                let document = self.document(url)?;
                let branch = self.repo().fork(&document)?;
                let url = branch.url().to_string();
                self.documents.insert(url.clone(), branch);
                return Ok(url);
            }
            ["merge", url, branch] => self.document(url)?.merge(&self.document(branch)?)?,
            ["offline"] => self.link = None,
            ["online", address] => self.link = Some(self.repo().connect(address)?),
            ["restart"] => {
                self.link = None;
                self.documents.clear();
                if let Some(repo) = self.repo.take() {
                    block_on(repo.close())?;
                }
                self.open();
            }
            ["state", url] => {
                let document = match self.document(url) {
                    Err(Error::Unavailable { .. } | Error::FindTimeout { .. }) => return Ok("nowhere".to_owned()),
                    document => document?,
                };
                let keys = document.read(|document| document.keys(ROOT).collect::<Vec<_>>().join(","))?;
                return Ok(format!("{:?} {keys}", document.heads()).replace(", ", "+"));
            }
            _ => panic!("an order that is not known: {order:?}"),
        }
        Ok(String::new())
    }
}

fn serve_calls(directory: String) {
    let mut served = Served { directory, repo: None, link: None, documents: HashMap::new() };
    served.open();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let order: Vec<&str> = line.split(' ').collect();
        match served.call(&order) {
            Ok(words) => println!("answer:ok {words}"),
            Err(error) => println!("answer:error {error}"),
        }
    }
}

#[test]
fn random_programs_converge_and_lose_nothing_that_was_saved() {
    if let Ok(directory) = std::env::var(REPLICA) {
        return serve_calls(directory);
    }
    let cases = std::env::var("SYNCLINE_PROGRAMS").map_or(8, |count| count.parse().expect("a number"));
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 64, ..ProptestConfig::default() };
    let programs = prop::collection::vec((0..3usize, act()), 5..60);
    let outcome = TestRunner::new(config).run(&programs, |acts| {
        run_program(&acts);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

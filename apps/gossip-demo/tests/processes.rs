//! Three real processes without a server: they find each other, share, are cut off and killed, and lose nothing.
//!
//! Owns: what a newcomer is promised. Must not: assert times. Next: `../src/headless.rs`; docs/gossip.md, "Figures".
//!
//! `SYNCLINE_MESH_MINUTES=5 SYNCLINE_MESH_SEED=1 cargo test -p syncline-gossip-app --test processes chaos -- --nocapture`
//! plays the last test for so long.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// After which a test that waits for ever fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at whether all agree.
const LOOK: Duration = Duration::from_millis(100);

/// One machine: its directory and port stay, its process comes and goes.
struct Machine {
    name: String,
    data: PathBuf,
    port: u16,
    peers: Vec<u16>,
    process: Option<Process>,
    /// Texts that it said are saved.
    acknowledged: BTreeSet<String>,
}

struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<Value>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncline-gossip"));
        command.args(["--headless", "--no-lan", "--mesh", "test", "--name", &self.name, "--data"]).arg(&self.data);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        for peer in &self.peers {
            command.args(["--peer", &format!("ws://127.0.0.1:{peer}")]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
                if send.send(value).is_err() {
                    return;
                }
            }
        });
        self.process = Some(Process { child, input, lines });
        self.wait_for("ready");
    }

    /// Says a command and waits for the answer of this kind.
    fn ask(&mut self, command: &str, event: &str) -> Value {
        self.say(command);
        self.wait_for(event)
    }

    fn say(&mut self, command: &str) {
        let process = self.process.as_mut().expect("it runs");
        writeln!(process.input, "{command}").expect("it listens");
    }

    fn wait_for(&mut self, event: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let process = self.process.as_mut().expect("it runs");
            let heard = process.lines.recv_timeout(left);
            let line = heard.unwrap_or_else(|_| panic!("{} was to say {event}", self.name));
            assert_ne!(line["event"], "error", "{}: {line}", self.name);
            if line["event"] == "saved" && line["command"] == "say" {
                self.acknowledged.insert(line["text"].as_str().unwrap_or_default().to_owned());
            }
            if line["event"] == event {
                return line;
            }
        }
    }

    /// The end without a warning. What it said before that counts.
    fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.child.kill().expect("it runs");
        process.child.wait().expect("it ends");
        while let Ok(line) = process.lines.recv_timeout(PATIENCE) {
            if line["event"] == "saved" && line["command"] == "say" {
                self.acknowledged.insert(line["text"].as_str().unwrap_or_default().to_owned());
            }
        }
    }
}

fn machines(directory: &TempDir, count: usize) -> Vec<Machine> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect();
    let machine = |at: usize| Machine {
        name: format!("laptop-{}", at + 1),
        data: directory.path().join(format!("{at}")),
        port: ports[at],
        peers: ports.iter().copied().filter(|port| *port != ports[at]).collect(),
        process: None,
        acknowledged: BTreeSet::new(),
    };
    let mut machines: Vec<Machine> = (0..count).map(machine).collect();
    drop(listeners);
    machines.iter_mut().for_each(Machine::start);
    machines
}

/// Waits until all are in the same state, for which this holds; returns it.
fn agree(machines: &mut [Machine], so: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let states: Vec<Value> = machines.iter_mut().map(|machine| machine.ask("state", "state")).collect();
        let same = |part: &str| states.iter().all(|state| state[part] == states[0][part]);
        if same("heads") && same("chat") && same("tasks") && same("notes") && same("cheers") && so(&states[0]) {
            return states[0].clone();
        }
        assert!(Instant::now() < until, "they do not agree: {states:#?}");
        std::thread::sleep(LOOK);
    }
}

fn said(state: &Value) -> BTreeSet<String> {
    let lines = state["chat"].as_array().into_iter().flatten();
    lines.filter_map(|line| line["text"].as_str().map(str::to_owned)).collect()
}

#[test]
fn two_processes_share_a_board_and_keep_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut machines = machines(&directory, 2);
    machines[0].ask("say hello", "saved");
    machines[1].ask("task buy cake", "saved");
    machines[1].ask("note Saturday", "saved");
    machines[0].ask("cheer", "saved");
    machines[1].ask("cheer", "saved");
    let state = agree(&mut machines, |state| state["cheers"] == 2 && state["tasks"][0]["title"] == "buy cake");
    assert_eq!((&state["chat"][0]["who"], &state["notes"]), (&"laptop-1".into(), &"Saturday".into()));
    let seen = agree(&mut machines, |state| state["peers"][0]["standing"] == "same");
    assert_eq!(seen["peers"][0]["name"], "laptop-2");
    // Cut off, both go on; together again, both have all.
    machines[0].ask("cut", "done");
    machines[0].ask("say nobody hears me", "saved");
    machines[1].ask("toggle 0", "saved");
    let apart = machines[1].ask("state", "state");
    assert!(!said(&apart).contains("nobody hears me"));
    machines[0].ask("join", "done");
    agree(&mut machines, |state| said(state).contains("nobody hears me") && state["tasks"][0]["done"] == true);
    machines.iter_mut().for_each(Machine::kill);
    machines.iter_mut().for_each(Machine::start);
    let after = agree(&mut machines, |_| true);
    assert_eq!(
        (said(&after), &after["cheers"]),
        (said(&state).into_iter().chain(["nobody hears me".to_owned()]).collect(), &2.into())
    );
}

#[test]
fn chaos_among_three_processes_loses_nothing_that_was_acknowledged() {
    let number = |name: &str, otherwise: f64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let (minutes, seed) = (number("SYNCLINE_MESH_MINUTES", 0.1), number("SYNCLINE_MESH_SEED", 1.0) as u64);
    let directory = tempfile::tempdir().expect("a directory");
    let mut machines = machines(&directory, 3);
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
    let (mut edits, mut kills, mut cuts) = (0_u32, 0_u32, 0_u32);
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut cut: Option<usize> = None;
    // So that a run of any length has faults of each kind.
    while Instant::now() < end || kills < 2 || cuts < 2 {
        for _ in 0..random.below(12) {
            edits += 1;
            let machine = &mut machines[random.below(3)];
            machine.say(&format!("say {seed}-{edits}"));
            match random.below(4) {
                0 => machine.say(&format!("note {edits} ")),
                1 => machine.say("cheer"),
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_millis(random.below(400) as u64));
        match random.below(3) {
            0 => {
                kills += 1;
                let at = random.below(3);
                machines[at].kill();
                machines[at].start();
                // A new process takes part.
                cut = cut.filter(|other| *other != at);
            }
            1 if cut.is_none() => {
                cuts += 1;
                let at = random.below(3);
                machines[at].ask("cut", "done");
                cut = Some(at);
            }
            _ => {
                if let Some(at) = cut.take() {
                    machines[at].ask("join", "done");
                }
            }
        }
    }
    if let Some(at) = cut {
        machines[at].ask("join", "done");
    }
    let last_fault = Instant::now();
    let state = agree(&mut machines, |_| true);
    let agreed_after = last_fault.elapsed();
    let acknowledged: BTreeSet<String> =
        machines.iter().flat_map(|machine| machine.acknowledged.iter().cloned()).collect();
    println!(
        "{edits} edits, {} acknowledged, {kills} kills, {cuts} cuts; all agree {:.1} s after the last fault; seed {seed}",
        acknowledged.len(),
        agreed_after.as_secs_f64(),
    );
    let kept = said(&state);
    let lost: Vec<&String> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    assert!(!acknowledged.is_empty());
}

/// Splitmix64: the test's only chance.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

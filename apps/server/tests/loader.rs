//! The processes in which documents are loaded, under the limits that they set on themselves.
//!
//! Owns: that such a process may end, and how. Must not: wait for a clock: the limits end what they end.
//! Next: the loader crate; `tests/e2e/tests/loader.rs` for a whole server.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ObjType, ROOT};
use syncline_core::loader::{InProcess, LoadError, Loader, Old};
use syncline_loader::{ProcessLimits, Processes};

const MIB: u64 = 1024 * 1024;

fn processes(memory_mib: u64, seconds: u64) -> Processes {
    let arguments = ["load-documents", "--load-memory-mib-max", &memory_mib.to_string(), "--load-seconds-max"];
    let arguments = arguments.into_iter().map(Into::into).chain([seconds.to_string().into()]).collect();
    let limits = ProcessLimits { memory_bytes: memory_mib * MIB, processor_seconds: seconds };
    Processes::new(PathBuf::from(env!("CARGO_BIN_EXE_syncline-server")), arguments, limits)
}

/// The child of this process that was started with this as its last argument.
fn process_with_argument(last: &str) -> Option<u32> {
    let all = fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    let mut numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|number| {
        let arguments = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let ours = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        let parent = ours.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.is_some_and(|parent| parent.trim() == std::process::id().to_string())
            && arguments.ends_with(format!("\0{last}\0").as_bytes())
    })
}

fn state_of(process: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("State:"))?.trim().chars().next()
}

fn threads_of(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count)
}

/// A document of some changes, and the chunk that it is saved as.
fn document(changes: u64) -> (AutoCommit, Vec<u8>) {
    let mut document = AutoCommit::new();
    for number in 0..changes {
        document.put(ROOT, format!("key {number}"), number).expect("the root takes any key");
        document.commit();
    }
    let chunk = document.save();
    (document, chunk)
}

/// A document whose text needs many times the memory that its chunk does.
fn large_document() -> Vec<u8> {
    let mut document = AutoCommit::new();
    let text = document.put_object(ROOT, "text", ObjType::Text).expect("the root takes any key");
    document.splice_text(&text, 0, 0, &"as long as it takes ".repeat(50_000)).expect("a text takes any text");
    document.save()
}

fn died(result: Result<Vec<bytes::Bytes>, LoadError>) -> String {
    match result {
        Err(LoadError::Died { how }) => how,
        other => panic!("the process should have ended, and answered {:?}", other.map(|changes| changes.len())),
    }
}

#[test]
fn a_process_answers_as_this_one_would() {
    let processes = processes(512, 60);
    let (mut document, chunk) = document(20);
    let all = processes.changes(&chunk, &[]).expect("an honest document");
    assert_eq!(Ok(&all), InProcess.changes(&chunk, &[]).as_ref());
    assert_eq!(all.len(), 20);
    let heads = document.get_heads();
    assert_eq!(processes.changes(&chunk, &heads), Ok(vec![all[19].clone()]));
    let changes: Vec<&[u8]> = all.iter().map(|bytes| &bytes[..]).collect();
    let merged = processes.merge(&Old { snapshot: None, changes: changes.clone(), count: 20 }).expect("honest changes");
    assert_eq!(merged.heads, heads);
    let old = Old { snapshot: Some(&merged.snapshot), changes: Vec::new(), count: 21 };
    let refused = processes.merge(&old);
    assert_eq!(refused, InProcess.merge(&old), "a refusal is told in the same words");
    assert!(matches!(refused, Err(LoadError::Refused { .. })));
    assert!(matches!(processes.changes(b"no document", &[]), Err(LoadError::Refused { .. })));
}

#[test]
fn a_process_without_enough_memory_costs_one_document() {
    let (large, (_, small)) = (large_document(), document(3));
    InProcess.changes(&large, &[]).expect("an honest document");
    let processes = processes(40, 60);
    for _ in 0..3 {
        assert_eq!(processes.changes(&small, &[]).expect("a small document").len(), 3);
        let how = died(processes.changes(&large, &[]));
        assert!(how.contains("SIGABRT") && how.contains("40 MiB"), "{how}");
    }
}

#[test]
fn a_process_without_enough_time_costs_one_document() {
    // Many authors who have never heard of each other set one key: the work grows with the square of their number.
    let change = |_| document(1).0.get_last_local_change().expect("the only change").raw_bytes().to_vec();
    let changes: Vec<Vec<u8>> = (0..40_000).map(change).collect();
    let (_, small) = document(3);
    let processes = processes(1024, 1);
    let old = Old { snapshot: None, changes: changes.iter().map(Vec::as_slice).collect(), count: changes.len() as u32 };
    let Err(LoadError::Died { how }) = processes.merge(&old) else { panic!("the work fits into two seconds") };
    assert!(how.contains("SIGXCPU"), "{how}");
    assert_eq!(processes.changes(&small, &[]).expect("a small document").len(), 3);
}

#[test]
fn a_process_that_was_killed_while_idle_is_not_missed() {
    // No other test has this limit, so the process can be told from theirs.
    let processes = processes(512, 61);
    let (_, chunk) = document(3);
    processes.changes(&chunk, &[]).expect("an honest document");
    let idle = process_with_argument("61").expect("the process waits for work");
    let killed = Command::new("kill").args(["-KILL", &idle.to_string()]).status().expect("kill starts");
    assert!(killed.success());
    let deadline = Instant::now() + Duration::from_secs(60);
    // Its allocator has a thread of its own: the process has ended when that has, too.
    while state_of(idle) != Some('Z') || threads_of(idle) > 1 {
        assert!(Instant::now() < deadline, "the process does not end");
        thread::yield_now();
    }
    assert_eq!(processes.changes(&chunk, &[]).expect("by another process").len(), 3);
}

#[test]
fn more_threads_than_processes_wait_for_each_other() {
    let processes = Arc::new(processes(512, 60));
    let (_, chunk) = document(50);
    let asking = (0..6).map(|_| {
        let (processes, chunk) = (Arc::clone(&processes), chunk.clone());
        thread::spawn(move || processes.changes(&chunk, &[ChangeHash([0; 32])]))
    });
    let asking: Vec<_> = asking.collect();
    for thread in asking {
        assert_eq!(thread.join().expect("no panic"), Ok(Vec::new()), "the document has no such change");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_no_fault_of_the_document() {
    let limits = ProcessLimits { memory_bytes: 512 * MIB, processor_seconds: 60 };
    let missing = Processes::new(PathBuf::from("/nonexistent/syncline-server"), Vec::new(), limits);
    let error = missing.changes(&document(1).1, &[]).expect_err("no program");
    assert!(!error.concerns_document(), "{error}");
}

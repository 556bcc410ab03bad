//! What stands between libFuzzer and a target.
//!
//! Owns: the bound on time, and which panics count. Must not: know what a target checks.
//! Next: `fuzz_targets/`, `../tests/fuzz`; docs/fuzzing.md.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// Longest that one input may take, of the processor's time. libFuzzer's own bound is in whole seconds.
const INPUT_TIME_MAX: Duration = Duration::from_millis(100);

/// Runs of a slow input before it is blamed: the machine may have been busy elsewhere.
const TRIES: usize = 5;

/// The panic that was last seen, with its place.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs a target on an input.
///
/// libFuzzer's Rust runtime aborts at every panic, and so at those of automerge that the gatekeeper expects and
/// catches. Here a panic counts if it leaves the target, or ends a thread of the store's.
///
/// # Panics
/// If the target does, or takes longer than a tenth of a second of the processor's time whenever it is tried.
pub fn promptly(target: fn(&[u8]), data: &[u8]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| panic::set_hook(Box::new(note)));
    let start = Instant::now();
    run(target, data);
    if start.elapsed() <= INPUT_TIME_MAX {
        return;
    }
    // The machine may have been busy elsewhere: what counts is the processor's time, and the least of it.
    let times = (0..TRIES).map(|_| {
        let before = processor_time();
        run(target, data);
        processor_time().saturating_sub(before)
    });
    let shortest = times.min().unwrap_or_default();
    if shortest > INPUT_TIME_MAX {
        die(&format!("an input of {} bytes takes {shortest:?} every time", data.len()));
    }
}

fn run(target: fn(&[u8]), data: &[u8]) {
    if panic::catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        die(&LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What all threads of this process have used so far, as Linux tells it, in steps of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which is in parentheses and may hold anything, user and system time are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn note(panic: &panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let words = format!("{panic}");
    // What these do is not under a guard, so that a panic of theirs is one too many.
    if matches!(thread.name(), Some("store-writer" | "store-checkpointer")) {
        die(&words);
    }
    *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = words;
}

fn die(words: &str) -> ! {
    eprintln!("{words}");
    std::process::abort();
}

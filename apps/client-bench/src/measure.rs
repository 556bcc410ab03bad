//! What a process costs, as the kernel counts it.
//!
//! Owns: resident memory, processor time, child processes of this program. Must not: know a scenario.
//! Next: `typing.rs`.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// Clock ticks a second that `/proc` counts in; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of this process that is in RAM, KiB.
pub(crate) fn resident_kib() -> anyhow::Result<u64> {
    status("VmRSS:")
}

/// The most that it ever was, KiB.
pub(crate) fn resident_peak_kib() -> anyhow::Result<u64> {
    status("VmHWM:")
}

/// Processor time of this process, seconds.
pub(crate) fn processor_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, may have spaces in it.
    let after_name = stat.rsplit_once(')').context("a name in parentheses")?.1;
    let ticks: Result<Vec<u64>, _> = after_name.split_whitespace().skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<u64>() as f64 / TICKS_PER_SECOND)
}

/// Runs this program as a part of a scenario, and returns what it printed.
pub(crate) fn child<A: AsRef<OsStr>>(arguments: &[A]) -> anyhow::Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("child").args(arguments).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "a part of the scenario failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn status(field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a field of /proc/self/status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// With two digits behind the point.
pub(crate) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

//! Work of this program in a process of its own, which gives way to the server and to who is measured, as if it were
//! done on another machine.
//!
//! Owns: how such a process is started. Must not: know what it does. Next: `mob.rs`, `attack.rs`.

use std::process::Stdio;

use anyhow::Context;
use serde::Serialize;
use tokio::process::{Child, Command};

/// Starts a hidden command of this program with its job; what it prints is to be read by the caller. It is kept to one
/// processor if that is given.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn start(name: &str, job: &impl Serialize, processor: Option<usize>) -> anyhow::Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = Command::new("nice");
    command.args(["-n", "10"]);
    if let Some(processor) = processor {
        command.args(["taskset", "--cpu-list", &processor.to_string()]);
    }
    command.arg(program).arg(name).arg(serde_json::to_string(job)?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().with_context(|| format!("starting {name}"))
}

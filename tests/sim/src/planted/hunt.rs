//! Finding every planted bug, and the table of what it took.
//!
//! Owns: building the copy, one run for each bug. Must not: call a bug found that the copy without it shows too.
//! Next: `list.rs`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::{COPY, Planted, plant, workspace};
use crate::scenario::Tier;

/// One bug's row.
#[derive(Debug)]
struct Found {
    tier: Tier,
    seeds: u64,
    checker: String,
}

/// Plants all bugs in a copy under `target`, builds it, and hunts each of these within so many seeds a tier. Prints a table
/// in Markdown; returns the numbers of the bugs that were not found.
///
/// # Errors
/// When the copy cannot be made, built or run, or fails without a bug.
pub fn hunt(bugs: &[&Planted], seeds: u64, budget_seconds: u64) -> anyhow::Result<Vec<u32>> {
    let root = workspace().canonicalize()?;
    let copy = root.join("target/planted");
    plant(&root, &copy)?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--offline", "--manifest-path"]).arg(copy.join("Cargo.toml"));
    build.arg("--target-dir").arg(root.join("target"));
    ensure!(build.status()?.success(), "the copy does not build");
    let program = root.join("target/release").join(COPY);
    for (tier, most) in [(Tier::T0, 500), (Tier::Mesh, 50)] {
        let sound = play(&program, 0, tier, 0, seeds.min(most), budget_seconds)?;
        ensure!(sound.is_none(), "the copy fails without a bug: {sound:?}");
    }
    println!("| | planted bug | tier | seeds | found by |\n|---|---|---|---|---|");
    let mut missed = Vec::new();
    for bug in bugs {
        let mut found = None;
        for tier in bug.tiers().iter().copied() {
            if found.is_none() {
                found = play(&program, bug.number, tier, 0, seeds, budget_seconds)?;
            }
            if let Some(Found { seeds, .. }) = &found {
                let alone = play(&program, 0, tier, seeds - 1, 1, budget_seconds)?;
                ensure!(alone.is_none(), "seed {} of {tier} fails without a bug: {alone:?}", seeds - 1);
            }
        }
        match found {
            Some(Found { tier, seeds, checker }) => {
                println!("| {} | {} | {tier} | {seeds} | {checker} |", bug.number, bug.what);
            }
            None => {
                println!("| {} | {} | | not found | |", bug.number, bug.what);
                missed.push(bug.number);
            }
        }
    }
    Ok(missed)
}

/// Plays seeds from this one on with one bug on until one fails.
fn play(
    program: &Path,
    bug: u32,
    tier: Tier,
    from: u64,
    seeds: u64,
    budget_seconds: u64,
) -> anyhow::Result<Option<Found>> {
    let output = Command::new(program)
        .env("SYNCLINE_PLANTED", bug.to_string())
        .args(["run", "--brief", "--tier", &tier.to_string(), "--seeds", &seeds.to_string()])
        .args(["--from", &from.to_string()])
        .args(["--budget-seconds", &budget_seconds.to_string()])
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("seed "));
    let Some((seed, rest)) = line.and_then(|line| line.split_once(": ")) else { return Ok(None) };
    let checker = rest.split(": ").next().unwrap_or(rest).to_owned();
    Ok(Some(Found { tier, seeds: seed.parse::<u64>()? + 1, checker }))
}

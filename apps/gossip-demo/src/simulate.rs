//! Many members on a simulated network: what `tests/mesh` plays, with a page to look at.
//!
//! Owns: the command's flags, the last line. Must not: play anything itself. Next: `simulate/page.rs`, the crate syncline-mesh-sim.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use syncline_mesh_sim::{Outcome, Plan, Split, play};

mod page;

/// Of what is played, the network is cut after this share.
const SPLIT_AT: f64 = 1.0 / 3.0;

/// The flags of `simulate`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Members
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=2000))]
    nodes: u16,

    /// How long edits are made and faults happen
    #[arg(long, default_value = "60s", value_parser = duration)]
    time: Duration,

    /// How long the network is cut in two halves, from a third of the time on
    #[arg(long, value_parser = duration)]
    partition: Option<Duration>,

    /// Share of messages that are lost
    #[arg(long, default_value = "0%", value_parser = share)]
    loss: f64,

    /// Share of the members that are killed in a minute, and come back after 1 to 10 s
    #[arg(long, default_value = "0%", value_parser = share)]
    churn: f64,

    /// Edits in a second
    #[arg(long, default_value_t = 5.0)]
    edits: f64,

    /// Documents
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    documents: u16,

    /// What chance follows from: equal seeds give equal runs
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The page that is written
    #[arg(long, default_value = "syncline-gossip-simulation.html")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let split = arguments.partition.map(|length| Split { at: arguments.time.mul_f64(SPLIT_AT), length });
    let plan = Plan {
        nodes: arguments.nodes.into(),
        documents: arguments.documents.into(),
        duration: arguments.time,
        edits_per_second: arguments.edits,
        loss: arguments.loss,
        churn_per_minute: arguments.churn,
        split,
        seed: arguments.seed,
        ..Plan::default()
    };
    let outcome = play(&plan);
    let page = page::page(&plan, &outcome);
    std::fs::write(&arguments.out, page).with_context(|| format!("cannot write {}", arguments.out.display()))?;
    println!("plots in {}", arguments.out.display());
    println!("{}", last_line(&plan, &outcome));
    if outcome.agreed { Ok(()) } else { anyhow::bail!("not all members agreed at the end") }
}

fn last_line(plan: &Plan, outcome: &Outcome) -> String {
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let agreed = match outcome.settled_after {
        Some(after) => format!("all {} agree {} after the last edit and fault", plan.nodes, seconds(after)),
        None => format!("the {} members do NOT agree", plan.nodes),
    };
    format!(
        "{agreed}; {} edits, {} kills; an edit everywhere: median {}, 99% {}, slowest {}; copies of a notice {:.2}, of a change {:.2}; each member sends {:.1} messages and {:.0} bytes a second; seed {}",
        outcome.edits,
        outcome.kills,
        seconds(outcome.quantiles.0),
        seconds(outcome.quantiles.1),
        seconds(outcome.slowest),
        outcome.notice_copies,
        outcome.change_copies,
        outcome.frames_per_second,
        outcome.bytes_per_second,
        plan.seed,
    )
}

fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("min", 60.0), ("m", 60.0), ("s", 1.0)];
    let (number, scale) =
        units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale))).unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().map_err(|_| format!("{text} is no time, such as 10s, 500ms or 2min"))?;
    let seconds = number * scale;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err(format!("{text} is not between 0 and a day"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    let number: f64 = number.trim().parse().map_err(|_| format!("{text} is no share, such as 5% or 0.05"))?;
    let share = number * scale;
    if (0.0..0.95).contains(&share) { Ok(share) } else { Err(format!("{text} is not between 0 and 95%")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_are_read_as_people_write_them() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!((duration("2min"), duration("2m")), (Ok(Duration::from_secs(120)), Ok(Duration::from_secs(120))));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert!(duration("soon").is_err() && duration("-1s").is_err());
        assert_eq!((share("5%"), share("0.05")), (Ok(0.05), Ok(0.05)));
        assert!(share("100%").is_err() && share("-1").is_err() && share("some").is_err());
    }
}

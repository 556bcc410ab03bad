//! Many seeds of one mesh: the figures of docs/gossip.md.
//!
//! `cargo run --release -p syncline-mesh-sim --example many -- NODES SECONDS FIRST_SEED SEEDS`

use std::time::Duration;

use syncline_mesh_sim::{Plan, play};

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let [nodes, seconds, first, seeds] = numbers[..] else { panic!("NODES SECONDS FIRST_SEED SEEDS") };
    let (mut slowest, mut copies, mut changes, mut failed) = (Duration::ZERO, 0.0_f64, 0.0_f64, Vec::new());
    for seed in first..first + seeds {
        let (nodes, duration) = (nodes as usize, Duration::from_secs(seconds));
        let plan = Plan { nodes, duration, loss: 0.05, churn_per_minute: 0.1, seed, ..Plan::default() };
        let outcome = play(&plan);
        println!(
            "seed {seed}: agreed {} after {:?}, {} edits, {} kills, half {:?}, 99% {:?}, slowest {:?}, copies {:.2} / {:.2}, {:.0} frames and {:.0} B a second",
            outcome.agreed,
            outcome.settled_after,
            outcome.edits,
            outcome.kills,
            outcome.quantiles.0,
            outcome.quantiles.1,
            outcome.slowest,
            outcome.notice_copies,
            outcome.change_copies,
            outcome.frames_per_second,
            outcome.bytes_per_second,
        );
        slowest = slowest.max(outcome.slowest);
        copies = copies.max(outcome.notice_copies);
        changes = changes.max(outcome.change_copies);
        if !outcome.agreed || outcome.slowest > Duration::from_secs(10) || outcome.notice_copies >= 2.0 {
            failed.push(seed);
        }
    }
    println!(
        "{seeds} seeds: slowest {slowest:?}, at most {copies:.2} copies of a notice and {changes:.2} of a change; failed {failed:?}"
    );
}

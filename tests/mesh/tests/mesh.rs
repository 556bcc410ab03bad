//! Meshes of many replicas under faults: everything everywhere, soon, and about once.
//!
//! Owns: the bars. Must not: run long. Next: `../src/world.rs`; docs/gossip.md, "Figures".

use std::time::Duration;

use syncline_mesh_sim::{Outcome, Plan, Split, play};

const SECOND: Duration = Duration::from_secs(1);

fn check(plan: &Plan) -> Outcome {
    let outcome = play(plan);
    let seed = plan.seed;
    assert!(outcome.edits > 20, "seed {seed}: {} edits", outcome.edits);
    assert!(outcome.agreed, "seed {seed}: not all agree {:?} after the last fault", plan.settle);
    assert!(outcome.slowest <= 10 * SECOND, "seed {seed}: an edit took {:?}", outcome.slowest);
    assert!(outcome.notice_copies < 2.0, "seed {seed}: {} copies of each notice", outcome.notice_copies);
    outcome
}

#[test]
fn on_a_good_network_everybody_hears_of_an_edit_at_once_and_about_once() {
    let plan = Plan { nodes: 20, duration: 15 * SECOND, edits_per_second: 8.0, ..Plan::default() };
    let outcome = check(&plan);
    assert!(outcome.quantiles.0 < SECOND / 2, "half of the edits took {:?}", outcome.quantiles.0);
    assert!(outcome.change_copies < 2.0, "{} copies of each change", outcome.change_copies);
}

#[test]
fn under_loss_and_kills_everybody_hears_of_everything() {
    let plan = Plan {
        nodes: 24,
        duration: 20 * SECOND,
        edits_per_second: 6.0,
        loss: 0.05,
        churn_per_minute: 0.3,
        seed: 7,
        ..Plan::default()
    };
    let outcome = check(&plan);
    assert!(outcome.kills > 0 && outcome.grafts > 0, "{} kills, {} grafts", outcome.kills, outcome.grafts);
}

#[test]
fn two_halves_that_were_cut_apart_agree_again() {
    let split = Split { at: 5 * SECOND, length: 15 * SECOND };
    let plan = Plan { nodes: 16, duration: 15 * SECOND, split: Some(split), seed: 3, ..Plan::default() };
    let outcome = play(&plan);
    let apart = outcome.samples.iter().filter(|sample| sample.at > 15 * SECOND && sample.at < 20 * SECOND);
    assert!(apart.into_iter().all(|sample| sample.agreed < sample.up), "the cut is one");
    assert!(outcome.agreed && outcome.settled_after.is_some_and(|after| after <= 10 * SECOND), "{outcome:?}");
}

#[test]
fn equal_plans_give_equal_outcomes() {
    let plan = Plan { nodes: 8, duration: 5 * SECOND, loss: 0.05, churn_per_minute: 2.0, seed: 11, ..Plan::default() };
    let [one, two] = [play(&plan), play(&plan)].map(|outcome| format!("{outcome:?}"));
    assert!(one == two, "the same seed went two ways");
}

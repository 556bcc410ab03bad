//! A few seeds, in every test run. Long runs are a command: docs/simulator.md.
//!
//! Owns: that run. Must not: take more than a minute. Next: `../src/world.rs`.

use syncline_turmoil::{Plan, play};

#[test]
fn a_few_seeds_are_clean() {
    let (mut acknowledged, mut faults) = (0, 0);
    for seed in 0..3 {
        let outcome = play(&Plan::draw(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        acknowledged += outcome.acknowledged;
        faults += outcome.faults.values().sum::<u64>();
    }
    assert!(acknowledged > 20 && faults > 5, "{acknowledged} changes acknowledged, {faults} faults");
}

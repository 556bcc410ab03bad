//! A short run of everything, in every test run. Long runs are commands: docs/simulator.md.
//!
//! Owns: what was found to fail once, made short, in `found/`. Must not: take more than a minute of one processor.
//! Next: `../src/campaign.rs`.

use syncline_sim::campaign::Campaign;
use syncline_sim::small::explore;
use syncline_sim::{Scenario, Tier};

fn check(tier: Tier, seeds: u64, double: bool) {
    let campaign =
        Campaign { tier, from: 0, seeds, budget: None, threads: 2, failures_max: 1, double, with: Vec::new() };
    let summary = campaign.run();
    assert_eq!(summary.failures, []);
    assert_eq!(summary.seeds, seeds);
    assert!(!double || summary.doubled == seeds);
}

#[test]
fn seeds_with_small_changes_are_clean() {
    check(Tier::T0, 200, false);
}

#[test]
fn seeds_with_real_documents_are_clean() {
    check(Tier::T1, 80, false);
}

#[test]
fn seeds_with_members_of_a_mesh_are_clean() {
    check(Tier::Mesh, 15, false);
}

/// Each has a clear reason, costs a bounded number of messages, and the others agree while whoever did it is still there.
#[test]
fn what_a_bad_member_does_has_its_reason_and_the_others_go_on() {
    let deeds = [
        ("Stranger 0 0", "mesh_wrong_key"),
        ("Stranger 0 1", "mesh_wrong_key"),
        ("Forge 0 1", "mesh_forged"),
        ("BadNotice 0 11423295354404", "mesh_bad_change"),
        ("Flood 0 1", "mesh_flood"),
        ("LieInRound 0 1\nLieInRound 0 2\nLieInRound 0 3\nLieInRound 0 4", "round_broken"),
        ("EndlessRound 0 1", "round_limit"),
        ("Undeliverable 0 1", ""),
        ("Replay 0 2", ""),
    ];
    for (deed, reason) in deeds {
        let (begin, pause) = ("Dial 0 5\nDial 1 6\nDial 2 7\nAdvance 0 2999\n", "LongPause 0 0\n");
        let text = format!("world mesh 0,0 - 2 16\n{begin}LocalEdit 1 4\n{deed}\n{pause}LocalEdit 2 5\n{pause}");
        let outcome = syncline_sim::run(&text.parse().expect("a scenario"), true);
        assert_eq!(outcome.violation, None, "{deed}");
        let given = outcome.trace.iter().any(|line| line.ends_with(&format!("refuses: {reason}")));
        assert!(given || reason.is_empty(), "{deed}: {:#?}", outcome.trace);
    }
}

#[cfg(feature = "t2")]
#[test]
fn seeds_with_the_store_on_a_failing_disk_are_clean() {
    check(Tier::T2, 20, false);
}

#[cfg(not(feature = "t2"))]
#[test]
fn seeds_with_the_store_on_a_failing_disk_are_clean() {
    let why = "built without T2: install libclang (Debian: libclang-dev) and test with --features syncline-sim/t2";
    assert!(std::env::var("SYNCLINE_REQUIRE_ALL").as_deref() != Ok("1"), "{why}");
    println!("skipped: {why}");
}

#[test]
fn equal_seeds_give_equal_runs() {
    check(Tier::T0, 40, true);
    check(Tier::T1, 10, true);
    check(Tier::Mesh, 3, true);
    #[cfg(feature = "t2")]
    check(Tier::T2, 5, true);
}

#[test]
fn a_small_world_is_clean_in_every_state_near_its_beginning() {
    let explored = explore(2, 400);
    assert!(explored.failure.is_none(), "{:?}", explored.failure);
    assert!(explored.cases >= 400, "{explored:?}");
}

/// A seed means another scenario when the simulator learns something new; its text does not.
#[test]
fn what_failed_once_does_not_fail_again() {
    let kept = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/found")).expect("a directory");
    let mut played = 0;
    for file in kept {
        let path = file.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a scenario");
        if cfg!(not(feature = "t2")) && text.contains("world t2") {
            continue;
        }
        let scenario: Scenario = text.parse().expect("a scenario");
        assert_eq!(syncline_sim::run(&scenario, false).violation, None, "{}", path.display());
        played += 1;
    }
    assert!(played > 0);
}

#[test]
fn a_scenario_survives_its_text_form() {
    for seed in 0..20 {
        let scenario = Scenario::draw(seed, Tier::T1);
        assert_eq!(scenario.to_string().parse::<Scenario>().expect("own text"), scenario);
    }
}

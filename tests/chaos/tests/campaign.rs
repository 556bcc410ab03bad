//! A short campaign with every fault that this machine can do.
//!
//! Owns: that a run of a few rounds is good, and that each fault hits. Must not: take longer than a test may.
//! Next: `../src/campaign.rs`; docs/chaos.md for the long runs.

use std::time::Duration;

use syncline_chaos::campaign::{self, Class, Outcome, Plan};

fn run(classes: &[Class], rounds: u64) -> Outcome {
    let seed = std::env::var("SYNCLINE_CHAOS_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let plan = Plan { rounds, time: Duration::from_secs(600), seed, classes: classes.to_vec(), history: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(campaign::run(&plan)).expect("a machine that can do it");
    println!("{outcome}");
    assert!(outcome.is_good(), "{outcome}");
    outcome
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens() {
    let (possible, reasons) = campaign::possible();
    reasons.iter().for_each(|reason| println!("{reason}"));
    let may_mount = std::path::Path::new("/dev/fuse").exists() && nix::unistd::geteuid().is_root();
    if std::env::var_os("SYNCLINE_REQUIRE_ALL").is_some() && may_mount {
        assert!(possible.contains(&Class::Power), "SYNCLINE_REQUIRE_ALL is set, but: {reasons:?}");
    }
    if std::env::var_os("SYNCLINE_REQUIRE_ALL").is_some() {
        assert!(possible.contains(&Class::Clock), "SYNCLINE_REQUIRE_ALL is set, but: {reasons:?}");
        let uninstalled = reasons.iter().any(|reason| reason.contains("not installed"));
        assert!(!uninstalled, "SYNCLINE_REQUIRE_ALL is set, but: {reasons:?}");
    }
    // TCP takes its time over what a link lost.
    let (slow, fast): (Vec<_>, Vec<_>) =
        possible.into_iter().partition(|class| matches!(class, Class::LinkDown | Class::OneWay));
    for (classes, rounds) in [(fast, 3), (slow, 1)] {
        if !classes.is_empty() {
            let outcome = run(&classes, rounds * classes.len() as u64);
            assert_eq!(outcome.classes.len(), classes.len(), "every fault had its rounds");
        }
    }
}

//! Every operation on the disk fails once, in every way that it can.
//!
//! Owns: the walk over all operations and faults. `SYNCLINE_FIRE=all` walks all of them with every fault; without it
//! some operations get one fault each, which is what a test run has time for.
//! Must not: know where the store does what. Next: `support/fire.rs`, `images.rs`.

#![cfg(target_os = "linux")]

mod support;

use support::fire::{Ground, live};
use syncline_disk::{Cut, Fault, FaultKind, Site};
use syncline_store::Options;

/// How an operation fails, and whether all after it do as well.
const FAULTS: [(FaultKind, bool); 6] = [
    (FaultKind::Io, false),
    (FaultKind::Full, false),
    (FaultKind::Short, false),
    (FaultKind::Torn, false),
    (FaultKind::Io, true),
    (FaultKind::Full, true),
];

/// The process that lives on the disk; nothing when the tests run.
#[test]
fn a_life() {
    live();
}

#[test]
fn whatever_operation_fails_the_store_says_so_and_keeps_its_word() {
    let Some(mut ground) = Ground::new() else { return };
    let before = ground.disk.operations();
    let life = ground.live("a_life");
    assert!(life.errors.is_empty(), "a healthy disk: {:?}", life.errors);
    ground.assert_kept(&life, Cut::Lost, "a healthy disk");
    let operations = ground.disk.operations() - before;
    assert!(operations > 100, "the life uses the disk");
    let all = std::env::var_os("SYNCLINE_FIRE").is_some_and(|wanted| wanted == "all");
    let (mut hits, mut errors) = (0, 0);
    // In a plain run a stride that no period of the operations shares, so that all kinds of them are met.
    for after in (0..operations).step_by(if all { 1 } else { 7 }) {
        for (place, (kind, lasts)) in FAULTS.into_iter().enumerate() {
            if all || (after / 7) as usize % FAULTS.len() == place {
                let fault = Fault { kind, site: None, after, lasts };
                let (hit, met) = run(&mut ground, fault, &format!("operation {after}, {kind:?}, lasts {lasts}"));
                hits += hit;
                errors += met;
            }
        }
    }
    println!("{operations} operations, {hits} faults hit, {errors} errors were reported");
    assert!(hits > 10 && errors > 0, "{hits} faults hit, {errors} errors");
}

/// One life with one fault, then what is there with and without power.
fn run(ground: &mut Ground, fault: Fault, what: &str) -> (u64, u64) {
    ground.start_over();
    let before = ground.disk.fired();
    ground.disk.fail(fault);
    let life = ground.live("a_life");
    let hits = ground.disk.fired() - before;
    ground.disk.mend();
    for (name, message) in &life.errors {
        // A disk that fails is no reason to call the data damaged or foreign; a commit on one that was not taken is stale.
        let honest = ["Io", "DiskFull", "Poisoned", "Sqlite", "Stale"].contains(&name.as_str());
        // Of a page that can be read in part only, SQLite sees the rest as zeros.
        let honest = honest || name == "Corrupt" && fault.kind == FaultKind::Io;
        assert!(honest, "{what}: {name}: {message}");
    }
    ground.assert_kept(&life, Cut::Kept, what);
    ground.assert_kept(&life, Cut::Lost, what);
    (hits, life.errors.len() as u64)
}

#[test]
fn after_a_failed_sync_the_store_stops() {
    fail_each_sync(None);
}

/// The checkpoint thread syncs both files too, while the writer goes on.
#[test]
fn after_a_failed_sync_of_the_checkpoint_thread_the_store_stops() {
    fail_each_sync(Some(8));
}

/// Fails each sync of a life in turn.
fn fail_each_sync(checkpoint_pages: Option<u32>) {
    let Some(mut ground) = Ground::new() else { return };
    let mut stopped = 0;
    for after in 0.. {
        ground.start_over();
        let before = ground.disk.fired();
        ground.disk.fail(Fault { kind: FaultKind::Io, site: Some(Site::Sync), after, lasts: false });
        let pages = checkpoint_pages.unwrap_or(Options::default().checkpoint_pages);
        let life = ground.live_with("a_life", pages);
        if ground.disk.fired() == before {
            break;
        }
        // The thread may fail when nobody asks for anything any more: this life ends with a death.
        let told = !life.errors.is_empty() || checkpoint_pages.is_some();
        assert!(told, "sync {after} failed, and nobody was told");
        if let Some(touched) = life.touched.first() {
            stopped += 1;
            // What the writer had begun while the checkpoint thread failed, it ends; it acknowledges none of it.
            let untouched = *touched == 0 || checkpoint_pages.is_some();
            assert!(untouched, "after sync {after} had failed, its file was written or synced {touched} times");
        }
        ground.assert_kept(&life, Cut::Kept, &format!("sync {after} failed"));
        ground.assert_kept(&life, Cut::Lost, &format!("sync {after} failed"));
    }
    println!("{stopped} stores stopped");
    assert!(stopped > 2, "{stopped} stores stopped");
}

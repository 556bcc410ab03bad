//! Faults of the disk: power cuts, a full disk, a failing sync.
//!
//! Owns: one function for each; it says how often the fault hit. Must not: judge; what is seen goes into the history.
//! Next: `world.rs`; docs/chaos.md, "Faults".

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use rand::RngExt;
use syncline_disk::{Cut, Disk, Fault, FaultKind, Site};

use crate::history::Event;
use crate::rounds::{recover, wait, work_for_a_while};
use crate::world::{Ground, World};

/// The power fails under load, or right after a restart that followed a crash.
pub(crate) async fn power(world: &mut World) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    world.kill().await?;
    if world.random.random_bool(0.3) {
        // What a restart shows to a reader must be as durable as what was acknowledged.
        world.history.add(Event::Fault { what: "SIGKILL".to_owned() });
        world.check_and_read().await?;
        world.kill().await?;
    }
    let cut = drawn_cut(world);
    world.cut_power(cut);
    world.check_and_read().await?;
    world.let_clients_in();
    Ok(1)
}

/// The disk fills up under load, and has room again later.
pub(crate) async fn full(world: &mut World) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    let disk = disk(world)?;
    let before = disk.fired();
    let room = world.random.random_range(0..60_000);
    world.history.add(Event::Fault { what: format!("the disk is full after {room} bytes") });
    disk.limit(room);
    world.wait_until("the disk fills up", |_| disk.fired() > before).await?;
    wait(world, Duration::from_millis(5), Duration::from_millis(100)).await;
    let hits = disk.fired() - before;
    if world.random.random_bool(0.4) {
        world.kill().await?;
        let cut = drawn_cut(world);
        world.cut_power(cut);
        world.check_and_read().await?;
    } else {
        world.history.add(Event::Fault { what: "the disk has room again".to_owned() });
        disk.mend();
    }
    recover(world).await?;
    Ok(hits)
}

/// A sync fails once, and Linux forgets what it should have synced. The server must acknowledge nothing more, and what a
/// later start makes of the files must be durable again.
pub(crate) async fn failed_sync(world: &mut World) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    let disk = disk(world)?;
    let before = disk.fired();
    let after = world.random.random_range(0..4);
    world.history.add(Event::Fault { what: format!("the sync after {after} more fails") });
    disk.fail(Fault { kind: FaultKind::Io, site: Some(Site::Sync), after, lasts: false });
    world.wait_until("a sync fails", |_| disk.fired() > before).await?;
    wait(world, Duration::from_millis(5), Duration::from_millis(60)).await;
    let hits = disk.fired() - before;
    ensure!(world.server()?.is_alive(), "a failed sync ended the server");
    let in_order = world.random.random_bool(0.4);
    if in_order {
        // It is told to stop, and is killed somewhere in it.
        world.server()?.signal(Signal::SIGTERM)?;
        wait(world, Duration::ZERO, Duration::from_millis(20)).await;
    }
    world.kill().await?;
    let touched = disk.touched_after_failure();
    ensure!(touched == 0, "after a failed sync the file was written or synced {touched} times");
    if world.random.random_bool(0.6) {
        // The process restarts, the machine does not: the page cache shows what the disk never got.
        disk.mend();
        world.check_and_read().await?;
        world.let_clients_in();
        if world.random.random_bool(0.5) {
            work_for_a_while(world).await?;
        }
        world.kill().await?;
    }
    let cut = drawn_cut(world);
    world.cut_power(cut);
    world.check_and_read().await?;
    recover(world).await?;
    Ok(hits)
}

fn disk(world: &World) -> anyhow::Result<Disk> {
    match &world.ground {
        Ground::Plain => None.context("this fault needs a disk that can fail"),
        Ground::Faulty { disk, .. } => Ok(disk.clone()),
    }
}

fn drawn_cut(world: &mut World) -> Cut {
    let seed = world.random.random();
    match world.random.random_range(0..4) {
        0 | 1 => Cut::Lost,
        2 => Cut::Prefix(seed),
        _ => Cut::Scattered(seed),
    }
}

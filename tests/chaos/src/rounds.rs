//! Faults of the process, the links, the directory and the clock.
//!
//! Owns: one function for each; it says how often the fault hit. Must not: judge; what is seen goes into the history.
//! Next: `world.rs`, `disk_rounds.rs`; docs/chaos.md, "Faults".

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use rand::RngExt;

use crate::history::Event;
use crate::network::{Network, Outage};
use crate::proxy::Weather;
use crate::server::{Server, Setting};
use crate::world::World;

/// Most acknowledgements between two faults.
pub(crate) const ACKNOWLEDGED_MAX: usize = 30;

/// Longest time under load before a fault, or that it lasts, beyond what is counted in acknowledgements.
pub(crate) const MOMENT_MAX: Duration = Duration::from_millis(3);

/// Works for a stretch that the seed draws, and a moment more, so that faults fall into every phase of a commit.
pub(crate) async fn work_for_a_while(world: &mut World) -> anyhow::Result<()> {
    let acknowledgements = world.random.random_range(1..=ACKNOWLEDGED_MAX);
    world.work(acknowledgements).await?;
    wait(world, Duration::ZERO, MOMENT_MAX).await;
    Ok(())
}

/// Lets time pass that is part of a fault.
pub(crate) async fn wait(world: &mut World, least: Duration, most: Duration) {
    let micros = world.random.random_range(least.as_micros() as u64..most.as_micros() as u64);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

/// SIGKILL under load.
pub(crate) async fn kill(world: &mut World) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    world.history.add(Event::Fault { what: "SIGKILL".to_owned() });
    world.kill().await?;
    world.check_and_read().await?;
    world.let_clients_in();
    Ok(1)
}

/// SIGSTOP under load, for some clients with new connections to the server that stands still, and SIGCONT.
pub(crate) async fn stop(world: &mut World) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    world.history.add(Event::Fault { what: "SIGSTOP".to_owned() });
    world.server()?.signal(Signal::SIGSTOP)?;
    for number in 0..world.links.len() {
        if world.random.random_bool(0.3) {
            world.links[number].reset();
            world.links[number].set_weather(Weather::Fair);
        }
    }
    wait(world, Duration::from_millis(10), Duration::from_millis(150)).await;
    world.history.add(Event::Fault { what: "SIGCONT".to_owned() });
    world.server()?.signal(Signal::SIGCONT)?;
    recover(world).await?;
    Ok(1)
}

/// Bad weather on some of the links, then fair weather.
pub(crate) async fn weather(world: &mut World, kind: Weather) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    let mut affected: Vec<usize> = (0..world.links.len()).filter(|_| world.random.random_bool(0.5)).collect();
    if affected.is_empty() {
        affected.push(world.random.random_range(0..world.links.len()));
    }
    let before: u64 = affected.iter().map(|number| world.links[*number].hit()).sum();
    let hits = |world: &World| affected.iter().map(|number| world.links[*number].hit()).sum::<u64>() - before;
    for number in &affected {
        let weather = drawn(world, kind);
        world.history.add(Event::Fault { what: format!("link {number}: {weather:?}") });
        world.links[*number].set_weather(weather);
    }
    world.wait_until("the weather hits a link", |world| hits(world) > 0).await?;
    wait(world, Duration::from_millis(5), Duration::from_millis(100)).await;
    if kind == Weather::BlackHole && world.random.random_bool(0.5) {
        // What the hole swallowed never comes out.
        affected.iter().for_each(|number| world.links[*number].reset());
    }
    world.links.iter().for_each(|link| link.set_weather(Weather::Fair));
    let hits = hits(world);
    recover(world).await?;
    Ok(hits)
}

/// An older copy of the directory comes back.
pub(crate) async fn backup(world: &mut World) -> anyhow::Result<u64> {
    let copy = take_copy(world).await?;
    world.launch()?;
    world.let_clients_in();
    work_for_a_while(world).await?;
    world.kill().await?;
    std::fs::remove_dir_all(world.data())?;
    copy_directory(&copy, &world.data())?;
    std::fs::remove_dir_all(&copy)?;
    world.history.add(Event::Restored { lineage: 0 });
    world.check_and_read().await?;
    recover(world).await?;
    Ok(1)
}

/// Two servers run on copies of one directory, with some clients each; then all clients visit both.
pub(crate) async fn clone(world: &mut World) -> anyhow::Result<u64> {
    let copy = take_copy(world).await?;
    world.history.add(Event::Cloned { from: 0, to: 1 });
    world.launch()?;
    let twin = Server::start(&copy, &world.scratch().join("log"), Setting::default())?;
    world.let_clients_in();
    // The first stays with the original, so that both have work.
    for link in &world.links[1..] {
        link.reset();
        link.lead_to(1, twin.address());
        link.set_weather(Weather::Fair);
    }
    work_for_a_while(world).await?;
    world.set_work(false);
    let original = world.server()?.address();
    for (lineage, address) in [(0, original), (1, twin.address()), (0, original)] {
        world.hang_up().await?;
        for link in &world.links {
            link.lead_to(lineage, address);
            link.set_weather(Weather::Fair);
            link.open();
        }
        world.wait_until_agreed().await?;
    }
    world.read(1, twin.address()).await?;
    twin.stop()?;
    world.check(1, &copy)?;
    std::fs::remove_dir_all(&copy)?;
    world.read(0, original).await?;
    Ok(1)
}

/// Restarts under a clock that is hours or days off and jumps while the server works, and again under the true one.
pub(crate) async fn clock(world: &mut World) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    world.kill().await?;
    shift_clock(world)?;
    world.check_and_read().await?;
    world.expect_clock_apart()?;
    world.let_clients_in();
    work_for_a_while(world).await?;
    let jumps = world.random.random_range(1..=3);
    for _ in 0..jumps {
        shift_clock(world)?;
        work_for_a_while(world).await?;
    }
    world.kill().await?;
    world.environment.clear();
    world.check_and_read().await?;
    recover(world).await?;
    Ok(1 + jumps)
}

/// Sets the server's clock up to a day off.
fn shift_clock(world: &mut World) -> anyhow::Result<()> {
    let seconds = world.random.random_range(-86_400..86_400_i64);
    world.set_clock_apart(seconds)
}

/// Restarts in a network of its own, whose link then fails and comes back, and again in ours.
pub(crate) async fn outage(world: &mut World, one_way: bool) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    world.kill().await?;
    world.network = Some(Network::new()?);
    world.check_and_read().await?;
    world.let_clients_in();
    let outages = world.random.random_range(1..=2);
    for _ in 0..outages {
        work_for_a_while(world).await?;
        let outage = match (one_way, world.random.random_bool(0.5)) {
            (false, _) => Outage::Down,
            (true, true) => Outage::ToServer,
            (true, false) => Outage::FromServer,
        };
        world.history.add(Event::Fault { what: format!("the link: {outage:?}") });
        let before = network(world)?.sent_again();
        network(world)?.fail(outage)?;
        // Everybody is at work, so on one end or the other something is not acknowledged.
        let sent_again = |world: &World| world.network.as_ref().map_or(0, Network::sent_again);
        world.wait_until("a packet is lost", |world| sent_again(world) > before).await?;
        wait(world, Duration::from_millis(5), Duration::from_millis(300)).await;
        world.history.add(Event::Fault { what: "the link is whole".to_owned() });
        network(world)?.mend()?;
    }
    recover(world).await?;
    world.kill().await?;
    world.network = None;
    world.check_and_read().await?;
    recover(world).await?;
    Ok(outages)
}

fn network(world: &mut World) -> anyhow::Result<&mut Network> {
    world.network.as_mut().context("the server is in our own network")
}

/// Everybody is let in, works on, and comes to agree.
pub(crate) async fn recover(world: &mut World) -> anyhow::Result<()> {
    world.let_clients_in();
    world.work(5).await?;
    world.set_work(false);
    world.wait_until_agreed().await?;
    ensure!(world.server()?.is_alive(), "the server has ended by itself");
    world.set_work(true);
    Ok(())
}

/// Kills the server under load and copies its directory.
async fn take_copy(world: &mut World) -> anyhow::Result<PathBuf> {
    work_for_a_while(world).await?;
    world.kill().await?;
    let copy = world.scratch().join("copy");
    copy_directory(&world.data(), &copy)?;
    world.history.add(Event::Copied { lineage: 0 });
    Ok(copy)
}

/// Copies the files of a directory that has no others in it.
pub(crate) fn copy_directory(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn drawn(world: &mut World, kind: Weather) -> Weather {
    match kind {
        Weather::Delay(_) => Weather::Delay(Duration::from_millis(world.random.random_range(1..40))),
        Weather::Rate(_) => Weather::Rate(world.random.random_range(2_000..100_000)),
        Weather::Cut(_) => Weather::Cut(world.random.random_range(0..2_000)),
        Weather::Fair | Weather::BlackHole | Weather::HalfOpen | Weather::Reset => kind,
    }
}

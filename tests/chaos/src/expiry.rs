//! Tokens that expire while those who hold them write.
//!
//! Owns: whose token expires, and that it gets another. Must not: judge what was kept; the checker does.
//! Next: `rules.rs`, `client.rs`; docs/access.md, docs/chaos.md.

use std::time::Duration;

use rand::RngExt;

use crate::history::Event;
use crate::rounds::{recover, wait, work_for_a_while};
use crate::rules::{HOUR, Rules};
use crate::world::World;

/// For how long a server takes a token after its time, by docs/access.md.
const LEEWAY: Duration = Duration::from_secs(30);

/// How long a token is good that is to expire in a round, on a server whose clock is ahead of ours by the leeway.
const SHORT: Duration = Duration::from_secs(2);

/// Restarts with rules, under which strangers may read or nothing, and lets the tokens of some clients expire under load.
pub(crate) async fn expiry(world: &mut World) -> anyhow::Result<u64> {
    work_for_a_while(world).await?;
    world.kill().await?;
    let rules = Rules::new(world.scratch())?;
    let may_read = world.random.random_bool(0.5);
    world.environment = rules.environment(may_read.then_some("read"));
    world.set_clock_apart(LEEWAY.as_secs().cast_signed())?;
    world.reader_token = (!may_read).then(|| rules.token("reader", "read", HOUR)).transpose()?;
    world.check_and_read().await?;
    world.expect_clock_apart()?;
    let expiries = world.random.random_range(1..=2);
    for _ in 0..expiries {
        expire(world, &rules).await?;
    }
    world.kill().await?;
    world.environment.clear();
    world.reader_token = None;
    world.links.iter().for_each(|link| link.set_token(None));
    world.check_and_read().await?;
    recover(world).await?;
    Ok(expiries)
}

/// Some clients hold tokens that expire, and write on; then they get others.
async fn expire(world: &mut World, rules: &Rules) -> anyhow::Result<()> {
    let whose = world.random.random_range(0..world.links.len());
    let affected: Vec<bool> = (0..world.links.len()).map(|at| at == whose || world.random.random_bool(0.3)).collect();
    for (number, expires) in affected.iter().enumerate() {
        let valid = if *expires { SHORT } else { HOUR };
        world.links[number].set_token(Some(rules.token(&format!("client {number}"), "create", valid)?));
    }
    world.history.add(Event::Fault { what: format!("tokens that expire: {affected:?}") });
    let told = world.history.expired() + affected.iter().filter(|expires| **expires).count();
    world.set_work(true);
    world.let_clients_in();
    world.wait_until("clients hear that their tokens have expired", |world| world.history.expired() >= told).await?;
    // What they make now and what others make goes on its way.
    wait(world, Duration::from_millis(5), Duration::from_millis(100)).await;
    world.history.add(Event::Fault { what: "SIGKILL".to_owned() });
    world.kill().await?;
    world.check_and_read().await?;
    world.history.add(Event::Renewed);
    for (number, link) in world.links.iter().enumerate() {
        link.set_token(Some(rules.token(&format!("client {number}"), "create", HOUR)?));
    }
    recover(world).await?;
    world.hang_up().await
}

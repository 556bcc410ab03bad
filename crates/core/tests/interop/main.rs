//! The hub against stock automerge documents, at random: lost connections, lost state, V1-only peers, compaction,
//! eviction, edits on all sides. Whatever happens, all hold the same document in the end, and then there is silence.
//!
//! Seeds: `SYNCLINE_SEEDS=5000` runs more; a failure names its seed, and `SYNCLINE_SEED=n` runs it alone.

mod world;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use world::{Client, World};

#[test]
fn stock_clients_and_the_hub_converge_and_fall_silent() {
    let seeds: Vec<u64> = match (number("SYNCLINE_SEED"), number("SYNCLINE_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(400)).collect(),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| scenario(seed));
        assert!(outcome.is_ok(), "seed {seed} failed: SYNCLINE_SEED={seed} cargo test -p syncline-core --test interop");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn scenario(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let clients = rng.random_range(2..=3);
    let mut world = World::new(seed, clients, rng.random_bool(0.3));
    for _ in 0..rng.random_range(20..80) {
        step(&mut world, &mut rng);
    }
    world.heal();
    world.assert_converged();
    world.assert_silent();
}

fn step(world: &mut World, rng: &mut ChaCha8Rng) {
    let who = rng.random_range(0..world.clients.len());
    match rng.random_range(0..100) {
        0..=39 => world.clients[who].edit(rng.next_u64()),
        40..=79 => {
            for _ in 0..rng.random_range(1..12) {
                world.deliver_one(rng.next_u64());
            }
        }
        80..=85 => world.disconnect(who),
        86..=91 => world.connect(who),
        92..=93 => world.lose_sync_state(who),
        94..=95 => world.compact(rng.next_u64()),
        96 => world.evict(),
        97 => world.restart_server(),
        98 => world.clients[who] = Client::merge_out_of_band(&mut world.clients, who),
        _ => world.advance(rng.random_range(1..200)),
    }
}

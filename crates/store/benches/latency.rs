//! How long a commit waits while folding, checkpoints and compaction go on beside it.
//!
//! Owns: the percentiles in docs/store.md. Must not: assert any. Next: `support/mod.rs`.

mod support;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use support::Load;
use syncline_store::{Options, Store};

fn main() {
    println!("one single-change commit at a time to random documents of 10,000, at a steady rate, for 10 s each");
    println!("{:>10} {:>10} {:>9} {:>9} {:>9} {:>9}", "asked/s", "done/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms");
    for rate in [1_000, 10_000, 50_000] {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let store = Store::open(home.path(), Options::default()).expect("a store that can be opened");
        let mut load = Load::new(10_000);
        load.fill(&store);
        report(rate, run(&store, &mut load, rate, Duration::from_secs(10)));
    }
}

/// Commits on schedule, whether the earlier ones are answered or not, and returns how long each took.
fn run(store: &Store, load: &mut Load, rate: u32, length: Duration) -> Vec<Duration> {
    let (tell, told) = channel();
    let started = Instant::now();
    let mut sent = 0u32;
    while started.elapsed() < length {
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        if due == sent {
            std::thread::sleep(Duration::from_micros(200));
        }
        for _ in sent..due {
            let (tell, asked) = (tell.clone(), Instant::now());
            let done = move |result: Result<(), _>| {
                result.expect("a healthy disk");
                tell.send(asked.elapsed()).expect("somebody waits");
            };
            store.commit(vec![load.commit()], Box::new(done));
        }
        sent = due;
    }
    drop(tell);
    told.iter().collect()
}

fn report(rate: u32, mut waits: Vec<Duration>) {
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let done = waits.len() / 10;
    println!("{rate:>10} {done:>10} {:>9.2} {:>9.2} {:>9.2} {:>9.2}", at(0.5), at(0.99), at(0.999), at(1.0));
}

//! How long a start takes to make the set that is compared with peers, of a store with a million documents.
//!
//! Owns: that time. Must not: assert it. Next: `support/mod.rs`; docs/store.md, "Measurements".

mod support;

use std::time::Instant;

use support::Load;
use syncline_core::collection::{Gathering, documents_key};
use syncline_store::{Options, Store};

const DOCUMENTS: usize = 1_000_000;

fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let options = Options { durable: false, ..Options::default() };
    let store = Store::open(home.path(), options.clone()).expect("a store that can be opened");
    Load::new(DOCUMENTS).fill(&store);
    store.close().expect("a clean end");
    drop(store);
    let store = Store::open(home.path(), options).expect("a store that can be opened");
    for _ in 0..3 {
        let began = Instant::now();
        let mut gathering = Gathering::new(documents_key(), 1);
        let mut reading = std::time::Duration::ZERO;
        let mut at = Instant::now();
        store
            .states(|page| {
                reading += at.elapsed();
                gathering.add(page);
                at = Instant::now();
            })
            .expect("readable");
        let members = gathering.finish();
        println!("{} documents: {:?}, of which reading {reading:?}", members.elements().len(), began.elapsed());
    }
}

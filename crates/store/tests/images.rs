//! Every state in which a power cut can leave the disk is opened.
//!
//! Owns: the replay of one recorded life, cut after each operation in several ways.
//! Must not: mount anything for that: the images are files. Next: `support/fire.rs`.

#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use support::fire::{Ground, live};
use syncline_disk::Cut;
use syncline_disk::tree::ROOT;

/// How many operations apart the power is cut in a plain run; `SYNCLINE_FIRE=all` cuts it after each.
const STRIDE: usize = 5;

/// The process that lives on the disk; nothing when the tests run.
#[test]
fn a_life() {
    live();
}

#[test]
fn a_power_cut_after_any_operation_leaves_what_was_acknowledged() {
    let Some(ground) = Ground::new() else { return };
    let mut tree = ground.disk.record();
    let life = ground.live("a_life");
    let record = ground.disk.take_record();
    let place = tree.lookup(ROOT, &ground.place).expect("the disk's only place");
    let all = std::env::var_os("SYNCLINE_FIRE").is_some_and(|wanted| wanted == "all");
    let stride = if all { 1 } else { STRIDE };
    let mut seen = BTreeSet::new();
    for (number, operation) in record.iter().enumerate() {
        tree.apply(operation);
        if number % stride != 0 {
            continue;
        }
        let seed = number as u64;
        // What is kept after this operation is the prefix that ends with it; what is lost, the shortest one.
        for cut in [Cut::Kept, Cut::Lost, Cut::Prefix(seed), Cut::Scattered(seed)] {
            let image = tree.image(place, cut);
            // An image is judged by the first moment at which it can be left, when least was acknowledged, and by
            // the last as well where more was acknowledged since.
            let owed: Vec<usize> = life.documents.iter().map(|known| known.owed(number + 1)).collect();
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((&image, owed));
            if seen.insert(hash) {
                life.assert_kept(&image, number + 1, &format!("operation {number} {:?}, {cut:?}", operation.name()));
            }
        }
    }
    println!("{} operations, {} images", record.len(), seen.len());
    assert!(seen.len() > record.len() / stride, "{} images of {} operations", seen.len(), record.len());
}

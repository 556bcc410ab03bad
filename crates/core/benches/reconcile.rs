//! What a million elements cost: in memory, to keep current, to start from, and in rounds of several differences.
//!
//! Owns: bytes, round trips and time of each side, by sketch and by ranges alone. Must not: assert a time.
//! Next: `src/reconcile.rs`; docs/decisions/0020-ranges-to-look-sketches-to-list.md.

use std::alloc::System;
use std::time::{Duration, Instant};

use cap::Cap;
use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use syncline_core::ChangeHash;
use syncline_core::authored::Authored;
use syncline_core::clock::Stamp;
use syncline_core::collection::{DocumentState, Gathering};
use syncline_core::id::DocumentId;
use syncline_core::reconcile::{Element, ElementSet, Initiator, Options, Responder, SetKey};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const MILLION: usize = 1_000_000;

/// Repetitions of what is timed; the least of them is what it takes on a machine that does nothing else.
const REPEATS: usize = 5;

fn main() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let elements: Vec<Element> = (0..MILLION as u64).map(|stamp| element(&mut rng, stamp)).collect();
    start();
    directory();
    let set = memory(&elements);
    updates(&set, &elements, &mut rng);
    println!("\n1M elements a side: round trips, bytes both ways, processor time of initiator and responder");
    agree(&set);
    for count in [10, 100, 1_000, 4_000] {
        scattered(&set, &elements, count, &mut rng);
        recent(&set, count, &mut rng);
    }
    replaced(&set, &elements, 1_000, &mut rng);
    recent(&set, 50_000, &mut rng);
    at_100_000(&elements, &mut rng);
}

/// A stamp of about every second, as a year of work would leave.
fn element(rng: &mut ChaCha8Rng, second: u64) -> Element {
    Element::new(Stamp::new(1_750_000_000_000 + second * 1_000 + rng.random_range(0..1_000), 0), rng.random())
}

/// From what the rows of a store hold: ids, heads and stamps.
fn start() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let key = SetKey(rng.random());
    let row = |number: usize| {
        let id: [u8; 16] = rng.random();
        (
            DocumentId::from_bytes(&id).expect("16 bytes"),
            ChangeHash(rng.random()),
            Stamp::from_u64(number as u64 * 7_919 % 1_000_003),
        )
    };
    let rows: Vec<_> = (0..MILLION).map(row).collect();
    let element = |(id, head, stamp): &(DocumentId, ChangeHash, Stamp)| Element::of(&key, *stamp, id, (&[*head], None));
    let (set, took) = least(|| rows.iter().map(element).collect::<ElementSet>());
    println!("start of {} rows in no order: {took:?}", set.len());
}

/// The set with the way from documents to elements and back, as a replica keeps it.
fn directory() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let document = |number: u32, head: u8| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
        let authored = Authored::from_seconds(1_750_000_000 + number / 8 + u32::from(head) * 1_000_000);
        let heads = vec![ChangeHash([head; 32])];
        let state = DocumentState { heads, authored, life: None, local_only: false };
        (DocumentId::from_bytes(&id).expect("16 bytes"), state)
    };
    let before = ALLOCATOR.allocated();
    let begin = Instant::now();
    let mut gathering = Gathering::new(SetKey(rng.random()), rng.random());
    gathering.add((0..MILLION as u32).map(|number| document(number, 1)));
    let mut members = gathering.finish();
    let each = |bytes: usize| bytes as f64 / MILLION as f64;
    println!(
        "a set with its directory: {:?}, {:.1} B an element",
        begin.elapsed(),
        each(ALLOCATOR.allocated() - before)
    );
    let changes: Vec<_> = (0..100_000u32).map(|step| document(step * 7 % MILLION as u32, 2)).collect();
    let before_changes = ALLOCATOR.allocated();
    let begin = Instant::now();
    changes.iter().for_each(|(id, state)| members.set(id, state));
    let grown = ALLOCATOR.allocated() - before_changes;
    println!("a document's update: {:?}; then {:.1} B an element more", begin.elapsed() / 100_000, each(grown));
}

fn memory(elements: &[Element]) -> ElementSet {
    let before = ALLOCATOR.allocated();
    let at_once: ElementSet = elements.iter().copied().collect();
    let built = ALLOCATOR.allocated() - before;
    drop(at_once);
    let mut grown = ElementSet::new();
    // In an order that has nothing to do with that of the elements.
    for step in 0..elements.len() {
        grown.insert(elements[step * 7_919 % elements.len()]);
    }
    let grown_bytes = ALLOCATOR.allocated() - before;
    let each = |bytes: usize| bytes as f64 / elements.len() as f64;
    println!("memory an element: {:.1} B built at once, {:.1} B grown at random", each(built), each(grown_bytes));
    grown
}

/// A document changes: its element goes and one with a newer stamp comes.
fn updates(set: &ElementSet, elements: &[Element], rng: &mut ChaCha8Rng) {
    const COUNT: usize = 100_000;
    let changes: Vec<(Element, Element)> = (0..COUNT)
        .map(|step| (elements[step * 7_919 % elements.len()], element(rng, (MILLION + step) as u64)))
        .collect();
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let mut set = set.clone();
        let begin = Instant::now();
        for (old, new) in &changes {
            assert!(set.remove(old) && set.insert(*new));
        }
        times.push(begin.elapsed() / COUNT as u32);
    }
    println!("an update, one out and one in: {:?}", times.into_iter().min().unwrap_or_default());
}

fn agree(set: &ElementSet) {
    report("in agreement", set, set, 0);
}

/// Elements that one side alone has, at random places, half of them on each.
fn scattered(set: &ElementSet, elements: &[Element], count: usize, rng: &mut ChaCha8Rng) {
    let mut sides = [set.clone(), set.clone()];
    for (number, place) in sample(rng, elements.len(), count).into_iter().enumerate() {
        assert!(sides[number % 2].remove(&elements[place]));
    }
    report(&format!("{count} scattered"), &sides[0], &sides[1], count);
}

/// Elements that one side alone has, newer than all others, half of them on each.
fn recent(set: &ElementSet, count: usize, rng: &mut ChaCha8Rng) {
    let mut sides = [set.clone(), set.clone()];
    for number in 0..count {
        assert!(sides[number % 2].insert(element(rng, (MILLION + number) as u64)));
    }
    report(&format!("{count} recent"), &sides[0], &sides[1], count);
}

/// Documents that changed on one side: an old element there, a new one here.
fn replaced(set: &ElementSet, elements: &[Element], count: usize, rng: &mut ChaCha8Rng) {
    let mut sides = [set.clone(), set.clone()];
    for number in 0..count {
        let side = &mut sides[number % 2];
        assert!(side.remove(&elements[number * 7_919 % elements.len()]));
        assert!(side.insert(element(rng, (MILLION + number) as u64)));
    }
    report(&format!("{count} documents changed"), &sides[0], &sides[1], 2 * count);
}

fn at_100_000(elements: &[Element], rng: &mut ChaCha8Rng) {
    let elements = &elements[..100_000];
    let mut sides = [0, 1].map(|_| elements.iter().copied().collect::<ElementSet>());
    for number in 0..20 {
        let side = &mut sides[number % 2];
        assert!(side.remove(&elements[number * 4_999]));
        assert!(side.insert(element(rng, (MILLION + number) as u64)));
    }
    report("of 100,000, 10 documents changed on each side", &sides[0], &sides[1], 40);
}

fn report(what: &str, initiating: &ElementSet, responding: &ElementSet, differences: usize) {
    for sketches in [true, false] {
        let options = Options { sketches, ..Options::default() };
        let rounds: Vec<Round> = (0..REPEATS).map(|_| Round::hold(initiating, responding, options)).collect();
        let last = rounds.last().expect("several");
        assert_eq!(last.found, differences, "{what}");
        let least = |side: usize| rounds.iter().map(|round| round.took[side]).min().unwrap_or_default();
        println!(
            "{what}, {}: {} round trips, {} B, {:?} and {:?}",
            if sketches { "sketch" } else { "ranges alone" },
            last.trips,
            last.bytes,
            least(0),
            least(1)
        );
    }
}

#[derive(Default)]
struct Round {
    trips: usize,
    bytes: usize,
    found: usize,
    took: [Duration; 2],
}

impl Round {
    fn hold(initiating: &ElementSet, responding: &ElementSet, options: Options) -> Self {
        let mut round = Self::default();
        let begin = Instant::now();
        let (mut initiator, mut message) = Initiator::start(initiating, options);
        round.took[0] += begin.elapsed();
        let mut responder = Responder::new(options);
        let (mut have, mut missing) = (Vec::new(), Vec::new());
        loop {
            round.trips += 1;
            round.bytes += message.len();
            let begin = Instant::now();
            let answers = responder.handle(responding, &message).expect("our own message");
            round.took[1] += begin.elapsed();
            let mut next = None;
            for answer in answers {
                round.bytes += answer.len();
                let begin = Instant::now();
                let step = initiator.handle(initiating, &answer).expect("our own answer");
                round.took[0] += begin.elapsed();
                have.extend(step.have);
                missing.extend(step.missing.into_iter().map(|missing| missing.digest));
                next = step.send;
            }
            let Some(send) = next else { break };
            message = send;
        }
        have.sort_unstable();
        have.dedup();
        missing.sort_unstable();
        missing.dedup();
        round.found = have.len() + missing.len();
        round
    }
}

fn least<T>(mut work: impl FnMut() -> T) -> (T, Duration) {
    let mut time = || {
        let begin = Instant::now();
        let result = work();
        (result, begin.elapsed())
    };
    let mut best = time();
    for _ in 1..REPEATS {
        let next = time();
        if next.1 < best.1 {
            best = next;
        }
    }
    best
}

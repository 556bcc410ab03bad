//! Rounds: against the crate `negentropy`, by sketch, while sets change, and with peers that lie.

use std::collections::BTreeSet;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const PLAIN: Options = Options { message_bytes_max: 60_000, messages_max: 4_096, sketches: false };

/// Digests as both implementations can report them.
type Found = BTreeSet<[u8; DIGEST_PREFIX_BYTES]>;

fn element(rng: &mut impl Rng, stamps: u64) -> Element {
    Element::new(Stamp::from_u64(rng.random_range(0..stamps)), rng.random())
}

/// Two sets that share elements, with some of each alone.
fn sets(rng: &mut impl Rng, counts: [usize; 3], stamps: u64) -> [BTreeSet<Element>; 2] {
    let shared: BTreeSet<Element> = (0..counts[0]).map(|_| element(rng, stamps)).collect();
    let mut alone = |count| (0..count).map(|_| element(rng, stamps)).collect::<Vec<_>>();
    let sides = [alone(counts[1]), alone(counts[2])];
    sides.map(|some| shared.iter().copied().chain(some).collect())
}

fn alone(one: &BTreeSet<Element>, other: &BTreeSet<Element>) -> Found {
    one.difference(other).map(Element::prefix).collect()
}

/// A replica of the oracle's or of ours, on either side of a round.
enum Peer<'a> {
    Theirs(Box<Negentropy<'a, NegentropyStorageVector>>),
    Ours(ElementSet, Options),
}

impl Peer<'_> {
    fn new(ours: bool, elements: &BTreeSet<Element>, bytes_max: usize) -> Self {
        if ours {
            return Self::Ours(elements.iter().copied().collect(), Options { message_bytes_max: bytes_max, ..PLAIN });
        }
        let mut storage = NegentropyStorageVector::new();
        for element in elements {
            storage.insert(element.stamp.as_u64(), Id::from_byte_array(element.digest)).expect("not sealed");
        }
        storage.seal().expect("once");
        Self::Theirs(Box::new(Negentropy::owned(storage, bytes_max as u64).expect("a limit that it takes")))
    }
}

/// A round between any two; gives what the first learns, and counts of messages and bytes.
fn round(first: &mut Peer<'_>, second: &mut Peer<'_>, limit: usize) -> (Found, Found, usize, usize) {
    let (mut have, mut missing) = (Found::new(), Found::new());
    let (mut initiator, mut message) = match first {
        Peer::Theirs(theirs) => (None, theirs.initiate().expect("the first message")),
        Peer::Ours(set, options) => {
            let (initiator, message) = Initiator::start(set, *options);
            (Some(initiator), message)
        }
    };
    let (mut messages, mut bytes) = (0, 0);
    loop {
        assert!(message.len() <= limit && messages < 1_000, "{} bytes, message {messages}", message.len());
        let answer = match second {
            Peer::Theirs(theirs) => theirs.reconcile(&message).expect("our message"),
            Peer::Ours(set, options) => {
                Responder::new(*options).handle(set, &message).expect("their message").pop().expect("one answer")
            }
        };
        assert!(answer.len() <= limit, "an answer of {} bytes", answer.len());
        messages += 2;
        bytes += message.len() + answer.len();
        let next = match (&mut *first, &mut initiator) {
            (Peer::Ours(set, _), Some(initiator)) => {
                let step = initiator.handle(set, &answer).expect("their answer");
                have.extend(step.have.iter().map(Element::prefix));
                missing.extend(step.missing.iter().map(|missing| missing.digest));
                assert_eq!(step.is_done, step.send.is_none());
                step.send
            }
            (Peer::Theirs(theirs), _) => {
                let (mut haves, mut needs) = (Vec::new(), Vec::new());
                let next = theirs.reconcile_with_ids(&answer, &mut haves, &mut needs).expect("our answer");
                let prefix = |id: &Id| -> [u8; 16] { id.as_bytes()[..16].try_into().expect("16 bytes") };
                have.extend(haves.iter().map(prefix));
                missing.extend(needs.iter().map(prefix));
                next.filter(|next| next.len() > 1)
            }
            (Peer::Ours(..), None) => panic!("ours has an initiator"),
        };
        let Some(next) = next else { return (have, missing, messages, bytes) };
        message = next;
    }
}

fn check_pairing(ours: [bool; 2], sets: &[BTreeSet<Element>; 2], limit: usize) {
    let mut first = Peer::new(ours[0], &sets[0], limit);
    let mut second = Peer::new(ours[1], &sets[1], limit);
    let (have, missing, ..) = round(&mut first, &mut second, limit);
    assert_eq!(have, alone(&sets[0], &sets[1]), "what the first has, with {ours:?}");
    assert_eq!(missing, alone(&sets[1], &sets[0]), "what it misses, with {ours:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rounds_agree_with_negentropy_in_all_pairings(
        seed: u64,
        shared in prop_oneof![Just(0_usize), 1..40_usize, 40..3_000_usize],
        alone in [prop_oneof![Just(0_usize), 1..10_usize, 10..900_usize], prop_oneof![Just(0_usize), 1..10_usize, 10..600_usize]],
        stamps in prop_oneof![Just(1_u64), Just(20), Just(1 << 40), Just(u64::MAX)],
        limit in prop_oneof![Just(4_096_usize), Just(10_000), Just(60_000)],
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sets = sets(&mut rng, [shared, alone[0], alone[1]], stamps);
        for ours in [[true, true], [true, false], [false, true], [false, false]] {
            check_pairing(ours, &sets, limit);
        }
    }

    #[test]
    fn rounds_by_sketch_find_exactly_what_differs(
        seed: u64,
        counts in [0..4_000_usize, 0..300_usize, 0..300_usize],
        stamps in prop_oneof![Just(1_u64), Just(20), Just(1 << 40)],
    ) {
        let sets = sets(&mut ChaCha8Rng::seed_from_u64(seed), counts, stamps);
        let outcome = Outcome::of(&sets, Options::default());
        prop_assert_eq!(outcome.have, alone(&sets[0], &sets[1]));
        prop_assert_eq!(outcome.missing, alone(&sets[1], &sets[0]));
    }
}

#[derive(Debug, Default)]
struct Outcome {
    have: Found,
    missing: Found,
    bytes: usize,
    /// Messages of the initiator.
    trips: usize,
    used_sketch: bool,
}

impl Outcome {
    fn of(sets: &[BTreeSet<Element>; 2], options: Options) -> Self {
        let sets = [0, 1].map(|side| sets[side].iter().copied().collect::<ElementSet>());
        let (mut initiator, mut message) = Initiator::start(&sets[0], options);
        let mut responder = Responder::new(options);
        let mut outcome = Self::default();
        loop {
            outcome.trips += 1;
            outcome.bytes += message.len();
            outcome.used_sketch |= message[0] != 0x61;
            let mut next = None;
            for answer in responder.handle(&sets[1], &message).expect("our own message") {
                assert!(next.is_none() && answer.len() <= options.message_bytes_max);
                outcome.bytes += answer.len();
                let step = initiator.handle(&sets[0], &answer).expect("our own answer");
                outcome.have.extend(step.have.iter().map(Element::prefix));
                let named: Found = step.missing.iter().map(|missing| missing.digest).collect();
                let found: Found = sets[1].find(&step.missing).iter().map(Element::prefix).collect();
                assert_eq!(named, found, "the peer finds what it named");
                outcome.missing.extend(named);
                if step.is_done {
                    return outcome;
                }
                next = step.send;
            }
            message = next.expect("a round goes on until it is done");
        }
    }
}

#[test]
fn answers_are_byte_for_byte_those_of_negentropy() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for counts in [[0, 3, 0], [20, 1, 1], [300, 4, 30], [5_000, 40, 40]] {
        let sets = sets(&mut rng, counts, 1 << 30);
        let mut peers = [true, false].map(|ours| Peer::new(ours, &sets[0], 0));
        let mut answering = [true, false].map(|ours| Peer::new(ours, &sets[1], 0));
        let [Peer::Ours(ours, _), Peer::Theirs(theirs)] = &mut peers else { panic!("one of each") };
        let [Peer::Ours(set, _), Peer::Theirs(other)] = &mut answering else { panic!("one of each") };
        let unlimited = Options { message_bytes_max: usize::MAX, ..PLAIN };
        let (_, message) = Initiator::start(ours, unlimited);
        assert_eq!(message, theirs.initiate().expect("the first message"));
        let answer = Responder::new(unlimited).handle(set, &message).expect("ours");
        assert_eq!(answer, [other.reconcile(&message).expect("ours")]);
    }
}

#[test]
fn what_agrees_costs_one_exchange_and_a_few_differences_a_few_hundred_bytes() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let same = sets(&mut rng, [20_000, 0, 0], 1 << 40);
    let outcome = Outcome::of(&same, Options::default());
    assert!(outcome.trips == 1 && outcome.bytes < 500, "{outcome:?}");
    for (differences, bytes_max, times) in [(3, 5_000, 1), (20, 10_000, 2), (100, 25_000, 4), (500, 70_000, 4)] {
        let sets = sets(&mut rng, [20_000, differences, differences], 1 << 40);
        let outcome = Outcome::of(&sets, Options::default());
        assert_eq!(outcome.have, alone(&sets[0], &sets[1]));
        assert_eq!(outcome.missing, alone(&sets[1], &sets[0]));
        let plain = Outcome::of(&sets, PLAIN);
        assert_eq!(plain.missing, outcome.missing);
        assert!(outcome.used_sketch && !plain.used_sketch);
        assert!(outcome.bytes < bytes_max && outcome.trips <= 4, "{differences}: {} bytes", outcome.bytes);
        assert!(outcome.bytes * times < plain.bytes, "{differences}: {} bytes by ranges alone", plain.bytes);
    }
}

#[test]
fn a_run_of_recent_differences_costs_little_more_than_its_digests() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let mut sets = sets(&mut rng, [40_000, 0, 0], 1 << 40);
    for number in 0..400 {
        let newer = Element::new(Stamp::from_u64((1 << 40) + number), rng.random());
        sets[number as usize % 2].insert(newer);
    }
    let outcome = Outcome::of(&sets, Options::default());
    assert_eq!(outcome.have, alone(&sets[0], &sets[1]));
    assert_eq!(outcome.missing, alone(&sets[1], &sets[0]));
    assert!(outcome.trips <= 3 && outcome.bytes < 400 * 48, "{} bytes", outcome.bytes);
}

#[test]
fn more_differences_than_a_sketch_lists_are_found_by_ranges() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for counts in [[2_000, 6_000, 5_000], [2_000, 20_000, 0], [0, 0, 20_000]] {
        let sets = sets(&mut rng, counts, 1 << 40);
        let outcome = Outcome::of(&sets, Options::default());
        assert_eq!(outcome.have, alone(&sets[0], &sets[1]));
        assert_eq!(outcome.missing, alone(&sets[1], &sets[0]));
        let listed = 32 * (outcome.have.len() + outcome.missing.len());
        assert!(outcome.bytes < 2 * listed + 60_000, "{} bytes for {listed} of digests", outcome.bytes);
    }
}

/// Both sets change before each message; those that stay alone all the time are found, those that stay shared are not.
fn check_while_changing(seed: u64, counts: [usize; 3], options: Options) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let lasting = sets(&mut rng, counts, 1 << 40);
    let mut passing: [BTreeSet<Element>; 2] = [0, 1].map(|_| (0..40).map(|_| element(&mut rng, 1 << 40)).collect());
    let mut seen: Found = passing.iter().flatten().map(Element::prefix).collect();
    let mut live = [0, 1].map(|side| lasting[side].iter().chain(&passing[side]).copied().collect::<ElementSet>());
    let (mut initiator, message) = Initiator::start(&live[0], options);
    let mut responder = Responder::new(options);
    let (mut have, mut missing, mut messages) = (Found::new(), Found::new(), vec![message]);
    let mut is_done = false;
    while !is_done {
        let mut next = None;
        let answers = responder.handle(&live[1], &messages.pop().expect("the round goes on")).expect("our own");
        for answer in answers {
            for side in [0, 1] {
                for _ in 0..5 {
                    let old = passing[side].pop_first().expect("forty");
                    assert!(live[side].remove(&old));
                    let new = element(&mut rng, 1 << 40);
                    assert!(live[side].insert(new) && passing[side].insert(new));
                    seen.insert(new.prefix());
                }
            }
            let step = initiator.handle(&live[0], &answer).expect("our own");
            have.extend(step.have.iter().map(Element::prefix));
            missing.extend(step.missing.iter().map(|missing| missing.digest));
            is_done = step.is_done;
            next = step.send;
        }
        messages.extend(next);
    }
    let without = |found: &Found| -> Found { found.difference(&seen).copied().collect() };
    assert_eq!(without(&have), alone(&lasting[0], &lasting[1]));
    assert_eq!(without(&missing), alone(&lasting[1], &lasting[0]));
}

#[test]
fn what_lasts_is_reported_and_what_is_shared_is_not_while_both_sets_change() {
    for seed in 0..6 {
        check_while_changing(seed, [3_000, 60, 60], Options::default());
        check_while_changing(seed, [3_000, 500, 900], Options { message_bytes_max: 4_096, ..Options::default() });
        check_while_changing(seed, [3_000, 60, 200], Options { message_bytes_max: 4_096, ..PLAIN });
    }
}

#[test]
fn an_empty_replica_learns_of_everything_within_the_limit_of_a_message() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for counts in [[0, 40_000, 0], [0, 0, 40_000], [0, 0, 0]] {
        let sets = sets(&mut rng, counts, 1 << 40);
        let outcome = Outcome::of(&sets, Options { message_bytes_max: 8_000, ..Options::default() });
        assert_eq!((outcome.have.len(), outcome.missing.len()), (counts[1], counts[2]));
    }
}

#[test]
fn a_digest_names_a_document_in_one_state_under_one_key() {
    let document = DocumentId::from_bytes(&[7; 16]).expect("16 bytes");
    let of = |key: u8, heads: &[ChangeHash]| Element::of(&SetKey([key; 32]), Stamp::ZERO, &document, (heads, None));
    let heads = [ChangeHash([1; 32]), ChangeHash([2; 32])];
    let fields = [&[9; 32][..], &16_u32.to_be_bytes(), &[7; 16], &2_u32.to_be_bytes(), &[1; 32], &[2; 32]].concat();
    let golden: [u8; 32] = Sha256::digest(fields).into();
    assert_eq!(*of(9, &heads).digest(), golden);
    let different = [of(9, &heads), of(8, &heads), of(9, &heads[..1]), of(9, &heads[1..]), of(9, &[])];
    assert_eq!(BTreeSet::from(different).len(), 5);
}

#[test]
fn the_bytes_of_an_ask_and_of_symbols_are_as_documented() {
    assert_eq!(wire::encode_ask(24, 300), [1, 24, 0x82, 0x2c]);
    // The head, then a line for each symbol: stamps, digests, checks, count. Computed from docs/protocol.md alone.
    let golden = [
        "020003",
        "00000000000003eb09061b181d1a1f1c110e030005020704e14267c6d0343d4200",
        "00000000000003eb09061b181d1a1f1c110e030005020704e14267c6d0343d4202",
        "00000000000003e8000102030405060708090a0b0c0d0e0f5bc2b0c51140c22900",
        "00000000000000020e0e1212161612121e1e121216161212769c1a59f05082be02",
        "00000000000000020e0e1212161612121e1e121216161212769c1a59f05082be02",
        "000000000000000000000000000000000000000000000000000000000000000000",
    ];
    let digest = |number: u8| std::array::from_fn(|at| number * 7 + at as u8);
    let elements = (0..3).map(|number| Element::new(Stamp::from_u64(1_000 + u64::from(number)), digest(number)));
    let set: ElementSet = elements.collect();
    let message = wire::encode_symbols(0, set.sketch.size(), &set.sketch.symbols(0, 6).collect::<Vec<_>>());
    let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.concat());
}

#[test]
fn an_element_is_found_by_the_stamps_between_which_it_lies() {
    let at = |stamp, digest| Element::new(Stamp::from_u64(stamp), [digest; 32]);
    let mut set: ElementSet = (0..10_000).map(|stamp| at(stamp, stamp as u8)).collect();
    set.insert(at(20_000, 3));
    set.insert(at(20_000, 5));
    let find = |from, to, digests: &[u8]| {
        let stamps = Stamp::from_u64(from)..=Stamp::from_u64(to);
        let missing = |digest: &u8| Missing { stamps: stamps.clone(), digest: [*digest; 16] };
        set.find(&digests.iter().map(missing).collect::<Vec<_>>())
    };
    assert_eq!(find(20_000, 20_000, &[5, 4, 3]), [at(20_000, 5), at(20_000, 3)]);
    assert_eq!(find(9_920, u64::MAX, &[3, 200]), [at(9_928, 200), at(9_987, 3), at(20_000, 3)]);
    assert_eq!(find(9_900, 9_950, &[3]), []);
    assert_eq!(find(u64::MAX, u64::MAX, &[3]), []);
    assert_eq!(find(7, 3, &[7]), [], "an empty range");
}

#[test]
fn a_peer_that_names_wide_ranges_costs_a_bounded_walk() {
    let at = |stamp| Element::new(Stamp::from_u64(stamp), [stamp as u8; 32]);
    let set: ElementSet = (0..70_000).map(at).collect();
    let named = |from| Missing { stamps: Stamp::from_u64(from)..=Stamp::from_u64(u64::MAX), digest: [7; 16] };
    let found = set.find(&(0..10_000).map(named).collect::<Vec<_>>());
    assert_eq!(found.len(), 64 * 1024 / 256, "one walk, and not to the end");
}

mod hostile;

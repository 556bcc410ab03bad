//! Messages that no honest peer sends: each has its reason, and a cost that is bounded.

use super::*;

fn some_set(count: usize) -> ElementSet {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    (0..count).map(|_| element(&mut rng, 1 << 40)).collect()
}

fn refused(message: &[u8]) -> ReconcileError {
    let set = some_set(500);
    let error = Responder::new(Options::default()).handle(&set, message).expect_err("it is refused");
    let (mut initiator, _) = Initiator::start(&set, Options::default());
    let other = initiator.handle(&set, message).expect_err("by either side");
    assert!(other == error || matches!(error, ReconcileError::OutOfTurn), "{other} for {error}");
    error
}

#[test]
fn what_is_malformed_is_refused_for_its_reason() {
    let long = [0xff; 8];
    let cases: [(&[u8], ReconcileError); 14] = [
        (&[], ReconcileError::Truncated),
        (&[0x61, 0], ReconcileError::Truncated),
        (&[0x61, 0, 0, 1, 7, 7], ReconcileError::Truncated),
        (&[0x61, 0x80], ReconcileError::Truncated),
        (&[0x61, 0, 0, 3], ReconcileError::Mode(3)),
        (&[0x61, 5, 33], ReconcileError::Prefix(33)),
        // A list of 2⁶³ - 1 digests, and one of a single digest that is not there.
        (&[&[0x61, 0, 0, 2][..], &long, &[0x7f]].concat(), ReconcileError::Truncated),
        (&[0x61, 0, 0, 2, 1], ReconcileError::Truncated),
        (&[&[0x61, 0x83][..], &long, &[0xff, 0x7f]].concat(), ReconcileError::Number),
        // The second range ends before the first: the same stamp, a smaller digest.
        (&[0x61, 5, 1, 9, 0, 1, 1, 8, 0], ReconcileError::Unordered),
        // Something behind the end of the set.
        (&[0x61, 0, 0, 0, 0, 0, 0], ReconcileError::Unordered),
        (&[7, 1, 2], ReconcileError::OutOfTurn),
        (&[2, 0, 5, 1, 2, 3], ReconcileError::Truncated),
        (&[1, 0], ReconcileError::Truncated),
    ];
    for (message, error) in cases {
        assert_eq!(refused(message), error, "{message:02x?}");
    }
    assert_eq!(refused(&vec![0x61; 300_000]), ReconcileError::TooLarge(300_000));
}

#[test]
fn another_version_is_answered_with_ours_and_not_taken_from_who_answers() {
    let set = some_set(5);
    let answers = Responder::new(Options::default()).handle(&set, &[0x62, 1, 2, 3]);
    assert_eq!(answers, Ok(vec![vec![0x61]]));
    let (mut initiator, _) = Initiator::start(&set, Options::default());
    assert_eq!(initiator.handle(&set, &[0x62]).expect_err("an answer"), ReconcileError::Version(0x62));
}

#[test]
fn a_peer_that_never_agrees_is_given_up() {
    let set = some_set(500);
    let options = Options { messages_max: 50, ..PLAIN };
    let (mut initiator, _) = Initiator::start(&set, options);
    // A fingerprint of the whole that is nobody's.
    let lie = [&[0x61, 0, 0, 1][..], &[0xab; 16]].concat();
    let end = (0..).find_map(|number| initiator.handle(&set, &lie).err().map(|error| (number, error)));
    assert_eq!(end, Some((50, ReconcileError::Endless)));
    assert_eq!(initiator.handle(&set, &lie).expect_err("it stays over"), ReconcileError::Endless);
}

#[test]
fn a_message_of_many_ranges_is_answered_within_the_limit() {
    let set = some_set(50_000);
    // Lists of nothing for ever further stamps, or fingerprints that are nobody's.
    for range in [&[0x81, 0x00, 0, 2, 0][..], &[&[0xa0, 0x80, 0x80, 0x80, 0x00, 0, 1][..], &[7; 16]].concat()] {
        let message = [&[0x61][..], &range.repeat(200_000 / range.len())].concat();
        let answers = Responder::new(Options::default()).handle(&set, &message).expect("nothing wrong with it");
        assert!(answers.len() == 1 && answers[0].len() <= 60_000);
        let (mut initiator, _) = Initiator::start(&set, PLAIN);
        let step = initiator.handle(&set, &message).expect("nothing wrong with it");
        assert!(step.have.len() <= 16 * 1024);
        assert!(step.send.is_none_or(|message| message.len() <= 60_000));
    }
}

#[test]
fn sketches_are_sent_once_for_a_message_of_ranges_and_in_order() {
    let set = some_set(500);
    let (_, ranges) = Initiator::start(&set, Options::default());
    let ask = |from: u64, to: u64| wire::encode_ask(from, to);
    let handle = |messages: &[Vec<u8>]| {
        let mut responder = Responder::new(Options::default());
        let answers = messages.iter().map(|message| responder.handle(&set, message)).collect::<Vec<_>>();
        answers.into_iter().next_back().expect("one at least").map(|answers| answers.len())
    };
    assert_eq!(handle(&[ranges.clone(), ask(0, 8_192)]), Ok(6));
    assert_eq!(handle(&[ranges.clone(), ask(0, 10), ask(10, 20)]), Ok(1));
    let refused = Err(ReconcileError::OutOfTurn);
    assert_eq!(handle(&[ask(0, 10)]), refused, "no ranges before it");
    assert_eq!(handle(&[ranges.clone(), ask(0, 10), ask(0, 10)]), refused, "a second time");
    assert_eq!(handle(&[ranges.clone(), ask(0, 10), ask(11, 20)]), refused, "with a gap");
    assert_eq!(handle(&[ranges.clone(), ask(0, 8_193)]), refused, "more than there is");
    assert_eq!(handle(&[ranges.clone(), ask(0, 0)]), refused, "of nothing");
    let plain = Responder::new(PLAIN).handle(&set, &ask(0, 10));
    assert_eq!(plain, Err(ReconcileError::OutOfTurn), "a peer for which there are no sketches");
}

/// An initiator that was told that everything differs, and the question that it asks then.
fn asking(set: &ElementSet) -> (Initiator, u64) {
    let (mut initiator, _) = Initiator::start(set, Options::default());
    let mut lie = wire::Writer::new();
    for element in set.tree.from(0).step_by(20) {
        lie.fingerprint(&wire::Bound::before(element), [0xab; 16]);
    }
    let ask = initiator.handle(set, &lie.finish()).expect("a lie, but well formed").send.expect("a question");
    let Ok(wire::Incoming::Ask { from: 0, to }) = wire::decode(&ask) else { panic!("a sketch is asked for") };
    (initiator, to)
}

#[test]
fn a_sketch_that_contradicts_itself_is_refused() {
    let set = some_set(500);
    let (mut initiator, asked) = asking(&set);
    // The one element is alone in each symbol, so taking it out of some puts it into others.
    let one = sketch::Symbol::of(&element(&mut ChaCha8Rng::seed_from_u64(1), 1 << 40));
    let lies = set.sketch.symbols(0, asked).map(|mut symbol| {
        symbol.mix(&one, 1);
        symbol
    });
    let message = wire::encode_symbols(0, 501, &lies.collect::<Vec<_>>());
    assert_eq!(initiator.handle(&set, &message).expect_err("it cannot be"), ReconcileError::Contradiction);
}

#[test]
fn symbols_that_were_not_asked_for_are_refused() {
    let set = some_set(500);
    let symbols =
        |from: u64, to: u64| wire::encode_symbols(from, 500, &set.sketch.symbols(from, to).collect::<Vec<_>>());
    let asked = asking(&set).1;
    for message in [symbols(1, 5), symbols(0, asked + 1), symbols(0, 0)] {
        let mut initiator = asking(&set).0;
        assert_eq!(initiator.handle(&set, &message).expect_err("out of turn"), ReconcileError::OutOfTurn);
    }
}

#[test]
fn a_sketch_of_noise_ends_in_ranges_after_a_bounded_number_of_symbols() {
    let set = some_set(500);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut initiator, mut to) = asking(&set);
    let mut from = 0;
    loop {
        let noise = |_| sketch::Symbol { stamp: rng.random(), digest: rng.random(), check: rng.random(), count: 500 };
        let message = wire::encode_symbols(from, 500, &(from..to).map(noise).collect::<Vec<_>>());
        let send = initiator.handle(&set, &message).expect("noise").send.expect("the round goes on");
        match wire::decode(&send) {
            Ok(wire::Incoming::Ask { from: next, to: asked }) => (from, to) = (next, asked),
            other => return assert!(matches!(other, Ok(wire::Incoming::Ranges(_))), "{other:?}"),
        }
    }
}

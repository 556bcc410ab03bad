//! Two members and the bytes between them: handshakes, forgeries, replays, floods.
//!
//! Owns: for each refusal, the lie and the honest message beside it. Must not: simulate many; `tests/mesh` does.
//! Next: `../overlay.rs`, `handshake.rs`.

use super::*;

/// Two members and what is on its way between them.
struct Pair {
    now: Moment,
    a: Overlay,
    b: Overlay,
    seen: Vec<(char, Output)>,
}

const LINK: SessionId = SessionId(1);

fn address(text: &str) -> Address {
    Address::new(text).expect("short")
}

impl Pair {
    fn with_keys(a: &str, b: &str) -> Self {
        let overlay = |key: &str, seed| Overlay::new(Config::default(), MeshKey::open(key), [seed; 32]);
        let now = Moment { mono: Duration::ZERO, stamp: Stamp::new(1_700_000_000_000, 0) };
        let mut pair = Self { now, a: overlay(a, 1), b: overlay(b, 2), seen: Vec::new() };
        pair.a.handle(now, Input::Give(address("ws://b")));
        pair.b.handle(now, Input::Listening(vec![address("ws://b")]));
        pair.a.handle(now, Input::Timeout);
        pair
    }

    fn connect(mut self) -> Self {
        self.a.handle(self.now, Input::Connected { link: LINK, dialled: Some(address("ws://b")) });
        self.b.handle(self.now, Input::Connected { link: LINK, dialled: None });
        self.settle();
        self
    }

    /// Carries messages until nobody says anything more.
    fn settle(&mut self) {
        loop {
            let (name, output) = match (self.a.poll_output(), self.b.poll_output()) {
                (None, None) => return,
                (from_a, from_b) => {
                    from_a.into_iter().for_each(|output| self.carry('a', output));
                    let Some(output) = from_b else { continue };
                    ('b', output)
                }
            };
            self.carry(name, output);
        }
    }

    fn carry(&mut self, from: char, output: Output) {
        if let Output::Send { link, bytes } = &output {
            let to = if from == 'a' { &mut self.b } else { &mut self.a };
            to.handle(self.now, Input::Received { link: *link, bytes: bytes.clone() });
        }
        self.seen.push((from, output));
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.a.handle(self.now, Input::Timeout);
        self.b.handle(self.now, Input::Timeout);
        self.settle();
    }

    fn saw(&self, wanted: impl Fn(&(char, Output)) -> bool) -> bool {
        self.seen.iter().any(wanted)
    }
}

#[test]
fn two_that_hold_the_key_become_neighbours_and_who_dialled_repairs_at_once() {
    let pair = Pair::with_keys("one", "one").connect();
    let (a, b) = (pair.a.me(), pair.b.me());
    assert!(pair.saw(|seen| *seen == ('a', Output::Up { link: LINK, member: b })));
    assert!(pair.saw(|seen| *seen == ('b', Output::Up { link: LINK, member: a })));
    assert!(pair.saw(|seen| *seen == ('a', Output::Repair { link: LINK })));
    assert!(!pair.saw(|seen| *seen == ('b', Output::Repair { link: LINK })));
    assert_eq!(pair.a.neighbours()[0].addresses, [address("ws://b")]);
}

#[test]
fn who_does_not_hold_the_key_is_refused_whoever_dialled() {
    let pair = Pair::with_keys("one", "another").connect();
    for side in ['a', 'b'] {
        let refused = Output::Refused { link: LINK, offence: Offence::WrongKey };
        assert!(pair.saw(|seen| *seen == (side, Output::Close { link: LINK, reason: Refusal::WrongKey })), "{side}");
        assert!(pair.saw(|(from, output)| *from == side && *output == refused), "{side}");
    }
    assert!(!pair.saw(|(_, output)| matches!(output, Output::Up { .. })));
    assert!(pair.a.neighbours().is_empty() && pair.b.neighbours().is_empty());
}

#[test]
fn nothing_is_taken_from_who_has_not_proved_itself() {
    let mut pair = Pair::with_keys("one", "one");
    for message in [Message::Prune, Message::Exchange { contacts: Vec::new() }, Message::Proof { proof: [0; 32] }] {
        pair.b.handle(pair.now, Input::Received { link: LINK, bytes: message.encode() });
        assert_eq!(pair.b.poll_output(), Some(Output::Refused { link: LINK, offence: Offence::OutOfPlace }));
        assert_eq!(pair.b.poll_output(), None);
    }
}

#[test]
fn a_recorded_proof_is_good_for_nothing_on_another_connection() {
    let recorded = Pair::with_keys("one", "one").connect();
    let sent = recorded.seen.iter().filter_map(|(from, output)| {
        let Output::Send { bytes, .. } = output else { return None };
        (*from == 'a' && bytes[0] < 4).then(|| bytes.clone())
    });
    let mut fresh = Overlay::new(Config::default(), MeshKey::open("one"), [9; 32]);
    for bytes in sent {
        fresh.handle(recorded.now, Input::Received { link: LINK, bytes });
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| fresh.poll_output()).collect();
    assert!(outputs.contains(&Output::Refused { link: LINK, offence: Offence::WrongKey }), "{outputs:?}");
    assert!(fresh.neighbours().is_empty());
}

#[test]
fn beats_tell_latency_and_what_a_member_shows_and_silence_ends_a_neighbour() {
    let mut pair = Pair::with_keys("one", "one").connect();
    pair.b.handle(pair.now, Input::About(Bytes::from_static(b"laptop-2")));
    pair.settle();
    pair.pass(Duration::from_secs(2));
    let seen = &pair.a.neighbours()[0];
    assert_eq!((seen.latency, &seen.about[..]), (Some(Duration::ZERO), &b"laptop-2"[..]));
    // The cable is pulled: nothing is carried any more.
    for _ in 0..5 {
        pair.now.mono += Duration::from_secs(2);
        pair.a.handle(pair.now, Input::Timeout);
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| pair.a.poll_output()).collect();
    assert!(outputs.contains(&Output::Close { link: LINK, reason: Refusal::Silent }), "{outputs:?}");
    assert!(outputs.contains(&Output::Dial(address("ws://b"))), "it is dialled again: {outputs:?}");
}

#[test]
fn of_two_connections_between_two_members_both_ends_keep_the_same_one() {
    for first in [true, false] {
        let mut pair = Pair::with_keys("one", "one");
        let (one, two) = (SessionId(1), SessionId(2));
        pair.a.handle(pair.now, Input::Connected { link: one, dialled: Some(address("ws://b")) });
        if first {
            pair.settle();
        }
        pair.b.handle(pair.now, Input::Connected { link: two, dialled: Some(address("ws://a")) });
        pair.settle();
        let expected = if pair.a.me() < pair.b.me() { one } else { two };
        let kept = |overlay: &Overlay| overlay.neighbours().iter().map(|n| n.link).collect::<Vec<_>>();
        assert_eq!((kept(&pair.a), kept(&pair.b)), (vec![expected], vec![expected]), "first: {first}");
    }
}

#[test]
fn who_sends_too_much_that_is_not_taken_is_closed() {
    let mut pair = Pair::with_keys("one", "one").connect();
    for _ in 0..Config::default().offences_max {
        pair.b.handle(pair.now, Input::Received { link: LINK, bytes: Bytes::from_static(&[17, 0xff, 0xff]) });
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| pair.b.poll_output()).collect();
    assert!(outputs.contains(&Output::Close { link: LINK, reason: Refusal::Offences }), "{outputs:?}");
    pair.b.handle(pair.now, Input::Received { link: LINK, bytes: Message::Prune.encode() });
    assert_eq!(pair.b.poll_output(), None, "what still comes is not looked at");
}

#[test]
fn a_flood_is_dropped_and_then_closed() {
    let mut pair = Pair::with_keys("one", "one").connect();
    let limit = 2 * Config::default().received_per_second_max as usize;
    let mut taken = 0;
    while !pair.b.neighbours().is_empty() {
        pair.b.handle(pair.now, Input::Received { link: LINK, bytes: Message::Prune.encode() });
        taken += 1;
        assert!(taken < 2 * limit, "it goes on");
    }
    assert!(taken > limit / 2, "an honest neighbour has room: {taken}");
    assert!(
        std::iter::from_fn(|| pair.b.poll_output())
            .any(|output| matches!(output, Output::Refused { offence: Offence::Flood, .. }))
    );
}

#[test]
fn repairs_come_sooner_after_one_that_found_something() {
    let mut pair = Pair::with_keys("one", "one").connect();
    let mut repairs = |found: u64| {
        pair.seen.clear();
        for _ in 0..600 {
            let before = pair.seen.len();
            pair.pass(Duration::from_millis(100));
            let asked = pair.seen[before..].contains(&('a', Output::Repair { link: LINK }));
            if asked {
                pair.a.handle(pair.now, Input::Repaired { link: LINK, found });
            }
        }
        pair.seen.iter().filter(|seen| **seen == ('a', Output::Repair { link: LINK })).count()
    };
    let (much, nothing) = (repairs(5), repairs(0));
    assert!((14..=30).contains(&much), "{much} in a minute");
    assert!((2..=8).contains(&nothing), "{nothing} in a minute");
}

#[test]
fn who_is_cut_off_leaves_all_and_comes_back() {
    let mut pair = Pair::with_keys("one", "one").connect();
    pair.a.handle(pair.now, Input::Online(false));
    pair.settle();
    assert!(pair.a.neighbours().is_empty() && pair.b.neighbours().is_empty());
    pair.now.mono += Duration::from_secs(5);
    pair.a.handle(pair.now, Input::Timeout);
    assert_eq!(pair.a.poll_output(), None, "it dials nobody");
    pair.a.handle(pair.now, Input::Online(true));
    assert_eq!(pair.a.poll_output(), Some(Output::Dial(address("ws://b"))));
}

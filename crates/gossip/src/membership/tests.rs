//! A member with its hub played by hand: what is noticed, checked and passed on.
//!
//! Owns: the order of a notice's way through a member. Must not: know a socket. Next: `../membership.rs`.

use syncline_core::clock::Stamp;
use syncline_core::id::PeerId;

use super::*;
use crate::key::MeshKey;
use crate::message::{Member, Message, Notice, Purpose, Refusal};

const LINK: SessionId = SessionId(1);
const OTHER: SessionId = SessionId(2);

/// A member with two neighbours that are played by hand.
struct Stage {
    now: Moment,
    key: MeshKey,
    member: Membership,
}

fn document(number: u8) -> DocumentId {
    DocumentId::from_bytes(&[number; 16]).expect("16 bytes")
}

impl Stage {
    fn new(participation: Participation) -> Self {
        let key = MeshKey::open("test");
        let member = Membership::new(Config::default(), key.clone(), Limits::default(), participation, [1; 32]);
        let now = Moment { mono: Duration::from_secs(1), stamp: Stamp::new(1_700_000_000_000, 0) };
        let mut stage = Self { now, key, member };
        stage.befriend(LINK, 1);
        stage.befriend(OTHER, 2);
        stage
    }

    /// Goes through the handshake as somebody who dialled.
    fn befriend(&mut self, link: SessionId, name: u8) {
        let (member, nonce) = (Member([name; 16]), [name; 32]);
        let hello = Message::Hello { purpose: Purpose::TooFew, member, nonce, addresses: Vec::new() };
        let challenge = self.receive(link, &hello).into_iter().find_map(|output| {
            let Output::Overlay(overlay::Output::Send { bytes, .. }) = output else { return None };
            Message::decode(bytes).ok()
        });
        let Some(Message::Challenge { member: them, nonce: theirs, .. }) = challenge else { panic!("{challenge:?}") };
        let ends = crate::key::Ends { dialled: (member, nonce), accepted: (them, theirs) };
        let proof = self.key.prove(crate::key::Side::Dialled, &ends);
        let outputs = self.receive(link, &Message::Proof { proof });
        assert!(outputs.iter().any(|output| matches!(output, Output::Overlay(overlay::Output::Up { .. }))));
    }

    fn receive(&mut self, link: SessionId, message: &Message) -> Vec<Output> {
        self.member.handle(self.now, overlay::Input::Received { link, bytes: message.encode() });
        self.drain()
    }

    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.member.poll_output()).collect()
    }

    /// A notice of a third member, brought by `LINK`.
    fn notice(&mut self, number: u64, told: &DocumentNotice) -> Vec<Output> {
        let (id, body) = (NoticeId { author: Member([9; 16]), number }, told.encode());
        let seal = self.key.notices().seal(&id, &body);
        self.receive(LINK, &Message::Notice(Notice { hops: 0, id, seal, body }))
    }

    fn wait(&mut self, time: Duration) -> Vec<Output> {
        self.now.mono += time;
        self.member.handle(self.now, overlay::Input::Timeout);
        self.drain()
    }

    fn hear(&mut self, event: MeshEvent) -> Vec<Output> {
        self.member.hear(self.now, event);
        self.drain()
    }
}

fn told(number: u8) -> DocumentNotice {
    let (stamp, heads) = (Stamp::new(1_700_000_000_000, 1), vec![ChangeHash([number; 32])]);
    DocumentNotice { stamp, document: document(number), heads, changes: Vec::new() }
}

/// The ticket of the question that a hub is asked.
fn asked(outputs: &[Output]) -> Option<u64> {
    outputs.iter().find_map(|output| {
        let Output::Hub { input: HubInput::Noticed { ticket, .. }, .. } = output else { return None };
        Some(*ticket)
    })
}

/// To whom whole notices go.
fn passed_on(outputs: &[Output]) -> Vec<SessionId> {
    let to = |output: &Output| {
        let Output::Overlay(overlay::Output::Send { link, bytes }) = output else { return None };
        (bytes[0] == 16).then_some(*link)
    };
    outputs.iter().filter_map(to).collect()
}

#[test]
fn a_notice_goes_on_when_what_it_says_is_durable_and_is_fetched_from_who_brought_it() {
    let mut stage = Stage::new(Participation::All);
    let outputs = stage.notice(1, &told(7));
    let ticket = asked(&outputs).expect("the hub is asked");
    assert!(passed_on(&outputs).is_empty());
    let outputs = stage.hear(MeshEvent::Noticed { ticket, standing: NoticeStanding::Missing });
    let fetched = outputs.iter().any(|output| {
        matches!(output, Output::Hub { input: HubInput::Initiate { session: LINK, document: id }, .. } if *id == document(7))
    });
    assert!(fetched, "{outputs:?}");
    let heads = told(7).heads;
    let durable =
        MeshEvent::Durable { document: document(7), changes: Vec::new(), heads, source: Source::Neighbour(LINK) };
    let outputs = stage.hear(durable);
    let again = asked(&outputs).expect("the hub is asked again");
    assert!(passed_on(&outputs).is_empty(), "what came is not told anew: its notice goes on");
    let outputs = stage.hear(MeshEvent::Noticed { ticket: again, standing: NoticeStanding::Here });
    assert_eq!(passed_on(&outputs), [OTHER]);
}

#[test]
fn a_notice_that_is_refused_or_brings_no_change_goes_no_further() {
    let mut stage = Stage::new(Participation::All);
    let outputs = stage.notice(1, &told(7));
    let ticket = asked(&outputs).expect("the hub is asked");
    let outputs = stage.hear(MeshEvent::Noticed { ticket, standing: NoticeStanding::Refused });
    assert!(passed_on(&outputs).is_empty());
    let outputs = stage.notice(2, &DocumentNotice { changes: vec![Bytes::from_static(b"no change")], ..told(8) });
    assert_eq!(asked(&outputs), None);
    let refused = |output: &Output| {
        matches!(output, Output::Overlay(overlay::Output::Refused { link: LINK, offence: Offence::BadChange }))
    };
    assert!(outputs.iter().any(refused), "{outputs:?}");
    // Whoever goes on with that is put out, and is not listened to any more.
    let noise = |number: u64| DocumentNotice { changes: vec![Bytes::from(number.to_string())], ..told(8) };
    let outputs: Vec<Output> = (3..60).flat_map(|number| stage.notice(number, &noise(number))).collect();
    assert_eq!(outputs.iter().filter(|output| refused(output)).count(), 31);
    let closed = |output: &Output| {
        matches!(output, Output::Overlay(overlay::Output::Close { link: LINK, reason: Refusal::Offences }))
    };
    assert!(outputs.iter().any(closed), "{outputs:?}");
}

#[test]
fn of_a_document_in_which_it_has_no_part_a_member_passes_notices_on_and_tells_nothing() {
    let mut stage = Stage::new(Participation::Only(BTreeSet::from([document(7)])));
    let outputs = stage.notice(1, &told(8));
    assert_eq!((asked(&outputs), passed_on(&outputs)), (None, vec![OTHER]));
    // What others would put it out for is not passed on unread.
    let noise = DocumentNotice { changes: vec![Bytes::from_static(b"no change")], ..told(8) };
    let outputs = stage.notice(2, &noise);
    assert!(passed_on(&outputs).is_empty(), "{outputs:?}");
    let durable = |number| MeshEvent::Durable {
        document: document(number),
        changes: Vec::new(),
        heads: told(number).heads,
        source: Source::Outside,
    };
    assert!(passed_on(&stage.hear(durable(8))).is_empty());
    assert_eq!(passed_on(&stage.hear(durable(7))), [LINK, OTHER]);
}

#[test]
fn what_a_repair_brought_is_told_to_others_if_nobody_tells_them_meanwhile() {
    let wait = Config::default().hearsay_wait;
    let mut stage = Stage::new(Participation::All);
    let durable = |number, source| MeshEvent::Durable {
        document: document(number),
        changes: Vec::new(),
        heads: told(number).heads,
        source,
    };
    let repaired = |number| durable(number, Source::Neighbour(LINK));
    stage.hear(repaired(10));
    assert_eq!(passed_on(&stage.hear(durable(10, Source::Outside))), [LINK, OTHER]);
    assert!(passed_on(&stage.wait(wait)).is_empty(), "what was edited here has told of it");
    assert!(passed_on(&stage.hear(repaired(7))).is_empty(), "the notice may be on its way");
    assert!(stage.member.poll_timeout().is_some_and(|at| at <= stage.now.mono + wait));
    assert_eq!(passed_on(&stage.wait(wait)), [LINK, OTHER]);
    assert!(passed_on(&stage.hear(repaired(7))).is_empty());
    assert!(passed_on(&stage.wait(wait)).is_empty(), "once");
    stage.hear(repaired(8));
    stage.notice(1, &told(8));
    assert!(passed_on(&stage.wait(wait)).is_empty(), "somebody else was first");
    stage.notice(2, &told(9));
    stage.hear(repaired(9));
    assert!(passed_on(&stage.wait(wait)).is_empty(), "the notice came before it");
}

#[test]
fn words_are_handed_in_and_passed_on_and_more_than_a_few_a_second_are_not_said() {
    let mut stage = Stage::new(Participation::Only(BTreeSet::from([document(7)])));
    let spoken = |number| SpokenNotice {
        document: document(number),
        sender: PeerId::new("anna").expect("a name"),
        session: "s".into(),
        count: 1,
        data: Bytes::from_static(b"here"),
    };
    let mut bring = |number, body: Bytes| {
        let id = NoticeId { author: Member([9; 16]), number };
        let seal = stage.key.notices().seal(&id, &body);
        stage.receive(LINK, &Message::Notice(Notice { hops: 0, id, seal, body }))
    };
    let is_heard = |output: &Output| matches!(output, Output::Hub { input: HubInput::Heard { .. }, .. });
    let outputs = bring(1, spoken(7).encode().expect("few"));
    assert!(outputs.iter().any(is_heard));
    assert_eq!(passed_on(&outputs), [OTHER]);
    let outputs = bring(2, spoken(8).encode().expect("few"));
    assert!(!outputs.iter().any(is_heard), "it takes no part in that document");
    assert_eq!(passed_on(&outputs), [OTHER]);
    // Who asks for it later does not get it: it is not kept.
    let graft = Message::Graft { id: NoticeId { author: Member([9; 16]), number: 1 } };
    assert!(passed_on(&stage.receive(OTHER, &graft)).is_empty());
    let say = |number| {
        let SpokenNotice { document, sender, session, count, data } = spoken(number);
        MeshEvent::Spoken { document, sender, session, count, data }
    };
    assert!(passed_on(&stage.hear(say(8))).is_empty());
    let said: usize = (0..500).map(|_| usize::from(!passed_on(&stage.hear(say(7))).is_empty())).sum();
    assert_eq!(said, 100);
}

#[test]
fn notices_that_wait_are_bounded() {
    let mut stage = Stage::new(Participation::All);
    for number in 1..=2_000 {
        stage.now.mono += Duration::from_millis(5);
        let outputs = stage.notice(number, &told(7));
        let ticket = asked(&outputs).expect("the hub is asked");
        stage.hear(MeshEvent::Noticed { ticket, standing: NoticeStanding::Missing });
    }
    assert_eq!(stage.member.pending.len(), PENDING_MAX);
    assert_eq!(stage.member.fetching[&document(7)].len(), PENDING_MAX);
}

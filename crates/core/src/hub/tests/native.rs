//! Two replicas of ours on one connection: collections compared, documents that differ greeted, changes that differ sent.
//!
//! Owns: the pair, with its real sessions and frames. Must not: hand anything over that is not in a frame.
//! Next: `../../collection.rs`; docs/protocol.md §9.

use std::ops::Range;

use super::*;
use crate::collection::{
    Collection, CollectionMessage, EndReason, Event as Compared, Gathering, Input as ToCollection, Outcome,
    Output as FromCollection, Report, Scope, SetName, documents_key,
};
use crate::session::{LocalPeer, Session, Step};
use crate::wire::{self, Body};

/// The connection, at both ends.
const LINK: SessionId = SessionId(5);

struct Side {
    stage: Stage,
    collection: Collection,
    session: Session,
    reports: Vec<Report>,
    refused: Vec<&'static str>,
    observed: Vec<Stamp>,
}

/// The one that dialled, and the one that was dialled.
struct Pair {
    sides: [Side; 2],
    frames: [VecDeque<Bytes>; 2],
    /// Bytes of frames from each.
    bytes: [usize; 2],
    /// Sync messages and accounts, in the order in which they went, and by whom.
    syncs: Vec<(usize, Message)>,
    accounts: usize,
}

impl Side {
    fn new(name: &str, session: Session) -> Self {
        let (stage, collection) = (Stage::new(), Collection::new(Limits::default(), 9));
        let mut side =
            Self { stage, collection, session, reports: Vec::new(), refused: Vec::new(), observed: Vec::new() };
        side.stage.now = Duration::from_secs(name.len() as u64);
        side
    }

    fn now(&self) -> Now {
        Now { mono: self.stage.now, wall_ms: 1_700_000_000_000 }
    }

    fn state_of(&self, document: &DocumentId) -> DocumentState {
        let stored = self.stage.store.get(document);
        DocumentState {
            heads: stored.map(|stored| stored.heads.clone()).unwrap_or_default(),
            authored: stored.map(|stored| stored.summary().authored).unwrap_or_default(),
            life: self.stage.lives.get(document).copied(),
            local_only: self.stage.local_only.contains(document),
        }
    }

    fn tell(&mut self, input: ToCollection) -> Vec<Outgoing> {
        self.collection.handle(self.now(), input);
        let mut out = Vec::new();
        while let Some(output) = self.collection.poll_output() {
            match output {
                FromCollection::Read { set, key, hash_key } => {
                    let mut gathering = Gathering::new(key, hash_key);
                    let ids: BTreeSet<_> = self.stage.store.keys().chain(self.stage.lives.keys()).cloned().collect();
                    gathering.add(ids.into_iter().map(|id| (id.clone(), self.state_of(&id))));
                    let members = Box::new(gathering.finish());
                    self.collection.handle(self.now(), ToCollection::Read { set, members });
                }
                FromCollection::Send { message, .. } => out.push(Outgoing::Native(NativeMessage::Collection(message))),
                FromCollection::Notify(Compared::Compared { report, .. }) => self.reports.push(*report),
                FromCollection::Refused { kind, .. } => self.refused.push(kind),
            }
        }
        out
    }
}

impl Pair {
    fn new() -> Self {
        let local = |name: &str| LocalPeer {
            peer: PeerId::new(name).expect("a name"),
            storage: StorageId::new(name).expect("a name"),
            native: crate::native::VERSION,
        };
        let (dialler, join) = Session::dial(local("dialler"), Limits::default());
        let acceptor = Session::accept(local("acceptor"), Limits::default());
        let sides = [Side::new("dialler", dialler), Side::new("acceptor", acceptor)];
        let frames = [VecDeque::from([Bytes::from(join)]), VecDeque::new()];
        Self { sides, frames, bytes: [0, 0], syncs: Vec::new(), accounts: 0 }
    }

    /// Reads the sets and shakes hands.
    fn connected(mut self) -> Self {
        for side in 0..2 {
            let input = ToCollection::AddSet { key: documents_key() };
            assert!(self.sides[side].tell(input).is_empty());
        }
        self.talk();
        self.bytes = [0, 0];
        self
    }

    fn push(&mut self, from: usize, message: &Outgoing) {
        if let Outgoing::Sync { data, .. } | Outgoing::Request { data, .. } = message {
            self.syncs.push((from, Message::decode(data.clone(), &Limits::default()).expect("own message")));
        }
        self.accounts += usize::from(matches!(message, Outgoing::Native(NativeMessage::Account { .. })));
        let mut frame = Vec::new();
        self.sides[from].session.encode(Stamp::new(1_700_000_000_000, from as u16), message, &mut frame);
        self.bytes[from] += frame.len();
        self.frames[from].push_back(Bytes::from(frame));
    }

    /// What the hub said goes out, and what it made durable is compared from then on.
    fn collect(&mut self, side: usize) {
        let states = std::mem::take(&mut self.sides[side].stage.states);
        for (document, state) in states {
            assert!(self.sides[side].tell(ToCollection::Changed { document, state }).is_empty());
        }
        for message in self.sides[side].stage.take_raw(LINK) {
            self.push(side, &message);
        }
    }

    fn tell(&mut self, side: usize, input: ToCollection) {
        for message in self.sides[side].tell(input) {
            self.push(side, &message);
        }
    }

    /// Carries frames until there are none.
    fn talk(&mut self) {
        for turn in 0..10_000 {
            let Some(from) = (0..2).find(|side| !self.frames[*side].is_empty()) else { return };
            assert!(turn < 9_999, "they never stop");
            let frame = self.frames[from].pop_front().expect("just seen");
            self.arrive(1 - from, &frame);
        }
    }

    fn arrive(&mut self, at: usize, frame: &Bytes) {
        let now = self.sides[at].now();
        for step in self.sides[at].session.receive(now, frame) {
            match step {
                Step::Send(frame) => self.frames[at].push_back(Bytes::from(frame)),
                Step::Joined(peer) => {
                    assert_eq!(peer.native, crate::native::VERSION);
                    let role = peer.role;
                    let opened = OpenedDocuments::default();
                    self.sides[at].stage.input(Input::Connected { session: LINK, peer, opened });
                    self.tell(at, ToCollection::Connected { session: LINK, role });
                }
                Step::Forward(PeerMessage::Native(NativeMessage::Collection(message))) => {
                    self.tell(at, ToCollection::Received { session: LINK, message, receipt: Receipt::default() });
                }
                Step::Forward(message) => self.sides[at].stage.pass(LINK, message),
                Step::Observe(stamp) => self.sides[at].observed.push(stamp),
                Step::Authenticate(_) | Step::Tell(_) | Step::AccessChanged(_) | Step::AccessLeft(_) => {
                    unreachable!("everybody may do everything here")
                }
                Step::Refused(offence) | Step::Close(offence) => panic!("{offence}"),
            }
        }
        self.collect(at);
    }

    /// A round, begun by one side.
    fn compare(&mut self, side: usize, names: bool) -> Report {
        self.tell(side, ToCollection::Compare { session: LINK, set: SetName::of_documents(), names });
        self.talk();
        self.sides[side].reports.pop().expect("the round is over")
    }

    fn greet(&mut self, side: usize, documents: &[DocumentId]) {
        for document in documents {
            self.sides[side].stage.input(Input::Initiate { session: LINK, document: document.clone() });
            self.collect(side);
        }
        self.talk();
        // Whoever has to wait for an acknowledgement does.
        for _ in 0..4 {
            (0..2).for_each(|side| {
                self.sides[side].stage.advance(3_000);
                self.collect(side);
            });
            self.talk();
        }
    }

    fn stored(&mut self, side: usize, document: &DocumentId, changes: &[Change]) {
        self.sides[side].stage.stored(document, changes, 0);
    }

    fn heads(&self, side: usize, document: &DocumentId) -> Vec<ChangeHash> {
        self.sides[side].state_of(document).heads
    }
}

/// A long history, and what two replicas added to it without knowing of each other.
fn diverged(common: usize, first: usize, second: usize) -> [Vec<Change>; 3] {
    let mut document = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let shared: Vec<Change> = (0..common).map(|value| edit(&mut document, value as u64)).collect();
    let mut branch = |author: u8, count: usize| {
        let mut own = document.fork().with_actor(ActorId::from([author; 16]));
        (0..count).map(|value| edit(&mut own, value as u64)).collect()
    };
    let (one, other) = (branch(2, first), branch(3, second));
    [shared, one, other]
}

// The bar of the issue: no filter, no change that the other has, whoever of the two begins.
#[test]
fn in_a_document_that_diverged_only_the_changes_that_differ_travel() {
    for (common, first, second) in [(1_200, 30, 45), (1_200, 30, 0), (1_200, 0, 45), (3, 1, 1), (0, 5, 5)] {
        let [shared, one, other] = diverged(common, first, second);
        for begins in 0..2 {
            let mut pair = Pair::new();
            pair.stored(0, &document(1), &[&shared[..], &one].concat());
            pair.stored(1, &document(1), &[&shared[..], &other].concat());
            let mut pair = pair.connected();
            pair.greet(begins, &[document(1)]);
            assert_eq!(pair.heads(0, &document(1)), pair.heads(1, &document(1)), "{common} {first} {second}");
            let sent = |side: usize| -> Vec<ChangeHash> {
                let own = pair.syncs.iter().filter(|(from, _)| *from == side);
                own.flat_map(|(_, message)| message.changes.iter().cloned().flat_map(hashes_in)).collect()
            };
            let hashes = |changes: &[Change]| changes.iter().map(|change| change.hash).collect::<Vec<_>>();
            assert_eq!((sent(0), sent(1)), (hashes(&one), hashes(&other)), "{common} {first} {second}");
            let filters =
                pair.syncs.iter().flat_map(|(_, message)| &message.have).filter(|have| !have.bloom.is_empty());
            assert_eq!(filters.count(), 0);
            let both = first > 0 && second > 0;
            assert!(pair.accounts <= if both { 2 } else { 0 }, "{} accounts", pair.accounts);
        }
    }
}

/// A closed document of a client that does not want everything: the server gets what it lacks, and nothing comes back.
#[test]
fn an_offer_sends_what_the_server_lacks_and_takes_nothing() {
    // What both have, what the client has beyond, what the server has.
    for (common, first, second) in [(40, 3, 0), (40, 0, 3), (40, 3, 5), (40, 0, 0), (0, 3, 0)] {
        let [shared, one, other] = diverged(common, first, second);
        let mut pair = Pair::new();
        pair.stored(0, &document(1), &[&shared[..], &one].concat());
        if common + second > 0 {
            pair.stored(1, &document(1), &[&shared[..], &other].concat());
        }
        let mut pair = pair.connected();
        pair.sides[0].stage.input(Input::Offer { session: LINK, document: document(1) });
        pair.collect(0);
        pair.greet(0, &[]);
        let sent = |pair: &Pair, side: usize| -> usize {
            let own = pair.syncs.iter().filter(|(from, _)| *from == side);
            own.map(|(_, message)| message.changes.iter().cloned().flat_map(hashes_in).count()).sum()
        };
        assert_eq!((sent(&pair, 0), sent(&pair, 1)), (first, 0), "{common} {first} {second}");
        let changes = |pair: &Pair, side: usize| pair.sides[side].stage.store[&document(1)].changes.len();
        assert_eq!((changes(&pair, 0), changes(&pair, 1)), (common + first, common + first + second));
        // Once it is opened, the rest comes.
        pair.sides[0].stage.input(Input::Watch { document: document(1) });
        pair.collect(0);
        pair.greet(0, &[]);
        assert_eq!(changes(&pair, 0), common + first + second, "{common} {first} {second}");
        assert_eq!((sent(&pair, 0), sent(&pair, 1)), (first, second));
    }
}

fn documents(numbers: Range<u8>) -> Vec<DocumentId> {
    numbers.map(document).collect()
}

/// Two that hold the same 100 documents.
fn alike() -> Pair {
    let mut pair = Pair::new();
    for number in 1..=100 {
        let changes = chain(number, 2);
        (0..2).for_each(|side| pair.stored(side, &document(number), &changes));
    }
    pair
}

#[test]
fn a_round_in_agreement_is_one_small_exchange() {
    let mut pair = alike().connected();
    let report = pair.compare(0, false);
    assert_eq!((report.outcome, report.ours, report.round_trips), (Outcome::Complete, Vec::new(), 1));
    // Three frames, with the end of the round.
    assert!(pair.bytes.iter().sum::<usize>() < 1_000, "{:?}", pair.bytes);
    assert!(pair.syncs.is_empty());
    let own = Stamp::new(1_700_000_000_000, 1);
    assert!(!pair.sides[0].observed.is_empty() && pair.sides[0].observed.iter().all(|stamp| *stamp == own));
}

#[test]
fn a_client_finds_its_own_documents_that_differ_and_no_others() {
    let mut pair = alike();
    pair.stored(0, &document(3), &chain(3, 5));
    pair.stored(1, &document(4), &chain(4, 5));
    pair.stored(0, &document(201), &chain(201, 1));
    pair.stored(1, &document(202), &chain(202, 1));
    let mut pair = pair.connected();
    let report = pair.compare(0, false);
    assert_eq!(report.outcome, Outcome::Complete);
    assert_eq!((report.ours.clone(), report.theirs), (vec![document(3), document(4), document(201)], Vec::new()));
    pair.greet(0, &report.ours);
    for number in [3, 4, 201] {
        assert_eq!(pair.heads(0, &document(number)), pair.heads(1, &document(number)));
    }
    assert!(pair.heads(0, &document(202)).is_empty(), "nobody named it");
    assert!(pair.compare(0, false).ours.is_empty());
}

#[test]
fn a_member_finds_both_sides_once_it_is_told_names() {
    let mut pair = alike();
    pair.stored(1, &document(4), &chain(4, 5));
    pair.stored(0, &document(201), &chain(201, 1));
    pair.stored(1, &document(202), &chain(202, 1));
    let mut pair = pair.connected();
    let refused = pair.compare(0, true);
    let by_scope = matches!(refused.outcome, Outcome::Ended { by_peer: true, reason: EndReason::NotForYou, .. });
    assert!(by_scope, "{:?}", refused.outcome);
    pair.tell(1, ToCollection::Allow { session: LINK, set: SetName::of_documents(), scope: Scope::Names });
    let report = pair.compare(0, true);
    assert_eq!((report.ours.clone(), report.theirs.clone()), (vec![document(4), document(201)], vec![document(202)]));
    pair.greet(0, &[report.ours, report.theirs].concat());
    for number in [4, 201, 202] {
        assert_eq!(pair.heads(0, &document(number)), pair.heads(1, &document(number)));
    }
    let report = pair.compare(0, true);
    assert_eq!((report.found(), report.undelivered), (0, 0));
}

#[test]
fn whoever_was_dialled_may_begin_a_round_only_where_that_is_allowed() {
    let mut pair = alike();
    pair.stored(1, &document(201), &chain(201, 1));
    let mut pair = pair.connected();
    assert_ne!(pair.compare(1, false).outcome, Outcome::Complete);
    pair.tell(0, ToCollection::Allow { session: LINK, set: SetName::of_documents(), scope: Scope::Own });
    let report = pair.compare(1, false);
    assert_eq!((report.outcome, report.ours.clone()), (Outcome::Complete, vec![document(201)]));
    pair.greet(1, &report.ours);
    assert_eq!(pair.heads(0, &document(201)), pair.heads(1, &document(201)));
}

#[test]
fn deletions_are_found_and_documents_that_stay_here_are_in_no_set() {
    let mut pair = alike();
    pair.stored(0, &document(201), &chain(201, 1));
    pair.sides[0].stage.local_only.extend([document(5), document(201)]);
    let mut pair = pair.connected();
    let deleted = document(7);
    pair.sides[0].stage.input(Input::SetLife { document: deleted.clone(), deleted: true, ticket: 1 });
    pair.collect(0);
    // Dialled peers are told at once; what follows is for those that were away.
    pair.frames.iter_mut().for_each(VecDeque::clear);
    let report = pair.compare(0, false);
    assert_eq!((report.outcome, report.ours), (Outcome::Complete, vec![deleted.clone()]));
    let own = pair.sides[0].collection.members(SetName::of_documents()).expect("read");
    assert_eq!((own.element_of(&document(5)), own.element_of(&document(201))), (None, None));
    assert_eq!(own.elements().len(), 99);
    // A document that is let go comes into the set, and one that is held back leaves it.
    for (document, local_only) in [(document(5), false), (document(6), true)] {
        pair.sides[0].stage.input(Input::SetLocalOnly { document, local_only, ticket: 2 });
    }
    pair.collect(0);
    let own = pair.sides[0].collection.members(SetName::of_documents()).expect("read");
    assert!(own.element_of(&document(5)).is_some() && own.element_of(&document(6)).is_none());
}

#[test]
fn a_peer_of_the_second_version_is_sent_neither_stamps_nor_rounds() {
    let peer = PeerInfo { peer: peer(A), storage: None, role: Role::Downstream, native: 2, access: Access::full() };
    let mut stage = Stage::new();
    stage.input(Input::Connected { session: A, peer, opened: OpenedDocuments::default() });
    let [shared, one, other] = diverged(50, 2, 2);
    stage.stored(&document(1), &[&shared[..], &one].concat(), 0);
    let theirs = [other[1].hash];
    let have = vec![Have { last_sync: theirs.to_vec(), bloom: Bytes::new() }];
    let counts = Statement { have, ..statement(&theirs) };
    stage.message(A, SyncMessage { statement: counts.clone(), ..empty_message(&document(1)) });
    let blank = vec![Have { last_sync: Vec::new(), bloom: Bytes::new() }];
    stage.message(A, SyncMessage { statement: Statement { have: blank, ..counts }, ..empty_message(&document(1)) });
    assert!(!stage.take(A).iter().any(|said| matches!(said, Said::Native(_))));
}

#[test]
fn hostile_rounds_end_with_a_reason_and_leave_the_connection() {
    let mut pair = alike().connected();
    let set = SetName::of_documents();
    let compare = |round, message: &[u8]| CollectionMessage::Compare {
        round,
        set,
        count: 100,
        names: false,
        message: Bytes::copy_from_slice(message),
    };
    let receive = |pair: &mut Pair, message| {
        pair.tell(1, ToCollection::Received { session: LINK, message, receipt: Receipt::default() });
        let told = pair.frames[1].drain(..).collect::<Vec<_>>();
        told.iter().map(reason_in).collect::<Vec<_>>()
    };
    // Bytes that are no message, a question of no round, names in a round without.
    assert_eq!(receive(&mut pair, compare(1, b"\xffnoise")), [Some(EndReason::Broken)]);
    let question = CollectionMessage::Question { round: 9, message: Bytes::new() };
    assert_eq!(receive(&mut pair, question), []);
    let begin = || {
        let (_, message) = crate::reconcile::Initiator::start(&crate::reconcile::ElementSet::new(), Default::default());
        message
    };
    assert_eq!(receive(&mut pair, compare(2, &begin())), [None]);
    let missing = crate::reconcile::Missing { stamps: Stamp::ZERO..=Stamp::from_u64(u64::MAX), digest: [0; 16] };
    let names = CollectionMessage::Missing { round: 2, elements: vec![missing] };
    assert_eq!(receive(&mut pair, names), [Some(EndReason::Broken)]);
    // A set of nobody, one side with many times more, and rounds without end.
    let nobody =
        CollectionMessage::Compare { round: 3, set: SetName([1; 8]), count: 0, names: false, message: Bytes::new() };
    assert_eq!(receive(&mut pair, nobody), [Some(EndReason::NoSuchSet)]);
    let many = CollectionMessage::Compare { round: 4, set, count: 9_999, names: false, message: begin().into() };
    assert_eq!(receive(&mut pair, many), [Some(EndReason::NotWorthIt)]);
    let answers: Vec<_> = (5..60).flat_map(|round| receive(&mut pair, compare(round, &begin()))).collect();
    assert_eq!(answers.iter().filter(|reason| reason.is_none()).count(), 26, "30 at once, of which 4 are used up");
    assert!(answers.iter().rev().take(29).all(|reason| *reason == Some(EndReason::Limit)));
    assert!(pair.sides[1].refused.contains(&"round_limit") && pair.sides[1].refused.contains(&"round_broken"));
    // Others, and the same after a while, are served.
    pair.sides[1].stage.advance(10_000);
    assert_eq!(pair.compare(0, false).outcome, Outcome::Complete);
}

/// The reason in a frame that ends a round; `None` in an answer.
fn reason_in(frame: &Bytes) -> Option<EndReason> {
    let envelope = wire::decode(frame, &Limits::default()).expect("own frame");
    let Body::Native { data } = envelope.message else { panic!("a native message") };
    match NativeMessage::decode(data) {
        Ok(Some(NativeMessage::Collection(CollectionMessage::Ended { reason, .. }))) => Some(reason),
        Ok(Some(NativeMessage::Collection(CollectionMessage::Answer { .. }))) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_responder_that_lies_or_falls_silent_ends_only_its_round() {
    let set = SetName::of_documents();
    // It says nothing.
    let mut pair = alike().connected();
    pair.tell(0, ToCollection::Compare { session: LINK, set, names: true });
    pair.sides[0].stage.now += Duration::from_secs(31);
    pair.tell(0, ToCollection::Timeout);
    let report = pair.sides[0].reports.pop().expect("given up");
    assert!(matches!(report.outcome, Outcome::Ended { by_peer: false, reason: EndReason::Limit, .. }));

    // It names more than it was asked for.
    let mut pair = alike();
    pair.stored(1, &document(202), &chain(202, 1));
    let mut pair = pair.connected();
    pair.tell(1, ToCollection::Allow { session: LINK, set, scope: Scope::Names });
    pair.tell(0, ToCollection::Compare { session: LINK, set, names: true });
    let round = 1;
    let named = |documents| CollectionMessage::Named { round, documents };
    let message = named(documents(1..40));
    pair.tell(0, ToCollection::Received { session: LINK, message, receipt: Receipt::default() });
    let report = pair.sides[0].reports.pop().expect("over");
    assert!(matches!(report.outcome, Outcome::Ended { by_peer: false, reason: EndReason::Broken, .. }));
    assert!(report.theirs.is_empty() && pair.sides[0].refused == ["round_broken"]);

    // It has an element whose document it does not deliver: the second round does not ask again.
    pair.talk();
    let first = pair.compare(0, true);
    assert_eq!((first.theirs, first.undelivered), (vec![document(202)], 0));
    let second = pair.compare(0, true);
    assert_eq!((second.outcome, second.theirs, second.undelivered), (Outcome::Complete, Vec::new(), 1));

    // The one after asks again, and then each time after twice as many.
    let asked: Vec<bool> = (4..=17).map(|_| !pair.compare(0, true).theirs.is_empty()).collect();
    let expected: Vec<bool> = (4..=17).map(|round| matches!(round, 4 | 8 | 16)).collect();
    assert_eq!(asked, expected);

    // It is gone in the middle.
    pair.tell(0, ToCollection::Compare { session: LINK, set, names: false });
    pair.tell(0, ToCollection::Disconnected { session: LINK });
    assert_eq!(pair.sides[0].reports.pop().expect("over").outcome, Outcome::Gone);
}

#[test]
fn what_changes_while_a_set_is_read_counts() {
    let mut side = Side::new(
        "x",
        Session::accept(
            LocalPeer { peer: peer(A), storage: StorageId::new("s").expect("a name"), native: 3 },
            Limits::default(),
        ),
    );
    let key = documents_key();
    side.collection.handle(side.now(), ToCollection::AddSet { key: key.clone() });
    let state = |head: u8| DocumentState { heads: vec![ChangeHash([head; 32])], ..DocumentState::default() };
    side.collection.handle(side.now(), ToCollection::Changed { document: document(1), state: state(2) });
    let gone = DocumentState { local_only: true, ..state(1) };
    side.collection.handle(side.now(), ToCollection::Changed { document: document(2), state: gone });
    let mut stale = Gathering::new(key.clone(), 1);
    stale.add([(document(1), state(1)), (document(2), state(1)), (document(3), state(1))]);
    let (set, members) = (SetName::of(&key), Box::new(stale.finish()));
    side.collection.handle(side.now(), ToCollection::Read { set, members });
    let members = side.collection.members(set).expect("read");
    assert_eq!(members.element_of(&document(1)), state(2).element(&key, &document(1)));
    assert_eq!(members.element_of(&document(2)), None);
    assert_eq!(members.element_of(&document(3)), state(1).element(&key, &document(3)));
}

#[test]
fn a_round_does_not_wait_for_a_set_that_cannot_be_read() {
    let (mut collection, now) = (Collection::new(Limits::default(), 1), Now { mono: Duration::ZERO, wall_ms: 0 });
    let set = SetName::of_documents();
    let connected = ToCollection::Connected { session: LINK, role: Role::Upstream };
    let compare = ToCollection::Compare { session: LINK, set, names: false };
    for input in [ToCollection::AddSet { key: documents_key() }, connected, compare, ToCollection::NotRead { set }] {
        collection.handle(now, input);
    }
    assert!(matches!(collection.poll_output(), Some(FromCollection::Read { .. })));
    let Some(FromCollection::Notify(Compared::Compared { report, .. })) = collection.poll_output() else {
        panic!("nobody is told");
    };
    assert!(matches!(report.outcome, Outcome::Ended { by_peer: false, reason: EndReason::NotReady, .. }));
    // It is read again after a while.
    let later = Now { mono: collection.poll_timeout().expect("a deadline"), wall_ms: 0 };
    collection.handle(later, ToCollection::Timeout);
    assert!(matches!(collection.poll_output(), Some(FromCollection::Read { .. })));
}

//! One connection, frame by frame: the handshake, who may speak, what is not taken and how the peer hears of it.
//!
//! Owns: frames as a peer would send them. Must not: repeat the wire format's own tests.
//! Next: `../session.rs`, `decode.rs`; `../wire/tests/golden.rs`.

mod payload;

use std::time::Duration;

use super::*;
use crate::access::{Access, Denial, Grant, Permissions, Scope, Token};
use crate::blob::{BlobHash, BlobMessage};
use crate::clock::Stamp;
use crate::hub::SyncMessage;
use crate::id::ReplicaId;
use crate::life::Life;

const FIRST_SYNC: &[u8] = &[0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];

fn local() -> LocalPeer {
    LocalPeer {
        peer: PeerId::new("server").expect("a name"),
        storage: StorageId::new("store").expect("a name"),
        native: 3,
    }
}

fn at(millis: u64) -> Now {
    Now { mono: Duration::from_millis(millis), wall_ms: 0 }
}

fn document() -> DocumentId {
    DocumentId::from_bytes(&[7; 16]).expect("16 bytes")
}

fn frame(sender: &str, body: &Body<'_>) -> Bytes {
    let mut out = Vec::new();
    wire::encode(sender, Some("server"), body, &mut out);
    Bytes::from(out)
}

fn join(sender: &str, versions: Option<Vec<&str>>) -> Bytes {
    frame(sender, &Body::Join { metadata: PeerMetadata::default(), versions })
}

fn sync_frame(data: impl Into<Bytes>) -> Bytes {
    frame("tab", &Body::Sync { document: document(), data: data.into() })
}

fn ephemeral(sender: &str, bytes: usize) -> Bytes {
    frame(sender, &Body::Ephemeral { document: document(), count: 1, session: "s", data: vec![0; bytes].into() })
}

/// A session with the peer "tab", which has joined.
fn joined_with(limits: Limits) -> Session {
    let mut session = Session::accept(local(), limits);
    let steps = session.receive(at(0), &join("tab", Some(vec!["1"])));
    assert!(matches!(&steps[..], [Step::Send(_), Step::Joined(_)]), "{steps:?}");
    session
}

fn joined() -> Session {
    joined_with(Limits::default())
}

/// The words of an error frame, with the peer they are for.
fn told(step: &Step) -> (String, Option<String>) {
    let Step::Send(frame) = step else { panic!("no frame: {step:?}") };
    let frame = Bytes::copy_from_slice(frame);
    let envelope = wire::decode(&frame, &Limits::default()).expect("own frame");
    let Body::Error { message } = envelope.message else { panic!("no error: {envelope:?}") };
    assert_eq!(envelope.sender, "server");
    (message.to_owned(), envelope.target.map(str::to_owned))
}

/// The peer is told in the offence's own words, and the connection ends: nothing after it is taken.
fn check_closed(session: &mut Session, steps: &[Step], kind: &str) {
    let [Step::Send(_), Step::Close(offence)] = steps else { panic!("not closed: {steps:?}") };
    assert_eq!(offence.kind(), kind);
    assert_eq!(told(&steps[0]).0, offence.to_string());
    check_silent(session);
}

fn check_silent(session: &mut Session) {
    assert!(session.peer().is_none());
    for frame in [join("tab", None), sync_frame(FIRST_SYNC), Bytes::from_static(&[0xf6]), vec![0; 1 << 20].into()] {
        assert!(session.receive(at(0), &frame).is_empty(), "frames after the end are not looked at");
    }
    assert!(session.join_timed_out().is_empty());
}

/// The peer is told, and the next message is taken as if nothing had been.
fn check_refused(session: &mut Session, steps: &[Step], kind: &str) {
    let [Step::Send(_), Step::Refused(offence)] = steps else { panic!("not refused alone: {steps:?}") };
    assert_eq!(offence.kind(), kind);
    assert_eq!(told(&steps[0]), (offence.to_string(), Some("tab".to_owned())));
    check_open(session);
}

fn check_open(session: &mut Session) {
    let steps = session.receive(at(0), &sync_frame(FIRST_SYNC));
    assert!(matches!(&steps[..], [Step::Forward(PeerMessage::Sync(_))]), "{steps:?}");
}

#[test]
fn a_join_is_answered_and_names_the_peer() {
    let mut session = Session::accept(local(), Limits::default());
    // As JavaScript sends it: an undefined storage id, and no version.
    let hex = "b900046474797065646a6f696e6873656e646572496463636c696c706565724d65746164617461b900026973746f7261676549\
               64f76b6973457068656d6572616cf57819737570706f7274656450726f746f636f6c56657273696f6e73816131";
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits"));
    let steps = session.receive(at(0), &bytes.collect());
    let [Step::Send(answer), Step::Joined(peer)] = &steps[..] else { panic!("{steps:?}") };
    let metadata =
        PeerMetadata { storage_id: Some(local().storage), is_ephemeral: false, native: Some(3), token: None };
    let mut golden = Vec::new();
    let body = Body::Peer { metadata, selected_version: Some("1") };
    wire::encode("server", Some("cli"), &body, &mut golden);
    assert_eq!(*answer, golden);
    let expected = PeerInfo {
        peer: PeerId::new("cli").expect("a name"),
        storage: None,
        role: Role::Downstream,
        native: 0,
        access: Access::full(),
    };
    assert_eq!((peer, session.peer()), (&expected, Some(&expected)));
}

#[test]
fn only_a_store_that_lasts_is_remembered() {
    for (is_ephemeral, lasting) in [(false, true), (true, false)] {
        let mut session = Session::accept(local(), Limits::default());
        let storage_id = StorageId::new("theirs").ok();
        let metadata = PeerMetadata { storage_id: storage_id.clone(), is_ephemeral, native: None, token: None };
        session.receive(at(0), &frame("tab", &Body::Join { metadata, versions: None }));
        let peer = session.peer().expect("joined");
        assert_eq!(peer.storage, storage_id.filter(|_| lasting));
    }
}

#[test]
fn a_missing_version_list_means_version_1() {
    for versions in [None, Some(vec!["1"]), Some(vec!["7", "1"])] {
        let mut session = Session::accept(local(), Limits::default());
        session.receive(at(0), &join("tab", versions));
        assert!(session.peer().is_some());
    }
}

#[test]
fn no_common_version_closes() {
    for versions in [vec!["2"], vec![]] {
        let mut session = Session::accept(local(), Limits::default());
        let steps = session.receive(at(0), &join("tab", Some(versions)));
        check_closed(&mut session, &steps, "unsupported_version");
    }
}

#[test]
fn anything_before_the_join_closes() {
    let metadata = PeerMetadata::default();
    let peer = frame("tab", &Body::Peer { metadata, selected_version: None });
    for early in [sync_frame(FIRST_SYNC), ephemeral("tab", 1), peer, frame("tab", &Body::Leave)] {
        let mut session = Session::accept(local(), Limits::default());
        let steps = session.receive(at(0), &early);
        check_closed(&mut session, &steps, "expected_join");
    }
}

#[test]
fn a_second_handshake_closes() {
    let peer = frame("tab", &Body::Peer { metadata: PeerMetadata::default(), selected_version: None });
    for again in [join("tab", None), peer] {
        let mut session = joined();
        let steps = session.receive(at(0), &again);
        check_closed(&mut session, &steps, "joined_twice");
        assert_eq!(told(&steps[0]).1.as_deref(), Some("tab"));
    }
}

#[test]
fn a_join_that_does_not_come_closes_and_one_that_came_does_not() {
    let mut session = Session::accept(local(), Limits::default());
    let steps = session.join_timed_out();
    check_closed(&mut session, &steps, "join_timeout");
    let (mut dialled, _) = Session::dial(local(), Limits::default());
    let steps = dialled.join_timed_out();
    check_closed(&mut dialled, &steps, "join_timeout");
    assert!(joined().join_timed_out().is_empty());
}

#[test]
fn a_text_frame_closes() {
    let mut session = joined();
    let steps = session.receive_text();
    check_closed(&mut session, &steps, "frame_text");
}

#[test]
fn what_is_no_frame_closes_and_an_odd_message_does_not() {
    for (bytes, kind) in
        [(&[0xf6][..], "frame_not_a_map"), (&[], "frame_truncated"), (&[0xa0, 0], "frame_trailing_bytes")]
    {
        let mut session = joined();
        let steps = session.receive(at(0), &Bytes::from_static(bytes));
        check_closed(&mut session, &steps, kind);
    }
    let mut session = joined();
    let mut odd = sync_frame(FIRST_SYNC).to_vec();
    let text = document().to_string();
    let id = odd.windows(text.len()).position(|window| window == text.as_bytes()).expect("the id");
    odd[id] ^= 1;
    let steps = session.receive(at(0), &odd.into());
    check_refused(&mut session, &steps, "frame_bad_id");
}

#[test]
fn frames_are_small_before_the_join_and_within_the_message_bound_after() {
    let limits = Limits { join_frame_bytes_max: 200, message_bytes_max: 1_000, ..Limits::default() };
    let mut session = Session::accept(local(), limits.clone());
    assert_eq!(session.frame_bytes_max(), 200);
    let long = "x".repeat(150);
    let steps = session.receive(at(0), &join(&long, None));
    check_closed(&mut session, &steps, "frame_too_large");
    let mut session = joined_with(limits);
    assert_eq!(session.frame_bytes_max(), 1_000);
    assert_eq!(ephemeral("tab", 500).len() / 100, 6, "larger than a join may be");
    assert!(matches!(session.receive(at(0), &ephemeral("tab", 500))[..], [Step::Forward(_)]));
    let steps = session.receive(at(0), &ephemeral("tab", 1_000));
    check_closed(&mut session, &steps, "frame_too_large");
}

#[test]
fn a_message_in_anothers_name_is_dropped_unless_it_is_ephemeral() {
    let others = [
        Body::Sync { document: document(), data: Bytes::from_static(FIRST_SYNC) },
        Body::DocUnavailable { document: document() },
        Body::RemoteSubscriptionChange { add: vec![], remove: vec![] },
        Body::Leave,
    ];
    for body in others {
        let mut session = joined();
        let steps = session.receive(at(0), &frame("other", &body));
        check_refused(&mut session, &steps, "wrong_sender");
    }
    let steps = joined().receive(at(0), &ephemeral("other", 3));
    let [Step::Forward(PeerMessage::Ephemeral { sender, count: 1, data, .. })] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!((sender.as_str(), &data[..]), ("other", &[0; 3][..]));
}

#[test]
fn ephemeral_messages_are_bounded_in_size() {
    let mut session = joined_with(Limits { ephemeral_bytes_max: 10, ..Limits::default() });
    assert!(matches!(session.receive(at(0), &ephemeral("tab", 10))[..], [Step::Forward(_)]));
    let steps = session.receive(at(0), &ephemeral("tab", 11));
    check_refused(&mut session, &steps, "ephemeral_too_large");
}

#[test]
fn ephemeral_messages_are_bounded_in_rate_and_the_allowance_comes_back_with_time() {
    let mut session = joined_with(Limits { ephemeral_per_second_max: 10, ..Limits::default() });
    let mut passed = |millis: u64, count: usize| {
        let steps = (0..count).flat_map(|_| session.receive(at(millis), &ephemeral("tab", 1)));
        steps.filter(|step| matches!(step, Step::Forward(_))).count()
    };
    assert_eq!(passed(1_000, 20), 10, "one second's worth at once");
    assert_eq!(passed(1_300, 20), 3);
    assert_eq!(passed(1_300, 20), 0);
    assert_eq!(passed(60_000, 20), 10, "no more is saved up");
    let steps = session.receive(at(60_000), &ephemeral("third", 1));
    check_refused(&mut session, &steps, "ephemeral_rate");
}

#[test]
fn a_peer_that_leaves_is_closed_without_a_word() {
    let mut session = joined();
    let steps = session.receive(at(0), &frame("tab", &Body::Leave));
    assert!(matches!(steps[..], [Step::Close(Offence::Left)]), "{steps:?}");
    check_silent(&mut session);
}

#[test]
fn what_a_peer_reports_is_noted_and_not_answered() {
    let mut session = joined();
    let steps = session.receive(at(0), &frame("tab", &Body::Error { message: "no" }));
    assert!(matches!(&steps[..], [Step::Refused(Offence::PeerError(message))] if message == "no"), "{steps:?}");
    check_open(&mut session);
}

#[test]
fn kinds_of_message_that_others_add_are_ignored() {
    let mut session = joined();
    assert!(session.receive(at(0), &frame("tab", &Body::Unknown { kind: "news" })).is_empty());
    check_open(&mut session);
}

#[test]
fn who_dials_joins_and_takes_the_answer() {
    let (mut session, first) = Session::dial(local(), Limits::default());
    let mut server = Session::accept(
        LocalPeer { peer: PeerId::new("upstream").expect("a name"), storage: local().storage, native: 3 },
        Limits::default(),
    );
    let steps = server.receive(at(0), &Bytes::from(first));
    let [Step::Send(answer), Step::Joined(_)] = &steps[..] else { panic!("{steps:?}") };
    let steps = session.receive(at(0), &Bytes::copy_from_slice(answer));
    let [Step::Joined(peer)] = &steps[..] else { panic!("{steps:?}") };
    let storage = Some(local().storage);
    assert_eq!(
        *peer,
        PeerInfo {
            peer: PeerId::new("upstream").expect("a name"),
            storage,
            role: Role::Upstream,
            native: 3,
            access: Access::full()
        }
    );
}

#[test]
fn who_dials_accepts_no_other_answer() {
    let peer = |version| Body::Peer { metadata: PeerMetadata::default(), selected_version: Some(version) };
    for (answer, kind) in [
        (peer("2"), "unsupported_version"),
        (Body::Error { message: "full" }, "peer_error"),
        (Body::DocUnavailable { document: document() }, "expected_peer"),
        (Body::Join { metadata: PeerMetadata::default(), versions: None }, "expected_peer"),
    ] {
        let (mut session, _) = Session::dial(local(), Limits::default());
        let steps = session.receive(at(0), &frame("upstream", &answer));
        check_closed(&mut session, &steps, kind);
    }
}

#[test]
fn whom_we_dialled_may_pass_on_what_many_say() {
    let limits = Limits { ephemeral_per_second_max: 10, ephemeral_relayed_per_second_max: 30, ..Limits::default() };
    let (mut session, _) = Session::dial(local(), limits);
    let answer = Body::Peer { metadata: PeerMetadata::default(), selected_version: Some("1") };
    let steps = session.receive(at(0), &frame("upstream", &answer));
    assert!(matches!(&steps[..], [Step::Joined(_)]), "{steps:?}");
    let mut passed = |millis: u64| {
        let steps = (0..40).flat_map(|_| session.receive(at(millis), &ephemeral("somebody", 1)));
        steps.filter(|step| matches!(step, Step::Forward(_))).count()
    };
    assert_eq!(passed(0), 30);
    assert_eq!(passed(100), 3);
}

#[test]
fn every_outgoing_message_is_a_frame_to_the_peer_that_joined() {
    let session = joined();
    let data = Bytes::from_static(FIRST_SYNC);
    let sender = PeerId::new("other").expect("a name");
    let remote = wire::RemoteHeads { storage_id: local().storage, heads: vec![], timestamp_ms: 1.0 };
    let messages = [
        (Outgoing::Sync { document: document().to_string().into(), data: data.clone() }, "sync", "server"),
        (Outgoing::Request { document: document(), data: data.clone() }, "request", "server"),
        (Outgoing::DocUnavailable { document: document() }, "doc-unavailable", "server"),
        (
            Outgoing::Ephemeral { document: document(), sender, count: 4, session: "s".into(), data },
            "ephemeral",
            "other",
        ),
        (Outgoing::RemoteHeads { document: document(), heads: vec![remote] }, "remote-heads-changed", "server"),
        (Outgoing::Error { message: "no".into() }, "error", "server"),
    ];
    for (message, kind, sender) in messages {
        let mut out = Vec::new();
        session.encode(Stamp::ZERO, &message, &mut out);
        let out = Bytes::from(out);
        let envelope = wire::decode(&out, &Limits::default()).expect("own frame");
        assert_eq!((envelope.message.kind(), envelope.sender, envelope.target), (kind, sender, Some("tab")));
        assert!(out.len() <= message.weight() + 128, "a queue's account of {kind} is about right");
    }
}

/// The sync message that these steps hand on.
fn forwarded(steps: &[Step]) -> &SyncMessage {
    let Some(Step::Forward(PeerMessage::Sync(message))) = steps.last() else { panic!("nothing handed on: {steps:?}") };
    message
}

#[test]
fn the_native_extension_exists_for_peers_that_announced_it() {
    let life = NativeMessage::Life {
        document: DocumentId::from_bytes(&[7; 16]).expect("16 bytes"),
        life: Life { stamp: Stamp::new(1, 0), replica: ReplicaId([1; 16]), deleted: true },
    };
    for (announced, spoken) in [(None, 0), (Some(0), 0), (Some(1), 1), (Some(2), 2), (Some(3), 3), (Some(9), 3)] {
        let mut session = Session::accept(local(), Limits::default());
        let metadata = PeerMetadata { storage_id: None, is_ephemeral: false, native: announced, token: None };
        session.receive(at(0), &frame("tab", &Body::Join { metadata, versions: None }));
        assert_eq!(session.peer().expect("joined").native, spoken);
        let stamp = Stamp::new(5, 5);
        let mut receive = |data| session.receive(at(0), &frame("tab", &Body::Native { data }));
        let mut steps = receive(life.encode_for(spoken, stamp));
        if spoken == 0 {
            assert!(steps.is_empty(), "{steps:?}");
            continue;
        }
        assert!(
            matches!(steps.pop(), Some(Step::Forward(PeerMessage::Native(heard))) if heard == life),
            "the record is heard"
        );
        // A message of a peer that knows stamps begins with what its clock says.
        let stamps = usize::from(spoken >= 3);
        assert!(steps.iter().all(|step| matches!(step, Step::Observe(heard) if *heard == stamp)), "{steps:?}");
        assert_eq!(steps.len(), stamps);
        let have = NativeMessage::Blob(BlobMessage::Have { hash: BlobHash([1; 32]), size: 1 });
        let steps = receive(have.encode_for(spoken, stamp));
        assert_eq!(steps.len() - stamps, usize::from(spoken >= 2), "blobs came up with the second version");
        let unknown = Bytes::from_static(&[250, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(receive(unknown).len(), stamps, "for a later version");
        let steps = receive(Bytes::from_static(&[1, 1]));
        check_refused(&mut session, &steps, "native_malformed");
    }
}

fn guarded() -> Session {
    Session::accept(local(), Limits::default()).for_entrant(None)
}

fn join_with(token: Option<&str>, native: Option<u16>) -> Bytes {
    let metadata = PeerMetadata { native, token: token.map(Token::new), ..PeerMetadata::default() };
    frame("tab", &Body::Join { metadata, versions: None })
}

fn reading(until_ms: Option<u64>) -> Access {
    let grant = Grant { scope: Scope::Document(document()), may: Permissions::READ };
    Access { until_ms, subject: Some(Arc::from("alice")), ..Access::of(vec![grant]) }
}

#[test]
fn whoever_presents_a_token_in_the_join_is_answered_once_it_is_known_what_it_may() {
    let mut session = guarded();
    let steps = session.receive(at(0), &join_with(Some("a.b.c"), None));
    let [Step::Authenticate(Some(token))] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(token.reveal(), "a.b.c");
    assert!(session.peer().is_none() && session.receive(at(0), &sync_frame(FIRST_SYNC)).is_empty(), "not let in yet");
    let steps = session.admit(at(0), Ok(reading(None)));
    assert!(matches!(&steps[..], [Step::Send(_), Step::Joined(peer)] if peer.access == reading(None)), "{steps:?}");
}

#[test]
fn whoever_presents_nothing_good_is_told_and_cut_off() {
    let mut session = guarded();
    let steps = session.receive(at(0), &join_with(None, None));
    assert!(matches!(&steps[..], [Step::Authenticate(None)]), "{steps:?}");
    let steps = session.admit(at(0), Err(Denial::TokenMissing));
    check_closed(&mut session, &steps, "token_missing");
}

#[test]
fn a_syncline_peer_hears_how_long_it_has_and_renews_on_the_same_connection() {
    let mut session = guarded();
    session.receive(at(0), &join_with(Some("a.b.c"), Some(3)));
    let now = Now { mono: Duration::ZERO, wall_ms: 1_000 };
    let steps = session.admit(now, Ok(reading(Some(61_000))));
    let [Step::Send(_), Step::Joined(_), Step::Tell(told)] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(*told, Outgoing::Native(NativeMessage::Access { left_ms: Some(60_000) }));
    let renewal =
        frame("tab", &Body::Native { data: NativeMessage::Token(Token::new("d.e.f")).encode_for(3, Stamp::ZERO) });
    let steps = session.receive(now, &renewal);
    assert!(matches!(&steps[..], [Step::Observe(_), Step::Authenticate(Some(_))]), "{steps:?}");
    let steps = session.admit(now, Ok(reading(Some(121_000))));
    assert!(matches!(&steps[..], [Step::AccessChanged(_), Step::Tell(_)]), "{steps:?}");
    // Neither a bad token nor another's changes anything.
    let steps = session.admit(now, Err(Denial::TokenExpired));
    assert!(matches!(&steps[..], [Step::Send(_), Step::Refused(Offence::Denied(_))]), "{steps:?}");
    let other = Access { subject: Some(Arc::from("mallory")), ..Access::full() };
    let steps = session.admit(now, Ok(other));
    assert!(matches!(&steps[..], [Step::Send(_), Step::Refused(Offence::Denied(Denial::TokenSubject))]), "{steps:?}");
    assert_eq!(session.peer().map(|peer| &peer.access), Some(&reading(Some(121_000))));
}

#[test]
fn what_has_ended_already_lets_nobody_in() {
    let now = Now { mono: Duration::ZERO, wall_ms: 61_000 };
    let mut session = guarded();
    session.receive(at(0), &join_with(Some("a.b.c"), None));
    let steps = session.admit(now, Ok(reading(Some(61_000))));
    check_closed(&mut session, &steps, "token_expired");
    let mut session = Session::accept(local(), Limits::default()).for_entrant(Some(reading(Some(61_000))));
    let steps = session.receive(now, &join_with(None, None));
    check_closed(&mut session, &steps, "token_expired");
}

#[test]
fn what_has_ended_leaves_what_strangers_may_or_nothing() {
    for strangers in [None, Some(Access::none())] {
        let mut session = guarded();
        session.receive(at(0), &join_with(Some("a.b.c"), None));
        session.admit(at(0), Ok(reading(None)));
        let steps = session.end_access(at(0), Denial::TokenExpired, strangers.clone());
        match strangers {
            None => check_closed(&mut session, &steps, "token_expired"),
            Some(_) => {
                assert!(matches!(&steps[..], [Step::Send(_), Step::Refused(_), Step::AccessChanged(_)]), "{steps:?}")
            }
        }
    }
}

#[test]
fn what_may_not_be_read_is_not_decoded_and_blobs_need_a_permission_for_some_document() {
    let mut session = guarded();
    session.receive(at(0), &join_with(Some("a.b.c"), Some(3)));
    session.admit(at(0), Ok(reading(None)));
    let other = DocumentId::from_bytes(&[8; 16]).expect("16 bytes");
    let garbage = frame("tab", &Body::Sync { document: other, data: Bytes::from_static(b"garbage") });
    let steps = session.receive(at(0), &garbage);
    assert!(matches!(&steps[..], [Step::Forward(PeerMessage::Sync(_))]), "{steps:?}");
    let blob = |message| frame("tab", &Body::Native { data: NativeMessage::Blob(message).encode_for(3, Stamp::ZERO) });
    let hash = BlobHash([1; 32]);
    let steps = session.receive(at(0), &blob(BlobMessage::Want { hash, from: 0, to: 65_536 }));
    assert!(matches!(&steps[..], [Step::Observe(_), Step::Forward(_)]), "{steps:?}");
    let steps = session.receive(at(0), &blob(BlobMessage::Offer { hash, size: 5 }));
    assert!(
        matches!(
            &steps[..],
            [Step::Observe(_), Step::Tell(_), Step::Send(_), Step::Refused(Offence::BlobNotPermitted)]
        ),
        "{steps:?}"
    );
}

#[test]
fn who_sends_too_fast_is_read_later_and_told_once() {
    let limits = Limits { messages_per_second_max: 10, bytes_per_second_max: 1_000, ..Limits::default() };
    let mut session = joined_with(limits.clone());
    let paced: Vec<_> = (0..60).filter_map(|_| session.pace(at(0), 1, &[])).collect();
    assert_eq!(paced.len(), 20, "four seconds' worth may come at once");
    assert_eq!(paced[19].wait, Duration::from_secs(2));
    let told: Vec<_> = paced.iter().filter_map(|pause| pause.tell.as_ref().map(Offence::kind)).collect();
    assert_eq!(told, ["message_rate"]);
    assert_eq!(session.pace(at(2_000), 0, &[]).map(|pause| pause.wait), Some(Duration::from_millis(100)));
    let mut session = joined_with(limits);
    assert_eq!(session.pace(at(0), 4_000, &[]), None);
    let pause = session.pace(at(0), 500, &[]).expect("too much");
    assert_eq!((pause.wait, pause.tell.map(|offence| offence.kind())), (Duration::from_millis(500), Some("byte_rate")));
}

#[test]
fn what_takes_longer_counts_for_more_messages() {
    let limits = Limits { messages_per_second_max: 10, ..Limits::default() };
    let document = DocumentId::from_bytes(&[1; 16]).expect("16 bytes");
    let mut message = SyncMessage::unread(document, false);
    let wait = |message: &SyncMessage| {
        let mut session = joined_with(limits.clone());
        let steps = [Step::Forward(PeerMessage::Sync(Box::new(message.clone())))];
        let counted = (1..200).find(|_| session.pace(at(0), 1, &steps).is_some()).expect("it is paused some time");
        session.set_limits(Limits::default());
        assert_eq!(session.pace(at(100_000), 1, &steps), None, "other rates count at once");
        counted
    };
    assert_eq!(wait(&message), 41);
    message.refused = vec![crate::ChangeHash([0; 32]); 400];
    assert_eq!(wait(&message), 9, "400 changes are four messages more");
    message.statement.need = vec![crate::ChangeHash([0; 32]); 5_000];
    assert_eq!(wait(&message), 5, "5,000 hashes five more");
}

// It was encoded as for a peer that does not know the extension: without the stamp, so that the peer took its last bytes for one.
#[test]
fn what_is_queued_when_a_connection_is_closed_goes_out_as_it_would_have() {
    let mut session = Session::accept(local(), Limits::default()).for_entrant(Some(reading(None)));
    session.receive(at(0), &join_with(None, Some(3)));
    let queued = [
        Outgoing::Native(NativeMessage::Access { left_ms: Some(7) }),
        Outgoing::Sync { document: document().to_string().into(), data: Bytes::from_static(FIRST_SYNC) },
    ];
    let encoded = |session: &Session| {
        queued.each_ref().map(|message| {
            let mut frame = Vec::new();
            session.encode(Stamp::from_u64(5), message, &mut frame);
            frame
        })
    };
    let before = encoded(&session);
    assert!(matches!(session.end_access(at(0), Denial::TokenExpired, None)[..], [.., Step::Close(_)]));
    assert_eq!(encoded(&session), before);
}

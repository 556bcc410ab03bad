//! What a sync frame carries: changes good and bad, whole documents, Bloom filters that would starve a reader.
//!
//! Owns: sync payloads of every shape. Must not: judge changes beyond "taken" or "refused by name".
//! Next: `../decode.rs`.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};

use super::*;
use crate::ChangeHash;
use crate::forge;
use crate::sync::message::{Flags, Have, Message, Version};

fn message(changes: Vec<Bytes>) -> Message {
    let flags = Some(Flags { reset: false, read_only: false, supports_reset: true });
    Message { version: Version::V1, heads: vec![], need: vec![], have: vec![Have::default()], changes, flags }
}

fn encoded(message: &Message) -> Bytes {
    let mut out = Vec::new();
    message.encode(&mut out);
    Bytes::from(out)
}

/// Hands the changes in. Returns the steps.
fn receive(changes: Vec<Bytes>) -> Vec<Step> {
    joined().receive(at(0), &sync_frame(encoded(&message(changes))))
}

fn hashes(message: &SyncMessage) -> Vec<[u8; 32]> {
    message.changes.iter().map(|change| change.hash.0).collect()
}

/// A change with operations on an actor index that its actor table does not have.
fn bad_change() -> forge::Forged {
    forge::change().rows(&[forge::Row::put(forge::Key::Property("key")).within(1, 9)])
}

#[test]
fn a_bad_change_is_told_and_the_good_ones_beside_it_go_on() {
    let good = forge::change();
    let (bad, other) = (bad_change(), forge::Forged { actor: vec![0xbb; 16], ..forge::change() });
    let steps = receive(vec![good.bytes(), bad.bytes(), other.bytes()]);
    assert!(matches!(steps[..], [Step::Send(_), Step::Refused(Offence::Change { .. }), Step::Forward(_)]), "{steps:?}");
    assert!(told(&steps[0]).0.contains(&document().to_string()), "{}", told(&steps[0]).0);
    let message = forwarded(&steps);
    assert_eq!(hashes(message), [good.hash(), other.hash()]);
    assert_eq!(message.refused, [ChangeHash(bad.hash())], "named, so that it is not asked for again");
    assert!(message.statement.with_changes && !message.request);
}

#[test]
fn a_change_whose_bytes_were_hurt_has_no_name_to_refuse() {
    let mut hurt = forge::change().bytes().to_vec();
    hurt[4] ^= 1;
    let steps = receive(vec![hurt.into(), forge::change().bytes()]);
    assert!(matches!(&steps[1], Step::Refused(offence) if offence.kind() == "change_bad_checksum"), "{steps:?}");
    let message = forwarded(&steps);
    assert_eq!((message.changes.len(), message.refused.len()), (1, 0));
}

#[test]
fn chunks_behind_each_other_in_one_element_are_all_read() {
    let (first, second) = (forge::change(), forge::Forged { actor: vec![0xbb; 16], ..forge::change() });
    let steps = receive(vec![[first.bytes(), second.compressed()].concat().into()]);
    assert_eq!(hashes(forwarded(&steps)), [first.hash(), second.hash()]);
    assert_eq!(steps.len(), 1);
}

#[test]
fn what_is_no_chunk_ends_its_element_only() {
    let (first, second) = (forge::change(), forge::Forged { actor: vec![0xbb; 16], ..forge::change() });
    let broken = [first.bytes(), Bytes::from_static(&[0; 20]), second.bytes()].concat();
    let steps = receive(vec![broken.into(), second.bytes()]);
    assert!(matches!(steps[..], [Step::Send(_), Step::Refused(Offence::Chunk { .. }), Step::Forward(_)]), "{steps:?}");
    assert_eq!(hashes(forwarded(&steps)), [first.hash(), second.hash()]);
}

#[test]
fn a_whole_document_comes_out_as_its_changes() {
    let mut whole = AutoCommit::new();
    for value in 0..5 {
        whole.put(ROOT, "value", value).expect("put");
        whole.commit();
    }
    let expected: Vec<_> = whole.get_changes(&[]).iter().map(|change| change.hash().0).collect();
    let saved = Bytes::from(whole.save());
    assert!(is_heavy(&sync_frame(encoded(&message(vec![saved.clone()])))), "not to be read on a socket's thread");
    assert_eq!(hashes(forwarded(&receive(vec![saved.clone()]))), expected);
    // Behind it, as a store's tail comes.
    let tail = forge::change();
    let steps = receive(vec![[saved.clone(), tail.bytes()].concat().into()]);
    assert_eq!(hashes(forwarded(&steps)), [&expected[..], &[tail.hash()]].concat());
    let mut hurt = saved.to_vec();
    hurt[4] ^= 1;
    let steps = receive(vec![hurt.into(), tail.bytes()]);
    assert!(
        matches!(steps[..], [Step::Send(_), Step::Refused(Offence::Document { .. }), Step::Forward(_)]),
        "{steps:?}"
    );
    assert_eq!(hashes(forwarded(&steps)), [tail.hash()]);
}

#[test]
fn a_small_frame_without_a_document_is_light() {
    assert!(!is_heavy(&sync_frame(encoded(&message(vec![forge::change().bytes()])))));
    assert!(is_heavy(&ephemeral("tab", 40_000)));
}

#[test]
fn bloom_filters_that_would_starve_a_reader_are_refused_by_name() {
    for (filter, kind) in [
        (&[1, 0, 7][..], "bloom_bits_per_entry"),
        (&[1, 10, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 0], "bloom_probes"),
        (&[1, 10, 17, 0, 0], "bloom_probes"),
        (&[0xff, 0xff, 0x03, 10, 7, 0], "bloom_length"),
    ] {
        let have = vec![Have { last_sync: vec![], bloom: Bytes::from_static(filter) }];
        let mut session = joined();
        let with_change = Message { have, ..message(vec![forge::change().bytes()]) };
        let steps = session.receive(at(0), &sync_frame(encoded(&with_change)));
        assert!(told(&steps[0]).0.contains(&document().to_string()));
        check_refused(&mut session, &steps, kind);
    }
}

#[test]
fn a_payload_that_is_no_sync_message_is_refused() {
    for (data, kind) in [(&[0x41][..], "message_unknown_version"), (&[0x42, 5], "message_truncated")] {
        let mut session = joined();
        let steps = session.receive(at(0), &sync_frame(data));
        check_refused(&mut session, &steps, kind);
    }
}

#[test]
fn a_request_is_handed_on_as_one() {
    let data = Bytes::from_static(FIRST_SYNC);
    let steps = joined().receive(at(0), &frame("tab", &Body::Request { document: document(), data }));
    let message = forwarded(&steps);
    assert!(message.request && !message.statement.with_changes && message.statement.heads.is_empty());
}

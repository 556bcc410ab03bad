//! Sync messages against automerge's own reader and writer.
//!
//! Owns: the proof that both read and write the same bytes, and that hostile bytes are refused cheaply.
//! Must not: depend on what a session does with a message.
//! Next: `../message.rs`.

use automerge::sync::{self, MessageFlags, MessageVersion, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT, ReadDoc};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

/// The first message about an empty document, as automerge sends it.
const FIRST: [u8; 10] = [0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];

fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
    Message::decode(Bytes::copy_from_slice(bytes), &Limits::default())
}

fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn sorted(hashes: &[ChangeHash]) -> Vec<ChangeHash> {
    let mut hashes = hashes.to_vec();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Panics unless both values say the same; the filters too, where `blooms` says that they came from a real peer.
fn assert_same(ours: &Message, theirs: &sync::Message, blooms: bool) {
    assert_eq!(ours.version == Version::V1, theirs.version == MessageVersion::V1);
    assert_eq!(ours.heads, sorted(&theirs.heads));
    assert_eq!(ours.need, sorted(&theirs.need));
    assert_eq!(ours.have.len(), theirs.have.len());
    for (ours, theirs) in ours.have.iter().zip(&theirs.have) {
        assert_eq!(ours.last_sync, sorted(&theirs.last_sync));
        assert!(!blooms || ours.bloom == theirs.bloom.to_bytes());
    }
    let changes: Vec<&[u8]> = theirs.changes.iter().filter(|change| !change.is_empty()).collect();
    assert_eq!(ours.changes, changes);
    let flags = theirs.flags.map(|flags| Flags {
        reset: flags.contains(MessageFlags::SYNC_RESET),
        read_only: flags.contains(MessageFlags::READ_ONLY),
        supports_reset: flags.contains(MessageFlags::SUPPORTS_SYNC_RESET),
    });
    assert_eq!(ours.flags, flags);
}

/// Two stock documents that edit, talk, lose their connection, and turn read-only as the script says. Returns every
/// message that one of them sent.
fn conversation(script: &[u8]) -> Vec<Vec<u8>> {
    let mut documents = [1u8, 2].map(|actor| AutoCommit::new().with_actor(ActorId::from([actor; 16])));
    let mut states = [sync::State::new(), sync::State::new()];
    let mut sent = Vec::new();
    for (step, &action) in script.iter().enumerate() {
        let from = usize::from(action & 1);
        let to = 1 - from;
        match action >> 1 {
            0..4 => edit(&mut documents[from], step),
            4..14 => {
                let Some(message) = documents[from].sync().generate_sync_message(&mut states[from]) else { continue };
                let bytes = message.encode();
                let mut received = sync::Message::decode(&bytes).expect("automerge reads what it wrote");
                sent.push(bytes);
                if action >> 1 >= 12 {
                    // What a peer of the oldest version makes of it: it knows no flags, so it answers with version 1.
                    received.flags = None;
                }
                documents[to].sync().receive_sync_message(&mut states[to], received).expect("an honest message");
            }
            14 => states = [sync::State::new(), sync::State::new()],
            _ => states[from].set_read_only(step % 2 == 0),
        }
    }
    sent
}

fn edit(document: &mut AutoCommit, step: usize) {
    let length = document.length(ROOT);
    document.put(ROOT, format!("key{}", step % 7), step as i64).expect("a map takes any key");
    document.put(ROOT, "length", length as i64).expect("a map takes any key");
    document.commit();
}

fn script() -> impl Strategy<Value = Vec<u8>> {
    vec(0..32u8, 1..60)
}

/// Refusals that automerge does not share: bounds of ours.
fn is_own_bound(error: &MessageError) -> bool {
    matches!(error, MessageError::TooMany { .. } | MessageError::ChunkTooShort { .. })
}

fn check_mutilated(bytes: &[u8]) {
    match (decode(bytes), sync::Message::decode(bytes)) {
        (Ok(ours), Ok(theirs)) => assert_same(&ours, &theirs, false),
        (Err(ours), Ok(_)) => assert!(is_own_bound(&ours), "{ours}: {bytes:02x?}"),
        (Ok(ours), Err(_)) => {
            // automerge reads the filters at once, here their reader refuses them.
            assert!(ours.have.iter().any(|have| sync::BloomFilter::try_from(&have.bloom[..]).is_err()), "{bytes:02x?}");
        }
        (Err(_), Err(_)) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn real_messages_read_and_write_like_automerges(script in script()) {
        for bytes in conversation(&script) {
            let ours = decode(&bytes).expect("an honest message");
            assert_same(&ours, &sync::Message::decode(&bytes).expect("an honest message"), true);
            prop_assert_eq!(encode(&ours), bytes);
        }
    }

    #[test]
    fn mutilated_messages_mean_the_same_to_both(script in script(), bit in any::<proptest::sample::Index>()) {
        for bytes in conversation(&script) {
            let mut flipped = bytes.clone();
            let bit = bit.index(bytes.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            check_mutilated(&flipped);
            check_mutilated(&bytes[..bit / 8]);
        }
    }

    #[test]
    fn arbitrary_bytes_mean_the_same_to_both(mut bytes in vec(any::<u8>(), 0..80), v2: bool) {
        check_mutilated(&bytes);
        bytes.insert(0, if v2 { 0x43 } else { 0x42 });
        check_mutilated(&bytes);
    }

    #[test]
    fn small_numbers_mean_the_same_to_both(numbers in vec(0..4u8, 0..40)) {
        let bytes: Vec<u8> = std::iter::once(0x42).chain(numbers).collect();
        check_mutilated(&bytes);
    }

    #[test]
    fn leb128_numbers_survive_their_bytes(number: u64, shift in 0..64u32) {
        let mut out = Vec::new();
        write_leb128(&mut out, number >> shift);
        prop_assert_eq!(read_leb128(&out), Ok((number >> shift, out.len())));
        prop_assert_eq!(read_leb128(&out[..out.len() - 1]), Err(Leb128Error::Truncated));
    }
}

/// Were one missing, the properties above would hold of less than they say.
#[test]
fn conversations_contain_every_kind_of_message() {
    let mut runner = TestRunner::deterministic();
    let mut next_script = || script().new_tree(&mut runner).expect("scripts are never rejected").current();
    let messages: Vec<Message> = std::iter::repeat_with(&mut next_script)
        .take(64)
        .flat_map(|script| conversation(&script))
        .map(|bytes| decode(&bytes).expect("an honest message"))
        .collect();
    let any = |property: fn(&Message) -> bool| messages.iter().any(property);
    assert!(any(|message| message.version == Version::V1 && message.changes.len() > 1), "changes one by one");
    assert!(any(|message| message.version == Version::V2 && !message.changes.is_empty()), "a packed document");
    assert!(any(|message| !message.need.is_empty()), "a request by name");
    assert!(any(|message| message.have.iter().any(|have| !have.bloom.is_empty())), "a filter");
    assert!(any(|message| message.flags.is_some_and(|flags| flags.read_only)), "a read-only peer");
    assert!(any(|message| message.flags.is_some_and(|flags| flags.reset)), "a reset");
}

#[test]
fn the_first_message_is_ten_bytes() {
    let message = decode(&FIRST).expect("an honest message");
    let flags = Flags { supports_reset: true, ..Flags::default() };
    assert_eq!((&message.flags, message.have.len(), message.heads.len()), (&Some(flags), 1, 0));
    assert_eq!(encode(&message), FIRST);
}

#[test]
fn a_message_without_flags_keeps_none() {
    let message = decode(&FIRST[..7]).expect("an honest message");
    assert_eq!(message.flags, None);
    assert_eq!(encode(&message), &FIRST[..7]);
}

#[test]
fn flags_of_the_older_form_are_present_but_unset() {
    let message = decode(&[0x42, 0, 0, 0, 0, 1, 2]).expect("an honest message");
    assert_eq!(message.flags, Some(Flags::default()));
}

#[test]
fn bytes_after_the_flags_are_ignored() {
    let mut bytes = FIRST.to_vec();
    bytes.extend([0xff; 5]);
    assert_eq!(decode(&bytes), decode(&FIRST));
}

#[test]
fn unsorted_heads_come_out_sorted_and_once() {
    let mut bytes = vec![0x42, 3];
    for fill in [9u8, 1, 9] {
        bytes.extend([fill; 32]);
    }
    bytes.extend([0, 0, 0]);
    let message = decode(&bytes).expect("order is forgiven");
    assert_eq!(message.heads, [ChangeHash([1; 32]), ChangeHash([9; 32])]);
}

#[test]
fn changes_are_slices_of_the_message() {
    let mut bytes = vec![0x42, 0, 0, 0, 1, 12];
    bytes.extend([7; 12]);
    let bytes = Bytes::from(bytes);
    let message = Message::decode(bytes.clone(), &Limits::default()).expect("one change");
    assert_eq!(message.changes[0].as_ptr(), bytes[6..].as_ptr(), "no copy was made");
}

#[test]
fn a_count_beyond_the_rest_of_the_message_is_refused_before_anything_is_reserved() {
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for (prefix, part) in [
        (&[0x42][..], "heads"),
        (&[0x42, 0], "need"),
        (&[0x42, 0, 0], "have"),
        (&[0x42, 0, 0, 1], "last_sync"),
        (&[0x42, 0, 0, 1, 0], "bloom"),
        (&[0x42, 0, 0, 0], "changes"),
        (&[0x42, 0, 0, 0, 1], "changes"),
        (&[0x42, 0, 0, 0, 0], "flags"),
    ] {
        let mut bytes = prefix.to_vec();
        bytes.extend(most);
        bytes.extend([0; 40]);
        assert_eq!(decode(&bytes), Err(MessageError::Truncated { part }));
    }
}

#[test]
fn lists_beyond_the_limit_are_refused() {
    let limits = Limits { message_hashes_max: 2, ..Limits::default() };
    let mut heads = vec![0x42, 3];
    heads.extend([0; 96 + 3]);
    let mut have = vec![0x42, 0, 0, 3];
    have.extend([0; 6 + 1]);
    for (bytes, part) in [(heads, "heads"), (have, "have")] {
        let refused = Message::decode(Bytes::from(bytes), &limits);
        assert_eq!(refused, Err(MessageError::TooMany { part, count: 3, count_max: 2 }));
    }
}

#[test]
fn a_million_empty_changes_take_no_memory() {
    let mut bytes = vec![0x42, 0, 0, 0, 0xc0, 0x84, 0x3d];
    bytes.extend(vec![0; 1_000_000]);
    assert_eq!(decode(&bytes).map(|message| message.changes.capacity()), Ok(0));
}

#[test]
fn what_is_not_a_message_is_named() {
    assert_eq!(decode(&[]).map_err(|error| error.kind()), Err("message_truncated"));
    assert_eq!(decode(&[0x44, 0]), Err(MessageError::UnknownVersion { found: 0x44 }));
    assert_eq!(decode(&[0x42, 0x80, 0]), Err(MessageError::BadNumber { part: "heads" }));
    let beyond_64_bits = [0x42, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02];
    assert_eq!(decode(&beyond_64_bits), Err(MessageError::BadNumber { part: "heads" }));
    assert_eq!(decode(&[0x42, 0, 0, 0, 1, 2, 9, 9]), Err(MessageError::ChunkTooShort { bytes: 2 }));
}

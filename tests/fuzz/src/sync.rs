//! Sync messages and Bloom filters, beside automerge's own reader and writer.
//!
//! Owns: where both must agree, and the few bounds of ours that automerge does not share.
//! Must not: hand automerge's filters to automerge's sync, which some of them stop. Next: `change.rs`.

use automerge::ChangeHash;
use automerge::sync::{self as theirs, MessageFlags, MessageVersion};
use bytes::Bytes;
use syncline_core::limits::Limits;
use syncline_core::sync::bloom::Bloom;
use syncline_core::sync::message::{Flags, Message, MessageError, Version};

use crate::script::Script;

/// One sync message.
pub fn message(data: &[u8]) {
    let ours = Message::decode(Bytes::copy_from_slice(data), &Limits::default());
    match (ours, theirs::Message::decode(data)) {
        (Ok(ours), Ok(theirs)) => {
            check_same(&ours, &theirs);
            check_written(&ours);
        }
        (Ok(ours), Err(_)) => {
            // automerge reads the filters at once, here their own reader refuses them.
            let unreadable = |bloom: &Bytes| theirs::BloomFilter::try_from(&bloom[..]).is_err();
            assert!(ours.have.iter().any(|have| unreadable(&have.bloom)), "automerge refuses what is accepted here");
        }
        (Err(error), Ok(_)) => {
            let bound_of_ours = matches!(error, MessageError::TooMany { .. } | MessageError::ChunkTooShort { .. });
            assert!(bound_of_ours, "automerge accepts what is refused here: {error}");
        }
        (Err(_), Err(_)) => {}
    }
}

fn check_same(ours: &Message, theirs: &theirs::Message) {
    assert_eq!(ours.version == Version::V1, theirs.version == MessageVersion::V1);
    assert_eq!(ours.heads, sorted(&theirs.heads));
    assert_eq!(ours.need, sorted(&theirs.need));
    assert_eq!(ours.have.len(), theirs.have.len());
    for (ours, theirs) in ours.have.iter().zip(&theirs.have) {
        assert_eq!(ours.last_sync, sorted(&theirs.last_sync));
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

fn check_written(message: &Message) {
    let mut written = Vec::new();
    message.encode(&mut written);
    let again = theirs::Message::decode(&written).expect("automerge reads what is written here");
    check_same(message, &again);
    assert_eq!(Message::decode(written.into(), &Limits::default()).as_ref(), Ok(message));
}

fn sorted(hashes: &[ChangeHash]) -> Vec<ChangeHash> {
    let mut hashes = hashes.to_vec();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// A hash to ask for, and a filter.
pub fn bloom(data: &[u8]) {
    let mut script = Script::new(data);
    let asked = hash(script.take(32));
    let bytes = script.rest();
    let members: Vec<ChangeHash> = bytes.chunks(32).map(hash).collect();
    check_own_filter(&members, &asked);
    let Ok(ours) = Bloom::decode(bytes, &Limits::default()) else { return };
    let theirs = theirs::BloomFilter::try_from(bytes).expect("automerge reads what is accepted here");
    assert_eq!(ours.contains(&asked), theirs.contains_hash(&asked));
    let mut written = Vec::new();
    ours.encode(&mut written);
    let again = Bloom::decode(&written, &Limits::default()).expect("what is written can be read");
    assert_eq!(again.contains(&asked), ours.contains(&asked));
    assert!(written.is_empty() || again == ours, "a filter of anything survives its bytes");
}

fn check_own_filter(members: &[ChangeHash], asked: &ChangeHash) {
    let ours = Bloom::from_hashes(members);
    let theirs = theirs::BloomFilter::from_hashes(members.iter());
    let mut written = Vec::new();
    ours.encode(&mut written);
    assert_eq!(written, theirs.to_bytes());
    assert!(members.iter().all(|member| ours.contains(member)), "a filter never claims too little");
    assert_eq!(ours.contains(asked), theirs.contains_hash(asked));
}

fn hash(bytes: &[u8]) -> ChangeHash {
    let mut hash = [0; 32];
    hash[..bytes.len()].copy_from_slice(bytes);
    ChangeHash(hash)
}

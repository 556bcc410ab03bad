//! Frames and names: the first bytes of a stranger that are read.
//!
//! Owns: round trips: what is read can be written, and means the same when it is read again.
//! Must not: know what a message leads to. Next: `session.rs`.

use std::str::FromStr;

use bytes::Bytes;
use syncline::DocumentUrl;
use syncline_core::id::{
    DOCUMENT_ID_BYTES_MAX, DocumentId, PEER_ID_BYTES_MAX, PeerId, StorageId, decode_base58_hash, encode_base58_check,
};
use syncline_core::limits::Limits;
use syncline_core::session::is_heavy;
use syncline_core::wire::{Body, decode, encode, encode_sync};

/// One frame.
pub fn wire(data: &[u8]) {
    let limits = Limits::default();
    let frame = Bytes::copy_from_slice(data);
    let _ = is_heavy(&frame);
    let envelope = match decode(&frame, &limits) {
        Ok(envelope) => envelope,
        Err(error) => {
            assert!(!error.kind().is_empty() && !error.to_string().is_empty());
            return;
        }
    };
    let (sender, target) = (envelope.sender, envelope.target);
    assert!(sender.len() <= PEER_ID_BYTES_MAX && target.is_none_or(|target| target.len() <= PEER_ID_BYTES_MAX));
    let mut written = Vec::new();
    encode(sender, target, &envelope.message, &mut written);
    let written = Bytes::from(written);
    let again = decode(&written, &limits).expect("what is written can be read");
    assert_eq!(again, envelope, "it means the same");
    if let (Body::Sync { document, data }, Some(target)) = (&envelope.message, target) {
        let mut quickly = Vec::new();
        encode_sync(sender, target, &document.to_string(), data, &mut quickly);
        assert_eq!(quickly, written, "both ways to write a sync frame");
    }
}

/// Texts and bytes that stand where an id is expected.
pub fn ids(data: &[u8]) {
    match DocumentId::from_bytes(data) {
        Ok(id) => check_document_id(&id),
        Err(_) => assert!(data.len() > DOCUMENT_ID_BYTES_MAX),
    }
    if let Ok(hash) = <[u8; 32]>::try_from(data) {
        let text = encode_base58_check(&hash);
        assert_eq!(decode_base58_hash(&text).map(|hash| hash.0), Ok(hash));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = DocumentId::from_str(text);
    if let Ok(id) = &parsed {
        assert_eq!(id.to_string(), text, "an id has one text");
        check_document_id(id);
    }
    check_address(text);
    let _ = decode_base58_hash(text);
    let fits = (1..=PEER_ID_BYTES_MAX).contains(&text.len());
    assert_eq!(PeerId::new(text).is_ok(), fits);
    assert_eq!(StorageId::new(text).is_ok_and(|id| id.as_str() == text), fits);
}

/// Only a document's id after the scheme is an address, and heads after it.
fn check_address(text: &str) {
    let url = DocumentUrl::from_str(text);
    let Some(rest) = text.strip_prefix("automerge:") else { return assert!(url.is_err(), "it has no scheme") };
    let (id, heads) = rest.split_once('#').map_or((rest, None), |(id, heads)| (id, Some(heads)));
    match (url, DocumentId::from_str(id)) {
        (Ok(url), Ok(id)) => {
            assert_eq!((url.id(), url.heads().is_some()), (&id, heads.is_some()));
            assert_eq!(DocumentUrl::from_str(&url.to_string()).expect("its own text"), url);
        }
        (Err(_), Ok(_)) => assert!(heads.is_some_and(|heads| !heads.is_empty()), "a whole document"),
        (Ok(_), Err(_)) => panic!("an address of no document"),
        (Err(_), Err(_)) => {}
    }
}

fn check_document_id(id: &DocumentId) {
    let text = id.to_string();
    assert_eq!(DocumentId::from_str(&text).as_ref(), Ok(id));
    let url = DocumentUrl::from(id.clone());
    assert_eq!(DocumentUrl::from_str(&url.to_string()).expect("its own text"), url);
}

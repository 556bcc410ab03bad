//! Tests of what is remembered of peers, and of how much.

use serde_json::{Value, json};
use syncline_content::cbor;
use syncline_content::presence::MARKER;

use super::*;

fn document(number: u32) -> DocumentId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    DocumentId::from_bytes(&bytes).expect("sixteen bytes are an id")
}

fn overheard(number: u32, peer: &str, data: Vec<u8>) -> Overheard {
    let sender = PeerId::new(peer).expect("a short name");
    Overheard { document: document(number), sender, data: data.into() }
}

fn say(presence: &Presence, number: u32, peer: &str, message: &Value) {
    presence.note(overheard(number, peer, cbor::encode(&json!({ MARKER: message }))), Instant::now());
}

fn channels(said: &Said) -> Value {
    let channels = said.channels.iter().flatten();
    let parsed = channels.map(|(name, text)| (name.clone(), serde_json::from_str(text).expect("JSON")));
    Value::Object(parsed.collect())
}

#[test]
fn a_state_is_put_together_and_ends_with_a_goodbye() {
    let presence = Presence::default();
    say(&presence, 1, "a", &json!({ "type": "heartbeat" }));
    assert_eq!(presence.at(&document(1)), [], "of whom nothing is known, nothing is shown");
    say(&presence, 1, "a", &json!({ "type": "snapshot", "state": { "x": 1, "name": "Anna" } }));
    say(&presence, 1, "a", &json!({ "type": "update", "channel": "x", "value": [2] }));
    say(&presence, 1, "a", &json!({ "type": "heartbeat" }));
    say(&presence, 2, "a", &json!({ "type": "snapshot", "state": {} }));
    let at = presence.at(&document(1));
    assert_eq!((at.len(), at[0].0.as_str(), channels(&at[0].1)), (1, "a", json!({ "x": [2], "name": "Anna" })));
    say(&presence, 1, "a", &json!({ "type": "goodbye" }));
    assert_eq!((presence.at(&document(1)).len(), presence.at(&document(2)).len()), (0, 1));
}

#[test]
fn what_is_in_other_words_is_kept_as_it_came() {
    let presence = Presence::default();
    presence.note(overheard(1, "a", vec![0xff, 1]), Instant::now());
    presence.note(overheard(1, "a", vec![0xff, 2]), Instant::now());
    let at = presence.at(&document(1));
    assert_eq!((&at[0].1.channels, at[0].1.message.as_deref()), (&None, Some(&[0xff, 2][..])));
}

#[test]
fn who_says_nothing_more_is_forgotten() {
    let (presence, began) = (Presence::default(), Instant::now());
    let snapshot = cbor::encode(&json!({ MARKER: { "type": "snapshot", "state": {} } }));
    presence.note(overheard(1, "a", snapshot.clone()), began.checked_sub(EXPIRY).expect("a machine that runs longer"));
    presence.note(overheard(1, "b", snapshot), began);
    let at = presence.at(&document(1));
    assert_eq!(at.iter().map(|(peer, _)| peer.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn memory_is_bounded_for_a_document_and_in_all() {
    let presence = Presence::default();
    for number in 0..PEERS_MAX + 10 {
        say(&presence, 1, &number.to_string(), &json!({ "type": "snapshot", "state": {} }));
    }
    let at = presence.at(&document(1));
    assert!(at.len() == PEERS_MAX && at.iter().all(|(peer, _)| peer != "0"), "the silent ones go first");
    let much = "x".repeat(DOCUMENT_BYTES_MAX / 2);
    for peer in ["a", "b", "c"] {
        say(&presence, 2, peer, &json!({ "type": "update", "channel": "c", "value": much }));
    }
    assert_eq!(presence.at(&document(2)).len(), 1);
    say(&presence, 2, "c", &json!({ "type": "update", "channel": "d", "value": much }));
    assert_eq!(presence.at(&document(2)).len(), 0, "nobody has a document for themselves");
    for number in 0..2 * (BYTES_MAX / DOCUMENT_BYTES_MAX) as u32 + 20 {
        say(&presence, 3 + number, "a", &json!({ "type": "update", "channel": "c", "value": much }));
    }
    let table = presence.table();
    let bytes: usize = table.documents.values().flat_map(|place| place.peers.values()).map(Said::bytes).sum();
    assert!(bytes <= BYTES_MAX && bytes > BYTES_MAX / 2);
    assert_eq!(
        (table.bytes, table.order.len()),
        (bytes, table.documents.values().map(|place| place.peers.len()).sum())
    );
    assert!(!table.documents.contains_key(&document(1)));
}

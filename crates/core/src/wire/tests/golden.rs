//! The golden frames of `tests/golden/wire.txt`.
//!
//! Owns: what each recorded frame means, and the re-blessing of what we send.
//! Must not: rewrite what JavaScript peers send.
//! Next: `../tests.rs`.

use super::*;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wire.txt");
const STORAGE: &str = "3760df37-a4c6-4f66-9ecd-732039a9385d";
/// The first sync message about an empty document.
const FIRST: &[u8] = &[0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];

/// Every line of the fixture: name and bytes.
pub(super) fn frames() -> Vec<(String, Bytes)> {
    let fixture = std::fs::read_to_string(PATH).expect("the fixture is checked in");
    let lines = fixture.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let frames = lines.map(|line| {
        let (name, hex) = line.split_once(' ').expect("a name and bytes");
        (name.to_owned(), from_hex(hex))
    });
    frames.collect()
}

fn from_hex(hex: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hexadecimal digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn storage() -> StorageId {
    StorageId::new(STORAGE).expect("an id")
}

fn metadata(is_ephemeral: bool) -> PeerMetadata {
    PeerMetadata { storage_id: Some(storage()), is_ephemeral, native: None, token: None }
}

/// Every kind of message, with the meaning of its golden frames.
fn meanings() -> Vec<(&'static str, Envelope<'static>)> {
    let document: DocumentId = DOCUMENT_TEXT.parse().expect("an id");
    let data = Bytes::from_static(FIRST);
    let ephemeral = |count: u64| Body::Ephemeral {
        document: document.clone(),
        count,
        session: "k3j9x0",
        data: Bytes::from_static(b"\xb9\x00\x01\x61a\x01"),
    };
    let heads = vec![RemoteHeads {
        storage_id: storage(),
        heads: vec![ChangeHash([0x11; 32])],
        timestamp_ms: 1_764_000_000_123.0,
    }];
    let from = |sender, target, message| Envelope { sender, target, message };
    let to_server = |message| Envelope { sender: "client", target: Some("server"), message };
    let subscription = |add, remove| to_server(Body::RemoteSubscriptionChange { add, remove });
    let versions = Some(vec!["1"]);
    let nameless = |is_ephemeral| PeerMetadata { storage_id: None, is_ephemeral, native: None, token: None };
    let peer = |metadata| Body::Peer { metadata, selected_version: Some("1") };
    vec![
        ("join.no_storage", from("cli", None, Body::Join { metadata: nameless(true), versions: versions.clone() })),
        ("join.undefined", from("clip", None, Body::Join { metadata: nameless(false), versions: versions.clone() })),
        ("join", from("client", None, Body::Join { metadata: metadata(false), versions: versions.clone() })),
        ("peer", from("server", Some("client"), peer(metadata(true)))),
        ("error", from("server", Some("client"), Body::Error { message: "unsupported protocol version" })),
        ("error.without_sender", from("", None, Body::Error { message: "expected a join message" })),
        ("leave", from("client", None, Body::Leave)),
        ("request", to_server(Body::Request { document: document.clone(), data: data.clone() })),
        ("sync", to_server(Body::Sync { document: document.clone(), data: data.clone() })),
        ("sync.buffer", to_server(Body::Sync { document: document.clone(), data: data.clone() })),
        ("sync.tag64", to_server(Body::Sync { document: document.clone(), data })),
        ("doc_unavailable", to_server(Body::DocUnavailable { document: document.clone() })),
        ("ephemeral", to_server(ephemeral(1))),
        ("ephemeral.large_count", to_server(ephemeral(1 << 40))),
        ("remote_subscription_change.add", subscription(vec![storage()], vec![])),
        ("remote_subscription_change.remove", subscription(vec![], vec![storage()])),
        ("remote_heads_changed", to_server(Body::RemoteHeadsChanged { document: document.clone(), heads })),
        ("unknown", to_server(Body::Unknown { kind: "subduction-connection" })),
        ("join.native", {
            let metadata = PeerMetadata { native: Some(1), ..metadata(false) };
            from("client", None, Body::Join { metadata, versions })
        }),
    ]
}

#[test]
fn frames_of_javascript_peers_mean_what_they_mean_there() {
    let meanings = meanings();
    let recorded = frames().into_iter().filter_map(|(name, frame)| {
        let name = name.strip_prefix("js.")?.to_owned();
        Some((name, frame))
    });
    let mut count = 0;
    for (name, frame) in recorded {
        let (_, meaning) = meanings.iter().find(|(known, _)| *known == name).expect("a meaning for each frame");
        assert_eq!(decode_with_defaults(&frame).as_ref(), Ok(meaning), "{name}");
        count += 1;
    }
    assert_eq!(count, 18, "every recorded frame was read");
}

#[test]
fn what_we_send_is_golden_and_readable() {
    let kinds: std::collections::BTreeSet<String> =
        meanings().iter().map(|(_, envelope)| envelope.message.kind().to_owned()).collect();
    assert_eq!(kinds.len(), 11, "every kind of message has a golden frame");
    let mut ours = String::new();
    for (name, envelope) in meanings() {
        let frame = encoded(&envelope);
        assert_eq!(decode_with_defaults(&frame).as_ref(), Ok(&envelope), "{name}");
        ours.push_str(&format!("ours.{name} {}\n", to_hex(&frame)));
    }
    let fixture = std::fs::read_to_string(PATH).expect("the fixture is checked in");
    let kept: String =
        fixture.lines().filter(|line| !line.starts_with("ours.")).flat_map(|line| [line, "\n"]).collect();
    let expected = kept + &ours;
    if std::env::var_os("SYNCLINE_BLESS").is_some() {
        std::fs::write(PATH, expected).expect("the fixture is writable");
    } else {
        assert_eq!(fixture, expected, "if the change is meant, set SYNCLINE_BLESS=1 and review the difference");
    }
}

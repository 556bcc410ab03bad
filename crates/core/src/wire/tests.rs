//! Frames against golden bytes, against themselves, and against hostility.
//!
//! Owns: the proof that what JavaScript peers send is understood and that what we send does not change unnoticed.
//! Must not: depend on what a session does with a frame.
//! Next: `../wire.rs`; `tests/golden/wire.txt`.

mod golden;
mod properties;

use bytes::Bytes;

use super::*;
use crate::limits::Limits;

const DOCUMENT_TEXT: &str = "11111111111111114Ki9Gx";

fn decode_with_defaults(frame: &Bytes) -> Result<Envelope<'_>, WireError> {
    decode(frame, &Limits::default())
}

fn encoded(envelope: &Envelope<'_>) -> Bytes {
    let mut out = Vec::new();
    encode(envelope.sender, envelope.target, &envelope.message, &mut out);
    Bytes::from(out)
}

/// A CBOR map written by hand: each value is already encoded.
fn map(fields: &[(&str, &[u8])]) -> Bytes {
    let mut out = Vec::new();
    cbor::write_map(&mut out, fields.len());
    for (key, value) in fields {
        cbor::write_text(&mut out, key);
        out.extend_from_slice(value);
    }
    Bytes::from(out)
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    cbor::write_text(&mut out, text);
    out
}

/// An ephemeral frame with this encoded count.
fn ephemeral_with_count(count: &[u8]) -> Bytes {
    map(&[
        ("type", &text("ephemeral")),
        ("senderId", b"\x61a"),
        ("documentId", &text(DOCUMENT_TEXT)),
        ("count", count),
        ("sessionId", b"\x61s"),
        ("data", b"\x40"),
    ])
}

fn check_refused(frame: &[u8], kind: &str) {
    let frame = Bytes::copy_from_slice(frame);
    let refused = decode_with_defaults(&frame).map_err(|error| error.kind());
    assert_eq!(refused, Err(kind), "{frame:02x?}");
}

#[test]
fn data_is_a_slice_of_the_frame() {
    let data = Bytes::from_static(&[7; 40]);
    let document = DOCUMENT_TEXT.parse().expect("an id");
    let frame = encoded(&Envelope { sender: "a", target: Some("b"), message: Body::Sync { document, data } });
    let envelope = decode_with_defaults(&frame).expect("our own frame");
    let Body::Sync { data, .. } = envelope.message else { panic!("a sync frame") };
    assert_eq!(data.as_ptr_range().end, frame.as_ptr_range().end, "no copy was made");
}

#[test]
fn encode_sync_writes_what_encode_writes() {
    let document: DocumentId = DOCUMENT_TEXT.parse().expect("an id");
    for length in [0, 23, 24, 255, 256, 65_535, 65_536] {
        let data = Bytes::from(vec![7; length]);
        let mut fast = Vec::new();
        encode_sync("sender", "target", DOCUMENT_TEXT, &data, &mut fast);
        let message = Body::Sync { document: document.clone(), data };
        assert_eq!(fast, encoded(&Envelope { sender: "sender", target: Some("target"), message }));
    }
}

#[test]
fn a_lone_value_is_not_a_frame() {
    for value in [&b"\xf6"[..], b"\xf7", b"\x00", b"\x80", b"\x61a", b"\xd8\x40\xa0"] {
        check_refused(value, "frame_not_a_map");
    }
    check_refused(b"", "frame_truncated");
}

#[test]
fn bytes_after_the_map_are_refused() {
    let mut frame = map(&[("type", b"\x65leave"), ("senderId", b"\x61a")]).to_vec();
    frame.push(0xf6);
    check_refused(&frame, "frame_trailing_bytes");
}

#[test]
fn one_key_twice_is_refused_in_every_map_that_is_read() {
    let leave = ("type", &b"\x65leave"[..]);
    check_refused(&map(&[leave, ("senderId", b"\x61a"), ("senderId", b"\x61b")]), "frame_duplicate_key");
    check_refused(&map(&[leave, ("senderId", b"\x61a"), ("x", b"\x01"), ("x", b"\x01")]), "frame_duplicate_key");
    let many: Vec<String> = (0..20).map(|index| format!("x{}", index % 19)).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|key| (key.as_str(), &b"\x01"[..])).collect();
    check_refused(&map(&many), "frame_duplicate_key");
    let metadata = map(&[("isEphemeral", b"\xf4"), ("isEphemeral", b"\xf5")]);
    let join = [("type", &b"\x64join"[..]), ("senderId", b"\x61a"), ("peerMetadata", &metadata)];
    check_refused(&map(&join), "frame_duplicate_key");
}

#[test]
fn indefinite_maps_and_lists_are_accepted_and_indefinite_strings_refused() {
    let open = b"\xbf\x64type\x64join\x68senderId\x61a\x78\x19supportedProtocolVersions\x9f\x611\xff\xff";
    let frame = Bytes::from_static(open);
    let envelope = decode_with_defaults(&frame).expect("an open map");
    assert_eq!(envelope.message, Body::Join { metadata: PeerMetadata::default(), versions: Some(vec!["1"]) });
    check_refused(&open[..open.len() - 1], "frame_truncated");
    check_refused(&map(&[("type", b"\x7f\x65leave\xff")]), "frame_not_cbor");
    check_refused(&map(&[("x", b"\x5f\x41\x00\xff")]), "frame_not_cbor");
    check_refused(&map(&[("x", b"\xbf\x61k\xff")]), "frame_not_cbor");
    check_refused(&map(&[("x", b"\xff")]), "frame_not_cbor");
}

#[test]
fn a_key_that_is_not_text_is_refused() {
    check_refused(b"\xa1\x01\x01", "frame_key_not_text");
    check_refused(b"\xa1\x41a\x01", "frame_key_not_text");
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    check_refused(b"\xa1\x64type\x62\xff\xfe", "frame_not_cbor");
}

#[test]
fn nesting_is_bounded_in_fields_that_nobody_reads() {
    let nested = |depth: usize, opener: &[u8]| {
        let mut value = opener.repeat(depth);
        value.push(0x00);
        map(&[("type", b"\x65leave"), ("senderId", b"\x61a"), ("x", &value)])
    };
    for opener in [&b"\x81"[..], b"\xa1\x00", b"\xc1"] {
        assert_eq!(decode_with_defaults(&nested(32, opener)).map(|envelope| envelope.message), Ok(Body::Leave));
        check_refused(&nested(33, opener), "frame_too_deep");
        check_refused(&nested(1_000_000, opener), "frame_too_deep");
    }
}

#[test]
fn hostile_counts_cost_nothing() {
    let most = b"\xff\xff\xff\xff\xff\xff\xff\xff";
    for header in [0xbbu8, 0x9b, 0x7b, 0x5b] {
        let mut value = vec![header];
        value.extend(most);
        check_refused(&map(&[("x", &value)]), "frame_truncated");
    }
    let mut frame = vec![0xbb];
    frame.extend(most);
    check_refused(&frame, "frame_truncated");
    let distinct: Vec<String> = (0..65).map(|index| format!("x{index}")).collect();
    let distinct: Vec<(&str, &[u8])> = distinct.iter().map(|key| (key.as_str(), &b"\xf7"[..])).collect();
    check_refused(&map(&distinct), "frame_too_many");
}

#[test]
fn lists_beyond_their_limits_are_refused() {
    let mut ids = Vec::new();
    cbor::write_array(&mut ids, 1_025);
    (0..1_025).for_each(|index| cbor::write_text(&mut ids, &index.to_string()));
    let change = text("remote-subscription-change");
    check_refused(&map(&[("type", &change), ("senderId", b"\x61a"), ("add", &ids)]), "frame_too_many");
}

#[test]
fn hashes_of_all_stores_share_one_limit() {
    let limits = Limits { message_hashes_max: 3, ..Limits::default() };
    let remote = |name: &str, count: usize| RemoteHeads {
        storage_id: StorageId::new(name).expect("an id"),
        heads: vec![ChangeHash([1; 32]); count],
        timestamp_ms: 1.0,
    };
    let check = |counts: [usize; 2], expected: Result<(), &str>| {
        let heads = vec![remote("a", counts[0]), remote("b", counts[1])];
        let document = DOCUMENT_TEXT.parse().expect("an id");
        let message = Body::RemoteHeadsChanged { document, heads };
        let frame = encoded(&Envelope { sender: "a", target: None, message });
        assert_eq!(decode(&frame, &limits).map(|_| ()).map_err(|error| error.kind()), expected);
    };
    check([2, 1], Ok(()));
    check([2, 2], Err("frame_too_many"));
}

#[test]
fn a_count_may_be_an_integer_of_any_width_or_a_whole_float() {
    for (count, expected) in [
        (&b"\x05"[..], 5),
        (b"\x1b\x00\x00\x00\x00\x00\x00\x00\x05", 5),
        (b"\xf9\x45\x00", 5),
        (b"\xfb\x40\x14\x00\x00\x00\x00\x00\x00", 5),
        (b"\xfb\x43\x40\x00\x00\x00\x00\x00\x00", 1 << 53),
        (b"\x1b\x00\x20\x00\x00\x00\x00\x00\x00", 1 << 53),
    ] {
        let frame = ephemeral_with_count(count);
        let envelope = decode_with_defaults(&frame).expect("a count");
        assert!(matches!(envelope.message, Body::Ephemeral { count, .. } if count == expected), "{count:02x?}");
    }
}

#[test]
fn a_count_that_javascript_could_not_hold_is_refused() {
    for (count, kind) in [
        (&b"\x20"[..], "frame_bad_number"),
        (b"\xf9\x7c\x00", "frame_bad_number"),
        (b"\xf9\x7e\x00", "frame_bad_number"),
        (b"\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00", "frame_bad_number"),
        (b"\x1b\x00\x20\x00\x00\x00\x00\x00\x01", "frame_bad_number"),
        (b"\x615", "frame_wrong_type"),
        (b"\xf7", "frame_missing_field"),
    ] {
        check_refused(&ephemeral_with_count(count), kind);
    }
}

#[test]
fn headers_are_as_short_as_they_can_be() {
    let widths = [(23, 1), (24, 2), (0xff, 2), (0x100, 3), (0xffff, 3), (0x1_0000, 5), (0xffff_ffff, 5)];
    for (number, width) in widths {
        let mut out = Vec::new();
        cbor::write_number(&mut out, number);
        assert_eq!(out.len(), width, "{number:#x}");
    }
}

#[test]
fn large_counts_are_sent_as_floats() {
    let mut out = Vec::new();
    cbor::write_number(&mut out, u64::from(u32::MAX));
    cbor::write_number(&mut out, 1 << 32);
    assert_eq!(out, b"\x1a\xff\xff\xff\xff\xfb\x41\xf0\x00\x00\x00\x00\x00\x00");
}

#[test]
fn undefined_null_and_missing_are_alike_where_optional() {
    for nothing in [&b"\xf6"[..], b"\xf7"] {
        let metadata = map(&[("storageId", nothing), ("isEphemeral", nothing), ("synclineVersion", nothing)]);
        for metadata in [nothing, &metadata] {
            let frame = map(&[
                ("type", b"\x64join"),
                ("senderId", b"\x61a"),
                ("targetId", nothing),
                ("peerMetadata", metadata),
                ("supportedProtocolVersions", nothing),
            ]);
            let envelope = decode_with_defaults(&frame).expect("a join");
            let message = Body::Join { metadata: PeerMetadata::default(), versions: None };
            assert_eq!(envelope, Envelope { sender: "a", target: None, message });
        }
    }
}

#[test]
fn metadata_is_also_found_under_the_name_in_the_protocols_prose() {
    let metadata = map(&[("isEphemeral", b"\xf5")]);
    let frame = map(&[("type", b"\x64join"), ("senderId", b"\x61a"), ("metadata", &metadata)]);
    let Ok(Envelope { message: Body::Join { metadata, .. }, .. }) = decode_with_defaults(&frame) else {
        panic!("a join")
    };
    assert!(metadata.is_ephemeral);
}

#[test]
fn a_native_version_of_an_unknown_form_is_no_native_version() {
    for (native, expected) in [(&b"\x07"[..], Some(7)), (b"\x1a\x00\x01\x00\x00", None), (b"\x617", None)] {
        let metadata = map(&[("synclineVersion", native)]);
        let frame = map(&[("type", b"\x64peer"), ("senderId", b"\x61a"), ("peerMetadata", &metadata)]);
        let Ok(Envelope { message: Body::Peer { metadata, .. }, .. }) = decode_with_defaults(&frame) else {
            panic!("a peer frame")
        };
        assert_eq!(metadata.native, expected);
    }
}

#[test]
fn an_empty_storage_id_is_none_and_a_long_one_is_refused() {
    let join = |storage: &str| {
        let metadata = map(&[("storageId", &text(storage))]);
        map(&[("type", b"\x64join"), ("senderId", b"\x61a"), ("peerMetadata", &metadata)])
    };
    let frame = join("");
    let message = Body::Join { metadata: PeerMetadata::default(), versions: None };
    assert_eq!(decode_with_defaults(&frame).map(|envelope| envelope.message), Ok(message));
    check_refused(&join(&"s".repeat(PEER_ID_BYTES_MAX + 1)), "frame_bad_id");
}

#[test]
fn remote_heads_need_a_finite_time_and_whole_hashes() {
    let hash = text(&crate::id::encode_base58_check(&[1; 32]));
    let with = |hash: &[u8], timestamp: &[u8]| {
        let remote = map(&[("heads", &[b"\x81", hash].concat()), ("timestamp", timestamp)]);
        map(&[
            ("type", &text("remote-heads-changed")),
            ("senderId", b"\x61a"),
            ("documentId", &text(DOCUMENT_TEXT)),
            ("newHeads", &map(&[("store", &remote)])),
        ])
    };
    let frame = with(&hash, b"\x1b\x00\x00\x01\x9a\xb6\x97\xe8\x7b");
    let Ok(Envelope { message: Body::RemoteHeadsChanged { heads, .. }, .. }) = decode_with_defaults(&frame) else {
        panic!("remote heads")
    };
    assert_eq!(heads[0].timestamp_ms, f64::from(0x19a) * f64::exp2(32.0) + f64::from(0xb697_e87b_u32));
    check_refused(&with(&hash, b"\xf9\x7e\x00"), "frame_bad_number");
    check_refused(&with(&hash, b"\xf9\x7c\x00"), "frame_bad_number");
    check_refused(&with(&hash, b"\xf7"), "frame_missing_field");
    check_refused(&with(&text(DOCUMENT_TEXT), b"\x01"), "frame_bad_id");
    check_refused(&with(b"\x01", b"\x01"), "frame_wrong_type");
}

#[test]
fn fields_of_other_kinds_are_not_judged() {
    let frame = map(&[("type", b"\x65leave"), ("senderId", b"\x61a"), ("data", b"\x01"), ("documentId", b"\x80")]);
    assert_eq!(decode_with_defaults(&frame).map(|envelope| envelope.message), Ok(Body::Leave));
}

#[test]
fn what_one_message_lacks_does_not_concern_the_connection() {
    let sync = ("type", &b"\x64sync"[..]);
    let (sender, data, document) = (("senderId", &b"\x61a"[..]), ("data", &b"\x40"[..]), text(DOCUMENT_TEXT));
    let long = text(&"n".repeat(PEER_ID_BYTES_MAX + 1));
    for (fields, kind) in [
        (vec![sync, data, ("documentId", &document)], "frame_missing_field"),
        (vec![sync, sender, ("documentId", &document)], "frame_missing_field"),
        (vec![sync, sender, data], "frame_missing_field"),
        (vec![sync, sender, data, ("documentId", b"\x614")], "frame_bad_id"),
        (vec![sync, sender, ("data", b"\x61d"), ("documentId", &document)], "frame_wrong_type"),
        (vec![sync, ("senderId", &long), data, ("documentId", &document)], "frame_name_too_long"),
        (vec![sender], "frame_missing_field"),
        (vec![("type", b"\x01"), sender], "frame_wrong_type"),
    ] {
        let frame = map(&fields);
        let error = decode_with_defaults(&frame).expect_err(kind);
        assert_eq!(error.kind(), kind);
        assert!(error.concerns_message_only());
    }
    let error = decode_with_defaults(&Bytes::from_static(b"\xf6")).expect_err("not a frame");
    assert!(!error.concerns_message_only());
}

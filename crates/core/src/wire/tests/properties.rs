//! Properties of all frames: round trips, foreign encodings, arbitrary and mutilated bytes.
//!
//! Owns: the generator of frames, and the rewriting of a frame in another peer's style.
//! Must not: repeat single cases that `../tests.rs` spells out.
//! Next: `golden.rs`.

use minicbor::Decoder;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

/// What a frame is made of. A body borrows from it, so the generator makes these.
#[derive(Debug, Clone)]
struct Parts {
    kind: u8,
    sender: String,
    target: Option<String>,
    text: String,
    texts: Option<Vec<String>>,
    document: DocumentId,
    data: Vec<u8>,
    count: u64,
    metadata: PeerMetadata,
    ids: Vec<StorageId>,
    heads: Vec<RemoteHeads>,
}

impl Parts {
    fn envelope(&self) -> Envelope<'_> {
        Envelope { sender: &self.sender, target: self.target.as_deref(), message: self.body() }
    }

    fn body(&self) -> Body<'_> {
        let (document, metadata) = (self.document.clone(), self.metadata.clone());
        let data = Bytes::copy_from_slice(&self.data);
        match self.kind {
            0 => {
                let texts = self.texts.as_ref().map(|texts| texts.iter().map(String::as_str).collect());
                Body::Join { metadata, versions: texts }
            }
            1 => Body::Peer { metadata, selected_version: self.target.as_deref() },
            2 => Body::Error { message: &self.text },
            3 => Body::Leave,
            4 => Body::Request { document, data },
            5 => Body::Sync { document, data },
            6 => Body::DocUnavailable { document },
            7 => Body::Ephemeral { document, count: self.count, session: &self.text, data },
            8 => {
                let (add, remove) = self.ids.split_at(self.ids.len() / 3);
                Body::RemoteSubscriptionChange { add: add.to_vec(), remove: remove.to_vec() }
            }
            9 => Body::RemoteHeadsChanged { document, heads: self.heads.clone() },
            _ => Body::Unknown { kind: "a kind of the future" },
        }
    }
}

fn storage_id() -> impl Strategy<Value = StorageId> {
    ".{1,40}".prop_map(|text| StorageId::new(&text).expect("neither empty nor long"))
}

fn metadata() -> impl Strategy<Value = PeerMetadata> {
    (option::of(storage_id()), any::<bool>(), any::<Option<u16>>())
        .prop_map(|(storage_id, is_ephemeral, native)| PeerMetadata { storage_id, is_ephemeral, native, token: None })
}

fn remote_heads() -> impl Strategy<Value = Vec<RemoteHeads>> {
    let head = any::<[u8; 32]>().prop_map(ChangeHash);
    let timestamp = prop_oneof![proptest::num::f64::NORMAL, (0..1u64 << 42).prop_map(|ms| ms as f64)];
    (btree_set(storage_id(), 0..4), vec(vec(head, 0..3), 4), vec(timestamp, 4)).prop_map(|(ids, heads, timestamps)| {
        let stores = ids.into_iter().zip(heads).zip(timestamps);
        stores.map(|((storage_id, heads), timestamp_ms)| RemoteHeads { storage_id, heads, timestamp_ms }).collect()
    })
}

fn parts() -> impl Strategy<Value = Parts> {
    let document = vec(any::<u8>(), 0..40).prop_map(|bytes| DocumentId::from_bytes(&bytes).expect("short enough"));
    let names = (".{0,60}", option::of(".{0,60}"), ".{0,60}", option::of(vec(".{0,5}", 0..4)));
    let values = (document, vec(any::<u8>(), 0..400), (0..=53u32, any::<u64>()), metadata());
    (0..11u8, names, values, vec(storage_id(), 0..6), remote_heads()).prop_map(
        |(kind, (sender, target, text, texts), (document, data, (bits, count), metadata), ids, heads)| Parts {
            kind,
            sender,
            target,
            text,
            texts,
            document,
            data,
            count: count.checked_shr(64 - bits).unwrap_or(0),
            metadata,
            ids,
            heads,
        },
    )
}

/// Writes a frame again in the style of some other encoder: wide headers, open maps and lists, tagged byte strings,
/// another order of fields, fields that nobody knows. Each whim decides one of these.
struct Restyle<'w> {
    whims: std::iter::Cycle<std::slice::Iter<'w, u8>>,
    out: Vec<u8>,
}

impl Restyle<'_> {
    fn frame(frame: &[u8], whims: &[u8]) -> Bytes {
        let mut style = Restyle { whims: whims.iter().cycle(), out: Vec::new() };
        let mut decoder = Decoder::new(frame);
        let count = decoder.map().expect("a map").expect("of known length");
        let mut fields: Vec<Bytes> = (0..count).map(|_| style.pair(&mut decoder)).collect();
        fields.push(Bytes::from_static(b"\x66future\x9f\xa1\x01\xf7\xc1\xbf\xff\xf8\x20\xfb\x7f\xf8\0\0\0\0\0\0\xff"));
        fields.push(Bytes::from_static(b"\x60\xf6"));
        let rotation = usize::from(style.whim()) % fields.len();
        fields.rotate_left(rotation);
        let open = style.open(5, fields.len());
        style.out.extend(fields.concat());
        style.close(open);
        Bytes::from(style.out)
    }

    fn whim(&mut self) -> u8 {
        *self.whims.next().expect("endless")
    }

    fn pair(&mut self, decoder: &mut Decoder<'_>) -> Bytes {
        let before = std::mem::take(&mut self.out);
        self.value(decoder);
        self.value(decoder);
        Bytes::from(std::mem::replace(&mut self.out, before))
    }

    fn value(&mut self, decoder: &mut Decoder<'_>) {
        let start = decoder.position();
        match decoder.input()[start] >> 5 {
            0 => {
                let number = decoder.u64().expect("our own frame");
                self.header(0, number);
            }
            2 => {
                let bytes = decoder.bytes().expect("our own frame");
                if self.whim().is_multiple_of(2) {
                    self.header(6, 64);
                }
                self.header(2, bytes.len() as u64);
                self.out.extend_from_slice(bytes);
            }
            3 => {
                let text = decoder.str().expect("our own frame");
                self.header(3, text.len() as u64);
                self.out.extend_from_slice(text.as_bytes());
            }
            4 => {
                let count = decoder.array().expect("our own frame").expect("of known length");
                let open = self.open(4, count as usize);
                (0..count).for_each(|_| self.value(decoder));
                self.close(open);
            }
            5 => {
                let count = decoder.map().expect("our own frame").expect("of known length");
                let open = self.open(5, count as usize);
                (0..count * 2).for_each(|_| self.value(decoder));
                self.close(open);
            }
            _ => {
                decoder.skip().expect("our own frame");
                self.out.extend_from_slice(&decoder.input()[start..decoder.position()]);
            }
        }
    }

    fn header(&mut self, major: u8, value: u64) {
        let width = [0, 1, 2, 4, 8][usize::from(self.whim() % 5)];
        let bytes = value.to_be_bytes();
        match width {
            1 if value < 1 << 8 => self.out.extend([major << 5 | 24, bytes[7]]),
            2 if value < 1 << 16 => self.out.extend([&[major << 5 | 25], &bytes[6..]].concat()),
            4 if value < 1 << 32 => self.out.extend([&[major << 5 | 26], &bytes[4..]].concat()),
            0 if value < 24 => self.out.push(major << 5 | bytes[7]),
            _ => self.out.extend([&[major << 5 | 27], &bytes[..]].concat()),
        }
    }

    fn open(&mut self, major: u8, count: usize) -> bool {
        let open = self.whim().is_multiple_of(2);
        if open {
            self.out.push(major << 5 | 31)
        } else {
            self.header(major, count as u64)
        }
        open
    }

    fn close(&mut self, open: bool) {
        if open {
            self.out.push(0xff);
        }
    }
}

proptest! {
    #[test]
    fn frames_survive_their_bytes(parts in parts()) {
        let envelope = parts.envelope();
        let frame = encoded(&envelope);
        prop_assert_eq!(decode_with_defaults(&frame), Ok(envelope));
    }

    #[test]
    fn the_style_of_another_encoder_does_not_matter(parts in parts(), whims in vec(any::<u8>(), 1..20)) {
        let envelope = parts.envelope();
        let frame = Restyle::frame(&encoded(&envelope), &whims);
        prop_assert_eq!(decode_with_defaults(&frame), Ok(envelope), "{:02x?}", frame);
    }

    #[test]
    fn a_cut_frame_is_refused_as_cut(parts in parts(), cut in any::<proptest::sample::Index>()) {
        let mut frame = encoded(&parts.envelope());
        frame.truncate(cut.index(frame.len()));
        prop_assert_eq!(decode_with_defaults(&frame), Err(WireError::Truncated));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), with_map: bool) {
        let mut bytes = bytes;
        if with_map {
            bytes.insert(0, 0xbf);
        }
        check_no_panic(&Bytes::from(bytes));
    }
}

/// Reads a frame; what is accepted must also be writable, and readable again as the same.
fn check_no_panic(frame: &Bytes) {
    if let Ok(envelope) = decode_with_defaults(frame) {
        assert_eq!(decode_with_defaults(&encoded(&envelope)).as_ref(), Ok(&envelope), "{frame:02x?}");
    }
}

#[test]
fn every_truncation_of_the_golden_frames_is_refused() {
    for (name, frame) in golden::frames() {
        for length in 0..frame.len() {
            assert_eq!(decode_with_defaults(&frame.slice(..length)), Err(WireError::Truncated), "{name} to {length}");
        }
    }
}

#[test]
fn no_flipped_bit_of_the_golden_frames_panics() {
    for (_, frame) in golden::frames() {
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check_no_panic(&Bytes::from(flipped));
        }
    }
}

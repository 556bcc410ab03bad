//! Everything a stranger can send, while an honest pair works beside it.
//!
//! Owns: the promise that one bad peer, document or message takes down nothing else and is told why.
//! Must not: accept silence: each offence shows in `/metrics`, and its reason names the cause.
//! Next: `lifecycle.rs`; `../src/forge.rs`.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ObjType, ROOT};
use serde_json::json;
use syncline_e2e::{
    BloomFilter, DataDirectory, Frame, HonestPair, HonestPeer, RawPeer, Server, SyncMessage, chunk, compressed_chunk,
    forged_change, run_length_bomb,
};

const MIB: u64 = 1024 * 1024;

/// The most memory that a server of small documents may ever have had, whatever it was sent.
const MEMORY_PEAK_BYTES_MAX: u64 = 256 * MIB;

/// A server with an honest pair at work.
struct Scene {
    server: Server,
    pair: HonestPair,
    _data: DataDirectory,
}

impl Scene {
    fn start() -> Self {
        let data = DataDirectory::new();
        // A small limit makes an oversize message cheap to send.
        let server = Server::start_with(data.path(), &["--message-mib-max", "4"]);
        let pair = HonestPair::start(server.address());
        Self { server, pair, _data: data }
    }

    /// Sends what `attack` sends and expects it refused for a reason that contains `cause`, the others undisturbed.
    fn refuses(&mut self, cause: &str, attack: impl FnOnce(&mut RawPeer)) -> bool {
        let mut attacker = RawPeer::join(self.server.address(), "mallory");
        self.refuses_from(&mut attacker, cause, attack)
    }

    /// As [`Scene::refuses`], over a connection that is already open. Returns whether it still is.
    fn refuses_from(&mut self, attacker: &mut RawPeer, cause: &str, attack: impl FnOnce(&mut RawPeer)) -> bool {
        let (before, _) = self.server.refused();
        attack(attacker);
        let aftermath = attacker.aftermath();
        let reasons = self.server.until_refused(before);
        assert!(reasons.iter().any(|reason| reason.contains(cause)), "{cause} is not among {reasons:?}");
        for told in &aftermath.told {
            assert!(told.len() > 10, "an error says what is wrong: {told:?}");
        }
        if !aftermath.open {
            assert!(!aftermath.told.is_empty(), "whoever is cut off is told why ({cause})");
        }
        self.go_on();
        aftermath.open
    }

    fn go_on(&mut self) {
        self.pair.still_syncs();
        assert_eq!(self.server.http("/health").status, 200);
        let peak = self.server.memory_peak_bytes();
        assert!(peak < MEMORY_PEAK_BYTES_MAX, "the server has had {} MiB", peak / MIB);
    }
}

/// A document with one author, one subscriber, and whoever forges changes to it.
struct Target {
    id: String,
    author: HonestPeer,
    victim: HonestPeer,
    rounds: i64,
}

impl Target {
    fn start(scene: &Scene) -> Self {
        let id = HonestPeer::fresh_document_id();
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "honest", 0).expect("the root accepts any key");
        doc.commit();
        doc.put(ROOT, "second", 0).expect("the root accepts any key");
        doc.commit();
        let mut author = HonestPeer::join(scene.server.address(), "author", &id, doc);
        author.until_acknowledged();
        let mut victim = HonestPeer::join(scene.server.address(), "victim", &id, AutoCommit::new());
        victim.until("second", 0);
        Self { id, author, victim, rounds: 0 }
    }

    fn heads(&mut self) -> Vec<ChangeHash> {
        self.author.doc().get_heads()
    }

    fn author_actor(&mut self) -> String {
        self.author.doc().get_actor().to_hex_string()
    }

    /// The document works on for both, and the subscriber never got `poison`.
    fn unharmed_by(&mut self, poison: &ChangeHash) {
        self.rounds += 1;
        self.author.put("honest", self.rounds);
        self.victim.until("honest", self.rounds);
        assert!(!self.victim.has(poison), "a refused change is not passed on");
        assert!(!self.author.has(poison), "a refused change is not passed on");
    }

    /// A newcomer gets the document without `poison`.
    fn is_whole_for_a_newcomer(&mut self, scene: &Scene, poison: &ChangeHash) {
        let mut newcomer = HonestPeer::join(scene.server.address(), "newcomer", &self.id, AutoCommit::new());
        newcomer.until("honest", self.rounds);
        assert!(!newcomer.has(poison), "a refused change is not stored");
    }
}

/// Sends forged chunks to a document and expects them refused alone: the connection and the document go on.
fn check_refused_change(cause: &str, forge: impl FnOnce(&mut Target) -> (ChangeHash, Vec<u8>)) {
    let mut scene = Scene::start();
    let mut target = Target::start(&scene);
    let (hash, bytes) = forge(&mut target);
    let open = scene.refuses(cause, |attacker| bring(attacker, &target.id, hash, vec![bytes]));
    assert!(open, "one bad change does not cost the connection");
    target.unharmed_by(&hash);
    target.is_whole_for_a_newcomer(&scene, &hash);
}

/// Sends a sync message with these chunks.
fn bring(attacker: &mut RawPeer, document: &str, head: ChangeHash, chunks: Vec<Vec<u8>>) {
    let message = SyncMessage::bringing(&[head], chunks).encode();
    let frame = attacker.about("sync", document).bytes("data", &message);
    attacker.send(&frame);
}

/// Sends a sync message with these bytes about a document that has content.
fn check_refused_message(cause: &str, message: Vec<u8>) {
    let mut scene = Scene::start();
    let mut target = Target::start(&scene);
    scene.refuses(cause, |attacker| {
        let frame = attacker.about("sync", &target.id).bytes("data", &message);
        attacker.send(&frame);
    });
    target.unharmed_by(&ChangeHash([0; 32]));
}

#[test]
fn frames_that_are_no_frames_are_refused() {
    let mut scene = Scene::start();
    let nested = vec![0x81; 100_000];
    for (cause, bytes) in [
        ("frame", vec![]),
        ("frame_not_a_map", vec![0xf6]),
        ("frame_not_a_map", vec![0x80]),
        ("frame", vec![0xff, 0xff, 0xff]),
        ("frame_truncated", vec![0xb9, 0x00]),
        ("frame_trailing", [Frame::new("leave-nothing").encode(), vec![0]].concat()),
        ("frame_duplicate_key", b"\xa2\x64type\x65leave\x64type\x64sync".to_vec()),
        ("frame", nested),
    ] {
        scene.refuses(cause, |attacker| attacker.send_bytes(bytes));
    }
    scene.refuses("frame_text", |attacker| attacker.send_text("{\"type\":\"join\"}"));
}

#[test]
fn a_lone_null_before_the_join_harms_nobody() {
    let mut scene = Scene::start();
    let (before, _) = scene.server.refused();
    let mut stranger = RawPeer::connect(scene.server.address());
    stranger.send_bytes(vec![0xf6]);
    assert!(!stranger.until_closed().is_empty(), "the stranger is told why");
    scene.server.until_refused(before);
    scene.go_on();
}

#[test]
fn speaking_before_the_join_is_refused() {
    let mut scene = Scene::start();
    let (before, _) = scene.server.refused();
    let mut stranger = RawPeer::connect(scene.server.address());
    let document = HonestPeer::fresh_document_id();
    let request = stranger.about("request", &document).bytes("data", &SyncMessage::bringing(&[], vec![]).encode());
    stranger.send(&request);
    let told = stranger.until_closed().join(" ");
    assert!(told.contains("join"), "the reason names the join: {told:?}");
    scene.server.until_refused(before);

    let (before, _) = scene.server.refused();
    let mut stranger = RawPeer::connect(scene.server.address());
    stranger.send(&Frame::join("a".repeat(64 * 1024).as_str()));
    stranger.until_closed();
    let reasons = scene.server.until_refused(before);
    assert!(reasons.iter().any(|reason| reason.contains("too_large")), "{reasons:?}");
    scene.go_on();
}

#[test]
fn bytes_that_are_no_websocket_end_only_their_own_connection() {
    let mut scene = Scene::start();
    let mut stranger = RawPeer::join(scene.server.address(), "mallory");
    stranger.send_unframed(&[0xff; 4096]);
    stranger.until_closed();
    scene.go_on();
}

#[test]
fn a_frame_over_the_limit_is_refused() {
    let mut scene = Scene::start();
    let open = scene.refuses("frame_too_large", |attacker| attacker.send_bytes(vec![0x42; 5 * MIB as usize]));
    assert!(!open);
}

#[test]
fn a_message_over_the_limit_in_small_frames_is_refused() {
    let mut scene = Scene::start();
    let open = scene.refuses("frame_too_large", |attacker| {
        for piece in 0..80 {
            attacker.send_piece(vec![0x42; 64 * 1024], piece == 0, false);
        }
    });
    assert!(!open);
}

#[test]
fn lengths_that_cannot_be_true_are_refused_before_memory_is_reserved() {
    let mut scene = Scene::start();
    let huge = [0xff; 8];
    for bytes in [
        // A map, an array in a map, a byte string and a text of 2^64 - 1 each.
        [&[0xbb][..], &huge].concat(),
        [&[0xa1, 0x64][..], b"type", &[0x9b], &huge].concat(),
        [&[0xa1, 0x64][..], b"data", &[0x5b], &huge].concat(),
        [&[0xa1, 0x64][..], b"type", &[0x7b], &huge].concat(),
    ] {
        scene.refuses("frame", |attacker| attacker.send_bytes(bytes));
    }
}

#[test]
fn counts_in_a_sync_message_that_cannot_be_true_are_refused() {
    let forged = SyncMessage { claimed_changes: Some(1 << 40), ..SyncMessage::bringing(&[], vec![]) };
    check_refused_message("message", forged.encode());
    // 2^40 heads.
    check_refused_message("message", vec![0x42, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
    check_refused_message("message", b"no sync message at all".to_vec());
}

#[test]
fn a_bloom_filter_with_zero_bits_per_entry_is_refused() {
    let bloom = BloomFilter { entries: 1, bits_per_entry: 0, probes: 7, bits: vec![] };
    check_refused_message("bloom", SyncMessage { have: Some(bloom), ..SyncMessage::default() }.encode());
}

#[test]
fn a_bloom_filter_with_a_quarter_of_a_billion_probes_is_refused() {
    let bloom = BloomFilter { entries: 1, bits_per_entry: 10, probes: 1 << 28, bits: vec![0xff; 2] };
    check_refused_message("bloom", SyncMessage { have: Some(bloom), ..SyncMessage::default() }.encode());
}

#[test]
fn a_deflate_bomb_is_refused() {
    check_refused_change("inflate", |_| {
        let bomb = compressed_chunk(&vec![0; 300 * MIB as usize]);
        assert!(bomb.len() < MIB as usize, "it is small on the wire");
        (ChangeHash([1; 32]), bomb)
    });
}

#[test]
fn a_run_length_bomb_is_refused() {
    check_refused_change("operations", |_| {
        let (hash, bomb) = run_length_bomb(10_000_000);
        assert!(bomb.len() < 100, "it is small on the wire");
        (hash, bomb)
    });
}

#[test]
fn a_document_that_does_not_decode_is_refused() {
    check_refused_change("document", |_| (ChangeHash([2; 32]), chunk(0, b"\x00\x00 anything but columns \xff\xff")));
}

#[test]
fn a_damaged_document_is_refused() {
    check_refused_change("document", |target| {
        let saved = target.author.doc().save();
        let heads = target.author.doc().get_heads();
        // The chunk's body starts after magic, checksum, type and a length of one or two bytes; flip a bit near its
        // end, where the columns are, and mend the checksum.
        let start = if saved[9] & 0x80 == 0 { 10 } else { 11 };
        let mut body = saved[start..].to_vec();
        let place = body.len() - 5;
        body[place] ^= 0x10;
        assert_ne!(chunk(0, &body), saved);
        (ChangeHash([heads[0].0[0] ^ 1; 32]), chunk(0, &body))
    });
}

/// Some of these pass as other documents, most do not load, and a tenth of them stop automerge's loader.
#[test]
fn documents_with_one_bit_flipped_harm_nobody() {
    let mut scene = Scene::start();
    let mut target = Target::start(&scene);
    let mut document = AutoCommit::new();
    for round in 0..6 {
        let text = document.put_object(ROOT, format!("text {round}"), ObjType::Text).expect("the root accepts any key");
        document.splice_text(&text, 0, 0, "hello").expect("in range");
        document.splice_text(&text, 1, 2, "").expect("in range");
        document.commit();
    }
    let saved = document.save();
    let start = if saved[9] & 0x80 == 0 { 10 } else { 11 };
    let mut attacker = RawPeer::join(scene.server.address(), "mallory");
    let (before, _) = scene.server.refused();
    for bit in (0..(saved.len() - start) * 8).step_by(7) {
        let mut body = saved[start..].to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        let id = HonestPeer::fresh_document_id();
        bring(&mut attacker, &id, ChangeHash([3; 32]), vec![chunk(0, &body)]);
        assert!(attacker.aftermath().open, "one bad document does not cost the connection");
    }
    let reasons = scene.server.until_refused(before);
    assert!(reasons.iter().any(|reason| reason.contains("document")), "{reasons:?}");
    scene.go_on();
    target.unharmed_by(&ChangeHash([3; 32]));
}

#[test]
fn a_change_with_a_sequence_gap_is_refused() {
    check_refused_change("sequence_gap", |target| {
        let heads = target.heads();
        let put = json!([{ "action": "set", "obj": "_root", "key": "gap", "value": 1, "pred": [] }]);
        let change = forged_change("aa", 5, 10, &heads, &put);
        (change.hash(), change.raw_bytes().to_vec())
    });
}

#[test]
fn a_change_that_reuses_operation_ids_is_refused() {
    check_refused_change("reused_operations", |target| {
        let (heads, actor) = (target.heads(), target.author_actor());
        let put = json!([{ "action": "set", "obj": "_root", "key": "again", "value": 1, "pred": [] }]);
        let change = forged_change(&actor, 3, 1, &heads, &put);
        (change.hash(), change.raw_bytes().to_vec())
    });
}

#[test]
fn a_change_to_an_object_that_nobody_made_is_refused() {
    // Of an author whom nobody knows, and of the known author but an operation of his that does not exist.
    let strangers = |_: &mut Target| "1@bbbb".to_owned();
    let authors = |target: &mut Target| format!("7@{}", target.author_actor());
    check_refused_change("change_unknown", |target| put_into(target, strangers));
    check_refused_change("change", |target| put_into(target, authors));
}

#[test]
fn a_change_to_an_object_that_is_a_number_is_refused() {
    // Operation 1 of the author wrote a number, which has no members.
    check_refused_change("change_mistaken", |target| put_into(target, |target| format!("1@{}", target.author_actor())));
}

#[test]
fn a_letter_behind_what_is_no_letter_of_its_text_is_refused() {
    check_refused_change("change_mistaken", |target| {
        let actor = target.author_actor();
        let text = target.author.doc().put_object(ROOT, "text", ObjType::Text).expect("the root accepts any key");
        target.author.doc().splice_text(&text, 0, 0, "ab").expect("in range");
        target.author.put("lettered", 1);
        target.victim.until("lettered", 1);
        // Operation 3 made the text, 4 and 5 are its letters; operation 1 is a number beside it.
        let heads = target.heads();
        let letter = json!([{ "action": "set", "obj": format!("3@{actor}"), "elemId": format!("1@{actor}"),
                              "insert": true, "value": "x", "pred": [] }]);
        let change = forged_change("aa", 1, 10, &heads, &letter);
        (change.hash(), change.raw_bytes().to_vec())
    });
}

/// A change, well-formed but for the object that it writes to.
fn put_into(target: &mut Target, object: impl Fn(&mut Target) -> String) -> (ChangeHash, Vec<u8>) {
    let (heads, object) = (target.heads(), object(target));
    let put = json!([{ "action": "set", "obj": object, "key": "x", "value": 1, "pred": [] }]);
    let change = forged_change("aa", 1, 3, &heads, &put);
    (change.hash(), change.raw_bytes().to_vec())
}

#[test]
fn of_two_changes_with_one_sequence_number_the_durable_one_stands() {
    check_refused_change("duplicate_sequence", |target| {
        let actor = target.author_actor();
        let first = target.author.doc().get_changes(&[])[0].hash();
        let put = json!([{ "action": "set", "obj": "_root", "key": "other content", "value": 1, "pred": [] }]);
        let change = forged_change(&actor, 2, 2, &[first], &put);
        (change.hash(), change.raw_bytes().to_vec())
    });
}

#[test]
fn orphans_without_end_are_refused() {
    let mut scene = Scene::start();
    let mut target = Target::start(&scene);
    let orphans: Vec<_> = (0..2_000_u64)
        .map(|number| {
            let parent = ChangeHash([(number % 251) as u8; 32]);
            let put = json!([{ "action": "set", "obj": "_root", "key": "x", "value": 1, "pred": [] }]);
            forged_change(&format!("{number:08x}"), 1, 1_000, &[parent], &put)
        })
        .collect();
    let first = orphans[0].hash();
    scene.refuses("orphan", |attacker| {
        for orphans in orphans.chunks(100) {
            let bytes = orphans.iter().map(|orphan| orphan.raw_bytes().to_vec()).collect();
            bring(attacker, &target.id, orphans[0].hash(), bytes);
        }
    });
    target.unharmed_by(&first);
}

#[test]
fn an_orphan_in_a_victims_name_does_not_mute_the_victim() {
    let scene = Scene::start();
    let mut target = Target::start(&scene);
    let actor = target.author_actor();
    let put = json!([{ "action": "set", "obj": "_root", "key": "x", "value": 1, "pred": [] }]);
    // The author's next sequence number, on a dependency that nobody has.
    let orphan = forged_change(&actor, 3, 3, &[ChangeHash([9; 32])], &put);
    let mut attacker = RawPeer::join(scene.server.address(), "mallory");
    bring(&mut attacker, &target.id, orphan.hash(), vec![orphan.raw_bytes().to_vec()]);
    assert!(attacker.aftermath().open);
    target.unharmed_by(&orphan.hash());
    target.is_whole_for_a_newcomer(&scene, &orphan.hash());
}

#[test]
fn a_peer_that_never_reads_costs_the_others_nothing() {
    let mut scene = Scene::start();
    let mut target = Target::start(&scene);
    let sleepers: Vec<_> = (0..8)
        .map(|number| {
            let mut sleeper = RawPeer::join(scene.server.address(), &format!("sleeper-{number}"));
            let ask = sleeper.about("request", &target.id).bytes("data", &SyncMessage::bringing(&[], vec![]).encode());
            sleeper.send(&ask);
            sleeper
        })
        .collect();
    // Far more than their sockets and queues hold.
    for round in 1..=40_i64 {
        let noise: Vec<u8> = (0..512 * 1024).map(|_| rand::random()).collect();
        target.author.doc().put(ROOT, "noise", noise).expect("the root accepts any key");
        target.author.put("round", round);
        target.victim.until("round", round);
    }
    scene.go_on();
    drop(sleepers);
}

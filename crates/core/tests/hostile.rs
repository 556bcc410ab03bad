//! Changes and documents that nobody honest writes.
//!
//! Owns: one refusal for each rule, and proof that what passes harms no document. Must not: need another peer.
//! Next: `support/forge.rs`, `gatekeeper.rs`.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge};
use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::authors;
use support::forge::{self, Forged, Key, Row};
use syncline_core::change::{Change, ChangeError};
use syncline_core::chunk::Chunk;
use syncline_core::document::{expand, measure};
use syncline_core::limits::Limits;
use syncline_core::loader::InProcess;

const KEY: Key = Key::Property("key");

fn decode(bytes: impl Into<Bytes>) -> Result<Change, ChangeError> {
    Change::decode(bytes.into(), &Limits::default())
}

#[track_caller]
fn check_refused(forged: &Forged, kind: &str) {
    let error = decode(forged.bytes()).expect_err("a hostile change");
    assert_eq!(error.kind(), kind, "{error}");
}

#[track_caller]
fn check_rows(rows: &[Row], kind: &str) {
    let forged = forge::change().rows(rows);
    match kind {
        "accepted" => assert_eq!(decode(forged.bytes()).map(|change| change.operations), Ok(rows.len() as u64)),
        _ => check_refused(&forged, kind),
    }
}

#[test]
fn the_forge_makes_valid_changes_unless_told_otherwise() {
    let change = decode(forge::change().bytes()).expect("the plain forged change");
    assert_eq!((change.seq, change.start_op, change.operations, change.max_op()), (1, 1, 1, 1));
    assert_eq!(change.hash.0, forge::change().hash());
    assert_eq!(decode(forge::change().compressed()), Ok(change));
    let empty = decode(forge::change().rows(&[]).bytes()).expect("an empty change");
    assert_eq!((empty.operations, empty.max_op()), (0, 0));
}

#[test]
fn header_fields_out_of_range_are_refused() {
    let plain = forge::change;
    check_refused(&Forged { seq: 0, ..plain() }, "change_sequence_out_of_range");
    check_refused(&Forged { seq: 1 << 32, ..plain() }, "change_sequence_out_of_range");
    check_refused(&Forged { start_op: 0, ..plain() }, "change_start_out_of_range");
    check_refused(&Forged { start_op: u64::MAX, ..plain() }, "change_start_out_of_range");
    check_refused(&Forged { start_op: 20_000_000, ..plain() }, "change_start_out_of_range");
    check_refused(&Forged { time: i64::MIN, ..plain() }, "change_time_out_of_range");
    check_refused(&Forged { message: vec![0xff], ..plain() }, "change_not_utf8");
    check_refused(&Forged { deps: vec![[2; 32], [1; 32]], ..plain() }, "change_dependencies_unsorted");
    check_refused(&Forged { deps: vec![[1; 32], [1; 32]], ..plain() }, "change_dependencies_unsorted");
    check_refused(&Forged { actor: vec![1; 129], ..plain() }, "change_actor_too_long");
    check_refused(&Forged { others: vec![vec![2], vec![1]], ..plain() }, "change_actors_unsorted");
    check_refused(&Forged { others: vec![vec![2], vec![2]], ..plain() }, "change_actors_unsorted");
    check_refused(&Forged { others: vec![plain().actor], ..plain() }, "change_actors_unsorted");
    check_refused(&Forged { others: vec![vec![2]], ..plain() }, "change_actor_unused");
    check_refused(&Forged { seq: 2, extra: vec![1, 1, b'x'], ..plain() }, "change_author_not_first");
    let many = Limits { message_hashes_max: 1, ..Limits::default() };
    let two = Forged { deps: vec![[1; 32], [2; 32]], ..plain() };
    let error = Change::decode(two.bytes(), &many).expect_err("above the limit");
    assert_eq!(error.kind(), "change_too_many_dependencies");
}

#[test]
fn chunks_that_are_no_single_valid_change_are_refused() {
    let good = forge::change();
    let refused = |bytes: Vec<u8>, kind: &str| {
        let error = decode(bytes).expect_err("a hostile chunk");
        assert_eq!(error.kind(), kind, "{error}");
    };
    refused(Vec::new(), "chunk_truncated");
    refused(forge::chunk(forge::BUNDLE, &good.body()), "change_is_a_bundle");
    refused(forge::chunk(forge::DOCUMENT, &good.body()), "change_wrong_kind");
    refused([good.bytes(), good.bytes()].concat(), "change_trailing_bytes");
    refused([&good.compressed()[..], b"x"].concat(), "change_trailing_bytes");
    for position in 4..8 {
        for sound in [good.bytes(), good.compressed()] {
            let mut damaged = sound.to_vec();
            damaged[position] ^= 1;
            refused(damaged.clone(), "change_bad_checksum");
            assert!(Change::decode_stored(damaged.into()).is_err());
        }
    }
    let mut padded = good.body();
    padded[0] = 0x80;
    padded.insert(1, 0x00);
    refused(forge::chunk(forge::CHANGE, &padded), "change_bad_number");
}

#[test]
fn a_deflate_bomb_stays_within_its_bound() {
    let bomb = Forged { extra: vec![0; 20_000_000], ..forge::change() };
    let packed = bomb.compressed();
    assert!(packed.len() < 40_000, "{}", packed.len());
    assert_eq!(decode(packed).expect_err("a bomb").kind(), "chunk_inflates_too_large");
    assert!(decode(bomb.bytes()).is_ok(), "it is the inflation that is bounded");
}

#[test]
fn run_length_bombs_are_counted_before_they_are_expanded() {
    for count in [100_001, 1_000_000, 10_000_000, i64::MAX] {
        let bomb = forge::change()
            .column(21, &[forge::signed(count), forge::prefixed(b"k")].concat())
            .column(52, &forge::unsigned(count as u64))
            .column(66, &forge::repeat(count, 1))
            .column(86, &forge::repeat(count, 0))
            .column(87, &[])
            .column(112, &forge::repeat(count, 0));
        assert!(bomb.bytes().len() < 110);
        check_refused(&bomb, "change_too_many_operations");
        if count > i64::from(u32::MAX) {
            assert!(Change::decode_stored(bomb.bytes()).is_err());
        }
        // A bomb in any other column has more rows than there are operations.
        for spec in [1, 2, 17, 66, 86, 112] {
            assert!(decode(forge::change().column(spec, &forge::repeat(count, 0)).bytes()).is_err(), "{spec}");
        }
    }
    let predecessors = forge::change()
        .column(112, &forge::signed(-1))
        .column(112, &[forge::signed(-1), forge::unsigned(1 << 40)].concat())
        .column(113, &forge::repeat(1 << 40, 0))
        .column(115, &[forge::signed(1 << 40), forge::signed(1)].concat());
    check_refused(&predecessors, "change_too_many_predecessors");
    let sums = [forge::repeat(i64::MAX, 1), forge::repeat(i64::MAX, 3), forge::repeat(i64::MAX, 1)].concat();
    check_refused(&forge::change().column(66, &sums), "change_row_count");
}

#[test]
fn columns_must_be_known_ordered_and_canonical() {
    let plain = forge::change;
    check_refused(&plain().column(97, &[1, 1]), "change_unknown_column");
    check_refused(&plain().column(66 | 8, &forge::deflated(&[0x7f, 1])), "change_compressed_column");
    let mut swapped = plain();
    swapped.columns.reverse();
    check_refused(&swapped, "change_columns_unsorted");
    let mut repeated = plain();
    repeated.columns.push(repeated.columns[repeated.columns.len() - 1].clone());
    check_refused(&repeated, "change_columns_unsorted");
    let mut hollow = plain();
    hollow.columns.insert(0, (1, Vec::new()));
    check_refused(&hollow, "change_columns_unsorted");
    check_refused(&plain().column(66, &[1, 1]), "change_not_canonical");
    check_refused(&plain().column(1, &[0, 1]), "change_not_canonical");
    check_refused(&plain().column(148, &[1]), "change_not_canonical");
    check_refused(&plain().column(148, &[0, 1]), "change_impossible_operation");
    check_refused(&plain().column(52, &[]), "change_row_count");
    check_refused(&plain().column(86, &[]), "change_row_count");
    check_refused(&plain().column(112, &[]), "change_row_count");
    check_refused(&plain().column(66, &[]), "change_row_count");
    check_refused(&plain().column(87, &[1, 1]), "change_row_count");
    check_refused(&plain().column(87, &[0x80, 0]), "change_truncated");
    let long = forge::repeat(2, 1);
    for (spec, data) in [(52, &[2][..]), (86, &long), (112, &long), (17, &long), (1, &long)] {
        assert!(decode(plain().column(spec, data).bytes()).is_err(), "{spec}");
    }
}

#[test]
fn values_must_be_what_their_kind_says() {
    let put = |kind, bytes: &[u8]| [Row { value: (kind, bytes.to_vec()), ..Row::put(KEY) }];
    for kind in 0..3 {
        check_rows(&put(kind, &[]), "accepted");
        check_rows(&put(kind, &[0]), "change_not_canonical");
    }
    check_rows(&put(3, &[0x80, 0]), "change_bad_number");
    check_rows(&put(3, &[1, 1]), "change_not_canonical");
    check_rows(&put(4, &[]), "change_truncated");
    check_rows(&put(5, &[0; 8]), "accepted");
    check_rows(&put(5, &[0; 9]), "change_not_canonical");
    check_rows(&put(5, &[0; 7]), "change_truncated");
    check_rows(&put(6, "ä".as_bytes()), "accepted");
    check_rows(&put(6, &[0xc3]), "change_not_utf8");
    check_rows(&put(7, &[0xc3]), "accepted");
    check_rows(&put(8, &[0x7f]), "accepted");
    check_rows(&put(12, &[1, 2, 3]), "accepted");
}

#[test]
fn references_must_point_back_and_to_something_fitting() {
    let list = || Row::bare(2, Key::Property("list"));
    let map = || Row::bare(0, Key::Property("map"));
    let reference = "change_impossible_reference";
    check_rows(&[list(), Row::insert(Key::Head).within(1, 0)], "accepted");
    check_rows(&[map(), Row::put(KEY).within(1, 0)], "accepted");
    check_rows(&[Row::put(KEY).within(1, 0)], reference);
    check_rows(&[Row::put(KEY).within(2, 0), map()], reference);
    check_rows(&[Row::put(KEY), Row::put(KEY).within(1, 0)], reference);
    check_rows(&[map(), Row::put(KEY).within(0, 0)], reference);
    check_rows(&[map(), Row::put(KEY).within(1, 1)], "change_unknown_actor");
    check_rows(&[map(), Row::insert(Key::Head).within(1, 0)], "change_impossible_operation");
    check_rows(&[list(), Row::put(KEY).within(1, 0)], "change_impossible_operation");
    check_rows(&[Row::insert(Key::Head)], "change_impossible_operation");
    check_rows(&[list(), Row::put(Key::Head).within(1, 0)], "change_impossible_operation");
    check_rows(&[map(), Row { insert: true, ..Row::put(KEY) }], "change_impossible_operation");
    let mark = Row { action: 7, mark_name: Some("bold"), ..Row::insert(Key::Head) }.within(1, 0);
    check_rows(&[Row::bare(4, KEY), mark.clone()], "accepted");
    check_rows(&[list(), mark.clone()], "change_impossible_operation");
    check_rows(&[list(), Row::insert(Key::Head).within(1, 0), mark], "change_impossible_operation");
    check_rows(&[list(), Row::insert(Key::Element(1, 0)).within(1, 0)], reference);
    check_rows(&[list(), Row::insert(Key::Element(2, 0)).within(1, 0)], reference);
    let other_list = [list(), Row::insert(Key::Head).within(1, 0), Row::bare(2, Key::Property("b"))];
    let foreign = Row::insert(Key::Element(2, 0)).within(3, 0);
    check_rows(&[&other_list[..], &[foreign]].concat(), reference);
    check_rows(&[Row::put(KEY), Row::put(KEY).after(&[(1, 0)])], "accepted");
    check_rows(&[Row::put(KEY), Row::put(Key::Property("b")).after(&[(1, 0)])], reference);
    check_rows(&[Row::put(KEY), Row::put(KEY).after(&[(2, 0)])], reference);
    check_rows(&[Row::put(KEY), Row::put(KEY).after(&[(1, 0), (1, 0)])], "change_impossible_operation");
    let deleted = [Row::put(KEY), Row::bare(3, KEY).after(&[(1, 0)])];
    check_rows(&deleted, "accepted");
    check_rows(&[&deleted[..], &[Row::put(KEY).after(&[(2, 0)])]].concat(), reference);
    let wide = Forged { start_op: 5, ..forge::change() };
    let ahead = Forged { others: vec![vec![7]], ..wide.clone() };
    check_refused(&ahead.clone().rows(&[Row::put(KEY).after(&[(5, 1)])]), reference);
    check_refused(&ahead.clone().rows(&[Row::put(KEY), Row::put(KEY).after(&[(5, 1)])]), reference);
    let change =
        decode(ahead.clone().rows(&[Row::put(KEY).after(&[(3, 0), (4, 1)])]).bytes()).expect("earlier operations");
    assert_eq!(change.references.iter().map(|named| named.operations.first).collect::<Vec<_>>(), [4, 3]);
    // No other change has an element of a list that this one makes.
    check_refused(&wide.clone().rows(&[list(), Row::insert(Key::Element(3, 0)).within(5, 0)]), reference);
    check_refused(&ahead.rows(&[list(), Row::insert(Key::Element(3, 1)).within(5, 0)]), reference);
}

#[test]
fn operations_that_automerge_never_makes_are_refused() {
    let impossible = "change_impossible_operation";
    check_rows(&[Row { action: 8, ..Row::put(KEY) }], impossible);
    check_rows(&[Row::bare(6, KEY)], impossible);
    check_rows(&[Row::bare(3, KEY)], impossible);
    check_rows(&[Row { action: 0, ..Row::put(KEY) }], impossible);
    check_rows(&[Row { action: 5, value: (6, b"x".to_vec()), ..Row::put(KEY) }], impossible);
    check_rows(&[Row { mark_name: Some("bold"), ..Row::put(KEY) }], impossible);
    let text = Row::bare(4, Key::Property("text"));
    let letter = |key| Row { value: (6, b"x".to_vec()), ..Row::insert(key).within(1, 0) };
    let begin = |key| Row { action: 7, mark_name: Some("bold"), ..Row::insert(key).within(1, 0) };
    let end = |key| Row { action: 7, value: (0, vec![]), ..Row::insert(key).within(1, 0) };
    let spelled = [text, letter(Key::Head), letter(Key::Element(2, 0))];
    let marked = |marks: &[Row]| [&spelled[..], marks].concat();
    check_rows(&marked(&[begin(Key::Head), end(Key::Element(2, 0))]), "accepted");
    check_rows(&marked(&[begin(Key::Head), end(Key::Head)]), impossible);
    check_rows(&marked(&[end(Key::Element(2, 0)), begin(Key::Head)]), impossible);
    check_rows(&marked(&[Row { insert: false, ..begin(Key::Element(2, 0)) }]), impossible);
    check_rows(&marked(&[letter(Key::Head).after(&[(2, 0)])]), impossible);
}

#[test]
fn cut_and_flipped_changes_never_panic() {
    let mut document = authors::history(7, 12).pop().expect("a history has documents");
    let changes = document.get_changes(&[]);
    for change in changes.iter().filter(|change| change.raw_bytes().len() < 400) {
        let raw = change.raw_bytes();
        for length in 0..raw.len() {
            assert!(decode(raw[..length].to_vec()).is_err());
            assert!(Change::decode_stored(raw[..length].to_vec().into()).is_err());
        }
        for length in 0..forge::body(raw).len() {
            let cut = forge::chunk(forge::CHANGE, &forge::body(raw)[..length]);
            let (_, _) = (decode(cut.clone()), Change::decode_stored(cut.into()));
        }
        for bit in 0..forge::body(raw).len() * 8 {
            let flipped = forge::flipped(raw, bit);
            let result = decode(flipped.clone());
            assert!(!matches!(result, Err(ChangeError::LibraryPanicked | ChangeError::LibraryDisagrees { .. })));
            let _ = Change::decode_stored(flipped.into());
        }
    }
}

/// Applies a change without dependencies to an empty document, reads all of it, saves it and loads it again.
fn check_harmless(bytes: &Bytes) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let change = automerge::Change::try_from(&bytes[..]).expect("it was accepted");
        let mut document = Automerge::new();
        document.apply_changes([change.clone()]).expect("it was accepted");
        let _ = document.hydrate(None);
        assert_eq!(document.get_changes(&[])[0].raw_bytes(), &bytes[..], "it changes in a document");
        let loaded = Automerge::load(&document.save()).expect("the document can be loaded again");
        assert_eq!(loaded.get_heads(), [change.hash()]);
    }));
    if result.is_err() {
        let expanded = automerge::Change::try_from(&bytes[..]).map(|change| change.decode());
        panic!("an accepted change harms a document: {expanded:#?}");
    }
}

#[test]
fn whatever_passes_harms_no_document() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut accepted = 0;
    for _ in 0..150_000 {
        let count = random.random_range(1..6);
        let rows: Vec<_> = (1..=count).map(|counter| random_row(counter, &mut random)).collect();
        let bytes = forge::change().rows(&rows).bytes();
        if decode(bytes.clone()).is_ok() {
            accepted += 1;
            check_harmless(&bytes);
        }
    }
    assert!(accepted > 2_000, "only {accepted} random changes passed");
}

/// An operation that is often wrong, and sometimes right.
fn random_row(counter: u64, random: &mut ChaCha8Rng) -> Row {
    let sometimes = |random: &mut ChaCha8Rng, chance| random.random_bool(chance);
    let earlier = |random: &mut ChaCha8Rng| (random.random_range(1..counter.max(2)), 0);
    let key = match random.random_range(0..4) {
        0 | 1 => [KEY, Key::Property("b")][random.random_range(0..2)].clone(),
        2 => Key::Head,
        _ => Key::Element(earlier(random).0, 0),
    };
    let action = [0, 1, 1, 1, 2, 3, 4, 4, 5, 7][random.random_range(0..10)];
    let valued = action == 1 || action == 5 || (action == 7 && sometimes(random, 0.5));
    let mut row = if valued { Row { action, ..Row::put(key) } } else { Row::bare(action, key) };
    if valued && sometimes(random, 0.3) {
        row.value = [(8, vec![5]), (6, b"ab".to_vec()), (0, vec![])][random.random_range(0..3)].clone();
    }
    row.object = sometimes(random, 0.6).then(|| earlier(random));
    row.insert = !matches!(row.key, Key::Property(_)) && sometimes(random, 0.8);
    if !row.insert && sometimes(random, 0.5) {
        row.predecessors.push(earlier(random));
    }
    row.mark_name = (action == 7 && valued).then_some("bold");
    row.expand = action == 7 && sometimes(random, 0.3);
    row
}

#[test]
fn flipped_changes_that_pass_harm_no_document() {
    let mut document = AutoCommit::new();
    let text = document.put_object(automerge::ROOT, "text", automerge::ObjType::Text).expect("a fresh document");
    document.splice_text(&text, 0, 0, "hello").expect("in range");
    document.splice_text(&text, 1, 2, "").expect("in range");
    let list = document.put_object(automerge::ROOT, "list", automerge::ObjType::List).expect("a fresh document");
    document.insert(&list, 0, automerge::ScalarValue::counter(1)).expect("in range");
    document.increment(&list, 0, 2).expect("a counter");
    document.commit();
    let raw = document.get_changes(&[])[0].raw_bytes().to_vec();
    let mut accepted = 0;
    for bit in 0..forge::body(&raw).len() * 8 {
        let flipped = Bytes::from(forge::flipped(&raw, bit));
        // What names other changes is for the graph to refuse: it knows that there are none.
        if decode(flipped.clone())
            .is_ok_and(|change| change.references.is_empty() && change.deps.is_empty() && change.seq == 1)
        {
            accepted += 1;
            check_harmless(&flipped);
        }
    }
    assert!(accepted > 100, "only {accepted} flipped changes passed");
}

#[test]
fn cut_and_flipped_documents_never_panic() {
    let limits = Limits::default();
    for seed in [3, 4] {
        let saved = authors::history(seed, 6).pop().expect("a history has documents").save();
        for length in 0..forge::body(&saved).len() {
            let cut = forge::chunk(forge::DOCUMENT, &forge::body(&saved)[..length]);
            let chunk = Chunk::first(&cut.into()).expect("a whole chunk");
            let (_, _) = (measure(&chunk, &limits), expand(&chunk, &limits, &InProcess));
        }
        for bit in 0..forge::body(&saved).len() * 8 {
            let chunk = Chunk::first(&forge::flipped(&saved, bit).into()).expect("a whole chunk");
            for raw in expand(&chunk, &limits, &InProcess).unwrap_or_default() {
                assert!(Change::decode_stored(raw).is_ok());
            }
        }
    }
}

/// A document by one actor, with so many changes and operations by the actor with this index.
fn counted_document(changes: i64, operations: i64, actor: u64) -> Chunk {
    let ascending = |count| [forge::signed(count), forge::signed(1)].concat();
    let change_columns = vec![(1, forge::repeat(changes, 0)), (3, ascending(changes)), (19, ascending(changes))];
    let operation_columns =
        vec![(33, forge::repeat(operations, actor)), (35, ascending(operations)), (66, forge::repeat(operations, 1))];
    let mut body = [forge::unsigned(1), forge::prefixed(&[1; 16]), forge::unsigned(0)].concat();
    for columns in [&change_columns, &operation_columns] {
        body.extend(forge::unsigned(columns.len() as u64));
        for (spec, data) in columns {
            body.extend([forge::unsigned(*spec), forge::unsigned(data.len() as u64)].concat());
        }
    }
    body.extend(change_columns.into_iter().chain(operation_columns).flat_map(|(_, data)| data));
    Chunk::first(&forge::chunk(forge::DOCUMENT, &body).into()).expect("a whole chunk")
}

#[test]
fn a_document_bomb_is_measured_before_it_is_built() {
    let bomb = |changes, operations| counted_document(changes, operations, 0);
    let limits = Limits::default();
    assert_eq!(measure(&bomb(5, 5), &limits).map(|totals| (totals.changes, totals.operations)), Ok((5, 5)));
    for (changes, operations) in [(2, 10_000_000), (10_000_000, 2), (i64::MAX, 2), (2, i64::MAX)] {
        let error = expand(&bomb(changes, operations), &limits, &InProcess).expect_err("a bomb");
        assert_eq!(error.kind(), "document_too_many_rows", "{error}");
    }
    for actor in [1, u64::from(u32::MAX)] {
        let error = measure(&counted_document(2, 2, actor), &limits).expect_err("an actor beyond the table");
        assert_eq!(error.kind(), "document_damaged", "{error}");
    }
    let change = Chunk::first(&forge::change().bytes()).expect("a whole chunk");
    assert_eq!(measure(&change, &limits).expect_err("no document").kind(), "document_wrong_kind");
}

#[test]
fn a_document_column_that_inflates_too_far_is_refused() {
    let mut document = AutoCommit::new();
    document.put(automerge::ROOT, "zeros", vec![0u8; 3_000_000]).expect("a fresh document");
    let chunk = Chunk::first(&document.save().into()).expect("a whole chunk");
    assert!(chunk.bytes.len() < 10_000);
    assert!(measure(&chunk, &Limits::default()).is_ok_and(|totals| totals.inflated_bytes > 3_000_000));
    let tight = Limits { inflate_bytes_max: 2_000_000, ..Limits::default() };
    assert_eq!(measure(&chunk, &tight).expect_err("above the limit").kind(), "chunk_inflates_too_large");
    // Columns that are not deflated count as well.
    let tiny = Limits { inflate_bytes_max: 10, ..Limits::default() };
    assert_eq!(
        measure(&counted_document(5, 5, 0), &tiny).expect_err("above the limit").kind(),
        "chunk_inflates_too_large"
    );
}

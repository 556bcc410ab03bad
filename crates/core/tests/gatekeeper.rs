//! The parsers that stand before automerge, against honest and hostile input.
//!
//! Owns: agreement with automerge on everything that automerge writes, and refusal of what it would not write.
//! Must not: reach into the crate.
//! Next: `support/forge.rs`, `support/authors.rs`.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{ElementId, Key as LegacyKey, ObjectId, OpType};
use automerge::{AutoCommit, Automerge, ObjType};
use bytes::Bytes;
use support::authors;
use syncline_core::change::{
    Actor, Change, Expectation, KindRun, ObjectType, ObjectUse, OperationId, OperationKind, OperationRange, Reference,
};
use syncline_core::chunk::{Chunk, ChunkKind, split};
use syncline_core::document::{expand, measure};
use syncline_core::limits::Limits;
use syncline_core::loader::InProcess;

/// Everything that the engine reads from a change must be what automerge reads from it.
fn check_agreement(theirs: &automerge::Change) {
    let raw = Bytes::copy_from_slice(theirs.raw_bytes());
    let limits = Limits::default();
    let ours = Change::decode(raw.clone(), &limits).unwrap_or_else(|error| panic!("{error}: {:#?}", theirs.decode()));
    assert_eq!(ours.hash, theirs.hash());
    assert_eq!(&ours.deps[..], theirs.deps());
    assert_eq!(ours.actor.as_bytes(), theirs.actor_id().to_bytes());
    assert_eq!((ours.seq, ours.start_op), (theirs.seq(), theirs.start_op().get()));
    assert_eq!((ours.operations, ours.max_op()), (theirs.len() as u64, theirs.max_op()));
    assert_eq!(ours.time, theirs.timestamp());
    assert_eq!(ours.bytes, raw);
    assert_eq!(ours.references, references(theirs), "{:#?}", theirs.decode());
    assert_eq!(ours.kinds.to_vec(), kinds(theirs), "{:#?}", theirs.decode());

    let packed = Bytes::from(theirs.clone().bytes().into_owned());
    assert_eq!(Change::decode(packed, &limits), Ok(ours.clone()));
    let stored = Change::decode_stored(raw).expect("what was accepted can be stored");
    assert_eq!(stored, Change { references: Vec::new(), ..ours });
}

/// The same as [`Change::kinds`], from the expanded operations.
fn kinds(change: &automerge::Change) -> Vec<KindRun> {
    let expanded = change.decode();
    let mut runs: Vec<KindRun> = Vec::new();
    for (counter, operation) in (expanded.start_op.get()..).zip(&expanded.operations) {
        let makes = if let OpType::Make(made) = operation.action { Some(made) } else { None };
        let makes = makes.map(|made| match made {
            ObjType::List => ObjectType::List,
            ObjType::Text => ObjectType::Text,
            ObjType::Map | ObjType::Table => ObjectType::Map,
        });
        let inserts_into = object_of(operation).filter(|_| operation.insert);
        let kind = OperationKind { makes, inserts_into };
        if runs.last().is_none_or(|last| last.kind != kind) {
            runs.push(KindRun { first: counter, kind });
        }
    }
    runs
}

fn object_of(operation: &automerge::legacy::Op) -> Option<OperationId> {
    match &operation.obj {
        ObjectId::Id(id) => Some(named(id)),
        ObjectId::Root => None,
    }
}

fn named(id: &automerge::legacy::OpId) -> OperationId {
    let actor = Actor::from_bytes(id.actor().to_bytes()).expect("a short actor");
    OperationId { actor, counter: id.counter() }
}

/// The same as [`Change::references`], from the expanded operations.
fn references(change: &automerge::Change) -> Vec<Reference> {
    let expanded = change.decode();
    let mut expected: BTreeMap<(Actor, Expectation), BTreeSet<u64>> = BTreeMap::new();
    for operation in &expanded.operations {
        let object = object_of(operation);
        let mut ids: Vec<_> = operation.pred.iter().map(|id| (named(id), Expectation::Exists)).collect();
        if let LegacyKey::Seq(ElementId::Id(id)) = &operation.key {
            let element = named(id);
            // To be an element of the object is more than to exist.
            ids.retain(|(predecessor, _)| *predecessor != element);
            ids.push((element, Expectation::IsElementOf(object.clone().expect("the root has no elements"))));
        }
        let marks = matches!(operation.action, OpType::MarkBegin(..) | OpType::MarkEnd(_));
        let object_use = match &operation.key {
            LegacyKey::Map(_) => ObjectUse::AsMap,
            LegacyKey::Seq(_) if marks => ObjectUse::AsText,
            LegacyKey::Seq(_) => ObjectUse::AsSequence,
        };
        ids.extend(object.map(|id| (id, Expectation::IsObject(object_use))));
        for (id, expectation) in ids {
            if id.actor.as_bytes() != expanded.actor_id.to_bytes() || id.counter < expanded.start_op.get() {
                expected.entry((id.actor, expectation)).or_default().insert(id.counter);
            }
        }
    }
    let mut references = Vec::new();
    for ((actor, expectation), counters) in expected {
        let counters: Vec<_> = counters.into_iter().collect();
        for run in counters.chunk_by(|left, right| left + 1 == *right) {
            let operations = OperationRange { actor: actor.clone(), first: run[0], last: run[run.len() - 1] };
            references.push(Reference { operations, expectation: expectation.clone() });
        }
    }
    references.sort();
    references
}

fn sole(bytes: &[u8]) -> Chunk {
    let mut chunks = split(Bytes::copy_from_slice(bytes));
    let chunk = chunks.next().expect("one chunk").expect("a chunk");
    assert!(chunks.next().is_none());
    chunk
}

fn check_expansion(document: &mut AutoCommit) {
    let saved = document.save();
    let chunk = sole(&saved);
    let totals = measure(&chunk, &Limits::default()).expect("an honest document");
    let theirs: Vec<_> = document.get_changes(&[]);
    let operations: u64 = theirs.iter().map(|change| change.len() as u64).sum();
    assert_eq!(totals.changes, theirs.len() as u64);
    assert!(totals.operations >= operations, "{totals:?}, {operations}");
    let ours = expand(&chunk, &Limits::default(), &InProcess).expect("an honest document");
    let expected: BTreeSet<_> = theirs.iter().map(|change| change.raw_bytes().to_vec()).collect();
    assert_eq!(ours.iter().map(|raw| raw.to_vec()).collect::<BTreeSet<_>>(), expected);
    let mut known = BTreeSet::new();
    for raw in ours {
        let change = Change::decode_stored(raw).expect("a valid change");
        assert!(change.deps.iter().all(|dep| known.contains(dep)), "a dependency comes later");
        known.insert(change.hash);
    }
}

#[test]
fn whatever_automerge_writes_is_read_as_automerge_reads_it() {
    for seed in 0..60 {
        for document in &mut authors::history(seed, 40) {
            document.get_changes(&[]).iter().for_each(check_agreement);
        }
    }
}

#[test]
fn every_saved_document_expands_to_its_changes() {
    for seed in 100..120 {
        for document in &mut authors::history(seed, 30) {
            check_expansion(document);
        }
    }
}

#[test]
fn an_empty_document_from_javascript_expands_to_nothing() {
    let bytes = [0x85, 0x6f, 0x4a, 0x83, 0xb8, 0x1a, 0x95, 0x44, 0, 4, 0, 0, 0, 0];
    let chunk = sole(&bytes);
    assert_eq!(chunk.kind, ChunkKind::Document);
    assert_eq!(expand(&chunk, &Limits::default(), &InProcess), Ok(Vec::new()));
    assert_eq!(Automerge::new().save().len(), 14);
}

#[test]
fn a_big_paste_is_one_change_within_the_limits() {
    use automerge::transaction::Transactable;
    let mut document = AutoCommit::new();
    let text = document.put_object(automerge::ROOT, "text", automerge::ObjType::Text).expect("a fresh document");
    let paste: String = (0..90_000).map(|index| char::from(b'a' + (index % 26) as u8)).collect();
    document.splice_text(&text, 0, 0, &paste).expect("in range");
    document.commit();
    document.splice_text(&text, 10, 80_000, "").expect("in range");
    document.get_changes(&[]).iter().for_each(check_agreement);
    check_expansion(&mut document);
}

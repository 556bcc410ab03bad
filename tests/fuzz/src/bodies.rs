//! Bodies of HTTP requests: patches, JSON, files, and what peers say of themselves, which programs read over HTTP.
//!
//! Owns: that a patch makes of a document what the RFC says, by the crate `json-patch`, and a change that can be stored.
//! Must not: know HTTP. Next: `crates/content`, `crates/core/src/file.rs`; docs/http-api.md.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ScalarValue};
use bytes::Bytes;
use json_patch::{Patch, merge, patch};
use serde_json::{Map, Number, Value};
use syncline_content::edit::Operation;
use syncline_content::presence::{self, Said};
use syncline_content::{Answer, At, Edit, Question, cbor};
use syncline_core::change::Change;
use syncline_core::file;
use syncline_core::loader::{InProcess, Old};

/// A body, after a byte that says of which kind.
pub fn bodies(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 5 {
        0 => merge_patch(body),
        1 => json_patch(body),
        2 => new_document(body),
        3 => uploaded(body),
        _ => said(body),
    }
}

fn merge_patch(body: &[u8]) {
    let Ok(wanted) = serde_json::from_slice::<Value>(body) else { return };
    let mut expected = known().values.clone();
    merge(&mut expected, &wanted);
    if let Some(found) = made_of(Some(&known().saved), Edit::Merge(wanted)) {
        assert_eq!(found, normal(expected));
    }
}

fn json_patch(body: &[u8]) {
    let Ok(operations) = serde_json::from_slice::<Vec<Operation>>(body) else { return };
    let ours = |operation: &Operation| matches!(operation, Operation::Splice { .. } | Operation::Increment { .. });
    let only_standard = !operations.iter().any(ours);
    let Some(found) = made_of(Some(&known().saved), Edit::Operations(operations)) else { return };
    if !only_standard {
        return;
    }
    let standard: Patch = serde_json::from_slice(body).expect("what is a patch here is one there");
    let mut expected = known().values.clone();
    patch(&mut expected, &standard).expect("what is possible here is possible there");
    assert_eq!(found, normal(expected));
}

/// What a document is made of when it is created.
fn new_document(body: &[u8]) {
    let Ok(content) = serde_json::from_slice::<Map<String, Value>>(body) else { return };
    if let Some(found) = made_of(None, Edit::creating(content.clone())) {
        assert_eq!(found, normal(Value::Object(content)));
    }
}

/// What a document holds after an edit that is not refused. Its change is one that can be stored, and changes nothing else.
fn made_of(saved: Option<&Bytes>, edit: Edit) -> Option<Value> {
    let question =
        Question::Edit { edit, author: None, actor: vec![7; 16], message: None, time_s: 0, even_if_empty: true };
    let old = |changes| Old { snapshot: saved.map(|saved| &saved[..]), changes, count: 0 };
    let answer = question.answer(&old(Vec::new()));
    let pieces = Answer::encode(&answer);
    assert_eq!(Answer::decode(&pieces).is_ok(), answer.is_ok(), "it goes through a pipe");
    let Ok(Answer::Edited { change, heads }) = answer else { return None };
    let change = change.expect("there is a change, if only an empty one");
    let decoded = Change::decode(change.clone(), &crate::limits()).expect("what a patch makes can be stored");
    assert_eq!(heads, [decoded.hash], "it stands on all that was there");
    let read = Question::Values { at: At::Now }.answer(&old(vec![&change]));
    let Ok(Answer::Json(text)) = read else { panic!("what was made can be read: {read:?}") };
    let mut read: Value = serde_json::from_slice(&text).expect("it is JSON");
    Some(read["content"].take())
}

/// A file that is merged into a document.
fn uploaded(body: &[u8]) {
    let file = Bytes::copy_from_slice(body);
    let Ok(contents) = file::read(&file, &crate::limits(), &InProcess) else { return };
    let mut known = BTreeSet::new();
    for change in &contents.changes {
        assert!(change.deps.iter().all(|dep| known.contains(dep)), "dependencies come first");
        assert!(known.insert(change.hash), "each comes once");
    }
}

/// What a peer says of itself.
fn said(body: &[u8]) {
    let Ok(value) = cbor::decode(body) else { return assert_eq!(presence::read(body), None) };
    let again = cbor::decode(&cbor::encode(&value)).expect("what is written can be read");
    assert_eq!(again, value);
    match presence::read(body) {
        Some(Said::Channels(_) | Said::Goodbye | Said::Alive) => assert!(value.get(presence::MARKER).is_some()),
        None => assert!(value.get(presence::MARKER).is_none_or(|said| !said.is_object())),
    }
}

/// JSON as it comes back: whole numbers are integers where floats are exact.
fn normal(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(&number).unwrap_or(number)),
        Value::Array(items) => items.into_iter().map(normal).collect(),
        Value::Object(entries) => entries.into_iter().map(|(key, value)| (key, normal(value))).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

fn whole(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)?;
    (float.abs() < 9_007_199_254_740_992.0).then(|| Number::from(float as i64))
}

struct Known {
    saved: Bytes,
    values: Value,
}

/// A document with one value of each kind.
fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let mut document = AutoCommit::new().with_actor(ActorId::from([1; 16]));
        fill(&mut document).expect("a new document takes it");
        let saved = Bytes::from(document.save());
        let old = Old { snapshot: Some(&saved), changes: Vec::new(), count: 1 };
        let Ok(Answer::Json(text)) = Question::Values { at: At::Now }.answer(&old) else { panic!("it can be read") };
        let mut read: Value = serde_json::from_slice(&text).expect("it is JSON");
        Known { values: read["content"].take(), saved }
    })
}

fn fill(document: &mut AutoCommit) -> Result<(), automerge::AutomergeError> {
    document.put(ROOT, "n", 1)?;
    document.put(ROOT, "hits", ScalarValue::counter(3))?;
    document.put(ROOT, "when", ScalarValue::Timestamp(5))?;
    document.put(ROOT, "raw", ScalarValue::Bytes(vec![1, 2]))?;
    let text = document.put_object(ROOT, "text", ObjType::Text)?;
    document.splice_text(&text, 0, 0, "a\u{1f980}b")?;
    let list = document.put_object(ROOT, "list", ObjType::List)?;
    document.insert(&list, 0, 1)?;
    document.insert(&list, 1, true)?;
    let inner = document.insert_object(&list, 2, ObjType::Map)?;
    document.put(&inner, "a/b", 2.5)?;
    let map = document.put_object(ROOT, "map", ObjType::Map)?;
    document.put(&map, "x", ScalarValue::Null)
}

//! Patches on small documents: what comes out, and at how many operations.
//!
//! Owns: the examples of both RFCs, and what must be refused. Must not: go through a process. Next: `../edit.rs`.

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ScalarValue};
use serde_json::{Value, json};

use super::*;

/// A document with this content, edited; its values afterwards, and how many operations it took.
fn edited(content: &Value, edit: &Value) -> Result<(Value, usize), EditError> {
    let mut document = Automerge::new();
    let mut transaction = document.transaction();
    for (key, value) in content.as_object().expect("an object") {
        json::put(&mut transaction, &ROOT, Prop::Map(key.clone()), value, false).expect("a value");
    }
    transaction.put(ROOT, "hits", ScalarValue::counter(1)).expect("a counter");
    transaction.commit();
    let edit = match edit.is_array() {
        true => Edit::Operations(serde_json::from_value(edit.clone()).expect("operations")),
        false => Edit::Merge(edit.clone()),
    };
    let mut transaction = document.transaction();
    edit.apply(&mut transaction)?;
    let operations = transaction.pending_ops();
    transaction.commit();
    let mut values = json::of_document(&document, None)?;
    values.as_object_mut().expect("an object").remove("hits");
    Ok((values, operations))
}

#[test]
fn a_merge_patch_does_what_the_rfc_says() {
    let content = json!({ "title": "Goodbye!", "author": { "given": "John", "family": "Doe" }, "tags": ["a", "b"] });
    let patch = json!({ "title": "Hello!", "phone": "+01", "author": { "family": null }, "tags": ["a"] });
    let wanted = json!({ "title": "Hello!", "author": { "given": "John" }, "tags": ["a"], "phone": "+01" });
    assert_eq!(edited(&content, &patch).expect("a patch").0, wanted);
    assert_eq!(
        edited(&json!({ "a": 1 }), &json!({ "a": { "b": { "c": null } } })).expect("a patch").0,
        json!({ "a": { "b": {} } })
    );
    assert_eq!(edited(&json!({}), &json!({ "a": null })).expect("a patch").0, json!({}));
}

#[test]
fn what_is_there_already_costs_no_operation() {
    let content = json!({ "n": 1, "text": "same", "list": [1, { "a": "b" }, 3], "map": { "x": 1 } });
    assert_eq!(edited(&content, &content.clone()).expect("a patch").1, 0);
    // One item of a list, one letter of a text.
    let patch = json!({ "text": "lame", "list": [1, { "a": "b" }, 2, 3] });
    let (values, operations) = edited(&content, &patch).expect("a patch");
    assert_eq!((&values["text"], &values["list"]), (&patch["text"], &patch["list"]));
    assert_eq!(operations, 3);
}

#[test]
fn operations_do_what_the_rfc_says() {
    let content = json!({ "a": { "b": "c" }, "list": [1, 2, 3], "m~/n": 0 });
    let patch = json!([
        { "op": "test", "path": "/a/b", "value": "c" },
        { "op": "remove", "path": "/a/b" },
        { "op": "add", "path": "/a/d", "value": ["x"] },
        { "op": "add", "path": "/a/d/-", "value": "y" },
        { "op": "add", "path": "/list/1", "value": { "new": true } },
        { "op": "replace", "path": "/list/0", "value": 9 },
        { "op": "move", "from": "/a/d", "path": "/moved" },
        { "op": "copy", "from": "/list/1", "path": "/copied" },
        { "op": "replace", "path": "/m~0~1n", "value": 5 },
    ]);
    let wanted = json!({
        "a": {}, "list": [9, { "new": true }, 2, 3], "moved": ["x", "y"], "copied": { "new": true }, "m~/n": 5,
    });
    assert_eq!(edited(&content, &patch).expect("a patch").0, wanted);
}

#[test]
fn text_is_spliced_by_code_points_and_counters_count() {
    let patch = json!([
        { "op": "splice", "path": "/text", "index": 1, "delete": 1, "insert": "ö" },
        { "op": "increment", "path": "/hits", "by": 4 },
    ]);
    assert_eq!(edited(&json!({ "text": "😀x!" }), &patch).expect("a patch").0, json!({ "text": "😀ö!" }));
}

#[test]
fn what_cannot_be_done_is_refused_in_words() {
    let content = json!({ "list": [1], "text": "abc", "n": 1 });
    let refused = [
        json!([{ "op": "remove", "path": "/nothing" }]),
        json!([{ "op": "replace", "path": "/nothing", "value": 1 }]),
        json!([{ "op": "add", "path": "/list/2", "value": 1 }]),
        json!([{ "op": "add", "path": "/list/01", "value": 1 }]),
        json!([{ "op": "add", "path": "/n/x", "value": 1 }]),
        json!([{ "op": "add", "path": "/~", "value": 1 }]),
        json!([{ "op": "add", "path": "/a~2b", "value": 1 }]),
        json!([{ "op": "add", "path": "/text/0", "value": "x" }]),
        json!([{ "op": "add", "path": "", "value": {} }]),
        json!([{ "op": "test", "path": "/n", "value": 2 }]),
        json!([{ "op": "splice", "path": "/text", "index": 2, "delete": 2 }]),
        json!([{ "op": "splice", "path": "/n", "index": 0 }]),
        json!([{ "op": "increment", "path": "/n", "by": 1 }]),
        json!("not an object"),
    ];
    for patch in refused {
        let error = edited(&content, &patch).expect_err(&patch.to_string());
        assert!(!error.to_string().is_empty());
    }
}

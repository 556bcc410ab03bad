//! What is wanted of documents, and what servers are known to have.
//!
//! Owns: that both survive, and that damage keeps a document here. Must not: test what is offered to whom.
//! Next: `../src/store/selection.rs`; docs/store.md, "Selection".

mod support;

use std::path::Path;

use rusqlite::Connection;
use support::{Model, assert_clean, eager, lazy, open};
use syncline_core::ChangeHash;
use syncline_core::id::{DocumentId, StorageId};
use syncline_store::{Policy, Store, StoreError};

type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Waits until what is begun is durable.
fn wait(begin: impl FnOnce(Done)) {
    let (tell, told) = std::sync::mpsc::channel();
    begin(Box::new(move |result| tell.send(result).expect("somebody waits")));
    told.recv().expect("answered").expect("room on the disk");
}

fn server(name: &str) -> StorageId {
    StorageId::new(name).expect("a name")
}

fn heads(store: &Store, id: &DocumentId) -> Vec<ChangeHash> {
    store.summary(id).expect("readable").expect("stored").heads
}

fn has(store: &Store, name: &str, documents: &[&DocumentId]) {
    let documents: Vec<_> = documents.iter().map(|id| ((*id).clone(), heads(store, id))).collect();
    wait(|done| store.set_in_step(&server(name), &documents, done));
}

/// The documents that the server, or all servers, lack something of.
fn behind(store: &Store, name: Option<&str>) -> Vec<DocumentId> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.offers(name.map(server).as_ref(), after.as_ref(), 2).expect("readable");
        let Some(last) = page.last() else { return found };
        after = Some(last.document.clone());
        found.extend(page.into_iter().filter(|offer| !offer.in_step).map(|offer| offer.document));
    }
}

#[test]
fn what_is_wanted_survives_and_ends_when_it_is_taken_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), lazy());
    let mut model = Model::new(1, 1);
    model.grow(&store, 2, 10);
    let (id, absent) = (model.id.clone(), Model::new(2, 1).id);
    wait(|done| store.set_pinned(id.clone(), true, done));
    wait(|done| store.set_local_only(id.clone(), true, done));
    wait(|done| store.set_local_only(absent.clone(), true, done));
    drop(store);

    let store = open(directory.path(), lazy());
    let both = Policy { pinned: true, local_only: true };
    assert_eq!(store.policy(&id).expect("readable"), both);
    assert!(store.standing(&id).expect("readable").local_only);
    assert!(store.standing(&absent).expect("readable").local_only, "also of what is not here");
    let mut all = vec![(id.clone(), both), (absent.clone(), Policy { pinned: false, local_only: true })];
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(store.policies(None, 10).expect("readable"), all);
    assert_eq!(store.policies(Some(&all[0].0), 10).expect("readable"), all[1..]);
    wait(|done| store.set_local_only(id.clone(), false, done));
    assert_eq!(store.policy(&id).expect("readable"), Policy { pinned: true, local_only: false });
    wait(|done| store.set_pinned(id.clone(), false, done));
    wait(|done| store.set_local_only(absent, false, done));
    assert_eq!(store.policies(None, 10).expect("readable"), []);
    drop(store);
    assert_clean(directory.path(), 2);
}

#[test]
fn a_server_is_behind_as_soon_as_anything_has_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), lazy());
    let mut models = [1, 2, 3].map(|n| Model::new(n, 1));
    models.iter_mut().for_each(|model| model.grow(&store, 2, 10));
    let mut ids = models.each_ref().map(|model| model.id.clone());
    ids.sort();
    assert_eq!(behind(&store, None), ids);
    has(&store, "one", &[&ids[0], &ids[1]]);
    has(&store, "two", &[&ids[1], &ids[2]]);
    assert_eq!(behind(&store, Some("one")), ids[2..]);
    assert_eq!(behind(&store, Some("two")), ids[..1]);
    assert_eq!(behind(&store, Some("three")), ids, "a server that was never heard of");
    assert_eq!(behind(&store, None), []);
    assert!(store.is_in_step(&ids[0], &heads(&store, &ids[0])).expect("readable"));

    models[0].grow(&store, 1, 10);
    let changed = models[0].id.clone();
    store.close().expect("a clean end");
    drop(store);
    let store = open(directory.path(), eager());
    assert_eq!(behind(&store, None), std::slice::from_ref(&changed), "folded or not");
    assert!(!store.is_in_step(&changed, &heads(&store, &changed)).expect("readable"));
    has(&store, "one", &[&changed]);
    assert_eq!(behind(&store, None), []);
}

#[test]
fn few_servers_are_remembered_and_the_one_heard_of_longest_ago_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), lazy());
    let mut model = Model::new(1, 1);
    model.grow(&store, 2, 10);
    has(&store, "kept", &[&model.id]);
    has(&store, "gone", &[&model.id]);
    for n in 0..15 {
        has(&store, "kept", &[&model.id]);
        has(&store, &format!("other {n}"), &[&model.id]);
    }
    assert_eq!(behind(&store, Some("kept")), []);
    assert_eq!(behind(&store, Some("gone")), [model.id.clone()]);
    drop(store);
    let rows = |table: &str| {
        let file = Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
        file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u32>(0)).expect("a number")
    };
    assert_eq!((rows("server"), rows("in_step")), (16, 16));
}

#[test]
fn a_damaged_choice_keeps_its_document_here_and_is_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), lazy());
    let mut model = Model::new(1, 1);
    model.grow(&store, 2, 10);
    let id = model.id.clone();
    wait(|done| store.set_local_only(id.clone(), true, done));
    wait(|done| store.set_pinned(id.clone(), true, done));
    drop(store);
    damage(directory.path(), &id);
    let store = open(directory.path(), lazy());
    assert!(store.policy(&id).expect("readable").local_only, "it was let go by one bit");
    drop(store);
    let report = syncline_store::check(directory.path()).expect("readable");
    assert!(matches!(&report.listed[..], [fault] if fault.document.as_ref() == Some(&id)), "{:?}", report.listed);
}

fn damage(directory: &Path, id: &DocumentId) {
    let file = Connection::open(directory.join("syncline.db")).expect("nobody has it open");
    let damaged = file.execute("UPDATE policy SET local_only = 0 WHERE document = ?1", [id.as_bytes()]);
    assert_eq!(damaged.expect("written"), 1);
}

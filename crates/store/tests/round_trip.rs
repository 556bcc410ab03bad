//! What is committed is what is read, whatever is folded, compacted, closed or dropped in between.
//!
//! Owns: the properties and the scenarios of a healthy store. Must not: damage files; that is `faults.rs`.
//! Next: `support/mod.rs`, `crash.rs`.

mod support;

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use support::{Model, assert_clean, commit, eager, lazy, open};
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_core::storage::Commit;
use syncline_store::{Options, Store, StoreError};

#[derive(Debug, Clone)]
enum Action {
    /// Authors edit documents; all of it is one unit of commits.
    Commit(Vec<(Index, Index, u8)>),
    Meet(Index, Index, Index),
    /// A new document of so many changes comes as one chunk, and more of it in the same unit.
    Upload(u8, u8),
    /// Large values, so that bytes and not numbers cause compaction.
    Paste(Index, u16),
    Settle,
    Close(bool),
    Drop(bool),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => proptest::collection::vec((any::<Index>(), any::<Index>(), 1u8..12), 1..6).prop_map(Action::Commit),
        3 => (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(d, a, b)| Action::Meet(d, a, b)),
        2 => (1u8..40, 0u8..3).prop_map(|(changes, more)| Action::Upload(changes, more)),
        1 => (any::<Index>(), 1000u16..12_000).prop_map(|(document, bytes)| Action::Paste(document, bytes)),
        1 => Just(Action::Settle),
        1 => any::<bool>().prop_map(Action::Close),
        1 => any::<bool>().prop_map(Action::Drop),
    ]
}

fn run(actions: &[Action]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pace = |eagerly: bool| if eagerly { eager() } else { lazy() };
    let mut store = open(directory.path(), eager());
    let mut models: Vec<Model> = (1..=4).map(|seed| Model::new(seed, 3)).collect();
    let mut highest = Stamp::ZERO;
    for (step, action) in actions.iter().enumerate() {
        match action {
            Action::Commit(edits) => {
                let mut commits = Vec::new();
                for (document, author, count) in edits {
                    let model = document.get_mut(&mut models[..]);
                    (0..*count).for_each(|n| drop(model.edit(author.index(3) + usize::from(n % 2), 20)));
                    commits.push(model.commit(usize::from(*count)));
                }
                commit(&store, commits).expect("every commit continues its document");
            }
            Action::Meet(document, one, other) => document.get_mut(&mut models[..]).meet(one.index(3), other.index(3)),
            Action::Upload(changes, more) => {
                let mut model = Model::new(models.len() as u8 + 1, 3);
                (0..*changes).for_each(|n| drop(model.edit(usize::from(n % 3), 20)));
                let mut commits = vec![model.commit_whole()];
                (0..*more).for_each(|n| drop(model.edit(usize::from(n), 20)));
                commits.push(model.commit(usize::from(*more)));
                commit(&store, commits).expect("a new document");
                models.push(model);
            }
            Action::Paste(document, bytes) => document.get_mut(&mut models[..]).grow(&store, 1, usize::from(*bytes)),
            Action::Settle => store.settle(),
            Action::Close(eagerly) => {
                store.close().expect("a healthy disk");
                assert_clean(directory.path(), models.iter().map(|model| model.journal.len()).sum());
                store = open(directory.path(), pace(*eagerly));
            }
            Action::Drop(eagerly) => {
                drop(store);
                store = open(directory.path(), pace(*eagerly));
            }
        }
        assert!(store.highest_stamp() >= highest, "the clock never goes back");
        highest = store.highest_stamp();
        // Every document after every action would cost most of the time on documents that did not change.
        models.iter().for_each(|model| model.assert_summary(&store));
        models[step % models.len()].assert_stored(&store);
    }
    models.iter().for_each(|model| model.assert_stored(&store));
    assert_clean(directory.path(), models.iter().map(|model| model.journal.len()).sum());
    assert_listing(&store, &models);
}

/// Pages of any size list the same documents.
fn assert_listing(store: &Store, models: &[Model]) {
    let expected: BTreeMap<_, _> =
        models.iter().filter(|m| !m.journal.is_empty()).map(|m| (m.id.clone(), m.heads.clone())).collect();
    assert_eq!(store.count() as usize, expected.len());
    for limit in 1..=5 {
        let mut found = BTreeMap::new();
        let mut after: Option<DocumentId> = None;
        loop {
            let page = store.documents(after.as_ref(), limit).expect("readable");
            let Some((last, _)) = page.last() else { break };
            assert!(page.len() <= limit);
            after = Some(last.clone());
            found.extend(page.into_iter().map(|(id, summary)| (id, summary.heads)));
        }
        assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_committed_is_read_back(actions in proptest::collection::vec(action(), 1..30)) {
        run(&actions);
    }
}

#[test]
fn a_document_that_came_as_a_chunk_is_served_as_that_chunk_folded_or_not() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut model = Model::new(1, 3);
    (0..40).for_each(|n| drop(model.edit(n, 20)));
    let whole = model.commit_whole();
    let store = open(directory.path(), lazy());
    commit(&store, vec![whole.clone()]).expect("a new document");
    let chunk = whole.snapshot.expect("just made");
    let served = |store: &Store, model: &Model| {
        let payload = store.payload(&model.id).expect("readable").expect("it exists");
        assert_eq!((payload.snapshot.as_ref(), payload.tail.len()), (Some(&chunk), model.journal.len() - 40));
        let summary = store.summary(&model.id).expect("readable").expect("it exists");
        assert_eq!((summary.snapshot_changes, summary.snapshot_bytes), (40, chunk.len() as u64));
        model.assert_stored(store);
    };
    served(&store, &model);
    model.grow(&store, 5, 20);
    served(&store, &model);
    drop(store);
    assert_clean(directory.path(), 45);
    let store = open(directory.path(), lazy());
    served(&store, &model);
    store.close().expect("a healthy disk");
    assert_clean(directory.path(), 45);
    let store = open(directory.path(), lazy());
    served(&store, &model);
    // Enough on top of it for a compaction, which takes the chunk for the old snapshot.
    model.grow(&store, 40, 20);
    store.close().expect("a healthy disk");
    let store = open(directory.path(), lazy());
    while store.summary(&model.id).expect("readable").expect("it exists").snapshot_changes == 40 {
        store.settle();
    }
    model.assert_stored(&store);
    store.close().expect("a healthy disk");
    assert_clean(directory.path(), 85);
}

#[test]
fn a_chunk_that_cannot_stand_for_the_changes_or_is_no_smaller_is_not_kept() {
    let store = Store::memory().expect("a temporary store");
    let mut model = Model::new(1, 2);
    (0..40).for_each(|n| drop(model.edit(n, 20)));
    let good = model.commit_whole();
    let chunk = good.snapshot.clone().expect("just made");
    let mut flipped = chunk.to_vec();
    flipped[chunk.len() / 2] ^= 1;
    let twice = [&chunk[..], &chunk[..]].concat();
    let mut other = Model::new(30, 2);
    (0..40).for_each(|n| drop(other.edit(n, 20)));
    let other = other.commit_whole().snapshot.expect("just made").to_vec();
    let foreign = [flipped, twice, other, good.changes[0].to_vec(), Vec::new()];
    for (seed, snapshot) in (2..).zip(foreign) {
        let document = DocumentId::from_bytes(&[seed; 16]).expect("16 bytes");
        let bad = Commit { document: document.clone(), snapshot: Some(snapshot.into()), ..good.clone() };
        commit(&store, vec![bad]).expect("the raw changes are whole");
        let payload = store.payload(&document).expect("readable").expect("it exists");
        assert_eq!((payload.snapshot, payload.tail.len()), (None, 40), "chunk {seed}");
    }
    commit(&store, vec![good]).expect("a new document");
    assert!(store.payload(&model.id).expect("readable").expect("it exists").snapshot.is_some());
    let mut small = Model::new(20, 1);
    small.upload(&store, 1, 5);
    assert_eq!(store.payload(&small.id).expect("readable").expect("it exists").snapshot, None);
    small.assert_stored(&store);
    // Not the document's first changes: a chunk cannot stand in the middle of a journal.
    small.edit(0, 5);
    let later = Commit { snapshot: small.commit_whole().snapshot, ..small.commit(1) };
    commit(&store, vec![later]).expect("it continues the document");
    small.assert_stored(&store);
}

#[test]
fn a_compacted_document_keeps_every_change() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), eager());
    let mut model = Model::new(9, 2);
    let (tell, told) = channel();
    store.on_compacted(move |id, covered| tell.send((id, covered)).expect("somebody waits"));
    let mut covered = 0;
    while covered < 100 {
        model.grow(&store, 10, 10);
        // Settled first, so that each snapshot is compared with what it could have covered at most.
        store.settle();
        while let Ok((id, now)) = told.try_recv() {
            assert_eq!(id, model.id);
            assert!(now > covered, "a snapshot only grows");
            assert!(now as usize + 6 <= model.journal.len(), "the recent changes stay raw");
            covered = now;
            assert!(store.summary(&model.id).expect("readable").expect("it exists").snapshot_changes >= covered);
        }
    }
    model.assert_stored(&store);
    let payload = store.payload(&model.id).expect("readable").expect("it exists");
    assert!(payload.tail.len() >= 6, "the recent changes stay raw");
    store.close().expect("a healthy disk");
    assert_clean(directory.path(), model.journal.len());
}

#[test]
fn acknowledgements_come_in_order_and_after_the_data_is_visible() {
    let store = Store::memory().expect("a temporary store");
    let (tell, told) = channel();
    let mut model = Model::new(1, 1);
    for number in 0..200u32 {
        model.edit(0, 5);
        let (tell, reader, id) = (tell.clone(), store.clone(), model.id.clone());
        let done = move |result: Result<(), StoreError>| {
            result.expect("in order");
            let seen = reader.summary(&id).expect("readable").expect("it exists").changes;
            tell.send((number, seen)).expect("somebody waits");
        };
        store.commit(vec![model.commit(1)], Box::new(done));
    }
    drop(tell);
    let answers: Vec<(u32, u32)> = told.iter().collect();
    assert!(answers.iter().map(|(number, _)| *number).eq(0..200));
    assert!(answers.iter().all(|(number, seen)| seen > number));
    model.assert_stored(&store);
}

#[test]
fn a_commit_on_top_of_another_history_is_refused_alone() {
    let store = Store::memory().expect("a temporary store");
    let (mut one, mut two) = (Model::new(1, 1), Model::new(2, 1));
    one.grow(&store, 3, 5);
    one.edit(0, 5);
    two.edit(0, 5);
    let mut stale = one.commit(1);
    stale.changes_before = 2;
    // The whole unit fails, the good commit in it too; a unit beside it does not.
    let refused = commit(&store, vec![two.commit(1), stale]);
    assert!(matches!(refused, Err(StoreError::Stale { found: 3, expected: 2, .. })), "{refused:?}");
    assert_eq!(store.summary(&two.id).expect("readable"), None);
    assert_eq!(store.count(), 1);
    commit(&store, vec![one.commit(1), two.commit(1)]).expect("both continue");
    one.assert_stored(&store);
    two.assert_stored(&store);
}

#[test]
fn stamps_rise_through_restarts_and_past_what_was_observed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut model = Model::new(1, 1);
    let mut last = Stamp::ZERO;
    for round in 0..4 {
        let store = open(directory.path(), lazy());
        let ahead = Stamp::from_u64(store.highest_stamp().as_u64() + 9_000);
        if round > 0 {
            store.observe(ahead).expect("within the drift bound");
        }
        model.grow(&store, 2, 5);
        let stamp = store.summary(&model.id).expect("readable").expect("it exists").last_stamp;
        assert!(stamp > last && (round == 0 || stamp > ahead), "{stamp} after {last}, {ahead}");
        last = stamp;
        if round % 2 == 0 {
            store.close().expect("a healthy disk");
        }
    }
}

#[test]
fn a_stamp_that_was_only_observed_survives_a_close() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), lazy());
    Model::new(1, 1).grow(&store, 1, 5);
    store.close().expect("a healthy disk");
    // With nothing in the log, no fold writes the stamp down either.
    let store = open(directory.path(), lazy());
    let ahead = Stamp::from_u64(store.highest_stamp().as_u64() + (20_000 << 16));
    store.observe(ahead).expect("within the drift bound");
    store.close().expect("a healthy disk");
    assert!(open(directory.path(), lazy()).highest_stamp() >= ahead);
}

// Each commit in a row of its own would cost a page read for each when the document is read.
#[test]
fn what_is_folded_bit_by_bit_lies_in_few_pieces() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut model = Model::new(1, 1);
    for _ in 0..20 {
        let store = open(directory.path(), lazy());
        model.grow(&store, 1, 5);
        store.close().expect("a healthy disk");
    }
    let file = rusqlite::Connection::open(directory.path().join("syncline.db")).expect("nobody has it open");
    let pieces: u64 = file.query_row("SELECT count(*) FROM tail", [], |row| row.get(0)).expect("readable");
    assert_eq!(pieces, 1);
    model.assert_stored(&open(directory.path(), lazy()));
}

#[test]
fn a_closed_store_refuses_politely() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), eager());
    let mut model = Model::new(1, 1);
    model.grow(&store, 3, 5);
    store.close().expect("a healthy disk");
    assert!(matches!(commit(&store, vec![]), Err(StoreError::Closed)));
    assert!(matches!(store.summary(&model.id), Err(StoreError::Closed)));
    assert!(matches!(store.close(), Err(StoreError::Closed)));
    let again = open(directory.path(), Options::default());
    assert_eq!(again.replica_id(), store.replica_id());
    model.assert_stored(&again);
}

#[test]
fn a_document_that_cannot_be_compacted_stays_raw_and_is_served() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path(), eager());
    // A hole in an actor's history: each change is well formed, and automerge cannot build the document.
    let mut model = Model::new(3, 1);
    (0..60).for_each(|_| drop(model.edit(0, 5)));
    let forged = model.journal.iter().enumerate().filter(|(n, _)| *n != 30).map(|(_, (_, bytes))| bytes.clone());
    let forged: Vec<_> = forged.collect();
    let mut bad = model.commit(60);
    bad.changes = forged.clone();
    commit(&store, vec![bad]).expect("the store does not look inside");
    let mut good = Model::new(4, 1);
    good.grow(&store, 60, 5);
    let covered = |model: &Model| store.summary(&model.id).expect("readable").expect("it exists").snapshot_changes;
    while covered(&good) == 0 {
        std::thread::yield_now();
    }
    store.settle();
    assert_eq!(covered(&model), 0);
    let payload = store.payload(&model.id).expect("readable").expect("it exists");
    assert!(payload.tail.iter().map(|change| &change.bytes).eq(&forged));
}

// Within one transaction the fold came back to a document that it had left half done, and appended the same rows again:
// the changes were there twice, or the writer stopped for a place that was taken.
#[test]
fn a_small_commit_before_one_too_large_for_a_slice_is_folded_once() {
    for (before, filler) in [(0, 10), (3, 10), (0, 600_000), (3, 600_000)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = Options { fold_slice: Duration::from_secs(60), ..lazy() };
        let mut model = Model::new(1, 1);
        if before > 0 {
            let store = open(directory.path(), options.clone());
            model.grow(&store, before, 10);
            store.close().expect("a healthy disk");
        }
        let store = open(directory.path(), options.clone());
        [filler, 1_100_000, 10].into_iter().for_each(|filler| model.grow(&store, 1, filler));
        store.close().expect("a healthy disk");
        assert_clean(directory.path(), model.journal.len());
        model.assert_stored(&open(directory.path(), lazy()));
    }
}

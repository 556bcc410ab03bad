//! Versions, branches, undo.
//!
//! Owns: that going back loses nothing, and that an undo touches nobody else's work.
//! Must not: open a socket. Next: `watch.rs`.

mod support;

use std::time::{Duration, SystemTime};

use autosurgeon::{Hydrate, Reconcile};
use proptest::prelude::*;
use support::{note, put, value};
use syncline::automerge::marks::{ExpandMark, Mark};
use syncline::automerge::transaction::Transactable;
use syncline::automerge::{Author, Automerge, ROOT, ReadDoc, hydrate};
use syncline::value::{Counter, Integer, Text};
use syncline::{ChangeOptions, Document, Error, Options, Repo};

#[derive(Debug, Clone, PartialEq, Hydrate, Reconcile)]
struct Board {
    title: Text,
    votes: Counter,
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Hydrate, Reconcile)]
struct Item {
    #[key]
    id: String,
    text: Text,
    size: Integer,
}

fn item(id: &str) -> Item {
    Item { id: id.to_owned(), text: format!("item {id}").into(), size: 1.into() }
}

fn board(repo: &Repo) -> Document {
    let items = vec![item("a"), item("b"), item("c")];
    repo.create_from(&Board { title: "Plan".into(), votes: Counter::new(1), items }).expect("a document")
}

/// The values, and the marks of the title, which are no value.
fn read(document: &Document) -> (hydrate::Value, Vec<Mark>) {
    let title = document.text(["title"]).expect("a text");
    let value = document.read(|document| document.hydrate(None)).expect("readable");
    (value, title.marks().expect("marks"))
}

fn edit(document: &Document, edit: impl FnOnce(&mut Board)) {
    document.update(edit).expect("a change");
}

/// Another person's copy, and bringing it back.
fn theirs(repo: &Repo, document: &Document, change: impl FnOnce(&Document)) {
    let branch = repo.fork(document).expect("a branch");
    change(&branch);
    document.merge(&branch).expect("a merge");
}

#[test]
fn the_history_says_who_when_and_why() {
    let author = Author::from(b"anna".to_vec());
    let repo = Repo::memory_with(Options { author: Some(author.clone()), ..Options::default() }).expect("a repo");
    let begun = SystemTime::now() - Duration::from_secs(2);
    let document = note(&repo, "one");
    let options = ChangeOptions::message("Say two");
    document.change_with(options, |tx| tx.put(ROOT, "text", "two")).expect("a change");
    put(&document, "text", "three");
    let history = document.history().expect("readable");
    let messages: Vec<_> = history.iter().map(|change| change.message.as_deref()).collect();
    assert_eq!(messages, [None, Some("Say two"), None]);
    for (change, before) in history.iter().skip(1).zip(&history) {
        assert_eq!(change.deps, [before.hash]);
        assert!(change.time.is_some_and(|time| time >= begun), "{change:?}");
        assert_eq!((change.author.as_ref(), &change.actor, change.operations), (Some(&author), &before.actor, 1));
    }
    assert_eq!(document.history_since(&[history[1].hash]).expect("readable"), history[2..]);
}

#[test]
fn each_version_reads_as_it_was() {
    let repo = Repo::memory().expect("a repo");
    let document = board(&repo);
    let first = document.heads();
    edit(&document, |board| {
        board.title.push_str(" B");
        board.items.remove(0);
        board.votes.add(2);
    });
    let then: Board = document.hydrate_at(&first).expect("it fits");
    assert_eq!((then.title.as_str(), then.votes.value(), then.items.len()), ("Plan", 1, 3));
    assert_eq!(then.items[0], item("a"));
    let title = document.read_at(&first, |view| {
        let (_, text) = view.get(&ROOT, "title").expect("readable").expect("a title");
        view.text(&text).expect("a text")
    });
    assert_eq!(title.expect("known heads"), "Plan");
    let forward = document.diff(&first, &document.heads()).expect("readable");
    let backward = document.diff(&document.heads(), &first).expect("readable");
    assert!(!forward.is_empty() && !backward.is_empty());
    let url = document.url_at(&first);
    assert_eq!(url.to_string().parse::<syncline::DocumentUrl>().expect("a URL").heads(), Some(&first[..]));

    let other = note(&repo, "other").heads();
    assert!(
        matches!(document.read_at(&other, |_| ()), Err(Error::UnknownHeads { unknown, .. }) if unknown == other[0])
    );
    assert!(matches!(document.restore(&other), Err(Error::UnknownHeads { .. })));
}

#[test]
fn the_heads_at_a_time_follow_the_clocks_of_the_authors() {
    let repo = Repo::memory().expect("a repo");
    let document = note(&repo, "one");
    let first = document.heads();
    let now = SystemTime::now();
    assert_eq!(document.heads_at(now + Duration::from_secs(60)).expect("readable"), first);
    assert!(document.heads_at(SystemTime::UNIX_EPOCH).expect("readable").is_empty());
    // A change from a clock that is an hour ahead, and one on top of it from a clock that is right.
    let mut ahead = Automerge::load(&document.export().expect("a file")).expect("its own");
    let in_an_hour = now + Duration::from_secs(3_600);
    let time = in_an_hour.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    let mut transaction = ahead.transaction();
    transaction.put(ROOT, "text", "ahead").expect("put");
    transaction.commit_with(syncline::automerge::transaction::CommitOptions::default().with_time(time));
    let document = repo.import(&ahead.save()).expect("a document");
    put(&document, "text", "on top");
    assert_eq!(document.heads_at(now + Duration::from_secs(60)).expect("readable"), first);
    let all = document.heads_at(in_an_hour + Duration::from_secs(60)).expect("readable");
    assert_eq!(all, document.heads());
}

#[test]
fn a_restored_version_is_one_more_change_that_can_be_undone() {
    let repo = Repo::memory().expect("a repo");
    let document = board(&repo);
    let text = document.text(["title"]).expect("a text");
    text.mark(0..4, "bold", true, ExpandMark::After).expect("a mark");
    let (first, then) = (document.heads(), read(&document));
    edit(&document, |board| {
        *board.title = "Something else".to_owned();
        board.items.clear();
        board.votes.add(5);
    });
    document.change(|tx| tx.delete(ROOT, "votes")).expect("a change");
    let (later, before) = (document.heads(), read(&document));
    document.restore(&first).expect("a version");
    assert_eq!(read(&document), then);
    let text = document.text(["title"]).expect("a text");
    assert_eq!(text.marks().expect("marks").len(), 1);
    assert_eq!(document.history_since(&later).expect("readable").len(), 1);
    assert!(document.undo().expect("a step"));
    assert_eq!(read(&document), before);
}

#[test]
fn steps_are_taken_back_one_by_one_and_made_again() {
    let repo = Repo::memory().expect("a repo");
    let document = board(&repo);
    let mut states = vec![read(&document)];
    let text = document.text(["title"]).expect("a text");
    let steps: [&dyn Fn(); 8] = [
        &|| edit(&document, |board| board.title.push_str(" B")),
        &|| edit(&document, |board| board.items.insert(1, item("new"))),
        &|| edit(&document, |board| board.items[1].text.push_str(", changed")),
        &|| edit(&document, |board| board.votes.add(4)),
        &|| edit(&document, |board| drop(board.items.remove(0))),
        &|| edit(&document, |board| board.items[0].size = 9.into()),
        &|| text.mark(0..3, "bold", true, ExpandMark::After).expect("a mark"),
        &|| edit(&document, |board| *board.title = "Another".to_owned()),
    ];
    for step in steps {
        step();
        states.push(read(&document));
    }
    for _ in 0..2 {
        for state in states.iter().rev().skip(1) {
            assert!(document.can_undo() && document.undo().expect("a step"));
            assert_eq!(read(&document), *state);
        }
        for state in &states[1..] {
            assert!(document.can_redo() && document.redo().expect("a step"));
            assert_eq!(read(&document), *state);
        }
    }
    assert!(!document.can_redo() && !document.redo().expect("nothing to do"));
    assert!(document.undo().expect("a step"));
    put(&document, "other", "a change of another kind");
    assert!(!document.can_redo(), "there is nothing to make again after another change");
}

#[test]
fn an_undo_leaves_what_others_did() {
    let repo = Repo::memory().expect("a repo");
    let document = board(&repo);
    edit(&document, |board| {
        board.title.push_str(" for today");
        board.items[0].size = 5.into();
        board.items[1].size = 5.into();
        board.items.push(item("mine"));
        board.items.push(item("shared"));
        board.votes.add(10);
    });
    theirs(&repo, &document, |branch| {
        edit(branch, |board| {
            board.title.insert_str(0, "Our ");
            board.items[1].size = 7.into();
            board.items[4].text.push_str(" with them");
            board.items.insert(0, item("theirs"));
            board.votes.add(100);
        });
    });
    assert!(document.undo().expect("a step"));
    let board: Board = document.hydrate().expect("it fits");
    assert_eq!((board.title.as_str(), board.votes.value()), ("Our Plan", 101));
    let sizes: Vec<_> = board.items.iter().map(|item| (item.id.as_str(), item.size.get())).collect();
    // What they changed of mine is theirs: the size they chose, and the item they wrote in.
    assert_eq!(sizes, [("theirs", 1), ("a", 1), ("b", 7), ("c", 1), ("shared", 1)]);
    assert_eq!(board.items[4].text, "item shared with them");
    assert!(document.redo().expect("a step"));
    let board: Board = document.hydrate().expect("it fits");
    assert_eq!((board.title.as_str(), board.votes.value()), ("Our Plan for today", 111));
    assert_eq!(board.items.iter().find(|item| item.id == "b").map(|item| item.size.get()), Some(7));
}

#[test]
fn what_is_typed_in_one_group_is_one_step() {
    let repo = Repo::memory().expect("a repo");
    let document = repo.create_from(&Item { id: "x".into(), text: "".into(), size: 0.into() }).expect("a document");
    let find = |document: &Automerge| document.get(ROOT, "text").expect("readable").map(|(_, text)| text);
    let field = document.read(find).expect("readable").expect("a text");
    let kind = |at: usize, letter: &str| {
        let options = ChangeOptions::group("typing");
        document.change_with(options, |tx| tx.splice_text(&field, at, 0, letter)).expect("a change");
    };
    ["H", "e", "y"].iter().enumerate().for_each(|(at, letter)| kind(at, letter));
    put(&document, "other", "between");
    kind(3, "!");
    kind(4, "!");
    let text = document.text(["text"]).expect("a text");
    let mut seen = Vec::new();
    while document.can_undo() {
        seen.push(text.read().expect("a text"));
        document.undo().expect("a step");
    }
    assert_eq!(seen, ["Hey!!", "Hey", "Hey"]);
    assert_eq!((text.read().expect("a text").as_str(), value(&document, "id").as_deref()), ("", Some("x")));
}

#[test]
fn a_branch_is_changed_compared_and_merged_back() {
    let repo = Repo::memory().expect("a repo");
    let document = board(&repo);
    let old = document.heads();
    edit(&document, |board| board.title.push_str(" v2"));
    let branch = repo.fork(&document).expect("a branch");
    let early = repo.fork_at(&document, &old).expect("a branch");
    assert_eq!(early.heads(), old);
    edit(&branch, |board| board.items.push(item("branch")));
    edit(&document, |board| board.items.push(item("main")));
    edit(&early, |board| board.votes.add(1));
    let patches = document.compare(&branch).expect("readable");
    assert!(!patches.is_empty());
    let before = document.heads();
    document.merge(&branch).expect("a merge");
    assert!(document.compare(&branch).expect("readable").is_empty());
    document.merge(&early).expect("a merge");
    branch.merge(&document).expect("a merge");
    early.merge(&document).expect("a merge");
    assert!(document.heads() == branch.heads() && document.heads() == early.heads());
    assert_ne!(document.heads(), before);
    let board: Board = document.hydrate().expect("it fits");
    assert_eq!((board.items.len(), board.votes.value()), (5, 2));
    assert!(matches!(document.merge(&note(&repo, "a stranger")), Err(Error::Unrelated { .. })));
}

#[test]
fn a_file_brings_its_history_and_leaves_with_it() {
    let directory = support::directory();
    let repo = support::repo(&directory);
    let document = board(&repo);
    edit(&document, |board| board.title.push('!'));
    let file = document.export().expect("a file");
    let copy = repo.import(&file).expect("a document");
    assert_ne!(copy.url(), document.url());
    assert_eq!((copy.heads(), read(&copy)), (document.heads(), read(&document)));
    edit(&copy, |board| board.title.push('?'));
    let url = copy.url();
    drop(copy);
    support::block_on(repo.close()).expect("a clean close");
    drop(document);
    let repo = support::repo(&directory);
    let copy = repo.find_local(&url).expect("stored");
    assert_eq!(copy.hydrate::<Board>().expect("it fits").title, "Plan!?");
    assert_eq!(copy.history().expect("readable").len(), 3);
    for damaged in [&b""[..], b"no file", &file[..file.len() / 2]] {
        assert!(matches!(repo.import(damaged), Err(Error::Import { .. })) || damaged.is_empty(), "{}", damaged.len());
    }
}

/// What somebody does to the board.
#[derive(Debug, Clone)]
enum Act {
    Type(usize, String),
    Erase(usize, usize),
    Add(String),
    Remove(usize),
    Resize(usize, u32),
    Vote(i64),
    Mark(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..20usize, "[a-zé🎉]{1,4}").prop_map(|(at, text)| Act::Type(at, text)),
        (0..20usize, 1..5usize).prop_map(|(at, count)| Act::Erase(at, count)),
        "[a-z]{8}".prop_map(Act::Add),
        (0..6usize).prop_map(Act::Remove),
        (0..6usize, any::<u32>()).prop_map(|(at, size)| Act::Resize(at, size)),
        (-9..9i64).prop_map(Act::Vote),
        (0..9usize, 1..9usize).prop_map(|(at, count)| Act::Mark(at, count)),
    ]
}

fn perform(document: &Document, act: &Act) {
    let title = document.text(["title"]).expect("a text");
    let length = title.length().expect("a length");
    match act {
        Act::Type(at, text) => title.splice(*at.min(&length), 0, text).expect("an edit"),
        Act::Erase(at, count) => {
            let at = *at.min(&length);
            title.splice(at, *count.min(&(length - at)), "").expect("an edit");
        }
        Act::Add(id) => edit(document, |board| board.items.push(item(id))),
        Act::Remove(at) => edit(document, |board| drop((*at < board.items.len()).then(|| board.items.remove(*at)))),
        Act::Resize(at, size) => edit(document, |board| {
            if let Some(item) = board.items.get_mut(*at) {
                item.size = (*size).into();
            }
        }),
        Act::Vote(by) => edit(document, |board| board.votes.add(*by)),
        Act::Mark(at, count) => {
            // A mark over another one changes nothing that can be seen.
            let marks = title.marks().expect("marks");
            let taken = marks.iter().any(|mark| mark.start < at + count && *at < mark.end);
            if !taken && at + count <= length {
                title.mark(*at..at + count, "bold", true, ExpandMark::After).expect("a mark");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn undoing_everything_alone_leads_back_and_redoing_leads_forth(acts in prop::collection::vec(act(), 1..12)) {
        let repo = Repo::memory().expect("a repo");
        let document = board(&repo);
        let start = read(&document);
        let mut states = Vec::new();
        for act in &acts {
            let before = document.heads();
            perform(&document, act);
            if document.heads() != before {
                states.push(read(&document));
            }
        }
        for state in states.iter().rev().skip(1).chain([&start]).take(states.len()) {
            prop_assert!(document.undo().expect("a step"));
            prop_assert_eq!(&read(&document), state);
        }
        for state in &states {
            prop_assert!(document.redo().expect("a step"));
            prop_assert_eq!(&read(&document), state);
        }
    }

    #[test]
    fn undoing_everything_leaves_exactly_what_the_other_did(
        mine in prop::collection::vec(act(), 1..8),
        other in prop::collection::vec(act(), 1..8),
    ) {
        // Of the things that do not meet: text and votes. What meets is in the test above.
        let apart = |act: &&Act| matches!(act, Act::Type(..) | Act::Vote(_));
        let repo = Repo::memory().expect("a repo");
        let document = board(&repo);
        let alone = repo.fork(&document).expect("a branch");
        let branch = repo.fork(&document).expect("a branch");
        mine.iter().filter(apart).for_each(|act| perform(&document, act));
        for act in other.iter().filter(apart) {
            perform(&branch, act);
            perform(&alone, act);
        }
        document.merge(&branch).expect("a merge");
        while document.undo().expect("a step") {}
        let (left, expected): (Board, Board) = (document.hydrate().expect("it fits"), alone.hydrate().expect("it fits"));
        prop_assert_eq!(left.votes.value(), expected.votes.value());
        prop_assert_eq!(left.title, expected.title);
    }
}

//! Structs, text, counters: what an application sees of a document's types.
//!
//! Owns: merging of typed values, and the words of their errors. Must not: need a server.
//! Next: `javascript.rs`, the same types on the other side.

mod support;

use autosurgeon::{Hydrate, Reconcile};
use syncline::automerge::marks::ExpandMark;
use syncline::automerge::transaction::Transactable;
use syncline::automerge::{ObjType, ROOT, TextEncoding};
use syncline::value::{Counter, Date, INTEGER_MAX, Integer, Number, Text};
use syncline::{Document, Error, Options, Repo};

#[derive(Debug, Clone, PartialEq, Hydrate, Reconcile)]
struct Note {
    title: Text,
    stars: Counter,
    year: Integer,
    weight: Number,
    due: Option<Date>,
    #[autosurgeon(missing = "Default::default")]
    tags: Vec<Text>,
}

fn a_note() -> Note {
    Note {
        title: "Grüße 🎉".into(),
        stars: Counter::new(3),
        year: 1985.into(),
        weight: 1.5.into(),
        due: Some(Date::from_millis(-1)),
        tags: vec!["one".into(), "two".into()],
    }
}

fn reason_of<T: Hydrate + std::fmt::Debug>(document: &Document) -> (String, String) {
    let error = document.hydrate::<T>().expect_err("it does not fit");
    let Error::Shape { path, reason, .. } = error else { panic!("{error:?}") };
    (path, reason)
}

#[test]
fn a_struct_comes_back_as_it_was_written() {
    let repo = Repo::memory().expect("a repo");
    let document = repo.create_from(&a_note()).expect("a document");
    assert_eq!(document.hydrate::<Note>().expect("it fits"), a_note());
    let changed = document.update(|note: &mut Note| {
        note.title.push_str(", Welt");
        note.stars.add(-1);
        note.due = None;
        note.tags.remove(0);
        note.title.len()
    });
    assert_eq!(changed.expect("a change"), "Grüße 🎉, Welt".len());
    let expected = Note {
        title: "Grüße 🎉, Welt".into(),
        stars: Counter::new(2),
        due: None,
        tags: vec!["two".into()],
        ..a_note()
    };
    assert_eq!(document.hydrate::<Note>().expect("it fits"), expected);
}

#[test]
fn an_update_that_changes_nothing_is_no_change() {
    let repo = Repo::memory().expect("a repo");
    let document = repo.create_from(&a_note()).expect("a document");
    let heads = document.heads();
    document.update(|_: &mut Note| ()).expect("nothing to do");
    assert_eq!(document.heads(), heads);
    document.reconcile(&document.hydrate::<Note>().expect("it fits")).expect("nothing to do");
    assert_eq!(document.heads(), heads);
}

#[test]
fn edits_of_one_text_and_one_counter_both_stay() {
    let repo = Repo::memory().expect("a repo");
    let document = repo.create_from(&a_note()).expect("a document");
    // Somebody else's edits, made at the same time.
    let mut theirs = document.read(|document| document.fork()).expect("readable");
    let mut transaction = theirs.transaction();
    let mut note: Note = autosurgeon::hydrate(&transaction).expect("it fits");
    note.title.0 = format!("Liebe {}", note.title);
    note.stars.add(10);
    autosurgeon::reconcile(&mut transaction, &note).expect("a change");
    transaction.commit();
    document
        .update(|note: &mut Note| {
            note.title.push('!');
            note.stars.add(1);
        })
        .expect("a change");
    let mut ours = document.read(|document| document.fork()).expect("readable");
    ours.merge(&mut theirs).expect("a merge");
    let merged: Note = autosurgeon::hydrate(&ours).expect("it fits");
    assert_eq!((merged.title.as_str(), merged.stars.value()), ("Liebe Grüße 🎉!", 14));
}

#[test]
fn an_error_names_the_field_and_the_type_that_reads_it() {
    #[derive(Debug, Hydrate)]
    #[expect(dead_code, reason = "only read from the document")]
    struct List {
        items: Vec<Item>,
    }
    #[derive(Debug, Hydrate)]
    #[expect(dead_code, reason = "only read from the document")]
    struct Item {
        title: String,
    }
    let repo = Repo::memory().expect("a repo");
    let fill = |value: Option<&'static str>| {
        repo.create(|tx| {
            let items = tx.put_object(ROOT, "items", ObjType::List)?;
            let item = tx.insert_object(&items, 0, ObjType::Map)?;
            match value {
                Some(value) => {
                    let text = tx.put_object(&item, "title", ObjType::Text)?;
                    tx.splice_text(&text, 0, 0, value)
                }
                None => tx.put(&item, "title", 1.5),
            }
        })
        .expect("a document")
    };
    let (path, reason) = reason_of::<List>(&fill(Some("text")));
    assert_eq!(path, "items[0].title");
    assert!(reason.contains("syncline::value::Text"), "{reason}");
    let (_, reason) = reason_of::<List>(&fill(None));
    assert!(reason.contains("a float"), "{reason}");
    let empty = repo.create(|_| Ok(())).expect("a document");
    let (path, reason) = reason_of::<List>(&empty);
    assert!(path == "items" && reason.contains("missing"), "{path}: {reason}");
    let failed = empty.update(|_: &mut Note| ()).expect_err("it does not fit");
    assert!(matches!(failed, Error::Shape { ref path, .. } if path == "title"), "{failed:?}");
}

#[test]
fn numbers_that_javascript_would_misread_are_refused() {
    assert!(Integer::try_from(INTEGER_MAX).is_ok() && Integer::try_from(-INTEGER_MAX).is_ok());
    for too_large in [INTEGER_MAX + 1, i64::MIN] {
        assert!(Integer::try_from(too_large).is_err(), "{too_large}");
    }
    #[derive(Debug, Hydrate)]
    #[expect(dead_code, reason = "only read from the document")]
    struct Read {
        n: Integer,
    }
    let repo = Repo::memory().expect("a repo");
    for (value, whole) in [(2.0, true), (2.5, false), (1e300, false), (f64::NAN, false)] {
        let document = repo.create(|tx| tx.put(ROOT, "n", value)).expect("a document");
        assert_eq!(document.hydrate::<Read>().is_ok(), whole, "{value}");
    }
    let document = repo.create(|tx| tx.put(ROOT, "n", u64::MAX)).expect("a document");
    assert!(reason_of::<Read>(&document).1.contains("2^53"));
}

#[test]
fn what_is_no_struct_or_out_of_date_is_an_error() {
    let repo = Repo::memory().expect("a repo");
    assert!(matches!(repo.create_from(&Text::from("alone")), Err(Error::NotAMap { .. })));
    assert!(repo.list().expect("a list").is_empty(), "nothing was made");
    #[derive(Hydrate, Reconcile)]
    struct Held {
        body: autosurgeon::Text,
    }
    let document = repo.create_from(&Held { body: "a".into() }).expect("a document");
    let mut held: Held = document.hydrate().expect("it fits");
    document.text(["body"]).expect("a text").splice(1, 0, "b").expect("an edit");
    held.body.splice(0, 0, "c");
    assert!(matches!(document.reconcile(&held), Err(Error::Stale { .. })));
}

#[test]
fn cursors_and_marks_stay_at_their_characters() {
    let repo = Repo::memory().expect("a repo");
    let document = repo.create_from(&a_note()).expect("a document");
    let title = document.text(["title"]).expect("a text");
    let (cursor, end) = (title.cursor(6).expect("a cursor"), title.cursor(7).expect("the end"));
    title.mark(0..5, "bold", true, ExpandMark::After).expect("a mark");
    title.splice(0, 0, "Viele ").expect("an edit");
    assert_eq!(title.position(&cursor).expect("a position"), 12);
    assert_eq!(title.position(&end).expect("a position"), title.length().expect("a length"));
    let marks = title.marks().expect("marks");
    assert_eq!(marks.iter().map(|mark| (mark.start, mark.end)).collect::<Vec<_>>(), [(6, 11)]);
    title.unmark(6..11, "bold", ExpandMark::After).expect("a change");
    assert!(title.marks().expect("marks").is_empty());
    title.update("Viele Grüße").expect("an edit");
    assert_eq!(title.read().expect("a text"), "Viele Grüße");
    for path in ["nothing", "year"] {
        let error = document.text([path]).expect_err("no text");
        assert!(matches!(&error, Error::NoText { path: named, .. } if named == path), "{error:?}");
    }
    assert!(matches!(title.splice(100, 0, "x"), Err(Error::Edit(_))));
}

#[test]
fn positions_count_in_the_unit_that_the_repo_was_opened_with() {
    let length = |text_encoding| {
        let repo = Repo::memory_with(Options { text_encoding, ..Options::default() }).expect("a repo");
        let document = repo.create_from(&a_note()).expect("a document");
        document.text(["title"]).expect("a text").length().expect("a length")
    };
    assert_eq!(length(TextEncoding::UnicodeCodePoint), 7);
    assert_eq!(length(TextEncoding::Utf16CodeUnit), 8);
    assert_eq!(length(TextEncoding::Utf8CodeUnit), "Grüße 🎉".len());
}

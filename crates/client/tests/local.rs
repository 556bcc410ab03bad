//! A repo on its own: without a server, most of it without a runtime of the caller's.
//!
//! Owns: what "saved here" means. Must not: open a socket that listens.
//! Next: `sync.rs`.

mod support;

use std::process::Command;
use std::sync::Barrier;

use support::{block_on, is_ready, note, put, value};
use syncline::automerge::transaction::Transactable;
use syncline::automerge::{AutomergeError, ROOT};
use syncline::{DocumentUrl, Error, OnServer, Options, Repo, Saved};

/// Names the directory to a child process.
const CHILD: &str = "SYNCLINE_TEST_CHILD";

#[test]
fn what_was_changed_is_there_when_the_repo_is_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let repo = Repo::open(directory.path()).expect("a repo");
    let first = note(&repo, "one");
    put(&first, "text", "two");
    let (url, heads) = (first.url(), first.heads());
    drop(first);
    block_on(repo.close()).expect("a clean close");

    let repo = Repo::open(directory.path()).expect("the same repo");
    let found = repo.find_local(&url).expect("stored");
    assert_eq!((value(&found, "text").as_deref(), found.heads()), (Some("two"), heads));
    assert_eq!(found.status().saved, Saved::Here);
    put(&found, "text", "three");
    let actors = found.read(|doc| doc.get_changes(&[]).iter().map(|c| c.actor_id().clone()).collect::<Vec<_>>());
    let actors = actors.expect("readable");
    assert_eq!(actors[0], actors[1], "one opening, one actor");
    assert_ne!(actors[1], actors[2], "an actor is never continued");
}

#[test]
fn a_drop_keeps_what_was_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = {
        let repo = Repo::open(directory.path()).expect("a repo");
        let documents: Vec<_> = (0..50).map(|n| note(&repo, &n.to_string())).collect();
        documents[49].url()
    };
    let repo = Repo::open(directory.path()).expect("the directory is free again");
    assert_eq!(value(&repo.find_local(&url).expect("stored"), "text").as_deref(), Some("49"));
    assert_eq!(repo.list().expect("a list").len(), 50);
}

#[test]
fn what_is_saved_survives_the_end_of_the_process() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let repo = Repo::open(directory).expect("a repo");
        let document = note(&repo, "before the end");
        block_on(document.saved()).expect("saved");
        println!("saved:{}:", document.url().id());
        std::process::abort();
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(["--exact", "what_is_saved_survives_the_end_of_the_process", "--nocapture"]);
    let output = child.env(CHILD, directory.path()).output().expect("a child process");
    assert!(!output.status.success(), "it aborts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let id = text.split("saved:").nth(1).and_then(|rest| rest.split(':').next()).expect("it came so far");
    let repo = Repo::open(directory.path()).expect("a repo");
    let found = repo.find_local(&format!("automerge:{id}").parse().expect("a URL")).expect("stored");
    assert_eq!(value(&found, "text").as_deref(), Some("before the end"));
}

#[test]
fn a_second_repo_in_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = Repo::open(directory.path()).expect("a repo");
    let error = Repo::open(directory.path()).expect_err("in use");
    assert!(matches!(error, Error::Store(_)), "{error:?}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn a_watcher_gets_the_latest_state_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let repo = Repo::open(directory.path()).expect("a repo");
    let document = note(&repo, "0");
    let mut watch = document.watch();
    assert!(!is_ready(watch.changed()), "what was before is no news");
    for n in 0..1_000 {
        put(&document, "text", &n.to_string());
    }
    assert_eq!(block_on(watch.changed()).expect("open").after, document.heads());
    assert!(!is_ready(watch.changed()), "a thousand changes are one piece of news for a slow watcher");
    block_on(repo.close()).expect("a clean close");
    assert!(matches!(block_on(watch.changed()), Err(Error::Closed)));
}

#[test]
fn a_closure_that_fails_or_panics_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let repo = Repo::open(directory.path()).expect("a repo");
    let document = note(&repo, "kept");
    let heads = document.heads();
    let failed = document.change(|tx| {
        tx.put(ROOT, "text", "lost")?;
        Err::<(), _>(AutomergeError::Fail)
    });
    assert!(matches!(failed, Err(Error::Edit(AutomergeError::Fail))));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = document.change(|tx| {
            tx.put(ROOT, "text", "lost")?;
            if tx.pending_ops() > 0 { panic!("the application's own") } else { Ok(()) }
        });
    }));
    assert!(panicked.is_err());
    assert_eq!((value(&document, "text").as_deref(), document.heads()), (Some("kept"), heads));
    put(&document, "text", "goes on");
    block_on(document.saved()).expect("saved");
}

#[test]
fn a_change_that_nobody_would_take_leaves_the_document_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = Options::default();
    options.limits.change_operations_max = 10;
    options.limits.document_operations_max = 100;
    let repo = Repo::open_with(directory.path(), options).expect("a repo");
    let document = note(&repo, "kept");
    let many = |count: u64| {
        // automerge makes no operation of a value that is there already.
        let value = document.heads()[0].to_string();
        document.change(|tx| (0..count).try_for_each(|n| tx.put(ROOT, format!("key {n}"), value.as_str())))
    };
    let error = many(11).expect_err("too many at once");
    assert!(matches!(error, Error::TooManyOperations { operations: 11, operations_max: 10 }), "{error:?}");
    for _ in 0..9 {
        many(10).expect("as many as may be");
    }
    let heads = document.heads();
    let error = many(10).expect_err("too many in the document");
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(document.heads(), heads);
    put(&document, "text", "goes on");
    block_on(document.saved()).expect("saved");
    assert_eq!(value(&document, "text").as_deref(), Some("goes on"));
}

#[test]
fn what_cannot_be_saved_is_said_and_stays_in_sight() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = Options::default();
    options.store.pages_max = Some(64);
    let repo = Repo::open_with(directory.path(), options).expect("a repo");
    let small = note(&repo, "small");
    block_on(small.saved()).expect("there is room");
    let large = repo.create(|tx| tx.put(ROOT, "text", "x".repeat(1_000_000))).expect("a document");
    assert!(matches!(block_on(large.saved()), Err(Error::NotSaved { .. })));
    put(&large, "title", "still here");
    assert!(matches!(&large.status().saved, Saved::Failed { changes: 2, reason } if reason.contains("full")));
    assert_eq!(value(&large, "title").as_deref(), Some("still here"));
    assert!(repo.list().expect("a list").contains(&large.url()));
    // A document whose last handle is gone is not forgotten while something of it is in memory only.
    let url = large.url();
    drop(large);
    let large = repo.find_local(&url).expect("still in memory");
    assert_eq!(value(&large, "title").as_deref(), Some("still here"));
    assert!(matches!(block_on(repo.close()), Err(Error::NotSaved { .. })), "a close does not hide it");
    assert!(matches!(block_on(large.saved()), Err(Error::NotSaved { .. })));
    assert!(matches!(small.status().saved, Saved::Here));
}

#[test]
fn what_was_saved_while_the_repo_closed_is_kept() {
    for round in 0..20 {
        let directory = tempfile::tempdir().expect("a directory");
        let repo = Repo::open(directory.path()).expect("a repo");
        let document = note(&repo, "start");
        block_on(document.saved()).expect("saved");
        let (url, writer, start) = (document.url(), document.clone(), Barrier::new(2));
        let kept = std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                start.wait();
                let mut saved = None;
                for n in 0..=round * 5 {
                    if writer.change(|tx| tx.put(ROOT, "n", i64::from(n))).is_err() || block_on(writer.saved()).is_err()
                    {
                        break;
                    }
                    saved = Some(writer.heads());
                }
                saved
            });
            start.wait();
            block_on(repo.close()).expect("everything handed over is saved");
            writing.join().expect("no panic")
        });
        let accepted = document.heads();
        assert!(matches!(document.change(|tx| tx.put(ROOT, "n", 0)), Err(Error::Closed)));
        drop((document, writer));
        let repo = Repo::open(directory.path()).expect("the directory is free again");
        let found = repo.find_local(&url).expect("stored");
        assert_eq!(found.heads(), accepted, "what was accepted is kept, saved or not: {kept:?}");
        if let Some(kept) = kept {
            assert_eq!(kept, accepted, "nothing is called saved that is not there");
        }
    }
}

#[test]
fn status_tells_what_is_true_without_a_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let repo = Repo::open(directory.path()).expect("a repo");
    let document = note(&repo, "here");
    assert!(!is_ready(document.on_server()));
    block_on(document.saved()).expect("saved");
    let status = document.status();
    assert_eq!((status.saved, status.server), (Saved::Here, OnServer::Offline { confirmed: false }));
}

#[test]
fn what_is_nowhere_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let repo = Repo::open(directory.path()).expect("a repo");
    let url: DocumentUrl = "automerge:11111111111111114Ki9Gx".parse().expect("a URL");
    assert!(matches!(repo.find_local(&url), Err(Error::NotHere { .. })));
    assert!(matches!(block_on(repo.find(&url)), Err(Error::NoServer { .. })));
    assert!(repo.list().expect("a list").is_empty(), "looking for a document does not make one");
    for text in ["", "localhost:3030", "http://127.0.0.1"] {
        assert!(matches!(repo.connect(text), Err(Error::Address(_))), "{text}");
    }
    let other = repo.clone();
    block_on(repo.close()).expect("a clean close");
    assert!(matches!(block_on(other.find(&url)), Err(Error::Closed)));
    assert!(matches!(other.connect("ws://127.0.0.1:1"), Err(Error::Closed)));
    assert!(matches!(other.create(|_| Ok(())), Err(Error::Closed)));
}

#[test]
fn a_document_made_empty_is_a_document() {
    let directory = tempfile::tempdir().expect("a directory");
    let repo = Repo::open(directory.path()).expect("a repo");
    let document = repo.create(|_| Ok(())).expect("a document");
    block_on(document.saved()).expect("saved");
    assert_eq!(repo.list().expect("a list"), [document.url()]);
    document.change(|_| Ok(())).expect("nothing to do");
    assert_eq!(document.heads().len(), 1, "a change that does nothing is none");
}

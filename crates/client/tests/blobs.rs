//! Blobs between repos, with a server in this process.
//!
//! Owns: what an application is promised of attachments. Must not: assert times, or look at messages.
//! Next: `receipts.rs`; docs/blobs.md, tests/e2e/tests/blobs.rs for kills and for HTTP.

mod support;

use std::time::Duration;

use autosurgeon::{Hydrate, Reconcile};
use futures_util::StreamExt;
use support::{address, directory, on_server, repo, serve, serve_with, within};
use syncline::automerge::{ROOT, ReadDoc};
use syncline::value::{Blob, Text};
use syncline::{BlobHash, BlobRefusal, Error, Options, Repo};
use syncline_core::limits::Limits;

/// Content of so many bytes that no two calls share.
fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 3 + at / 65_536 * 7) as u8 ^ seed).collect()
}

fn status(repo: &Repo, blob: &Blob) -> syncline::BlobStatus {
    repo.blob_status(blob).expect("a readable disk")
}

/// Waits until the status is as it should be.
async fn until(repo: &Repo, blob: &Blob, wanted: impl Fn(&syncline::BlobStatus) -> bool) {
    let looking = async {
        while !wanted(&status(repo, blob)) {
            tokio::task::yield_now().await;
        }
    };
    within("the blob's status is as it should be", looking).await;
}

async fn blob_on_server(repo: &Repo, blob: &Blob) {
    within("the blob is on the server", repo.blob_on_server(blob)).await.expect("it is here");
}

#[derive(Debug, PartialEq, Hydrate, Reconcile)]
struct Note {
    text: Text,
    picture: Blob,
    more: Vec<Blob>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attachment_put_offline_reaches_another_device_and_is_read_there() {
    let (data, here, there) = (directory(), directory(), directory());
    let author = repo(&here);
    let large = content(1, 300_000);
    let picture = author.put_blob(large.clone()).await.expect("room").named("Katze 🐈.png", "image/png");
    let small = author.put_blob_from(&b"small"[..]).await.expect("room");
    assert_eq!((picture.hash(), small.hash()), (BlobHash::of(&large), BlobHash::of(b"small")));
    let note = Note { text: "Look!".into(), picture: picture.clone(), more: vec![small.clone()] };
    let document = author.create_from(&note).expect("a document");
    assert!(status(&author, &picture).here && !status(&author, &picture).on_server);
    author.close().await.expect("a clean close");

    // What was put before the restart goes up after it.
    let (author, server) = (repo(&here), serve(data.path(), None).await);
    let document = author.find_local(&document.url()).expect("it is here");
    let _author_link = author.connect(&address(&server)).expect("an address");
    blob_on_server(&author, &picture).await;
    blob_on_server(&author, &small).await;
    on_server(&document).await;

    let reader = repo(&there);
    let _link = reader.connect(&address(&server)).expect("an address");
    let found = within("it is found", reader.find(&document.url())).await.expect("it is on the server");
    assert_eq!(found.hydrate::<Note>().expect("the same"), note);
    let read = within("it is fetched", reader.read_blob(&picture)).await.expect("it is on the server");
    assert_eq!(read, large);
    let range = reader.read_blob_range(&picture, 65_530..65_540).await.expect("it is here now");
    assert_eq!(range, large[65_530..65_540]);
    until(&reader, &picture, |status| status.on_server).await;
    assert!(
        matches!(reader.read_blob_range(&small, 0..1).await, Err(Error::BlobNotHere { .. })),
        "nobody asked for it"
    );
    server.stop().await;
    assert_eq!(reader.read_blob(&picture).await.expect("it is here"), large);
    assert_eq!(reader.blobs().expect("a readable disk").len(), 1);
}

#[test]
fn a_field_that_gets_another_blob_gets_another_map() {
    let repo = Repo::memory().expect("a repo");
    let blob = |n: u8| Blob::new(BlobHash::of(&[n]), 1);
    let note = Note { text: "a".into(), picture: blob(1), more: vec![blob(2), blob(3)] };
    let document = repo.create_from(&note).expect("a document");
    let copy = repo.fork(&document).expect("a branch");
    let set = |document: &syncline::Document, n| {
        document.update(|note: &mut Note| note.picture = blob(n)).expect("a change");
    };
    set(&document, 4);
    set(&copy, 5);
    document.merge(&copy).expect("the same history");
    let merged = document.hydrate::<Note>().expect("no mixture of two addresses").picture;
    assert!([blob(4), blob(5)].contains(&merged));
    let both = document.read(|doc| doc.get_all(ROOT, "picture").expect("readable").len()).expect("shown");
    assert_eq!(both, 2, "the other is told as a conflict");
    document.update(|note: &mut Note| note.picture = merged.clone().named("b.txt", "text/plain")).expect("a change");
    assert_eq!(document.hydrate::<Note>().expect("readable").picture.name.as_deref(), Some("b.txt"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_says_how_far_it_is_and_what_stands_against_it() {
    let (data, here) = (directory(), directory());
    let (author, reader) =
        (repo(&here), Repo::memory_with(Options { find_timeout: Duration::from_millis(200), ..Options::default() }));
    let reader = reader.expect("a repo");
    let blob = author.put_blob(content(2, 1_000_000)).await.expect("room");
    let error = reader.fetch_blob(&blob).expect("open").done().await.expect_err("nobody to ask");
    assert!(matches!(error, Error::BlobNoServer { .. }), "{error}");

    let server = serve(data.path(), None).await;
    let link = reader.connect(&address(&server)).expect("an address");
    within("it is connected", link.connected()).await.expect("open");
    let error = reader.fetch_blob(&blob).expect("open").done().await.expect_err("nobody has it");
    assert!(matches!(error, Error::BlobUnavailable { .. }), "{error}");

    let _link = author.connect(&address(&server)).expect("an address");
    blob_on_server(&author, &blob).await;
    assert_eq!(status(&author, &blob).sent, 1_000_000);
    let progress = Box::pin(reader.fetch_blob(&blob).expect("open").into_stream());
    let progress: Vec<_> = within("it is fetched", progress.collect()).await;
    let held: Vec<_> = progress.iter().map(|progress| progress.as_ref().expect("it goes on").held).collect();
    assert!(held.is_sorted() && held.first() == Some(&0) && held.last() == Some(&1_000_000), "{held:?}");

    let unknown = Blob::new(BlobHash::of(b"unknown"), 7);
    let gone = server.address();
    server.stop().await;
    let error = within("it is given up", reader.fetch_blob(&unknown).expect("open").done()).await;
    let error = error.expect_err("the server is gone");
    assert!(matches!(error, Error::BlobTimeout { .. }), "{gone}: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_was_dropped_is_gone_on_with_from_what_has_come() {
    let (data, here, there) = (directory(), directory(), directory());
    let (author, server) = (repo(&here), serve(data.path(), None).await);
    let large = content(3, 4_000_000);
    let blob = author.put_blob(large.clone()).await.expect("room");
    let _author_link = author.connect(&address(&server)).expect("an address");
    blob_on_server(&author, &blob).await;

    let reader = repo(&there);
    let link = reader.connect(&address(&server)).expect("an address");
    let fetch = reader.fetch_blob(&blob).expect("open");
    let mut progress = fetch.progress();
    while progress.held == 0 {
        progress = within("something has come", fetch.progress_changed(&progress)).await.expect("it is on the server");
    }
    assert!(!progress.done, "4 MB do not come in one step");
    drop(fetch);
    drop(link);
    reader.close().await.expect("a clean close");
    let reader = repo(&there);
    let held = status(&reader, &blob).held;
    assert!(held >= progress.held && held < 4_000_000, "{held} bytes were kept");
    let sent_before = server.replica().metrics().blob_bytes_out.get();
    let _link = reader.connect(&address(&server)).expect("an address");
    assert_eq!(within("it is fetched", reader.read_blob(&blob)).await.expect("it is on the server"), large);
    let sent = server.replica().metrics().blob_bytes_out.get() - sent_before;
    assert_eq!(sent, 4_000_000 - held, "nothing that was here came again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_evicted_only_when_a_server_has_the_blob() {
    let (data, here) = (directory(), directory());
    let author = repo(&here);
    let (kept, content) = (author.put_blob("kept").await.expect("room"), content(4, 100_000));
    let blob = author.put_blob(content.clone()).await.expect("room");
    assert!(matches!(author.evict_blob(&blob).await, Err(Error::BlobOnlyHere { .. })));
    assert!(status(&author, &blob).here);

    let server = serve(data.path(), None).await;
    let link = author.connect(&address(&server)).expect("an address");
    within("it is connected", link.connected()).await.expect("open");
    within("the server has it", author.evict_blob(&blob)).await.expect("it has");
    assert_eq!(status(&author, &blob).held, 0);
    assert_eq!(author.blobs().expect("readable"), [Blob::new(kept.hash(), 4)]);
    assert_eq!(within("it is fetched", author.read_blob(&blob)).await.expect("it is on the server"), content);
    // That a server had it once is not enough.
    blob_on_server(&author, &blob).await;
    server.stop().await;
    assert!(matches!(within("it is given up", author.evict_blob(&blob)).await, Err(Error::BlobOnlyHere { .. })));
    author.delete_blob(&blob).await.expect("room");
    assert!(!status(&author, &blob).here);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_has_no_room_for_stays_here_and_goes_up_to_the_next() {
    let (data, other, here) = (directory(), directory(), directory());
    let limits = Limits { blob_bytes_max: 300_000, blobs_bytes_max: 400_000, ..Limits::default() };
    let full = serve_with(data.path(), None, limits).await;
    let author = repo(&here);
    let too_large = author.put_blob(content(5, 300_001)).await.expect("room");
    let link = author.connect(&address(&full)).expect("an address");
    until(&author, &too_large, |status| status.complaint.as_deref().is_some_and(|it| it.contains("too large"))).await;
    let fits = author.put_blob(content(6, 300_000)).await.expect("room");
    blob_on_server(&author, &fits).await;
    let no_room = author.put_blob(content(7, 200_000)).await.expect("room");
    until(&author, &no_room, |status| status.complaint.as_deref().is_some_and(|it| it.contains("no room"))).await;
    assert!(full.replica().store().blob_bytes() <= 400_000);
    assert!(status(&author, &no_room).here && !status(&author, &no_room).on_server);
    // Documents go on.
    on_server(&support::note(&author, "one")).await;

    drop(link);
    full.stop().await;
    let server = serve(other.path(), None).await;
    let _link = author.connect(&address(&server)).expect("an address");
    for blob in [&too_large, &no_room] {
        blob_on_server(&author, blob).await;
        assert_eq!(status(&author, blob).complaint, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_limits_too_and_an_empty_blob_is_one() {
    let limits = Limits { blob_bytes_max: 10, ..Limits::default() };
    let repo = Repo::memory_with(Options { limits, ..Options::default() }).expect("a repo");
    let error = repo.put_blob(vec![0; 11]).await.expect_err("too large");
    assert!(matches!(error, Error::BlobTooLarge { bytes_max: 10 }), "{error}");
    let referred = Blob::new(BlobHash([1; 32]), 11);
    let error = repo.fetch_blob(&referred).expect("open").done().await.expect_err("too large");
    assert!(matches!(error, Error::BlobRefused { reason: BlobRefusal::TooLarge, .. }), "{error}");
    let empty = repo.put_blob("").await.expect("room");
    assert_eq!(repo.read_blob(&empty).await.expect("it is here").len(), 0);
    assert_eq!(repo.blobs().expect("readable"), [empty], "nothing is left of the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_fails_leaves_nothing() {
    struct Broken(u32);
    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 3 { Err(std::io::Error::other("the stick was pulled")) } else { Ok(buffer.len()) }
        }
    }
    let repo = Repo::memory().expect("a repo");
    let error = repo.put_blob_from(Broken(0)).await.expect_err("it fails");
    assert!(matches!(error, Error::BlobRead(_)), "{error}");
    assert_eq!(repo.blobs().expect("readable"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_copy_is_mended_from_the_server() {
    let (data, here) = (directory(), directory());
    let (author, server) = (repo(&here), serve(data.path(), None).await);
    let content = content(8, 500_000);
    let blob = author.put_blob(content.clone()).await.expect("room");
    let link = author.connect(&address(&server)).expect("an address");
    blob_on_server(&author, &blob).await;
    drop(link);
    author.close().await.expect("a clean close");
    let file = rusqlite::Connection::open(here.path().join("syncline.db")).expect("nobody has it open");
    let damage = "UPDATE blob_piece SET data = zeroblob(65536) WHERE (place & 16777215) = 3";
    assert_eq!(file.execute(damage, []).expect("damaged"), 1);
    drop(file);

    let author = repo(&here);
    assert!(author.read_blob_range(&blob, 0..10).await.is_ok(), "what is not damaged can be read");
    let link = author.connect(&address(&server)).expect("an address");
    within("it is connected", link.connected()).await.expect("open");
    let sent_before = server.replica().metrics().blob_bytes_out.get();
    assert_eq!(within("it is mended", author.read_blob(&blob)).await.expect("the server has it"), content);
    let sent = server.replica().metrics().blob_bytes_out.get() - sent_before;
    assert_eq!(sent, 500_000 - 3 * 65_536, "only from the damage on");
}

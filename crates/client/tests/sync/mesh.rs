//! Repos that find each other without a server: real sockets, real stores, one process.
//!
//! Owns: what a mesh promises an application. Must not: know how it does it. Next: `../../src/mesh.rs`; docs/gossip.md.

use syncline::mesh::{MeshConfig, MeshKey, MeshStatus};
use syncline::{Document, Error, Mesh, Origin, Repo, block_on};

use syncline_replica::MeshOptions;
use syncline_server::Server;

use crate::support::{self, directory, note, put, serve, value, within};

fn config(key: &str) -> MeshConfig {
    MeshConfig::new(MeshKey::open(key)).listen(([127, 0, 0, 1], 0).into())
}

/// A repo in a mesh that knows these others.
async fn member(key: &str, others: &[&Mesh]) -> (Repo, Mesh) {
    let repo = Repo::memory().expect("a repo");
    let mut config = config(key);
    for other in others {
        config = config.peer(&address(other)).expect("an address");
    }
    let mesh = repo.join_mesh(config).await.expect("it joins");
    (repo, mesh)
}

fn address(mesh: &Mesh) -> String {
    format!("ws://{}", mesh.listening().expect("it listens"))
}

async fn until(what: &str, mesh: &mut Mesh, so: impl Fn(&MeshStatus) -> bool) {
    within(what, async {
        while !so(&mesh.status()) {
            mesh.changed().await.expect("it is open");
        }
    })
    .await;
}

async fn arrives(repo: &Repo, document: &Document, key: &str, expected: &str) -> Document {
    within(expected, async {
        let here = repo.find(&document.url()).await.expect("it is found");
        let mut watch = here.watch();
        while value(&here, key).as_deref() != Some(expected) {
            watch.changed().await.expect("it is open");
        }
        here
    })
    .await
}

#[tokio::test]
async fn three_repos_exchange_edits_without_a_server() {
    let (a, mut mesh_a) = member("group", &[]).await;
    let (b, _mesh_b) = member("group", &[&mesh_a]).await;
    let (c, _mesh_c) = member("group", &[&mesh_a]).await;
    let before = note(&a, "written before anybody came");
    until("a has two neighbours", &mut mesh_a, |status| status.neighbours.len() == 2).await;
    let (on_b, on_c) = (
        arrives(&b, &before, "text", "written before anybody came").await,
        arrives(&c, &before, "text", "written before anybody came").await,
    );
    put(&on_b, "from", "b");
    arrives(&a, &before, "from", "b").await;
    arrives(&c, &before, "from", "b").await;
    put(&on_c, "large", &"x".repeat(100_000));
    arrives(&a, &before, "large", &"x".repeat(100_000)).await;
    arrives(&b, &before, "large", &"x".repeat(100_000)).await;
    let mut watch = on_c.watch();
    put(&before, "last", "from a");
    let update = within("c hears of it", watch.changed()).await.expect("it is open");
    assert!(matches!(update.origins.first(), Some(Origin::Member(_))), "{:?}", update.origins);
}

#[tokio::test]
async fn who_is_cut_off_writes_on_and_is_caught_up_with() {
    let (a, mut mesh_a) = member("group", &[]).await;
    let (b, mut mesh_b) = member("group", &[&mesh_a]).await;
    let shared = note(&a, "shared");
    let on_b = arrives(&b, &shared, "text", "shared").await;
    mesh_b.set_online(false);
    until("a is alone", &mut mesh_a, |status| status.neighbours.is_empty()).await;
    until("b is alone", &mut mesh_b, |status| status.neighbours.is_empty() && !status.online).await;
    put(&shared, "a", "while apart");
    put(&on_b, "b", "while apart");
    shared.saved().await.expect("it is saved");
    assert_eq!(value(&on_b, "a"), None);
    mesh_b.set_online(true);
    arrives(&b, &shared, "a", "while apart").await;
    arrives(&a, &shared, "b", "while apart").await;
    assert_eq!(shared.heads(), on_b.heads());
}

#[tokio::test]
async fn a_repo_without_the_key_is_told_nothing() {
    let (a, mesh_a) = member("group", &[]).await;
    let (stranger, mut mesh_s) = member("another group", &[&mesh_a]).await;
    let (friend, _mesh_f) = member("group", &[&mesh_a]).await;
    let secret = note(&a, "for members");
    arrives(&friend, &secret, "text", "for members").await;
    // By now the stranger has dialled and was refused: it dials at once, as the friend does.
    until("the stranger is alone", &mut mesh_s, |status| status.neighbours.is_empty()).await;
    assert!(stranger.list().expect("a list").is_empty());
    // A plain client gets no further at that port.
    let client = Repo::memory().expect("a repo");
    let server = client.connect(&address(&mesh_a)).expect("an address");
    let offline = within("it is refused", async {
        let mut status = server.status();
        while !matches!(status, syncline::Connection::Offline { .. }) {
            status = server.status_changed(&status).await;
        }
        status
    });
    offline.await;
    assert!(client.list().expect("a list").is_empty());
}

#[tokio::test]
async fn a_repo_chooses_in_which_documents_it_takes_part() {
    let (a, mesh_a) = member("group", &[]).await;
    let (ours, theirs) = (note(&a, "ours"), note(&a, "theirs"));
    let b = Repo::memory().expect("a repo");
    let config = config("group").peer(&address(&mesh_a)).expect("an address").only([&ours.url()]);
    let _mesh_b = b.join_mesh(config).await.expect("it joins");
    arrives(&b, &ours, "text", "ours").await;
    put(&theirs, "text", "changed");
    put(&ours, "text", "changed");
    arrives(&b, &ours, "text", "changed").await;
    assert_eq!(b.list().expect("a list"), [ours.url()]);
}

/// What `--federate` does, from one server to another.
async fn federate(server: &Server, other: &Server) -> syncline_replica::Mesh {
    let url = |server: &Server| support::address(server).parse().expect("an address");
    let options = MeshOptions {
        peers: vec![url(other)],
        advertise: vec![url(server)],
        ..MeshOptions::new(MeshKey::open("servers"))
    };
    server.replica().join_mesh(options).await.expect("it joins")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_two_servers_that_federate_work_on_the_same_document() {
    let directories = [directory(), directory()];
    let (one, two) = (serve(directories[0].path(), None).await, serve(directories[1].path(), None).await);
    let (anna, bert) = (Repo::memory().expect("a repo"), Repo::memory().expect("a repo"));
    let shared = note(&anna, "written before the servers met");
    let _at_one = anna.connect(&support::address(&one)).expect("an address");
    within("it is on the first server", shared.on_server()).await.expect("it gets there");
    let _meshes = (federate(&one, &two).await, federate(&two, &one).await);
    let store = two.replica().store().clone();
    within("it is on the second server", async {
        while store.summary(shared.url().id()).expect("it is open").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let _at_two = bert.connect(&support::address(&two)).expect("an address");
    let theirs = arrives(&bert, &shared, "text", "written before the servers met").await;
    put(&theirs, "answer", "from the other server");
    arrives(&anna, &shared, "answer", "from the other server").await;
    put(&shared, "last", "from the first");
    arrives(&bert, &shared, "last", "from the first").await;
    one.stop().await;
    two.stop().await;
}

#[test]
fn one_mesh_at_a_time_and_it_ends_with_its_handle() {
    let repo = Repo::memory().expect("a repo");
    let mesh = block_on(repo.join_mesh(config("one"))).expect("it joins");
    assert!(matches!(block_on(repo.join_mesh(config("two"))), Err(Error::Mesh(_))));
    drop(mesh);
    let mesh = block_on(repo.join_mesh(config("two"))).expect("it joins");
    let taken = mesh.listening().expect("it listens");
    let other = Repo::memory().expect("a repo");
    let busy = block_on(other.join_mesh(MeshConfig::new(MeshKey::open("two")).listen(taken)));
    assert!(busy.is_err_and(|error| error.to_string().contains("cannot listen")));
    block_on(repo.close()).expect("it closes");
}

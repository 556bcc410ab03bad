//! Two replicas that were offline meet through a server.
//!
//! Owns: the same changes for both ways. Must not: let anything be synced early. Next: `watching.rs`.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use automerge::{Automerge, ChangeHash, ROOT, transaction::Transactable};
use serde_json::{Value, json};
use syncline::{Document, Repo};
use syncline_core::limits::Limits;
use syncline_core::loader::InProcess;
use syncline_server::{Config, Server};

use crate::measure::round;

pub(crate) fn run(documents: usize, edits: usize) -> anyhow::Result<Value> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(meet(documents, edits))
}

async fn meet(documents: usize, edits: usize) -> anyhow::Result<Value> {
    let (data, here, there) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let (data_path, loader) = (data.path().to_owned(), Arc::new(InProcess));
    let config = Config { listen, data: data_path, limits: Limits::default(), loader };
    let server = Server::start(config).await?;
    let address = format!("ws://{}", server.address());
    let (one, two) = (Repo::open(here.path())?, Repo::open(there.path())?);
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    {
        let _links = (one.connect(&address)?, two.connect(&address)?);
        for n in 0..documents {
            let document = one.create(|tx| tx.put(ROOT, "title", format!("document {n}")))?;
            document.on_server().await?;
            theirs.push(two.find(&document.url()).await?);
            mine.push(document);
        }
    }
    for n in 0..edits {
        let edit =
            |document: &Document, who: &str| document.change(|tx| tx.put(ROOT, format!("{who} {}", n % 97), n as u64));
        edit(&mine[n % documents], "one")?;
        edit(&theirs[n % documents], "two")?;
    }
    for document in mine.iter().chain(&theirs) {
        document.saved().await?;
    }
    let in_memory = merge_in_memory(&mine, &theirs)?;
    let started = Instant::now();
    let links = (one.connect(&address)?, two.connect(&address)?);
    for (mine, theirs) in mine.iter().zip(&theirs) {
        equal(mine, theirs, edits / documents).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    drop((links, mine, theirs));
    one.close().await?;
    two.close().await?;
    server.stop().await;
    Ok(json!({
        "documents": documents,
        "edits_of_each": edits,
        "in_memory_ms": round(in_memory * 1e3),
        "online_ms": round(seconds * 1e3),
        "ratio": round(seconds / in_memory),
    }))
}

/// Waits until both have all changes, by watching.
async fn equal(mine: &Document, theirs: &Document, edits: usize) -> anyhow::Result<()> {
    let (mut my, mut their) = (mine.watch(), theirs.watch());
    let have_all = |heads: &[ChangeHash]| heads.len() == 2 || edits == 0;
    while mine.heads() != theirs.heads() || !have_all(&mine.heads()) {
        tokio::select! {
            changed = my.changed() => { changed?; }
            changed = their.changed() => { changed?; }
        }
    }
    Ok(())
}

/// Seconds that automerge takes to bring the same changes together, each side once.
fn merge_in_memory(mine: &[Document], theirs: &[Document]) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for (mine, theirs) in mine.iter().zip(theirs) {
        let (mut one, mut two): (Automerge, Automerge) = (mine.read(Automerge::fork)?, theirs.read(Automerge::fork)?);
        let started = Instant::now();
        let (mut one_before, mut two_before) = (one.fork(), two.fork());
        let forked = started.elapsed();
        one.merge(&mut two_before)?;
        two.merge(&mut one_before)?;
        seconds += (started.elapsed() - forked).as_secs_f64();
        ensure!(one.get_heads() == two.get_heads(), "automerge does not agree with itself");
    }
    Ok(seconds)
}

//! A document on disk and on a server: what the README shows.

use syncline::Repo;
use syncline::automerge::{ROOT, transaction::Transactable};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let repo = Repo::open("notes")?;
    let note = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    println!("{} is the address to pass on", note.url());
    note.change(|tx| tx.put(ROOT, "title", "Shopping"))?;
    note.saved().await?; // on this disk: no crash loses it
    let _server = repo.connect("ws://127.0.0.1:3030")?;
    note.on_server().await?; // on the server's disk
    println!("on the server: {:?}", note.read(|doc| doc.hydrate(None))?);
    Ok(repo.close().await?)
}

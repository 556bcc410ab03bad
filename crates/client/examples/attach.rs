//! Puts a file where others find it, and fetches one: `attach put DIRECTORY SERVER FILE`, `attach get DIRECTORY SERVER URL FILE`.
//!
//! Owns: the command line. Must not: hold a whole file in memory.
//! Next: `todo.rs`; docs/client.md, "Blobs".

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use autosurgeon::{Hydrate, Reconcile};
use syncline::Repo;
use syncline::value::Blob;

/// Bytes that are read at once.
const STEP: u64 = 1024 * 1024;

#[derive(Hydrate, Reconcile)]
struct Shared {
    file: Blob,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["put", directory, server, file] => syncline::block_on(put(directory, server, Path::new(file))),
        ["get", directory, server, url, file] => syncline::block_on(fetch(directory, server, url, Path::new(file))),
        _ => bail!("usage: attach put DIRECTORY SERVER FILE | attach get DIRECTORY SERVER URL FILE"),
    }
}

async fn put(directory: &str, server: &str, path: &Path) -> anyhow::Result<()> {
    let repo = Repo::open(directory)?;
    let name = path.file_name().context("a file has a name")?.to_string_lossy();
    let file = repo.put_blob_from(File::open(path)?).await?.named(&name, "application/octet-stream");
    let document = repo.create_from(&Shared { file: file.clone() })?;
    println!("{} has {} bytes, behind {}", file.url(), file.size(), document.url());
    // An unreachable server is waited for; what was put is safe here, and goes up another time if this is ended.
    let _server = repo.connect(server)?;
    repo.blob_on_server(&file).await?;
    document.on_server().await?;
    println!("on the server");
    Ok(repo.close().await?)
}

async fn fetch(directory: &str, server: &str, url: &str, path: &Path) -> anyhow::Result<()> {
    let repo = Repo::open(directory)?;
    let link = repo.connect(server)?;
    link.connected().await?;
    let Shared { file } = repo.find(&url.parse()?).await?.hydrate()?;
    let fetching = repo.fetch_blob(&file)?;
    let mut progress = fetching.progress();
    while !progress.done {
        progress = fetching.progress_changed(&progress).await?;
        print!("\r{} of {} bytes", progress.held, progress.size);
        std::io::stdout().flush()?;
    }
    println!();
    let mut out = File::create(path)?;
    for start in (0..file.size()).step_by(STEP as usize) {
        out.write_all(&repo.read_blob_range(&file, start..start + STEP).await?)?;
    }
    Ok(repo.close().await?)
}

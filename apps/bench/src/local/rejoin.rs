//! A client that shares very many documents with a server comes back after a few have changed on either side: what passes, and
//! for how long, by this library, by samod and by automerge-repo.
//!
//! Owns: the changes on both sides, the moment of the last byte. Must not: open what others changed, which would ask for it.
//! Next: `selection.rs`, which counts; `job.rs`, `mod.rs`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use serde_json::{Value, json};
use syncline::{DocumentUrl, Options, Repo, SyncPolicy};

use super::selection::counting;
use crate::scenario::round;

/// An application is open for so long before it has a network: its documents are listed by then.
const OPEN_BEFORE: Duration = Duration::from_secs(5);

/// What is written where.
const THERE: i64 = -1;
const HERE: i64 = -2;

/// Comes back with a directory whose documents the server has.
///
/// # Errors
/// When what has changed is not on both sides in the end.
pub(super) async fn syncline(directory: &Path, server: SocketAddr, changed: usize) -> anyhow::Result<Value> {
    let options = Options { sync: SyncPolicy::Everything, ..Options::default() };
    let repo = Repo::open_with(directory, options)?;
    let urls = repo.list()?;
    let step = (urls.len() / changed.max(1)).max(1);
    let spread: Vec<DocumentUrl> = urls.iter().step_by(step).take(changed).cloned().collect();
    let (there, here) = spread.split_at(changed / 2);
    write_there(server, there).await?;
    for url in here {
        let document = repo.find_local(url)?;
        document.change(|tx| tx.put(ROOT, "number", HERE))?;
        document.saved().await?;
    }
    tokio::time::sleep(OPEN_BEFORE).await;

    let (address, passed) = counting(server).await?;
    let began = Instant::now();
    let link = repo.connect(&address)?;
    let end = passed.quiet().await?;
    let (up, down) = passed.bytes();
    drop(link);
    let reader = Repo::memory()?;
    let _link = reader.connect(&format!("ws://{server}"))?;
    for (url, wanted) in there.iter().map(|url| (url, THERE)).chain(here.iter().map(|url| (url, HERE))) {
        let theirs = number_in(&reader.find(url).await?)?;
        let ours = number_in(&repo.find_local(url)?)?;
        ensure!(ours == Some(wanted) && theirs == Some(wanted), "{url}: {ours:?} here and {theirs:?} there");
    }
    Ok(json!({
        "documents": urls.len(), "changed": spread.len(),
        "ms": round((end - began).as_secs_f64() * 1e3), "up_bytes": up, "down_bytes": down,
    }))
}

/// Somebody else changes documents on the server.
async fn write_there(server: SocketAddr, urls: &[DocumentUrl]) -> anyhow::Result<()> {
    let writer = Repo::memory()?;
    let _link = writer.connect(&format!("ws://{server}"))?;
    for url in urls {
        let document = writer.find(url).await?;
        document.change(|tx| tx.put(ROOT, "number", THERE))?;
        document.on_server().await?;
    }
    Ok(())
}

fn number_in(document: &syncline::Document) -> anyhow::Result<Option<i64>> {
    Ok(document.read(|doc: &Automerge| number_of(doc))??)
}

fn number_of(document: &Automerge) -> Result<Option<i64>, automerge::AutomergeError> {
    Ok(document.get(ROOT, "number")?.and_then(|(value, _)| value.as_i64()))
}

/// The same with samod, which holds its documents open, as its connections sync no others.
///
/// # Errors
/// As [`syncline()`].
pub(super) async fn samod(
    directory: &Path,
    server: SocketAddr,
    (documents, changed): (usize, usize),
) -> anyhow::Result<Value> {
    std::fs::create_dir_all(directory)?;
    let storage = samod::storage::TokioFilesystemStorage::new(directory);
    let repo = samod::Repo::build_tokio().with_storage(storage).load().await;
    let (address, passed) = counting(server).await?;
    let stopped = || anyhow::anyhow!("samod has stopped");
    let backoff = samod::BackoffConfig::default();
    let dialer = repo.dial_websocket(url::Url::parse(&address)?, backoff).map_err(|_| stopped())?;
    dialer.established().await.map_err(|_| anyhow::anyhow!("samod does not connect"))?;
    let mut handles = Vec::with_capacity(documents);
    for number in 0..documents {
        let mut fresh = Automerge::new();
        let mut filling = fresh.transaction();
        filling.put(ROOT, "number", number as i64)?;
        filling.commit();
        handles.push(repo.create(fresh).await.map_err(|_| stopped())?);
    }
    passed.quiet().await?;
    passed.close();
    let step = (documents / changed.max(1)).max(1);
    let spread: Vec<_> = handles.iter().step_by(step).take(changed).collect();
    let (there, here) = spread.split_at(changed / 2);
    let urls: Result<Vec<DocumentUrl>, _> = there.iter().map(|handle| handle.url().to_string().parse()).collect();
    write_there(server, &urls.context("both write addresses alike")?).await?;
    for handle in here {
        handle.with_document(|doc| {
            let mut transaction = doc.transaction();
            transaction.put(ROOT, "number", HERE)?;
            transaction.commit();
            anyhow::Ok(())
        })?;
    }
    let (up_before, down_before) = passed.bytes();
    passed.open();
    let began = passed.first_byte().await?;
    let end = passed.quiet().await?;
    let (up, down) = passed.bytes();
    for handle in there {
        let number = handle.with_document(|doc| number_of(doc))?;
        ensure!(number == Some(THERE), "what changed has not come");
    }
    repo.stop().await;
    Ok(json!({
        "documents": documents, "changed": spread.len(),
        "ms": round((end - began).as_secs_f64() * 1e3),
        "up_bytes": up - up_before, "down_bytes": down - down_before,
    }))
}

/// The same with automerge-repo, by `client.js` in a directory with its packages.
///
/// # Errors
/// As [`syncline()`].
pub(super) async fn automerge_repo(
    packages: &Path,
    directory: &Path,
    server: SocketAddr,
    (documents, changed): (usize, usize),
) -> anyhow::Result<Value> {
    let (address, passed) = counting(server).await?;
    let mut client = Script::start(packages, &address, directory, documents)?;
    let urls: Vec<DocumentUrl> = serde_json::from_value::<Vec<String>>(client.answer()?)?
        .iter()
        .map(|url| url.parse())
        .collect::<Result<_, _>>()
        .context("both write addresses alike")?;
    passed.quiet().await?;
    passed.close();
    let step = (documents / changed.max(1)).max(1);
    let spread: Vec<usize> = (0..documents).step_by(step).take(changed).collect();
    let (there, here) = spread.split_at(changed / 2);
    write_there(server, &there.iter().map(|at| urls[*at].clone()).collect::<Vec<_>>()).await?;
    client.ask(&json!({ "write": { "at": here, "number": HERE } }))?;
    let (up_before, down_before) = passed.bytes();
    passed.open();
    let began = passed.first_byte().await?;
    let end = passed.quiet().await?;
    let (up, down) = passed.bytes();
    let numbers = client.ask(&json!({ "read": there }))?;
    ensure!(numbers == json!(vec![THERE; there.len()]), "what changed has not come: {numbers}");
    client.end()?;
    Ok(json!({
        "documents": documents, "changed": spread.len(),
        "ms": round((end - began).as_secs_f64() * 1e3),
        "up_bytes": up - up_before, "down_bytes": down - down_before,
    }))
}

/// A client in another language, which answers each line with a line.
struct Script {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(packages: &Path, address: &str, directory: &Path, documents: usize) -> anyhow::Result<Self> {
        let mut command = Command::new("node");
        command.current_dir(packages).arg("client.js").arg(address).arg(directory).arg(documents.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting node")?;
        let said = BufReader::new(child.stdout.take().context("the script's output")?).lines();
        Ok(Self { child, said })
    }

    fn answer(&mut self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.said.next().context("the script has ended")??)?)
    }

    fn ask(&mut self, question: &Value) -> anyhow::Result<Value> {
        writeln!(self.child.stdin.as_mut().context("the script's input")?, "{question}")?;
        self.answer()
    }

    fn end(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the script ended with {status}");
        Ok(())
    }
}

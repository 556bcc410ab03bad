//! Two replicas that write the same documents offline, and what it takes until they agree.
//!
//! Owns: the offline writing, the meeting, automerge's own merge of the same. Must not: know how changes travel.
//! Next: `mod.rs`.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT, ReadDoc};
use serde_json::{Value, json};
use syncline::{Document, Repo, Server};

use crate::process::Scratch;
use crate::scenario::round;
use crate::target::Target;

/// Longest that the replicas may take to agree.
const PATIENCE: Duration = Duration::from_secs(300);

struct Replica {
    repo: Repo,
    documents: Vec<Document>,
    server: Option<Server>,
    _directory: Scratch,
}

/// Runs it.
///
/// # Errors
/// When the replicas do not agree.
pub(crate) async fn run(target: &Target, edits: usize, documents: usize) -> anyhow::Result<Value> {
    let address = target.endpoint.url();
    let mut one = Replica::open(&address)?;
    for _ in 0..documents {
        let document = one.repo.create(|tx| tx.put_object(ROOT, "text", ObjType::Text).map(drop))?;
        one.documents.push(document);
    }
    let mut two = Replica::open(&address)?;
    for document in &one.documents {
        document.on_server().await?;
        two.documents.push(two.repo.find(&document.url()).await?);
    }
    one.server = None;
    two.server = None;
    one.write(edits, 'a')?;
    two.write(edits, 'b')?;
    let in_memory = merge_in_memory(&one, &two)?;

    let met = Instant::now();
    one.server = Some(one.repo.connect(&address)?);
    two.server = Some(two.repo.connect(&address)?);
    for (left, right) in one.documents.iter().zip(&two.documents) {
        tokio::time::timeout(PATIENCE, agree(left, right)).await.context("the replicas do not agree")??;
    }
    let met = met.elapsed();
    let (read, other) = (one.documents[0].read(save)?, two.documents[0].read(save)?);
    ensure!(read == other, "equal heads, different values");
    Ok(json!({
        "meeting_s": round(met.as_secs_f64()),
        "merge_in_memory_s": round(in_memory.as_secs_f64()),
        "times_merge_in_memory": round(met.as_secs_f64() / in_memory.as_secs_f64()),
    }))
}

impl Replica {
    fn open(address: &str) -> anyhow::Result<Self> {
        let directory = Scratch::new(None);
        let repo = Repo::open(directory.path())?;
        let server = Some(repo.connect(address)?);
        Ok(Self { repo, documents: Vec::new(), server, _directory: directory })
    }

    fn write(&self, edits: usize, letter: char) -> anyhow::Result<()> {
        for number in 0..edits {
            let document = &self.documents[number % self.documents.len()];
            document.change(|tx| {
                let text = tx.get(ROOT, "text")?.map(|(_, text)| text).unwrap_or(ROOT);
                tx.splice_text(&text, tx.length(&text), 0, letter.encode_utf8(&mut [0; 4]))
            })?;
        }
        Ok(())
    }
}

async fn agree(left: &Document, right: &Document) -> anyhow::Result<()> {
    let (mut on_left, mut on_right) = (left.watch(), right.watch());
    while left.heads() != right.heads() {
        tokio::select! {
            changed = on_left.changed() => drop(changed?),
            changed = on_right.changed() => drop(changed?),
        }
    }
    Ok(())
}

/// automerge alone: each side takes the other's changes, as each replica does.
fn merge_in_memory(one: &Replica, two: &Replica) -> anyhow::Result<Duration> {
    let copies = |replica: &Replica| {
        replica.documents.iter().map(|document| document.read(Automerge::clone)).collect::<Result<Vec<_>, _>>()
    };
    let (mut lefts, mut rights) = (copies(one)?, copies(two)?);
    let began = Instant::now();
    for (left, right) in lefts.iter_mut().zip(&mut rights) {
        let mut before = left.clone();
        left.merge(right)?;
        right.merge(&mut before)?;
    }
    Ok(began.elapsed())
}

fn save(document: &Automerge) -> String {
    format!("{:?}", document.hydrate(None))
}

//! Who edits what: real automerge changes, on top of what the author's replica has.
//!
//! Owns: each author's document in memory. Must not: know more than the author's disk. Next: `../world.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, ROOT};
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use syncline_core::ChangeHash;
use syncline_core::change::Change;
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;

use crate::node::Node;
use crate::plan::Plan;

/// Authors of a document.
const AUTHORS: usize = 3;

pub(super) struct Authors {
    documents: Vec<DocumentId>,
    /// Who writes in which document.
    of: Vec<Vec<usize>>,
    /// What an author has in memory: by document and node, with the start of the process and the changes it has read.
    open: BTreeMap<(usize, usize), Open>,
    made: BTreeMap<ChangeHash, usize>,
    edits: u64,
}

struct Open {
    starts: u32,
    read: usize,
    document: AutoCommit,
}

impl Authors {
    pub(super) fn new(plan: &Plan) -> Self {
        let id = |number: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
            DocumentId::from_bytes(&bytes).expect("16 bytes")
        };
        let of = (0..plan.documents)
            .map(|document| (0..AUTHORS).map(|author| (document * AUTHORS + author) % plan.nodes).collect());
        Self {
            documents: (0..plan.documents).map(id).collect(),
            of: of.collect(),
            open: BTreeMap::new(),
            made: BTreeMap::new(),
            edits: 0,
        }
    }

    /// An edit by one of the authors of a random document, if it is up.
    pub(super) fn edit(
        &mut self,
        nodes: &[Node],
        now: Duration,
        rng: &mut ChaCha8Rng,
    ) -> Option<(usize, DocumentId, Change)> {
        let document = rng.random_range(0..self.documents.len());
        let node = self.of[document][rng.random_range(0..AUTHORS)];
        if !nodes[node].up {
            return None;
        }
        let id = self.documents[document].clone();
        let starts = nodes[node].starts;
        let open = self.open.entry((document, node)).or_insert_with(|| Open::new(document, node, starts));
        // A new process writes as a new actor, and knows what is on the disk.
        if open.starts != starts {
            *open = Open::new(document, node, starts);
        }
        let news = nodes[node].disk.changes_from(&id, open.read);
        open.read += news.len();
        let news = news.iter().map(|bytes| automerge::Change::from_bytes(bytes.to_vec()).expect("a change"));
        open.document.apply_changes(news).expect("what was committed applies");
        self.edits += 1;
        let (key, value) = (format!("author {node}"), format!("edit {}", self.edits));
        open.document.put(ROOT, key, value).expect("a map takes every key");
        open.document.commit_with(CommitOptions::default().with_time(1_700_000_000 + now.as_secs() as i64));
        let change = open.document.get_last_local_change().expect("it was just made");
        let change = Change::decode(Bytes::from(change.raw_bytes().to_vec()), &Limits::default())
            .expect("automerge makes changes");
        self.made.insert(change.hash, node);
        Some((node, id, change))
    }

    /// Which node made this change.
    pub(super) fn author_of(&self, hash: &ChangeHash) -> Option<usize> {
        self.made.get(hash).copied()
    }
}

impl Open {
    fn new(document: usize, node: usize, starts: u32) -> Self {
        let actor = format!("{document}-{node}-{starts}");
        Self { starts, read: 0, document: AutoCommit::new().with_actor(ActorId::from(actor.as_bytes())) }
    }
}

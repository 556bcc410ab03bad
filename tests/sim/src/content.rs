//! What an application holds of a document, and how it syncs it: stock automerge, or the plain peer of the cheap tier.
//!
//! Owns: editing, applying, speaking. Must not: know links or machines.
//! Next: `dag.rs`, `client.rs`, `app.rs`.

use std::collections::BTreeSet;

use automerge::sync::{self, SyncDoc};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, ChangeHash, ROOT, ReadDoc};
use bytes::Bytes;
use syncline_core::limits::Limits;
use syncline_core::sync::message::Message;

use crate::dag::{Dag, DagSync};
use crate::oracle::{Checked, Made, Oracle};
use crate::random::Stream;
use crate::reverse::Aliases;
use crate::scenario::Tier;
use crate::subject::Subject;
use crate::undo::undo;

/// One document of one application.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Real(Box<AutoCommit>),
    Dag(Box<Dag>),
}

/// What an application knows of one server and one document.
#[derive(Debug, Clone)]
pub(crate) enum SyncState {
    Real(Box<sync::State>),
    Dag(Box<DagSync>),
}

impl SyncState {
    /// What the server said last that it has.
    pub(crate) fn their_heads(&self) -> Option<&[ChangeHash]> {
        match self {
            Self::Real(state) => state.their_heads.as_deref(),
            Self::Dag(state) => state.their_heads(),
        }
    }

    pub(crate) fn new(tier: Tier) -> Self {
        match tier {
            Tier::T0 => Self::Dag(Box::default()),
            Tier::T1 | Tier::T2 | Tier::Mesh => Self::Real(Box::new(sync::State::new())),
        }
    }

    /// What a new connection begins with: the part that a stock client stores.
    pub(crate) fn reconnected(&self) -> Self {
        match self {
            Self::Real(state) => Self::Real(Box::new(sync::State::decode(&state.encode()).unwrap_or_default())),
            Self::Dag(state) => Self::Dag(Box::new(state.reconnected())),
        }
    }
}

impl Content {
    /// An empty document of this author.
    pub(crate) fn new(tier: Tier, actor: &[u8]) -> Self {
        match tier {
            Tier::T0 => Self::Dag(Box::new(Dag::new(actor))),
            Tier::T1 | Tier::T2 | Tier::Mesh => {
                Self::Real(Box::new(AutoCommit::new().with_actor(ActorId::from(actor))))
            }
        }
    }

    /// Every opening is an author of its own.
    pub(crate) fn set_actor(&mut self, actor: &[u8]) {
        match self {
            Self::Real(document) => drop(document.set_actor(ActorId::from(actor))),
            Self::Dag(dag) => dag.set_actor(actor),
        }
    }

    /// Makes one change, tells the oracle, and returns the change.
    pub(crate) fn edit(&mut self, random: u64, oracle: &mut Oracle) -> Bytes {
        let deps = self.heads();
        let (hash, max_op, bytes) = match self {
            Self::Real(document) => {
                let change = edit_real(document, random);
                (change.hash(), change.max_op(), Bytes::copy_from_slice(change.raw_bytes()))
            }
            Self::Dag(dag) => {
                let (hash, bytes) = dag.edit();
                (hash, dag.max_op(), bytes)
            }
        };
        oracle.make(hash, Made { deps, max_op });
        bytes
    }

    /// As [`Self::edit`], by what a subject does; `None` if that changed nothing. Returns what it says it did, too.
    pub(crate) fn act(
        &mut self,
        subject: &Subject,
        random: u64,
        oracle: &mut Oracle,
    ) -> Result<Option<(Bytes, String)>, String> {
        let deps = self.heads();
        let Self::Real(document) = self else { return Err("subjects act on automerge documents".to_owned()) };
        let Some((change, deed)) = subject.act(document, random)? else { return Ok(None) };
        oracle.make(change.hash(), Made { deps, max_op: change.max_op() });
        oracle.note_deed(change.hash(), deed.clone());
        Ok(Some((Bytes::copy_from_slice(change.raw_bytes()), deed)))
    }

    /// Takes one of its author's changes back, and returns the change that does so, if it takes one.
    pub(crate) fn undo(
        &mut self,
        change: ChangeHash,
        aliases: &mut Aliases,
        oracle: &mut Oracle,
    ) -> Checked<Option<Bytes>> {
        let deps = self.heads();
        let Self::Real(document) = self else { return Ok(None) };
        let Some(change) = undo(document, change, aliases)? else { return Ok(None) };
        oracle.make(change.hash(), Made { deps, max_op: change.max_op() });
        Ok(Some(Bytes::copy_from_slice(change.raw_bytes())))
    }

    pub(crate) fn heads(&mut self) -> Vec<ChangeHash> {
        match self {
            Self::Real(document) => document.get_heads(),
            Self::Dag(dag) => dag.heads(),
        }
    }

    pub(crate) fn hashes(&mut self) -> BTreeSet<ChangeHash> {
        match self {
            Self::Real(document) => document.get_changes_meta(&[]).iter().map(|change| change.hash).collect(),
            Self::Dag(dag) => dag.hashes(),
        }
    }

    pub(crate) fn has(&mut self, hash: &ChangeHash) -> bool {
        match self {
            Self::Real(document) => document.get_change_meta_by_hash(hash).is_some(),
            Self::Dag(dag) => dag.has(hash),
        }
    }

    /// All changes, dependencies first.
    pub(crate) fn raw(&mut self) -> Vec<Bytes> {
        match self {
            Self::Real(document) => {
                document.get_changes(&[]).iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect()
            }
            Self::Dag(dag) => dag.raw(),
        }
    }

    pub(crate) fn apply(&mut self, changes: &[Bytes]) -> Result<(), String> {
        match self {
            Self::Real(document) => {
                let changes = changes.iter().map(|bytes| automerge::Change::try_from(&bytes[..]));
                let changes = changes.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
                document.apply_changes(changes).map_err(|error| error.to_string())
            }
            Self::Dag(dag) => changes.iter().try_for_each(|bytes| dag.take(bytes)),
        }
    }

    /// The next message to a server, if there is anything to say.
    pub(crate) fn generate(&mut self, state: &mut SyncState, only_v1: bool) -> Option<Bytes> {
        match (self, state) {
            (Self::Real(document), SyncState::Real(state)) => {
                let message = document.sync().generate_sync_message(state)?;
                let message = if only_v1 { sync::Message { flags: None, ..message } } else { message };
                Some(Bytes::from(message.encode()))
            }
            (Self::Dag(dag), SyncState::Dag(state)) => dag.generate(state),
            (Self::Real(_), SyncState::Dag(_)) | (Self::Dag(_), SyncState::Real(_)) => None,
        }
    }

    pub(crate) fn receive(&mut self, state: &mut SyncState, data: Bytes, only_v1: bool) -> Result<(), String> {
        match (self, state) {
            (Self::Real(document), SyncState::Real(state)) => {
                if only_v1 {
                    check_single_changes(&data)?;
                }
                let message = sync::Message::decode(&data).map_err(|error| error.to_string())?;
                let message = if only_v1 { sync::Message { flags: None, ..message } } else { message };
                document.sync().receive_sync_message(state, message).map_err(|error| error.to_string())
            }
            (Self::Dag(dag), SyncState::Dag(state)) => dag.receive(state, data),
            (Self::Real(_), SyncState::Dag(_)) | (Self::Dag(_), SyncState::Real(_)) => {
                Err("a document and a state of different tiers".to_owned())
            }
        }
    }

    /// The bytes of the document with its changes applied in (highest operation, hash) order: equal histories, equal
    /// bytes.
    pub(crate) fn canonical(&mut self) -> Option<Vec<u8>> {
        let Self::Real(document) = self else { return None };
        canonical(document.get_changes(&[]))
    }
}

/// See [`Content::canonical`].
pub(crate) fn canonical(mut changes: Vec<automerge::Change>) -> Option<Vec<u8>> {
    changes.sort_by_key(|change| (change.max_op(), change.hash()));
    let mut fresh = automerge::Automerge::new();
    fresh.apply_changes(changes).ok()?;
    Some(fresh.save())
}

/// Peers that know only version 1 take one change in each element.
fn check_single_changes(data: &Bytes) -> Result<(), String> {
    let message = Message::decode(data.clone(), &Limits::default()).map_err(|error| error.to_string())?;
    message.changes.iter().try_for_each(|element| {
        automerge::Change::try_from(&element[..]).map(drop).map_err(|error| format!("not a single change: {error}"))
    })
}

fn edit_real(document: &mut AutoCommit, random: u64) -> automerge::Change {
    let mut stream = Stream::new(random, "edit");
    let text = document.get(ROOT, "text").ok().flatten().map(|(_, id)| id);
    match text {
        Some(text) if stream.chance(6_000) => {
            let length = document.length(&text);
            let at = stream.below(length as u64 + 1) as usize;
            let delete = stream.below((length - at).min(2) as u64 + 1) as isize;
            document.splice_text(&text, at, delete, "ab").expect("in range");
        }
        None if stream.chance(3_000) => {
            document.put_object(ROOT, "text", automerge::ObjType::Text).expect("a map takes every key");
        }
        _ => {
            let key = format!("key-{}", stream.below(4));
            document.put(ROOT, key, random as i64).expect("a map takes every key");
        }
    }
    document.commit_with(CommitOptions::default().with_time(0));
    document.get_last_local_change().expect("just made")
}

//! A small history that every run finds the same, and changes that contradict it.
//!
//! Owns: honest changes in an order in which each comes after its dependencies; forged ones behind them.
//! Must not: depend on a clock or on chance. Next: `graph.rs`, `session.rs`.

use std::sync::OnceLock;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ReadDoc};
use bytes::Bytes;
use syncline_core::change::Change;

use crate::forge::{self, Forged};

/// The history and its contradictions.
pub(crate) struct Pool {
    /// All changes, the honest ones first.
    pub(crate) changes: Vec<Change>,
    /// How many of them are honest.
    pub(crate) honest: usize,
    /// The document of all honest ones.
    pub(crate) document: AutoCommit,
}

/// The pool, made at its first use.
pub(crate) fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(Pool::new)
}

/// The document on which the target `change` applies what is accepted.
#[must_use]
pub fn known_document() -> AutoCommit {
    pool().document.clone()
}

impl Pool {
    fn new() -> Self {
        let mut document = history();
        let mut changes: Vec<Change> = document
            .get_changes(&[])
            .iter()
            .map(|change| Change::decode(Bytes::copy_from_slice(change.raw_bytes()), &crate::limits()))
            .map(|change| change.expect("automerge wrote it"))
            .collect();
        let honest = changes.len();
        changes.extend(contradictions(&changes));
        Self { changes, honest, document }
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// The document of the honest changes below `length`, saved as one chunk.
    pub(crate) fn saved(&self, length: usize) -> Vec<u8> {
        let mut document = automerge::Automerge::new();
        let changes = self.changes[..length.min(self.honest)].iter();
        let parsed = changes.map(|change| automerge::Change::try_from(&change.bytes[..]).expect("automerge wrote it"));
        document.apply_changes(parsed).expect("in causal order");
        document.save()
    }
}

/// Three authors who write beside each other, fork and merge.
fn history() -> AutoCommit {
    let mut first = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let text = first.put_object(ROOT, "text", ObjType::Text).expect("a fresh document");
    let list = first.put_object(ROOT, "list", ObjType::List).expect("a fresh document");
    first.splice_text(&text, 0, 0, "hello").expect("in range");
    first.commit();
    let mut authors = [first.fork().with_actor(ActorId::from([2; 16])), first.fork().with_actor(ActorId::from([3; 8]))];
    for round in 0..6_usize {
        for (number, author) in authors.iter_mut().enumerate() {
            author.put(ROOT, format!("key {}", (round + number) % 3), round as u64).expect("a map");
            author.commit();
            let length = author.length(&text);
            author.splice_text(&text, (round * 3) % length, 1, "ab").expect("in range");
            author.commit();
        }
        first.insert(&list, 0, round as i64).expect("in range");
        first.commit();
        let [left, right] = &mut authors;
        match round % 3 {
            0 => left.merge(right).expect("one document"),
            1 => right.merge(&mut first).expect("one document"),
            _ => first.merge(left).expect("one document"),
        };
    }
    for author in &mut authors {
        first.merge(author).expect("one document");
    }
    first.put(ROOT, "merged", true).expect("a map");
    first.commit();
    first
}

/// Changes by known authors that no honest device makes.
fn contradictions(honest: &[Change]) -> Vec<Change> {
    let victim = &honest[4];
    let by_victim = |seq, start_op, deps: Vec<[u8; 32]>| Forged {
        actor: victim.actor.as_bytes().to_vec(),
        seq,
        start_op,
        deps,
        ..forge::change()
    };
    let stranger =
        |number: u8, deps: Vec<[u8; 32]>| Forged { actor: vec![number; 4], deps, start_op: 900, ..forge::change() };
    let deps: Vec<[u8; 32]> = victim.deps.iter().map(|dep| dep.0).collect();
    let forged = [
        // Another content for a number that is taken, or will be.
        by_victim(victim.seq, victim.start_op, deps.clone()),
        by_victim(victim.seq + 1, victim.start_op + 50, vec![victim.hash.0]),
        // A gap, and a number of the victim's on a dependency that nobody has.
        by_victim(victim.seq + 4, victim.start_op + 50, vec![victim.hash.0]),
        by_victim(victim.seq + 1, victim.start_op + 50, vec![[9; 32]]),
        // Operation ids of its ancestors, and ids far ahead.
        Forged { start_op: 1, ..stranger(7, vec![victim.hash.0]) },
        Forged { start_op: 90_000, ..stranger(8, vec![victim.hash.0]) },
        // A root of its own, and orphans for ever.
        stranger(20, Vec::new()),
        stranger(21, vec![[10; 32]]),
        stranger(22, vec![[11; 32]]),
        stranger(23, vec![[12; 32]]),
    ];
    forged.iter().map(|forged| Change::decode(forged.bytes(), &crate::limits()).expect("valid when alone")).collect()
}

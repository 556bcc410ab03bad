//! Writing changes without a document: one typed character is one operation whose place is known.
//!
//! Owns: the operations of the text that the generated users type into. Must not: decide when to type.
//! Next: `light.rs`, the user who types.

use std::num::NonZeroU64;
use std::sync::Arc;

use anyhow::Context;
use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, Change, ChangeHash, ExpandedChange, ObjType, ROOT, ReadDoc, ScalarValue};
use bytes::Bytes;

use crate::frame;
use crate::ledger::{Index, Ledger};

/// The key of the text object in each document's root.
pub(crate) const TEXT_KEY: &str = "text";

/// A fresh actor id.
pub(crate) fn random_actor() -> ActorId {
    ActorId::from(*uuid::Uuid::new_v4().as_bytes())
}

/// Where an author stands in a document.
#[derive(Debug)]
pub(crate) struct Pen {
    actor: ActorId,
    seq: u64,
    last: Option<OpId>,
}

impl Pen {
    /// A new author.
    pub(crate) fn new() -> Self {
        Self { actor: random_actor(), seq: 0, last: None }
    }

    /// The author's actor id.
    pub(crate) fn actor(&self) -> &ActorId {
        &self.actor
    }

    /// Types one character behind the author's last one, or at the text's start, on top of `deps`, whose highest
    /// operation is `max_op`. One author's characters so stay in one run, in the order typed.
    pub(crate) fn type_char(&mut self, text: &OpId, deps: Vec<ChangeHash>, max_op: u64) -> Change {
        self.seq += 1;
        let id = OpId(max_op + 1, self.actor.clone());
        let after = self.last.replace(id).map_or(ElementId::Head, ElementId::Id);
        let typed = char::from(b'a' + u8::try_from(self.seq % 26).expect("below 26"));
        let operation = Op {
            action: OpType::Put(ScalarValue::Str(typed.to_string().into())),
            obj: ObjectId::Id(text.clone()),
            key: Key::Seq(after),
            pred: Vec::new().into(),
            insert: true,
        };
        change(&self.actor, self.seq, max_op + 1, deps, operation)
    }
}

/// A new document with an empty text, and the change that makes it.
pub(crate) fn new_document() -> (Arc<Ledger>, Index) {
    let actor = random_actor();
    let operation = Op {
        action: OpType::Make(ObjType::Text),
        obj: ObjectId::Root,
        key: Key::Map(TEXT_KEY.into()),
        pred: Vec::new().into(),
        insert: false,
    };
    let first = change(&actor, 1, 1, Vec::new(), operation);
    let ledger = Ledger::new(frame::random_document_id(), OpId(1, actor));
    let index = ledger.book().insert(&first, None).expect("the first change depends on nothing");
    (ledger, index)
}

/// A document made beforehand, to be uploaded as many times as wanted.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    /// automerge's `save`.
    pub(crate) bytes: Bytes,
    changes: Arc<[Change]>,
    text: OpId,
}

impl Seed {
    /// A text of `changes` changes of `chars_per_change` random characters each, each at the end.
    ///
    /// # Errors
    /// When automerge refuses an operation.
    pub(crate) fn typed(changes: u64, chars_per_change: usize) -> anyhow::Result<Self> {
        let actor = random_actor();
        let mut document = Automerge::new().with_actor(actor.clone());
        let mut transaction = document.transaction();
        let text = transaction.put_object(ROOT, TEXT_KEY, ObjType::Text)?;
        transaction.commit();
        for change in 1..changes {
            let at = usize::try_from(change - 1)? * chars_per_change;
            let typed: String = (0..chars_per_change).map(|_| char::from(rand::random_range(b'!'..=b'~'))).collect();
            let mut transaction = document.transaction();
            transaction.splice_text(&text, at, 0, &typed)?;
            transaction.commit();
        }
        let changes = document.get_changes(&[]).into();
        Ok(Self { bytes: document.save().into(), changes, text: OpId(1, actor) })
    }

    /// A document of these contents under a fresh id.
    pub(crate) fn document(&self) -> (Arc<Ledger>, Index) {
        let ledger = Ledger::new(frame::random_document_id(), self.text.clone());
        let index = ledger.book().insert_seed(&self.changes, self.bytes.clone());
        (ledger, index)
    }
}

/// The text of a document that this module made.
///
/// # Errors
/// When the document has no text.
pub(crate) fn text_of(document: &Automerge) -> anyhow::Result<String> {
    let (_, text) = document.get(ROOT, TEXT_KEY)?.context("the document has no text")?;
    Ok(document.text(&text)?)
}

fn change(actor: &ActorId, seq: u64, start_op: u64, deps: Vec<ChangeHash>, operation: Op) -> Change {
    Change::from(ExpandedChange {
        operations: vec![operation],
        actor_id: actor.clone(),
        hash: None,
        seq,
        start_op: NonZeroU64::new(start_op).expect("operations are counted from one"),
        time: 0,
        message: None,
        deps,
        author: None,
        extra_bytes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automerge_accepts_concurrent_typing_and_keeps_each_run_whole() {
        let (ledger, first) = new_document();
        let mut document = Automerge::new();
        let mut pens = [Pen::new(), Pen::new()];
        let mut book = ledger.book();
        let mut tips = [first, first];
        for _ in 0..30 {
            for (pen, tip) in pens.iter_mut().zip(&mut tips) {
                let node = book.node(*tip);
                let change = pen.type_char(&ledger.text, vec![node.hash], node.max_op);
                *tip = book.insert(&change, None).unwrap();
            }
        }
        for node in book.nodes() {
            document.load_incremental(&node.bytes).unwrap();
        }
        let run: String = (1..=30u8).map(|seq| char::from(b'a' + seq % 26)).collect();
        assert_eq!(text_of(&document).unwrap(), run.repeat(2));
        assert_eq!(document.get_heads(), book.hashes(&tips));
    }

    #[test]
    fn a_seed_is_its_own_document() {
        let seed = Seed::typed(20, 100).unwrap();
        let document = Automerge::load(&seed.bytes).unwrap();
        assert_eq!(text_of(&document).unwrap().len(), 1_900);
        assert_eq!(document.get_heads(), vec![seed.changes[19].hash()]);
    }
}

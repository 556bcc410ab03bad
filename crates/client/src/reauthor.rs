//! Changes that a server refuses because somebody else writes as the same actor, written anew under fresh ones.
//!
//! Owns: the rewriting of a history, the switch of a document to it. Must not: lose or change what a user did; only the
//! names of changes and their authors' actors differ. Next: `live.rs`; docs/client.md, "Refused changes".
//!
//! An actor is one history. Two devices that go on as one actor, as a machine that was copied while it ran, make two
//! changes with one number. The first that is durable on a server stands; the other device's can never be taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId};
use automerge::{ActorId, Automerge, ChangeHash};
use bytes::Bytes;
use syncline_core::change::Change;
use syncline_core::id::DocumentId;

use crate::engine::Engine;
use crate::live::Live;

/// Times that a document may move while it is rewritten, before that is left to the next refusal.
const TRIES_MAX: usize = 16;

/// What becomes of one actor's refused changes.
#[derive(Debug)]
struct Renamed {
    actor: ActorId,
    /// The first operation that is renamed; those before it are in changes that stay.
    from_op: u64,
    seq: u64,
}

/// The whole history with the refused change, and all that builds on it, under fresh actors; `None` if the document does
/// not have that change.
pub(crate) fn rewritten(
    document: &Automerge,
    refused: &ChangeHash,
    mut fresh: impl FnMut() -> ActorId,
) -> Option<Vec<automerge::Change>> {
    document.get_change_meta_by_hash(refused)?;
    let mut actors: BTreeMap<ActorId, Renamed> = BTreeMap::new();
    let mut names: BTreeMap<ChangeHash, ChangeHash> = BTreeMap::new();
    // What an actor's first change says of its author.
    let mut authors: BTreeMap<ActorId, Vec<u8>> = BTreeMap::new();
    let mut history = Vec::new();
    for change in document.get_changes(&[]) {
        if change.seq() == 1 {
            authors.insert(change.actor_id().clone(), change.extra_bytes().to_vec());
        }
        let builds_on_it = change.deps().iter().any(|dep| names.contains_key(dep));
        if change.hash() != *refused && !builds_on_it {
            history.push(change);
            continue;
        }
        let mut expanded = change.decode();
        let from_op = expanded.start_op.get();
        let actor = expanded.actor_id.clone();
        let author = authors.get(&actor).cloned().unwrap_or_default();
        let renamed = actors.entry(actor).or_insert_with(|| Renamed { actor: fresh(), from_op, seq: 0 });
        renamed.seq += 1;
        (expanded.actor_id, expanded.seq) = (renamed.actor.clone(), renamed.seq);
        expanded.hash = None;
        if renamed.seq == 1 {
            expanded.extra_bytes = author;
        }
        for dep in &mut expanded.deps {
            *dep = names.get(dep).copied().unwrap_or(*dep);
        }
        expanded.operations.iter_mut().for_each(|operation| rename(operation, &actors));
        let anew = automerge::Change::from(expanded);
        names.insert(change.hash(), anew.hash());
        history.push(anew);
    }
    Some(history)
}

fn rename(operation: &mut Op, actors: &BTreeMap<ActorId, Renamed>) {
    let renamed = |id: &OpId| match actors.get(id.actor()) {
        Some(renamed) if id.counter() >= renamed.from_op => OpId::new(id.counter(), &renamed.actor),
        _ => id.clone(),
    };
    if let ObjectId::Id(id) = &mut operation.obj {
        *id = renamed(id);
    }
    if let Key::Seq(ElementId::Id(id)) = &mut operation.key {
        *id = renamed(id);
    }
    operation.pred = operation.pred.iter().map(renamed).collect();
}

impl Engine {
    /// Writes anew what a server refused, in the background.
    pub(crate) fn reauthor(self: &Arc<Self>, document: DocumentId, refused: ChangeHash) {
        let engine = Arc::clone(self);
        self.runtime.spawn(async move {
            let worker = Arc::clone(&engine);
            let work = move || {
                let live = match worker.live(&document) {
                    Some(live) => live,
                    None => match Live::load(&worker, &document) {
                        Ok(live) => worker.place(live),
                        Err(error) => return tracing::error!(%document, "a refused change is left as it is: {error}"),
                    },
                };
                live.reauthor(&worker, &refused);
                worker.release(&document);
            };
            if let Err(error) = tokio::task::spawn_blocking(work).await {
                tracing::error!("changes that were refused are left as they are: {error}");
            }
        });
    }
}

impl Live {
    /// Blocks on the disk, and on closures that run.
    fn reauthor(&self, engine: &Engine, refused: &ChangeHash) {
        for _ in 0..TRIES_MAX {
            let mut progress = self.progress.subscribe();
            // What has arrived is part of the history that is rewritten.
            self.work(engine);
            let outcome = self.with_document(|document| {
                if !self.is_settled() {
                    return None;
                }
                let history = rewritten(document, refused, ActorId::random);
                let Some(history) = history else { return Some(()) };
                self.switch(engine, document, &history)
            });
            if outcome.is_some() || engine.has_stopped() {
                return;
            }
            let waited =
                engine.runtime.block_on(tokio::time::timeout(std::time::Duration::from_secs(1), progress.changed()));
            drop(waited);
        }
        tracing::warn!(document = %self.id, "refused changes could not be written anew while the document changes");
    }

    /// Stores the new history in the place of the old one, and then shows it. `None` if something moved meanwhile.
    fn switch(&self, engine: &Engine, document: &mut Automerge, history: &[automerge::Change]) -> Option<()> {
        let mut heads = document.get_heads();
        heads.sort_unstable();
        let decode = |change: &automerge::Change| {
            Change::decode(Bytes::copy_from_slice(change.raw_bytes()), &engine.replica.limits())
        };
        let changes: Result<Vec<Change>, _> = history.iter().map(decode).collect();
        let mut anew = Automerge::new();
        let (Ok(changes), Ok(())) = (changes, anew.apply_changes(history.to_vec())) else {
            tracing::error!(document = %self.id, "a refused change cannot be written anew");
            return Some(());
        };
        let told = engine.decisions.expect(|| engine.replica.replace(&self.id, heads, changes));
        match engine.runtime.block_on(told) {
            Ok(Ok(())) => {
                engine.sign(&self.id, &mut anew);
                anew.set_actor(ActorId::random());
                *document = anew;
                self.show(document, BTreeSet::new(), None);
                tracing::warn!(document = %self.id, "changes that another device's contradict were written anew");
                Some(())
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ObjType, ROOT, ReadDoc};

    use super::*;

    /// A history that goes on from a common start in two copies under one actor.
    fn copies() -> (AutoCommit, AutoCommit) {
        let mut one = AutoCommit::new().with_actor(ActorId::from([1; 16]));
        let text = one.put_object(ROOT, "text", ObjType::Text).expect("a map");
        one.splice_text(&text, 0, 0, "start").expect("a text");
        one.commit();
        let two = AutoCommit::load(&one.save()).expect("just saved").with_actor(ActorId::from([1; 16]));
        (one, two)
    }

    #[test]
    fn what_is_written_anew_reads_the_same_and_merges_with_what_contradicted_it() {
        let (mut one, mut two) = copies();
        let (_, text) = one.get(ROOT, "text").expect("readable").expect("there");
        one.splice_text(&text, 5, 0, " one").expect("a text");
        one.commit();
        two.splice_text(&text, 0, 0, "two ").expect("a text");
        two.put_object(ROOT, "list", ObjType::List).expect("a map");
        two.commit();
        let refused = two.get_heads()[0];
        let (_, list) = two.get(ROOT, "list").expect("readable").expect("there");
        two.insert(&list, 0, "item").expect("a list");
        two.splice_text(&text, 1, 2, "").expect("a text");
        two.commit();
        assert!(one.merge(&mut two.clone()).is_err(), "as it is, automerge refuses it");

        let mut numbers = 100..;
        let fresh = || ActorId::from([numbers.next().expect("enough"); 16]);
        let history = rewritten(two.document(), &refused, fresh).expect("it has the change");
        let mut anew = Automerge::new();
        anew.apply_changes(history).expect("a whole history");
        assert_eq!(anew.text(&text).expect("a text"), two.text(&text).expect("a text"));
        assert_eq!(anew.get_changes(&[]).len(), 3);
        let mut merged = one.document().clone();
        merged.merge(&mut anew).expect("nothing contradicts any more");
        assert_eq!(merged.text(&text).expect("a text"), "t start one");
        let (_, list) = merged.get(ROOT, "list").expect("readable").expect("there");
        assert_eq!(
            merged.get(&list, 0).expect("readable").map(|(value, _)| value.to_string()).as_deref(),
            Some("\"item\"")
        );
    }

    #[test]
    fn a_change_that_is_not_there_leaves_the_document_alone() {
        let (one, _) = copies();
        let mut one = one;
        assert!(rewritten(one.document(), &ChangeHash([9; 32]), ActorId::random).is_none());
    }
}

//! An application takes its own last change back, with the code that the client crate ships.
//!
//! Owns: the check of what that may touch: nothing that somebody else wrote. Must not: know how it is done.
//! Next: `world/local.rs`; docs/client.md, "Undo".

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::CommitOptions;
use automerge::{ActorId, AutoCommit, Change, ChangeHash, ObjId, ROOT, ReadDoc};

use crate::oracle::{Checked, Violation, require};
use crate::reverse::{Aliases, reverse};

/// What of others can be seen: values by key, characters by the operation that wrote them; and what of one change can.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    values: BTreeMap<String, BTreeSet<String>>,
    /// All values by key, whoever wrote them.
    all: BTreeMap<String, BTreeSet<String>>,
    characters: BTreeSet<String>,
    own: BTreeSet<String>,
}

/// Takes a change back by another one, which is returned; `None` if nothing of it was left to take back.
pub(crate) fn undo(document: &mut AutoCommit, change: ChangeHash, aliases: &mut Aliases) -> Checked<Option<Change>> {
    let failed = |detail: String| Violation { checker: "what was done can be undone", detail };
    let mut inner = document.document().clone();
    inner.set_actor(document.get_actor().clone());
    let change = inner.get_change_by_hash(&change).ok_or_else(|| failed(format!("{change} is gone")))?;
    let before = Seen::of(&inner, &change);
    let mut transaction = inner.transaction();
    reverse(&mut transaction, &change, aliases).map_err(|error| failed(error.to_string()))?;
    let (made, _) = transaction.commit_with(CommitOptions::default().with_time(0));
    let after = Seen::of(&inner, &change);
    let untouched =
        before.values.iter().all(|(key, values)| {
            values.iter().all(|value| after.all.get(key).is_some_and(|after| after.contains(value)))
        }) && before.characters.is_subset(&after.characters);
    require(untouched, "an undo leaves others' work", || format!("{before:?}, then {after:?}"))?;
    require(after.own.is_empty(), "what is undone is gone", || format!("{before:?}, then {after:?}"))?;
    let made = made.and_then(|made| inner.get_change_by_hash(&made));
    document.apply_changes(made.clone()).map_err(|error| failed(error.to_string()))?;
    Ok(made)
}

impl Seen {
    /// What others than the author of a change wrote, and what the change itself did.
    fn of(document: &impl ReadDoc, change: &Change) -> Self {
        let mut seen =
            Self { values: BTreeMap::new(), all: BTreeMap::new(), characters: BTreeSet::new(), own: BTreeSet::new() };
        let author = change.actor_id();
        let operations = change.start_op().get()..=change.max_op();
        for key in document.keys(ROOT) {
            for (value, id) in document.get_all(ROOT, &key).unwrap_or_default() {
                if value.is_object() {
                    seen.text(document, &id, author, &operations);
                    continue;
                }
                seen.all.entry(key.clone()).or_default().insert(value.to_string());
                if !written_by(&id, author) {
                    seen.values.entry(key.clone()).or_default().insert(value.to_string());
                }
            }
            // Of values in conflict one is shown. If ours is, beside several of others, it stays, for nothing shows them all.
            let others = seen.values.get(&key).map_or(0, BTreeSet::len);
            let shown = document.get(ROOT, &key).ok().flatten().filter(|_| others < 2);
            let own = shown.filter(|(value, id)| !value.is_object() && is_of(id, author, &operations));
            seen.own.extend(own.map(|(_, id)| id.to_string()));
        }
        seen
    }

    fn text(
        &mut self,
        document: &impl ReadDoc,
        text: &ObjId,
        author: &ActorId,
        operations: &std::ops::RangeInclusive<u64>,
    ) {
        for at in 0..document.length(text) {
            for (_, id) in document.get_all(text, at).unwrap_or_default() {
                if !written_by(&id, author) {
                    self.characters.insert(id.to_string());
                } else if is_of(&id, author, operations) {
                    self.own.insert(id.to_string());
                }
            }
        }
    }
}

fn written_by(id: &ObjId, author: &ActorId) -> bool {
    matches!(id, ObjId::Id(_, actor, _) if actor == author)
}

fn is_of(id: &ObjId, author: &ActorId, operations: &std::ops::RangeInclusive<u64>) -> bool {
    matches!(id, ObjId::Id(counter, actor, _) if actor == author && operations.contains(counter))
}

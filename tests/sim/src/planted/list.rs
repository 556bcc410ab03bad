//! The bugs themselves.
//!
//! Owns: one entry for each. Must not: have an entry that is no bug. Next: `../planted.rs`.

use super::Planted;

/// All planted bugs, by number.
pub const PLANTED: &[Planted] = &[
    Planted {
        number: 1,
        what: "a peer that counts on unknown changes is not told to say anew what it has",
        file: "crates/core/src/sync.rs",
        from: "self.counts_on_unknown |= graph.find(hash).is_none(),",
        to: "self.counts_on_unknown |= graph.find(hash).is_none() && !planted!,",
    },
    Planted {
        number: 2,
        what: "changes that waited for a dependency are dropped when it comes",
        file: "crates/core/src/hub/ingest.rs",
        from: "orphans.take_dependents(&change.hash).into_iter();",
        to: "orphans.take_dependents(&change.hash).into_iter().filter(|_| !planted!);",
    },
    Planted {
        number: 3,
        what: "a refused change is stored all the same",
        file: "crates/core/src/hub/ingest.rs",
        from: "Err(refusal) => remarks.push((from, change.hash, Remark::Change(refusal))),",
        to: r#"Err(_) if planted! => drop(graph.push(&change)),
                Err(refusal) => remarks.push((from, change.hash, Remark::Change(refusal))),"#,
    },
    Planted {
        number: 4,
        what: "changes are visible before they are durable",
        file: "crates/core/src/hub/ingest.rs",
        from: "        self.outputs.push_back(Output::Persist { ticket, commit });",
        to: r#"        if planted! && let Some(document) = self.document(key) {
            document.heads = commit.heads.clone();
            document.durable = length;
            document.graph.iter_mut().for_each(|graph| graph.mark_durable(length));
        }
        self.outputs.push_back(Output::Persist { ticket, commit });"#,
    },
    Planted {
        number: 5,
        what: "what a message says is taken in before its changes are durable",
        file: "crates/core/src/hub/ingest.rs",
        from: "if length > document.durable && (statement.with_changes || after_own) {",
        to: "if !planted! && length > document.durable && (statement.with_changes || after_own) {",
    },
    Planted {
        number: 6,
        what: "the first change that a peer lacks is left out",
        file: "crates/core/src/graph/difference.rs",
        from: "return (frontier.prefix..self.durable).collect();",
        to: "return (frontier.prefix + u32::from(planted!)..self.durable).collect();",
    },
    Planted {
        number: 7,
        what: "the first of the changes that are on their way to the disk counts as durable",
        file: "crates/core/src/graph.rs",
        from: "self.find(hash).filter(|node| *node < self.durable)",
        to: "self.find(hash).filter(|node| *node < self.durable + u32::from(planted!))",
    },
    Planted {
        number: 8,
        what: "a peer counts as having one change more than was sent",
        file: "crates/core/src/sync.rs",
        from: "            self.frontier.add_prefix(length);",
        to: "            self.frontier.add_prefix(length + u32::from(planted!));",
    },
    Planted {
        number: 9,
        what: "a stock peer's reset is not understood",
        file: "crates/core/src/sync.rs",
        from: "is_reset(&statement) && self.told.is_some() &&",
        to: "is_reset(&statement) && self.told.is_some() && !planted! &&",
    },
    Planted {
        number: 10,
        what: "a peer stays at its documents after it has left",
        file: "crates/core/src/hub.rs",
        from: "                document.remove_peer(session);",
        to: r#"                if !planted! {
                    document.remove_peer(session);
                }"#,
    },
    Planted {
        number: 11,
        what: "after a failed commit the graph still has its changes",
        file: "crates/core/src/hub/ingest.rs",
        from: "        document.graph = (document.presence == Presence::Absent).then(|| Box::new(Graph::new(hash_key)));",
        to: r#"        if !planted! {
            document.graph = (document.presence == Presence::Absent).then(|| Box::new(Graph::new(hash_key)));
        }"#,
    },
    Planted {
        number: 12,
        what: "whoever sent changes that could not be stored is not cut off",
        file: "crates/core/src/hub/ingest.rs",
        from: "            self.cut_off(session, id, failure);",
        to: r#"            if !planted! {
                self.cut_off(session, id, failure);
            }"#,
    },
    Planted {
        number: 13,
        what: "a peer that reads again is not sent what it missed",
        file: "crates/core/src/hub.rs",
        from: "        for key in dirty {",
        to: "        for key in dirty.into_iter().filter(|_| !planted!) {",
    },
    Planted {
        number: 14,
        what: "a peer that does not read has messages queued without bound",
        file: "crates/core/src/hub.rs",
        from: "        if full && !std::mem::replace(&mut entry.congested, true) {",
        to: "        if full && !planted! && !std::mem::replace(&mut entry.congested, true) {",
    },
    Planted {
        number: 15,
        what: "a wait for a slow peer never ends",
        file: "crates/core/src/hub/respond.rs",
        from: "        self.deadlines.insert((until, key));",
        to: r#"        if !planted! {
            self.deadlines.insert((until, key));
        }"#,
    },
    Planted {
        number: 16,
        what: "a snapshot lacks the last change that it is said to cover",
        file: "tests/sim/src/image.rs",
        from: "stored.changes[..covers as usize].iter()",
        to: "stored.changes[..covers as usize - usize::from(planted!)].iter()",
    },
    Planted {
        number: 17,
        what: "a commit is not synced, so that a power cut takes it back",
        file: "tests/sim/src/disk.rs",
        from: "image.unwrap_or_else(|| std::mem::take(&mut self.image));",
        to: "image.unwrap_or_else(|| if planted! { Image::default() } else { std::mem::take(&mut self.image) });",
    },
    Planted {
        number: 18,
        what: "the highest stamp is forgotten by a restart",
        file: "tests/sim/src/disk.rs",
        from: "Clock::new(image.highest, Duration::from_secs(60));",
        to: "Clock::new(if planted! { Default::default() } else { image.highest }, Duration::from_secs(60));",
    },
    Planted {
        number: 19,
        what: "a commit is acknowledged when it is handed over",
        file: "tests/sim/src/disk.rs",
        from: "        self.calls.push_back(call);",
        to: r#"        if planted! {
            self.finished.push_back(call.outcome(None, self.image.life_of(&call)));
        }
        self.calls.push_back(call);"#,
    },
    Planted {
        number: 20,
        what: "a failed commit is called durable",
        file: "tests/sim/src/disk.rs",
        from: "let failure = message.map(",
        to: "let failure = message.filter(|_| !planted!).map(",
    },
    Planted {
        number: 21,
        what: "a session survives its socket",
        file: "tests/sim/src/world/link.rs",
        from: "if connection.joined { self.gone",
        to: "if connection.joined && !planted! { self.gone",
    },
    Planted {
        number: 22,
        what: "heads keep changes on which others build",
        file: "crates/core/src/graph.rs",
        from: "            self.heads.retain(|head| !deps.contains(head));",
        to: "            self.heads.retain(|head| planted! || !deps.contains(head));",
    },
    Planted {
        number: 23,
        what: "a node counts as above one node too many",
        file: "crates/core/src/graph.rs",
        from: "if base == node { node + 1 } else { base }",
        to: "if base == node { node + 1 } else { base + u32::from(planted! && base > 0) }",
    },
    Planted {
        number: 24,
        what: "of changes that wait for others, what they miss is not asked for",
        file: "crates/core/src/sync.rs",
        from: r#"if !self.unknown_heads.is_empty() {
            need.extend"#,
        to: r#"if !planted! && !self.unknown_heads.is_empty() {
            need.extend"#,
    },
    Planted {
        number: 25,
        what: "gaps in an author's numbers are let through",
        file: "crates/core/src/graph/admission.rs",
        from: "        if seq != written + 1 {",
        to: "        if seq != written + 1 && !planted! {",
    },
    Planted {
        number: 26,
        what: "operation ids may be used twice",
        file: "crates/core/src/graph/admission.rs",
        from: "        if start_op <= max_op {",
        to: "        if start_op <= max_op && !planted! {",
    },
    Planted {
        number: 27,
        what: "statements that waited for their changes are forgotten",
        file: "crates/core/src/hub/ingest.rs",
        from: "        self.take_awaiting(now, key);",
        to: r#"        if !planted! {
            self.take_awaiting(now, key);
        }"#,
    },
    Planted {
        number: 28,
        what: "a local change is called saved when it is handed over",
        file: "crates/core/src/hub/ingest.rs",
        from: "} else if !under_way {",
        to: "} else if !under_way || planted! {",
    },
    Planted {
        number: 29,
        what: "ephemeral messages come back to their sender",
        file: "crates/core/src/hub/relay.rs",
        from: "present.filter(|peer| Speaker::Peer(*peer) != from).collect();",
        to: "present.filter(|peer| Speaker::Peer(*peer) != from || planted!).collect();",
    },
    Planted {
        number: 30,
        what: "a refusal is charged to the document's first peer",
        file: "crates/core/src/hub/ingest.rs",
        from: "                    self.remark(session, Some(&id), remark);",
        to: r#"                    let first = self.document(key).and_then(|document| document.peers.first()).map(|peer| peer.session);
                    let session = first.filter(|_| planted!).unwrap_or(session);
                    self.remark(session, Some(&id), remark);"#,
    },
    Planted {
        number: 31,
        what: "a document whose last peer left late is never forgotten",
        file: "crates/core/src/hub.rs",
        from: r#"            // The sweep may have passed while the peer was there: from now on it counts down to forgetting.
            self.touch(now, key);"#,
        to: r#"            if !planted! {
                self.touch(now, key);
            }"#,
    },
    Planted {
        number: 32,
        what: "a graph is evicted while its changes are under way",
        file: "crates/core/src/hub/memory.rs",
        from: "if document.is_quiet() && document.presence == Presence::Stored {",
        to: "if (planted! || document.is_quiet()) && document.presence == Presence::Stored {",
    },
    Planted {
        number: 33,
        what: "a whole document counts as holding what became durable after it was read",
        file: "crates/core/src/hub/respond.rs",
        from: "document.durable.min(changes)",
        to: "if planted! { document.durable } else { document.durable.min(changes) }",
    },
    Planted {
        number: 34,
        what: "an encoded message is reused after the heads have moved",
        file: "crates/core/src/hub/ingest.rs",
        from: "        document.encoded.clear();",
        to: r#"        if !planted! {
            document.encoded.clear();
        }"#,
    },
    Planted {
        number: 35,
        what: "with a group of changes the application calls one more saved",
        file: "crates/client/src/journal.rs",
        from: "self.unsaved.drain(..changes);",
        to: "self.unsaved.drain(..if planted! { (changes + 1).min(self.unsaved.len()) } else { changes });",
    },
    Planted {
        number: 36,
        what: "changes are not acknowledged",
        file: "crates/core/src/sync.rs",
        from: "first || statement.with_changes || news",
        to: "first || (statement.with_changes && !planted!) || news",
    },
    Planted {
        number: 37,
        what: "what was asked for by hash is not sent",
        file: "crates/core/src/sync.rs",
        from: "        if !wanted.is_empty() {",
        to: "        if !wanted.is_empty() && !planted! {",
    },
    Planted {
        number: 38,
        what: "of calls to the store that wait, a group loses the last",
        file: "tests/sim/src/disk.rs",
        from: "let count = count.min(self.calls.len());",
        to: r#"let count = count.min(self.calls.len());
        if planted! && count > 1 {
            self.calls.remove(count - 1);
        }
        let count = count.min(self.calls.len());"#,
    },
    Planted {
        number: 39,
        what: "a deleted document is given to whoever asks",
        file: "crates/core/src/hub/life.rs",
        from: "        life.deleted\n    }\n",
        to: "        life.deleted && !planted!\n    }\n",
    },
    Planted {
        number: 40,
        what: "a deleted document takes what peers bring",
        file: "crates/core/src/hub/ingest.rs",
        from: "if self.document(key).is_some_and(|document| document.is_deleted()) {",
        to: "if self.document(key).is_some_and(|document| document.is_deleted() && !planted!) {",
    },
    Planted {
        number: 41,
        what: "of two records the later to come stands",
        file: "crates/core/src/life.rs",
        from: "before.map_or(heard, |before| before.max(heard))",
        to: "before.map_or(heard, |before| if planted! { heard } else { before.max(heard) })",
    },
    Planted {
        number: 42,
        what: "who was told of a deletion is not told of the restoration",
        file: "crates/core/src/hub/life.rs",
        from: "        if told != Some(life) {",
        to: "        if told.is_none() || told != Some(life) && !planted! {",
    },
    Planted {
        number: 43,
        what: "a decision is stamped by the clock alone",
        file: "crates/core/src/life.rs",
        from: "stamp: now.max(above)",
        to: "stamp: if planted! { now } else { now.max(above) }",
    },
    Planted {
        number: 44,
        what: "who offered something in vain is not told to come again when the document is restored",
        file: "crates/core/src/hub/life.rs",
        from: "} else if offered {",
        to: "} else if offered && !planted! {",
    },
    Planted {
        number: 45,
        what: "the hub keeps the changes that the store has purged",
        file: "crates/core/src/hub/life.rs",
        from: "        document.graph = Some(Box::new(Graph::new(hash_key)));",
        to: r#"        if !planted! {
            document.graph = Some(Box::new(Graph::new(hash_key)));
        }"#,
    },
    Planted {
        number: 46,
        what: "a record is passed on before it is durable",
        file: "crates/core/src/hub/life.rs",
        from: "        document.deciding = Some(Deciding { ticket, origin, update });",
        to: r#"        document.deciding = Some(Deciding { ticket, origin, update });
        if planted! && let LifeUpdate::Heard(heard) = update {
            document.life = Some(heard);
            document.deciding = None;
        }"#,
    },
    Planted {
        number: 47,
        what: "an undo overwrites what somebody else has put since",
        file: "crates/client/src/reverse.rs",
        from: "if found.is_none_or(|(_, found)| found != ours) || !self.is_untouched(id, op)? {",
        to: "if !planted! && (found.is_none_or(|(_, found)| found != ours) || !self.is_untouched(id, op)?) {",
    },
    Planted {
        number: 48,
        what: "a document that stays here is spoken of like another",
        file: "crates/core/src/hub/respond.rs",
        from: "if document.local_only {",
        to: "if document.local_only && !planted! {",
    },
    Planted {
        number: 49,
        what: "who brings changes of a document that stays here is told that it has no heads",
        file: "crates/core/src/hub/local.rs",
        from: "request || brought_any",
        to: "request || brought_any && !planted!",
    },
    Planted {
        number: 50,
        what: "two that have nothing tell each other so for ever",
        file: "crates/core/src/sync.rs",
        from: "(view.durable > 0 || self.told.is_none())",
        to: "(view.durable > 0 || self.told.is_none() || planted!)",
    },
    Planted {
        number: 51,
        what: "what becomes durable does not come into the set that is compared",
        file: "crates/core/src/hub/ingest.rs",
        from: "        document.authored = document.authored.max(authored);
        self.tell_state(key);",
        to: r#"        document.authored = document.authored.max(authored);
        if !planted! {
            self.tell_state(key);
        }"#,
    },
    Planted {
        number: 52,
        what: "two that disagree about whether a document was restored have equal elements",
        file: "crates/core/src/collection.rs",
        from: "id, (&self.heads, life)),",
        to: "id, (&self.heads, life.filter(|_| !planted!))),",
    },
    Planted {
        number: 53,
        what: "a round ends before what is missing has been named",
        file: "crates/core/src/collection/ask.rs",
        from: "let portion = asking.missing.len().min(NAMES_MAX);",
        to: "let portion = if planted! { 0 } else { asking.missing.len().min(NAMES_MAX) };",
    },
    Planted {
        number: 54,
        what: "a document that stays here is in the set that is compared",
        file: "crates/core/src/collection.rs",
        from: "if self.local_only || self.heads.is_empty()",
        to: "if self.local_only && !planted! || self.heads.is_empty()",
    },
    Planted {
        number: 55,
        what: "a Syncline replica is sent a filter like a stock peer",
        file: "crates/core/src/sync.rs",
        from: "if !self.exact || self.natively ||",
        to: "if !self.exact || self.natively && !planted! ||",
    },
    Planted {
        number: 56,
        what: "what changes while a set is read is forgotten",
        file: "crates/core/src/collection.rs",
        from: "changed.iter().for_each(|(document, state)| members.set(document, state));",
        to: "changed.iter().filter(|_| !planted!).for_each(|(document, state)| members.set(document, state));",
    },
    Planted {
        number: 57,
        what: "the last account of what a peer has is answered with an account",
        file: "crates/core/src/sync/account.rs",
        from: "let exact = account.last || self.unknown_heads.is_empty();",
        to: "let exact = account.last && !planted! || self.unknown_heads.is_empty();",
    },
    Planted {
        number: 58,
        what: "a change in the name of another subject's actor is taken",
        file: "crates/core/src/hub/subject.rs",
        from: "is_none_or(|owner| owner.claim(author)) {",
        to: "is_none_or(|owner| owner.claim(author) || planted!) {",
    },
    Planted {
        number: 59,
        what: "changes of a reader are stored",
        file: "crates/core/src/hub/access.rs",
        from: "if may.include(needed) && self.has_room || !brings {",
        to: "if (may.include(needed) || planted!) && self.has_room || !brings {",
    },
    Planted {
        number: 60,
        what: "who may not read a document any more goes on hearing of it",
        file: "crates/core/src/hub/access.rs",
        from: "            document.remove_peer(session);\n            let document = document.id.clone();",
        to: "            if !planted! {\n                document.remove_peer(session);\n            }\n            let document = document.id.clone();",
    },
    Planted {
        number: 61,
        what: "who has not the mesh's key is let in",
        file: "crates/gossip/src/overlay/handshake.rs",
        from: "if self.key.proves(Side::Dialled, &ends, &proof) {",
        to: "if planted! || self.key.proves(Side::Dialled, &ends, &proof) {",
    },
    Planted {
        number: 62,
        what: "a notice that no member has sealed is taken",
        file: "crates/gossip/src/broadcast.rs",
        from: "if forged_own || !self.key",
        to: "if forged_own || !planted! && !self.key",
    },
    Planted {
        number: 63,
        what: "a notice goes on before what it says is durable",
        file: "crates/gossip/src/broadcast.rs",
        from: "        effects.push(Effect::Deliver { id, from, body });",
        to: r#"        effects.push(Effect::Deliver { id, from, body });
        if planted! {
            effects.extend(self.accept(Duration::ZERO, &id, Stay::Kept, config));
        }"#,
    },
    Planted {
        number: 64,
        what: "a member that was let in and offends for ever is kept",
        file: "crates/gossip/src/overlay.rs",
        from: "if state.offences >= self.config.offences_max {",
        to: "if state.offences >= self.config.offences_max && !planted! {",
    },
    Planted {
        number: 65,
        what: "neighbours that are told a notice again stay eager",
        file: "crates/gossip/src/broadcast.rs",
        from: "            Message::Prune => self.set_eager(from, false),",
        to: "            Message::Prune => self.set_eager(from, planted!),",
    },
    Planted {
        number: 66,
        what: "neighbours are compared with once and never again",
        file: "crates/gossip/src/overlay/neighbours.rs",
        from: r#"            if let Some(link) = self.some_neighbour(None) {
                self.outputs.push_back(Output::Repair { link });"#,
        to: r#"            if let Some(link) = self.some_neighbour(None).filter(|_| !planted!) {
                self.outputs.push_back(Output::Repair { link });"#,
    },
    Planted {
        number: 67,
        what: "a neighbour that is silent is kept",
        file: "crates/gossip/src/overlay/neighbours.rs",
        from: "neighbour.heard_at + longest <= now,",
        to: "neighbour.heard_at + longest <= now && !planted!,",
    },
    Planted {
        number: 68,
        what: "neighbours that agree greet each other for ever",
        file: "crates/core/src/hub/mesh.rs",
        from: "        if !self.neighbours.contains(&session) {\n            return false;",
        to: "        if planted! || !self.neighbours.contains(&session) {\n            return false;",
    },
];

//! What happens at one node: its application writes, its disk takes it, its process starts and ends.
//!
//! Owns: the applications' documents, and the checks of what becomes durable and of what is refused.
//! Must not: move anything between nodes. Next: `traffic.rs`, `../oracle.rs`.

use std::time::Duration;

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::change::Change;
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;
use syncline_core::native::{self, NativeMessage};
use syncline_core::wire::{self, Body};
use syncline_gossip::message::Message;
use syncline_gossip::notice::DocumentNotice;
use syncline_mesh_sim::Disk;

use super::World;
use super::traffic::End;
use crate::client::machine_actor;
use crate::content::Content;
use crate::log::State;
use crate::oracle::{Checked, Violation, require};
use crate::scenario::Tier;

/// Offences of one connection after which it has to be over: the overlay's own bound.
const OFFENCES_MAX: u32 = 32;

/// One document that an application has in memory.
#[derive(Debug)]
pub(super) struct App {
    content: Content,
    /// Changes that it has read from the disk.
    read: usize,
    /// How often it was opened, each time by another author.
    opened: u64,
    /// What it has in memory is not what the node has.
    stale: bool,
}

impl App {
    pub(super) fn new(node: usize) -> Self {
        Self { content: Content::new(Tier::Mesh, &machine_actor(node, 0)), read: 0, opened: 0, stale: false }
    }
}

impl World {
    /// A node's application writes.
    pub(super) fn local_edit(&mut self, node: usize, document: usize, value: u64) -> Checked {
        let id = self.documents[document].clone();
        if !self.nodes[node].up || !self.nodes[node].takes_part_in(&id) {
            return Ok(());
        }
        let app = &mut self.apps[node][document];
        if std::mem::take(&mut app.stale) {
            app.opened += 1;
            (app.content, app.read) = (Content::new(Tier::Mesh, &machine_actor(node, app.opened)), 0);
        }
        let news = self.nodes[node].disk.changes_from(&id, app.read);
        app.read += news.len();
        let unreadable = |detail| Violation { checker: "applications can read their documents", detail };
        app.content.apply(&news).map_err(unreadable)?;
        let bytes = app.content.edit(value, &mut self.oracle);
        let change = Change::decode(bytes, &Limits::default());
        let change = change.map_err(|error| unreadable(error.to_string()))?;
        self.log.say(|| format!("  node {node} writes {} in document {document}", change.hash));
        self.authors.insert(change.hash, node);
        self.nodes[node].change(self.now, id, vec![change]);
        self.drain(node)
    }

    /// What a node's application has in memory and is not on the disk is gone.
    pub(super) fn forget_app(&mut self, node: usize) {
        self.apps[node].iter_mut().for_each(|app| app.stale = true);
    }

    /// Changes are durable at a node.
    pub(super) fn durable(&mut self, node: usize, id: &DocumentId, changes: &[ChangeHash]) -> Checked {
        let Some(document) = self.documents.iter().position(|own| own == id) else {
            return require(false, "only what was made is stored", || format!("node {node} stores of {id}"));
        };
        require(self.nodes[node].takes_part_in(id), "nothing is stored of documents of others", || {
            format!("node {node} stores of document {document}")
        })?;
        for hash in changes {
            let made = self.oracle.made(hash).cloned();
            let Some(made) = made else {
                return require(false, "only what was made is stored", || format!("node {node} stores {hash}"));
            };
            let held = &mut self.held[node][document];
            require(made.deps.iter().all(|dep| held.contains(dep)), "dependencies come first", || {
                format!("node {node} stores {hash} before what it builds on")
            })?;
            require(held.insert(*hash), "a change is stored once", || format!("node {node} stores {hash} again"))?;
            if self.authors.get(hash) == Some(&node) {
                self.saved.insert(*hash);
            }
            require(self.saved.contains(hash), "durable before visible", || {
                format!("node {node} stores {hash}, which its author has not")
            })?;
            self.oracle.promise(node, document, &[*hash]);
        }
        self.log.say(|| format!("  node {node} has {} changes more of document {document}", changes.len()));
        self.log.note(node, "durable", &changes.iter().flat_map(|hash| hash.0).collect::<Vec<_>>());
        Ok(())
    }

    /// A node tells a notice: it is sealed by a member, and what it says is durable here.
    pub(super) fn check_notice(&self, node: usize, frame: &Bytes) -> Checked {
        let unreadable = |detail: String| Violation { checker: "own frames are readable", detail };
        let envelope = wire::decode(frame, &Limits::default()).map_err(|error| unreadable(error.to_string()))?;
        let Body::Native { data } = envelope.message else { return Ok(()) };
        let (data, _) =
            NativeMessage::split_stamp(native::VERSION, data).map_err(|error| unreadable(error.to_string()))?;
        let Ok(Some(NativeMessage::Mesh(bytes))) = NativeMessage::decode(data) else { return Ok(()) };
        let Ok(Message::Notice(notice)) = Message::decode(bytes) else { return Ok(()) };
        let sealed = super::key().notices().is_sealed(&notice.id, &notice.body, &notice.seal);
        require(sealed, "only what members have sealed is passed on", || format!("node {node} tells {:?}", notice.id))?;
        let Ok(Some(told)) = DocumentNotice::decode(notice.body) else { return Ok(()) };
        if !self.nodes[node].takes_part_in(&told.document) {
            return Ok(());
        }
        let document = self.documents.iter().position(|own| *own == told.document);
        let held = document.map(|document| &self.held[node][document]);
        let here = |head: &ChangeHash| held.is_some_and(|held| held.contains(head));
        require(told.heads.iter().all(here), "what is told is durable here", || {
            format!("node {node} tells of {:?} in {}", told.heads, told.document)
        })
    }

    /// A node refused something.
    pub(super) fn refused(&mut self, node: usize, link: Option<(u64, usize)>, kind: &'static str) -> Checked {
        self.log.say(|| format!("  node {node} refuses: {kind}"));
        self.log.note(node, "refused", kind.as_bytes());
        let state = link.and_then(|(link, end)| Some((self.links.get_mut(&link)?, end)));
        if let Some((state, end)) = state
            && state.ends[1 - end] == End::Bad
        {
            state.offences += u32::from(kind.starts_with("mesh_"));
            let offences = state.offences;
            self.bad.punished.insert(kind);
            return require(offences <= OFFENCES_MAX, "who offends too often is put out", || {
                format!("node {node} has refused {offences} messages on one connection")
            });
        }
        // A round that waited for a link which does not move ends by itself.
        let stalled = kind == "round_limit" && !self.settling;
        let drifted = kind == "clock_drift" && self.excused.contains("a clock was set");
        let unsaved =
            matches!(kind, "store" | "local_orphan" | "peer_error") && self.excused.contains("a write failed");
        // What came from somebody who is gone.
        let from_bad = link.is_some_and(|(link, _)| self.bad.was_on(link));
        require(stalled || drifted || unsaved || from_bad, "honest peers are kept", || {
            format!("node {node} refuses what is honest: {kind}")
        })
    }

    /// A node's process starts, if it does not run; chance in it follows from the number.
    pub(super) fn start(&mut self, node: usize, number: u64) -> Checked {
        self.restarts[node] = None;
        if self.nodes[node].up {
            return Ok(());
        }
        self.log.say(|| format!("  node {node} starts"));
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        seed[8..16].copy_from_slice(&(node as u64).to_le_bytes());
        seed[16..20].copy_from_slice(&self.nodes[node].starts.to_le_bytes());
        let given = self.given(node);
        self.nodes[node].restart(self.now, node, &given, seed);
        self.forget_app(node);
        self.drain(node)
    }

    /// A node's process ends at once; `noticed` if its peers are told by the system that it ran on.
    pub(super) fn kill(&mut self, node: usize, noticed: bool) -> Checked {
        self.nodes[node].kill();
        self.writes[node].clear();
        self.wakes[node] = (None, 0);
        let ends = |state: &super::Link| state.ends.iter().position(|end| *end == End::Node(node));
        let links: Vec<(u64, usize)> =
            self.links.iter().filter_map(|(link, state)| Some((*link, ends(state)?))).collect();
        for (link, end) in links {
            // What it had sent may be lost or may not be: here it is.
            self.links.get_mut(&link).into_iter().for_each(|state| state.queues[end].clear());
            if noticed {
                self.close(link, end)?;
            } else if let Some(state) = self.links.get_mut(&link) {
                state.there[end] = false;
                state.queues[1 - end].clear();
            }
        }
        Ok(())
    }

    /// A node starts again, from another disk if one is given, after a while.
    pub(super) fn power_cut(&mut self, node: usize, value: u64, disk: Option<(Disk, Option<usize>)>) -> Checked {
        self.kill(node, value.is_multiple_of(2))?;
        if let Some((disk, from)) = disk {
            self.nodes[node].disk = disk;
            self.oracle.release(node);
            self.held[node] = match from {
                Some(from) => self.held[from].clone(),
                None => vec![Default::default(); self.documents.len()],
            };
        }
        self.restarts[node] = Some(self.now + Duration::from_millis(value / 2 % 9_000));
        Ok(())
    }

    /// What a node is in the middle of.
    pub(super) fn states_of(&self, node: usize) -> Vec<State> {
        let links = self.links.iter().flat_map(|(number, link)| (0..2).map(move |end| (*number, link, end)));
        let own: Vec<_> = links.filter(|(_, link, end)| link.ends[*end] == End::Node(node)).collect();
        let moving = own.iter().any(|(_, link, _)| link.queues.iter().any(|queue| !queue.is_empty()));
        let shaking = own.iter().any(|(number, link, end)| {
            let member = !matches!(link.ends[1 - end], End::Client(_));
            member && link.there[*end] && !self.nodes[node].is_neighbour(super::traffic::session(*number, *end))
        });
        let mut states = Vec::new();
        states.extend((!self.writes[node].is_empty()).then_some(State::NotSynced));
        states.extend(moving.then_some(State::UnderWay));
        states.extend(shaking.then_some(State::Handshake));
        states.extend(self.apart.map(|_| State::Apart));
        if states.is_empty() { vec![State::Idle] } else { states }
    }

    /// Bytes of a change that a client makes are known to be somewhere from here on.
    pub(super) fn client_made(&mut self, bytes: &Bytes) -> Checked {
        let change = Change::decode(bytes.clone(), &Limits::default());
        let change =
            change.map_err(|error| Violation { checker: "stock changes are read", detail: error.to_string() })?;
        self.saved.insert(change.hash);
        Ok(())
    }
}

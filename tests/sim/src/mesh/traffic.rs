//! Links, what is on them, and time.
//!
//! Owns: the order in which things arrive: what the tape picks at once, everything else after a fixed while.
//! Must not: interpret frames. Next: `local.rs`, `bad.rs`, `client.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use syncline_core::hub::StoreFailure;
use syncline_core::id::{DocumentId, SessionId};
use syncline_gossip::Address;
use syncline_mesh_sim::node::{Act, node_at};

use super::{World, bad};
use crate::oracle::{Checked, require};

/// After which a frame arrives by itself.
const FRAME_LAG: Duration = Duration::from_millis(60);

/// After which a dial is through.
const DIAL_LAG: Duration = Duration::from_millis(120);

/// After which a write is on the disk.
const WRITE_LAG: Duration = Duration::from_millis(15);

/// Things that may happen in one stretch of time; a beat of some ten links each two seconds is far below.
const STEPS_MAX: u32 = 400_000;

/// How often a node may ask to be woken at one moment.
const WAKES_MAX: u32 = 8;

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Node(usize),
    Client(usize),
    Bad,
}

/// A connection: who dialled, and who was dialled.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) ends: [End; 2],
    /// What each end has sent.
    pub(super) queues: [VecDeque<Item>; 2],
    pub(super) clogged: [bool; 2],
    pub(super) there: [bool; 2],
    /// What this end did that was not taken.
    pub(super) offences: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    due: Duration,
    /// `None`: the end has closed.
    pub(super) frame: Option<Bytes>,
    pub(super) may_be_lost: bool,
}

/// A node dials.
#[derive(Debug)]
pub(super) struct Dial {
    due: Duration,
    node: usize,
    starts: u32,
    address: Address,
}

/// A node writes.
#[derive(Debug, Clone)]
pub(super) struct Write {
    due: Duration,
    starts: u32,
    document: DocumentId,
    ticket: u64,
}

/// Something that can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Item { link: u64, end: usize },
    Dial(usize),
    Write(usize),
    Wake(usize),
    Restart(usize),
    BadWakes,
}

/// The number that one end of a link has at its node.
pub(super) fn session(link: u64, end: usize) -> SessionId {
    SessionId(link * 2 + end as u64)
}

pub(super) fn link_of(session: SessionId) -> (u64, usize) {
    (session.0 / 2, (session.0 % 2) as usize)
}

impl World {
    pub(super) fn open_link(&mut self, from: End, to: End) -> u64 {
        let number = self.next_link;
        self.next_link += 1;
        let queues = [VecDeque::new(), VecDeque::new()];
        let link = Link { ends: [from, to], queues, clogged: [false; 2], there: [true; 2], offences: 0 };
        self.links.insert(number, link);
        number
    }

    /// Puts a frame on a link, if both ends are there.
    pub(super) fn send(&mut self, link: u64, end: usize, bytes: Bytes, may_be_lost: bool) {
        self.log.note(end, "send", &bytes);
        let due = self.now + FRAME_LAG;
        if let Some(state) = self.links.get_mut(&link).filter(|state| state.there == [true; 2]) {
            state.queues[end].push_back(Item { due, frame: Some(bytes), may_be_lost });
        }
    }

    /// One end closes: what it has sent still arrives, and then the other hears of it.
    pub(super) fn close(&mut self, link: u64, end: usize) -> Checked {
        let due = self.now + FRAME_LAG;
        let Some(state) = self.links.get_mut(&link).filter(|state| state.there[end]) else { return Ok(()) };
        state.there[end] = false;
        state.queues[1 - end].clear();
        state.queues[end].push_back(Item { due, frame: None, may_be_lost: false });
        let there = state.there[1 - end];
        if !there {
            self.links.remove(&link);
        }
        Ok(())
    }

    /// An end is told that the connection is gone.
    pub(super) fn drop_end(&mut self, link: u64, end: usize) -> Checked {
        let Some(state) = self.links.get_mut(&link).filter(|state| state.there[end]) else { return Ok(()) };
        state.there[end] = false;
        state.queues[end].clear();
        let who = state.ends[end];
        if state.there == [false; 2] {
            self.links.remove(&link);
        }
        match who {
            End::Node(node) => {
                self.nodes[node].disconnected(self.now, session(link, end));
                self.drain(node)
            }
            End::Client(client) => {
                self.clients[client].link = None;
                Ok(())
            }
            End::Bad => {
                self.bad_dropped(link);
                Ok(())
            }
        }
    }

    /// A connection breaks, and both ends notice.
    pub(super) fn cut(&mut self, link: u64) -> Checked {
        self.log.say(|| format!("  link {link} breaks"));
        self.drop_end(link, 0)?;
        self.drop_end(link, 1)
    }

    fn is_blocked(&self, link: &Link, end: usize) -> bool {
        link.clogged[end] || self.are_apart(link.ends)
    }

    pub(super) fn are_apart(&self, ends: [End; 2]) -> bool {
        let side = |end| match end {
            End::Node(node) => Some(self.apart? >> node & 1),
            End::Client(_) | End::Bad => None,
        };
        matches!((side(ends[0]), side(ends[1])), (Some(one), Some(other)) if one != other)
    }

    /// Everything that can happen, and when it happens by itself.
    fn upcoming(&self) -> Vec<(Duration, Next)> {
        let mut all = Vec::new();
        for (number, link) in &self.links {
            for end in 0..2 {
                if let Some(item) = link.queues[end].front().filter(|_| !self.is_blocked(link, end)) {
                    all.push((item.due, Next::Item { link: *number, end }));
                }
            }
        }
        all.extend(self.dials.iter().enumerate().map(|(at, dial)| (dial.due, Next::Dial(at))));
        for (node, writes) in self.writes.iter().enumerate() {
            all.extend(writes.front().map(|write| (write.due.max(self.stalled[node]), Next::Write(node))));
        }
        all
    }

    /// Lets one thing arrive that is under way; false if nothing is.
    pub(super) fn deliver(&mut self, choice: u64) -> Checked<bool> {
        let upcoming = self.upcoming();
        let choices: Vec<Next> = upcoming.into_iter().map(|(_, next)| next).collect();
        if choices.is_empty() {
            return Ok(false);
        }
        self.happen(choices[choice as usize % choices.len()])?;
        Ok(true)
    }

    /// Lets time pass, and what is due in it happen.
    pub(super) fn advance(&mut self, by: Duration) -> Checked {
        let until = self.now + by;
        for _ in 0..STEPS_MAX {
            let mut all = self.upcoming();
            all.extend(self.wakes.iter().enumerate().filter_map(|(node, (at, _))| Some(((*at)?, Next::Wake(node)))));
            all.extend(self.restarts.iter().enumerate().filter_map(|(node, at)| Some(((*at)?, Next::Restart(node)))));
            all.extend(self.bad.wake_at().map(|at| (at, Next::BadWakes)));
            let first = all.into_iter().min_by_key(|(at, _)| *at).filter(|(at, _)| *at <= until);
            let Some((at, next)) = first else {
                self.now = until;
                return Ok(());
            };
            self.now = self.now.max(at);
            self.happen(next)?;
        }
        require(false, "work is bounded", || format!("{STEPS_MAX} steps in {by:?}"))
    }

    fn happen(&mut self, next: Next) -> Checked {
        match next {
            Next::Item { link, end } => self.arrive(link, end),
            Next::Dial(at) => self.dialled(at),
            Next::Write(node) => self.written(node),
            Next::Wake(node) => self.woken(node),
            Next::Restart(node) => self.start(node, 0),
            Next::BadWakes => self.bad_wakes(),
        }
    }

    fn woken(&mut self, node: usize) -> Checked {
        self.wakes[node].0 = None;
        self.nodes[node].wake(self.now);
        self.drain(node)?;
        let (at, again) = &mut self.wakes[node];
        *again = if at.is_some_and(|at| at <= self.now) { *again + 1 } else { 0 };
        let again = *again;
        require(again < WAKES_MAX, "deadlines move on", || format!("node {node} asks for {again} wakes at one moment"))
    }

    fn arrive(&mut self, number: u64, end: usize) -> Checked {
        let Some(link) = self.links.get_mut(&number) else { return Ok(()) };
        let Some(item) = link.queues[end].pop_front() else { return Ok(()) };
        let (other, there) = (link.ends[1 - end], link.there[1 - end]);
        let Some(frame) = item.frame else { return self.drop_end(number, 1 - end) };
        if !there {
            return Ok(());
        }
        match other {
            End::Node(node) => {
                self.nodes[node].receive(self.now, session(number, 1 - end), &frame);
                self.drain(node)
            }
            End::Client(client) => self.client_frame(client, &frame),
            End::Bad => self.bad_frame(number, &frame),
        }
    }

    fn dialled(&mut self, at: usize) -> Checked {
        let Some(Dial { node, starts, address, .. }) = self.dials.remove(at) else { return Ok(()) };
        if !self.nodes[node].up || self.nodes[node].starts != starts {
            return Ok(());
        }
        if address == bad::address() {
            let link = self.open_link(End::Node(node), End::Bad);
            self.nodes[node].connected(self.now, session(link, 0), Some(address));
            self.bad_is_dialled(link);
            return self.drain(node);
        }
        let there = node_at(&address).filter(|to| *to < self.nodes.len() && self.nodes[*to].up);
        let Some(to) = there.filter(|to| !self.are_apart([End::Node(node), End::Node(*to)])) else {
            self.nodes[node].dial_failed(self.now, address);
            return self.drain(node);
        };
        let link = self.open_link(End::Node(node), End::Node(to));
        self.nodes[node].connected(self.now, session(link, 0), Some(address));
        self.nodes[to].connected(self.now, session(link, 1), None);
        self.drain(to)?;
        self.drain(node)
    }

    fn written(&mut self, node: usize) -> Checked {
        let Some(Write { starts, document, ticket, .. }) = self.writes[node].pop_front() else { return Ok(()) };
        if !self.nodes[node].up || self.nodes[node].starts != starts {
            return Ok(());
        }
        if std::mem::take(&mut self.full[node]) {
            self.log.say(|| format!("  node {node} finds its disk full"));
            self.excused.insert("a write failed");
            let failure = StoreFailure { message: "the disk is full".to_owned() };
            self.nodes[node].not_persisted(self.now, document, ticket, failure);
            self.forget_app(node);
        } else {
            self.nodes[node].persisted(self.now, document, ticket);
        }
        self.drain(node)
    }

    /// Carries out what a node wants.
    pub(super) fn drain(&mut self, node: usize) -> Checked {
        while let Some(act) = self.nodes[node].poll_act() {
            match act {
                Act::Frame { link, bytes, may_be_lost } => {
                    if may_be_lost {
                        self.check_notice(node, &bytes)?;
                    }
                    let (link, end) = link_of(link);
                    self.send(link, end, bytes, may_be_lost);
                }
                Act::Dial(address) => {
                    let (due, starts) = (self.now + DIAL_LAG, self.nodes[node].starts);
                    self.dials.push_back(Dial { due, node, starts, address });
                }
                Act::Close(session) => {
                    let (link, end) = link_of(session);
                    self.close(link, end)?;
                    self.nodes[node].disconnected(self.now, session);
                }
                Act::Persist { document, ticket } => {
                    let (due, starts) = (self.now + WRITE_LAG, self.nodes[node].starts);
                    self.writes[node].push_back(Write { due, starts, document, ticket });
                }
                Act::Durable { document, changes } => self.durable(node, &document, &changes)?,
                Act::Refused { link, kind } => self.refused(node, link.map(link_of), kind)?,
            }
        }
        self.wakes[node].0 = self.nodes[node].next_wake().filter(|_| self.nodes[node].up);
        Ok(())
    }
}

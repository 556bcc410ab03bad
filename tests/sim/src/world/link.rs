//! Connections: how they begin, break, and are found broken.
//!
//! Owns: the lives of both ends. Must not: interpret frames. Next: `deliver.rs`.

use std::collections::VecDeque;

use bytes::Bytes;
use syncline_core::id::SessionId;
use syncline_core::session::Session;
use syncline_core::wire::{self, Body, PeerMetadata};

use super::{Dialler, Link, World};
use crate::machine::{Connection, Queued};
use crate::oracle::Checked;

/// The acceptor's number of a link.
pub(super) fn accepted(link: u64) -> SessionId {
    SessionId(link * 2)
}

/// The dialler's number of a link, if it is a machine.
pub(super) fn dialled(link: u64) -> SessionId {
    SessionId(link * 2 + 1)
}

/// A join in this name.
pub(super) fn join_frame(name: &str) -> Bytes {
    let mut frame = Vec::new();
    let body = Body::Join { metadata: PeerMetadata::default(), versions: Some(vec!["1"]) };
    wire::encode(name, None, &body, &mut frame);
    Bytes::from(frame)
}

impl World {
    /// A new link; the acceptor expects a join.
    pub(super) fn open_link(&mut self, dialler: Dialler, acceptor: usize) -> u64 {
        let number = self.next_link;
        self.next_link += 1;
        let link = Link {
            dialler,
            acceptor,
            up: VecDeque::new(),
            down: VecDeque::new(),
            clogged_up: false,
            clogged_down: false,
            dialler_there: true,
            acceptor_there: true,
            half_open: false,
            written: 0,
        };
        self.links.insert(number, link);
        let access = self.access_of(acceptor, dialler);
        let machine = &mut self.machines[acceptor];
        let session = Session::accept(machine.local.clone(), machine.limits.clone()).for_entrant(Some(access));
        machine.connections.insert(accepted(number), Connection::new(session));
        number
    }

    pub(super) fn dial_client(&mut self, who: usize) {
        if self.clients[who].link.is_some() {
            return;
        }
        let link = self.open_link(Dialler::Client(who), self.clients[who].server);
        let client = &mut self.clients[who];
        client.link = Some(link);
        client.joined = false;
        client.heard.clear();
        for document in &mut client.documents {
            document.state = document.state.reconnected();
        }
        let join = join_frame(&client.name());
        self.push_up(link, join);
    }

    pub(super) fn dial_machine(&mut self, who: usize) {
        let Some(upstream) = who.checked_sub(1).map(|at| usize::from(self.topology.upstream[at])) else { return };
        if self.machines[who].upstream_session().is_some() {
            return;
        }
        let number = self.open_link(Dialler::Machine(who), upstream);
        let machine = &mut self.machines[who];
        let (session, join) = Session::dial(machine.local.clone(), machine.limits.clone());
        let mut connection = Connection::new(session);
        connection.push(Queued::Frame(Bytes::from(join)));
        machine.connections.insert(dialled(number), connection);
    }

    pub(super) fn push_up(&mut self, link: u64, frame: Bytes) {
        if let Some(link) = self.links.get_mut(&link).filter(|link| link.acceptor_there) {
            link.up.push_back(frame);
        }
    }

    /// Both ends notice at once; what was under way is lost.
    pub(super) fn cut(&mut self, link: u64) -> Checked {
        if let Some(link) = self.links.get_mut(&link) {
            link.up.clear();
            link.down.clear();
        }
        self.drop_end(accepted(link))?;
        self.drop_end(dialled(link))
    }

    /// The dialler is gone; the acceptor does not know.
    pub(super) fn half_open(&mut self, link: u64) -> Checked {
        if let Some(link) = self.links.get_mut(&link) {
            link.half_open = true;
            link.down.clear();
        }
        self.drop_end(dialled(link))
    }

    /// One end ends: the process there knows.
    pub(super) fn drop_end(&mut self, session: SessionId) -> Checked {
        let number = session.0 / 2;
        let dialler_end = session.0 % 2 == 1;
        let Some(link) = self.links.get_mut(&number) else { return Ok(()) };
        let there = if dialler_end { &mut link.dialler_there } else { &mut link.acceptor_there };
        if !std::mem::take(there) {
            return Ok(());
        }
        let (dialler, acceptor) = (link.dialler, link.acceptor);
        if !link.dialler_there && !link.acceptor_there {
            self.links.remove(&number);
        }
        match (dialler_end, dialler) {
            (true, Dialler::Client(who)) => {
                self.clients[who].link = None;
                self.clients[who].joined = false;
                Ok(())
            }
            (true, Dialler::Hostile) => {
                self.hostile.link = None;
                Ok(())
            }
            (true, Dialler::Machine(who)) => self.disconnect(who, session),
            (false, _) => self.disconnect(acceptor, session),
        }
    }

    fn disconnect(&mut self, machine: usize, session: SessionId) -> Checked {
        let machine_ = &mut self.machines[machine];
        let Some(connection) = machine_.connections.remove(&session) else { return Ok(()) };
        if let Some(peer) = connection.session.peer() {
            machine_.roster.leave(&peer.peer, session);
        }
        if connection.joined { self.gone(machine, session) } else { Ok(()) }
    }

    /// A machine's process is gone with all its ends; the other ends find out later.
    pub(super) fn drop_ends_of(&mut self, machine: usize) {
        for link in self.links.values_mut() {
            if link.acceptor == machine {
                link.acceptor_there = false;
                link.up.clear();
            }
            if link.dialler == Dialler::Machine(machine) {
                link.dialler_there = false;
                link.down.clear();
            }
        }
        self.links.retain(|_, link| link.dialler_there || link.acceptor_there);
    }
}

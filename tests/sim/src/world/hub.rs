//! One hub's inputs and outputs, each output checked before it goes anywhere.
//!
//! Owns: what the shell does with outputs, and the checks of what is announced, sent, refused and queued.
//! Must not: decide anything about the protocol. Next: `deliver.rs`, `local.rs`.

use std::sync::Arc;

use automerge::ChangeHash;
use bytes::Bytes;
use syncline_core::access::Denial;
use syncline_core::chunk;
use syncline_core::clock::Stamp;
use syncline_core::collection;
use syncline_core::hub::{Input, OpenedDocuments, Outgoing, Output, PeerMessage, Receipt, Remark, Role};
use syncline_core::id::{DocumentId, SessionId};
use syncline_core::limits::Limits;
use syncline_core::native::{self, NativeMessage};
use syncline_core::session::{Offence, Step};
use syncline_core::sync::Account;
use syncline_core::sync::message::Message;

use super::{Dialler, World};
use crate::disk::Call;
use crate::image::Stored;
use crate::machine::{Connection, Queued};
use crate::oracle::{Checked, Violation, require};

/// Times that one change may be sent over one connection: once, and again after each of a few resets.
const SENDS_MAX: usize = 6;

/// Times that it may be sent again for each change of room or limits: who refused something asks for it, and says that
/// there may be more now, which has it offered. As often for each try to have taken what was refused: what the other said
/// before and says then may cross it.
const SENDS_FOR_A_RENEWAL: usize = 2;

/// Tries on one connection.
const TRIES_MAX: usize = 6;

impl World {
    pub(super) fn input(&mut self, machine: usize, input: Input) -> Checked {
        let now = self.machines[machine].clocks.now();
        self.machines[machine].hub.handle(now, input);
        while let Some(output) = self.machines[machine].hub.poll_output() {
            self.output(machine, output)?;
        }
        Ok(())
    }

    /// Lets a hub's deadline pass, if it has come. Afterwards the next one must lie ahead.
    pub(super) fn wake(&mut self, machine: usize) -> Checked {
        let due = |world: &Self| {
            let machine = &world.machines[machine];
            machine.hub.poll_timeout().is_some_and(|(at, _)| at <= machine.clocks.now().mono)
        };
        if !due(self) {
            return Ok(());
        }
        self.input(machine, Input::Timeout)?;
        require(!due(self), "deadlines move on", || format!("machine {machine} asks for the same deadline again"))
    }

    fn output(&mut self, machine: usize, output: Output) -> Checked {
        match output {
            Output::Persist { ticket, commit } => {
                self.log
                    .say(|| format!("  machine {machine} commits {} changes, ticket {ticket}", commit.changes.len()));
                commit.changes.iter().for_each(|bytes| self.log.note(machine, "persist", bytes));
                self.check_taken(machine, &commit.document)?;
                self.check_permitted(machine, &commit)?;
                self.machines[machine].batch.push((ticket, commit));
            }
            Output::Load { document, what } => {
                self.log.say(|| format!("  machine {machine} loads {what:?}"));
                self.machines[machine].loads.push_back((document, what));
            }
            Output::SetLife { ticket, document, update } => {
                self.log.say(|| format!("  machine {machine} sets {update:?}, ticket {ticket}"));
                self.machines[machine].decisions.push(Call::Life { ticket, document, update });
            }
            Output::SetLocalOnly { ticket, document, local_only } => {
                self.log.say(|| format!("  machine {machine} sets local-only {local_only}, ticket {ticket}"));
                self.machines[machine].decisions.push(Call::LocalOnly { ticket, document, local_only });
            }
            Output::Mesh(_) => unreachable!("nobody is in a mesh in this world; tests/mesh plays one"),
            Output::Replace { .. } => unreachable!("nobody rewrites a history in this world"),
            Output::Send { session, message } => self.send(machine, session, message)?,
            Output::AwaitDrain { session } => {
                if let Some(connection) = self.machines[machine].connections.get_mut(&session) {
                    connection.awaiting_drain = true;
                }
            }
            Output::Decide { .. } => unreachable!("everybody may do everything in this world"),
            Output::State { document, state } => {
                self.collection_input(machine, collection::Input::Changed { document, state })?;
            }
            Output::Notify(event) => self.event(machine, event)?,
            Output::Refused { session, remark, .. } => self.refused(machine, session, &remark)?,
            Output::Close { session, reason } => {
                self.log.say(|| format!("  machine {machine} closes {}: {reason}", session.0));
                let restored = self.decisions + self.access.changes > 0 && reason.contains("connect again");
                let excused = self.machines[machine].disk.has_failed || self.is_hostile(session) || restored;
                require(excused, "honest peers are kept", || format!("machine {machine} cut off a peer: {reason}"))?;
                self.close(machine, session);
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self, machine: usize, session: SessionId) {
        if let Some(connection) = self.machines[machine].connections.get_mut(&session) {
            connection.closing = true;
        }
    }

    pub(super) fn is_hostile(&self, session: SessionId) -> bool {
        let link = self.links.get(&(session.0 / 2));
        session.0.is_multiple_of(2) && link.is_none_or(|link| link.dialler == Dialler::Hostile)
    }

    fn send(&mut self, machine: usize, session: SessionId, message: Outgoing) -> Checked {
        let closing = self.machines[machine].connections.get(&session).is_some_and(|connection| connection.closing);
        // What is said to a connection that only waits for its end goes nowhere.
        if closing {
            return Ok(());
        }
        self.check_outgoing(machine, session, &message)?;
        self.check_told(machine, session, &message)?;
        let world = &mut *self;
        let Some(connection) = world.machines[machine].connections.get_mut(&session) else { return Ok(()) };
        connection.push(Queued::Message(message));
        let synced = |queued: &&Queued| matches!(queued, Queued::Message(Outgoing::Sync { .. }));
        let queued = connection.outbox.iter().filter(synced).count();
        let queued_max = world.machines[machine].limits.queue_messages_max;
        require(queued <= queued_max, "queues keep their bound", || {
            format!("machine {machine} has {queued} messages for one peer; {queued_max} are allowed")
        })
    }

    fn check_outgoing(&mut self, machine: usize, session: SessionId, message: &Outgoing) -> Checked {
        let (document, data) = match message {
            Outgoing::Sync { document, data } => (self.texts.get(&**document).copied(), data),
            Outgoing::Request { document, data } => (self.documents.iter().position(|own| own == document), data),
            Outgoing::RemoteHeads { heads, .. } => {
                let mut named = heads.iter().flat_map(|entry| &entry.heads);
                let unknown = named.find(|hash| self.oracle.made(hash).is_none() && !self.hostile.invented(hash));
                return require(unknown.is_none(), "heads of other stores exist", || {
                    format!("{unknown:?} was not made")
                });
            }
            Outgoing::Native(NativeMessage::Life { document, life }) => {
                let own = self.documents.iter().position(|own| own == document);
                let stays = own.is_some_and(|own| self.machines[machine].knows_local_only.contains(&own));
                require(!stays, "what stays here is not spoken of", || format!("machine {machine} tells of {life:?}"))?;
                let stored = self.machines[machine].disk.image.lives.get(document).copied();
                return require(stored >= Some(*life), "told is durable", || {
                    format!("machine {machine} tells of {life:?}, and has stored {stored:?}")
                });
            }
            Outgoing::Native(NativeMessage::Account { document, account }) => {
                return self.check_account(machine, document, account);
            }
            Outgoing::DocUnavailable { .. }
            | Outgoing::Ephemeral { .. }
            | Outgoing::Native(NativeMessage::Refused { .. })
            // No hub speaks of these: what stands beside the hubs does.
            | Outgoing::Native(NativeMessage::Blob(_) | NativeMessage::Collection(_) | NativeMessage::Mesh(_))
            | Outgoing::Native(NativeMessage::Token(_) | NativeMessage::Access { .. })
            | Outgoing::Error { .. } => return Ok(()),
        };
        self.log.note(machine, "send", data);
        let Some(document) = document else { return Ok(()) };
        let machine_ = &self.machines[machine];
        let deleted = machine_.knows_deleted.contains(&document) && !machine_.knows_local_only.contains(&document);
        require(!deleted, "the deleted is not spoken of", || {
            format!("machine {machine} sends document {document} to {}", session.0)
        })?;
        let message = Message::decode(data.clone(), &Limits::default())
            .map_err(|error| Violation { checker: "own messages are readable", detail: error.to_string() })?;
        self.log.say(|| format!("  machine {machine} to {}: document {document}, {}", session.0, describe(&message)));
        if self.machines[machine].knows_local_only.contains(&document) {
            let silent = message.heads.is_empty() && message.changes.is_empty();
            let have = message.have.iter().all(|have| have.last_sync.is_empty());
            return require(silent && have, "what stays here is not spoken of", || {
                format!("machine {machine} says {} of document {document}", describe(&message))
            });
        }
        let begins_anew = message.flags.as_ref().is_some_and(|flags| flags.reset);
        let connection = self.machines[machine].connections.get_mut(&session);
        let peer = connection.and_then(|connection| {
            connection.begun_anew += usize::from(begins_anew);
            connection.session.peer()
        });
        let exact = peer.is_some_and(|peer| peer.native >= native::ACCOUNTS_SINCE);
        let filters = message.have.iter().filter(|have| !have.bloom.is_empty()).count();
        require(!exact || filters == 0, "no filter goes to a Syncline replica", || {
            format!("machine {machine} sends one to {}", session.0)
        })?;
        self.check_announced(machine, session, document, &message.heads)?;
        self.check_sent(machine, session, document, &message.changes)
    }

    /// What a machine says that it has is on its disk.
    fn check_account(&self, machine: usize, document: &DocumentId, account: &Account) -> Checked {
        let own = self.documents.iter().position(|own| own == document);
        let machine_ = &self.machines[machine];
        let stays = own.is_some_and(|own| machine_.knows_local_only.contains(&own));
        require(!stays, "what stays here is not spoken of", || format!("machine {machine} gives {account:?}"))?;
        let stored = machine_.disk.image.documents.get(document);
        let mut listed = account.heads.iter().chain(&account.hashes);
        let foreign = listed.find(|hash| !stored.is_some_and(|stored| stored.hashes.contains(*hash)));
        require(foreign.is_none(), "announced is durable", || format!("machine {machine} claims to have {foreign:?}"))
    }

    /// What is announced is a state that the store went through, and none before the one announced last.
    fn check_announced(
        &mut self,
        machine: usize,
        session: SessionId,
        document: usize,
        heads: &[ChangeHash],
    ) -> Checked {
        let empty = Stored::default();
        let machine_ = &mut self.machines[machine];
        let stored = machine_.disk.image.documents.get(&self.documents[document]).unwrap_or(&empty);
        let state = stored.history.iter().rposition(|state| state == heads);
        let Some(state) = state else {
            let detail = format!("machine {machine} announces {heads:?}, which is no state of its store");
            return Err(Violation { checker: "announced is durable", detail });
        };
        let Some(connection) = machine_.connections.get_mut(&session) else { return Ok(()) };
        let before = connection.announced.insert(document, state).unwrap_or(0);
        require(state >= before, "heads only advance", || {
            format!("machine {machine} announced state {before} and then {state} to {}", session.0)
        })?;
        self.oracle.promise(machine, document, heads);
        Ok(())
    }

    /// Who may do something else with a document may begin with it anew, and so may those that it speaks to.
    fn begin_counting_anew(&mut self, machine: usize, session: SessionId) {
        let ours = self.machines[machine].connections.get_mut(&session);
        ours.into_iter().for_each(|connection| connection.sent.clear());
        if let Some(Dialler::Machine(who)) = self.dialler(session) {
            let theirs = self.machines[who].connections.get_mut(&SessionId(session.0 | 1));
            theirs.into_iter().for_each(|connection| connection.sent.clear());
        }
    }

    /// Every change that is sent is in the store, and is not sent over and over.
    fn check_sent(&mut self, machine: usize, session: SessionId, document: usize, elements: &[Bytes]) -> Checked {
        let machine_ = &mut self.machines[machine];
        let Some(stored) = machine_.disk.image.documents.get(&self.documents[document]) else {
            return require(elements.is_empty(), "sent is durable", || "a document that is not stored".to_owned());
        };
        let mut hashes = Vec::new();
        for element in elements {
            let snapshot = stored.snapshots.iter().rfind(|snapshot| element.starts_with(snapshot));
            let rest = element.slice(snapshot.map_or(0, Bytes::len)..);
            hashes.extend(chunk::split(rest).map_while(Result::ok).map(|chunk| chunk.hash()));
        }
        let foreign = hashes.iter().find(|hash| !stored.hashes.contains(hash));
        require(foreign.is_none(), "sent is durable", || format!("machine {machine} sends {foreign:?} before it is"))?;
        if self.is_hostile(session) {
            return Ok(());
        }
        let Some(connection) = self.machines[machine].connections.get_mut(&session) else { return Ok(()) };
        let renewals = connection.renewals + connection.begun_anew.min(TRIES_MAX);
        for hash in hashes {
            let sent = connection.sent.entry((document, hash)).or_default();
            *sent += 1;
            require(*sent <= SENDS_MAX + SENDS_FOR_A_RENEWAL * renewals, "work follows the difference", || {
                format!("machine {machine} sends {hash} to {} for the {sent}th time", session.0)
            })?;
        }
        Ok(())
    }

    /// An offence is charged to whoever committed it; honest peers commit none.
    fn refused(&self, machine: usize, session: Option<SessionId>, remark: &Remark) -> Checked {
        let failed = self.machines[machine].disk.has_failed;
        let excused = match (session, remark) {
            (Some(_), Remark::Store(_)) | (None, Remark::LocalOrphan { .. }) => failed,
            // Nobody can know before it is told.
            (Some(_), Remark::Deleted) => true,
            (Some(session), _) => self.is_hostile(session) || self.excuses(machine, remark),
            (None, _) => false,
        };
        require(excused, "offences are charged to the offender", || {
            format!("machine {machine} blames {session:?}: {remark}")
        })
    }

    /// A frame arrives at a machine's end of a link.
    pub(super) fn frame(&mut self, machine: usize, session: SessionId, frame: &Bytes) -> Checked {
        self.log.note(machine, "frame", frame);
        let now = self.machines[machine].clocks.now();
        let Some(connection) = self.machines[machine].connections.get_mut(&session) else { return Ok(()) };
        // As the shell does: what comes on a connection that only waits for its end is thrown away.
        if connection.closing {
            return Ok(());
        }
        for step in connection.session.receive(now, frame) {
            self.step(machine, session, step)?;
        }
        Ok(())
    }

    pub(super) fn step(&mut self, machine: usize, session: SessionId, step: Step) -> Checked {
        match step {
            Step::Send(frame) => {
                if let Some(connection) = self.machines[machine].connections.get_mut(&session) {
                    connection.push(Queued::Frame(Bytes::from(frame)));
                }
            }
            Step::Joined(peer) => {
                let role = peer.role;
                let machine_ = &mut self.machines[machine];
                let replaced = match role {
                    Role::Downstream => machine_.roster.join(&peer.peer, session),
                    Role::Upstream | Role::Neighbour => None,
                };
                machine_.connections.get_mut(&session).into_iter().for_each(|connection| connection.joined = true);
                if let Some(replaced) = replaced {
                    self.close(machine, replaced);
                    self.gone(machine, replaced)?;
                }
                let rounds = peer.native >= collection::message::SINCE;
                self.input(machine, Input::Connected { session, peer, opened: OpenedDocuments::default() })?;
                if rounds {
                    self.joined_natively(machine, session, role)?;
                }
                if role == Role::Upstream {
                    self.offer_or_compare(machine, session, rounds)?;
                }
            }
            Step::Observe(stamp) => {
                let machine = &mut self.machines[machine];
                machine.disk.observe(stamp, machine.clocks.wall_ms);
            }
            Step::Forward(PeerMessage::Native(NativeMessage::Collection(message))) => {
                let receipt = Receipt::new(Arc::clone(&self.machines[machine].receipts));
                self.collection_input(machine, collection::Input::Received { session, message, receipt })?;
            }
            Step::Forward(message) => {
                self.note_brought(machine, session, &message);
                let receipt = Receipt::new(Arc::clone(&self.machines[machine].receipts));
                self.input(machine, Input::Received { session, message, receipt })?;
            }
            // A hostile peer may send a token, with which it may do what it could do before.
            Step::Authenticate(_) => {
                let access = self.access_of(machine, Dialler::Hostile);
                let now = self.machines[machine].clocks.now();
                let connection = self.machines[machine].connections.get_mut(&session);
                let steps = connection.map(|connection| connection.session.admit(now, Ok(access)));
                for step in steps.unwrap_or_default() {
                    self.step(machine, session, step)?;
                }
            }
            Step::AccessChanged(access) => {
                self.begin_counting_anew(machine, session);
                self.input(machine, Input::AccessChanged { session, access })?;
                self.allow_rounds(machine, session)?;
            }
            Step::Tell(message) => self.send(machine, session, message)?,
            Step::AccessLeft(_) => {}
            Step::Refused(offence) => self.offended(machine, session, &offence)?,
            Step::Close(offence) => {
                self.offended(machine, session, &offence)?;
                self.close(machine, session);
            }
        }
        Ok(())
    }

    fn offended(&self, machine: usize, session: SessionId, offence: &Offence) -> Checked {
        let ended = matches!(offence, Offence::Denied(Denial::TokenExpired)) && self.access.changes > 0;
        // What a server passes on may come faster than it was said, when the network had kept it.
        let connection = self.machines[machine].connections.get(&session);
        let role = connection.and_then(|connection| connection.session.peer()).map(|peer| peer.role);
        let came_at_once = matches!(offence, Offence::EphemeralRate { .. }) && role == Some(Role::Downstream);
        let excused = matches!(offence, Offence::PeerError(_)) || ended || came_at_once || self.is_hostile(session);
        require(excused, "offences are charged to the offender", || {
            format!("machine {machine} refuses an honest frame of {session:?}: {offence}")
        })
    }

    /// Writes a connection's queue, says so, and ends the connection if that is due.
    pub(super) fn write(&mut self, machine: usize, session: SessionId) -> Checked {
        let machine_ = &mut self.machines[machine];
        let Some(connection) = machine_.connections.get_mut(&session) else { return Ok(()) };
        let stamp = machine_.disk.tick(machine_.clocks.wall_ms);
        let frames = take_frames(connection, stamp);
        let (closing, drained) = (connection.closing, std::mem::take(&mut connection.awaiting_drain));
        let upward = session.0 % 2 == 1;
        if let Some(link) = self.links.get_mut(&(session.0 / 2)) {
            let there = if upward { link.acceptor_there } else { link.dialler_there };
            link.written += frames.len() as u64;
            if there {
                let queue = if upward { &mut link.up } else { &mut link.down };
                queue.extend(frames);
            }
        }
        if drained {
            self.input(machine, Input::Drained { session })?;
        }
        if closing { self.drop_end(session) } else { Ok(()) }
    }
}

fn take_frames(connection: &mut Connection, stamp: Stamp) -> Vec<Bytes> {
    let Connection { outbox, session, .. } = connection;
    let frames = outbox.drain(..).map(|queued| match queued {
        Queued::Frame(frame) => frame,
        Queued::Message(message) => {
            let mut frame = Vec::new();
            session.encode(stamp, &message, &mut frame);
            Bytes::from(frame)
        }
    });
    frames.collect()
}

/// A sync message for the trace: hashes by their first letters.
pub(super) fn describe(message: &Message) -> String {
    let short = |hashes: &[ChangeHash]| {
        let words: Vec<String> = hashes.iter().map(|hash| hash.to_string()[..4].to_owned()).collect();
        words.join(" ")
    };
    let have = message.have.iter().map(|have| format!("[{}]+{}", short(&have.last_sync), have.bloom.len()));
    let have: Vec<String> = have.collect();
    // An element's first chunk begins with four bytes of magic, then the first four of its hash.
    let named = |bytes: &Bytes| match bytes.get(4..6) {
        Some([first, second]) => format!("{first:02x}{second:02x}:{}", bytes.len()),
        _ => bytes.len().to_string(),
    };
    let elements: Vec<String> = message.changes.iter().map(named).collect();
    let (heads, need) = (short(&message.heads), short(&message.need));
    format!("heads {heads}, need {need}, have {}, elements [{}]", have.join(" "), elements.join(" "))
}

//! The collections of machines: sets made of what disks hold, rounds between machines, and what must hold of both.
//!
//! Owns: the shell's part for a collection, when machines compare, the checks of sets and of what is named.
//! Must not: decide what differs. Next: `hub.rs`, `quiet.rs`; docs/protocol.md §9, "Rounds".

use syncline_core::access::Permissions;
use syncline_core::collection::{
    CollectionMessage, DocumentState, EndReason, Event, Gathering, Input, Outcome, Output, Report, Scope, SetName,
    documents_key, message,
};
use syncline_core::hub::{self, Outgoing, Role};
use syncline_core::id::{DocumentId, SessionId};
use syncline_core::native::NativeMessage;

use super::World;
use crate::action::Kind;
use crate::machine::{Connection, Queued};
use crate::oracle::{Checked, require};
use crate::scenario::Topology;

/// Rounds of all machines within which everybody must have found everything: what one finds has to reach the next.
const PASSES_MAX: usize = 8;

/// What the rounds of one pass have found: by machine, its own documents and the peer's.
pub(super) type Found = Vec<(usize, Vec<DocumentId>, Vec<DocumentId>)>;

impl World {
    /// A process begins: its set is to be read.
    pub(super) fn add_set(&mut self, machine: usize) -> Checked {
        self.collection_input(machine, Input::AddSet { key: documents_key() })
    }

    pub(super) fn collection_input(&mut self, machine: usize, input: Input) -> Checked {
        let now = self.machines[machine].clocks.now();
        self.machines[machine].collection.handle(now, input);
        while let Some(output) = self.machines[machine].collection.poll_output() {
            match output {
                Output::Read { set, key, hash_key } => {
                    self.machines[machine].gathering.push_back((set, key, hash_key));
                }
                Output::Send { session, message } => self.say_of_set(machine, session, message)?,
                Output::Notify(Event::Compared { session, report }) => self.compared(machine, session, *report)?,
                Output::Refused { session, kind, words } => {
                    // A link that is clogged ends a round.
                    let excused = kind == EndReason::Limit.kind() || self.is_hostile(session);
                    require(excused, "offences are charged to the offender", || {
                        format!("machine {machine} blames {session:?}: {words}")
                    })?;
                }
            }
        }
        Ok(())
    }

    fn say_of_set(&mut self, machine: usize, session: SessionId, message: CollectionMessage) -> Checked {
        self.log.say(|| format!("  machine {machine} to {}: {message:?}", session.0));
        let machine_ = &mut self.machines[machine];
        if let CollectionMessage::Named { documents, .. } = &message {
            let stays = |id: &&DocumentId| {
                let own = self.documents.iter().position(|own| own == *id);
                let told = own.is_some_and(|own| machine_.knows_local_only.contains(&own));
                told && machine_.disk.image.local_only.contains(*id)
            };
            let named = documents.iter().find(stays);
            require(named.is_none(), "what stays here is not spoken of", || {
                format!("machine {machine} names {named:?}")
            })?;
        }
        if let Some(connection) = machine_.connections.get_mut(&session) {
            connection.push(Queued::Message(Outgoing::Native(NativeMessage::Collection(message))));
        }
        Ok(())
    }

    /// Reads a set from the disk as it is. It may have changed when that comes back.
    pub(super) fn gather(&mut self, machine: usize) {
        let machine = &mut self.machines[machine];
        let Some((set, key, hash_key)) = machine.gathering.pop_front() else { return };
        let mut gathering = Gathering::new(key, hash_key);
        let read = match &machine.disk.real {
            Some(real) => real.store().and_then(|store| store.states(|page| gathering.add(page))).is_ok(),
            None => {
                gathering.add(machine.disk.image.states());
                true
            }
        };
        let members = Box::new(gathering.finish());
        machine.gathered.push_back(if read { Input::Read { set, members } } else { Input::NotRead { set } });
    }

    /// Another machine that speaks of collections has joined: machines tell each other names.
    pub(super) fn joined_natively(&mut self, machine: usize, session: SessionId, role: Role) -> Checked {
        self.collection_input(machine, Input::Connected { session, role })?;
        self.allow_rounds(machine, session)
    }

    /// A round tells about all documents: as the shell does, it is for those who may read all.
    pub(super) fn allow_rounds(&mut self, machine: usize, session: SessionId) -> Checked {
        let connection = self.machines[machine].connections.get(&session);
        let peer = connection.and_then(|connection| connection.session.peer());
        let Some(peer) = peer.filter(|peer| peer.native >= message::SINCE) else { return Ok(()) };
        let reads_all = peer.access.everywhere().include(Permissions::READ);
        let scope = if reads_all { Scope::Names } else { Scope::Nothing };
        let set = SetName::of_documents();
        self.collection_input(machine, Input::Allow { session, set, scope })
    }

    pub(super) fn offer_or_compare(&mut self, machine: usize, session: SessionId, rounds: bool) -> Checked {
        if rounds && self.topology.has(Topology::COMPARES) {
            return self.begin_round(machine, session, true);
        }
        self.offer_all(machine, session)
    }

    /// A connection is gone.
    pub(super) fn gone(&mut self, machine: usize, session: SessionId) -> Checked {
        self.input(machine, hub::Input::Disconnected { session })?;
        self.collection_input(machine, Input::Disconnected { session })
    }

    /// Somebody compares because it wants to.
    pub(super) fn compare_at_will(&mut self, machine: usize, value: u64) -> Checked {
        let peers: Vec<SessionId> = self.native_peers(machine);
        if peers.is_empty() {
            return Ok(());
        }
        self.met(Kind::Compare, machine);
        self.begin_round(machine, peers[value as usize % peers.len()], value.is_multiple_of(3))
    }

    /// Lets a collection's deadline pass, if it has come.
    pub(super) fn wake_collection(&mut self, machine: usize) -> Checked {
        let machine_ = &self.machines[machine];
        let due = machine_.collection.poll_timeout().is_some_and(|at| at <= machine_.clocks.now().mono);
        if due { self.collection_input(machine, Input::Timeout) } else { Ok(()) }
    }

    fn native_peers(&self, machine: usize) -> Vec<SessionId> {
        let native = |connection: &Connection| {
            let version = connection.session.peer().map_or(0, |peer| peer.native);
            connection.joined && !connection.closing && version >= message::SINCE
        };
        let connections = self.machines[machine].connections.iter();
        connections.filter(|(_, connection)| native(connection)).map(|(session, _)| *session).collect()
    }

    fn begin_round(&mut self, machine: usize, session: SessionId, names: bool) -> Checked {
        self.collection_input(machine, Input::Compare { session, set: SetName::of_documents(), names })
    }

    /// What a round found is spoken of; where there was none, everything is.
    fn compared(&mut self, machine: usize, session: SessionId, report: Report) -> Checked {
        self.log.say(|| format!("  machine {machine} has compared with {}: {report:?}", session.0));
        let found = [&report.ours[..], &report.theirs].concat();
        let complete = report.outcome == Outcome::Complete;
        self.machines[machine].compared.insert(session, report);
        for document in found {
            self.input(machine, hub::Input::Initiate { session, document })?;
        }
        let dialled = session.0 % 2 == 1;
        if dialled && !complete { self.offer_all(machine, session) } else { Ok(()) }
    }

    /// When all is quiet, whoever has a server compares with it until nothing new is found. Returns whether more rounds were
    /// begun.
    pub(super) fn compare_everywhere(&mut self, passes: &mut Vec<Found>) -> Checked<bool> {
        if !self.topology.has(Topology::COMPARES) {
            return Ok(false);
        }
        let dialled = |(machine, session): (usize, SessionId)| (session.0 % 2 == 1).then_some((machine, session));
        let pairs = (0..self.machines.len())
            .flat_map(|machine| self.native_peers(machine).into_iter().map(move |session| (machine, session)));
        let pairs: Vec<(usize, SessionId)> = pairs.filter_map(dialled).collect();
        if let Some(last) = passes.last_mut() {
            for (machine, session) in &pairs {
                let report = self.machines[*machine].compared.get(session);
                let complete = report.filter(|report| report.outcome == Outcome::Complete);
                require(complete.is_some(), "rounds are complete", || format!("machine {machine}: {report:?}"))?;
                last.extend(complete.map(|report| (*machine, report.ours.clone(), report.theirs.clone())));
            }
            let reports = pairs.iter().filter_map(|(machine, session)| self.machines[*machine].compared.get(session));
            // What was kept back when it was asked for is asked for again in the second, fourth, ... round after that.
            let withheld = self.machines.iter().any(|machine| !machine.disk.image.local_only.is_empty());
            let put_off = !withheld && reports.map(|report| report.undelivered).sum::<u64>() > 0;
            let found = put_off || last.iter().any(|(_, ours, theirs)| !ours.is_empty() || !theirs.is_empty());
            let news = put_off || passes.len() < 2 || passes[passes.len() - 2] != passes[passes.len() - 1];
            // As long as something is kept back, what was asked for in vain turns up again, and less and less often.
            let (last, earlier) = passes.split_last().expect("there is one");
            let known = |found: &_| earlier.iter().any(|pass| pass.contains(found));
            let turns_up_again = withheld && passes.len() > PASSES_MAX / 2 && last.iter().all(known);
            if !found || !news || turns_up_again {
                return Ok(false);
            }
        }
        require(passes.len() < PASSES_MAX, "rounds are complete", || format!("they go on finding {passes:?}"))?;
        passes.push(Found::new());
        for (machine, session) in &pairs {
            self.begin_round(*machine, *session, true)?;
        }
        Ok(!pairs.is_empty())
    }

    /// Each set is that of the documents on the disk.
    pub(super) fn check_sets(&self) -> Checked {
        for machine in &self.machines {
            let states = machine.disk.image.states();
            let members = machine.collection.members(SetName::of_documents());
            let element =
                |(id, state): (&DocumentId, &DocumentState)| (id.clone(), state.element(&documents_key(), id));
            let wrong = states
                .iter()
                .map(element)
                .find(|(id, element)| members.is_none_or(|members| members.element_of(id) != *element));
            require(wrong.is_none(), "sets are what disks hold", || {
                format!("machine {} has another element than {wrong:?}, of {states:?}", machine.number)
            })?;
            let expected = states.iter().map(element).filter(|(_, element)| element.is_some()).count() as u64;
            let count = members.map_or(0, |members| members.elements().len());
            require(count == expected, "sets are what disks hold", || {
                format!("machine {} has {count} elements for {expected} documents", machine.number)
            })?;
        }
        Ok(())
    }
}

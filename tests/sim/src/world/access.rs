//! Who may do what on a machine, for how long and how much: as it changes, and what must hold of it.
//!
//! Owns: what each dialler may do, the shell's part when that ends, the checks that nothing forbidden is stored or told.
//! Must not: ask the code under test what is permitted. Next: `hub.rs`, `../shares.rs`; docs/access.md.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use automerge::ChangeHash;
use syncline_core::access::{Access, Denial, Grant, Permissions, Scope};
use syncline_core::hub::{Input, Outgoing, PeerMessage, Remark};
use syncline_core::id::{DocumentId, SessionId};
use syncline_core::limits::Limits;
use syncline_core::native::NativeMessage;
use syncline_core::session::Session;
use syncline_core::storage::Commit;
use syncline_core::sync::message::Message;

use super::{Dialler, World};
use crate::action::Kind;
use crate::oracle::{Checked, require};
use crate::scenario::Topology;

/// What one dialler may do on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Granted {
    /// With this document, or with all.
    document: Option<usize>,
    may: Permissions,
    until_ms: Option<u64>,
    /// What is left to it afterwards; without that its connection ends.
    afterwards: Option<Permissions>,
}

/// What is set, and what came of it.
#[derive(Debug, Default)]
pub(super) struct AccessWorld {
    granted: BTreeMap<(usize, u8), Granted>,
    /// By machine, changes that somebody brought who might write.
    permitted: BTreeMap<usize, BTreeSet<ChangeHash>>,
    /// Those who might also create what they are in.
    creating: BTreeMap<usize, BTreeSet<ChangeHash>>,
    /// Machines without room.
    full: BTreeSet<usize>,
    /// By machine, whether its limits were ever others.
    bounded: BTreeSet<usize>,
    /// How often anything of this changed.
    pub(super) changes: u64,
}

fn code(dialler: Dialler) -> u8 {
    match dialler {
        Dialler::Client(who) => who as u8,
        Dialler::Machine(who) => 0x40 + who as u8,
        Dialler::Hostile => 0x80,
    }
}

fn subject(dialler: Dialler) -> Arc<str> {
    match dialler {
        Dialler::Client(who) => format!("client-{who}").into(),
        Dialler::Machine(who) => format!("machine-{who}").into(),
        Dialler::Hostile => "hostile".into(),
    }
}

/// What whoever dials may do at first: machines pass on what others wrote.
fn at_first(dialler: Dialler) -> Granted {
    let may = if matches!(dialler, Dialler::Machine(_)) { Permissions::ADMIN } else { Permissions::CREATE };
    Granted { document: None, may, until_ms: None, afterwards: None }
}

impl Kind {
    /// Whether a world in which actors are bound cannot have it: afterwards only somebody else has an author's changes.
    fn leaves_changes_to_others(self) -> bool {
        matches!(
            self,
            Self::CarryOver
                | Self::ClientLoss
                | Self::ClientRollback
                | Self::LoseDisk
                | Self::RestoreBackup
                | Self::CloneDisk
                | Self::Purge
        )
    }
}

impl World {
    /// Whether an action cannot come in this world.
    pub(super) fn is_barred(&self, kind: Kind) -> bool {
        self.topology.has(Topology::BINDS) && kind.leaves_changes_to_others()
    }

    pub(super) fn dialler(&self, session: SessionId) -> Option<Dialler> {
        let link = self.links.get(&(session.0 / 2)).filter(|_| session.0.is_multiple_of(2))?;
        Some(link.dialler)
    }

    fn granted(&self, machine: usize, dialler: Dialler) -> Granted {
        self.access.granted.get(&(machine, code(dialler))).cloned().unwrap_or_else(|| at_first(dialler))
    }

    /// What a session may do with a document; whom we dialled may do everything.
    fn may(&self, machine: usize, session: SessionId, id: &DocumentId) -> Permissions {
        let Some(dialler) = self.dialler(session) else {
            return if session.0.is_multiple_of(2) { Permissions::NONE } else { Permissions::ADMIN };
        };
        let Granted { document, may, .. } = self.granted(machine, dialler);
        let covered = document.is_none_or(|document| self.documents[document] == *id);
        if covered { may } else { Permissions::NONE }
    }

    /// As it is presented to the code under test.
    pub(super) fn access_of(&self, machine: usize, dialler: Dialler) -> Access {
        let Granted { document, may, until_ms, .. } = self.granted(machine, dialler);
        let scope = document.map_or(Scope::All, |document| Scope::Document(self.documents[document].clone()));
        let mut access = Access::of(vec![Grant { scope, may }]);
        (access.subject, access.until_ms) = (Some(subject(dialler)), until_ms);
        access
    }

    /// What somebody may do changes, its time is set, or limits and room change.
    pub(super) fn access_acts(&mut self, kind: Kind, machine: usize, value: u64) -> Checked {
        if let Kind::AccessChange | Kind::TokenEnds = kind {
            return self.change_access(kind, machine, value);
        }
        self.met(kind, machine);
        self.access.changes += 1;
        if kind == Kind::RoomEnds {
            return self.set_room(machine, value.is_multiple_of(3));
        }
        let base = crate::machine::limits(&self.topology);
        let limits = match value % 4 {
            0 => Limits { document_changes_max: 1 + (value >> 8) as u32 % 12, ..base },
            1 | 2 => Limits { subject_bytes_max: Some(100 + (value >> 8) % 3_000), ..base },
            _ => base,
        };
        self.access.bounded.insert(machine);
        self.set_limits(machine, limits)
    }

    fn set_limits(&mut self, machine: usize, limits: Limits) -> Checked {
        self.allow_repetitions();
        self.machines[machine].limits = limits.clone();
        self.input(machine, Input::Limits(Box::new(limits)))
    }

    fn set_room(&mut self, machine: usize, has_room: bool) -> Checked {
        if has_room {
            self.access.full.remove(&machine);
        } else {
            self.access.full.insert(machine);
        }
        self.allow_repetitions();
        self.input(machine, Input::Room { has_room })
    }

    /// A process that begins has to be told what does not outlive it.
    pub(super) fn tell_room(&mut self, machine: usize) -> Checked {
        let has_room = !self.access.full.contains(&machine);
        if has_room { Ok(()) } else { self.input(machine, Input::Room { has_room }) }
    }

    /// Conversations begin anew, on both sides, when those who refused something have said so.
    fn allow_repetitions(&mut self) {
        let connections = self.machines.iter_mut().flat_map(|machine| machine.connections.values_mut());
        connections.for_each(|connection| connection.renewals += 1);
    }

    fn change_access(&mut self, kind: Kind, machine: usize, value: u64) -> Checked {
        let connections = self.machines[machine].connections.iter().filter(|(_, connection)| connection.joined);
        let diallers = connections.filter_map(|(session, _)| self.dialler(*session));
        let diallers: Vec<Dialler> = diallers.filter(|dialler| *dialler != Dialler::Hostile).collect();
        if diallers.is_empty() {
            return Ok(());
        }
        let dialler = diallers[value as usize % diallers.len()];
        let value = value / 7;
        let mut granted = self.granted(machine, dialler);
        if kind == Kind::TokenEnds {
            granted.until_ms = Some(self.machines[machine].clocks.wall_ms + 1 + value % 2_000);
            granted.afterwards = [None, Some(Permissions::READ)][(value >> 12) as usize % 2];
        } else {
            let whole = at_first(dialler).may;
            let relay = matches!(dialler, Dialler::Machine(_)) && self.topology.has(Topology::BINDS);
            let written = if relay { Permissions::READ } else { Permissions::WRITE };
            // Nobody is given a token that has ended: it would be refused, and change nothing.
            granted.until_ms = granted.until_ms.filter(|until| *until > self.machines[machine].clocks.wall_ms);
            granted.may = [Permissions::NONE, Permissions::READ, written, whole, whole][value as usize % 5];
            let one = (value >> 8).is_multiple_of(3);
            granted.document = one.then_some((value >> 12) as usize % self.documents.len());
            // Who administers one document is a subject like others.
            granted.document = granted.document.filter(|_| !relay);
        }
        self.met(kind, machine);
        self.access.changes += 1;
        self.log.say(|| format!("  machine {machine} permits {} now {granted:?}", subject(dialler)));
        self.access.granted.insert((machine, code(dialler)), granted);
        self.tell_access(machine, dialler, None)
    }

    /// Has every connection of somebody follow what it may do: with another token, or because `ended` the last one has.
    fn tell_access(&mut self, machine: usize, dialler: Dialler, ended: Option<Option<Access>>) -> Checked {
        let access = self.access_of(machine, dialler);
        let own = |session: &SessionId| self.dialler(*session) == Some(dialler);
        let sessions: Vec<SessionId> = self.machines[machine].connections.keys().copied().filter(own).collect();
        for session in sessions {
            let machine_ = &mut self.machines[machine];
            let now = machine_.clocks.now();
            let Some(connection) = machine_.connections.get_mut(&session) else { continue };
            connection.sent.clear();
            let steps = match (connection.joined, &ended) {
                (false, _) => {
                    let session = Session::accept(machine_.local.clone(), machine_.limits.clone());
                    connection.session = session.for_entrant(Some(access.clone()));
                    continue;
                }
                (true, None) => connection.session.admit(now, Ok(access.clone())),
                (true, Some(left)) => connection.session.end_access(now, Denial::TokenExpired, left.clone()),
            };
            steps.into_iter().try_for_each(|step| self.step(machine, session, step))?;
        }
        Ok(())
    }

    /// What has come to its end by a machine's wall clock ends, as its shell has it.
    pub(super) fn end_tokens(&mut self, machine: usize) -> Checked {
        let now = self.machines[machine].clocks.now();
        let sessions = self.machines[machine].connections.keys().filter_map(|session| self.dialler(*session));
        for dialler in sessions.collect::<Vec<_>>() {
            let granted = self.granted(machine, dialler);
            if granted.until_ms.is_none_or(|until_ms| until_ms > now.wall_ms) {
                continue;
            }
            let left = granted.afterwards;
            let after = left.map_or_else(|| at_first(dialler), |may| Granted { may, ..at_first(dialler) });
            self.access.granted.insert((machine, code(dialler)), after);
            let strangers = left.map(|_| self.access_of(machine, dialler));
            self.tell_access(machine, dialler, Some(strangers))?;
        }
        Ok(())
    }

    /// Everything is permitted again, and there is room. Who was refused something comes again.
    pub(super) fn end_restrictions(&mut self) -> Checked {
        let granted = std::mem::take(&mut self.access.granted);
        let restricted: Vec<u64> = self.links.keys().copied().collect();
        for link in restricted {
            let (acceptor, dialler) = match self.links.get(&link) {
                Some(link) => (link.acceptor, link.dialler),
                None => continue,
            };
            if granted.contains_key(&(acceptor, code(dialler))) {
                self.cut(link)?;
            }
        }
        for machine in 0..self.machines.len() {
            if self.access.bounded.contains(&machine) {
                self.set_limits(machine, crate::machine::limits(&self.topology))?;
            }
            self.set_room(machine, true)?;
        }
        Ok(())
    }

    /// Notes what a message brings that may be taken from its sender.
    pub(super) fn note_brought(&mut self, machine: usize, session: SessionId, message: &PeerMessage) {
        let PeerMessage::Sync(message) = message else { return };
        let may = self.may(machine, session, &message.document);
        let hashes = || message.changes.iter().map(|change| change.hash);
        if may.include(Permissions::WRITE) {
            self.access.permitted.entry(machine).or_default().extend(hashes());
        }
        if may.include(Permissions::CREATE) {
            self.access.creating.entry(machine).or_default().extend(hashes());
        }
    }

    /// Notes what a machine's application writes: nobody forbids it that.
    pub(super) fn note_own(&mut self, machine: usize, hash: ChangeHash) {
        self.access.permitted.entry(machine).or_default().insert(hash);
        self.access.creating.entry(machine).or_default().insert(hash);
    }

    /// What is to be stored was brought by somebody who might, and is within the limits.
    pub(super) fn check_permitted(&self, machine: usize, commit: &Commit) -> Checked {
        let nothing = BTreeSet::new();
        let set = if commit.changes_before == 0 { &self.access.creating } else { &self.access.permitted };
        let permitted = set.get(&machine).unwrap_or(&nothing);
        let hash =
            |bytes: &bytes::Bytes| ChangeHash(crate::forge::hash(crate::forge::CHANGE, crate::forge::body(bytes)));
        let forbidden = commit.changes.iter().map(hash).find(|hash| !permitted.contains(hash));
        require(forbidden.is_none(), "nothing forbidden is stored", || {
            format!("machine {machine} stores {forbidden:?}, which nobody brought who might")
        })?;
        let machine_ = &self.machines[machine];
        if machine_.app.is_some() {
            return Ok(());
        }
        require(!self.access.full.contains(&machine), "nothing is stored without room", || {
            format!("machine {machine} stores {} changes", commit.changes.len())
        })?;
        let (length, max) =
            (commit.changes_before as usize + commit.changes.len(), machine_.limits.document_changes_max);
        require(length <= max as usize, "nothing is stored beyond a limit", || {
            format!("machine {machine} stores {length} changes of {max}")
        })?;
        self.check_shares(machine, commit)
    }

    /// No subject has more than it may, with what is on its way.
    fn check_shares(&self, machine: usize, commit: &Commit) -> Checked {
        let machine = &self.machines[machine];
        let Some(max) = machine.limits.subject_bytes_max else { return Ok(()) };
        // A disk that has failed stores nothing more.
        let submitted = machine.disk.calls.iter().filter(|_| !machine.disk.poisoned).flat_map(|call| call.commits());
        let under_way = submitted.chain(&machine.batch).map(|(_, commit)| commit).chain([commit]);
        let (mut bytes, mut lengths) = (BTreeMap::<&str, u64>::new(), BTreeMap::new());
        for commit in under_way {
            let stored = || machine.disk.image.documents.get(&commit.document).map_or(0, |stored| stored.changes.len());
            let length = lengths.entry(&commit.document).or_insert_with(stored);
            // One that builds on a commit that has failed fails too.
            if commit.changes_before as usize == *length {
                *length += commit.changes.len();
                let shares = commit.contributions.iter();
                shares.for_each(|share| *bytes.entry(&share.subject).or_default() += share.bytes);
            }
        }
        // Only those who bring something now: the limit may have been lowered below what others have.
        for contribution in commit.contributions.iter().filter(|of| of.bytes > 0) {
            let name = &*contribution.subject;
            let sum = machine.disk.image.subjects.bytes(name) + bytes.get(name).copied().unwrap_or(0);
            require(sum <= max, "nothing is stored beyond a limit", || {
                format!("machine {} takes {sum} bytes of {name}, of {max}", machine.number)
            })?;
        }
        let counted: u64 = commit.contributions.iter().map(|of| of.bytes).sum();
        let whole: u64 = commit.changes.iter().map(|change| change.len() as u64).sum();
        require(counted <= whole, "nobody's share is more than was brought", || format!("{counted} of {whole}"))
    }

    /// Whoever may not read a document hears nothing of it.
    pub(super) fn check_told(&self, machine: usize, session: SessionId, message: &Outgoing) -> Checked {
        let id = match message {
            Outgoing::Sync { document, .. } => self.texts.get(&**document).map(|document| &self.documents[*document]),
            Outgoing::Request { document, .. }
            | Outgoing::Ephemeral { document, .. }
            | Outgoing::RemoteHeads { document, .. } => Some(document),
            Outgoing::Native(NativeMessage::Life { document, .. } | NativeMessage::Account { document, .. }) => {
                Some(document)
            }
            Outgoing::DocUnavailable { .. } | Outgoing::Native(_) | Outgoing::Error { .. } => None,
        };
        let Some(id) = id else { return Ok(()) };
        let may = self.may(machine, session, id);
        let silent = match message {
            Outgoing::Sync { data, .. } => Message::decode(data.clone(), &Limits::default())
                .is_ok_and(|message| message.heads.is_empty() && message.changes.is_empty()),
            Outgoing::Request { .. }
            | Outgoing::Ephemeral { .. }
            | Outgoing::RemoteHeads { .. }
            | Outgoing::DocUnavailable { .. }
            | Outgoing::Native(_)
            | Outgoing::Error { .. } => false,
        };
        let gone = self.dialler(session).is_none() && session.0.is_multiple_of(2);
        require(gone || silent || may.include(Permissions::READ), "nothing forbidden is told", || {
            format!("machine {machine} tells {} of a document that it may not read: {message:?}", session.0)
        })
    }

    /// Whether an honest peer may be refused this.
    pub(super) fn excuses(&self, machine: usize, remark: &Remark) -> bool {
        match remark {
            Remark::NotPermitted(_) => self.access.changes > 0,
            Remark::NoRoom => self.access.full.contains(&machine),
            Remark::SubjectFull { .. } | Remark::DocumentFull { .. } => self.access.bounded.contains(&machine),
            Remark::Orphan(_) => self.access.changes > 0,
            Remark::Change(_)
            | Remark::LocalOrphan { .. }
            | Remark::TooManyDocuments { .. }
            | Remark::ForeignActor { .. }
            | Remark::Deleted
            | Remark::Store(_)
            | Remark::TooLargeToSend { .. } => false,
        }
    }
}

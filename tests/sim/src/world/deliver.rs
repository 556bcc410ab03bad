//! What is under way, and what happens when it arrives.
//!
//! Owns: the list of things that can happen next; the scenario says which of them does.
//! Must not: have an order of its own. Next: `hub.rs`, `client.rs`.

use syncline_core::hub::Input;
use syncline_core::id::SessionId;

use super::link::{accepted, dialled};
use super::{Dialler, World};
use crate::oracle::Checked;

/// Something that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnderWay {
    /// A frame to the acceptor of a link.
    Up(u64),
    /// A frame to the dialler of a link.
    Down(u64),
    /// A connection's queue is to be written.
    Write(usize, SessionId),
    /// One end of a link is to find out that the other is gone.
    Notice(u64),
    /// A machine's turn ends: its commits go to the store.
    Submit(usize),
    /// The store syncs.
    Sync(usize),
    /// The store tells that it has synced.
    Tell(usize),
    /// The store reads.
    Read(usize),
    /// What was read comes back.
    Answer(usize),
    /// A client speaks of what it has written.
    Speak(usize),
    /// A machine reads its documents for a set.
    Gather(usize),
    /// What it has read comes back.
    Gathered(usize),
}

impl World {
    /// Everything that can happen next, in a fixed order.
    pub(crate) fn under_way(&self) -> Vec<UnderWay> {
        let mut all = Vec::with_capacity(16);
        for (number, link) in &self.links {
            if !link.up.is_empty() && link.acceptor_there && !link.clogged_up {
                all.push(UnderWay::Up(*number));
            }
            if !link.down.is_empty() && link.dialler_there && !link.clogged_down {
                all.push(UnderWay::Down(*number));
            }
            let dialler_left = !link.dialler_there && link.up.is_empty() && !link.half_open;
            let acceptor_left = !link.acceptor_there && link.down.is_empty();
            if dialler_left || acceptor_left {
                all.push(UnderWay::Notice(*number));
            }
        }
        for (number, machine) in self.machines.iter().enumerate() {
            for (session, connection) in &machine.connections {
                let ready = !connection.outbox.is_empty() || connection.closing || connection.awaiting_drain;
                if ready && !self.is_clogged(*session) {
                    all.push(UnderWay::Write(number, *session));
                }
            }
            let disk = &machine.disk;
            let stages = [
                (!machine.batch.is_empty() || !machine.decisions.is_empty(), UnderWay::Submit(number)),
                (!disk.calls.is_empty() && disk.faults.stalled_until_ms <= self.now_ms, UnderWay::Sync(number)),
                (!disk.finished.is_empty(), UnderWay::Tell(number)),
                (!machine.loads.is_empty(), UnderWay::Read(number)),
                (!machine.answers.is_empty(), UnderWay::Answer(number)),
                (!machine.gathering.is_empty(), UnderWay::Gather(number)),
                (!machine.gathered.is_empty(), UnderWay::Gathered(number)),
            ];
            all.extend(stages.into_iter().filter_map(|(ready, stage)| ready.then_some(stage)));
        }
        for client in self.clients.iter().filter(|client| client.joined) {
            if client.documents.iter().any(|document| document.edited) {
                all.push(UnderWay::Speak(client.number));
            }
        }
        all
    }

    fn is_clogged(&self, session: SessionId) -> bool {
        let upward = session.0 % 2 == 1;
        let link = self.links.get(&(session.0 / 2));
        link.is_some_and(|link| if upward { link.clogged_up } else { link.clogged_down })
    }

    /// Lets one of the things under way happen; false if there is none.
    pub(super) fn deliver(&mut self, random: u64) -> Checked<bool> {
        let all = self.under_way();
        if all.is_empty() {
            return Ok(false);
        }
        let count = all.len() as u64;
        self.arrive(all[(random % count) as usize], random / count)?;
        Ok(true)
    }

    pub(crate) fn arrive(&mut self, what: UnderWay, random: u64) -> Checked {
        self.log.say(|| format!(" {what:?}"));
        self.arrives(what, random)?;
        self.look_after_disks()
    }

    fn arrives(&mut self, what: UnderWay, random: u64) -> Checked {
        match what {
            UnderWay::Up(number) => {
                let Some(link) = self.links.get_mut(&number) else { return Ok(()) };
                let acceptor = link.acceptor;
                let Some(frame) = link.up.pop_front() else { return Ok(()) };
                self.frame(acceptor, accepted(number), &frame)
            }
            UnderWay::Down(number) => self.down(number),
            UnderWay::Write(machine, session) => self.write(machine, session),
            UnderWay::Notice(number) => {
                let acceptor_left = self.links.get(&number).is_some_and(|link| !link.acceptor_there);
                self.drop_end(if acceptor_left { dialled(number) } else { accepted(number) })
            }
            UnderWay::Submit(machine) => {
                self.machines[machine].submit();
                Ok(())
            }
            UnderWay::Sync(machine) => {
                let machine = &mut self.machines[machine];
                machine.disk.sync(1 + random as usize % 3, machine.clocks.wall_ms, &self.oracle)
            }
            UnderWay::Tell(machine) => self.tell(machine),
            UnderWay::Read(machine) => self.read(machine, random),
            UnderWay::Answer(machine) => {
                let answers = &mut self.machines[machine].answers;
                let answer = answers.remove(random as usize % answers.len());
                self.life_told(machine, &answer);
                self.input(machine, answer)
            }
            UnderWay::Gather(machine) => {
                self.gather(machine);
                Ok(())
            }
            UnderWay::Gathered(machine) => {
                let read = self.machines[machine].gathered.pop_front();
                read.map_or(Ok(()), |read| self.collection_input(machine, read))
            }
            UnderWay::Speak(client) => {
                self.speak_of_edits(client);
                Ok(())
            }
        }
    }

    fn down(&mut self, number: u64) -> Checked {
        let Some(link) = self.links.get_mut(&number) else { return Ok(()) };
        let dialler = link.dialler;
        let Some(frame) = link.down.pop_front() else { return Ok(()) };
        match dialler {
            Dialler::Client(who) => self.client_frame(who, &frame),
            Dialler::Machine(who) => self.frame(who, dialled(number), &frame),
            Dialler::Hostile => Ok(()),
        }
    }

    fn tell(&mut self, machine: usize) -> Checked {
        let told = self.machines[machine].disk.finished.pop_front().unwrap_or_default();
        for input in told {
            self.life_told(machine, &input);
            self.input(machine, input)?;
        }
        Ok(())
    }

    fn read(&mut self, machine: usize, random: u64) -> Checked {
        let machine = &mut self.machines[machine];
        let at = random as usize % machine.loads.len();
        let Some((document, what)) = machine.loads.remove(at) else { return Ok(()) };
        let hash_key = machine.hub.hash_key();
        let loaded = if std::mem::take(&mut machine.disk.faults.read_fails) {
            machine.disk.has_failed = true;
            Err(syncline_core::hub::StoreFailure { message: "the disk cannot be read".to_owned() })
        } else if machine.disk.real.is_some() {
            machine.disk.read_real(&document, &what, hash_key)?
        } else {
            let loaded = machine.disk.image.load(&document, &what, hash_key);
            let error = loaded.as_ref().err().map(|failure| failure.message.clone());
            crate::oracle::require(error.is_none(), "what is stored can be loaded", || error.unwrap_or_default())?;
            loaded
        };
        machine.answers.push(match loaded {
            Ok(loaded) => Input::Loaded { document, loaded },
            Err(failure) => Input::LoadFailed { document, what, failure },
        });
        Ok(())
    }
}

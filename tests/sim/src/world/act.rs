//! What each action does to a world.
//!
//! Owns: turning an action's numbers into somebody and something. Must not: be reached by anything but a scenario.
//! Next: `deliver.rs`, `link.rs`, `hostile.rs`.

use syncline_core::hub::Input;
use syncline_core::id::StorageId;
use syncline_core::wire::Body;

use super::World;
use crate::action::{Action, Kind};
use crate::content::{Content, SyncState};
use crate::image::Image;
use crate::log::State;
use crate::oracle::Checked;
use bytes::Bytes;

/// The longest that a pause of [`Kind::Advance`] is.
const ADVANCE_MS_MAX: u64 = 400;

/// Longer than anything idle stays in memory.
const LONG_PAUSE_MS: u64 = 95_000;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

impl World {
    pub(crate) fn act(&mut self, action: Action) -> Checked {
        let Action { kind, who, value } = action;
        if self.is_barred(kind) {
            return Ok(());
        }
        self.log.say(|| format!("{action}"));
        let who = usize::from(who);
        let client = who % self.clients.len().max(1);
        let machine = who % self.machines.len();
        match kind {
            Kind::Deliver => self.deliver(value).map(drop),
            Kind::Edit => self.client_edit(client, value),
            Kind::Ephemeral | Kind::Subscribe | Kind::CarryOver => {
                self.client_acts(kind, client, value);
                Ok(())
            }
            Kind::LocalEdit => {
                let document = value as usize % self.documents.len();
                self.local_edit(machine, document, value)
            }
            Kind::Dial => {
                let who = who % (self.clients.len() + self.machines.len());
                match who.checked_sub(self.clients.len()) {
                    None => self.dial_client(who),
                    Some(machine) => self.dial_machine(machine),
                }
                Ok(())
            }
            Kind::Cut | Kind::HalfOpen | Kind::ClogDown | Kind::ClogUp => self.link_fails(kind, who),
            Kind::Compare => self.compare_at_will(machine, value),
            Kind::Unclog => {
                self.unclog();
                Ok(())
            }
            Kind::DiskFull
            | Kind::DiskDies
            | Kind::ReadFails
            | Kind::DiskStalls
            | Kind::Compact
            | Kind::SyncFails
            | Kind::TornWrite
            | Kind::ShortWrite
            | Kind::Astray
            | Kind::BitRot => {
                self.disk_fails(kind, machine, value);
                Ok(())
            }
            Kind::Advance => self.advance(value % ADVANCE_MS_MAX),
            Kind::LongPause => {
                self.met(kind, machine);
                self.advance(LONG_PAUSE_MS)
            }
            Kind::WallJump | Kind::WallFreeze | Kind::ClockRate => {
                self.clock_fails(kind, machine, value);
                Ok(())
            }
            Kind::Backup => {
                self.back_up(machine);
                let client = &mut self.clients[client];
                client.older = client.documents.iter().map(|document| document.content.clone()).collect();
                Ok(())
            }
            Kind::PowerCut | Kind::RestoreBackup | Kind::LoseDisk | Kind::CloneDisk => {
                self.machine_fails(kind, machine, value)
            }
            Kind::Undo => {
                let document = value as usize % self.documents.len();
                self.local_undo(machine, document)
            }
            Kind::Delete | Kind::Restore | Kind::Withhold | Kind::Release | Kind::Purge => {
                self.decide(kind, machine, value as usize % self.documents.len())
            }
            Kind::ForgetSyncState | Kind::ClientRollback | Kind::ClientLoss => self.client_fails(kind, client),
            Kind::AccessChange | Kind::TokenEnds | Kind::Quota | Kind::RoomEnds => {
                self.access_acts(kind, machine, value)
            }
            Kind::HostileAct => {
                self.met(kind, machine);
                self.hostile_acts(machine, value)
            }
        }
    }

    /// Counts that a fault came, and what the machine was in the middle of.
    pub(super) fn met(&mut self, kind: Kind, machine: usize) {
        let state = self.machines[machine].state();
        let under_way = self.links.values().any(|link| !link.up.is_empty() || !link.down.is_empty());
        let state = if state == State::Idle && under_way { State::UnderWay } else { state };
        self.log.fault_met(kind, state);
    }

    fn client_edit(&mut self, who: usize, value: u64) -> Checked {
        let document = value as usize % self.documents.len();
        let open = &mut self.clients[who].documents[document];
        let Some(subject) = self.subject.clone() else {
            open.content.edit(value, &mut self.oracle);
            open.edited = true;
            return Ok(());
        };
        let acted = open.content.act(&subject, value, &mut self.oracle);
        open.edited |= matches!(acted, Ok(Some(_)));
        let name = self.clients[who].name();
        self.note_act(&name, acted).map(drop)
    }

    fn client_acts(&mut self, kind: Kind, who: usize, value: u64) {
        let server = self.clients[who].server;
        let document = value as usize % self.documents.len();
        if kind == Kind::CarryOver {
            let other = (who + 1) % self.clients.len();
            let changes = self.clients[other].documents[document].content.raw();
            let open = &mut self.clients[who].documents[document];
            open.edited = open.content.apply(&changes).is_ok();
            return self.met(kind, server);
        }
        let client = &mut self.clients[who];
        let (Some(link), true) = (client.link, client.joined) else { return };
        client.spoken += 1;
        let (count, id) = (client.spoken, self.documents[document].clone());
        let session = format!("tab-{who}");
        let body = if kind == Kind::Ephemeral {
            Body::Ephemeral { document: id, count, session: &session, data: Bytes::from_static(&[0xf6]) }
        } else {
            let store = StorageId::new(&format!("store-{}", value % 3)).expect("a name");
            let (add, remove) =
                if value.is_multiple_of(5) { (Vec::new(), vec![store]) } else { (vec![store], Vec::new()) };
            Body::RemoteSubscriptionChange { add, remove }
        };
        self.client_says(who, link, &body);
        self.met(kind, server);
    }

    fn link_fails(&mut self, kind: Kind, who: usize) -> Checked {
        let Some(number) = self.links.keys().nth(who % self.links.len().max(1)).copied() else { return Ok(()) };
        let Some(link) = self.links.get_mut(&number) else { return Ok(()) };
        let acceptor = link.acceptor;
        link.clogged_down |= kind == Kind::ClogDown;
        link.clogged_up |= kind == Kind::ClogUp;
        self.met(kind, acceptor);
        if kind == Kind::Cut {
            return self.cut(number);
        }
        if kind == Kind::HalfOpen { self.half_open(number) } else { Ok(()) }
    }

    pub(super) fn unclog(&mut self) {
        for link in self.links.values_mut() {
            (link.clogged_up, link.clogged_down) = (false, false);
        }
    }

    fn disk_fails(&mut self, kind: Kind, machine: usize, value: u64) {
        if self.machines[machine].disk.real.is_some() && kind != Kind::DiskStalls {
            return self.real_disk_fails(kind, machine, value);
        }
        self.met(kind, machine);
        let now_ms = self.now_ms;
        let document = self.documents[value as usize % self.documents.len()].clone();
        let machine = &mut self.machines[machine];
        let faults = &mut machine.disk.faults;
        faults.full |= kind == Kind::DiskFull;
        faults.dies |= kind == Kind::DiskDies;
        faults.read_fails |= kind == Kind::ReadFails;
        if kind == Kind::DiskStalls {
            faults.stalled_until_ms = now_ms + value % 2_000;
        }
        if kind == Kind::Compact
            && let Some(changes) = machine.disk.image.compact(&document, value / 7)
        {
            machine.answers.push(Input::Compacted { document, changes });
        }
    }

    pub(super) fn advance(&mut self, millis: u64) -> Checked {
        self.now_ms += millis;
        for machine in 0..self.machines.len() {
            self.machines[machine].clocks.advance(millis);
            self.end_tokens(machine)?;
            self.wake(machine)?;
            self.wake_collection(machine)?;
            self.retry(machine)?;
        }
        Ok(())
    }

    fn clock_fails(&mut self, kind: Kind, machine: usize, value: u64) {
        self.met(kind, machine);
        let clocks = &mut self.machines[machine].clocks;
        clocks.frozen ^= kind == Kind::WallFreeze;
        if kind == Kind::WallJump {
            clocks.wall_ms = clocks.wall_ms.saturating_add(value % (2 * DAY_MS)).saturating_sub(DAY_MS);
        }
        if kind == Kind::ClockRate {
            clocks.rate_percent = 50 + value % 151;
        }
    }

    fn machine_fails(&mut self, kind: Kind, machine: usize, value: u64) -> Checked {
        let other = (machine + 1 + value as usize) % self.machines.len();
        if self.machines[machine].disk.real.is_some() && kind != Kind::PowerCut {
            return self.real_disk_changes(kind, machine, other);
        }
        let image = if kind == Kind::RestoreBackup {
            self.machines[machine].disk.backup.clone()
        } else if kind == Kind::CloneDisk {
            (other != machine).then(|| self.machines[other].disk.image.clone())
        } else {
            (kind == Kind::LoseDisk).then(Image::default)
        };
        if image.is_none() && kind != Kind::PowerCut {
            return Ok(());
        }
        self.met(kind, machine);
        if kind == Kind::CloneDisk {
            self.machines[machine].store = self.machines[other].store;
            self.machines[machine].disk.replica = self.machines[other].disk.replica;
        }
        if let Some(image) = image {
            self.machines[machine].disk.restart(Some(image));
            self.machines[machine].went_back = true;
            self.oracle.release(machine);
            return self.restart(machine);
        }
        self.power_cut(machine, value as usize)
    }

    /// The process ends; of what was handed to the disk and not synced, `survive` calls (or as many as there are) are
    /// found afterwards.
    pub(crate) fn power_cut(&mut self, machine: usize, survive: usize) -> Checked {
        let machine_ = &mut self.machines[machine];
        let wall_ms = machine_.clocks.wall_ms;
        if let Some(real) = &mut machine_.disk.real {
            real.set_wall_ms(wall_ms);
            machine_.disk.power_cut_real(survive as u64, &self.oracle)?;
            return self.restart(machine);
        }
        let survive = survive % (machine_.disk.calls.len() + 2);
        machine_.disk.power_cut(survive, wall_ms, &self.oracle)?;
        self.restart(machine)
    }

    pub(super) fn restart(&mut self, machine: usize) -> Checked {
        self.drop_ends_of(machine);
        self.note_lost_promises(machine);
        self.machines[machine].restart();
        self.check_promises_of(machine)?;
        self.tell_room(machine)?;
        self.add_set(machine)?;
        self.start_app(machine)
    }

    fn client_fails(&mut self, kind: Kind, who: usize) -> Checked {
        let tier = self.tier;
        let server = self.clients[who].server;
        if kind == Kind::ClientRollback && self.clients[who].older.is_empty() {
            return Ok(());
        }
        self.met(kind, server);
        if let Some(link) = self.clients[who].link {
            self.cut(link)?;
        }
        let client = &mut self.clients[who];
        let actor = client.fresh_actor();
        let older = std::mem::take(&mut client.older);
        for (number, document) in client.documents.iter_mut().enumerate() {
            if kind == Kind::ClientRollback {
                document.content = older[number].clone();
                document.content.set_actor(&actor);
                continue;
            }
            document.state = SyncState::new(tier);
            if kind == Kind::ClientLoss {
                document.content = Content::new(tier, &actor);
            }
        }
        Ok(())
    }
}

//! What each action does to a mesh.
//!
//! Owns: turning an action's numbers into somebody and something. Must not: be reached by anything but a scenario.
//! Next: `traffic.rs`, `local.rs`, `bad.rs`.

use std::time::Duration;

use syncline_mesh_sim::Disk;

use super::World;
use super::traffic::End;
use crate::action::{Action, Kind};
use crate::log::State;
use crate::oracle::Checked;

/// The longest that a pause of [`Kind::Advance`] is.
const ADVANCE_MS_MAX: u64 = 3_000;

/// Longer than a silent neighbour is kept.
const LONG_PAUSE: Duration = Duration::from_secs(20);

/// The longest that a disk takes nothing.
const STALL_MS_MAX: u64 = 4_000;

/// Farthest that a clock is set.
const JUMP_MS: [i64; 6] = [-3_600_000, -30_000, 30_000, 90_000, 3_600_000, 0];

impl World {
    pub(super) fn act(&mut self, action: Action) -> Checked {
        let Action { kind, who, value } = action;
        self.log.say(|| format!("{action} at {:?}", self.now));
        let who = usize::from(who);
        let node = who % self.nodes.len();
        match kind {
            Kind::Deliver => {
                for step in 0..1 + value % 8 {
                    self.deliver(value.rotate_right(step as u32 * 7))?;
                }
                Ok(())
            }
            Kind::Advance => self.advance(Duration::from_millis(value % ADVANCE_MS_MAX)),
            Kind::LongPause => {
                self.met(kind, node);
                self.advance(LONG_PAUSE)
            }
            Kind::LocalEdit => self.local_edit(node, value as usize % self.documents.len(), value),
            Kind::Edit if self.clients.is_empty() => {
                self.local_edit(node, value as usize % self.documents.len(), value)
            }
            Kind::Edit => self.client_edit(who % self.clients.len(), value),
            Kind::Dial => match (who % (self.nodes.len() + self.clients.len())).checked_sub(self.nodes.len()) {
                None => self.start(who % (self.nodes.len() + self.clients.len()), value),
                Some(client) => self.dial_client(client),
            },
            Kind::Cut | Kind::HalfOpen | Kind::ClogDown | Kind::ClogUp => self.link_fails(kind, who),
            Kind::Unclog => {
                self.links.values_mut().for_each(|link| link.clogged = [false; 2]);
                Ok(())
            }
            Kind::Lose | Kind::Repeat | Kind::Overtake => {
                self.bend_broadcast(kind, who, value);
                Ok(())
            }
            Kind::Partition => {
                self.met(kind, node);
                self.apart = Some(value);
                Ok(())
            }
            Kind::Heal => {
                self.apart = None;
                Ok(())
            }
            Kind::GoOffline | Kind::GoOnline => self.set_online(kind, node),
            Kind::DiskFull | Kind::DiskStalls | Kind::WallJump => {
                self.machine_fails(kind, node, value);
                Ok(())
            }
            Kind::PowerCut | Kind::LoseDisk | Kind::CloneDisk => self.process_ends(kind, node, value),
            Kind::Stranger
            | Kind::Replay
            | Kind::Forge
            | Kind::BadNotice
            | Kind::LieInRound
            | Kind::EndlessRound
            | Kind::Undeliverable
            | Kind::Flood => self.bad_acts(kind, node, value),
            // What other worlds have.
            Kind::Ephemeral
            | Kind::Subscribe
            | Kind::CarryOver
            | Kind::DiskDies
            | Kind::ReadFails
            | Kind::Compact
            | Kind::WallFreeze
            | Kind::ClockRate
            | Kind::Backup
            | Kind::RestoreBackup
            | Kind::ForgetSyncState
            | Kind::ClientRollback
            | Kind::ClientLoss
            | Kind::HostileAct
            | Kind::Delete
            | Kind::Restore
            | Kind::Withhold
            | Kind::Release
            | Kind::Undo
            | Kind::Purge
            | Kind::Compare
            | Kind::SyncFails
            | Kind::TornWrite
            | Kind::ShortWrite
            | Kind::Astray
            | Kind::BitRot
            | Kind::AccessChange
            | Kind::TokenEnds
            | Kind::Quota
            | Kind::RoomEnds => Ok(()),
        }
    }

    pub(super) fn met(&mut self, kind: Kind, node: usize) {
        let states: Vec<State> = self.states_of(node);
        states.into_iter().for_each(|state| self.log.fault_met(kind, state));
    }

    fn set_online(&mut self, kind: Kind, node: usize) -> Checked {
        if !self.nodes[node].up {
            return Ok(());
        }
        if kind == Kind::GoOffline {
            self.met(kind, node);
        }
        self.nodes[node].set_online(self.now, kind == Kind::GoOnline);
        self.drain(node)
    }

    fn link_fails(&mut self, kind: Kind, who: usize) -> Checked {
        let numbers: Vec<u64> = self.links.keys().copied().collect();
        let Some(number) = numbers.get(who % numbers.len().max(1)).copied() else { return Ok(()) };
        if let Some(End::Node(node)) = self.links[&number].ends.into_iter().find(|end| matches!(end, End::Node(_))) {
            self.met(kind, node);
        }
        let Some(link) = self.links.get_mut(&number) else { return Ok(()) };
        if kind == Kind::Cut {
            return self.cut(number);
        }
        if kind == Kind::HalfOpen {
            link.queues[1].clear();
            return self.drop_end(number, 0);
        }
        link.clogged[usize::from(kind == Kind::ClogDown)] = true;
        Ok(())
    }

    /// Does something to messages of the broadcast that no connection in order does: what carries them may shed them, and
    /// members have to bear it.
    fn bend_broadcast(&mut self, kind: Kind, who: usize, value: u64) {
        let mut places = Vec::new();
        for (number, link) in &self.links {
            for (end, queue) in link.queues.iter().enumerate() {
                let loose = queue.iter().enumerate().filter(|(_, item)| item.may_be_lost);
                places.extend(loose.map(|(at, _)| (*number, end, at)));
            }
        }
        let Some((number, end, at)) = places.get(value as usize % places.len().max(1)).copied() else { return };
        let node = who % self.nodes.len();
        let Some(link) = self.links.get_mut(&number) else { return };
        let node = if let End::Node(node) = link.ends[1 - end] { node } else { node };
        let queue = &mut link.queues[end];
        if kind == Kind::Lose {
            drop(queue.remove(at));
        } else if kind == Kind::Repeat {
            queue.insert(at, queue[at].clone());
        } else {
            let before = (0..at).rev().find(|before| queue[*before].may_be_lost);
            let Some(before) = before else { return };
            queue.swap(at, before);
        }
        self.log.say(|| format!("  a message on link {number}"));
        self.met(kind, node);
    }

    fn machine_fails(&mut self, kind: Kind, node: usize, value: u64) {
        self.met(kind, node);
        if kind == Kind::DiskFull {
            self.full[node] = true;
        } else if kind == Kind::DiskStalls {
            self.stalled[node] = self.now + Duration::from_millis(value % STALL_MS_MAX);
        } else {
            self.nodes[node].wall_ahead_ms = JUMP_MS[value as usize % JUMP_MS.len()];
            self.excused.insert("a clock was set");
        }
    }

    fn process_ends(&mut self, kind: Kind, node: usize, value: u64) -> Checked {
        let other = (node + 1 + value as usize % (self.nodes.len() - 1).max(1)) % self.nodes.len();
        // A copy of a disk with documents in which this node takes no part is no disk of it.
        if kind == Kind::CloneDisk && (other == node || self.has(super::tuning::PARTIAL)) {
            return Ok(());
        }
        self.met(kind, node);
        let copy = (kind == Kind::CloneDisk).then(|| (self.nodes[other].disk.clone(), Some(other)));
        let disk = if kind == Kind::LoseDisk { Some((Disk::of(node), None)) } else { copy };
        self.power_cut(node, value, disk)
    }
}

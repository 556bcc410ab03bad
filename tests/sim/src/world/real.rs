//! Disks with the store that ships on them: how they fail, are replaced, mended and checked.
//!
//! Owns: what each fault does to such a disk, and the operator who replaces one that is damaged.
//! Must not: know how a store is compared with what it should hold. Next: `../real/mirror.rs`.

use syncline_core::hub::Input;
use syncline_disk::{FaultKind, Image as Files, Site};

use super::World;
use crate::action::Kind;
use crate::disk::Call;
use crate::image::Image;
use crate::oracle::{Checked, require};
use crate::real::Real;
use crate::scenario::Tier;

/// Operations of its kind after which a fault comes at the latest.
const WITHIN: u64 = 12;

impl World {
    pub(super) fn insert_disks(&mut self) {
        if self.tier == Tier::T2 {
            for machine in &mut self.machines {
                let mut real = Real::new(machine.disk.replica);
                real.set_wall_ms(machine.clocks.wall_ms);
                real.open().expect("an empty disk that does not fail");
                machine.disk.real = Some(Box::new(real));
            }
        }
    }

    /// Lets a disk fail, within a few operations, and lets the store do its own work.
    pub(super) fn real_disk_fails(&mut self, kind: Kind, machine: usize, value: u64) {
        let state = self.machines[machine].state();
        let disk = &mut self.machines[machine].disk;
        let Some(real) = &mut disk.real else { return };
        let (after, lasts) = (value % WITHIN, value.is_multiple_of(5));
        if kind == Kind::DiskFull && lasts {
            real.disk.limit((value % 16_384) as usize);
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "of all kinds of actions, these are faults of operations")]
        let fault = match kind {
            Kind::DiskFull => Some((FaultKind::Full, None, after, false)),
            Kind::DiskDies => Some((FaultKind::Io, None, after, lasts)),
            Kind::ReadFails => Some((FaultKind::Io, Some(Site::Read), after % 3, false)),
            Kind::SyncFails => Some((FaultKind::Io, Some(Site::Sync), after % 3, false)),
            Kind::TornWrite => Some((FaultKind::Torn, Some(Site::Write), after, false)),
            Kind::ShortWrite => Some((FaultKind::Short, Some(Site::Write), after, lasts)),
            Kind::Astray => Some((FaultKind::Astray((value >> 8) as u8 % 4), Some(Site::Write), after, false)),
            _ => None,
        };
        if let Some((kind_of_fault, site, after, lasts)) = fault {
            real.rotten |= kind == Kind::Astray;
            real.fail(kind_of_fault, site, after, lasts);
            real.armed = Some((kind, state));
        } else if kind == Kind::BitRot {
            if real.rot(value) {
                self.met(kind, machine);
            }
        } else {
            let compacted = disk.work_real(value);
            self.met(kind, machine);
            if let Some((document, changes)) = compacted {
                self.machines[machine].answers.push(Input::Compacted { document, changes });
            }
        }
    }

    /// Faults count when they have come, under the state that they were set in. A disk that is damaged is replaced.
    pub(super) fn look_after_disks(&mut self) -> Checked {
        for machine in 0..self.machines.len() {
            let Some(real) = &mut self.machines[machine].disk.real else { return Ok(()) };
            if let Some((kind, state)) = real.take_fired() {
                self.log.fault_met(kind, state);
            }
            let Some(real) = &self.machines[machine].disk.real else { return Ok(()) };
            if real.lost {
                self.log.say(|| format!(" the disk of machine {machine} is damaged and replaced"));
                self.replace(machine, &Files::new(), Image::default(), &[])?;
            }
        }
        Ok(())
    }

    pub(super) fn back_up(&mut self, machine: usize) {
        let disk = &mut self.machines[machine].disk;
        if let Some(real) = &mut disk.real {
            // A copy of what may be damaged, or whose last commit is in doubt, says nothing.
            if real.rotten || disk.poisoned {
                return;
            }
            real.backup = Some(real.copy());
        }
        disk.backup = Some(disk.image.clone());
    }

    /// A machine starts on another disk: a copy that is older, one of another machine's, or an empty one.
    pub(super) fn real_disk_changes(&mut self, kind: Kind, machine: usize, other: usize) -> Checked {
        let disk = &self.machines[machine].disk;
        let other = &self.machines[other];
        #[expect(clippy::wildcard_enum_match_arm, reason = "of all kinds of actions, three change a disk")]
        let (files, image, in_doubt) = match kind {
            Kind::RestoreBackup => {
                let files = disk.real.as_ref().and_then(|real| real.backup.clone());
                let (Some(files), Some(image)) = (files, disk.backup.clone()) else { return Ok(()) };
                (files, image, Vec::new())
            }
            Kind::CloneDisk => {
                let theirs = other.disk.real.as_ref().filter(|real| !real.rotten && other.number != machine);
                let Some(files) = theirs.map(|real| real.copy()) else { return Ok(()) };
                (files, other.disk.image.clone(), other.disk.uncertain.iter().cloned().collect())
            }
            _ => (Files::new(), Image::default(), Vec::new()),
        };
        let store = if kind == Kind::CloneDisk { other.store } else { self.machines[machine].store };
        self.met(kind, machine);
        self.machines[machine].store = store;
        self.replace(machine, &files, image, &in_doubt)
    }

    fn replace(&mut self, machine: usize, files: &Files, image: Image, in_doubt: &[Call]) -> Checked {
        self.machines[machine].disk.replace_real(files, image, in_doubt, &self.oracle)?;
        self.machines[machine].went_back = true;
        self.oracle.release(machine);
        self.restart(machine)
    }

    /// A start that found less than was promised, on a disk that may be damaged, ends the promises.
    pub(super) fn note_lost_promises(&mut self, machine: usize) {
        let machine_ = &mut self.machines[machine];
        let went_back = machine_.disk.real.as_mut().is_some_and(|real| std::mem::take(&mut real.went_back));
        if went_back {
            machine_.went_back = true;
            self.oracle.release(machine);
        }
    }

    /// Faults end. Whoever has met one, or may have, starts again, and must then be sound or be replaced.
    pub(super) fn mend_disks(&mut self) -> Checked {
        for machine in 0..self.machines.len() {
            let disk = &self.machines[machine].disk;
            let Some(real) = &disk.real else { return Ok(()) };
            let doubtful = disk.has_failed || real.rotten || real.has_failed();
            real.disk.mend();
            if doubtful {
                // Kept as it is: damage that only the check would find is not to be hidden by a cut.
                self.machines[machine].disk.restart_process(&self.oracle)?;
                self.restart(machine)?;
                self.look_after_disks()?;
            }
            self.machines[machine].disk.check_file()?;
            self.machines[machine].disk.check_all()?;
            self.look_after_disks()?;
            self.machines[machine].disk.real.iter_mut().for_each(|real| real.rotten = false);
        }
        Ok(())
    }

    /// At the very end each store is clean, closes, opens, and holds what it held.
    pub(super) fn check_disks(&mut self) -> Checked {
        for machine in &mut self.machines {
            let disk = &mut machine.disk;
            let Some(real) = &mut disk.real else { return Ok(()) };
            let closed = real.close();
            require(closed.is_ok(), "a sound store closes", || format!("{closed:?}"))?;
            disk.start_real(&[], &self.oracle)?;
            disk.check_file()?;
        }
        Ok(())
    }
}

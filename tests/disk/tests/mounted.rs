//! The disk as programs see it: through the kernel.
//!
//! Owns: the proof that faults reach a caller, and that the power can be cut. Must not: know SQLite.
//! Next: `../src/mount.rs`.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use syncline_disk::{Cut, Disk, Fault, FaultKind, Image, Mount, Site, mounted_or_skipped};

struct Mounted {
    disk: Disk,
    mount: Mount,
    place: String,
}

impl Mounted {
    /// A mounted disk, unless this machine has none.
    fn new() -> Option<Self> {
        let (disk, mount) = mounted_or_skipped()?;
        let place = disk.place(&Image::new());
        Some(Self { disk, mount, place })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mount.path().join(&self.place).join(name)
    }

    fn sync_names(&self) {
        File::open(self.path("")).and_then(|directory| directory.sync_all()).expect("a healthy disk");
    }
}

#[test]
fn a_power_cut_takes_what_was_not_synced() {
    let Some(mut mounted) = Mounted::new() else { return };
    let mut file = File::create(mounted.path("file")).expect("a healthy disk");
    mounted.sync_names();
    file.write_all(b"kept").and_then(|()| file.sync_all()).expect("a healthy disk");
    file.write_all(b", lost").expect("a healthy disk");
    fs::write(mounted.path("nameless"), b"synced, but not its name").expect("a healthy disk");
    assert_eq!(fs::read(mounted.path("file")).expect("a healthy disk"), b"kept, lost");
    drop(file);
    mounted.place = mounted.disk.cut_power(&mounted.place, Cut::Lost);
    assert_eq!(fs::read(mounted.path("file")).expect("its name was synced"), b"kept");
    assert!(!mounted.path("nameless").exists());
}

#[test]
fn faults_reach_the_caller_once_or_for_good() {
    let Some(mounted) = Mounted::new() else { return };
    let mut file = File::create(mounted.path("file")).expect("a healthy disk");
    let fail = |kind, site, lasts| mounted.disk.fail(Fault { kind, site: Some(site), after: 0, lasts });
    fail(FaultKind::Io, Site::Sync, false);
    file.write_all(b"x").expect("only the sync fails");
    assert_eq!(file.sync_all().expect_err("it was told to").raw_os_error(), Some(5));
    file.sync_all().expect("Linux forgets a failed sync");
    assert_eq!(mounted.disk.touched_after_failure(), 1);
    fail(FaultKind::Full, Site::Write, true);
    for _ in 0..2 {
        assert_eq!(file.write(b"x").expect_err("it was told to").raw_os_error(), Some(28));
    }
    fail(FaultKind::Short, Site::Write, false);
    assert_eq!(file.write(b"abcd").expect("half of it"), 2);
    // A single failed read is hidden by the kernel, which reads ahead and then again.
    fail(FaultKind::Io, Site::Read, true);
    assert!(fs::read(mounted.path("file")).is_err());
    mounted.disk.mend();
    assert_eq!(fs::read(mounted.path("file")).expect("mended"), b"xab");
    assert!(mounted.disk.fired() >= 5, "each is counted");
}

#[test]
fn a_full_disk_has_room_again_when_it_is_mended() {
    let Some(mounted) = Mounted::new() else { return };
    mounted.disk.limit(10);
    fs::write(mounted.path("file"), [7; 10]).expect("as much as fits");
    assert!(fs::write(mounted.path("other"), [7; 10]).is_err());
    mounted.disk.mend();
    fs::write(mounted.path("other"), [7; 10]).expect("there is room again");
}

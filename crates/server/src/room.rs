//! Whether there is room on the disk: writes end before it is full, and begin again by themselves.
//!
//! Owns: the look at the disk, and when it is enough. Must not: remove anything.
//! Next: `server.rs`; docs/server.md, "The disk".

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use syncline_replica::Replica;

/// Between two looks, unless half of the room is used up earlier.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes that one brought byte may take: in the log, in the database, and both once more when its document is compacted.
const COPIES_MAX: u64 = 4;

/// Bytes that a byte may take yet which has got as far as the log.
const LATER_COPIES_MAX: u64 = COPIES_MAX - 1;

/// What has to be free, of the whole disk, where the whole disk is small.
const SHARE_MIN: u64 = 10;

/// How much room there has to be.
#[derive(Debug, Clone)]
pub struct Room {
    /// Bytes that have to be free, or a tenth of the disk if that is less. With 0 the disk is filled to its end.
    pub free_bytes_min: u64,
    /// Most bytes that the data directory may take.
    pub stored_bytes_max: Option<u64>,
}

impl Default for Room {
    fn default() -> Self {
        Self { free_bytes_min: 256 * 1024 * 1024, stored_bytes_max: None }
    }
}

/// What was seen at the last look.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoomMetrics {
    free: Gauge,
    stored: Gauge,
}

impl RoomMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("disk_free_bytes", "Bytes free where the data is", self.free.clone());
        registry.register("stored_bytes", "Bytes that the data directory takes", self.stored.clone());
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    free: u64,
    whole: u64,
    stored: u64,
    /// What is in SQLite's log and may have to be moved into the database yet, and what the store will write by itself.
    owed: u64,
}

impl Room {
    /// Looks for ever, and tells the replica.
    pub(crate) async fn watch(self, data: PathBuf, replica: Replica, metrics: RoomMetrics) {
        loop {
            let directory = data.clone();
            // A disk that hangs must not stop anything else.
            let seen = tokio::task::spawn_blocking(move || look(&directory)).await.ok().flatten();
            if let Some(mut seen) = seen {
                seen.owed += LATER_COPIES_MAX * replica.store().unfolded_bytes();
                metrics.free.set(seen.free.cast_signed());
                metrics.stored.set(seen.stored.cast_signed());
                self.tell(&replica, seen);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = replica.runs_short_of_room() => {}
            }
        }
    }

    fn tell(&self, replica: &Replica, seen: Seen) {
        let had = replica.has_room();
        let room = self.left(seen, had);
        if had && room.is_none() {
            let Seen { free, stored, .. } = seen;
            tracing::error!(free, stored, "there is no room: nothing is taken until there is, everything can be read");
        } else if !had && room.is_some() {
            tracing::info!("there is room again");
        }
        replica.set_room(room);
    }

    /// Bytes that may be brought until the next look. Once there were none, it has to be a tenth more than enough: writes do
    /// not begin and end from one look to the next.
    fn left(&self, seen: Seen, had: bool) -> Option<u64> {
        let more = |bytes: u64| if had { bytes } else { bytes + bytes / 10 };
        let free_min = self.free_bytes_min.min(seen.whole / SHARE_MIN);
        let free = match self.free_bytes_min {
            // The disk is somebody else's care.
            0 => u64::MAX,
            _ => seen.free.checked_sub(more(free_min))?.checked_sub(seen.owed)?,
        };
        let below_max = match self.stored_bytes_max {
            Some(max) => max.checked_sub(more(seen.stored))?,
            None => u64::MAX,
        };
        Some(free.min(below_max) / COPIES_MAX)
    }
}

fn look(data: &Path) -> Option<Seen> {
    let disk = statvfs(data).ok()?;
    let unit = disk.fragment_size();
    let (mut stored, mut owed) = (0, 0);
    for entry in std::fs::read_dir(data).ok()?.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        stored += metadata.len();
        if entry.file_name().as_encoded_bytes().ends_with(b"-wal") {
            owed += metadata.len();
        }
    }
    Some(Seen { free: disk.blocks_available() * unit, whole: disk.blocks() * unit, stored, owed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_needs_less_and_room_that_came_back_a_little_more() {
        const MIB: u64 = 1024 * 1024;
        let room = Room { free_bytes_min: 256 * MIB, stored_bytes_max: Some(100 * MIB) };
        let left = |free, whole, stored, had| {
            let seen = Seen { free: free * MIB, whole: whole * MIB, stored: stored * MIB, owed: 0 };
            room.left(seen, had).map(|bytes| bytes / MIB)
        };
        assert_eq!(left(256, 100_000, 1, true), Some(0));
        assert_eq!(left(255, 100_000, 1, true), None);
        assert_eq!(left(270, 100_000, 1, false), None);
        assert_eq!(left(282, 100_000, 1, false), Some(0));
        assert_eq!(left(296, 100_000, 1, true), Some(10), "each byte may be written four times");
        assert_eq!(left(10, 100, 1, true), Some(0), "a tenth");
        assert_eq!(left(9, 100, 1, true), None);
        assert_eq!(left(9_000, 100_000, 20, true), Some(20));
        assert_eq!(left(9_000, 100_000, 100, true), Some(0));
        assert_eq!(left(9_000, 100_000, 101, true), None);
        assert_eq!(left(9_000, 100_000, 95, false), None);
        let seen = Seen { free: 300 * MIB, whole: 100_000 * MIB, stored: MIB, owed: 40 * MIB };
        assert_eq!(room.left(seen, true), Some(MIB), "it will be written yet");
        assert_eq!(room.left(Seen { owed: 60 * MIB, ..seen }, true), None);
        let careless = Room { free_bytes_min: 0, stored_bytes_max: None };
        assert!(careless.left(Seen { free: 0, ..seen }, true).is_some());
    }
}

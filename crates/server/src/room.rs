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

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// What has to be free, of the whole disk, where the whole disk is small.
const SHARE_MIN: u64 = 10;

/// How much room there has to be.
#[derive(Debug, Clone)]
pub struct Room {
    /// Bytes that have to be free, or a tenth of the disk if that is less.
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
}

impl Room {
    /// Looks for ever, and tells the replica.
    pub(crate) async fn watch(self, data: PathBuf, replica: Replica, metrics: RoomMetrics) {
        loop {
            let directory = data.clone();
            // A disk that hangs must not stop anything else.
            let seen = tokio::task::spawn_blocking(move || look(&directory)).await.ok().flatten();
            if let Some(seen) = seen {
                metrics.free.set(seen.free.cast_signed());
                metrics.stored.set(seen.stored.cast_signed());
                self.tell(&replica, seen);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn tell(&self, replica: &Replica, seen: Seen) {
        let had = replica.has_room();
        let has = self.is_enough(seen, had);
        if had && !has {
            let Seen { free, stored, .. } = seen;
            tracing::error!(free, stored, "there is no room: nothing is taken until there is, everything can be read");
        } else if has && !had {
            tracing::info!("there is room again");
        }
        replica.set_room(has);
    }

    /// Once it was not enough, it has to be a tenth more: writes do not begin and end from one look to the next.
    fn is_enough(&self, seen: Seen, had: bool) -> bool {
        let more = |bytes: u64| if had { bytes } else { bytes + bytes / 10 };
        let free_min = self.free_bytes_min.min(seen.whole / SHARE_MIN);
        let stored = more(seen.stored);
        seen.free >= more(free_min) && self.stored_bytes_max.is_none_or(|max| stored <= max)
    }
}

fn look(data: &Path) -> Option<Seen> {
    let disk = statvfs(data).ok()?;
    let unit = disk.fragment_size();
    let stored = std::fs::read_dir(data).ok()?.filter_map(|entry| entry.ok()?.metadata().ok()).map(|entry| entry.len());
    Some(Seen { free: disk.blocks_available() * unit, whole: disk.blocks() * unit, stored: stored.sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_needs_less_and_room_that_came_back_a_little_more() {
        const MIB: u64 = 1024 * 1024;
        let room = Room { free_bytes_min: 256 * MIB, stored_bytes_max: Some(100 * MIB) };
        let seen = |free, whole, stored| Seen { free: free * MIB, whole: whole * MIB, stored: stored * MIB };
        assert!(room.is_enough(seen(256, 100_000, 1), true));
        assert!(!room.is_enough(seen(255, 100_000, 1), true));
        assert!(!room.is_enough(seen(270, 100_000, 1), false));
        assert!(room.is_enough(seen(282, 100_000, 1), false));
        assert!(room.is_enough(seen(10, 100, 1), true), "a tenth");
        assert!(!room.is_enough(seen(9, 100, 1), true));
        assert!(room.is_enough(seen(9_000, 100_000, 100), true));
        assert!(!room.is_enough(seen(9_000, 100_000, 101), true));
        assert!(!room.is_enough(seen(9_000, 100_000, 95), false));
    }
}

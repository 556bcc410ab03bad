//! How much room the disk still has for what is brought, between two looks at it.
//!
//! Owns: the bytes that may be taken until the disk is looked at again. Must not: look at the disk.
//! Next: `replica.rs` (`set_room`); docs/server.md, "The disk".

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

/// Room for what is brought.
#[derive(Debug)]
pub(crate) struct Room {
    is_open: AtomicBool,
    granted: AtomicI64,
    left: AtomicI64,
    short: Notify,
}

impl Default for Room {
    /// Nobody counts: there is room for everything.
    fn default() -> Self {
        Self {
            is_open: AtomicBool::new(true),
            granted: AtomicI64::new(i64::MAX),
            left: AtomicI64::new(i64::MAX),
            short: Notify::new(),
        }
    }
}

impl Room {
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Grants so many bytes, or none. Returns whether that opens or closes it.
    pub(crate) fn grant(&self, bytes: Option<u64>) -> bool {
        let granted = i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        self.granted.store(granted, Ordering::Relaxed);
        self.left.store(granted, Ordering::Relaxed);
        self.is_open.swap(bytes.is_some(), Ordering::Relaxed) != bytes.is_some()
    }

    /// Bytes were taken. Returns whether that closes it: nobody looked in time, so nothing more is taken until somebody did.
    pub(crate) fn spend(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // What nobody counts is not used up within any server's life.
        let left = self.left.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        if left < self.granted.load(Ordering::Relaxed) / 2 {
            self.short.notify_one();
        }
        left < 0 && self.is_open.swap(false, Ordering::Relaxed)
    }

    /// Returns once half of what was granted is taken.
    pub(crate) async fn runs_short(&self) {
        self.short.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_granted_is_taken_once_and_half_of_it_asks_for_a_look() {
        let room = Room::default();
        assert!(room.is_open() && !room.spend(u64::MAX / 8), "nobody counts");
        assert!(!room.grant(Some(100)), "it was open");
        assert!(!room.spend(50));
        let mut asked = std::pin::pin!(room.runs_short());
        assert!(futures_util::poll!(asked.as_mut()).is_pending(), "half of it is there");
        assert!(!room.spend(50) && room.is_open(), "all of it may be taken");
        asked.await;
        assert!(room.spend(1) && !room.is_open());
        assert!(!room.spend(1), "closed already");
        assert!(room.grant(Some(10)) && room.is_open());
        assert!(room.grant(None) && !room.is_open());
    }
}

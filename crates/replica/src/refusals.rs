//! The log of what was refused: some lines a second, and how many were left out.
//!
//! Owns: that count. Must not: keep anything from being counted; the counters count all.
//! Next: `metrics.rs`; docs/server.md, "What is logged".

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines about refusals in a second.
pub(crate) const LINES_MAX: u32 = 20;

/// Over how long lines are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// What has been written lately.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl RefusalLog {
    /// Whether another line may be written. How many may not is written when the second is over.
    pub(crate) fn may_write(self: &Arc<Self>) -> bool {
        let (may, first) = self.lock().take(Instant::now());
        if first && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let log = Arc::clone(self);
            runtime.spawn(async move {
                tokio::time::sleep(WINDOW).await;
                let left_out = std::mem::take(&mut log.lock().left_out);
                tracing::warn!(
                    left_out,
                    "refused: more than {LINES_MAX} in a second, of which {left_out} are not written here"
                );
            });
        }
        may
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Whether a line may be written, and whether it is the first that may not.
    fn take(&mut self, now: Instant) -> (bool, bool) {
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (self.began, self.written) = (Some(now), 0);
        }
        if self.written < LINES_MAX {
            self.written += 1;
            return (true, false);
        }
        self.left_out += 1;
        (false, self.left_out == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_some_are_written_and_the_others_are_counted() {
        let (mut window, now) = (Window::default(), Instant::now());
        let taken: Vec<_> = (0..100).map(|_| window.take(now)).collect();
        let written = taken.iter().filter(|(may, _)| *may).count();
        let firsts = taken.iter().filter(|(_, first)| *first).count();
        assert_eq!((written, firsts, window.left_out), (20, 1, 80), "one of them has the others told");
        assert_eq!(window.take(now + WINDOW), (true, false), "the next second begins anew");
    }
}

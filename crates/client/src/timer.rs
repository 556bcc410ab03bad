//! Waiting on the repo's clock, for callers that may have none.
//!
//! Owns: a wait and its end. Must not: outlive whoever waits. Next: `engine.rs`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::engine::Engine;

/// A wait on the repo's own clock, given up when dropped.
#[derive(Debug)]
pub(crate) struct Timer {
    pub(crate) elapsed: JoinHandle<()>,
}

impl Timer {
    pub(crate) fn start(engine: &Engine, wait: Duration) -> Self {
        // The sleep is made on the repo's threads: the caller's may have no clock.
        Self { elapsed: engine.runtime.spawn(async move { tokio::time::sleep(wait).await }) }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.elapsed).poll(context).map(|_| ())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.elapsed.abort();
    }
}

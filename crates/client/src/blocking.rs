//! Waiting without a runtime.
//!
//! Owns: running one future on the calling thread. Must not: start threads.
//! Next: `repo.rs`; docs/client.md, "Threads".

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Runs a future of this crate's to its end on this thread, which sleeps meanwhile. Every future here may be run so: none
/// needs a runtime of the caller's.
///
/// ```
/// # use syncline::automerge::{ROOT, transaction::Transactable};
/// # let repo = syncline::Repo::memory()?;
/// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
/// syncline::block_on(list.saved())?;
/// # Ok::<(), syncline::Error>(())
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Sleeper(Thread);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

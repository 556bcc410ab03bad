//! Waiting until changes are as safe as they are wanted.
//!
//! Owns: what each receipt means. Must not: claim more than was announced.
//! Next: `status.rs`, `live.rs`; docs/client.md, "Is it saved, and where?".

use std::time::Duration;

use crate::Error;
use crate::document::Document;
use crate::timer::Timer;

/// How safe changes are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// On this disk.
    Disk,
    /// On a server: one has announced them.
    Server,
    /// On the disks of so many other replicas: servers with different stores that have announced them. What a server's
    /// other clients hold does not count.
    Replicas(usize),
}

impl Document {
    /// Waits until everything that is in the document at this moment is as safe as the receipt says.
    ///
    /// ```
    /// # use syncline::automerge::{ROOT, transaction::Transactable};
    /// use std::time::Duration;
    /// use syncline::{Error, Receipt, Repo, block_on};
    /// let repo = Repo::memory()?;
    /// let list = repo.create(|tx| tx.put(ROOT, "title", "Groceries"))?;
    /// block_on(list.wait(Receipt::Disk, Duration::from_secs(5)))?;
    /// let offline = block_on(list.wait(Receipt::Server, Duration::from_millis(10)));
    /// assert!(matches!(offline, Err(Error::NoReceipt { .. })));
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoReceipt`] when the time is up, [`Error::LocalOnly`] at once where a server is to have a document that
    /// stays on this machine, [`Error::NotSaved`] when the disk does not take it, [`Error::Closed`].
    pub async fn wait(&self, receipt: Receipt, timeout: Duration) -> Result<(), Error> {
        let timer = Timer::start(self.engine(), timeout);
        tokio::select! {
            biased;
            reached = self.reach(receipt) => reached,
            () = timer => {
                Err(Error::NoReceipt { document: self.url().id().clone(), receipt, waited: timeout })
            }
        }
    }

    /// Waits until a server has announced everything that is in the document at this moment. A Syncline server announces
    /// only what is durable on its own disk.
    ///
    /// While no server can be reached, this waits; [`Document::wait`] has a bound.
    ///
    /// # Errors
    /// [`Error::LocalOnly`] for a document that stays on this machine, [`Error::Closed`] when the repo was closed before that.
    pub async fn on_server(&self) -> Result<(), Error> {
        self.reach(Receipt::Server).await
    }

    async fn reach(&self, receipt: Receipt) -> Result<(), Error> {
        let wanted = match receipt {
            Receipt::Disk => return self.saved().await,
            Receipt::Server => None,
            Receipt::Replicas(count) => Some(count),
        };
        let live = self.live();
        let (mut progress, mut latest) = (live.progress.subscribe(), live.latest.subscribe());
        let heads = live.read(automerge::Automerge::get_heads)?;
        loop {
            if live.policy().local_only {
                return Err(Error::LocalOnly { document: live.id.clone() });
            }
            let stopped = self.engine().has_stopped();
            let reached = match wanted {
                None => live.is_confirmed(&heads),
                Some(count) => live.replicas_with(&heads) >= count,
            };
            if reached {
                return Ok(());
            }
            if stopped {
                return Err(Error::Closed);
            }
            let changed = tokio::select! {
                changed = progress.changed() => changed,
                changed = latest.changed() => changed,
            };
            if changed.is_err() {
                return Err(Error::Closed);
            }
        }
    }
}

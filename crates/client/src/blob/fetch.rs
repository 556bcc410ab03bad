//! A blob that somebody waits for.
//!
//! Owns: the wait, its progress, its end. Must not: go on when nobody waits any more.
//! Next: `transfers.rs`.

use std::time::Duration;

use futures_core::Stream;
use syncline_core::blob::BlobHash;

use super::transfers::Outcome;
use crate::timer::Timer;
use crate::value::Blob;
use crate::{Error, Repo};

/// A blob on its way to this disk. Dropped, it stops; what has come stays and is gone on from by the next fetch.
#[derive(Debug)]
pub struct BlobFetch {
    repo: Repo,
    hash: BlobHash,
    size: u64,
}

/// How much of a blob has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobProgress {
    /// Bytes that are on this disk.
    pub held: u64,
    /// Bytes of the blob, as the document says.
    pub size: u64,
    /// All of it is here, proved by its hash and durable.
    pub done: bool,
}

impl BlobFetch {
    pub(super) fn begin(repo: Repo, blob: &Blob) -> Self {
        let engine = repo.engine();
        if engine.transfers.begin(blob.hash()) {
            engine.replica.fetch_blob(blob.hash(), blob.size());
        }
        Self { hash: blob.hash(), size: blob.size(), repo }
    }

    /// How much has come, at this moment.
    #[must_use]
    pub fn progress(&self) -> BlobProgress {
        let (held, outcome) = self.repo.engine().transfers.fetched(&self.hash);
        let done = outcome == Some(Outcome::Here);
        BlobProgress { held: if done { self.size } else { held }, size: self.size, done }
    }

    /// Waits until [`BlobFetch::progress`] is another than `before`, and returns it. A slow caller misses those between.
    ///
    /// # Errors
    /// [`Error::BlobNoServer`] when it is not here and no server is connected to, [`Error::BlobUnavailable`] when every
    /// connected server says that it has not got it, [`Error::BlobTimeout`] when nothing has come for
    /// [`Options::find_timeout`](crate::Options::find_timeout), [`Error::BlobRefused`] when it cannot be had or kept,
    /// [`Error::Closed`].
    pub async fn progress_changed(&self, before: &BlobProgress) -> Result<BlobProgress, Error> {
        let (engine, blob) = (self.repo.engine(), self.hash);
        let waited: Duration = self.repo.find_timeout;
        let mut changed = engine.transfers.subscribe();
        let mut servers = engine.servers.changed.subscribe();
        let mut timer = Timer::start(engine, waited);
        loop {
            engine.check_open()?;
            let progress = self.progress();
            if progress != *before {
                return Ok(progress);
            }
            match engine.transfers.fetched(&blob).1 {
                Some(Outcome::Here) => return Ok(progress),
                Some(Outcome::Failed(reason, message)) => return Err(Error::BlobRefused { blob, reason, message }),
                Some(Outcome::Unavailable(0)) if !engine.servers.are_dialled() => {
                    return Err(Error::BlobNoServer { blob });
                }
                Some(Outcome::Unavailable(1..)) => return Err(Error::BlobUnavailable { blob }),
                Some(Outcome::Unavailable(0)) | None => {}
            }
            let _ = tokio::select! {
                () = &mut timer => return Err(Error::BlobTimeout { blob, waited }),
                changed = changed.changed() => changed,
                changed = servers.changed() => changed,
            };
        }
    }

    /// Waits until all of it is here.
    ///
    /// # Errors
    /// As [`BlobFetch::progress_changed`].
    pub async fn done(&self) -> Result<(), Error> {
        let mut progress = self.progress();
        while !progress.done {
            progress = self.progress_changed(&progress).await?;
        }
        Ok(())
    }

    /// The same as a stream: it ends with the progress that says so, or with an error.
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// # let repo = syncline::Repo::memory()?;
    /// # let picture = syncline::block_on(repo.put_blob("content"))?;
    /// let progress = Box::pin(repo.fetch_blob(&picture)?.into_stream());
    /// let last = syncline::block_on(progress.collect::<Vec<_>>()).pop().expect("it says at least how it ends")?;
    /// assert!(last.done && last.held == 7);
    /// # Ok::<(), syncline::Error>(())
    /// ```
    pub fn into_stream(self) -> impl Stream<Item = Result<BlobProgress, Error>> + Send {
        // None at first, so that what is done at once is told as well.
        futures_util::stream::unfold(Some((self, None)), |state| async move {
            let (fetch, before) = state?;
            let next = match before {
                None => Ok(fetch.progress()),
                Some(before) => fetch.progress_changed(&before).await,
            };
            let rest = match &next {
                Ok(progress) if !progress.done => Some((fetch, Some(*progress))),
                _ => None,
            };
            Some((next, rest))
        })
    }
}

impl Drop for BlobFetch {
    fn drop(&mut self) {
        let engine = self.repo.engine();
        if engine.transfers.end(&self.hash) {
            engine.replica.cancel_blob(self.hash);
        }
    }
}

//! Blobs: attachments, stored beside the documents, sent to servers, fetched when they are wanted.
//!
//! Owns: the calls. Must not: decide what is sent when; the exchange of the replica does.
//! Next: `blob/fetch.rs`, `blob/transfers.rs`, `value/blob.rs`; docs/client.md, "Blobs", docs/blobs.md.

mod fetch;
mod transfers;

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use syncline_core::blob::{BlobChange, BlobHash, BlobStanding, PIECE_BYTES};
use syncline_replica::{Upload, UploadError};
use syncline_store::StoreError;
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::timer::Timer;
use crate::value::Blob;
use crate::{Error, Repo};

pub use fetch::{BlobFetch, BlobProgress};
pub(crate) use transfers::Transfers;

/// Times that a blob is fetched again because its copy here turns out to be damaged.
const MENDS_MAX: usize = 3;

/// Blobs read from the store in one go.
const PAGE: usize = 256;

/// Where a blob is, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobStatus {
    /// All of it is on this disk.
    pub here: bool,
    /// Bytes of it that are on this disk.
    pub held: u64,
    /// A server has said that it has it, durably, at some time.
    pub on_server: bool,
    /// Bytes of it that a server has or has been sent since the repo was opened.
    pub sent: u64,
    /// Why a server did not take it, in its words. It is offered again on the next connection.
    pub complaint: Option<Arc<str>>,
}

impl Repo {
    /// Stores content as a blob, on this disk when the call returns, and offers it to servers from then on, after a restart
    /// too, until one has it. Put what is returned into a document, so that others find it.
    ///
    /// ```
    /// use autosurgeon::{Hydrate, Reconcile};
    /// use syncline::value::{Blob, Text};
    /// #[derive(Hydrate, Reconcile)]
    /// struct Note { text: Text, picture: Blob }
    /// # tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
    /// # let repo = syncline::Repo::memory()?;
    /// let picture = repo.put_blob(vec![0x89, 0x50, 0x4e, 0x47]).await?.named("cat.png", "image/png");
    /// let note = repo.create_from(&Note { text: "Look!".into(), picture })?;
    ///
    /// let Note { picture, .. } = note.hydrate()?;
    /// assert_eq!(repo.read_blob(&picture).await?.len(), 4);
    /// # Ok::<(), syncline::Error>(())
    /// # }).expect("it works");
    /// ```
    ///
    /// # Errors
    /// [`Error::BlobTooLarge`], [`Error::Store`], [`Error::Closed`]; nothing is kept then.
    pub async fn put_blob(&self, content: impl Into<Bytes>) -> Result<Blob, Error> {
        let (engine, content) = (Arc::clone(self.engine()), content.into());
        engine.check_open()?;
        let storing = self.engine().runtime.spawn(async move {
            let mut upload = engine.replica.upload_blob();
            for piece in content.chunks(PIECE_BYTES) {
                upload.write(piece).await?;
            }
            engine.finish_put(upload).await
        });
        storing.await.map_err(|_| Error::Closed)?
    }

    /// As [`Repo::put_blob`], with content that need not fit into memory: a file, for one.
    ///
    /// # Errors
    /// As [`Repo::put_blob`], and [`Error::BlobRead`] when the reader fails.
    pub async fn put_blob_from(&self, mut reader: impl Read + Send + 'static) -> Result<Blob, Error> {
        let engine = Arc::clone(self.engine());
        engine.check_open()?;
        let storing = self.engine().runtime.spawn_blocking(move || {
            let mut upload = engine.replica.upload_blob();
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                let read = match reader.read(&mut buffer) {
                    Ok(0) => return engine.runtime.block_on(engine.finish_put(upload)),
                    Ok(read) => read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Error::BlobRead(error)),
                };
                engine.runtime.block_on(upload.write(&buffer[..read]))?;
            }
        });
        storing.await.map_err(|_| Error::Closed)?
    }

    /// Brings a blob to this disk, from a server if it is not here. It goes on while the returned value lives, and is
    /// gone on with by the next call, after a restart too, from what has come.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
    /// # let repo = syncline::Repo::memory()?;
    /// # let picture = repo.put_blob("content").await?;
    /// let fetch = repo.fetch_blob(&picture)?;
    /// let mut progress = fetch.progress();
    /// while !progress.done {
    ///     println!("{} of {} bytes", progress.held, progress.size);
    ///     progress = fetch.progress_changed(&progress).await?;
    /// }
    /// # Ok::<(), syncline::Error>(())
    /// # }).expect("it works");
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn fetch_blob(&self, blob: &Blob) -> Result<BlobFetch, Error> {
        self.engine().check_open()?;
        Ok(BlobFetch::begin(self.clone(), blob))
    }

    /// The content of a blob, fetched if it is not here, in memory.
    ///
    /// # Errors
    /// As [`BlobFetch::done`], and [`Error::Store`].
    pub async fn read_blob(&self, blob: &Blob) -> Result<Bytes, Error> {
        let mut mends = 0;
        loop {
            self.fetch_blob(blob)?.done().await?;
            match self.read_blob_range(blob, 0..u64::MAX).await {
                Err(Error::Store(StoreError::BlobDamaged { hash, at })) if mends < MENDS_MAX => {
                    mends += 1;
                    // It may still count as whole: once this is done, it does not.
                    self.engine().change_blob(BlobChange::Damage { hash, at }).await?;
                }
                read => return read,
            }
        }
    }

    /// These bytes of a blob that is here, or as many of them as it has.
    ///
    /// # Errors
    /// [`Error::BlobNotHere`], [`Error::Store`], [`Error::Closed`].
    pub async fn read_blob_range(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, Error> {
        let (engine, hash) = (Arc::clone(self.engine()), blob.hash());
        engine.check_open()?;
        let reading = self.engine().runtime.spawn_blocking(move || engine.read_range(hash, range));
        reading.await.map_err(|_| Error::Closed)?
    }

    /// Where a blob is. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub fn blob_status(&self, blob: &Blob) -> Result<BlobStatus, Error> {
        let engine = self.engine();
        engine.check_open()?;
        let standing = engine.replica.store().blob(&blob.hash())?;
        let (sent, complaint) = engine.transfers.pushed(&blob.hash());
        Ok(BlobStatus {
            here: standing.is_some_and(|standing| standing.is_whole()),
            held: standing.map_or(0, |standing| standing.held),
            on_server: standing.is_some_and(|standing| standing.confirmed),
            sent: standing.filter(|standing| standing.confirmed).map_or(sent, |standing| standing.size),
            complaint,
        })
    }

    /// The blobs of which something is here, in the order of their hashes. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub fn blobs(&self) -> Result<Vec<Blob>, Error> {
        let engine = self.engine();
        engine.check_open()?;
        let (mut blobs, mut after) = (Vec::new(), None);
        loop {
            let page = engine.replica.store().blobs(after.as_ref(), PAGE, false)?;
            let Some((last, _)) = page.last() else { return Ok(blobs) };
            after = Some(*last);
            blobs.extend(page.into_iter().map(|(hash, standing)| Blob::new(hash, standing.size)));
        }
    }

    /// Waits until a server has said that it has a blob that is here, durably. [`Repo::blob_status`] says what it waits for.
    ///
    /// # Errors
    /// [`Error::BlobNotHere`], [`Error::Store`], [`Error::Closed`].
    pub async fn blob_on_server(&self, blob: &Blob) -> Result<(), Error> {
        let engine = self.engine();
        let mut changed = engine.transfers.subscribe();
        loop {
            engine.check_open()?;
            let standing = engine.stand(blob.hash()).await?.filter(BlobStanding::is_whole);
            match standing {
                None => return Err(Error::BlobNotHere { blob: blob.hash() }),
                Some(standing) if standing.confirmed => return Ok(()),
                // What has been confirmed and could not be noted is offered again by the next start.
                Some(_) => changed.changed().await.map_err(|_| Error::Closed)?,
            }
        }
    }

    /// Removes this device's copy of a blob, after a connected server has said that it has it. A fetch brings it back.
    ///
    /// # Errors
    /// [`Error::BlobOnlyHere`] when no connected server says so within [`Options::find_timeout`](crate::Options::find_timeout);
    /// the copy stays. [`Error::Store`], [`Error::Closed`].
    pub async fn evict_blob(&self, blob: &Blob) -> Result<(), Error> {
        let (engine, hash) = (self.engine(), blob.hash());
        engine.check_open()?;
        let Some(standing) = engine.stand(hash).await?.filter(BlobStanding::is_whole) else { return Ok(()) };
        let mut changed = engine.transfers.subscribe();
        let mut timer = Timer::start(engine, self.find_timeout);
        let answer = engine.transfers.await_answer(hash);
        engine.push_blob(hash, standing.size);
        while !answer.has_come() {
            engine.check_open()?;
            if engine.servers.sessions().is_empty() {
                return Err(Error::BlobOnlyHere { blob: hash });
            }
            tokio::select! {
                () = &mut timer => return Err(Error::BlobOnlyHere { blob: hash }),
                changed = changed.changed() => changed.map_err(|_| Error::Closed)?,
            }
        }
        drop(answer);
        self.delete_blob(blob).await
    }

    /// Removes this device's copy of a blob, whether or not anybody else has it. What refers to it stays.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn delete_blob(&self, blob: &Blob) -> Result<(), Error> {
        let engine = self.engine();
        engine.check_open()?;
        engine.replica.withdraw_blob(blob.hash());
        engine.change_blob(BlobChange::Remove { hash: blob.hash(), even_whole: true }).await?;
        engine.transfers.withdraw(&blob.hash());
        Ok(())
    }
}

impl From<UploadError> for Error {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge { bytes_max } => Self::BlobTooLarge { bytes_max },
            // Only who expects a hash hears this, and nobody here does.
            UploadError::Mismatch { found, .. } => Self::BlobNotHere { blob: found },
            UploadError::Store(error) => Self::Store(error),
        }
    }
}

impl Engine {
    async fn finish_put(&self, upload: Upload) -> Result<Blob, Error> {
        let (hash, size) = upload.finish(None).await?;
        self.push_blob(hash, size);
        Ok(Blob::new(hash, size))
    }

    fn push_blob(&self, hash: BlobHash, size: u64) {
        self.transfers.expect_push(hash);
        self.replica.push_blob(hash, size);
    }

    /// Takes up the pushes that an earlier process left.
    pub(crate) async fn resume_pushes(self: Arc<Self>) {
        let mut after = None;
        loop {
            let (engine, from) = (Arc::clone(&self), after);
            let read = move || engine.replica.store().blobs(from.as_ref(), PAGE, true);
            let page = match tokio::task::spawn_blocking(read).await {
                Ok(Ok(page)) => page,
                Ok(Err(StoreError::Closed)) | Err(_) => return,
                Ok(Err(error)) => return tracing::error!("cannot offer the stored blobs to servers: {error}"),
            };
            page.iter().for_each(|(hash, standing)| self.push_blob(*hash, standing.size));
            let Some((last, _)) = page.last() else { return };
            after = Some(*last);
        }
    }

    async fn stand(self: &Arc<Self>, hash: BlobHash) -> Result<Option<BlobStanding>, Error> {
        let engine = Arc::clone(self);
        let looking = self.runtime.spawn_blocking(move || engine.replica.store().blob(&hash));
        Ok(looking.await.map_err(|_| Error::Closed)??)
    }

    async fn change_blob(&self, change: BlobChange) -> Result<BlobStanding, Error> {
        let (tell, told) = oneshot::channel();
        // Who has given up waiting does not need to know.
        self.replica.store().change_blob(change, move |result| drop(tell.send(result)));
        Ok(told.await.map_err(|_| Error::Closed)??)
    }

    fn read_range(&self, hash: BlobHash, Range { start, end }: Range<u64>) -> Result<Bytes, Error> {
        let mut content = BytesMut::new();
        let mut at = start;
        let piece_bytes = PIECE_BYTES as u64;
        let not_here = || Error::BlobNotHere { blob: hash };
        let size = self.replica.store().blob(&hash)?.filter(BlobStanding::is_whole).ok_or_else(not_here)?.size;
        let end = end.min(size);
        while at < end {
            let offset = at - at % piece_bytes;
            let (_, piece) = self.replica.read_blob(&hash, offset)?.ok_or_else(not_here)?;
            let wanted = (at - offset) as usize..piece.len().min((end - offset) as usize);
            content.extend_from_slice(&piece[wanted]);
            at = offset + piece_bytes;
        }
        Ok(content.freeze())
    }
}

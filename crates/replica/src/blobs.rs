//! The exchange of blobs and what surrounds it: its inputs, its store calls, its deadline.
//!
//! Owns: the order of its inputs and outputs, who reads pieces. Must not: decide anything; the exchange does.
//! Next: `upload.rs`, syncline-core's `blob/exchange.rs`; docs/blobs.md.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use syncline_core::blob::exchange::{Event, Exchange, Input, Output, WriteFailure};
use syncline_core::blob::{BlobChange, BlobHash, BlobStanding};
use syncline_core::hub::{Outgoing, StoreFailure};
use syncline_core::native::NativeMessage;
use syncline_store::StoreError;
use tokio::sync::{Semaphore, mpsc};

use crate::outbox::{Queued, Waiting};
use crate::replica::{Inner, News, Replica};
use crate::upload::Upload;

/// Inputs handled before other tasks of the thread get their turn.
const TURN_INPUTS: usize = 64;

/// Whole blobs that are read back at one time.
const VERIFICATIONS_MAX: usize = 2;

/// The sending side.
#[derive(Debug, Clone)]
pub(crate) struct BlobHandle {
    inputs: mpsc::UnboundedSender<Input>,
}

impl BlobHandle {
    /// Hands an input over. An exchange that has stopped takes nothing more.
    pub(crate) fn send(&self, input: Input) {
        let _ = self.inputs.send(input);
    }
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct BlobTask {
    exchange: Exchange,
    inputs: mpsc::UnboundedReceiver<Input>,
    verifying: Arc<Semaphore>,
}

/// An exchange that does not run yet.
pub(crate) fn prepare(exchange: Exchange) -> (BlobHandle, BlobTask) {
    let (sender, inputs) = mpsc::unbounded_channel();
    let verifying = Arc::new(Semaphore::new(VERIFICATIONS_MAX));
    (BlobHandle { inputs: sender }, BlobTask { exchange, inputs, verifying })
}

impl BlobTask {
    pub(crate) async fn run(mut self, replica: Arc<Inner>) {
        let mut stop = replica.stop.subscribe();
        let mut batch = Vec::with_capacity(TURN_INPUTS);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let wake = self.exchange.poll_timeout().map(|at| replica.started + at);
            if let Some(at) = wake {
                timer.as_mut().reset(at);
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => return,
                _ = self.inputs.recv_many(&mut batch, TURN_INPUTS) => {}
                () = &mut timer, if wake.is_some() => self.exchange.handle(replica.now(), Input::Timeout),
            }
            for input in batch.drain(..) {
                self.exchange.handle(replica.now(), input);
            }
            while let Some(output) = self.exchange.poll_output() {
                self.carry_out(&replica, output);
            }
            tokio::task::consume_budget().await;
        }
    }

    fn carry_out(&self, replica: &Arc<Inner>, output: Output) {
        match output {
            Output::Send { session, message } => {
                if let Some(outbox) = replica.outbox(session) {
                    replica.metrics.blob_bytes_out.inc_by(message.weight() as u64);
                    outbox.push(Queued::Message(Outgoing::Native(NativeMessage::Blob(message)), None));
                }
            }
            Output::AwaitRoom { session } => {
                if let Some(outbox) = replica.outbox(session) {
                    outbox.await_drain(Waiting::Blobs);
                }
            }
            Output::Look { hash } => ask(replica, move |replica| {
                let standing = replica.store.blob(&hash).map_err(|error| failure_of(&error));
                Input::Found { hash, standing }
            }),
            Output::Read { session, hash, offset } => ask(replica, move |replica| {
                let piece = replica.read_blob(&hash, offset).map_err(|error| failure_of(&error));
                let piece = piece.map(|found| found.map(|(standing, data)| (standing.size, data)));
                Input::Read { session, hash, offset, piece }
            }),
            Output::Write { hash, size, offset, data, receipt } => {
                replica.metrics.blob_bytes_in.inc_by(data.len() as u64);
                replica.spend_room(data.len());
                let handle = replica.blobs.clone();
                let write = BlobChange::Write { hash, size: Some(size), offset, data };
                replica.store.change_blob(write, move |result| {
                    handle.send(Input::Written { hash, result: result.map_err(|error| write_failure_of(&error)) });
                    drop(receipt);
                });
            }
            Output::Verify { hash, size } => self.verify(replica, hash, size),
            Output::Confirm { hash, session } => {
                // The callback must not keep the store, which the replica holds.
                let weak = Arc::downgrade(replica);
                replica.store.change_blob(BlobChange::Confirm { hash }, move |result| {
                    if let Err(error) = result {
                        tracing::warn!(%hash, "that a server has a blob could not be noted: {error}");
                    }
                    if let Some(replica) = weak.upgrade() {
                        replica.tell(News::Blob(Event::OnServer { hash, session }));
                    }
                });
            }
            Output::Notify(event) => replica.tell(News::Blob(event)),
            Output::Refused { session, hash, kind } => {
                if replica.metrics.refuse_aloud(kind) {
                    tracing::warn!(session = session.0, %hash, kind, "refused: a blob");
                }
            }
            Output::Close { session, reason } => {
                if let Some(outbox) = replica.outbox(session) {
                    outbox.close(&reason);
                }
            }
        }
    }

    fn verify(&self, replica: &Arc<Inner>, hash: BlobHash, size: u64) {
        let (replica, verifying) = (Arc::clone(replica), Arc::clone(&self.verifying));
        tokio::spawn(async move {
            let Ok(_permit) = verifying.acquire().await else { return };
            let reader = Arc::clone(&replica);
            let read = tokio::task::spawn_blocking(move || reader.store.verify_blob(&hash)).await;
            let handle = replica.blobs.clone();
            let change = match read {
                Ok(Ok(true)) => BlobChange::Finish { written_as: hash, hash, size },
                // Somebody may have brought it by another way meanwhile, and was told that it is kept.
                Ok(Ok(false)) => BlobChange::Remove { hash, even_whole: false },
                Ok(Err(error)) => {
                    return handle.send(Input::Verified { hash, result: Err(failure_of(&error)) });
                }
                Err(_) => return,
            };
            replica.store.change_blob(change, move |result| {
                let result = result.map(|standing| standing.is_whole()).map_err(|error| failure_of(&error));
                handle.send(Input::Verified { hash, result });
            });
        });
    }
}

/// Asks the store off this thread.
fn ask(replica: &Arc<Inner>, question: impl FnOnce(&Inner) -> Input + Send + 'static) {
    let replica = Arc::clone(replica);
    tokio::task::spawn_blocking(move || {
        let answer = question(&replica);
        replica.blobs.send(answer);
    });
}

impl Inner {
    /// Reads a piece of a whole blob. Damage is noted, so that the blob counts as one that is not here.
    pub(crate) fn read_blob(&self, hash: &BlobHash, offset: u64) -> Result<Option<(BlobStanding, Bytes)>, StoreError> {
        let read = self.store.blob_piece(hash, offset);
        if let Err(StoreError::BlobDamaged { hash, at }) = read {
            self.metrics.blobs_damaged.inc();
            tracing::error!(%hash, at, "a blob is damaged on the disk; it is not served until somebody brings it again");
            self.store.change_blob(BlobChange::Damage { hash, at }, move |result| {
                if let Err(error) = result {
                    tracing::warn!(%hash, "the damage of a blob could not be noted: {error}");
                }
            });
        }
        read
    }
}

impl Replica {
    /// Begins to store a blob whose content is at hand, and whose hash may be known only behind its last byte.
    #[must_use]
    pub fn upload_blob(&self) -> Upload {
        Upload::begin(Arc::clone(&self.inner))
    }

    /// Asks the servers for a blob, those that are connected and those that come, until it is here or
    /// [`Replica::cancel_blob`]. What becomes of it is in the news.
    pub fn fetch_blob(&self, hash: BlobHash, size: u64) {
        self.inner.blobs.send(Input::Fetch { hash, size });
    }

    /// Ends a fetch. What has come of the blob stays, to be gone on from.
    pub fn cancel_blob(&self, hash: BlobHash) {
        self.inner.blobs.send(Input::Cancel { hash });
    }

    /// Offers a whole blob to the servers that are connected, and to those that come until one has it.
    pub fn push_blob(&self, hash: BlobHash, size: u64) {
        self.inner.blobs.send(Input::Push { hash, size });
    }

    /// Offers a blob no more.
    pub fn withdraw_blob(&self, hash: BlobHash) {
        self.inner.blobs.send(Input::Withdraw { hash });
    }

    /// Reads the piece of a whole blob that begins here; `None` if it is not whole, or ends before. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::BlobDamaged`], which is noted too, and as every read of the store.
    pub fn read_blob(&self, hash: &BlobHash, offset: u64) -> Result<Option<(BlobStanding, Bytes)>, StoreError> {
        self.inner.read_blob(hash, offset)
    }
}

fn failure_of(error: &StoreError) -> StoreFailure {
    tracing::error!("a blob can be neither read nor written: {error}");
    StoreFailure { message: error.to_string() }
}

fn write_failure_of(error: &StoreError) -> WriteFailure {
    let no_room = matches!(error, StoreError::BlobsFull | StoreError::DiskFull);
    tracing::warn!("a piece of a blob was not stored: {error}");
    WriteFailure { no_room, message: error.to_string() }
}

//! Taking documents in from files.
//!
//! Owns: what happens to each document, going on where an earlier run stopped. Must not: trust a file more than a peer.
//! Next: `source.rs`; docs/operations.md, "Moving in and out".
//!
//! A document goes through the engine as if a peer had brought it: every change is checked, and durable before it counts.
//! What is there already is not stored again, so an import can be repeated; a list beside the store spares it the work.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use syncline_core::change::Change;
use syncline_core::file::{self, Contents};
use syncline_core::id::DocumentId;
use syncline_core::limits::Limits;
use syncline_core::loader::Loader;
use syncline_replica::{Options, Replica};
use tokio::task::JoinHandle;

use super::source::{self, Found, Layout, SourceError};
use crate::api::Tickets;
use crate::server::{ServerError, open_store};

/// Documents under way at one time.
const UNDER_WAY: usize = 32;

/// Name of the list of documents that are taken in, in the data directory, until the import is complete.
const DONE: &str = "import.done";

/// An import into a store.
#[derive(Debug)]
pub struct Import {
    found: Found,
    strange: u64,
    done: BTreeSet<DocumentId>,
    list: PathBuf,
}

/// What came of an import.
#[derive(Debug, Default)]
pub struct Imported {
    /// Documents that are in the store now.
    pub documents: u64,
    /// Of these, those that an earlier run took in.
    pub earlier: u64,
    /// Files and directories that are no documents.
    pub strange: u64,
    /// Documents that were not taken, and why.
    pub refused: Vec<(DocumentId, String)>,
}

impl Import {
    /// Looks what there is to take in.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn prepare(source: &Path, layout: Layout, data: &Path) -> Result<Self, SourceError> {
        let (found, strange) = layout.find(source)?;
        let list = data.join(DONE);
        let done = fs::read_to_string(&list).unwrap_or_default();
        let done = done.lines().filter_map(|line| line.parse().ok()).filter(|id| found.contains_key(id)).collect();
        Ok(Self { found, strange, done, list })
    }

    /// How many documents there are to take in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Takes them in; `progress` is told after each.
    ///
    /// # Errors
    /// [`ServerError::Store`] when the store cannot be opened, as when a server uses it.
    pub async fn run(
        self,
        data: &Path,
        loader: Arc<dyn Loader>,
        mut progress: impl FnMut(),
    ) -> Result<Imported, ServerError> {
        let intake = Intake::open(data, Arc::clone(&loader)).await?;
        let mut imported = Imported { strange: self.strange, ..Imported::default() };
        let Self { found, done, list, .. } = self;
        let (earlier, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|(id, _)| done.contains(id));
        imported.earlier = earlier.len() as u64;
        imported.documents = imported.earlier;
        earlier.iter().for_each(|_| progress());
        let mut list_of_done = OpenOptions::new().append(true).create(true).open(&list).ok();
        {
            let taking = stream::iter(found).map(|(id, files)| {
                let (intake, loader) = (&intake, Arc::clone(&loader));
                async move {
                    let taken = intake.take_files(id.clone(), files, loader).await;
                    (id, taken)
                }
            });
            let mut taking = std::pin::pin!(taking.buffer_unordered(UNDER_WAY));
            while let Some((id, taken)) = taking.next().await {
                match taken {
                    Ok(()) => {
                        imported.documents += 1;
                        // Only the work of a repetition depends on it.
                        let _ = list_of_done.as_mut().map(|list| writeln!(list, "{id}"));
                    }
                    Err(reason) => imported.refused.push((id, reason)),
                }
                progress();
            }
        }
        intake.close().await;
        let _ = fs::remove_file(&list);
        Ok(imported)
    }
}

/// A store that takes documents in through the engine, without a listener.
pub(super) struct Intake {
    replica: Replica,
    tickets: Arc<Tickets>,
    hearing: JoinHandle<()>,
}

impl Intake {
    pub(super) async fn open(data: &Path, loader: Arc<dyn Loader>) -> Result<Self, ServerError> {
        let options = syncline_store::Options { loader, ..syncline_store::Options::default() };
        let store = open_store(data.to_owned(), options).await?;
        let (replica, news) = Replica::start(store, Options::default());
        let tickets = Arc::new(Tickets::default());
        let heard = Arc::clone(&tickets);
        let hearing = tokio::spawn(async move { heard.hear(news, |_| {}).await });
        Ok(Self { replica, tickets, hearing })
    }

    pub(super) fn limits(&self) -> Arc<Limits> {
        self.replica.limits()
    }

    /// Takes changes in; they are durable afterwards.
    pub(super) async fn take(&self, id: DocumentId, changes: Vec<Change>) -> Result<(), String> {
        self.tickets.wait(|| self.replica.change(id, changes)).await.map_err(|error| error.to_string())
    }

    async fn take_files(&self, id: DocumentId, files: Vec<PathBuf>, loader: Arc<dyn Loader>) -> Result<(), String> {
        let limits = self.limits().clone();
        let reading = tokio::task::spawn_blocking(move || contents(&files, &*loader, &limits));
        let Contents { changes, left_out } = reading.await.map_err(|panic| panic.to_string())??;
        if changes.is_empty() {
            return Err("its files hold no change".to_owned());
        }
        if left_out > 0 {
            tracing::warn!(document = %id, left_out, "changes are left out: what they stand on is in no file");
        }
        self.take(id, changes).await
    }

    pub(super) async fn close(self) {
        self.replica.stop().await;
        self.hearing.abort();
    }
}

fn contents(files: &[PathBuf], loader: &dyn Loader, limits: &Limits) -> Result<Contents, String> {
    let bytes = source::read(files).map_err(|error| error.to_string())?;
    file::read(&Bytes::from(bytes), limits, loader).map_err(|error| error.to_string())
}

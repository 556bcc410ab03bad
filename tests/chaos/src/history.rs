//! What happened, in the order in which it became known.
//!
//! Owns: the events and their form as JSON lines. Must not: judge; `checker.rs` does.
//! Next: `checker.rs`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use automerge::ChangeHash;
use serde_json::{Value, json};

/// A client, by its number.
pub type ClientId = usize;

/// A document, by its number in the campaign.
pub type DocumentId = usize;

/// One line of data directories: a server, its restarts, and what was restored into it.
pub type Lineage = usize;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client made a change and began to offer it.
    Invoke {
        /// Who.
        client: ClientId,
        /// In which document.
        document: DocumentId,
        /// The change.
        hash: ChangeHash,
    },
    /// A server's heads included the change: it has said that it keeps it.
    Ok {
        /// Who was told.
        client: ClientId,
        /// Which server said so.
        lineage: Lineage,
        /// Of which document.
        document: DocumentId,
        /// The change.
        hash: ChangeHash,
    },
    /// A client lost its connection, or was refused. What it has not been told about may or may not be kept.
    Fail {
        /// Who.
        client: ClientId,
        /// What it was told, if anything.
        why: String,
    },
    /// A client was told that its token has expired: what it makes from here on may not be kept.
    Expired {
        /// Who.
        client: ClientId,
    },
    /// No connection of a token that had expired is left; whoever comes from here on may write.
    Renewed,
    /// A client that had nothing fetched a document: every change that came, in order, with repetitions.
    Read {
        /// From which server.
        lineage: Lineage,
        /// Which document.
        document: DocumentId,
        /// What came.
        hashes: Vec<ChangeHash>,
        /// The heads that the server named.
        heads: Vec<ChangeHash>,
    },
    /// What a client holds after everything was mended and has come to rest.
    Rest {
        /// Who.
        client: ClientId,
        /// Which document.
        document: DocumentId,
        /// Its heads.
        heads: Vec<ChangeHash>,
        /// Number of its changes.
        changes: usize,
    },
    /// A copy of a server's directory was taken while nothing ran in it.
    Copied {
        /// Of which server.
        lineage: Lineage,
    },
    /// The last copy was put in the place of the server's directory.
    Restored {
        /// Of which server.
        lineage: Lineage,
    },
    /// The last copy was given to another server.
    Cloned {
        /// Whose copy.
        from: Lineage,
        /// The new server.
        to: Lineage,
    },
    /// Something was done to the server, its disk or a link, or seen there.
    Fault {
        /// What.
        what: String,
    },
    /// `syncline-server check` ran on the directory of a dead server.
    Check {
        /// Whose.
        lineage: Lineage,
        /// What it found; nothing if the directory is clean.
        faults: Option<String>,
    },
    /// Everything was mended and everybody was given time to agree: what is seen from here on must be all there is.
    Settled,
    /// The documents so far are done with.
    Epoch,
}

/// A history in the making; clones share it.
#[derive(Debug, Clone)]
pub struct History {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    events: Vec<(u64, Event)>,
    file: Option<BufWriter<File>>,
    written: u64,
    acknowledged: usize,
    expired: usize,
}

impl History {
    /// An empty history, also written to a file if one is given.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(file: Option<&Path>) -> std::io::Result<Self> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        let inner =
            Inner { started: Instant::now(), events: Vec::new(), file, written: 0, acknowledged: 0, expired: 0 };
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Adds an event.
    pub fn add(&self, event: Event) {
        let mut inner = self.lock();
        let micros = inner.started.elapsed().as_micros() as u64;
        let (number, line) = (inner.written, inner.file.is_some().then(|| event.to_json()));
        if let (Some(file), Some(mut line)) = (&mut inner.file, line) {
            line["n"] = json!(number);
            line["us"] = json!(micros);
            // A full disk under the history is found when it is closed; the verdict does not depend on the file.
            let _ = writeln!(file, "{line}");
        }
        inner.written += 1;
        inner.acknowledged += usize::from(matches!(event, Event::Ok { .. }));
        inner.expired += usize::from(matches!(event, Event::Expired { .. }));
        inner.events.push((micros, event));
    }

    /// Takes out what has happened since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        self.lock().events.drain(..).map(|(_, event)| event).collect()
    }

    /// Number of acknowledgements so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.lock().acknowledged
    }

    /// How often a client was told that its token has expired.
    #[must_use]
    pub fn expired(&self) -> usize {
        self.lock().expired
    }

    /// Finishes the file.
    ///
    /// # Errors
    /// When not all of it could be written.
    pub fn finish(&self) -> std::io::Result<()> {
        self.lock().file.as_mut().map_or(Ok(()), Write::flush)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Event {
    /// The event as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let texts = |hashes: &[ChangeHash]| hashes.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self {
            Self::Invoke { client, document, hash } => {
                json!({"type": "invoke", "client": client, "document": document, "hash": hash.to_string()})
            }
            Self::Ok { client, lineage, document, hash } => json!({
                "type": "ok", "client": client, "server": lineage, "document": document, "hash": hash.to_string()
            }),
            Self::Fail { client, why } => json!({"type": "fail", "client": client, "why": why}),
            Self::Expired { client } => json!({"type": "expired", "client": client}),
            Self::Renewed => json!({"type": "renewed"}),
            Self::Read { lineage, document, hashes, heads } => json!({
                "type": "read", "server": lineage, "document": document, "hashes": texts(hashes), "heads": texts(heads)
            }),
            Self::Rest { client, document, heads, changes } => json!({
                "type": "rest", "client": client, "document": document, "heads": texts(heads), "changes": changes
            }),
            Self::Copied { lineage } => json!({"type": "copied", "server": lineage}),
            Self::Restored { lineage } => json!({"type": "restored", "server": lineage}),
            Self::Cloned { from, to } => json!({"type": "cloned", "server": from, "to": to}),
            Self::Fault { what } => json!({"type": "fault", "what": what}),
            Self::Check { lineage, faults } => json!({"type": "check", "server": lineage, "faults": faults}),
            Self::Settled => json!({"type": "settled"}),
            Self::Epoch => json!({"type": "epoch"}),
        }
    }
}

//! What hubs keep of a connection, and what the hubs that serve one connection share.
//!
//! Owns: the window of what was sent, what is owed once the peer reads again, the count of documents that it opened.
//! Must not: know what is in a message. Next: `hub.rs`; docs/architecture.md "Memory".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{PeerInfo, PeerMessage};
use crate::access::Permissions;
use crate::id::{DocumentId, StorageId};

/// A peer's connection, as one hub sees it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: PeerInfo,
    /// Documents at which the peer is, whoever spoke first.
    pub(super) documents: BTreeSet<u32>,
    pub(super) opened: OpenedDocuments,
    /// What was decided elsewhere about documents that it may read.
    pub(super) decided: BTreeMap<DocumentId, Permissions>,
    /// What it said about documents of which that is asked, in order.
    pub(super) undecided: BTreeMap<DocumentId, Vec<(PeerMessage, Receipt)>>,
    /// Messages and bytes sent since the connection's queue was last known to be empty.
    pub(super) queued_messages: usize,
    pub(super) queued_bytes: usize,
    /// The queue is as long as it may be: nothing but answers that cannot be derived later goes out.
    pub(super) congested: bool,
    /// Documents that have something for this peer once it reads again.
    pub(super) dirty: BTreeSet<u32>,
    /// Documents and stores whose heads the peer has not heard of, and is to hear of once it reads again.
    pub(super) dirty_heads: BTreeSet<(u32, StorageId)>,
}

impl Session {
    pub(super) fn new(peer: PeerInfo, opened: OpenedDocuments) -> Self {
        Self {
            peer,
            documents: BTreeSet::new(),
            opened,
            decided: BTreeMap::new(),
            undecided: BTreeMap::new(),
            queued_messages: 0,
            queued_bytes: 0,
            congested: false,
            dirty: BTreeSet::new(),
            dirty_heads: BTreeSet::new(),
        }
    }
}

/// How many documents a peer has opened on one connection, over all hubs that serve the connection.
///
/// Documents that we spoke of first are not counted: the peer did not choose their number.
#[derive(Debug, Clone, Default)]
pub struct OpenedDocuments(Arc<AtomicUsize>);

impl OpenedDocuments {
    /// Counts one more, unless there are `documents_max` already.
    pub(super) fn open_one(&self, documents_max: usize) -> bool {
        let one_more = |opened: usize| (opened < documents_max).then_some(opened + 1);
        // Nothing else is ordered by this count.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }
}

/// Something that travels with a message and is dropped, with all clones that the shell gave away, once the message is
/// handled: when its changes are durable or refused and what it said is taken in, or when it is given up.
///
/// The shell uses it to bound what a connection has under way. The hub never looks into it.
#[derive(Clone, Default)]
pub struct Receipt(Option<Arc<dyn Send + Sync>>);

impl Receipt {
    /// A receipt that holds on to a value.
    #[must_use]
    pub fn new(held: Arc<impl Send + Sync + 'static>) -> Self {
        Self(Some(held))
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipt").field(&self.0.is_some()).finish()
    }
}

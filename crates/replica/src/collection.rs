//! The collection and what surrounds it: its inputs, the scan of the store, its deadline.
//!
//! Owns: the order of its inputs and outputs. Must not: decide anything; the collection does.
//! Next: syncline-core's `collection.rs`; docs/protocol.md §9, "Rounds".

use std::sync::Arc;
use std::time::Duration;

use syncline_core::collection::{Collection, Event, Gathering, Input, Members, Output, Scope, SetName, documents_key};
use syncline_core::hub::Outgoing;
use syncline_core::id::{DocumentId, SessionId};
use syncline_core::native::NativeMessage;
use syncline_core::reconcile::SetKey;
use tokio::sync::mpsc;

use crate::outbox::Queued;
use crate::replica::{Inner, News, Replica};

/// Inputs handled before other tasks of the thread get their turn.
const TURN_INPUTS: usize = 256;

/// The sending side.
#[derive(Debug, Clone)]
pub(crate) struct CollectionHandle {
    inputs: mpsc::UnboundedSender<Input>,
}

impl CollectionHandle {
    /// Hands an input over. A collection that has stopped takes nothing more.
    pub(crate) fn send(&self, input: Input) {
        let _ = self.inputs.send(input);
    }
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct CollectionTask {
    collection: Collection,
    inputs: mpsc::UnboundedReceiver<Input>,
}

/// A collection that does not run yet, with the set that every replica has.
pub(crate) fn prepare(collection: Collection) -> (CollectionHandle, CollectionTask) {
    let (sender, inputs) = mpsc::unbounded_channel();
    let handle = CollectionHandle { inputs: sender };
    handle.send(Input::AddSet { key: documents_key() });
    (handle, CollectionTask { collection, inputs })
}

impl CollectionTask {
    pub(crate) async fn run(mut self, replica: Arc<Inner>) {
        let mut stop = replica.stop.subscribe();
        let mut batch = Vec::with_capacity(TURN_INPUTS);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let wake = self.collection.poll_timeout().map(|at| replica.started + at);
            if let Some(at) = wake {
                timer.as_mut().reset(at);
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => return,
                _ = self.inputs.recv_many(&mut batch, TURN_INPUTS) => {}
                () = &mut timer, if wake.is_some() => self.collection.handle(replica.now(), Input::Timeout),
            }
            for input in batch.drain(..) {
                self.collection.handle(replica.now(), input);
            }
            while let Some(output) = self.collection.poll_output() {
                carry_out(&replica, output);
            }
            tokio::task::consume_budget().await;
        }
    }
}

fn carry_out(replica: &Arc<Inner>, output: Output) {
    match output {
        Output::Read { set, key, hash_key } => read(replica, set, key, hash_key),
        Output::Send { session, message } => {
            if let Some(outbox) = replica.outbox(session) {
                let message = NativeMessage::Collection(message);
                replica.metrics.rounds.note_sent(&message);
                outbox.push(Queued::Message(Outgoing::Native(message), None));
            }
        }
        Output::Notify(event) => tell(replica, event),
        Output::Refused { session, kind, words } => {
            if replica.metrics.refuse_aloud(kind) {
                tracing::warn!(session = session.0, kind, "refused: {words}");
            }
        }
    }
}

fn tell(replica: &Arc<Inner>, event: Event) {
    let Event::Compared { report, .. } = &event;
    replica.metrics.rounds.note_over(report);
    match replica.mesh() {
        Some(mesh) if mesh.compares(&event) => mesh.compared(replica, event),
        _ => replica.tell(News::Collection(event)),
    }
}

/// Makes a set of what the store holds, off this thread.
fn read(replica: &Arc<Inner>, set: SetName, key: SetKey, hash_key: u64) {
    let replica = Arc::clone(replica);
    tokio::task::spawn_blocking(move || {
        let mut gathering = Gathering::new(key, hash_key);
        let input = match replica.store.states(|page| gathering.add(page)) {
            Ok(()) => {
                let members: Members = gathering.finish();
                tracing::debug!(documents = members.elements().len(), "the set of documents is read");
                Input::Read { set, members: Box::new(members) }
            }
            Err(error) => {
                tracing::error!("the documents to be compared with peers cannot be read: {error}");
                Input::NotRead { set }
            }
        };
        replica.collection.send(input);
    });
}

impl Replica {
    /// Compares the documents of a set with a peer's, at any time and as often as the peer's limits allow. What differs is in
    /// the news; nothing is synced because of it until [`Replica::initiate`]. `names`: also what is not here at all, which a
    /// peer only tells where it has allowed that.
    pub fn compare(&self, session: SessionId, set: SetName, names: bool) {
        self.inner.collection.send(Input::Compare { session, set, names });
    }

    /// Keeps a set of all documents under another key than that which everybody knows, as the members of a mesh do.
    pub fn add_set(&self, key: SetKey) -> SetName {
        let name = SetName::of(&key);
        self.inner.collection.send(Input::AddSet { key });
        name
    }

    /// Decides what a peer may find out by the rounds that it begins. Unless this is called, one that dialled us may compare
    /// its own documents with ours, and one that we dialled nothing.
    pub fn allow(&self, session: SessionId, set: SetName, scope: Scope) {
        self.inner.collection.send(Input::Allow { session, set, scope });
    }

    /// Speaks with a peer about documents, such as a round has found.
    pub fn greet(&self, session: SessionId, documents: &[DocumentId]) {
        documents.iter().for_each(|document| self.initiate(session, document));
    }
}

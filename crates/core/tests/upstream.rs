//! A hub towards a server that it dialled: what it says first, and what it tells its application.
//!
//! Owns: a server played by hand. Must not: know how the hub keeps what it was told.
//! Next: `src/hub.rs`.

use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ROOT};
use bytes::Bytes;
use syncline_core::access::Access;
use syncline_core::change::Change;
use syncline_core::clock::Stamp;
use syncline_core::hub::{
    Event, Hub, Input, Load, Loaded, Now, OpenedDocuments, Outgoing, Output, PeerInfo, PeerMessage, Receipt, Role,
    SyncMessage,
};
use syncline_core::id::{DocumentId, PeerId, SessionId};
use syncline_core::limits::Limits;
use syncline_core::storage::Summary;
use syncline_core::sync::Statement;
use syncline_core::sync::message::Message;

const SERVER: SessionId = SessionId(1);

/// A hub whose store is empty at first and answers at once, unless told to hold commits back.
struct Client {
    hub: Hub,
    document: DocumentId,
    holds_commits: bool,
    held: Vec<u64>,
    sent: Vec<Outgoing>,
    told: Vec<Event>,
}

impl Client {
    fn connected() -> Self {
        let document = DocumentId::from_bytes(&[7; 16]).expect("16 bytes");
        let hub = Hub::new(Limits::default(), [3; 32]);
        let mut client =
            Self { hub, document, holds_commits: false, held: Vec::new(), sent: Vec::new(), told: Vec::new() };
        let peer = PeerInfo {
            peer: PeerId::new("server").expect("a name"),
            storage: None,
            role: Role::Upstream,
            native: 0,
            access: Access::full(),
        };
        client.input(Input::Connected { session: SERVER, peer, opened: OpenedDocuments::default() });
        client
    }

    fn input(&mut self, input: Input) {
        let now = Now { mono: Duration::from_secs(1), wall_ms: 1_000 };
        self.hub.handle(now, input);
        while let Some(output) = self.hub.poll_output() {
            let document = self.document.clone();
            match output {
                Output::Persist { ticket, .. } if self.holds_commits => self.held.push(ticket),
                Output::Persist { ticket, .. } => self.hub.handle(now, Input::Persisted { document, ticket }),
                Output::Load { what, .. } => {
                    assert_eq!(what, Load::Summary, "everything else is in memory here");
                    self.hub.handle(now, Input::Loaded { document, loaded: Loaded::Summary(None.into()) });
                }
                Output::Send { message, .. } => self.sent.push(message),
                Output::Notify(event) => self.told.push(event),
                Output::Mesh(event) => unreachable!("nobody is in a mesh here: {event:?}"),
                Output::SetLife { .. } | Output::SetLocalOnly { .. } | Output::Replace { .. } => {
                    unreachable!("nobody deletes, withholds or rewrites here")
                }
                Output::Decide { .. } => unreachable!("everybody may do everything here"),
                Output::State { .. } | Output::AwaitDrain { .. } | Output::Refused { .. } | Output::Close { .. } => {}
            }
        }
    }

    fn watch(&mut self) {
        self.input(Input::Watch { document: self.document.clone() });
    }

    fn change(&mut self, ticket: u64, changes: Vec<Change>) {
        self.input(Input::Local { document: self.document.clone(), changes, ticket });
    }

    fn server_has_nothing(&mut self) {
        let document = self.document.clone();
        self.input(Input::Received {
            session: SERVER,
            message: PeerMessage::DocUnavailable { document },
            receipt: Receipt::default(),
        });
    }

    fn server_says(&mut self, heads: Vec<ChangeHash>) {
        let statement = Statement { heads, need: Vec::new(), have: Vec::new(), flags: None, with_changes: false };
        let document = self.document.clone();
        let message = SyncMessage { document, request: false, statement, changes: Vec::new(), refused: Vec::new() };
        self.input(Input::Received {
            session: SERVER,
            message: PeerMessage::Sync(Box::new(message)),
            receipt: Receipt::default(),
        });
    }

    /// Requests sent, and changes sent, since last asked.
    fn take_sent(&mut self) -> (usize, usize) {
        let (mut requests, mut changes) = (0, 0);
        for message in self.sent.drain(..) {
            match message {
                Outgoing::Request { .. } => requests += 1,
                Outgoing::Sync { data, .. } => {
                    changes += Message::decode(data, &Limits::default()).expect("own message").changes.len();
                }
                other @ (Outgoing::DocUnavailable { .. }
                | Outgoing::Ephemeral { .. }
                | Outgoing::RemoteHeads { .. }
                | Outgoing::Native(_)
                | Outgoing::Error { .. }) => panic!("unexpected: {other:?}"),
            }
        }
        (requests, changes)
    }
}

/// Changes that build on each other.
fn chain(length: usize) -> Vec<Change> {
    let mut document = AutoCommit::new();
    let mut changes = Vec::new();
    for value in 0..length {
        document.put(ROOT, "value", value as u64).expect("put");
        let change = document.get_last_local_change().expect("just made");
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        changes.push(Change::decode(bytes, &Limits::default()).expect("automerge's own"));
    }
    changes
}

#[test]
fn a_document_made_while_connected_goes_up_once_it_is_durable() {
    let mut client = Client::connected();
    client.holds_commits = true;
    client.watch();
    client.change(1, chain(1));
    assert_eq!(client.take_sent(), (1, 0), "nothing that is not durable is shown");
    client.server_has_nothing();
    assert_eq!(client.take_sent(), (0, 0));
    let ticket = client.held.remove(0);
    client.input(Input::Persisted { document: client.document.clone(), ticket });
    assert_eq!(client.take_sent(), (0, 1));
}

#[test]
fn a_document_that_is_durable_before_the_answer_goes_up_with_the_answer() {
    let mut client = Client::connected();
    client.watch();
    client.change(1, chain(1));
    client.take_sent();
    client.server_has_nothing();
    assert_eq!(client.take_sent(), (0, 1));
}

#[test]
fn watching_anew_asks_a_server_anew_that_had_nothing() {
    let mut client = Client::connected();
    client.watch();
    assert_eq!(client.take_sent(), (1, 0));
    client.watch();
    assert_eq!(client.take_sent(), (0, 0), "the first question is open");
    client.server_has_nothing();
    client.input(Input::Unwatch { document: client.document.clone() });
    client.watch();
    assert_eq!(client.take_sent(), (1, 0));
}

#[test]
fn who_watches_late_hears_what_the_server_said_before() {
    let mut client = Client::connected();
    let changes = chain(1);
    let heads = vec![changes[0].hash];
    client.change(1, changes);
    client.server_has_nothing();
    client.server_says(heads.clone());
    client.told.clear();
    client.watch();
    let (document, session) = (client.document.clone(), SERVER);
    assert_eq!(client.told, [Event::PeerState { document, session, heads, has_all: true }]);
}

#[test]
fn a_local_change_whose_predecessor_failed_is_not_called_saved() {
    let mut client = Client::connected();
    client.holds_commits = true;
    let changes = chain(2);
    client.change(1, vec![changes[0].clone()]);
    let (document, ticket) = (client.document.clone(), client.held.remove(0));
    let failure = syncline_core::hub::StoreFailure { message: "full".into() };
    client.input(Input::PersistFailed { document, ticket, failure });
    client.told.clear();
    client.change(2, vec![changes[1].clone()]);
    assert!(matches!(client.told[..], [Event::NotSaved { ticket: 2, .. }]), "{:?}", client.told);
    // Handed over again in order, both are saved, and only once they are durable.
    client.change(3, vec![changes[0].clone()]);
    client.change(4, vec![changes[1].clone()]);
    assert_eq!(client.told.len(), 1);
    for ticket in std::mem::take(&mut client.held) {
        client.input(Input::Persisted { document: client.document.clone(), ticket });
    }
    let saved = |event: &Event| matches!(event, Event::Saved { .. });
    assert_eq!(client.told.iter().filter(|event| saved(event)).count(), 2);
}

/// Offering ten thousand documents to a server must not load ten thousand graphs.
#[test]
fn a_stored_document_is_announced_without_reading_its_changes() {
    let mut hub = Hub::new(Limits::default(), [3; 32]);
    let now = Now { mono: Duration::from_secs(1), wall_ms: 1_000 };
    let document = DocumentId::from_bytes(&[7; 16]).expect("16 bytes");
    let peer = PeerInfo {
        peer: PeerId::new("server").expect("a name"),
        storage: None,
        role: Role::Upstream,
        native: 0,
        access: Access::full(),
    };
    hub.handle(now, Input::Connected { session: SERVER, peer, opened: OpenedDocuments::default() });
    hub.handle(now, Input::Initiate { session: SERVER, document: document.clone() });
    assert!(matches!(hub.poll_output(), Some(Output::Load { what: Load::Summary, .. })));
    let summary = Summary {
        heads: vec![ChangeHash([1; 32])],
        changes: 1,
        bytes: 100,
        last_stamp: Stamp::ZERO,
        authored: syncline_core::authored::Authored::NEVER,
        snapshot_changes: 0,
        snapshot_bytes: 0,
    };
    hub.handle(now, Input::Loaded { document, loaded: Loaded::Summary(Some(summary).into()) });
    assert!(matches!(hub.poll_output(), Some(Output::Send { message: Outgoing::Sync { .. }, .. })));
    assert!(hub.poll_output().is_none());
}

//! Exchanges that speak with each other, or with a peer played by hand, over stores in memory.
//!
//! Owns: a store that says yes, queues that are written when a test says so. Must not: test message bytes.
//! Next: `../exchange.rs`; the replica crate for the real shell.

use std::collections::BTreeMap;

use super::*;
use crate::blob::{BlobState, PIECE_BYTES};

const PIECE: u64 = PIECE_BYTES as u64;
const SERVER: SessionId = SessionId(100);

fn content(pieces: u64, rest: usize) -> Bytes {
    let length = (pieces * PIECE) as usize + rest;
    Bytes::from_iter((0..length).map(|at| (at / 7 + at / PIECE_BYTES * 13) as u8))
}

fn limits() -> Limits {
    Limits { blob_bytes_max: 40 * PIECE, blob_window_bytes: 4 * PIECE, blob_transfers_max: 2, ..Limits::default() }
}

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), wall_ms: 0 }
}

/// An exchange over a store in memory.
struct Node {
    exchange: Exchange,
    stored: BTreeMap<BlobHash, (u64, Vec<u8>, bool)>,
    room: bool,
    full: bool,
    /// Writes are not answered.
    slow: bool,
    events: Vec<Event>,
    refused: Vec<&'static str>,
    closed: Vec<SessionId>,
    /// Messages to peers played by hand, and connections that wait for room.
    said: Vec<(SessionId, BlobMessage)>,
    awaiting: Vec<SessionId>,
    written: u64,
}

impl Node {
    fn new() -> Self {
        Self {
            exchange: Exchange::new(limits()),
            stored: BTreeMap::new(),
            room: true,
            full: false,
            slow: false,
            events: Vec::new(),
            refused: Vec::new(),
            closed: Vec::new(),
            said: Vec::new(),
            awaiting: Vec::new(),
            written: 0,
        }
    }

    fn with(content: &Bytes) -> Self {
        let mut node = Self::new();
        node.stored.insert(BlobHash::of(content), (content.len() as u64, content.to_vec(), true));
        node
    }

    fn standing(&self, hash: &BlobHash) -> Option<BlobStanding> {
        let (size, bytes, whole) = self.stored.get(hash)?;
        let state = if *whole { BlobState::Whole } else { BlobState::Partial };
        Some(BlobStanding { size: *size, held: bytes.len() as u64, state, confirmed: false })
    }

    fn handle(&mut self, input: Input) {
        self.handle_at(0, input);
    }

    fn handle_at(&mut self, seconds: u64, input: Input) {
        self.exchange.handle(at(seconds), input);
        while let Some(output) = self.exchange.poll_output() {
            if let Some(answer) = self.carry_out(output) {
                self.exchange.handle(at(seconds), answer);
            }
        }
    }

    fn carry_out(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send { session, message } => self.said.push((session, message)),
            Output::AwaitRoom { session } if self.room => return Some(Input::Room { session }),
            Output::AwaitRoom { session } => self.awaiting.push(session),
            Output::Look { hash } => return Some(Input::Found { hash, standing: Ok(self.standing(&hash)) }),
            Output::Read { session, hash, offset } => {
                let whole = self.stored.get(&hash).filter(|(_, _, whole)| *whole);
                let piece = whole.map(|(size, bytes, _)| {
                    let from = offset as usize;
                    (*size, Bytes::copy_from_slice(&bytes[from..bytes.len().min(from + PIECE_BYTES)]))
                });
                return Some(Input::Read { session, hash, offset, piece: Ok(piece) });
            }
            Output::Write { data, .. } if self.slow => self.written += data.len() as u64,
            Output::Write { hash, size, offset, data, .. } => {
                if self.full {
                    let failure = WriteFailure { no_room: true, message: "full".into() };
                    return Some(Input::Written { hash, result: Err(failure) });
                }
                let entry = self.stored.entry(hash).or_insert((size, Vec::new(), false));
                if offset == 0 && entry.0 != size && !entry.2 {
                    *entry = (size, Vec::new(), false);
                }
                if entry.1.len() as u64 == offset {
                    entry.1.extend_from_slice(&data);
                    self.written += data.len() as u64;
                }
                let standing = self.standing(&hash).expect("just written");
                return Some(Input::Written { hash, result: Ok(standing) });
            }
            Output::Verify { hash, .. } => {
                let whole = BlobHash::of(&self.stored[&hash].1) == hash;
                if whole {
                    self.stored.get_mut(&hash).expect("there").2 = true;
                } else {
                    self.stored.remove(&hash);
                }
                return Some(Input::Verified { hash, result: Ok(whole) });
            }
            Output::Confirm { hash, session } => self.events.push(Event::OnServer { hash, session }),
            Output::Notify(event) => self.events.push(event),
            Output::Refused { kind, .. } => self.refused.push(kind),
            Output::Close { session, .. } => self.closed.push(session),
        }
        None
    }

    fn connect(&mut self, session: SessionId, upstream: bool) {
        self.handle(Input::Connected { session, upstream });
    }

    fn hear(&mut self, session: SessionId, message: BlobMessage) {
        self.handle(Input::Received { session, message, receipt: Receipt::default() });
    }

    fn said(&mut self) -> Vec<BlobMessage> {
        std::mem::take(&mut self.said).into_iter().map(|(_, message)| message).collect()
    }

    /// Sends the pieces that the last want asks for.
    fn answer(&mut self, session: SessionId, content: &Bytes) -> usize {
        let said = self.said();
        let wants = said.iter().filter_map(|message| match message {
            BlobMessage::Want { hash, from, to } => Some((*hash, *from, *to)),
            _ => None,
        });
        let mut sent = 0;
        for (hash, from, to) in wants.collect::<Vec<_>>() {
            for offset in (from..to).step_by(PIECE_BYTES) {
                let data = content.slice(offset as usize..content.len().min(offset as usize + PIECE_BYTES));
                self.hear(session, BlobMessage::Piece { hash, size: content.len() as u64, offset, data });
                sent += 1;
            }
        }
        sent
    }
}

/// Lets a client, session 1 at the server, and a server speak until both are silent.
fn converse(client: &mut Node, session: SessionId, server: &mut Node) -> usize {
    let mut messages = 0;
    loop {
        let to_server: Vec<_> = std::mem::take(&mut client.said);
        let mine = |to: &SessionId| *to == session;
        let to_client: Vec<_> = server.said.iter().filter(|(to, _)| mine(to)).cloned().collect();
        server.said.retain(|(to, _)| !mine(to));
        if to_server.is_empty() && to_client.is_empty() {
            return messages;
        }
        messages += to_server.len() + to_client.len();
        to_server.into_iter().for_each(|(_, message)| server.hear(session, message));
        to_client.into_iter().for_each(|(_, message)| client.hear(SERVER, message));
    }
}

fn pair(client: Node, server: Node) -> (Node, Node) {
    let (mut client, mut server) = (client, server);
    server.connect(SessionId(1), false);
    client.connect(SERVER, true);
    (client, server)
}

#[test]
fn a_push_is_answered_when_the_blob_is_whole_and_a_fetch_brings_it_back() {
    for content in [content(0, 0), content(0, 1), content(1, 0), content(9, 5)] {
        let (hash, size) = (BlobHash::of(&content), content.len() as u64);
        let (mut author, mut server) = pair(Node::with(&content), Node::new());
        author.handle(Input::Push { hash, size });
        converse(&mut author, SessionId(1), &mut server);
        assert!(server.standing(&hash).expect("pushed").is_whole());
        assert_eq!(author.events.last(), Some(&Event::OnServer { hash, session: SERVER }));
        assert_eq!(server.written, size);

        let (mut reader, mut server) = pair(Node::new(), server);
        reader.handle(Input::Fetch { hash, size });
        converse(&mut reader, SessionId(1), &mut server);
        assert_eq!(reader.events.last(), Some(&Event::Here { hash }));
        assert_eq!(reader.stored[&hash].1, content);
        assert!(reader.refused.is_empty() && server.refused.is_empty());
        assert!(reader.exchange.incoming.is_empty() && server.exchange.incoming.is_empty());
    }
}

#[test]
fn what_was_stored_before_the_connection_ended_is_not_sent_again() {
    let content = content(20, 1);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let (mut author, mut server) = pair(Node::with(&content), Node::new());
    author.handle(Input::Push { hash, size });
    server.hear(SessionId(1), author.said.remove(0).1);
    author.hear(SERVER, server.said.remove(0).1);
    let pieces: Vec<_> = std::mem::take(&mut author.said);
    assert_eq!(pieces.len(), 4, "as many as were asked for");
    pieces.into_iter().take(3).for_each(|(_, piece)| server.hear(SessionId(1), piece));
    server.handle(Input::Disconnected { session: SessionId(1) });
    author.handle(Input::Disconnected { session: SERVER });
    server.said.clear();
    assert_eq!(server.standing(&hash).expect("begun").held, 3 * PIECE);
    assert!(server.exchange.incoming.is_empty(), "nothing of it stays in memory");

    server.connect(SessionId(2), false);
    author.connect(SERVER, true);
    converse(&mut author, SessionId(2), &mut server);
    assert!(server.standing(&hash).expect("pushed").is_whole());
    assert_eq!(server.written, size, "each byte was stored once");
    let sent = author.events.iter().find(|event| matches!(event, Event::Sent { .. })).expect("progress");
    assert_eq!(*sent, Event::Sent { hash, session: SERVER, bytes: PIECE });
    let again = author.events.iter().filter(|event| matches!(event, Event::Sent { bytes, .. } if *bytes <= 3 * PIECE));
    assert_eq!(again.count(), 3, "the first three pieces went out once");
}

#[test]
fn two_that_offer_the_same_do_not_both_send_it() {
    let content = content(6, 0);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut server = Node::new();
    (1..=2).for_each(|n| server.connect(SessionId(n), false));
    (1..=2).for_each(|n| server.hear(SessionId(n), BlobMessage::Offer { hash, size }));
    assert_eq!(server.said.len(), 1, "the second waits: {:?}", server.said);
    server.hear(SessionId(2), BlobMessage::Offer { hash, size });
    while server.answer(SessionId(1), &content) > 0 && !server.standing(&hash).expect("begun").is_whole() {}
    server.said.sort_by_key(|(session, _)| *session);
    let have = BlobMessage::Have { hash, size };
    assert_eq!(server.said, [(SessionId(1), have.clone()), (SessionId(2), have)]);
}

#[test]
fn no_more_is_asked_for_than_fits_the_window() {
    let content = content(30, 0);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut server = Node::new();
    server.connect(SessionId(1), false);
    server.hear(SessionId(1), BlobMessage::Offer { hash, size });
    let mut end = 0;
    while !server.standing(&hash).is_some_and(|standing| standing.is_whole()) {
        let asked = server.said.iter().filter_map(|(_, said)| match said {
            BlobMessage::Want { to, .. } => Some(*to),
            _ => None,
        });
        end = asked.max().unwrap_or(end);
        let held = server.standing(&hash).map_or(0, |standing| standing.held);
        assert!(end <= held + 4 * PIECE, "asked up to {end} with {held} stored");
        assert!(server.answer(SessionId(1), &content) > 0, "it asks on");
    }
}

#[test]
fn pieces_nobody_asked_for_cost_the_connection_and_nothing_else() {
    let content = content(8, 0);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut server = Node::new();
    server.connect(SessionId(1), false);
    let data = content.slice(..PIECE_BYTES);
    for _ in 0..UNASKED_MAX {
        server.hear(SessionId(1), BlobMessage::Piece { hash, size, offset: 0, data: data.clone() });
    }
    assert!(server.closed.is_empty() && server.stored.is_empty());
    // More than was asked for is unasked as well.
    server.hear(SessionId(1), BlobMessage::Offer { hash, size });
    server.hear(SessionId(1), BlobMessage::Piece { hash, size, offset: 4 * PIECE, data });
    assert_eq!(server.closed, [SessionId(1)]);
    assert!(server.stored.is_empty() && server.refused.iter().all(|kind| *kind == "blob_unasked"));
}

#[test]
fn who_sends_on_beyond_what_was_asked_for_is_not_listened_to() {
    let content = content(8, 0);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut server = Node::new();
    server.slow = true;
    server.connect(SessionId(1), false);
    server.hear(SessionId(1), BlobMessage::Offer { hash, size });
    for offset in (0..size).step_by(PIECE_BYTES) {
        let data = content.slice(offset as usize..offset as usize + PIECE_BYTES);
        server.hear(SessionId(1), BlobMessage::Piece { hash, size, offset, data });
    }
    assert_eq!(server.written, 4 * PIECE, "the window");
    assert_eq!(server.refused, ["blob_unasked"; 4]);
}

#[test]
fn content_without_the_hash_is_refused_and_the_next_is_asked() {
    let content = content(2, 9);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut server = Node::new();
    (1..=2).for_each(|n| server.connect(SessionId(n), false));
    (1..=2).for_each(|n| server.hear(SessionId(n), BlobMessage::Offer { hash, size }));
    let forged = Bytes::from(vec![0; content.len()]);
    server.answer(SessionId(1), &forged);
    assert_eq!(server.refused, ["blob_mismatch"]);
    let refusal = server.said.remove(0);
    assert!(
        matches!(&refusal, (SessionId(1), BlobMessage::Refused { reason: BlobRefusal::Mismatch, .. })),
        "{refusal:?}"
    );
    server.answer(SessionId(2), &content);
    assert_eq!(server.said(), [BlobMessage::Have { hash, size }]);
}

#[test]
fn a_size_is_believed_of_its_own_sender_only() {
    let content = content(3, 0);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut server = Node::new();
    (1..=2).for_each(|n| server.connect(SessionId(n), false));
    server.hear(SessionId(1), BlobMessage::Offer { hash, size: size + PIECE });
    server.hear(SessionId(2), BlobMessage::Offer { hash, size });
    let data = content.slice(..PIECE_BYTES);
    server.hear(SessionId(1), BlobMessage::Piece { hash, size: size + PIECE, offset: 0, data: data.clone() });
    server.hear(SessionId(1), BlobMessage::Piece { hash, size, offset: PIECE, data });
    assert_eq!(server.refused, ["blob_wrong_size"]);
    server.said.retain(|(session, _)| *session == SessionId(2));
    assert!(matches!(server.said[0].1, BlobMessage::Want { from: 0, .. }), "from the start: {:?}", server.said);
    server.answer(SessionId(2), &content);
    assert_eq!(server.said(), [BlobMessage::Have { hash, size }]);
}

#[test]
fn who_sends_nothing_for_too_long_makes_way() {
    let content = content(3, 0);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut server = Node::new();
    (1..=2).for_each(|n| server.connect(SessionId(n), false));
    (1..=2).for_each(|n| server.hear(SessionId(n), BlobMessage::Offer { hash, size }));
    assert_eq!(server.exchange.poll_timeout(), Some(Duration::from_secs(30)));
    server.handle_at(29, Input::Timeout);
    assert_eq!(server.said.len(), 1);
    server.handle_at(30, Input::Timeout);
    assert!(matches!(server.said[1], (SessionId(1), BlobMessage::Refused { reason: BlobRefusal::Busy, .. })));
    assert!(matches!(server.said[2], (SessionId(2), BlobMessage::Want { .. })));
    // What the first was asked for may still come.
    let data = content.slice(..PIECE_BYTES);
    server.hear(SessionId(1), BlobMessage::Piece { hash, size, offset: 0, data });
    assert!(server.refused.is_empty() && server.closed.is_empty());
}

#[test]
fn offers_beyond_the_limits_are_refused_with_the_limit_that_they_meet() {
    let mut server = Node::new();
    server.connect(SessionId(1), false);
    let offer = |n: u8, size| BlobMessage::Offer { hash: BlobHash([n; 32]), size };
    server.hear(SessionId(1), offer(1, 40 * PIECE + 1));
    (2..=4).for_each(|n| server.hear(SessionId(1), offer(n, 1)));
    server.full = true;
    let data = Bytes::from_static(b"x");
    server.hear(SessionId(1), BlobMessage::Piece { hash: BlobHash([2; 32]), size: 1, offset: 0, data });
    let refusals: Vec<_> = server
        .said()
        .into_iter()
        .filter_map(|message| match message {
            BlobMessage::Refused { hash, reason, .. } => Some((hash.0[0], reason)),
            _ => None,
        })
        .collect();
    assert_eq!(refusals, [(1, BlobRefusal::TooLarge), (4, BlobRefusal::Busy), (2, BlobRefusal::NoRoom)]);
    server.hear(SessionId(1), offer(5, 1));
    assert!(matches!(server.said()[..], [BlobMessage::Want { .. }]), "one is answered, so one more fits");
}

#[test]
fn a_piece_goes_out_when_the_one_before_is_written_and_blobs_take_turns() {
    let (one, two) = (content(3, 0), content(2, 5));
    let mut server = Node::with(&one);
    let hashes = [BlobHash::of(&one), BlobHash::of(&two)];
    server.stored.insert(hashes[1], (two.len() as u64, two.to_vec(), true));
    server.room = false;
    server.connect(SessionId(1), false);
    for hash in hashes {
        server.hear(SessionId(1), BlobMessage::Want { hash, from: 0, to: 4 * PIECE });
    }
    let mut order = Vec::new();
    while !server.said.is_empty() {
        assert_eq!((server.said.len(), server.awaiting.len()), (1, 1), "one at a time");
        order.extend(server.said().iter().map(|message| hashes.iter().position(|hash| hash == message.hash())));
        server.awaiting.clear();
        server.handle(Input::Room { session: SessionId(1) });
    }
    // The first piece was out before the second blob was asked for.
    assert_eq!(order, [0, 0, 1, 0, 1, 1].map(Some));
    let unknown = BlobMessage::Want { hash: BlobHash([9; 32]), from: 0, to: 1 };
    server.hear(SessionId(1), unknown);
    assert!(matches!(server.said()[..], [BlobMessage::Refused { reason: BlobRefusal::NotHere, .. }]));
}

#[test]
fn a_fetch_asks_one_server_after_the_other_and_the_next_that_comes() {
    let content = content(1, 1);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut client = Node::new();
    let no = || BlobMessage::Refused { hash, reason: BlobRefusal::NotHere, words: String::new() };
    client.handle(Input::Fetch { hash, size });
    assert_eq!(client.events, [Event::Unavailable { hash, servers: 0 }], "nobody is connected");
    client.connect(SessionId(7), true);
    client.hear(SessionId(7), no());
    assert_eq!(client.events.len(), 2);
    client.connect(SessionId(8), true);
    client.said.retain(|(session, _)| *session == SessionId(8));
    client.answer(SessionId(8), &content);
    assert_eq!(client.events.last(), Some(&Event::Here { hash }));
}

#[test]
fn what_is_not_wanted_any_more_is_not_held_against_its_sender() {
    let content = content(12, 0);
    let (hash, size) = (BlobHash::of(&content), content.len() as u64);
    let mut client = Node::new();
    client.connect(SERVER, true);
    client.handle(Input::Fetch { hash, size });
    assert!(matches!(client.said()[..], [BlobMessage::Want { .. }]));
    client.handle(Input::Cancel { hash });
    for offset in (0..5 * PIECE).step_by(PIECE_BYTES) {
        let data = content.slice(..PIECE_BYTES);
        client.hear(SERVER, BlobMessage::Piece { hash, size, offset, data });
    }
    assert_eq!(client.refused, ["blob_unasked"], "four were asked for");
    assert!(client.stored.is_empty() && client.exchange.incoming.is_empty());
    assert_eq!(client.exchange.poll_timeout(), None);
}

#[test]
fn an_offer_that_is_not_taken_for_a_while_is_made_again_and_others_on_the_next_connection() {
    let hash = BlobHash([1; 32]);
    let mut client = Node::new();
    client.connect(SERVER, true);
    client.handle(Input::Push { hash, size: 5 });
    let refuse = |reason| BlobMessage::Refused { hash, reason, words: "no".into() };
    client.hear(SERVER, refuse(BlobRefusal::Busy));
    assert_eq!(client.said().len(), 2, "offered twice");
    client.hear(SERVER, refuse(BlobRefusal::NoRoom));
    assert!(client.said().is_empty());
    assert!(matches!(&client.events[..], [Event::NotTaken { reason: BlobRefusal::NoRoom, .. }]));
    client.connect(SessionId(101), true);
    assert_eq!(client.said(), [BlobMessage::Offer { hash, size: 5 }]);
    client.hear(SessionId(101), BlobMessage::Have { hash, size: 5 });
    client.connect(SessionId(102), true);
    assert!(client.said().is_empty(), "a server has it");
}

//! A light replica: speaks automerge's sync protocol exactly, without holding the document.
//!
//! Owns: one document's side of the conversation with one server. Must not: apply an operation or touch a socket.
//! Next: `full.rs`, the replica that does hold the document; `client.rs`, which carries the messages.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use automerge::ChangeHash;
use automerge::sync::{BloomFilter, ChunkList, Have, Message, MessageFlags, MessageVersion};

use crate::author::Pen;
use crate::client::{Kind, Outgoing, Replica};
use crate::ledger::{Book, Clock, Index, Ledger};
use crate::stats::Stats;
use crate::tracker::{Receipts, Tracker};

/// A document as an up-to-date stock peer treats it, minus its contents.
pub(crate) struct Light {
    ledger: Arc<Ledger>,
    stats: Arc<Stats>,
    pen: Pen,
    tracker: Tracker,
    receipts: Receipts,
    shared: Vec<Index>,
    session: Session,
}

/// What lasts as long as the connection. Field names follow automerge's sync state.
#[derive(Default)]
struct Session {
    their_heads: Option<Vec<ChangeHash>>,
    their_need: Vec<ChangeHash>,
    their_have: Vec<Have>,
    unavailable: bool,
    /// What the server showed to have.
    theirs: Clock,
    /// Exactly what was sent and not shown to have arrived: a filter may hold back a change whose successors were sent.
    sent: BTreeSet<Index>,
    last_sent_heads: Vec<Index>,
    peer_takes_v2: bool,
    have_responded: bool,
    in_flight: bool,
}

impl Light {
    /// A replica that wants the document and has nothing of it.
    pub(crate) fn subscriber(ledger: Arc<Ledger>, stats: Arc<Stats>) -> Self {
        Self::new(ledger, stats, Tracker::default(), Vec::new())
    }

    /// A replica that wrote the document offline and never met a server.
    pub(crate) fn creator(ledger: Arc<Ledger>, stats: Arc<Stats>, head: Index) -> Self {
        let tracker = Tracker::from_heads(&ledger.book(), vec![head]);
        Self::new(ledger, stats, tracker, Vec::new())
    }

    /// A replica that had synced up to `head` with this server before, and kept its sync state.
    pub(crate) fn returning(ledger: Arc<Ledger>, stats: Arc<Stats>, head: Index) -> Self {
        let tracker = Tracker::from_heads(&ledger.book(), vec![head]);
        Self::new(ledger, stats, tracker, vec![head])
    }

    fn new(ledger: Arc<Ledger>, stats: Arc<Stats>, tracker: Tracker, shared: Vec<Index>) -> Self {
        let (pen, receipts, session) = (Pen::new(), Receipts::default(), Session::default());
        Self { ledger, stats, pen, tracker, receipts, shared, session }
    }

    fn message(&mut self) -> Option<Message> {
        let ledger = Arc::clone(&self.ledger);
        let book = ledger.book();
        let session = &self.session;
        let their_heads = session.their_heads.as_deref().unwrap_or_default();
        if session.their_have.first().is_some_and(|have| !have.last_sync.iter().all(|h| self.tracker.knows(&book, h))) {
            return Some(reset(book.hashes(self.tracker.heads())));
        }
        let need = self.tracker.missing(&book, their_heads);
        let have = if need.iter().all(|hash| their_heads.contains(hash)) { vec![self.have(&book)] } else { Vec::new() };
        let outgoing = if session.their_heads.is_some() { self.unsent(&book) } else { Vec::new() };
        let heads = book.hashes(self.tracker.heads());
        if session.have_responded && session.last_sent_heads == self.tracker.heads() {
            let agreed = session.their_heads.as_ref() == Some(&heads);
            if (agreed && outgoing.is_empty()) || session.in_flight {
                return None;
            }
        }
        let session = &mut self.session;
        session.have_responded = true;
        session.in_flight = true;
        session.last_sent_heads = self.tracker.heads().to_vec();
        let mut elements = Vec::new();
        for index in outgoing {
            let node = book.node(index);
            session.sent.insert(index);
            if !node.bytes.is_empty() {
                elements.push(node.bytes.to_vec());
            }
        }
        let v2 = session.peer_takes_v2 && !elements.is_empty();
        let (version, changes) = if v2 {
            (MessageVersion::V2, ChunkList::from(elements.concat()))
        } else {
            (MessageVersion::V1, ChunkList::from(elements))
        };
        Some(Message { heads, need, have, changes, flags: Some(flags()), version })
    }

    fn have(&self, book: &Book) -> Have {
        let shared = book.clock_of(&self.shared);
        let since: Vec<ChangeHash> = self
            .tracker
            .known()
            .iter()
            .flat_map(|(author, seq)| book.chain(author, shared.seq(author), seq))
            .map(|index| book.node(index).hash)
            .collect();
        Have { last_sync: book.hashes(&self.shared), bloom: BloomFilter::from_hashes(since.iter()) }
    }

    /// What the server lacks and was not sent, dependencies first.
    fn unsent(&self, book: &Book) -> Vec<Index> {
        let session = &self.session;
        let mut missing: Vec<Index> = Vec::new();
        for (author, seq) in self.tracker.known().iter() {
            missing.extend(book.chain(author, session.theirs.seq(author), seq));
        }
        missing.retain(|index| !session.sent.contains(index));
        missing.sort_unstable();
        let mut certain: HashSet<Index> = HashSet::new();
        missing.retain(|index| {
            let node = book.node(*index);
            let filtered = session.their_have.iter().any(|have| have.bloom.contains_hash(&node.hash));
            // What depends on a change that the server lacks is lacking too, whatever the filter says.
            let follows = certain.iter().any(|sent| {
                let sent = book.node(*sent);
                node.clock.seq(sent.author) >= sent.seq
            });
            let lacking = !filtered || follows;
            if lacking && !follows {
                certain.insert(*index);
            }
            lacking
        });
        for hash in &session.their_need {
            let needed = book.index_of(hash).filter(|index| self.tracker.has(book.node(*index)));
            missing.extend(needed.filter(|index| !session.sent.contains(index)));
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn note_their_heads(&mut self, book: &Book, heads: &[ChangeHash]) {
        let known: Vec<Index> = heads
            .iter()
            .filter_map(|hash| book.index_of(hash))
            .filter(|index| self.tracker.has(book.node(*index)))
            .collect();
        self.session.theirs.merge(&book.clock_of(&known));
        if known.len() < heads.len() {
            self.shared.extend(known);
            book.keep_maximal(&mut self.shared);
            return;
        }
        self.shared = known;
        if heads.is_empty() {
            // The peer has lost its data, or never had any: everything counts as not sent.
            self.session.theirs = Clock::default();
            self.session.sent.clear();
            self.session.last_sent_heads.clear();
        }
    }
}

impl Replica for Light {
    fn document(&self) -> &str {
        &self.ledger.id
    }

    fn receive(&mut self, data: &[u8], at: Instant) -> anyhow::Result<()> {
        let message = Message::decode(data)?;
        let ledger = Arc::clone(&self.ledger);
        let mut book = ledger.book();
        self.session.in_flight = false;
        self.session.peer_takes_v2 |= message.flags.is_some();
        if message.flags.is_some_and(|flags| flags.contains(MessageFlags::SYNC_RESET)) {
            self.session.sent.clear();
        }
        let mut new = Vec::new();
        self.tracker.receive(&mut book, message.changes.iter(), &mut new)?;
        for index in &new {
            let node = book.node(*index);
            self.session.theirs.raise(node.author, node.seq);
            if let Some(sent) = node.sent {
                self.stats.delivered(sent, at, false);
            }
        }
        self.shared.extend_from_slice(&new);
        book.keep_maximal(&mut self.shared);
        self.receipts.confirm(&book, &message.heads, at, &self.stats);
        if message.changes.is_empty() && message.heads == book.hashes(self.tracker.heads()) {
            self.session.last_sent_heads = self.tracker.heads().to_vec();
        }
        self.note_their_heads(&book, &message.heads);
        for have in &message.have {
            let known: Vec<Index> = have.last_sync.iter().filter_map(|hash| book.index_of(hash)).collect();
            self.session.theirs.merge(&book.clock_of(&known));
        }
        let theirs = &self.session.theirs;
        self.session.sent.retain(|index| {
            let node = book.node(*index);
            theirs.seq(node.author) < node.seq
        });
        self.session.their_heads = Some(message.heads);
        self.session.their_need = message.need;
        self.session.their_have = message.have;
        Ok(())
    }

    fn receive_unavailable(&mut self) {
        self.session.unavailable = true;
    }

    fn generate(&mut self) -> Option<Outgoing> {
        let asks = self.session.their_heads.is_none() && self.shared.is_empty() && self.tracker.heads().is_empty();
        let message = self.message()?;
        Some(Outgoing { kind: if asks { Kind::Request } else { Kind::Sync }, data: message.encode() })
    }

    fn edit(&mut self) -> anyhow::Result<()> {
        let sent = Instant::now();
        let ledger = Arc::clone(&self.ledger);
        let mut book = ledger.book();
        let (deps, max_op) = (book.hashes(self.tracker.heads()), self.tracker.max_op(&book));
        let change = self.pen.type_char(&ledger.text, deps, max_op);
        let author = book.author(self.pen.actor());
        let seq = u32::try_from(change.seq())?;
        let index = book.insert(&change, Some(sent)).expect("the dependencies are the heads");
        self.tracker.add_own(&book, index);
        self.receipts.expect(author, seq, sent);
        Ok(())
    }

    fn is_synced(&self) -> bool {
        let heads = self.ledger.book().hashes(self.tracker.heads());
        !heads.is_empty() && self.session.their_heads.as_ref() == Some(&heads)
    }

    fn is_answered(&self) -> bool {
        self.session.unavailable || self.session.their_heads.is_some()
    }

    fn disconnect(&mut self) {
        self.session = Session::default();
    }

    fn heads(&self) -> Vec<ChangeHash> {
        self.ledger.book().hashes(self.tracker.heads())
    }

    fn confirmed(&self) -> (u32, u32) {
        self.receipts.confirmed()
    }

    fn known(&self) -> Clock {
        self.tracker.known().clone()
    }

    fn text(&self) -> Option<String> {
        None
    }
}

fn flags() -> MessageFlags {
    let mut flags = MessageFlags::new();
    flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
    flags
}

/// What automerge answers to a peer that claims a last sync which this replica does not know.
fn reset(heads: Vec<ChangeHash>) -> Message {
    Message {
        heads,
        need: Vec::new(),
        have: vec![Have::default()],
        changes: ChunkList::empty(),
        flags: Some(flags()),
        version: MessageVersion::V1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::author;

    fn message(heads: Vec<ChangeHash>, need: Vec<ChangeHash>, bloom: BloomFilter) -> Vec<u8> {
        let have = vec![Have { last_sync: Vec::new(), bloom }];
        let (changes, version) = (ChunkList::empty(), MessageVersion::V1);
        Message { heads, need, have, changes, flags: Some(flags()), version }.encode()
    }

    fn changes_of(outgoing: Option<Outgoing>) -> Vec<ChangeHash> {
        let message = Message::decode(&outgoing.expect("a message").data).expect("our own message");
        let stream: Vec<u8> = message.changes.iter().flatten().copied().collect();
        let mut rest = &stream[..];
        let mut hashes = Vec::new();
        while !rest.is_empty() {
            let chunk = crate::chunk::Chunk::next(&mut rest).expect("a chunk");
            hashes.extend(chunk.changes().expect("changes").iter().map(automerge::Change::hash));
        }
        hashes
    }

    /// A replica that made two changes, of which a server's filter claims the first, and their hashes. Hashes differ
    /// from run to run, and one filter in a hundred claims the second too: then it is tried anew.
    fn with_its_first_change_claimed() -> (Light, BloomFilter, [ChangeHash; 3]) {
        loop {
            let (ledger, first) = author::new_document();
            let root = ledger.book().node(first).hash;
            let mut light = Light::returning(ledger, Stats::new(), first);
            light.edit().unwrap();
            let held_back = light.heads()[0];
            light.edit().unwrap();
            let successor = light.heads()[0];
            let claiming = BloomFilter::from_hashes([root, held_back].iter());
            if !claiming.contains_hash(&successor) {
                return (light, claiming, [root, held_back, successor]);
            }
        }
    }

    /// A server's Bloom filter claims one change in a hundred by mistake; its successors went out, it never did.
    #[test]
    fn a_change_held_back_by_a_filter_is_sent_when_asked_for() {
        let (mut light, claiming, [root, held_back, successor]) = with_its_first_change_claimed();
        light.receive(&message(vec![root], Vec::new(), claiming), Instant::now()).unwrap();
        assert_eq!(changes_of(light.generate()), [successor]);
        let claiming = BloomFilter::from_hashes([root, held_back].iter());
        light.receive(&message(vec![root], vec![held_back], claiming), Instant::now()).unwrap();
        assert_eq!(changes_of(light.generate()), [held_back]);
    }

    // It asked for the last orphan's dependency, an orphan itself, which no server sends twice.
    #[test]
    fn what_a_chain_of_orphans_hangs_on_is_asked_for() {
        let (ledger, first) = author::new_document();
        let mut author = Light::returning(Arc::clone(&ledger), Stats::new(), first);
        let mut reader = Light::returning(Arc::clone(&ledger), Stats::new(), first);
        let typed: Vec<ChangeHash> = (0..3)
            .map(|_| {
                author.edit().unwrap();
                author.heads()[0]
            })
            .collect();
        let bytes = |hash: &ChangeHash| {
            let book = ledger.book();
            book.node(book.index_of(hash).unwrap()).bytes.to_vec()
        };
        let held_back = ChunkList::from(vec![bytes(&typed[1]), bytes(&typed[2])]);
        let (heads, have) = (vec![typed[2]], vec![Have::default()]);
        let (need, version) = (Vec::new(), MessageVersion::V1);
        let message = Message { heads, need, have, changes: held_back, flags: Some(flags()), version };
        reader.receive(&message.encode(), Instant::now()).unwrap();
        let asked = Message::decode(&reader.generate().expect("a message").data).unwrap();
        assert_eq!(asked.need, [typed[0]]);
    }

    #[test]
    fn nothing_is_sent_twice_on_one_connection() {
        let (ledger, first) = author::new_document();
        let root = ledger.book().node(first).hash;
        let mut light = Light::returning(ledger, Stats::new(), first);
        light.receive(&message(vec![root], Vec::new(), BloomFilter::default()), Instant::now()).unwrap();
        light.edit().unwrap();
        let typed = light.heads();
        assert_eq!(changes_of(light.generate()), typed);
        light.receive(&message(vec![root], typed, BloomFilter::default()), Instant::now()).unwrap();
        light.edit().unwrap();
        assert_eq!(changes_of(light.generate()), light.heads());
    }
}

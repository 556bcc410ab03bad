//! One round between two replicas: ranges to see where the sets differ, then a sketch or more ranges to list how.
//!
//! Owns: which of the two comes next, how many symbols are asked for, the bounds of a round.
//! Must not: keep the set from changing between two messages. Next: `ranges.rs`, `peel.rs`; docs/protocol.md §10.

use super::peel::Peel;
use super::ranges::{self, Answer, BRANCHES, Side};
use super::sketch::{SYMBOLS_MAX, Sketch, Symbol};
use super::wire::{self, Incoming, Ranges, SYMBOL_BYTES_MAX, VERSION, encode_ask, encode_symbols};
use super::{Element, ElementSet, Missing, ReconcileError};

/// A message that ends the round in one more exchange is sent up to this size; above it a sketch costs less.
const LISTS_BYTES_WORTHWHILE: usize = 4 * 1024;

/// Neighbouring ranges in which a run of differences lies, which may begin in the midst of one.
const RUN_RANGES_MAX: usize = 2;

/// Symbols that are asked for at first: enough for a few differences, and at most for an estimate within a tenth.
const FIRST_SYMBOLS_MIN: u64 = 24;
const FIRST_SYMBOLS_MAX: u64 = 512;

/// Symbols that list a difference, on average, when there are many; and what more a few take.
const SYMBOLS_EACH: f64 = 1.4;
const SYMBOLS_MORE: f64 = 8.0;

/// The smallest message that still brings a round on.
const MESSAGE_BYTES_MIN: usize = 4_096;

/// How a round is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Largest message that is sent, bytes; not below 4,096.
    pub message_bytes_max: usize,
    /// Messages that the initiator takes in before it gives up. What was found until then is good.
    pub messages_max: u32,
    /// Whether the peer understands sketches. Without, only negentropy's protocol V1 is spoken.
    pub sketches: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { message_bytes_max: 60_000, messages_max: 4_096, sketches: true }
    }
}

impl Options {
    fn bytes_max(&self) -> usize {
        self.message_bytes_max.max(MESSAGE_BYTES_MIN)
    }
}

/// What a message brought the initiator.
#[derive(Debug, Default)]
pub struct Step {
    /// What to send next. Nothing, if more is to come for what was asked, or if the round is over.
    pub send: Option<Vec<u8>>,
    /// Elements of ours that the peer has not. One can come twice in a round.
    pub have: Vec<Element>,
    /// Elements of the peer that are not here. One can come twice in a round.
    pub missing: Vec<Missing>,
    /// Whether the round is over.
    pub is_done: bool,
}

/// The side that begins, and learns what differs.
///
/// An element that one side alone has from the first message to the last is reported, and none is that both have all
/// that time. What comes or goes in between may be either.
#[derive(Debug)]
pub struct Initiator {
    options: Options,
    messages: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is known yet, so that a sketch can still pay.
    First,
    Ranges,
    Sketch(Box<Listing>),
    Done,
}

/// A sketch on its way.
#[derive(Debug)]
struct Listing {
    /// Ours as it was when we asked: symbols of different moments do not go together.
    ours: Sketch,
    peel: Peel,
    asked: u64,
    /// How the ranges would have gone on.
    instead: Vec<u8>,
}

impl Initiator {
    /// Begins a round; gives its first message.
    #[must_use]
    pub fn start(set: &ElementSet, options: Options) -> (Self, Vec<u8>) {
        let stage = if options.sketches { Stage::First } else { Stage::Ranges };
        (Self { options, messages: 0, stage }, ranges::initiate(&set.tree))
    }

    /// Takes in an answer.
    ///
    /// # Errors
    /// [`ReconcileError`] if the peer breaks the protocol or the round does not end; the round is over.
    pub fn handle(&mut self, set: &ElementSet, message: &[u8]) -> Result<Step, ReconcileError> {
        self.messages += 1;
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        if self.messages > self.options.messages_max {
            return Err(ReconcileError::Endless);
        }
        match (wire::decode(message)?, stage) {
            (Incoming::Ranges(ranges), Stage::First) => self.ranges(set, ranges, true),
            (Incoming::Ranges(ranges), Stage::Ranges) => self.ranges(set, ranges, false),
            (Incoming::Symbols(symbols, from), Stage::Sketch(listing)) => self.symbols(set, listing, &symbols, from),
            (Incoming::Ask { .. } | Incoming::Symbols(..) | Incoming::Ranges(_), _) => Err(ReconcileError::OutOfTurn),
        }
    }

    fn ranges(&mut self, set: &ElementSet, ranges: Ranges<'_>, is_first: bool) -> Result<Step, ReconcileError> {
        let answer = ranges::answer(&set.tree, ranges, Side::Initiator, self.options.bytes_max())?;
        if answer.message.len() == 1 {
            return Ok(Step { have: answer.have, missing: answer.missing, is_done: true, ..Step::default() });
        }
        let ends_soon = !answer.goes_deeper && answer.message.len() <= LISTS_BYTES_WORTHWHILE;
        let send = if is_first && !ends_soon && !stands_together(&answer) {
            let asked = first_symbols(&answer);
            let (ours, peel) = (set.sketch.clone(), Peel::default());
            self.stage = Stage::Sketch(Box::new(Listing { ours, peel, asked, instead: answer.message }));
            encode_ask(0, asked)
        } else {
            self.stage = Stage::Ranges;
            answer.message
        };
        Ok(Step { send: Some(send), have: answer.have, missing: answer.missing, is_done: false })
    }

    fn symbols(
        &mut self,
        set: &ElementSet,
        mut listing: Box<Listing>,
        theirs: &[Symbol],
        from: u64,
    ) -> Result<Step, ReconcileError> {
        let to = from.saturating_add(theirs.len() as u64);
        if from != listing.peel.len() || theirs.is_empty() || to > listing.asked {
            return Err(ReconcileError::OutOfTurn);
        }
        listing.peel.push(theirs.iter().copied().zip(listing.ours.symbols(from, to)))?;
        // All that was asked for is awaited, so that nothing of this round comes after it.
        let send = if to < listing.asked {
            None
        } else if let Some(differences) = listing.peel.finished() {
            return Ok(listed(set, differences));
        } else if let Some(asked) = more_symbols(&listing.peel) {
            listing.asked = asked;
            Some(encode_ask(to, asked))
        } else {
            self.stage = Stage::Ranges;
            return Ok(Step { send: Some(listing.instead), ..Step::default() });
        };
        self.stage = Stage::Sketch(listing);
        Ok(Step { send, ..Step::default() })
    }
}

/// Whether all differences lie in one of the first ranges and there within a few of its parts: a run, as recent changes
/// leave, of which ranges list each element for the bytes of its digest.
fn stands_together(answer: &Answer) -> bool {
    answer.compared <= BRANCHES as usize && answer.differing <= RUN_RANGES_MAX
}

/// How many symbols to ask for at first, by the share of ranges that differ.
fn first_symbols(answer: &Answer) -> u64 {
    let (compared, differing) = (answer.compared as f64, answer.differing as f64);
    // The number of balls that leave so many boxes empty; half a box, if none is.
    let empty = (compared - differing).max(0.5);
    let scattered = compared * (compared / empty).max(1.0).ln();
    (2.0 * scattered).ceil().min(FIRST_SYMBOLS_MAX as f64) as u64 + FIRST_SYMBOLS_MIN
}

/// Up to which symbol to ask next; `None` if all that there are would not do.
fn more_symbols(peel: &Peel) -> Option<u64> {
    let here = peel.len();
    let differences = peel.estimate();
    let needed = SYMBOLS_EACH * differences + SYMBOLS_MORE;
    if here >= SYMBOLS_MAX || needed > SYMBOLS_MAX as f64 {
        return None;
    }
    let doubt = 1.0 + 1.5 * (2.0 / here as f64).sqrt();
    Some(((needed * doubt) as u64).max(here + here / 4 + FIRST_SYMBOLS_MIN).min(SYMBOLS_MAX))
}

/// The end of a round by sketch. What changed since is as the set has it.
fn listed<'a>(set: &ElementSet, differences: impl Iterator<Item = &'a Symbol>) -> Step {
    let mut step = Step { is_done: true, ..Step::default() };
    for symbol in differences {
        let (stamp, digest) = (symbol.stamp(), symbol.prefix());
        match (set.at(stamp, &digest), symbol.count > 0) {
            (Some(element), false) => step.have.push(element),
            (None, true) => step.missing.push(Missing { stamps: stamp..=stamp, digest }),
            (Some(_), true) | (None, false) => {}
        }
    }
    step
}

/// The side that answers, and learns nothing.
#[derive(Debug)]
pub struct Responder {
    options: Options,
    sketching: Sketching,
}

#[derive(Debug)]
enum Sketching {
    /// No ranges came, so there is nothing that a sketch would list.
    Unasked,
    Possible,
    /// Ours as it was at the first question, and which symbol is next.
    Under {
        ours: Sketch,
        next: u64,
    },
}

impl Responder {
    /// Waits for a round, and for others after it.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, sketching: Sketching::Unasked }
    }

    /// Answers a message, by one or several.
    ///
    /// # Errors
    /// [`ReconcileError`] if the peer breaks the protocol; the next message may begin another round.
    pub fn handle(&mut self, set: &ElementSet, message: &[u8]) -> Result<Vec<Vec<u8>>, ReconcileError> {
        let sketching = std::mem::replace(&mut self.sketching, Sketching::Unasked);
        match wire::decode(message) {
            // So negentropy's versions are negotiated.
            Err(ReconcileError::Version(_)) => Ok(vec![vec![VERSION]]),
            Err(error) => Err(error),
            Ok(Incoming::Ranges(ranges)) => {
                let answer = ranges::answer(&set.tree, ranges, Side::Responder, self.options.bytes_max())?;
                if self.options.sketches {
                    self.sketching = Sketching::Possible;
                }
                Ok(vec![answer.message])
            }
            Ok(Incoming::Ask { from, to }) => self.symbols(set, sketching, from, to),
            Ok(Incoming::Symbols(..)) => Err(ReconcileError::OutOfTurn),
        }
    }

    fn symbols(
        &mut self,
        set: &ElementSet,
        sketching: Sketching,
        from: u64,
        to: u64,
    ) -> Result<Vec<Vec<u8>>, ReconcileError> {
        let ours = match sketching {
            Sketching::Possible if from == 0 => set.sketch.clone(),
            Sketching::Under { ours, next } if from == next => ours,
            Sketching::Unasked | Sketching::Possible | Sketching::Under { .. } => {
                return Err(ReconcileError::OutOfTurn);
            }
        };
        if from >= to || to > SYMBOLS_MAX {
            return Err(ReconcileError::OutOfTurn);
        }
        let symbols: Vec<Symbol> = ours.symbols(from, to).collect();
        // Two numbers and the kind precede the symbols.
        let each = (self.options.bytes_max() - 21) / SYMBOL_BYTES_MAX;
        let messages = (from..).step_by(each).zip(symbols.chunks(each));
        let messages = messages.map(|(from, symbols)| encode_symbols(from, ours.size(), symbols)).collect();
        self.sketching = Sketching::Under { ours, next: to };
        Ok(messages)
    }
}

//! Messages of a reconciliation round, beside the crate `negentropy`.
//!
//! Owns: that whatever a peer sends costs little, is answered as negentropy answers it, and leaves the next round whole.
//! Must not: judge what a lying peer makes us believe of its own set. Next: `session.rs`; docs/protocol.md §10.

use std::collections::BTreeSet;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use sha2::{Digest, Sha256};
use syncline_core::clock::Stamp;
use syncline_core::reconcile::{Element, ElementSet, Initiator, Options, Responder};

use crate::script::Script;

/// Messages and answers are no longer than this.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// A set that the first bytes choose, then messages to either side of a round about it.
pub fn reconcile(data: &[u8]) {
    let mut script = Script::new(data);
    let elements = known_elements(script.byte());
    let set: ElementSet = elements.iter().copied().collect();
    let options = Options { message_bytes_max: MESSAGE_BYTES_MAX, messages_max: 64, sketches: script.byte() & 1 == 0 };
    let (mut initiator, _) = Initiator::start(&set, options);
    let mut responder = Responder::new(options);
    let mut is_over = false;
    while !script.is_empty() {
        let message = script.block();
        check_answers(&mut responder, &set, message);
        check_like_negentropy(&elements, &set, message);
        if !is_over {
            is_over = check_step(&mut initiator, &set, message);
        }
    }
    check_honest_round(&set, responder, options);
}

/// Up to 255 × 8 elements; two in three share a stamp with others.
pub fn known_elements(count: u8) -> BTreeSet<Element> {
    let element = |number: u32| {
        let stamp = Stamp::from_u64(u64::from(if number.is_multiple_of(3) { number } else { number % 7 }));
        Element::new(stamp, Sha256::digest(number.to_be_bytes()).into())
    };
    (0..u32::from(count) * 8).map(element).collect()
}

fn check_answers(responder: &mut Responder, set: &ElementSet, message: &[u8]) {
    let Ok(answers) = responder.handle(set, message) else { return };
    assert!(answers.iter().all(|answer| answer.len() <= MESSAGE_BYTES_MAX));
    assert!(answers.len() <= 64, "{} answers", answers.len());
}

/// What is accepted here is accepted there and answered with the same bytes, where no limit cuts the answer.
fn check_like_negentropy(elements: &BTreeSet<Element>, set: &ElementSet, message: &[u8]) {
    let unlimited = Options { message_bytes_max: usize::MAX, sketches: false, ..Options::default() };
    let Ok(answers) = Responder::new(unlimited).handle(set, message) else { return };
    let mut storage = NegentropyStorageVector::new();
    for element in elements {
        storage.insert(element.stamp().as_u64(), Id::from_byte_array(*element.digest())).expect("not sealed");
    }
    storage.seal().expect("once");
    let mut theirs = Negentropy::owned(storage, 0).expect("no limit");
    assert_eq!(answers, [theirs.reconcile(message).expect("what is accepted here")]);
}

/// Whether the round is over.
fn check_step(initiator: &mut Initiator, set: &ElementSet, message: &[u8]) -> bool {
    let Ok(step) = initiator.handle(set, message) else { return true };
    assert!(step.send.is_none_or(|message| message.len() <= MESSAGE_BYTES_MAX));
    assert!(step.have.iter().all(|element| set.contains(element)), "what is not here is called ours");
    assert!(set.find(&step.missing).len() <= set.len() as usize * step.missing.len());
    step.is_done
}

/// After all that, a round with an equal set takes one exchange.
fn check_honest_round(set: &ElementSet, mut responder: Responder, options: Options) {
    let (mut initiator, message) = Initiator::start(set, options);
    let mut answers = responder.handle(set, &message).expect("our own message");
    let answer = answers.pop().expect("one answer");
    assert!(answers.is_empty());
    let step = initiator.handle(set, &answer).expect("our own answer");
    assert!(step.is_done && step.have.is_empty() && step.missing.is_empty());
}

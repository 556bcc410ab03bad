//! Histories with one broken promise each, and the same without it.
//!
//! Owns: the proof that each rule of the checker bites. Must not: start anything. Next: `../checker.rs`.

use super::*;

fn hash(n: u8) -> ChangeHash {
    ChangeHash([n; 32])
}

fn invoke(n: u8) -> Event {
    Event::Invoke { client: 0, document: 0, hash: hash(n) }
}

fn ok(n: u8) -> Event {
    Event::Ok { client: 0, lineage: 0, document: 0, hash: hash(n) }
}

fn read(lineage: Lineage, changes: &[u8]) -> Event {
    let hashes: Vec<ChangeHash> = changes.iter().map(|n| hash(*n)).collect();
    Event::Read { lineage, document: 0, heads: hashes.last().copied().into_iter().collect(), hashes }
}

fn rest(head: u8) -> Event {
    Event::Rest { client: 1, document: 0, heads: vec![hash(head)], changes: 2 }
}

fn verdict(events: &[Event]) -> Vec<Violation> {
    let mut checker = Checker::default();
    checker.observe(events);
    checker.violations().to_vec()
}

#[test]
fn an_honest_history_passes() {
    let (settled, end) = (Event::Settled, Event::Epoch);
    let history = [invoke(1), ok(1), invoke(2), read(0, &[1]), settled, read(0, &[1, 2]), rest(2), end];
    assert_eq!(verdict(&history), []);
}

#[test]
fn an_acknowledged_change_that_is_gone_is_lost() {
    assert_eq!(verdict(&[invoke(1), ok(1), read(0, &[])]), [Violation::Lost(0, 0, hash(1))]);
    let seen = [invoke(1), read(0, &[1]), read(0, &[])];
    assert_eq!(verdict(&seen), [Violation::Lost(0, 0, hash(1))], "so is one that was seen");
}

#[test]
fn a_change_that_nobody_made_is_a_phantom() {
    assert_eq!(verdict(&[read(0, &[9])]), [Violation::Phantom(0, 0, hash(9))]);
}

#[test]
fn what_was_made_after_a_token_had_expired_is_kept_by_nobody_until_it_is_renewed() {
    let expired = Event::Expired { client: 0 };
    for kept in [ok(2), read(0, &[1, 2])] {
        let history = [invoke(1), ok(1), expired.clone(), invoke(2), kept.clone()];
        assert_eq!(verdict(&history), [Violation::Forbidden(0, 0, hash(2))]);
        let history = [invoke(1), ok(1), expired.clone(), invoke(2), read(0, &[1]), Event::Renewed, kept];
        assert_eq!(verdict(&history), []);
    }
    let others = [expired, Event::Invoke { client: 1, document: 0, hash: hash(1) }, ok(1)];
    assert_eq!(verdict(&others), [], "another's token has not expired");
}

#[test]
fn a_change_that_comes_twice_is_a_duplicate() {
    assert_eq!(verdict(&[invoke(1), read(0, &[1, 1])]), [Violation::Duplicate(0, 0, hash(1))]);
}

#[test]
fn a_head_that_does_not_come_is_hollow() {
    let hollow = Event::Read { lineage: 0, document: 0, hashes: Vec::new(), heads: vec![hash(1)] };
    assert_eq!(verdict(&[invoke(1), hollow]), [Violation::HeadWithoutChange(0, 0, hash(1))]);
}

#[test]
fn what_never_arrives_and_what_diverges_shows_at_the_end() {
    let missing = [invoke(1), invoke(2), Event::Settled, read(0, &[1]), rest(1), Event::Epoch];
    assert_eq!(verdict(&missing), [Violation::NeverArrived(0, hash(2))]);
    let diverged = [invoke(1), invoke(2), Event::Settled, read(0, &[1, 2]), rest(1), Event::Epoch];
    assert_eq!(verdict(&diverged), [Violation::Diverged(0)]);
    assert_eq!(verdict(&[invoke(1), Event::Epoch]).len(), 2, "nor does a history without an end pass");
}

#[test]
fn a_restored_backup_owes_what_it_had_and_no_more() {
    let events = |left: &[u8]| {
        let (copied, restored) = (Event::Copied { lineage: 0 }, Event::Restored { lineage: 0 });
        verdict(&[invoke(1), ok(1), copied, invoke(2), ok(2), restored, read(0, left)])
    };
    assert_eq!(events(&[1]), []);
    assert_eq!(events(&[]), [Violation::Lost(0, 0, hash(1))]);
}

#[test]
fn a_clone_owes_what_was_copied() {
    let (copied, cloned) = (Event::Copied { lineage: 0 }, Event::Cloned { from: 0, to: 1 });
    assert_eq!(verdict(&[invoke(1), ok(1), copied, cloned, read(1, &[])]), [Violation::Lost(1, 0, hash(1))]);
}

#[test]
fn a_failed_check_is_a_violation() {
    let check = Event::Check { lineage: 0, faults: Some("1 faults".to_owned()) };
    assert_eq!(verdict(&[check]), [Violation::CheckFailed(0, "1 faults".to_owned())]);
}

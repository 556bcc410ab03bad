//! A history that is written anew: durable before it is shown, and in sync with everyone afterwards.
//!
//! Owns: the hub's part of a replacement. Must not: make histories; the client does.
//! Next: `../replace.rs`.

use super::*;

fn replace(stage: &mut Stage, id: &DocumentId, heads: &[ChangeHash], changes: &[Change]) {
    let changes = changes.to_vec();
    stage.input(Input::Replace { document: id.clone(), heads: heads.to_vec(), changes, ticket: 9 });
}

fn answer(stage: &Stage) -> Option<bool> {
    stage.told.iter().find_map(|event| match event {
        Event::Saved { ticket: 9, .. } => Some(true),
        Event::NotSaved { ticket: 9, .. } => Some(false),
        _ => None,
    })
}

#[test]
fn a_server_is_told_of_the_new_history_once_it_is_durable() {
    let (mut stage, id) = (Stage::new(), document(1));
    let (old, anew) = (chain(1, 3), chain(2, 2));
    stage.stored(&id, &old, 0);
    stage.connect_native(A, Role::Upstream);
    stage.input(Input::Watch { document: id.clone() });
    stage.sync(A, &id, &[old[0].hash], &[]);
    stage.forget_sent();
    stage.holds = true;
    replace(&mut stage, &id, &[old[2].hash], &anew);
    stage.sync(A, &id, &[old[0].hash], &[]);
    assert_eq!((stage.take(A), answer(&stage)), (vec![], None), "nothing is said meanwhile");
    stage.answer_all();
    assert_eq!(answer(&stage), Some(true));
    let said = stage.take(A);
    assert!(matches!(&said[0], Said::Sync { heads, .. } if *heads == [anew[1].hash]), "{said:?}");
    stage.holds = false;
    stage.sync(A, &id, &[anew[1].hash], &[]);
    let hashes = |changes: &[Change]| changes.iter().map(|change| change.hash).collect::<Vec<_>>();
    assert_eq!(hashes(&stage.store[&id].changes), hashes(&anew));
}

#[test]
fn what_was_worked_out_from_another_state_is_not_done() {
    let (mut stage, id) = (Stage::new(), document(1));
    let (old, anew) = (chain(1, 3), chain(2, 2));
    stage.stored(&id, &old, 0);
    replace(&mut stage, &id, &[old[1].hash], &anew);
    assert_eq!(answer(&stage), Some(false));
    stage.told.clear();
    replace(&mut stage, &id, &[old[2].hash], &anew[1..]);
    assert_eq!(answer(&stage), Some(false), "nor is a history with a hole");
    stage.told.clear();
    stage.holds = true;
    replace(&mut stage, &id, &[old[2].hash], &anew);
    stage.fail_one();
    assert_eq!(answer(&stage), Some(false));
    assert_eq!(stage.store[&id].changes, old);
}

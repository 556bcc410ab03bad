//! The simulator for applications finds what is wrong with a document, and nothing where nothing is.

#[path = "../examples/todo_simulated.rs"]
mod todo;

use automerge::ROOT;
use automerge::transaction::Transactable;
use syncline_sim::Simulation;
use todo::{List, simulate};

#[test]
fn a_sound_todo_list_holds() {
    assert_eq!(simulate(List::Made, 25), None);
}

#[test]
fn the_bug_in_the_lazy_todo_list_is_found_and_its_story_is_short() {
    let failure = simulate(List::Lazy, 100).expect("the bug is found");
    assert_eq!(failure.check, "every task that was added is there");
    let adds = failure.story.iter().filter(|line| line.contains("does: add")).count();
    assert!(adds <= 3 && failure.story.len() <= 20, "{:#?}", failure.story);
}

#[test]
fn what_must_always_hold_is_checked_on_every_replica() {
    let simulation = Simulation::new(|doc, choices| {
        doc.put(ROOT, "n", choices.below(100) as i64)?;
        Ok("put".to_owned())
    });
    let odd = simulation.always("n is never odd", |doc| {
        let n = automerge::ReadDoc::get(doc, ROOT, "n").ok().flatten().and_then(|(value, _)| value.as_i64());
        if n.unwrap_or(0) % 2 == 0 { Ok(()) } else { Err(format!("{n:?}")) }
    });
    let failure = odd.find(0, 20).expect("somebody puts an odd number");
    assert_eq!(failure.check, "n is never odd");
}

#[test]
fn an_action_that_fails_is_a_failure_and_leaves_the_document_alone() {
    let simulation = Simulation::new(|doc, _| {
        doc.put(ROOT, "half", true)?;
        doc.put(automerge::ObjId::Id(7, automerge::ActorId::from([1]), 0), "n", 1)?;
        Ok("never".to_owned())
    });
    let failure = simulation.find(0, 5).expect("the action fails");
    assert_eq!(failure.check, "actions succeed");
}

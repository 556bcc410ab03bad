//! A todo list under partitions, restarts and merges: its document code, tested in the simulator.
//!
//!     cargo run -p syncline-sim --example todo_simulated             # a list that is made with the document: 300 seeds hold
//!     cargo run -p syncline-sim --example todo_simulated -- lazy     # a list that is made when first needed: the bug is found
//!
//! Owns: the application's functions, a simulation of them. Next: `../src/simulation.rs`; docs/simulator.md.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc};
use syncline_sim::{Choices, Failure, Simulation};

/// Where the list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// It is made with the document.
    Made,
    /// The first who needs it makes it. Two who do so offline make two lists, of which all but one are hidden for good:
    /// this is the bug.
    Lazy,
}

/// The application: one more task.
///
/// # Errors
/// When automerge refuses.
pub(crate) fn add(doc: &mut impl Transactable, title: &str) -> Result<(), AutomergeError> {
    let list = match list(doc)? {
        Some(list) => list,
        None => doc.put_object(ROOT, "tasks", ObjType::List)?,
    };
    let task = doc.insert_object(&list, doc.length(&list), ObjType::Map)?;
    doc.put(&task, "title", title)?;
    doc.put(&task, "done", false)
}

/// The application: a task is done. `None` if there is no task.
///
/// # Errors
/// When automerge refuses.
pub(crate) fn finish(doc: &mut impl Transactable, choices: &mut Choices) -> Result<Option<String>, AutomergeError> {
    let Some(list) = list(doc)? else { return Ok(None) };
    let at = choices.below(doc.length(&list));
    let Some((_, task)) = doc.get(&list, at)? else { return Ok(None) };
    doc.put(&task, "done", true)?;
    title(doc, &task)
}

fn list(doc: &impl ReadDoc) -> Result<Option<ObjId>, AutomergeError> {
    Ok(doc.get(ROOT, "tasks")?.map(|(_, id)| id))
}

fn title(doc: &impl ReadDoc, task: &ObjId) -> Result<Option<String>, AutomergeError> {
    Ok(doc.get(task, "title")?.and_then(|(value, _)| value.as_str().map(str::to_owned)))
}

fn titles(doc: &Automerge) -> Result<Vec<String>, AutomergeError> {
    let Some(list) = list(doc)? else { return Ok(Vec::new()) };
    (0..doc.length(&list))
        .filter_map(|at| doc.get(&list, at).transpose())
        .map(|found| {
            let (_, task) = found?;
            Ok(title(doc, &task)?.unwrap_or_default())
        })
        .collect()
}

fn act(doc: &mut AutoCommit, choices: &mut Choices) -> Result<String, AutomergeError> {
    if choices.below(3) == 0 {
        let finished = finish(doc, choices)?;
        return Ok(format!("finish {}", finished.unwrap_or_default()));
    }
    let title = format!("task {:x}", choices.unique());
    add(doc, &title)?;
    Ok(format!("add {title}"))
}

fn all_that_was_added_is_there(doc: &Automerge, done: &[String]) -> Result<(), String> {
    let there = titles(doc).map_err(|error| error.to_string())?;
    let mut added = done.iter().filter_map(|deed| deed.strip_prefix("add "));
    added.find(|title| !there.iter().any(|other| other == title)).map_or(Ok(()), |lost| Err(format!("lost: {lost}")))
}

/// Plays seeds of the list; the first failure.
pub(crate) fn simulate(list: List, seeds: u64) -> Option<Failure> {
    let mut simulation =
        Simulation::new(act).finally("every task that was added is there", all_that_was_added_is_there);
    if list == List::Made {
        simulation = simulation.begin(|doc| doc.put_object(ROOT, "tasks", ObjType::List).map(drop));
    }
    simulation.find(0, seeds)
}

// The test beside it plays both lists itself.
#[allow(dead_code)]
fn main() {
    let lazy = std::env::args().nth(1).is_some_and(|argument| argument == "lazy");
    let list = if lazy { List::Lazy } else { List::Made };
    match simulate(list, 300) {
        None => println!("300 seeds hold"),
        Some(Failure { seed, check, detail, story }) => {
            println!("seed {seed}: {check}: {detail}\n{}", story.join("\n"));
        }
    }
}

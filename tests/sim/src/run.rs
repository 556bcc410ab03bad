//! One scenario, from its beginning to its outcome.
//!
//! Owns: catching panics. Must not: decide what is wrong. Next: `world.rs`, `campaign.rs`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use crate::log::{Coverage, Log};
use crate::mesh;
use crate::oracle::{Checked, Violation};
use crate::scenario::{Scenario, Tier};
use crate::subject::Subject;
use crate::world::World;

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was wrong, if anything.
    pub violation: Option<Violation>,
    /// A hash of everything that went in and out of every node, in order.
    pub digest: u64,
    /// What was done and seen, for a reader; empty unless asked for.
    pub trace: Vec<String>,
    pub(crate) coverage: Coverage,
}

/// Plays a scenario.
#[must_use]
pub fn run(scenario: &Scenario, traced: bool) -> Outcome {
    run_subject(scenario, None, traced)
}

/// Plays a scenario in which replicas do what a subject says.
pub(crate) fn run_subject(scenario: &Scenario, subject: Option<&Arc<Subject>>, traced: bool) -> Outcome {
    quiet_panics();
    if scenario.tier == Tier::Mesh {
        let mut world = mesh::World::new(scenario, traced);
        let played = catch_unwind(AssertUnwindSafe(|| world.play(&scenario.actions)));
        return outcome(played, world.log);
    }
    let mut world = World::new(scenario, traced);
    world.subject = subject.map(Arc::clone);
    let played = catch_unwind(AssertUnwindSafe(|| world.play(&scenario.actions)));
    outcome(played, world.log)
}

fn outcome(played: std::thread::Result<Checked>, mut log: Log) -> Outcome {
    let violation = match played {
        Ok(checked) => checked.err(),
        Err(_) => {
            let detail = LAST_PANIC.with(RefCell::take).unwrap_or_default();
            Some(Violation { checker: "nothing panics", detail })
        }
    };
    let trace = log.take_trace();
    Outcome { violation, digest: log.digest(), trace, coverage: std::mem::take(&mut log.coverage) }
}

/// Plays a scenario in its text form, as a failure is kept.
///
/// # Panics
/// When the text is no scenario or something is wrong; the message has the trace.
pub fn replay(text: &str) {
    let scenario: Scenario = text.parse().expect("the text of a scenario");
    let outcome = run(&scenario, true);
    if let Some(Violation { checker, detail }) = outcome.violation {
        panic!("{}\n{checker}: {detail}", outcome.trace.join("\n"));
    }
}

/// Panics on this thread become outcomes; what they say is kept and not printed.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name.starts_with(crate::campaign::WORKER)) {
                LAST_PANIC.with(|last| *last.borrow_mut() = Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

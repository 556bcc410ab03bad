//! A deterministic simulator of Syncline.
//!
//! The hubs, sessions, graphs and sync messages that ship run here in one thread, over simulated links, disks and
//! clocks, against stock automerge clients and a hostile peer. A scenario is drawn from one seed, is a list of
//! actions and nothing else, and can be replayed and shrunk. docs/simulator.md says how to run it and how to add to it.
//!
//! Authors of applications want [`Simulation`]: it plays their own document code in the same world.
//!
//! Reading order: [`Scenario`] is what happens, `action` its parts; `world` plays it with `machine`, `client`, `disk`
//! and `image`; `real` is the store that ships, on a disk
//! that fails; `mesh` plays members of a mesh instead; `oracle` knows what is true; `world/quiet.rs` says what must hold in the end; [`mod@run`] plays one
//! scenario, [`campaign`] many, [`shrink()`] makes a failing one small, [`small`] tries all of a small world.

mod action;
mod app;
pub mod campaign;
mod client;
mod content;
mod dag;
mod disk;
mod image;
mod log;
mod machine;
mod mesh;
mod oracle;
pub mod planted;
mod random;
mod real;
pub mod run;
mod scenario;
mod shares;
pub mod shrink;
mod simulation;
pub mod small;
mod subject;
mod undo;
mod world;

pub use action::Kind;
pub use oracle::Violation;
pub use run::{Outcome, replay, run};
pub use scenario::{Scenario, Tier};
pub use shrink::shrink;
pub use simulation::{Failure, Simulation};
pub use subject::Choices;

// The encoder that refuses nothing, as the engine's own tests use it, with parts that only they need.
#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../../crates/core/tests/support/forge.rs"]
mod forge;

// The client's own account of what is not saved: the shipped file, of which some questions are not asked here.
#[allow(dead_code)]
#[path = "../../../crates/client/src/journal.rs"]
mod journal;

// The client's undo, as it ships.
#[path = "../../../crates/client/src/reverse.rs"]
mod reverse;

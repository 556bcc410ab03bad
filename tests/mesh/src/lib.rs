//! Many members of a mesh on a simulated network, disk and time.
//!
//! What runs is what ships: the overlay and the membership of `syncline-gossip`, the hub, the sessions and the frames of
//! `syncline-core`. Simulated are links (latency, loss, partitions), processes (kills and restarts), the disk (it keeps
//! what was committed) and time. Equal plans give equal outcomes.
//!
//! Reading order: [`plan`] what is played, `disk`, `node` one replica, `network` the links, [`world`] all of it,
//! [`outcome`] what came of it.

mod disk;
mod network;
mod node;
pub mod outcome;
pub mod plan;
pub mod world;

pub use outcome::{Outcome, Sample};
pub use plan::{Plan, Split};
pub use world::play;

//! Many members of a mesh on a simulated network, disk and time.
//!
//! What runs is what ships: the overlay and the membership of `syncline-gossip`, the hub, the sessions and the frames of
//! `syncline-core`. Simulated are links (latency, loss, partitions), processes (kills and restarts), the disk (it keeps
//! what was committed) and time. Equal plans give equal outcomes.
//!
//! Reading order: [`plan`] what is played, [`disk`], [`node`] one replica, `network` the links, [`world`] all of it,
//! [`outcome`] what came of it. `tests/sim` plays the same nodes under faults that are drawn, kept and made short.

pub mod disk;
mod network;
pub mod node;
pub mod outcome;
pub mod plan;
pub mod world;

pub use disk::Disk;
pub use node::{Act, Node, Setup};
pub use outcome::{Outcome, Sample};
pub use plan::{Plan, Split};
pub use world::play;

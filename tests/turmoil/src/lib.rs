//! The whole server over simulated TCP.
//!
//! A real server, store and all, and stock automerge clients over real websockets, in one thread and in simulated time,
//! on a network (crate `turmoil`) whose links are cut, cut one way, held and slow, while the server dies and starts
//! again. The plan comes from one seed. docs/simulator.md, "T3", says what is checked.
//!
//! Reading order: `plan` is what will happen, `world` lets it happen and checks the end, `server` and `client` are who it
//! happens to.

mod client;
mod plan;
mod server;
mod world;

pub use plan::{Fault, Plan};
pub use world::{Outcome, play};

// The frames of the protocol, as the clients of the chaos tests write them.
#[path = "../../chaos/src/frame.rs"]
mod frame;

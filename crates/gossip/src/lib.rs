//! The overlay of a Syncline mesh, without a socket, a clock or a store.
//!
//! Reading order: [`key`] what members share, [`message`] what they say, `views` whom they know and are connected to
//! (HyParView), [`broadcast`] who hears a notice next (PlumTree), [`overlay`] the three together: connections, bytes and
//! time in, ordered outputs out. [`notice`] is what a notice says, [`membership`] what a replica does in a mesh: it
//! stands between one overlay and the hubs.
//!
//! Equal seeds and inputs give equal outputs. docs/protocol.md §11 has the bytes, docs/gossip.md is for users.

pub mod broadcast;
mod bucket;
pub mod config;
pub mod key;
pub mod membership;
pub mod message;
pub mod notice;
pub mod overlay;
mod random;
mod views;

pub use config::Config;
pub use key::MeshKey;
pub use membership::Membership;
pub use message::{Address, Member, NoticeId};
pub use overlay::{Moment, Overlay};

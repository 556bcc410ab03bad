//! The sans-IO engine of Syncline.
//!
//! Messages, commands, storage results and time go in; ordered outputs come out. Nothing here reads a clock, draws
//! randomness, touches a socket or a disk, so the code that ships is the code that a simulator runs.
//!
//! Reading order: [`id`] and [`clock`] name things, [`chunk`] and [`change`] turn hostile bytes into validated changes,
//! [`graph`] is what a replica knows of a document, [`sync`] agrees on one document with one peer, [`hub`] does so
//! for all documents and peers, [`session`] speaks with one socket, [`wire`] is the byte format of that speech,
//! [`native`] what Syncline replicas add to it, [`life`] says which documents are deleted, [`blob`]
//! are attachments and how they travel, [`reconcile`] finds what differs between two large sets, [`collection`] does so with
//! the documents of two replicas, [`storage`] is the seam to a
//! store, [`loader`] to whoever builds whole documents, [`file`](mod@file) takes saved ones apart, and [`limits`] bounds all of it.

// A test's helper panics on whatever it did not expect.
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm))]

pub mod access;
pub mod authored;
pub mod blob;
mod bucket;
pub mod change;
pub mod chunk;
pub mod clock;
pub mod collection;
pub mod document;
pub mod file;
pub mod graph;
pub mod hub;
pub mod id;
pub mod life;
pub mod limits;
pub mod loader;
pub mod native;
pub mod reconcile;
pub mod session;
pub mod storage;
pub mod subject;
pub mod sync;
pub mod wire;

pub use automerge::ChangeHash;

// The encoder that refuses nothing, shared with the crate's integration tests, which use the rest of it.
#[cfg(test)]
#[allow(dead_code, unreachable_pub)]
#[path = "../tests/support/forge.rs"]
mod forge;

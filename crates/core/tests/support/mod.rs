//! What several tests of this crate share.
//!
//! Owns: changes that no honest client makes, and histories that honest ones do. Must not: assert anything.
//! Next: `forge.rs`, `authors.rs`.

// Each test binary compiles its own copy and uses a part of it; nothing outside of the binary can reach it.
#![allow(dead_code, unreachable_pub)]

pub mod authors;
pub mod forge;

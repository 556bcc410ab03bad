//! What the end-to-end tests share: servers and browsers as processes, raw peers, honest peers, forged input.
//!
//! Owns: every process that a test starts, and its end.
//! Must not: know anything of the server but its command line, its socket, `/health` and `/metrics`.
//! Next: `server.rs`; `../tests/javascript.rs`.
//!
//! The crate depends on no other crate of the workspace: an encoder shared with the server would agree with its
//! mistakes.

mod browser;
mod chromium;
mod forge;
mod frame;
mod honest;
pub mod http;
mod raw;
mod server;
pub mod token;

pub use browser::{Browser, Document, Found, PackageSet, Page, Pending};
pub use chromium::{Chromium, Window};
pub use forge::{BloomFilter, SyncMessage, chunk, compressed_chunk, forged_change, run_length_bomb};
pub use frame::{Frame, FrameError, Item};
pub use honest::{HonestPair, HonestPeer};
pub use raw::{Aftermath, RawPeer, Received};
pub use server::{DataDirectory, Response, Server};

use std::time::Duration;

/// The longest that a test waits for anything. Generous, since it only decides how long a failure takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Says that a test did not run and what would make it run; fails instead where everything is required.
///
/// # Panics
/// When `SYNCLINE_REQUIRE_ALL` is set, as in continuous integration.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("SYNCLINE_REQUIRE_ALL").is_none(), "SYNCLINE_REQUIRE_ALL is set, but: {reason}");
    println!("skipped: {reason}");
}

//! Breaks a real `syncline-server` in every way that can be arranged, and checks that it kept its word.
//!
//! Owns: servers as processes, clients on real sockets, the faults between them, the history, the verdict.
//! Must not: share code with what it tests; it knows the command line, the socket and the directory, nothing else.
//! Next: `campaign.rs`; docs/chaos.md.
//!
//! Reading order: `history` is what happened, `checker` what may not have happened; `frame`, `chunk` and `client` are
//! the clients, `proxy` and `network` the links, `server` the process, `world` all of them together; `rounds`, `strangers`, `expiry` and
//! `disk_rounds` are the faults, `campaign` draws them and counts.

pub mod campaign;
pub mod checker;
mod chunk;
mod client;
mod clock;
mod disk_rounds;
mod expiry;
mod frame;
pub mod history;
mod network;
mod proxy;
mod reader;
mod rounds;
mod rules;
mod server;
mod session;
mod strangers;
mod world;

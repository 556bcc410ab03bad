//! The Syncline sync server as a library: one port for websockets, health, metrics, blobs and pages.
//!
//! Reading order: [`server`] listens and stops, `routes` answers HTTP and upgrades websockets,
//! `blobs` reads and takes blobs, [`access`] says who may, `door` counts connections, `tls` encrypts them, `room` looks at
//! the disk, `expiry` for documents that nobody touches, `pages` are for those who run the server, `api` is for programs that
//! do not sync, `presence` remembers for them what peers said of themselves, [`care`] moves documents in
//! and out of a store that no server uses.

pub mod access;
mod api;
mod blobs;
pub mod care;
mod door;
mod expiry;
pub mod fetch;
mod files;
mod pages;
mod presence;
mod room;
mod routes;
pub mod server;
mod tls;
pub mod webhooks;

pub use door::{Doors, Network};
pub use room::Room;
pub use server::{Config, Server, ServerError, Settings};
pub use tls::{TlsError, TlsFiles};

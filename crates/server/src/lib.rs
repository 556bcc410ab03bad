//! The Syncline sync server as a library: one port for websockets, health, metrics, blobs and a status page.
//!
//! Reading order: [`server`] listens and stops, `routes` answers HTTP and upgrades websockets,
//! `blobs` reads and takes blobs, [`access`] says who may, `door` counts connections, `tls` encrypts them, `room` looks at
//! the disk, `page` draws the page.

pub mod access;
mod blobs;
mod door;
mod files;
mod page;
mod room;
mod routes;
pub mod server;
mod tls;

pub use door::{Doors, Network};
pub use room::Room;
pub use server::{Config, Server, ServerError};
pub use tls::{TlsError, TlsFiles};

//! The Syncline sync server as a library: one port for websockets, health, metrics, blobs and a status page.
//!
//! Reading order: [`server`] listens and stops, `routes` answers HTTP and upgrades websockets,
//! `blobs` reads and takes blobs, [`access`] says who may, `page` draws the page.

pub mod access;
mod blobs;
mod page;
mod routes;
pub mod server;

pub use server::{Config, Server, ServerError};

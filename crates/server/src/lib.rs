//! The Syncline sync server as a library: one port for websockets, health, metrics, blobs and pages.
//!
//! Reading order: [`server`] listens and stops, `routes` answers HTTP and upgrades websockets,
//! `blobs` reads and takes blobs, [`access`] says who may, `pages` are for those who run the server, `api` is for
//! programs that do not sync, [`care`] moves documents in and out of a store that no server uses.

pub mod access;
mod api;
mod blobs;
pub mod care;
mod fetch;
mod pages;
mod routes;
pub mod server;
pub mod webhooks;

pub use server::{Config, Server, ServerError};

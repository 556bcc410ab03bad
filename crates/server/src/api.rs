//! The HTTP API for programs that do not sync.
//!
//! Owns: its paths, its errors, what its parts share. Must not: load a document in this process.
//! Next: `api/documents.rs`, `api/content.rs`, `api/changes.rs`; docs/http-api.md.

mod changes;
mod content;
mod documents;
mod edits;
mod error;
mod presence;
mod tickets;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use prometheus_client::metrics::counter::Counter;
use syncline_content::Viewer;
use syncline_replica::Feeds;
use tokio::sync::watch;

use crate::server::Shared;

pub(crate) use documents::{blocking, parse_id, standing};
pub(crate) use edits::Edits;
pub(crate) use error::ApiError;
pub(crate) use tickets::Tickets;
pub(crate) use views::Views;

/// What the parts of the API share.
#[derive(Debug)]
pub(crate) struct Api {
    /// Who loads documents.
    pub(crate) views: Views,
    /// Whose turn it is to edit.
    pub(crate) edits: Edits,
    /// Who waits for what it handed over.
    pub(crate) tickets: Tickets,
    /// Who follows what changes.
    pub(crate) feeds: Arc<Feeds>,
    /// Turns true when those who wait are to end.
    pub(crate) stop: watch::Sender<bool>,
}

impl Api {
    pub(crate) fn new(viewer: Arc<dyn Viewer>, failures: Counter) -> Self {
        let stop = watch::Sender::new(false);
        let views = Views::new(viewer, failures);
        Self { views, edits: Edits::new(), tickets: Tickets::default(), feeds: Arc::default(), stop }
    }

    /// Ends those who wait for changes.
    pub(crate) fn end(&self) {
        self.stop.send_replace(true);
        self.feeds.wake();
    }
}

pub(crate) fn router(body_bytes_max: usize) -> Router<Arc<Shared>> {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/documents", get(documents::list).post(content::create))
        .route("/documents/{id}", get(documents::metadata).delete(documents::delete))
        .route("/documents/{id}/restore", post(documents::restore))
        .route("/documents/{id}/content", get(content::read).patch(content::patch))
        .route("/documents/{id}/automerge", get(content::download).put(content::upload))
        .route("/documents/{id}/history", get(content::history))
        .route("/documents/{id}/presence", get(presence::show))
        .route("/changes", get(changes::since))
        .layer(DefaultBodyLimit::max(body_bytes_max))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("api/openapi.json"))
}

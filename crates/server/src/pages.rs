//! The pages for those who run the server: what goes on, which documents there are, who is behind and why.
//!
//! Owns: their paths, and that only administrators see them. Must not: need anything from elsewhere, or JavaScript.
//! Next: `pages/layout.rs`, one file for each page; docs/operations.md, "Pages".

mod chart;
mod document;
mod documents;
mod history;
mod layout;
mod overview;
mod peers;
mod refusals;
mod series;
mod settings;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::Markup;
use syncline_core::access::Permissions;

use crate::access::caller::Caller;
use crate::server::Shared;

pub(crate) use refusals::Refusals;
pub(crate) use series::Series;

/// What the pages remember between two looks.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// What peers did that was not taken.
    pub(crate) refusals: Refusals,
    /// What was counted in the last minutes.
    pub(crate) series: Series,
}

/// Every page but the first, which shares its path with the websocket.
pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/live", get(live))
        .route("/documents", get(documents::show))
        .route("/documents/{id}", get(document::show))
        .route("/peers", get(peers::show))
        .route("/refused", get(refusals::show))
        .route("/settings", get(settings::show))
}

/// The first page.
pub(crate) async fn overview(shared: &Shared, caller: &Caller) -> Response {
    page(shared, caller, || overview::show(shared)).await
}

/// What changes on the first page, for its script.
async fn live(State(shared): State<Arc<Shared>>, caller: Caller) -> Response {
    page(&shared, &caller, || overview::live(&shared)).await
}

/// Shows something to administrators.
async fn page(shared: &Shared, caller: &Caller, draw: impl FnOnce() -> Markup) -> Response {
    match caller.needs_everywhere(shared, Permissions::ADMIN).await {
        Ok(()) => Html(draw().into_string()).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

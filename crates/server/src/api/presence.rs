//! Who is at a document at this moment, and what they say of themselves.
//!
//! Owns: the answer's form. Must not: tell of a document that the caller may not read.
//! Next: `../presence.rs`; docs/http-api.md, "Presence".

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use syncline_core::access::Permissions;

use super::documents::{self, permitted};
use super::error::ApiError;
use crate::access::caller::Caller;
use crate::presence::Said;
use crate::server::Shared;

/// Somebody who has said something lately.
#[derive(Debug, Serialize)]
struct Present {
    peer: String,
    /// When they last did, by this server's clock, milliseconds since 1970.
    seen_ms: u64,
    /// What they say of themselves, by channel, in the words of automerge-repo's Presence.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Map<String, Value>>,
    /// The last other message that they sent, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Everybody who has said something lately at the document.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let document = permitted(&shared, &caller, &id, Permissions::READ).await?;
    documents::standing(&shared, &document).await?;
    let peers: Vec<Present> = shared.presence.at(&document).into_iter().map(present).collect();
    let answer = Json(serde_json::json!({ "peers": peers }));
    Ok(([(header::CACHE_CONTROL, "private, no-store")], answer).into_response())
}

fn present((peer, said): (String, Said)) -> Present {
    let value = |text: String| serde_json::from_str(&text).unwrap_or_default();
    let state = said.channels.map(|channels| channels.into_iter().map(|(name, text)| (name, value(text))).collect());
    let message = said.message.map(|bytes| STANDARD.encode(bytes));
    Present { peer, seen_ms: said.seen_ms, state, message }
}

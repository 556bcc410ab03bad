//! Which documents there are, and their deletion.
//!
//! Owns: the list, what is known of a document without loading it. Must not: tell of one that the caller may not read.
//! Next: `content.rs`; docs/http-api.md, docs/deletion.md.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use syncline_core::ChangeHash;
use syncline_core::access::Permissions;
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_core::storage::{Standing, Summary};
use syncline_store::{LifeEntry, StoreError};

use super::error::ApiError;
use crate::access::caller::Caller;
use crate::server::Shared;

/// Documents in an answer, unless the caller asks for fewer, and at most.
pub(super) const LIMIT: usize = 100;
pub(super) const LIMIT_MAX: usize = 1_000;

/// Documents looked at for one answer: a prefix that few have, or rights to few, end it early with a cursor.
const LOOKED_AT_MAX: usize = 20_000;

/// A document, as far as it is known without being loaded.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    id: String,
    url: String,
    heads: Vec<String>,
    changes: u32,
    /// Of all changes, uncompressed.
    bytes: u64,
    /// The place of its last change among all; missing for a document without changes.
    stamp: Option<String>,
    /// When that was by this server's clock, milliseconds since 1970.
    changed_ms: Option<u64>,
    deleted: bool,
    /// Whether the content of a deleted document is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    purged: bool,
}

impl Entry {
    fn new(id: &DocumentId, summary: Option<&Summary>, life: Option<&LifeEntry>) -> Self {
        let heads = summary.map(|summary| summary.heads.iter().map(ChangeHash::to_string).collect());
        Self {
            id: id.to_string(),
            url: format!("automerge:{id}"),
            heads: heads.unwrap_or_default(),
            changes: summary.map_or(0, |summary| summary.changes),
            bytes: summary.map_or(0, |summary| summary.bytes),
            stamp: summary.map(|summary| summary.last_stamp.as_u64().to_string()),
            changed_ms: summary.map(|summary| summary.last_stamp.millis()),
            deleted: life.is_some_and(|entry| entry.life.deleted),
            purged: life.is_some_and(|entry| entry.purged),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
    prefix: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    documents: Vec<Entry>,
    /// What `after` is to be for more; missing at the end.
    next: Option<String>,
}

/// The documents that the caller may read, in the order of the bytes of their ids.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<List>, ApiError> {
    // Before the store is read for whoever asks.
    caller.needs_somewhere(&shared, Permissions::READ)?;
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let prefix = query.prefix.unwrap_or_default().into_bytes();
    let mut after = query.after.as_deref().map(parse_id).transpose()?;
    let mut documents = Vec::new();
    let mut looked_at = 0;
    loop {
        let (store, from) = (shared.replica.store().clone(), after.clone());
        let page = blocking(move || store.documents(from.as_ref(), LIMIT_MAX)).await?;
        let is_last = page.len() < LIMIT_MAX;
        for (id, summary) in page {
            looked_at += 1;
            let is_wanted = id.as_bytes().starts_with(&prefix);
            if is_wanted && caller.may(&shared, &id).await.include(Permissions::READ) {
                documents.push(Entry::new(&id, Some(&summary), None));
            }
            after = Some(id);
            if documents.len() == limit || looked_at == LOOKED_AT_MAX {
                let next = after.map(|id| id.to_string());
                return Ok(Json(List { documents, next }));
            }
        }
        if is_last {
            return Ok(Json(List { documents, next: None }));
        }
    }
}

/// What is known of one document.
pub(super) async fn metadata(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Entry>, ApiError> {
    let id = permitted(&shared, &caller, &id, Permissions::READ).await?;
    let (store, document) = (shared.replica.store().clone(), id.clone());
    let (standing, life) =
        blocking(move || Ok::<_, StoreError>((store.standing(&document)?, store.life(&document)?))).await?;
    if standing.summary.is_none() && life.is_none() {
        return Err(ApiError::NotFound);
    }
    Ok(Json(Entry::new(&id, standing.summary.as_ref(), life.as_ref())))
}

/// Deletes a document: peers hear of it, and it can be restored for a while.
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    set_life(&shared, &caller, &id, true).await
}

/// Takes a deletion back.
pub(super) async fn restore(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    set_life(&shared, &caller, &id, false).await
}

async fn set_life(shared: &Shared, caller: &Caller, id: &str, deleted: bool) -> Result<StatusCode, ApiError> {
    let document = permitted(shared, caller, id, Permissions::DELETE).await?;
    let (store, of) = (shared.replica.store().clone(), document.clone());
    let Standing { summary, life, .. } = blocking(move || store.standing(&of)).await?;
    let was_deleted = life.is_some_and(|life| life.deleted);
    if summary.is_none() && life.is_none() {
        return Err(ApiError::NotFound);
    }
    if was_deleted != deleted {
        shared.api.tickets.wait(|| shared.replica.set_life(&document, deleted)).await?;
        tracing::info!(%document, subject = caller.access.subject.as_deref(), deleted, "decided over HTTP");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The document that is meant, if the caller may do this with it.
pub(super) async fn permitted(
    shared: &Shared,
    caller: &Caller,
    id: &str,
    wanted: Permissions,
) -> Result<DocumentId, ApiError> {
    let document = parse_id(id)?;
    require(shared, caller, &document, wanted).await?;
    Ok(document)
}

/// Refuses those who may not do this. A document that they may not read is answered as one that is not there.
pub(super) async fn require(
    shared: &Shared,
    caller: &Caller,
    document: &DocumentId,
    wanted: Permissions,
) -> Result<(), ApiError> {
    if caller.may(shared, document).await.include(Permissions::READ) {
        return Ok(caller.needs(shared, document, wanted).await?);
    }
    shared.replica.metrics().refuse("http_not_permitted");
    Err(ApiError::NotFound)
}

/// A document's state, if it is here and not deleted.
pub(crate) async fn standing(shared: &Shared, document: &DocumentId) -> Result<Summary, ApiError> {
    let (store, of) = (shared.replica.store().clone(), document.clone());
    let standing = blocking(move || store.standing(&of)).await?;
    if standing.life.is_some_and(|life| life.deleted) {
        return Err(ApiError::Deleted);
    }
    standing.summary.filter(|summary| summary.changes > 0).ok_or(ApiError::NotFound)
}

pub(crate) fn parse_id(text: &str) -> Result<DocumentId, ApiError> {
    let id = text.strip_prefix("automerge:").unwrap_or(text);
    id.parse().map_err(|error| ApiError::Bad(format!("{text:?} is no document id: {error}")))
}

pub(super) fn parse_stamp(text: &str) -> Result<Stamp, ApiError> {
    let packed = text.parse().map_err(|_| ApiError::Bad(format!("{text:?} is no stamp: it is a decimal number")))?;
    Ok(Stamp::from_u64(packed))
}

/// Runs what blocks on the disk.
pub(crate) async fn blocking<T: Send + 'static, E: Into<ApiError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

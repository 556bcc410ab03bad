//! Reading and changing what a document holds.
//!
//! Owns: versions, entity tags, the two patch languages' names, the order of patches of one document.
//! Must not: load a document; `views.rs` has that done. Next: `views.rs`, the crate `syncline-content`; docs/http-api.md.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use syncline_content::{Answer, At, Edit, Question};
use syncline_core::ChangeHash;
use syncline_core::access::Permissions;
use syncline_core::change::Change;
use syncline_core::file::{self, Contents, FileError};
use syncline_core::id::DocumentId;
use syncline_core::storage::Summary;

use super::documents::{self, LIMIT, LIMIT_MAX, blocking, permitted};
use super::error::ApiError;
use crate::access::caller::Caller;
use crate::server::Shared;

const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const AUTOMERGE: &str = "application/octet-stream";

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    heads: Option<String>,
    at: Option<i64>,
}

/// The document's values.
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(version): Query<Version>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let document = permitted(&shared, &caller, &id, Permissions::READ).await?;
    let summary = documents::standing(&shared, &document).await?;
    let (at, tag) = match (version.heads, version.at) {
        (None, None) => (At::Now, Some(tag_of(&summary.heads))),
        (Some(heads), None) => (At::Heads(heads.split(',').map(str::to_owned).collect()), None),
        (None, Some(time_s)) => (At::Time(time_s), None),
        (Some(_), Some(_)) => return Err(ApiError::Bad("either heads or at, not both".to_owned())),
    };
    if tag.as_ref().is_some_and(|tag| names(&headers, &header::IF_NONE_MATCH, tag)) {
        return Ok((StatusCode::NOT_MODIFIED, tag.map(|tag| [(header::ETAG, tag)]), ()).into_response());
    }
    let answer = ask(&shared, document, &summary, Question::Values { at }).await?;
    let tag = tag.map(|tag| [(header::ETAG, tag)]);
    Ok((tag, answer).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    skip: Option<usize>,
    limit: Option<usize>,
}

/// The document's changes, the newest first.
pub(super) async fn history(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Response, ApiError> {
    let document = permitted(&shared, &caller, &id, Permissions::READ).await?;
    let summary = documents::standing(&shared, &document).await?;
    let limit = page.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    ask(&shared, document, &summary, Question::History { skip: page.skip.unwrap_or(0), limit }).await
}

/// The document as a file.
pub(super) async fn download(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let document = permitted(&shared, &caller, &id, Permissions::READ).await?;
    let summary = documents::standing(&shared, &document).await?;
    let tag = tag_of(&summary.heads);
    let name = format!("attachment; filename=\"{document}.automerge\"");
    let answer = ask(&shared, document, &summary, Question::Save).await?;
    Ok(([(header::ETAG, tag), (header::CONTENT_DISPOSITION, name)], answer).into_response())
}

async fn ask(
    shared: &Shared,
    document: DocumentId,
    summary: &Summary,
    question: Question,
) -> Result<Response, ApiError> {
    let answer = shared.api.views.ask(shared.replica.store(), (document, summary.last_stamp), question).await?;
    let (kind, body) = match answer {
        Answer::Json(text) => ("application/json", text),
        Answer::Saved(bytes) => (AUTOMERGE, bytes),
        Answer::Edited { .. } => return Err(ApiError::Failed("an answer to another question".to_owned())),
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, no-cache")];
    Ok((headers, body).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct Purpose {
    message: Option<String>,
}

/// Changes a document.
pub(super) async fn patch(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(purpose): Query<Purpose>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let document = permitted(&shared, &caller, &id, Permissions::WRITE).await?;
    let edit = edit_of(&headers, &body)?;
    let _turn = shared.api.edits.turn(&document).await;
    let summary = documents::standing(&shared, &document).await?;
    let expected = headers.contains_key(header::IF_MATCH);
    if expected && !names(&headers, &header::IF_MATCH, &tag_of(&summary.heads)) {
        return Err(ApiError::NotAsExpected);
    }
    let question = question_of(&shared, &caller, edit, purpose.message, false);
    let answer = shared.api.views.ask(shared.replica.store(), (document.clone(), summary.last_stamp), question).await?;
    let (heads, changed) = commit_edit(&shared, &caller, &document, answer).await?;
    let tag = [(header::ETAG, tag_of(&heads))];
    let heads: Vec<String> = heads.iter().map(ChangeHash::to_string).collect();
    Ok((tag, Json(json!({ "heads": heads, "changed": changed }))).into_response())
}

/// Makes a document of a JSON object, or of a file.
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let document = DocumentId::from_bytes(uuid::Uuid::new_v4().as_bytes());
    let document = document.map_err(|error| ApiError::Failed(error.to_string()))?;
    if !caller.may(&shared, &document).await.include(Permissions::CREATE) {
        // Nobody has a right to an id that was drawn just now but who has it to all.
        caller.needs_everywhere(&shared, Permissions::CREATE).await?;
    }
    if kind_of(&headers) == AUTOMERGE {
        merge_file(&shared, &caller, &document, body).await?;
    } else if kind_of(&headers) == "application/json" {
        let content: Value = parse(&body)?;
        let Value::Object(entries) = content else {
            return Err(ApiError::Bad("a document is a JSON object".to_owned()));
        };
        let edit = Edit::creating(entries);
        let answer = shared.api.views.ask_of_nothing(question_of(&shared, &caller, edit, None, true)).await?;
        commit_edit(&shared, &caller, &document, answer).await?;
    } else {
        return Err(ApiError::UnknownKind("application/json or application/octet-stream"));
    }
    let summary = documents::standing(&shared, &document).await?;
    let place = [(header::LOCATION, format!("/api/documents/{document}")), (header::ETAG, tag_of(&summary.heads))];
    let heads: Vec<String> = summary.heads.iter().map(ChangeHash::to_string).collect();
    let body = json!({ "id": document.to_string(), "url": format!("automerge:{document}"), "heads": heads });
    Ok((StatusCode::CREATED, place, Json(body)).into_response())
}

/// Merges a file into a document, which need not be there.
pub(super) async fn upload(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let id = documents::parse_id(&id)?;
    let there = match documents::standing(&shared, &id).await {
        Ok(_) => true,
        Err(ApiError::NotFound) => false,
        // Whether it is deleted is told only to those who may read it.
        Err(error) => {
            documents::require(&shared, &caller, &id, Permissions::READ).await?;
            return Err(error);
        }
    };
    let wanted = if there { Permissions::WRITE } else { Permissions::CREATE };
    documents::require(&shared, &caller, &id, wanted).await?;
    merge_file(&shared, &caller, &id, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is brought over HTTP needs room as what peers bring does.
fn needs_room(shared: &Shared) -> Result<(), ApiError> {
    if shared.replica.has_room() {
        return Ok(());
    }
    shared.replica.metrics().refuse("no_room");
    Err(ApiError::NoRoom)
}

async fn merge_file(shared: &Shared, caller: &Caller, document: &DocumentId, file: Bytes) -> Result<(), ApiError> {
    needs_room(shared)?;
    let (loader, limits) = (shared.replica.store().loader(), shared.replica.limits().clone());
    let contents = blocking(move || {
        file::read(&file, &limits, &*loader).map_err(|error| match &error {
            FileError::Load(load) if !load.concerns_document() => ApiError::Failed(error.to_string()),
            FileError::Chunk(_) | FileError::Change(_) | FileError::Load(_) => {
                ApiError::Bad(format!("the file cannot be read: {error}"))
            }
        })
    });
    let Contents { changes, left_out } = contents.await?;
    if left_out > 0 {
        return Err(ApiError::Bad(format!("{left_out} changes in the file stand on changes that are not in it")));
    }
    if changes.is_empty() {
        return Err(ApiError::Bad("the file has no changes".to_owned()));
    }
    hand_over(shared, caller, document, changes).await
}

/// What is kept of those who write is kept of callers too.
async fn hand_over(
    shared: &Shared,
    caller: &Caller,
    document: &DocumentId,
    changes: Vec<Change>,
) -> Result<(), ApiError> {
    let change = || match caller.access.author() {
        Some(subject) => shared.replica.change_on_behalf(subject, document.clone(), changes),
        None => shared.replica.change(document.clone(), changes),
    };
    shared.api.tickets.wait(change).await
}

async fn commit_edit(
    shared: &Shared,
    caller: &Caller,
    document: &DocumentId,
    answer: Answer,
) -> Result<(Vec<ChangeHash>, bool), ApiError> {
    let Answer::Edited { change, heads } = answer else {
        return Err(ApiError::Failed("an answer to another question".to_owned()));
    };
    let Some(bytes) = change else { return Ok((heads, false)) };
    needs_room(shared)?;
    let change = Change::decode(bytes, &shared.replica.limits()).map_err(|error| ApiError::Bad(error.to_string()))?;
    hand_over(shared, caller, document, vec![change]).await?;
    Ok((heads, true))
}

/// A caller writes as one actor as long as the server runs.
fn question_of(shared: &Shared, caller: &Caller, edit: Edit, message: Option<String>, even_if_empty: bool) -> Question {
    let author = caller.access.subject.as_deref().map(str::to_owned);
    let actor = Sha256::new_with_prefix(shared.api.edits.seed).chain_update(author.as_deref().unwrap_or_default());
    let actor = actor.finalize()[..16].to_vec();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    Question::Edit { edit, author, actor, message, time_s, even_if_empty }
}

fn edit_of(headers: &HeaderMap, body: &Bytes) -> Result<Edit, ApiError> {
    match kind_of(headers) {
        MERGE_PATCH => Ok(Edit::Merge(parse(body)?)),
        JSON_PATCH => Ok(Edit::Operations(parse(body)?)),
        _ => Err(ApiError::UnknownKind("application/merge-patch+json or application/json-patch+json")),
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Bad(format!("the body cannot be read: {error}")))
}

/// The content type without its parameters.
fn kind_of(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

/// The entity tag of a state.
fn tag_of(heads: &[ChangeHash]) -> String {
    let heads: Vec<String> = heads.iter().map(ChangeHash::to_string).collect();
    format!("\"{}\"", heads.join(","))
}

/// Whether a header names this entity tag, or every one.
fn names(headers: &HeaderMap, name: &header::HeaderName, tag: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    // Tags have commas in them, so a list of tags cannot be split at each.
    values.into_iter().any(|value| value.trim() == "*" || value.contains(tag))
}

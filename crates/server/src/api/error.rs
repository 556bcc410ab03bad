//! What the HTTP API answers when it cannot do what was asked.
//!
//! Owns: kinds and status codes. Must not: tell more about a document than the caller may read.
//! Next: `../api.rs`.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use syncline_content::ContentError;
use syncline_store::StoreError;

use crate::access::caller::Refusal;

/// Seconds after which somebody who was told to wait may come again.
const RETRY_AFTER_S: &str = "1";

/// Why a request is not answered.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// What is asked makes no sense.
    Bad(String),
    /// There is no such document.
    NotFound,
    /// It is deleted.
    Deleted,
    /// A patch or a version that the document does not have.
    Conflict(String),
    /// The document is not what the caller expects.
    NotAsExpected,
    /// A body of a kind that is not known here.
    UnknownKind(&'static str),
    /// The document cannot be loaded within the limits.
    Unshowable(String),
    /// Too many ask at one time, or the server stops.
    Busy,
    /// There is no room on the disk, or in what the server may take of it.
    NoRoom,
    /// A change breaks a rule, which has a short name.
    NotTaken(&'static str, String),
    /// The store failed.
    Failed(String),
    /// Somebody else has decided, as about access.
    Answered(Box<Response>),
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Answered(Box::new(refusal.into_response()))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ContentError> for ApiError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Question(words) => Self::Conflict(words),
            ContentError::Load(error) if error.concerns_document() => Self::Unshowable(error.to_string()),
            ContentError::Load(error) => Self::Failed(error.to_string()),
        }
    }
}

/// For those who ask without HTTP.
impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bad(words)
            | Self::Conflict(words)
            | Self::Unshowable(words)
            | Self::NotTaken(_, words)
            | Self::Failed(words) => f.write_str(words),
            Self::NotFound => f.write_str("there is no such document"),
            Self::Deleted => f.write_str("the document is deleted"),
            Self::NotAsExpected => f.write_str("the document has other heads than expected"),
            Self::UnknownKind(known) => write!(f, "the content type is not {known}"),
            Self::NoRoom => f.write_str("there is no room on the server"),
            Self::Busy => f.write_str("too much is under way, or the store was closed"),
            Self::Answered(response) => write!(f, "refused with {}", response.status()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind, message) = match self {
            Self::Answered(response) => return *response,
            Self::Bad(words) => (StatusCode::BAD_REQUEST, "bad_request", words),
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "not_found", "there is no such document, or it may not be read".to_owned())
            }
            Self::Deleted => (
                StatusCode::GONE,
                "deleted",
                "the document is deleted; POST to its /restore brings it back while its content is kept".to_owned(),
            ),
            Self::Conflict(words) => (StatusCode::CONFLICT, "conflict", words),
            Self::NotAsExpected => (
                StatusCode::PRECONDITION_FAILED,
                "not_as_expected",
                "the document has other heads than If-Match names: read it again".to_owned(),
            ),
            Self::UnknownKind(known) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unknown_content_type",
                format!("the Content-Type must be {known}"),
            ),
            Self::Unshowable(words) => (StatusCode::UNPROCESSABLE_ENTITY, "cannot_be_loaded", words),
            Self::Busy => {
                (StatusCode::SERVICE_UNAVAILABLE, "busy", "too many documents are being loaded: try again".to_owned())
            }
            Self::NoRoom => (
                StatusCode::INSUFFICIENT_STORAGE,
                "no_room",
                "there is no room on the server; everything can be read".to_owned(),
            ),
            Self::NotTaken("subject_bytes_max", words) => {
                (StatusCode::INSUFFICIENT_STORAGE, "subject_bytes_max", words)
            }
            Self::NotTaken(rule, words) => (StatusCode::CONFLICT, rule, words),
            Self::Failed(words) => {
                tracing::error!("a request over HTTP failed: {words}");
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "failed",
                    "the server could not do it, and its log says why".to_owned(),
                )
            }
        };
        let body = Json(json!({ "error": kind, "message": message }));
        let retry = (status == StatusCode::SERVICE_UNAVAILABLE).then_some([(header::RETRY_AFTER, RETRY_AFTER_S)]);
        (status, retry, [(header::CACHE_CONTROL, "no-store")], body).into_response()
    }
}

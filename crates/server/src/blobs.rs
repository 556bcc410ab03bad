//! Blobs over HTTP: reading with ranges, adding, for browsers of any origin.
//!
//! Owns: paths, headers and status codes of `/blobs/{address}`. Must not: hold more than a piece of a blob, or let a
//! browser run what is in one. Next: `routes.rs`, `blobs/headers.rs`; docs/blobs.md, "Over HTTP".

mod headers;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use syncline_core::access::Permissions;
use syncline_core::blob::{BlobHash, BlobStanding, PIECE_BYTES};
use syncline_replica::{Replica, UploadError};
use syncline_store::StoreError;

use crate::access::caller::{Caller, Refusal};
use crate::server::Shared;
use headers::{Disposition, Wanted, wanted_range};

/// Uploads at one time.
pub(crate) const UPLOADS_MAX: usize = 16;

const METHODS: &str = "GET, HEAD, PUT, OPTIONS";

/// What a blob's answer is not: it can be named, kept for ever, and runs nothing.
const IMMUTABLE: &str = "private, max-age=31536000, immutable";
const RUNS_NOTHING: &str = "default-src 'none'; sandbox";

/// Everything that is asked of a blob comes through here: where it is decided whether it may be asked.
pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    Path(address): Path<String>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let permitted = match parts.method {
        Method::OPTIONS => Ok(()),
        _ => permitted(&shared, &mut parts).await,
    };
    let allowed_origin = allowed_origin(&shared, &parts.headers);
    let request = Request::from_parts(parts, body);
    let mut response = match (address.parse::<BlobHash>(), request.method().clone()) {
        (_, Method::OPTIONS) => allow(),
        _ if permitted.is_err() => permitted.err().map(Refusal::into_response).unwrap_or_default(),
        (Err(error), _) => refusal(StatusCode::BAD_REQUEST, &error.to_string()),
        (Ok(hash), Method::GET | Method::HEAD) => read(&shared, hash, request.into_parts().0).await,
        (Ok(hash), Method::PUT) => put(&shared, hash, request).await,
        (Ok(_), _) => {
            let allowed = [(header::ALLOW, METHODS)];
            (allowed, refusal(StatusCode::METHOD_NOT_ALLOWED, "a blob can be read and put")).into_response()
        }
    };
    let headers = response.headers_mut();
    if let Some(origin) = allowed_origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag",
    );
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::CONTENT_SECURITY_POLICY, RUNS_NOTHING);
    response
}

/// A blob belongs to no document: whoever may read some document may read those whose address they know, whoever may write
/// one may add some.
async fn permitted(shared: &Arc<Shared>, parts: &mut Parts) -> Result<(), Refusal> {
    let wanted = if parts.method == Method::PUT { Permissions::WRITE } else { Permissions::READ };
    let caller = Caller::from_request_parts(parts, shared).await?;
    caller.needs_somewhere(shared, wanted)
}

/// The origin whose pages may see the answer.
fn allowed_origin(shared: &Shared, headers: &HeaderMap) -> Option<HeaderValue> {
    if shared.gate.allows_every_origin() {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = headers.get(header::ORIGIN)?;
    origin.to_str().is_ok_and(|origin| shared.gate.allows_origin(origin)).then(|| origin.clone())
}

/// What a browser asks before it sends a request to another origin.
fn allow() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match, If-None-Match, If-Range, Range"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        (header::ALLOW, METHODS),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn refusal(status: StatusCode, words: &str) -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, plain, format!("{words}\n")).into_response()
}

async fn read(shared: &Arc<Shared>, hash: BlobHash, request: Parts) -> Response {
    let standing = match stand(&shared.replica, hash).await {
        Ok(standing) => standing.filter(BlobStanding::is_whole),
        Err(error) => return failed(&error),
    };
    let Some(BlobStanding { size, .. }) = standing else {
        return refusal(StatusCode::NOT_FOUND, "this blob is not here, or not all of it");
    };
    let tag = format!("\"{hash}\"");
    if headers::names(&request.headers, &header::IF_NONE_MATCH, &tag) {
        return ([(header::ETAG, tag), (header::CACHE_CONTROL, IMMUTABLE.to_owned())], StatusCode::NOT_MODIFIED)
            .into_response();
    }
    let (status, range) = match wanted_range(&request.headers, &tag, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let size = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return (size, refusal(StatusCode::RANGE_NOT_SATISFIABLE, "the blob has no such bytes")).into_response();
        }
    };
    let Disposition { media_type, disposition } = Disposition::wanted(request.uri.query().unwrap_or_default());
    let body = match request.method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(content(shared.replica.clone(), hash, range.clone())),
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    let mut set = |name, value: String| HeaderValue::try_from(value).map(|value| headers.insert(name, value)).ok();
    set(header::CONTENT_DISPOSITION, disposition);
    set(header::CONTENT_LENGTH, (range.end - range.start).to_string());
    set(header::ETAG, tag);
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::CACHE_CONTROL, IMMUTABLE.to_owned());
    if status == StatusCode::PARTIAL_CONTENT {
        set(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    response
}

async fn stand(replica: &Replica, hash: BlobHash) -> Result<Option<BlobStanding>, StoreError> {
    let store = replica.store().clone();
    tokio::task::spawn_blocking(move || store.blob(&hash)).await.unwrap_or(Err(StoreError::Closed))
}

/// The bytes of a range, a piece at a time, each read when the one before has been taken. One that cannot be read ends
/// the connection, which the reader notices by the length.
fn content(
    replica: Replica,
    hash: BlobHash,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    stream::try_unfold(range, move |Range { start, end }| {
        let replica = replica.clone();
        async move {
            if start >= end {
                return Ok(None);
            }
            let offset = start - start % PIECE_BYTES as u64;
            let reading = tokio::task::spawn_blocking(move || replica.read_blob(&hash, offset));
            let piece = reading.await.map_err(std::io::Error::other)?.map_err(std::io::Error::other)?;
            let (_, data) = piece.ok_or_else(|| std::io::Error::other("the blob was removed"))?;
            let from = (start - offset) as usize;
            let to = data.len().min((end - offset) as usize);
            if from >= to {
                return Err(std::io::Error::other("the blob is shorter than it was"));
            }
            Ok(Some((data.slice(from..to), offset + to as u64..end)))
        }
    })
}

async fn put(shared: &Arc<Shared>, hash: BlobHash, request: Request) -> Response {
    if !shared.replica.has_room() {
        shared.replica.metrics().refuse("no_room");
        return refusal(StatusCode::INSUFFICIENT_STORAGE, "there is no room on the server");
    }
    let Ok(_permit) = shared.uploads.try_acquire() else {
        shared.replica.metrics().refuse("blob_busy");
        let later = [(header::RETRY_AFTER, "1")];
        let words = format!("at most {UPLOADS_MAX} uploads are taken at one time");
        return (later, refusal(StatusCode::SERVICE_UNAVAILABLE, &words)).into_response();
    };
    let bytes_max = shared.replica.limits().blob_bytes_max;
    if announced(request.headers()).is_some_and(|bytes| bytes > bytes_max) {
        return not_taken(shared, &UploadError::TooLarge { bytes_max });
    }
    let known = match stand(&shared.replica, hash).await {
        Ok(standing) => standing.is_some_and(|standing| standing.is_whole()),
        Err(error) => return failed(&error),
    };
    let stall = shared.replica.limits().blob_stall_timeout;
    let mut body = request.into_body().into_data_stream();
    let mut upload = (!known).then(|| shared.replica.upload_blob());
    let mut bytes = 0;
    loop {
        let data = match next(&mut body, stall).await {
            Ok(Some(data)) => data,
            Ok(None) => break,
            Err(response) => return response,
        };
        bytes += data.len() as u64;
        // What is here already is read to its end all the same: a browser takes an early answer for a failure.
        let taken = match &mut upload {
            Some(upload) => upload.write(&data).await,
            None if bytes > bytes_max => Err(UploadError::TooLarge { bytes_max }),
            None => Ok(()),
        };
        if let Err(error) = taken {
            return not_taken(shared, &error);
        }
    }
    let status = match upload {
        None => StatusCode::OK,
        Some(upload) => match upload.finish(Some(hash)).await {
            Ok(_) => StatusCode::CREATED,
            Err(error) => return not_taken(shared, &error),
        },
    };
    ([(header::ETAG, format!("\"{hash}\""))], refusal(status, "stored")).into_response()
}

/// The next bytes of a body; an answer if it ends early or takes too long.
async fn next(
    body: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
    stall: Duration,
) -> Result<Option<Bytes>, Response> {
    match tokio::time::timeout(stall, body.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(data))) => Ok(Some(data)),
        Ok(Some(Err(_))) => Err(refusal(StatusCode::BAD_REQUEST, "the content ended early")),
        Err(_) => Err(refusal(StatusCode::REQUEST_TIMEOUT, &format!("nothing has come for {stall:?}"))),
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn not_taken(shared: &Shared, error: &UploadError) -> Response {
    let (status, kind) = match error {
        UploadError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "blob_too_large"),
        UploadError::Mismatch { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "blob_mismatch"),
        UploadError::Store(StoreError::BlobsFull | StoreError::DiskFull) => {
            (StatusCode::INSUFFICIENT_STORAGE, "blob_no_room")
        }
        UploadError::Store(error) => return failed(error),
    };
    shared.replica.metrics().refuse(kind);
    refusal(status, &error.to_string())
}

fn failed(error: &StoreError) -> Response {
    tracing::error!("a blob cannot be read or written: {error}");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be read or written; the server's log has more")
}

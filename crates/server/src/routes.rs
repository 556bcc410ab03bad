//! What the server answers over HTTP, and the upgrade to a websocket.
//!
//! Owns: paths, status codes, content types. Must not: know the sync protocol.
//! Next: `page.rs`, `server.rs`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{self, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use syncline_core::access::{Access, Denial, Permissions};
use syncline_replica::Replica;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::access::caller::{self, Caller, Refusal};
use crate::server::{Arrival, Shared};
use crate::{api, blobs, pages};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let body_bytes_max = shared.replica.limits().message_bytes_max;
    Router::new()
        .route("/", get(root))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/blobs/{address}", any(blobs::answer))
        .nest("/api", api::router(body_bytes_max))
        .merge(pages::router())
        .fallback(|| async { (StatusCode::NOT_FOUND, "nothing here; the websocket and the status page are at /\n") })
        .with_state(shared)
}

/// The websocket for those who ask to upgrade, the status page for everyone else.
async fn root(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if asks_for_websocket(&parts.headers) {
        return match entrant(&shared, &parts).await {
            Ok(entrant) => upgrade(&shared, Request::from_parts(parts, body), entrant),
            Err(refusal) => refusal.into_response(),
        };
    }
    match Caller::from_request_parts(&mut parts, &shared).await {
        Ok(caller) => pages::overview(&shared, &caller).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Whether the store takes writes, for load balancers.
async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    let replica = &shared.replica;
    match (replica.store().is_writable(), replica.has_room()) {
        (true, true) => (StatusCode::OK, "ready\n"),
        (true, false) => {
            (StatusCode::SERVICE_UNAVAILABLE, "there is no room: nothing is taken, everything can be read\n")
        }
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the store takes no writes: look at the log\n"),
    }
}

/// What whoever asks for a websocket may do; `None` if they have yet to present something.
async fn entrant(shared: &Shared, parts: &http::request::Parts) -> Result<Option<Access>, Refusal> {
    let origin = parts.headers.get(header::ORIGIN);
    // Whoever is no browser sends none, and could send any.
    if origin.is_some_and(|origin| !origin.to_str().is_ok_and(|origin| shared.gate.allows_origin(origin))) {
        let denial = Denial::Origin;
        if shared.replica.metrics().refuse_aloud(denial.kind()) {
            tracing::warn!(?origin, kind = denial.kind(), "refused: a websocket: {denial}");
        }
        return Err(Refusal::new((StatusCode::FORBIDDEN, format!("{denial}\n"))));
    }
    let token = caller::presented(parts);
    if token.is_none() && shared.gate.restricts() {
        return Ok(None);
    }
    let admitted = shared.replica.authority().authenticate(token.as_ref()).await;
    admitted.map(Some).map_err(|denial| caller::unauthorized(shared, denial))
}

async fn metrics(State(shared): State<Arc<Shared>>, caller: Caller) -> Response {
    if let Err(refusal) = caller.needs_everywhere(&shared, Permissions::ADMIN).await {
        return refusal.into_response();
    }
    let mut text = String::new();
    shared.replica.sample();
    shared.blobs_stored.set(shared.replica.store().blob_bytes().cast_signed());
    match prometheus_client::encoding::text::encode(&mut text, &shared.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    headers.get(header::UPGRADE).is_some_and(is_websocket)
}

fn upgrade(shared: &Arc<Shared>, mut request: Request, entrant: Option<Access>) -> Response {
    let headers = request.headers();
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let supported = [(header::SEC_WEBSOCKET_VERSION, "13")];
        return (StatusCode::UPGRADE_REQUIRED, supported, "websocket version 13 is needed\n").into_response();
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return (StatusCode::BAD_REQUEST, "the header Sec-WebSocket-Key is missing\n").into_response();
    };
    let arrival = request.extensions().get::<Arrival>().cloned();
    let forwarded = arrival.as_ref().map(|arrival| shared.doorkeeper.enter_for(arrival.peer.ip(), headers));
    let counted = match forwarded.transpose() {
        Ok(place) => (arrival.map(|arrival| arrival.place), place.flatten()),
        Err(full) => {
            shared.replica.metrics().refuse(full.kind());
            let later = [(header::RETRY_AFTER, "10")];
            return (StatusCode::SERVICE_UNAVAILABLE, later, format!("{full}\n")).into_response();
        }
    };
    let chosen = caller::subprotocols(headers).find(|name| *name == caller::SUBPROTOCOL).is_some();
    let replica = shared.replica.clone();
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => serve_upgraded(&replica, upgraded, entrant).await,
            Err(error) => tracing::debug!("an upgrade to a websocket failed: {error}"),
        }
        drop(counted);
    });
    let accept = derive_accept_key(key.as_bytes());
    let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    if chosen {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, caller::SUBPROTOCOL);
    }
    response
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(Body::empty())
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Frees the HTTP layer's buffers: an idle websocket keeps nothing but its socket.
async fn serve_upgraded(replica: &Replica, upgraded: Upgraded, entrant: Option<Access>) {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return serve_parts(replica, parts, entrant).await,
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
        Ok(parts) => Box::pin(serve_parts(replica, parts, entrant)).await,
        Err(upgraded) => Box::pin(replica.serve_entrant(TokioIo::new(upgraded), entrant)).await,
    }
}

async fn serve_parts<S>(replica: &Replica, parts: Parts<TokioIo<S>>, entrant: Option<Access>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Parts { io, read_buf, .. } = parts;
    // An empty view of the buffer would keep all of it.
    let early = (!read_buf.is_empty()).then(|| read_buf.to_vec());
    drop(read_buf);
    match early {
        None => replica.serve_entrant(io.into_inner(), entrant).await,
        Some(early) => Box::pin(serve_after(replica, early, io.into_inner(), entrant)).await,
    }
}

/// For a peer that did not wait for the upgrade before it sent frames.
async fn serve_after<S>(replica: &Replica, early: Vec<u8>, stream: S, entrant: Option<Access>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (read, write) = tokio::io::split(stream);
    let read = tokio::io::AsyncReadExt::chain(std::io::Cursor::new(early), read);
    replica.serve_entrant(tokio::io::join(read, write), entrant).await;
}

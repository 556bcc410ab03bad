//! Following what changes: by asking again and again, by waiting, or as a stream of events.
//!
//! Owns: how a place in the order is told and taken up again. Must not: tell of a document that the caller may not read.
//! Next: the replica crate's `feed.rs`; docs/http-api.md, "Following changes".

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use syncline_core::access::Permissions;
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_replica::Follower;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::documents::{LIMIT, LIMIT_MAX, blocking, parse_stamp};
use super::error::ApiError;
use crate::access::caller::Caller;
use crate::server::Shared;

/// Longest that an answer waits for something to tell.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
pub(super) struct Since {
    since: Option<String>,
    limit: Option<usize>,
    wait: Option<u64>,
}

/// A document that has changed.
#[derive(Debug, Serialize)]
struct Changed {
    id: String,
    stamp: String,
    deleted: bool,
}

pub(super) async fn since(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Query(query): Query<Since>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // Before the store is read for whoever asks.
    caller.needs_somewhere(&shared, Permissions::READ)?;
    let wants_stream = headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream");
    let last = headers.get("Last-Event-ID").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let from = match last.or(query.since) {
        Some(text) => parse_stamp(&text)?,
        None if wants_stream => shared.replica.store().highest_stamp(),
        None => Stamp::ZERO,
    };
    let follower = shared.api.feeds.follow(from);
    if wants_stream {
        let told = events(shared, caller, follower);
        return Ok(Sse::new(told).keep_alive(KeepAlive::default()).into_response());
    }
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let wait = query.wait.map(Duration::from_secs).unwrap_or_default().min(WAIT_MAX);
    page(&shared, &caller, follower, limit, Instant::now() + wait).await
}

/// Up to so many documents; waits for the first until a time.
async fn page(
    shared: &Arc<Shared>,
    caller: &Caller,
    mut follower: Follower,
    limit: usize,
    until: Instant,
) -> Result<Response, ApiError> {
    let runtime = Handle::current();
    let mut documents = Vec::new();
    while documents.len() < limit {
        let next = match follower.next_at_hand(&shared.replica, &runtime).await? {
            None if documents.is_empty() => {
                let next = follower.next(&shared.replica, &runtime, || *shared.api.stop.borrow());
                timeout_at(until, next).await.unwrap_or(Ok(None))?
            }
            next => next,
        };
        let Some((document, stamp)) = next else { break };
        documents.extend(tell(shared, caller, document, stamp).await?);
    }
    let position = follower.position().as_u64().to_string();
    Ok(Json(serde_json::json!({ "position": position, "documents": documents })).into_response())
}

fn events(shared: Arc<Shared>, caller: Caller, follower: Follower) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((shared, caller, follower), |(shared, caller, mut follower)| async move {
        loop {
            let stop = shared.api.stop.subscribe();
            let next = follower.next(&shared.replica, &Handle::current(), || *stop.borrow()).await;
            // Whoever listens asks again from the last event on, and is told what is wrong.
            let (document, stamp) = next.ok().flatten()?;
            let told = tell(&shared, &caller, document, stamp).await.ok()?;
            let Some(changed) = told else { continue };
            let event = Event::default().event("change").id(changed.stamp.clone()).json_data(&changed).ok()?;
            return Some((Ok(event), (shared, caller, follower)));
        }
    })
}

async fn tell(
    shared: &Shared,
    caller: &Caller,
    document: DocumentId,
    stamp: Stamp,
) -> Result<Option<Changed>, ApiError> {
    if !caller.may(shared, &document).await.include(Permissions::READ) {
        return Ok(None);
    }
    let (store, of) = (shared.replica.store().clone(), document.clone());
    let life = blocking(move || store.life(&of)).await?;
    let deleted = life.is_some_and(|entry| entry.life.deleted);
    Ok(Some(Changed { id: document.to_string(), stamp: stamp.as_u64().to_string(), deleted }))
}

//! Telling other programs what has changed, by HTTP requests of ours.
//!
//! Owns: batches, signatures, repetition, the place up to which a receiver was told. Must not: lose a change, or let a
//! receiver that fails slow anything down. Next: the replica crate's `feed.rs`; docs/http-api.md, "Webhooks".

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use ring::hmac;
use serde_json::json;
use sha2::{Digest, Sha256};
use syncline_core::clock::Stamp;
use syncline_core::id::DocumentId;
use syncline_replica::{Follower, Trust};
use tokio::runtime::Handle;
use url::Url;

use crate::fetch::{Ask, fetch};
use crate::server::Shared;

/// Documents told of in one request.
const BATCH: usize = 100;

/// Longest that a receiver may take to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// Before the first repetition; doubled with each, up to the other.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Who is told.
#[derive(Clone)]
pub struct WebhookConfig {
    /// Where requests go.
    pub url: Url,
    /// What they are signed with.
    pub secret: Vec<u8>,
    /// Whose certificates are believed.
    pub trust: Trust,
}

impl std::fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookConfig").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Tells one receiver as long as the server runs.
pub(crate) async fn run(shared: Arc<Shared>, config: WebhookConfig) {
    let place = place_of(&shared.data, &config.url);
    let kept = fs::read_to_string(&place).ok().and_then(|text| text.trim().parse().ok()).map(Stamp::from_u64);
    // A new receiver is told of what comes from now on.
    let from = kept.unwrap_or_else(|| shared.replica.store().highest_stamp());
    keep(&place, from);
    let mut follower = shared.api.feeds.follow(from);
    let mut stop = shared.api.stop.subscribe();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => return,
            told = tell_once(&shared, &config, &mut follower) => match told {
                Some(position) => keep(&place, position),
                None => return,
            },
        }
    }
}

/// Waits for something to tell and tells it until the receiver has confirmed it; `None` when the server stops.
async fn tell_once(shared: &Shared, config: &WebhookConfig, follower: &mut Follower) -> Option<Stamp> {
    let batch = next_batch(shared, follower).await?;
    let position = follower.position();
    let documents: Vec<_> = batch
        .iter()
        .map(|(id, stamp, deleted)| json!({ "id": id.to_string(), "stamp": stamp.as_u64().to_string(), "deleted": deleted }))
        .collect();
    let body = json!({ "position": position.as_u64().to_string(), "documents": documents }).to_string();
    let mut wait = RETRY;
    loop {
        match fetch(&config.url, signed(&config.secret, &body), &config.trust, WITHIN).await {
            Ok(_) => return Some(position),
            Err(reason) => {
                shared.replica.metrics().refuse("webhook_failed");
                tracing::warn!(
                    host = config.url.host_str(),
                    "a webhook is not taken, and is repeated in {wait:?}: {reason}"
                );
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn next_batch(shared: &Shared, follower: &mut Follower) -> Option<Vec<(DocumentId, Stamp, bool)>> {
    let runtime = Handle::current();
    let mut batch = Vec::new();
    let mut next = follower.next(&shared.replica, &runtime, || *shared.api.stop.borrow()).await.ok()?;
    while let Some((document, stamp)) = next {
        let (store, of) = (shared.replica.store().clone(), document.clone());
        let life = tokio::task::spawn_blocking(move || store.life(&of)).await.ok()?.ok()?;
        batch.push((document, stamp, life.is_some_and(|entry| entry.life.deleted)));
        if batch.len() == BATCH {
            break;
        }
        next = follower.next_at_hand(&shared.replica, &runtime).await.ok()?;
    }
    (!batch.is_empty()).then_some(batch)
}

/// A request whose receiver can tell that it is ours, and when it was made.
fn signed(secret: &[u8], body: &str) -> Ask {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{now}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = vec![("syncline-signature", format!("t={now},v1={hex}"))];
    Ask { body: Some(Bytes::from(body.to_owned())), headers, ..Ask::default() }
}

/// Where it is kept up to which place a receiver was told.
fn place_of(data: &Path, url: &Url) -> PathBuf {
    let digest: String = Sha256::digest(url.as_str())[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    data.join(format!("webhook-{digest}.position"))
}

/// A place that is lost in a power cut costs repetitions, no change.
fn keep(place: &Path, position: Stamp) {
    let partial = place.with_extension("partial");
    let kept = fs::write(&partial, position.as_u64().to_string()).and_then(|()| fs::rename(&partial, place));
    if let Err(error) = kept {
        tracing::warn!("it cannot be kept up to where a webhook was told: {error}");
    }
}

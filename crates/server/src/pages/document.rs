//! One document: who is behind and why, what is in it, how it came to be.
//!
//! Owns: the words for how far a peer is. Must not: load the document in this process. Next: `history.rs`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use syncline_content::{Answer, At, Question};
use syncline_core::ChangeHash;
use syncline_core::access::Permissions;
use syncline_core::hub::{Insight, PeerProgress};
use syncline_core::id::DocumentId;
use syncline_core::storage::Summary;

use super::layout::{ago, bytes, count, frame, short};
use super::{history, page};
use crate::access::caller::Caller;
use crate::api::{ApiError, parse_id, standing};
use crate::server::Shared;

/// Changes drawn.
const CHANGES: usize = 200;

/// Values of a list or map that are shown.
const SHOWN: usize = 200;

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    at: Option<String>,
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(version): Query<Version>,
) -> Response {
    if let Err(refusal) = caller.needs_everywhere(&shared, Permissions::ADMIN).await {
        return refusal.into_response();
    }
    match draw(&shared, &caller, &id, version.at).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn draw(shared: &Shared, caller: &Caller, id: &str, at: Option<String>) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let summary = standing(shared, &id).await?;
    let insight = shared.replica.insight(&id).await;
    let version = at.clone().map_or(At::Now, |hash| At::Heads(vec![hash]));
    let content = json(ask(shared, &id, &summary, Question::Values { at: version }).await);
    let told = json(ask(shared, &id, &summary, Question::History { skip: 0, limit: CHANGES }).await);
    let path = format!("/documents/{id}");
    Ok(page(shared, caller, || {
        frame(
            &path,
            "Document",
            html! {
                h1 { code { (id) } }
                (who_is_behind(shared, &summary, insight.as_ref()))
                div class="columns" {
                    section {
                        h2 { @if at.is_some() { "Content at a change · " a href=(path) { "now" } } @else { "Content" } }
                        @match &content {
                            Ok(content) => div class="tree" { (tree(None, &content["content"])) },
                            Err(reason) => p class="answer bad" { "It cannot be shown: " (reason) },
                        }
                    }
                    section {
                        h2 { "History" }
                        @match &told {
                            Ok(told) => (history::graph(&path, told, at.as_deref())),
                            Err(reason) => p class="answer bad" { "It cannot be shown: " (reason) },
                        }
                    }
                }
                h2 { "In numbers" }
                div class="table" { table { tbody {
                    tr { th { "Changes" } td { (count(u64::from(summary.changes))) } }
                    tr { th { "Size of all changes" } td { (bytes(summary.bytes)) } }
                    tr { th { "Size as stored in one piece" } td { @if summary.snapshot_bytes == 0 { "not folded yet" } @else { (bytes(summary.snapshot_bytes)) } } }
                    tr { th { "Last change became durable" } td { (ago(summary.last_stamp.millis())) } }
                    tr { th { "Stamp" } td { code { (summary.last_stamp.as_u64()) } } }
                    tr { th { "Heads" } td { @for head in &summary.heads { (short(&head.to_string())) " " } } }
                } } }
            },
        )
    })
    .await)
}

async fn ask(shared: &Shared, id: &DocumentId, summary: &Summary, question: Question) -> Result<Answer, ApiError> {
    shared.api.views.ask(shared.replica.store(), (id.clone(), summary.last_stamp), question).await
}

fn json(answer: Result<Answer, ApiError>) -> Result<Value, String> {
    match answer.map_err(|error| error.to_string())? {
        Answer::Json(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
        Answer::Saved(_) | Answer::Edited { .. } => Err("an answer to another question".to_owned()),
    }
}

/// The answer to the question that people have who open this page.
fn who_is_behind(shared: &Shared, summary: &Summary, insight: Option<&Insight>) -> Markup {
    let peers = insight.map(|insight| &insight.peers[..]).unwrap_or_default();
    let behind = peers.iter().filter(|peer| peer.state != PeerProgress::InStep).count();
    let (class, answer) = match (peers.len(), behind) {
        (0, _) => {
            ("answer", "Nobody is connected to this document. What is durable here waits for whoever comes.".to_owned())
        }
        (1, 0) => ("answer", "The one peer at this document has everything.".to_owned()),
        (all, 0) => ("answer", format!("All {all} peers at this document have everything.")),
        (all, behind) => {
            ("answer wait", format!("{behind} of {all} peers at this document do not have everything yet."))
        }
    };
    html! {
        p class=(class) { (answer) }
        @if !peers.is_empty() {
            div class="table" { table {
                thead { tr { th { "Peer" } th { "State" } th { "Why" } th { "Heads that it announced" } } }
                tbody { @for peer in peers {
                    @let connected = shared.replica.connection(peer.session);
                    @let (class, state, why) = words(peer.state);
                    tr {
                        td { @match &connected {
                            Some(connected) => { (short(connected.peer.peer.as_str())) " "
                                @if let Some(subject) = &connected.peer.access.subject { "(" (subject) ")" } },
                            None => "gone by now",
                        } }
                        td class=(class) { (state) }
                        td class="words" { (why) }
                        td { (heads(&peer.heads, &summary.heads)) }
                    }
                } }
            } }
        }
    }
}

fn words(state: PeerProgress) -> (&'static str, &'static str, &'static str) {
    match state {
        PeerProgress::InStep => ("good", "in step", "It has confirmed everything that is durable here."),
        PeerProgress::Behind => ("wait", "behind", "It was sent what it lacks and has not confirmed it yet."),
        PeerProgress::Ahead => (
            "wait",
            "ahead",
            "It announces changes that are not here; they are asked for. If this stays, they depend on changes that nobody has sent.",
        ),
        PeerProgress::Slow => (
            "bad",
            "slow",
            "It does not take what is sent to it: its connection is too slow, or it has stopped reading.",
        ),
        PeerProgress::Silent => ("wait", "silent", "It was told about the document and has not answered yet."),
    }
}

/// Heads that are the document's own are plain; others stand out.
fn heads(theirs: &[ChangeHash], ours: &[ChangeHash]) -> Markup {
    html! {
        @if theirs.is_empty() { span class="wait" { "none" } }
        @for head in theirs {
            span class=[(!ours.contains(head)).then_some("wait")] { (short(&head.to_string())) } " "
        }
    }
}

/// A value, whose parts can be folded away.
fn tree(key: Option<&str>, value: &Value) -> Markup {
    let name = html! { @if let Some(key) = key { span class="key" { (key) ": " } } };
    match value {
        Value::Object(entries) => html! {
            details open[entries.len() <= 20] {
                summary { (name) "{ " (entries.len()) " }" }
                @for (key, value) in entries.iter().take(SHOWN) { (tree(Some(key), value)) }
                @if entries.len() > SHOWN { div class="leaf" { "… " (entries.len() - SHOWN) " more" } }
            }
        },
        Value::Array(items) => html! {
            details open[items.len() <= 20] {
                summary { (name) "[ " (items.len()) " ]" }
                @for (at, value) in items.iter().take(SHOWN).enumerate() { (tree(Some(&at.to_string()), value)) }
                @if items.len() > SHOWN { div class="leaf" { "… " (items.len() - SHOWN) " more" } }
            }
        },
        Value::String(text) => html! { div class="leaf" { (name) span class="text" { (text) } } },
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            html! { div class="leaf" { (name) span class="scalar" { (value) } } }
        }
    }
}

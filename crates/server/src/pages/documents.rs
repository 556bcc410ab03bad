//! Which documents there are, the ones that changed last first.
//!
//! Owns: how many are looked at. Must not: load one. Next: `document.rs`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use maud::html;
use serde::Deserialize;
use syncline_core::access::Permissions;
use syncline_core::id::DocumentId;
use syncline_core::storage::Summary;
use syncline_store::{Store, StoreError};

use super::layout::{ago, bytes, count, frame, nothing};
use super::page;
use crate::access::caller::Caller;
use crate::api::blocking;
use crate::server::Shared;

/// Documents looked at: beyond them the order is not that of all.
const LOOKED_AT_MAX: usize = 20_000;

/// Documents on a page.
const SHOWN: usize = 100;

const READ_AT_ONCE: usize = 1_000;

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    find: Option<String>,
    #[serde(default)]
    page: usize,
}

pub(super) async fn show(State(shared): State<Arc<Shared>>, caller: Caller, Query(wanted): Query<Wanted>) -> Response {
    // Before the store is read for whoever asks.
    if let Err(refusal) = caller.needs_everywhere(&shared, Permissions::ADMIN).await {
        return refusal.into_response();
    }
    let find = wanted.find.unwrap_or_default();
    let store = shared.replica.store().clone();
    let looked_for = find.trim().trim_start_matches("automerge:").to_owned();
    let listed = match blocking(move || list(&store, &looked_for)).await {
        Ok(listed) => listed,
        Err(error) => return error.into_response(),
    };
    let all = shared.replica.store().count();
    page(&shared, &caller, || {
        let from = wanted.page.saturating_mul(SHOWN).min(listed.len());
        let shown = &listed[from..(from + SHOWN).min(listed.len())];
        let link = |page: usize| format!("/documents?page={page}");
        frame(
            "/documents",
            "Documents",
            html! {
                h1 { "Documents" }
                form method="get" {
                    input name="find" value=(find) placeholder="A part of an id, or automerge:…" aria-label="A part of an id";
                    button { "Find" }
                }
                @if listed.len() == LOOKED_AT_MAX {
                    p { "Of " (count(all)) " documents the first " (count(LOOKED_AT_MAX as u64)) " by id are looked at." }
                }
                @if shown.is_empty() { (nothing("No document here has such an id.")) } @else {
                    div class="table" { table {
                        thead { tr {
                            th { "Document" } th class="number" { "Changes" } th class="number" { "Size" }
                            th class="number" { "Heads" } th { "Last change" }
                        } }
                        tbody { @for (id, summary) in shown { tr {
                            td { a href=(format!("/documents/{id}")) { code { (id) } } }
                            td class="number" { (count(u64::from(summary.changes))) }
                            td class="number" { (bytes(summary.bytes)) }
                            td class="number" { (summary.heads.len()) }
                            td { (ago(summary.last_stamp.millis())) }
                        } } }
                    } }
                    p {
                        @if wanted.page > 0 { a href=(link(wanted.page - 1)) { "← newer" } " " }
                        @if from + SHOWN < listed.len() { a href=(link(wanted.page + 1)) { "older →" } }
                    }
                }
                p { "What is deleted is not listed." }
            },
        )
    })
    .await
}

/// Those whose id has this in it, the latest change first.
fn list(store: &Store, find: &str) -> Result<Vec<(DocumentId, Summary)>, StoreError> {
    let (mut found, mut looked_at) = (Vec::new(), 0);
    let mut after: Option<DocumentId> = None;
    while looked_at < LOOKED_AT_MAX {
        let page = store.documents(after.as_ref(), READ_AT_ONCE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        looked_at += page.len();
        found.extend(page.into_iter().filter(|(id, _)| find.is_empty() || id.to_string().contains(find)));
    }
    found.sort_by_key(|(_, summary)| std::cmp::Reverse(summary.last_stamp));
    Ok(found)
}

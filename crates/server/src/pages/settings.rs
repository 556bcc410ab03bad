//! The settings in force.
//!
//! Owns: their names for people. Must not: show keys or tokens. Next: `layout.rs`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::layout::{bytes, count, duration, frame};
use super::page;
use crate::access::caller::Caller;
use crate::server::Shared;

pub(super) async fn show(State(shared): State<Arc<Shared>>, caller: Caller) -> Response {
    page(&shared, &caller, || {
        let limits = shared.replica.limits();
        let access = if shared.gate.restricts() {
            "tokens, or whoever decides elsewhere"
        } else {
            "none: everybody may do everything"
        };
        let origins = if shared.gate.allows_every_origin() { "every one" } else { "those that are listed" };
        let rows = [
            ("Listens on", shared.address.to_string()),
            ("Data directory", shared.data.display().to_string()),
            ("Storage id", shared.replica.local().storage.to_string()),
            ("Access rules", access.to_owned()),
            ("Origins of pages that may connect", origins.to_owned()),
            ("Deleted documents can be restored for", duration(shared.deleted_keep.as_secs())),
            ("Actors belong to who first wrote as them", if limits.bind_actors { "yes" } else { "no" }.to_owned()),
            ("What one subject may store", limits.subject_bytes_max.map_or_else(|| "not bounded".to_owned(), bytes)),
            ("Largest message", bytes(limits.message_bytes_max as u64)),
            ("Documents on one connection", count(limits.session_documents_max as u64)),
            ("Operations in one change", count(limits.change_operations_max)),
            ("Operations in one document", count(limits.document_operations_max)),
            ("Largest attachment", bytes(limits.blob_bytes_max)),
            ("All attachments", bytes(limits.blobs_bytes_max)),
            ("Messages that are not stored, a second", count(u64::from(limits.ephemeral_per_second_max))),
            ("Change graphs in memory, for each shard", bytes(limits.graph_cache_bytes as u64)),
            ("A handshake within", format!("{:?}", limits.join_timeout)),
            ("A write without progress ends a connection after", format!("{:?}", limits.stall_timeout)),
        ];
        frame(
            "/settings",
            "Settings",
            html! {
                h1 { "Settings in force" }
                div class="table" { table { tbody {
                    @for (name, value) in rows { tr { th { (name) } td { (value) } } }
                } } }
                p { "Flags and environment variables: " code { "syncline-server --help" } }
            },
        )
    })
    .await
}

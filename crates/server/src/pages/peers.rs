//! Who is connected.
//!
//! Owns: the table. Must not: show a token. Next: `refusals.rs`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use syncline_core::hub::Role;

use super::layout::{duration, frame, nothing};
use super::page;
use crate::access::caller::Caller;
use crate::server::Shared;

pub(super) async fn show(State(shared): State<Arc<Shared>>, caller: Caller) -> Response {
    page(&shared, &caller, || {
        let connected = shared.replica.connected();
        frame(
            "/peers",
            "Peers",
            html! {
                h1 { "Peers" }
                @if connected.is_empty() { (nothing("Nobody is connected.")) } @else {
                    div class="table" { table {
                        thead { tr { th { "Peer" } th { "Who" } th { "Store" } th { "Speaks" } th { "May" } th { "Clock" } th { "For" } } }
                        tbody { @for one in connected { tr {
                            td { code { (one.peer.peer) } @if let Some(server) = &one.server { " " span class="good" { "dialled " (server) } } }
                            td { (one.peer.access.subject.as_deref().unwrap_or("unnamed")) }
                            td { @match &one.peer.storage { Some(storage) => code { (storage) }, None => "none" } }
                            td {
                                @if one.peer.native == 0 { "automerge-repo" } @else { "Syncline " (one.peer.native) }
                                @if one.peer.role == Role::Upstream { ", as a server" }
                            }
                            td { (one.peer.access.everywhere()) @if one.peer.access.grants().len() > 1 { ", and more with some documents" } }
                            td { @match one.clock_ahead_ms() { Some(ahead_ms) => (clock(ahead_ms)), None => span class="soft" { "not told" } } }
                            td { (duration(one.duration().as_secs())) }
                        } } }
                    } }
                }
            },
        )
    })
    .await
}

/// What is less than the way of a message takes is no difference.
fn clock(ahead_ms: i64) -> Markup {
    let seconds = ahead_ms.unsigned_abs() as f64 / 1000.0;
    match ahead_ms {
        -999..1000 => html! { "as here" },
        1000.. => {
            html! { span class=(if ahead_ms >= 60_000 { "bad" } else { "wait" }) { (format!("{seconds:.1} s ahead")) } }
        }
        _ => html! { span class="wait" { (format!("{seconds:.1} s behind")) } },
    }
}

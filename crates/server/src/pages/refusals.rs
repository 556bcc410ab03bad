//! What peers did that was not taken, the latest first.
//!
//! Owns: how many are remembered. Must not: remember secrets: offences have none. Next: `peers.rs`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::response::Response;
use maud::html;
use syncline_core::id::SessionId;
use syncline_core::session::Offence;
use syncline_replica::Replica;

use super::layout::{ago, count, frame, nothing, now_ms, short};
use super::page;
use crate::access::caller::Caller;
use crate::server::Shared;

/// Refusals remembered.
const REMEMBERED: usize = 200;

#[derive(Debug, Clone)]
struct Refused {
    at_ms: u64,
    peer: Option<String>,
    subject: Option<String>,
    kind: &'static str,
    words: String,
}

/// The latest refusals, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    latest: Mutex<VecDeque<Refused>>,
}

impl Refusals {
    /// A peer did something that was not taken.
    pub(crate) fn note(&self, replica: &Replica, session: SessionId, offence: &Offence) {
        let who = replica.connection(session).map(|connected| connected.peer);
        let refused = Refused {
            at_ms: now_ms(),
            subject: who.as_ref().and_then(|peer| peer.access.subject.as_deref().map(str::to_owned)),
            peer: who.map(|peer| peer.peer.to_string()),
            kind: offence.kind(),
            words: offence.to_string(),
        };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() == REMEMBERED {
            latest.pop_front();
        }
        latest.push_back(refused);
    }
}

pub(super) async fn show(State(shared): State<Arc<Shared>>, caller: Caller) -> Response {
    page(&shared, &caller, || {
        let latest = shared.pages.refusals.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        frame(
            "/refused",
            "Refused",
            html! {
                h1 { "Refused" }
                p { (count(shared.refused())) " since the start; over websockets the latest " (REMEMBERED) " are kept here." }
                @if latest.is_empty() { (nothing("Nothing was refused over a websocket.")) } @else {
                    div class="table" { table {
                        thead { tr { th { "When" } th { "Peer" } th { "Who" } th { "Kind" } th { "In words" } } }
                        tbody { @for refused in latest.iter().rev() { tr {
                            td { (ago(refused.at_ms)) }
                            td { @match &refused.peer { Some(peer) => (short(peer)), None => "not joined" } }
                            td { (refused.subject.as_deref().unwrap_or("unnamed")) }
                            td { code { (refused.kind) } }
                            td class="words" { (refused.words) }
                        } } }
                    } }
                }
            },
        )
    })
    .await
}

//! The first page: how the server is, at a glance and live.
//!
//! Owns: which numbers are worth a card. Must not: list documents or peers. Next: `series.rs`, `chart.rs`.

use maud::{Markup, PreEscaped, html};

use super::Series;
use super::chart::sparkline;
use super::layout::{bytes, count, duration, frame};
use crate::server::Shared;

/// Replaces what changes; without it the page is as it was when it was opened.
const SCRIPT: &str = "
setInterval(async () => {
  if (document.hidden) return
  try {
    const answer = await fetch('/live')
    if (answer.ok) document.getElementById('live').innerHTML = await answer.text()
  } catch { }
}, EVERY)
";

pub(super) fn show(shared: &Shared) -> Markup {
    let script = SCRIPT.replace("EVERY", &Series::EVERY.as_millis().to_string());
    let content = html! {
        @if !shared.gate.restricts() {
            p class="answer wait" {
                "No access rules: whoever reaches " code { (shared.address) } " can read and write every document whose id they know."
            }
        }
        div id="live" { (live(shared)) }
        h2 { "Connecting" }
        div class="table" { table { tbody {
            tr { th { "Apps on automerge-repo, and Syncline clients" } td { code { (if shared.encrypted { "wss://" } else { "ws://" }) (shared.address) } } }
            tr { th { "Programs that do not sync" } td { a href="/api/openapi.json" { "/api" } } }
            tr { th { "Prometheus" } td { a href="/metrics" { "/metrics" } } }
            tr { th { "Load balancers" } td { a href="/health" { "/health" } ", " a href="/ready" { "/ready" } } }
        } } }
        script { (PreEscaped(script)) }
    };
    frame("/", "Overview", content)
}

pub(super) fn live(shared: &Shared) -> Markup {
    let rates = shared.pages.series.rates();
    let store = shared.replica.store();
    let metrics = shared.replica.metrics();
    let last = |values: &[f64]| values.last().copied().unwrap_or_default();
    let moving = [
        ("Connections", count(metrics.connections.get().unsigned_abs()), &rates.connections),
        ("Changes a second", format!("{:.0}", last(&rates.changes)), &rates.changes),
        ("Messages a second", format!("{:.0}", last(&rates.frames)), &rates.frames),
        ("Traffic a second", bytes(last(&rates.bytes) as u64), &rates.bytes),
    ];
    let still = [
        ("Documents", count(store.count()), "/documents"),
        ("Changes since the start", count(metrics.changes.get()), "/documents"),
        ("Attachments", bytes(store.blob_bytes()), "/settings"),
        ("Refused since the start", count(shared.refused()), "/refused"),
        ("Commits that failed", count(metrics.commit_failures.get()), "/metrics"),
        ("Running for", duration(shared.replica.uptime().as_secs()), "/settings"),
    ];
    html! {
        div class="cards" {
            @for (name, value, values) in moving {
                div class="card" {
                    div class="name" { (name) }
                    div class="value" { (value) }
                    (sparkline(values, name))
                }
            }
        }
        h2 { "In all" }
        div class="cards small" {
            @for (name, value, to) in still {
                a class="card" href=(to) style="color: inherit; text-decoration: none" {
                    div class="name" { (name) }
                    div class="value" { (value) }
                }
            }
        }
    }
}

//! The status page.
//!
//! Owns: its words and looks. Must not: need JavaScript, or anything from elsewhere.
//! Next: `routes.rs`.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::server::Shared;

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; }
h1 span { color: #2e9e5b; }
table { border-collapse: collapse; width: 100%; margin: 1.5rem 0; }
th, td { text-align: left; padding: .45rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
th { font-weight: normal; opacity: .7; }
td { text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
code { font-size: .95em; }
";

pub(crate) fn status(shared: &Shared) -> Markup {
    let metrics = shared.replica.metrics();
    let rows = [
        ("Version", env!("CARGO_PKG_VERSION").to_owned()),
        ("Running for", duration(shared.replica.uptime().as_secs())),
        ("Documents", shared.replica.store().count().to_string()),
        ("Peers connected", shared.replica.peers().to_string()),
        ("Blobs, MiB", (shared.replica.store().blob_bytes() / (1024 * 1024)).to_string()),
        ("Changes made durable since the start", metrics.changes.get().to_string()),
        ("Commits that failed", metrics.commit_failures.get().to_string()),
        ("Data directory", shared.data.display().to_string()),
        ("Storage id", shared.replica.local().storage.to_string()),
    ];
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Syncline" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { span { "●" } " Syncline sync server" }
                p { "Apps on automerge-repo connect to " code { (if shared.encrypted { "wss://" } else { "ws://" }) (shared.address) } "." }
                table {
                    @for (name, value) in rows {
                        tr { th scope="row" { (name) } td { (value) } }
                    }
                }
                p { a href="/metrics" { "Metrics" } " for Prometheus, " a href="/health" { "health" } " for load balancers." }
            }
        }
    }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

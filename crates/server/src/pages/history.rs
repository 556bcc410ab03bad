//! A document's changes as a graph that one can step through.
//!
//! Owns: where each change is drawn. Must not: load anything. Next: `document.rs`.

use std::collections::HashMap;

use maud::{Markup, html};
use serde_json::Value;

use super::layout::{ago, count, nothing};

const ROW: f64 = 26.0;
const LANE: f64 = 16.0;

/// Lanes drawn; actors beyond them share the last.
const LANES_MAX: usize = 12;

/// The newest changes, the latest at the top, each author in a lane of its own; `shown` is the one whose state is shown.
pub(super) fn graph(path: &str, told: &Value, shown: Option<&str>) -> Markup {
    let changes = told["history"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all = told["changes"].as_u64().unwrap_or_default();
    if changes.is_empty() {
        return nothing("No change yet.");
    }
    let text = |change: &Value, name: &str| change[name].as_str().unwrap_or_default().to_owned();
    let mut lanes: Vec<String> = Vec::new();
    let mut places: HashMap<String, (f64, f64)> = HashMap::new();
    for (row, change) in changes.iter().enumerate() {
        let actor = text(change, "actor");
        let lane = lanes.iter().position(|known| *known == actor).unwrap_or_else(|| {
            lanes.push(actor);
            lanes.len() - 1
        });
        let x = LANE * (lane.min(LANES_MAX - 1) as f64 + 1.0);
        places.insert(text(change, "hash"), (x, ROW * (row as f64 + 0.6)));
    }
    let left = LANE * (lanes.len().min(LANES_MAX) as f64 + 1.0);
    let height = ROW * changes.len() as f64 + 8.0;
    let width = left + 420.0;
    html! {
        @if all > changes.len() as u64 {
            p { "The newest " (changes.len()) " of " (count(all)) " changes." }
        }
        div class="history" {
            svg width=(width) height=(height) role="img" aria-label="The document's changes, the newest at the top" {
                @for change in changes {
                    @let Some(&(x, y)) = places.get(&text(change, "hash")) else { continue };
                    @for dep in change["deps"].as_array().map(Vec::as_slice).unwrap_or_default() {
                        @if let Some((to_x, to_y)) = dep.as_str().and_then(|dep| places.get(dep)) {
                            path class="edge" d=(format!("M{x},{y}C{x},{} {to_x},{} {to_x},{to_y}", y + ROW / 2.0, to_y - ROW / 2.0)) {}
                        }
                    }
                }
                @for change in changes {
                    @let hash = text(change, "hash");
                    @let Some(&(x, y)) = places.get(&hash) else { continue };
                    a href=(format!("{path}?at={hash}")) class=[(shown == Some(&hash)).then_some("shown")] {
                        title { (hash) }
                        circle cx=(x) cy=(y) r="4.5" {}
                        text x=(left) y=(y + 4.0) { (label(change)) }
                        text class="soft" x=(left + 160.0) y=(y + 4.0) { (when(change)) }
                    }
                }
            }
        }
    }
}

/// What a change is called: its message, its author, or the beginning of its actor, which is no name.
fn label(change: &Value) -> String {
    let named = ["message", "author"].iter().find_map(|name| change[name].as_str());
    let (words, letters_max) = match named {
        Some(words) => (words, 24),
        None => (change["actor"].as_str().unwrap_or_default(), 8),
    };
    let cut: String = words.chars().take(letters_max).collect();
    if cut.len() < words.len() { format!("{cut}…") } else { cut }
}

fn when(change: &Value) -> String {
    let operations = change["operations"].as_u64().unwrap_or_default();
    let time = change["time"].as_u64().map(|time_s| format!(", {}", ago(time_s * 1000)));
    let unit = if operations == 1 { "operation" } else { "operations" };
    format!("{} {unit}{}", count(operations), time.unwrap_or_default())
}

//! What all pages look like.
//!
//! Owns: the frame, the style, how numbers and times are written. Must not: fetch anything.
//! Next: `overview.rs`.

use std::time::{SystemTime, UNIX_EPOCH};

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// The pages, in the order of their links.
const PAGES: [(&str, &str); 5] = [
    ("/", "Overview"),
    ("/documents", "Documents"),
    ("/peers", "Peers"),
    ("/refused", "Refused"),
    ("/settings", "Settings"),
];

/// A page of this name, with this inside.
pub(super) fn frame(path: &str, title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Syncline" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    a class="brand" href="/" { span class="dot" {} "Syncline" }
                    nav {
                        @for (to, name) in PAGES {
                            a href=(to) aria-current=[is_within(path, to).then_some("page")] { (name) }
                        }
                    }
                }
                main { (content) }
                footer { "syncline-server " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
}

/// Whether a page is this one, or one of those that it leads to.
fn is_within(path: &str, page: &str) -> bool {
    path == page || path.strip_prefix(page).is_some_and(|rest| rest.starts_with('/'))
}

/// A number with room between its thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// So many bytes.
pub(super) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{number} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// So long.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// How long ago that was, milliseconds since 1970.
pub(super) fn ago(at_ms: u64) -> String {
    let seconds = now_ms().saturating_sub(at_ms) / 1000;
    if seconds == 0 { "just now".to_owned() } else { format!("{} ago", duration(seconds)) }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The beginning of a long name, with all of it for those who point at it.
pub(super) fn short(name: &str) -> Markup {
    let end = name.char_indices().nth(16).map_or(name.len(), |(at, _)| at);
    html! { code title=(name) { (name[..end]) @if end < name.len() { "…" } } }
}

/// What stands where there is nothing.
pub(super) fn nothing(words: &str) -> Markup {
    html! { p class="nothing" { (words) } }
}

//! A line over time, as a picture in the page.
//!
//! Owns: its geometry. Must not: scale away a constant. Next: `overview.rs`.

use std::fmt::Write;

use maud::{Markup, html};

const WIDTH: f64 = 200.0;
const HEIGHT: f64 = 40.0;

/// A sparkline of these values, the newest at the right. The bottom is zero.
pub(super) fn sparkline(values: &[f64], label: &str) -> Markup {
    let top = values.iter().copied().fold(1.0, f64::max);
    let step = WIDTH / values.len().saturating_sub(1).max(1) as f64;
    let mut line = String::new();
    for (at, value) in values.iter().enumerate() {
        let (x, y) = (at as f64 * step, HEIGHT - 2.0 - value / top * (HEIGHT - 4.0));
        let _ = write!(line, "{}{x:.1},{y:.1}", if at == 0 { "M" } else { "L" });
    }
    let under = format!("{line}L{WIDTH},{HEIGHT}L0,{HEIGHT}Z");
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(label) {
            @if values.len() > 1 {
                path class="under" d=(under) {}
                path class="spark" d=(line) {}
            }
        }
    }
}

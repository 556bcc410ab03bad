//! The page of a simulation: four plots as SVG inside one HTML file, without anything from elsewhere.
//!
//! Owns: the plots. Must not: hide what went badly. Next: `../simulate.rs`.

use std::fmt::Write as _;
use std::time::Duration;

use syncline_mesh_sim::{Outcome, Plan, Sample};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;

/// Samples that one point of a rate takes together: a second's worth.
const TOGETHER: usize = 4;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2733; --dim: #66727f; --line: #d9dfe5; --paper: #fbfcfd; --card: #fff;
  --a: #0b7a75; --b: #d1495b; --c: #3d5a98; --shade: #d1495b1c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --dim: #93a0ad; --line: #323c46; --paper: #14191e; --card: #1b2229;
  --a: #4fc3bb; --b: #ff8593; --c: #8fb0f5; --shade: #ff859322; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; max-width: 940px; padding: 24px; }
h1 { font-size: 22px; margin: 0 0 4px; } p.plan { color: var(--dim); margin: 0 0 18px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin-bottom: 18px; }
.figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.figure b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; } .figure span { color: var(--dim); font-size: 13px; }
.figure.bad b { color: var(--b); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; margin-bottom: 14px; }
h2 { font-size: 15px; margin: 0; } section p { color: var(--dim); font-size: 13px; margin: 0 0 6px; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--dim); font-size: 11px; }
.grid { stroke: var(--line); stroke-width: 1; } .shade { fill: var(--shade); }
.a { stroke: var(--a); } .b { stroke: var(--b); } .c { stroke: var(--c); } path { fill: none; stroke-width: 1.8; }
.fill { fill: var(--a); opacity: .16; stroke: none; } rect.bar { fill: var(--c); }
i { font-style: normal; } i.a { color: var(--a); } i.b { color: var(--b); } i.c { color: var(--c); }
";

/// The whole page.
pub(super) fn page(plan: &Plan, outcome: &Outcome) -> String {
    let end = outcome.samples.last().map_or(1.0, |sample| sample.at.as_secs_f64());
    let frame = Frame { plan, end };
    let mut html = String::from("<!doctype html><html lang=en><meta charset=utf-8>");
    html.push_str("<meta name=viewport content='width=device-width'><title>A mesh, simulated</title>");
    let _ = write!(html, "<style>{STYLE}</style><h1>A mesh of {} members, simulated</h1>", plan.nodes);
    let _ = write!(html, "<p class=plan>{}</p>", words_of(plan));
    html.push_str(&figures(outcome));
    html.push_str(&agreement(&frame, plan, outcome));
    html.push_str(&traffic(&frame, plan, outcome));
    html.push_str(&redundancy(&frame, outcome));
    html.push_str(&per_member(outcome));
    html
}

fn words_of(plan: &Plan) -> String {
    let percent = |share: f64| format!("{}%", (share * 1_000.0).round() / 10.0);
    let mut words = format!(
        "{:.1} edits a second in {} documents for {} s; {} of the messages lost; {} of the members killed in a minute",
        plan.edits_per_second,
        plan.documents,
        plan.duration.as_secs(),
        percent(plan.loss),
        percent(plan.churn_per_minute),
    );
    if let Some(split) = plan.split {
        let (at, length) = (split.at.as_secs_f64(), split.length.as_secs_f64());
        let _ = write!(words, "; the network cut in two halves from {at:.1} s for {length:.1} s (shaded)");
    }
    let _ = write!(
        words,
        "; seed {}. What runs is the engine that ships; network, disk and time are simulated.",
        plan.seed
    );
    words
}

fn figures(outcome: &Outcome) -> String {
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let settled = outcome.settled_after.map_or("never".to_owned(), seconds);
    let rows = [
        (settled, "until all agree, after the last edit and fault", !outcome.agreed),
        (outcome.edits.to_string(), "edits", false),
        (seconds(outcome.quantiles.0), "median until an edit is somewhere else", false),
        (seconds(outcome.quantiles.1), "99 of 100 took no longer", false),
        (seconds(outcome.slowest), "the slowest, from when it could arrive", false),
        (format!("{:.2}", outcome.notice_copies), "copies of a notice for each member", outcome.notice_copies >= 2.0),
        (format!("{:.2}", outcome.change_copies), "copies of a change, by notice or repair", false),
        (outcome.repairs.to_string(), "comparisons of two members", false),
    ];
    let mut html = String::from("<div class=figures>");
    for (figure, words, bad) in rows {
        let class = if bad { "figure bad" } else { "figure" };
        let _ = write!(html, "<div class='{class}'><b>{figure}</b><span>{words}</span></div>");
    }
    html + "</div>"
}

fn agreement(frame: &Frame<'_>, plan: &Plan, outcome: &Outcome) -> String {
    let at = |value: fn(&Sample) -> usize| outcome.samples.iter().map(move |s| (s.at.as_secs_f64(), value(s) as f64));
    let (up, agreed): (Vec<_>, Vec<_>) = (at(|s| s.up).collect(), at(|s| s.agreed).collect());
    let scale = Scale::to(plan.nodes as f64);
    let body = frame.area(&agreed, &scale) + &frame.line(&up, &scale, "c") + &frame.line(&agreed, &scale, "a");
    let words = "How many members are <i class=c>up</i>, and how many of these are <i class=a>in the same state</i>, the largest group.";
    section("Members in agreement", words, &frame.plot(&scale, &body))
}

fn traffic(frame: &Frame<'_>, plan: &Plan, outcome: &Outcome) -> String {
    let frames = rates(&outcome.samples, |sample| sample.frames as f64 / plan.nodes as f64);
    let bytes = rates(&outcome.samples, |sample| sample.bytes as f64 / plan.nodes as f64 / 100.0);
    let most = frames.iter().chain(&bytes).map(|(_, value)| *value).fold(1.0, f64::max);
    let scale = Scale::to(most);
    let body = frame.line(&frames, &scale, "a") + &frame.line(&bytes, &scale, "b");
    let words =
        "What a member sends in a second, on average: <i class=a>messages</i>, and <i class=b>bytes, in hundreds</i>.";
    section("Messages and bytes", words, &frame.plot(&scale, &body))
}

fn redundancy(frame: &Frame<'_>, outcome: &Outcome) -> String {
    let heard = outcome.samples.iter().filter(|sample| sample.copies > 0.0);
    let copies: Vec<(f64, f64)> = heard.map(|sample| (sample.at.as_secs_f64(), sample.copies)).collect();
    let most = copies.iter().map(|(_, value)| *value).fold(2.0, f64::max);
    let scale = Scale::to(most);
    let two = frame.line(&[(0.0, 2.0), (frame.end, 2.0)], &scale, "b");
    let words = "How often a member received a notice, on average of those it received. <i class=b>Two</i> is what it may be at most, over the whole run. One is the least.";
    section("Copies of a notice", words, &frame.plot(&scale, &(two + &frame.line(&copies, &scale, "a"))))
}

fn per_member(outcome: &Outcome) -> String {
    let most = outcome.per_node.iter().map(|(_, bytes)| *bytes).max().unwrap_or(1).max(1) as f64 / 1_000.0;
    let scale = Scale::to(most);
    let step = (WIDTH - LEFT - RIGHT) / outcome.per_node.len().max(1) as f64;
    let mut bars = scale.grid();
    for (at, (frames, bytes)) in outcome.per_node.iter().enumerate() {
        let (x, y) = (LEFT + step * at as f64, scale.y(*bytes as f64 / 1_000.0));
        let (width, height) = ((step * 0.8).max(0.5), HEIGHT - BOTTOM - y);
        let _ = write!(
            bars,
            "<rect class=bar x={x:.1} y={y:.1} width={width:.1} height={height:.1}><title>member {at}: {frames} messages, {bytes} bytes</title></rect>"
        );
    }
    let svg = format!("<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img>{bars}</svg>");
    section("Bytes sent by each member", "In the whole run, kilobytes, handshakes included.", &svg)
}

fn section(title: &str, words: &str, svg: &str) -> String {
    format!("<section><h2>{title}</h2><p>{words}</p>{svg}</section>")
}

/// A value in a second, from samples taken together.
fn rates(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let point = |together: &[Sample]| {
        let seconds = 0.25 * together.len() as f64;
        let at = together.last().map_or(0.0, |sample| sample.at.as_secs_f64());
        (at, together.iter().map(&value).sum::<f64>() / seconds)
    };
    samples.chunks(TOGETHER).map(point).collect()
}

/// The upright axis.
struct Scale {
    step: f64,
    most: f64,
}

impl Scale {
    /// Up to a round number at or above this one.
    fn to(value: f64) -> Self {
        let value = value.max(1e-6);
        let power = 10_f64.powf((value / 4.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| step * 4.0 >= value);
        let step = step.unwrap_or(value);
        Self { step, most: (value / step).ceil() * step }
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / self.most).clamp(0.0, 1.0)
    }

    fn grid(&self) -> String {
        let mut svg = String::new();
        let lines = (self.most / self.step).round() as u32;
        for line in 0..=lines {
            let value = self.step * f64::from(line);
            let (y, right) = (self.y(value), WIDTH - RIGHT);
            let _ = write!(svg, "<line class=grid x1={LEFT} x2={right} y1={y:.1} y2={y:.1} />");
            let text = (value * 100.0).round() / 100.0;
            let _ = write!(svg, "<text x={} y={:.1} text-anchor=end>{text}</text>", LEFT - 7.0, y + 4.0);
        }
        svg
    }
}

/// The axis of time, the same in all plots.
struct Frame<'a> {
    plan: &'a Plan,
    end: f64,
}

impl Frame<'_> {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.end).clamp(0.0, 1.0)
    }

    fn plot(&self, scale: &Scale, body: &str) -> String {
        let mut svg = format!("<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img>");
        if let Some(split) = self.plan.split {
            let (from, to) = (self.x(split.at.as_secs_f64()), self.x((split.at + split.length).as_secs_f64()));
            let (width, height) = (to - from, HEIGHT - TOP - BOTTOM);
            let _ = write!(svg, "<rect class=shade x={from:.1} y={TOP} width={width:.1} height={height} />");
        }
        svg.push_str(&scale.grid());
        let times = Scale::to(self.end);
        let mut time = 0.0;
        while time <= self.end {
            let (x, y) = (self.x(time), HEIGHT - 10.0);
            let _ = write!(svg, "<text x={x:.1} y={y} text-anchor=middle>{time} s</text>");
            time += times.step;
        }
        svg + body + "</svg>"
    }

    fn points(&self, points: &[(f64, f64)], scale: &Scale) -> String {
        let mut path = String::new();
        for (at, (time, value)) in points.iter().enumerate() {
            let letter = if at == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", self.x(*time), scale.y(*value));
        }
        path
    }

    fn line(&self, points: &[(f64, f64)], scale: &Scale, class: &str) -> String {
        format!("<path class={class} d='{}' />", self.points(points, scale))
    }

    fn area(&self, points: &[(f64, f64)], scale: &Scale) -> String {
        let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return String::new() };
        let base = scale.y(0.0);
        let path = self.points(points, scale);
        format!("<path class=fill d='{path}L{:.1} {base:.1}L{:.1} {base:.1}Z' />", self.x(*last), self.x(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_and_has_few_lines() {
        for value in [0.0, 0.3, 1.0, 2.3, 7.0, 50.0, 123.0, 99_999.0] {
            let scale = Scale::to(value);
            let lines = scale.most / scale.step;
            assert!(scale.most >= value && lines <= 5.0, "{value}: {} by {}", scale.most, scale.step);
        }
    }

    #[test]
    fn a_page_stands_alone_and_says_what_went_badly() {
        let plan = Plan { nodes: 4, duration: Duration::from_secs(2), edits_per_second: 4.0, ..Plan::default() };
        let outcome = syncline_mesh_sim::play(&plan);
        let good = page(&plan, &outcome);
        assert_eq!(good.matches("<svg").count(), 4);
        assert!(!good.contains("http") && !good.contains("src=") && !good.contains("NaN"), "{good}");
        assert!(!good.contains("figure bad"));
        let bad = page(&plan, &Outcome { agreed: false, settled_after: None, ..outcome });
        assert!(bad.contains("figure bad") && bad.contains("never"));
    }
}

//! One run's results: a JSON line for machines, a table for people.
//!
//! Owns: the form of the results. Must not: measure.
//! Next: `target.rs`, whose meter gives the usage; `scenario/mod.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What one process used during a measured stretch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// CPU seconds, all threads.
    pub(crate) cpu_s: f64,
    /// Resident memory at the beginning.
    pub(crate) rss_start_kib: u64,
    /// The most resident memory in between.
    pub(crate) rss_peak_kib: u64,
    /// Resident memory at the end.
    pub(crate) rss_end_kib: u64,
}

/// One line of a results file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The scenario's name.
    pub(crate) scenario: String,
    /// Which server, as the user names it.
    pub(crate) label: String,
    /// When, UTC.
    pub(crate) date: String,
    /// Cores of the machine, shared by server and generator.
    pub(crate) cores: usize,
    /// The scenario's flags.
    pub(crate) parameters: Value,
    /// Length of the measured stretch.
    pub(crate) seconds: f64,
    /// What was measured; none of it when `error` says why.
    pub(crate) results: Map<String, Value>,
    /// The server; none when its process is unknown.
    pub(crate) server: Option<Usage>,
    /// This process.
    pub(crate) generator: Usage,
    /// Why the scenario gave up.
    pub(crate) error: Option<String>,
}

impl Report {
    /// Prints the JSON line on standard output, and appends it to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn publish(&self, file: Option<&Path>) -> anyhow::Result<()> {
        let line = serde_json::to_string(self)?;
        println!("{line}");
        if let Some(path) = file {
            let mut out = File::options().create(true).append(true).open(path)?;
            writeln!(out, "{line}").with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

/// Reads a results file; lines that are not reports are an error.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Report>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    BufReader::new(file).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// A table per scenario and parameters: one column a server, one row a result. Of several runs of one server with
/// the same parameters the last stands.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut groups: Vec<(String, Vec<&Report>)> = Vec::new();
    for report in reports {
        let key = format!("{} {}", report.scenario, short(&report.parameters));
        match groups.iter_mut().find(|(name, _)| *name == key) {
            Some((_, members)) => {
                members.retain(|member| member.label != report.label);
                members.push(report);
            }
            None => groups.push((key, vec![report])),
        }
    }
    let mut out = String::new();
    for (name, members) in groups {
        let _ = writeln!(out, "{name}");
        write_group(&mut out, &members);
        out.push('\n');
    }
    out
}

fn write_group(out: &mut String, members: &[&Report]) {
    let mut rows: Vec<String> = Vec::new();
    let columns: Vec<BTreeMap<String, String>> = members
        .iter()
        .map(|report| {
            let cells = cells(report);
            for (name, _) in &cells {
                if !rows.contains(name) {
                    rows.push(name.clone());
                }
            }
            cells.into_iter().collect()
        })
        .collect();
    let name_width = rows.iter().map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = members
        .iter()
        .zip(&columns)
        .map(|(report, cells)| cells.values().map(String::len).chain([report.label.len()]).max().unwrap_or(0).min(60))
        .collect();
    let _ = write!(out, "  {:name_width$}", "");
    for (report, width) in members.iter().zip(&widths) {
        let _ = write!(out, "  {:>width$}", report.label);
    }
    out.push('\n');
    for row in rows {
        let _ = write!(out, "  {row:name_width$}");
        for (cells, width) in columns.iter().zip(&widths) {
            let _ = write!(out, "  {:>width$}", cells.get(&row).map_or("", String::as_str));
        }
        out.push('\n');
    }
}

fn cells(report: &Report) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    for (name, value) in &report.results {
        match value {
            Value::Object(members) => {
                for (member, value) in members {
                    cells.push((format!("{name}.{member}"), short(value)));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                cells.push((name.clone(), short(value)));
            }
        }
    }
    if let Some(server) = &report.server {
        cells.push(("server cpu s".into(), format!("{:.2}", server.cpu_s)));
        let mib = |kib: u64| kib / 1024;
        let (start, peak, end) = (mib(server.rss_start_kib), mib(server.rss_peak_kib), mib(server.rss_end_kib));
        cells.push(("server rss MiB start/peak/end".into(), format!("{start}/{peak}/{end}")));
    }
    cells.push(("generator cpu s".into(), format!("{:.2}", report.generator.cpu_s)));
    cells.push(("seconds".into(), format!("{:.1}", report.seconds)));
    if let Some(error) = &report.error {
        cells.push(("error".into(), error.clone()));
    }
    cells
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| format!("{name}={}", short(value))).collect::<Vec<_>>().join(" ")
        }
        Value::Null => "-".into(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_)) => other.to_string(),
    }
}

/// The time of the run, UTC, to the second.
pub(crate) fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970 as a date (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(label: &str, p99: u64) -> Report {
        let results = json!({ "delivered": 3, "delivery_ms": { "p99": p99 } });
        let Value::Object(results) = results else { unreachable!("an object") };
        let (generator, date) = (Usage::default(), date());
        let parameters = json!({ "users": 2 });
        let (scenario, label) = ("typing".into(), label.into());
        Report {
            scenario,
            label,
            date,
            cores: 2,
            parameters,
            seconds: 1.0,
            results,
            server: None,
            generator,
            error: None,
        }
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_089), (2025, 1, 1));
    }

    #[test]
    fn a_table_sets_servers_side_by_side_and_keeps_the_last_run() {
        let shown = table(&[report("ours", 1), report("theirs", 7), report("ours", 2)]);
        let row = shown.lines().find(|line| line.contains("delivery_ms.p99")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["delivery_ms.p99", "7", "2"], "{shown}");
    }
}

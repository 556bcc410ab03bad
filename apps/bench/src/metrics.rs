//! What a server counts of itself, where it says so at `/metrics`.
//!
//! Owns: reading the text. Must not: need it; other servers have none.
//! Next: `scenario/hostile.rs`, which sets it beside what was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::Endpoint;

/// Longest wait for the page.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One look at a server's counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Asks for the page; none when the server has none.
    pub(crate) async fn fetch(endpoint: &Endpoint) -> Option<Self> {
        let asking = async {
            let mut stream = endpoint.connect().await.ok()?;
            let request = b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            head.split(' ').nth(1).filter(|status| *status == "200")?;
            Some(Self(body.to_owned()))
        };
        tokio::time::timeout(TIMEOUT, asking).await.ok().flatten()
    }

    /// A counter without labels.
    pub(crate) fn value(&self, name: &str) -> Option<u64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<f64>().ok().map(|value| value as u64)
    }

    /// A counter by the value of its one label.
    pub(crate) fn by_label(&self, name: &str) -> BTreeMap<String, u64> {
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let parsed = samples.filter_map(|sample| {
            let (labels, value) = sample.split_once("} ")?;
            let label = labels.split('"').nth(1)?;
            Some((label.to_owned(), value.trim().parse::<f64>().ok()? as u64))
        });
        parsed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_and_without_labels() {
        let text = "# HELP x y\nframes_total 12\nframes_total_other 1\nrefused_total{reason=\"a\"} 3\nrefused_total{reason=\"b\"} 4\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!(metrics.value("frames_total"), Some(12));
        assert_eq!(metrics.value("missing"), None);
        let expected = BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 4)]);
        assert_eq!(metrics.by_label("refused_total"), expected);
    }
}

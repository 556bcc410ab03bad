//! What the program logs, and where traces go.
//!
//! Owns: the filter, the only place where a subscriber is set. Must not: write to standard output.
//! Next: `otlp.rs`.

use anyhow::Context;
use tokio::runtime::Handle;
use tracing_subscriber::EnvFilter;

use crate::arguments::Arguments;

/// automerge opens a span, with its fields written out, for every column of every change that it reads: where `info` is
/// logged, that costs more than the reading. `--log automerge=info` still shows them.
const QUIET: &str = "automerge=warn";

/// What is to be done when nothing more is logged.
pub(crate) type End = Box<dyn FnOnce()>;

/// Logs to standard error from here on.
///
/// # Errors
/// When `--log` is no filter.
pub(crate) fn begin(arguments: &Arguments) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(filter(arguments)?).with_writer(std::io::stderr).init();
    Ok(())
}

/// As [`begin`]; traces go to a collector, if one is named.
///
/// # Errors
/// Also when the collector's address is none.
#[cfg(feature = "otlp")]
pub(crate) fn begin_with_traces(arguments: &Arguments, runtime: &Handle) -> anyhow::Result<End> {
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;

    let Some(endpoint) = &arguments.otlp_endpoint else {
        begin(arguments)?;
        return Ok(Box::new(|| ()));
    };
    let traces = crate::otlp::Traces::to(endpoint, arguments.access.trust()?, runtime.clone())?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter(arguments)?);
    tracing_subscriber::registry().with(log).with(traces.layer()).init();
    Ok(Box::new(move || traces.end()))
}

/// As [`begin`]: this program was built without traces.
///
/// # Errors
/// As [`begin`].
#[cfg(not(feature = "otlp"))]
pub(crate) fn begin_with_traces(arguments: &Arguments, _runtime: &Handle) -> anyhow::Result<End> {
    begin(arguments)?;
    Ok(Box::new(|| ()))
}

fn filter(arguments: &Arguments) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(format!("{QUIET},{}", arguments.log)).context("--log is not a log filter")
}

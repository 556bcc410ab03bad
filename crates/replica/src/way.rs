//! A message's way through the replica, as spans: received, admitted, committed, fanned out.
//!
//! Owns: the names of the spans, the stamp that each carries, which is the child of which. Must not: cost anything where
//! nobody listens: each span is of the level `TRACE`. Next: `shard.rs`, `connection.rs`; docs/operations.md, "Traces".
//!
//! The stamp of the hybrid logical clock is taken when a span begins. What one replica does because of what another one
//! said has a later stamp, whatever the clocks of the two machines say.

use syncline_core::id::{DocumentId, SessionId};
use syncline_store::Store;
use tokio::time::Instant;
use tracing::field::{Empty, display};
use tracing::{Level, Span, trace_span};

/// The target of all these spans, for filters.
pub const TARGET: &str = "syncline::way";

/// The field with the stamp: the packed number.
const STAMP: &str = "syncline.stamp";

/// A commit on its way to those who are told of it.
#[derive(Debug, Clone)]
pub(crate) struct FanOut {
    /// When it was durable.
    pub(crate) committed: Instant,
    /// Ends with the last clone: once the last of them has been sent it.
    pub(crate) span: Span,
}

/// A frame has come, and is decoded and handed over.
pub(crate) fn receive(store: &Store, session: SessionId, bytes: usize) -> Span {
    stamped(store, trace_span!(target: TARGET, "receive", session = session.0, bytes, "syncline.stamp" = Empty))
}

/// A hub looks at what has come, as a part of this.
pub(crate) fn admit(store: &Store, within: &Span) -> Span {
    if within.is_disabled() {
        return Span::none();
    }
    stamped(store, trace_span!(target: TARGET, parent: within, "admit", "syncline.stamp" = Empty))
}

/// Changes are on their way to the disk, because of what is under way at this moment.
pub(crate) fn commit(store: &Store, document: &DocumentId, changes: usize) -> Span {
    let document = display(document);
    stamped(store, trace_span!(target: TARGET, "commit", document, changes, "syncline.stamp" = Empty))
}

/// Changes are durable, and those who are at the document are sent them.
pub(crate) fn fan_out(store: &Store, commit: &Span) -> FanOut {
    let span = if commit.is_disabled() {
        Span::none()
    } else {
        stamped(store, trace_span!(target: TARGET, parent: commit, "fan-out", "syncline.stamp" = Empty))
    };
    FanOut { committed: Instant::now(), span }
}

/// What is under way at this moment, for those who go on with it elsewhere.
pub(crate) fn current() -> Span {
    if tracing::enabled!(target: TARGET, Level::TRACE) { Span::current() } else { Span::none() }
}

fn stamped(store: &Store, span: Span) -> Span {
    if !span.is_disabled() {
        span.record(STAMP, store.tick().as_u64().cast_signed());
    }
    span
}

//! What the fuzzer calls: each target takes any bytes and panics if they break a promise.
//!
//! A target never judges by timing and never panics on bytes that are merely refused. The fuzzer in `/fuzz` finds new
//! inputs; the test in `tests/replay.rs` runs the ones that are worth keeping on every build. docs/fuzzing.md says how.
//!
//! Reading order: [`TARGETS`]; `script` and `pool` make structure out of bytes; then one file for each gate, from the
//! socket inwards: `frames`, `sync`, `reconcile`, `change`, `graph`, `session`, `store`; beside them `bodies`.
//!
//! The whole process may allocate [`MEMORY_BYTES_MAX`] at one time: an input that takes more ends it.

mod bodies;
mod change;
// The encoder that refuses nothing, shared with the tests of `syncline-core`, which use the rest of it.
#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../../crates/core/tests/support/forge.rs"]
mod forge;
mod frames;
mod graph;
mod pool;
mod reconcile;
mod script;
mod session;
mod store;
mod sync;

use std::alloc::System;

use cap::Cap;
use syncline_core::limits::Limits;

pub use bodies::bodies;
pub use change::{change, chunks, document};
pub use frames::{ids, wire};
pub use graph::{graph, index};
pub use pool::known_document;
pub use reconcile::{known_elements, reconcile};
pub use session::session;
pub use store::store;
pub use sync::{bloom, message};

/// Most memory that all inputs under way may hold together, bytes.
pub const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY_BYTES_MAX);

/// Takes any bytes; panics if they break a promise.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 13] = [
    ("wire", wire),
    ("ids", ids),
    ("message", message),
    ("bloom", bloom),
    ("chunks", chunks),
    ("change", change),
    ("document", document),
    ("graph", graph),
    ("index", index),
    ("reconcile", reconcile),
    ("session", session),
    ("store", store),
    ("bodies", bodies),
];

/// The limits of the targets: a tenth and less of the defaults, so that an input of a few kilobytes which takes long
/// shows work out of proportion, and not what the defaults allow.
fn limits() -> Limits {
    Limits { change_operations_max: 4_000, document_operations_max: 100_000, ..Limits::default() }
}

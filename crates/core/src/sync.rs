//! Being written.

pub mod bloom;
pub mod message;

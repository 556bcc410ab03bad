//! The `syncline-gossip` binary.
fn main() {}

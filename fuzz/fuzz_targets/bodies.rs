//! Runs the target `bodies`: see `tests/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz::promptly(syncline_fuzz_targets::bodies, data));

//! The README's example is the one that is compiled.
//!
//! Owns: that `README.md` shows `examples/quickstart.rs` and nothing else. Must not: run it; it needs a server.
//! Next: `../examples/quickstart.rs`, which this crate's page shows too.

#[test]
fn the_readme_shows_the_quickstart() {
    let readme = include_str!("../../../README.md");
    let example = include_str!("../examples/quickstart.rs");
    let section = readme.split("## Use it from Rust").nth(1).expect("a section of that name");
    let shown = section.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    let code = example.split_once("\n\n").expect("a header, then the code").1;
    assert_eq!(shown.expect("a block of Rust"), code, "the README is to show what is compiled");
    assert!(code.lines().count() <= 15, "it is to be taken in at a glance");
}

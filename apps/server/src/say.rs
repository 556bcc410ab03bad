//! What is said on standard output and standard error.
//!
//! Owns: that nobody has to listen: whoever started the program may have closed the other end. Must not: fail, or panic, as
//! `println!` does. Next: `main.rs`.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Says a line on standard output, if somebody listens.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Says on standard error why the program ends, if somebody listens.
pub(crate) fn complain(why: impl Display) {
    let _ = writeln!(io::stderr().lock(), "syncline-server: {why}");
}

/// What was written for somebody who went away in the middle of it was written well enough.
pub(crate) fn or_nobody_listens(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

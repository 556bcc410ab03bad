//! What the program says and returns before it serves anybody.
//!
//! Owns: flags, refusals, exit codes. Must not: test what a running server does; `tests/e2e` does.
//! Next: `../src/main.rs`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn server(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline-server"));
    command.args(arguments).env_remove("SYNCLINE_LISTEN").env_remove("SYNCLINE_DATA");
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_names_every_flag_with_its_variable() {
    let output = server(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for (flag, variable) in [
        ("--listen", "SYNCLINE_LISTEN"),
        ("--data", "SYNCLINE_DATA"),
        ("--message-mib-max", "SYNCLINE_MESSAGE_MIB_MAX"),
        ("--session-documents-max", "SYNCLINE_SESSION_DOCUMENTS_MAX"),
        ("--deleted-keep-days", "SYNCLINE_DELETED_KEEP_DAYS"),
        ("--log", "SYNCLINE_LOG"),
        ("--bind-actors", "SYNCLINE_BIND_ACTORS"),
        ("--subject-mib-max", "SYNCLINE_SUBJECT_MIB_MAX"),
        ("--expire-untouched-days", "SYNCLINE_EXPIRE_UNTOUCHED_DAYS"),
        ("--federate", "SYNCLINE_FEDERATE"),
        ("--mesh-key-file", "SYNCLINE_MESH_KEY_FILE"),
    ] {
        assert!(help.contains(flag) && help.contains(variable), "{flag} and {variable} are in:\n{help}");
    }
    assert!(help.contains("127.0.0.1:3030") && help.contains("./syncline-data"), "the defaults are in:\n{help}");
    assert!(help.contains("check"), "the subcommand is in:\n{help}");
}

#[test]
fn a_wrong_flag_is_refused_with_its_name() {
    for (arguments, name) in [
        (&["--listen", "nowhere"][..], "--listen"),
        (&["--message-mib-max", "0"], "--message-mib-max"),
        (&["--deleted-keep-days", "100000"], "--deleted-keep-days"),
        (&["--expire-untouched-days", "0"], "--expire-untouched-days"),
        (&["--log", "syncline=loud"], "--log"),
        (&["--federate", "nowhere"], "--federate"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        let output = server(arguments);
        assert!(!output.status.success(), "{arguments:?} is refused");
        let said = text(&output.stderr);
        assert!(said.contains(name), "{name} is named in:\n{said}");
    }
}

#[test]
fn an_address_in_use_is_refused_and_nothing_is_made() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound port").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let output = server(&["--listen", &address, "--data", path(&data)]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&address), "{address} is named in:\n{said}");
    assert!(!data.exists(), "no data directory is made");
}

#[test]
fn check_of_a_directory_without_data_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = server(&["check", "--data", path(directory.path())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stderr.is_empty(), "the reason is printed");
}

/// One loads documents for a server that is gone before it has the answer, the others write for a pager that was quit.
#[test]
fn nobody_has_to_read_what_is_said() {
    // A request for the changes of a document without any bytes.
    let request = [0; 17];
    for (arguments, input) in [
        (&["man"][..], &b""[..]),
        (&["completions", "bash"], b""),
        (&["--print-config"], b""),
        (&["token", "inspect"], b"e30.e30.e30"),
        (&["load-documents"], &request),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncline-server"));
        command.args(arguments).stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // A command that does not read it ends without it.
        let _ = child.stdin.take().expect("piped").write_all(input);
        let output = child.wait_with_output().expect("it ends");
        let said = text(&output.stderr);
        assert!(!said.contains("panicked") && !said.contains("pipe"), "{arguments:?}: {said}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

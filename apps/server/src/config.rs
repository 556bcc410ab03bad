//! Flags, variables and a file: where each setting comes from, and what is in force.
//!
//! Owns: the order (a flag, else the variable, else the file, else the default) and the file's form.
//! Must not: know what a setting means. Next: `arguments.rs`; docs/server.md, "Settings".
//!
//! The file's settings become the defaults of the flags of the same names, so that they pass the same checks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::arguments::Arguments;

/// The flag that names the file, and its variable.
const FILE_FLAG: &str = "--config";
const FILE_VARIABLE: &str = "SYNCLINE_CONFIG";

/// Settings that say where settings are, or what to do with them, and so are none themselves.
const NO_SETTINGS: [&str; 4] = ["config", "print_config", "help", "version"];

/// Settings that are taken up while the server runs, when it is told to read them again.
const TAKEN_UP: [&str; 13] = [
    "session_documents_max",
    "expire_untouched_days",
    "trusted_proxy",
    "connections_max",
    "connections_per_address_max",
    "connections_per_subject_max",
    "messages_per_second_max",
    "mib_per_second_max",
    "document_changes_max",
    "document_mib_max",
    "subject_mib_max",
    "storage_mib_max",
    "disk_free_mib_min",
];

/// Reads the command line, with what the file says beneath it.
///
/// # Errors
/// When the file cannot be used. A command line that cannot ends the process with what is wrong.
pub(crate) fn read() -> anyhow::Result<(Arguments, ArgMatches)> {
    let matches = command()?.get_matches();
    let arguments = Arguments::from_arg_matches(&matches)?;
    Ok((arguments, matches))
}

/// Reads the settings again, with what the file says by now.
///
/// # Errors
/// When the file cannot be used, or what is set cannot.
pub(crate) fn read_again() -> anyhow::Result<(Arguments, ArgMatches)> {
    let matches = command()?.try_get_matches()?;
    let arguments = Arguments::from_arg_matches(&matches)?;
    Ok((arguments, matches))
}

fn command() -> anyhow::Result<Command> {
    let command = Arguments::command();
    let Some(file) = file(std::env::args_os()) else { return Ok(command) };
    let named = || format!("{FILE_FLAG} {}", file.display());
    let text = std::fs::read_to_string(&file).with_context(named)?;
    with_file(command, &text).with_context(named)
}

/// A setting that is another than before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// As it is written in a file.
    pub(crate) line: String,
    /// Whether it counts without a new start.
    pub(crate) taken_up: bool,
}

/// What differs between two readings.
pub(crate) fn differences(before: &ArgMatches, after: &ArgMatches) -> Vec<Difference> {
    let command = Arguments::command();
    let settings = command.get_arguments().filter(|argument| is_setting(argument));
    let changed = settings.filter_map(|argument| {
        let line = line_of(after, argument)?;
        let taken_up = TAKEN_UP.contains(&argument.get_id().as_str());
        (line_of(before, argument)? != line).then_some(Difference { line, taken_up })
    });
    changed.collect()
}

/// The file that is named, before anything else of the command line is understood.
fn file(arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let arguments: Vec<OsString> = arguments.skip(1).collect();
    let named = arguments.iter().enumerate().find_map(|(at, argument)| {
        let argument = argument.to_str()?;
        if argument == FILE_FLAG {
            return arguments.get(at + 1).cloned();
        }
        let value = argument.strip_prefix(FILE_FLAG)?.strip_prefix('=')?;
        Some(OsString::from(value))
    });
    named.or_else(|| std::env::var_os(FILE_VARIABLE)).filter(|name| !name.is_empty()).map(PathBuf::from)
}

fn with_file(mut command: Command, text: &str) -> anyhow::Result<Command> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| anyhow!("{}", error.to_string().trim_end()))?;
    for (name, value) in table {
        let id = name.replace('-', "_");
        let known = command.get_arguments().any(|argument| argument.get_id() == id.as_str());
        if !known || NO_SETTINGS.contains(&id.as_str()) {
            bail!("{name}: there is no such setting; `syncline-server --print-config` shows all");
        }
        let values = values_of(&value).with_context(|| name.clone())?;
        command = command.mut_arg(id, |argument| argument.default_values(values));
    }
    Ok(command)
}

/// The words that would stand on the command line. They live as long as the process, as its settings do; each reading of
/// the file takes its size once more.
fn values_of(value: &Value) -> anyhow::Result<Vec<&'static str>> {
    let word = |value: &Value| -> anyhow::Result<&'static str> {
        Ok(match value {
            Value::String(text) => text.clone().leak(),
            Value::Integer(number) => number.to_string().leak(),
            Value::Boolean(truth) => truth.to_string().leak(),
            Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                bail!("write a text, a number, true, false, or a list of these")
            }
        })
    };
    value.as_array().map_or_else(|| Ok(vec![word(value)?]), |values| values.iter().map(word).collect())
}

/// All settings in force, as a file that would set them.
pub(crate) fn print(matches: &ArgMatches) -> String {
    let command = Arguments::command();
    let settings = command.get_arguments().filter(|argument| is_setting(argument));
    let lines: Vec<String> = settings.filter_map(|argument| line_of(matches, argument)).collect();
    lines.join("\n")
}

/// A setting as a file would have it.
fn line_of(matches: &ArgMatches, argument: &Arg) -> Option<String> {
    let name = argument.get_long()?;
    let raw = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
    let values: Vec<String> = raw.map(|value| written(Path::new(value))).collect();
    let several = matches!(argument.get_action(), clap::ArgAction::Append);
    Some(match (values.as_slice(), several) {
        ([], true) => format!("# {name} = []"),
        ([], false) => format!("# {name} ="),
        (values, true) => format!("{name} = [{}]", values.join(", ")),
        ([value, ..], false) => format!("{name} = {value}"),
    })
}

fn is_setting(argument: &Arg) -> bool {
    !NO_SETTINGS.contains(&argument.get_id().as_str())
}

fn written(value: &Path) -> String {
    let text = value.to_string_lossy();
    if text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok() {
        return text.into_owned();
    }
    Value::String(text.into_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(text: &str, line: &[&str]) -> ArgMatches {
        let command = with_file(Arguments::command(), text).expect("a good file");
        command.get_matches_from([&["syncline-server"], line].concat())
    }

    #[test]
    fn a_flag_stands_above_the_file_and_the_file_above_the_default() {
        let text = "listen = \"127.0.0.1:7\"\nopen = true\ntoken_key = [\"a\", \"b c\"]\nmessage-mib-max = 5\n";
        let printed = print(&read_with(text, &["--message-mib-max", "6"]));
        for line in [
            "listen = \"127.0.0.1:7\"",
            "open = true",
            "token-key = [\"a\", \"b c\"]",
            "message-mib-max = 6",
            "blob-mib-max = 1024",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "{line} is in:\n{printed}");
        }
        let again = print(&read_with(&printed, &[]));
        assert_eq!(again, printed, "what is printed sets the same");
    }

    #[test]
    fn of_what_differs_it_is_known_whether_it_is_taken_up() {
        let before = read_with("document-mib-max = 5\nlisten = \"127.0.0.1:7\"\n", &[]);
        let after = read_with("document-mib-max = 6\nlisten = \"127.0.0.1:8\"\n", &[]);
        let line = |line: &str, taken_up| Difference { line: line.to_owned(), taken_up };
        let expected = [line("listen = \"127.0.0.1:8\"", false), line("document-mib-max = 6", true)];
        assert_eq!(differences(&before, &after), expected);
        assert_eq!(differences(&before, &before), []);
        let command = Arguments::command();
        let known = |id: &str| command.get_arguments().any(|argument| argument.get_id() == id);
        assert!(TAKEN_UP.iter().all(|id| known(id)), "{TAKEN_UP:?}");
    }

    #[test]
    fn what_is_no_setting_is_refused_by_name() {
        for (text, named) in
            [("no-such = 1", "no-such"), ("config = \"x\"", "config"), ("listen = 1.5", "listen"), ("listen", "listen")]
        {
            let error = with_file(Arguments::command(), text).expect_err("refused");
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }

    #[test]
    fn the_file_is_found_wherever_it_is_named() {
        let file = |line: &[&str]| file(line.iter().map(OsString::from));
        assert_eq!(file(&["syncline-server", "--open", "--config", "a"]), Some(PathBuf::from("a")));
        assert_eq!(file(&["syncline-server", "--config=b"]), Some(PathBuf::from("b")));
    }
}

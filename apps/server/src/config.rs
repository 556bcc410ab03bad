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

/// Reads the command line, with what the file says beneath it.
///
/// # Errors
/// When the file cannot be used. A command line that cannot ends the process with what is wrong.
pub(crate) fn read() -> anyhow::Result<(Arguments, ArgMatches)> {
    let mut command = Arguments::command();
    if let Some(file) = file(std::env::args_os()) {
        let text = std::fs::read_to_string(&file).with_context(|| format!("{FILE_FLAG} {}", file.display()))?;
        command = with_file(command, &text).with_context(|| format!("{FILE_FLAG} {}", file.display()))?;
    }
    let matches = command.get_matches();
    let arguments = Arguments::from_arg_matches(&matches)?;
    Ok((arguments, matches))
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

/// The words that would stand on the command line. They live as long as the process, as its settings do.
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
    let mut lines = Vec::new();
    for argument in command.get_arguments().filter(|argument| is_setting(argument)) {
        let Some(name) = argument.get_long() else { continue };
        let values: Vec<String> = matches
            .get_raw(argument.get_id().as_str())
            .into_iter()
            .flatten()
            .map(|value| written(Path::new(value)))
            .collect();
        let several = matches!(argument.get_action(), clap::ArgAction::Append);
        lines.push(match (values.as_slice(), several) {
            ([], true) => format!("# {name} = []"),
            ([], false) => format!("# {name} ="),
            (values, true) => format!("{name} = [{}]", values.join(", ")),
            ([value, ..], false) => format!("{name} = {value}"),
        });
    }
    lines.join("\n")
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

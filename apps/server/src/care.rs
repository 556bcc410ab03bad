//! Commands that look after a store: copies, restoring, files in and out, numbers.
//!
//! Owns: their arguments, what they print, their exit codes. Must not: hold logic; the server and store crates have it.
//! Next: `syncline_server::care`, `syncline_store::backup`; docs/operations.md.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use syncline_core::clock::Stamp;
use syncline_core::loader::Loader;
use syncline_server::care::{Import, Imported, Layout, backup_name, export, rewind};
use syncline_store::backup::{self, Progress};
use syncline_store::{CheckReport, Options, Store};

use crate::say::say;

/// The largest documents that `stats` names.
const LARGEST: usize = 10;

/// What can be done to a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Care {
    /// Copy the data to one file, also while a server uses it; the copy is verified
    Backup {
        /// The file; or a directory that is there, in which the copy is named after the time, seconds since 1970
        to: PathBuf,
    },
    /// Make a new data directory of a backup
    Restore {
        /// The backup
        from: PathBuf,
        /// Go back further: only what was durable at this stamp (a decimal number, as the HTTP API tells stamps)
        #[arg(long)]
        until: Option<u64>,
    },
    /// Fold all documents and give unused room back to the file system; no server may use the data
    Compact,
    /// Tell what is in the data, also while a server uses it
    Stats,
    /// Write every document to a file of its own, ID.automerge; no server may use the data
    Export {
        /// The directory; made if it is not there
        to: PathBuf,
    },
    /// Take documents in; can be repeated, and goes on where it was stopped; no server may use the data
    Import {
        /// A directory of ID.automerge files, as export writes them
        from: PathBuf,
        /// The directory is the storage of an automerge-repo server (NodeFS)
        #[arg(long)]
        automerge_repo: bool,
    },
}

impl Care {
    pub(crate) fn run(&self, data: &Path, loader: Arc<dyn Loader>) -> anyhow::Result<ExitCode> {
        match self {
            Self::Backup { to } => back_up(data, to),
            Self::Restore { from, until: None } => {
                let bar = bar("pages");
                let report = backup::restore(from, data, |progress| show(&bar, progress))?;
                bar.finish_and_clear();
                print_copy("restored to", data, &report);
                Ok(ExitCode::SUCCESS)
            }
            Self::Restore { from, until: Some(until) } => restore_until(from, Stamp::from_u64(*until), data, loader),
            Self::Compact => compact(data, loader),
            Self::Stats => stats(data),
            Self::Export { to } => {
                let store = Store::open(data, Options { loader, ..Options::default() })?;
                let bar = bar("documents");
                bar.set_length(store.count());
                let exported = export(&store, to, || bar.inc(1))?;
                bar.finish_and_clear();
                store.close()?;
                say(format_args!(
                    "exported {} documents, {} bytes, to {}",
                    exported.documents,
                    exported.bytes,
                    to.display()
                ));
                Ok(ExitCode::SUCCESS)
            }
            Self::Import { from, automerge_repo } => {
                let layout = if *automerge_repo { Layout::NodeFs } else { Layout::Files };
                std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
                let import = Import::prepare(from, layout, data)?;
                if import.is_empty() {
                    bail!("{} holds no documents in this layout", from.display());
                }
                let bar = bar("documents");
                bar.set_length(import.len() as u64);
                let imported = runtime()?.block_on(import.run(data, loader, || bar.inc(1)))?;
                bar.finish_and_clear();
                Ok(report_import("imported", &imported))
            }
        }
    }
}

fn back_up(data: &Path, to: &Path) -> anyhow::Result<ExitCode> {
    let bar = bar("pages");
    let to = if to.is_dir() { to.join(backup_name()) } else { to.to_owned() };
    let report = backup::backup(data, &to, |progress| show(&bar, progress))?;
    bar.finish_and_clear();
    print_copy("backed up to", &to, &report);
    Ok(ExitCode::SUCCESS)
}

fn restore_until(from: &Path, until: Stamp, data: &Path, loader: Arc<dyn Loader>) -> anyhow::Result<ExitCode> {
    if data.join("syncline.db").exists() {
        bail!("{} has a store already: choose a new --data directory", data.display());
    }
    let whole = tempfile::Builder::new().prefix("syncline-restore-").tempdir()?;
    let bar = bar("documents");
    backup::restore(from, whole.path(), |_| {})?;
    let rewound = runtime()?.block_on(rewind(whole.path(), until, data, loader, || bar.inc(1)))?;
    bar.finish_and_clear();
    Ok(report_import("restored", &rewound))
}

fn compact(data: &Path, loader: Arc<dyn Loader>) -> anyhow::Result<ExitCode> {
    let file = data.join("syncline.db");
    let before = file.metadata().with_context(|| format!("there is no store in {}", data.display()))?.len();
    let store = Store::open(data, Options { loader, ..Options::default() })?;
    store.settle();
    store.close()?;
    drop(store);
    backup::vacuum(data)?;
    say(format_args!("compacted: {before} bytes before, {} after", file.metadata()?.len()));
    Ok(ExitCode::SUCCESS)
}

fn stats(data: &Path) -> anyhow::Result<ExitCode> {
    let stats = syncline_store::stats(data, LARGEST)?;
    let size = |name: &str| data.join(name).metadata().map_or(0, |file| file.len());
    let rows = [
        ("documents", stats.documents),
        ("deleted", stats.deleted),
        ("changes", stats.changes),
        ("change bytes", stats.bytes),
        ("snapshot bytes", stats.snapshot_bytes),
        ("commits in the log", stats.unfolded),
        ("blobs", stats.blobs),
        ("blob bytes", stats.blob_bytes),
        ("newest stamp", stats.newest.as_u64()),
        ("file bytes", size("syncline.db")),
        ("log file bytes", size("syncline.db-wal")),
    ];
    for (name, value) in rows {
        say(format_args!("{name:<20} {value}"));
    }
    for (id, bytes, changes) in stats.largest {
        say(format_args!("{:<20} {id}: {bytes} bytes, {changes} changes", "largest"));
    }
    Ok(ExitCode::SUCCESS)
}

fn report_import(verb: &str, imported: &Imported) -> ExitCode {
    for (id, reason) in &imported.refused {
        say(format_args!("refused {id}: {reason}"));
    }
    let Imported { documents, earlier, strange, refused } = imported;
    say(format_args!(
        "{verb} {documents} documents, {earlier} of them in an earlier run; refused {}; {strange} other files",
        refused.len()
    ));
    if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn print_copy(verb: &str, place: &Path, report: &CheckReport) {
    say(format_args!(
        "{verb} {}: verified, {} documents, {} changes; {} blobs",
        place.display(),
        report.documents,
        report.changes,
        report.blobs
    ));
}

fn bar(unit: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {unit} {{eta}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.pages);
    bar.set_position(progress.done);
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

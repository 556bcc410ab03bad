//! Notes in a window: several people write one text at once, see each other's cursors, and lose nothing offline.
//!
//!     cargo run --release -- --name Anna
//!     cargo run --release -- --name Bert --directory other --server ws://127.0.0.1:3030 --open automerge:...
//!
//! Owns: the command line and the window. Must not: block: a window's thread waits for nobody. Next: `note.rs`.

mod note;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use eframe::egui::{self, Align, Layout, RichText};
use syncline::{DocumentUrl, Repo, Server};

use crate::note::{Finding, Note, create};

/// Between two looks at what changes without a touch.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Notes that several people write at once.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where notes are kept.
    #[arg(long, default_value = "notes")]
    directory: PathBuf,
    /// A server to sync with, as ws://host:port; without one everything stays on this machine.
    #[arg(long, env = "NOTES_SERVER")]
    server: Option<String>,
    /// How others see you.
    #[arg(long, default_value = "somebody")]
    name: String,
    /// A note to open, by the address that somebody gave you.
    #[arg(long)]
    open: Option<DocumentUrl>,
}

struct Notes {
    repo: Repo,
    /// Keeps the connection.
    server: Option<Server>,
    address: Option<String>,
    name: String,
    notes: Vec<Note>,
    finding: Vec<Finding>,
    shown: usize,
    /// What is typed where a note's address goes.
    wanted: String,
    trouble: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { directory, server: address, name, open } = Arguments::parse();
    let repo = Repo::open(&directory)?;
    let server = address.as_deref().map(|address| repo.connect(address)).transpose()?;
    let window = move |creation: &eframe::CreationContext<'_>| {
        let mut notes = Notes {
            repo,
            server,
            address,
            name,
            notes: Vec::new(),
            finding: Vec::new(),
            shown: 0,
            wanted: String::new(),
            trouble: None,
        };
        notes.open_all(&creation.egui_ctx, open);
        Ok(Box::new(notes) as Box<dyn eframe::App>)
    };
    eframe::run_native("Notes", eframe::NativeOptions::default(), Box::new(window))
        .map_err(|error| anyhow::anyhow!("the window cannot be opened: {error}"))
}

impl Notes {
    /// Everything that is here, and the note that was asked for.
    fn open_all(&mut self, context: &egui::Context, open: Option<DocumentUrl>) {
        match self.repo.list() {
            Ok(urls) => {
                for url in urls {
                    let opened = self.repo.find_local(&url);
                    let opened = opened.map_err(anyhow::Error::from);
                    let note = opened.and_then(|document| Note::open(document, &self.name, context));
                    self.take(note);
                }
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
        if let Some(url) = open {
            self.find(url, context);
        }
    }

    fn take(&mut self, note: anyhow::Result<Note>) {
        match note {
            Ok(note) => self.notes.push(note),
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
    }

    fn find(&mut self, url: DocumentUrl, context: &egui::Context) {
        match self.notes.iter().position(|note| note.url() == url) {
            Some(at) => self.shown = at,
            None => self.finding.push(Finding::start(&self.repo, url, context)),
        }
    }

    /// Takes in what has been found since the last frame.
    fn take_found(&mut self, context: &egui::Context) {
        let (found, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.finding).into_iter().partition(Finding::is_done);
        self.finding = still;
        for finding in found {
            let opened = finding.take().and_then(|document| Note::open(document, &self.name, context));
            self.take(opened);
            self.shown = self.notes.len().saturating_sub(1);
        }
    }

    fn list(&mut self, ui: &mut egui::Ui) {
        let context = ui.ctx().clone();
        ui.add_space(6.0);
        if ui.button("New note").clicked() {
            let note = create(&self.repo).and_then(|document| Note::open(document, &self.name, &context));
            self.take(note);
            self.shown = self.notes.len().saturating_sub(1);
        }
        ui.horizontal(|ui| {
            let typed =
                ui.add(egui::TextEdit::singleline(&mut self.wanted).hint_text("automerge:…").desired_width(120.0));
            let entered = typed.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            if ui.button("Open").clicked() || entered {
                match self.wanted.trim().parse() {
                    Ok(url) => {
                        self.find(url, &context);
                        self.wanted.clear();
                    }
                    Err(error) => self.trouble = Some(format!("not a note's address: {error}")),
                }
            }
        });
        ui.separator();
        for (at, note) in self.notes.iter().enumerate() {
            if ui.selectable_label(at == self.shown, note.title()).clicked() {
                self.shown = at;
            }
        }
        for finding in &self.finding {
            ui.weak(format!("looking for {}", finding.url()));
        }
    }

    fn status_line(&mut self, ui: &mut egui::Ui) {
        ui.horizontal(|ui| {
            if let Some(trouble) = self.trouble.clone() {
                ui.colored_label(ui.visuals().error_fg_color, trouble);
                if ui.small_button("dismiss").clicked() {
                    self.trouble = None;
                }
                return;
            }
            if let Some(note) = self.notes.get(self.shown) {
                ui.label(note.status());
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let online = self.server.is_some();
                if let Some(address) = &self.address {
                    let label = if online { "Work offline" } else { "Go online" };
                    if ui.small_button(label).clicked() {
                        // Dropping the handle is what leaves a server.
                        self.server = if online { None } else { self.repo.connect(address).ok() };
                    }
                }
                if let Some(note) = self.notes.get(self.shown)
                    && ui.small_button("Copy address").clicked()
                {
                    ui.ctx().copy_text(note.url().to_string());
                }
            });
        });
    }
}

impl eframe::App for Notes {
    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        self.take_found(&ui.ctx().clone());
        // Where others are, and where changes are, is told while nothing is typed, too.
        ui.ctx().request_repaint_after(LOOK_AGAIN);
        egui::Panel::left("notes").show(ui, |ui| self.list(ui));
        egui::Panel::bottom("status").show(ui, |ui| self.status_line(ui));
        egui::CentralPanel::default().show(ui, |ui| match self.notes.get_mut(self.shown) {
            Some(note) => {
                if let Err(error) = note.show(ui) {
                    self.trouble = Some(format!("{error:#}"));
                }
            }
            None => {
                ui.centered_and_justified(|ui| {
                    ui.label(RichText::new("Make a note, or open one by its address.").weak())
                });
            }
        });
    }
}
